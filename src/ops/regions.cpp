// Operators of object detection: regions of interest and the suppression of overlapping boxes.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/all_ops.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

// ---------------------------------------------------------------- RoiAlign

Status infer_roi_align(Infer& c) {
  std::vector<Dim> y = c.fresh(4);
  if (c.ranked(1) && c.rank(1) == 2) y[0] = c.dims(1)[0];
  if (c.ranked(0)) {
    if (c.rank(0) != 4) return c.error("the input must have rank 4, it has " + std::to_string(c.rank(0)) + ".");
    y[1] = c.dims(0)[1];
  }
  y[2] = c.node.i("output_height", 1);
  y[3] = c.node.i("output_width", 1);
  if (c.node.i("output_height", 1) < 0 || c.node.i("output_width", 1) < 0)
    return c.error("the output size is negative.");
  c.set(0, c.dtype(0), std::move(y));
  return {};
}

constexpr int64_t kMaxSamples = 1 << 18;

Status eval_roi_align(Eval& e) {
  const Tensor &x = e.in(0), &rois = e.in(1), &batches = e.in(2);
  if (x.rank() != 4 || rois.rank() != 2 || rois.dim(1) != 4 || batches.rank() != 1 || batches.dim(0) != rois.dim(0))
    return e.error("shapes " + to_string(x.shape()) + ", " + to_string(rois.shape()) + " and " +
                   to_string(batches.shape()) + " are not those of images, regions [R, 4] and batch indices [R].");
  int64_t height = x.dim(2), width = x.dim(3), channels = x.dim(1);
  int64_t out_h = e.node.i("output_height", 1), out_w = e.node.i("output_width", 1), ratio = e.node.i("sampling_ratio");
  double scale = e.node.f("spatial_scale", 1.0f);
  bool half = e.node.s("coordinate_transformation_mode", "half_pixel") == "half_pixel";
  bool take_max = e.node.s("mode", "avg") == "max";
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), {rois.dim(0), channels, out_h, out_w}));
  auto xv = ref::load<double>(x), box = ref::load<double>(rois);
  auto batch = ref::ints(batches);
  std::vector<double> out(size_t(y->count()));

  struct Corner {
    int64_t at;
    double weight;
  };
  for (int64_t r = 0; r < rois.dim(0); ++r) {
    int64_t b = batch[size_t(r)];
    if (b < 0 || b >= x.dim(0))
      return e.error("batch index " + std::to_string(b) + " is outside the " + std::to_string(x.dim(0)) + " images.");
    double shift = half ? 0.5 : 0.0, edge[4];
    for (int i = 0; i < 4; ++i) edge[i] = box[size_t(r * 4 + i)] * scale - shift;  // x1, y1, x2, y2
    double w = edge[2] - edge[0], h = edge[3] - edge[1];
    if (!half) w = std::max(w, 1.0), h = std::max(h, 1.0);
    double bin_h = h / double(out_h), bin_w = w / double(out_w);
    auto samples = [&](double size) { return ratio > 0 ? double(ratio) : std::max(std::ceil(size), 0.0); };
    if (!(samples(bin_h) * samples(bin_w) <= double(kMaxSamples)))
      return e.error("region " + std::to_string(r) + " asks for more than " + std::to_string(kMaxSamples) +
                     " samples a bin.");
    int64_t grid_h = int64_t(samples(bin_h)), grid_w = int64_t(samples(bin_w));
    for (int64_t p = 0; p < out_h * out_w; ++p) {
      // Corners and weights of every sample of the bin, shared by all channels.
      std::vector<Corner> corners;
      for (int64_t iy = 0; iy < grid_h; ++iy)
        for (int64_t ix = 0; ix < grid_w; ++ix) {
          double sy = edge[1] + double(p / out_w) * bin_h + (double(iy) + 0.5) * bin_h / double(grid_h);
          double sx = edge[0] + double(p % out_w) * bin_w + (double(ix) + 0.5) * bin_w / double(grid_w);
          if (!(sy >= -1 && sy <= double(height) && sx >= -1 && sx <= double(width))) {
            corners.insert(corners.end(), 4, {0, 0.0});
            continue;
          }
          sy = std::clamp(sy, 0.0, double(height - 1));
          sx = std::clamp(sx, 0.0, double(width - 1));
          int64_t y0 = int64_t(sy), x0 = int64_t(sx), y1 = std::min(y0 + 1, height - 1),
                  x1 = std::min(x0 + 1, width - 1);
          double fy = sy - double(y0), fx = sx - double(x0);
          corners.push_back({y0 * width + x0, (1 - fy) * (1 - fx)});
          corners.push_back({y0 * width + x1, (1 - fy) * fx});
          corners.push_back({y1 * width + x0, fy * (1 - fx)});
          corners.push_back({y1 * width + x1, fy * fx});
        }
      if (height == 0 || width == 0) corners.clear();
      for (int64_t c = 0; c < channels; ++c) {
        const double* image = xv.data() + (b * channels + c) * height * width;
        double sum = 0, top = corners.empty() ? 0 : -INFINITY;
        // mode max takes the largest weighted corner, not the largest interpolated sample: ONNX defines it so.
        for (const Corner& k : corners) {
          sum += k.weight * image[k.at];
          top = std::max(top, k.weight * image[k.at]);
        }
        out[size_t((r * channels + c) * out_h * out_w + p)] =
            take_max ? top : sum / double(std::max<int64_t>(grid_h * grid_w, 1));
      }
    }
  }
  ref::store<double>(*y, out);
  return {};
}

