// The extension module ai_vmm._core: the C++ API with Python types. What is plain Python lives beside it in ai_vmm/.
#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "arrays.hpp"
#include "base/config.hpp"
#include "base/log.hpp"
#include "hal/device.hpp"
#include "model.hpp"
#include "run.hpp"
#include "session.hpp"

namespace ai_vmm::python {

namespace {

void translate(const std::exception_ptr& p, void*) {
  try {
    std::rethrow_exception(p);
  } catch (const Failure& f) {
    nb::object make = nb::module_::import_("ai_vmm._errors").attr("make");
    nb::object e = make(int(f.status->code()), f.status->message());
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(e.ptr())), e.ptr());
  }
}

Precision precision_of(const std::string& name) {
  const std::pair<const char*, Precision> known[] = {{"model", Precision::model},
                                                     {"f32", Precision::f32},
                                                     {"bf16", Precision::bf16},
                                                     {"int8", Precision::int8},
                                                     {"auto", Precision::automatic}};
  for (auto [text, p] : known)
    if (name == text) return p;
  throw Failure(
      Status(Code::invalid_argument, "precision is \"" + name + "\"; it must be model, f32, bf16, int8 or auto."));
}

// The memory of bytes, bytearray or memoryview; text is a path.
struct Bytes {
  explicit Bytes(nb::handle o) {
    if (PyObject_GetBuffer(o.ptr(), &view, PyBUF_SIMPLE) != 0) throw nb::python_error();
  }
  ~Bytes() { PyBuffer_Release(&view); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  Py_buffer view;
};

nb::list describe_devices() {
  std::vector<DeviceDescription> devices;
  {
    nb::gil_scoped_release release;
    devices = list_devices();
  }
  nb::list list;
  for (const DeviceDescription& d : devices) {
    nb::dict row;
    row["backend"] = d.backend;
    row["index"] = d.index;
    row["name"] = d.name;
    row["version"] = d.version;
    row["resource"] = d.resource;
    row["memory_bytes"] = d.memory_bytes > 0 ? nb::cast(d.memory_bytes) : nb::none();
    row["problem"] = d.problem;
    list.append(std::move(row));
  }
  return list;
}

}  // namespace

