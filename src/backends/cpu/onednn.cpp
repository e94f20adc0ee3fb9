#include "backends/cpu/onednn.hpp"

#include <oneapi/dnnl/dnnl.hpp>

#include <atomic>
#include <cmath>

namespace ai_vmm::cpu::onednn {

namespace {

using dnnl::memory;

std::atomic<int64_t> made{0};

const dnnl::engine& engine() {
  static const dnnl::engine e = [] {
    // Once per process, before the first use.
    if (isa() == Isa::generic)
      dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
    else if (isa() == Isa::avx2)
      dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
    return dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  return e;
}
dnnl::stream& stream() {
  thread_local dnnl::stream s(engine());
  return s;
}

memory::format_tag plain_tag(int spatial) {
  return spatial == 1 ? memory::format_tag::ncw : spatial == 2 ? memory::format_tag::nchw : memory::format_tag::ncdhw;
}
memory::format_tag tag(int spatial, int block) {
  using t = memory::format_tag;
  if (block == 16) return spatial == 1 ? t::nCw16c : spatial == 2 ? t::nChw16c : t::nCdhw16c;
  if (block == 8) return spatial == 1 ? t::nCw8c : spatial == 2 ? t::nChw8c : t::nCdhw8c;
  return plain_tag(spatial);
}

bool append(dnnl::post_ops& ops, Act act, float a, float b) {
  using dnnl::algorithm;
  switch (act) {
    case Act::none: return true;
    case Act::relu: ops.append_eltwise(1, algorithm::eltwise_relu, 0, 0); return true;
    case Act::clip: ops.append_eltwise(1, algorithm::eltwise_clip, a, b); return true;
    case Act::sigmoid: ops.append_eltwise(1, algorithm::eltwise_logistic, 0, 0); return true;
    case Act::tanh: ops.append_eltwise(1, algorithm::eltwise_tanh, 0, 0); return true;
    case Act::gelu_erf: ops.append_eltwise(1, algorithm::eltwise_gelu_erf, 0, 0); return true;
    case Act::gelu_tanh: ops.append_eltwise(1, algorithm::eltwise_gelu_tanh, 0, 0); return true;
    case Act::swish: ops.append_eltwise(1, algorithm::eltwise_swish, a, 0); return true;
    case Act::hard_swish:
      if (std::abs(a - 1.0f / 6) > 1e-6f || b != 0.5f) return false;
      ops.append_eltwise(1, algorithm::eltwise_hardswish, 0, 0);
      return true;
    case Act::hard_sigmoid:
      ops.append_eltwise(1, algorithm::eltwise_linear, a, b);
      ops.append_eltwise(1, algorithm::eltwise_clip, 0, 1);
      return true;
    case Act::leaky_relu: ops.append_eltwise(1, algorithm::eltwise_relu, a, 0); return true;
    case Act::elu: ops.append_eltwise(1, algorithm::eltwise_elu, a, 0); return true;
  }
  return false;
}

class Conv final : public Convolution, public std::enable_shared_from_this<Conv> {
 public:
  ConvSpec spec;
  memory::desc src, weights, bias, dst, scratch, plain_weights;
  dnnl::primitive primitive;
  std::string impl;

  int64_t weight_bytes() const override { return int64_t(weights.get_size()); }
  std::string weight_key() const override {
    uint64_t h = 1469598103934665603ull;
    const auto* p = reinterpret_cast<const unsigned char*>(&weights.data);
    for (size_t i = 0; i < sizeof weights.data; ++i) h = (h ^ p[i]) * 1099511628211ull;
    return std::to_string(h);
  }
  void pack(const float* from, void* to) const override {
    memory a(plain_weights, engine(), const_cast<float*>(from)), b(weights, engine(), to);
    dnnl::reorder(a, b).execute(stream(), a, b);
    stream().wait();
  }
  int64_t scratch_bytes() const override { return int64_t(scratch.get_size()); }
  std::string name() const override { return impl; }
  std::unique_ptr<Call> call() const override;
};

class ConvCall final : public Convolution::Call {
 public:
  explicit ConvCall(std::shared_ptr<const Conv> conv) : conv_(std::move(conv)) {
    // The sizes are known; addresses come with each run.
    const memory::desc* descs[] = {&conv_->src, &conv_->weights, &conv_->bias, &conv_->dst, &conv_->scratch};
    const int ids[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
    for (int k = 0; k < 5; ++k) {
      if ((k == 2 && !conv_->spec.bias) || (k == 4 && conv_->scratch.get_size() == 0)) continue;
      memories_[k] = memory(*descs[k], engine(), nullptr);
      args_[count_] = {ids[k], memories_[k].get()};
      ++count_;
    }
  }
  Status run(const float* in, const void* weights, const float* bias, float* out, void* scratch) override {
    void* const at[] = {const_cast<float*>(in), const_cast<void*>(weights), const_cast<float*>(bias), out, scratch};
    for (int k = 0; k < 5; ++k)
      if (memories_[k]) dnnl_memory_set_data_handle(memories_[k].get(), at[k]);
    dnnl_status_t s = dnnl_primitive_execute(conv_->primitive.get(), stream().get(), count_, args_);
    if (s != dnnl_success)
      return Status(Code::internal, "oneDNN failed to run a convolution, status " + std::to_string(int(s)) + ".");
    return {};
  }

 private:
  std::shared_ptr<const Conv> conv_;
  memory memories_[5];
  dnnl_exec_arg_t args_[5];
  int count_ = 0;
};

std::unique_ptr<Convolution::Call> Conv::call() const { return std::make_unique<ConvCall>(shared_from_this()); }

}  // namespace

int64_t compilations() { return made; }

Result<std::shared_ptr<const Convolution>> Convolution::make(const ConvSpec& s, bool ask) {
  auto c = std::make_shared<Conv>();
  c->spec = s;
  try {
    memory::dims src{s.n, s.ic}, dst{s.n, s.oc}, w, k, stride, dilation, before, after;
    if (s.groups > 1)
      w = {s.groups, s.oc / s.groups, s.ic / s.groups};
    else
      w = {s.oc, s.ic};
    for (int d = 0; d < s.spatial; ++d) {
      src.push_back(s.in[d]);
      dst.push_back(s.out[d]);
      w.push_back(s.kernel[d]);
      stride.push_back(s.stride[d]);
      dilation.push_back(s.dilation[d] - 1);
      before.push_back(s.before[d]);
      after.push_back(s.after[d]);
    }
    constexpr auto f32 = memory::data_type::f32;
    c->src = memory::desc(src, f32, tag(s.spatial, s.block_in));
    c->dst = memory::desc(dst, f32, tag(s.spatial, s.block_out));
    memory::desc any(w, f32, memory::format_tag::any);
    if (s.bias) c->bias = memory::desc({s.oc}, f32, memory::format_tag::x);
    // Dense weights in ONNX's order: the transposed operator stores input channels first.
    memory::dims strides(w.size(), 1);
    size_t g = s.groups > 1 ? 1 : 0;
    int64_t step = 1;
    for (size_t d = w.size(); d-- > 2 + g;) {
      strides[d] = step;
      step *= w[d];
    }
    size_t fast = s.transposed ? g : g + 1, slow = s.transposed ? g + 1 : g;
    strides[fast] = step;
    step *= w[fast];
    strides[slow] = step;
    step *= w[slow];
    if (g) strides[0] = step;
    c->plain_weights = memory::desc(w, f32, strides);
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    dnnl::post_ops ops;
    if (s.residual) ops.append_sum(1.0f);
    if (!append(ops, s.act, s.a, s.b)) return std::shared_ptr<const Convolution>();
    attr.set_post_ops(ops);
    if (s.transposed) {
      using D = dnnl::deconvolution_forward;
      D::desc d = s.bias ? D::desc(dnnl::prop_kind::forward_inference, dnnl::algorithm::deconvolution_direct, c->src,
                                   any, c->bias, c->dst, stride, dilation, before, after)
                         : D::desc(dnnl::prop_kind::forward_inference, dnnl::algorithm::deconvolution_direct, c->src,
                                   any, c->dst, stride, dilation, before, after);
      D::primitive_desc pd(d, attr, engine());
      c->weights = pd.weights_desc();
      c->scratch = pd.scratchpad_desc();
      c->impl = pd.impl_info_str();
      if (c->impl.find("ref") == 0) return std::shared_ptr<const Convolution>();
      if (!ask) c->primitive = D(pd);
    } else {
      using C = dnnl::convolution_forward;
      auto algorithm = s.winograd ? dnnl::algorithm::convolution_winograd : dnnl::algorithm::convolution_direct;
      C::desc d = s.bias ? C::desc(dnnl::prop_kind::forward_inference, algorithm, c->src, any, c->bias, c->dst, stride,
                                   dilation, before, after)
                         : C::desc(dnnl::prop_kind::forward_inference, algorithm, c->src, any, c->dst, stride, dilation,
                                   before, after);
      C::primitive_desc pd(d, attr, engine());
      c->weights = pd.weights_desc();
      c->scratch = pd.scratchpad_desc();
      c->impl = pd.impl_info_str();
      if (c->impl.find("ref") == 0) return std::shared_ptr<const Convolution>();
      if (!ask) c->primitive = C(pd);
    }
    made += !ask;
  } catch (const dnnl::error&) {
    return std::shared_ptr<const Convolution>();
  }
  return std::shared_ptr<const Convolution>(c);
}

}  // namespace ai_vmm::cpu::onednn
