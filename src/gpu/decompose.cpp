#include "gpu/decompose.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>

#include "gpu/dialect.hpp"
#include "ops/op.hpp"

namespace ai_vmm::gpu {

namespace {

constexpr DType kReal = DType::f32;

bool whole(DType t) { return is_integer(t) && element(t).name; }
bool small(DType t) { return t == DType::u8 || t == DType::i8; }
bool real(DType t) { return t == DType::f32 || t == DType::f16 || t == DType::bf16; }

class Parts {
 public:
  Parts(Graph& graph, const Node& node, std::vector<Node>& nodes)
      : g_(graph), n_(node), nodes_(nodes), first_(nodes.size()) {}

  bool make() {
    struct Row {
      const char *domain, *op;
      bool (Parts::*maker)();
    };
    static constexpr const char* kContrib = "com.microsoft";
    static const Row kRows[] = {
        {"", "QuantizeLinear", &Parts::quantize_linear},
        {kContrib, "QuantizeLinear", &Parts::quantize_linear},
        {"", "DequantizeLinear", &Parts::dequantize_linear},
        {kContrib, "DequantizeLinear", &Parts::dequantize_linear},
        {"", "DynamicQuantizeLinear", &Parts::dynamic_quantize},
        {"", "MatMulInteger", &Parts::matmul_integer},
        {"", "QLinearMatMul", &Parts::qlinear_matmul},
        {"", "ConvInteger", &Parts::conv_integer},
        {"", "QLinearConv", &Parts::qlinear_conv},
        {"", "Attention", &Parts::attention},
        {"", "Conv", &Parts::conv_of_three_axes},
        {"", "Dropout", &Parts::dropout},
        {kContrib, "QLinearAdd", &Parts::qlinear_add},
        {kContrib, "QLinearMul", &Parts::qlinear_mul},
        {kContrib, "QLinearSigmoid", &Parts::qlinear_unary},
        {kContrib, "QLinearLeakyRelu", &Parts::qlinear_unary},
        {kContrib, "QLinearConcat", &Parts::qlinear_concat},
        {kContrib, "QLinearGlobalAveragePool", &Parts::qlinear_global_pool},
        {kContrib, "DynamicQuantizeMatMul", &Parts::dynamic_matmul},
        {kContrib, "MatMulIntegerToFloat", &Parts::integer_to_float},
        {kContrib, "QGemm", &Parts::qgemm},
        {kContrib, "FusedMatMul", &Parts::fused_matmul},
        {kContrib, "TransposeMatMul", &Parts::fused_matmul},
        {kContrib, "FusedConv", &Parts::fused_conv},
        {kContrib, "FusedGemm", &Parts::fused_gemm},
        {kContrib, "BiasAdd", &Parts::bias_add},
        {kContrib, "SkipLayerNormalization", &Parts::skip_norm},
        {kContrib, "SkipSimplifiedLayerNormalization", &Parts::skip_norm},
        {kContrib, "EmbedLayerNormalization", &Parts::embed_norm},
    };
    for (ValueId v : n_.inputs)
      if (v != kAbsent && (!g_.value(v).type.is_tensor() || !g_.value(v).type.ranked)) return false;
    for (ValueId v : n_.outputs)
      if (v != kAbsent && !g_.value(v).type.ranked) return false;
    for (const Row& r : kRows)
      if (n_.domain == r.domain && n_.op == r.op) return (this->*r.maker)();
    return false;
  }

 private:
  // ---- what parts are made with

  bool has(size_t k) const { return n_.has_input(k); }
  ValueId in(size_t k) const { return has(k) ? n_.inputs[k] : kAbsent; }
  const Type& type(ValueId v) const { return g_.value(v).type; }
  DType dtype(size_t k) const { return has(k) ? type(in(k)).dtype : DType::undefined; }
  const Type& result(size_t k = 0) const { return type(n_.outputs[k]); }