// ---------------------------------------------------------------- MaxRoiPool

Status infer_max_roi_pool(Infer& c) {
  auto size = c.node.ints("pooled_shape");
  if (size.size() != 2 || size[0] < 1 || size[1] < 1) return c.error("pooled_shape must be two positive sizes.");
  std::vector<Dim> y = c.fresh(4);
  if (c.ranked(1) && c.rank(1) == 2) y[0] = c.dims(1)[0];
  if (c.ranked(0) && c.rank(0) == 4) y[1] = c.dims(0)[1];
  y[2] = size[0], y[3] = size[1];
  c.set(0, c.dtype(0), std::move(y));
  return {};
}

// Fast R-CNN (Girshick 2015): the region is rounded to whole elements and cut into bins, which may overlap by one.
Status eval_max_roi_pool(Eval& e) {
  const Tensor &x = e.in(0), &rois = e.in(1);
  auto size = e.node.ints("pooled_shape");
  if (x.rank() != 4 || rois.rank() != 2 || rois.dim(1) != 5 || size.size() != 2)
    return e.error("shapes " + to_string(x.shape()) + " and " + to_string(rois.shape()) +
                   " are not those of images and regions [R, 5].");
  double scale = e.node.f("spatial_scale", 1.0f);
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), {rois.dim(0), x.dim(1), size[0], size[1]}));
  auto xv = ref::load<double>(x), box = ref::load<double>(rois);
  std::vector<double> out;
  out.reserve(size_t(y->count()));
  for (int64_t r = 0; r < rois.dim(0); ++r) {
    const double* roi = box.data() + r * 5;  // batch, x1, y1, x2, y2
    for (int i = 0; i < 5; ++i)
      if (!(std::fabs(roi[i] * (i ? scale : 1)) < 1e9))
        return e.error("region " + std::to_string(r) + " is not finite.");
    int64_t b = int64_t(roi[0]);
    if (b < 0 || b >= x.dim(0))
      return e.error("batch index " + std::to_string(b) + " is outside the " + std::to_string(x.dim(0)) + " images.");
    // Bounds [low, high) of bin p along one axis.
    auto bin = [&](int64_t p, int64_t bins, double first, double last, int64_t length) {
      int64_t start = std::llround(first * scale), stop = std::llround(last * scale);
      double step = double(std::max<int64_t>(stop - start + 1, 1)) / double(bins);
      int64_t low = start + int64_t(std::floor(double(p) * step)),
              high = start + int64_t(std::ceil(double(p + 1) * step));
      return std::pair(std::clamp<int64_t>(low, 0, length), std::clamp<int64_t>(high, 0, length));
    };
    for (int64_t c = 0; c < x.dim(1); ++c)
      for (int64_t p = 0; p < size[0]; ++p)
        for (int64_t q = 0; q < size[1]; ++q) {
          auto [y0, y1] = bin(p, size[0], roi[2], roi[4], x.dim(2));
          auto [x0, x1] = bin(q, size[1], roi[1], roi[3], x.dim(3));
          double top = y0 < y1 && x0 < x1 ? -INFINITY : 0;
          for (int64_t i = y0; i < y1; ++i)
            for (int64_t j = x0; j < x1; ++j)
              top = std::max(top, xv[size_t(((b * x.dim(1) + c) * x.dim(2) + i) * x.dim(3) + j)]);
          out.push_back(top);
        }
  }
  ref::store<double>(*y, out);
  return {};
}

// ---------------------------------------------------------------- NonMaxSuppression

Status infer_nms(Infer& c) {
  c.set(0, DType::i64, {c.fresh(), Dim(3)});
  return {};
}

struct Box {
  float y1, x1, y2, x2;
  float area() const { return (y2 - y1) * (x2 - x1); }
};

bool overlaps(const Box& a, const Box& b, float threshold) {
  float h = std::min(a.y2, b.y2) - std::max(a.y1, b.y1), w = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
  if (h <= 0 || w <= 0 || a.area() <= 0 || b.area() <= 0) return false;
  float common = h * w;
  return common / (a.area() + b.area() - common) > threshold;
}

