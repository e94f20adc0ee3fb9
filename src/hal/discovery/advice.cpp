#include "hal/discovery/advice.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/text.hpp"

namespace ai_vmm {

namespace {
// Error numbers of cuInit, after NVIDIA's manual.
constexpr int64_t kCudaNoDevice = 100, kCudaNotReady = 802, kCudaDriverMismatch = 803;

bool older_than(const std::string& kernel, int major, int minor) {
  int a = 0, b = 0;
  return std::sscanf(kernel.c_str(), "%d.%d", &a, &b) == 2 && (a < major || (a == major && b < minor));
}

// One accelerator's case: its obstacles, in the order in which they must be removed. Later ones are of no interest
// while an earlier one stands.
class Case {
 public:
  Case(Accelerator& a, const Machine& machine, const Tree& tree) : a_(a), machine_(machine), tree_(tree) {}

  void examine() {
    if (a_.kind == DeviceKind::processor || !a_.vendor_id) return;
    if (a_.by_system && held()) return;
    switch (*a_.vendor_id) {
      case 0x10de: return nvidia();
      case 0x1002: return amd_gpu();
      case 0x1022: return amd_npu();
      case 0x8086: return a_.kind == DeviceKind::npu ? intel_npu() : intel_gpu();
      case 0x1da3: return other("habanalabs", "6.2", "SynapseAI");
      case 0x17cb: return other("qaic", "6.4", "the Cloud AI platform SDK");
      default: return other("", "", "its vendor's software");
    }
  }

 private:
  void say(std::string problem, std::string remedy) { a_.advice.push_back({std::move(problem), std::move(remedy)}); }

  const RuntimeReport* report(Runtime runtime) const {
    auto r = std::find_if(machine_.runtimes.begin(), machine_.runtimes.end(),
                          [&](const RuntimeReport& report) { return report.runtime == runtime; });
    return r == machine_.runtimes.end() ? nullptr : &*r;
  }
  bool seen_by(Runtime runtime) const {
    return std::any_of(a_.seen.begin(), a_.seen.end(), [&](const auto& s) { return s.runtime == runtime; });
  }

  bool held() {
    if (a_.driver != "vfio-pci" && a_.driver != "pci-stub" && a_.driver != "xen-pciback") return false;
    say("It is held for virtual machines by the driver " + a_.driver + ".",
        "Use it inside the virtual machine that it is given to, or bind it to its own driver again.");
    return true;
  }

  // Obstacles at the device nodes; true when there is one.
  bool nodes() {
    for (const DeviceNode& n : a_.nodes) {
      if (n.usable) continue;
      if (!n.exists)
        say(n.path + " does not exist, although the kernel has the device.",
            a_.driver == "nvidia"
                ? "Run `nvidia-smi` once as root, which makes it; start a container with `--gpus all` (NVIDIA "
                  "Container Toolkit)."
                : "In a container, start it with `--device " + n.path + "`; otherwise see that udev runs.");
      else if (n.group.empty() || n.group == "root")
        say(n.path + " may not be read and written by this user.",
            "Give a group the right to, by a udev rule such as KERNEL==\"" + n.path.substr(n.path.rfind('/') + 1) +
                "\", GROUP=\"render\", MODE=\"0660\", and join that group.");
      else
        say(n.path + " may be used by the group " + n.group + " only, and this user is not in it.",
            "`sudo usermod -aG " + n.group + " $USER`, then log in again; start a container with `--group-add " +
                n.group + "`.");
      return true;
    }
    return false;
  }

  // Whether `runtime` reports the device; if not, why. `package`: what brings its library.
  bool reported(Runtime runtime, const char* package, const char* hidden_by) {
    const RuntimeReport* r = report(runtime);
    if (!r || seen_by(runtime)) return true;
    const std::string who = name(runtime);
    if (!r->present) {
      say(who + " is not installed: " + r->problem, std::string("Install ") + package + ".");
    } else if (!r->answered) {
      say(who + " is installed and does not work: " + r->problem,
          "See that its version fits the kernel driver" + (a_.driver_version.empty() ? "" : " " + a_.driver_version) +
              ".");
    } else if (const char* value = hidden_by ? std::getenv(hidden_by) : nullptr) {
      say(who + " works and does not report it: the environment variable " + hidden_by + " is \"" + value + "\".",
          std::string("Unset ") + hidden_by + ", or list the device in it.");
    } else {
      say(who + " works and does not report it.", "Look for the reason in the kernel's log (`dmesg`).");
    }
    return false;
  }

