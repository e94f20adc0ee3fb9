#pragma once

#include "library.hpp"

// What happens to hooked MPI calls. Handlers get the real function first.
namespace AIRamp::Interposer {

int on_init(MPI_Init_t* function, int* argc, char*** argv);
int on_init_thread(MPI_Init_thread_t* function, int* argc, char*** argv, int required, int* provided);
int on_finalize(MPI_Finalize_t* function);
int on_pmix_commit(PMIx_Commit_t* function);

int on_allreduce(MPI_Allreduce_t* function, const void* send, void* receive, int count, Handle type, Handle op,
                 Handle comm);
int on_allreduce_c(MPI_Allreduce_c_t* function, const void* send, void* receive, Count count, Handle type, Handle op,
                   Handle comm);
int on_allgather(MPI_Allgather_t* function, const void* send, int send_count, Handle send_type, void* receive,
                 int receive_count, Handle receive_type, Handle comm);
int on_allgather_c(MPI_Allgather_c_t* function, const void* send, Count send_count, Handle send_type, void* receive,
                   Count receive_count, Handle receive_type, Handle comm);

// Calls that return before their work is done.
template <Call call, class F, class... Arguments>
int on_deferred(F* function, Arguments... arguments) {
  if (options.wire != Wire::kOff) passed(call, "non-blocking and persistent calls are not compressed");
  return function(arguments...);
}

}  // namespace AIRamp::Interposer
