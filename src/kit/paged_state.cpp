#include "kit/paged_state.hpp"

#include <algorithm>
#include <cstring>

namespace ai_vmm {

namespace {
constexpr uint64_t kMagic = 0x32657461'74536956;  // "ViState2" in memory

struct Header {
  uint64_t magic;
  int32_t dtype, axis, rank, reserved;
  int64_t rows;
};
}  // namespace

Result<PagedState> PagedState::make(std::shared_ptr<Account> account, DType dtype, int32_t axis, Shape dims) {
  auto bad = [](const std::string& what) { return Status(Code::invalid_argument, "The state's " + what + "."); };
  if (int(dtype) >= kDTypeCount || bits(dtype) < 8)
    return bad("element type " + std::to_string(int(dtype)) + " is none of whole bytes");
  if (axis < 0 || size_t(axis) >= dims.size())
    return bad("axis " + std::to_string(axis) + " is none of its " + std::to_string(dims.size()) + " dimensions");
  PagedState s;
  s.run_ = bits(dtype) / 8;
  for (size_t d = 0; d < dims.size(); ++d) {
    if (dims[d] < 0 || dims[d] > INT32_MAX) return bad("size " + std::to_string(dims[d]) + " is absurd");
    int64_t& to = d < size_t(axis) ? s.outer_ : s.run_;
    if (d != size_t(axis) && __builtin_mul_overflow(to, dims[d], &to)) return bad("row has more than 2^63 bytes");
  }
  int64_t all = 0;
  if (__builtin_mul_overflow(s.outer_, s.run_, &all) || __builtin_mul_overflow(all, kPageRows, &all))
    return bad("page has more than 2^63 bytes");
  if (all == 0) return bad("row is empty: its shape is " + to_string(dims));
  s.account_ = std::move(account);
  s.dtype_ = dtype;
  s.axis_ = axis;
  s.dims_ = std::move(dims);
  return s;
}

Shape PagedState::shape() const {
  Shape s = dims_;
  s[size_t(axis_)] = rows_;
  return s;
}

int64_t PagedState::own_bytes() const {
  int64_t n = 0;
  for (const PageRef& p : pages_)
    if (p.use_count() == 1) n += int64_t(p->bytes.size());
  return n;
}

Result<PagedState::PageRef> PagedState::new_page(const std::shared_ptr<Account>& account, int64_t bytes) {
  AI_VMM_TRY(account->charge(bytes));
  auto p = std::make_shared<Page>();
  p->account = account;
  p->bytes.resize(size_t(bytes));
  return p;
}

// Room for `more` rows, and a last page of our own.
Status PagedState::reserve(int64_t more) {
  if (more > capacity() - rows_)
    return Status(Code::resource_exhausted, "The state holds " + std::to_string(rows_) + " of at most " +
                                                std::to_string(capacity()) + " rows; " + std::to_string(more) +
                                                " more do not fit.");
  std::vector<PageRef> grown = pages_;
  const int64_t page_bytes = kPageRows * outer_ * run_;
  if (more > 0 && rows_ % kPageRows && grown.back().use_count() > 2) {  // two are ours: pages_ and grown
    auto own = AI_VMM_TAKE(new_page(account_, page_bytes));
    own->bytes = grown.back()->bytes;
    grown.back() = std::move(own);
  }
  while (int64_t(grown.size()) * kPageRows < rows_ + more) grown.push_back(AI_VMM_TAKE(new_page(account_, page_bytes)));
  pages_ = std::move(grown);
  return {};
}

template <class F>
void PagedState::each_piece(int64_t begin, int64_t n, F&& move) const {
  for (int64_t row = begin; row < begin + n;) {
    const int64_t in_page = row % kPageRows, rows = std::min(kPageRows - in_page, begin + n - row);
    char* page = pages_[size_t(row / kPageRows)]->bytes.data();
    for (int64_t o = 0; o < outer_ && run_; ++o) move(page + (o * kPageRows + in_page) * run_, row, rows, o);
    row += rows;
  }
}

Status PagedState::append(DType dtype, std::span<const int64_t> shape, const void* data) {
  return append_from(dtype, shape, data, 0);
}

Status PagedState::append_from(DType dtype, std::span<const int64_t> shape, const void* data, int64_t first) {
  bool fits = dtype == dtype_ && shape.size() == dims_.size();
  for (size_t d = 0; fits && d < dims_.size(); ++d)
    fits = d == size_t(axis_) ? shape[d] >= first : shape[d] == dims_[d];
  if (!fits)
    return Status(Code::invalid_argument, "Rows " + std::string(name(dtype)) + to_string(shape) +
                                              " are appended to a state of " + name(dtype_) + to_string(dims_) +
                                              " that grows along axis " + std::to_string(axis_) + ".");
  const int64_t all = shape[size_t(axis_)], n = all - first, start = rows_;
  AI_VMM_TRY(reserve(n));
  each_piece(start, n, [&](char* to, int64_t row, int64_t rows, int64_t o) {
    std::memcpy(to, static_cast<const char*>(data) + (o * all + first + row - start) * run_, size_t(rows * run_));
  });
  rows_ += n;
  return {};
}

Status PagedState::truncate(int64_t rows) {
  if (rows < 0 || rows > rows_)
    return Status(Code::out_of_range,
                  "The state has " + std::to_string(rows_) + " rows, not " + std::to_string(rows) + " or more.");
  rows_ = rows;
  pages_.resize(size_t((rows + kPageRows - 1) / kPageRows));
  return {};
}

Status PagedState::read(int64_t begin, int64_t n, void* data) const {
  if (begin < 0 || n < 0 || begin > rows_ || n > rows_ - begin)
    return Status(Code::out_of_range, "The state has " + std::to_string(rows_) + " rows; " + std::to_string(n) +
                                          " from row " + std::to_string(begin) + " on are asked for.");
  each_piece(begin, n, [&](const char* from, int64_t row, int64_t rows, int64_t o) {
    std::memcpy(static_cast<char*>(data) + (o * n + row - begin) * run_, from, size_t(rows * run_));
  });
  return {};
}

Status PagedState::snapshot(const std::function<Status(const void* bytes, size_t size)>& put) const {
  Header h{kMagic, int32_t(dtype_), axis_, int32_t(dims_.size()), 0, rows_};
  AI_VMM_TRY(put(&h, sizeof h));
  AI_VMM_TRY(put(dims_.data(), dims_.size() * sizeof(int64_t)));
  Status done;
  each_piece(0, rows_, [&](const char* from, int64_t, int64_t rows, int64_t) {
    if (done.ok()) done = put(from, size_t(rows * run_));
  });
  return done;
}

Result<PagedState> PagedState::restore(std::shared_ptr<Account> account, const void* bytes, uint64_t size) {
  auto damaged = [] { return Status(Code::data_loss, "The bytes are no snapshot of a state."); };
  Header h{};
  if (size < sizeof h) return damaged();
  std::memcpy(&h, bytes, sizeof h);
  const char* at = static_cast<const char*>(bytes) + sizeof h;
  uint64_t left = size - sizeof h;
  if (h.magic != kMagic || h.rank < 1 || h.rank > 64 || left < uint64_t(h.rank) * sizeof(int64_t) || h.dtype < 0 ||
      h.dtype >= kDTypeCount)
    return damaged();
  Shape dims(size_t(h.rank));
  std::memcpy(dims.data(), at, dims.size() * sizeof(int64_t));
  at += dims.size() * sizeof(int64_t);
  left -= dims.size() * sizeof(int64_t);
  auto made = make(std::move(account), static_cast<DType>(h.dtype), h.axis, std::move(dims));
  if (!made.ok()) return damaged();
  PagedState& s = *made;
  int64_t need = 0;
  if (h.rows < 0 || h.rows > s.capacity() || __builtin_mul_overflow(h.rows, s.outer_ * s.run_, &need) ||
      uint64_t(need) != left)
    return damaged();
  AI_VMM_TRY(s.reserve(h.rows));
  s.each_piece(0, h.rows, [&](char* to, int64_t, int64_t rows, int64_t) {
    std::memcpy(to, at, size_t(rows * s.run_));
    at += rows * s.run_;
  });
  s.rows_ = h.rows;
  return made;
}

std::vector<void*> PagedState::page_table() const {
  std::vector<void*> table;
  for (const PageRef& p : pages_) table.push_back(p->bytes.data());
  return table;
}

}  // namespace ai_vmm
