// Scaled dot-product attention and rotary positions, shared by the ONNX operators and those of com.microsoft.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "ops/op.hpp"

namespace ai_vmm {

// Queries, keys or values as [batch, heads, length, size].
struct Heads {
  int64_t batch = 0, heads = 0, length = 0, size = 0;
  std::vector<double> v;

  // Zeros; fails on the memory limit.
  static Result<Heads> make(int64_t batch, int64_t heads, int64_t length, int64_t size);
  double* row(int64_t b, int64_t h, int64_t t) { return v.data() + ((b * heads + h) * length + t) * size; }
  const double* row(int64_t b, int64_t h, int64_t t) const { return v.data() + ((b * heads + h) * length + t) * size; }
  Shape shape() const { return {batch, heads, length, size}; }
};

// A tensor [batch, heads, length, size], or [batch, length, heads * size] cut into `heads` heads.
Result<Heads> load_heads(const Eval& e, const Tensor& t, int64_t heads);
// `past` followed by `next` along the length; they must agree in everything else.
Result<Heads> append(const Eval& e, const Heads& past, const Heads& next);
// Stores as [batch, heads, length, size], or packed as [batch, length, heads * size].
Status store_heads(Eval& e, size_t output, DType type, const Heads& h, bool packed);

struct AttentionCall {
  const Heads &q, &k, &v;  // several query heads may share one key head
  double scale = 1, softcap = 0;
  // Added to the score of query i and key j; -infinity hides the key. A query that sees no key yields zeros.
  std::function<double(int64_t b, int64_t h, int64_t i, int64_t j)> bias;
  // A further logit of each head that takes part in the softmax but has no value ("attention sink").
  std::optional<std::vector<double>> sink;
  // Sees each row of scores after a step: 0 scaled product, 1 softcap, 2 bias, 3 softmax.
  std::function<void(int64_t b, int64_t h, int64_t i, int step, std::span<const double> row)> observe;
};
Result<Heads> attend(const AttentionCall& call);

// Rotates pairs of the first 2 * cos.size() numbers of `x`: neighbours when interleaved, halves otherwise.
void rotate(double* x, std::span<const double> cos, std::span<const double> sin, bool interleaved);

// Work of attention with [batch, heads, queries, head size] against `keys` keys.
double attention_flops(double batch, double heads, double queries, double keys, double head_size, double value_size);

}  // namespace ai_vmm
