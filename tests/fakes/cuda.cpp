// A fake libcuda.so.1.
#include "fake.hpp"

namespace {
auto list() { return fake::devices("FAKE_CUDA"); }
}  // namespace

FAKE int cuInit(unsigned) { return fake::start("FAKE_CUDA"); }
FAKE int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
FAKE int cuDeviceGetCount(int* count) { return *count = int(list().size()), 0; }
FAKE int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, 0; }
FAKE int cuDeviceGetName(char* name, int size, int) {
  return std::snprintf(name, size_t(size), "NVIDIA Fake (test library)"), 0;
}
FAKE int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = size_t(80) << 30, 0; }
FAKE int cuDeviceGetPCIBusId(char* text, int size, int device) {
  auto a = list()[size_t(device)];
  if (!a.told) return 1;
  return std::snprintf(text, size_t(size), "%04X:%02X:%02X.%X", a.domain, a.bus, a.device, a.function), 0;
}
FAKE int cuDeviceGetAttribute(int* value, int attribute, int) { return *value = attribute == 75 ? 9 : 0, 0; }
FAKE int cuDeviceGetUuid(unsigned char* uuid, int device) { return fake::uuid_of(list()[size_t(device)], uuid), 0; }
FAKE int cuGetErrorName(int, const char** text) { return *text = "CUDA_ERROR_FAKE", 0; }
FAKE int cuGetErrorString(int, const char** text) { return *text = "as the test asked", 0; }
