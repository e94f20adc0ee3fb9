#include "certify/cases.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "base/numbers.hpp"
#include "base/text.hpp"
#include "certify/harness.hpp"
#include "graph/text.hpp"
#include "ops/op.hpp"

namespace ai_vmm::certify {

namespace {

// One row a case: the inputs, then the operator with its attributes, then how many outputs if more than one.
// `#` marks a constant, drawn at random or given after a colon; `_` an absent input; a letter an open size.
constexpr const char* kRows[] = {
    "f32[3,4] f32[4,5] = MatMul",
    "f32[3,4] #f32[4,5] = MatMul",
    "f32[7,16] #f32[16,33] = MatMul",
    "f32[2,3,4] f32[2,4,5] = MatMul",
    "f32[2,1,3,4] f32[5,4,2] = MatMul",
    "f32[4] f32[4,5] = MatMul",
    "f32[N,16] #f32[16,8] = MatMul",
    "i32[3,4] i32[4,5] = MatMul",
    "f16[3,4] f16[4,5] = MatMul",
    "f32[3,4] f32[4,5] f32[5] = Gemm",
    "f32[4,3] #f32[5,4] #f32[3,5] = Gemm {alpha=0.5, beta=2.0, transA=1, transB=1}",
    "u8[3,4] u8[4,5] = MatMulInteger",
    "f32[1,3,8,8] #f32[4,3,3,3] = Conv",
    "f32[1,3,8,8] #f32[4,3,3,3] #f32[4] = Conv {pads=[1, 1, 1, 1], strides=[2, 2]}",
    "f32[2,4,7,9] #f32[8,2,3,3] = Conv {group=2, dilations=[2, 1]}",
    "f32[1,8,6,6] #f32[8,1,3,3] = Conv {group=8, pads=[1, 1, 1, 1]}",
    "f32[1,16,5,5] #f32[8,16,1,1] #f32[8] = Conv",
    "f32[2,3,20] #f32[4,3,5] = Conv {auto_pad=\"SAME_UPPER\"}",
    "f32[1,2,4,5,6] #f32[3,2,2,2,2] = Conv",
    "f32[N,3,H,W] #f32[4,3,3,3] = Conv {pads=[1, 1, 1, 1]}",
    "f32[1,3,4,4] #f32[3,2,3,3] = ConvTranspose {strides=[2, 2]}",
    "f32[1,3,8,8] = MaxPool {kernel_shape=[2, 2], strides=[2, 2]}",
    "f32[1,3,9,9] = MaxPool {kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], ceil_mode=1}",
    "f32[1,3,8,8] = AveragePool {kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1}",
    "f32[2,3,8,8] = GlobalAveragePool",
    "f32[2,3,8,8] = GlobalMaxPool",
    "f32[3,5] = Softmax",
    "f32[2,3,4] = Softmax {axis=1}",
    "f32[N,10] = Softmax",
    "f32[3,5] = LogSoftmax {axis=0}",
    "f32[3,5] = Hardmax",
    "f32[2,3,8] #f32[8] #f32[8] = LayerNormalization",
    "f32[2,6,5] #f32[6] #f32[6] = GroupNormalization {num_groups=3}",
    "f32[2,3,4,4] #f32[3] #f32[3] = InstanceNormalization",
    "f32[2,8] #f32[8] = RMSNormalization",
    "f32[2,3,4,4] #f32[3] #f32[3] #f32[3] #f32[3]:0.5,1,2 = BatchNormalization",
    "f32[1,5,4,4] = LRN {size=3}",
    "f32[2,3,8] = LpNormalization {axis=1}",
    "f32[3,4,5] #i64[1]:1 = ReduceSum",
    "f32[3,4,5] #i64[2]:0,2 = ReduceMean {keepdims=0}",
    "f32[3,4,5] = ReduceMax",
    "f32[3,4,5] #i64[1]:-1 = ReduceMin",
    "f32[3,4] #i64[1]:1 = ReduceProd",
    "f32[3,4] #i64[1]:1 = ReduceL2",
    "f32[3,4] #i64[1]:0 = ReduceLogSumExp",
    "i32[3,4] #i64[1]:0 = ReduceSum",
    "i64[3,4] #i64[1]:0 = ReduceMax",
    "f32[N,M] #i64[1]:1 = ReduceSum",
    "f32[3,7] = ArgMax {axis=1, keepdims=0}",
    "f32[3,7] = ArgMin {axis=0}",
    "f32[3,7] #i64[1]:3 = TopK {axis=1} ->2",
    "f32[3,4] #i64[]:1 = CumSum",
    "f32[2,3,4] = Transpose {perm=[2, 0, 1]}",
    "i64[3,4] = Transpose",
    "bool[3,4] = Transpose",
    "f32[2,3,4] #i64[2]:4,-1 = Reshape",
    "f32[2,3,4] = Flatten {axis=2}",
    "f32[2,1,4] #i64[1]:1 = Squeeze",
    "f32[2,4] #i64[2]:0,3 = Unsqueeze",
    "f32[1,4] #i64[2]:3,4 = Expand",
    "f32[2,3] f32[2,5] = Concat {axis=1}",
    "i64[2,3] i64[1,3] = Concat {axis=0}",
    "f32[2,6] #i64[2]:2,4 = Split {axis=1} ->2",
    "f32[6,8] #i64[2]:1,0 #i64[2]:5,8 #i64[2]:0,1 #i64[2]:2,3 = Slice",
    "f32[6,8] #i64[1]:-1 #i64[1]:-100 #i64[1]:0 #i64[1]:-1 = Slice",
    "f32[5,4] #i64[2,2]:0,4,2,-1 = Gather",
    "f32[5,4] #i64[3]:3,0,1 = Gather {axis=1}",
    "f32[2,3] #i64[2,3]:1,0,1,0,0,1 = GatherElements {axis=0}",
    "f32[2,3,4] #i64[2,2]:0,1,1,2 = GatherND",
    "f32[4,3] #i64[2,1]:0,2 f32[2,3] = ScatterND",
    "f32[3,3] #i64[1,3]:0,2,1 f32[1,3] = ScatterElements",
    "f32[2,3] #i64[4]:1,0,0,2 #f32[]:1.5 = Pad",
    "f32[1,2,4,4] #i64[8]:0,0,1,1,0,0,1,1 = Pad {mode=\"reflect\"}",
    "f32[2,3] #i64[2]:2,3 = Tile",
    "f32[1,2,3,4] _ #f32[4]:1,1,2,2 = Resize {mode=\"nearest\"}",
    "f32[1,2,4,4] _ _ #i64[4]:1,2,7,5 = Resize {mode=\"linear\"}",
    "f32[1,4,3,3] = DepthToSpace {blocksize=2}",
    "f32[1,1,4,6] = SpaceToDepth {blocksize=2}",
    "bool[3,4] f32[3,4] f32[3,4] = Where",
    "bool[3,1] f32[1,4] f32[] = Where",
    "f32[3,4] = Cast {to=7}",
    "f32[3,4] = Cast {to=10}",
    "i64[3,4] = Cast {to=1}",
    "u8[3,4] = Cast {to=1}",
    "f32[3,4] #f32[]:0.05 #u8[]:128 = QuantizeLinear",
    "u8[3,4] #f32[]:0.05 #u8[]:128 = DequantizeLinear",
    "f32[3,4] #f32[]:-0.5 #f32[]:0.5 = Clip",
    "f32[2,3,N] = Shape",
    "i64[4] #i64[]:10 #f32[2]:0,1 = OneHot",
    "f32[3,3] = Trilu",
    "f32[2,3,4] f32[2,4,5] = Einsum {equation=\"bij,bjk->bik\"}",
    "f32[1,2,4,8] f32[1,2,6,8] f32[1,2,6,8] = Attention",
    "f32[2,1,4] #f32[1,20,4] #f32[1,20,5] #f32[1,40] = LSTM {hidden_size=5} ->3",
    "f32[2,1,4] #f32[1,15,4] #f32[1,15,5] #f32[1,30] = GRU {hidden_size=5} ->2",
    "f32[3,4] = Identity",
    "i64[0,4] = Identity",
};

// Of each element type; the first ones also meet every other shape.
constexpr const char* kTypes[] = {"f32", "f16", "bf16", "f64", "i32", "i64", "u8", "i8", "bool"};
constexpr const char* kUnaryShapes[] = {"[3,5]", "[]", "[1]", "[7]", "[2,3,4,5]", "[0,3]", "[1025]", "[N,3]"};
constexpr const char* kBinaryShapes[][2] = {{"[3,5]", "[3,5]"},   {"[3,1]", "[1,5]"}, {"[5]", "[2,3,5]"},
                                            {"[]", "[4]"},        {"[0,3]", "[3]"},   {"[1025]", "[1025]"},
                                            {"[2,3,4]", "[3,1]"}, {"[N,3]", "[N,3]"}};

void add(std::vector<Case>& list, const std::string& row) {
  auto g = graph_of(row);
  if (!g.ok()) return;
  Case c;
  c.name = row;
  c.op = g->nodes[0].op;
  c.inputs = make_inputs(*g, list.size() + 1);
  if (!expected(*g, c.inputs).ok()) return;  // elementwise, but with inputs that depend on each other
  c.graph = *std::move(g);
  list.push_back(std::move(c));
}

}  // namespace

std::vector<Tensor> make_inputs(const Graph& g, uint64_t seed, int64_t symbol_size) {
  std::vector<Tensor> inputs;
  Random random{seed};
  for (ValueId v : g.inputs) {
    const Type& t = g.value(v).type;
    Shape shape;
    for (const Dim& d : t.dims) shape.push_back(d.constant().value_or(symbol_size));
    auto made = Tensor::make(t.dtype, shape, true);
    AI_VMM_CHECK(made.ok(), "inputs of a case are small");
    for (int64_t i = 0; i < made->count(); ++i) {
      if (t.dtype == DType::boolean)
        write_int64(t.dtype, made->mutable_data(), i, int64_t(random.next() & 1));
      else if (is_float(t.dtype))
        write_double(t.dtype, made->mutable_data(), i, random.normal());
      else
        write_int64(t.dtype, made->mutable_data(), i, 1 + int64_t(random.next() % 4));
    }
    inputs.push_back(*std::move(made));
  }
  return inputs;
}

Result<Graph> graph_of(const std::string& row) {
  size_t middle = row.find(" = ");
  std::string op = row.substr(middle + 3);
  int outputs = 1;
  if (size_t arrow = op.find(" ->"); arrow != op.npos) {
    outputs = std::stoi(op.substr(arrow + 3));
    op.resize(arrow);
  }
  size_t brace = op.find(" {");
  std::string attributes = brace == op.npos ? "" : op.substr(brace);
  op.resize(std::min(op.size(), brace));
  std::string text = "graph \"case\" {\n", arguments;
  std::vector<std::pair<std::string, std::string>> constants;  // name, elements
  int number = 0;
  for (std::string_view token : split(std::string_view(row).substr(0, middle), ' ')) {
    arguments += arguments.empty() ? "" : ", ";
    if (token == "_") {
      arguments += "_";
      continue;
    }
    std::string name = "i" + std::to_string(number++);
    arguments += "%" + name;
    bool constant = token[0] == '#';
    size_t colon = token.find(':');
    text += "  input %" + name + ": " + std::string(token.substr(constant, colon - constant)) + "\n";
    if (constant) constants.emplace_back(name, colon == token.npos ? "" : std::string(token.substr(colon + 1)));
  }
  text += "  ";
  for (int k = 0; k < outputs; ++k) text += (k ? ", %o" : "%o") + std::to_string(k) + ": ?";
  text += " = " + op + "(" + arguments + ")" + attributes + "\n";
  for (int k = 0; k < outputs; ++k) text += "  output %o" + std::to_string(k) + "\n";
  Graph g = AI_VMM_TAKE(parse_text(text + "}\n"));
  for (const auto& [name, elements] : constants) {
    ValueId v = g.find(name);
    Graph only;  // so that constants are drawn as inputs are
    only.values.push_back({name, g.value(v).type, {}, {}});
    only.inputs = {0};
    Tensor t = make_inputs(only, uint64_t(v) + 77)[0];
    if (!elements.empty()) {
      auto list = split(elements, ',');
      for (int64_t i = 0; i < t.count(); ++i) {
        double value = std::stod(std::string(list[size_t(i) % list.size()]));
        if (is_float(t.dtype()))
          write_double(t.dtype(), t.mutable_data(), i, value);
        else
          write_int64(t.dtype(), t.mutable_data(), i, int64_t(value));
      }
    }
    g.value(v).constant = std::move(t);
    std::erase(g.inputs, v);
  }
  AI_VMM_TRY(define_ops(g));
  AI_VMM_TRY(infer_types(g));
  return g;
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = [] {
    std::vector<Case> list;
    for (const char* row : kRows) add(list, row);
    for (const OpDef* op : all_ops()) {
      if (!(op->traits & kElementwise) || (op->traits & (kHostOnly | kRandom | kControlFlow)) || *op->domain) continue;
      const Schema& s = schema(*op);
      if (s.min_inputs < 1 || s.min_inputs > 2 || std::string_view(op->name) == "Cast") continue;
      // All inputs of one type variable: the types that it admits, which inference checks.
      for (const char* type : kTypes) {
        bool first = true;
        if (s.min_inputs == 1) {
          for (const char* shape : kUnaryShapes) {
            if (!first && std::string_view(type) != "f32") break;
            add(list, std::string(type) + shape + " = " + op->name);
            first = false;
          }
        } else {
          for (const auto& [a, b] : kBinaryShapes) {
            if (!first && std::string_view(type) != "f32") break;
            add(list, std::string(type) + a + " " + type + b + " = " + op->name);
            first = false;
          }
        }
      }
    }
    return list;
  }();
  return all;
}

}  // namespace ai_vmm::certify
