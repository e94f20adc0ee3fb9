// Runs a Program: binds sizes, lays out the arena, prepares the launches, enqueues them.
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "ai_vmm/cancel.hpp"
#include "base/config.hpp"
#include "base/log.hpp"
#include "base/numbers.hpp"
#include "gpu/program.hpp"
#include "kit/offsets.hpp"

namespace ai_vmm::gpu {

namespace {
constexpr int64_t kUnknown = INT64_MIN;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
bool profile_wanted() {
  static const bool wanted = [] {
    auto config = Config::load();
    return config.ok() && config->boolean("device_profile");
  }();
  return wanted;
}
}  // namespace

struct Context::Impl {
  struct Prepared {
    std::unique_ptr<Call> call;
    Size3 global, local;
    std::vector<std::pair<size_t, int>> moving;  // arguments that are the caller's memory: argument, root value
    size_t step;
  };
  struct Timing {
    double seconds = 0;
    int runs = 0;
  };

  std::shared_ptr<const Program> program;
  const Program& p;
  Driver& driver;
  std::unique_ptr<Queue> queue;
  std::unordered_map<std::string, int64_t> symbols;
  std::vector<int64_t> exprs;
  std::vector<Shape> shapes;
  std::vector<char> shape_known;
  std::vector<MemoryRef> memory;  // of root values
  std::vector<Bound> bounds;
  std::vector<Prepared> calls;
  std::vector<Timing> timings;
  std::vector<Shape> last_inputs;
  std::vector<MemoryRef> staged_inputs, staged_outputs;  // where the device does not see host memory
  MemoryRef arena, fault;
  std::vector<int64_t> capacity;
  bool planned = false, bound = false;

  // From the second run of equal sizes on, where the queue can: all launches as one, and where the caller's memory was.
  std::unique_ptr<Recording> recording;
  std::vector<const void*> recorded_memory, last_memory;
  bool recordable = true;

  explicit Impl(std::shared_ptr<const Program> prog) : program(std::move(prog)), p(*program), driver(*program->driver) {
    exprs.assign(p.exprs.size(), kUnknown);
    shapes.resize(p.slots.size());
    shape_known.assign(p.slots.size(), 0);
    memory.resize(p.slots.size());
    timings.resize(p.steps.size());
    staged_inputs.resize(p.inputs.size());
    staged_outputs.resize(p.outputs.size());
  }

  int64_t bytes_of(int v) const {
    int64_t n = 1;
    for (int64_t d : shapes[size_t(v)]) n *= d;
    return bytes_for(p.slots[size_t(v)].dtype, n);
  }

  // ---- sizes

  Status bind_inputs(std::span<const Tensor> inputs) {
    symbols.clear();
    std::fill(exprs.begin(), exprs.end(), kUnknown);
    std::fill(shape_known.begin(), shape_known.end(), 0);
    for (size_t k = 0; k < p.inputs.size(); ++k) {
      const Slot& s = p.slots[size_t(p.inputs[k])];
      const Shape& shape = inputs[k].shape();
      auto mismatch = [&](const std::string& wanted) {
        return invalid("Input \"" + s.name + "\" has shape " + ai_vmm::to_string(shape) + "; the model takes " +
                       wanted + ".");
      };
      if (shape.size() != s.dims.size()) return mismatch("rank " + std::to_string(s.dims.size()));
      for (size_t d = 0; d < shape.size(); ++d)
        if (const Dim& e = p.exprs[size_t(s.dims[d])]; e.is_symbol()) {
          auto [it, fresh] = symbols.emplace(e.to_string(), shape[d]);
          if (!fresh && it->second != shape[d])
            return mismatch(std::to_string(it->second) + " along axis " + std::to_string(d) + ", the size \"" +
                            it->first + "\" of another input");
        }
    }
    auto lookup = [&](std::string_view name) -> std::optional<int64_t> {
      auto it = symbols.find(std::string(name));
      return it == symbols.end() ? std::nullopt : std::optional(it->second);
    };
    for (size_t i = 0; i < exprs.size(); ++i) exprs[i] = p.exprs[i].evaluate(lookup).value_or(kUnknown);
    for (size_t i = 0; i < p.slots.size(); ++i) {
      shapes[i].clear();
      bool known = true;
      for (int d : p.slots[i].dims) {
        shapes[i].push_back(exprs[size_t(d)]);
        known &= shapes[i].back() != kUnknown;
      }
      shape_known[i] = known;
    }
    for (size_t k = 0; k < p.inputs.size(); ++k)
      if (shapes[size_t(p.inputs[k])] != inputs[k].shape())
        return invalid("Input \"" + p.slots[size_t(p.inputs[k])].name + "\" has shape " +
                       ai_vmm::to_string(inputs[k].shape()) + "; the model takes " +
                       ai_vmm::to_string(shapes[size_t(p.inputs[k])]) + ".");
    return {};
  }

