// LSTM, GRU and RNN: one product for what the inputs bring to all steps, then one group of work items a sequence and
// direction, which keeps its state in group memory.
#include <algorithm>

#include "gpu/ops/ops.hpp"
#include "gpu/ops/product.hpp"
#include "gpu/ops/rows.hpp"

namespace ai_vmm::gpu {

namespace {

// The step's sums of row `row` of R with the vector `v` of H elements.
constexpr const char* kDot = R"(
DEVICE float ${kernel}_dot(GLOBAL const float* r, LOCAL const float* v) {
  ${V} a = (${V})(0.0f);
  int i = 0;
  for (; i + ${W} <= ${H}; i += ${W}) a = fma(${load_r}, ${load_v}, a);
  float parts[${W}];
  ${spill};
  float s = parts[0];
  for (int l = 1; l < ${W}; ++l) s += parts[l];
  for (; i < ${H}; ++i) s = fma(r[i], v[i], s);
  return s;
}
)";

constexpr const char* kSequence = R"(${dot}
DEVICE float ${kernel}_sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }
DEVICE float ${kernel}_relu(float x) { return x < 0.0f ? 0.0f : x; }
KERNEL void ${kernel}(GLOBAL const float* RESTRICT wx, GLOBAL const float* RESTRICT R, ${idx} T, ${idx} N, ${idx} D,
                      ${idx} wt, ${idx} wn, ${idx} yt, ${idx} yd, ${idx} yn, ${idx} sd, ${idx} sn${parameters}) {
  SHARED float h[${H}];
  SHARED float next[${H}];
  SHARED float other[${H}];
  const int d = GRP0 / N, n = GRP0 % N;
  const bool backward = ${reverse} || d == 1;
  wx += d * T * N * ${G} * ${H} + n * wn;
  R += d * ${G} * ${H} * ${H};
${pointers}  for (int k = LID0; k < ${H}; k += SIZE0) {
    h[k] = ${h0};
    other[k] = ${c0};
  }
  BARRIER;
  const int length = ${length};
  for (int s = 0; s < length; ++s) {
    const int t = backward ? length - 1 - s : s;
    GLOBAL const float* x = wx + t * wt;
${step}    for (int k = LID0; k < ${H}; k += SIZE0) {
      h[k] = next[k];
${y}    }
    BARRIER;
  }
${y_zero}  for (int k = LID0; k < ${H}; k += SIZE0) {
${y_h}${y_c}  }
}
)";

// Row g·H + k of all that is added to the gates: from the input, the bias of both kinds, and the state.
#define GATE(g, v) "(x[" #g " * ${H} + k] + ${kernel}_dot(R + (" #g " * ${H} + k) * ${H}, " v ")${bias" #g "})"

constexpr const char* kLstm =
    "    for (int k = LID0; k < ${H}; k += SIZE0) {\n"
    "      const float c = other[k];\n"
    "      const float i = ${f0}(${clip}(" GATE(0, "h") "${peep0}));\n"
    "      const float f = ${forget};\n"
    "      const float e = f * c + i * ${f1}(${clip}(" GATE(3, "h") "));\n"
    "      const float o = ${f0}(${clip}(" GATE(1, "h") "${peep1}));\n"
    "      next[k] = o * ${f2}(e);\n"
    "      other[k] = e;\n"
    "    }\n"
    "    BARRIER;\n";
constexpr const char* kForget = "${f0}(${clip}(" GATE(2, "h") "${peep2}))";

constexpr const char* kGru =
    "    for (int k = LID0; k < ${H}; k += SIZE0) {\n"
    "      const float r = ${f0}(${clip}(" GATE(1, "h") "));\n"
    "      other[k] = ${reset};\n"
    "    }\n"
    "    BARRIER;\n"
    "    for (int k = LID0; k < ${H}; k += SIZE0) {\n"
    "      const float z = ${f0}(${clip}(" GATE(0, "h") "));\n"
    "      next[k] = (1.0f - z) * ${f1}(${clip}(${candidate})) + z * h[k];\n"
    "    }\n"
    "    BARRIER;\n";

constexpr const char* kRnn =
    "    for (int k = LID0; k < ${H}; k += SIZE0) next[k] = ${f0}(${clip}(" GATE(0, "h") "));\n"
    "    BARRIER;\n";

struct Cell {
  std::string op, direction;
  int gates;
  bool batch_first, linear, coupled, has_bias, has_lengths, has_h0, has_c0, has_peepholes, has_y, has_yh, has_yc;
  std::vector<std::string> functions;
  float clip;
};

