// The extension "states" of the simulated chips: rows in pages that forks share until one of them writes.
#include <algorithm>

#include "backends/sim/extensions.hpp"

namespace ai_vmm::sim {

namespace {

using backend::guarded;

constexpr int64_t kPageRows = 16;
constexpr uint64_t kMagic = 0x31657461'74536956;  // "ViState1" in memory

struct Page {
  std::shared_ptr<Silicon> silicon;
  std::vector<char> bytes;
  ~Page() { silicon->release(int64_t(bytes.size())); }
  static Result<std::shared_ptr<Page>> make(const std::shared_ptr<Silicon>& silicon, int64_t bytes) {
    AI_VMM_TRY(silicon->charge(bytes));
    auto p = std::make_shared<Page>();
    p->silicon = silicon;
    p->bytes.resize(size_t(bytes));
    return p;
  }
};

// A row is everything at one index of the growing axis: `outer` runs of `run` bytes.
struct State {
  std::shared_ptr<Silicon> silicon;
  int32_t dtype = 0, axis = 0;
  std::vector<int64_t> dims;  // dims[axis] is the capacity
  int64_t outer = 1, run = 0, rows = 0;
  std::vector<std::shared_ptr<Page>> pages;

  int64_t row_bytes() const { return outer * run; }
  char* row(int64_t r) const { return pages[size_t(r / kPageRows)]->bytes.data() + r % kPageRows * row_bytes(); }
  int64_t capacity() const { return dims[size_t(axis)]; }

  static Result<std::unique_ptr<State>> make(std::shared_ptr<Silicon> silicon, int32_t dtype, int32_t axis,
                                             std::vector<int64_t> dims) {
    auto bad = [](const std::string& what) { return Status(Code::invalid_argument, "The state's " + what + "."); };
    int bits = backend::bits_of(dtype);
    if (bits < 8) return bad("element type " + std::to_string(dtype) + " is none of whole bytes");
    if (axis < 0 || size_t(axis) >= dims.size())
      return bad("axis " + std::to_string(axis) + " is none of its " + std::to_string(dims.size()) + " dimensions");
    auto s = std::make_unique<State>();
    s->run = bits / 8;
    for (size_t d = 0; d < dims.size(); ++d) {
      if (dims[d] < 0 || dims[d] > INT32_MAX) return bad("size " + std::to_string(dims[d]) + " is absurd");
      int64_t& to = d < size_t(axis) ? s->outer : s->run;
      if (d != size_t(axis) && __builtin_mul_overflow(to, dims[d], &to)) return bad("row has more than 2^63 bytes");
    }
    int64_t all = 0;
    if (__builtin_mul_overflow(s->outer, s->run, &all) || __builtin_mul_overflow(all, kPageRows, &all))
      return bad("page has more than 2^63 bytes");
    s->silicon = std::move(silicon);
    s->dtype = dtype;
    s->axis = axis;
    s->dims = std::move(dims);
    return s;
  }

  // Room for `more` rows, and a last page of our own. Nothing changes when it fails.
  Status reserve(int64_t more) {
    if (more > capacity() - rows)
      return Status(Code::resource_exhausted, "The state holds " + std::to_string(rows) + " of at most " +
                                                  std::to_string(capacity()) + " rows; " + std::to_string(more) +
                                                  " more do not fit.");
    std::vector<std::shared_ptr<Page>> grown = pages;
    const int64_t page_bytes = kPageRows * row_bytes();
    if (rows % kPageRows && grown.back().use_count() > 2) {  // two are ours: pages and grown
      auto own = AI_VMM_TAKE(Page::make(silicon, page_bytes));
      own->bytes = grown.back()->bytes;
      grown.back() = std::move(own);
    }
    while (int64_t(grown.size()) * kPageRows < rows + more)
      grown.push_back(AI_VMM_TAKE(Page::make(silicon, page_bytes)));
    pages = std::move(grown);
    return {};
  }

