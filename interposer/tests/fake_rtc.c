// A fake of NVRTC, or, with FAKE_HIP, of the compiler in libamdhip64.so.5: its code says what it was made for, if the text
// has the kernels. Each compilation writes a line to the file that FAKE_RTC_LOG names.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef FAKE_HIP
#define NAME(nvrtc, hiprtc) hiprtc
#else
#define NAME(nvrtc, hiprtc) nvrtc
#endif

struct program {
  const char* text;
  char code[128];
};

int NAME(nvrtcCreateProgram, hiprtcCreateProgram)(struct program** out, const char* text, const char* name, int headers,
                                                 const char** sources, const char** names) {
  (void)name, (void)headers, (void)sources, (void)names;
  *out = calloc(1, sizeof **out);
  (*out)->text = text;
  return 0;
}
int NAME(nvrtcCompileProgram, hiprtcCompileProgram)(struct program* p, int count, const char** options) {
  const char* log = getenv("FAKE_RTC_LOG");
  FILE* file = log ? fopen(log, "a") : NULL;
  if (file) fprintf(file, "%s\n", options[0]), fclose(file);
  if (getenv("FAKE_RTC_FAILS") || count < 1 || !strstr(p->text, "void pack_bf16_v4(")) return 6;
  snprintf(p->code, sizeof p->code, "code for %s", options[0]);
  return 0;
}
int NAME(nvrtcDestroyProgram, hiprtcDestroyProgram)(struct program** p) { return free(*p), *p = NULL, 0; }
int NAME(nvrtcGetCUBINSize, hiprtcGetCodeSize)(struct program* p, size_t* size) { return *size = strlen(p->code) + 1, 0; }
int NAME(nvrtcGetCUBIN, hiprtcGetCode)(struct program* p, char* code) { return strcpy(code, p->code), 0; }
