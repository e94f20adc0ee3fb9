#include "gpu/kernel.hpp"

#include <algorithm>
#include <cstdio>

#include "base/hash.hpp"
#include "gpu/ops/ops.hpp"

namespace ai_vmm::gpu {

Launch& Launch::items(Size3 count, Size3 group) {
  for (size_t d = 0; d < 3; ++d) {
    local[d] = std::max<int64_t>(1, group[d]);
    global[d] = round_up(d ? std::max<int64_t>(1, count[d]) : count[d], local[d]);
  }
  return *this;
}

Launch launch(const std::string& base, std::string_view text, const Words& words) {
  Words all = words;
  all["kernel"] = "@";
  std::string anonymous = fill(text, all);
  char suffix[24];
  std::snprintf(suffix, sizeof suffix, "_%016llx",
                static_cast<unsigned long long>(hash_bytes(std::as_bytes(std::span(anonymous)))));
  Launch l;
  l.source.name = base + suffix;
  all["kernel"] = l.source.name;
  l.source.text = fill(text, all);
  return l;
}

bool Bind::large() const {
  for (const auto* list : {&in_shapes, &out_shapes})
    for (const Shape* s : *list)
      if (s && product(*s) >= INT32_MAX) return true;
  return false;
}

const KernelEntry* find_kernel(std::string_view domain, std::string_view op) {
  static constexpr KernelEntry kEntries[] = {
#define KERNEL(domain, op, make) {domain, op, make},
#define FUSED(domain, op, make, channel) {domain, op, make, channel},
#include "gpu/ops/ops.def"
  };
  for (const KernelEntry& e : kEntries)
    if (domain == e.domain && op == e.op) return &e;
  return nullptr;
}

Made make_kernel(const Make& m) {
  const KernelEntry* entry = find_kernel(m.node.domain, m.node.op);
  for (ValueId v : m.node.inputs)
    if (v != kAbsent && !m.graph.value(v).type.ranked)
      return {AI_VMM_REFUSED_RANK, "the rank of an input is not known"};
  for (ValueId v : m.node.outputs)
    if (v != kAbsent && !m.graph.value(v).type.ranked)
      return {AI_VMM_REFUSED_DYNAMIC, "the rank of an output is known only when it runs"};
  if (!m.traits.f64)
    for (const auto* list : {&m.node.inputs, &m.node.outputs})
      for (ValueId v : *list)
        if (v != kAbsent && m.graph.value(v).type.dtype == DType::f64)
          return refuse_type("the device has no double precision");
  if (m.expression) return make_elementwise(m);
  if (entry) return entry->make(m);
  if (expression_of(m.graph, m.node)) return make_elementwise(m);
  return {AI_VMM_REFUSED_OPERATOR, "there is no kernel for this operator"};
}

EpilogueText epilogue_text(const Epilogue* e, int width, bool channel_lanes, const std::string& partial) {
  EpilogueText t;
  t.result = "v";
  if (!e || e->code.code.empty()) return t;
  std::vector<std::string> inputs{"v"};
  const std::string type = vector_type(width);
  for (size_t k = 0; k < e->access.size(); ++k) {
    std::string p = "e" + std::to_string(k), x = "x" + std::to_string(k);
    t.parameters += ", GLOBAL const float* RESTRICT " + p;
    const bool full = e->access[k] == Epilogue::Access::full,
               lanes = full || (e->access[k] == Epilogue::Access::channel && channel_lanes);
    const std::string at = p + (full ? " + o" : " + c");
    if (!lanes) {
      std::string index = e->access[k] == Epilogue::Access::scalar ? "0" : "c";
      t.body += "const " + type + " " + x + " = (" + type + ")(" + p + "[" + index + "]);\n";
    } else if (partial.empty()) {
      t.body += "const " + type + " " + x + " = " + vector_load(width, at) + ";\n";
    } else {
      std::string w = std::to_string(width);
      t.body += type + " " + x + ";\nif (" + partial + ") {\nfloat part[" + w + "];\nNO_UNROLL for (int l = 0; l < " +
                w + "; ++l) part[l] = at[l] < 0 ? 0.0f : (" + at + ")[at[l]];\n" + x + " = " +
                vector_load(width, "part") + ";\n} else {\n" + x + " = " + vector_load(width, at) + ";\n}\n";
    }
    inputs.push_back(x);
  }
  t.functions = functions(e->code, width);
  t.body += statements(e->code, width, inputs, "t", t.result);
  return t;
}

void add_epilogue(Launch& l, const Epilogue* e) {
  if (!e || e->code.code.empty()) return;
  for (size_t k = 0; k < e->access.size(); ++k) l.in(e->first_input + k);
}

Shape strides_of(const Shape& shape) {
  Shape s(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) s[i - 1] = s[i] * shape[i];
  return s;
}

int64_t group_for(const Traits& t, int64_t n) {
  int64_t most = std::min<int64_t>(t.max_group, t.wide ? 1024 : 256), g = t.wide ? 16 : 32;
  while (g * 2 <= most && n >= g * 2 * t.units * (t.wide ? 4 : 2)) g *= 2;
  return std::min(g, most);
}

}  // namespace ai_vmm::gpu
