// Runs a model through the C interface of OpenVINO or ONNX Runtime and nothing else, for bench/hosting.py: what the
// engine does when we do not host it. Prints one JSON object.
//
//   direct ENGINE MODEL INPUTS.npz THREADS WARMUP REPEAT
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "backends/onnxruntime/api.hpp"
#include "backends/openvino/api.hpp"
#include "base/npy.hpp"
#include "base/python_packages.hpp"
#include "import/onnx.hpp"

namespace {

using namespace ai_vmm;
using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const std::string& why) {
  std::fprintf(stderr, "direct: %s\n", why.c_str());
  std::exit(1);
}
template <class T>
T take(Result<T> r) {
  if (!r.ok()) fail(r.status().message());
  return *std::move(r);
}

struct Model {
  std::string bytes;
  std::vector<std::string> inputs, outputs;
  std::vector<Tensor> feeds;  // in the order of the inputs
  std::string threads;
};

std::vector<std::string> library(const char* variable, const char* folder, const char* prefix) {
  if (const char* path = std::getenv(variable)) return {path};
  auto found = find_in_python_packages(folder, prefix);
  if (found.empty()) fail(std::string(variable) + " names no library and no Python installation has one.");
  return found;
}

// Outputs are left to the library's own memory, as its users do.
std::function<void()> onnx_runtime(const Model& m) {
  using namespace onnxruntime;
  struct Ort : Library {
    Symbol<const OrtApiBase*()> OrtGetApiBase{this, "OrtGetApiBase"};
  };
  static Ort ort;
  static Api api;
  if (Status s = ort.load(library("AI_VMM_ONNXRUNTIME_LIBRARY", "onnxruntime/capi", "libonnxruntime.so")); !s.ok())
    fail(s.message());
  api.bind(ort.OrtGetApiBase()->GetApi(kOldestApi), false);
  static auto check = [](OrtStatus* s) {
    if (s) fail(api.GetErrorMessage(s));
  };
  OrtEnv* env = nullptr;
  OrtMemoryInfo* memory = nullptr;
  OrtSessionOptions* options = nullptr;
  static OrtSession* session = nullptr;
  check(api.CreateEnv(kFatalOnly, "direct", &env));
  check(api.CreateCpuMemoryInfo(kPlainAllocator, kDefaultMemory, &memory));
  check(api.CreateSessionOptions(&options));
  check(api.SetIntraOpNumThreads(options, std::atoi(m.threads.c_str())));
  check(api.CreateSessionFromArray(env, m.bytes.data(), m.bytes.size(), options, &session));
  static std::vector<const char*> in, out;
  static std::vector<const OrtValue*> values;
  static std::vector<OrtValue*> results;
  for (size_t i = 0; i < m.inputs.size(); ++i) {
    const Tensor& t = m.feeds[i];
    OrtValue* v = nullptr;
    check(api.CreateTensorWithDataAsOrtValue(memory, const_cast<void*>(t.data()), size_t(t.bytes()), t.shape().data(),
                                             t.shape().size(), int(t.dtype()), &v));
    in.push_back(m.inputs[i].c_str());
    values.push_back(v);
  }
  for (const std::string& name : m.outputs) out.push_back(name.c_str());
  return [] {
    results.assign(out.size(), nullptr);
    check(api.Run(session, nullptr, in.data(), values.data(), in.size(), out.data(), out.size(), results.data()));
    for (OrtValue* v : results) api.ReleaseValue(v);
  };
}

std::function<void()> open_vino(const Model& m) {
  using namespace openvino;
  static Api api;
  if (Status s = api.load(library("AI_VMM_OPENVINO_LIBRARY", "openvino/libs", "libopenvino_c.so")); !s.ok())
    fail(s.message());
  static auto check = [](int status) {
    if (status) fail(api.ov_get_last_err_msg());
  };
  ov_core* core = nullptr;
  ov_model* model = nullptr;
  ov_compiled_model* compiled = nullptr;
  static ov_infer_request* request = nullptr;
  check(api.ov_core_create(&core));
  check(api.ov_core_read_model_from_memory_buffer(core, m.bytes.data(), m.bytes.size(), nullptr, &model));
  check(api.ov_core_compile_model(core, model, "CPU", 6, &compiled, "PERFORMANCE_HINT", "LATENCY",
                                  "INFERENCE_NUM_THREADS", m.threads.c_str(), "INFERENCE_PRECISION_HINT", "f32"));
  check(api.ov_compiled_model_create_infer_request(compiled, &request));
  for (size_t i = 0; i < m.inputs.size(); ++i) {
    ov_const_port* port = nullptr;
    ov_element_type type{};
    ov_tensor* tensor = nullptr;
    Shape shape = m.feeds[i].shape();
    check(api.ov_compiled_model_input_by_name(compiled, m.inputs[i].c_str(), &port));
    check(api.ov_port_get_element_type(port, &type));
    check(api.ov_tensor_create_from_host_ptr(type, {int64_t(shape.size()), shape.data()},
                                             const_cast<void*>(m.feeds[i].data()), &tensor));
    check(api.ov_infer_request_set_tensor_by_const_port(request, port, tensor));
  }
  return [] { check(api.ov_infer_request_infer(request)); };
}

double us(Clock::duration d) { return std::chrono::duration<double, std::micro>(d).count(); }

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) fail("usage: direct onnxruntime|openvino MODEL INPUTS.npz THREADS WARMUP REPEAT");
  Model m;
  m.threads = argv[4];
  auto arrays = take(read_npz(argv[3]));
  {
    Graph graph = take(import_onnx(argv[2]));
    for (ValueId v : graph.inputs)
      for (auto& [name, tensor] : arrays)
        if (name == graph.value(v).name) {
          m.inputs.push_back(name);
          m.feeds.push_back(take(fit_dtype(tensor, graph.value(v).type.dtype)));
        }
    for (ValueId v : graph.outputs) m.outputs.push_back(graph.value(v).name);
  }
  auto start = Clock::now();
  m.bytes = take(read_file(argv[2]));
  auto run = std::string(argv[1]) == "openvino" ? open_vino(m) : onnx_runtime(m);
  double load = us(Clock::now() - start);
  for (int i = 0; i < std::atoi(argv[5]); ++i) run();
  std::vector<double> times;
  for (int i = 0; i < std::atoi(argv[6]); ++i) {
    auto begin = Clock::now();
    run();
    times.push_back(us(Clock::now() - begin));
  }
  std::sort(times.begin(), times.end());
  std::printf("{\"median_us\": %.3f, \"min_us\": %.3f, \"repeat\": %zu, \"load_us\": %.1f}\n", times[times.size() / 2],
              times[0], times.size(), load);
}
