// A plugin under test, driven through the bare interface: every tensor has guard bytes around it, every struct may be
// given another size than it has.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ai_vmm/backend_abi.h"
#include "certify/cases.hpp"
#include "kit/view.hpp"

namespace ai_vmm::certify {

// A failed check; the text says what the plugin did. Checks return success with a note on what was tried.
Status broken(const std::string& what);

// The sentence of a status as a plugin wrote it; what is wrong with it is a failure of the plugin.
Status sentence(int32_t code, const AiVmmStatus& status, std::string* text);
AiVmmStatus new_status();

struct Subject {
  AiVmmBackendEntry entry = nullptr;
  const AiVmmBackend* api = nullptr;
  AiVmmDevice* device = nullptr;
  int index = 0;

  // Connects and opens the device, once a process.
  Status open(const AiVmmHost& host);
  // The cases that the plugin takes whole, by its query; a level-1 plugin by compiling.
  Result<std::vector<const Case*>> supported();
};

struct RunSetup {
  bool in_place = true;        // memory is given for every output; else all is asked for by allocate
  bool refuse_memory = false;  // allocate gives none
  const volatile int32_t* cancel = nullptr;
  uint32_t extra_size = 0;   // of structs, as a newer host's would have
  bool alias_first = false;  // output 0 is given the memory of input 0
  int32_t code = 0;          // out: what execute returned
  AiVmmStatus status{};      // out
};

// A compiled graph with one context.
class Compiled {
 public:
  // `fail_ok`: the code and the sentence are kept, and no failure is reported.
  static Result<std::unique_ptr<Compiled>> make(Subject& subject, const Graph& graph, bool alias = false,
                                                uint32_t extra_size = 0);
  ~Compiled();
  Compiled(const Compiled&) = delete;

  // The outputs. Fails when the plugin does, writes out of bounds, changes an input, or makes no output.
  Result<std::vector<Tensor>> run(const std::vector<Tensor>& inputs, RunSetup& setup, AiVmmContext* context = nullptr);
  // Against the reference, within the accuracy contract.
  Status compare(const std::vector<Tensor>& inputs, RunSetup& setup, AiVmmContext* context = nullptr);

  Subject& subject;
  Graph graph;  // its constants must outlive the executable
  AiVmmExecutable* executable = nullptr;
  AiVmmContext* context = nullptr;

 private:
  explicit Compiled(Subject& s) : subject(s) {}
};

// What the graph gives by the reference functions.
Result<std::vector<Tensor>> expected(const Graph& graph, const std::vector<Tensor>& inputs);
// |y - r| <= 1e-4 max|r| + 1e-4 |r| in f32; a few units in the last place of shorter floats; integers exactly.
Status compare(const std::string& where, const Tensor& actual, const Tensor& expected);

}  // namespace ai_vmm::certify
