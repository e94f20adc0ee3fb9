// Elementwise computations as text: the scalar rules of the operator rows, joined into programs of any length, become
// statements of a kernel.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "gpu/dialect.hpp"
#include "graph/graph.hpp"

namespace ai_vmm::gpu {

// A rule as it stands in elementwise.def, over x, y, z: `R(c)` a float constant, `I(e)` an integer result, i_add and
// its like on the computing type.
struct Instruction {
  std::string name;  // of the function; equal names have equal rules
  std::string rule;
  std::vector<int> args;    // k >= 0: the result of instruction k; ~k: input k of the program
  std::vector<DType> from;  // types of the arguments
  DType to = DType::undefined;
};

// Straight-line code over broadcast inputs. Its result is that of the last instruction; without code, that of input 0.
struct Expression {
  std::vector<ValueId> inputs;
  std::vector<DType> types;  // of the inputs
  std::vector<Instruction> code;

  DType result() const { return code.empty() ? types[0] : code.back().to; }
  bool all_f32() const;  // every input and result
};

// The elementwise computation of a node, constant scalars written into it; nullopt when it is none, or has an element
// type that no kernel holds.
std::optional<Expression> expression_of(const Graph& graph, const Node& node);

// `second` with its input `through` computed by `first`.
Expression join(const Expression& first, const Expression& second, ValueId through);

// The rule as text of one type, "float", "double", "long", "ulong" or a vector of floats.
std::string rule_text(const std::string& rule, const std::string& type);

// Definitions of the functions that `e` calls, each guarded against a second definition. `width`: of the vectors of
// floats that it computes on; 1 where other types occur.
std::string functions(const Expression& e, int width);
// Statements that compute `e` from the variables `inputs`; `result` becomes the name of the variable with the result.
// Variables are named `prefix` and a number.
std::string statements(const Expression& e, int width, const std::vector<std::string>& inputs,
                       const std::string& prefix, std::string& result);

std::string literal(double value, const std::string& type);

}  // namespace ai_vmm::gpu