Status eval_nms(Eval& e) {
  const Tensor &boxes = e.in(0), &scores = e.in(1);
  if (boxes.rank() != 3 || boxes.dim(2) != 4 || scores.rank() != 3 || scores.dim(0) != boxes.dim(0) ||
      scores.dim(2) != boxes.dim(1))
    return e.error("shapes " + to_string(boxes.shape()) + " and " + to_string(scores.shape()) +
                   " are not those of boxes [B, N, 4] and scores [B, C, N].");
  for (size_t k = 2; k < 5; ++k)
    if (e.has(k) && e.in(k).count() != 1) return e.error("input " + std::to_string(k) + " must hold one number.");
  int64_t limit = e.has(2) ? ref::ints(e.in(2))[0] : 0;
  float iou = e.has(3) ? e.in(3).as<float>()[0] : 0.0f;
  bool center = e.node.i("center_point_box") != 0;
  auto raw = boxes.as<float>(), score = scores.as<float>();
  int64_t count = boxes.dim(1);
  std::vector<int64_t> selected;
  for (int64_t b = 0; b < boxes.dim(0); ++b) {
    std::vector<Box> box(static_cast<size_t>(count));
    for (size_t i = 0; i < box.size(); ++i) {
      const float* r = raw.data() + (size_t(b * count) + i) * 4;
      if (center)  // x, y, width, height
        box[i] = {r[1] - r[3] / 2, r[0] - r[2] / 2, r[1] + r[3] / 2, r[0] + r[2] / 2};
      else  // two opposite corners in any order
        box[i] = {std::min(r[0], r[2]), std::min(r[1], r[3]), std::max(r[0], r[2]), std::max(r[1], r[3])};
    }
    for (int64_t c = 0; c < scores.dim(1); ++c) {
      const float* s = score.data() + (b * scores.dim(1) + c) * count;
      std::vector<int64_t> order;
      for (int64_t i = 0; i < count; ++i)
        if (s[i] == s[i] && (!e.has(4) || s[i] > e.in(4).as<float>()[0])) order.push_back(i);
      std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return s[i] > s[j]; });
      std::vector<int64_t> kept;
      for (int64_t i : order) {
        if (int64_t(kept.size()) >= limit) break;
        if (std::any_of(kept.begin(), kept.end(),
                        [&](int64_t k) { return overlaps(box[size_t(i)], box[size_t(k)], iou); }))
          continue;
        kept.push_back(i);
        selected.insert(selected.end(), {b, c, i});
      }
    }
  }
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::i64, {int64_t(selected.size()) / 3, 3}));
  ref::store<int64_t>(*y, selected);
  return {};
}

const OpDef kOps[] = {
    {"RoiAlign", "", 22, "X:T1, rois:T1, batch_indices:T2 -> Y:T1 | T1: f16 f32 f64 bf16, T2: i64",
     "coordinate_transformation_mode:string=half_pixel, mode:string=avg, output_height:int=1, output_width:int=1, "
     "sampling_ratio:int=0, spatial_scale:float=1.0",
     "Cuts each region [x1, y1, x2, y2] into output_height x output_width bins and pools bilinear samples of each bin "
     "(He et al. 2017).",
     kNoTrait, infer_roi_align,
     [](const CostQuery& q) {
       double r = double(std::max<int64_t>(q.node.i("sampling_ratio"), 1));
       return Cost{.flops = 8 * r * r * q.elements_out(0)};
     },
     eval_roi_align},
    {"MaxRoiPool", "", 22, "X:T, rois:T -> Y:T | T: f16 f32 f64 bf16", "pooled_shape:ints!, spatial_scale:float=1.0",
     "Largest element of each of pooled_shape bins of every region [batch, x1, y1, x2, y2].", kNoTrait,
     infer_max_roi_pool, nullptr, eval_max_roi_pool},
    {"NonMaxSuppression", "", 11,
     "boxes:f32, scores:f32, max_output_boxes_per_class:i64?, iou_threshold:f32?, score_threshold:f32? -> "
     "selected_indices:i64",
     "center_point_box:int=0",
     "For every image and class, boxes in order of falling score, without those below the score threshold and those "
     "that "
     "overlap a box already taken by more than the IoU threshold; rows are [image, class, box].",
     kDataDependent, infer_nms,
     [](const CostQuery& q) {
       double n = q.shape_in(0).size() == 3 ? double(q.shape_in(0)[1]) : 0;
       return Cost{.flops = 10 * q.elements_in(1) * std::log2(n + 1)};
     },
     eval_nms},
};

}  // namespace

std::span<const OpDef> region_ops() { return kOps; }

}  // namespace ai_vmm