const char* function_of(const std::string& name) {
  if (name == "Sigmoid") return "${kernel}_sigmoid";
  if (name == "Tanh") return "tanh";
  if (name == "Relu") return "${kernel}_relu";
  return nullptr;
}

std::string nested(std::string text, const Words& words) {
  // Words hold words: the innermost are filled by the launch.
  for (int depth = 0; depth < 4; ++depth) text = fill(text, words);
  return text;
}

Result<Bound> bind_cell(const Cell& c, const Bind& b) {
  const Shape &x = b.in(0), &w = b.in(1), &r = b.in(2);
  const int64_t T = x[c.batch_first ? 1 : 0], N = x[c.batch_first ? 0 : 1], I = x[2], D = w[0], H = r[2], G = c.gates,
                rows = G * H;
  if (w[1] != rows || w[2] != I || r[1] != rows || r[0] != D)
    return invalid("The weights of a recurrent layer do not fit its input of shape " + ai_vmm::to_string(x) + ".");
  if (3 * H * 4 > b.traits.local_bytes)
    return Status(Code::unimplemented, "A state of " + std::to_string(H) + " numbers is larger than the group memory.");
  if (!T || !N) return invalid("A recurrent layer has no steps or no sequences.");
  Product p{0, 1, T * N, rows, I, I, 1, 1, I, {D}, {0}, {rows * I}};
  int64_t at = 0;
  Bound bound = AI_VMM_TAKE(product_to_scratch(b, p, &at));
  bound.flops += 2.0 * double(D * T * N) * double(rows * H);

  const int width = H >= b.traits.vector() ? b.traits.vector() : 1;
  Words v;
  v["kernel"] = "${kernel}";
  v["idx"] = b.idx();
  v["H"] = std::to_string(H);
  v["G"] = std::to_string(G);
  v["V"] = vector_type(width);
  v["W"] = std::to_string(width);
  v["load_r"] = vector_load(width, "r + i");
  v["load_v"] = vector_load(width, "v + i");
  v["spill"] = vector_store(width, "a", "parts");
  v["reverse"] = c.direction == "reverse" ? "true" : "false";
  std::string parameters, pointers;
  auto parameter = [&](bool there, const char* type, const char* name) {
    if (there) parameters += std::string(", GLOBAL ") + type + "* RESTRICT " + name;
  };
  parameter(c.has_bias, "const float", "B");
  parameter(c.has_lengths, "const int", "lengths");
  parameter(c.has_h0, "const float", "h0");
  parameter(c.has_c0, "const float", "c0");
  parameter(c.has_peepholes, "const float", "P");
  parameter(c.has_y, "float", "Y");
  parameter(c.has_yh, "float", "Yh");
  parameter(c.has_yc, "float", "Yc");
  if (c.has_bias) pointers += "  B += d * 2 * ${G} * ${H};\n";
  if (c.has_peepholes) pointers += "  P += d * 3 * ${H};\n";
  v["parameters"] = parameters;
  v["pointers"] = pointers;
  v["h0"] = c.has_h0 ? "h0[d * sd + n * sn + k]" : "0.0f";
  v["c0"] = c.has_c0 ? "c0[d * sd + n * sn + k]" : "0.0f";
  v["length"] = c.has_lengths ? "lengths[n]" : "T";
  for (int g = 0; g < 4; ++g) {
    std::string k = std::to_string(g);
    // The candidate of a GRU that resets after the product keeps the recurrent bias inside the reset.
    bool inside = c.op == "GRU" && g == 2;
    v["bias" + k] = !c.has_bias ? "" : inside ? "" : " + B[" + k + " * ${H} + k] + B[(${G} + " + k + ") * ${H} + k]";
  }
  for (int g = 0; g < 3; ++g) {
    // Peepholes stand in the order input, output, forget; the output gate sees the new cell.
    const char* cell[] = {"c", "e", "c"};
    const int place[] = {0, 1, 2};
    v["peep" + std::to_string(g)] =
        c.has_peepholes ? " + P[" + std::to_string(place[g]) + " * ${H} + k] * " + cell[g] : "";
  }
  for (size_t f = 0; f < c.functions.size(); ++f) v["f" + std::to_string(f)] = function_of(c.functions[f]);
  v["clip"] = c.clip > 0 ? "${kernel}_clip" : "";
  v["forget"] = c.coupled ? "1.0f - i" : kForget;
  if (c.op == "GRU") {
    std::string wb = c.has_bias ? " + B[2 * ${H} + k]" : "", rb = c.has_bias ? " + B[(${G} + 2) * ${H} + k]" : "";
    std::string own = "x[2 * ${H} + k]" + wb;
    v["reset"] = c.linear ? "r" : "r * h[k]";
    v["candidate"] = c.linear ? own + " + other[k] * (${kernel}_dot(R + (2 * ${H} + k) * ${H}, h)" + rb + ")"
                              : own + " + ${kernel}_dot(R + (2 * ${H} + k) * ${H}, other)" + rb;
  }
  v["step"] = c.op == "LSTM" ? kLstm : c.op == "GRU" ? kGru : kRnn;
  v["y"] = c.has_y ? "      Y[t * yt + d * yd + n * yn + k] = next[k];\n" : "";
  v["y_zero"] = c.has_y && c.has_lengths
                    ? "  for (int t = length; t < T; ++t)\n    for (int k = LID0; k < ${H}; k += SIZE0) Y[t * yt + d * "
                      "yd + n * yn + k] = 0.0f;\n"
                    : "";
  v["y_h"] = c.has_yh ? "    Yh[d * sd + n * sn + k] = h[k];\n" : "";
  v["y_c"] = c.has_yc ? "    Yc[d * sd + n * sn + k] = other[k];\n" : "";
  std::string clip = c.clip > 0 ? "DEVICE float ${kernel}_clip(float x) { return fmin(fmax(x, " +
                                      literal(-c.clip, "float") + "), " + literal(c.clip, "float") + "); }\n"
                                : "";
  v["dot"] = kDot + clip;
  Launch l = launch("sequence", nested(kSequence, v), {});
  l.scratch(at).in(2);
  const int64_t wt = (c.batch_first ? 1 : N) * rows, wn = (c.batch_first ? T : 1) * rows;
  const int64_t yt = (c.batch_first ? D : D * N) * H, yd = (c.batch_first ? 1 : N) * H,
                yn = (c.batch_first ? T * D : 1) * H, sd = (c.batch_first ? 1 : N) * H,
                sn = (c.batch_first ? D : 1) * H;
  for (int64_t i : {T, N, D, wt, wn, yt, yd, yn, sd, sn}) l.scalar(b.index(i));
  if (c.has_bias) l.in(3);
  if (c.has_lengths) l.in(4);
  if (c.has_h0) l.in(5);
  if (c.has_c0) l.in(6);
  if (c.has_peepholes) l.in(7);
  if (c.has_y) l.out(0);
  if (c.has_yh) l.out(1);
  if (c.has_yc) l.out(2);
  int64_t group = 1;
  while (!b.traits.wide && group < 256 && group * 2 <= b.traits.max_group && group < H) group *= 2;
  l.items({D * N * group}, {group});
  bound.launches.push_back(std::move(l));
  return bound;
}