  ValueId node(const char* op, std::vector<ValueId> inputs, Type t, const char* domain = "") {
    ValueId v = g_.add_value("", std::move(t));
    Node n;
    n.op = op;
    n.domain = domain;
    n.name = n_.name;
    n.def = find_op(domain, op);
    n.inputs = std::move(inputs);
    n.outputs = {v};
    nodes_.push_back(std::move(n));
    return v;
  }
  // An operator over broadcast inputs; the result has the type of the last one, or `to`.
  ValueId map(const char* op, std::vector<ValueId> inputs, DType to = DType::undefined, const char* domain = "") {
    std::vector<Dim> dims;
    for (ValueId v : inputs) {
      const auto& d = type(v).dims;
      if (d.size() > dims.size()) dims.insert(dims.begin(), d.size() - dims.size(), Dim(1));
      for (size_t i = 0; i < d.size(); ++i) {
        Dim& to_dim = dims[dims.size() - d.size() + i];
        to_dim = bcast(to_dim, d[i]);
      }
    }
    DType t = to == DType::undefined ? type(inputs.back()).dtype : to;
    return node(op, std::move(inputs), Type::tensor(t, std::move(dims)), domain);
  }
  ValueId cast(ValueId v, DType t) {
    if (type(v).dtype == t) return v;
    v = map("Cast", {v}, t);
    nodes_.back().set("to", int64_t(t));
    return v;
  }
  ValueId number(float x) { return g_.add_constant("", Tensor::scalar<float>(x)); }
  // A vector as an axis `from_end` places before the last; others broadcast as they are.
  ValueId along(ValueId v, int64_t from_end) {
    const Type t = type(v);
    if (t.rank() != 1 || t.dims[0].is(1) || from_end <= 0) return v;
    std::vector<Dim> dims(size_t(from_end) + 1, Dim(1));
    dims[0] = t.dims[0];
    std::vector<int64_t> axes;
    for (int64_t k = 1; k <= from_end; ++k) axes.push_back(k);
    return node("Unsqueeze", {v, g_.add_constant("", Tensor::vector(axes))}, Type::tensor(t.dtype, std::move(dims)));
  }
  ValueId real_along(size_t k, int64_t from_end) { return along(cast(in(k), kReal), from_end); }
  // Output k of the node is `v`.
  void give(ValueId v, size_t k = 0) {
    if (!n_.has_output(k)) return;
    const ValueId to = n_.outputs[k];
    bool made = false;
    for (size_t i = first_; i < nodes_.size(); ++i) made |= nodes_[i].outputs[0] == v;
    if (!made || std::count(n_.outputs.begin(), n_.outputs.end(), v)) v = node("Identity", {v}, type(v));
    for (size_t i = first_; i < nodes_.size(); ++i)
      for (auto* list : {&nodes_[i].inputs, &nodes_[i].outputs}) std::replace(list->begin(), list->end(), v, to);
  }
  void attributes_of_this(std::initializer_list<const char*> names) {
    for (const char* name : names)
      if (const AttrValue* a = n_.find(name)) nodes_.back().set(name, *a);
  }

  // ---- quantising

  static double least(DType t) { return is_signed_integer(t) ? -std::ldexp(1.0, int(bits(t)) - 1) : 0; }
  static double most(DType t) { return std::ldexp(1.0, int(bits(t)) - (is_signed_integer(t) ? 1 : 0)) - 1; }

  // `x` held to the range of `t` and narrowed; NaN becomes the least value.
  ValueId saturated(ValueId x, DType t) {
    ValueId low = number(float(least(t)));
    ValueId above = map("GreaterOrEqual", {x, low}, DType::boolean),
            most_of_it = map("Min", {x, number(float(most(t)))});
    return cast(map("Where", {above, most_of_it, low}), t);
  }
  ValueId rounded(ValueId x, ValueId zero, DType t) {
    x = cast(map("Round", {x}), kReal);
    if (zero != kAbsent) x = map("Add", {x, cast(zero, kReal)});
    return saturated(x, t);
  }
  // Whole numbers less a zero point, as float32.
  ValueId less(ValueId x, ValueId zero) {
    x = cast(x, kReal);
    return zero == kAbsent ? x : map("Sub", {x, cast(zero, kReal)});
  }
  ValueId dequantized(size_t x, size_t scale) {
    return map("Mul", {less(in(x), in(scale + 1)), cast(in(scale), kReal)});
  }
  ValueId quantized(ValueId x, size_t scale, DType t) { return rounded(map("Div", {x, in(scale)}), in(scale + 1), t); }

