// Col2Im: sums sliding blocks into an image.
#include "ops/all_ops.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

Status infer_col2im(Infer& c) {
  auto image = c.ints(1), block = c.ints(2);
  if (c.ranked(0) && c.rank(0) != 3)
    return c.error("the input must be [N, C·block, L]; it has shape " + to_string(c.dims(0)) + ".");
  Dim batch = c.ranked(0) ? c.dims(0)[0] : c.fresh();
  Dim channels = c.ranked(0) && block ? exact_div(c.dims(0)[1], product(*block)) : c.fresh();
  std::vector<Dim> dims{batch, channels};
  if (image) {
    dims.insert(dims.end(), image->begin(), image->end());
  } else if (c.ranked(1) && c.rank(1) == 1 && c.dims(1)[0].constant() && *c.dims(1)[0].constant() <= 64) {
    for (int64_t i = 0; i < *c.dims(1)[0].constant(); ++i) dims.push_back(c.fresh());
  } else {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  c.set(0, c.dtype(0), std::move(dims));
  return {};
}

Status eval_col2im(Eval& e) {
  const Tensor& x = e.in(0);
  Shape image = ref::ints(e.in(1)), block = ref::ints(e.in(2));
  size_t rank = image.size();
  Shape dilations = e.node.ints("dilations", Shape(rank, 1)), pads = e.node.ints("pads", Shape(2 * rank, 0)),
        strides = e.node.ints("strides", Shape(rank, 1));
  if (x.rank() != 3 || block.size() != rank || dilations.size() != rank || pads.size() != 2 * rank ||
      strides.size() != rank || rank == 0)
    return e.error("image_shape, block_shape, dilations, pads and strides do not belong together.");
  Shape steps(rank);  // how often the block fits along each axis
  int64_t block_count = 1, step_count = 1;
  for (size_t i = 0; i < rank; ++i) {
    constexpr int64_t kMost = int64_t(1) << 30;
    for (int64_t v : {image[i], block[i], dilations[i], strides[i]})
      if (v < 1 || v > kMost) return e.error("sizes must be positive.");
    if (pads[i] < 0 || pads[i] > kMost || pads[i + rank] < 0 || pads[i + rank] > kMost)
      return e.error("pads must not be negative.");
    int64_t room = image[i] + pads[i] + pads[i + rank] - (dilations[i] * (block[i] - 1) + 1);
    steps[i] = room < 0 ? 0 : room / strides[i] + 1;
    if (__builtin_mul_overflow(block_count, block[i], &block_count) ||
        __builtin_mul_overflow(step_count, steps[i], &step_count))
      return e.error("the image is too large.");
  }
  if (x.dim(1) % block_count != 0 || x.dim(2) != step_count)
    return e.error("shape " + to_string(x.shape()) + " does not hold blocks " + to_string(block) + " of an image " +
                   to_string(image) + ": it takes " + std::to_string(step_count) + " columns.");
  int64_t n = x.dim(0), channels = x.dim(1) / block_count;
  Shape shape{n, channels};
  shape.insert(shape.end(), image.begin(), image.end());
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  Shape image_strides = ref::strides_of(image);
  return ref::dispatch_real(e, x.dtype(), [&]<class T>() -> Status {
    auto v = ref::load<T>(x);
    std::vector<T> sum(size_t(y->count()), T(0));
    int64_t image_size = ref::product(image);
    size_t k = 0;
    for (int64_t p = 0; p < n * channels; ++p)
      for (ref::Index b(block); b.more(); b.next())
        for (ref::Index s(steps); s.more(); s.next(), ++k) {
          int64_t at = 0;
          for (size_t i = 0; i < rank && at >= 0; ++i) {
            int64_t pos = s[i] * strides[i] + b[i] * dilations[i] - pads[i];
            at = pos < 0 || pos >= image[i] ? -1 : at + pos * image_strides[i];
          }
          if (at >= 0) sum[size_t(p * image_size + at)] += v[k];
        }
    ref::store<T>(*y, sum);
    return {};
  });
}

Cost cost_col2im(const CostQuery& q) { return {.flops = q.elements_in(0)}; }

const OpDef kOps[] = {
    {"Col2Im", "", 18, "input:T, image_shape:i64, block_shape:i64 -> output:T | T: tensor",
     "dilations:ints, pads:ints, strides:ints",
     "Adds the columns of [N, C·block, L], each a block of an image, at their places in images of the given shape; "
     "overlaps sum.",
     kNoTrait, infer_col2im, cost_col2im, eval_col2im},
};

}  // namespace

std::span<const OpDef> col2im_ops() { return kOps; }

}  // namespace ai_vmm
