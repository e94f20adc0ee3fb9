#include "arrays.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_1_25_API_VERSION
#include <numpy/arrayobject.h>

namespace ai_vmm::python {

namespace {

PyArrayObject* array_of(PyObject* o) { return reinterpret_cast<PyArrayObject*>(o); }

[[noreturn]] void fail(Code code, std::string text) { throw Failure(Status(code, std::move(text))); }

// Types of NumPy itself, by DType; -1: none.
int type_number(DType t) {
  switch (t) {
    case DType::f32: return NPY_FLOAT32;
    case DType::f64: return NPY_FLOAT64;
    case DType::f16: return NPY_FLOAT16;
    case DType::u8: return NPY_UINT8;
    case DType::i8: return NPY_INT8;
    case DType::u16: return NPY_UINT16;
    case DType::i16: return NPY_INT16;
    case DType::u32: return NPY_UINT32;
    case DType::i32: return NPY_INT32;
    case DType::u64: return NPY_UINT64;
    case DType::i64: return NPY_INT64;
    case DType::boolean: return NPY_BOOL;
    case DType::c64: return NPY_COMPLEX64;
    case DType::c128: return NPY_COMPLEX128;
    case DType::string: return NPY_OBJECT;
    default: return -1;
  }
}

// What ml_dtypes adds to NumPy. Sub-byte ones take a byte an element there and are packed here.
struct Extension {
  DType dtype;
  const char* name;
  int number = -1;
};
Extension extensions[] = {
    {DType::bf16, "bfloat16"},
    {DType::f8e4m3fn, "float8_e4m3fn"},
    {DType::f8e4m3fnuz, "float8_e4m3fnuz"},
    {DType::f8e5m2, "float8_e5m2"},
    {DType::f8e5m2fnuz, "float8_e5m2fnuz"},
    {DType::f8e8m0, "float8_e8m0fnu"},
    {DType::f4e2m1, "float4_e2m1fn"},
    {DType::i4, "int4"},
    {DType::u4, "uint4"},
    {DType::i2, "int2"},
    {DType::u2, "uint2"},
};

// Learns the numbers that ml_dtypes registered its types under; false without the package. An array of such a type
// exists only if the package is loaded, but an output may be the first to ask for it.
bool learn_extensions() {
  static bool learned = false;
  if (learned) return true;
  PyObject* module = PyImport_ImportModule("ml_dtypes");
  if (!module) {
    PyErr_Clear();
    return false;
  }
  for (Extension& e : extensions) {
    PyObject* type = PyObject_GetAttrString(module, e.name);
    PyArray_Descr* d = nullptr;
    if (type && PyArray_DescrConverter(type, &d)) e.number = d->type_num;
    Py_XDECREF(reinterpret_cast<PyObject*>(d));
    Py_XDECREF(type);
    PyErr_Clear();
  }
  Py_DECREF(module);
  return learned = true;
}

DType from_number(int number) {
  switch (number) {
    case NPY_FLOAT: return DType::f32;
    case NPY_DOUBLE: return DType::f64;
    case NPY_HALF: return DType::f16;
    case NPY_BOOL: return DType::boolean;
    case NPY_BYTE: return DType::i8;
    case NPY_UBYTE: return DType::u8;
    case NPY_SHORT: return DType::i16;
    case NPY_USHORT: return DType::u16;
    case NPY_INT: return DType::i32;
    case NPY_UINT: return DType::u32;
    case NPY_LONG: return sizeof(long) == 8 ? DType::i64 : DType::i32;
    case NPY_ULONG: return sizeof(long) == 8 ? DType::u64 : DType::u32;
    case NPY_LONGLONG: return DType::i64;
    case NPY_ULONGLONG: return DType::u64;
    case NPY_CFLOAT: return DType::c64;
    case NPY_CDOUBLE: return DType::c128;
    case NPY_OBJECT:
    case NPY_STRING:
    case NPY_UNICODE: return DType::string;
    default: break;
  }
  if (number >= NPY_USERDEF && learn_extensions())
    for (const Extension& e : extensions)
      if (e.number == number) return e.dtype;
  return DType::undefined;
}

bool packed(DType t) { return t != DType::string && bits(t) < 8; }

Shape shape_of(PyArrayObject* a) {
  const npy_intp* dims = PyArray_DIMS(a);
  return Shape(dims, dims + PyArray_NDIM(a));
}

std::string text_of(PyObject* o) {
  if (PyBytes_Check(o)) return {PyBytes_AsString(o), size_t(PyBytes_Size(o))};
  nb::object text = nb::steal(PyUnicode_Check(o) ? Py_NewRef(o) : PyObject_Str(o));
  if (!text.is_valid()) throw nb::python_error();
  Py_ssize_t size = 0;
  if (const char* s = PyUnicode_AsUTF8AndSize(text.ptr(), &size)) return {s, size_t(size)};
  // Lone surrogates stand for bytes that were no UTF-8 (see string_to_python).
  PyErr_Clear();
  nb::object raw = nb::steal(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "surrogateescape"));
  if (!raw.is_valid()) throw nb::python_error();
  return {PyBytes_AsString(raw.ptr()), size_t(PyBytes_Size(raw.ptr()))};
}

std::string class_name(nb::handle o) { return text_of(nb::object(o.type().attr("__name__")).ptr()); }

nb::object string_to_python(const std::string& s) {
  nb::object o = nb::steal(PyUnicode_DecodeUTF8(s.data(), Py_ssize_t(s.size()), "surrogateescape"));
  if (!o.is_valid()) throw nb::python_error();
  return o;
}

Tensor string_tensor(PyArrayObject* a) {
  nb::object objects = nb::steal(PyArray_FromArray(a, PyArray_DescrFromType(NPY_OBJECT), NPY_ARRAY_CARRAY_RO));
  if (!objects.is_valid()) throw nb::python_error();
  Tensor t = take(Tensor::make(DType::string, shape_of(a)));
  auto* items = static_cast<PyObject**>(PyArray_DATA(array_of(objects.ptr())));
  for (std::string& s : t.as_mutable<std::string>()) s = *items ? text_of(*items++) : (++items, std::string());
  return t;
}

// One byte an element → packed, first element in the low bits.
Tensor pack(PyArrayObject* a, DType dtype) {
  Tensor t = take(Tensor::make(dtype, shape_of(a), true));
  auto* from = static_cast<const uint8_t*>(PyArray_DATA(a));
  auto* to = static_cast<uint8_t*>(t.mutable_data());
  const int width = bits(dtype), per = 8 / width;
  const unsigned mask = (1u << width) - 1;
  for (int64_t i = 0; i < t.count(); ++i) to[i / per] |= uint8_t((from[i] & mask) << (i % per * width));
  return t;
}

void unpack(const Tensor& t, uint8_t* to) {
  auto* from = static_cast<const uint8_t*>(t.data());
  const int width = bits(t.dtype()), per = 8 / width;
  const unsigned mask = (1u << width) - 1, sign = is_signed_integer(t.dtype()) ? 1u << (width - 1) : 0;
  for (int64_t i = 0; i < t.count(); ++i) {
    unsigned v = (unsigned(from[i / per]) >> (i % per * width)) & mask;
    to[i] = uint8_t(v & sign ? v | ~mask : v);
  }
}

nb::object new_array(DType dtype, const Shape& shape, void* data) {
  static_assert(sizeof(npy_intp) == sizeof(int64_t));
  auto* descr = reinterpret_cast<PyArray_Descr*>(descriptor(dtype).release().ptr());
  PyObject* a =
      PyArray_NewFromDescr(&PyArray_Type, descr, int(shape.size()), reinterpret_cast<const npy_intp*>(shape.data()),
                           nullptr, data, data ? NPY_ARRAY_CARRAY : 0, nullptr);
  if (!a) throw nb::python_error();
  return nb::steal(a);
}

void drop_tensor(PyObject* capsule) { delete static_cast<Tensor*>(PyCapsule_GetPointer(capsule, nullptr)); }

nb::object array_over(Tensor tensor) {
  nb::object a = new_array(tensor.dtype(), tensor.shape(), tensor.mutable_data());
  auto* owner = new Tensor(std::move(tensor));
  PyObject* capsule = PyCapsule_New(owner, nullptr, drop_tensor);
  if (!capsule) {
    delete owner;
    throw nb::python_error();
  }
  if (PyArray_SetBaseObject(array_of(a.ptr()), capsule) < 0) throw nb::python_error();
  return a;
}

nb::object copied_array(const Tensor& t) {
  nb::object a = new_array(t.dtype(), t.shape(), nullptr);
  void* to = PyArray_DATA(array_of(a.ptr()));
  if (t.dtype() == DType::string) {
    auto* items = static_cast<PyObject**>(to);
    for (const std::string& s : t.as<std::string>()) {
      Py_XDECREF(*items);  // a fresh array of objects holds None or null
      *items++ = string_to_python(s).release().ptr();
    }
  } else if (packed(t.dtype())) {
    unpack(t, static_cast<uint8_t*>(to));
  } else if (t.bytes()) {
    std::memcpy(to, t.data(), size_t(t.bytes()));
  }
  return a;
}

// NumPy's notion of a safe enough conversion of plain Python numbers: never from a float to an integer.
nb::object array_of_plain(nb::handle o, DType wanted) {
  nb::object natural = nb::steal(PyArray_FromAny(o.ptr(), nullptr, 0, 0, NPY_ARRAY_CARRAY_RO, nullptr));
  if (!natural.is_valid()) throw nb::python_error();
  if (wanted == DType::undefined || wanted == DType::string) return natural;
  nb::object to = descriptor(wanted);
  auto* from = array_of(natural.ptr());
  if (PyArray_SIZE(from) != 0 &&
      (from_number(PyArray_TYPE(from)) == DType::string ||
       !PyArray_CanCastTypeTo(PyArray_DESCR(from), reinterpret_cast<PyArray_Descr*>(to.ptr()), NPY_SAME_KIND_CASTING)))
    return natural;
  auto* descr = reinterpret_cast<PyArray_Descr*>(to.release().ptr());
  nb::object a = nb::steal(PyArray_FromAny(o.ptr(), descr, 0, 0, NPY_ARRAY_CARRAY_RO, nullptr));
  if (!a.is_valid()) throw nb::python_error();
  return a;
}

DType from_dlpack(nb::dlpack::dtype t) {
  if (t.lanes != 1) return DType::undefined;
  auto pick = [&](std::initializer_list<std::pair<int, DType>> rows) {
    for (auto [bits, dtype] : rows)
      if (bits == t.bits) return dtype;
    return DType::undefined;
  };
  switch (nb::dlpack::dtype_code(t.code)) {
    case nb::dlpack::dtype_code::Int:
      return pick({{8, DType::i8}, {16, DType::i16}, {32, DType::i32}, {64, DType::i64}});
    case nb::dlpack::dtype_code::UInt:
      return pick({{8, DType::u8}, {16, DType::u16}, {32, DType::u32}, {64, DType::u64}});
    case nb::dlpack::dtype_code::Float: return pick({{16, DType::f16}, {32, DType::f32}, {64, DType::f64}});
    case nb::dlpack::dtype_code::Bfloat: return pick({{16, DType::bf16}});
    case nb::dlpack::dtype_code::Complex: return pick({{64, DType::c64}, {128, DType::c128}});
    case nb::dlpack::dtype_code::Bool: return pick({{8, DType::boolean}});
    default: return DType::undefined;
  }
}

Data from_array(nb::object object, const Port& port, Keep& keep) {
  auto* a = array_of(object.ptr());
  DType dtype = from_number(PyArray_TYPE(a));
  if (dtype == DType::undefined)
    fail(Code::invalid_argument, "Input \"" + port.name + "\" is an array of " +
                                     text_of(nb::object(object.attr("dtype")).ptr()) +
                                     ", a type that models do not have.");
  if (dtype == DType::string) return string_tensor(a);
  if (!PyArray_ISCARRAY_RO(a)) {
    PyObject* c = PyArray_FromArray(a, PyArray_DescrNewByteorder(PyArray_DESCR(a), NPY_NATIVE), NPY_ARRAY_CARRAY_RO);
    if (!c) throw nb::python_error();
    object = nb::steal(c);
    a = array_of(c);
  }
  if (packed(dtype)) return pack(a, dtype);
  Tensor t = Tensor::view(dtype, shape_of(a), PyArray_DATA(a));
  keep.push_back(std::move(object));
  return t;
}

Data from_dlpack_tensor(nb::handle object, const Port& port, Keep& keep) {
  using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
  Array a;
  if (!nb::try_cast<Array>(object, a))
    fail(Code::invalid_argument, "Input \"" + port.name + "\" is a " + class_name(object) +
                                     " whose memory cannot be read here through DLPack; move it to the CPU and "
                                     "detach it from any gradient first.");
  DType dtype = from_dlpack(a.dtype());
  if (dtype == DType::undefined)
    fail(Code::invalid_argument, "Input \"" + port.name + "\" has a DLPack type that models do not have: code " +
                                     std::to_string(int(a.dtype().code)) + ", " + std::to_string(a.dtype().bits) +
                                     " bits, " + std::to_string(a.dtype().lanes) + " lanes.");
  Shape shape(a.ndim());
  for (size_t i = 0; i < shape.size(); ++i) shape[i] = int64_t(a.shape(i));
  // An owner of its own, for the tensor's memory is not `object`'s if nanobind had to copy it.
  keep.push_back(nb::capsule(new Array(a), [](void* p) noexcept { delete static_cast<Array*>(p); }));
  return Tensor::view(dtype, std::move(shape), a.data());
}

Tensor map_column(nb::handle items, DType dtype) {
  Port plain{.dtype = dtype};
  Keep keep;
  Data d = to_data(items, plain, keep);
  return take(d.tensor().clone());
}

// "map(i64, f32[])" → (i64, f32); a sequence's element: "seq(f32[N])" → "f32[N]".
std::pair<DType, DType> map_types(std::string_view type) {
  auto comma = type.find(", ");
  if (!type.starts_with("map(") || comma == type.npos) return {DType::i64, DType::f32};
  auto value = type.substr(comma + 2);
  value = value.substr(0, value.find_first_of("[)"));
  return {dtype_from_name(type.substr(4, comma - 4)).value_or(DType::i64), dtype_from_name(value).value_or(DType::f32)};
}

Port element_port(const Port& port) {
  std::string_view type = port.type;
  while (type.starts_with("optional(")) type = type.substr(9, type.size() - 10);
  if (type.starts_with("seq(")) type = type.substr(4, type.size() - 5);
  Port e;
  e.name = port.name;
  e.type = type;
  e.is_tensor = !(type.starts_with("seq(") || type.starts_with("map("));
  if (e.is_tensor) e.dtype = dtype_from_name(type.substr(0, type.find('['))).value_or(DType::undefined);
  return e;
}

}  // namespace

