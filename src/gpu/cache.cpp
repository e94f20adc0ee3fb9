#include "gpu/cache.hpp"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/hash.hpp"

namespace ai_vmm::gpu {

namespace {

namespace fs = std::filesystem;

struct Header {
  char magic[8] = {'A', 'I', 'V', 'M', 'M', 'K', '0', '1'};
  uint64_t key = 0, size = 0, hash = 0;
};

std::string path_of(const std::string& folder, uint64_t key) {
  char name[32];
  std::snprintf(name, sizeof name, "/%016llx.bin", static_cast<unsigned long long>(key));
  return folder + name;
}

}  // namespace

std::string cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache && *cache) return std::string(cache) + "/aivmm/kernels";
  const char* home = std::getenv("HOME");
  return home && *home ? std::string(home) + "/.cache/aivmm/kernels" : "";
}

std::optional<std::string> read_binary(const std::string& folder, uint64_t key) {
  if (folder.empty()) return std::nullopt;
  std::ifstream in(path_of(folder, key), std::ios::binary);
  if (!in) return std::nullopt;
  Header h;
  const Header wanted;
  std::string data;
  std::error_code error;
  auto size = fs::file_size(path_of(folder, key), error);
  bool good = !error && in.read(reinterpret_cast<char*>(&h), sizeof h) &&
              std::memcmp(h.magic, wanted.magic, sizeof h.magic) == 0 && h.key == key && h.size + sizeof h == size;
  if (good) {
    data.resize(h.size);
    good = bool(in.read(reinterpret_cast<char*>(data.data()), std::streamsize(h.size))) &&
           hash_bytes(std::as_bytes(std::span(data))) == h.hash;
  }
  if (good) return data;
  fs::remove(path_of(folder, key), error);
  return std::nullopt;
}

void write_binary(const std::string& folder, uint64_t key, const std::string& binary) {
  if (folder.empty()) return;
  std::error_code error;
  fs::create_directories(folder, error);
  const std::string path = path_of(folder, key), partial = path + "." + std::to_string(getpid());
  Header h;
  h.key = key;
  h.size = binary.size();
  h.hash = hash_bytes(std::as_bytes(std::span(binary)));
  {
    std::ofstream out(partial, std::ios::binary);
    out.write(reinterpret_cast<const char*>(&h), sizeof h);
    out.write(reinterpret_cast<const char*>(binary.data()), std::streamsize(binary.size()));
    if (!out.flush()) {
      fs::remove(partial, error);
      return;
    }
  }
  fs::rename(partial, path, error);
  if (error) fs::remove(partial, error);
}

}  // namespace ai_vmm::gpu
