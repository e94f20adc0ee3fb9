// A fake libze_loader.so.1 with two drivers: GPUs at the addresses of FAKE_ZE_GPU, NPUs at those of FAKE_ZE_NPU. Byte
// offsets are those of the specification's structs on 64-bit machines.
#include <cstdint>

#include "fake.hpp"

namespace {
auto list(size_t driver) { return fake::devices(driver == 1 ? "FAKE_ZE_GPU" : "FAKE_ZE_NPU"); }
size_t driver_of(void* device) { return reinterpret_cast<size_t>(device) >> 8; }
fake::Address at(void* device) { return list(driver_of(device))[reinterpret_cast<size_t>(device) & 0xff]; }
template <class T>
void put(void* to, size_t offset, T value) {
  std::memcpy(static_cast<char*>(to) + offset, &value, sizeof value);
}
}  // namespace

FAKE unsigned zeInit(uint32_t) {
  return fake::script("FAKE_ZE_GPU").empty() && fake::script("FAKE_ZE_NPU").empty() ? 0x78000001u : 0;
}
FAKE unsigned zeDriverGet(uint32_t* count, void** drivers) {
  *count = 2;
  for (size_t k = 0; drivers && k < 2; ++k) drivers[k] = reinterpret_cast<void*>(k + 1);
  return 0;
}
FAKE unsigned zeDriverGetProperties(void*, void* p) { return put(p, 32, uint32_t(17002029)), 0; }
FAKE unsigned zeDeviceGet(void* driver, uint32_t* count, void** devices) {
  size_t d = reinterpret_cast<size_t>(driver);
  *count = uint32_t(list(d).size());
  for (size_t k = 0; devices && k < *count; ++k) devices[k] = reinterpret_cast<void*>(d << 8 | k);
  return 0;
}
FAKE unsigned zeDeviceGetProperties(void* device, void* p) {
  unsigned char uuid[16];
  fake::uuid_of(at(device), uuid);
  put(p, 16, uint32_t(driver_of(device) == 1 ? 1 : 5));
  std::memcpy(static_cast<char*>(p) + 96, uuid, 16);
  std::strcpy(static_cast<char*>(p) + 112, driver_of(device) == 1 ? "Intel Fake GPU" : "Intel Fake NPU");
  return 0;
}
FAKE unsigned zeDeviceGetMemoryProperties(void* device, uint32_t* count, void* p) {
  *count = driver_of(device) == 1 ? 1 : 0;
  if (p) put(p, 32, uint64_t(16) << 30);
  return 0;
}
FAKE unsigned zeDevicePciGetPropertiesExt(void* device, void* p) {
  auto a = at(device);
  if (!a.told) return 0x78000003;
  uint32_t place[4] = {a.domain, a.bus, a.device, a.function};
  std::memcpy(static_cast<char*>(p) + 16, place, sizeof place);
  return 0;
}
