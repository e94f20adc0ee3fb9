#include "mpi_library.hpp"

#include <string.h>

#include "elf.hpp"
#include "library.hpp"

namespace AIRamp::Interposer {
namespace {

MpiLibrary find_library() {
  MpiLibrary m;
  elf::Object object;
  if (!elf::find("PMPI_Allreduce", &object)) {
    m.why_not = "no MPI library is loaded";
    return m;
  }
#define X(name, ...)                                                                \
  m.name = reinterpret_cast<decltype(m.name)>(elf::find_in(object, "PMPI_" #name)); \
  if (!m.name) m.why_not = "the MPI library lacks PMPI_" #name;
  AIRAMP_MPI_FUNCTIONS(X)
#undef X
  if (m.why_not) return m;

  // Open MPI's handles are the addresses of these variables.
  auto variable = [&](const char* name) { return reinterpret_cast<Handle>(elf::find_variable(object, name)); };
  m.comm_world = variable("ompi_mpi_comm_world");
  if (m.comm_world) {
    m.is_open_mpi = true;
    m.comm_null = variable("ompi_mpi_comm_null");
    m.float32 = variable("ompi_mpi_float");
    m.real = variable("ompi_mpi_real");
    m.real4 = variable("ompi_mpi_real4");
    m.float64 = variable("ompi_mpi_double");
    m.uint16 = variable("ompi_mpi_unsigned_short");
    m.sum = variable("ompi_mpi_op_sum");
    m.min = variable("ompi_mpi_op_min");
    m.errors_return = variable("ompi_mpi_errors_return");
    m.in_place = reinterpret_cast<void*>(1);
    if (!m.comm_null || !m.float32 || !m.float64 || !m.uint16 || !m.sum || !m.min || !m.errors_return)
      m.why_not = "this Open MPI lacks one of its predefined handles";
    return m;
  }

  // MPICH's binary interface, which Intel's and others' libraries share, has fixed numbers.
  char version[8192];
  int size = 0;
  version[0] = 0;
  m.Get_library_version(version, &size);
  bool known = strncmp(version, "MPICH", 5) == 0 || strstr(version, "Intel(R) MPI Library") != nullptr;
  if (!known || !object.path || !strstr(object.path, "libmpi.so")) {
    m.why_not = "the MPI library is neither Open MPI nor of MPICH's binary interface";
    return m;
  }
  m.comm_world = 0x44000000;
  m.comm_null = 0x04000000;
  m.float32 = 0x4c00040a;
  m.real = 0x4c00041c;
  m.real4 = 0x4c000427;
  m.float64 = 0x4c00080b;
  m.uint16 = 0x4c000204;
  m.sum = 0x58000003;
  m.min = 0x58000002;
  m.errors_return = 0x54000001;
  m.in_place = reinterpret_cast<void*>(-1);
  m.statuses_ignore = reinterpret_cast<void*>(1);
  m.handle_size = 4;
  return m;
}

}  // namespace

const MpiLibrary& mpi() {
  static MpiLibrary library;
  static std::atomic<int> stage;  // 0: nobody has looked, 1: somebody looks, 2: there
  int expected = 0;
  if (stage.load(std::memory_order_acquire) == 2) return library;
  if (stage.compare_exchange_strong(expected, 1)) {
    library = find_library();
    stage.store(2, std::memory_order_release);
  }
  while (stage.load(std::memory_order_acquire) != 2) continue;
  return library;
}

}  // namespace AIRamp::Interposer
