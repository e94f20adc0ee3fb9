// A fake of Gloo for tests of libairamp.so: its classes, as far as programs see them, with the real names and layouts,
// as PyTorch 2.15 carries them. Ranks are threads of one process. Written after the real one's documented interface;
// nothing of it goes over a network.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace gloo {

namespace transport {
class Device {};

class UnboundBuffer {
 public:
  UnboundBuffer(void* ptr, size_t size) : ptr(ptr), size(size) {}
  virtual ~UnboundBuffer();
  void* const ptr;
  const size_t size;
};
}  // namespace transport

class Context {
 public:
  Context(int rank, int size) : rank(rank), size(size) {}
  const int rank;
  const int size;
  int base = 2;
  std::unique_ptr<transport::UnboundBuffer> createUnboundBuffer(void* ptr, size_t size);
  std::chrono::milliseconds getTimeout() const { return std::chrono::seconds(30); }

  struct Exchange* exchange = nullptr;  // what the fake's ranks share
};

namespace rendezvous {

class Store {
 public:
  virtual ~Store() = default;
  virtual void set(const std::string& key, const std::vector<char>& data) = 0;
  virtual std::vector<char> get(const std::string& key) = 0;
  virtual bool has_v2_support() { return false; }
  virtual void append(const std::string& key, const std::vector<char>& data) = 0;
};

class PrefixStore : public Store {
 public:
  PrefixStore(const std::string& prefix, std::shared_ptr<Store> store);
  void set(const std::string& key, const std::vector<char>& data) override;
  std::vector<char> get(const std::string& key) override;
  bool has_v2_support() override;
  void append(const std::string& key, const std::vector<char>& data) override;

 private:
  const std::string prefix_;
  std::shared_ptr<Store> store_;
};

class Context : public ::gloo::Context {
 public:
  Context(int rank, int size) : ::gloo::Context(rank, size) {}
  virtual ~Context() = default;
  void connectFullMesh(std::shared_ptr<Store> store, std::shared_ptr<transport::Device>& device);
  // The same, for a rank that stands for one without libairamp.
  void connectUnseen(std::shared_ptr<Store> store);
};

}  // namespace rendezvous

namespace detail {
struct AllreduceOptionsImpl {
  using Func = std::function<void(void*, const void*, const void*, size_t)>;
  enum Algorithm { UNSPECIFIED };
  explicit AllreduceOptionsImpl(const std::shared_ptr<Context>& context)
      : context(context), timeout(context->getTimeout()), algorithm(UNSPECIFIED) {}
  std::shared_ptr<Context> context;
  std::chrono::milliseconds timeout;
  Algorithm algorithm;
  std::vector<std::unique_ptr<transport::UnboundBuffer>> in, out;
  size_t elements = 0;
  size_t elementSize = 0;
  Func reduce;
  uint32_t tag = 0;
  size_t maxSegmentSize = 1 << 20;
};
}  // namespace detail

class AllreduceOptions {
 public:
  explicit AllreduceOptions(const std::shared_ptr<Context>& context) : impl_(context) {}
  template <class T>
  void setInput(T* ptr, size_t elements) {
    impl_.in.push_back(impl_.context->createUnboundBuffer(ptr, elements * sizeof(T)));
  }
  template <class T>
  void setOutput(T* ptr, size_t elements) {
    impl_.elements = elements;
    impl_.elementSize = sizeof(T);
    impl_.out.push_back(impl_.context->createUnboundBuffer(ptr, elements * sizeof(T)));
  }
  void setReduceFunction(detail::AllreduceOptionsImpl::Func fn) { impl_.reduce = fn; }
  void setTag(uint32_t tag) { impl_.tag = tag; }

  detail::AllreduceOptionsImpl impl_;
};

struct ExchangeOptions {
  std::shared_ptr<Context> context;
  std::unique_ptr<transport::UnboundBuffer> in, out;
  size_t elementSize;
  uint32_t tag;
  std::chrono::milliseconds timeout;
};
class AllgatherOptions : public ExchangeOptions {};
class AlltoallOptions : public ExchangeOptions {};

void allreduce(const AllreduceOptions& options);
void allgather(AllgatherOptions& options);
void alltoall(AlltoallOptions& options);

// What tests ask: the payload that left the ranks, as rings would send it.
extern long fake_wire_bytes;

}  // namespace gloo
