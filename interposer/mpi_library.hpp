#pragma once

#include "calls.hpp"

// The MPI library of the process: its functions under their profiling names, and the constants of its binary interface.
namespace AIRamp::Interposer {

#define AIRAMP_MPI_FUNCTIONS(X)                                                                            \
  X(Comm_size, int(Handle, int*))                                                                          \
  X(Comm_rank, int(Handle, int*))                                                                          \
  X(Comm_test_inter, int(Handle, int*))                                                                    \
  X(Comm_group, int(Handle, Handle*))                                                                      \
  X(Group_translate_ranks, int(Handle, int, const int*, Handle, int*))                                     \
  X(Group_free, int(Handle*))                                                                              \
  X(Comm_split, int(Handle, int, int, Handle*))                                                            \
  X(Comm_free, int(Handle*))                                                                               \
  X(Comm_create_keyval,                                                                                    \
    int(int (*)(Handle, int, void*, void*, void*, int*), int (*)(Handle, int, void*, void*), int*, void*)) \
  X(Comm_set_attr, int(Handle, int, void*))                                                                \
  X(Comm_get_attr, int(Handle, int, void*, int*))                                                          \
  X(Comm_set_errhandler, int(Handle, Handle))                                                              \
  X(Comm_call_errhandler, int(Handle, int))                                                                \
  X(Type_size, int(Handle, int*))                                                                          \
  X(Get_library_version, int(char*, int*))                                                                 \
  X(Op_create, int(void (*)(void*, void*, int*, Handle*), int, Handle*))                                   \
  X(Isend, int(const void*, int, Handle, int, int, Handle, Handle*))                                       \
  X(Irecv, int(void*, int, Handle, int, int, Handle, Handle*))                                             \
  X(Testall, int(int, Handle*, int*, void*))                                                               \
  X(Allreduce, int(const void*, void*, int, Handle, Handle, Handle))                                       \
  X(Reduce_scatter, int(const void*, void*, const int*, Handle, Handle, Handle))

struct MpiLibrary {
  bool is_open_mpi = false;       // otherwise MPICH's binary interface
  const char* why_not = nullptr;  // why its calls pass through; nullptr: it is understood

  template <class F>
  using Function = F*;
#define X(name, ...) Function<__VA_ARGS__> name = nullptr;
  AIRAMP_MPI_FUNCTIONS(X)
#undef X

  Handle comm_world = 0, comm_null = 0, float32 = 0, real = 0, real4 = 0, float64 = 0, uint16 = 0, sum = 0;
  Handle min = 0, errors_return = 0;
  void* in_place = nullptr;
  void* statuses_ignore = nullptr;

  // A request takes 4 bytes in arrays of MPICH and 8 in Open MPI.
  std::size_t handle_size = sizeof(void*);

  // Upper halves of registers that hold an int are undefined.
  Handle clean(Handle h) const { return is_open_mpi ? h : h & 0xffffffffu; }
};

// Finds the library on the first call. Ask `why_not` before anything else of it.
const MpiLibrary& mpi();

}  // namespace AIRamp::Interposer
