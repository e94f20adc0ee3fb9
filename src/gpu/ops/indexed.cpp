// Operators that read or write where indices say: Gather, GatherElements, GatherND, ScatterElements, ScatterND, OneHot;
// and those that make elements from their places: CumSum, Range, ConstantOfShape, Trilu, EyeLike, ReverseSequence.
#include <algorithm>
#include <cstring>

#include "base/numbers.hpp"
#include "gpu/ops/ops.hpp"

namespace ai_vmm::gpu {

namespace {

int element_bytes(DType t) {
  int b = bits(t);
  return b == 8 || b == 16 || b == 32 || b == 64 ? b / 8 : 0;
}
bool index_type(DType t) { return t == DType::i64 || t == DType::i32; }
const char* index_storage(DType t) { return t == DType::i64 ? "long" : "int"; }
Made refuse_index() { return refuse_type("the type of the indices"); }

// An index as a place on an axis of n elements; a wrong one fails the run.
constexpr const char* kPlace = R"(
#ifndef PLACE
#define PLACE
DEVICE long place(long i, long n, GLOBAL int* fault, int step) {
  if (i < 0) i += n;
  if (i >= 0 && i < n) return i;
  fault[0] = step;
  return 0;
}
#endif
)";

// Rows of `row` elements: out[o, i] = in[o, index[i]].
constexpr const char* kGather = R"(${place}
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT in, GLOBAL const ${I}* RESTRICT index, GLOBAL ${T}* RESTRICT out,
                      GLOBAL int* fault, int step, ${idx} rows, ${idx} count, ${idx} n, ${idx} row) {
${body}}
)";
constexpr const char* kGatherRows = R"(  const ${idx} r = (${idx})GID0;
  if (r >= rows || n == 0) return;
  in += (r / count * n + place(index[r % count], n, fault, step)) * row;
  out += r * row;
  for (${idx} j = 0; j < row; ++j) out[j] = in[j];
)";
constexpr const char* kGatherOnes = R"(  const ${idx} q = (${idx})GID0, r = q / row;
  if (r >= rows || n == 0) return;
  out[q] = in[(r / count * n + place(index[r % count], n, fault, step)) * row + q % row];
)";

// Offsets of an element of a tensor of the indices' sizes, but along the axis.
std::string line_walk(const Bind& b, size_t rank, size_t axis, std::string& sizes) {
  std::string text, idx = b.idx();
  for (size_t d = rank; d-- > 0;) {
    if (d == axis) continue;
    std::string n = std::to_string(d);
    sizes += ", " + idx + " d" + n + ", " + idx + " s" + n + ", " + idx + " t" + n;
    text +=
        "  { const " + idx + " c = q % d" + n + "; q /= d" + n + "; base += c * s" + n + "; at += c * t" + n + "; }\n";
  }
  return text;
}
void add_line_walk(const Bind& b, Launch& l, const Shape& sizes, const Shape& data_strides, size_t axis) {
  Shape own = strides_of(sizes);
  for (size_t d = sizes.size(); d-- > 0;)
    if (d != axis) l.scalar(b.index(sizes[d])).scalar(b.index(data_strides[d])).scalar(b.index(own[d]));
}

// One work item an element, or a line along the axis where the order of updates counts.
constexpr const char* kGatherElements = R"(${place}
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT in, GLOBAL const ${I}* RESTRICT index, GLOBAL ${T}* RESTRICT out,
                      GLOBAL int* fault, int step, ${idx} lines, ${idx} many, ${idx} n, ${idx} along,
                      ${idx} step_at${sizes}) {
  ${idx} q = (${idx})GID0, base = 0, at = 0;
  if (q >= lines || n == 0) return;
${walk}  for (${idx} k = 0; k < many; ++k, at += step_at)
    out[at] = in[base + place(index[at], n, fault, step) * along];
}
)";
constexpr const char* kScatterElements = R"(${place}
KERNEL void ${kernel}(GLOBAL ${T}* RESTRICT out, GLOBAL const ${I}* RESTRICT index, GLOBAL const ${T}* RESTRICT updates,
                      GLOBAL int* fault, int step, ${idx} lines, ${idx} many, ${idx} n, ${idx} along,
                      ${idx} step_at${sizes}) {
  ${idx} q = (${idx})GID0, base = 0, at = 0;
  if (q >= lines || n == 0) return;
${walk}  for (${idx} k = 0; k < many; ++k, at += step_at) {
    const ${idx} to = base + place(index[at], n, fault, step) * along;
    const ${R} x = LD_${E}(updates, at), a = LD_${E}(out, to);
    ST_${E}(out, to, ${combine});
  }
}
)";