  Status check_shape(const Step& step, int v) const {
    const Slot& s = p.slots[size_t(v)];
    if (!shape_known[size_t(v)])
      return invalid("The sizes of \"" + s.name + "\", made by " + step.label +
                     ", do not fit together for these inputs.");
    for (int64_t d : shapes[size_t(v)])
      if (d < 0)
        return invalid("The size of \"" + s.name + "\", made by " + step.label + ", is negative: " +
                       ai_vmm::to_string(shapes[size_t(v)]) + "; the inputs are too small for this model.");
    if (!element_count(shapes[size_t(v)]) || bytes_of(v) > driver.traits().max_allocation)
      return Status(Code::resource_exhausted, "\"" + s.name + "\" of shape " + ai_vmm::to_string(shapes[size_t(v)]) +
                                                  ", made by " + step.label + ", is larger than the device takes.");
    return {};
  }

  std::optional<std::vector<int64_t>> ints_of(int v) const {
    const Slot& s = p.slots[size_t(v)];
    std::vector<int64_t> out;
    if (s.kind == Slot::Kind::constant) {
      if (s.constant.count() > (1 << 20) || !(is_integer(s.dtype) || s.dtype == DType::boolean)) return std::nullopt;
      for (int64_t i = 0; i < s.constant.count(); ++i) out.push_back(read_int64(s.dtype, s.constant.data(), i));
      return out;
    }
    if (s.ints.empty()) return std::nullopt;
    for (int e : s.ints) out.push_back(exprs[size_t(e)]);
    if (std::find(out.begin(), out.end(), kUnknown) != out.end()) return std::nullopt;
    return out;
  }

  // ---- binding

  Result<Bound> bind_step(size_t i) {
    const Step& step = p.steps[i];
    std::vector<const Shape*> in, out;
    for (int v : step.in) {
      if (v >= 0) AI_VMM_TRY(check_shape(step, v));
      in.push_back(v < 0 ? nullptr : &shapes[size_t(v)]);
    }
    for (int v : step.out) {
      if (v >= 0) AI_VMM_TRY(check_shape(step, v));
      out.push_back(v < 0 ? nullptr : &shapes[size_t(v)]);
    }
    std::vector<std::optional<std::vector<int64_t>>> ints(step.in.size());
    for (size_t k = 0; k < step.in.size(); ++k)
      if (step.values >> k & 1 && step.in[k] >= 0) {
        ints[k] = ints_of(step.in[k]);
        if (!ints[k])
          return Status(Code::unimplemented,
                        "Input " + std::to_string(k) + " of " + step.label + " must be known before the run.");
      }
    Bind b{in,
           out,
           &ints,
           driver.traits(),
           p.options.deterministic,
           driver,
           [&](const std::string& key, int64_t bytes, const std::function<void(void*)>& write) {
             return p.packed(key, bytes, write);
           },
           [&](const std::string& key, std::span<const Bound> candidates) { return fastest(step, key, candidates); },
           [&](const std::string& key) { return known(key); },
           [&](const std::string& key) { p.drop(key); }};
    auto made = step.bind(b);
    if (!made.ok()) return std::move(made).status().during(step.label);
    return made;
  }

