// CLBlast's single-precision product of square matrices on the first OpenCL device.
//
//   clblast tune SECONDS SIZE               prints the fastest parameters found, "kernel KEY=VALUE …", a line a kernel
//   clblast run FILE REPEAT SIZE…           with the parameters in FILE, as `tune` prints them; one line a size:
//                                           "result SIZE least-seconds median-seconds"
//
// Parameters are found by descent along one parameter at a time, from CLBlast's own for the device, over more values than
// its tuner tries; each is judged by whole products. Products up to some size are made by another kernel (XgemmDirect);
// which is faster is a parameter too.
#define CL_TARGET_OPENCL_VERSION 120
#include <clblast.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

using Parameters = std::unordered_map<std::string, size_t>;
using Clock = std::chrono::steady_clock;

static double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

static cl_device_id device;
static cl_context context;
static cl_command_queue queue;

struct Product {
  explicit Product(size_t size) : n(size) {
    std::vector<float> host(n * n);
    for (size_t k = 0; k < host.size(); ++k) host[k] = float(k % 17) / 17 - 0.5f;
    cl_int code;
    for (cl_mem& b : m)
      b = clCreateBuffer(context, CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, n * n * 4, host.data(), &code);
  }
  ~Product() {
    for (cl_mem b : m) clReleaseMemObject(b);
  }
  // Seconds of one product; endless where it does not run.
  double run() {
    auto start = Clock::now();
    auto s = clblast::Gemm<float>(clblast::Layout::kRowMajor, clblast::Transpose::kNo, clblast::Transpose::kNo, n, n, n,
                                  1.0f, m[0], 0, n, m[1], 0, n, 0.0f, m[2], 0, n, &queue);
    if (s != clblast::StatusCode::kSuccess) return 1e9;
    clFinish(queue);
    return since(start);
  }
  double least(double seconds, int most) {
    if (run() >= 1e9) return 1e9;
    double best = 1e9;
    auto start = Clock::now();
    for (int k = 0; k < most && (k < 3 || since(start) < seconds); ++k) best = std::min(best, run());
    return best;
  }
  size_t n;
  cl_mem m[3];
};

static bool use_parameters(const std::string& kernel, const Parameters& p) {
  return clblast::OverrideParameters(device, kernel, clblast::Precision::kSingle, p) == clblast::StatusCode::kSuccess;
}

struct Axis {
  const char* name;
  std::vector<size_t> values;
};
struct Space {
  const char* kernel;
  size_t min_indirect;  // what makes CLBlast take this kernel
  std::vector<Axis> axes;
  bool (*valid)(Parameters&);
};

// Elements of the product that one work item may hold: compilers unroll over them.
static constexpr size_t kMostPerItem = 128;
static bool whole(size_t a, size_t b) { return b && a % b == 0; }
static const Space kSpaces[] = {
    {"Xgemm",
     0,
     {{"MWG", {8, 16, 32, 64, 128}},
      {"NWG", {8, 16, 32, 64, 128}},
      {"MDIMC", {1, 2, 4, 8, 16, 32}},
      {"NDIMC", {1, 2, 4, 8, 16, 32}},
      {"VWM", {1, 2, 4, 8, 16}},
      {"VWN", {1, 2, 4, 8, 16}},
      {"KWG", {16, 32, 64}},
      {"KWI", {2, 8}},
      {"SA", {0, 1}},
      {"SB", {0, 1}},
      {"STRM", {0, 1}},
      {"STRN", {0, 1}},
      {"GEMMK", {0, 1}},
      {"KREG", {1, 4}}},
     [](Parameters& p) {
       p["MDIMA"] = p["MDIMC"];
       p["NDIMB"] = p["NDIMC"];
       if (p["GEMMK"] == 1) p["KWG"] = p["KWI"] = 1, p["SA"] = p["SB"] = 0;
       if (p["GEMMK"] == 0) p["KREG"] = 1;
       return whole(p["MWG"], p["MDIMC"] * p["VWM"]) && whole(p["NWG"], p["NDIMC"] * p["VWN"]) &&
              (p["GEMMK"] == 1 || (whole(p["KWG"], p["KWI"]) && whole(p["KWG"], p["NDIMC"]) && whole(p["KWG"], p["MDIMC"]))) &&
              p["MWG"] / p["MDIMC"] * (p["NWG"] / p["NDIMC"]) <= kMostPerItem;
     }},
    {"XgemmDirect",
     size_t(1) << 20,
     {{"WGD", {8, 16, 32, 64}},
      {"MDIMCD", {1, 2, 4, 8, 16, 32}},
      {"NDIMCD", {1, 2, 4, 8, 16, 32}},
      {"VWMD", {1, 2, 4, 8}},
      {"VWND", {1, 2, 4, 8}},
      {"KWID", {2, 8, 16}},
      {"PADA", {0, 1}},
      {"PADB", {0, 1}}},
     [](Parameters& p) {
       p["MDIMAD"] = p["MDIMCD"];
       p["NDIMBD"] = p["NDIMCD"];
       return whole(p["WGD"], p["MDIMCD"] * p["VWMD"]) && whole(p["WGD"], p["NDIMCD"] * p["VWND"]) &&
              whole(p["WGD"], p["KWID"]) && p["WGD"] / p["MDIMCD"] * (p["WGD"] / p["NDIMCD"]) <= kMostPerItem;
     }},
};

