#pragma once

// Threads of our own, which the library starts only where a program asked for what needs one.
namespace AIRamp::Interposer {

// Detached, with all signals blocked. Whether it was started.
bool start_thread(void* (*run)(void*), void* argument);

}  // namespace AIRamp::Interposer
