// Elementwise operators, alone or fused: one kernel that walks over the output.
#include <algorithm>

#include "gpu/ops/ops.hpp"

namespace ai_vmm::gpu {

Walk collapse(const Shape& shape, std::vector<Shape> strides) {
  Walk w;
  w.strides.resize(strides.size());
  for (size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] == 1) continue;
    bool merge = !w.dims.empty();
    for (size_t k = 0; merge && k < strides.size(); ++k) merge = w.strides[k].back() == strides[k][d] * shape[d];
    if (merge) {
      w.dims.back() *= shape[d];
      for (size_t k = 0; k < strides.size(); ++k) w.strides[k].back() = strides[k][d];
    } else {
      w.dims.push_back(shape[d]);
      for (size_t k = 0; k < strides.size(); ++k) w.strides[k].push_back(strides[k][d]);
    }
  }
  if (w.dims.empty()) {
    w.dims.push_back(1);
    for (auto& s : w.strides) s.push_back(0);
  }
  return w;
}

Shape broadcast_strides(const Shape& from, const Shape& to) {
  Shape own = strides_of(from), s(to.size(), 0);
  for (size_t i = 0; i < from.size(); ++i)
    if (from[i] != 1) s[to.size() - from.size() + i] = own[i];
  return s;
}

namespace {

// `n` elements in a row; a work item takes `per` of them, a multiple of the vector width.
constexpr const char* kFlat = R"(${functions}
KERNEL void ${kernel}(${parameters}GLOBAL ${To}* RESTRICT out, ${idx} n, ${idx} per) {
  ${idx} first = (${idx})GID0 * per, last = first + per < n ? first + per : n;
  for (${idx} j = first; j < last; j += ${W}) {
    ${idx} k = j > n - ${W} ? n - ${W} : j;
    ${loads}${body}    ${store}
  }
}
)";

// `rows` of `n` elements; a work item takes `per` rows.
constexpr const char* kRows = R"(${functions}
KERNEL void ${kernel}(${parameters}GLOBAL ${To}* RESTRICT out, ${idx} n, ${idx} rows, ${idx} per${sizes}) {
  ${idx} first = (${idx})GID0 * per, last = first + per < rows ? first + per : rows;
  for (${idx} r = first; r < last; ++r) {
    ${idx} q = r${offsets};
${walk}    for (${idx} j = 0; j < n; j += ${W}) {
      ${idx} k = j > n - ${W} ? n - ${W} : j;
      ${loads}${body}      k += r * n;
      ${store}
    }
  }
}
)";

// One work item an element.
constexpr const char* kElements = R"(${functions}
KERNEL void ${kernel}(${parameters}GLOBAL ${To}* RESTRICT out, ${idx} n${sizes}) {
  ${idx} k = (${idx})GID0;
  if (k >= n) return;
  ${idx} q = k${offsets};
${walk}  ${loads}${body}  ${store}
}
)";

struct Plan {
  std::vector<char> scalar;  // inputs of one element
  Walk walk;
  bool flat;
};

Plan plan_of(const Bind& b, size_t inputs) {
  const Shape& out = b.out(0);
  Plan p;
  p.flat = true;
  std::vector<Shape> strides;
  for (size_t k = 0; k < inputs; ++k) {
    bool one = product(b.in(k)) == 1;
    p.scalar.push_back(one);
    p.flat &= one || b.in(k) == out;
    strides.push_back(broadcast_strides(b.in(k), out));
  }
  p.walk = collapse(out, strides);
  return p;
}

