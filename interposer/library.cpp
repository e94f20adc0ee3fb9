#include "library.hpp"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "checked_files.hpp"
#include "elf.hpp"

// Weak: musl, which loads this library as if it were made for it, has neither. The second is pthread_atfork.
extern "C" const char* gnu_get_libc_version() __attribute__((weak));
extern "C" int __register_atfork(void (*)(), void (*)(), void (*)(), void*) __attribute__((weak));
extern "C" void* __dso_handle;

namespace AIRamp::Interposer {

Options options;
constinit thread_local Thread thread __attribute__((tls_model("initial-exec"))) = {};
static_assert(kCallCount <= kMaxRows);
std::atomic<void*> real_functions[kCallCount];
Range real_ranges[kCallCount];

namespace {

Page private_page;  // where no file can be had, and in children made by fork
std::atomic<std::uint32_t> lanes;
const char* reasons[kMaxRows];
char page_path[64];

// Field 22 of /proc/self/stat; the second field may hold spaces and parentheses.
std::uint64_t start_time() {
  char text[1024];
  int file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  ssize_t size = read(file, text, sizeof text - 1);
  close(file);
  if (size <= 0) return 0;
  text[size] = 0;
  char* at = strrchr(text, ')');
  for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
  std::uint64_t value = 0;
  if (at)
    for (at++; *at >= '0' && *at <= '9'; at++) value = value * 10 + static_cast<unsigned>(*at - '0');
  return value;
}

// Opens this process's page in /dev/shm/airamp-UID, a folder that only its owner can write; -1 if that cannot be had.
int open_page() {
  char folder[40];
  snprintf(folder, sizeof folder, "/dev/shm/airamp-%u", static_cast<unsigned>(geteuid()));
  mkdir(folder, 0700);
  int directory = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (directory < 0) return -1;
  struct stat info;
  // The system call: glibc's own fstat is younger than the oldest glibc that this library runs with.
  if (syscall(SYS_fstat, directory, &info) != 0 || info.st_uid != geteuid() || (info.st_mode & 077)) {
    close(directory);
    return -1;
  }
  snprintf(page_path, sizeof page_path, "%s/%d", folder, static_cast<int>(getpid()));
  unlink(page_path);
  int file = openat(directory, strrchr(page_path, '/') + 1, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  close(directory);
  // Reserved, not only sized: a full /dev/shm would stop the program when it counts its first call.
  if (file >= 0 && syscall(SYS_fallocate, file, 0, 0L, sizeof(Page)) == 0) return file;
  if (file >= 0) unlink(page_path);
  if (file >= 0) close(file);
  page_path[0] = 0;
  return -1;
}

void make_page() {
  int file = open_page();
  if (file >= 0) {
    void* memory = mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory != MAP_FAILED) page = static_cast<Page*>(memory);
  }
  page->pid = static_cast<std::uint32_t>(getpid());
  page->start_time = start_time();
  page->row_count = kCallCount;
  page->version = kPageVersion;
  ssize_t size = readlink("/proc/self/exe", page->program, sizeof page->program - 1);
  page->program[size > 0 ? size : 0] = 0;
  for (unsigned i = 0; i < kCallCount; i++)
    snprintf(page->rows[i].name, sizeof page->rows[i].name, "%s", title_of(static_cast<Call>(i)));
  for (unsigned i = 0; i < kMechanismCount; i++)
    snprintf(page->mechanisms[i].name, sizeof page->mechanisms[i].name, "%s", kMechanismNames[i]);
  page->magic = kPageMagic;
}

// Whether a comma-separated list holds the word.
bool lists(const char* list, const char* word) {
  std::size_t length = strlen(word);
  for (const char* at = list; at && *at;) {
    const char* end = strchrnul(at, ',');
    if (static_cast<std::size_t>(end - at) == length && strncmp(at, word, length) == 0) return true;
    at = *end ? end + 1 : end;
  }
  return false;
}

bool is(const char* value, const char* expected) { return value && strcmp(value, expected) == 0; }

void read_options() {
  options.debug = is(getenv("AIRAMP_DEBUG"), "hooks");
  const char* off = getenv("AIRAMP_DISABLE");
  for (int i = 0; i < kApiCount; i++) options.allowed[i] = !lists(off, kApiNames[i]);
  const char* wire = getenv("AIRAMP_BF16_WIRE");
  if (is(wire, "1")) options.wire = Wire::kAuto;
  if (is(wire, "always")) options.wire = Wire::kAlways;
  options.wire_allgather = is(getenv("AIRAMP_BF16_ALLGATHER"), "1");
  const char* mode = getenv("AIRAMP_BF16_MODE");
  if (is(mode, "A") || is(mode, "D")) options.wire_mode = mode[0];
  options.wire_min = options.wire == Wire::kAlways ? 1024 : -1;
  const char* least = getenv("AIRAMP_BF16_MIN");
  if (least && *least) options.wire_min = atol(least);
  const char* pool = getenv("AIRAMP_POOL");
  options.pool_always = is(pool, "always");
  options.pool = options.pool_always || is(pool, "1");
  const char* sync = getenv("AIRAMP_FREE_SYNC");
  options.free_sync = is(sync, "driver")  ? FreeSync::kDriver
                      : is(sync, "event") ? FreeSync::kEvent
                                          : FreeSync::kDocumented;
  const char* pin = getenv("AIRAMP_PIN");
  options.pin_always = is(pin, "always");
  options.pin = options.pin_always || is(pin, "1");
  const char* chunk = getenv("AIRAMP_OCL_CHUNK");
  if (chunk && *chunk) {
    options.ocl_chunk = true;
    options.ocl_chunk_bytes = is(chunk, "1") ? 0 : atol(chunk);
  }
  options.shadow = is(getenv("AIRAMP_SHADOW"), "1");
  options.report = getenv("AIRAMP_REPORT");
  options.run = getenv("AIRAMP_RUN");
  if (!options.run) options.run = "";
}

// The value of a line `key = value` of a text; false if there is none.
bool setting(const char* text, const char* key, char* value, std::size_t room) {
  std::size_t length = strlen(key);
  for (const char* line = text; *line;) {
    const char* end = strchrnul(line, '\n');
    if (strncmp(line, key, length) == 0 && strncmp(line + length, " = ", 3) == 0) {
      snprintf(value, room, "%.*s", static_cast<int>(end - line - static_cast<std::ptrdiff_t>(length) - 3),
               line + length + 3);
      return true;
    }
    line = *end ? end + 1 : end;
  }
  return false;
}

// Loaded into every program of the machine, and not because this one's user asked for it, the library works only where
// /etc/airamp.conf lets it.
bool wanted_here() {
  for (const char* variable : {"LD_PRELOAD", "OPENCL_LAYERS"}) {
    const char* value = getenv(variable);
    if (value && strstr(value, "libairamp.so")) return true;
  }
  char text[4096], names[2048];
  FileFault fault;
  FileFacts facts;
  int folder = open_checked_folder("/etc", &fault);
  int file = folder < 0 ? -1 : open_checked_file(folder, "airamp.conf", O_RDONLY, sizeof text - 1, &facts, &fault);
  long size = file < 0 ? 0 : read_whole(file, text, sizeof text - 1);
  if (file >= 0) close(file);
  if (folder >= 0) close(folder);
  text[size > 0 ? size : 0] = 0;
  const char* name = program_invocation_short_name;
  if (setting(text, "deny", names, sizeof names) && lists(names, name)) return false;
  return !setting(text, "allow", names, sizeof names) || lists(names, name);
}

// A child made by fork is not a process that the vendors' libraries work in: everything passes through, and its
// parent's page and report stay the parent's.
void after_fork() {
  for (bool& allowed : options.allowed) allowed = false;
  options.report = nullptr;
  page_path[0] = 0;
  page = &private_page;
  tuning.after_fork_in_child();
}

__attribute__((constructor)) void start() {
  if (getauxval(AT_SECURE) || !gnu_get_libc_version || is(getenv("AIRAMP"), "off") || !wanted_here()) return;
  read_options();
  make_page();
  auto asked = [](Mechanism m, bool on) { set_state(m, on ? State::kIdle : State::kOff, ""); };
  asked(kBf16Wire, options.wire != Wire::kOff || options.shadow);
  asked(kShadow, options.shadow);
  asked(kPool, options.pool);
  asked(kPin, options.pin);
  asked(kOclChunk, options.ocl_chunk);
  if (options.pool || options.pin || options.ocl_chunk) tuning.look_for_daemon();
  __register_atfork(nullptr, nullptr, after_fork, &__dso_handle);
}

// A mechanism that was asked for, whose interface the program uses, and that never did anything says so once; of a
// job's ranks the first does.
void say_what_stayed_idle() {
  for (const char* variable : {"PMIX_RANK", "PMI_RANK"}) {
    const char* rank = getenv(variable);
    if (rank && !is(rank, "0")) return;
  }
  constexpr Call kUsed[kMechanismCount][3] = {
      {Call::MPI_Allreduce, Call::ncclAllReduce, Call::_ZN4gloo9allreduceERKNS_16AllreduceOptionsE},
      {Call::clCreateBuffer, Call::cuMemAlloc_v2, Call::hipMalloc},
      {Call::cuMemcpyHtoD_v2, Call::cuMemcpyDtoH_v2, Call::hipMemcpy},
      {Call::clEnqueueWriteBuffer, Call::clEnqueueReadBuffer, Call::clEnqueueReadBuffer},
      {Call::MPI_Allreduce, Call::ncclAllReduce, Call::ncclAllReduce}};
  for (unsigned m = 0; m < kMechanismCount; m++) {
    const MechanismRow& row = page->mechanisms[m];
    // A shadow run is about the wire, but sends nothing for good.
    if (row.state.load() != State::kIdle || row.calls.load() > 0 || (m == kBf16Wire && options.shadow)) continue;
    for (Call call : kUsed[m]) {
      unsigned i = row_of(call);
      if (!page->calls_of(i)) continue;
      const char* reason = row.reason[0] ? row.reason : page->rows[i].reason;
      say("%s was on, but never active: %s.", row.name, reason[0] ? reason : "no call qualified");
      break;
    }
  }
}

// The vendors' libraries may be gone already: nothing of theirs is called.
__attribute__((destructor)) void finish() {
  if (page_path[0]) say_what_stayed_idle();
  if (options.report) write_report();
  if (page_path[0]) unlink(page_path);
}

}  // namespace

Page* page = &private_page;

void say(const char* format, ...) {
  char text[512] = "airamp: ";
  va_list arguments;
  va_start(arguments, format);
  int size = vsnprintf(text + 8, sizeof text - 9, format, arguments);
  va_end(arguments);
  std::size_t end = size < 0 ? 8 : 8 + static_cast<std::size_t>(size);
  if (end > sizeof text - 2) end = sizeof text - 2;
  text[end] = '\n';
  if (write(STDERR_FILENO, text, end + 1) < 0) return;  // there is nobody to tell
}

void passed(Call call, const char* text) {
  unsigned row = row_of(call);
  page->rows[row].passed.fetch_add(1, std::memory_order_relaxed);
  if (reasons[row] == text) return;
  reasons[row] = text;
  snprintf(page->rows[row].reason, sizeof page->rows[row].reason, "%s", text);
}

void set_state(Mechanism mechanism, State state, const char* text) {
  MechanismRow& row = page->mechanisms[mechanism];
  snprintf(row.reason, sizeof row.reason, "%s", text);
  row.state.store(state, std::memory_order_release);
}

std::int64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}

