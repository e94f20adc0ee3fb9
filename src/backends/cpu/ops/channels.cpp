// Normalisations over channels: LRN, BatchNormalization, InstanceNormalization, GroupNormalization; f32, row-major.
#include <cmath>

#include "backends/cpu/kernel.hpp"
#include "backends/cpu/kernels/kernels.hpp"

namespace ai_vmm::cpu {

namespace {

// y = x / (bias + alpha/size * sum of squares over `size` channels around)^beta, for a run of neighbouring pixels.
void lrn_pixels(const float* x, float* y, float* squares, int64_t channels, int64_t step, int64_t n, int64_t size,
                float alpha, float beta, float bias) {
  const int64_t below = (size - 1) / 2, above = size - 1 - below;
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t i = 0; i < n; ++i) squares[i] = 0;
    for (int64_t k = std::max<int64_t>(0, c - below); k <= std::min(channels - 1, c + above); ++k)
      for (int64_t i = 0; i < n; ++i) squares[i] += x[k * step + i] * x[k * step + i];
    const float* in = x + c * step;
    float* out = y + c * step;
    const float scale = alpha / float(size);
    if (beta == 0.75f) {  // a square root of a square root is much cheaper than a power
      for (int64_t i = 0; i < n; ++i) {
        float d = std::sqrt(bias + scale * squares[i]);
        out[i] = in[i] / (d * std::sqrt(d));
      }
    } else {
      for (int64_t i = 0; i < n; ++i) out[i] = in[i] / std::pow(bias + scale * squares[i], beta);
    }
  }
}

}  // namespace

Made make_lrn(const Make& m) {
  if (m.dtype(0) != DType::f32) return "only f32";
  int64_t size = m.node.i("size", 1);
  if (size < 1) return "a size below 1";
  float alpha = m.node.f("alpha", 1e-4f), beta = m.node.f("beta", 0.75f), bias = m.node.f("bias", 1.0f);
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& in = b.in(0);
    if (in.size() < 3) return invalid("LRN takes an image; the input has shape " + ai_vmm::to_string(in) + ".");
    const int64_t batch = in[0], channels = in[1], pixels = product(in, 2, in.size());
    constexpr int64_t kRun = 256;
    const int64_t runs = (pixels + kRun - 1) / kRun;
    return Bound{[=](Run& r) -> Status {
                   parallel(r.threads, batch * runs, 1, [&](int64_t begin, int64_t end) {
                     float squares[kRun];
                     for (int64_t i = begin; i < end; ++i) {
                       int64_t at = i / runs * channels * pixels + i % runs * kRun;
                       lrn_pixels(r.in<float>(0) + at, r.out<float>(0) + at, squares, channels, pixels,
                                  std::min(kRun, pixels - i % runs * kRun), size, alpha, beta, bias);
                     }
                   });
                   return {};
                 },
                 0, "", double(product(in)) * double(2 * size + 8)};
  });
}

namespace {

// Each of `groups` groups of channels of each image to mean 0 and variance 1, then scale and bias a channel.
Made group_norm(const Make& m, bool instance) {
  if (m.dtype(0) != DType::f32 || m.dtype(1) != DType::f32 || m.dtype(2) != DType::f32) return "only f32";
  int64_t groups = m.node.i("num_groups", 1);
  float epsilon = m.node.f("epsilon", 1e-5f);
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& in = b.in(0);
    if (in.size() < 2)
      return invalid("The input of a normalisation over channels has shape " + ai_vmm::to_string(in) + ".");
    const int64_t channels = in[1], pixels = product(in, 2, in.size()), all = instance ? channels : groups;
    if (all < 1 || channels % all)
      return invalid(std::to_string(channels) + " channels do not make " + std::to_string(all) + " equal groups.");
    if (product(b.in(1)) != channels || product(b.in(2)) != channels)
      return invalid("Scale and bias need " + std::to_string(channels) + " elements.");
    const int64_t each = channels / all, batch = in[0];
    return Bound{[=](Run& r) -> Status {
                   const float *x = r.in<float>(0), *scale = r.in<float>(1), *bias = r.in<float>(2);
                   float* y = r.out<float>(0);
                   parallel(r.threads, batch * all, std::max<int64_t>(1, 8192 / std::max<int64_t>(1, each * pixels)),
                            [&](int64_t begin, int64_t end) {
                              for (int64_t g = begin; g < end; ++g) {
                                float mean, variance;
                                const float* from = x + g * each * pixels;
                                kernels().moments(from, each * pixels, &mean, &variance);
                                const float inverse = 1 / std::sqrt(variance + epsilon);
                                for (int64_t c = 0; c < each; ++c) {
                                  const int64_t channel = g % all * each + c;
                                  const float s = scale[channel] * inverse;
                                  kernels().affine(from + c * pixels, s, bias[channel] - mean * s,
                                                   y + (g * each + c) * pixels, pixels);
                                }
                              }
                            });
                   return {};
                 },
                 0, "", 8.0 * double(product(in))};
  });
}

}  // namespace

Made make_batch_norm(const Make& m) {
  for (size_t k = 0; k < 5; ++k)
    if (m.dtype(k) != DType::f32) return "only f32";
  if (m.node.i("training_mode", 0) != 0) return "training";
  float epsilon = m.node.f("epsilon", 1e-5f);
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& in = b.in(0);
    if (in.size() < 2)
      return invalid("The input of a normalisation over channels has shape " + ai_vmm::to_string(in) + ".");
    const int64_t channels = in[1], pixels = product(in, 2, in.size());
    for (size_t k = 1; k < 5; ++k)
      if (product(b.in(k)) != channels)
        return invalid("The parameters of BatchNormalization need " + std::to_string(channels) + " elements.");
    return Bound{[=, batch = in[0]](Run& r) -> Status {
                   parallel(r.threads, batch * channels, std::max<int64_t>(1, 8192 / std::max<int64_t>(1, pixels)),
                            [&](int64_t begin, int64_t end) {
                              for (int64_t i = begin; i < end; ++i) {
                                const int64_t c = i % channels;
                                const float s = r.in<float>(1)[c] / std::sqrt(r.in<float>(4)[c] + epsilon);
                                kernels().affine(r.in<float>(0) + i * pixels, s,
                                                 r.in<float>(2)[c] - r.in<float>(3)[c] * s,
                                                 r.out<float>(0) + i * pixels, pixels);
                              }
                            });
                   return {};
                 },
                 0, "", 2.0 * double(product(in))};
  });
}

Made make_instance_norm(const Make& m) { return group_norm(m, true); }
Made make_group_norm(const Make& m) { return group_norm(m, false); }

}  // namespace ai_vmm::cpu
