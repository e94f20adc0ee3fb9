// MatMul and Gemm take over the transposes, scaling, bias, residual and activation around them.
#include "backends/cpu/act.hpp"
#include "backends/cpu/rewrite.hpp"

namespace ai_vmm::cpu {

namespace {

std::vector<int64_t> perm_of(const Node& n, int64_t rank) {
  auto p = n.ints("perm");
  if (p.empty())
    for (int64_t d = rank; d-- > 0;) p.push_back(d);
  return p;
}

class Fuse {
 public:
  explicit Fuse(Graph& graph) : g(graph), r(graph) {}

  void run() {
    for (size_t i = 0; i < g.nodes.size(); ++i) {
      const Node& n = g.nodes[i];
      bool matmul = n.op == "MatMul" && n.domain.empty(), gemm = n.op == "Gemm" && n.domain.empty();
      if ((!matmul && !gemm) || !r.is_f32(n.inputs[0]) || !r.is_f32(n.inputs[1]) || !r.is_f32(n.outputs[0])) continue;
      if (r.type(n.inputs[0]).rank() < 2 || r.type(n.inputs[1]).rank() < 2) continue;
      at_ = i;
      node_ = n;
      bias_ = residual_ = kAbsent;
      act_ = {};
      alpha_ = 1;
      if (gemm && !take_gemm()) continue;
      node_.op = "MatMul";
      node_.domain = "cpu";
      node_.def = nullptr;
      if (matmul) {
        take_input_transpose(0, "perm_a");
        take_input_transpose(1, "perm_b");
        take_input_scale(0);
        take_input_scale(1);
      }
      while (take_user()) {
      }
      node_.inputs.resize(2);
      if (bias_ != kAbsent || residual_ != kAbsent) node_.inputs.push_back(bias_);
      if (residual_ != kAbsent) node_.inputs.push_back(residual_);
      node_.set("alpha", alpha_);
      set_activation(node_, act_);
      g.nodes[at_] = node_;
      r.refresh();
    }
    r.sweep();
  }

 private:
  bool take_gemm() {
    alpha_ = node_.f("alpha", 1);
    if (node_.has_input(2)) {
      const auto &c = r.type(node_.inputs[2]).dims, &y = r.type(node_.outputs[0]).dims;
      if (node_.f("beta", 1) != 1 || !r.is_f32(node_.inputs[2])) return false;
      if (c.empty() || !(c.back() == y[1]) || !(c.size() == 1 || (c.size() == 2 && c[0].is(1)))) return false;
      bias_ = node_.inputs[2];
    }
    node_.remove("beta");
    return true;
  }

  void take_input_transpose(size_t k, const char* attribute) {
    Node* t = r.made_by(node_.inputs[k]);
    if (!t || t->op != "Transpose" || !t->domain.empty()) return;
    int64_t rank = r.type(t->inputs[0]).rank();
    if (rank < 2) return;
    auto perm = perm_of(*t, rank);
    // One of the matrix axes must stay contiguous.
    if (perm[size_t(rank) - 1] != rank - 1 && perm[size_t(rank) - 2] != rank - 1) return;
    node_.inputs[k] = t->inputs[0];
    node_.set(attribute, perm);
    release(t);
  }
  // A node whose results nobody reads any more is dropped.
  void release(Node* n) {
    g.nodes[at_].inputs = node_.inputs;
    r.refresh();
    for (ValueId v : n->outputs)
      if (v != kAbsent && r.uses[size_t(v)] > 0) return;
    Rewriter::kill(*n);
    r.refresh();
  }
  void take_input_scale(size_t k) {
    Node* n = r.made_by(node_.inputs[k]);
    if (!n || !n->domain.empty() || (n->op != "Mul" && n->op != "Div") || r.uses[size_t(n->outputs[0])] != 1) return;
    auto second = scalar_constant(g, n->inputs[1]), first = scalar_constant(g, n->inputs[0]);
    if (second && r.same_dims(n->inputs[0], n->outputs[0])) {
      alpha_ *= n->op == "Mul" ? *second : 1 / *second;
      node_.inputs[k] = n->inputs[0];
    } else if (first && n->op == "Mul" && r.same_dims(n->inputs[1], n->outputs[0])) {
      alpha_ *= *first;
      node_.inputs[k] = n->inputs[1];
    } else {
      return;
    }
    release(n);
  }