  // How far the axis of a scale lies before the last; -1: blocks, or an axis that there is not.
  int64_t grain() const {
    const int64_t rank = type(in(0)).rank(), axis = n_.i("axis", 1);
    if (n_.i("block_size") != 0) return -1;
    if (type(in(1)).rank() == 0 || (type(in(1)).rank() == 1 && type(in(1)).dims[0].is(1))) return 0;
    const int64_t a = axis < 0 ? axis + rank : axis;
    return type(in(1)).rank() == 1 && a >= 0 && a < rank ? rank - 1 - a : -1;
  }

  bool quantize_linear() {
    const DType t = result().dtype, precision = DType(n_.i("precision"));
    const int64_t at = grain();
    if (at < 0 || !whole(t) || bits(t) > 16 || !real(dtype(1)) || (precision != DType::undefined && !real(precision)))
      return false;
    const DType p = precision == DType::undefined ? dtype(1) : precision;
    ValueId scaled = map("Div", {cast(in(0), p), along(cast(in(1), p), at)});
    give(rounded(scaled, has(2) ? along(in(2), at) : kAbsent, t));
    return true;
  }

  bool dequantize_linear() {
    const int64_t at = grain();
    if (at < 0 || !whole(dtype(0)) || !real(dtype(1)) || !real(result().dtype)) return false;
    ValueId x = in(0);
    if (bits(dtype(0)) <= 16)
      x = less(x, has(2) ? along(in(2), at) : kAbsent);
    else
      x = cast(has(2) ? map("Sub", {x, along(in(2), at)}) : x, kReal);
    give(cast(map("Mul", {x, real_along(1, at)}), result().dtype));
    return true;
  }

  // The scale and zero point (u8) that just cover `x` and zero.
  std::pair<ValueId, ValueId> cover(ValueId x) {
    ValueId zero = number(0);
    auto extreme = [&](const char* reduce, const char* pick) {
      ValueId v = node(reduce, {x}, Type::tensor(kReal, {}));
      nodes_.back().set("keepdims", int64_t(0));
      return map(pick, {v, zero});
    };
    ValueId low = extreme("ReduceMin", "Min"), high = extreme("ReduceMax", "Max"), range = map("Sub", {high, low});
    ValueId scale =
        map("Where", {map("Equal", {range, zero}, DType::boolean), number(1), map("Div", {range, number(255)})});
    return {scale, rounded(map("Div", {map("Sub", {zero, low}), scale}), kAbsent, DType::u8)};
  }
  bool dynamic_quantize() {
    auto [scale, zero] = cover(in(0));
    ValueId y = rounded(map("Div", {in(0), scale}), zero, DType::u8);
    give(y, 0);
    give(scale, 1);
    give(zero, 2);
    return true;
  }

  // ---- products

  static Type as(Type t, DType dtype) {
    t.dtype = dtype;
    return t;
  }
  // The exact product of inputs a and b less their zero points, by rows of A and columns of B.
  ValueId whole_product(ValueId a, ValueId a_zero, ValueId b, ValueId b_zero) {
    if (a_zero != kAbsent) a_zero = along(a_zero, 1);
    return node("IntegerMatMul", {less(a, a_zero), less(b, b_zero)}, as(result(), DType::i32), "gpu");
  }
  bool matmul_integer() {
    if (!small(dtype(0)) || !small(dtype(1))) return false;
    give(whole_product(in(0), in(2), in(1), in(3)));
    return true;
  }
  bool qlinear_matmul() {
    const DType t = result().dtype;
    if (!small(dtype(0)) || !small(dtype(3)) || !small(t)) return false;
    ValueId sum = cast(whole_product(in(0), in(2), in(3), in(5)), kReal);
    ValueId factor = map("Div", {map("Mul", {real_along(1, 1), cast(in(4), kReal)}), real_along(6, 1)});
    give(rounded(map("Mul", {sum, factor}), along(in(7), 1), t));
    return true;
  }
  ValueId whole_convolution(size_t x, size_t x_zero, size_t w, size_t w_zero) {
    const int64_t spatial = type(in(w)).rank() - 1;
    ValueId zero = has(w_zero) ? along(in(w_zero), spatial) : kAbsent;
    ValueId y = node("IntegerConv", {less(in(x), in(x_zero)), less(in(w), zero)}, as(result(), DType::i32), "gpu");
    attributes_of_this({"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"});
    return y;
  }
  bool conv_integer() {
    give(whole_convolution(0, 2, 1, 3));
    return true;
  }
  bool qlinear_conv() {
    const DType t = result().dtype;
    const int64_t channel = type(in(0)).rank() - 2;
    ValueId sum = whole_convolution(0, 2, 3, 5);
    if (has(8)) sum = map("Add", {sum, along(in(8), channel)});
    ValueId factor = map("Div", {map("Mul", {in(1), along(in(4), channel)}), in(6)});
    give(rounded(map("Mul", {cast(sum, kReal), factor}), in(7), t));
    return true;
  }

