// A toy in place of an MPI library: it carries some names of MPI, and counts. MPI_Allreduce calls MPI_Iallreduce through
// the dynamic linker, as vendors' libraries call their own public functions.

int toy_calls = 0;
int MPI_Iallreduce(const void* send, void* receive, int count, void* type, void* op, void* comm, void* request);

__attribute__((visibility("default"))) int MPI_Iallreduce(const void* send, void* receive, int count, void* type, void* op,
                                                          void* comm, void* request) {
  (void)send, (void)receive, (void)type, (void)op, (void)comm, (void)request;
  __atomic_add_fetch(&toy_calls, 1, __ATOMIC_RELAXED);
  return count + 1000;
}

int MPI_Allreduce(const void* send, void* receive, int count, void* type, void* op, void* comm) {
  __atomic_add_fetch(&toy_calls, 1, __ATOMIC_RELAXED);
  return MPI_Iallreduce(send, receive, count, type, op, comm, 0) + 1;
}

int MPI_Finalize(void) { return 0; }
