// Nodes that give back what they are given, and pairs that are one node.
#include <algorithm>

#include "passes/edit.hpp"
#include "passes/list.hpp"

namespace ai_vmm {

namespace {

bool all_equal(const std::optional<std::vector<int64_t>>& values, int64_t to) {
  return values && std::all_of(values->begin(), values->end(), [&](int64_t v) { return v == to; });
}

bool reshapes(const Node& node) {
  return node.domain.empty() &&
         (node.op == "Reshape" || node.op == "Flatten" || node.op == "Squeeze" || node.op == "Unsqueeze");
}

// The value that output 0 of `node` provably equals, or kAbsent.
ValueId equal_input(Edit& edit, const Node& node) {
  if (!node.domain.empty() || !node.has_input(0) || !node.has_output(0)) return kAbsent;
  ValueId x = node.inputs[0], y = node.outputs[0];
  const std::string& op = node.op;
  bool same = edit.same_shape(x, y);
  if (op == "Identity") return x;
  if (op == "Dropout") {
    if (node.has_output(1)) return kAbsent;
    if (!node.has_input(2)) return x;
    const Tensor* training = edit.constant(node.inputs[2]);
    return training && training->dtype() == DType::boolean && training->count() == 1 && !training->as<bool>()[0]
               ? x
               : kAbsent;
  }
  if ((op == "Sum" || op == "Max" || op == "Min" || op == "Mean" || op == "Concat") && node.inputs.size() == 1)
    return x;
  if (op == "Cast" || op == "CastLike") {
    DType t = edit.type(x).dtype;
    return t != DType::undefined && t == edit.type(y).dtype ? x : kAbsent;
  }
  if (op == "Transpose") {
    auto perm = node.ints("perm");
    if (perm.empty()) return edit.type(x).rank() >= 0 && edit.type(x).rank() <= 1 ? x : kAbsent;
    return std::is_sorted(perm.begin(), perm.end()) ? x : kAbsent;
  }
  if (op == "Expand" || (op == "Tile" && same)) return same ? x : kAbsent;
  if (reshapes(node)) {
    // Any chain of reshapes that ends with the shape it began with.
    for (ValueId root = x;;) {
      if (edit.same_shape(root, y)) return root;
      Node* up = edit.maker(root);
      if (!up || !reshapes(*up) || !up->has_input(0)) return kAbsent;
      root = up->inputs[0];
    }
  }
  if (op == "Slice") return same && (!node.has_input(4) || all_equal(edit.ints(node.inputs[4]), 1)) ? x : kAbsent;
  if (op == "Pad") return same && node.has_input(1) && all_equal(edit.ints(node.inputs[1]), 0) ? x : kAbsent;
  if (op == "Split" && node.outputs.size() == 1) return same ? x : kAbsent;
  if ((op == "Add" || op == "Sub" || op == "Mul" || op == "Div" || op == "Pow") && node.has_input(1)) {
    double neutral = op == "Add" || op == "Sub" ? 0 : 1;
    if (same && edit.scalar(node.inputs[1]) == neutral) return x;
    if ((op == "Add" || op == "Mul") && edit.scalar(x) == neutral && edit.same_shape(node.inputs[1], y))
      return node.inputs[1];
  }
  return kAbsent;
}

// Transpose of a Transpose is one Transpose.
void merge_transposes(Edit& edit, Node& node) {
  Node* up = edit.maker(node.inputs[0], "Transpose");
  auto perm = node.ints("perm");
  if (!up || perm.empty()) return;
  auto first = up->ints("perm");
  if (first.size() != perm.size()) return;
  std::vector<int64_t> both;
  for (int64_t p : perm) {
    if (p < 0 || p >= int64_t(first.size())) return;
    both.push_back(first[static_cast<size_t>(p)]);
  }
  edit.become(node, "Transpose", {up->inputs[0]}, {{"perm", both}});
}

// A Reshape to a shape that does not copy sizes from its input may read the source of the reshape before it.
void skip_reshape(Edit& edit, Node& node) {
  Node* up = edit.maker(node.inputs[0]);
  if (!up || !reshapes(*up) || !up->has_input(0) || !node.has_input(1)) return;
  auto shape = edit.ints(node.inputs[1]);
  if (!shape || std::count(shape->begin(), shape->end(), 0)) return;
  edit.set_input(node, 0, up->inputs[0]);
  ++edit.changes;
}

// A target computed from sizes becomes a constant where 0 (as in the input) and one -1 (the rest) can say the same;
// what computed it is then dead. A -1 beside sizes that may be 0 is not computable, so it stands beside numbers only.
void fix_target(Edit& edit, Node& node) {
  const Type& x = edit.type(node.inputs[0]);
  if (!node.has_input(1) || edit.constant(node.inputs[1]) || !x.ranked) return;
  const auto& elements = edit.graph.value(node.inputs[1]).ints;
  if (!elements || node.i("allowzero", 0)) return;
  std::vector<int64_t> target;
  bool rest = false, given_rest = false, may_be_empty = false;
  for (size_t k = 0; k < elements->size(); ++k) {
    const Dim& d = (*elements)[k];
    auto c = d.constant();
    if (c && *c > 0) {
      target.push_back(*c);
    } else if (c ? *c == 0 : k < x.dims.size() && d == x.dims[k]) {
      if (k >= x.dims.size()) return;
      target.push_back(0);
      may_be_empty = may_be_empty || !x.dims[k].is_constant() || x.dims[k].is(0);
    } else {
      if (rest || (c && *c != -1)) return;
      rest = true;
      given_rest = c.has_value();
      target.push_back(-1);
    }
  }
  if (rest && may_be_empty && !given_rest) return;
  edit.set_input(node, 1, edit.add_constant(edit.graph.value(node.inputs[1]).name, Tensor::vector(target)));
  ++edit.changes;
}

// Reshape(Softmax(Flatten(x))) back to the shape of x, where only one of the flattened dimensions is not 1: what
// remains of the meaning of Softmax before version 13.
void unflatten_softmax(Edit& edit, Node& node) {
  for (const char* op : {"Softmax", "LogSoftmax", "Hardmax"}) {
    Node* softmax = edit.maker(node.inputs[0], op);
    if (!softmax || edit.uses(node.inputs[0]) != 1 || softmax->i("axis", -1) != -1) continue;
    Node* flatten = edit.maker(softmax->inputs[0], "Flatten");
    if (!flatten || !edit.same_shape(flatten->inputs[0], node.outputs[0])) continue;
    const auto& dims = edit.type(flatten->inputs[0]).dims;
    auto rank = int64_t(dims.size()), axis = flatten->i("axis", 1);
    if (axis < 0) axis += rank;
    int64_t wide = -1, count = 0;
    for (int64_t k = std::max<int64_t>(axis, 0); k < rank; ++k)
      if (!dims[static_cast<size_t>(k)].is(1)) {
        wide = k;
        ++count;
      }
    if (count > 1 || rank == 0 || axis >= rank) continue;
    edit.become(node, op, {flatten->inputs[0]}, {{"axis", count ? wide : rank - 1}});
    return;
  }
}

Result<int64_t> simplify_here(Graph& graph) {
  Edit edit(graph);
  for (size_t n = 0; n < edit.size(); ++n) {
    Node& node = edit.visit(n);
    if (edit.removed(n) || !node.domain.empty() || !node.has_input(0) || !node.has_output(0)) continue;
    if (node.op == "CastLike" && node.has_input(1) && edit.type(node.inputs[1]).dtype != DType::undefined) {
      auto attributes = node.attributes;
      attributes.push_back({"to", static_cast<int64_t>(edit.type(node.inputs[1]).dtype)});
      edit.become(node, "Cast", {node.inputs[0]}, std::move(attributes));
    }
    ValueId y = node.outputs[0], x = equal_input(edit, node);
    if (x != kAbsent && edit.uses(y) > 0) {
      edit.forward(n, y, x);
      continue;
    }
    if (node.op == "Sum" && node.inputs.size() == 2) edit.become(node, "Add", std::vector<ValueId>(node.inputs));
    if (node.op == "Transpose") merge_transposes(edit, node);
    if (node.op == "Reshape") unflatten_softmax(edit, node);
    if (node.op == "Reshape") fix_target(edit, node);
    if (node.op == "Reshape") skip_reshape(edit, node);
  }
  return edit.finish();
}

}  // namespace

Result<int64_t> simplify(Graph& graph) { return over_bodies(graph, simplify_here); }

}  // namespace ai_vmm
