// A region compiled for this CPU, and the state of one run of it.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ai_vmm/types.hpp"
#include "backends/cpu/kernel.hpp"
#include "graph/graph.hpp"

namespace ai_vmm::cpu {

enum class Verdict { native, generic, unsupported };
struct NodeVerdict {
  Verdict verdict;
  const char* reason;  // a literal; null when native
};
// How a node would run.
NodeVerdict query(const Graph& graph, const Node& node);

// Immutable once compiled; shared by any number of contexts.
class Program {
 public:
  static Result<std::shared_ptr<const Program>> compile(Graph region, const Options& options);
  ~Program();
  int64_t weight_bytes() const;  // of packed weights
  int64_t arena_bytes() const;   // of the largest context so far
  int64_t compilations() const;  // oneDNN primitives and arena plans made so far
  std::string to_text() const;   // one line a step

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  Program() = default;
  std::unique_ptr<Impl> impl_;
};

// Where an output goes: the caller's memory when the result has the shape it was made for, otherwise what `allocate`
// gives.
struct OutputSlot {
  void* data = nullptr;
  std::span<const int64_t> shape;
  std::function<Result<void*>(DType, const Shape&)> allocate;
};
struct RunOptions {
  int threads = 0;
  uint64_t seed = 0;
  const volatile int32_t* cancel = nullptr;
};

struct Input {  // dense and row-major
  DType dtype = DType::undefined;
  std::span<const int64_t> shape;
  const void* data = nullptr;
};

// One run at a time. With the shapes of the last run, running allocates nothing.
class Context {
 public:
  explicit Context(std::shared_ptr<const Program> program);
  ~Context();
  Status run(std::span<const Input> inputs, std::span<const OutputSlot> outputs, const RunOptions& options = {});
  // For tests: outputs in tensors of their own.
  Result<std::vector<Tensor>> run(std::span<const Tensor> inputs, const RunOptions& options = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ai_vmm::cpu