// What an update does to an element: text over a (there) and x (the update).
const char* combination(const Node& n, bool integers) {
  std::string s = n.s("reduction", "none");
  if (s == "none") return "x";
  if (s == "add") return integers ? "i_add_long(a, x)" : "(a + x)";
  if (s == "mul") return integers ? "i_mul_long(a, x)" : "(a * x)";
  if (s == "max") return integers ? "larger_long(a, x)" : "larger_float(a, x)";
  if (s == "min") return integers ? "smaller_long(a, x)" : "smaller_float(a, x)";
  return nullptr;
}

}  // namespace

Made make_gather(const Make& m) {
  int bytes = element_bytes(m.dtype(0));
  if (!bytes) return refuse_type("packed elements");
  if (!index_type(m.dtype(1))) return refuse_index();
  int64_t axis = m.node.i("axis", 0);
  DType index = m.dtype(1);
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& x = b.in(0);
    size_t a = size_t(normalise_axis(axis, int64_t(x.size())));
    if (a >= x.size()) return invalid("The axis " + std::to_string(axis) + " is outside the data.");
    int64_t outer = product(x, 0, a), n = x[a], row = product(x, a + 1), count = product(b.in(1)), rows = outer * count;
    Bound bound;
    if (!product(b.out(0))) return bound;
    if (!n) return Status(Code::out_of_range, "An axis of no elements is indexed.");
    bool by_rows = b.traits.wide && row >= 8;
    Words w;
    w["place"] = kPlace;
    w["T"] = raw_type(bytes);
    w["I"] = index_storage(index);
    w["idx"] = b.idx();
    w["body"] = fill(by_rows ? kGatherRows : kGatherOnes, w);
    Launch l = launch("gather", kGather, w);
    l.in(0).in(1).out(0).faults();
    for (int64_t v : {rows, count, n, row}) l.scalar(b.index(v));
    int64_t items = by_rows ? rows : rows * row;
    l.items({items}, {by_rows ? std::min<int64_t>(16, group_for(b.traits, items)) : group_for(b.traits, items)});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

Made make_gather_elements(const Make& m) {
  int bytes = element_bytes(m.dtype(0));
  if (!bytes) return refuse_type("packed elements");
  if (!index_type(m.dtype(1))) return refuse_index();
  int64_t axis = m.node.i("axis", 0);
  DType index = m.dtype(1);
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape &in = b.in(0), &at = b.in(1);
    size_t a = size_t(normalise_axis(axis, int64_t(in.size())));
    if (in.size() != at.size() || a >= in.size())
      return invalid("Data " + ai_vmm::to_string(in) + " and indices " + ai_vmm::to_string(at) + " do not fit.");
    Bound bound;
    if (!product(at)) return bound;
    for (size_t d = 0; d < in.size(); ++d)
      if (d != a && at[d] > in[d])
        return invalid("Indices " + ai_vmm::to_string(at) + " reach past data " + ai_vmm::to_string(in) + ".");
    Words w;
    w["place"] = kPlace;
    w["T"] = raw_type(bytes);
    w["I"] = index_storage(index);
    w["idx"] = b.idx();
    std::string sizes;
    w["walk"] = line_walk(b, in.size(), a, sizes);
    w["sizes"] = sizes;
    Launch l = launch("gather_elements", kGatherElements, w);
    Shape strides = strides_of(in);
    int64_t lines = product(at) / at[a];
    l.in(0).in(1).out(0).faults();
    for (int64_t v : {lines, at[a], in[a], strides[a], strides_of(at)[a]}) l.scalar(b.index(v));
    add_line_walk(b, l, at, strides, a);
    l.items({lines}, {group_for(b.traits, lines)});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

Made make_scatter_elements(const Make& m) {
  Element el = element(m.dtype(0));
  if (!el.name || m.dtype(0) == DType::u64) return refuse_type();
  if (!index_type(m.dtype(1))) return refuse_index();
  bool integers = std::string(el.compute) == "long";
  const char* combine = combination(m.node, integers);
  if (!combine) return {AI_VMM_REFUSED_ATTRIBUTE, "the reduction"};
  int64_t axis = m.node.i("axis", 0);
  DType t = m.dtype(0), index = m.dtype(1);
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape &in = b.in(0), &at = b.in(1);
    size_t a = size_t(normalise_axis(axis, int64_t(in.size())));
    if (in.size() != at.size() || a >= in.size() || b.in(2) != at)
      return invalid("Data " + ai_vmm::to_string(in) + ", indices " + ai_vmm::to_string(at) + " and updates " +
                     ai_vmm::to_string(b.in(2)) + " do not fit together.");
    for (size_t d = 0; d < in.size(); ++d)
      if (d != a && at[d] > in[d])
        return invalid("Indices " + ai_vmm::to_string(at) + " reach past data " + ai_vmm::to_string(in) + ".");
    Bound bound;
    if (!product(in)) return bound;
    Shape strides = strides_of(in);
    bound.launches.push_back(copy_launch(b, 0, 0, bits(t) / 8, in, strides, 0, strides, 0));
    if (!product(at)) return bound;
    Words w;
    w["place"] = kPlace;
    w["T"] = el.storage;
    w["E"] = el.name;
    w["R"] = el.compute;
    w["I"] = index_storage(index);
    w["idx"] = b.idx();
    w["combine"] = combine;
    std::string sizes;
    w["walk"] = line_walk(b, in.size(), a, sizes);
    w["sizes"] = sizes;
    Launch l = launch("scatter_elements", kScatterElements, w);
    int64_t lines = product(at) / at[a];
    l.out(0).in(1).in(2).faults();
    for (int64_t v : {lines, at[a], in[a], strides[a], strides_of(at)[a]}) l.scalar(b.index(v));
    add_line_walk(b, l, at, strides, a);
    l.items({lines}, {group_for(b.traits, lines)});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

// ---------------------------------------------------------------- tuples of indices

namespace {

constexpr const char* kGatherNd = R"(${place}
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT in, GLOBAL const long* RESTRICT index, GLOBAL ${T}* RESTRICT out,
                      GLOBAL int* fault, int step, long count, long slice, long tuples, long batch${sizes}) {
  const long q = GID0, r = q / slice;
  if (q >= count) return;
  long at = r / tuples * batch;
  index += r * ${depth};
${walk}  out[q] = in[at + q % slice];
}
)";
// One work item an element of a slice, tuples in order: what several tuples name is updated in that order.
constexpr const char* kScatterNd = R"(${place}
KERNEL void ${kernel}(GLOBAL ${T}* RESTRICT out, GLOBAL const long* RESTRICT indices,
                      GLOBAL const ${T}* RESTRICT updates, GLOBAL int* fault, int step, long slice,
                      long tuples${sizes}) {
  const long j = GID0;
  if (j >= slice) return;
  for (long t = 0; t < tuples; ++t) {
    GLOBAL const long* index = indices + t * ${depth};
    long at = j;
${walk}    const ${R} x = LD_${E}(updates, t * slice + j), a = LD_${E}(out, at);
    ST_${E}(out, at, ${combine});
  }
}
)";

std::string tuple_walk(int64_t depth, std::string& sizes) {
  std::string text;
  for (int64_t k = 0; k < depth; ++k) {
    std::string n = std::to_string(k);
    sizes += ", long n" + n + ", long s" + n;
    text += "  at += place(index[" + n + "], n" + n + ", fault, step) * s" + n + ";\n";
  }
  return text;
}

}  // namespace

