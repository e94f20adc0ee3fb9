// Convolutions, on oneDNN.
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <map>
#include <mutex>

#include "backends/cpu/act.hpp"
#include "backends/cpu/onednn.hpp"

namespace ai_vmm::cpu {

namespace {

struct ConvNode {
  bool transposed;
  int64_t groups;
  std::vector<int64_t> kernel, stride, dilation, pads;
  std::string auto_pad;
  Layout in, out;
  Activation act;
  Tensor weights, bias;  // where constant
  bool has_bias, has_residual;
  std::string key;
  bool deterministic;
};

int64_t round_up(int64_t n, int block) { return block ? (n + block - 1) / block * block : n; }

// ONNX weights with channels filled up with zeros to those of the layouts. Dense [o, i / groups, k...] or, transposed,
// [i, o / groups, k...].
void pad_weights(const float* from, const Shape& w, const ConvNode& c, int64_t ic, int64_t oc, std::vector<float>& to) {
  int64_t k = product(w, 2, w.size());
  int64_t rows = c.transposed ? ic : oc, columns = c.transposed ? oc / c.groups : ic / c.groups;
  if (c.groups > 1) columns = w[1];  // padded only depthwise: one channel a group
  to.assign(size_t(rows * columns * k), 0.0f);
  for (int64_t r = 0; r < w[0]; ++r)
    std::memcpy(to.data() + r * columns * k, from + r * w[1] * k, size_t(w[1] * k) * 4);
}

Result<onednn::ConvSpec> spec_of(const ConvNode& c, const Bind& b) {
  onednn::ConvSpec s;
  const Shape &x = b.in(0), &w = b.in(1), &y = b.out(0);
  s.spatial = int(x.size()) - 2;
  s.transposed = c.transposed;
  s.n = x[0];
  s.ic = round_up(x[1], c.in.block);
  s.oc = round_up(y[1], c.out.block);
  s.groups = c.groups;
  if (c.groups > 1 && c.groups == x[1] && c.groups == y[1]) s.groups = s.ic;  // depthwise: padded groups
  for (int d = 0; d < s.spatial; ++d) {
    size_t i = size_t(d);
    s.in[d] = x[i + 2];
    s.out[d] = y[i + 2];
    s.kernel[d] = w[i + 2];
    s.stride[d] = c.stride.empty() ? 1 : c.stride[i];
    s.dilation[d] = c.dilation.empty() ? 1 : c.dilation[i];
    int64_t reach = (s.kernel[d] - 1) * s.dilation[d] + 1, small = c.transposed ? s.in[d] : s.out[d],
            big = c.transposed ? s.out[d] : s.in[d];
    int64_t total = (small - 1) * s.stride[d] + reach - big;  // both sides; negative where the last input is not read
    if (c.auto_pad == "SAME_UPPER" || c.auto_pad == "SAME_LOWER") {
      int64_t t = std::max<int64_t>(total, 0);
      s.before[d] = c.auto_pad == "SAME_UPPER" ? t / 2 : t - t / 2;
    } else {
      s.before[d] = c.pads.empty() || c.auto_pad == "VALID" ? 0 : c.pads[i];
    }
    s.after[d] = c.transposed ? total - s.before[d] : std::max<int64_t>(total - s.before[d], 0);
  }
  // [N, C, H, 1] under a k×1 kernel is [N, C, W]: oneDNN blocks over the last axis, which would be of size 1.
  const int last = s.spatial - 1;
  const bool trivial =
      s.in[last] == 1 && s.out[last] == 1 && s.kernel[last] == 1 && s.before[last] == 0 && s.after[last] == 0;
  if (last > 0 && trivial && s.kernel[last - 1] > 1) --s.spatial;
  s.block_in = c.in.block;
  s.block_out = c.out.block;
  s.bias = c.has_bias;
  s.residual = c.has_residual;
  s.act = c.act.act;
  s.a = c.act.a;
  s.b = c.act.b;
  return s;
}

// Where element (image, channel, position) lies in a tensor of `all` channels and `inner` positions.
int64_t place_of(int64_t n, int64_t c, int64_t i, int64_t all, int64_t inner, int block) {
  if (!block) return (n * all + c) * inner + i;
  int64_t blocks = (all + block - 1) / block;
  return ((n * blocks + c / block) * inner + i) * block + c % block;
}

// Plain loops, for the few shapes that oneDNN refuses (a kernel reaching past a one-element image, for example).
Bound bind_loops(const std::shared_ptr<const ConvNode>& c, const onednn::ConvSpec& s, const Bind& b) {
  const int64_t ic = b.in(0)[1], oc = b.out(0)[1], n = s.n;
  const int64_t in_size = s.in[0] * s.in[1] * s.in[2], out_size = s.out[0] * s.out[1] * s.out[2];
  const int64_t taps = s.kernel[0] * s.kernel[1] * s.kernel[2], group_in = ic / c->groups, group_out = oc / c->groups;
  Activation act = c->act;
  const int64_t out_count = physical_count(b.out(0), c->out);
  Bound bound;
  bound.note = "plain loops";
  bound.flops = 2.0 * double(n * oc * out_size * group_in * taps);
  bound.run = [=](Run& r) -> Status {
    const float *x = r.in<float>(0), *w = r.in<float>(1), *bias = r.in_ids.size() > 2 ? r.in<float>(2) : nullptr;
    const float* residual = s.residual ? r.in<float>(3) : nullptr;
    float* y = r.out<float>(0);
    if (out_count != n * oc * out_size && residual != y) std::memset(y, 0, size_t(out_count) * 4);
    // The input position that tap k of output o reads along an axis; -1 when there is none.
    auto source = [&](int d, int64_t o, int64_t k) {
      int64_t i =
          s.transposed ? o + s.before[d] - k * s.dilation[d] : o * s.stride[d] - s.before[d] + k * s.dilation[d];
      if (s.transposed) {
        if (i < 0 || i % s.stride[d]) return int64_t(-1);
        i /= s.stride[d];
      }
      return i >= 0 && i < s.in[d] ? i : int64_t(-1);
    };
    parallel(r.threads, n * oc, 1, [&](int64_t first, int64_t last) {
      for (int64_t at = first; at < last; ++at) {
        const int64_t image = at / oc, o = at % oc, g = o / group_out;
        for (int64_t p = 0; p < out_size; ++p) {
          const int64_t q[3] = {p / (s.out[1] * s.out[2]), p / s.out[2] % s.out[1], p % s.out[2]};
          double sum = bias ? double(bias[o]) : 0.0;
          for (int64_t t = 0; t < taps; ++t) {
            const int64_t a = source(0, q[0], t / (s.kernel[1] * s.kernel[2])),
                          e = source(1, q[1], t / s.kernel[2] % s.kernel[1]), f = source(2, q[2], t % s.kernel[2]);
            if (a < 0 || e < 0 || f < 0) continue;
            for (int64_t i = 0; i < group_in; ++i) {
              const int64_t weight = s.transposed ? (g * group_in + i) * group_out + o % group_out : o * group_in + i;
              sum +=
                  double(
                      x[place_of(image, g * group_in + i, (a * s.in[1] + e) * s.in[2] + f, ic, in_size, c->in.block)]) *
                  double(w[weight * taps + t]);
            }
          }
          const int64_t to = place_of(image, o, p, oc, out_size, c->out.block);
          y[to] = float(sum + (residual ? double(residual[to]) : 0.0));
          if (act.act != Act::none) kernels().activate_row(y + to, 1, int(act.act), act.a, act.b);
        }
      }
    });
    return {};
  };
  return bound;
}

// ---- groups of 1×1 over rows: a product for each group, weights · picture

bool bind_pointwise_groups(const ConvNode& c, const onednn::ConvSpec& s, const Bind& b, Bound& bound) {
  bool fits = s.groups > 1 && !s.transposed && !s.block_in && !s.block_out;
  for (int d = 0; d < 3; ++d) fits &= s.kernel[d] == 1 && s.stride[d] == 1 && s.before[d] == 0 && s.after[d] == 0;
  if (!fits) return false;
  int64_t hw = s.in[0] * s.in[1] * s.in[2], m = s.oc / s.groups, k = s.ic / s.groups, jobs = s.n * s.groups;
  GemmShape shape;
  kernels().gemm_shape(&shape);
  int64_t panels = (hw + shape.nr - 1) / shape.nr, packed = kernels().gemm_packed_size(k, hw),
          work = (kernels().gemm_scratch() + packed + 15) / 16 * 16;
  double flops = 2.0 * double(jobs * m * k) * double(hw);
  int threads = int(std::clamp<double>(flops / 4e5, 1, b.threads));
  Activation act = c.act;
  bool bias = c.has_bias, residual = c.has_residual;
  int64_t groups = s.groups;
  bound = Bound{[=](Run& r) -> Status {
                  parallel(std::min(threads, r.threads), jobs, 1, [&](int64_t first, int64_t last) {
                    float* own = reinterpret_cast<float*>(r.scratch) + worker_index * work;
                    float* panel = own + kernels().gemm_scratch();
                    for (int64_t i = first; i < last; ++i) {
                      int64_t g = i % groups;
                      kernels().gemm_pack(k, hw, r.in<float>(0) + i * k * hw, hw, 1, panel, 0, panels);
                      Gemm p{m,
                             hw,
                             k,
                             r.in<float>(1) + g * m * k,
                             k,
                             1,
                             panel,
                             r.out<float>(0) + i * m * hw,
                             hw,
                             1.0f,
                             nullptr,
                             residual ? r.in<float>(3) + i * m * hw : nullptr,
                             hw,
                             int(act.act),
                             act.a,
                             act.b,
                             bias ? r.in<float>(2) + g * m : nullptr};
                      kernels().gemm_run(&p, 0, m, 0, panels, own);
                    }
                  });
                  return {};
                },
                work * 4 * threads, "group products", flops};
  return true;
}

// ---- Winograd or direct, by measurement

// The least of a few runs on zeros.
double time_of(const onednn::Convolution& conv, const onednn::ConvSpec& s) {
  auto count = [](int64_t n, int64_t c, const int64_t* d) { return n * c * d[0] * d[1] * d[2]; };
  auto zeros = [](int64_t bytes) {
    auto buffer = aligned_buffer(bytes);
    std::memset(buffer.get(), 0, size_t(bytes));
    return buffer;
  };
  auto in = zeros(count(s.n, s.ic, s.in) * 4), out = zeros(count(s.n, s.oc, s.out) * 4), w = zeros(conv.weight_bytes()),
       b = zeros(s.oc * 4), scratch = zeros(conv.scratch_bytes());
  auto call = conv.call();
  double least = 1e9;
  for (int i = 0; i < 4; ++i) {
    auto start = std::chrono::steady_clock::now();
    if (!call->run(static_cast<float*>(in.get()), w.get(), static_cast<float*>(b.get()), static_cast<float*>(out.get()),
                   scratch.get())
             .ok())
      return 1e9;
    double t = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (i > 0) least = std::min(least, t);
  }
  return least;
}

// The direct convolution, or Winograd's where it measured faster by a tenth; asked once a process for equal layers.
Result<std::shared_ptr<const onednn::Convolution>> choose(onednn::ConvSpec s, bool deterministic, int threads) {
  auto direct = AI_VMM_TAKE(onednn::Convolution::make(s));
  bool candidate = direct && !deterministic && !s.transposed && s.spatial == 2 && s.groups == 1 && s.block_in == 16 &&
                   s.block_out == 16 && s.ic >= 32 && s.oc >= 32;
  for (int d = 0; d < 2; ++d) candidate &= s.kernel[d] == 3 && s.stride[d] == 1 && s.dilation[d] == 1 && s.out[d] >= 7;
  if (!candidate) return direct;
  // Pictures of nearly the same size are one question, so that growing inputs do not ask again and again.
  int64_t size = std::bit_width(uint64_t(s.out[0] * s.out[1]));
  std::string key;
  for (int64_t x : {s.n, s.ic, s.oc, size, int64_t(s.act), int64_t(s.residual), int64_t(s.bias), int64_t(threads)})
    key += std::to_string(x) + ",";
  static std::mutex mutex;
  static std::map<std::string, bool> winners;
  std::lock_guard lock(mutex);
  s.winograd = true;
  auto known = winners.find(key);
  if (known != winners.end() && !known->second) return direct;
  auto winograd = AI_VMM_TAKE(onednn::Convolution::make(s));
  if (!winograd) {
    winners[key] = false;
    return direct;
  }
  if (known == winners.end()) known = winners.emplace(key, time_of(*winograd, s) < 0.9 * time_of(*direct, s)).first;
  return known->second ? winograd : direct;
}

Result<Bound> bind_conv(const std::shared_ptr<const ConvNode>& c, const Bind& b, const std::shared_ptr<Pack>& pack) {
  auto spec = AI_VMM_TAKE(spec_of(*c, b));
  if (product(b.out(0)) == 0) return Bound{[](Run&) -> Status { return {}; }};
  if (product(b.in(0)) == 0)
    return invalid("A convolution reads an empty tensor of shape " + ai_vmm::to_string(b.in(0)) + ".");
  if (Bound b1; bind_pointwise_groups(*c, spec, b, b1)) return b1;
  auto conv = AI_VMM_TAKE(choose(spec, c->deterministic, b.threads));
  Activation after;
  if (!conv) {  // without activation in the kernel
    after = c->act;
    spec.act = Act::none;
    conv = AI_VMM_TAKE(onednn::Convolution::make(spec));
  }
  if (!conv) return bind_loops(c, spec, b);
  Shape w = b.in(1);
  auto packed_of = [c, conv, w, spec](const float* from, void* to) {
    if (spec.ic == w[1] * c->groups && !c->transposed && spec.oc == w[0]) return conv->pack(from, to);
    std::vector<float> padded;
    pad_weights(from, w, *c, spec.ic, spec.oc, padded);
    conv->pack(padded.data(), to);
  };
  std::shared_ptr<const void> weights, bias;
  int64_t weight_bytes = conv->weight_bytes();
  if (c->weights)
    weights = pack->get(c->key + "w" + conv->weight_key(), [&](int64_t& bytes) {
      bytes = weight_bytes;
      auto buffer = aligned_buffer(bytes);
      packed_of(c->weights.as<float>().data(), buffer.get());
      forget(c->weights);
      return std::shared_ptr<const void>(buffer);
    });
  int64_t oc = b.out(0)[1];
  if (c->bias)
    bias = pack->get(c->key + "b" + std::to_string(spec.oc), [&](int64_t& bytes) {
      bytes = spec.oc * 4;
      auto buffer = aligned_buffer(bytes);
      std::memset(buffer.get(), 0, size_t(bytes));
      std::memcpy(buffer.get(), c->bias.data(), size_t(oc) * 4);
      return std::shared_ptr<const void>(buffer);
    });
  std::shared_ptr<onednn::Convolution::Call> call = conv->call();
  int64_t own_weights = weights ? 0 : (weight_bytes + 63) / 64 * 64,
          own_bias = c->has_bias && !bias ? (spec.oc * 4 + 63) / 64 * 64 : 0;
  int64_t scratch = (conv->scratch_bytes() + 63) / 64 * 64, out_bytes = physical_count(b.out(0), c->out) * 4;
  double flops = 2.0 * double(product(c->transposed ? b.in(0) : b.out(0))) * double(product(w, 1, w.size()));
  return Bound{[=](Run& r) -> Status {
                 const void* wp = weights.get();
                 const float* bp = static_cast<const float*>(bias.get());
                 if (!wp) {
                   wp = r.scratch + scratch;
                   packed_of(r.in<float>(1), r.scratch + scratch);
                 }
                 if (own_bias) {
                   auto* to = reinterpret_cast<float*>(r.scratch + scratch + own_weights);
                   std::memset(to, 0, size_t(own_bias));
                   std::memcpy(to, r.in<float>(2), size_t(oc) * 4);
                   bp = to;
                 }
                 float* out = r.out<float>(0);
                 if (spec.residual && r.in<float>(3) != out) std::memcpy(out, r.in<float>(3), size_t(out_bytes));
                 AI_VMM_TRY(call->run(r.in<float>(0), wp, bp, out, r.scratch));
                 if (after.act != Act::none)
                   parallel(r.threads, out_bytes / 4, 1 << 14, [&](int64_t first, int64_t last) {
                     kernels().activate_row(out + first, last - first, int(after.act), after.a, after.b);
                   });
                 return {};
               },
               scratch + own_weights + own_bias, conv->name(), flops};
}

Made conv(const Make& m, bool transposed) {
  if (m.dtype(0) != DType::f32) return "only float32 has convolution kernels";
  int64_t rank =
      m.rank(0) < 0 ? m.rank(1) : m.rank(0);  // the weights' rank is the input's, which a branch may leave unknown
  if (rank < 3 || rank > 5) return "convolutions of one to three spatial axes only";
  auto act = activation_of(m.node);
  if (!act) return "an unknown activation";
  auto c = std::make_shared<ConvNode>();
  c->transposed = transposed;
  c->groups = m.node.i("group", 1);
  c->stride = m.node.ints("strides");
  c->dilation = m.node.ints("dilations");
  c->pads = m.node.ints("pads");
  c->auto_pad = m.node.s("auto_pad", "NOTSET");
  if (transposed && !m.node.ints("output_shape").empty()) return "output_shape";
  if (transposed && c->auto_pad != "NOTSET") return "auto_pad of a transposed convolution";
  c->in = m.layout(0);
  c->out = m.out_layout(0);
  c->act = *act;
  c->has_bias = m.has(2);
  c->has_residual = m.has(3);
  if (const Tensor* t = m.constant(1)) c->weights = *t;
  if (const Tensor* t = m.constant(2)) c->bias = *t;
  c->key = m.has(1) ? m.key(1, "conv") : "";
  c->deterministic = m.options.deterministic;
  auto pack = m.pack;
  Made made(BindFn([c, pack](const Bind& b) { return bind_conv(c, b, pack); }));
  return c->has_residual ? std::move(made).overwrites(1u << 3) : std::move(made);
}

}  // namespace

Made make_conv(const Make& m) { return conv(m, false); }
Made make_conv_transpose(const Make& m) { return conv(m, true); }

// Plain ⇄ blocked.
Made make_reorder(const Make& m) {
  Layout in = m.layout(0), out = m.out_layout(0);
  return BindFn([=](const Bind& s) -> Result<Bound> {
    const Shape& x = s.in(0);
    int64_t n = x[0], c = x[1], inner = product(x, 2, x.size()), block = std::max(in.block, out.block),
            blocks = (c + block - 1) / block;
    bool to_blocked = out.block != 0;
    return Bound{[=](Run& r) -> Status {
                   const float* from = r.in<float>(0);
                   float* to = r.out<float>(0);
                   parallel(r.threads, n * blocks, std::max<int64_t>(1, 16384 / std::max<int64_t>(inner * block, 1)),
                            [&](int64_t first, int64_t last) {
                              for (int64_t i = first; i < last; ++i) {
                                int64_t at = i / blocks, cb = i % blocks, used = std::min(block, c - cb * block);
                                float* b = (to_blocked ? to : const_cast<float*>(from)) + i * block * inner;
                                float* p = (to_blocked ? const_cast<float*>(from) : to) + (at * c + cb * block) * inner;
                                if (to_blocked) {
                                  if (used < block) std::memset(b, 0, size_t(block * inner) * 4);
                                  kernels().transpose(p, used, inner, inner, b, block);
                                } else {
                                  kernels().transpose(b, inner, used, block, p, inner);
                                }
                              }
                            });
                   return {};
                 },
                 0, to_blocked ? "to blocks" : "to rows", 0};
  });
}

}  // namespace ai_vmm::cpu