NB_MODULE(_core, m) {
  if (!start_numpy()) throw nb::python_error();
  remember_main_thread();
  nb::register_exception_translator(translate);

  nb::class_<Port>(m, "Port", "An input or output of a model.")
      .def_ro("name", &Port::name)
      .def_ro("type", &Port::type, "Element type and shape as text: \"f32[N,3,224,224]\", \"seq(i64[...])\".")
      .def_prop_ro(
          "dtype", [](const Port& p) { return p.is_tensor ? descriptor(p.dtype) : nb::none(); },
          nb::sig("def dtype(self) -> numpy.dtype | None"),
          "NumPy type of a tensor's elements; None for sequences, maps and optionals. Strings are objects.")
      .def_prop_ro(
          "dtype_name", [](const Port& p) { return std::string(name(p.dtype)); }, "The same as text: \"f32\".")
      .def_prop_ro(
          "shape",
          [](const Port& p) -> nb::object {
            if (!p.is_tensor || (p.dims.size() == 1 && p.dims[0] == "...")) return nb::none();
            nb::list dims;
            for (size_t i = 0; i < p.shape.size(); ++i)
              dims.append(p.shape[i] >= 0 ? nb::cast(p.shape[i]) : nb::cast(p.dims[i]));
            return nb::tuple(dims);
          },
          nb::sig("def shape(self) -> tuple[int | str, ...] | None"),
          "Sizes: a number, or the expression of one that the inputs decide. None where the rank is open.")
      .def_ro("optional", &Port::optional, "Whether the input may be left out.")
      .def("__repr__", [](const Port& p) { return "Port(" + p.name + ": " + p.type + ")"; });

  nb::class_<Value>(m, "Value", "Data in AI VMM's own memory, of any type, also those that NumPy lacks.")
      .def_static(
          "of", [](nb::handle o, std::optional<int> onnx_type) { return value_of(o, onnx_type); },
          nb::arg("data").none(), nb::arg("onnx_type") = nb::none(),
          "From an array, a list of arrays or a dict; memory of arrays is shared. `onnx_type` reads the array's bits "
          "as "
          "another type of the same width.")
      .def_static("at", &value_at, nb::arg("address"), nb::arg("onnx_type"), nb::arg("shape"),
                  "A view of memory that the caller keeps alive.")
      .def_static("empty", &empty_value, nb::arg("onnx_type"), nb::arg("shape"), "A new tensor of zeros.")
      .def(
          "numpy", [](const Value& v) { return to_python(v.data); }, "A copy as an array, list or dict.")
      .def(
          "view", [](const Value& v) { return array_view(tensor_of(v)); }, "An array over the tensor's own memory.")
      .def_prop_ro("kind", &kind_of, "\"none\", \"tensor\", \"sequence\" or \"map\".")
      .def_prop_ro("onnx_type", [](const Value& v) { return int(tensor_of(v).dtype()); })
      .def_prop_ro("shape", [](const Value& v) { return tensor_of(v).shape(); })
      .def_prop_ro("nbytes", [](const Value& v) { return tensor_of(v).bytes(); })
      .def_prop_ro("address", [](const Value& v) { return uintptr_t(tensor_of(v).data()); })
      .def("items", &items_of, "The elements of a sequence.");

  nb::class_<Cancel>(m, "Cancel", "A flag that ends the runs it was given to, from any thread.")
      .def(nb::init<>())
      .def_prop_rw(
          "set", [](const Cancel& c) { return c.set != 0; }, [](Cancel& c, bool on) { c.set = on ? 1 : 0; });

  nb::class_<Model>(m, "Deployment",
                    "A loaded, warmed model on the device that was chosen for it. May be called from many threads.")
      .def(
          "__init__",
          [](Model* self, nb::object model, const std::string& device, int threads, const std::string& precision,
             int64_t memory_limit, std::optional<bool> strict, std::optional<bool> deterministic, int tune_budget_ms,
             std::map<std::string, std::vector<int64_t>> shapes, uint64_t seed, std::optional<bool> copy_weights,
             std::optional<bool> allow_links, std::vector<std::string> disabled_passes) {
            DeployOptions o;
            o.backend = device == "auto" ? "" : device;
            o.threads = threads;
            o.precision = precision_of(precision);
            o.memory_limit = memory_limit;
            if (strict) o.allow_reference = !*strict;
            o.deterministic = deterministic;
            o.tune_budget_ms = tune_budget_ms;
            o.shapes = std::move(shapes);
            o.seed = seed;
            o.copy_weights = copy_weights;
            o.allow_links = allow_links;
            o.disabled_passes = std::move(disabled_passes);
            VMM vmm;
            auto deployed = [&]() -> Result<Deployment> {
              if (PyUnicode_Check(model.ptr())) {
                auto path = nb::cast<std::string>(model);
                nb::gil_scoped_release release;
                return vmm.deploy(path, o);
              }
              Bytes bytes(model);
              nb::gil_scoped_release release;
              return vmm.deploy({static_cast<const std::byte*>(bytes.view.buf), size_t(bytes.view.len)}, o);
            }();
            new (self) Model(take(std::move(deployed)));
          },
          nb::arg("model"), nb::kw_only(), nb::arg("device") = "auto", nb::arg("threads") = 0,
          nb::arg("precision") = "model", nb::arg("memory_limit") = 0, nb::arg("strict") = nb::none(),
          nb::arg("deterministic") = nb::none(), nb::arg("tune_budget_ms") = 0,
          nb::arg("shapes") = std::map<std::string, std::vector<int64_t>>{}, nb::arg("seed") = 0,
          nb::arg("copy_weights") = nb::none(), nb::arg("allow_links") = nb::none(),
          nb::arg("disabled_passes") = std::vector<std::string>{}, "See ai_vmm.deploy.")
      .def(
          "__call__", &Model::call, nb::arg("inputs"), nb::arg("named"),
          "Runs once. Inputs stand in the model's order, or by name.\n\n"
          "An input is a NumPy array, anything with DLPack or __array__, a number or a list. Arrays must have the\n"
          "element type of the port (see `inputs`); numbers and lists take it. C-contiguous arrays are read in place.\n"
          "The result is the output itself if the model has one, otherwise a dict by name; arrays own their memory.\n"
          "Raises ai_vmm.InvalidArgument for names, types and shapes that do not fit, ai_vmm.OutOfMemory beyond\n"
          "the memory limit, KeyboardInterrupt on Ctrl-C. The GIL is released while the model runs.")
      .def("run", &Model::run, nb::arg("inputs"), nb::arg("out") = nb::none(), nb::arg("cancel") = nb::none(),
           nb::sig("def run(self, inputs: dict[str, typing.Any], out: dict[str, numpy.ndarray] | None = None, cancel: "
                   "Cancel | None = None) -> dict[str, typing.Any]"),
           "Runs once: a dict of inputs by name → a dict of all outputs by name.\n\n"
           "`out` holds arrays to write outputs into, by name: C-contiguous, writable, of the output's exact type and\n"
           "shape; they come back in the result. `cancel` is a flag that ends the run with ai_vmm.Cancelled.\n"
           "Inputs and errors are as for a call.")
      .def("_run_owned", &Model::run_owned, nb::arg("inputs"), nb::arg("cancel"),
           "`run` for threads that outlive their caller's hold on the inputs.")
      .def("_run_values", &Model::run_values, nb::arg("inputs"), nb::arg("out"), nb::arg("cancel").none(),
           "Values by name → a list of all outputs as Values, written into those of `out`.")
      .def_prop_ro(
          "inputs", [](const Model& s) { return s.deployment.inputs(); }, "Ports, in the order of a call.")
      .def_prop_ro("outputs", [](const Model& s) { return s.deployment.outputs(); })
      .def_prop_ro(
          "overridable", [](const Model& s) { return s.deployment.overridable(); },
          "Inputs with a default value, which a run by name may replace.")
      .def_prop_ro(
          "metadata", [](const Model& s) { return s.deployment.metadata(); },
          "Custom properties of the model file, and its standard ones under \"onnx.\".")
      .def_prop_ro(
          "graph_text", [](const Model& s) { return s.deployment.graph_text(); }, "The optimised graph.")
      .def_prop_ro(
          "plan_text", [](const Model& s) { return s.deployment.plan_text(); }, "The steps of a run.")
      .def("_report_json", [](const Model& s) { return s.deployment.report().to_json(); });

  bind_session(m);

  m.def("devices", &describe_devices,
        "The devices of this machine that models can run on: a list of dicts with backend, index, name, version,\n"
        "resource (devices of one resource are the same silicon), memory_bytes (None: unknown) and problem (why it\n"
        "cannot be used; empty when it can).");
  m.attr("version") = AI_VMM_VERSION;
}

}  // namespace ai_vmm::python
