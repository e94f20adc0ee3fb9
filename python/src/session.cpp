#include "session.hpp"

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <algorithm>

#include "model.hpp"

namespace ai_vmm::python {

namespace {

// Calls that are as the model declares them run here; everything else goes to the Python side, which knows what
// ONNX Runtime does about each irregularity: `_irregular_run(output_names, input_feed, run_options)`, and
// `_raise(code, message)` for runs that fail.
struct Session {
  std::shared_ptr<Model> model;
};

struct RunOptions {
  int log_severity_level = -1, log_verbosity_level = 0;
  std::string logid;
  bool only_execute_path_to_fetches = false;
  Cancel cancel;
  nb::dict entries;
};

bool regular(const Session& s, PyObject* feed, std::vector<Data>& in, Keep& keep) {
  const auto& ports = s.model->deployment.inputs();
  if (!PyDict_CheckExact(feed) || size_t(PyDict_Size(feed)) != ports.size()) return false;
  for (size_t i = 0; i < ports.size(); ++i) {
    const Port& p = ports[i];
    PyObject* o = PyDict_GetItemWithError(feed, s.model->input_names[i].ptr());
    if (!o || !p.is_tensor || !readable(o, p.dtype)) return false;
    in[i] = view_array(o, p.dtype);
    keep.push_back(nb::borrow(o));  // the dict may change while the GIL is away
    const Tensor& t = in[i].tensor();
    if (p.dims.size() == 1 && p.dims[0] == "...") continue;
    if (t.shape().size() != p.shape.size()) return false;
    for (size_t k = 0; k < p.shape.size(); ++k)
      if (p.shape[k] >= 0 && p.shape[k] != t.dim(int64_t(k))) return false;
  }
  return true;
}

// The indices that `names` ask for; false: something is odd.
bool wanted(const Session& s, PyObject* names, std::vector<size_t>& which) {
  if (!PyList_CheckExact(names) && !PyTuple_CheckExact(names)) return false;
  const auto& known = s.model->output_names;
  const bool is_list = PyList_CheckExact(names);
  const Py_ssize_t n = is_list ? PyList_Size(names) : PyTuple_Size(names);
  for (Py_ssize_t k = 0; k < n; ++k) {
    PyObject* name = is_list ? PyList_GetItem(names, k) : PyTuple_GetItem(names, k);
    if (!PyUnicode_Check(name)) return false;
    size_t i = 0;
    while (i < known.size() && name != known[i].ptr() && PyUnicode_Compare(name, known[i].ptr()) != 0) ++i;
    if (i == known.size()) return false;
    which.push_back(i);
  }
  return true;
}

nb::object run(nb::handle self, nb::handle output_names, nb::handle input_feed, nb::handle run_options) {
  auto& s = nb::cast<Session&>(self);
  auto irregular = [&] {
    PyErr_Clear();
    return nb::object(self.attr("_irregular_run")(output_names, input_feed, run_options));
  };
  if (!s.model) return irregular();
  RunOptions* options = nullptr;
  if (!run_options.is_none() && !nb::try_cast<RunOptions*>(run_options, options)) return irregular();
  std::vector<Data> in(s.model->input_names.size()), out(s.model->output_names.size());
  std::vector<size_t> which;
  Keep keep;
  keep.reserve(in.size());
  if (!regular(s, input_feed.ptr(), in, keep)) return irregular();
  if (!output_names.is_none() && !wanted(s, output_names.ptr(), which)) return irregular();
  std::shared_ptr<Model> model = s.model;  // set_providers in another thread must not pull it away
  Status status = python::run(model->deployment, in, out, options ? &options->cancel : nullptr);
  if (!status.ok()) {
    if (status.code() == Code::invalid_argument && !model->deployment.inputs().empty()) return irregular();
    self.attr("_raise")(int(status.code()), status.message());
    return nb::none();
  }
  nb::list result;
  if (which.empty())
    for (Data& d : out) result.append(to_python(std::move(d)));
  for (size_t k = 0; k < which.size(); ++k) {
    bool again = std::find(which.begin() + long(k) + 1, which.end(), which[k]) != which.end();
    Data& d = out[which[k]];
    result.append(again ? to_python(d) : to_python(std::move(d)));
  }
  return result;
}

}  // namespace

void bind_session(nb::module_& m) {
  nb::class_<RunOptions>(m, "RunOptions", "Configuration of one call of InferenceSession.run.")
      .def(nb::init<>())
      .def_rw("log_severity_level", &RunOptions::log_severity_level, "Accepted; AI VMM's log level is a setting.")
      .def_rw("log_verbosity_level", &RunOptions::log_verbosity_level, "Accepted, see log_severity_level.")
      .def_rw("logid", &RunOptions::logid, "Accepted, see log_severity_level.")
      .def_rw("only_execute_path_to_fetches", &RunOptions::only_execute_path_to_fetches,
              "Accepted: what no output needs is never run anyway.")
      .def_prop_rw(
          "terminate", [](const RunOptions& o) { return o.cancel.set != 0; },
          [](RunOptions& o, bool on) { o.cancel.set = on ? 1 : 0; },
          "Set to True to end the runs that use this object, from any thread.")
      .def_prop_ro(
          "_cancel", [](RunOptions& o) -> Cancel& { return o.cancel; }, nb::rv_policy::reference_internal)
      .def_prop_ro("_entries", [](RunOptions& o) { return o.entries; });

  nb::class_<Session>(m, "Session", nb::dynamic_attr())
      .def(nb::init<>())
      .def(
          "_use", [](Session& s, std::shared_ptr<Model> deployment) { s.model = std::move(deployment); },
          nb::arg("deployment"))
      .def(
          "run",
          [](nb::handle self, nb::handle names, nb::handle feed, nb::handle options) {
            return run(self, names, feed, options);
          },
          nb::arg("output_names").none(), nb::arg("input_feed").none(), nb::arg("run_options").none() = nb::none(),
          nb::sig("def run(self, output_names: collections.abc.Sequence[str] | None, input_feed: dict[str, "
                  "typing.Any], run_options: RunOptions | None = None) -> list[typing.Any]"),
          "Runs the model: the outputs that `output_names` ask for, in that order; None or an empty list means all.");
}

}  // namespace ai_vmm::python
