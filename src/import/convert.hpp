// Older operator versions → the canonical one.
#pragma once

#include <map>
#include <string>

#include "ai_vmm/types.hpp"
#include "graph/graph.hpp"

namespace ai_vmm {

// Rewrites the nodes of `graph` and of its bodies, which follow the operator versions in `opsets` (domain → version;
// the default domain is ""), so that they mean the same at ai.onnx 28, ai.onnx.ml 5 and com.microsoft 1.
//
// What holds when it is called: the structure is complete (bodies with captures, no function calls to expand except
// nodes of domain kLocalFunctionDomain, which are left alone); Node::def is not set; nodes may stand in any order.
// Types are known only of inputs, initialisers and values with a value_info entry; a type that is needed and unknown is
// a reason for a rewrite that works at run time (Shape, Gather, …). A captured value of a body carries the type and the
// constant of the outer value when the body was read, but only the outer graph's own values are kept up to date. The
// caller sorts, sets Node::def and infers types afterwards. Values that fall out of use may stay.
Status convert_to_canonical(Graph& graph, const std::map<std::string, int>& opsets);

// Domain of nodes that call a model-local function, while a model is being read.
inline constexpr const char* kLocalFunctionDomain = "<local function>";

}  // namespace ai_vmm
