// Discrete Fourier transforms: DFT and STFT.

#include <cmath>
#include <numbers>

#include "ops/all_ops.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

using ref::Complex;

// In place; `sign` -1 forward, +1 inverse without the 1/n. Splits by the smallest prime factor, so that the work is
// n times the sum of the prime factors of n.
class Fourier {
 public:
  Fourier(int64_t n, int sign) : n_(n), roots_(size_t(n)) {
    for (int64_t k = 0; k < n; ++k)
      roots_[size_t(k)] = std::polar(1.0, sign * 2 * std::numbers::pi * double(k) / double(n));
  }
  void operator()(std::vector<Complex>& x) const {
    std::vector<Complex> scratch(x.size());
    transform(x.data(), scratch.data(), n_);
  }

 private:
  void transform(Complex* x, Complex* scratch, int64_t n) const {
    if (n <= 1) return;
    int64_t p = 2;
    while (p * p <= n && n % p != 0) ++p;
    if (n % p != 0) p = n;
    int64_t m = n / p, step = n_ / n;  // roots of order n are every step-th root of order n_
    for (int64_t i = 0; i < n; ++i) scratch[i % p * m + i / p] = x[i];
    for (int64_t j = 0; j < p; ++j) transform(scratch + j * m, x + j * m, m);
    for (int64_t k = 0; k < n; ++k) {
      Complex sum = 0;
      for (int64_t j = 0; j < p; ++j) sum += scratch[j * m + k % m] * roots_[size_t(j * k % n * step)];
      x[k] = sum;
    }
  }

  int64_t n_;
  std::vector<Complex> roots_;
};

// One number of an optional scalar input, where it is known.
std::optional<Dim> scalar(const Infer& c, size_t k) {
  auto v = c.ints(k);
  if (!v || v->size() != 1) return std::nullopt;
  return (*v)[0];
}
Result<int64_t> scalar(const Eval& e, size_t k) {
  if (e.in(k).count() != 1) return e.error("input " + std::to_string(k) + " must hold one number.");
  return ref::ints(e.in(k))[0];
}

constexpr int64_t kMaxLength = int64_t(1) << 28;

// ---------------------------------------------------------------- DFT

Status infer_dft(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  bool inverse = c.node.i("inverse") != 0, onesided = c.node.i("onesided") != 0;
  std::vector<Dim> y = c.dims(0);
  if (y.size() < 2)
    return c.error("an input of rank " + std::to_string(y.size()) +
                   " has no signal axis; the last axis holds real and imaginary parts.");
  std::optional<Dim> axis = c.has(2) ? scalar(c, 2) : Dim(-2);
  auto known_axis = axis ? axis->constant() : std::nullopt;
  y.back() = inverse && onesided ? 1 : 2;
  if (!known_axis) {
    for (size_t i = 0; i + 1 < y.size(); ++i) y[i] = c.fresh();
    c.set(0, c.dtype(0), std::move(y));
    return {};
  }
  int64_t a = AI_VMM_TAKE(c.axis(*known_axis, c.rank(0)));
  if (a == c.rank(0) - 1) return c.error("the last axis holds real and imaginary parts and cannot be transformed.");
  Dim& d = y[size_t(a)];
  Dim length = c.has(1) ? scalar(c, 1).value_or(c.fresh()) : inverse && onesided ? (d - 1) * 2 : d;
  d = onesided && !inverse ? floor_div(length, 2) + 1 : length;
  c.set(0, c.dtype(0), std::move(y));
  return {};
}

