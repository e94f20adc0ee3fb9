// What host and child say to each other. Both are of one build, but neither trusts a length that the other sent.
#pragma once

#include <cstring>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "ai_vmm/backend_abi.h"
#include "ai_vmm/types.hpp"

namespace ai_vmm::isolate {

enum class Call : uint32_t {
  hello,
  device_count,
  device_info,
  open_device,
  close_device,
  device_state,
  query,
  compile,
  release_executable,
  executable_info,
  create_context,
  execute,
};

class Writer {
 public:
  template <class T>
  Writer& put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Writer& text(std::string_view s) {
    put(uint64_t(s.size()));
    bytes_.append(s);
    return *this;
  }
  template <class T>
  Writer& list(const T* items, size_t n) {
    put(uint64_t(n));
    if (n) bytes_.append(reinterpret_cast<const char*>(items), n * sizeof(T));
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// Reading past the end gives zeros and makes `ok` false.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}
  template <class T>
  T get() {
    T value{};
    if (left_.size() < sizeof value) {
      fail();
    } else {
      std::memcpy(&value, left_.data(), sizeof value);
      left_.remove_prefix(sizeof value);
    }
    return value;
  }
  std::string_view text() {
    auto n = get<uint64_t>();
    if (n > left_.size()) n = fail();
    std::string_view s = left_.substr(0, n);
    left_.remove_prefix(n);
    return s;
  }
  template <class T>
  std::vector<T> list() {
    auto n = get<uint64_t>();
    if (n > left_.size() / sizeof(T)) n = fail();
    std::vector<T> items(n);
    if (n) std::memcpy(items.data(), left_.data(), n * sizeof(T));
    left_.remove_prefix(n * sizeof(T));
    return items;
  }
  bool ok() const { return ok_; }

 private:
  uint64_t fail() {
    ok_ = false;
    left_ = {};
    return 0;
  }
  std::string_view left_;
  bool ok_ = true;
};

// A message, perhaps with a descriptor. False when the other side has gone.
bool send_message(int socket, Call call, const std::string& payload, int fd = -1);
bool receive_message(int socket, Call& call, std::string& payload, int* fd);

// A failure as the first thing in a reply; code 0 is success.
void put_status(Writer& w, int32_t code, const AiVmmStatus& status);
int32_t get_status(Reader& r, AiVmmStatus* status);

// Memory that both processes map. It grows by its file alone: the mapping spans more than any run needs, so addresses
// stay.
class Region {
 public:
  static constexpr uint64_t kSpan = uint64_t(1) << 36;
  static constexpr uint64_t kData = 64;  // offset of the first byte for tensors; before it the cancel flag

  static Result<std::unique_ptr<Region>> make();
  static Result<std::unique_ptr<Region>> open(int fd);  // takes the descriptor
  ~Region();
  Region(const Region&) = delete;
  bool reserve(uint64_t bytes);  // from the start
  char* at(uint64_t offset) const { return base_ + offset; }
  volatile int32_t* cancel() const { return reinterpret_cast<volatile int32_t*>(base_); }
  int fd() const { return fd_; }

 private:
  Region() = default;
  int fd_ = -1;
  char* base_ = nullptr;
  uint64_t size_ = 0;
};

// A graph without its constants' elements, which go into `constants`.
std::string encode(const AiVmmGraph& graph, std::string& constants);

// The graph of a message. Its constants lie in memory that the caller keeps.
class DecodedGraph {
 public:
  static Result<std::unique_ptr<DecodedGraph>> from(Reader& reader, std::span<const char> constants);
  const AiVmmGraph* get() const { return &graph_; }

 private:
  AiVmmValue* value(Reader& r, std::span<const char> constants);
  AiVmmText text(Reader& r);
  template <class T>
  const T* keep(std::vector<T> list) {
    auto p = std::make_shared<std::vector<T>>(std::move(list));
    lists_.push_back(p);
    return p->data();
  }
  AiVmmGraph graph_{};
  std::deque<AiVmmValue> values_;
  std::deque<AiVmmNode> nodes_;
  std::deque<AiVmmAttribute> attributes_;
  std::deque<std::string> texts_;
  std::deque<std::shared_ptr<const void>> lists_;
};

}  // namespace ai_vmm::isolate
