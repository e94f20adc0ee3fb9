#include "kit/view.hpp"

#include "ai_vmm/compute_backend.hpp"
#include "ops/op.hpp"

namespace ai_vmm {

using backend::make;
using backend::text;
using backend::view;

template <class T>
const T* GraphView::keep(std::vector<T> list) {
  auto p = std::make_shared<std::vector<T>>(std::move(list));
  lists_.push_back(p);
  return p->data();
}

int64_t GraphView::code(const Dim& dim) {
  if (auto c = dim.constant(); c && *c >= 0) return *c;
  std::string s = dim.to_string();
  for (size_t i = 0; i < texts_.size(); ++i)
    if (texts_[i] == s) return -1 - int64_t(i);
  texts_.push_back(std::move(s));
  return -int64_t(texts_.size());
}

const AiVmmValue* GraphView::value(std::string_view name, const Type& type, const Tensor& constant,
                                   const std::vector<Dim>* ints) {
  auto v = make<AiVmmValue>();
  v.name = text(name);
  v.dtype = static_cast<int32_t>(type.dtype);
  v.rank = static_cast<int32_t>(type.rank());
  auto codes = [&](const std::vector<Dim>& dims) {
    std::vector<int64_t> c;
    for (const Dim& d : dims) c.push_back(code(d));
    return keep(std::move(c));
  };
  if (type.ranked) v.dims = codes(type.dims);
  if (constant) {
    static const char kEmpty = 0;
    v.data = constant.data() ? constant.data() : &kEmpty;
    v.bytes = static_cast<uint64_t>(constant.bytes());
  }
  v.int_count = -1;
  if (ints) {
    v.ints = codes(*ints);
    v.int_count = static_cast<int64_t>(ints->size());
  }
  values_.push_back(v);
  return &values_.back();
}

GraphView::GraphView(const Graph& g) : graph_(make<AiVmmGraph>()) {
  std::vector<const AiVmmValue*> values;
  for (const Value& v : g.values) values.push_back(value(v.name, v.type, v.constant, v.ints ? &*v.ints : nullptr));
  std::vector<const AiVmmNode*> nodes;
  for (const Node& n : g.nodes) {
    auto out = make<AiVmmNode>();
    out.name = text(n.name);
    out.op = text(n.op);
    out.domain = text(n.domain);
    out.version = n.def ? n.def->since : 0;
    out.input_count = static_cast<uint32_t>(n.inputs.size());
    out.output_count = static_cast<uint32_t>(n.outputs.size());
    out.inputs = n.inputs.data();
    out.outputs = n.outputs.data();
    std::vector<const AiVmmAttribute*> attributes;
    for (const Attribute& a : n.attributes) {
      auto t = make<AiVmmAttribute>();
      t.name = text(a.name);
      if (auto* i = std::get_if<int64_t>(&a.value)) {
        t.kind = AI_VMM_ATTRIBUTE_INT;
        t.i = *i;
      } else if (auto* f = std::get_if<float>(&a.value)) {
        t.kind = AI_VMM_ATTRIBUTE_FLOAT;
        t.f = *f;
      } else if (auto* s = std::get_if<std::string>(&a.value)) {
        t.kind = AI_VMM_ATTRIBUTE_STRING;
        t.s = text(*s);
      } else if (auto* tensor = std::get_if<Tensor>(&a.value)) {
        t.kind = AI_VMM_ATTRIBUTE_TENSOR;
        t.tensor = value(a.name, Type::tensor(tensor->dtype(), to_dims(tensor->shape())), *tensor, nullptr);
      } else if (auto* ints = std::get_if<std::vector<int64_t>>(&a.value)) {
        t.kind = AI_VMM_ATTRIBUTE_INTS;
        t.ints = ints->data();
        t.count = static_cast<uint32_t>(ints->size());
      } else if (auto* floats = std::get_if<std::vector<float>>(&a.value)) {
        t.kind = AI_VMM_ATTRIBUTE_FLOATS;
        t.floats = floats->data();
        t.count = static_cast<uint32_t>(floats->size());
      } else if (auto* strings = std::get_if<std::vector<std::string>>(&a.value)) {
        t.kind = AI_VMM_ATTRIBUTE_STRINGS;
        std::vector<AiVmmText> list;
        for (const std::string& s : *strings) list.push_back(text(s));
        t.strings = keep(std::move(list));
        t.count = static_cast<uint32_t>(strings->size());
      } else {
        continue;  // lists of tensors and types belong to operators that never cross
      }
      attributes_.push_back(t);
      attributes.push_back(&attributes_.back());
    }
    out.attribute_count = static_cast<uint32_t>(attributes.size());
    out.attributes = keep(std::move(attributes));
    nodes_.push_back(out);
    nodes.push_back(&nodes_.back());
  }
  for (const std::string& s : texts_) expressions_.push_back(text(s));
  graph_.name = text(g.name);
  graph_.value_count = static_cast<uint32_t>(values.size());
  graph_.node_count = static_cast<uint32_t>(nodes.size());
  graph_.input_count = static_cast<uint32_t>(g.inputs.size());
  graph_.output_count = static_cast<uint32_t>(g.outputs.size());
  graph_.expression_count = static_cast<uint32_t>(expressions_.size());
  graph_.values = keep(std::move(values));
  graph_.nodes = keep(std::move(nodes));
  graph_.inputs = g.inputs.data();
  graph_.outputs = g.outputs.data();
  graph_.expressions = expressions_.data();
}

Result<Graph> graph_from_view(const AiVmmGraph& v) {
  Graph g;
  g.name = view(v.name);
  std::vector<Dim> expressions;
  for (uint32_t i = 0; i < v.expression_count; ++i) {
    Dim d = AI_VMM_TAKE(Dim::parse(view(v.expressions[i])));
    expressions.push_back(std::move(d));
  }
  auto dims = [&](const int64_t* codes, int64_t count) {
    std::vector<Dim> d;
    for (int64_t i = 0; i < count; ++i)
      d.push_back(codes[i] >= 0 ? Dim(codes[i]) : expressions[static_cast<size_t>(-1 - codes[i])]);
    return d;
  };
  auto type = [&](const AiVmmValue& x) {
    DType t = static_cast<DType>(x.dtype);
    return x.rank < 0 ? Type::tensor(t) : Type::tensor(t, dims(x.dims, x.rank));
  };
  auto constant = [&](const AiVmmValue& x) {
    return Tensor::view(static_cast<DType>(x.dtype), Shape(x.dims, x.dims + x.rank), x.data);
  };
  for (uint32_t i = 0; i < v.value_count; ++i) {
    const AiVmmValue& x = *v.values[i];
    Value value;
    value.name = view(x.name);
    value.type = type(x);
    if (x.data) value.constant = constant(x);
    if (x.int_count >= 0) value.ints = dims(x.ints, x.int_count);
    g.values.push_back(std::move(value));
  }
  for (uint32_t i = 0; i < v.node_count; ++i) {
    const AiVmmNode& x = *v.nodes[i];
    Node& n = g.add_node(view(x.op), {x.inputs, x.inputs + x.input_count}, {x.outputs, x.outputs + x.output_count},
                         view(x.domain));
    n.name = view(x.name);
    n.def = find_op(n.domain, n.op);
    if (!n.def) return Status(Code::unimplemented, "The " + n.label() + " is not known to this build.");
    for (uint32_t k = 0; k < x.attribute_count; ++k) {
      const AiVmmAttribute& a = *x.attributes[k];
      AttrValue value;
      switch (a.kind) {
        case AI_VMM_ATTRIBUTE_INT: value = a.i; break;
        case AI_VMM_ATTRIBUTE_FLOAT: value = a.f; break;
        case AI_VMM_ATTRIBUTE_STRING: value = std::string(view(a.s)); break;
        case AI_VMM_ATTRIBUTE_TENSOR: value = constant(*a.tensor); break;
        case AI_VMM_ATTRIBUTE_INTS: value = std::vector<int64_t>(a.ints, a.ints + a.count); break;
        case AI_VMM_ATTRIBUTE_FLOATS: value = std::vector<float>(a.floats, a.floats + a.count); break;
        case AI_VMM_ATTRIBUTE_STRINGS: {
          std::vector<std::string> list;
          for (uint32_t s = 0; s < a.count; ++s) list.emplace_back(view(a.strings[s]));
          value = std::move(list);
          break;
        }
        default: continue;
      }
      n.attributes.push_back({std::string(view(a.name)), std::move(value)});
    }
  }
  g.inputs.assign(v.inputs, v.inputs + v.input_count);
  g.outputs.assign(v.outputs, v.outputs + v.output_count);
  return g;
}

}  // namespace ai_vmm