  // x · scales, plus a bias by column.
  ValueId scaled_product(ValueId sum, ValueId a_scale, ValueId b_scale, ValueId bias) {
    ValueId y = map("Mul", {cast(sum, kReal), map("Mul", {a_scale, b_scale})});
    return bias == kAbsent ? y : map("Add", {y, cast(bias, kReal)});
  }
  bool dynamic_matmul() {
    auto [scale, zero] = cover(in(0));
    ValueId a = rounded(map("Div", {in(0), scale}), zero, DType::u8);
    give(scaled_product(whole_product(a, zero, in(1), in(3)), scale, in(2), in(4)));
    return true;
  }
  bool integer_to_float() {
    if (!real(result().dtype)) return false;
    ValueId sum = whole_product(in(0), in(4), in(1), in(5));
    give(cast(scaled_product(sum, real_along(2, 1), cast(in(3), kReal), in(6)), result().dtype));
    return true;
  }

  // ---- quantised operators of com.microsoft; every tensor is followed by its scale and zero point

  bool qlinear_add() {
    const DType t = result().dtype;
    auto zero = [&](size_t k) { return has(k) ? cast(in(k), kReal) : number(0); };
    ValueId a = map("Div", {in(1), in(6)}), b = map("Div", {in(4), in(6)});
    ValueId shift = map("Sub", {zero(7), map("Add", {map("Mul", {a, zero(2)}), map("Mul", {b, zero(5)})})});
    ValueId y = map("MultiplyAdd", {cast(in(3), kReal), b, shift}, kReal, "gpu");
    give(rounded(map("MultiplyAdd", {cast(in(0), kReal), a, y}, kReal, "gpu"), kAbsent, t));
    return true;
  }
  bool qlinear_mul() {
    ValueId ratio = map("Div", {map("Mul", {in(1), in(4)}), in(6)});
    ValueId product = map("Mul", {less(in(0), in(2)), less(in(3), in(5))});
    give(rounded(map("Mul", {product, ratio}), in(7), result().dtype));
    return true;
  }
  bool qlinear_unary() {
    const bool sigmoid = n_.op == "QLinearSigmoid";
    ValueId y = map(sigmoid ? "Sigmoid" : "LeakyRelu", {dequantized(0, 1)});
    if (!sigmoid) nodes_.back().set("alpha", n_.f("alpha", 0.01f));
    give(quantized(y, 3, result().dtype));
    return true;
  }
  bool qlinear_concat() {
    std::vector<ValueId> parts;
    for (size_t k = 2; k + 2 < n_.inputs.size(); k += 3) {
      if (!small(dtype(k)) || dtype(k + 1) != kReal) return false;
      parts.push_back(dequantized(k, k + 1));
    }
    ValueId y = node("Concat", parts, as(result(), kReal));
    attributes_of_this({"axis"});
    give(quantized(y, 0, result().dtype));
    return true;
  }
  bool qlinear_global_pool() {
    const bool last = n_.i("channels_last") != 0;
    std::vector<int64_t> axes;
    for (int64_t d = 1; d < type(in(0)).rank(); ++d)
      if (d != (last ? type(in(0)).rank() - 1 : 1)) axes.push_back(d);
    ValueId y =
        node("ReduceMean", {less(in(0), in(2)), g_.add_constant("", Tensor::vector(axes))}, as(result(), kReal));
    give(quantized(map("Mul", {y, in(1)}), 3, result().dtype));
    return true;
  }

