// A fake libOpenCL.so.1 with one platform for each way of telling the PCI address: the Khronos extension, NVIDIA's,
// AMD's.
#include <cstdint>

#include "fake.hpp"

namespace {
auto list() { return fake::devices("FAKE_OPENCL"); }
const char* const kNames[] = {"Fake Khronos", "NVIDIA Fake", "AMD Fake"};
size_t number(void* handle) { return reinterpret_cast<size_t>(handle) - 1; }  // platforms 0 to 2; devices likewise

int32_t give(const void* from, size_t bytes, size_t size, void* value, size_t* needed) {
  if (needed) *needed = bytes;
  if (!value) return 0;
  if (size < bytes) return -30;
  std::memcpy(value, from, bytes);
  return 0;
}
int32_t give(const char* text, size_t size, void* value, size_t* needed) {
  return give(text, std::strlen(text) + 1, size, value, needed);
}
}  // namespace

// Device k belongs to platform k modulo 3.
FAKE int32_t clGetPlatformIDs(uint32_t, void** platforms, uint32_t* count) {
  if (int error = fake::start("FAKE_OPENCL")) return error;
  if (count) *count = 3;
  for (size_t k = 0; platforms && k < 3; ++k) platforms[k] = reinterpret_cast<void*>(k + 1);
  return 0;
}
FAKE int32_t clGetPlatformInfo(void* platform, uint32_t what, size_t size, void* value, size_t* needed) {
  return give(what == 0x0902 ? kNames[number(platform)] : "OpenCL 3.0 fake", size, value, needed);
}
FAKE int32_t clGetDeviceIDs(void* platform, uint64_t, uint32_t, void** devices, uint32_t* count) {
  uint32_t n = 0;
  for (size_t k = number(platform); k < list().size(); k += 3, ++n)
    if (devices) devices[n] = reinterpret_cast<void*>(k + 1);
  if (count) *count = n;
  return n ? 0 : -1;
}
FAKE int32_t clGetDeviceInfo(void* device, uint32_t what, size_t size, void* value, size_t* needed) {
  auto a = list()[number(device)];
  size_t way = number(device) % 3;
  uint64_t type = 4, memory = uint64_t(16) << 30;
  switch (what) {
    case 0x1000: return give(&type, sizeof type, size, value, needed);
    case 0x101f: return give(&memory, sizeof memory, size, value, needed);
    case 0x102b: return give("Fake GPU (test library)", size, value, needed);
    case 0x102d: return give("1.0 fake", size, value, needed);
    case 0x106a: {
      unsigned char uuid[16];
      fake::uuid_of(a, uuid);
      return give(uuid, sizeof uuid, size, value, needed);
    }
  }
  if (!a.told) return -30;
  if (way == 0 && what == 0x410f) {
    uint32_t pci[4] = {a.domain, a.bus, a.device, a.function};
    return give(pci, sizeof pci, size, value, needed);
  }
  if (way == 1 && what >= 0x4008 && what <= 0x400a) {
    uint32_t nv[3] = {a.bus, a.device << 3 | a.function, a.domain};
    return give(&nv[what - 0x4008], 4, size, value, needed);
  }
  if (way == 2 && what == 0x4037) {
    unsigned char amd[24] = {1};
    amd[21] = static_cast<unsigned char>(a.bus);
    amd[22] = static_cast<unsigned char>(a.device);
    amd[23] = static_cast<unsigned char>(a.function);
    return give(amd, sizeof amd, size, value, needed);
  }
  return -30;
}