Made make_gather_nd(const Make& m) {
  int bytes = element_bytes(m.dtype(0));
  if (!bytes) return refuse_type("packed elements");
  if (m.dtype(1) != DType::i64) return refuse_index();
  int64_t batch_dims = m.node.i("batch_dims", 0);
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape &in = b.in(0), &at = b.in(1);
    if (at.empty() || batch_dims < 0 || batch_dims >= int64_t(at.size()) || batch_dims + at.back() > int64_t(in.size()))
      return invalid("Indices " + ai_vmm::to_string(at) + " name more axes than data " + ai_vmm::to_string(in) +
                     " has.");
    size_t first = size_t(batch_dims), depth = size_t(at.back());
    int64_t slice = product(in, first + depth), tuples = product(at, first, at.size() - 1), count = product(b.out(0));
    Bound bound;
    if (!count) return bound;
    Words w;
    w["place"] = kPlace;
    w["T"] = raw_type(bytes);
    w["depth"] = std::to_string(depth);
    std::string sizes;
    w["walk"] = tuple_walk(int64_t(depth), sizes);
    w["sizes"] = sizes;
    Launch l = launch("gather_nd", kGatherNd, w);
    l.in(0).in(1).out(0).faults().scalar(count).scalar(slice).scalar(tuples).scalar(product(in, first));
    Shape strides = strides_of(in);
    for (size_t k = 0; k < depth; ++k) l.scalar(in[first + k]).scalar(strides[first + k]);
    l.items({count}, {group_for(b.traits, count)});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

Made make_scatter_nd(const Make& m) {
  Element el = element(m.dtype(0));
  if (!el.name || m.dtype(0) == DType::u64) return refuse_type();
  if (m.dtype(1) != DType::i64) return refuse_index();
  const char* combine = combination(m.node, std::string(el.compute) == "long");
  if (!combine) return {AI_VMM_REFUSED_ATTRIBUTE, "the reduction"};
  DType t = m.dtype(0);
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape &in = b.in(0), &at = b.in(1);
    if (at.empty() || at.back() > int64_t(in.size()))
      return invalid("Indices " + ai_vmm::to_string(at) + " name more axes than data " + ai_vmm::to_string(in) +
                     " has.");
    size_t depth = size_t(at.back());
    int64_t slice = product(in, depth), tuples = product(at, 0, at.size() - 1);
    if (product(b.in(2)) != tuples * slice) return invalid("The updates do not fit the indices.");
    Bound bound;
    if (!product(in)) return bound;
    Shape strides = strides_of(in);
    bound.launches.push_back(copy_launch(b, 0, 0, bits(t) / 8, in, strides, 0, strides, 0));
    if (!tuples || !slice) return bound;
    Words w;
    w["place"] = kPlace;
    w["T"] = el.storage;
    w["E"] = el.name;
    w["R"] = el.compute;
    w["combine"] = combine;
    w["depth"] = std::to_string(depth);
    std::string sizes;
    w["walk"] = tuple_walk(int64_t(depth), sizes);
    w["sizes"] = sizes;
    Launch l = launch("scatter_nd", kScatterNd, w);
    l.out(0).in(1).in(2).faults().scalar(slice).scalar(tuples);
    for (size_t k = 0; k < depth; ++k) l.scalar(in[k]).scalar(strides[k]);
    l.items({slice}, {group_for(b.traits, slice)});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

// ---------------------------------------------------------------- elements from their places

namespace {

constexpr const char* kOneHot = R"(
KERNEL void ${kernel}(GLOBAL const ${X}* RESTRICT in, GLOBAL const ${T}* RESTRICT values, GLOBAL ${T}* RESTRICT out,
                      long count, long depth, long inner) {
  const long q = GID0;
  if (q >= count) return;
  const long k = q / inner % depth;
  const ${R} x = LD_${E}(in, q / (inner * depth) * inner + q % inner);
  out[q] = values[x == k || x + depth == k ? 1 : 0];
}
)";

// One work item a line along the axis, which the device alone may know; more items than lines are started.
constexpr const char* kCumSum = R"(${place}
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT in, GLOBAL const ${I}* RESTRICT axis, GLOBAL ${T}* RESTRICT out,
                      GLOBAL int* fault, int step${sizes}) {
  const long row = GID0, size[] = {${list}}, d = place(*axis, ${rank}, fault, step), n = size[d];
  long lines = 1, inner = 1;
  for (int i = 0; i < ${rank}; ++i) {
    if (i != d) lines *= size[i];
    if (i > d) inner *= size[i];
  }
  if (row >= lines) return;
  const long base = row / inner * n * inner + row % inner;
  ${R} a = 0;
  for (long k = 0; k < n; ++k) {
    const long at = base + (${reverse} ? n - 1 - k : k) * inner;
    const ${R} x = LD_${E}(in, at), before = a;
    a = ${plus};
    ST_${E}(out, at, ${exclusive} ? before : a);
  }
}
)";

