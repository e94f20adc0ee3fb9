// A fake libnvidia-ml.so.1.
#include "fake.hpp"

namespace {
auto list() { return fake::devices("FAKE_NVML"); }
fake::Address at(void* handle) { return list()[reinterpret_cast<size_t>(handle) - 1]; }
struct Pci {
  char legacy[16];
  unsigned domain, bus, device, id, subsystem;
  char bus_id[32];
};
int say(char* to, unsigned size, const char* text) { return std::snprintf(to, size, "%s", text), 0; }
}  // namespace

FAKE int nvmlInit_v2() { return fake::start("FAKE_NVML"); }
FAKE int nvmlShutdown() { return 0; }
FAKE int nvmlSystemGetDriverVersion(char* to, unsigned size) { return say(to, size, "580.1.fake"); }
FAKE int nvmlDeviceGetCount_v2(unsigned* count) { return *count = unsigned(list().size()), 0; }
FAKE int nvmlDeviceGetHandleByIndex_v2(unsigned i, void** handle) {
  return *handle = reinterpret_cast<void*>(size_t(i) + 1), 0;
}
FAKE int nvmlDeviceGetName(void*, char* to, unsigned size) { return say(to, size, "NVIDIA Fake (test library)"); }
FAKE int nvmlDeviceGetUUID(void*, char* to, unsigned size) {
  return say(to, size, "GPU-fafafafa-fafa-fafa-fafa-fafafafafafa");
}
FAKE int nvmlDeviceGetSerial(void*, char*, unsigned) { return 3; }  // not supported, as on consumer cards
FAKE int nvmlDeviceGetVbiosVersion(void*, char* to, unsigned size) { return say(to, size, "96.00.fake"); }
FAKE int nvmlDeviceGetPciInfo_v3(void* handle, Pci* pci) {
  auto a = at(handle);
  return std::snprintf(pci->bus_id, sizeof pci->bus_id, "%08X:%02X:%02X.%X", a.domain, a.bus, a.device, a.function), 0;
}
FAKE int nvmlDeviceGetMemoryInfo(void*, unsigned long long* total_free_used) {
  return total_free_used[0] = 81ull << 30, 0;
}
FAKE const char* nvmlErrorString(int) { return "as the test asked"; }