  std::string known(const std::string& key) {
    if (!p.options.way.empty()) return p.options.way;
    return p.options.deterministic ? "" : driver.remembered(key);
  }

  // Times the candidates in turn, each a few times, on scratch memory.
  Result<size_t> fastest(const Step& step, const std::string& key, std::span<const Bound> candidates) {
    if (candidates.size() < 2) return size_t(0);
    if (const std::string note = known(key); !note.empty())
      for (size_t i = 0; i < candidates.size(); ++i)
        if (candidates[i].note == note) return i;
    if (p.options.deterministic) return size_t(0);
    std::vector<Source> sources;
    int64_t scratch = driver.traits().alignment;
    for (const Bound& c : candidates) {
      for (const Launch& l : c.launches)
        if (!l.library) sources.push_back(l.source);
      scratch = std::max(scratch, c.scratch);
    }
    AI_VMM_TRY(driver.load(sources));
    auto tensor = [&](int v) -> Result<MemoryRef> {
      if (v < 0) return MemoryRef();
      // A reshaped constant has its elements where it came from.
      if (const int root = p.slots[size_t(v)].root; p.slots[size_t(root)].kind == Slot::Kind::constant)
        return p.constant(root);
      return driver.allocate(std::max<int64_t>(bytes_of(v), 1));
    };
    std::vector<MemoryRef> in, out;
    for (int v : step.in) in.push_back(AI_VMM_TAKE(tensor(v)));
    for (int v : step.out) out.push_back(AI_VMM_TAKE(tensor(v)));
    MemoryRef work = AI_VMM_TAKE(driver.allocate(scratch));
    std::vector<double> least(candidates.size(), 1e9);
    std::vector<std::vector<Prepared>> ready(candidates.size());
    for (size_t c = 0; c < candidates.size(); ++c)
      for (const Launch& l : candidates[c].launches)
        ready[c].push_back(AI_VMM_TAKE(prepare(
            l, 0,
            [&](const Operand& o) -> Result<MemoryRef> {
              return o.kind == Operand::Kind::in ? in[o.index] : out[o.index];
            },
            work)));
    for (int round = 0; round < 4; ++round)
      for (size_t c = 0; c < candidates.size(); ++c) {
        double start = seconds_now();
        for (Prepared& call : ready[c]) AI_VMM_TRY(queue->launch(*call.call, call.global, call.local));
        AI_VMM_TRY(queue->finish());
        if (round) least[c] = std::min(least[c], seconds_now() - start);  // the first one compiles
      }
    size_t best = size_t(std::min_element(least.begin(), least.end()) - least.begin());
    driver.remember(key, candidates[best].note);
    return best;
  }

  // `resolve` gives the memory of the node's inputs and outputs.
  template <class F>
  Result<Prepared> prepare(const Launch& l, size_t step, F&& resolve, const MemoryRef& scratch) {
    Prepared r{AI_VMM_TAKE(l.library ? driver.library_call(*l.library) : driver.call(l.source.name)),
               l.global,
               l.local,
               {},
               step};
    for (size_t a = 0; a < l.operands.size(); ++a) {
      const Operand& o = l.operands[a];
      switch (o.kind) {
        case Operand::Kind::scalar: AI_VMM_TRY(r.call->set(a, o.value)); break;
        case Operand::Kind::step: AI_VMM_TRY(r.call->set(a, Scalar(int32_t(step) + 1))); break;
        case Operand::Kind::fault:
          if (!fault) {
            fault = AI_VMM_TAKE(driver.allocate(sizeof(int32_t)));
            const int32_t none = 0;
            AI_VMM_TRY(queue->write(*fault, &none, sizeof none));
          }
          AI_VMM_TRY(r.call->set(a, *fault));
          break;
        case Operand::Kind::packed: AI_VMM_TRY(r.call->set(a, *o.memory)); break;
        case Operand::Kind::scratch: {
          MemoryRef part = AI_VMM_TAKE(driver.slice(scratch, o.offset, scratch->bytes - o.offset));
          AI_VMM_TRY(r.call->set(a, *part));
          parts.push_back(std::move(part));
          break;
        }
        default: {
          MemoryRef m = AI_VMM_TAKE(resolve(o));
          if (m)
            AI_VMM_TRY(r.call->set(a, *m));
          else
            r.moving.emplace_back(a, root_of(step, o));
        }
      }
    }
    return r;
  }
  std::vector<MemoryRef> parts;  // slices that calls refer to

