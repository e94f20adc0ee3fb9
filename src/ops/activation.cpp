#include "ops/activation.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "ops/window.hpp"

namespace ai_vmm {

Result<Activation> activation(const Node& node, const std::string& name, std::optional<float> alpha,
                              std::optional<float> beta) {
  std::string n = name;
  for (char& c : n) c = char(std::tolower(static_cast<unsigned char>(c)));
  auto with = [&](float default_alpha, float default_beta, auto f) {
    double a = alpha.value_or(default_alpha), b = beta.value_or(default_beta);
    return Activation([a, b, f](double x) { return f(x, a, b); });
  };
  if (n == "relu") return with(0, 0, [](double x, double, double) { return x < 0 ? 0 : x; });
  if (n == "tanh") return with(0, 0, [](double x, double, double) { return std::tanh(x); });
  if (n == "sigmoid") return with(0, 0, [](double x, double, double) { return sigmoid(x); });
  if (n == "affine") return with(1, 0, [](double x, double a, double b) { return a * x + b; });
  if (n == "leakyrelu") return with(0.01f, 0, [](double x, double a, double) { return x < 0 ? a * x : x; });
  if (n == "thresholdedrelu") return with(1, 0, [](double x, double a, double) { return x > a ? x : 0; });
  if (n == "scaledtanh") return with(1, 1, [](double x, double a, double b) { return a * std::tanh(b * x); });
  if (n == "hardsigmoid")
    return with(0.2f, 0.5f, [](double x, double a, double b) { return std::clamp(a * x + b, 0.0, 1.0); });
  if (n == "elu") return with(1, 0, [](double x, double a, double) { return x < 0 ? a * std::expm1(x) : x; });
  if (n == "selu")
    return with(1.67326319f, 1.05070102f,
                [](double x, double a, double b) { return b * (x < 0 ? a * std::expm1(x) : x); });
  if (n == "softsign") return with(0, 0, [](double x, double, double) { return x / (1 + std::fabs(x)); });
  if (n == "softplus")
    return with(0, 0, [](double x, double, double) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); });
  if (n == "clip")
    return with(-INFINITY, INFINITY, [](double x, double a, double b) { return std::min(std::max(x, a), b); });
  return node_error(node, "activation \"" + name + "\" is not known.");
}

}  // namespace ai_vmm
