// Operators that copy elements: Transpose, Concat, Split, Slice, Expand, Tile, Pad and their like.
#include <algorithm>
#include <cstring>

#include "gpu/ops/ops.hpp"

namespace ai_vmm::gpu {

const char* raw_type(int bytes) { return bytes == 1 ? "uchar" : bytes == 2 ? "ushort" : bytes == 4 ? "uint" : "ulong"; }

namespace {

// Bytes of an element; 0 where elements are packed or wider than a machine word.
int element_bytes(DType t) {
  int b = bits(t);
  return b == 8 || b == 16 || b == 32 || b == 64 ? b / 8 : 0;
}
Made refuse_packed() { return refuse_type("packed and 128-bit elements have no copying kernel"); }

constexpr const char* kCopyRows = R"(
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT in, GLOBAL ${T}* RESTRICT out, ${idx} from, ${idx} to, ${idx} n,
                      ${idx} rows, ${idx} per${sizes}) {
  ${idx} first = (${idx})GID0 * per, last = first + per < rows ? first + per : rows;
  for (${idx} r = first; r < last; ++r) {
    ${idx} q = r, i = from, o = to;
${walk}    for (${idx} j = 0; j < n; ++j) out[o + j${out_step}] = in[i + j${in_step}];
  }
}
)";

constexpr const char* kCopyElements = R"(
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT in, GLOBAL ${T}* RESTRICT out, ${idx} from, ${idx} to,
                      ${idx} n${sizes}) {
  ${idx} q = (${idx})GID0, i = from, o = to;
  if (q >= n) return;
${walk}  out[o] = in[i];
}
)";

struct View {
  Shape dims, from, to;
  int64_t from_base = 0, to_base = 0;
};
Bound one_copy(const Bind& b, const View& v, int bytes) {
  Bound bound;
  bound.note = "copy";
  if (product(v.dims))
    bound.launches.push_back(copy_launch(b, 0, 0, bytes, v.dims, v.from, v.from_base, v.to, v.to_base));
  return bound;
}

}  // namespace

Launch copy_launch(const Bind& b, size_t in, size_t out, int bytes, const Shape& shape, const Shape& in_strides,
                   int64_t in_base, const Shape& out_strides, int64_t out_base) {
  Walk walk = collapse(shape, {in_strides, out_strides});
  const size_t rank = walk.dims.size();
  const int64_t inner = walk.dims.back(), count = product(walk.dims), rows = inner ? count / inner : 0;
  const bool by_rows = b.traits.wide && inner >= 8;
  Words w;
  w["idx"] = b.idx();
  w["T"] = raw_type(bytes);
  const size_t outer = by_rows ? rank - 1 : rank;
  std::string text, sizes, idx = b.idx();
  for (size_t d = outer; d-- > 0;) {
    std::string n = std::to_string(d);
    if (d) sizes += ", " + idx + " d" + n;
    sizes += ", " + idx + " i" + n + ", " + idx + " o" + n;
    text += "    {\n      " + idx + " c = " + (d ? "q % d" + n + "; q /= d" + n : "q") + ";\n      i += c * i" + n +
            "; o += c * o" + n + ";\n    }\n";
  }
  bool in_one = walk.strides[0].back() == 1, out_one = walk.strides[1].back() == 1;
  w["in_step"] = in_one ? "" : " * is";
  w["out_step"] = out_one ? "" : " * os";
  if (by_rows && !in_one) sizes += ", " + idx + " is";
  if (by_rows && !out_one) sizes += ", " + idx + " os";
  w["sizes"] = sizes;
  w["walk"] = text;
  Launch l = launch("copy", by_rows ? kCopyRows : kCopyElements, w);
  l.in(in).out(out).scalar(b.index(in_base)).scalar(b.index(out_base));
  if (by_rows) {
    int64_t per = std::clamp<int64_t>(divide_up(rows, b.traits.units * 4), 1, std::max<int64_t>(1, 16384 / inner));
    l.scalar(b.index(inner)).scalar(b.index(rows)).scalar(b.index(per)).items({divide_up(rows, per)});
  } else {
    l.scalar(b.index(count)).items({count}, {group_for(b.traits, count)});
  }
  for (size_t d = outer; d-- > 0;) {
    if (d) l.scalar(b.index(walk.dims[d]));
    l.scalar(b.index(walk.strides[0][d])).scalar(b.index(walk.strides[1][d]));
  }
  if (by_rows && !in_one) l.scalar(b.index(walk.strides[0].back()));
  if (by_rows && !out_one) l.scalar(b.index(walk.strides[1].back()));
  return l;
}