std::int64_t coarse_now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}

std::atomic<std::uint64_t>* take_lane() {
  std::uint32_t lane = lanes.fetch_add(1, std::memory_order_relaxed);
  if (lane >= kLanes - 1) {
    lanes.store(kLanes - 1, std::memory_order_relaxed);
    lane = kLanes - 1;
    thread.shares = true;
  }
  return thread.calls = page->calls[lane];
}

bool is_ours(const void* address) { return elf::object_of(address).contains(reinterpret_cast<const void*>(&say)); }

void note_door(Call call, const char* door) {
  HookRow& row = page->rows[row_of(call)];
  // A layer is found by the first call, which came another way.
  if (row.door[0] && strcmp(door, "layer") != 0) return;
  snprintf(row.door, sizeof row.door, "%s", door);
  if (options.debug) say("%s is hooked through %s.", title_of(call), door);
}

// The executable part of the object that holds a function.
Range code_of(void* function) {
  elf::Object object = elf::object_of(function);
  for (int i = 0; i < object.header_count; i++) {
    const auto& h = object.headers[i];
    Range range = {object.base + h.p_vaddr, h.p_memsz};
    if (h.p_type == PT_LOAD && reinterpret_cast<std::uintptr_t>(function) - range.begin < range.size) return range;
  }
  return {};
}

bool set_real(Call call, void* function, const char* door) {
  unsigned i = static_cast<unsigned>(call);
  void* none = nullptr;
  if (!real_functions[i].compare_exchange_strong(none, function)) return none == function;
  real_ranges[i] = code_of(function);
  note_door(call, door);
  return true;
}

void* bind(Call call) {
  unsigned i = static_cast<unsigned>(call);
  void* function = elf::find(kCallNames[i]);
  if (!function) {
    static std::atomic<bool> said[kCallCount];
    if (!said[i].exchange(true)) say("%s was called, but no loaded library defines it.", title_of(call));
    return nullptr;
  }
  set_real(call, function, kCallApis[i] == kMpi && !handled_inside(call) ? "pmpi" : "preload");
  return real_functions[i].load();
}

}  // namespace AIRamp::Interposer
