#include "install.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace AIRamp::Command {
namespace {

constexpr const char* kPreload = "/etc/ld.so.preload";
constexpr const char* kSettings = "/etc/airamp.conf";

int complain(const std::string& message) {
  std::fprintf(stderr, "airamp: %s\n", message.c_str());
  return 2;
}

// The first part of the path that somebody other than root could change; empty: none.
std::string changeable(std::filesystem::path path) {
  for (;; path = path.parent_path()) {
    struct stat info = {};
    if (stat(path.c_str(), &info) != 0 || info.st_uid != 0 || (info.st_mode & 022)) return path;
    if (path == path.root_path()) return {};
  }
}

// All of it or nothing, also when the machine stops in between.
bool write_whole(const std::string& file, const std::string& text) {
  std::string part = file + ".airamp";
  std::ofstream out(part, std::ios::trunc);
  out << text;
  out.close();
  return out && chmod(part.c_str(), 0644) == 0 && rename(part.c_str(), file.c_str()) == 0;
}

}  // namespace

int install(const std::string& library, const std::vector<std::string>& arguments, bool remove) {
  std::string settings =
      "# Programs that libairamp.so works in when it is loaded through /etc/ld.so.preload, by the names of their "
      "files.\n";
  bool system = false;
  for (const std::string& a : arguments) {
    bool allow = a.rfind("--allow=", 0) == 0, deny = a.rfind("--deny=", 0) == 0;
    if (a == "--system") {
      system = true;
    } else if ((allow || deny) && !remove) {
      settings += (allow ? "allow = " : "deny = ") + a.substr(a.find('=') + 1) + "\n";
    } else {
      return complain("The option " + a + " is not known; airamp --help lists the options.");
    }
  }
  if (!system)
    return complain("Only --system is there to install; a single program is started with: airamp run -- PROGRAM");
  if (geteuid() != 0) return complain(std::string(kPreload) + " can only be changed by root.");
  if (!remove && library.empty()) return complain("libairamp.so was not found beside this command.");
  if (std::string part = remove ? "" : changeable(library); !part.empty())
    return complain("The library " + library + " is not put into every program: " + part +
                    " can be changed by others than root. Install it first: make install");
  std::string lines;
  std::ifstream in(kPreload);
  for (std::string line; std::getline(in, line);)
    if (line.find("libairamp.so") == std::string::npos) lines += line + "\n";
  if (!remove) lines += library + "\n";
  in.close();
  bool done = remove ? (unlink(kSettings) == 0 || errno == ENOENT) : write_whole(kSettings, settings);
  if (done && lines.empty()) {
    done = unlink(kPreload) == 0 || errno == ENOENT;
  } else if (done) {
    done = write_whole(kPreload, lines);
  }
  if (!done) return complain(std::string("The files under /etc cannot be written: ") + std::strerror(errno) + ".");
  std::printf("libairamp.so is %s every program that starts from now on.\n",
              remove ? "no longer put into" : "put into");
  return 0;
}

}  // namespace AIRamp::Command