  int root_of(size_t step, const Operand& o) const {
    const Step& s = p.steps[step];
    return p.slots[size_t(o.kind == Operand::Kind::in ? s.in[o.index] : s.out[o.index])].root;
  }

  Status bind(std::span<const Tensor> inputs) {
    AI_VMM_TRY(bind_inputs(inputs));
    recording = nullptr;
    last_memory.clear();
    calls.clear();
    parts.clear();
    bounds.clear();
    std::vector<Source> sources;
    for (size_t i = 0; i < p.steps.size(); ++i) {
      bounds.push_back(AI_VMM_TAKE(bind_step(i)));
      for (const Launch& l : bounds.back().launches)
        if (!l.library) sources.push_back(l.source);
    }
    for (size_t k = 0; k < p.outputs.size(); ++k)
      if (!shape_known[size_t(p.outputs[k])])
        return invalid("The size of output \"" + p.slots[size_t(p.outputs[k])].name +
                       "\" does not follow from these inputs.");
    AI_VMM_TRY(driver.load(sources));
    AI_VMM_TRY(place());
    for (size_t i = 0; i < p.steps.size(); ++i) {
      const MemoryRef& scratch = scratches[i];
      for (const Launch& l : bounds[i].launches) {
        if (l.global[0] == 0 || l.global[1] == 0 || l.global[2] == 0) continue;
        calls.push_back(AI_VMM_TAKE(prepare(
            l, i, [&](const Operand& o) -> Result<MemoryRef> { return memory[size_t(root_of(i, o))]; }, scratch)));
      }
    }
    return {};
  }
  std::vector<MemoryRef> scratches;  // of each step

  // Memory of every storage but the caller's. The first plan is exact; later ones leave room for growth, so that a
  // growing axis is planned for once a bucket.
  Status place() {
    const int64_t unit = driver.traits().alignment;
    std::vector<int> roots;
    std::vector<int64_t> bytes;
    for (size_t i = 0; i < p.slots.size(); ++i) {
      const Slot& s = p.slots[i];
      if (s.root != int(i)) continue;
      memory[i] = nullptr;
      if (s.first < 0 && !(s.kind == Slot::Kind::constant || s.kind == Slot::Kind::ints)) continue;
      if (s.kind == Slot::Kind::constant && (s.first >= 0 || s.last >= 0)) {
        memory[i] = AI_VMM_TAKE(p.constant(int(i)));
      } else if (s.kind == Slot::Kind::ints && (s.first >= 0 || s.last >= 0)) {
        AI_VMM_TRY(place_ints(i));
      } else if (s.kind == Slot::Kind::arena) {
        int64_t most = 0;
        for (int m : s.members) most = std::max(most, shape_known[size_t(m)] ? bytes_of(m) : 0);
        roots.push_back(int(i));
        bytes.push_back(most);
      }
    }
    for (const Bound& b : bounds) bytes.push_back(b.scratch);
    bool fits = planned;
    for (size_t k = 0; fits && k < bytes.size(); ++k) fits = bytes[k] <= capacity[k];
    if (!fits) {
      std::vector<int64_t> grown = bytes;
      for (size_t k = 0; planned && k < grown.size(); ++k)
        if (grown[k] != capacity[k] && grown[k] > 0) {
          int64_t bucket = 65536;
          while (bucket < grown[k]) bucket += bucket / 2;
          grown[k] = std::max(bucket, std::min(capacity[k], 2 * bucket));
        }
      capacity = std::move(grown);
      planned = true;
      std::vector<Lifetime> lives;
      for (size_t k = 0; k < capacity.size(); ++k) {
        if (k < roots.size()) {
          const Slot& s = p.slots[size_t(roots[k])];
          lives.push_back({s.first, std::max(s.first, s.last), capacity[k]});
        } else {
          int step = int(k - roots.size());
          lives.push_back({step, step, capacity[k]});
        }
      }
      offsets = assign_offsets(lives, unit);
      int64_t total = std::max(offsets.total, unit);
      if (p.options.memory_limit > 0 && total > p.options.memory_limit)
        return Status(Code::resource_exhausted, "The values of this run need " + std::to_string(total) +
                                                    " bytes at once; the memory limit is " +
                                                    std::to_string(p.options.memory_limit) + ".");
      if (!arena || arena->bytes < total) {
        arena = nullptr;
        arena = AI_VMM_TAKE(driver.allocate(total));
      }
      ++p.plans;
      int64_t most = p.arena_bytes;
      while (total > most && !p.arena_bytes.compare_exchange_weak(most, total)) {
      }
    }
    for (size_t k = 0; k < roots.size(); ++k)
      memory[size_t(roots[k])] = AI_VMM_TAKE(driver.slice(arena, offsets.at[k], std::max<int64_t>(bytes[k], 1)));
    scratches.assign(bounds.size(), nullptr);
    for (size_t i = 0; i < bounds.size(); ++i)
      if (bounds[i].scratch > 0)
        scratches[i] = AI_VMM_TAKE(driver.slice(arena, offsets.at[roots.size() + i], bounds[i].scratch));
    return {};
  }
  Offsets offsets;

