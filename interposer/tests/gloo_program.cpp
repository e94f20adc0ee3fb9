// A program that uses Gloo as PyTorch does, and knows nothing of AIRamp, on a fake of Gloo: gloo_program CASE RANKS
// LEAST MOST. Exit 0 if what the case states holds; errors lie between LEAST and MOST. "bytes" does LEAST sums of 2^20
// elements.

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "fake_gloo.hpp"

namespace {

std::atomic<int> failures = 0;
#define EXPECT(condition, ...)                                     \
  do {                                                             \
    if (!(condition)) {                                            \
      failures++;                                                  \
      std::fprintf(stderr, "line %d: %s: ", __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                           \
      std::fputc('\n', stderr);                                    \
    }                                                              \
  } while (0)

class MapStore : public gloo::rendezvous::Store {
 public:
  explicit MapStore(bool extended) : extended_(extended) {}
  void set(const std::string& key, const std::vector<char>& data) override {
    std::lock_guard guard(lock_);
    values_[key] = data;
  }
  std::vector<char> get(const std::string& key) override {
    std::lock_guard guard(lock_);
    if (!values_.count(key)) throw std::runtime_error("would wait for " + key);
    return values_[key];
  }
  bool has_v2_support() override { return extended_; }
  void append(const std::string& key, const std::vector<char>& data) override {
    if (!extended_) throw std::runtime_error("not supported");
    std::lock_guard guard(lock_);
    values_[key].insert(values_[key].end(), data.begin(), data.end());
  }

 private:
  bool extended_;
  std::mutex lock_;
  std::map<std::string, std::vector<char>> values_;
};

// Of mean 0 and variance 1, roughly normal.
std::vector<float> numbers(std::size_t count, int seed) {
  std::uint64_t state = static_cast<std::uint64_t>(seed) * 0x9e3779b97f4a7c15u + 1;
  std::vector<float> v(count);
  for (float& x : v) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    int sum = 0;
    for (int shift = 32; shift < 64; shift += 8) sum += static_cast<int>(state >> shift & 0xff);
    x = static_cast<float>(sum - 510) / 147.8f + static_cast<float>(state >> 8 & 0xffff) * 1e-7f;
  }
  return v;
}

template <class T>
void add(void* to, const void* a, const void* b, size_t count) {
  for (size_t i = 0; i < count; i++) static_cast<T*>(to)[i] = static_cast<const T*>(a)[i] + static_cast<const T*>(b)[i];
}
void larger(void* to, const void* a, const void* b, size_t count) {
  for (size_t i = 0; i < count; i++)
    static_cast<float*>(to)[i] = std::max(static_cast<const float*>(a)[i], static_cast<const float*>(b)[i]);
}

using Contexts = std::shared_ptr<gloo::Context>;
template <class T, class F>
void reduce(const Contexts& context, T* in, T* out, std::size_t count, F function, uint32_t tag) {
  gloo::AllreduceOptions options(context);
  if (in) options.setInput(in, count);
  options.setOutput(out, count);
  options.setReduceFunction(function);
  options.setTag(tag);
  gloo::allreduce(options);
}

std::vector<std::vector<float>> results;

void check(const std::vector<float>& y, int seed, int size, double least, double most) {
  std::vector<double> sum(y.size()), norm(y.size());
  for (int r = 0; r < size; r++) {
    std::vector<float> x = numbers(y.size(), seed + r);
    for (std::size_t i = 0; i < y.size(); i++) {
      sum[i] += static_cast<double>(x[i]);
      norm[i] += std::fabs(static_cast<double>(x[i]));
    }
  }
  double bound = most > 1e-6 ? 2.0 / 256 + 1.0 / 65536 + 1e-6 : 1e-6, squares = 0, norms = 0;
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < y.size(); i++) {
    double error = std::fabs(y[i] - sum[i]);
    wrong += !(error <= bound * norm[i]);
    squares += error * error;
    norms += norm[i] * norm[i];
  }
  double rms = std::sqrt(squares / norms);
  EXPECT(wrong == 0, "%zu elements are out of bounds", wrong);
  EXPECT(rms >= least && rms <= most, "rms %g", rms);
}

