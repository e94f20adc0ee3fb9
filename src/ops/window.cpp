#include "ops/window.hpp"

#include <algorithm>

namespace ai_vmm {

namespace {
constexpr int64_t kMaxExtent = int64_t(1) << 30;  // keeps every product of two below 2^62

Result<Shape> per_axis(const Node& node, const char* name, size_t count, int64_t fallback, int64_t least) {
  Shape v = node.ints(name);
  if (v.empty()) v.assign(count, fallback);
  if (v.size() != count)
    return node_error(node, std::string(name) + " has " + std::to_string(v.size()) + " entries; " +
                                std::to_string(count) + " are needed.");
  for (int64_t x : v)
    if (x < least || x > kMaxExtent)
      return node_error(node, std::string(name) + " holds " + std::to_string(x) + ", which is outside [" +
                                  std::to_string(least) + ", 2^30].");
  return v;
}
}  // namespace

Status node_error(const Node& node, const std::string& what) {
  std::string label = node.label();
  label[0] = 'O';
  return Status(Code::invalid_argument, label + ": " + what);
}

Result<Window> window_of(const Node& node, Shape kernel) {
  Window w;
  for (int64_t k : kernel)
    if (k < 1 || k > kMaxExtent) return node_error(node, "a kernel of shape " + to_string(kernel) + " cannot slide.");
  size_t n = kernel.size();
  w.kernel = std::move(kernel);
  w.strides = AI_VMM_TAKE(per_axis(node, "strides", n, 1, 1));
  w.dilations = AI_VMM_TAKE(per_axis(node, "dilations", n, 1, 1));
  w.ceil = node.find("ceil_mode") && node.i("ceil_mode") != 0;
  std::string mode = node.s("auto_pad", "NOTSET");
  if (mode == "NOTSET" || mode.empty()) {
    w.pads = AI_VMM_TAKE(per_axis(node, "pads", 2 * n, 0, -kMaxExtent));
    return w;
  }
  w.pads.assign(2 * n, 0);
  if (mode == "SAME_UPPER") {
    w.auto_pad = Window::Auto::same_upper;
  } else if (mode == "SAME_LOWER") {
    w.auto_pad = Window::Auto::same_lower;
  } else if (mode == "VALID") {
    w.auto_pad = Window::Auto::valid;
  } else {
    return node_error(node, "auto_pad \"" + mode + "\" is not one of NOTSET, SAME_UPPER, SAME_LOWER, VALID.");
  }
  return w;
}

Result<Window> pool_window(const Node& node, size_t axes) {
  Shape kernel = node.ints("kernel_shape");
  if (kernel.size() != axes)
    return node_error(node, "kernel_shape has " + std::to_string(kernel.size()) + " entries for " +
                                std::to_string(axes) + " spatial axes.");
  return window_of(node, std::move(kernel));
}

Dim Window::output(size_t i, const Dim& input) const {
  if (auto_pad == Auto::same_upper || auto_pad == Auto::same_lower) return ceil_div(input, strides[i]);
  Dim span = input + pads[i] + pads[axes() + i] - extent(i);
  if (!ceil) return floor_div(span, strides[i]) + 1;
  // The last window starts at (out - 1) * stride, which must be less than pads[i] + input.
  return min(ceil_div(span, strides[i]) + 1, ceil_div(input + pads[i], strides[i]));
}

int64_t Window::before(size_t i, int64_t input) const {
  if (auto_pad == Auto::notset || auto_pad == Auto::valid) return pads[i];
  int64_t out = (input + strides[i] - 1) / strides[i];
  int64_t total = std::max<int64_t>(0, (out - 1) * strides[i] + extent(i) - input);
  return auto_pad == Auto::same_upper ? total / 2 : total - total / 2;
}

Result<std::vector<Dim>> conv_output(const Node& node, const std::vector<Dim>& x, const std::vector<Dim>& w) {
  if (x.size() < 2 || w.size() != x.size())
    return node_error(node, "an input of rank " + std::to_string(x.size()) + " does not go with weights of rank " +
                                std::to_string(w.size()) + ".");
  int64_t group = node.i("group", 1);
  if (group < 1) return node_error(node, "group is " + std::to_string(group) + "; it must be positive.");
  if (known_different(x[1], w[1] * group))
    return node_error(node, "the input has " + x[1].to_string() + " channels; weights " + to_string(w) +
                                " with group " + std::to_string(group) + " take " + (w[1] * group).to_string() + ".");
  if (auto m = w[0].constant(); m && *m % group != 0)
    return node_error(node,
                      std::to_string(*m) + " output channels do not divide into " + std::to_string(group) + " groups.");
  std::vector<Dim> out = {x[0], w[0]};
  Shape kernel = node.ints("kernel_shape");
  bool given = !kernel.empty();
  if (given && kernel.size() != x.size() - 2)
    return node_error(node, "kernel_shape has " + std::to_string(kernel.size()) + " entries for " +
                                std::to_string(x.size() - 2) + " spatial axes.");
  for (size_t i = 2; i < w.size(); ++i) {
    auto k = w[i].constant();
    if (!k && !given) return std::vector<Dim>{};  // sizes depend on weights that are not known yet
    if (given && k && *k != kernel[i - 2])
      return node_error(node,
                        "kernel_shape " + to_string(kernel) + " differs from the weights' shape " + to_string(w) + ".");
    if (!given) kernel.push_back(*k);
  }
  Window window = AI_VMM_TAKE(window_of(node, std::move(kernel)));
  for (size_t i = 0; i < window.axes(); ++i) {
    Dim d = window.output(i, x[i + 2]);
    if (auto c = d.constant(); c && *c < 0)
      return node_error(node,
                        "the kernel is larger than the padded input along spatial axis " + std::to_string(i) + ".");
    out.push_back(std::move(d));
  }
  return out;
}

Result<TransposedWindow> transposed_window(const Node& node, Shape kernel, std::span<const Dim> spatial) {
  TransposedWindow t;
  t.window = AI_VMM_TAKE(window_of(node, std::move(kernel)));
  const Window& w = t.window;
  size_t n = w.axes();
  t.output_padding = AI_VMM_TAKE(per_axis(node, "output_padding", n, 0, 0));
  Shape given = node.ints("output_shape");
  if (given.size() == n + 2) given.erase(given.begin(), given.begin() + 2);  // some exporters write N and C too
  if (!given.empty() && given.size() != n)
    return node_error(node, "output_shape has " + std::to_string(given.size()) + " entries for " + std::to_string(n) +
                                " spatial axes.");
  bool same = w.auto_pad == Window::Auto::same_upper || w.auto_pad == Window::Auto::same_lower;
  for (size_t i = 0; i < n; ++i) {
    Dim full = (spatial[i] - 1) * w.strides[i] + t.output_padding[i] + w.extent(i);
    if (given.empty() && !same) {
      t.output.push_back(full - w.pads[i] - w.pads[n + i]);
      t.before.push_back(w.pads[i]);
    } else {
      Dim out = given.empty() ? spatial[i] * w.strides[i] : Dim(given[i]);
      // A negative total adds zeros after the output instead of cropping it.
      Dim total = max(full - out, 0);
      Dim half = floor_div(total, 2);
      t.before.push_back(w.auto_pad == Window::Auto::same_upper ? half : total - half);
      t.output.push_back(out);
    }
    if (auto c = t.output.back().constant(); c && *c < 0)
      return node_error(node, "the pads exceed the output along spatial axis " + std::to_string(i) + ".");
  }
  return t;
}

}  // namespace ai_vmm