  Status append(int32_t type, int32_t rank, const int64_t* shape, const void* data) {
    bool fits = type == dtype && size_t(rank) == dims.size();
    for (size_t d = 0; fits && d < dims.size(); ++d) fits = d == size_t(axis) ? shape[d] >= 0 : shape[d] == dims[d];
    if (!fits) return Status(Code::invalid_argument, "The rows differ from the state in element type or shape.");
    const int64_t n = shape[axis];
    AI_VMM_TRY(reserve(n));
    for (int64_t r = 0; r < n; ++r)
      for (int64_t o = 0; o < outer && run; ++o)
        std::memcpy(row(rows + r) + o * run, static_cast<const char*>(data) + (o * n + r) * run, size_t(run));
    rows += n;
    return {};
  }

  void read(int64_t begin, int64_t n, void* data) const {
    for (int64_t r = 0; r < n; ++r)
      for (int64_t o = 0; o < outer && run; ++o)
        std::memcpy(static_cast<char*>(data) + (o * n + r) * run, row(begin + r) + o * run, size_t(run));
  }
};
State& of(AiVmmState* s) { return *reinterpret_cast<State*>(s); }

struct Header {
  uint64_t magic;
  int32_t dtype, axis, rank, reserved;
  int64_t rows;
};

}  // namespace

bool is_state(const AiVmmTensor& t) { return t.device_type == AI_VMM_STATE_TENSOR && t.data; }

Result<Tensor> read_state(const AiVmmTensor& t) {
  const State& s = of(static_cast<AiVmmState*>(t.data));
  Shape shape = s.dims;
  shape[size_t(s.axis)] = s.rows;
  if (!std::equal(shape.begin(), shape.end(), t.shape, t.shape + t.rank) || t.dtype != s.dtype)
    return Status(Code::invalid_argument,
                  "The tensor's type or shape is not that of the state's " + std::to_string(s.rows) + " rows.");
  Tensor dense = AI_VMM_TAKE(Tensor::make(static_cast<DType>(s.dtype), shape));
  s.read(0, s.rows, dense.mutable_data());
  return dense;
}

Status append_to_state(const AiVmmTensor& t, const Tensor& rows) {
  return of(static_cast<AiVmmState*>(t.data))
      .append(int32_t(rows.dtype()), int32_t(rows.rank()), rows.shape().data(), rows.data());
}

const AiVmmStates& states() {
  static const AiVmmStates table = [] {
    auto t = backend::make<AiVmmStates>();
    t.create = [](AiVmmDevice* d, const AiVmmStateShape* theirs, AiVmmState** out, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        AI_VMM_TRY(sim_device(d).alive());
        const AiVmmStateShape shape = backend::local(theirs);
        if (shape.rank < 1 || !shape.dims) return Status(Code::invalid_argument, "A state has at least one dimension.");
        auto state = AI_VMM_TAKE(
            State::make(sim_device(d).silicon(), shape.dtype, shape.axis, {shape.dims, shape.dims + shape.rank}));
        *out = reinterpret_cast<AiVmmState*>(state.release());
        return {};
      });
    };
    t.free = [](AiVmmState* s) { delete &of(s); };
    t.info = [](AiVmmState* state, AiVmmStateInfo* theirs, AiVmmStatus*) -> int32_t {
      const State& s = of(state);
      auto i = backend::make<AiVmmStateInfo>();
      i.rows = s.rows;
      i.capacity = s.capacity();
      i.page_rows = kPageRows;
      for (const auto& p : s.pages)
        if (p.use_count() == 1) i.bytes += p->bytes.size();
      backend::publish(i, theirs);
      return 0;
    };
    t.append = [](AiVmmState* state, const AiVmmTensor* rows, AiVmmStatus* s) {
      return guarded(s,
                     [&] { return of(state).append(rows->dtype, rows->rank, rows->shape, backend::data_of(*rows)); });
    };
    t.truncate = [](AiVmmState* state, int64_t rows, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        State& st = of(state);
        if (rows < 0 || rows > st.rows)
          return Status(Code::out_of_range, "The state has " + std::to_string(st.rows) + " rows, not " +
                                                std::to_string(rows) + " or more.");
        st.rows = rows;
        st.pages.resize(size_t((rows + kPageRows - 1) / kPageRows));
        return {};
      });
    };
    t.read = [](AiVmmState* state, int64_t begin, const AiVmmTensor* to, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        const State& st = of(state);
        if (to->dtype != st.dtype || size_t(to->rank) != st.dims.size())
          return Status(Code::invalid_argument, "The tensor differs from the state in element type or rank.");
        int64_t n = to->shape[st.axis];
        if (begin < 0 || n < 0 || begin > st.rows || n > st.rows - begin)
          return Status(Code::out_of_range, "The state has " + std::to_string(st.rows) + " rows.");
        st.read(begin, n, static_cast<char*>(to->data) + to->byte_offset);
        return {};
      });
    };
    t.fork = [](AiVmmState* state, AiVmmState** out, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        *out = reinterpret_cast<AiVmmState*>(new State(of(state)));
        return {};
      });
    };
    t.snapshot = [](AiVmmState* state, int32_t (*write)(void*, const void*, uint64_t), void* user, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        const State& st = of(state);
        auto put = [&](const void* bytes, size_t size) -> Status {
          if (size == 0 || write(user, bytes, size) == 0) return {};
          return Status(Code::aborted, "The snapshot was not taken: its receiver refused it.");
        };
        Header h{kMagic, st.dtype, st.axis, int32_t(st.dims.size()), 0, st.rows};
        AI_VMM_TRY(put(&h, sizeof h));
        AI_VMM_TRY(put(st.dims.data(), st.dims.size() * sizeof(int64_t)));
        for (int64_t r = 0; r < st.rows; r += kPageRows)
          AI_VMM_TRY(put(st.row(r), size_t(std::min(kPageRows, st.rows - r) * st.row_bytes())));
        return {};
      });
    };
    t.restore = [](AiVmmDevice* d, const void* bytes, uint64_t size, AiVmmState** out, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        AI_VMM_TRY(sim_device(d).alive());
        auto damaged = [] { return Status(Code::data_loss, "The bytes are no snapshot of a state."); };
        Header h{};
        if (size < sizeof h) return damaged();
        std::memcpy(&h, bytes, sizeof h);
        const char* at = static_cast<const char*>(bytes) + sizeof h;
        uint64_t left = size - sizeof h;
        if (h.magic != kMagic || h.rank < 1 || h.rank > 64 || left < uint64_t(h.rank) * sizeof(int64_t))
          return damaged();
        std::vector<int64_t> dims(size_t(h.rank));
        std::memcpy(dims.data(), at, dims.size() * sizeof(int64_t));
        at += dims.size() * sizeof(int64_t);
        left -= dims.size() * sizeof(int64_t);
        auto state = State::make(sim_device(d).silicon(), h.dtype, h.axis, std::move(dims));
        if (!state.ok()) return damaged();
        State& st = **state;
        int64_t need = 0;
        if (h.rows < 0 || h.rows > st.capacity() || __builtin_mul_overflow(h.rows, st.row_bytes(), &need) ||
            uint64_t(need) != left)
          return damaged();
        AI_VMM_TRY(st.reserve(h.rows));
        for (int64_t r = 0; r < h.rows && st.row_bytes(); ++r)
          std::memcpy(st.row(r), at + r * st.row_bytes(), size_t(st.row_bytes()));
        st.rows = h.rows;
        *out = reinterpret_cast<AiVmmState*>((*state).release());
        return {};
      });
    };
    t.page_table = [](AiVmmState* state, uint64_t capacity, void** pages, uint64_t* count, AiVmmStatus*) -> int32_t {
      const State& s = of(state);
      *count = s.pages.size();
      for (uint64_t i = 0; i < std::min<uint64_t>(capacity, *count); ++i) pages[i] = s.pages[i]->bytes.data();
      return 0;
    };
    return t;
  }();
  return table;
}

}  // namespace ai_vmm::sim
