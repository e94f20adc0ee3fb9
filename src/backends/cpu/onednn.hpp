// The only door to oneDNN. Its headers are included in onednn.cpp alone.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "ai_vmm/types.hpp"
#include "backends/cpu/kernels/kernels.hpp"

namespace ai_vmm::cpu::onednn {

// Primitives created so far in this process.
int64_t compilations();

// A convolution, or its transpose, of float32. Channels are those in memory: padded to whole blocks in a blocked
// layout.
struct ConvSpec {
  int spatial = 2;  // 1 to 3
  bool transposed = false;
  int64_t n = 1, groups = 1, ic = 1, oc = 1;
  int64_t in[3] = {1, 1, 1}, out[3] = {1, 1, 1}, kernel[3] = {1, 1, 1}, stride[3] = {1, 1, 1}, dilation[3] = {1, 1, 1};
  int64_t before[3] = {0, 0, 0}, after[3] = {0, 0, 0};
  int block_in = 0, block_out = 0;
  bool bias = false, residual = false;  // residual: added to what the output already holds
  Act act = Act::none;
  float a = 0, b = 0;
  bool winograd = false;
};

class Convolution {
 public:
  // Null with a reason when oneDNN has nothing faster than its own reference code.
  // `ask`: only whether there is one; nothing is generated and the result cannot run.
  static Result<std::shared_ptr<const Convolution>> make(const ConvSpec& spec, bool ask = false);
  virtual ~Convolution() = default;
  virtual int64_t weight_bytes() const = 0;
  virtual std::string weight_key() const = 0;  // equal keys, equal packed weights
  // `weights`: [oc, ic / groups, kernel...] ([ic, oc / groups, kernel...] when transposed), dense, of spec's channels.
  virtual void pack(const float* weights, void* to) const = 0;
  virtual int64_t scratch_bytes() const = 0;
  virtual std::string name() const = 0;

  // The state of one caller: memory objects with changing addresses.
  class Call {
   public:
    virtual ~Call() = default;
    virtual Status run(const float* in, const void* weights, const float* bias, float* out, void* scratch) = 0;
  };
  virtual std::unique_ptr<Call> call() const = 0;
};

}  // namespace ai_vmm::cpu::onednn
