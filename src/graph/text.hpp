// The text form of a Graph: readable, stable, and parsed back. Graph::to_text() writes it.
//
//   graph "torch-jit-export" {
//     meta "onnx.opset" = "17"
//     symbols 2
//     input %x: f32[batch,3,224,224]
//     const %axes = i64[2] [0, 1]
//     const %w = f32[64,3,7,7] #9f86d081884c7d65
//     %y: f32[batch,64,112,112] = Conv(%x, %w, _) {strides=[2, 2], auto_pad="NOTSET"} @"conv1"
//     %n: i64[2] <batch, 64> = com.microsoft::Foo(%y)
//     %z: f32[...] = If(%c)
//       body then_branch graph "then" {
//         capture %y: f32[batch,64,112,112] = %y
//         …
//         output %t
//       }
//     value %unused: ?
//     output %z
//   }
//
// One statement a line. A value stands as %name, %"any name" when its characters ask for it, or _ where it is not
// given. After its colon stands its type, then in <> the elements of a small integer tensor that are known as
// expressions. Constants and tensor attributes of at most kInlineElements elements stand in full, larger ones as
// element type, shape and a hash of the content. Floats are written so that they read back to the same bits.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "graph/graph.hpp"

namespace ai_vmm {

inline constexpr int64_t kInlineElements = 16;

std::string to_text(const Graph& graph);

// Finds a large constant by its content.
using ConstantResolver = std::function<Result<Tensor>(DType dtype, const Shape& shape, uint64_t hash)>;
// A resolver over the constants and tensor attributes of `graph` and its bodies.
ConstantResolver constants_of(const Graph& graph);

// The graph of a text: to_text of it is the text. Node::def is not set (ops/op.hpp: define_ops). A captured value takes
// its constant and known elements from the value it captures. Fails with the number of the offending line.
Result<Graph> parse_text(std::string_view text, const ConstantResolver& resolver = {});

uint64_t content_hash(const Tensor& tensor);  // of the elements alone

}  // namespace ai_vmm
