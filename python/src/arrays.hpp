// NumPy arrays, DLPack tensors and Python containers ↔ Data. Every function needs the GIL and reports failures as
// nanobind::python_error or Failure.
#pragma once

#include <nanobind/nanobind.h>

#include <vector>

#include "ai_vmm/vmm.hpp"

namespace ai_vmm::python {

namespace nb = nanobind;

// A Status on its way to a Python exception; module.cpp translates it.
struct Failure : std::exception {
  explicit Failure(Status s) : status(std::make_shared<Status>(std::move(s))) {}
  const char* what() const noexcept override { return status->message().c_str(); }
  std::shared_ptr<Status> status;  // shared: exceptions are copied
};
template <class T>
T take(Result<T> result) {
  if (!result.ok()) throw Failure(std::move(result).status());
  return *std::move(result);
}
inline void check(Status status) {
  if (!status.ok()) throw Failure(std::move(status));
}

// Data as a Python object that is no array: what the stand-in's OrtValue holds, also of types that NumPy lacks.
struct Value {
  Data data;
};

// Python objects whose memory a run reads in place: alive as long as this.
using Keep = std::vector<nb::object>;

bool start_numpy();  // once, when the module is loaded; false: a Python error is set

// The element type of an array; undefined where AI VMM has none.
DType dtype_of_array(PyObject* array);
// The NumPy type of a number: its descriptor. Types beyond NumPy's own come from ml_dtypes, whose absence is a Failure.
nb::object descriptor(DType dtype);

// Whether `object` is a C-contiguous, aligned array in native byte order of exactly this type (never string): then
// `view_array` reads it in place. The hot path of a call.
bool readable(PyObject* object, DType dtype);
Tensor view_array(PyObject* array, DType dtype);

// Anything that a model takes: arrays, DLPack tensors, __array__, Value, numbers, strings, lists; None is an empty
// Data; lists (sequences) and dicts (maps) where `port` is no tensor. Arrays keep their type; plain Python numbers and
// lists take the port's. Memory is read in place where layout and byte order allow; `keep` then holds its owner.
Data to_data(nb::handle object, const Port& port, Keep& keep);
// The same, but the Data itself keeps the memory alive, so that it may outlive the call.
Data to_owned_data(nb::handle object, const Port& port);

// A tensor becomes an array, which takes over the memory if nobody else holds it and copies it otherwise, so that
// writing to a result never changes an input, a weight or another result. Sequences are lists, maps dicts, empty None.
nb::object to_python(Data data);
// An array over the tensor's own memory, which it keeps alive.
nb::object array_view(const Tensor& tensor);

}  // namespace ai_vmm::python