Status eval_dft(Eval& e) {
  const Tensor& x = e.in(0);
  bool inverse = e.node.i("inverse") != 0, onesided = e.node.i("onesided") != 0;
  if (x.rank() < 2 || (x.dim(x.rank() - 1) != 1 && x.dim(x.rank() - 1) != 2))
    return e.error("an input of shape " + to_string(x.shape()) +
                   " is not a signal; its last axis must hold 1 (real) or 2 (complex) numbers.");
  int64_t parts = x.dim(x.rank() - 1), wanted = -2;
  if (e.has(2)) wanted = AI_VMM_TAKE(scalar(e, 2));
  int64_t axis = AI_VMM_TAKE(e.axis(wanted, x.rank()));
  if (axis == x.rank() - 1) return e.error("the last axis holds real and imaginary parts and cannot be transformed.");
  int64_t in = x.dim(axis), length = inverse && onesided ? 2 * (in - 1) : in;
  if (e.has(1)) length = AI_VMM_TAKE(scalar(e, 1));
  if (length < 1 || length > kMaxLength)
    return e.error("a transform of length " + std::to_string(length) + " cannot be.");
  int64_t out = onesided && !inverse ? length / 2 + 1 : length, out_parts = inverse && onesided ? 1 : 2;
  Shape shape = x.shape();
  shape[size_t(axis)] = out;
  shape.back() = out_parts;
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  auto v = ref::load<double>(x);
  std::vector<double> w(size_t(y->count()));
  int64_t outer = 1, inner = 1;
  for (int64_t i = 0; i < axis; ++i) outer *= x.dim(i);
  for (int64_t i = axis + 1; i + 1 < x.rank(); ++i) inner *= x.dim(i);
  Fourier transform(length, inverse ? 1 : -1);
  std::vector<Complex> s(static_cast<size_t>(length));
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t i = 0; i < inner; ++i) {
      auto get = [&](int64_t k) -> Complex {
        if (k >= in) return 0;
        const double* at = v.data() + ((o * in + k) * inner + i) * parts;
        return {at[0], parts == 2 ? at[1] : 0.0};
      };
      for (int64_t k = 0; k < length; ++k) {
        // A one-sided spectrum holds the first half; the other half is its mirror image.
        bool mirrored = inverse && onesided && k > length / 2;
        s[size_t(k)] = mirrored ? std::conj(get(length - k)) : get(k);
        // What must be real in the spectrum of a real signal is taken as real.
        if (inverse && onesided && (k == 0 || 2 * k == length)) s[size_t(k)] = s[size_t(k)].real();
      }
      transform(s);
      for (int64_t k = 0; k < out; ++k) {
        double* to = w.data() + ((o * out + k) * inner + i) * out_parts;
        Complex r = inverse ? s[size_t(k)] / double(length) : s[size_t(k)];
        to[0] = r.real();
        if (out_parts == 2) to[1] = r.imag();
      }
    }
  ref::store<double>(*y, w);
  return {};
}

double fft_flops(double n) { return n > 1 ? 5 * n * std::log2(n) : 0; }

Cost cost_dft(const CostQuery& q) {
  // The transformed axis is not known from shapes alone; the last signal axis stands for it.
  Shape y = q.shape_out(0);
  if (y.size() < 2) return {};
  double n = double(y[y.size() - 2]);
  return {.flops = n > 0 ? q.elements_out(0) / double(y.back()) / n * fft_flops(n) : 0};
}

// ---------------------------------------------------------------- STFT

Status infer_stft(Infer& c) {
  std::vector<Dim> x = c.ranked(0) ? c.dims(0) : c.fresh(3);
  if (x.size() < 2 || x.size() > 3)
    return c.error("the signal must have shape [batch, length, 1 or 2], its rank is " + std::to_string(x.size()) + ".");
  std::optional<Dim> length, step = scalar(c, 1);
  if (c.has(3)) length = scalar(c, 3);
  if (!length && c.has(2) && c.ranked(2) && c.rank(2) == 1) length = c.dims(2)[0];
  if (!length && !c.has(2) && !c.has(3)) length = x[1];
  Dim frames = c.fresh(), bins = c.fresh();
  if (length) {
    bins = c.node.i("onesided", 1) ? floor_div(*length, 2) + 1 : *length;
    if (step && !step->is(0)) frames = floor_div(x[1] - *length, *step) + 1;
  }
  c.set(0, c.dtype(0), {x[0], frames, bins, Dim(2)});
  return {};
}

