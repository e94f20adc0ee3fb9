#include "fake_gloo.hpp"

#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>

namespace gloo {

long fake_wire_bytes = 0;

// A post office: pieces wait under the name of a collective, its tag, its number, and two ranks.
struct Exchange {
  std::mutex lock;
  std::condition_variable changed;
  std::map<std::string, std::vector<char>> pieces;
  std::map<std::string, int> numbers;
  int arrived = 0;

  std::string name(const char* kind, uint32_t tag, int rank) {
    std::lock_guard guard(lock);
    std::string base = std::string(kind) + "/" + std::to_string(tag);
    int number = numbers[base + "/" + std::to_string(rank)]++;
    return base + "/" + std::to_string(number);
  }
  void post(const std::string& name, int from, int to, const char* data, size_t size) {
    std::lock_guard guard(lock);
    pieces[name + "/" + std::to_string(from) + ">" + std::to_string(to)].assign(data, data + size);
    changed.notify_all();
  }
  std::vector<char> take(const std::string& name, int from, int to) {
    std::unique_lock guard(lock);
    std::string key = name + "/" + std::to_string(from) + ">" + std::to_string(to);
    if (!changed.wait_for(guard, std::chrono::seconds(30), [&] { return pieces.count(key) > 0; }))
      throw std::runtime_error("timed out");
    auto piece = std::move(pieces[key]);
    pieces.erase(key);
    return piece;
  }
};

namespace {

std::mutex exchanges_lock;
std::map<rendezvous::Store*, Exchange*> exchanges;

void count(size_t bytes) {
  std::lock_guard guard(exchanges_lock);
  fake_wire_bytes += static_cast<long>(bytes);
}

}  // namespace

transport::UnboundBuffer::~UnboundBuffer() = default;

std::unique_ptr<transport::UnboundBuffer> Context::createUnboundBuffer(void* ptr, size_t size) {
  return std::make_unique<transport::UnboundBuffer>(ptr, size);
}

namespace rendezvous {

PrefixStore::PrefixStore(const std::string& prefix, std::shared_ptr<Store> store)
    : prefix_(prefix), store_(std::move(store)) {}
void PrefixStore::set(const std::string& key, const std::vector<char>& data) { store_->set(prefix_ + "/" + key, data); }
std::vector<char> PrefixStore::get(const std::string& key) { return store_->get(prefix_ + "/" + key); }
bool PrefixStore::has_v2_support() { return store_->has_v2_support(); }
void PrefixStore::append(const std::string& key, const std::vector<char>& data) {
  store_->append(prefix_ + "/" + key, data);
}

// Returns when all have come.
void Context::connectFullMesh(std::shared_ptr<Store> store, std::shared_ptr<transport::Device>&) {
  connectUnseen(store);
}
void Context::connectUnseen(std::shared_ptr<Store> store) {
  {
    std::lock_guard guard(exchanges_lock);
    auto& shared = exchanges[store.get()];
    if (!shared) shared = new Exchange;
    exchange = shared;
  }
  std::unique_lock guard(exchange->lock);
  exchange->arrived++;
  exchange->changed.notify_all();
  exchange->changed.wait(guard, [this] { return exchange->arrived >= size; });
}

}  // namespace rendezvous

void allreduce(const AllreduceOptions& options) {
  const auto& o = options.impl_;
  Context& c = *o.context;
  auto* to = static_cast<char*>(o.out[0]->ptr);
  const char* from = o.in.empty() ? to : static_cast<const char*>(o.in[0]->ptr);
  size_t bytes = o.elements * o.elementSize;
  std::string name = c.exchange->name("allreduce", o.tag, c.rank);
  std::vector<char> sum(from, from + bytes);
  for (int r = 0; r < c.size; r++)
    if (r != c.rank) c.exchange->post(name, c.rank, r, from, bytes);
  std::vector<std::vector<char>> parts;
  for (int r = 0; r < c.size; r++)
    parts.push_back(r == c.rank ? std::vector<char>(sum) : c.exchange->take(name, r, c.rank));
  sum = parts[0];
  for (int r = 1; r < c.size; r++) o.reduce(sum.data(), sum.data(), parts[static_cast<size_t>(r)].data(), o.elements);
  std::memcpy(to, sum.data(), bytes);
  count(2 * bytes * static_cast<size_t>(c.size - 1) / static_cast<size_t>(c.size));
}

namespace {

void exchange(const char* kind, ExchangeOptions& o, bool gathers) {
  Context& c = *o.context;
  std::string name = c.exchange->name(kind, o.tag, c.rank);
  auto size = static_cast<size_t>(c.size);
  size_t piece = gathers ? o.in->size : o.in->size / size;
  if (o.out->size != piece * size) throw std::runtime_error("sizes do not match");
  for (int r = 0; r < c.size; r++)
    c.exchange->post(name, c.rank, r, static_cast<char*>(o.in->ptr) + (gathers ? 0 : static_cast<size_t>(r) * piece),
                     piece);
  for (int r = 0; r < c.size; r++) {
    std::vector<char> part = c.exchange->take(name, r, c.rank);
    std::memcpy(static_cast<char*>(o.out->ptr) + static_cast<size_t>(r) * piece, part.data(), piece);
  }
  count(piece * (size - 1));
}

}  // namespace

void allgather(AllgatherOptions& options) { exchange("allgather", options, true); }
void alltoall(AlltoallOptions& options) { exchange("alltoall", options, false); }

}  // namespace gloo
