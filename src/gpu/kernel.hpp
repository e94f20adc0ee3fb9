// What a kernel is, in three stages, as in the cpu backend:
//
//   Maker   once per node at compile time: reads attributes, types, constants     → Binder
//   Binder  once per set of sizes in each context: kernels, work sizes, arguments → Bound
//   Bound   a few launches, enqueued in every run
//
// Makers stand in one list, ops/ops.def. A Maker that cannot serve a node says so by a reason of the plugin interface.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ai_vmm/backend_abi.h"
#include "gpu/driver.hpp"
#include "gpu/expression.hpp"
#include "graph/graph.hpp"

namespace ai_vmm::gpu {

// ---------------------------------------------------------------- launches

struct Operand {
  enum class Kind : uint8_t { in, out, scratch, packed, scalar, fault, step };
  Kind kind = Kind::scalar;
  size_t index = 0;    // in, out: of the node
  int64_t offset = 0;  // scratch: bytes, a multiple of Traits::alignment
  MemoryRef memory;    // packed
  Scalar value = int32_t(0);
};

struct Launch {
  Source source;
  std::optional<LibraryTask> library;  // done by a library instead; operands are its addresses
  std::vector<Operand> operands;
  Size3 global{1, 1, 1}, local{1, 1, 1};

  Launch& in(size_t k) { return add({.kind = Operand::Kind::in, .index = k}); }
  Launch& out(size_t k) { return add({.kind = Operand::Kind::out, .index = k}); }
  Launch& scratch(int64_t at) { return add({.kind = Operand::Kind::scratch, .offset = at}); }
  Launch& packed(MemoryRef m) { return add({.kind = Operand::Kind::packed, .memory = std::move(m)}); }
  // Two arguments, `GLOBAL int* fault, int step`: a kernel that meets an index outside its axis reads element 0 instead
  // and sets fault[0] to step, which fails the run.
  Launch& faults() {
    add({.kind = Operand::Kind::fault});
    return add({.kind = Operand::Kind::step});
  }
  Launch& scalar(Scalar v) { return add({.value = v}); }
  // Work items in each direction (left out: 1); rounded up to whole groups, so kernels check their indices.
  Launch& items(Size3 count, Size3 group = {1, 1, 1});

 private:
  Launch& add(Operand o) {
    operands.push_back(std::move(o));
    return *this;
  }
};

// A launch of the kernel that `text` is a template of: `${kernel}` is its name, which this makes from `base` and the
// text, so that equal kernels have equal names; names of functions and types in the text begin with it or are guarded.
Launch launch(const std::string& base, std::string_view text, const Words& words);

struct Bound {
  std::vector<Launch> launches;
  int64_t scratch = 0;  // bytes
  int64_t result = 0;   // of a part of an operator: where in scratch memory its result lies
  double flops = 0;
  std::string note;  // the algorithm, for the profile
};

// ---------------------------------------------------------------- bind

struct Bind {
  std::span<const Shape*const> in_shapes, out_shapes;  // null where absent
  const std::vector<std::optional<std::vector<int64_t>>>* in_ints;
  const Traits& traits;
  bool deterministic;
  Driver& driver;
  // Data made from constants once a program, on the device.
  std::function<Result<MemoryRef>(const std::string& key, int64_t bytes, const std::function<void(void*)>& write)> pack;
  // The fastest of several equivalent ways, by measurement on memory of these sizes; remembered under `key`.
  std::function<Result<size_t>(const std::string& key, std::span<const Bound> candidates)> fastest;
  // The note of the way that `fastest` is going to take under `key`; "": not known yet, or nothing is measured.
  std::function<std::string(const std::string& key)> known;
  // Gives up data of `pack` that no way taken uses.
  std::function<void(const std::string& key)> drop;

  bool has(size_t k) const { return k < in_shapes.size() && in_shapes[k]; }
  const Shape& in(size_t k) const { return *in_shapes[k]; }
  const Shape& out(size_t k) const { return *out_shapes[k]; }
  bool has_ints(size_t k) const { return k < in_ints->size() && (*in_ints)[k].has_value(); }
  const std::vector<int64_t>& ints(size_t k) const { return *(*in_ints)[k]; }

