// What compile makes and Context runs.
#pragma once

#include <atomic>

#include "backends/cpu/program.hpp"

namespace ai_vmm::cpu {

// A value at run time. Sizes are indices into Program::Impl::exprs.
struct Slot {
  enum class Kind : uint8_t {
    unused,
    arena,     // in the context's arena
    input,     // caller's memory, number `index`
    output,    // output slot number `index`
    constant,  // Slot::constant
    ints,      // small integers known when sizes are: filled at bind, no step makes them
    own,       // made at run time by a data-dependent step
  };
  Kind kind = Kind::unused;
  DType dtype = DType::undefined;
  bool ranked = false;
  std::vector<int> dims;
  Layout layout;
  int index = -1;
  int root = -1;              // the value whose storage this one shares; itself when it has its own
  std::vector<int> members;   // of a root: all values in its storage, itself included
  int first = -1, last = -1;  // of a root: first and last step that touches it
  Tensor constant;
  std::vector<int> ints;  // kind ints: elements
};

struct Step {
  std::string kernel;  // the operator, or "generic Op"
  std::string label;   // for messages and the profile
  std::vector<int> in, out;
  BindFn bind;
  uint32_t values = 0;
  bool makes_outputs = false;  // calls Run::make
  bool dynamic = false;        // sizes are known only when it runs: a segment of its own
  bool sized = false;          // output sizes follow from expressions whose symbols are known before the step
  Node node;                   // dynamic steps that infer their sizes
};

struct Segment {
  int first, last;  // steps [first, last)
  bool dynamic = false;
};

struct InputSpec {
  int value;
  std::string name;
};

struct Program::Impl {
  Options options;
  std::string name;
  std::vector<Slot> slots;
  std::vector<std::string> slot_names;
  std::vector<Step> steps;
  std::vector<Segment> segments;
  std::vector<Dim> exprs;  // unique
  std::vector<std::string> symbols;
  std::vector<InputSpec> inputs;
  std::vector<int> outputs;       // values
  std::vector<char> output_copy;  // the output is copied at the end of the run from its value's storage
  std::shared_ptr<Pack> pack;
  mutable std::atomic<int64_t> arena_bytes{0}, compilations{0};
};

// Shared by all steps of compile: the graph being lowered and the layout of each value.
struct Lowering {
  Graph graph;
  std::vector<Layout> layouts;
  const Options& options;
  std::shared_ptr<Pack> pack;
};

// The passes, in order; see passes.cpp.
Status run_passes(Lowering& lowering);

// The Maker's answer for a node: a kernel of our own, or the reference semantics (`generic` set), or a refusal.
Made make_kernel(const Make& make, bool& generic);
// Runs the operator's reference semantics.
Made make_generic(const Make& make);

// How a data-dependent step hands over its outputs; implemented by Context.
struct Dynamic {
  std::function<Result<void*>(size_t k, DType dtype, Shape shape)> make;
  std::function<void(size_t k, Tensor tensor)> set;
};

}  // namespace ai_vmm::cpu
