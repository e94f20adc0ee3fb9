#pragma once

#include <string>
#include <vector>

// What can be said of a program before it runs.
namespace AIRamp::Command {

struct Program {
  std::string path;                // found along PATH
  std::string not_hookable;        // why nothing in it can be hooked; empty: it can be
  bool preload_breaks = false;     // its dynamic linker would stop at libairamp.so
  bool open_mpi_launcher = false;  // Open MPI's mpirun, mpiexec, orterun or prterun
};

// Looks at the file that `name` names, and at the interpreter of a script.
Program examine(const std::string& name);

// The arguments of Open MPI's launcher with what makes it hand `variables` to ranks on other hosts: options -x, or,
// where the user has a mca_base_env_list, by extending that; both together end mpirun. The list may stand in the
// environment.
std::vector<std::string> with_forwarding(std::vector<std::string> arguments, const std::vector<std::string>& variables);

}  // namespace AIRamp::Command
