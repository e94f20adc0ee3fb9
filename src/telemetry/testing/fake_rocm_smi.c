// A FAKE of AMD's ROCm SMI, for tests only: it carries the real names and types, has one device, and lacks the optional
// call for temperatures, as a library of another release may.
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int busy_result;
void fake_rocm_smi_set(const char* what, long long value) {
  if (!strcmp(what, "busy_result")) busy_result = (int)value;
}

int rsmi_init(uint64_t flags) { return flags ? 1 : 0; }
int rsmi_shut_down(void) { return 0; }
int rsmi_status_string(int status, const char** text) {
  *text = status == 2 ? "RSMI_STATUS_NOT_SUPPORTED" : "FAKE STATUS";
  return 0;
}
int rsmi_num_monitor_devices(uint32_t* n) {
  *n = 1;
  return 0;
}
int rsmi_dev_name_get(uint32_t device, char* name, size_t n) {
  snprintf(name, n, "FAKE Instinct %u", device);
  return 0;
}
int rsmi_dev_pci_id_get(uint32_t device, uint64_t* id) {
  *id = (uint64_t)0x12 << 32 | 0x83 << 8 | device << 3;
  return 0;
}
int rsmi_dev_memory_total_get(uint32_t device, int type, uint64_t* bytes) {
  *bytes = 64ull << 30;
  return device || type ? 2 : 0;
}
int rsmi_dev_memory_usage_get(uint32_t device, int type, uint64_t* bytes) {
  *bytes = 3ull << 30;
  return device || type ? 2 : 0;
}
int rsmi_dev_busy_percent_get(uint32_t device, uint32_t* percent) {
  *percent = 88;
  return device ? 1 : busy_result;
}
int rsmi_dev_power_ave_get(uint32_t device, uint32_t sensor, uint64_t* microwatts) {
  *microwatts = 123500000;
  return device || sensor ? 2 : 0;
}
