#include "model.hpp"

#include <nanobind/stl/string.h>

namespace ai_vmm::python {

namespace {

nb::object interned(const std::string& s) {
  PyObject* o = PyUnicode_FromStringAndSize(s.data(), Py_ssize_t(s.size()));
  if (!o) throw nb::python_error();
  PyUnicode_InternInPlace(&o);
  return nb::steal(o);
}

[[noreturn]] void bad(std::string text) { throw Failure(Status(Code::invalid_argument, std::move(text))); }

std::string list_of(const std::vector<Port>& ports) {
  std::string text;
  for (const Port& p : ports) text += (text.empty() ? "" : ", ") + p.name + " " + p.type;
  return text;
}

// An array as a buffer to write: the run writes through the view.
Tensor buffer(nb::handle array, const std::string& name) {
  DType dtype = dtype_of_array(array.ptr());
  if (dtype == DType::undefined || !readable(array.ptr(), dtype) ||
      !nb::cast<bool>(array.attr("flags").attr("writeable")))
    bad("The buffer for output \"" + name + "\" must be a writable, C-contiguous NumPy array of numbers.");
  return view_array(array.ptr(), dtype);
}

}  // namespace

Model::Model(Deployment d) : deployment(std::move(d)) {
  for (const Port& p : deployment.inputs()) input_names.push_back(interned(p.name));
  for (const Port& p : deployment.outputs()) output_names.push_back(interned(p.name));
}

bool Model::overrides(const nb::dict& inputs) const {
  for (const Port& p : deployment.overridable())
    if (inputs.contains(p.name.c_str())) return true;
  return false;
}

std::vector<Data> Model::execute(const nb::dict& inputs, Keep* keep, std::vector<Data> outputs, Cancel* cancel) const {
  if (!overrides(inputs)) {
    check(python::run(deployment, gather(inputs, keep), outputs, cancel));
    return outputs;
  }
  const auto& ports = deployment.outputs();
  Inputs in;
  Outputs out;
  for (auto [key, value] : inputs) {
    auto name = nb::cast<std::string>(nb::str(nb::handle(key)));
    Port port{.name = name};
    for (const auto* known : {&deployment.inputs(), &deployment.overridable()})
      for (const Port& p : *known)
        if (p.name == name) port = p;
    in[name] = keep ? to_data(value, port, *keep) : to_owned_data(value, port);
  }
  for (size_t k = 0; k < ports.size(); ++k)
    if (!outputs[k].empty()) out[ports[k].name] = outputs[k];
  check(python::run(deployment, in, out, cancel));
  for (size_t k = 0; k < ports.size(); ++k) outputs[k] = std::move(out[ports[k].name]);
  return outputs;
}

std::vector<Data> Model::gather(const nb::dict& inputs, Keep* keep) const {
  const auto& ports = deployment.inputs();
  std::vector<Data> in(ports.size());
  size_t used = 0;
  for (size_t i = 0; i < ports.size(); ++i) {
    PyObject* o = PyDict_GetItemWithError(inputs.ptr(), input_names[i].ptr());
    if (!o) {
      if (PyErr_Occurred()) throw nb::python_error();
      continue;
    }
    ++used;
    if (!keep) {
      in[i] = to_owned_data(o, ports[i]);
    } else if (ports[i].is_tensor && readable(o, ports[i].dtype)) {
      in[i] = view_array(o, ports[i].dtype);
      keep->push_back(nb::borrow(o));  // the dict may change while the GIL is away
    } else {
      in[i] = to_data(o, ports[i], *keep);
    }
  }
  if (used != inputs.size()) {
    // The library says it best: it knows near names. Only names matter to it here.
    Inputs given;
    for (auto [key, value] : inputs) given[nb::cast<std::string>(nb::str(nb::handle(key)))] = Data();
    check(deployment.run(given).status().copy());
  }
  return in;
}

nb::object Model::call(const nb::args& positional, const nb::kwargs& named) const {
  const auto& ports = deployment.inputs();
  const size_t n = positional.size();
  if (n > ports.size())
    bad("The model takes " + std::to_string(ports.size()) + " inputs (" + list_of(ports) + "); " + std::to_string(n) +
        " are given.");
  Keep keep;
  std::vector<Data> out(output_names.size());
  if (n == 0 || named.size()) {
    nb::dict all = named;
    for (size_t i = 0; i < n; ++i) {
      if (all.contains(input_names[i])) bad("Input \"" + ports[i].name + "\" is given twice: in order and by name.");
      all[input_names[i]] = positional[i];
    }
    out = execute(all, &keep, std::move(out), nullptr);
  } else {
    std::vector<Data> in(ports.size());
    for (size_t i = 0; i < n; ++i) {
      PyObject* o = positional[i].ptr();
      in[i] = ports[i].is_tensor && readable(o, ports[i].dtype) ? Data(view_array(o, ports[i].dtype))
                                                                : to_data(o, ports[i], keep);
    }
    check(python::run(deployment, in, out, nullptr));
  }
  if (out.size() == 1) return to_python(std::move(out[0]));
  nb::dict result;
  for (size_t k = 0; k < out.size(); ++k) result[output_names[k]] = to_python(std::move(out[k]));
  return result;
}

nb::dict Model::run(const nb::dict& inputs, std::optional<nb::dict> into, Cancel* cancel) const {
  Keep keep;
  std::vector<Data> out(output_names.size());
  nb::dict result;
  if (into) {
    size_t used = 0;
    for (size_t k = 0; k < out.size(); ++k)
      if (into->contains(output_names[k])) {
        ++used;
        out[k] = buffer((*into)[output_names[k]], deployment.outputs()[k].name);
      }
    if (used != into->size())
      bad("`out` names an output that the model lacks; it has " + list_of(deployment.outputs()) + ".");
  }
  out = execute(inputs, &keep, std::move(out), cancel);
  for (size_t k = 0; k < out.size(); ++k)
    result[output_names[k]] =
        into && into->contains(output_names[k]) ? nb::object((*into)[output_names[k]]) : to_python(std::move(out[k]));
  return result;
}

nb::dict Model::run_owned(const nb::dict& inputs, Cancel& cancel) const {
  std::vector<Data> out = execute(inputs, nullptr, std::vector<Data>(output_names.size()), &cancel);
  nb::dict result;
  for (size_t k = 0; k < out.size(); ++k) result[output_names[k]] = to_python(std::move(out[k]));
  return result;
}

nb::list Model::run_values(const nb::dict& inputs, const nb::dict& into, Cancel* cancel) const {
  std::vector<Data> given(output_names.size());
  for (size_t k = 0; k < given.size(); ++k)
    if (into.contains(output_names[k])) given[k] = Data(tensor_of(nb::cast<const Value&>(into[output_names[k]])));
  std::vector<Data> out = execute(inputs, nullptr, given, cancel);
  nb::list result;
  for (size_t k = 0; k < out.size(); ++k) {
    // What came back may view an input or a weight; a Value must own what it shows.
    if (!given[k].is_tensor() && out[k].is_tensor() && !(out[k].tensor().owner().use_count() == 1))
      out[k] = take(out[k].tensor().clone());
    result.append(Value{given[k].is_tensor() ? given[k] : std::move(out[k])});
  }
  return result;
}

Value value_of(nb::handle object, std::optional<int> onnx_type) {
  Port plain;
  plain.is_tensor = !PyList_Check(object.ptr()) && !PyTuple_Check(object.ptr()) && !PyDict_Check(object.ptr());
  if (!plain.is_tensor) plain.type = PyDict_Check(object.ptr()) ? "map(i64, f32)" : "seq(?)";
  Data d = to_owned_data(object, plain);
  if (onnx_type && d.is_tensor()) {
    const Tensor& t = d.tensor();
    auto dtype = DType(*onnx_type);
    if (*onnx_type <= 0 || *onnx_type >= kDTypeCount || bits(dtype) != bits(t.dtype()) || t.dtype() == DType::string)
      bad(std::string("An array of ") + name(t.dtype()) + " cannot be read as ONNX type " + std::to_string(*onnx_type) +
          ": the element widths differ.");
    d = Tensor::view(dtype, t.shape(), t.data(), t.owner());
  }
  return {d};
}

namespace {
DType known(int onnx_type) {
  if (onnx_type <= 0 || onnx_type >= kDTypeCount || DType(onnx_type) == DType::string)
    bad("ONNX type " + std::to_string(onnx_type) + " is no type of numbers.");
  return DType(onnx_type);
}
}  // namespace

Value value_at(uintptr_t address, int onnx_type, std::vector<int64_t> shape) {
  if (!element_count(shape)) bad("The shape " + to_string(shape) + " has no element count.");
  return {Tensor::view(known(onnx_type), std::move(shape), reinterpret_cast<const void*>(address))};
}

Value empty_value(int onnx_type, std::vector<int64_t> shape) {
  return {take(Tensor::make(known(onnx_type), std::move(shape), true))};
}

const Tensor& tensor_of(const Value& value) {
  if (!value.data.is_tensor()) bad("This value is no tensor but a " + kind_of(value) + ".");
  return value.data.tensor();
}

std::string kind_of(const Value& value) {
  constexpr const char* kKinds[] = {"none", "tensor", "sequence", "map"};
  return kKinds[value.data.index()];
}

nb::list items_of(const Value& value) {
  if (!value.data.is_sequence()) bad("This value is no sequence but a " + kind_of(value) + ".");
  nb::list list;
  for (const Data& d : value.data.sequence()) list.append(Value{d});
  return list;
}

}  // namespace ai_vmm::python
