// A fake libamdhip64.so.6.
#include "fake.hpp"

namespace {
auto list() { return fake::devices("FAKE_HIP"); }
}  // namespace

FAKE int hipInit(unsigned) { return fake::start("FAKE_HIP"); }
FAKE int hipRuntimeGetVersion(int* version) { return *version = 60443483, 0; }
FAKE int hipGetDeviceCount(int* count) { return *count = int(list().size()), 0; }
FAKE int hipDeviceGet(int* device, int ordinal) { return *device = ordinal, 0; }
FAKE int hipDeviceGetName(char* name, int size, int) {
  return std::snprintf(name, size_t(size), "AMD Fake (test library)"), 0;
}
FAKE int hipDeviceTotalMem(size_t* bytes, int) { return *bytes = size_t(64) << 30, 0; }
FAKE int hipDeviceGetPCIBusId(char* text, int size, int device) {
  auto a = list()[size_t(device)];
  if (!a.told) return 1;
  return std::snprintf(text, size_t(size), "%04x:%02x:%02x.%x", a.domain, a.bus, a.device, a.function), 0;
}
FAKE int hipDeviceGetUuid(char* uuid, int) { return std::memcpy(uuid, "fa0123456789abcd", 16), 0; }
FAKE const char* hipGetErrorName(int) { return "hipErrorFake"; }
FAKE const char* hipGetErrorString(int) { return "as the test asked"; }
