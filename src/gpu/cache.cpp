#include "gpu/cache.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/hash.hpp"

namespace ai_vmm::gpu {

namespace {

namespace fs = std::filesystem;

// A file: this, the kernels' names each ended by a line feed, the data. Named <device>-<program>.bin.
struct Header {
  char magic[8] = {'A', 'I', 'V', 'M', 'M', 'K', '0', '2'};
  uint64_t device = 0, program = 0, names_size = 0, data_size = 0;
  uint64_t hash = 0;  // of names and data
};

constexpr size_t kNameSize = 16 + 1 + 16;  // of a file, without ".bin"

std::string path_of(const std::string& folder, uint64_t device, uint64_t program) {
  char name[64];
  std::snprintf(name, sizeof name, "/%016llx-%016llx.bin", static_cast<unsigned long long>(device),
                static_cast<unsigned long long>(program));
  return folder + name;
}

// The header of a file that is as long as it says, and the names.
bool read_head(std::ifstream& in, const std::string& path, uint64_t device, uint64_t program, Header& h,
               std::string& names) {
  const Header wanted;
  std::error_code error;
  const uint64_t size = fs::file_size(path, error);
  if (error || !in.read(reinterpret_cast<char*>(&h), sizeof h) ||
      std::memcmp(h.magic, wanted.magic, sizeof h.magic) != 0 || h.device != device || h.program != program ||
      h.names_size > size || h.data_size > size || h.names_size + h.data_size + sizeof h != size)
    return false;
  names.resize(h.names_size);
  return bool(in.read(names.data(), std::streamsize(names.size())));
}

std::vector<std::string> lines(const std::string& names) {
  std::vector<std::string> list;
  for (size_t at = 0; at < names.size();) {
    size_t end = std::min(names.find('\n', at), names.size());
    list.push_back(names.substr(at, end - at));
    at = end + 1;
  }
  return list;
}

uint64_t hash_of(const std::string& names, const std::string& data) {
  return hash_bytes(std::as_bytes(std::span(data)), hash_bytes(std::as_bytes(std::span(names))));
}

}  // namespace

std::string cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache && *cache) return std::string(cache) + "/aivmm/kernels";
  const char* home = std::getenv("HOME");
  return home && *home ? std::string(home) + "/.cache/aivmm/kernels" : "";
}

std::map<uint64_t, std::vector<std::string>> stored_kernels(const std::string& folder, uint64_t device) {
  std::map<uint64_t, std::vector<std::string>> found;
  std::error_code error;
  const std::string prefix = path_of("", device, 0).substr(1, 17);
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename();
    if (name.size() != kNameSize + 4 || !name.starts_with(prefix) || !name.ends_with(".bin")) continue;
    const uint64_t program = std::strtoull(name.c_str() + prefix.size(), nullptr, 16);
    std::ifstream in(it->path(), std::ios::binary);
    Header h;
    std::string names;
    if (read_head(in, it->path(), device, program, h, names)) found[program] = lines(names);
  }
  return found;
}

std::optional<StoredProgram> read_program(const std::string& folder, uint64_t device, uint64_t program) {
  if (folder.empty()) return std::nullopt;
  const std::string path = path_of(folder, device, program);
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  Header h;
  std::string names;
  StoredProgram stored;
  if (read_head(in, path, device, program, h, names)) {
    stored.data.resize(h.data_size);
    if (in.read(stored.data.data(), std::streamsize(stored.data.size())) && hash_of(names, stored.data) == h.hash) {
      stored.kernels = lines(names);
      return stored;
    }
  }
  std::error_code error;
  fs::remove(path, error);
  return std::nullopt;
}

void write_program(const std::string& folder, uint64_t device, uint64_t program, const StoredProgram& stored) {
  if (folder.empty()) return;
  std::error_code error;
  fs::create_directories(folder, error);
  const std::string path = path_of(folder, device, program), partial = path + "." + std::to_string(getpid());
  std::string names;
  for (const std::string& k : stored.kernels) names += k + "\n";
  Header h;
  h.device = device;
  h.program = program;
  h.names_size = names.size();
  h.data_size = stored.data.size();
  h.hash = hash_of(names, stored.data);
  {
    std::ofstream out(partial, std::ios::binary);
    out.write(reinterpret_cast<const char*>(&h), sizeof h);
    out.write(names.data(), std::streamsize(names.size()));
    out.write(stored.data.data(), std::streamsize(stored.data.size()));
    if (!out.flush()) {
      fs::remove(partial, error);
      return;
    }
  }
  fs::rename(partial, path, error);
  if (error) fs::remove(partial, error);
}

}  // namespace ai_vmm::gpu