  Status place_ints(size_t i) {
    const Slot& s = p.slots[i];
    auto values = ints_of(int(i));
    if (!values) return invalid("The integers of \"" + s.name + "\" do not follow from these inputs.");
    std::vector<std::byte> data(std::max<size_t>(values->size() * 8, 8));
    for (size_t k = 0; k < values->size(); ++k) write_int64(s.dtype, data.data(), int64_t(k), (*values)[k]);
    memory[i] = AI_VMM_TAKE(driver.allocate(int64_t(data.size())));
    return queue->write(*memory[i], data.data(), int64_t(data.size()));
  }

  // ---- running

  static Result<void*> output_memory(const OutputSlot& slot, DType dtype, const Shape& shape) {
    if (slot.data && std::equal(shape.begin(), shape.end(), slot.shape.begin(), slot.shape.end())) return slot.data;
    if (!slot.allocate) return invalid("The output of shape " + ai_vmm::to_string(shape) + " has no memory.");
    return slot.allocate(dtype, shape);
  }

  // The device's side of `bytes` of the caller's memory.
  Result<MemoryRef> outside(void* host, int64_t bytes, MemoryRef& staged) {
    if (driver.traits().host_memory && host && bytes > 0) return driver.wrap(host, bytes);
    if (!staged || staged->bytes < bytes) staged = AI_VMM_TAKE(driver.allocate(std::max<int64_t>(bytes, 1)));
    return staged;
  }

