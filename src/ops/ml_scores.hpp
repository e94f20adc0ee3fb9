// Turning raw scores into what a classifier or regressor of ai.onnx.ml gives.
#pragma once

#include <string>
#include <vector>

#include "ops/op.hpp"

namespace ai_vmm {

enum class PostTransform { none, softmax, logistic, softmax_zero, probit };

// By the names of the attribute post_transform.
Result<PostTransform> post_transform(const Eval& e);

// Transforms the scores of one row in place. PROBIT is sqrt(2) · erf⁻¹(2p - 1) by Winitzki's approximation, as ONNX
// Runtime has it; SOFTMAX_ZERO keeps (near) zero scores near zero.
void apply(PostTransform transform, std::vector<double>& scores);

// How a row of two classes with one score s is written as two: as ONNX Runtime does it, LOGISTIC is applied to [-s, s],
// the other transforms leave the pair as it is, and PROBIT writes one score only.
enum class SecondClass {
  none,        // it is not
  complement,  // [1 - s, s]
  negation,    // [-s, s] when there is no transform, else [1 - s, s]
};
void write_scores(PostTransform transform, SecondClass second, std::vector<double>& scores);

// Class labels of a classifier: integers or strings, under the attribute names given.
struct Labels {
  std::vector<int64_t> ints;
  std::vector<std::string> strings;
  bool is_string = false;
  size_t size() const { return is_string ? strings.size() : ints.size(); }
};
Labels labels_of(const Node& node, const char* ints, const char* strings);
// Element `row` of output 0 becomes class `index`; without a label of that index, the number itself.
void set_label(Tensor& y, int64_t row, const Labels& labels, int64_t index);

// [N, F] or [F] as rows of doubles.
struct Rows {
  int64_t count = 0, width = 0;
  std::vector<double> values;
  const double* row(int64_t i) const { return values.data() + i * width; }
};
Result<Rows> rows_of(const Eval& e, const Tensor& x);

// The number of rows of input 0, for infer rules.
Dim rows_dim(Infer& c);

}  // namespace ai_vmm
