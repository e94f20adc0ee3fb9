// A deployment as Python calls it.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "run.hpp"

namespace ai_vmm::python {

struct Model {
  explicit Model(Deployment d);

  nb::object call(const nb::args& positional, const nb::kwargs& named) const;
  nb::dict run(const nb::dict& inputs, std::optional<nb::dict> out, Cancel* cancel) const;
  nb::dict run_owned(const nb::dict& inputs, Cancel& cancel) const;
  nb::list run_values(const nb::dict& inputs, const nb::dict& out, Cancel* cancel) const;

  Deployment deployment;
  std::vector<nb::object> input_names, output_names;  // interned, as dict keys

 private:
  // One run: inputs by name, also of initialisers that they replace; buffers to write into, or empty Data, one an
  // output. `keep` null: the Data themselves keep what they view alive.
  std::vector<Data> execute(const nb::dict& inputs, Keep* keep, std::vector<Data> outputs, Cancel* cancel) const;
  std::vector<Data> gather(const nb::dict& inputs, Keep* keep) const;
  bool overrides(const nb::dict& inputs) const;
};

// What Value offers.
Value value_of(nb::handle object, std::optional<int> onnx_type);
Value value_at(uintptr_t address, int onnx_type, std::vector<int64_t> shape);
Value empty_value(int onnx_type, std::vector<int64_t> shape);
const Tensor& tensor_of(const Value& value);
std::string kind_of(const Value& value);
nb::list items_of(const Value& value);

}  // namespace ai_vmm::python
