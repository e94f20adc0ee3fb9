// Test only: a machine's /sys, /proc, /dev and /etc in a temporary folder, made from a description with one fact a
// line:
//
//   pci 0000:3b:00.0 vendor=0x10de device=0x2330 class=0x030200 driver=nvidia numa_node=1 iommu_group=7 FILE=TEXT…
//   drm 0000:3b:00.0 card0 renderD128         class entries with their nodes under /dev/dri
//   accel 0000:3b:00.0 accel0                 the same under /dev/accel
//   platform fdab0000.npu driver=rocket       a device that is not on PCI; drm and accel lines may name it
//   file /proc/sys/kernel/osrelease 6.12.0    "\n" is a new line
//   node /dev/kfd 0660                        a file in place of a device node
//   link /sys/x ../y        fifo /sys/z       remove /dev/dri/renderD128
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

namespace ai_vmm {

class FixtureTree {
 public:
  explicit FixtureTree(const std::string& description) {
    std::string pattern = (std::filesystem::temp_directory_path() / "machine.XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    std::filesystem::permissions(root_, std::filesystem::perms(0755));
    std::istringstream lines(description);
    for (std::string line; std::getline(lines, line);) add(line);
  }
  ~FixtureTree() {
    std::error_code none;
    std::filesystem::remove_all(root_, none);
  }
  FixtureTree(const FixtureTree&) = delete;

  const std::string& root() const { return root_; }
  std::string at(const std::string& path) const { return root_ + path; }

  void add(const std::string& line) {
    std::istringstream words(line);
    std::string verb, what, word;
    words >> verb >> what;
    if (verb == "pci" || verb == "platform") {
      const std::string place = "/sys/devices/" + std::string(verb == "pci" ? "pci0000:00/" : "platform/") + what;
      places_[what] = place;
      std::filesystem::create_directories(at(place));
      link("/sys/bus/" + verb + "/devices/" + what, at(place));
      while (words >> word) {
        std::string key = word.substr(0, word.find('=')), value = word.substr(word.find('=') + 1);
        if (key == "driver") {
          std::filesystem::create_directories(at("/sys/bus/" + verb + "/drivers/" + value));
          link(place + "/driver", at("/sys/bus/" + verb + "/drivers/" + value));
        } else if (key == "iommu_group") {
          std::filesystem::create_directories(at("/sys/kernel/iommu_groups/" + value));
          link(place + "/iommu_group", at("/sys/kernel/iommu_groups/" + value));
        } else if (key == "physfn") {
          link(place + "/physfn", at(places_.at(value)));
        } else {
          file(place + "/" + key, value);
        }
      }
    } else if (verb == "drm" || verb == "accel") {
      while (words >> word) {
        const std::string entry = places_.at(what) + "/" + verb + "/" + word;
        std::filesystem::create_directories(at(entry));
        link(entry + "/device", at(places_.at(what)));
        link("/sys/class/" + verb + "/" + word, at(entry));
        file((verb == "drm" ? "/dev/dri/" : "/dev/accel/") + word, "");
      }
    } else if (verb == "file") {
      std::string text;
      std::getline(words >> std::ws, text);
      for (size_t n = text.find("\\n"); n != text.npos; n = text.find("\\n", n)) text.replace(n, 2, "\n");
      file(what, text + "\n");
    } else if (verb == "node") {
      std::string mode = "0666";
      words >> mode;
      file(what, "");
      chmod(at(what).c_str(), mode_t(std::stoi(mode, nullptr, 8)));
    } else if (verb == "link") {
      words >> word;
      parents(what);
      std::filesystem::create_symlink(word, at(what));
    } else if (verb == "fifo") {
      parents(what);
      mkfifo(at(what).c_str(), 0666);
    } else if (verb == "remove") {
      std::filesystem::remove_all(at(what));
    }
  }

 private:
  void parents(const std::string& path) {
    std::filesystem::create_directories(std::filesystem::path(at(path)).parent_path());
  }
  void file(const std::string& path, const std::string& text) {
    parents(path);
    std::ofstream(at(path)) << text;
  }
  // Relative, as in the real sysfs, so that the tree can be moved.
  void link(const std::string& path, const std::string& target) {
    parents(path);
    std::filesystem::create_symlink(
        std::filesystem::path(target).lexically_relative(std::filesystem::path(at(path)).parent_path()), at(path));
  }

  std::string root_;
  std::map<std::string, std::string> places_;
};

}  // namespace ai_vmm