Bound bind_elementwise(const Expression& e, const Bind& b, DType out_type) {
  const int64_t count = product(b.out(0));
  if (count == 0) return {};
  const Plan p = plan_of(b, e.inputs.size());
  const Traits& t = b.traits;
  const size_t rank = p.walk.dims.size();
  const int64_t inner = p.walk.dims.back(), rows = count / inner;
  bool f32 = e.all_f32() && out_type == DType::f32;
  // Along the innermost axis every input must stand still or go by ones for vectors.
  bool steady = true;
  for (const Shape& s : p.walk.strides) steady &= s.back() == 0 || s.back() == 1;
  enum class Form { flat, rows, elements } form = Form::elements;
  if (t.wide && p.flat)
    form = Form::flat;
  else if (t.wide && steady && inner >= 16)
    form = Form::rows;
  const int width =
      f32 && form != Form::elements && (form == Form::flat ? count : inner) >= t.vector() ? t.vector() : 1;

  Words w;
  w["idx"] = b.idx();
  w["W"] = std::to_string(width);
  w["To"] = element(out_type).storage;
  w["functions"] = functions(e, width);
  std::string loads, parameters, sizes, offsets, walk;
  std::vector<std::string> names;
  for (size_t k = 0; k < e.inputs.size(); ++k) {
    std::string n = std::to_string(k), in = "in" + n, x = "x" + n;
    Element el = element(e.types[k]);
    parameters += std::string("GLOBAL const ") + el.storage + "* RESTRICT " + in + ", ";
    std::string type = width > 1 ? vector_type(width) : el.compute, value;
    std::string at = form == Form::flat ? "k" : form == Form::rows ? "o" + n + " + k" : "o" + n;
    bool still = p.scalar[k] || (form == Form::rows && p.walk.strides[k].back() == 0);
    if (still) at = p.scalar[k] ? "0" : "o" + n;
    value = width == 1 ? std::string("LD_") + el.name + "(" + in + ", " + at + ")"
            : still    ? "(" + type + ")(" + in + "[" + at + "])"
                       : vector_load(width, in + " + " + at);
    loads += "const " + type + " " + x + " = " + value + ";\n";
    names.push_back(x);
    if (form != Form::flat && !p.scalar[k]) offsets += ", o" + n + " = 0";
  }
  // The axes that are taken apart by division: all, or all but the innermost.
  const size_t outer = form == Form::rows ? rank - 1 : rank;
  for (size_t d = outer; form != Form::flat && d-- > 0;) {
    std::string n = std::to_string(d);
    walk += "    {\n      " + std::string(b.idx()) + " c = " + (d ? "q % d" + n + "; q /= d" + n : "q") + ";\n";
    if (d) sizes += std::string(", ") + b.idx() + " d" + n;
    for (size_t k = 0; k < e.inputs.size(); ++k)
      if (!p.scalar[k]) {
        std::string s = "s" + std::to_string(k) + "_" + n;
        sizes += std::string(", ") + b.idx() + " " + s;
        walk += "      o" + std::to_string(k) + " += c * " + s + ";\n";
      }
    walk += "    }\n";
  }
  w["parameters"] = parameters;
  w["loads"] = loads;
  w["sizes"] = sizes;
  w["offsets"] = offsets;
  w["walk"] = walk;
  std::string result;
  w["body"] = statements(e, width, names, "t", result);
  w["store"] = width > 1 ? vector_store(width, result, "out + k") + ";"
                         : std::string("ST_") + element(out_type).name + "(out, k, " + result + ");";
  Launch l = launch("map", form == Form::flat ? kFlat : form == Form::rows ? kRows : kElements, w);
  for (size_t k = 0; k < e.inputs.size(); ++k) l.in(k);
  l.out(0);
  if (form == Form::flat) {
    int64_t per = std::clamp<int64_t>(round_up(divide_up(count, t.units * 4), 16), 2048, 16384);
    l.scalar(b.index(count)).scalar(b.index(per)).items({divide_up(count, per)});
  } else if (form == Form::rows) {
    int64_t per = std::clamp<int64_t>(divide_up(rows, t.units * 4), 1, std::max<int64_t>(1, 8192 / inner));
    l.scalar(b.index(inner)).scalar(b.index(rows)).scalar(b.index(per)).items({divide_up(rows, per)});
  } else {
    l.scalar(b.index(count)).items({count}, {group_for(t, count)});
  }
  for (size_t d = outer; form != Form::flat && d-- > 0;) {
    if (d) l.scalar(b.index(p.walk.dims[d]));
    for (size_t k = 0; k < e.inputs.size(); ++k)
      if (!p.scalar[k]) l.scalar(b.index(p.walk.strides[k][d]));
  }
  Bound bound;
  bound.flops = double(count) * double(e.code.size());
  bound.note = form == Form::flat ? "flat" : form == Form::rows ? "rows" : "elements";
  bound.launches.push_back(std::move(l));
  return bound;
}

}  // namespace

Made make_elementwise(const Make& m) {
  std::shared_ptr<const Expression> e = m.expression;
  if (!e) {
    auto made = expression_of(m.graph, m.node);
    if (!made) return {AI_VMM_REFUSED_OPERATOR, "there is no kernel for this operator"};
    e = std::make_shared<Expression>(*std::move(made));
  }
  DType out = m.out_type(0).dtype;
  return BindFn([e, out](const Bind& b) -> Result<Bound> { return bind_elementwise(*e, b, out); });
}

}  // namespace ai_vmm::gpu