static std::string text_of(const Parameters& p) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : p) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  std::string s;
  for (const std::string& k : keys) s += " " + k + "=" + std::to_string(p.at(k));
  return s;
}

static void tune(double seconds, size_t size) {
  for (const Space& space : kSpaces) {
    // The direct kernel is for small products.
    Product product(space.min_indirect ? std::min<size_t>(size, 256) : size);
    use_parameters("GemmRoutine", {{"XGEMM_MIN_INDIRECT_SIZE", space.min_indirect}});
    Parameters best;
    clblast::RetrieveParameters(device, space.kernel, clblast::Precision::kSingle, best);
    std::unordered_map<std::string, double> seen;
    auto judge = [&](Parameters& p) {
      if (!space.valid(p)) return 1e9;
      auto [it, fresh] = seen.emplace(text_of(p), 1e9);
      if (fresh && use_parameters(space.kernel, p)) it->second = product.least(0.3, 5);
      return it->second;
    };
    use_parameters(space.kernel, best);
    double least = product.least(0.3, 5);
    seen[text_of(best)] = least;
    std::fprintf(stderr, "%s: %.4f s with CLBlast's own%s\n", space.kernel, least, text_of(best).c_str());
    auto start = Clock::now();
    bool better = true;
    auto consider = [&](Parameters p) {
      if (since(start) > seconds / 2) return;
      double t = judge(p);
      if (t < least * 0.98) {
        least = t;
        best = p;
        better = true;
        std::fprintf(stderr, "%s: %.4f s with%s\n", space.kernel, t, text_of(p).c_str());
      }
    };
    // Two parameters that limit each other are moved together.
    while (better && since(start) < seconds / 2) {
      better = false;
      for (const Axis& a : space.axes)
        for (size_t v : a.values) {
          Parameters p = best;
          p[a.name] = v;
          consider(p);
          for (const Axis& b : space.axes)
            if (std::strncmp(a.name, b.name, 1) == 0 && &a < &b && !space.valid(p))
              for (size_t w : b.values) {
                Parameters both = p;
                both[b.name] = w;
                consider(both);
              }
        }
    }
    use_parameters(space.kernel, best);
    std::printf("%s%s\n", space.kernel, text_of(best).c_str());
  }
}

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  cl_platform_id platform;
  if (clGetPlatformIDs(1, &platform, nullptr) || clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, nullptr))
    return 1;
  cl_int code;
  context = clCreateContext(nullptr, 1, &device, nullptr, nullptr, &code);
  queue = clCreateCommandQueue(context, device, 0, &code);
  if (std::string(argv[1]) == "tune") {
    tune(std::atof(argv[2]), size_t(std::atol(argv[3])));
    return 0;
  }
  std::ifstream file(argv[2]);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string kernel, word;
    Parameters p;
    words >> kernel;
    while (words >> word) p[word.substr(0, word.find('='))] = size_t(std::atol(word.c_str() + word.find('=') + 1));
    if (!use_parameters(kernel, p)) return 1;
  }
  const int repeat = std::atoi(argv[3]);
  for (int i = 4; i < argc; ++i) {
    Product product(size_t(std::atol(argv[i])));
    // Whichever of the two kernels is the faster one.
    double least = 1e9;
    size_t chosen = 0;
    for (const Space& space : kSpaces) {
      use_parameters("GemmRoutine", {{"XGEMM_MIN_INDIRECT_SIZE", space.min_indirect}});
      if (space.min_indirect && product.n > 512) continue;
      double t = product.least(0.2, 20);
      if (t < least) least = t, chosen = space.min_indirect;
    }
    use_parameters("GemmRoutine", {{"XGEMM_MIN_INDIRECT_SIZE", chosen}});
    product.run();
    std::vector<double> times;
    for (int r = 0; r < repeat; ++r) times.push_back(product.run());
    std::sort(times.begin(), times.end());
    std::printf("result %zu %.7f %.7f\n", product.n, times[0], times[times.size() / 2]);
    std::fflush(stdout);
  }
  return 0;
}
