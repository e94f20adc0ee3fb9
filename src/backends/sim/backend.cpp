// Simulated accelerators (chip.hpp). Results are those of the reference functions, to the bit; times and energy are
// computed from the chip's description and are never wall time.
#include <cstdio>

#include "ai_vmm/compute_backend.hpp"
#include "backends/sim/extensions.hpp"
#include "base/config.hpp"
#include "base/file.hpp"
#include "base/text.hpp"
#include "kit/interpret.hpp"
#include "kit/view.hpp"
#include "ops/op.hpp"

namespace ai_vmm::sim {

namespace {

bool fixed(const Type& t) { return !t.is_tensor() || t.shape().has_value(); }
double bytes_of(const Type& t) {
  auto shape = t.shape();
  auto count = shape ? element_count(*shape) : std::nullopt;
  return count ? double(bytes_for(t.dtype, *count)) : 0;
}
std::vector<Type> types_of(const Graph& g, const std::vector<ValueId>& values) {
  std::vector<Type> types;
  for (ValueId v : values) types.push_back(v == kAbsent ? Type() : g.value(v).type);
  return types;
}
Type type_of(const Data& d) {
  return d.is_tensor() ? Type::tensor(d.tensor().dtype(), to_dims(d.tensor().shape())) : Type();
}

AiVmmReason judge(const Chip& chip, const Graph& g, const Node& node, AiVmmVerdict& verdict) {
  if (!node.def->eval || (node.def->traits & kHostOnly)) return AI_VMM_REFUSED_HOST_ONLY;
  if ((!chip.operators.empty() && !chip.operators.contains(node.op)) || chip.refuses.contains(node.op))
    return AI_VMM_REFUSED_OPERATOR;
  auto in = types_of(g, node.inputs), out = types_of(g, node.outputs);
  if (DType type = arithmetic(node, in, out); type != DType::undefined && chip.rate(type) == 0)
    return AI_VMM_REFUSED_DTYPE;
  bool known = true;
  double bytes = 0;
  for (const auto* list : {&in, &out})
    for (const Type& t : *list) {
      known = known && fixed(t);
      bytes += bytes_of(t);
    }
  if (!known && !chip.dynamic) return AI_VMM_REFUSED_DYNAMIC;
  if (bytes > double(chip.memory)) return AI_VMM_REFUSED_MEMORY;
  if (known) {
    verdict.est_ns = work_of(chip, node, in, out).ns;
    verdict.est_bytes = bytes;
  }
  return AI_VMM_SUPPORTED;
}

class SimContext : public backend::Context {
 public:
  SimContext(std::shared_ptr<Silicon> silicon, int64_t life, std::shared_ptr<const Interpreter> program)
      : silicon_(std::move(silicon)), life_(life), program_(std::move(program)) {}

  Status execute(std::span<const backend::TensorRef> inputs, std::span<const backend::TensorRef> outputs,
                 const AiVmmRun& run) override {
    bool wrong = false;
    AI_VMM_TRY(silicon_->begin_run(life_, run.cancel, &wrong));
    return silicon_->paced(run.cancel, [&]() -> Result<double> { return compute(inputs, outputs, run, wrong); });
  }