  bool qgemm() {
    const DType t = result().dtype;
    if (!small(dtype(0)) || !small(dtype(3)) || (has(7) && !small(t))) return false;
    auto turned = [&](ValueId v, const char* flag) { return n_.i(flag) ? transposed(v, {1, 0}) : v; };
    ValueId a = turned(less(in(0), in(2)), "transA");
    ValueId b = turned(less(in(3), has(5) ? along(in(5), n_.i("transB") ? 1 : 0) : kAbsent), "transB");
    ValueId sum = node("IntegerMatMul", {a, b}, as(result(), DType::i32), "gpu");
    if (has(6)) sum = map("Add", {sum, in(6)});
    ValueId factor = map("Mul", {map("Mul", {number(n_.f("alpha", 1)), in(1)}), in(4)});
    if (has(7)) factor = map("Div", {factor, in(7)});
    ValueId y = map("Mul", {cast(sum, kReal), factor});
    give(has(7) ? rounded(y, in(8), t) : y);
    return true;
  }

  ValueId transposed(ValueId v, std::vector<int64_t> order) {
    const Type t = type(v);
    std::vector<Dim> dims;
    for (int64_t k : order) dims.push_back(t.dims[size_t(k)]);
    ValueId y = node("Transpose", {v}, Type::tensor(t.dtype, dims));
    nodes_.back().set("perm", std::move(order));
    return y;
  }
  // transBatch: the rows are the first axis; trans then swaps the last two.
  bool fused_matmul() {
    auto arranged = [&](size_t k, const char* trans, const char* batch) {
      std::vector<int64_t> order;
      for (int64_t d = 0; d < type(in(k)).rank(); ++d) order.push_back(d);
      const std::vector<int64_t> same = order;
      if (order.size() < 2) return in(k);
      if (n_.i(batch)) std::rotate(order.begin(), order.begin() + 1, order.end() - 1);
      if (n_.i(trans)) std::swap(order[order.size() - 1], order[order.size() - 2]);
      return order == same ? in(k) : transposed(in(k), order);
    };
    if (!real(result().dtype)) return false;
    ValueId a = arranged(0, "transA", "transBatchA"), b = arranged(1, "transB", "transBatchB");
    ValueId y = node("MatMul", {a, b}, result());
    if (n_.f("alpha", 1) != 1) y = cast(map("Mul", {cast(y, kReal), number(n_.f("alpha", 1))}), result().dtype);
    give(y);
    return true;
  }

  // Over volumes: a product of the weights with a matrix of patches.
  bool conv_of_three_axes() {
    const Type y = result(), w = type(in(1));
    auto filters = constant_shape(w.dims);
    const int64_t groups = n_.i("group", 1);
    if (type(in(0)).rank() != 5 || !real(y.dtype) || !filters || filters->size() != 5 || groups < 1) return false;
    const Shape& f = *filters;
    const int64_t inner = f[1] * f[2] * f[3] * f[4];
    const Dim places = y.dims[2] * y.dims[3] * y.dims[4];
    auto reshaped = [&](ValueId v, std::vector<Dim> dims) {
      ValueId shape = g_.add_constant("", Tensor::vector<int64_t>(std::vector<int64_t>(dims.size(), -1)));
      return node("Reshape", {v, shape}, Type::tensor(type(v).dtype, std::move(dims)));
    };
    ValueId patches =
        node("Patches", {cast(in(0), kReal)}, Type::tensor(kReal, {y.dims[0], Dim(groups), Dim(inner), places}), "gpu");
    attributes_of_this({"auto_pad", "dilations", "pads", "strides"});
    nodes_.back().set("kernel_shape", std::vector<int64_t>(f.begin() + 2, f.end()));
    ValueId rows = reshaped(cast(in(1), kReal), {Dim(groups), Dim(f[0] / groups), Dim(inner)});
    ValueId sums =
        node("MatMul", {rows, patches}, Type::tensor(kReal, {y.dims[0], Dim(groups), Dim(f[0] / groups), places}));
    ValueId result_5 = reshaped(sums, y.dims);
    if (has(2)) result_5 = map("Add", {result_5, real_along(2, 3)});
    give(cast(result_5, y.dtype));
    return true;
  }

