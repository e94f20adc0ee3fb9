// Operators that draw random numbers. With a seed they repeat from run to run; without one they draw from the run's
// stream.

#include <algorithm>
#include <bit>
#include <cmath>

#include "ops/all_ops.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

// The element type of the output: the attribute, else the fallback, which inference may not know yet.
template <class Context>
Result<DType> output_type(const Context& c, DType fallback, bool (*admitted)(DType)) {
  int64_t t = c.node.i("dtype", int64_t(fallback));
  if (!c.node.has("dtype") && fallback == DType::undefined) return fallback;
  if (t < 0 || t >= kDTypeCount || !admitted(DType(t)))
    return c.error("dtype " + std::to_string(t) + " is no element type that this operator makes.");
  return DType(t);
}
bool is_number(DType t) { return is_float(t) || is_integer(t) || t == DType::boolean; }

Status infer_like(Infer& c, bool (*admitted)(DType)) {
  DType t = AI_VMM_TAKE(output_type(c, c.dtype(0), admitted));
  if (c.ranked(0))
    c.set(0, t, c.dims(0));
  else
    c.set_unranked(0, t);
  return {};
}
Status infer_shape_attribute(Infer& c) {
  DType t = AI_VMM_TAKE(output_type(c, DType::f32, is_float));
  Shape shape = c.node.ints("shape");
  if (!element_count(shape)) return c.error("the shape " + to_string(shape) + " is negative or too large.");
  c.set(0, t, to_dims(shape));
  return {};
}

// Calls f(stream) with the stream that the seed, or else the run, gives.
template <class F>
void with_stream(Eval& e, F f) {
  if (e.node.has("seed")) {
    Random own{std::bit_cast<uint32_t>(e.node.f("seed"))};
    f(own);
  } else {
    f(e.random);
  }
}

// Output 0, drawn element by element.
template <class Draw>
Status draw(Eval& e, DType t, Shape shape, Draw f) {
  Tensor* y = AI_VMM_TAKE(e.make(0, t, std::move(shape)));
  with_stream(e, [&](Random& r) {
    for (int64_t i = 0; i < y->count(); ++i) write_double(t, y->mutable_data(), i, f(r, i));
  });
  return {};
}

Status draw_normal(Eval& e, DType t, Shape shape) {
  double mean = e.node.f("mean", 0), scale = e.node.f("scale", 1);
  return draw(e, t, std::move(shape), [&](Random& r, int64_t) { return mean + scale * r.normal(); });
}
Status draw_uniform(Eval& e, DType t, Shape shape) {
  double low = e.node.f("low", 0), high = e.node.f("high", 1);
  return draw(e, t, std::move(shape), [&](Random& r, int64_t) { return low + (high - low) * r.uniform(); });
}

template <Status (*Draw)(Eval&, DType, Shape)>
Status eval_shape_attribute(Eval& e) {
  return Draw(e, AI_VMM_TAKE(output_type(e, DType::f32, is_float)), e.node.ints("shape"));
}
template <Status (*Draw)(Eval&, DType, Shape)>
Status eval_like(Eval& e) {
  return Draw(e, AI_VMM_TAKE(output_type(e, e.in(0).dtype(), is_float)), e.in(0).shape());
}

Status infer_bernoulli(Infer& c) { return infer_like(c, is_number); }
Status eval_bernoulli(Eval& e) {
  DType t = AI_VMM_TAKE(output_type(e, e.in(0).dtype(), is_number));
  auto p = ref::load<double>(e.in(0));
  return draw(e, t, e.in(0).shape(), [&](Random& r, int64_t i) { return double(r.uniform() < p[size_t(i)]); });
}

Status infer_multinomial(Infer& c) {
  DType t = AI_VMM_TAKE(output_type(c, DType::i32, is_integer));
  int64_t samples = c.node.i("sample_size", 1);
  if (samples < 0) return c.error("sample_size is " + std::to_string(samples) + ".");
  if (c.ranked(0) && c.rank(0) != 2)
    return c.error("the input has rank " + std::to_string(c.rank(0)) + "; it must be 2.");
  c.set(0, t, {c.ranked(0) ? c.dims(0)[0] : c.fresh(), Dim(samples)});
  return {};
}
Status eval_multinomial(Eval& e) {
  const Tensor& x = e.in(0);
  DType t = AI_VMM_TAKE(output_type(e, DType::i32, is_integer));
  int64_t samples = e.node.i("sample_size", 1);
  if (x.rank() != 2 || (x.dim(1) == 0 && x.dim(0) > 0 && samples > 0))
    return e.error("shape " + to_string(x.shape()) + " holds no outcomes to draw from; it must be [batch, outcomes].");
  if (samples < 0) return e.error("sample_size is " + std::to_string(samples) + ".");
  Tensor* y = AI_VMM_TAKE(e.make(0, t, {x.dim(0), samples}));
  if (y->count() == 0) return {};
  auto v = ref::load<double>(x);
  int64_t n = x.dim(1);
  std::vector<double> up_to(size_t(n), 0);  // running sums of the probabilities, unnormalised
  with_stream(e, [&](Random& r) {
    for (int64_t b = 0; b < x.dim(0); ++b) {
      const double* row = v.data() + b * n;
      double m = *std::max_element(row, row + n), sum = 0;
      for (int64_t i = 0; i < n; ++i) up_to[size_t(i)] = sum += std::exp(row[i] - m);
      for (int64_t s = 0; s < samples; ++s) {
        auto at = std::upper_bound(up_to.begin(), up_to.end() - 1, r.uniform() * sum);
        write_int64(t, y->mutable_data(), b * samples + s, at - up_to.begin());
      }
    }
  });
  return {};
}

Status infer_float_like(Infer& c) { return infer_like(c, is_float); }

const OpDef kOps[] = {
    {"RandomNormal", "", 22, "-> output:any", "shape:ints!, dtype:int=1, seed:float, scale:float=1.0, mean:float=0.0",
     "A tensor of the given shape drawn from the normal distribution.", kRandom, infer_shape_attribute, nullptr,
     eval_shape_attribute<draw_normal>},
    {"RandomNormalLike", "", 22, "input:any -> output:any", "dtype:int, seed:float, scale:float=1.0, mean:float=0.0",
     "A tensor of the input's shape drawn from the normal distribution.", kRandom, infer_float_like, nullptr,
     eval_like<draw_normal>},
    {"RandomUniform", "", 22, "-> output:any", "shape:ints!, dtype:int=1, seed:float, high:float=1.0, low:float=0.0",
     "A tensor of the given shape drawn uniformly from [low, high).", kRandom, infer_shape_attribute, nullptr,
     eval_shape_attribute<draw_uniform>},
    {"RandomUniformLike", "", 22, "input:any -> output:any", "dtype:int, seed:float, high:float=1.0, low:float=0.0",
     "A tensor of the input's shape drawn uniformly from [low, high).", kRandom, infer_float_like, nullptr,
     eval_like<draw_uniform>},
    {"Bernoulli", "", 22, "input:T -> output:any | T: float", "dtype:int, seed:float",
     "1 with the probability that the input says, otherwise 0.", kRandom, infer_bernoulli, nullptr, eval_bernoulli},
    {"Multinomial", "", 22, "input:T -> output:any | T: float", "dtype:int=6, seed:float, sample_size:int=1",
     "sample_size outcomes a row, drawn with probabilities whose logarithms, up to a constant, are the input [batch, "
     "outcomes].",
     kRandom, infer_multinomial, nullptr, eval_multinomial},
};

}  // namespace

std::span<const OpDef> random_ops() { return kOps; }

}  // namespace ai_vmm
