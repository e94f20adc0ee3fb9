#pragma once

#include "calls.hpp"
#include "gpu.hpp"

// The NCCL or RCCL of the process: what compressed collectives call of it, and the constants of its binary interface,
// which both share.
namespace AIRamp::Interposer {

#define AIRAMP_NCCL_FUNCTIONS(X)                                                    \
  X(GroupStart, int())                                                              \
  X(GroupEnd, int())                                                                \
  X(Send, int(const void*, std::size_t, int, int, NcclComm, void*))                 \
  X(Recv, int(void*, std::size_t, int, int, NcclComm, void*))                       \
  X(AllReduce, int(const void*, void*, std::size_t, int, int, NcclComm, void*))     \
  X(AllGather, int(const void*, void*, std::size_t, int, NcclComm, void*))          \
  X(ReduceScatter, int(const void*, void*, std::size_t, int, int, NcclComm, void*)) \
  X(CommCount, int(NcclComm, int*))                                                 \
  X(CommUserRank, int(NcclComm, int*))                                              \
  X(CommCuDevice, int(NcclComm, int*))                                              \
  X(GetVersion, int(int*))

// Results, types and operations.
constexpr int kNcclSuccess = 0, kNcclUnhandledDeviceError = 1, kNcclSystemError = 2, kNcclInProgress = 7;
constexpr int kNcclBytes = 1, kNcclFloat32 = 7, kNcclFloat64 = 8, kNcclBfloat16 = 9;
constexpr int kNcclSum = 0, kNcclMin = 3, kNcclAverage = 4;

struct NcclLibrary {
  const char* why_not = nullptr;  // why its calls pass through
  Vendor vendor = Vendor::kNvidia;

  template <class F>
  using Function = F*;
#define X(name, ...) Function<__VA_ARGS__> name = nullptr;
  AIRAMP_NCCL_FUNCTIONS(X)
#undef X
};

// Finds the library on the first call. Ask `why_not` before anything else of it.
const NcclLibrary& nccl();

}  // namespace AIRamp::Interposer