Made make_transpose(const Make& m) {
  int bytes = element_bytes(m.dtype(0));
  if (!bytes) return refuse_packed();
  auto perm = m.node.ints("perm");
  return BindFn([=](const Bind& b) -> Result<Bound> {
    auto p = perm;
    if (p.empty())
      for (size_t d = b.in(0).size(); d-- > 0;) p.push_back(int64_t(d));
    Shape in = strides_of(b.in(0)), from;
    for (int64_t d : p) from.push_back(in[size_t(d)]);
    return one_copy(b, {b.out(0), from, strides_of(b.out(0))}, bytes);
  });
}

Made make_concat(const Make& m) {
  int bytes = element_bytes(m.dtype(0));
  if (!bytes) return refuse_packed();
  int64_t axis = m.node.i("axis");
  size_t inputs = m.inputs();
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& out = b.out(0);
    Shape to = strides_of(out);
    size_t a = size_t(normalise_axis(axis, int64_t(out.size())));
    int64_t at = 0;
    Bound bound;
    bound.note = "copy";
    for (size_t k = 0; k < inputs; ++k) {
      const Shape& in = b.in(k);
      if (product(in)) bound.launches.push_back(copy_launch(b, k, 0, bytes, in, strides_of(in), 0, to, at * to[a]));
      at += in[a];
    }
    return bound;
  });
}

Made make_split(const Make& m) {
  int bytes = element_bytes(m.dtype(0));
  if (!bytes) return refuse_packed();
  int64_t axis = m.node.i("axis", 0);
  size_t outputs = m.node.outputs.size();
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& in = b.in(0);
    Shape from = strides_of(in);
    size_t a = size_t(normalise_axis(axis, int64_t(in.size())));
    int64_t at = 0;
    Bound bound;
    bound.note = "copy";
    for (size_t k = 0; k < outputs; ++k) {
      if (!b.out_shapes[k]) return invalid("A part of Split has no size, because nothing reads it.");
      const Shape& out = b.out(k);
      if (product(out))
        bound.launches.push_back(copy_launch(b, 0, k, bytes, out, from, at * from[a], strides_of(out), 0));
      at += out[a];
    }
    if (at != in[a]) return invalid("The parts of Split do not add up to the axis of " + ai_vmm::to_string(in) + ".");
    return bound;
  });
}

Made make_slice(const Make& m) {
  int bytes = element_bytes(m.dtype(0));
  if (!bytes) return refuse_packed();
  bool has_axes = m.has(3), has_steps = m.has(4);
  return Made(BindFn([=](const Bind& b) -> Result<Bound> {
           const Shape& in = b.in(0);
           Shape own = strides_of(in);
           View v{b.out(0), own, strides_of(b.out(0))};
           const auto& starts = b.ints(1);
           for (size_t i = 0; i < starts.size(); ++i) {
             int64_t a = normalise_axis(has_axes ? b.ints(3)[i] : int64_t(i), int64_t(in.size()));
             if (a < 0 || a >= int64_t(in.size()))
               return invalid("An axis of Slice is outside " + ai_vmm::to_string(in) + ".");
             int64_t step = has_steps ? b.ints(4)[i] : 1, n = in[size_t(a)];
             int64_t start = starts[i] < 0 ? starts[i] + n : starts[i];
             start = step > 0 ? std::clamp<int64_t>(start, 0, n)
                              : std::clamp<int64_t>(start, 0, std::max<int64_t>(n - 1, 0));
             v.from[size_t(a)] = own[size_t(a)] * step;
             if (b.out(0)[size_t(a)] > 0) v.from_base += start * own[size_t(a)];
           }
           return one_copy(b, v, bytes);
         }))
      .needs(0x1e);
}

Made make_expand(const Make& m) {
  int bytes = element_bytes(m.dtype(0));
  if (!bytes) return refuse_packed();
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& out = b.out(0);
    return one_copy(b, {out, broadcast_strides(b.in(0), out), strides_of(out)}, bytes);
  });
}

Made make_tile(const Make& m) {
  int bytes = element_bytes(m.dtype(0));
  if (!bytes) return refuse_packed();
  return BindFn([=](const Bind& b) -> Result<Bound> {
    View v;
    Shape in = strides_of(b.in(0)), out = strides_of(b.out(0));
    for (size_t d = 0; d < b.in(0).size(); ++d) {
      int64_t n = b.in(0)[d];
      v.dims.insert(v.dims.end(), {n ? b.out(0)[d] / n : 0, n});
      v.from.insert(v.from.end(), {0, in[d]});
      v.to.insert(v.to.end(), {out[d] * n, out[d]});
    }
    return one_copy(b, v, bytes);
  });
}

