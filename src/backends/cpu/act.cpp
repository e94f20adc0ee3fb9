#include "backends/cpu/act.hpp"

#include <limits>

#include "base/numbers.hpp"

namespace ai_vmm::cpu {

std::optional<Activation> activation_of(const Node& n) {
  if (n.domain == "cpu") return Activation{Act(n.i("act", 0)), n.f("act_a"), n.f("act_b")};
  std::string name = n.s("activation", "");
  auto params = n.floats("activation_params");
  auto p = [&](size_t k, float fallback) { return k < params.size() ? params[k] : fallback; };
  if (name.empty()) return Activation{};
  if (name == "Relu") return Activation{Act::relu};
  if (name == "Tanh") return Activation{Act::tanh};
  if (name == "Sigmoid") return Activation{Act::sigmoid};
  if (name == "LeakyRelu") return Activation{Act::leaky_relu, p(0, n.f("leaky_relu_alpha", 0.01f))};
  if (name == "Clip")
    return Activation{Act::clip, p(0, -std::numeric_limits<float>::max()), p(1, std::numeric_limits<float>::max())};
  if (name == "HardSigmoid") return Activation{Act::hard_sigmoid, p(0, 0.2f), p(1, 0.5f)};
  if (name == "HardSwish") return Activation{Act::hard_swish, p(0, 1.0f / 6), p(1, 0.5f)};
  return std::nullopt;
}

std::optional<Activation> as_activation(const Graph& g, const Node& n) {
  if (n.outputs.size() != 1 || !n.has_input(0) || g.value(n.inputs[0]).type.dtype != DType::f32) return std::nullopt;
  if (n.domain == "com.microsoft") {
    if (n.op == "Gelu") return Activation{Act::gelu_erf};
    if (n.op == "QuickGelu") return Activation{Act::swish, n.f("alpha", 1.702f)};
    if (n.op == "FastGelu" && !n.has_input(1)) return Activation{Act::gelu_tanh};
    return std::nullopt;
  }
  if (!n.domain.empty() && n.domain != "cpu") return std::nullopt;
  if (n.domain == "cpu" && n.op != "Activation") return std::nullopt;
  if (n.op == "Activation") return activation_of(n);
  if (n.op == "Relu") return Activation{Act::relu};
  if (n.op == "Sigmoid") return Activation{Act::sigmoid};
  if (n.op == "Tanh") return Activation{Act::tanh};
  if (n.op == "Gelu") return Activation{n.s("approximate", "none") == "tanh" ? Act::gelu_tanh : Act::gelu_erf};
  if (n.op == "Swish") return Activation{Act::swish, n.f("alpha", 1.0f)};
  if (n.op == "HardSwish") return Activation{Act::hard_swish, 1.0f / 6, 0.5f};
  if (n.op == "HardSigmoid") return Activation{Act::hard_sigmoid, n.f("alpha", 0.2f), n.f("beta", 0.5f)};
  if (n.op == "LeakyRelu") return Activation{Act::leaky_relu, n.f("alpha", 0.01f)};
  if (n.op == "Elu") return Activation{Act::elu, n.f("alpha", 1.0f)};
  if (n.op == "Clip") {
    Activation c{Act::clip, -std::numeric_limits<float>::max(), std::numeric_limits<float>::max()};
    for (size_t k : {size_t(1), size_t(2)}) {
      if (!n.has_input(k)) continue;
      const Tensor& t = g.value(n.inputs[k]).constant;
      if (!t || t.count() != 1) return std::nullopt;
      (k == 1 ? c.a : c.b) = float(read_double(t.dtype(), t.data(), 0));
    }
    if (c.a > c.b) return std::nullopt;
    return c;
  }
  return std::nullopt;
}

void set_activation(Node& n, Activation a) {
  n.set("act", int64_t(a.act));
  n.set("act_a", a.a);
  n.set("act_b", a.b);
}

}  // namespace ai_vmm::cpu
