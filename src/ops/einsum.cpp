// Einsum: sums of products over named axes.

#include <algorithm>
#include <map>
#include <set>

#include "base/text.hpp"
#include "ops/all_ops.hpp"
#include "ops/matmul.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

// An axis: a letter, or -1, -2, … for the axes that an ellipsis stands for, counted from the right.
using Label = int;
constexpr Label kEllipsis = 0;

struct Equation {
  std::vector<std::vector<Label>> inputs;
  std::vector<Label> output;
};

Result<std::vector<Label>> parse_term(std::string_view term, std::string_view equation) {
  auto bad = [&] {
    return Status(Code::invalid_argument, "The equation \"" + std::string(equation.substr(0, 200)) +
                                              "\" is malformed near \"" + std::string(term.substr(0, 60)) + "\".");
  };
  std::vector<Label> labels;
  for (size_t i = 0; i < term.size(); ++i) {
    if (term[i] == '.') {
      if (term.substr(i, 3) != "..." || std::count(labels.begin(), labels.end(), kEllipsis)) return bad();
      labels.push_back(kEllipsis);
      i += 2;
    } else if ((term[i] >= 'a' && term[i] <= 'z') || (term[i] >= 'A' && term[i] <= 'Z')) {
      labels.push_back(term[i]);
    } else {
      return bad();
    }
  }
  return labels;
}

// Parses the equation for operands of the given ranks, ellipses replaced by labels of their axes.
Result<Equation> parse_equation(std::string text, const std::vector<int64_t>& ranks) {
  std::erase(text, ' ');
  auto bad = [&](const std::string& what) {
    return Status(Code::invalid_argument, "The equation \"" + text.substr(0, 200) + "\" " + what);
  };
  auto arrow = text.find("->");
  std::string left = text.substr(0, arrow);
  Equation q;
  for (std::string_view term : split(left, ',')) q.inputs.push_back(AI_VMM_TAKE(parse_term(term, text)));
  if (q.inputs.size() != ranks.size())
    return bad("has " + std::to_string(q.inputs.size()) + " terms for " + std::to_string(ranks.size()) + " inputs.");
  int64_t widest = 0;
  auto expand = [](std::vector<Label>& labels, int64_t axes) {
    auto at = std::find(labels.begin(), labels.end(), kEllipsis);
    if (at == labels.end()) return;
    at = labels.erase(at);
    for (int64_t i = 1; i <= axes; ++i) at = labels.insert(at, Label(-i));
  };
  for (size_t k = 0; k < ranks.size(); ++k) {
    auto& labels = q.inputs[k];
    bool ellipsis = std::count(labels.begin(), labels.end(), kEllipsis) > 0;
    int64_t rest = ranks[k] - int64_t(labels.size()) + ellipsis;
    if (rest < 0 || (rest > 0 && !ellipsis))
      return bad("names " + std::to_string(labels.size() - ellipsis) + " axes of input " + std::to_string(k) +
                 ", which has rank " + std::to_string(ranks[k]) + ".");
    if (ellipsis) widest = std::max(widest, rest);
    expand(labels, rest);
  }
  std::map<Label, int> uses;
  for (const auto& labels : q.inputs)
    for (Label l : labels) ++uses[l];
  if (arrow != text.npos) {
    q.output = AI_VMM_TAKE(parse_term(std::string_view(text).substr(arrow + 2), text));
    expand(q.output, widest);
    std::set<Label> seen;
    for (Label l : q.output)
      if (!uses.count(l) || !seen.insert(l).second)
        return bad("names an axis of the output that no input has, or names it twice.");
  } else {
    for (int64_t i = widest; i >= 1; --i) q.output.push_back(Label(-i));
    for (auto [l, count] : uses)
      if (l > 0 && count == 1) q.output.push_back(l);
  }
  return q;
}

Status infer_einsum(Infer& c) {
  std::string text = c.node.s("equation");
  DType t = c.dtype(0);
  std::vector<int64_t> ranks;
  for (size_t k = 0; k < c.inputs(); ++k) {
    if (!c.ranked(k)) {
      c.set_unranked(0, t);
      return {};
    }
    ranks.push_back(c.rank(k));
  }
  auto parsed = parse_equation(text, ranks);
  if (!parsed.ok()) return c.error(parsed.fault()->text);
  std::map<Label, Dim> sizes;
  for (size_t k = 0; k < ranks.size(); ++k)
    for (size_t i = 0; i < parsed->inputs[k].size(); ++i) {
      const Dim& d = c.dims(k)[i];
      auto [at, fresh] = sizes.emplace(parsed->inputs[k][i], d);
      if (fresh) continue;
      if (known_different(at->second, d) && !at->second.is(1) && !d.is(1))
        return c.error("one axis has the sizes " + at->second.to_string() + " and " + d.to_string() + ".");
      at->second = bcast(at->second, d);
    }
  std::vector<Dim> dims;
  for (Label l : parsed->output) dims.push_back(sizes[l]);
  c.set(0, t, std::move(dims));
  return {};
}

template <class T>
struct Operand {
  std::vector<Label> labels;
  Shape shape;
  std::vector<T> values;
  // The step in `values` along axis `l`: repeated labels walk the diagonal, size 1 broadcasts.
  int64_t stride(Label l) const {
    Shape own = ref::strides_of(shape);
    int64_t s = 0;
    for (size_t i = 0; i < labels.size(); ++i)
      if (labels[i] == l && shape[i] != 1) s += own[i];
    return s;
  }
};