  // ---- attention

  // [batch, head, row, column] of an input in either form.
  ValueId four_axes(size_t k, int64_t heads) {
    const Type t = type(in(k));
    if (t.rank() == 4) return in(k);
    const std::vector<Dim> split{t.dims[0], t.dims[1], Dim(heads), exact_div(t.dims[2], Dim(heads))};
    ValueId shape = g_.add_constant("", Tensor::vector<int64_t>({0, 0, heads, -1}));
    ValueId v = node("Reshape", {in(k), shape}, Type::tensor(t.dtype, split));
    v = node("Transpose", {v}, Type::tensor(t.dtype, {split[0], split[2], split[1], split[3]}));
    nodes_.back().set("perm", std::vector<int64_t>{0, 2, 1, 3});
    return v;
  }
  bool attention() {
    if (n_.has_output(3) || has(4) != has(5)) return false;  // the scores are never there
    for (size_t k : {0, 1, 2})
      if (type(in(k)).rank() != type(in(0)).rank() || (type(in(k)).rank() != 3 && type(in(k)).rank() != 4))
        return false;
    const int64_t heads = n_.i("kv_num_heads");
    ValueId kv[2] = {in(1), in(2)};
    for (size_t k : {0, 1}) {
      if (!has(4) && !n_.has_output(1 + k)) continue;
      kv[k] = four_axes(1 + k, heads);
      if (has(4)) {
        std::vector<Dim> dims = type(kv[k]).dims;
        dims[2] = type(in(4 + k)).rank() == 4 ? type(in(4 + k)).dims[2] + dims[2] : dims[2];
        kv[k] = node("Concat", {in(4 + k), kv[k]}, Type::tensor(type(kv[k]).dtype, dims));
        nodes_.back().set("axis", int64_t(2));
      }
    }
    std::vector<ValueId> inputs{in(0), kv[0], kv[1], in(3), in(6), in(4)};
    while (inputs.back() == kAbsent) inputs.pop_back();
    ValueId y = node("Attention", inputs, result(), "gpu");
    attributes_of_this(
        {"is_causal", "kv_num_heads", "left_window_size", "q_num_heads", "right_window_size", "scale", "softcap"});
    for (size_t k : {0, 1})
      if (n_.has_output(1 + k)) give(kv[k], 1 + k);
    give(y);
    return true;
  }

  // Of inference: nothing is dropped.
  bool dropout() {
    if (n_.has_output(1)) return false;
    if (has(2)) {
      const Tensor& training = g_.value(in(2)).constant;
      if (!training || training.count() != 1 || training.as<bool>()[0]) return false;
    }
    give(in(0));
    return true;
  }

  // ---- fused operators of com.microsoft

