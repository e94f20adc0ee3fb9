// A FAKE of NVIDIA's management library, for tests only: it carries the real names and types, and answers as a test tells
// it through fake_nvml_set(). Two devices.
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { kDevices = 2, kNotSupported = 3, kNotFound = 6, kDriverNotLoaded = 9, kGpuLost = 15 };

static struct {
  int init_result, lost;
  unsigned busy, milliwatts, celsius, kilobytes;
  unsigned long long total, used;
  int power_result, running;
} fake = {0, 0, 37, 250000, 61, 2000, 80ull << 30, 20ull << 30, 0, 0};

void fake_nvml_set(const char* what, long long value) {
  if (!strcmp(what, "init_result")) fake.init_result = (int)value;
  if (!strcmp(what, "lost")) fake.lost = (int)value;
  if (!strcmp(what, "busy")) fake.busy = (unsigned)value;
  if (!strcmp(what, "power_result")) fake.power_result = (int)value;
  if (!strcmp(what, "used")) fake.used = (unsigned long long)value;
}
int fake_nvml_running(void) { return fake.running; }

int nvmlInit_v2(void) {
  if (fake.init_result) return fake.init_result;
  fake.running++;
  return 0;
}
int nvmlShutdown(void) {
  fake.running--;
  return 0;
}
const char* nvmlErrorString(int e) {
  switch (e) {
    case kNotSupported: return "Not Supported";
    case kDriverNotLoaded: return "Driver Not Loaded";
    case kGpuLost: return "GPU is lost";
    default: return NULL;
  }
}
int nvmlDeviceGetCount_v2(unsigned* n) {
  *n = kDevices;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void** device) {
  if (i >= kDevices) return kNotFound;
  *device = (void*)(size_t)(i + 1);
  return 0;
}
static int lost(void* device) { return fake.lost && device == (void*)1 ? kGpuLost : 0; }
int nvmlDeviceGetName(void* device, char* name, unsigned n) {
  snprintf(name, n, "FAKE GPU %zu", (size_t)device - 1);
  return lost(device);
}
struct pci {
  char bus_id_legacy[16];
  unsigned domain, bus, device, id, subsystem;
  char bus_id[32];
};
int nvmlDeviceGetPciInfo_v3(void* device, struct pci* p) {
  memset(p, 0, sizeof *p);
  p->bus = 0xc1 + (unsigned)((size_t)device - 1);
  snprintf(p->bus_id, sizeof p->bus_id, "00000000:%02X:00.0", p->bus);
  return 0;
}
struct memory {
  unsigned long long total, free, used;
};
int nvmlDeviceGetMemoryInfo(void* device, struct memory* m) {
  m->total = fake.total, m->used = fake.used, m->free = fake.total - fake.used;
  return lost(device);
}
struct utilization {
  unsigned gpu, memory;
};
int nvmlDeviceGetUtilizationRates(void* device, struct utilization* u) {
  u->gpu = fake.busy, u->memory = 5;
  return lost(device);
}
int nvmlDeviceGetPowerUsage(void* device, unsigned* mw) {
  *mw = fake.milliwatts;
  return fake.power_result ? fake.power_result : lost(device);
}
int nvmlDeviceGetTemperature(void* device, int sensor, unsigned* celsius) {
  *celsius = fake.celsius;
  return sensor ? kNotSupported : lost(device);
}
int nvmlDeviceGetPcieThroughput(void* device, int counter, unsigned* kilobytes) {
  *kilobytes = counter ? fake.kilobytes : fake.kilobytes / 2;
  return lost(device);
}