void run(const std::string& what, const Contexts& context, double least, double most) {
  int rank = context->rank, size = context->size;
  if (what == "bytes") {
    std::vector<float> x = numbers(1 << 20, rank);
    for (int k = 0; k < static_cast<int>(least); k++)
      reduce(context, static_cast<float*>(nullptr), x.data(), x.size(), add<float>, 1);
    return;
  }
  if (what == "threads") {
    // Several at once on one context, in another order on each rank.
    std::vector<std::vector<float>> x;
    std::vector<std::thread> threads;
    for (int k = 0; k < 3; k++) x.push_back(numbers(300000, 10 * k + rank));
    for (int k = 0; k < 3; k++) {
      int which = (k + rank) % 3;
      threads.emplace_back([&, which] {
        auto& v = x[static_cast<std::size_t>(which)];
        reduce(context, static_cast<float*>(nullptr), v.data(), v.size(), add<float>, static_cast<uint32_t>(which + 1));
      });
    }
    for (std::thread& t : threads) t.join();
    for (int k = 0; k < 3; k++) check(x[static_cast<std::size_t>(k)], 10 * k, size, least, most);
    return;
  }
  uint32_t tag = 1;
  for (std::size_t count : {std::size_t{1} << 18, std::size_t{262147}, (std::size_t{2} << 20) + 5}) {
    std::vector<float> x = numbers(count, rank), y(count), before = x;
    reduce(context, x.data(), y.data(), count, add<float>, tag++);
    EXPECT(x == before, "the input was changed");
    check(y, 0, size, least, most);
    reduce(context, static_cast<float*>(nullptr), x.data(), count, add<float>, tag++);
    EXPECT(std::memcmp(x.data(), y.data(), count * 4) == 0, "in place differs");
    static std::mutex lock;
    std::lock_guard guard(lock);
    results.push_back(y);
  }
  std::vector<int> i(300000, rank + 1);
  reduce(context, static_cast<int*>(nullptr), i.data(), i.size(), add<int>, tag++);
  EXPECT(i.back() == size * (size + 1) / 2, "%d", i.back());
  std::vector<double> d(300000, 1.0 / 3);
  reduce(context, static_cast<double*>(nullptr), d.data(), d.size(), add<double>, tag++);
  EXPECT(std::fabs(d.back() - size / 3.0) < 1e-15, "%g", d.back());
  std::vector<float> m(300000, static_cast<float>(rank) + 0x1p-20f);
  reduce(context, static_cast<float*>(nullptr), m.data(), m.size(), larger, tag++);
  EXPECT(m.back() == static_cast<float>(size - 1) + 0x1p-20f, "%.9g", m.back());
  float one = 1.00001f;
  reduce(context, static_cast<float*>(nullptr), &one, 1, add<float>, tag++);
  EXPECT(std::fabs(one - static_cast<float>(size) * 1.00001f) < 1e-5, "%.9g", one);
  // What it throws arrives, and what comes after it works.
  bool thrown = false;
  try {
    std::vector<float> x(300000);
    reduce(
        context, static_cast<float*>(nullptr), x.data(), x.size(),
        [rank](void*, const void*, const void*, size_t) { throw std::runtime_error(std::to_string(rank)); }, tag++);
  } catch (const std::runtime_error& e) {
    thrown = e.what() == std::to_string(rank);
  }
  EXPECT(thrown, "nothing was thrown");
  std::vector<float> x = numbers(300000, rank + 40);
  reduce(context, static_cast<float*>(nullptr), x.data(), x.size(), add<float>, tag++);
  check(x, 40, size, least, most);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  std::string what = argv[1];
  int size = std::atoi(argv[2]);
  auto store = std::make_shared<MapStore>(what != "old");
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; rank++)
    threads.emplace_back([=] {
      auto context = std::make_shared<gloo::rendezvous::Context>(rank, size);
      auto device = std::make_shared<gloo::transport::Device>();
      if (what == "missing" && rank == size - 1) {
        context->connectUnseen(store);
      } else {
        context->connectFullMesh(store, device);
      }
      run(what, context, std::atof(argv[3]), std::atof(argv[4]));
    });
  for (std::thread& t : threads) t.join();
  for (std::size_t i = 0; i < results.size(); i++)
    for (std::size_t k = 0; k < i; k++)
      EXPECT(results[i].size() != results[k].size() ||
                 std::memcmp(results[i].data(), results[k].data(), results[i].size() * 4) == 0,
             "the ranks differ");
  EXPECT(store.use_count() == 1, "%ld", store.use_count());
  if (what == "bytes") std::printf("bytes %ld\n", gloo::fake_wire_bytes);
  return failures != 0;
}
