// A fake libopenvino_c.so: CPU, and a GPU and an NPU where FAKE_OPENVINO gives their addresses, in this order.
#include "fake.hpp"

namespace {
auto list() { return fake::devices("FAKE_OPENVINO"); }
struct Version {
  const char *build, *description;
};
struct Devices {
  char** names;
  size_t count;
};
}  // namespace

FAKE int ov_get_openvino_version(Version* v) { return *v = {"2026.4.fake", "fake"}, 0; }
FAKE void ov_version_free(Version*) {}
FAKE int ov_core_create(void** core) { return *core = core, fake::start("FAKE_OPENVINO"); }
FAKE void ov_core_free(void*) {}
FAKE int ov_core_get_available_devices(const void*, Devices* devices) {
  static char cpu[] = "CPU", gpu[] = "GPU.0", npu[] = "NPU";
  static char* names[] = {cpu, gpu, npu};
  return *devices = {names, 1 + list().size()}, 0;
}
FAKE void ov_available_devices_free(Devices*) {}
FAKE int ov_core_get_property(const void*, const char* device, const char* key, char** value) {
  const std::string d = device, k = key;
  char text[128] = "";
  if (k == "FULL_DEVICE_NAME") std::snprintf(text, sizeof text, "Intel Fake %s", device);
  if (k == "DEVICE_PCI_INFO" && d != "CPU") {
    auto a = list()[d == "NPU" ? 1 : 0];
    std::snprintf(text, sizeof text, "{domain: %u bus: %u device: 0x%x function: %u}", a.domain, a.bus, a.device,
                  a.function);
  }
  if (!*text) return -1;
  return *value = strdup(text), 0;
}
FAKE void ov_free(const char* text) { std::free(const_cast<char*>(text)); }