  // The result of an activation by its name; kAbsent where it is none that is known.
  ValueId activated(ValueId x, const std::string& kind, const std::vector<float>& parameters) {
    static const std::map<std::string_view, std::vector<const char*>> kKinds = {
        {"Relu", {}},      {"Sigmoid", {}}, {"Tanh", {}}, {"LeakyRelu", {"alpha"}}, {"HardSigmoid", {"alpha", "beta"}},
        {"Elu", {"alpha"}}};
    if (kind.empty()) return x;
    if (kind == "Clip" && parameters.size() == 2)
      return map("Min", {map("Max", {x, number(parameters[0])}), number(parameters[1])});
    auto found = kKinds.find(kind);
    if (found == kKinds.end()) return kAbsent;
    ValueId y = map(found->first.data(), {x});
    for (size_t k = 0; k < std::min(parameters.size(), found->second.size()); ++k)
      nodes_.back().set(found->second[k], parameters[k]);
    return y;
  }
  bool fused_conv() {
    if (result().dtype != kReal) return false;
    std::vector<ValueId> inputs{in(0), in(1)};
    if (has(2)) inputs.push_back(in(2));
    ValueId y = node("Conv", inputs, result());
    attributes_of_this({"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"});
    if (has(3)) y = map("Add", {y, in(3)});
    y = activated(y, n_.s("activation"), n_.floats("activation_params"));
    if (y == kAbsent) return false;
    give(y);
    return true;
  }
  bool fused_gemm() {
    if (result().dtype != kReal) return false;
    std::vector<ValueId> inputs{in(0), in(1)};
    if (has(2)) inputs.push_back(in(2));
    ValueId y = node("Gemm", inputs, result());
    attributes_of_this({"alpha", "beta", "transA", "transB"});
    std::vector<float> parameters;
    if (n_.has("activation_alpha")) parameters.push_back(n_.f("activation_alpha"));
    if (n_.has("activation_beta")) parameters.push_back(n_.f("activation_beta"));
    y = activated(y, n_.s("activation"), parameters);
    if (y == kAbsent) return false;
    give(y);
    return true;
  }
  bool bias_add() {
    give(map("Add", {map("Add", {in(0), in(1)}), in(2)}));
    return true;
  }
  // Normalises `x`, of the node's type, along the last axis.
  ValueId normalised(const char* op, ValueId x, std::vector<ValueId> weights) {
    weights.insert(weights.begin(), x);
    ValueId y = node(op, weights, type(x));
    nodes_.back().set("axis", int64_t(-1));
    nodes_.back().set("epsilon", n_.f("epsilon", 1e-12f));
    return y;
  }
  bool skip_norm() {
    const bool centred = n_.op == "SkipLayerNormalization";
    if (n_.has_output(1) || n_.has_output(2)) return false;  // the moments
    ValueId sum = map("Add", {in(0), in(1)});
    if (has(centred ? 4 : 3)) sum = map("Add", {sum, in(centred ? 4 : 3)});
    std::vector<ValueId> weights{in(2)};
    if (centred && has(3)) weights.push_back(in(3));
    ValueId y = normalised(centred ? "LayerNormalization" : "RMSNormalization", sum, weights);
    give(sum, 3);
    give(y, 0);
    return true;
  }
  bool embed_norm() {
    if (n_.has_output(1) || !has(2) || type(in(2)).rank() != 2) return false;  // the lengths that a mask gives
    const Type rows = result();
    auto looked_up = [&](size_t table, ValueId index) { return node("Gather", {in(table), index}, rows); };
    ValueId sum = looked_up(2, in(0));
    if (has(8)) {
      if (type(in(8)).dims != type(in(0)).dims) return false;
      sum = map("Add", {sum, looked_up(3, in(8))});
    } else {
      const std::vector<Dim> dims = type(in(0)).dims;
      if (dims.size() != 2 || !dims[1].is_constant()) return false;
      std::vector<int64_t> places;
      for (int64_t i = 0; i < *dims[1].constant(); ++i) places.push_back(i);
      ValueId index = g_.add_constant("", Tensor::vector(places));
      sum = map("Add", {sum, node("Gather", {in(3), index}, Type::tensor(rows.dtype, {rows.dims[1], rows.dims[2]}))});
    }
    if (has(4)) sum = map("Add", {sum, looked_up(4, in(1))});
    ValueId y = normalised("LayerNormalization", sum, {in(5), in(6)});
    give(sum, 2);
    give(y, 0);
    return true;
  }

  Graph& g_;
  const Node& n_;
  std::vector<Node>& nodes_;
  const size_t first_;
};

}  // namespace

bool decompose(Graph& graph) {
  bool any = false;
  std::vector<Node> nodes;
  for (Node& n : graph.nodes) {
    const size_t before = nodes.size();
    Parts parts(graph, n, nodes);
    if (parts.make()) {
      any = true;
      continue;
    }
    nodes.resize(before);
    nodes.push_back(std::move(n));
  }
  graph.nodes = std::move(nodes);
  return any;
}

}  // namespace ai_vmm::gpu
