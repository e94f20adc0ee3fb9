#include "program.hpp"

#include <elf.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace AIRamp::Command {
namespace {

std::string find_along_path(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* path = std::getenv("PATH");
  std::istringstream folders(path ? path : "/usr/local/bin:/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    std::string candidate = (folder.empty() ? "." : folder) + "/" + name;
    if (access(candidate.c_str(), X_OK) == 0 && !std::filesystem::is_directory(candidate)) return candidate;
  }
  return {};
}

template <class Header, class Segment>
std::string interpreter_of(const std::string& file) {
  Header header;
  std::memcpy(&header, file.data(), sizeof header);
  for (unsigned i = 0; i < header.e_phnum; i++) {
    std::size_t at = header.e_phoff + i * sizeof(Segment);
    if (at + sizeof(Segment) > file.size()) break;
    Segment segment;
    std::memcpy(&segment, file.data() + at, sizeof segment);
    if (segment.p_type == PT_INTERP && segment.p_offset + segment.p_filesz <= file.size() && segment.p_filesz > 0)
      return file.substr(segment.p_offset, segment.p_filesz - 1);
  }
  return {};
}

// This program's own header says what machine libairamp.so is for.
unsigned own_machine() {
  std::ifstream self("/proc/self/exe", std::ios::binary);
  Elf64_Ehdr header = {};
  self.read(reinterpret_cast<char*>(&header), sizeof header);
  return header.e_machine;
}

void examine_elf(const std::string& file, Program* program) {
  auto word = [&](std::size_t at) { return static_cast<unsigned>(static_cast<unsigned char>(file[at])); };
  if (file[EI_CLASS] != ELFCLASS64 || (word(18) | word(19) << 8) != own_machine()) {
    program->not_hookable = "it is built for another processor architecture than libairamp.so";
    return;
  }
  std::string interpreter = interpreter_of<Elf64_Ehdr, Elf64_Phdr>(file);
  if (interpreter.empty()) {
    program->not_hookable = "it is linked statically, so that there is no dynamic linker that would load libairamp.so";
  } else if (interpreter.find("ld-musl") != std::string::npos) {
    program->not_hookable = "it runs with musl, and libairamp.so is made for glibc";
    program->preload_breaks = true;
  }
}

}  // namespace

Program examine(const std::string& name) {
  Program program;
  program.path = find_along_path(name);
  std::string at = program.path;
  // A script's interpreter may be a script.
  for (int depth = 0; depth < 4 && !at.empty(); depth++) {
    std::ifstream in(at, std::ios::binary);
    std::string head(1 << 20, '\0');
    in.read(head.data(), static_cast<std::streamsize>(head.size()));
    head.resize(static_cast<std::size_t>(in.gcount()));
    struct stat info = {};
    bool special = stat(at.c_str(), &info) == 0 && ((info.st_mode & S_ISUID && info.st_uid != geteuid()) ||
                                                    (info.st_mode & S_ISGID && info.st_gid != getegid()));
    special |= getuid() != 0 && getxattr(at.c_str(), "security.capability", nullptr, 0) > 0;
    if (special)
      program.not_hookable =
          "it runs with more rights than its caller (setuid, setgid or file capabilities), which "
          "makes the dynamic linker ignore libairamp.so";
    if (head.size() >= sizeof(Elf64_Ehdr) && head.compare(0, 4, ELFMAG) == 0) {
      if (program.not_hookable.empty()) examine_elf(head, &program);
      std::string file = std::filesystem::weakly_canonical(at).filename();
      std::string called = std::filesystem::path(name).filename();
      bool launcher = called == "mpirun" || called == "mpiexec" || called == "orterun" || called == "prterun" ||
                      called.rfind("mpirun.", 0) == 0 || called.rfind("mpiexec.", 0) == 0;
      program.open_mpi_launcher =
          file == "orterun" || file == "prterun" || file == "mpirun.openmpi" ||
          (launcher && (head.find("open-rte") != std::string::npos || head.find("prterun") != std::string::npos));
      break;
    }
    if (head.compare(0, 2, "#!") != 0) break;
    std::istringstream line(head.substr(2, head.find('\n') - 2));
    std::string interpreter, argument;
    line >> interpreter >> argument;
    bool through_env =
        std::filesystem::path(interpreter).filename() == "env" && !argument.empty() && argument[0] != '-';
    at = through_env ? find_along_path(argument) : interpreter;
  }
  return program;
}

std::vector<std::string> with_forwarding(std::vector<std::string> arguments,
                                         const std::vector<std::string>& variables) {
  const char* in_environment = std::getenv("OMPI_MCA_mca_base_env_list");
  std::string* list = nullptr;
  for (std::size_t i = 1; i + 2 < arguments.size(); i++)
    if ((arguments[i] == "--mca" || arguments[i] == "-mca" || arguments[i] == "--gmca" || arguments[i] == "-gmca") &&
        arguments[i + 1] == "mca_base_env_list")
      list = &arguments[i + 2];
  std::vector<std::string> added;
  std::string extended;
  for (const std::string& variable : variables) {
    extended += ";" + variable;
    added.insert(added.end(), {"-x", variable});
  }
  if (list) {
    *list += extended;
  } else if (in_environment && *in_environment) {
    setenv("OMPI_MCA_mca_base_env_list", (in_environment + extended).c_str(), 1);
  } else {
    // The options are those of one program; a colon begins another one.
    for (std::size_t i = 0; i < arguments.size(); i++)
      if (i == 0 || arguments[i] == ":")
        arguments.insert(arguments.begin() + static_cast<std::ptrdiff_t>(i) + 1, added.begin(), added.end());
  }
  return arguments;
}

}  // namespace AIRamp::Command