  // The only reader of the result becomes part of the product. Reshapes between the two move behind it.
  bool take_user() {
    ValueId y = node_.outputs[0];
    g.nodes[at_] = node_;
    int next = r.sole_user(y);
    if (next < 0) return false;
    size_t reshape = SIZE_MAX;
    ValueId seen = y;
    if (is_reshape(g.nodes[size_t(next)]) && g.nodes[size_t(next)].inputs[0] == y) {
      reshape = size_t(next);
      seen = g.nodes[reshape].outputs[0];
      next = r.sole_user(seen);
      if (next < 0) return false;
    }
    Node& user = g.nodes[size_t(next)];
    if (auto a = as_activation(g, user); a && act_.act == Act::none && user.inputs[0] == seen) {
      act_ = *a;
      absorb(size_t(next), reshape);
      return true;
    }
    if (!user.domain.empty()) return false;
    if (user.op == "Transpose" && reshape == SIZE_MAX && !node_.has("perm_c") && residual_ == kAbsent) {
      auto perm = perm_of(user, r.type(y).rank());
      if (perm.back() != r.type(y).rank() - 1) return false;
      node_.set("perm_c", perm);
      absorb(size_t(next), reshape);
      return true;
    }
    if ((user.op == "Mul" || user.op == "Div") && act_.act == Act::none && bias_ == kAbsent && residual_ == kAbsent) {
      auto second = scalar_constant(g, user.inputs[1]), first = scalar_constant(g, user.inputs[0]);
      if (!r.same_dims(seen, user.outputs[0]) || !(second || (first && user.op == "Mul"))) return false;
      alpha_ *= second ? (user.op == "Mul" ? *second : 1 / *second) : *first;
      absorb(size_t(next), reshape);
      return true;
    }
    if (user.op != "Add" || user.inputs.size() != 2 || act_.act != Act::none || !r.same_dims(seen, user.outputs[0]))
      return false;
    ValueId other = user.inputs[0] == seen ? user.inputs[1] : user.inputs[0];
    if (other == seen || !r.is_f32(other)) return false;
    const auto &o = r.type(other).dims, &s = r.type(seen).dims, &t = r.type(y).dims;
    bool row = !o.empty() && o.back() == s.back() && s.back() == t.back() && !o.back().is(1);
    for (size_t d = 0; row && d + 1 < o.size(); ++d) row = o[d].is(1);
    if (row && bias_ == kAbsent && residual_ == kAbsent) {
      bias_ = other;
      absorb(size_t(next), reshape);
      return true;
    }
    if (residual_ == kAbsent && r.same_dims(other, seen) && !g.is_constant(other)) {
      residual_ = other;
      if (reshape != SIZE_MAX) {
        // The residual in the shape of the product.
        residual_ = g.add_value("", g.value(y).type);
        Node alias;
        alias.op = "Alias";
        alias.domain = "cpu";
        alias.inputs = {other};
        alias.outputs = {residual_};
        alias_ = alias;
      }
      absorb(size_t(next), reshape);
      return true;
    }
    return false;
  }

  // The product takes the place and the result of node `next`; a reshape between them now follows.
  void absorb(size_t next, size_t reshape) {
    std::vector<ValueId> result = g.nodes[next].outputs;
    Rewriter::kill(g.nodes[at_]);
    at_ = next;
    if (reshape == SIZE_MAX) {
      node_.outputs = result;
      g.nodes[at_] = node_;
    } else {
      Node moved = g.nodes[reshape];
      moved.outputs = result;
      Rewriter::kill(g.nodes[reshape]);
      g.nodes[at_] = node_;
      g.nodes.insert(g.nodes.begin() + ptrdiff_t(at_) + 1, std::move(moved));
      if (!alias_.op.empty()) {
        g.nodes.insert(g.nodes.begin() + ptrdiff_t(at_), std::move(alias_));
        ++at_;
        alias_ = Node();
      }
    }
    r.refresh();
  }

  Graph& g;
  Rewriter r;
  size_t at_ = 0;
  Node node_, alias_;
  ValueId bias_ = kAbsent, residual_ = kAbsent;
  Activation act_;
  float alpha_ = 1;
};

}  // namespace

Status fuse_products(Lowering& l) {
  Fuse(l.graph).run();
  return {};
}

}  // namespace ai_vmm::cpu