// The product of two operands, summed over the axes that are not in `kept`.
template <class T>
Operand<T> contract(const Operand<T>& a, const Operand<T>& b, const std::vector<Label>& kept,
                    const std::map<Label, int64_t>& sizes) {
  Operand<T> y;
  y.labels = kept;
  std::vector<Label> summed;
  for (const auto* o : {&a, &b})
    for (Label l : o->labels)
      if (!std::count(kept.begin(), kept.end(), l) && !std::count(summed.begin(), summed.end(), l)) summed.push_back(l);
  Shape sum_shape, ka, kb, sa, sb;
  for (Label l : kept) {
    y.shape.push_back(sizes.at(l));
    ka.push_back(a.stride(l));
    kb.push_back(b.stride(l));
  }
  for (Label l : summed) {
    sum_shape.push_back(sizes.at(l));
    sa.push_back(a.stride(l));
    sb.push_back(b.stride(l));
  }
  y.values.resize(size_t(ref::product(y.shape)));
  size_t at = 0;
  for (ref::Index i(y.shape); i.more(); i.next(), ++at) {
    int64_t oa = i.offset(ka), ob = i.offset(kb);
    T sum = T(0);
    for (ref::Index j(sum_shape); j.more(); j.next())
      sum = multiply_add(sum, a.values[size_t(oa + j.offset(sa))], b.values[size_t(ob + j.offset(sb))]);
    y.values[at] = sum;
  }
  return y;
}

Status eval_einsum(Eval& e) {
  std::vector<int64_t> ranks;
  for (size_t k = 0; k < e.inputs(); ++k) {
    if (!e.has(k)) return e.error("input " + std::to_string(k) + " is absent.");
    ranks.push_back(e.in(k).rank());
  }
  auto parsed = parse_equation(e.node.s("equation"), ranks);
  if (!parsed.ok()) return e.error(parsed.fault()->text);
  const Equation& q = *parsed;
  std::map<Label, int64_t> sizes;
  for (size_t k = 0; k < ranks.size(); ++k)
    for (size_t i = 0; i < q.inputs[k].size(); ++i) {
      int64_t d = e.in(k).dim(int64_t(i));
      int64_t& known = sizes.emplace(q.inputs[k][i], d).first->second;
      if (known != d && known != 1 && d != 1)
        return e.error("one axis has the sizes " + std::to_string(known) + " and " + std::to_string(d) + ".");
      if (known == 1) known = d;
    }
  Shape shape;
  for (Label l : q.output) shape.push_back(sizes[l]);
  Tensor* y = AI_VMM_TAKE(e.make(0, e.in(0).dtype(), shape));
  return ref::dispatch_real(e, y->dtype(), [&]<class T>() -> Status {
    Operand<T> sum{{}, {}, {T(1)}};
    for (size_t k = 0; k < ranks.size(); ++k) {
      // Axes that the output or a later input still needs stay.
      std::set<Label> needed(q.output.begin(), q.output.end());
      for (size_t later = k + 1; later < ranks.size(); ++later)
        needed.insert(q.inputs[later].begin(), q.inputs[later].end());
      Operand<T> next{q.inputs[k], e.in(k).shape(), ref::load<T>(e.in(k))};
      std::vector<Label> kept;
      if (k + 1 == ranks.size()) {
        kept = q.output;
      } else {
        std::set<Label> present(sum.labels.begin(), sum.labels.end());
        present.insert(next.labels.begin(), next.labels.end());
        std::set_intersection(present.begin(), present.end(), needed.begin(), needed.end(), std::back_inserter(kept));
      }
      // The intermediate counts against the memory limit while it lives.
      Shape kept_shape;
      for (Label l : kept) kept_shape.push_back(sizes.at(l));
      auto held = Tensor::make(DType::f64, kept_shape);
      if (!held.ok()) return std::move(held).status();
      sum = contract(sum, next, kept, sizes);
    }
    ref::store<T>(*y, sum.values);
    return {};
  });
}

// Every input is met once for each index of all axes together.
Cost cost_einsum(const CostQuery& q) {
  std::vector<int64_t> ranks;
  for (size_t k = 0; k < q.inputs.size(); ++k) ranks.push_back(int64_t(q.shape_in(k).size()));
  auto parsed = parse_equation(q.node.s("equation"), ranks);
  if (!parsed.ok()) return {};
  std::map<Label, int64_t> sizes;
  for (size_t k = 0; k < ranks.size(); ++k)
    for (size_t i = 0; i < parsed->inputs[k].size(); ++i) {
      int64_t& s = sizes[parsed->inputs[k][i]];
      s = std::max(s, q.shape_in(k)[i]);
    }
  double n = 2;
  for (auto [l, s] : sizes) n *= double(s);
  return {.flops = n};
}

const OpDef kOps[] = {
    {"Einsum", "", 28, "Inputs:T* -> Output:T | T: numeric", "equation:string!",
     "The sum of products that the equation states: a term of axis letters for each input and, after ->, for the "
     "output; "
     "axes missing there are summed. \"...\" stands for the remaining axes, which broadcast.",
     kNoTrait, infer_einsum, cost_einsum, eval_einsum},
};

}  // namespace

std::span<const OpDef> einsum_ops() { return kOps; }

}  // namespace ai_vmm