constexpr const char* kRange = R"(
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT start, GLOBAL const ${T}* RESTRICT step, GLOBAL ${T}* RESTRICT out,
                      long count) {
  const long i = GID0;
  if (i >= count) return;
  const ${R} a = LD_${E}(start, 0), d = LD_${E}(step, 0);
  ST_${E}(out, i, a + (${R})i * d);
}
)";

constexpr const char* kFill = R"(
KERNEL void ${kernel}(GLOBAL ${T}* RESTRICT out, long count, long value) {
  const long i = GID0;
  if (i < count) out[i] = (${T})value;
}
)";

constexpr const char* kTrilu = R"(
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT in, GLOBAL ${T}* RESTRICT out, long count, long rows,
                      long columns${parameter}) {
  const long q = GID0;
  if (q >= count) return;
  const long d = q % columns - q / columns % rows, k = ${k};
  out[q] = ${upper} ? (d >= k ? in[q] : 0) : (d <= k ? in[q] : 0);
}
)";

}  // namespace

Made make_one_hot(const Make& m) {
  int bytes = element_bytes(m.out_type(0).dtype);
  Element el = element(m.dtype(0));
  if (!bytes || !el.name || m.dtype(0) == DType::u64) return refuse_type();
  int64_t axis = m.node.i("axis", -1);
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& out = b.out(0);
    size_t a = size_t(normalise_axis(axis, int64_t(out.size())));
    if (a >= out.size()) return invalid("The axis " + std::to_string(axis) + " is outside the output.");
    int64_t count = product(out);
    Bound bound;
    if (!count) return bound;
    Launch l =
        launch("one_hot", kOneHot, {{"X", el.storage}, {"E", el.name}, {"R", el.compute}, {"T", raw_type(bytes)}});
    l.in(0).in(2).out(0).scalar(count).scalar(out[a]).scalar(product(out, a + 1));
    l.items({count}, {group_for(b.traits, count)});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

Made make_cum_sum(const Make& m) {
  Element el = element(m.dtype(0));
  if (!el.name) return refuse_type();
  if (!index_type(m.dtype(1))) return refuse_index();
  if (m.rank(0) < 1) return {AI_VMM_REFUSED_RANK, "a scalar has no axis"};
  std::string compute = el.compute;
  Words w{{"T", el.storage}, {"E", el.name}, {"R", compute}, {"I", index_storage(m.dtype(1))}, {"place", kPlace}};
  w["plus"] = compute == "long" ? "i_add_long(a, x)" : "(a + x)";
  w["reverse"] = m.node.i("reverse") ? "1" : "0";
  w["exclusive"] = m.node.i("exclusive") ? "1" : "0";
  w["rank"] = std::to_string(m.rank(0));
  for (int64_t d = 0; d < m.rank(0); ++d) {
    w["sizes"] += ", long n" + std::to_string(d);
    w["list"] += (d ? ", n" : "n") + std::to_string(d);
  }
  std::optional<int64_t> axis;
  if (const Tensor* t = m.constant(1); t && t->count() == 1) axis = read_int64(t->dtype(), t->data(), 0);
  return BindFn([w, axis](const Bind& b) -> Result<Bound> {
    const Shape& x = b.in(0);
    const int64_t rank = int64_t(x.size());
    Bound bound;
    if (!product(x)) return bound;
    if (axis && (*axis < -rank || *axis >= rank)) return invalid("The axis of a CumSum is outside its input.");
    const int64_t least = axis ? x[size_t(normalise_axis(*axis, rank))] : *std::min_element(x.begin(), x.end());
    const int64_t rows = product(x) / least;
    Launch l = launch("cum_sum", kCumSum, w);
    l.in(0).in(1).out(0).faults();
    for (int64_t n : x) l.scalar(n);
    l.items({rows}, {group_for(b.traits, rows)});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

Made make_range(const Make& m) {
  Element el = element(m.dtype(0));
  if (!el.name) return refuse_type();
  Words w{{"T", el.storage}, {"E", el.name}, {"R", el.compute}};
  return BindFn([w](const Bind& b) -> Result<Bound> {
    int64_t count = product(b.out(0));
    Bound bound;
    if (!count) return bound;
    Launch l = launch("range", kRange, w);
    l.in(0).in(2).out(0).scalar(count).items({count}, {group_for(b.traits, count)});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

Made make_constant_of_shape(const Make& m) {
  int bytes = element_bytes(m.out_type(0).dtype);
  if (!bytes) return refuse_type("packed elements");
  int64_t value = 0;
  if (const Tensor* v = m.node.tensor("value"))
    if (v->count() == 1) std::memcpy(&value, v->data(), size_t(bytes));
  return BindFn([=](const Bind& b) -> Result<Bound> {
    int64_t count = product(b.out(0));
    Bound bound;
    if (!count) return bound;
    Launch l = launch("fill", kFill, {{"T", raw_type(bytes)}});
    l.out(0).scalar(count).scalar(value).items({count}, {group_for(b.traits, count)});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

Made make_trilu(const Make& m) {
  int bytes = element_bytes(m.dtype(0));
  if (!bytes) return refuse_type("packed elements");
  const bool has_k = m.has(1);
  Words w{{"T", raw_type(bytes)}, {"upper", m.node.i("upper", 1) ? "1" : "0"}};
  w["parameter"] = has_k ? ", GLOBAL const long* RESTRICT shift" : "";
  w["k"] = has_k ? "*shift" : "0";
  return BindFn([w, has_k](const Bind& b) -> Result<Bound> {
    const Shape& x = b.in(0);
    int64_t count = product(x);
    Bound bound;
    if (!count) return bound;
    Launch l = launch("trilu", kTrilu, w);
    l.in(0).out(0).scalar(count).scalar(x[x.size() - 2]).scalar(x.back());
    if (has_k) l.in(1);
    l.items({count}, {group_for(b.traits, count)});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

}  // namespace ai_vmm::gpu