  Status run(std::span<const Tensor> inputs, std::span<const OutputSlot> outputs, const volatile int32_t* cancel,
             std::span<const MemoryRef> placed, Copied& copied) {
    if (inputs.size() != p.inputs.size() || outputs.size() != p.outputs.size())
      return invalid("The region takes " + std::to_string(p.inputs.size()) + " inputs and makes " +
                     std::to_string(p.outputs.size()) + " outputs; the call has " + std::to_string(inputs.size()) +
                     " and " + std::to_string(outputs.size()) + ".");
    bool same = bound;
    for (size_t k = 0; k < inputs.size(); ++k) {
      same = same && inputs[k].shape() == last_inputs[k];
      if (DType wanted = p.slots[size_t(p.inputs[k])].dtype; inputs[k].dtype() != wanted)
        return invalid("Input \"" + p.slots[size_t(p.inputs[k])].name + "\" holds " + ai_vmm::name(inputs[k].dtype()) +
                       "; the model takes " + ai_vmm::name(wanted) + ".");
    }
    if (!same) {
      bound = false;
      AI_VMM_TRY(bind(inputs));
      last_inputs.clear();
      for (const Tensor& t : inputs) last_inputs.push_back(t.shape());
      bound = true;
    }
    const bool shared = driver.traits().host_memory;
    for (size_t k = 0; k < inputs.size(); ++k) {
      MemoryRef& m = memory[size_t(p.inputs[k])];
      if (!placed.empty() && placed[k]) {
        m = placed[k];
        continue;
      }
      m = AI_VMM_TAKE(outside(const_cast<void*>(inputs[k].data()), inputs[k].bytes(), staged_inputs[k]));
      if (shared || !inputs[k].bytes()) continue;
      AI_VMM_TRY(queue->write(*m, inputs[k].data(), inputs[k].bytes()));
      copied.to_device += inputs[k].bytes();
    }
    std::vector<void*> to(outputs.size());
    std::vector<MemoryRef> results(outputs.size());
    for (size_t k = 0; k < outputs.size(); ++k) {
      size_t v = size_t(p.outputs[k]);
      if (outputs[k].place) {
        results[k] = AI_VMM_TAKE(outputs[k].place(p.slots[v].dtype, shapes[v]));
      } else {
        to[k] = AI_VMM_TAKE(output_memory(outputs[k], p.slots[v].dtype, shapes[v]));
        results[k] = AI_VMM_TAKE(outside(to[k], bytes_of(int(v)), staged_outputs[k]));
      }
      if (!p.output_copy[k]) memory[size_t(p.slots[v].root)] = results[k];
    }
    AI_VMM_TRY(launch_or_replay(cancel));
    bool waited = false;  // for all: a read waits for what is before it
    for (size_t k = 0; k < outputs.size(); ++k) {
      size_t v = size_t(p.outputs[k]);
      int64_t bytes = bytes_of(int(v));
      if (!bytes) continue;
      if (p.output_copy[k]) {
        MemoryRef from = memory[size_t(p.slots[v].root)];
        if (!from && p.slots[v].kind == Slot::Kind::constant) from = AI_VMM_TAKE(p.constant(p.slots[v].root));
        AI_VMM_TRY(queue->copy(*from, *results[k], bytes));
      }
      waited = !outputs[k].place;
      if (outputs[k].place) continue;
      AI_VMM_TRY(queue->read(*results[k], to[k], bytes));
      if (!shared) copied.from_device += bytes;
    }
    if (!waited) AI_VMM_TRY(queue->finish());
    AI_VMM_TRY(check_fault());
    // The caller's memory is the caller's again.
    for (int v : p.inputs) memory[size_t(v)] = nullptr;
    for (size_t k = 0; k < outputs.size(); ++k)
      if (!p.output_copy[k]) memory[size_t(p.slots[size_t(p.outputs[k])].root)] = nullptr;
    return {};
  }

  // Whether a kernel met an index outside its axis.
  Status check_fault() {
    if (!fault) return {};
    int32_t step = 0;
    AI_VMM_TRY(queue->read(*fault, &step, sizeof step));
    if (!step) return {};
    const int32_t none = 0;
    AI_VMM_TRY(queue->write(*fault, &none, sizeof none));
    return Status(Code::out_of_range, p.steps[size_t(step) - 1].label + ": an index is outside its axis.");
  }

  Status launch_or_replay(const volatile int32_t* cancel) {
    if (!recordable || !queue->records() || profile_wanted() || calls.empty()) return launch_all(cancel);
    std::vector<const void*> moving;
    for (const Prepared& c : calls)
      for (auto [argument, root] : c.moving) moving.push_back(memory[size_t(root)]->address());
    if (cancel && *cancel) return launch_all(cancel);
    if (recording && moving == recorded_memory) return queue->replay(*recording);
    recording = nullptr;
    const bool again = moving == last_memory;
    last_memory = moving;
    if (!again) return launch_all(cancel);
    AI_VMM_TRY(queue->begin_recording());
    Status launched = launch_all(nullptr);
    auto recorded = queue->end_recording();
    if (launched.ok() && recorded.ok()) {
      recording = std::move(*recorded);
      recorded_memory = std::move(moving);
      return queue->replay(*recording);
    }
    recordable = false;
    const Status& why = launched.ok() ? recorded.status() : launched;
    if (why.device_state() != DeviceState::ok) return why.copy();
    log(LogLevel::warning,
        "The launches of " + p.name + " cannot be recorded, and are made one by one: " + why.message());
    return launch_all(cancel);
  }

