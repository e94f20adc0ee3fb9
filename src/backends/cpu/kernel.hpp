// What a kernel is, in three stages:
//
//   Maker   once per node at compile time: reads attributes, types and constants        → Binder
//   Binder  once per set of sizes in each context: chooses an algorithm, lays out loops → Bound
//   Bound   once per run: computes. No allocation, no lookup.
//
// Makers stand in one list, ops/ops.def. A Maker that cannot serve a node says so by an empty Binder with a reason; the
// node then runs on the reference semantics of its operator and is reported as generic.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "ai_vmm/types.hpp"
#include "backends/cpu/kernels/isa.hpp"
#include "graph/graph.hpp"

namespace ai_vmm::cpu {

struct Options {
  int threads = 0;             // the most a run will ask for; 0: all
  bool deterministic = false;  // nothing chosen by measurement
};

// How a value lies in memory: row-major (block 0), or with axis 1, the channels, in blocks of `block` innermost:
// [N, ceil(C/block), spatial..., block], the channels past C being zero.
struct Layout {
  int block = 0;
  friend bool operator==(Layout, Layout) = default;
};
Shape physical_shape(const Shape& shape, Layout layout);
int64_t physical_count(const Shape& shape, Layout layout);

// Data derived from constants (packed weights), shared by all contexts of a program.
class Pack {
 public:
  std::shared_ptr<const void> get(const std::string& key,
                                  const std::function<std::shared_ptr<const void>(int64_t& bytes)>& make);
  int64_t bytes() const;

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<const void>> items_;
  int64_t bytes_ = 0;
};
// 64-byte aligned memory for packed data, with room for a vector load past the end.
std::shared_ptr<void> aligned_buffer(int64_t bytes);
// Tells the system that the elements of a constant will hardly be read again: they have been packed.
void forget(const Tensor& constant);

// ---------------------------------------------------------------- run

struct Dynamic;  // how a data-dependent kernel makes its outputs; context.cpp

struct Run {
  std::byte* const* memory;  // of every value of the program
  std::span<const int> in_ids, out_ids;
  std::byte* scratch;  // Bound::scratch bytes, 64-byte aligned
  int threads;
  uint64_t seed;
  Dynamic* dynamic = nullptr;

  template <class T>
  const T* in(size_t k) const {
    return in_ids[k] < 0 ? nullptr : reinterpret_cast<const T*>(memory[in_ids[k]]);
  }
  template <class T>
  T* out(size_t k) const {
    return out_ids[k] < 0 ? nullptr : reinterpret_cast<T*>(memory[out_ids[k]]);
  }
  // Data-dependent kernels only: storage for output k.
  Result<void*> make(size_t k, DType dtype, Shape shape);
  // The same with a tensor that the kernel has made.
  void set(size_t k, Tensor tensor);
};

using RunFn = std::function<Status(Run&)>;

struct Bound {
  RunFn run;
  int64_t scratch = 0;
  std::string note;  // the algorithm, for the profile
  double flops = 0;
};

// ---------------------------------------------------------------- bind

struct Bind {
  std::span<const Shape*const> in_shapes, out_shapes;  // null where absent, or (outputs) not known before the run
  const std::vector<std::optional<std::vector<int64_t>>>* in_ints;  // per input, where asked for by Maker::values
  int threads;

  bool has(size_t k) const { return k < in_shapes.size() && in_shapes[k]; }
  const Shape& in(size_t k) const { return *in_shapes[k]; }
  const Shape& out(size_t k) const { return *out_shapes[k]; }
  const std::vector<int64_t>& ints(size_t k) const { return *(*in_ints)[k]; }
  bool has_ints(size_t k) const { return k < in_ints->size() && (*in_ints)[k].has_value(); }
};
using BindFn = std::function<Result<Bound>(const Bind&)>;

// ---------------------------------------------------------------- make

struct Make {
  const Graph& graph;
  const Node& node;
  const std::vector<Layout>& layouts;  // per value
  const Options& options;
  std::shared_ptr<Pack> pack;
  bool probe = false;  // only whether the node is served is asked: do no heavy work

  size_t inputs() const { return node.inputs.size(); }
  size_t outputs() const { return node.outputs.size(); }
  bool has(size_t k) const { return node.has_input(k); }
  bool has_out(size_t k) const { return node.has_output(k); }
  const Type& type(size_t k) const;
  const Type& out_type(size_t k) const;
  DType dtype(size_t k) const { return type(k).dtype; }
  DType out_dtype(size_t k) const { return out_type(k).dtype; }
  int64_t rank(size_t k) const { return type(k).rank(); }
  const Tensor* constant(size_t k) const;
  Layout layout(size_t k) const { return has(k) ? layouts[size_t(node.inputs[k])] : Layout{}; }
  Layout out_layout(size_t k) const { return has_out(k) ? layouts[size_t(node.outputs[k])] : Layout{}; }
  // Key of packed data that belongs to constant input k.
  std::string key(size_t k, const std::string& what) const;
};

// What a Maker gives: a Binder, or why it has none.
struct Made {
  BindFn bind;
  const char* refusal = nullptr;           // a literal
  uint32_t values = 0;                     // inputs (bit k) whose elements the Binder needs: small integer tensors
  bool dynamic = false;                    // output shapes come from the run; outputs go through Run::make
  uint32_t in_place = 0;                   // inputs (bit k) whose storage output 0 may take over when sizes agree
  Made(BindFn f) : bind(std::move(f)) {}   // NOLINT: implicit
  Made(const char* why) : refusal(why) {}  // NOLINT: implicit
  Made&& needs(uint32_t inputs) && {
    values = inputs;
    return std::move(*this);
  }
  Made&& makes_outputs() && {
    dynamic = true;
    return std::move(*this);
  }
  Made&& overwrites(uint32_t inputs) && {
    in_place = inputs;
    return std::move(*this);
  }
};
using Maker = Made (*)(const Make&);

struct KernelEntry {
  const char* domain;
  const char* op;
  Maker make;
};
// The Maker of an operator; null when there is none.
const KernelEntry* find_kernel(std::string_view domain, std::string_view op);
std::span<const KernelEntry> all_kernels();

// ---------------------------------------------------------------- helpers for Binders

inline int64_t product(std::span<const int64_t> s) {
  int64_t n = 1;
  for (int64_t d : s) n *= d;
  return n;
}
inline int64_t product(const Shape& s, size_t first, size_t last) {
  return product(std::span(s).subspan(first, last - first));
}
Shape strides_of(const Shape& shape);  // row-major, in elements
inline int64_t normalise_axis(int64_t axis, int64_t rank) { return axis < 0 ? axis + rank : axis; }

// f(begin, end) over [0, n) on at most `threads` threads, each with at least `grain` items.
template <class F>
void parallel(int threads, int64_t n, int64_t grain, F&& f);

inline Status invalid(std::string text) { return Status(Code::invalid_argument, std::move(text)); }

}  // namespace ai_vmm::cpu

#include "backends/cpu/parallel.hpp"
