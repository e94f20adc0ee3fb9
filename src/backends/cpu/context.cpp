// Runs a Program: binds sizes, lays out the arena, loops over the steps.
#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "ai_vmm/cancel.hpp"
#include "backends/cpu/program_impl.hpp"
#include "base/check.hpp"
#include "base/config.hpp"
#include "base/numbers.hpp"
#include "kit/offsets.hpp"
#include "ops/op.hpp"

// LLVM's OpenMP library has it, others do not.
extern "C" void kmp_set_blocktime(int milliseconds) __attribute__((weak));

namespace ai_vmm::cpu {

namespace {

// How long a thread of the pool spins for more work before it sleeps: long enough to span the steps of one run, short
// enough to leave the processor to others between runs.
constexpr int kSpinMilliseconds = 2;

void bound_spinning() {
  thread_local bool done = false;
  if (done) return;
  done = true;
  if (kmp_set_blocktime) kmp_set_blocktime(kSpinMilliseconds);
}

constexpr int64_t kUnknown = INT64_MIN;

struct StepState {
  Bound bound;
  std::vector<Shape> shapes;  // that it was bound for
  bool ready = false;
  std::string sizes_key;     // of a step sized at run time: the inputs that its sizes were inferred from
  std::vector<Shape> sizes;  // of its outputs for that key
  double seconds = 0;        // the least
  int64_t runs = 0;
};

struct SegmentState {
  Tensor arena;
  std::vector<int> values;        // arena roots made in this segment
  std::vector<int64_t> capacity;  // bytes planned for each of them, then scratch for each step
  std::vector<int64_t> offsets;
  bool ready = false;
  bool planned = false;
};

bool profile_wanted() {
  static const bool wanted = [] {
    auto config = Config::load();
    return config.ok() && config->boolean("cpu_profile");
  }();
  return wanted;
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

struct Context::Impl {
  std::shared_ptr<const Program> program;
  const Program::Impl& p;
  std::vector<int64_t> exprs;
  std::unordered_map<std::string, int64_t> symbols;
  std::vector<Shape> shapes;  // of every slot
  std::vector<char> shape_known;
  std::vector<std::byte*> memory;           // of every slot
  std::vector<Tensor> own;                  // by root: what data-dependent steps made
  std::vector<std::vector<int64_t>> small;  // storage of integers known at bind
  std::vector<StepState> steps;
  std::vector<SegmentState> segments;
  std::vector<Shape> last_inputs;
  std::vector<std::byte> step_scratch;
  int bound_threads = 0;
  bool bound = false;

  explicit Impl(std::shared_ptr<const Program> prog) : program(std::move(prog)), p(program->impl()) {
    size_t n = p.slots.size();
    exprs.assign(p.exprs.size(), kUnknown);
    shapes.resize(n);
    shape_known.assign(n, 0);
    memory.assign(n, nullptr);
    own.resize(n);
    small.resize(n);
    steps.resize(p.steps.size());
    segments.resize(p.segments.size());
    for (size_t i = 0; i < n; ++i) {
      const Slot& s = p.slots[i];
      if (s.root != int(i)) continue;
      if (s.kind == Slot::Kind::constant)
        set_memory(int(i), static_cast<std::byte*>(const_cast<void*>(s.constant.data())));
      if (s.kind == Slot::Kind::ints) {
        small[i].assign(s.ints.size() + 1, 0);
        set_memory(int(i), reinterpret_cast<std::byte*>(small[i].data()));
      }
      if (s.kind == Slot::Kind::arena || s.kind == Slot::Kind::output)
        for (size_t g = 0; g < p.segments.size(); ++g)
          if (s.first >= p.segments[g].first && s.first < p.segments[g].last) segments[g].values.push_back(int(i));
    }
    bind_ahead();
  }

  // Where all sizes are fixed, kernels are chosen and weights packed now rather than in the first run.
  void bind_ahead() {
    std::vector<Shape> shapes;
    for (const InputSpec& in : p.inputs) {
      Shape& shape = shapes.emplace_back();
      for (int d : p.slots[size_t(in.value)].dims) shape.push_back(p.exprs[size_t(d)].constant().value_or(-1));
      if (!p.slots[size_t(in.value)].ranked || std::count(shape.begin(), shape.end(), -1)) return;
    }
    std::vector<Input> inputs;
    for (size_t k = 0; k < shapes.size(); ++k)
      inputs.push_back({p.slots[size_t(p.inputs[k].value)].dtype, shapes[k], nullptr});
    int threads = p.options.threads > 0 ? p.options.threads : omp_get_num_procs();
    omp_set_num_threads(threads);
    if (!bind_inputs(inputs).ok()) return;
    // A failure here is found again, and reported, by the run.
    for (size_t g = 0; g < p.segments.size() && !p.segments[g].dynamic; ++g)
      if (!bind_segment(g, threads).ok()) return;
    bound_threads = threads;
    last_inputs = std::move(shapes);
    bound = true;
  }

  ~Impl() {
    if (profile_wanted()) print_profile();
  }

  void set_memory(int root, std::byte* at) {
    for (int m : p.slots[size_t(root)].members) memory[size_t(m)] = at;
  }

  int64_t bytes_of(int v) const {
    const Slot& s = p.slots[size_t(v)];
    return bytes_for(s.dtype, physical_count(shapes[size_t(v)], s.layout));
  }

  // ---- sizes

  Status bind_inputs(std::span<const Input> inputs) {
    symbols.clear();
    std::fill(exprs.begin(), exprs.end(), kUnknown);
    std::fill(shape_known.begin(), shape_known.end(), 0);
    for (size_t k = 0; k < p.inputs.size(); ++k) {
      const Slot& s = p.slots[size_t(p.inputs[k].value)];
      std::span<const int64_t> shape = inputs[k].shape;
      if (!s.ranked) continue;
      auto mismatch = [&](const std::string& wanted) {
        return invalid("Input \"" + p.inputs[k].name + "\" has shape " + ai_vmm::to_string(shape) +
                       "; the model takes " + wanted + ".");
      };
      if (shape.size() != s.dims.size()) return mismatch("rank " + std::to_string(s.dims.size()));
      for (size_t d = 0; d < shape.size(); ++d) {
        const Dim& e = p.exprs[size_t(s.dims[d])];
        if (auto c = e.constant()) {
          if (*c != shape[d]) return mismatch(std::to_string(*c) + " along axis " + std::to_string(d));
        } else if (e.is_symbol()) {
          auto [it, fresh] = symbols.emplace(e.to_string(), shape[d]);
          if (!fresh && it->second != shape[d])
            return mismatch(std::to_string(it->second) + " along axis " + std::to_string(d) + ", the size \"" +
                            it->first + "\" of another input");
        }
      }
    }
    evaluate_exprs();
    for (size_t k = 0; k < p.inputs.size(); ++k) {
      size_t v = size_t(p.inputs[k].value);
      const Slot& s = p.slots[v];
      for (size_t d = 0; s.ranked && d < s.dims.size(); ++d)
        if (exprs[size_t(s.dims[d])] != inputs[k].shape[d])
          return invalid("Input \"" + p.inputs[k].name + "\" has shape " + ai_vmm::to_string(inputs[k].shape) +
                         "; axis " + std::to_string(d) + " must be " + p.exprs[size_t(s.dims[d])].to_string() + ".");
      shapes[v].assign(inputs[k].shape.begin(), inputs[k].shape.end());
      shape_known[v] = 1;
    }
    return {};
  }

  void evaluate_exprs() {
    auto lookup = [&](std::string_view name) -> std::optional<int64_t> {
      auto it = symbols.find(std::string(name));
      return it == symbols.end() ? std::nullopt : std::optional(it->second);
    };
    for (size_t i = 0; i < exprs.size(); ++i)
      if (exprs[i] == kUnknown)
        if (auto v = p.exprs[i].evaluate(lookup)) exprs[i] = *v;
    for (size_t i = 0; i < p.slots.size(); ++i) {
      const Slot& s = p.slots[i];
      if (shape_known[i] || !s.ranked) continue;
      Shape& shape = shapes[i];
      shape.resize(s.dims.size());
      bool known = true;
      for (size_t d = 0; d < s.dims.size() && known; ++d) {
        shape[d] = exprs[size_t(s.dims[d])];
        known = shape[d] != kUnknown;
      }
      shape_known[i] = known;
      if (known && s.kind == Slot::Kind::ints) {
        auto* to = small[i].empty() ? nullptr : small[i].data();
        for (size_t k = 0; to && k < s.ints.size(); ++k) {
          int64_t v = exprs[size_t(s.ints[k])];
          if (s.dtype == DType::i64)
            to[k] = v;
          else
            reinterpret_cast<int32_t*>(to)[k] = int32_t(v);
        }
      }
    }
  }

  Status check_shape(const Step& step, int v) const {
    if (!shape_known[size_t(v)])
      return invalid("The sizes of \"" + p.slot_names[size_t(v)] + "\", made by " + step.label +
                     ", do not fit together for these inputs: " + describe(v) + ".");
    for (int64_t d : shapes[size_t(v)])
      if (d < 0)
        return invalid("The size of \"" + p.slot_names[size_t(v)] + "\", made by " + step.label + ", is negative: " +
                       ai_vmm::to_string(shapes[size_t(v)]) + "; the inputs are too small for this model.");
    if (!element_count(shapes[size_t(v)]))
      return Status(Code::resource_exhausted, "\"" + p.slot_names[size_t(v)] + "\" of shape " +
                                                  ai_vmm::to_string(shapes[size_t(v)]) + ", made by " + step.label +
                                                  ", is larger than any memory.");
    return {};
  }
  std::string describe(int v) const {
    std::string s = "[";
    for (size_t d = 0; d < p.slots[size_t(v)].dims.size(); ++d)
      s += (d ? "," : "") + p.exprs[size_t(p.slots[size_t(v)].dims[d])].to_string();
    return s + "]";
  }

  // ---- binding

  // The elements of a small integer input: constant, known from sizes, or (`memory_ready`) read.
  std::optional<std::vector<int64_t>> ints_of(int v, bool memory_ready) const {
    const Slot& s = p.slots[size_t(v)];
    if (s.kind != Slot::Kind::constant && !s.ints.empty()) {
      std::vector<int64_t> out;
      for (int e : s.ints) out.push_back(exprs[size_t(e)]);
      if (std::find(out.begin(), out.end(), kUnknown) == out.end()) return out;
    }
    if (s.kind != Slot::Kind::constant && !memory_ready) return std::nullopt;
    const void* data = s.kind == Slot::Kind::constant ? s.constant.data() : memory[size_t(v)];
    int64_t n = s.kind == Slot::Kind::constant ? s.constant.count() : product(shapes[size_t(v)]);
    if (n > (1 << 20) || !(is_integer(s.dtype) || s.dtype == DType::boolean)) return std::nullopt;
    std::vector<int64_t> out(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) out[size_t(i)] = read_int64(s.dtype, data, i);
    return out;
  }

  Status bind_step(size_t i, bool memory_ready, int threads) {
    const Step& step = p.steps[i];
    StepState& state = steps[i];
    std::vector<const Shape*> in, out;
    std::vector<Shape> now;
    for (int v : step.in) {
      in.push_back(v < 0 ? nullptr : &shapes[size_t(v)]);
      now.push_back(v < 0 ? Shape{} : shapes[size_t(v)]);
    }
    for (int v : step.out) {
      bool known = v >= 0 && shape_known[size_t(v)];
      out.push_back(known ? &shapes[size_t(v)] : nullptr);
      now.push_back(known ? shapes[size_t(v)] : Shape{});
    }
    std::vector<std::optional<std::vector<int64_t>>> ints(step.in.size());
    for (size_t k = 0; k < step.in.size(); ++k)
      if (step.values >> k & 1 && step.in[k] >= 0) {
        ints[k] = ints_of(step.in[k], memory_ready);
        if (ints[k]) now.push_back(*ints[k]);
      }
    if (state.ready && now == state.shapes) return {};
    Bind b{in, out, &ints, threads};
    auto made = step.bind(b);
    if (!made.ok()) return std::move(made).status().during(step.label);
    state.bound = *std::move(made);
    state.shapes = std::move(now);
    state.ready = true;
    return {};
  }

  Status bind_segment(size_t g, int threads) {
    const Segment& seg = p.segments[g];
    SegmentState& state = segments[g];
    for (int s = seg.first; s < seg.last; ++s) {
      for (int v : p.steps[size_t(s)].out)
        if (v >= 0) AI_VMM_TRY(check_shape(p.steps[size_t(s)], v));
      AI_VMM_TRY(bind_step(size_t(s), false, threads));
    }
    std::vector<int64_t> bytes;
    for (int v : state.values) bytes.push_back(p.slots[size_t(v)].kind == Slot::Kind::output ? 0 : storage_bytes(v));
    for (int s = seg.first; s < seg.last; ++s) bytes.push_back(steps[size_t(s)].bound.scratch);
    bool fits = state.planned;
    for (size_t k = 0; fits && k < bytes.size(); ++k) fits = bytes[k] <= state.capacity[k];
    if (!fits) AI_VMM_TRY(plan(g, bytes));
    for (size_t k = 0; k < state.values.size(); ++k)
      if (p.slots[size_t(state.values[k])].kind != Slot::Kind::output)
        set_memory(state.values[k], static_cast<std::byte*>(state.arena.mutable_data()) + state.offsets[k]);
    state.ready = true;
    return {};
  }

  int64_t storage_bytes(int root) const {
    int64_t most = 0;
    for (int m : p.slots[size_t(root)].members) most = std::max(most, bytes_of(m));
    return most + 64;  // room for vector loads past the end
  }

  // The first plan is exact. Later ones leave room for growth, so that a growing axis is planned for once a bucket.
  Status plan(size_t g, const std::vector<int64_t>& bytes) {
    const Segment& seg = p.segments[g];
    SegmentState& state = segments[g];
    std::vector<int64_t> capacity = bytes;
    for (size_t k = 0; state.planned && k < capacity.size(); ++k)
      if (capacity[k] != state.capacity[k] && capacity[k] > 0) {
        int64_t bucket = 65536;
        while (bucket < capacity[k]) bucket += bucket / 2;
        capacity[k] = std::max(bucket, std::min(state.capacity[k], 2 * bucket));
      }
    std::vector<Lifetime> lives;
    for (size_t k = 0; k < capacity.size(); ++k) {
      if (k < state.values.size()) {
        const Slot& s = p.slots[size_t(state.values[k])];
        lives.push_back({s.first, std::max(s.first, s.last), capacity[k]});
      } else {
        int s = seg.first + int(k - state.values.size());
        lives.push_back({s, s, capacity[k]});
      }
    }
    Offsets o = assign_offsets(lives);
    if (!state.arena || state.arena.bytes() < o.total) {
      state.arena = Tensor();
      auto arena = Tensor::make(DType::u8, {std::max<int64_t>(o.total, 64)});
      if (!arena.ok()) {  // the largest value is the one to blame; scratch of a step has no name
        size_t k = size_t(std::max_element(capacity.begin(), capacity.end()) - capacity.begin());
        int blamed =
            k < state.values.size() ? p.slots[size_t(state.values[k])].first : seg.first + int(k - state.values.size());
        return std::move(arena).status().during(p.steps[size_t(blamed)].label);
      }
      state.arena = *std::move(arena);
    }
    state.offsets = std::move(o.at);
    state.capacity = std::move(capacity);
    state.planned = true;
    ++p.compilations;
    int64_t total = 0;
    for (const SegmentState& s : segments) total += s.arena ? s.arena.bytes() : 0;
    int64_t most = p.arena_bytes;
    while (total > most && !p.arena_bytes.compare_exchange_weak(most, total)) {
    }
    return {};
  }

  // ---- running

  Status place_outputs(size_t g, std::span<const OutputSlot> outputs) {
    for (int v : segments[g].values) {
      const Slot& s = p.slots[size_t(v)];
      if (s.kind != Slot::Kind::output) continue;
      set_memory(v, static_cast<std::byte*>(AI_VMM_TAKE(output_memory(size_t(s.index), outputs))));
    }
    return {};
  }
  Result<void*> output_memory(size_t k, std::span<const OutputSlot> outputs) {
    int v = p.outputs[k];
    return output_memory(k, p.slots[size_t(v)].dtype, shapes[size_t(v)], outputs);
  }
  Result<void*> output_memory(size_t k, DType dtype, const Shape& shape, std::span<const OutputSlot> outputs) {
    const OutputSlot& slot = outputs[k];
    if (slot.data && std::equal(shape.begin(), shape.end(), slot.shape.begin(), slot.shape.end())) return slot.data;
    if (!slot.allocate)
      return Status(Code::invalid_argument, "Output " + std::to_string(k) + " of shape " + ai_vmm::to_string(shape) +
                                                " does not fit the buffer of shape " + ai_vmm::to_string(slot.shape) +
                                                " given for it.");
    return slot.allocate(dtype, shape);
  }

  // A step whose sizes nobody knew before now.
  Status run_dynamic(size_t i, std::span<const OutputSlot> outputs, const RunOptions& options, int threads) {
    const Step& step = p.steps[i];
    Status failed;
    auto place = [&](int v, Tensor t) {
      size_t root = size_t(p.slots[size_t(v)].root);
      shapes[size_t(v)] = t.shape();
      shape_known[size_t(v)] = 1;
      set_memory(int(root), static_cast<std::byte*>(t.mutable_data()));
      own[root] = std::move(t);
    };
    Dynamic dynamic;
    dynamic.make = [&](size_t k, DType dtype, Shape shape) -> Result<void*> {
      int v = step.out[k];
      const Slot& s = p.slots[size_t(v)];
      if (s.root == v && s.index >= 0 && !p.output_copy[size_t(s.index)]) {
        void* at = AI_VMM_TAKE(output_memory(size_t(s.index), dtype, shape, outputs));
        place(v, Tensor::view(dtype, std::move(shape), at));
        return at;
      }
      Tensor t = AI_VMM_TAKE(Tensor::make(dtype, std::move(shape)));
      void* at = t.mutable_data();
      place(v, std::move(t));
      return at;
    };
    dynamic.set = [&](size_t k, Tensor t) {
      int v = step.out[k];
      const Slot& s = p.slots[size_t(v)];
      if (s.root == v && s.index >= 0 && !p.output_copy[size_t(s.index)]) {
        auto at = dynamic.make(k, t.dtype(), t.shape());
        if (!at.ok())
          failed = std::move(at).status();
        else if (t.bytes())
          std::memcpy(*at, t.data(), size_t(t.bytes()));
      } else {
        place(v, std::move(t));
      }
    };
    for (int v : step.in)
      if (v >= 0 && !shape_known[size_t(v)]) return check_shape(step, v);
    if (!step.makes_outputs) {
      if (!step.sized) AI_VMM_TRY(size_outputs(i));
      for (size_t k = 0; k < step.out.size(); ++k)
        if (step.out[k] >= 0) {
          AI_VMM_TRY(check_shape(step, step.out[k]));
          AI_VMM_TRY([&]() -> Status {
            auto at = dynamic.make(k, p.slots[size_t(step.out[k])].dtype, shapes[size_t(step.out[k])]);
            return at.ok() ? Status() : std::move(at).status();
          }());
        }
    } else {
      for (int v : step.out)
        if (v >= 0) shape_known[size_t(v)] = 0;
    }
    if (step.makes_outputs || step.sized) steps[i].ready = false;
    AI_VMM_TRY(bind_step(i, true, threads));
    if (int64_t(step_scratch.size()) < steps[i].bound.scratch + 64)
      step_scratch.resize(size_t(steps[i].bound.scratch) + 64);
    auto at = (reinterpret_cast<uintptr_t>(step_scratch.data()) + 63) / 64 * 64;
    Run r{memory.data(), step.in, step.out, reinterpret_cast<std::byte*>(at), threads, options.seed, &dynamic};
    AI_VMM_TRY(steps[i].bound.run(r));
    AI_VMM_TRY(std::move(failed));
    bool changed = false;
    for (int v : step.out) {
      if (v < 0) continue;
      const Slot& s = p.slots[size_t(v)];
      const Shape& shape = shapes[size_t(v)];
      for (size_t d = 0; d < s.dims.size() && s.ranked && d < shape.size(); ++d)
        if (const Dim& e = p.exprs[size_t(s.dims[d])]; e.is_symbol()) {
          auto [it, fresh] = symbols.emplace(e.to_string(), shape[d]);
          changed |= fresh || it->second != shape[d];
          it->second = shape[d];
        }
    }
    if (changed) {
      // Expressions over the new sizes, and what was bound with the old ones, are made again.
      std::fill(exprs.begin(), exprs.end(), kUnknown);
      for (size_t v = 0; v < p.slots.size(); ++v) {
        Slot::Kind kind = p.slots[size_t(p.slots[v].root)].kind;
        bool made = p.slots[v].root == int(v) && (kind == Slot::Kind::input || kind == Slot::Kind::own);
        if (!made || !p.slots[v].ranked) shape_known[v] = shape_known[v] && made;
      }
      evaluate_exprs();
      for (size_t g = 0; g < segments.size(); ++g)
        if (p.segments[g].first > int(i)) segments[g].ready = false;
    }
    return {};
  }

  // Output shapes from the operator's own rule, now that all input sizes and integers can be read.
  // What the sizes of a step's outputs may depend on: the shapes of its inputs and the elements of the small ones.
  // Empty when an input is too large for a key.
  std::string sizes_key(const Step& step) const {
    std::string key = "k";
    auto append = [&](const void* data, size_t bytes) { key.append(static_cast<const char*>(data), bytes); };
    for (int v : step.in) {
      if (v < 0) continue;
      const Slot& s = p.slots[size_t(v)];
      const Shape& shape = shapes[size_t(v)];
      auto rank = int64_t(shape.size());
      append(&rank, sizeof rank);
      append(shape.data(), shape.size() * sizeof(int64_t));
      if (s.kind == Slot::Kind::constant || rank > 1 || product(shape) > 1024) continue;
      if (product(shape) > 64) return "";
      append(memory[size_t(v)], size_t(bytes_for(s.dtype, product(shape))));
    }
    return key;
  }

  // Sizes of the outputs of step i, inferred anew only when what they depend on has changed since its last run.
  Status size_outputs(size_t i) {
    const Step& step = p.steps[i];
    StepState& state = steps[i];
    std::string key = sizes_key(step);
    if (!key.empty() && key == state.sizes_key) {
      for (size_t k = 0; k < step.out.size(); ++k)
        if (step.out[k] >= 0) {
          shapes[size_t(step.out[k])] = state.sizes[k];
          shape_known[size_t(step.out[k])] = 1;
        }
      return {};
    }
    state.ready = false;
    state.sizes_key.clear();
    AI_VMM_TRY(infer_shapes(step));
    state.sizes.assign(step.out.size(), Shape());
    for (size_t k = 0; k < step.out.size(); ++k)
      if (step.out[k] >= 0) state.sizes[k] = shapes[size_t(step.out[k])];
    state.sizes_key = std::move(key);
    return {};
  }

  Status infer_shapes(const Step& step) {
    Graph g;
    Node n = step.node;
    for (size_t k = 0; k < n.inputs.size(); ++k) {
      if (step.in[k] < 0) continue;
      const Slot& s = p.slots[size_t(step.in[k])];
      const Shape& shape = shapes[size_t(step.in[k])];
      ValueId v = g.add_value("in" + std::to_string(k), Type::tensor(s.dtype, to_dims(shape)));
      if (shape.size() <= 1 && product(shape) <= 1024 && (is_integer(s.dtype) || s.dtype == DType::f32))
        g.value(v).constant = Tensor::view(s.dtype, shape, memory[size_t(step.in[k])]);
      else
        g.inputs.push_back(v);
      n.inputs[k] = v;
    }
    for (size_t k = 0; k < n.outputs.size(); ++k)
      if (n.outputs[k] != kAbsent) n.outputs[k] = g.add_value("out" + std::to_string(k));
    std::vector<ValueId> outs = n.outputs;
    if (n.domain == "cpu" && n.op == "Conv") {  // residual and activation do not change the sizes
      n.domain.clear();
      n.def = find_op("", "Conv");
      n.inputs.resize(std::min<size_t>(n.inputs.size(), 3));
      for (const char* own : {"act", "act_a", "act_b"}) n.remove(own);
    }
    const bool has_rule = n.def != nullptr;
    g.nodes.push_back(std::move(n));
    if (has_rule) AI_VMM_TRY(infer_types(g));
    for (size_t k = 0; k < outs.size(); ++k) {
      if (outs[k] == kAbsent) continue;
      auto shape = g.value(outs[k]).type.shape();
      if (!shape)
        return Status(Code::unimplemented,
                      step.label + ": the size of its output follows from nothing that is known when it runs.");
      shapes[size_t(step.out[k])] = *shape;
      shape_known[size_t(step.out[k])] = 1;
    }
    return {};
  }

  Status run(std::span<const Input> inputs, std::span<const OutputSlot> outputs, const RunOptions& options) {
    if (inputs.size() != p.inputs.size() || outputs.size() != p.outputs.size())
      return invalid("The region takes " + std::to_string(p.inputs.size()) + " inputs and makes " +
                     std::to_string(p.outputs.size()) + " outputs; the call has " + std::to_string(inputs.size()) +
                     " and " + std::to_string(outputs.size()) + ".");
    int threads = options.threads > 0     ? options.threads
                  : p.options.threads > 0 ? p.options.threads
                                          : omp_get_num_procs();
    bound_spinning();
    if (omp_get_max_threads() != threads) omp_set_num_threads(threads);
    bool same = bound && threads == bound_threads;
    for (size_t k = 0; same && k < inputs.size(); ++k) same = std::ranges::equal(inputs[k].shape, last_inputs[k]);
    if (!same) {
      bound = false;
      for (size_t k = 0; k < inputs.size(); ++k)
        if (inputs[k].dtype != p.slots[size_t(p.inputs[k].value)].dtype)
          return invalid("Input \"" + p.inputs[k].name + "\" holds " + ai_vmm::name(inputs[k].dtype) +
                         "; the model takes " + ai_vmm::name(p.slots[size_t(p.inputs[k].value)].dtype) + ".");
      AI_VMM_TRY(bind_inputs(inputs));
      for (auto& s : segments) s.ready = false;
      if (threads != bound_threads)
        for (auto& s : steps) s.ready = false;
      bound_threads = threads;
      last_inputs.clear();
      for (const Input& in : inputs) last_inputs.emplace_back(in.shape.begin(), in.shape.end());
    }
    for (size_t k = 0; k < inputs.size(); ++k)
      set_memory(p.inputs[k].value, static_cast<std::byte*>(const_cast<void*>(inputs[k].data)));
    const bool profile = profile_wanted();
    for (size_t g = 0; g < p.segments.size(); ++g) {
      const Segment& seg = p.segments[g];
      if (seg.dynamic) {
        double start = profile ? seconds_now() : 0;
        if (Status s = run_dynamic(size_t(seg.first), outputs, options, threads); !s.ok()) {
          bound = false;
          return std::move(s).during(p.steps[size_t(seg.first)].label);
        }
        if (profile) note_time(size_t(seg.first), start);
        continue;
      }
      if (!segments[g].ready) AI_VMM_TRY(bind_segment(g, threads));
      AI_VMM_TRY(place_outputs(g, outputs));
      const SegmentState& state = segments[g];
      std::byte* arena = static_cast<std::byte*>(const_cast<void*>(state.arena.data()));
      for (int s = seg.first; s < seg.last; ++s) {
        const Step& step = p.steps[size_t(s)];
        Run r{memory.data(), step.in,     step.out, arena + state.offsets[state.values.size() + size_t(s - seg.first)],
              threads,       options.seed};
        double start = profile ? seconds_now() : 0;
        if (Status st = steps[size_t(s)].bound.run(r); !st.ok()) return std::move(st).during(step.label);
        if (profile) note_time(size_t(s), start);
        if (cancelled(options.cancel)) return Status(Code::cancelled, "The run was cancelled by the caller.");
      }
    }
    for (size_t k = 0; k < outputs.size(); ++k) {
      if (!p.output_copy[k]) continue;
      int v = p.outputs[k];
      if (!shape_known[size_t(v)])
        return invalid("The size of output \"" + p.slot_names[size_t(v)] + "\" cannot be found: " + describe(v) + ".");
      void* to = AI_VMM_TAKE(output_memory(k, outputs));
      if (int64_t n = bytes_of(v); n > 0 && to != memory[size_t(v)]) std::memcpy(to, memory[size_t(v)], size_t(n));
    }
    bound = true;
    return {};
  }

  // ---- profile

  void note_time(size_t i, double start) {
    double t = seconds_now() - start;
    if (steps[i].runs++ == 0 || t < steps[i].seconds) steps[i].seconds = t;
  }
  void print_profile() const {
    double total = 0;
    std::vector<size_t> order;
    for (size_t i = 0; i < steps.size(); ++i) {
      if (steps[i].runs > 0) order.push_back(i);
      total += steps[i].seconds;
    }
    if (order.empty()) return;
    auto least = [&](size_t i) { return steps[i].seconds; };
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return least(a) > least(b); });
    std::fprintf(stderr, "cpu profile of %s: %zu steps, %.1f us; the least time of each\n", p.name.c_str(),
                 steps.size(), total * 1e6);
    for (size_t i : order) {
      double bytes = 0;
      for (const auto* list : {&p.steps[i].in, &p.steps[i].out})
        for (int v : *list)
          if (v >= 0) bytes += double(bytes_of(v));
      std::string shape;
      for (const auto* list : {&p.steps[i].in, &p.steps[i].out}) {
        for (int v : *list)
          if (v >= 0) shape += ai_vmm::to_string(shapes[size_t(v)]);
        if (list == &p.steps[i].in) shape += "->";
      }
      std::fprintf(stderr, "%9.1f us %5.1f%% %7.1f GFLOP/s %6.1f GB/s  %-14s %-18s %s %s\n", least(i) * 1e6,
                   100 * least(i) / total, steps[i].bound.flops / least(i) * 1e-9, bytes / least(i) * 1e-9,
                   p.steps[i].kernel.c_str(), steps[i].bound.note.c_str(), p.steps[i].label.c_str(), shape.c_str());
    }
  }
};

Result<void*> Run::make(size_t k, DType dtype, Shape shape) { return dynamic->make(k, dtype, std::move(shape)); }
void Run::set(size_t k, Tensor tensor) { dynamic->set(k, std::move(tensor)); }

Context::Context(std::shared_ptr<const Program> program) : impl_(std::make_unique<Impl>(std::move(program))) {}
Context::~Context() = default;

Status Context::run(std::span<const Input> inputs, std::span<const OutputSlot> outputs, const RunOptions& options) {
  return impl_->run(inputs, outputs, options);
}

Result<std::vector<Tensor>> Context::run(std::span<const Tensor> inputs, const RunOptions& options) {
  std::vector<Tensor> results(impl_->p.outputs.size());
  std::vector<OutputSlot> slots(results.size());
  for (size_t k = 0; k < slots.size(); ++k)
    slots[k].allocate = [&results, k](DType dtype, const Shape& shape) -> Result<void*> {
      results[k] = AI_VMM_TAKE(Tensor::make(dtype, shape));
      return results[k].mutable_data();
    };
  std::vector<Input> in;
  for (const Tensor& t : inputs) in.push_back({t.dtype(), t.shape(), t.data()});
  AI_VMM_TRY(run(in, slots, options));
  return results;
}

}  // namespace ai_vmm::cpu