  void nvidia() {
    const char* install =
        "Install NVIDIA's driver (Debian: nvidia-driver, from non-free; Ubuntu: `ubuntu-drivers install`), then "
        "restart.";
    if (a_.by_system && a_.driver.empty()) return say("The kernel has no driver for it.", install);
    if (a_.by_system && a_.driver != "nvidia")
      return say("The driver " + a_.driver + " drives it, through which CUDA cannot reach it.", install);
    if (nodes()) return;
    if (const RuntimeReport* r = report(Runtime::cuda); r && r->error && !seen_by(Runtime::cuda)) {
      const std::string problem = "CUDA is installed and does not work: " + r->problem;
      if (r->error == kCudaDriverMismatch)
        return say(problem,
                   "libcuda.so.1 and the loaded kernel driver are of different versions: restart the machine.");
      if (r->error == kCudaNotReady)
        return say(problem, "Start NVIDIA's fabric manager: `sudo systemctl start nvidia-fabricmanager`.");
      if (const char* value = std::getenv("CUDA_VISIBLE_DEVICES"); value && r->error == kCudaNoDevice)
        return say(problem,
                   "The environment variable CUDA_VISIBLE_DEVICES is \"" + std::string(value) + "\": unset it.");
    }
    reported(Runtime::cuda,
             "libcuda1 (Debian) or libnvidia-compute of the driver's version (Ubuntu); give a container "
             "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
             "CUDA_VISIBLE_DEVICES");
  }

  void amd_gpu() {
    if (a_.by_system && a_.driver.empty())
      return say("The kernel has no driver for it.",
                 "Load amdgpu (`sudo modprobe amdgpu`); it needs the firmware of the package firmware-amd-graphics "
                 "(Debian) or linux-firmware.");
    if (a_.by_system && a_.driver != "amdgpu")
      return say("The driver " + a_.driver + " drives it, which cannot compute.",
                 "Start the kernel with radeon.cik_support=0 amdgpu.cik_support=1 (or si_support, for the oldest).");
    if (nodes()) return;
    if (a_.by_system &&
        std::none_of(a_.nodes.begin(), a_.nodes.end(), [](const auto& n) { return n.path == "/dev/kfd"; }))
      return say("The kernel's compute driver (kfd) does not list it.",
                 "Use a kernel with CONFIG_HSA_AMD; cards older than Vega are not supported by ROCm.");
    reported(Runtime::hip, "AMD's HIP runtime (Debian: libamdhip64-5; ROCm: hip-runtime-amd)", "HIP_VISIBLE_DEVICES");
  }

  void intel_gpu() {
    if (a_.by_system && a_.driver.empty())
      return say("The kernel has no driver for it.",
                 "Use a newer kernel, whose i915 or xe knows it, with the firmware of linux-firmware (Debian: "
                 "firmware-misc-nonfree).");
    if (nodes() || seen_by(Runtime::level_zero) || seen_by(Runtime::opencl) || seen_by(Runtime::openvino)) return;
    const RuntimeReport* r = report(Runtime::level_zero);
    if (r && !(r->answered && !r->devices.empty()))
      return say("Neither Level Zero nor OpenCL reports it: " + r->problem,
                 "Install Intel's compute runtime: intel-opencl-icd and libze1 (Debian), libze-intel-gpu1 (newer).");
    reported(Runtime::level_zero, "libze1", "ZE_AFFINITY_MASK");
  }

  void intel_npu() {
    if (a_.by_system && a_.driver.empty()) {
      if (older_than(machine_.kernel, 6, 3))
        return say("The kernel " + machine_.kernel + " has no driver for it.",
                   "Use Linux 6.3 or newer, where intel_vpu came.");
      if (!tree_.resolve("/lib/firmware/intel/vpu"))
        return say("The driver intel_vpu does not drive it, and its firmware (/lib/firmware/intel/vpu) is missing.",
                   "Install the firmware: linux-firmware (Ubuntu, Fedora), firmware-intel-misc or "
                   "firmware-misc-nonfree (Debian).");
      return say("The driver intel_vpu does not drive it.",
                 "`sudo modprobe intel_vpu`, and look for its messages in `dmesg`.");
    }
    if (nodes()) return;
    reported(Runtime::level_zero, "libze1 and Intel's NPU driver for user space (intel-level-zero-npu)",
             "ZE_AFFINITY_MASK");
  }

  void amd_npu() {
    if (a_.by_system && a_.driver.empty())
      return say("The kernel has no driver for it.",
                 "Use Linux 6.14 or newer, where amdxdna came, with the firmware in /lib/firmware/amdnpu.");
    if (nodes()) return;
    no_runtime("ONNX Runtime's VitisAI provider");
  }

  // Accelerators whose own interface AI VMM does not speak.
  void other(const std::string& driver, const std::string& since, const std::string& software) {
    if (a_.by_system && a_.driver.empty())
      return say("The kernel has no driver for it.", driver.empty() ? "Install its vendor's driver."
                                                                    : "Load " + driver + " (in Linux since " + since +
                                                                          "): `sudo modprobe " + driver + "`.");
    if (nodes()) return;
    no_runtime(software);
  }

  void no_runtime(const std::string& software) {
    if (a_.computes() || machine_.runtimes.empty()) return;
    say("No runtime that AI VMM asks reports it; programs reach it through " + software + ".",
        "It needs a backend plugin (docs/backend-interface.md).");
  }

  Accelerator& a_;
  const Machine& machine_;
  const Tree& tree_;
};
}  // namespace

void advise(Machine& machine, const Tree& tree) {
  for (Accelerator& a : machine.accelerators) Case(a, machine, tree).examine();
}

}  // namespace ai_vmm