  // The type of indices: "int" unless a tensor has more elements than it counts. Sizes are passed as `index(n)`.
  bool large() const;
  const char* idx() const { return large() ? "long" : "int"; }
  Scalar index(int64_t n) const { return large() ? Scalar(n) : Scalar(int32_t(n)); }
};
using BindFn = std::function<Result<Bound>(const Bind&)>;

// ---------------------------------------------------------------- make

// The elementwise computation that a node's result passes through before it is stored, and where its other inputs lie.
struct Epilogue {
  enum class Access : uint8_t { scalar, full, channel };  // one element; as the output; along the channel axis alone
  Expression code;                                        // input 0 is the node's own result; all float32
  std::vector<Access> access;                             // of inputs 1 …
  size_t first_input = 0;                                 // of Make::node's inputs: where input 1 stands
};

struct Make {
  const Graph& graph;
  const Node& node;
  const Traits& traits;
  std::shared_ptr<const Epilogue> epilogue;      // of an operator that takes one
  std::shared_ptr<const Expression> expression;  // of fused elementwise nodes; its inputs are the node's

  size_t inputs() const { return node.inputs.size(); }
  bool has(size_t k) const { return node.has_input(k); }
  bool has_out(size_t k) const { return node.has_output(k); }
  const Type& type(size_t k) const { return graph.value(node.inputs[k]).type; }
  const Type& out_type(size_t k) const { return graph.value(node.outputs[k]).type; }
  DType dtype(size_t k) const { return has(k) ? type(k).dtype : DType::undefined; }
  int64_t rank(size_t k) const { return type(k).rank(); }
  const Tensor* constant(size_t k) const {
    return has(k) && graph.value(node.inputs[k]).constant ? &graph.value(node.inputs[k]).constant : nullptr;
  }
};

struct Made {
  BindFn bind;
  AiVmmReason reason = AI_VMM_SUPPORTED;
  const char* refusal = nullptr;          // a literal
  uint32_t values = 0;                    // inputs (bit k) whose elements the Binder needs
  Made(BindFn f) : bind(std::move(f)) {}  // NOLINT: implicit
  Made(AiVmmReason r, const char* why) : reason(r), refusal(why) {}
  Made&& needs(uint32_t inputs) && {
    values = inputs;
    return std::move(*this);
  }
};
using Maker = Made (*)(const Make&);

struct KernelEntry {
  const char* domain;
  const char* op;
  Maker make;
  int channel = 0;  // of operators that take an epilogue: 1 its channels are axis 1, 2 the last axis; 0: takes none
};
const KernelEntry* find_kernel(std::string_view domain, std::string_view op);

// How a node would run.
Made make_kernel(const Make& make);

// ---------------------------------------------------------------- helpers for Makers and Binders

// The epilogue in a kernel: parameters to declare (starting with a comma), functions, and statements on a variable `v`
// of `width` floats that is to be stored at offset `o` of the output, in channel `c`; the name of the result.
struct EpilogueText {
  std::string parameters, functions, body, result;
};
// `channel_lanes`: the lanes of a vector lie along the channel axis. `partial`: text that is true where some lanes lie
// outside the output; the array `at` then holds the offset of each lane from o and c, or -1. "" where that cannot be.
EpilogueText epilogue_text(const Epilogue* e, int width, bool channel_lanes, const std::string& partial = "");
// Appends the operands of its parameters.
void add_epilogue(Launch& l, const Epilogue* e);

inline int64_t product(const Shape& s, size_t first = 0, size_t last = SIZE_MAX) {
  int64_t n = 1;
  for (size_t i = first; i < std::min(last, s.size()); ++i) n *= s[i];
  return n;
}
inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
inline int64_t divide_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }
inline int64_t normalise_axis(int64_t axis, int64_t rank) { return axis < 0 ? axis + rank : axis; }
Shape strides_of(const Shape& shape);
// A group size for `n` independent items side by side.
int64_t group_for(const Traits& t, int64_t n);
inline Status invalid(std::string text) { return Status(Code::invalid_argument, std::move(text)); }
inline Made refuse_type(const char* why = "no kernel for this element type") { return {AI_VMM_REFUSED_DTYPE, why}; }

}  // namespace ai_vmm::gpu
