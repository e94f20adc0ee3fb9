#pragma once

#include <cstddef>

// Memory of accelerators that a program hands to a library which knows of it. It is copied by the driver, never
// touched.
namespace AIRamp::Interposer::device {

// Whether the processor cannot read there. Memory that it can read is treated as the host's wherever it is.
bool is_device(const void* address);

// Copies; either side may be a device's. False if no driver that is loaded can.
bool copy(void* to, const void* from, std::size_t bytes);

}  // namespace AIRamp::Interposer::device
