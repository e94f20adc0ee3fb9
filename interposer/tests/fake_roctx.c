// A fake of libroctx64.so for tests.

#include "range_log.h"

int roctxRangePushA(const char* name) { return log_range("push", name); }
int roctxRangePop(void) { return log_range("pop", NULL); }