// Depth and space change places: a transpose of six axes.
static Made depth_space(const Make& m, bool to_space) {
  int bytes = element_bytes(m.dtype(0));
  if (!bytes) return refuse_packed();
  if (m.rank(0) != 4) return {AI_VMM_REFUSED_RANK, "only pictures of two axes"};
  int64_t block = m.node.i("blocksize");
  bool crd = m.node.s("mode", "DCR") == "CRD";
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& x = to_space ? b.out(0) : b.in(0);  // the side with the larger picture: [n, c, h·b, w·b]
    const Shape& y = to_space ? b.in(0) : b.out(0);  // [n, c·b·b, h, w]
    int64_t n = x[0], c = x[1], h = y[2], w = y[3], hw = h * w;
    Shape dims{n, c, h, block, w, block};
    Shape big{c * h * block * w * block, h * block * w * block, block * w * block, w * block, block, 1};
    Shape deep{y[1] * hw, crd ? block * block * hw : hw, w, (crd ? block : block * c) * hw, 1, (crd ? 1 : c) * hw};
    return one_copy(b, to_space ? View{dims, deep, big} : View{dims, big, deep}, bytes);
  });
}
Made make_depth_to_space(const Make& m) { return depth_space(m, true); }
Made make_space_to_depth(const Make& m) { return depth_space(m, false); }

// Where position i of an axis of `n` elements reads after padding; -1: nowhere.
constexpr const char* kPad = R"(
#undef AT
#define AT ${kernel}_at
DEVICE long ${kernel}_at(long i, long n) {
  ${rule}
}
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT in, GLOBAL ${T}* RESTRICT out${value_parameter}, long count${sizes}) {
  long q = GID0, o = q, i = 0;
  bool inside = true;
  if (q >= count) return;
${walk}  out[o] = inside ? in[i] : ${value};
}
)";

Made make_pad(const Make& m) {
  int bytes = element_bytes(m.dtype(0));
  if (!bytes) return refuse_packed();
  std::string mode = m.node.s("mode", "constant");
  bool has_axes = m.has(3), has_value = m.has(2) && mode == "constant";
  Words w;
  w["T"] = raw_type(bytes);
  w["value_parameter"] = has_value ? std::string(", GLOBAL const ") + raw_type(bytes) + "* RESTRICT value" : "";
  w["value"] = has_value ? "value[0]" : "0";
  if (mode == "constant")
    w["rule"] = "return i >= 0 && i < n ? i : -1;";
  else if (mode == "edge")
    w["rule"] = "return i < 0 ? 0 : i < n ? i : n - 1;";
  else if (mode == "wrap")
    w["rule"] = "i %= n; return i < 0 ? i + n : i;";
  else if (mode == "reflect")
    w["rule"] = "long p = 2 * (n - 1); if (n == 1) return 0; i %= p; i = i < 0 ? i + p : i; return i < n ? i : p - i;";
  else
    return {AI_VMM_REFUSED_ATTRIBUTE, "an unknown padding mode"};
  return Made(BindFn([=](const Bind& b) -> Result<Bound> {
           const Shape &in = b.in(0), &out = b.out(0);
           std::vector<int64_t> before(in.size(), 0);
           const auto& pads = b.ints(1);
           for (size_t i = 0; i < pads.size() / 2; ++i) {
             int64_t a = normalise_axis(has_axes ? b.ints(3)[i] : int64_t(i), int64_t(in.size()));
             if (a < 0 || a >= int64_t(in.size()))
               return invalid("An axis of Pad is outside " + ai_vmm::to_string(in) + ".");
             before[size_t(a)] = pads[i];
           }
           Bound bound;
           if (!product(out)) return bound;
           if (mode != "constant" && !product(in))
             return invalid("An empty axis cannot be padded with \"" + mode + "\".");
           Shape own = strides_of(in);
           std::string walk, sizes;
           for (size_t d = in.size(); d-- > 0;) {
             std::string n = std::to_string(d);
             sizes += ", long d" + n + ", long n" + n + ", long b" + n + ", long s" + n;
             walk += "  {\n    long c = AT(q % d" + n + " - b" + n + ", n" + n + ");\n    q /= d" + n +
                     ";\n    inside = inside && c >= 0;\n    i += c * s" + n + ";\n  }\n";
           }
           Words words = w;
           words["walk"] = walk;
           words["sizes"] = sizes;
           Launch l = launch("pad", kPad, words);
           l.in(0).out(0);
           if (has_value) l.in(2);
           l.scalar(product(out));
           for (size_t d = in.size(); d-- > 0;) l.scalar(out[d]).scalar(in[d]).scalar(before[d]).scalar(own[d]);
           l.items({product(out)}, {group_for(b.traits, product(out))});
           bound.launches.push_back(std::move(l));
           bound.note = mode;
           return bound;
         }))
      .needs(0xa);
}

}  // namespace ai_vmm::gpu
