// The extension "states" of the simulated chips: pages that are charged to the chip.
#include <algorithm>

#include "backends/sim/extensions.hpp"
#include "kit/paged_state.hpp"

namespace ai_vmm::sim {

namespace {

using backend::guarded;

PagedState& of(AiVmmState* s) { return *reinterpret_cast<PagedState*>(s); }
AiVmmState* handle(PagedState state) { return reinterpret_cast<AiVmmState*>(new PagedState(std::move(state))); }
std::span<const int64_t> shape_of(const AiVmmTensor& t) { return {t.shape, size_t(t.rank)}; }

}  // namespace

bool is_state(const AiVmmTensor& t) { return t.device_type == AI_VMM_STATE_TENSOR && t.data; }

Result<Tensor> read_state(const AiVmmTensor& t) {
  const PagedState& s = of(static_cast<AiVmmState*>(t.data));
  const Shape shape = s.shape();
  if (!std::ranges::equal(shape, shape_of(t)) || t.dtype != int32_t(s.dtype()))
    return Status(Code::invalid_argument,
                  "The tensor's type or shape is not that of the state's " + std::to_string(s.rows()) + " rows.");
  Tensor dense = AI_VMM_TAKE(Tensor::make(s.dtype(), shape));
  AI_VMM_TRY(s.read(0, s.rows(), dense.mutable_data()));
  return dense;
}

Status append_to_state(const AiVmmTensor& t, const Tensor& rows) {
  return of(static_cast<AiVmmState*>(t.data)).append(rows.dtype(), rows.shape(), rows.data());
}

const AiVmmStates& states() {
  static const AiVmmStates table = [] {
    auto t = backend::make<AiVmmStates>();
    t.create = [](AiVmmDevice* d, const AiVmmStateShape* theirs, AiVmmState** out, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        AI_VMM_TRY(sim_device(d).alive());
        const AiVmmStateShape shape = backend::local(theirs);
        if (shape.rank < 1 || !shape.dims) return Status(Code::invalid_argument, "A state has at least one dimension.");
        *out = handle(AI_VMM_TAKE(PagedState::make(sim_device(d).silicon(), static_cast<DType>(shape.dtype), shape.axis,
                                                   {shape.dims, shape.dims + shape.rank})));
        return {};
      });
    };
    t.free = [](AiVmmState* s) { delete &of(s); };
    t.info = [](AiVmmState* state, AiVmmStateInfo* theirs, AiVmmStatus*) -> int32_t {
      const PagedState& s = of(state);
      auto i = backend::make<AiVmmStateInfo>();
      i.rows = s.rows();
      i.capacity = s.capacity();
      i.page_rows = PagedState::kPageRows;
      i.bytes = uint64_t(s.own_bytes());
      backend::publish(i, theirs);
      return 0;
    };
    t.append = [](AiVmmState* state, const AiVmmTensor* rows, AiVmmStatus* s) {
      return guarded(s, [&] {
        return of(state).append(static_cast<DType>(rows->dtype), shape_of(*rows), backend::data_of(*rows));
      });
    };
    t.truncate = [](AiVmmState* state, int64_t rows, AiVmmStatus* s) {
      return guarded(s, [&] { return of(state).truncate(rows); });
    };
    t.read = [](AiVmmState* state, int64_t begin, const AiVmmTensor* to, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        const PagedState& st = of(state);
        if (to->dtype != int32_t(st.dtype()) || size_t(to->rank) != st.dims().size())
          return Status(Code::invalid_argument, "The tensor differs from the state in element type or rank.");
        return st.read(begin, to->shape[st.axis()], static_cast<char*>(to->data) + to->byte_offset);
      });
    };
    t.fork = [](AiVmmState* state, AiVmmState** out, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        *out = handle(of(state));
        return {};
      });
    };
    t.snapshot = [](AiVmmState* state, int32_t (*write)(void*, const void*, uint64_t), void* user, AiVmmStatus* s) {
      return guarded(s, [&] {
        return of(state).snapshot([&](const void* bytes, size_t size) -> Status {
          if (size == 0 || write(user, bytes, size) == 0) return {};
          return Status(Code::aborted, "The snapshot was not taken: its receiver refused it.");
        });
      });
    };
    t.restore = [](AiVmmDevice* d, const void* bytes, uint64_t size, AiVmmState** out, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        AI_VMM_TRY(sim_device(d).alive());
        *out = handle(AI_VMM_TAKE(PagedState::restore(sim_device(d).silicon(), bytes, size)));
        return {};
      });
    };
    t.page_table = [](AiVmmState* state, uint64_t capacity, void** pages, uint64_t* count, AiVmmStatus*) -> int32_t {
      const auto table_of = of(state).page_table();
      *count = table_of.size();
      std::copy_n(table_of.begin(), std::min<uint64_t>(capacity, *count), pages);
      return 0;
    };
    return t;
  }();
  return table;
}

}  // namespace ai_vmm::sim