bool start_numpy() { return PyArray_ImportNumPyAPI() >= 0; }

DType dtype_of_array(PyObject* array) {
  return PyArray_Check(array) ? from_number(PyArray_TYPE(array_of(array))) : DType::undefined;
}

nb::object descriptor(DType dtype) {
  int number = type_number(dtype);
  if (number < 0 && learn_extensions())
    for (const Extension& e : extensions)
      if (e.dtype == dtype) number = e.number;
  if (number < 0)
    fail(Code::failed_precondition, std::string("NumPy has no type for ") + name(dtype) +
                                        "; install the package ml_dtypes (pip install ml_dtypes) for it.");
  return nb::steal(reinterpret_cast<PyObject*>(PyArray_DescrFromType(number)));
}

bool readable(PyObject* object, DType dtype) {
  if (!PyArray_Check(object)) return false;
  auto* a = array_of(object);
  return PyArray_ISCARRAY_RO(a) && from_number(PyArray_TYPE(a)) == dtype && dtype != DType::string && !packed(dtype);
}

Tensor view_array(PyObject* array, DType dtype) {
  return Tensor::view(dtype, shape_of(array_of(array)), PyArray_DATA(array_of(array)));
}

Data to_data(nb::handle object, const Port& port, Keep& keep) {
  if (PyArray_Check(object.ptr()) && (port.is_tensor || port.optional))
    return from_array(nb::borrow(object), port, keep);
  if (object.is_none()) return {};
  if (Value* v = nullptr; nb::try_cast<Value*>(object, v)) return v->data;
  Port inner = port.is_tensor ? port : element_port(port);
  bool sequence = !port.is_tensor && port.type.find("seq(") != std::string::npos;
  if (sequence) {
    if (!PyList_Check(object.ptr()) && !PyTuple_Check(object.ptr()))
      fail(Code::invalid_argument, "Input \"" + port.name + "\" is a sequence (" + port.type +
                                       "): give a list or a tuple, not a " + class_name(object) + ".");
    auto items = std::make_shared<Sequence>();
    for (nb::handle item : object) items->push_back(to_data(item, inner, keep));
    return items;
  }
  if (PyDict_Check(object.ptr())) {
    if (inner.is_tensor) fail(Code::invalid_argument, "Input \"" + port.name + "\" is no map: give an array.");
    auto [key, value] = map_types(inner.type);
    nb::dict d = nb::borrow<nb::dict>(object);
    return std::make_shared<MapData>(MapData{map_column(d.keys(), key), map_column(d.values(), value)});
  }
  if (nb::hasattr(object, "__dlpack__") && !PyArray_CheckScalar(object.ptr()))
    return from_dlpack_tensor(object, port, keep);
  bool typed = PyArray_CheckScalar(object.ptr()) || nb::hasattr(object, "__array__") ||
               nb::hasattr(object, "__array_interface__") || PyMemoryView_Check(object.ptr());
  nb::object a = array_of_plain(object, typed ? DType::undefined : inner.dtype);
  return from_array(std::move(a), port, keep);
}

