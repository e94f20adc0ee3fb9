#include "gpu/driver_base.hpp"

#include <filesystem>
#include <fstream>
#include <map>

#include "base/config.hpp"
#include "base/hash.hpp"
#include "gpu/cache.hpp"

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

DriverBase::DriverBase(Traits traits, const AiVmmHost* host, std::string options)
    : traits_(std::move(traits)),
      host_(host),
      options_(std::move(options)),
      cache_(cache_folder()),
      kernel_folder_(setting("kernel_folder")) {}

Status DriverBase::load(std::span<const Source> kernels) {
  std::lock_guard lock(mutex_);
  // In an order of their own, so that equal sets are one program however they came about.
  std::map<std::string, const std::string*> fresh;
  for (const Source& k : kernels)
    if (!programs_.count(k.name)) fresh[k.name] = &k.text;
  if (fresh.empty()) return {};
  std::string text = prelude(traits_.dialect, traits_.f64);
  for (const auto& [name, body] : fresh) text += *body + "\n";
  if (!kernel_folder_.empty()) AI_VMM_TRY(write_texts(kernel_folder_, fresh));
  Program program = AI_VMM_TAKE(build(text));
  for (const auto& [name, body] : fresh) programs_[name] = program;
  compilations_ += int64_t(fresh.size());
  return {};
}

Result<DriverBase::Program> DriverBase::build(const std::string& text) {
  const std::string all = traits_.identity + "\n" + options_ + "\n" + text;
  const uint64_t key = hash_bytes(std::as_bytes(std::span(all)));
  if (auto kept = read_binary(cache_, key))
    if (auto program = program_from_binary(*kept); program.ok()) return program;
  std::string binary;
  Program program = AI_VMM_TAKE(program_from_text(text, binary));
  if (!binary.empty()) write_binary(cache_, key, binary);
  return program;
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