  Status launch_all(const volatile int32_t* cancel) {
    const bool profile = profile_wanted();
    size_t step = SIZE_MAX;
    double start = 0;
    auto note = [&]() -> Status {
      if (!profile) return {};
      AI_VMM_TRY(queue->finish());
      double now = seconds_now();
      if (step != SIZE_MAX) {
        Timing& t = timings[step];
        if (t.runs++ == 0 || now - start < t.seconds) t.seconds = now - start;
      }
      start = now;
      return {};
    };
    for (Prepared& c : calls) {
      if (cancelled(cancel)) {
        AI_VMM_TRY(queue->finish());
        return Status(Code::cancelled, "The run was cancelled before " + p.steps[c.step].label + ".");
      }
      if (c.step != step) {
        AI_VMM_TRY(note());
        step = c.step;
      }
      for (auto [argument, root] : c.moving) AI_VMM_TRY(c.call->set(argument, *memory[size_t(root)]));
      if (Status s = queue->launch(*c.call, c.global, c.local); !s.ok())
        return std::move(s).during(p.steps[c.step].label);
    }
    return note();
  }

  ~Impl() {
    if (profile_wanted()) print_profile();
  }
  void print_profile() const {
    std::vector<size_t> order;
    double total = 0;
    for (size_t i = 0; i < timings.size(); ++i) {
      total += timings[i].seconds;
      if (timings[i].runs) order.push_back(i);
    }
    if (order.empty() || bounds.size() != p.steps.size()) return;
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return timings[a].seconds > timings[b].seconds; });
    std::fprintf(stderr, "device profile of %s: %zu steps, %.1f us; the least time of each, waited for\n",
                 p.name.c_str(), p.steps.size(), total * 1e6);
    for (size_t i : order) {
      std::string shape;
      for (const auto* list : {&p.steps[i].in, &p.steps[i].out}) {
        for (int v : *list)
          if (v >= 0) shape += ai_vmm::to_string(shapes[size_t(v)]);
        if (list == &p.steps[i].in) shape += "->";
      }
      double t = timings[i].seconds;
      std::fprintf(stderr, "%9.1f us %5.1f%% %7.1f GFLOP/s  %-14s %-18s %s %s\n", t * 1e6, 100 * t / total,
                   bounds[i].flops / t * 1e-9, p.steps[i].op.c_str(), bounds[i].note.c_str(), p.steps[i].label.c_str(),
                   shape.c_str());
    }
  }
};

Context::Context(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
Context::~Context() = default;

Result<std::unique_ptr<Context>> Context::make(std::shared_ptr<const Program> program) {
  return std::unique_ptr<Context>(new Context(std::move(program)));
}

Status Context::run(std::span<const Tensor> inputs, std::span<const OutputSlot> outputs, const volatile int32_t* cancel,
                    std::span<const MemoryRef> placed, Copied* copied) {
  constexpr size_t kMostImpls = 16;
  auto program = program_->open ? AI_VMM_TAKE(program_->settled(inputs)) : program_;
  auto found = impls_.find(program.get());
  if (found == impls_.end()) {
    if (impls_.size() >= kMostImpls) impls_.clear();
    auto impl = std::make_unique<Impl>(program);
    impl->queue = AI_VMM_TAKE(impl->driver.queue());
    found = impls_.emplace(program.get(), std::move(impl)).first;
  }
  Copied unasked;
  Status s = found->second->run(inputs, outputs, cancel, placed, copied ? *copied : unasked);
  // What was started ends before its memory is used for something else.
  if (!s.ok()) (void)found->second->queue->finish();
  return s;
}

}  // namespace ai_vmm::gpu
