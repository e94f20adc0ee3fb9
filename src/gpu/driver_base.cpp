#include "gpu/driver_base.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/config.hpp"
#include "base/hash.hpp"

namespace ai_vmm::gpu {

namespace {
std::string setting(const char* name) {
  auto config = Config::load();
  return config.ok() ? config->text(name) : "";
}

Status write_texts(const std::string& folder, const std::map<std::string, const std::string*>& kernels) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  for (const auto& [name, body] : kernels)
    if (std::ofstream file(folder + "/" + name + ".txt"); !(file << *body).flush())
      return Status(Code::unavailable, "The kernel " + name + " cannot be written to the folder " + folder +
                                           ", which the setting kernel_folder names.");
  return {};
}
}  // namespace

DriverBase::DriverBase(Traits traits, const AiVmmHost* host, const std::string& options)
    : traits_(std::move(traits)),
      host_(host),
      prelude_(prelude(traits_.dialect, traits_.f64)),
      cache_(cache_folder()),
      kernel_folder_(setting("kernel_folder")) {
  const std::string all = traits_.identity + "\n" + options + "\n" + prelude_;
  cache_key_ = hash_bytes(std::as_bytes(std::span(all)));
}

Status DriverBase::load(std::span<const Source> kernels) {
  std::lock_guard lock(mutex_);
  Texts missing;
  for (const Source& k : kernels)
    if (!programs_.count(k.name)) missing[k.name] = &k.text;
  if (missing.empty()) return {};
  if (!kernel_folder_.empty()) AI_VMM_TRY(write_texts(kernel_folder_, missing));
  load_kept(missing);
  if (missing.empty()) return {};
  const std::string line = "Compiling " + std::to_string(missing.size()) + " kernels for " + traits_.identity + ".";
  if (host_->log) host_->log(host_->user, 1, line.data(), line.size());
  // Several programs, so that several threads can compile; few, because each brings costs of its own.
  constexpr size_t kKernelsPerThread = 8;
  const size_t parts =
      std::clamp<size_t>(missing.size() / kKernelsPerThread, 1, std::max(1u, std::thread::hardware_concurrency()));
  struct Part {
    std::string text;
    StoredProgram kept;
    Program program = nullptr;
    Status status;
  };
  std::vector<Part> work(parts);
  for (Part& p : work) p.text = prelude_;
  size_t n = 0;
  for (const auto& [name, body] : missing) {
    Part& p = work[n++ % parts];
    p.kept.kernels.push_back(name);
    p.text += "// kernel " + name + "\n" + *body + "\n";
  }
  auto compile = [this](Part& p) {
    auto made = program_from_text(p.text, p.kept.data);
    p.status = made.status().copy();
    if (made.ok()) p.program = *made;
  };
  std::vector<std::thread> threads;
  for (size_t i = 1; i < parts; ++i) threads.emplace_back(compile, std::ref(work[i]));
  compile(work[0]);
  for (std::thread& t : threads) t.join();
  Status failed;
  for (Part& p : work) {
    if (!p.status.ok()) {
      failed = std::move(p.status);
      continue;
    }
    for (const std::string& k : p.kept.kernels) programs_[k] = p.program;
    compilations_ += int64_t(p.kept.kernels.size());
    if (!p.kept.data.empty()) write_program(cache_, cache_key_, hash_bytes(std::as_bytes(std::span(p.text))), p.kept);
  }
  return failed;
}

// Takes from `missing` what programs of earlier processes have, the program that has most of it first.
void DriverBase::load_kept(Texts& missing) {
  if (!kept_) kept_ = stored_kernels(cache_, cache_key_);
  while (!missing.empty()) {
    size_t most = 0;
    uint64_t best = 0;
    for (const auto& [program, kernels] : *kept_) {
      size_t n = 0;
      for (const std::string& k : kernels) n += missing.count(k);
      if (n > most) most = n, best = program;
    }
    if (!most) return;
    auto stored = read_program(cache_, cache_key_, best);
    kept_->erase(best);
    if (!stored) continue;
    auto program = program_from_binary(stored->data);
    if (!program.ok()) continue;
    for (const std::string& k : stored->kernels) {
      programs_[k] = *program;
      missing.erase(k);
    }
  }
}

Result<DriverBase::Program> DriverBase::program_of(const std::string& kernel) {
  std::lock_guard lock(mutex_);
  auto it = programs_.find(kernel);
  if (it == programs_.end()) return Status(Code::internal, "The kernel " + kernel + " was not loaded.");
  return it->second;
}

std::string DriverBase::remembered(const std::string& key) {
  std::lock_guard lock(mutex_);
  if (auto it = choices_.find(key); it != choices_.end()) return it->second;
  if (!host_->tuning_get) return "";
  const std::string full = traits_.identity + " " + key;
  std::string value(256, 0);
  uint64_t n = host_->tuning_get(host_->user, {full.data(), full.size()}, value.data(), value.size());
  value.resize(n <= value.size() ? size_t(n) : 0);
  if (!value.empty()) choices_[key] = value;
  return value;
}

void DriverBase::remember(const std::string& key, const std::string& value) {
  std::lock_guard lock(mutex_);
  choices_[key] = value;
  const std::string full = traits_.identity + " " + key;
  if (host_->tuning_put) host_->tuning_put(host_->user, {full.data(), full.size()}, {value.data(), value.size()});
}

}  // namespace ai_vmm::gpu
