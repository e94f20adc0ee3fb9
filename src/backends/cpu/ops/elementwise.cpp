// Runs block programs: all elementwise operators, alone or fused.
#include "backends/cpu/elementwise.hpp"

#include <cmath>
#include <cstring>
#include <limits>

#include "backends/cpu/kernels/kernels.hpp"
#include "base/check.hpp"
#include "base/numbers.hpp"

namespace ai_vmm::cpu {

namespace {

constexpr int64_t kBlock = 1024;  // elements of a block: a few of them fit the first-level cache
constexpr int64_t kRegister = kBlock * 8;

std::span<const BlockEntry> functions() {
  static const std::span<const BlockEntry> all = [] {
    int n = 0;
    const BlockEntry* e = kernels().block_functions(&n);
    return std::span<const BlockEntry>(e, size_t(n));
  }();
  return all;
}

// Cost of one element, in additions.
int cost_of(std::string_view op) {
  for (const char* cheap :
       {"Add", "Sub", "Mul", "Relu", "Max", "Min", "Abs", "Neg", "ClipConst", "ScaleShift", "Where", "Square"})
    if (op == cheap) return 1;
  for (const char* libm :
       {"Pow", "FMod", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"})
    if (op == libm) return 40;
  return 6;
}

std::optional<float> scalar(const Graph& g, ValueId v) {
  if (v == kAbsent || !g.is_constant(v) || g.value(v).constant.count() != 1) return std::nullopt;
  return float(read_double(g.value(v).constant.dtype(), g.value(v).constant.data(), 0));
}

}  // namespace

int find_block_function(const char* op, DType in, DType out) {
  auto all = functions();
  for (size_t i = 0; i < all.size(); ++i)
    if (all[i].in == int(in) && (out == DType::undefined || all[i].out == int(out)) && std::strcmp(all[i].op, op) == 0)
      return int(i);
  return -1;
}

std::optional<BlockProgram> block_program(const Graph& g, const Node& n) {
  BlockProgram p;
  if (n.domain == "cpu" && n.op == "Elementwise") {
    p.inputs = n.inputs;
    auto code = n.ints("code");
    auto params = n.floats("params");
    for (size_t i = 0; i * 4 < code.size(); ++i)
      p.code.push_back({int(code[4 * i]), int(code[4 * i + 1]), int(code[4 * i + 2]), int(code[4 * i + 3]),
                        params[2 * i], params[2 * i + 1]});
    for (int64_t r : n.ints("results")) p.results.push_back(int(r));
    return p;
  }
  if (n.outputs.size() != 1 || n.inputs.empty() || !n.has_input(0)) return std::nullopt;
  if (!n.domain.empty() && n.domain != "com.microsoft") return std::nullopt;
  DType t = g.value(n.inputs[0]).type.dtype, out = g.value(n.outputs[0]).type.dtype;
  auto use = [&](ValueId v) {
    for (size_t k = 0; k < p.inputs.size(); ++k)
      if (p.inputs[k] == v) return int(k);
    p.inputs.push_back(v);
    return int(p.inputs.size() - 1);
  };
  std::vector<ValueId> given;
  for (ValueId v : n.inputs)
    if (v != kAbsent) given.push_back(v);
  bool ok = true;
  // Results are numbered after the inputs, so inputs are entered first.
  auto emit = [&](const char* op, DType in, int a, int b = -1, int c = -1, float p0 = 0, float p1 = 0,
                  DType result = DType::undefined) {
    int fn = find_block_function(op, in, result);
    if (fn < 0) ok = false;
    p.code.push_back({fn, a, b, c, p0, p1});
    return int(p.inputs.size() + p.code.size() - 1);
  };
  auto done = [&]() -> std::optional<BlockProgram> {
    if (!ok || p.code.empty()) return std::nullopt;
    p.results = {int(p.code.size()) - 1};
    return p;
  };
  const std::string& op = n.op;
  auto unary = [&](const char* name, float p0 = 0, float p1 = 0) {
    int x = use(n.inputs[0]);
    emit(name, t, x, -1, -1, p0, p1);
    return done();
  };
  if (n.domain == "com.microsoft") {
    if (op == "Gelu") return unary("GeluErf");
    if (op == "QuickGelu") return unary("Swish", n.f("alpha", 1.702f));
    if ((op == "BiasGelu" || op == "FastGelu")) {
      int x = use(n.inputs[0]);
      if (n.has_input(1)) {
        int b = use(n.inputs[1]);
        x = emit("Add", t, x, b);
      }
      emit(op == "BiasGelu" ? "GeluErf" : "GeluTanh", t, x);
      return done();
    }
    return std::nullopt;
  }
  if (op == "Gelu") return unary(n.s("approximate", "none") == "tanh" ? "GeluTanh" : "GeluErf");
  if (op == "HardSigmoid") return unary("HardSigmoid", n.f("alpha", 0.2f), n.f("beta", 0.5f));
  if (op == "LeakyRelu") return unary("LeakyRelu", n.f("alpha", 0.01f));
  if (op == "Elu") return unary("Elu", n.f("alpha", 1.0f));
  if (op == "Celu") return unary("Celu", n.f("alpha", 1.0f));
  if (op == "Selu")
    return unary("Selu", n.f("alpha", 1.67326319217681884765625f), n.f("gamma", 1.05070102214813232421875f));
  if (op == "ThresholdedRelu") return unary("ThresholdedRelu", n.f("alpha", 1.0f));
  if (op == "Swish") return unary("Swish", n.f("alpha", 1.0f));
  if (op == "Dropout" || op == "Identity") return std::nullopt;
  if (op == "Cast") {
    if (t == out) return std::nullopt;
    int x = use(n.inputs[0]);
    emit("Cast", t, x, -1, -1, 0, 0, out);
    return done();
  }
  if (op == "Clip") {
    auto lo = n.has_input(1) ? scalar(g, n.inputs[1]) : -std::numeric_limits<float>::infinity();
    auto hi = n.has_input(2) ? scalar(g, n.inputs[2]) : std::numeric_limits<float>::infinity();
    if (t == DType::f32 && lo && hi && *lo <= *hi) return unary("ClipConst", *lo, *hi);
    int x = use(n.inputs[0]);
    int a = n.has_input(1) ? use(n.inputs[1]) : -1, b = n.has_input(2) ? use(n.inputs[2]) : -1;
    if (a >= 0) x = emit("Max", t, x, a);
    if (b >= 0) x = emit("Min", t, x, b);
    return done();
  }
  if (op == "Where") {
    int c = use(n.inputs[0]), a = use(n.inputs[1]), b = use(n.inputs[2]);
    emit("Where", g.value(n.inputs[1]).type.dtype, c, a, b);
    return done();
  }
  if (op == "Mod") {
    if (n.i("fmod", 0) && t != DType::f32) return std::nullopt;
    if (!n.i("fmod", 0) && t == DType::f32) return std::nullopt;
    int a = use(n.inputs[0]), b = use(n.inputs[1]);
    emit(t == DType::f32 ? "FMod" : "Mod", t, a, b);
    return done();
  }
  if (op == "Pow") {
    if (t != DType::f32) return std::nullopt;
    if (auto e = scalar(g, n.inputs[1])) {
      if (*e == 2) return unary("Square");
      if (*e == 3) return unary("Cube");
      if (*e == 0.5f) return unary("Sqrt");
      if (*e == 1) return unary("ScaleShift", 1, 0);
      if (*e == -1) return unary("Reciprocal");
    }
    DType et = g.value(n.inputs[1]).type.dtype;
    int a = use(n.inputs[0]), b = use(n.inputs[1]);
    if (et != t) b = emit("Cast", et, b, -1, -1, 0, 0, t);
    emit("Pow", t, a, b);
    return done();
  }
  if (op == "Sum" || op == "Mean" || ((op == "Max" || op == "Min") && given.size() != 2)) {
    std::vector<int> xs;
    for (ValueId v : given) xs.push_back(use(v));
    const char* f = op == "Max" ? "Max" : op == "Min" ? "Min" : "Add";
    int x = xs[0];
    if (t != DType::f32 && op == "Mean") return std::nullopt;
    if (xs.size() == 1 && op != "Mean" && t != DType::f32) return std::nullopt;
    for (size_t k = 1; k < xs.size(); ++k) x = emit(f, t, x, xs[k]);
    if (op == "Mean" || xs.size() == 1) emit("ScaleShift", t, x, -1, -1, 1.0f / float(xs.size()), 0);
    return done();
  }
  static const char* const kTwo[] = {"Add",   "Sub",   "Mul",  "Div",     "Max",         "Min",
                                     "PRelu", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual",
                                     "And",   "Or",    "Xor"};
  for (const char* name : kTwo)
    if (op == name) {
      if (given.size() != 2) return std::nullopt;
      int a = use(given[0]), b = use(given[1]);
      emit(name, t, a, b);
      return done();
    }
  static const char* const kOne[] = {"Relu",      "Abs",  "Neg",   "Exp",   "Log",   "Sqrt",  "Reciprocal", "Sigmoid",
                                     "Tanh",      "Erf",  "Floor", "Ceil",  "Round", "Sign",  "Softplus",   "Softsign",
                                     "HardSwish", "Mish", "Sin",   "Cos",   "Tan",   "Asin",  "Acos",       "Atan",
                                     "Sinh",      "Cosh", "Asinh", "Acosh", "Atanh", "IsNaN", "Not"};
  for (const char* name : kOne)
    if (op == name) return unary(name);
  return std::nullopt;
}

Node program_node(const BlockProgram& p, std::vector<ValueId> outputs) {
  Node n;
  n.op = "Elementwise";
  n.domain = "cpu";
  n.inputs = p.inputs;
  n.outputs = std::move(outputs);
  std::vector<int64_t> code, results;
  std::vector<float> params;
  for (const Instruction& i : p.code) {
    code.insert(code.end(), {i.fn, i.a, i.b, i.c});
    params.insert(params.end(), {i.p0, i.p1});
  }
  results.assign(p.results.begin(), p.results.end());
  n.set("code", std::move(code));
  n.set("params", std::move(params));
  n.set("results", std::move(results));
  return n;
}

namespace {

struct Operand {
  int64_t size;                  // bytes of an element
  bool direct = false;           // contiguous as the output: used where it lies
  bool single = false;           // one element for all
  std::vector<int64_t> strides;  // per collapsed dimension, in elements
};

// Everything a run needs, laid out once per set of sizes.
struct Plan {
  struct Op {
    BlockFn fn;
    int a, b, c;  // operand numbers: inputs, then registers (inputs.size() + register)
    int target;   // register, or -1 - output
    int64_t out_size;
    float p[2];
  };
  std::vector<Op> ops;
  std::vector<Operand> in;
  std::vector<int> staged;  // per input: number of its staging block, -1 when direct
  std::vector<int64_t> out_size;
  std::vector<std::shared_ptr<const void>> padded;  // per input: constant in the blocked layout, or null
  std::vector<int64_t> dims;                        // collapsed
  int64_t count = 0, blocks = 0;
  int registers = 0, stages = 0;
  bool by_rows = false;  // blocks do not cross the innermost dimension
  int64_t row_blocks = 1;
};

template <class T>
void fill(T* to, const T* from, const std::vector<int64_t>& dims, const std::vector<int64_t>& strides, int64_t start,
          int64_t n) {
  size_t r = dims.size();
  int64_t at[8] = {}, offset = 0, rest = start;
  for (size_t d = r; d-- > 0;) {
    at[d] = rest % dims[d];
    rest /= dims[d];
    offset += at[d] * strides[d];
  }
  int64_t inner = dims[r - 1], step = strides[r - 1];
  while (n > 0) {
    int64_t run = std::min(n, inner - at[r - 1]);
    const T* f = from + offset;
    if (step == 1)
      for (int64_t i = 0; i < run; ++i) to[i] = f[i];
    else if (step == 0)
      for (int64_t i = 0; i < run; ++i) to[i] = *f;
    else
      for (int64_t i = 0; i < run; ++i) to[i] = f[i * step];
    to += run;
    n -= run;
    if (n <= 0) break;
    offset -= at[r - 1] * step;
    at[r - 1] = 0;
    for (size_t d = r - 1; d-- > 0;) {
      offset += strides[d];
      if (++at[d] < dims[d]) break;
      offset -= at[d] * strides[d];
      at[d] = 0;
    }
  }
}

void fill(int64_t size, std::byte* to, const std::byte* from, const std::vector<int64_t>& dims,
          const std::vector<int64_t>& strides, int64_t start, int64_t n) {
  switch (size) {
    case 1:
      return fill(reinterpret_cast<uint8_t*>(to), reinterpret_cast<const uint8_t*>(from), dims, strides, start, n);
    case 2:
      return fill(reinterpret_cast<uint16_t*>(to), reinterpret_cast<const uint16_t*>(from), dims, strides, start, n);
    case 4:
      return fill(reinterpret_cast<uint32_t*>(to), reinterpret_cast<const uint32_t*>(from), dims, strides, start, n);
    default:
      return fill(reinterpret_cast<uint64_t*>(to), reinterpret_cast<const uint64_t*>(from), dims, strides, start, n);
  }
}

// Runs blocks [first, last) with `work` for staging blocks and registers.
void run_blocks(const Plan& p, std::byte* const* in, std::byte* const* out, std::byte* work, int64_t first,
                int64_t last) {
  std::byte* registers = work + p.stages * kRegister;
  for (size_t k = 0; k < p.in.size(); ++k)
    if (p.in[k].single && p.staged[k] >= 0)
      fill(p.in[k].size, work + p.staged[k] * kRegister, in[k], {kBlock}, {0}, 0, kBlock);
  const std::byte* at[64];
  for (int64_t block = first; block < last; ++block) {
    int64_t start, n;
    if (p.by_rows) {
      int64_t row = block / p.row_blocks, part = block % p.row_blocks, inner = p.dims.back();
      start = row * inner + part * kBlock;
      n = std::min(kBlock, inner - part * kBlock);
    } else {
      start = block * kBlock;
      n = std::min(kBlock, p.count - start);
    }
    for (size_t k = 0; k < p.in.size(); ++k) {
      const Operand& o = p.in[k];
      std::byte* stage = work + (p.staged[k] < 0 ? 0 : p.staged[k] * kRegister);
      if (o.direct) {
        at[k] = in[k] + start * o.size;
      } else if (o.single) {
        at[k] = stage;
      } else if (p.by_rows && o.strides.back() == 1) {
        int64_t offset = 0, rest = start;
        for (size_t d = p.dims.size(); d-- > 0;) {
          offset += rest % p.dims[d] * o.strides[d];
          rest /= p.dims[d];
        }
        at[k] = in[k] + offset * o.size;
      } else {
        fill(o.size, stage, in[k], p.dims, o.strides, start, n);
        at[k] = stage;
      }
    }
    auto operand = [&](int k) -> const void* {
      return k < 0 ? nullptr : k < int(p.in.size()) ? at[k] : registers + (k - int(p.in.size())) * kRegister;
    };
    for (const Plan::Op& op : p.ops) {
      void* to = op.target >= 0 ? registers + op.target * kRegister : out[-1 - op.target] + start * op.out_size;
      op.fn(to, operand(op.a), operand(op.b), operand(op.c), n, op.p);
    }
  }
}

// Merges neighbouring dimensions that every operand walks as one, and drops those of size 1.
void collapse(Plan& p, const Shape& shape) {
  size_t r = shape.size();
  std::vector<int64_t> dims;
  std::vector<std::vector<int64_t>> strides(p.in.size());
  for (size_t d = 0; d < r; ++d) {
    if (shape[d] == 1) continue;
    bool joins = !dims.empty();
    for (size_t k = 0; joins && k < p.in.size(); ++k) joins = strides[k].back() == p.in[k].strides[d] * shape[d];
    if (joins)
      dims.back() *= shape[d];
    else
      dims.push_back(shape[d]);
    for (size_t k = 0; k < p.in.size(); ++k) {
      if (joins)
        strides[k].back() = p.in[k].strides[d];
      else
        strides[k].push_back(p.in[k].strides[d]);
    }
  }
  if (dims.empty()) {
    dims.push_back(1);
    for (auto& s : strides) s.push_back(0);
  }
  p.dims = std::move(dims);
  for (size_t k = 0; k < p.in.size(); ++k) {
    Operand& o = p.in[k];
    o.strides = std::move(strides[k]);
    o.single = std::all_of(o.strides.begin(), o.strides.end(), [](int64_t s) { return s == 0; });
    o.direct = !o.single && p.dims.size() == 1 && o.strides[0] == 1;
    if (!o.single && p.dims.size() > 1) {
      int64_t dense = 1;
      o.direct = true;
      for (size_t d = p.dims.size(); d-- > 0;) {
        o.direct &= o.strides[d] == dense;
        dense *= p.dims[d];
      }
    }
  }
}

struct Compiled {
  BlockProgram program;
  std::vector<DType> in_types;
  std::vector<Layout> in_layouts;
  std::vector<Tensor> constants;  // per input; empty when not constant
  Layout layout;
  std::vector<DType> out_types;
};

Result<Bound> bind_program(const std::shared_ptr<const Compiled>& c, const Bind& b, std::shared_ptr<Pack> pack) {
  auto plan = std::make_shared<Plan>();
  Plan& p = *plan;
  const BlockProgram& prog = c->program;
  Shape shape = physical_shape(b.out(0), c->layout);
  size_t r = shape.size(), logical = b.out(0).size();
  p.count = product(shape);
  p.in.resize(prog.inputs.size());
  p.padded.resize(prog.inputs.size());
  for (size_t k = 0; k < prog.inputs.size(); ++k) {
    Operand& o = p.in[k];
    o.size = bits(c->in_types[k]) / 8;
    Shape s = b.in(k);
    if (s.size() > logical) return invalid("Operand " + std::to_string(k) + " has a higher rank than the result.");
    if (c->layout.block) {
      Shape full(logical - s.size(), 1);
      full.insert(full.end(), s.begin(), s.end());
      if (c->in_layouts[k].block || product(s) == 1) {
        s = product(s) == 1 && !c->in_layouts[k].block ? Shape(r, 1) : physical_shape(full, c->in_layouts[k]);
      } else {  // a constant along the channels only
        int64_t channels = full[1], padded = (channels + c->layout.block - 1) / c->layout.block * c->layout.block;
        AI_VMM_CHECK(c->constants[k] && product(full) == channels, "a plain operand in a blocked program");
        p.padded[k] = pack->get(std::to_string(prog.inputs[k]) + ":channels" + std::to_string(c->layout.block),
                                [&](int64_t& bytes) {
                                  bytes = padded * o.size;
                                  auto buffer = aligned_buffer(bytes);
                                  std::memset(buffer.get(), 0, size_t(bytes));
                                  std::memcpy(buffer.get(), c->constants[k].data(), size_t(channels * o.size));
                                  return std::shared_ptr<const void>(buffer);
                                });
        s = physical_shape(full, c->layout);
      }
    }
    Shape own = strides_of(s);
    o.strides.assign(r, 0);
    for (size_t d = 0; d < s.size(); ++d) {
      size_t to = r - s.size() + d;
      if (s[d] != 1 && s[d] != shape[to])
        return invalid("Shapes " + ai_vmm::to_string(b.in(k)) + " and " + ai_vmm::to_string(b.out(0)) +
                       " do not broadcast.");
      o.strides[to] = s[d] == 1 ? 0 : own[d];
    }
  }
  collapse(p, shape);
  if (p.dims.size() > 8)
    return invalid("An elementwise operator over more than 8 separate dimensions is not supported.");
  bool rows_worth = p.dims.size() > 1 && p.dims.back() >= 128;
  for (const Operand& o : p.in) rows_worth &= o.strides.back() == 0 || o.strides.back() == 1;
  bool any_staged = false;
  for (const Operand& o : p.in) any_staged |= !o.direct && !o.single;
  p.by_rows = rows_worth && any_staged;
  p.row_blocks = p.by_rows ? (p.dims.back() + kBlock - 1) / kBlock : 1;
  p.blocks = p.by_rows ? p.count / p.dims.back() * p.row_blocks : (p.count + kBlock - 1) / kBlock;
  for (const Operand& o : p.in) p.staged.push_back(o.direct ? -1 : p.stages++);
  // Registers: an instruction's result lives until its last reader.
  size_t n_in = prog.inputs.size();
  std::vector<int> last(prog.code.size(), -1), where(prog.code.size(), 0);
  for (size_t i = 0; i < prog.code.size(); ++i)
    for (int k : {prog.code[i].a, prog.code[i].b, prog.code[i].c})
      if (k >= int(n_in)) last[size_t(k) - n_in] = int(i);
  std::vector<int> free;
  int64_t cost = 0;
  std::vector<int> result_of(prog.code.size(), -1);
  for (size_t k = 0; k < prog.results.size(); ++k) result_of[size_t(prog.results[k])] = int(k);
  auto all = functions();
  for (size_t i = 0; i < prog.code.size(); ++i) {
    const Instruction& in = prog.code[i];
    const BlockEntry& e = all[size_t(in.fn)];
    cost += cost_of(e.op);
    auto place = [&](int k) { return k < int(n_in) ? k : int(n_in) + where[size_t(k) - n_in]; };
    Plan::Op op{
        e.fn,          place(in.a), in.b < 0 ? -1 : place(in.b), in.c < 0 ? -1 : place(in.c), 0, bits(DType(e.out)) / 8,
        {in.p0, in.p1}};
    // A dying operand's register may take the result unless that is wider than what is still to be read there.
    std::vector<int> dying;
    for (int k : {in.a, in.b, in.c})
      if (k >= int(n_in) && last[size_t(k) - n_in] == int(i)) {
        last[size_t(k) - n_in] = -1;
        int size = bits(DType(all[size_t(prog.code[size_t(k) - n_in].fn)].out)) / 8;
        (size >= op.out_size ? free : dying).push_back(where[size_t(k) - n_in]);
      }
    bool to_output = result_of[i] >= 0 && last[i] < 0;
    if (to_output) {
      op.target = -1 - result_of[i];
    } else {
      if (free.empty()) {
        op.target = p.registers++;
      } else {
        op.target = free.back();
        free.pop_back();
      }
      where[i] = op.target;
    }
    free.insert(free.end(), dying.begin(), dying.end());
    AI_VMM_CHECK(result_of[i] < 0 || to_output, "a result that is also an operand");
    p.ops.push_back(op);
  }
  int64_t work = (p.stages + p.registers) * kRegister + 64;
  int64_t grain = std::max<int64_t>(1, 48 * 1024 / (kBlock * cost));
  int threads = int(std::clamp<int64_t>(p.blocks / grain, 1, b.threads));
  size_t outputs = prog.results.size();
  bool clear_tail = c->layout.block && b.out(0)[1] % c->layout.block != 0;
  Shape out_shape = b.out(0);
  Layout layout = c->layout;
  return Bound{[plan, threads, work, grain, outputs, n_in, clear_tail, out_shape, layout](Run& run) -> Status {
                 const Plan& p = *plan;
                 std::byte* in[64];
                 std::byte* out[8];
                 for (size_t k = 0; k < n_in; ++k)
                   in[k] = p.padded[k] ? static_cast<std::byte*>(const_cast<void*>(p.padded[k].get()))
                                       : const_cast<std::byte*>(run.in<std::byte>(k));
                 for (size_t k = 0; k < outputs; ++k) out[k] = run.out<std::byte>(k);
                 parallel(std::min(threads, run.threads), p.blocks, grain, [&](int64_t first, int64_t last) {
                   run_blocks(p, in, out, run.scratch + worker_index * work, first, last);
                 });
                 if (clear_tail) {
                   // Channels past the last stay zero, whatever the functions make of zero.
                   int64_t channels = out_shape[1], block = layout.block, outer = (channels + block - 1) / block;
                   int64_t spatial = product(out_shape, 2, out_shape.size()), used = channels - (outer - 1) * block;
                   for (int64_t n = 0; n < out_shape[0]; ++n) {
                     float* at = run.out<float>(0) + ((n * outer + outer - 1) * spatial) * block;
                     for (int64_t s = 0; s < spatial; ++s)
                       for (int64_t c = used; c < block; ++c) at[s * block + c] = 0;
                   }
                 }
                 return {};
               },
               work* std::max(1, threads), std::to_string(prog.code.size()) + " ops", double(p.count) * double(cost)};
}

}  // namespace

Made make_elementwise(const Make& m) {
  auto program = block_program(m.graph, m.node);
  if (!program) return "this element type has no elementwise function of its own";
  if (program->inputs.size() > 60 || program->results.size() > 8) return "too many operands";
  auto c = std::make_shared<Compiled>();
  c->program = std::move(*program);
  uint32_t in_place = 0;
  for (size_t k = 0; k < c->program.inputs.size(); ++k) {
    ValueId v = c->program.inputs[k];
    c->in_types.push_back(m.graph.value(v).type.dtype);
    c->in_layouts.push_back(m.layouts[size_t(v)]);
    c->constants.push_back(m.graph.value(v).constant);
    if (bits(c->in_types.back()) < 8) return "packed elements";
  }
  for (size_t k = 0; k < m.outputs(); ++k) c->out_types.push_back(m.out_dtype(k));
  c->layout = m.out_layout(0);
  // Steps read their inputs in the order of the program, which may be shorter than the node's list.
  std::vector<int> order;
  for (ValueId v : c->program.inputs)
    for (size_t k = 0; k < m.inputs(); ++k)
      if (m.node.inputs[k] == v) {
        order.push_back(int(k));
        break;
      }
  if (c->program.results.size() == 1)
    for (size_t k = 0; k < order.size() && k < 32; ++k) in_place |= 1u << order[k];
  auto pack = m.pack;
  return Made(BindFn([c, pack, order](const Bind& b) -> Result<Bound> {
           std::vector<const Shape*> in;
           for (int k : order) in.push_back(b.in_shapes[size_t(k)]);
           Bind sub{in, b.out_shapes, b.in_ints, b.threads};
           Bound bound = AI_VMM_TAKE(bind_program(c, sub, pack));
           bool same = true;
           for (size_t k = 0; k < order.size(); ++k) same &= order[k] == int(k);
           if (same) return bound;
           auto inner = std::make_shared<RunFn>(std::move(bound.run));
           bound.run = [inner, order](Run& run) {
             int ids[64];
             for (size_t k = 0; k < order.size(); ++k) ids[k] = run.in_ids[size_t(order[k])];
             Run sub = run;
             sub.in_ids = {ids, order.size()};
             return (*inner)(sub);
           };
           return bound;
         }))
      .overwrites(in_place);
}

}  // namespace ai_vmm::cpu
