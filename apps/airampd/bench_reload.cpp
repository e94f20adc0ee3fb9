// What tuning costs a program and how soon it follows: bench_reload FOLDER ROUNDS EDITS prints one JSON object.
// airampd must be publishing in FOLDER. Everything is timed in this process by the steady clock.
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "publication.hpp"

using namespace AIRamp::Daemon;
using AIRamp::Interposer::tuning;

namespace {

double now_ns() {
  return double(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count());
}
void keep(int64_t value) { asm volatile("" : : "r"(value) : "memory"); }

// The value goes through memory that the compiler must not look through, as that of another translation unit would.
__attribute__((noinline)) double loop_empty(long n) {
  double start = now_ns();
  for (long i = 0; i < n; ++i) keep(i);
  return (now_ns() - start) / double(n);
}
__attribute__((noinline)) double loop_changed(long n) {
  double start = now_ns();
  for (long i = 0; i < n; ++i) keep(tuning.changed());
  return (now_ns() - start) / double(n);
}
__attribute__((noinline)) double loop_get(long n) {
  double start = now_ns();
  for (long i = 0; i < n; ++i) keep(tuning.get<Key::OCL_CHUNK_BYTES>());
  return (now_ns() - start) / double(n);
}
__attribute__((noinline)) double loop_stat(const char* path, long n) {
  double start = now_ns();
  struct stat st;
  for (long i = 0; i < n; ++i) keep(stat(path, &st));
  return (now_ns() - start) / double(n);
}

void print(const char* name, std::vector<double> v, const char* end = ",") {
  std::sort(v.begin(), v.end());
  auto at = [&](double q) { return v[size_t(q * double(v.size() - 1))]; };
  std::printf("\"%s\": {\"median\": %.4g, \"p10\": %.4g, \"p90\": %.4g, \"p99\": %.4g, \"most\": %.4g, \"n\": %zu}%s\n",
              name, at(0.5), at(0.1), at(0.9), at(0.99), v.back(), v.size(), end);
}

// From the return of the edit's rename to the first call that gives the new value. The program calls all the time.
double edit(const std::string& folder, int64_t value) {
  std::ifstream in(folder + "/tuning.conf");
  std::string text((std::istreambuf_iterator<char>(in)), {}), line = "OCL_CHUNK_BYTES = ";
  size_t at = text.find("\n" + line) + 1 + line.size();
  text.replace(at, text.find('\n', at) - at, std::to_string(value));
  std::ofstream(folder + "/edited") << text;
  double start = now_ns();
  std::filesystem::rename(folder + "/edited", folder + "/tuning.conf");
  while (tuning.get<Key::OCL_CHUNK_BYTES>() != value)
    if (now_ns() - start > 10e9) return -1;
  return now_ns() - start;
}

// The same without the daemon in between: a publication by this process.
double publish(Publication& publication, int64_t value) {
  Settings s;
  s.values[Key::OCL_CHUNK_BYTES] = value;
  std::atomic<bool> ready{false};
  std::atomic<double> done{0};
  std::thread program([&] {
    ready = true;
    while (tuning.get<Key::OCL_CHUNK_BYTES>() != value) {
    }
    done = now_ns();
  });
  while (!ready) std::this_thread::yield();
  double start = now_ns();
  if (!publication.publish(s).ok()) std::exit(1);
  program.join();
  return done - start;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return std::fprintf(stderr, "bench_reload FOLDER ROUNDS EDITS\n"), 2;
  std::string folder = argv[1];
  int rounds = std::atoi(argv[2]), edits = std::atoi(argv[3]);
  setenv("AIRAMP_TUNING_DIR", folder.c_str(), 1);
  tuning.look_for_daemon();
  if (!*tuning.folder()) return std::fprintf(stderr, "no airampd publishes in \"%s\"\n", folder.c_str()), 1;
  constexpr long kCalls = 20'000'000;
  std::vector<double> empty, changed, get, stats;
  for (int i = 0; i < rounds; ++i) {
    empty.push_back(loop_empty(kCalls));
    changed.push_back(loop_changed(kCalls));
    get.push_back(loop_get(kCalls));
    stats.push_back(loop_stat((folder + "/tuning.conf").c_str(), kCalls / 200));
  }
  std::vector<double> added_changed, added_get;
  for (int i = 0; i < rounds; ++i) {
    added_changed.push_back(changed[size_t(i)] - empty[size_t(i)]);
    added_get.push_back(get[size_t(i)] - empty[size_t(i)]);
  }
  std::vector<double> by_edit, by_publication;
  for (int i = 0; i < edits; ++i) {
    by_edit.push_back(edit(folder, (i % 2 ? 1 : 2) << 20));
    if (by_edit.back() < 0) return std::fprintf(stderr, "an edit did not arrive within 10 s\n"), 1;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  std::string own = folder + "/own";
  setenv("AIRAMP_TUNING_DIR", own.c_str(), 1);
  auto publication = Publication::open({own});
  if (!publication.ok() || !(*publication)->publish(Settings()).ok()) return 1;
  // The program of this half is mapped anew: it follows the other folder.
  new (&tuning) AIRamp::Interposer::Tuning();
  tuning.look_for_daemon();
  for (int i = 0; i < edits; ++i) by_publication.push_back(publish(**publication, (i % 2 ? 1 : 2) << 20));

  // Readers take snapshots while this process publishes: every key of a publication is odd or even with its number.
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> torn{0}, taken{0};
  Settings s;
  auto fill = [&](uint64_t generation) {
    for (int i = 0; i < kKeyCount; ++i) s.values.of[i] = kKeys[i].least + int64_t(generation & 1);
  };
  fill((*publication)->generation() + 1);
  if (!(*publication)->publish(s).ok()) return 1;
  tuning.reload();
  std::thread reader([&] {
    uint64_t n = 0, bad = 0;
    AIRamp::Interposer::Values v;
    while (!stop.load(std::memory_order_relaxed)) {
      uint64_t g = tuning.snapshot(&v);
      for (int i = 0; i < kKeyCount; ++i) bad += v.of[i] != kKeys[i].least + int64_t(g & 1);
      ++n;
    }
    taken = n, torn = bad;
  });
  uint64_t publications = 0;
  for (double end = now_ns() + 10e9; now_ns() < end; ++publications) {
    fill((*publication)->generation() + 1);
    if (!(*publication)->publish(s).ok()) return 1;
  }
  stop = true, reader.join();

  std::puts("{");
  print("check_ns", added_changed);
  print("get_ns", added_get);
  print("stat_ns", stats);
  print("edit_ns", by_edit);
  print("publish_ns", by_publication);
  std::printf("\"snapshots\": %llu, \"publications\": %llu, \"torn\": %llu}\n", (unsigned long long)taken.load(),
              (unsigned long long)publications, (unsigned long long)torn.load());
  return torn.load() == 0 ? 0 : 1;
}
