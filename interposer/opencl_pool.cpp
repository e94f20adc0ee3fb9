#include "opencl_pool.hpp"

#include <pthread.h>

#include "live_table.hpp"

#include "pattern_of_life.hpp"

// The pool of OpenCL buffers. A buffer that the program releases for the last time is kept, and handed out again to the
// next one who asks for the same context, flags and size, when all commands that stood in the context's queues at the
// release have completed. Buffers are whole objects of the driver, of the very size that was asked for: nothing that a
// program can query is different. What the driver or another object may still refer to is released at once. While the
// program waits in clFinish, the buffers that its next step is known to need and that are missing are made.
namespace AIRamp::Interposer {
namespace {

constexpr unsigned kFree = 256;   // buffers kept
constexpr unsigned kQueues = 16;  // queues watched
constexpr unsigned kMarkers = 4;  // queues of one context

struct Live {
  std::uintptr_t key;  // the buffer
  cl_context context;
  cl_mem_flags flags;
  size_t size;
  unsigned references;       // the program's
  std::int64_t creation_ns;  // what creating it cost
  std::int64_t keeping_ns;   // what keeping it did, when it was released last
  bool excluded;
};
struct Free {
  Live buffer;
  cl_event markers[kMarkers];
  unsigned marker_count;
  std::int64_t since_ns;
  bool prewarmed;
};
// For what a size was last made.
struct Shape {
  size_t size;  // 0: empty
  cl_context context;
  cl_mem_flags flags;
};
struct Queue {
  cl_context context;
  cl_command_queue queue;  // null: empty
  unsigned references;     // the program's
  cl_event last;           // the program has released the queue, and this ends what was in it
};

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
LiveTable<Live, 4096> live;
Free kept[kFree];
unsigned kept_count;
size_t kept_bytes, live_bytes;
std::int64_t trimmed_ns;
PatternOfLife life;  // for how long a size is worth keeping, and what the next step needs
constexpr unsigned kShapes = PatternOfLife::kSizes;
Shape shapes[kShapes];
unsigned next_shape;
bool disarmed;
// Of the first buffers that were handed out again: what their creation had cost, and what keeping them did.
constexpr unsigned kTrials = 64;
unsigned trials;
std::int64_t trial_gain_ns;
Queue queues[kQueues];

class Locked {
 public:
  Locked() { pthread_mutex_lock(&lock); }
  ~Locked() { pthread_mutex_unlock(&lock); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;
};

Live* find_live(cl_mem memory) { return live.find(reinterpret_cast<std::uintptr_t>(memory)); }

cl_mem memory_of(const Live& buffer) { return reinterpret_cast<cl_mem>(buffer.key); }

bool completed(cl_event event) {
  cl_int status = CL_QUEUED;
  return opencl().clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, nullptr) ==
             CL_SUCCESS &&
         status <= CL_COMPLETE;
}

void drop_markers(Free* entry) {
  for (unsigned i = 0; i < entry->marker_count; i++) opencl().clReleaseEvent(entry->markers[i]);
  entry->marker_count = 0;
}

// The last one takes the place of one that goes.
void forget(Free* entry) {
  drop_markers(entry);
  kept_bytes -= entry->buffer.size;
  *entry = kept[--kept_count];
}

void give_back(Free* entry) {
  cl_mem memory = memory_of(entry->buffer);
  if (entry->prewarmed) life.prewarm_unused(entry->buffer.size);
  forget(entry);
  opencl().clReleaseMemObject(memory);
}

// Gives back what belongs to the context, or, for null, everything; returns whether there was any.
bool trim(cl_context context) {
  unsigned before = kept_count;
  for (unsigned i = kept_count; i-- > 0;)
    if (!context || kept[i].buffer.context == context) give_back(&kept[i]);
  return kept_count < before;
}

void trim_old(std::int64_t now) {
  std::int64_t ttl = tuning.get<Key::POOL_TTL_MS>() * 1000000;
  if (now - trimmed_ns < ttl / 8) return;
  trimmed_ns = now;
  for (unsigned i = kept_count; i-- > 0;)
    if (now - kept[i].since_ns > life.keep_ns(kept[i].buffer.size, ttl)) give_back(&kept[i]);
}

void disarm(const char* why) {
  disarmed = true;
  trim(nullptr);
  set_state(kPool, State::kDisarmed, why);
}

// Forgets queues that the program has released and whose commands have completed.
void forget_queues() {
  for (Queue& q : queues) {
    if (!q.last || !completed(q.last)) continue;
    opencl().clReleaseEvent(q.last);
    q = {};
  }
}

// Keeps a buffer that the program has released for the last time. False: it must be released.
bool keep(const Live& buffer) {
  const OpenCl& cl = opencl();
  cl_uint references = 0, maps = 0;
  if (cl.clGetMemObjectInfo(memory_of(buffer), CL_MEM_REFERENCE_COUNT, sizeof references, &references, nullptr) !=
          CL_SUCCESS ||
      cl.clGetMemObjectInfo(memory_of(buffer), CL_MEM_MAP_COUNT, sizeof maps, &maps, nullptr) != CL_SUCCESS)
    return false;
  // A sub-buffer, a command in flight or a kernel's argument may hold it.
  if (references != 1 || maps != 0) return false;
  if (kept_bytes + buffer.size > static_cast<size_t>(tuning.get<Key::POOL_MAX_BYTES>())) return false;
  if (kept_count == kFree) return false;
  Free* place = &kept[kept_count];
  forget_queues();
  *place = {.buffer = buffer, .markers = {}, .marker_count = 0, .since_ns = now_ns(), .prewarmed = false};
  for (const Queue& q : queues) {
    if (!q.queue || q.context != buffer.context) continue;
    if (q.last || place->marker_count == kMarkers ||
        cl.clEnqueueMarkerWithWaitList(q.queue, 0, nullptr, &place->markers[place->marker_count]) != CL_SUCCESS) {
      drop_markers(place);
      return false;
    }
    place->marker_count++;
  }
  kept_bytes += buffer.size;
  kept_count++;
  return true;
}

// A kept buffer that fits, or one with a key of 0.
Live take(cl_context context, cl_mem_flags flags, size_t size) {
  for (unsigned k = kept_count; k-- > 0;) {
    Free& entry = kept[k];
    const Live& b = entry.buffer;
    if (b.size != size || b.context != context || b.flags != flags) continue;
    bool ready = true;
    for (unsigned i = 0; i < entry.marker_count && ready; i++) ready = completed(entry.markers[i]);
    if (!ready) continue;
    Live taken = b;
    if (entry.prewarmed) life.prewarm_used(size);
    forget(&entry);
    return taken;
  }
  return {};
}

void add_live(const Live& buffer) {
  if (live.add(buffer)) live_bytes += buffer.size;
}

void note_shape(cl_context context, cl_mem_flags flags, size_t size) {
  for (Shape& s : shapes)
    if (s.size == size) {
      s = {size, context, flags};
      return;
    }
  shapes[next_shape++ % kShapes] = {size, context, flags};
}

// Bytes that pre-warming may hold on the queue's device. OpenCL does not say how much memory is free: what the program
// has by our count is not.
size_t prewarm_budget(cl_command_queue queue) {
  cl_device_id device = nullptr;
  cl_ulong all = 0;
  const OpenCl& cl = opencl();
  if (cl.clGetCommandQueueInfo(queue, CL_QUEUE_DEVICE, sizeof device, &device, nullptr) != CL_SUCCESS ||
      cl.clGetDeviceInfo(device, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof all, &all, nullptr) != CL_SUCCESS)
    return 0;
  size_t used = live_bytes + kept_bytes;
  return used < all ? (all - used) / 1000 * static_cast<size_t>(tuning.get<Key::PREWARM_PERMILLE>()) : 0;
}

void prewarm(cl_command_queue queue) {
  constexpr int kMostSizes = 16;
  Need needs[kMostSizes];
  cl_context context = nullptr;
  for (const Queue& q : queues)
    if (q.queue == queue && !q.last) context = q.context;
  if (!context || disarmed || tuning.get<Key::PREWARM_PERMILLE>() == 0) return;
  life.set_waste_permille(tuning.get<Key::PREWARM_WASTE_PERMILLE>());
  int sizes = life.predict_next(~std::uint64_t{0}, needs, kMostSizes);
  size_t budget = 0;
  bool asked = false;
  for (int i = 0; i < sizes; i++) {
    const Shape* shape = nullptr;
    for (const Shape& s : shapes)
      if (s.size == needs[i].bytes && s.context == context) shape = &s;
    if (!shape) continue;
    for (unsigned k = 0; k < kept_count && needs[i].count; k++)
      needs[i].count -= kept[k].buffer.size == shape->size && kept[k].buffer.context == context &&
                        kept[k].buffer.flags == shape->flags;
    for (; needs[i].count; needs[i].count--) {
      // In the steady state nothing is missing, and the device is not asked.
      if (!asked) budget = prewarm_budget(queue);
      asked = true;
      if (kept_count == kFree || shape->size > budget ||
          kept_bytes + shape->size > static_cast<size_t>(tuning.get<Key::POOL_MAX_BYTES>()))
        return;
      std::int64_t start = now_ns();
      cl_int code = CL_SUCCESS;
      cl_mem memory = opencl().clCreateBuffer(context, shape->flags, shape->size, nullptr, &code);
      if (!memory) return;
      std::int64_t now = now_ns();
      Live buffer = {.key = reinterpret_cast<std::uintptr_t>(memory),
                     .context = context,
                     .flags = shape->flags,
                     .size = shape->size,
                     .references = 0,
                     .creation_ns = now - start,
                     .keeping_ns = 0,
                     .excluded = false};
      kept[kept_count++] = {.buffer = buffer, .markers = {}, .marker_count = 0, .since_ns = now, .prewarmed = true};
      kept_bytes += shape->size;
      budget -= shape->size;
    }
  }
}

// Notes what a buffer that was handed out again has saved. A pool that costs more than it saves goes.
void note_gain(size_t bytes, std::int64_t nanoseconds) {
  gained(kPool, static_cast<std::int64_t>(bytes), nanoseconds);
  if (options.pool_always) return;
  trial_gain_ns += nanoseconds;
  if (++trials < kTrials) return;
  if (trial_gain_ns < 0) return disarm("keeping buffers took more time than this driver takes to make them");
  trials = 0;
  trial_gain_ns = 0;
}

// Buffers whose memory the driver chooses, and whose contents nobody has given.
bool poolable(cl_mem_flags flags, const void* host, size_t size) {
  constexpr cl_mem_flags kPlain = CL_MEM_READ_WRITE | CL_MEM_READ_ONLY | CL_MEM_WRITE_ONLY | CL_MEM_HOST_NO_ACCESS |
                                  CL_MEM_HOST_READ_ONLY | CL_MEM_HOST_WRITE_ONLY;
  return !host && size != 0 && (flags & ~kPlain) == 0;
}

bool usable() {
  const OpenCl& cl = opencl();
  return cl.clGetMemObjectInfo && cl.clReleaseMemObject && cl.clEnqueueMarkerWithWaitList && cl.clGetEventInfo &&
         cl.clReleaseEvent && cl.clGetCommandQueueInfo && cl.clGetDeviceInfo && cl.clCreateBuffer;
}

}  // namespace

void note_queue(cl_context context, cl_command_queue queue) {
  Locked locked;
  forget_queues();
  for (Queue& q : queues)
    if (!q.queue) {
      q = {.context = context, .queue = queue, .references = 1, .last = nullptr};
      return;
    }
  disarm("the program has more than 16 command queues, which are not all watched");
}

cl_int on_retain_queue(clRetainCommandQueue_t* function, cl_command_queue queue) {
  cl_int e = function(queue);
  if (!options.pool || e != CL_SUCCESS) return e;
  Locked locked;
  for (Queue& q : queues)
    if (q.queue == queue && !q.last) q.references++;
  return e;
}

cl_int on_release_queue(clReleaseCommandQueue_t* function, cl_command_queue queue) {
  if (options.pool && usable()) {
    Locked locked;
    for (Queue& q : queues) {
      if (q.queue != queue || q.last || --q.references > 0) continue;
      // Its commands may go on; until they have ended, nothing of its context is kept. Markers would keep the queue.
      trim(q.context);
      if (opencl().clEnqueueMarkerWithWaitList(queue, 0, nullptr, &q.last) != CL_SUCCESS) q = {};
    }
  }
  return function(queue);
}

cl_int on_finish(clFinish_t* function, cl_command_queue queue) {
  if (options.pool && usable()) {
    Locked locked;
    prewarm(queue);
  }
  return function(queue);
}

cl_int on_release_context(clReleaseContext_t* function, cl_context context) {
  if (options.pool && usable()) {
    Locked locked;
    trim(context);
    forget_queues();
  }
  return function(context);
}

cl_int on_get_context_info(clGetContextInfo_t* function, cl_context context, cl_context_info what, size_t room,
                           void* value, size_t* size) {
  // Buffers that are kept refer to their context; the program must not see that.
  if (options.pool && what == CL_CONTEXT_REFERENCE_COUNT && usable()) {
    Locked locked;
    trim(context);
    forget_queues();
  }
  return function(context, what, room, value, size);
}

cl_mem pooled_create_buffer(clCreateBuffer_t* function, cl_context context, cl_mem_flags flags, size_t size, void* host,
                            cl_int* error) {
  if (!usable()) return function(context, flags, size, host, error);
  Locked locked;
  if (disarmed) return function(context, flags, size, host, error);
  std::int64_t start = now_ns();
  trim_old(start);
  bool ours = poolable(flags, host, size);
  if (ours) {
    life.observe({start, size, ObsKind::allocate});
    note_shape(context, flags, size);
    Live taken = take(context, flags, size);
    if (taken.key) {
      taken.references = 1;
      add_live(taken);
      if (error) *error = CL_SUCCESS;
      if (page->mechanisms[kPool].state != State::kActive)
        set_state(kPool, State::kActive, "bytes saved were not allocated anew");
      note_gain(size, taken.creation_ns - taken.keeping_ns - (now_ns() - start));
      return memory_of(taken);
    }
  } else {
    passed(Call::clCreateBuffer, "the buffer has memory or contents of the host's");
  }
  cl_int code = CL_SUCCESS;
  cl_mem memory = function(context, flags, size, host, &code);
  bool full = code == CL_MEM_OBJECT_ALLOCATION_FAILURE || code == CL_OUT_OF_RESOURCES || code == CL_OUT_OF_HOST_MEMORY;
  if (!memory && full && trim(nullptr)) memory = function(context, flags, size, host, &code);
  if (error) *error = code;
  if (memory && ours)
    add_live({.key = reinterpret_cast<std::uintptr_t>(memory),
              .context = context,
              .flags = flags,
              .size = size,
              .references = 1,
              .creation_ns = now_ns() - start,
              .keeping_ns = 0,
              .excluded = false});
  return memory;
}

cl_int on_retain_memory(clRetainMemObject_t* function, cl_mem memory) {
  cl_int e = function(memory);
  if (!options.pool || e != CL_SUCCESS) return e;
  Locked locked;
  Live* entry = find_live(memory);
  if (entry) entry->references++;
  return e;
}

cl_int pooled_release_memory(clReleaseMemObject_t* function, cl_mem memory) {
  if (!memory || !usable()) return function(memory);
  Locked locked;
  for (unsigned i = 0; i < kept_count; i++)
    if (memory_of(kept[i].buffer) == memory) {
      passed(Call::clReleaseMemObject, "the program released a buffer once more than it had it");
      return CL_INVALID_MEM_OBJECT;
    }
  Live* entry = find_live(memory);
  if (entry && --entry->references == 0) {
    Live buffer = *entry;
    live.remove(entry);
    live_bytes -= buffer.size;
    std::int64_t start = now_ns();
    life.observe({start, buffer.size, ObsKind::release});
    if (!disarmed && !buffer.excluded && keep(buffer)) {
      kept[kept_count - 1].buffer.keeping_ns = now_ns() - start;
      return CL_SUCCESS;
    }
    passed(Call::clReleaseMemObject, "something may still use the buffer, or the pool is full");
  }
  return function(memory);
}

cl_int on_set_destructor(clSetMemObjectDestructorCallback_t* function, cl_mem memory, void (*notify)(cl_mem, void*),
                         void* data) {
  cl_int e = function(memory, notify, data);
  if (!options.pool || e != CL_SUCCESS) return e;
  Locked locked;
  Live* entry = find_live(memory);
  if (entry) entry->excluded = true;  // the program waits for its destruction
  return e;
}

}  // namespace AIRamp::Interposer