 private:
  Result<double> compute(std::span<const backend::TensorRef> inputs, std::span<const backend::TensorRef> outputs,
                         const AiVmmRun& run, bool wrong) {
    const Chip& chip = silicon_->chip;
    // States stand for their rows.
    std::vector<Tensor> rows;
    std::vector<AiVmmTensor> dense(inputs.size());
    std::vector<backend::TensorRef> in;
    double sent = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      dense[i] = *inputs[i];
      if (is_state(dense[i])) {
        rows.push_back(AI_VMM_TAKE(read_state(dense[i])));
        dense[i].data = rows.back().mutable_data();
        dense[i].device_type = 1;
      } else if (dense[i].device_type != kDeviceType) {
        sent += double(backend::bytes_of(dense[i].dtype, dense[i].rank, dense[i].shape));
      }
      in.push_back(&dense[i]);
    }
    Work work;
    int64_t most = 0;  // bytes of the greatest node, which the chip must hold
    std::vector<Type> read, made;
    auto results =
        AI_VMM_TAKE(program_->run(in, run, [&](const Node& node, std::span<const Data> x, std::span<const Data> y) {
          read.clear();
          made.clear();
          double bytes = 0;
          for (auto [list, types] : {std::pair(x, &read), {y, &made}})
            for (const Data& d : list) {
              types->push_back(type_of(d));
              bytes += bytes_of(types->back());
            }
          most = std::max(most, int64_t(bytes));
          work += work_of(chip, node, read, made);
        }));
    AI_VMM_TRY(silicon_->charge(most));
    silicon_->release(most);
    if (wrong)
      for (Tensor& t : results)
        if (t.bytes()) {
          t = AI_VMM_TAKE(t.clone());
          auto* bytes = static_cast<uint8_t*>(t.mutable_data());
          bytes[0] ^= 1;
          bytes[t.bytes() - 1] ^= 0x40;  // the exponent, where elements are floats
          break;
        }
    double received = 0;
    for (size_t k = 0; k < results.size(); ++k)
      if (!is_state(*outputs[k]) && outputs[k]->device_type != kDeviceType) received += double(results[k].bytes());
    AI_VMM_TRY(hand_over(results, outputs, run));
    work += transfer(chip, sent);
    work += transfer(chip, received);
    if (run.info) {
      run.info->device_ns = work.ns;
      run.info->joules = joules(chip, work);
      if (chip.link_bandwidth > 0) {
        run.info->bytes_to_device = uint64_t(sent);
        run.info->bytes_from_device = uint64_t(received);
      }
    }
    return work.ns;
  }

  Status hand_over(std::span<const Tensor> results, std::span<const backend::TensorRef> outputs, const AiVmmRun& run) {
    bool states = std::any_of(outputs.begin(), outputs.end(), [](backend::TensorRef t) { return is_state(*t); });
    if (!states) return deliver(program_->graph(), results, outputs, run);
    for (size_t k = 0; k < results.size(); ++k) {
      if (is_state(*outputs[k])) {
        AI_VMM_TRY(append_to_state(*outputs[k], results[k]));
        continue;
      }
      const Tensor& t = results[k];
      void* to = AI_VMM_TAKE(
          backend::output(run, outputs, uint32_t(k), int32_t(t.dtype()), int32_t(t.rank()), t.shape().data()));
      if (t.bytes()) std::memcpy(to, t.data(), size_t(t.bytes()));
    }
    return {};
  }

  std::shared_ptr<Silicon> silicon_;
  int64_t life_;
  std::shared_ptr<const Interpreter> program_;
};

class SimExecutable : public backend::Executable {
 public:
  SimExecutable(std::shared_ptr<Silicon> silicon, int64_t life, Graph graph, int64_t weights)
      : silicon_(std::move(silicon)),
        life_(life),
        weights_(weights),
        program_(std::make_shared<const Interpreter>(std::move(graph))) {}
  ~SimExecutable() override { silicon_->release(weights_); }
  bool works_in_place() const override { return true; }  // results are handed over when all are made
  Result<std::unique_ptr<backend::Context>> create_context() override {
    return std::unique_ptr<backend::Context>(new SimContext(silicon_, life_, program_));
  }
  void info(AiVmmExecutableInfo& info) const override { info.weight_bytes = weights_; }

 private:
  std::shared_ptr<Silicon> silicon_;
  int64_t life_, weights_;
  std::shared_ptr<const Interpreter> program_;
};

class SimDevice : public backend::Device, public SimDeviceBase {
 public:
  SimDevice(std::shared_ptr<Silicon> silicon, int64_t life) : silicon_(std::move(silicon)), life_(life) {}

  const std::shared_ptr<Silicon>& silicon() const override { return silicon_; }
  int64_t life() const override { return life_; }
  Status alive() const override { return silicon_->alive(life_); }
  Status state() const override { return silicon_->alive(life_); }

  Status query(const AiVmmGraph& view, std::span<AiVmmVerdict* const> verdicts) override {
    AI_VMM_TRY(silicon_->alive(life_));
    Graph graph = AI_VMM_TAKE(graph_from_view(view));
    for (size_t n = 0; n < graph.nodes.size(); ++n)
      verdicts[n]->reason = judge(silicon_->chip, graph, graph.nodes[n], *verdicts[n]);
    return {};
  }