namespace {
void own(Data& d, const std::shared_ptr<const void>& owner) {
  if (d.is_tensor() && d.tensor().dtype() != DType::undefined && !d.tensor().owner()) {
    const Tensor& t = d.tensor();
    d = Tensor::view(t.dtype(), t.shape(), t.data(), owner);
  } else if (d.is_sequence()) {
    for (Data& item : const_cast<Sequence&>(d.sequence())) own(item, owner);
  }
}
}  // namespace

Data to_owned_data(nb::handle object, const Port& port) {
  auto* keep = new Keep;
  std::shared_ptr<const void> owner(keep, [](const void* p) {
    // After the interpreter's end there is nobody left to release to.
    if (!Py_IsInitialized()) return;
    nb::gil_scoped_acquire gil;
    delete static_cast<const Keep*>(p);
  });
  Data d = to_data(object, port, *keep);
  own(d, owner);
  return d;
}

nb::object array_view(const Tensor& tensor) {
  if (tensor.dtype() == DType::string || packed(tensor.dtype()))
    fail(Code::unimplemented, std::string("A tensor of ") + name(tensor.dtype()) +
                                  " has no memory that NumPy can look at; take a copy with numpy().");
  return array_over(tensor);
}

nb::object to_python(Data data) {
  if (data.is_tensor()) {
    Tensor& t = std::get<Tensor>(data);
    if (!t) return nb::none();
    bool ours = t.owner() && t.owner().use_count() == 1 && t.dtype() != DType::string && !packed(t.dtype());
    return ours && t.count() ? array_over(std::move(t)) : copied_array(t);
  }
  if (data.is_sequence()) {
    // Elements of a sequence that nobody else holds are taken over one by one.
    auto& shared = std::get<std::shared_ptr<Sequence>>(data);
    nb::list list;
    for (Data& item : *shared) list.append(shared.use_count() == 1 ? to_python(std::move(item)) : to_python(item));
    return list;
  }
  if (data.is_map()) {
    nb::object keys = copied_array(data.map().keys).attr("tolist")();
    nb::object values = copied_array(data.map().values).attr("tolist")();
    nb::dict dict;
    for (size_t i = 0, n = nb::len(keys); i < n; ++i) dict[keys[i]] = values[i];
    return dict;
  }
  return nb::none();
}

}  // namespace ai_vmm::python