Made make_cell(const Make& m, int gates) {
  for (size_t k : {0, 1, 2, 3, 5, 6, 7})
    if (m.has(k) && m.dtype(k) != DType::f32) return refuse_type("only float32 has recurrent kernels");
  const size_t functions = gates == 4 ? 3 : gates == 3 ? 2 : 1;
  auto names = m.node.strings("activations");
  if (names.empty())
    names = gates == 4   ? std::vector<std::string>{"Sigmoid", "Tanh", "Tanh"}
            : gates == 3 ? std::vector<std::string>{"Sigmoid", "Tanh"}
                         : std::vector<std::string>{"Tanh"};
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] != names[i % functions] || !function_of(names[i]))
      return {AI_VMM_REFUSED_ATTRIBUTE, "activations other than Sigmoid, Tanh and Relu, or two sets of them"};
  names.resize(functions);
  Cell c{m.node.op,
         m.node.s("direction", "forward"),
         gates,
         m.node.i("layout") != 0,
         m.node.i("linear_before_reset") != 0,
         m.node.i("input_forget") != 0,
         m.has(3),
         m.has(4),
         m.has(5),
         m.has(6),
         m.has(7),
         m.has_out(0),
         m.has_out(1),
         m.has_out(2),
         names,
         m.node.f("clip", 0)};
  return BindFn([c](const Bind& b) -> Result<Bound> { return bind_cell(c, b); });
}

}  // namespace

Made make_lstm(const Make& m) { return make_cell(m, 4); }
Made make_gru(const Make& m) { return make_cell(m, 3); }
Made make_rnn(const Make& m) { return make_cell(m, 1); }

}  // namespace ai_vmm::gpu
