#pragma once

#include "library.hpp"

// What happens to hooked calls of NCCL and RCCL. Handlers get the real function first.
namespace AIRamp::Interposer {

int on_nccl_unique_id(ncclGetUniqueId_t* function, NcclId* id);
int on_nccl_init(ncclCommInitRank_t* function, NcclComm* comm, int ranks, NcclId id, int rank);
int on_nccl_init(ncclCommInitRankConfig_t* function, NcclComm* comm, int ranks, NcclId id, int rank, void* config);
int on_nccl_init_all(ncclCommInitAll_t* function, NcclComm* comms, int count, const int* devices);
int on_nccl_split(ncclCommSplit_t* function, NcclComm comm, int color, int key, NcclComm* child, void* config);
int on_nccl_destroy(ncclCommDestroy_t* function, NcclComm comm);
int on_nccl_abort(ncclCommAbort_t* function, NcclComm comm);
int on_nccl_window(ncclCommWindowRegister_t* function, NcclComm comm, void* memory, size_t size, void** window,
                   int flags);
int on_nccl_group_start(ncclGroupStart_t* function);
int on_nccl_group_end(ncclGroupEnd_t* function);
int on_nccl_group_simulate_end(ncclGroupSimulateEnd_t* function, void* info);
int on_nccl_all_reduce(ncclAllReduce_t* function, const void* send, void* receive, size_t count, int type, int op,
                       NcclComm comm, void* stream);
int on_nccl_all_gather(ncclAllGather_t* function, const void* send, void* receive, size_t count, int type,
                       NcclComm comm, void* stream);

}  // namespace AIRamp::Interposer
