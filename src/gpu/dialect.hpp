// The languages that kernels are compiled in. A kernel is written once, in the common part of OpenCL C, CUDA C++ and
// HIP, with the words that differ as macros of a prelude:
//
//   KERNEL, DEVICE            a kernel; a function that kernels call
//   GLOBAL, LOCAL, SHARED     pointers into device memory and into group memory; a variable in group memory
//   RESTRICT                  the pointer alone reaches its elements
//   GID0 … GID2, LID0, GRP0 … GRP2, SIZE0   indices of the work item, of it in its group, of the group; items of a
//   group BARRIER                   all items of the group arrive, and see what the others wrote to group memory
//   NO_UNROLL                 before a loop whose body stands once in the program
//   LD_<type>(p, i), ST_<type>(p, i, v)     element i as its computing type; the rounded value into element i
//
// Element types are stored as uchar, char, ushort, short, uint, int, ulong, long, float, double; f16 and bf16 as
// ushort. Floats up to 32 bits compute as float, f64 as double, signed integers and bool as long, unsigned 64-bit as
// ulong.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "ai_vmm/types.hpp"

namespace ai_vmm::gpu {

enum class Dialect { opencl, cuda, hip };

// What every program starts with. `f64`: the device has double precision.
std::string prelude(Dialect dialect, bool f64);

// How one element type lies in memory and computes; null name: no kernel holds the type.
struct Element {
  const char* name = nullptr;     // suffix of LD_ and ST_: "f32"
  const char* storage = nullptr;  // "float"
  const char* compute = nullptr;  // "float", "double", "long", "ulong"
};
Element element(DType type);

// `text` with every ${name} replaced. A name that `words` does not have is our own bug.
using Words = std::map<std::string, std::string, std::less<>>;
std::string fill(std::string_view text, const Words& words);

// Vectors of floats, for devices that compute in wide registers: their type, a load, a store, a splat. Width 1 is a
// scalar in every dialect; others are OpenCL's.
std::string vector_type(int width);
std::string vector_load(int width, const std::string& pointer);
std::string vector_store(int width, const std::string& value, const std::string& pointer);

}  // namespace ai_vmm::gpu