Status eval_stft(Eval& e) {
  const Tensor& x = e.in(0);
  if (x.rank() < 2 || x.rank() > 3 || (x.rank() == 3 && x.dim(2) != 1 && x.dim(2) != 2))
    return e.error("a signal of shape " + to_string(x.shape()) + " is not [batch, length, 1 or 2].");
  int64_t parts = x.rank() == 3 ? x.dim(2) : 1, samples = x.dim(1), step = AI_VMM_TAKE(scalar(e, 1));
  if (e.has(2) && e.in(2).rank() != 1)
    return e.error("the window must be a vector, its shape is " + to_string(e.in(2).shape()) + ".");
  int64_t length = e.has(2) ? e.in(2).count() : samples;
  if (e.has(3)) length = AI_VMM_TAKE(scalar(e, 3));
  if (step < 1) return e.error("frame_step is " + std::to_string(step) + "; it must be positive.");
  if (length < 1 || length > samples)
    return e.error("a frame of " + std::to_string(length) + " samples does not fit a signal of " +
                   std::to_string(samples) + ".");
  if (e.has(2) && e.in(2).count() != length)
    return e.error("the window holds " + std::to_string(e.in(2).count()) + " numbers for frames of " +
                   std::to_string(length) + ".");
  bool onesided = e.node.i("onesided", 1) != 0;
  if (onesided && parts == 2) return e.error("a complex signal has no one-sided transform.");
  int64_t frames = (samples - length) / step + 1, bins = onesided ? length / 2 + 1 : length;
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), {x.dim(0), frames, bins, 2}));
  auto v = ref::load<double>(x);
  auto window = e.has(2) ? ref::load<double>(e.in(2)) : std::vector<double>(size_t(length), 1.0);
  Fourier transform(length, -1);
  std::vector<Complex> s(static_cast<size_t>(length));
  std::vector<double> w;
  w.reserve(size_t(y->count()));
  for (int64_t b = 0; b < x.dim(0); ++b)
    for (int64_t f = 0; f < frames; ++f) {
      for (int64_t k = 0; k < length; ++k) {
        const double* at = v.data() + (b * samples + f * step + k) * parts;
        s[size_t(k)] = Complex(at[0], parts == 2 ? at[1] : 0.0) * window[size_t(k)];
      }
      transform(s);
      for (int64_t k = 0; k < bins; ++k) {
        w.push_back(s[size_t(k)].real());
        w.push_back(s[size_t(k)].imag());
      }
    }
  ref::store<double>(*y, w);
  return {};
}

const OpDef kOps[] = {
    {"DFT", "", 20, "input:T1, dft_length:T2?, axis:i64? -> output:T1 | T1: f16 f32 f64 bf16, T2: i32 i64",
     "inverse:int=0, onesided:int=0",
     "Discrete Fourier transform along one axis, cut or padded with zeros to dft_length; the last axis holds real and "
     "imaginary parts. onesided keeps the first half of a real signal's spectrum, or turns such a half into the real "
     "signal.",
     kNoTrait, infer_dft, cost_dft, eval_dft},
    {"STFT", "", 17,
     "signal:T1, frame_step:T2, window:T1?, frame_length:T2? -> output:T1 | T1: f16 f32 f64 bf16, T2: i32 i64",
     "onesided:int=1", "Discrete Fourier transforms of windowed frames that start every frame_step samples.", kNoTrait,
     infer_stft,
     [](const CostQuery& q) {
       Shape y = q.shape_out(0);
       if (y.size() != 4) return Cost{};
       double n = double(q.node.i("onesided", 1) ? 2 * (y[2] - 1) : y[2]);
       return Cost{.flops = double(y[0]) * double(y[1]) * (n + fft_flops(n))};
     },
     eval_stft},
};

}  // namespace

std::span<const OpDef> fourier_ops() { return kOps; }

}  // namespace ai_vmm
