// What backends have in common that hand whole regions to another inference engine, as ONNX models. Such a backend
// says how its library loads a model and runs it; verdicts, thread counts, output sizes and the plugin interface are
// done here.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ai_vmm/compute_backend.hpp"
#include "graph/dim.hpp"
#include "kit/onnx_writer.hpp"

namespace ai_vmm::hosted {

// Memory of one output. `data` null: its size was not known before the run; the engine sets data (its own memory, valid
// until the request runs again) and shape.
struct Output {
  void* data = nullptr;
  int32_t dtype = 0;
  std::span<const int64_t> shape;
};

// One concurrent run of a session. Inputs and outputs are in the order of the model's.
class Request {
 public:
  virtual ~Request() = default;
  virtual Status run(std::span<const AiVmmTensor* const> inputs, std::span<Output> outputs) = 0;
};

// A model that the engine has loaded. Immutable, shared by threads.
class Session {
 public:
  virtual ~Session() = default;
  virtual Result<std::unique_ptr<Request>> create_request() = 0;
};

struct LoadOptions {
  int threads = 1;
  bool probe = false;  // will never run: only whether the model is taken matters
};

struct Deviation {
  AiVmmReason reason;
  const char* text;  // a literal
};

// One device of the engine. Thread-safe.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::string identity() const = 0;         // engine, version, device: verdicts of equal ones are equal
  virtual std::span<const int> opsets() const = 0;  // to stamp models with, the preferred first; never empty
  virtual OnnxWeights weights() const = 0;
  // What the engine takes but is known to compute otherwise than ONNX says. It must be refused by rule, since the
  // engine's own word is that it takes it.
  virtual std::optional<Deviation> deviation(const AiVmmGraph&, const AiVmmNode&) const { return std::nullopt; }
  // The weights outlive the session.
  virtual Result<std::shared_ptr<Session>> load(const OnnxModel& model, const LoadOptions& options) = 0;
  // Which of the fixed reasons a failure of `load` is.
  virtual AiVmmReason reason(const Status& failure) const = 0;
};

// The graph's output sizes from its input sizes. One thread at a time.
class OutputShapes {
 public:
  explicit OutputShapes(const AiVmmGraph& graph);
  // To be called before `shape`.
  void update(std::span<const AiVmmTensor* const> inputs);
  // Of output k; null where it depends on the data.
  const std::vector<int64_t>* shape(size_t k) const { return known_[k] ? &shapes_[k] : nullptr; }
  int32_t dtype(size_t k) const { return dtypes_[k]; }
  size_t count() const { return dims_.size(); }

 private:
  struct Symbol {
    std::string name;
    size_t input, axis;
  };
  std::vector<Symbol> symbols_;
  std::vector<std::optional<std::vector<Dim>>> dims_;
  std::vector<int32_t> dtypes_;
  std::vector<std::vector<int64_t>> shapes_;
  std::vector<char> known_;
  std::vector<int64_t> last_;  // input sizes of the shapes at hand, the symbols' only
  bool fresh_ = true;
};

// A device of the plugin interface over an engine.
class Device : public backend::Device {
 public:
  explicit Device(std::shared_ptr<Engine> engine) : engine_(std::move(engine)), opset_(engine_->opsets()[0]) {}

  // Asks the engine itself. A graph that it loads as a whole is taken as a whole, and kept for the `compile` that
  // follows; otherwise every kind of node is tried alone, once a process, under the opset at which most are taken.
  Status query(const AiVmmGraph& graph, std::span<AiVmmVerdict* const> verdicts) override;
  Result<std::unique_ptr<backend::Executable>> compile(const AiVmmGraph& graph,
                                                       const AiVmmCompileOptions& options) override;

 private:
  struct Loaded {
    uint64_t key = 0;  // of the model, its weights and the options
    std::shared_ptr<Session> session;
  };
  std::shared_ptr<Engine> engine_;
  std::mutex mutex_;
  Loaded loaded_;
  int opset_;  // of the last query
};

}  // namespace ai_vmm::hosted
