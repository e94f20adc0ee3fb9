#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "library.hpp"

// The report of a run: one JSON file to which every process of the run adds its part when it exits. Each row is one
// line, so that what others wrote is read back without a parser of JSON.
namespace AIRamp::Interposer {
namespace {

struct HookLine {
  char api[48], door[12], state[12], reason[160];
  unsigned long long calls, passed;
};
struct MechanismLine {
  char name[24], state[12], reason[220];
  unsigned long long calls;
  long long bytes, nanoseconds;
};
struct Report {
  unsigned long long processes;
  unsigned hook_count;
  HookLine hooks[2 * kMaxRows];
  MechanismLine mechanisms[kMechanismCount];
};

// Text that grows; what does not fit into memory is lost, and with it the report.
struct Text {
  char* data = nullptr;
  std::size_t size = 0, room = 0;

  void add(const char* format, ...) __attribute__((format(printf, 2, 3))) {
    va_list arguments;
    va_start(arguments, format);
    if (room - size < 1024) {
      auto* grown = static_cast<char*>(realloc(data, room + 16384));
      if (grown) {
        data = grown;
        room += 16384;
      }
    }
    if (room - size >= 1024) {
      int n = vsnprintf(data + size, room - size, format, arguments);
      if (n > 0) size += static_cast<std::size_t>(n) < room - size ? static_cast<std::size_t>(n) : room - size - 1;
    }
    va_end(arguments);
  }
};

// Copies the string after `key` in a line; what we write has no quotes or escapes inside strings.
void read_text(const char* line, const char* key, char* to, std::size_t room) {
  to[0] = 0;
  const char* at = strstr(line, key);
  if (!at) return;
  at += strlen(key);
  const char* end = strchr(at, '"');
  if (end) snprintf(to, room, "%.*s", static_cast<int>(end - at), at);
}

long long read_number(const char* line, const char* key) {
  const char* at = strstr(line, key);
  return at ? atoll(at + strlen(key)) : 0;
}

// Seconds with nine decimals, as nanoseconds.
long long read_seconds(const char* line, const char* key) {
  const char* at = strstr(line, key);
  if (!at) return 0;
  at += strlen(key);
  bool negative = *at == '-';
  long long value = 0;
  for (at += negative; (*at >= '0' && *at <= '9') || *at == '.'; at++)
    if (*at != '.') value = value * 10 + (*at - '0');
  return negative ? -value : value;
}

HookLine* hook_line(Report* report, const char* api) {
  for (unsigned i = 0; i < report->hook_count; i++)
    if (strcmp(report->hooks[i].api, api) == 0) return &report->hooks[i];
  if (report->hook_count == 2 * kMaxRows) return nullptr;
  HookLine* line = &report->hooks[report->hook_count++];
  snprintf(line->api, sizeof line->api, "%s", api);
  return line;
}

// What other processes of this run have written.
void read_others(Report* report, char* text) {
  char run[80];
  read_text(text, "\"run\": \"", run, sizeof run);
  if (strcmp(run, options.run) != 0) return;
  report->processes = static_cast<unsigned long long>(read_number(text, "\"processes\": "));
  char* rest = text;
  while (char* line = strsep(&rest, "\n")) {
    char name[48];
    read_text(line, "{\"api\": \"", name, sizeof name);
    if (name[0]) {
      HookLine* h = hook_line(report, name);
      if (!h) continue;
      read_text(line, "\"door\": \"", h->door, sizeof h->door);
      read_text(line, "\"state\": \"", h->state, sizeof h->state);
      read_text(line, "\"reason\": \"", h->reason, sizeof h->reason);
      h->calls = static_cast<unsigned long long>(read_number(line, "\"calls\": "));
      h->passed = static_cast<unsigned long long>(read_number(line, "\"passed\": "));
    }
    read_text(line, "{\"name\": \"", name, sizeof name);
    for (unsigned i = 0; name[0] && i < kMechanismCount; i++) {
      MechanismLine& m = report->mechanisms[i];
      if (strcmp(kMechanismNames[i], name) != 0) continue;
      read_text(line, "\"state\": \"", m.state, sizeof m.state);
      read_text(line, "\"reason\": \"", m.reason, sizeof m.reason);
      m.calls = static_cast<unsigned long long>(read_number(line, "\"calls\": "));
      m.bytes = read_number(line, "\"bytes_saved\": ");
      m.nanoseconds = read_seconds(line, "\"seconds_saved\": ");
    }
  }
}

// What tells more about a run: a state with a reason, then the one that stands further back.
int weight(const char* state, const char* reason) {
  for (int i = 0; i < 4; i++)
    if (strcmp(kStateNames[i], state) == 0) return i + (reason[0] ? 4 : 0);
  return -1;
}

void add_ours(Report* report) {
  report->processes++;
  for (unsigned i = 0; i < kCallCount; i++) {
    if (row_of(static_cast<Call>(i)) != i || !page->rows[i].door[0] || handled_inside(static_cast<Call>(i))) continue;
    HookLine* h = hook_line(report, title_of(static_cast<Call>(i)));
    if (!h) continue;
    snprintf(h->door, sizeof h->door, "%s", page->rows[i].door);
    bool on = options.allowed[kCallApis[i]];
    snprintf(h->state, sizeof h->state, "%s", on ? "active" : "off");
    const char* reason = on ? page->rows[i].reason : "named in AIRAMP_DISABLE";
    if (reason[0]) snprintf(h->reason, sizeof h->reason, "%s", reason);
    h->calls += page->calls_of(i);
    h->passed += page->rows[i].passed.load();
  }
  // An interface that no process of the run uses is one row.
  for (unsigned api = 0; api < kApiCount; api++) {
    HookLine* h = hook_line(report, kApiNames[api]);
    if (!h) continue;
    bool on = options.allowed[api];
    snprintf(h->state, sizeof h->state, "%s", on ? "inactive" : "off");
    snprintf(h->reason, sizeof h->reason, "%s", on ? "no program of this run called it" : "named in AIRAMP_DISABLE");
  }
  for (unsigned i = 0; i < kMechanismCount; i++) {
    MechanismLine& m = report->mechanisms[i];
    const MechanismRow& row = page->mechanisms[i];
    const char* state = kStateNames[static_cast<unsigned>(row.state.load())];
    if (weight(state, row.reason) >= weight(m.state, m.reason)) {
      snprintf(m.state, sizeof m.state, "%s", state);
      snprintf(m.reason, sizeof m.reason, "%s", row.reason);
    }
    m.calls += row.calls.load();
    m.bytes += row.bytes_saved.load();
    m.nanoseconds += row.nanoseconds_saved.load();
  }
}

// Whether the row is an interface's whose calls have rows of their own.
bool has_calls(const Report& report, const char* api) {
  for (unsigned i = 0; i < report.hook_count; i++)
    for (unsigned call = 0; call < kCallCount; call++)
      if (strcmp(kApiNames[kCallApis[call]], api) == 0 &&
          strcmp(title_of(static_cast<Call>(call)), report.hooks[i].api) == 0)
        return true;
  return false;
}

void print(const Report& report, Text* out) {
  out->add("{\n\"run\": \"%s\",\n\"processes\": %llu,\n\"hooks\": [", options.run, report.processes);
  const char* comma = "";
  for (unsigned i = 0; i < report.hook_count; i++) {
    const HookLine& h = report.hooks[i];
    if (has_calls(report, h.api)) continue;
    out->add(
        "%s\n{\"api\": \"%s\", \"door\": \"%s\", \"calls\": %llu, \"passed\": %llu, \"state\": \"%s\", \"reason\": "
        "\"%s\"}",
        comma, h.api, h.door, h.calls, h.passed, h.state, h.reason);
    comma = ",";
  }
  out->add("\n],\n\"mechanisms\": [");
  for (unsigned i = 0; i < kMechanismCount; i++) {
    const MechanismLine& m = report.mechanisms[i];
    bool negative = m.nanoseconds < 0;
    long long ns = negative ? -m.nanoseconds : m.nanoseconds;
    out->add(
        "%s\n{\"name\": \"%s\", \"calls\": %llu, \"bytes_saved\": %lld, \"seconds_saved\": %s%lld.%09lld, "
        "\"state\": \"%s\", \"reason\": \"%s\"}",
        i ? "," : "", kMechanismNames[i], m.calls, m.bytes, negative ? "-" : "", ns / 1000000000, ns % 1000000000,
        m.state[0] ? m.state : "off", m.reason);
  }
  out->add("\n]\n}\n");
}

}  // namespace

void write_report() {
  int file = open(options.report, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return say("The report %s cannot be written: %s.", options.report, strerror(errno));
  while (flock(file, LOCK_EX) != 0 && errno == EINTR) continue;
  constexpr std::size_t kLargest = std::size_t{1} << 20;
  auto* report = static_cast<Report*>(calloc(1, sizeof(Report)));
  auto* text = static_cast<char*>(malloc(kLargest + 1));
  Text out;
  if (report && text) {
    ssize_t size = read(file, text, kLargest);
    text[size > 0 ? size : 0] = 0;
    read_others(report, text);
    add_ours(report);
    print(*report, &out);
    if (out.size && (ftruncate(file, 0) != 0 || pwrite(file, out.data, out.size, 0) != static_cast<ssize_t>(out.size)))
      say("The report %s cannot be written: %s.", options.report, strerror(errno));
  }
  free(report);
  free(text);
  free(out.data);
  close(file);
}

}  // namespace AIRamp::Interposer
