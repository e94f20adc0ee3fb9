// CLBlast's single-precision product on the first OpenCL device, tuned for the size first; prints one line a size:
// size, least seconds, median seconds, GFLOP/s of the median.
//
//   clblast FRACTION REPEAT SIZE...     FRACTION: 1/share of the tuner's search space that is tried
#include <clblast.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <unordered_map>
#include <vector>

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const double fraction = std::atof(argv[1]);
  const int repeat = std::atoi(argv[2]);
  cl_platform_id platform;
  cl_device_id device;
  if (clGetPlatformIDs(1, &platform, nullptr) || clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, nullptr))
    return 1;
  cl_int code;
  cl_context context = clCreateContext(nullptr, 1, &device, nullptr, nullptr, &code);
  cl_command_queue queue = clCreateCommandQueue(context, device, CL_QUEUE_PROFILING_ENABLE, &code);
  for (int i = 3; i < argc; ++i) {
    const size_t n = size_t(std::atol(argv[i]));
    std::unordered_map<std::string, size_t> best;
    // The tuner prints to stdout; what counts comes after "result".
    auto tuned = clblast::TuneXgemm<float>(&queue, n, n, n, fraction, best);
    if (tuned == clblast::StatusCode::kSuccess)
      clblast::OverrideParameters(device, "Xgemm", clblast::Precision::kSingle, best);
    std::vector<float> host(n * n);
    for (size_t k = 0; k < host.size(); ++k) host[k] = float(k % 17) / 17 - 0.5f;
    cl_mem m[3];
    for (cl_mem& b : m)
      b = clCreateBuffer(context, CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, n * n * 4, host.data(), &code);
    std::vector<double> times;
    for (int r = 0; r < repeat + 2; ++r) {
      auto start = std::chrono::steady_clock::now();
      auto s = clblast::Gemm<float>(clblast::Layout::kRowMajor, clblast::Transpose::kNo, clblast::Transpose::kNo, n, n,
                                    n, 1.0f, m[0], 0, n, m[1], 0, n, 0.0f, m[2], 0, n, &queue);
      if (s != clblast::StatusCode::kSuccess) return 1;
      clFinish(queue);
      if (r >= 2) times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    std::sort(times.begin(), times.end());
    const double median = times[times.size() / 2];
    std::printf("\nresult %zu %.6f %.6f %.1f %s\n", n, times[0], median,
                2e-9 * double(n) * double(n) * double(n) / median,
                tuned == clblast::StatusCode::kSuccess ? "tuned" : "untuned");
    for (cl_mem b : m) clReleaseMemObject(b);
  }
  return 0;
}