  Result<std::unique_ptr<backend::Executable>> compile(const AiVmmGraph& view, const AiVmmCompileOptions&) override {
    AI_VMM_TRY(silicon_->alive(life_));
    Graph graph = AI_VMM_TAKE(graph_from_view(view));
    int64_t weights = 0;
    for (const Value& v : graph.values)
      if (v.constant) weights += v.constant.bytes();
    for (const Node& node : graph.nodes) {
      AiVmmVerdict verdict{};
      if (AiVmmReason reason = judge(silicon_->chip, graph, node, verdict); reason != AI_VMM_SUPPORTED)
        return Status(reason == AI_VMM_REFUSED_MEMORY ? Code::resource_exhausted : Code::unimplemented,
                      "The simulated chip \"" + silicon_->chip.name + "\" does not take " + node.label() + ".");
    }
    AI_VMM_TRY(silicon_->charge(weights));
    return std::unique_ptr<backend::Executable>(new SimExecutable(silicon_, life_, std::move(graph), weights));
  }

 private:
  std::shared_ptr<Silicon> silicon_;
  int64_t life_;
};

class SimBackend : public backend::ComputeBackend {
 public:
  const char* name() const override { return "sim"; }
  const char* version() const override { return "1"; }

  Status initialize(const AiVmmHost&) override {
    Config config = AI_VMM_TAKE(Config::load());
    const std::string& files = config.text("sim_chips");
    if (trim(files).empty()) return add(kDefaultChip, "the built-in description");
    for (std::string_view file : split(files, ':')) {
      auto bytes = AI_VMM_TAKE(FileBytes::open(std::string(trim(file)), true));
      auto text = bytes->bytes();
      AI_VMM_TRY(add({reinterpret_cast<const char*>(text.data()), text.size()}, std::string(file)));
    }
    return {};
  }
  int32_t device_count() const override { return int32_t(silicon_.size()); }
  Status capabilities(int32_t device, AiVmmDeviceInfo& info) const override {
    const Chip& c = silicon_[size_t(device)]->chip;
    std::snprintf(info.name, sizeof info.name, "%s (simulated)", c.name.c_str());
    std::snprintf(info.resource, sizeof info.resource, "%s", c.resource.c_str());
    std::snprintf(info.identity, sizeof info.identity, "sim:%s", c.name.c_str());
    std::snprintf(info.driver, sizeof info.driver, "simulation 1");
    info.memory_bytes = c.memory;
    info.flags = AI_VMM_DEVICE_SIMULATED;
    return {};
  }
  double performance_score(int32_t device) const override { return silicon_[size_t(device)]->chip.rate(DType::f32); }
  Result<std::unique_ptr<backend::Device>> open(int32_t device) override {
    const auto& s = silicon_[size_t(device)];
    int64_t life = AI_VMM_TAKE(s->begin_life());
    return std::unique_ptr<backend::Device>(new SimDevice(s, life));
  }
  const void* extension(std::string_view name) override {
    if (name == AI_VMM_EXTENSION_BUFFERS) return &buffers();
    if (name == AI_VMM_EXTENSION_STREAMS) return &streams();
    if (name == AI_VMM_EXTENSION_STATES) return &states();
    return nullptr;
  }

 private:
  Status add(std::string_view text, const std::string& origin) {
    auto chips = parse_chips(text);
    if (!chips.ok())
      return Status(chips.status().code(), "In " + origin + " of simulated chips: " + chips.status().message());
    for (Chip& c : *chips) {
      if (c.resource.empty()) c.resource = "sim:" + std::to_string(silicon_.size());
      silicon_.push_back(std::make_shared<Silicon>(std::move(c)));
    }
    return {};
  }
  std::vector<std::shared_ptr<Silicon>> silicon_;
};

}  // namespace

SimDeviceBase& sim_device(AiVmmDevice* device) { return static_cast<SimDevice&>(backend::object(device)); }

const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status) {
  return backend::entry<SimBackend>(host, status);
}

}  // namespace ai_vmm::sim
