// A tensor that grows along one axis, such as cached keys of a language model. Its rows lie in pages; copies share
// pages until one of them writes to them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "ai_vmm/types.hpp"

namespace ai_vmm {

class PagedState {
 public:
  static constexpr int64_t kPageRows = 16;

  // Whose memory the pages are.
  class Account {
   public:
    virtual ~Account() = default;
    virtual Status charge(int64_t bytes) = 0;
    virtual void release(int64_t bytes) = 0;
  };

  // `dims[axis]` is the capacity in rows.
  static Result<PagedState> make(std::shared_ptr<Account> account, DType dtype, int32_t axis, Shape dims);

  DType dtype() const { return dtype_; }
  int32_t axis() const { return axis_; }
  const Shape& dims() const { return dims_; }
  Shape shape() const;  // of the rows so far
  int64_t rows() const { return rows_; }
  int64_t capacity() const { return dims_[size_t(axis_)]; }
  int64_t own_bytes() const;  // of pages that no copy shares

  // Rows of the state's type, and of its shape but for the axis, dense. Nothing changes when it fails.
  Status append(DType dtype, std::span<const int64_t> shape, const void* data);
  // Of a tensor of any length along the axis: its rows from `first` on.
  Status append_from(DType dtype, std::span<const int64_t> shape, const void* data, int64_t first);
  Status truncate(int64_t rows);
  // Rows [begin, begin + n), dense.
  Status read(int64_t begin, int64_t n, void* data) const;

  // The content as bytes, in pieces, that restore takes.
  Status snapshot(const std::function<Status(const void* bytes, size_t size)>& put) const;
  static Result<PagedState> restore(std::shared_ptr<Account> account, const void* bytes, uint64_t size);

  std::vector<void*> page_table() const;

 private:
  struct Page {
    std::shared_ptr<Account> account;
    std::vector<char> bytes;
    ~Page() { account->release(int64_t(bytes.size())); }
  };
  using PageRef = std::shared_ptr<Page>;
  static Result<PageRef> new_page(const std::shared_ptr<Account>& account, int64_t bytes);
  Status reserve(int64_t more);
  // Calls move(place of the rows in a page, row, rows, outer index) for all rows of [begin, begin + n).
  template <class F>
  void each_piece(int64_t begin, int64_t n, F&& move) const;

  std::shared_ptr<Account> account_;
  DType dtype_ = DType::undefined;
  int32_t axis_ = 0;
  Shape dims_;
  int64_t outer_ = 1, run_ = 0, rows_ = 0;  // a row is `outer` runs of `run` bytes; a page holds them outer by outer
  std::vector<PageRef> pages_;
};

}  // namespace ai_vmm
