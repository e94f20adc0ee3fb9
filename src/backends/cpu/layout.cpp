// Which values lie in blocks of channels. Convolutions and pools want them so; elementwise operators, concatenations
// and splits along whole blocks pass them on; everything else gets rows. A Reorder stands only where the two meet.
#include <unordered_map>

#include "backends/cpu/elementwise.hpp"
#include "backends/cpu/onednn.hpp"
#include "backends/cpu/rewrite.hpp"

namespace ai_vmm::cpu {

namespace {

class Layouts {
 public:
  explicit Layouts(Lowering& l) : l_(l), g_(l.graph), block_(block_size()) {
    l_.layouts.assign(g_.values.size(), Layout{});
  }

  void run() {
    std::vector<Node> nodes = std::move(g_.nodes);
    g_.nodes.clear();
    for (Node& n : nodes) {
      node_ = &n;
      if (n.domain.empty() || n.domain == "cpu" || n.op == "FusedConv") {
        if (n.op == "Conv" || n.op == "FusedConv" || n.op == "ConvTranspose")
          place_conv();
        else if (n.op == "MaxPool" || n.op == "AveragePool" || n.op == "GlobalAveragePool" || n.op == "GlobalMaxPool")
          place_pool();
        else if (n.op == "Concat")
          place_concat();
        else if (n.op == "Split")
          place_split();
        else if (block_program(g_, n))
          place_elementwise();
        else if (n.op == "Resize")
          place_resize();
        else
          rows();
      } else {
        rows();
      }
      g_.nodes.push_back(std::move(n));
    }
    for (ValueId& v : g_.outputs) v = as_rows(v);
  }

 private:
  bool blocked(ValueId v) const { return v != kAbsent && l_.layouts[size_t(v)].block; }
  const Type& type(ValueId v) const { return g_.value(v).type; }
  std::optional<int64_t> channels(ValueId v) const {
    return type(v).rank() >= 2 ? type(v).dims[1].constant() : std::nullopt;
  }

  ValueId reorder(ValueId v, Layout to, std::unordered_map<ValueId, ValueId>& made) {
    auto [it, fresh] = made.emplace(v, kAbsent);
    if (!fresh) return it->second;
    ValueId w = g_.add_value("", type(v));
    l_.layouts.push_back(to);
    Node n;
    n.op = "Reorder";
    n.domain = "cpu";
    n.inputs = {v};
    n.outputs = {w};
    g_.nodes.push_back(std::move(n));
    it = made.find(v);
    it->second = w;
    return w;
  }
  ValueId as_rows(ValueId v) { return blocked(v) ? reorder(v, {}, rows_of_) : v; }
  ValueId as_blocks(ValueId v) {
    if (blocked(v)) return v;
    // A value that was brought into rows from blocks goes back to where it came from.
    for (auto& [from, to] : rows_of_)
      if (to == v) return from;
    return reorder(v, {block_}, blocks_of_);
  }
  void rows() {
    for (ValueId& v : node_->inputs) v = as_rows(v);
  }
  void result_in_blocks() {
    for (ValueId v : node_->outputs)
      if (v != kAbsent) l_.layouts[size_t(v)] = {block_};
  }

  // Whether the node has a kernel of its own: the reference semantics know rows only.
  bool native() const {
    std::vector<Layout> plain(g_.values.size());
    bool generic = false;
    Make probe{g_, *node_, plain, l_.options, l_.pack, true};
    return make_kernel(probe, generic).bind && !generic;
  }

  void place_conv() {
    Node& n = *node_;
    if (!native()) return rows();
    const Type &x = type(n.inputs[0]), &w = type(n.inputs[1]);
    auto shape = w.shape();
    bool usable = x.dtype == DType::f32 && x.rank() >= 3 && x.rank() <= 5 && shape &&
                  shape->size() == size_t(x.rank()) && channels(n.inputs[0]);
    if (!usable) return rows();
    onednn::ConvSpec s;
    s.transposed = n.op == "ConvTranspose";
    s.groups = n.i("group", 1);
    int64_t ic = *channels(n.inputs[0]), oc = s.transposed ? (*shape)[1] * s.groups : (*shape)[0];
    s.spatial = int(x.rank()) - 2;
    auto strides = n.ints("strides"), dilations = n.ints("dilations");
    for (int d = 0; d < s.spatial; ++d) {
      // The question does not depend on the exact size: one that is surely large enough stands for it.
      s.kernel[d] = (*shape)[size_t(d) + 2];
      s.stride[d] = strides.empty() ? 1 : strides[size_t(d)];
      s.dilation[d] = dilations.empty() ? 1 : dilations[size_t(d)];
      int64_t small = 32, reach = (s.kernel[d] - 1) * s.dilation[d] + 1;
      (s.transposed ? s.in : s.out)[d] = small;
      (s.transposed ? s.out : s.in)[d] = (small - 1) * s.stride[d] + reach;
    }
    s.bias = n.has_input(2);
    s.residual = n.has_input(3);
    bool depthwise = s.groups > 1 && s.groups == ic && s.groups == oc;
    bool whole = s.groups == 1 || depthwise || (ic / s.groups % block_ == 0 && oc / s.groups % block_ == 0);
    auto padded = [&](int64_t c) { return (c + block_ - 1) / block_ * block_; };
    auto fits = [&](int in, int out) {
      onednn::ConvSpec t = s;
      t.ic = in ? padded(ic) : ic;
      t.oc = out ? padded(oc) : oc;
      if (depthwise && in) t.groups = t.ic;
      t.block_in = in, t.block_out = out;
      auto made = onednn::Convolution::make(t, true);
      return made.ok() && *made;
    };
    bool few = s.groups == 1 && ic <= 3 && !blocked(n.inputs[0]);
    if (few && fits(0, block_)) {
      n.inputs[0] = as_rows(n.inputs[0]);
    } else if (whole && fits(block_, block_)) {
      n.inputs[0] = as_blocks(n.inputs[0]);
    } else {
      return rows();
    }
    for (size_t k = 1; k < n.inputs.size(); ++k)
      if (n.inputs[k] != kAbsent) n.inputs[k] = k == 3 ? as_blocks(n.inputs[k]) : as_rows(n.inputs[k]);
    result_in_blocks();
  }

  void place_pool() {
    if (!blocked(node_->inputs[0]) || node_->outputs.size() != 1 || !native()) return rows();
    result_in_blocks();
  }

  void place_resize() { rows(); }

  void place_concat() {
    Node& n = *node_;
    int64_t rank = type(n.outputs[0]).rank(), axis = n.i("axis");
    if (axis < 0) axis += rank;
    bool any = false, whole = axis == 1 && rank >= 3 && type(n.outputs[0]).dtype == DType::f32;
    for (ValueId v : n.inputs) {
      any |= blocked(v);
      auto c = channels(v);
      whole &= c && *c % block_ == 0 && type(v).dtype == DType::f32;
    }
    if (!any || !whole) return rows();
    for (ValueId& v : n.inputs) v = as_blocks(v);
    result_in_blocks();
  }

  void place_split() {
    Node& n = *node_;
    int64_t rank = type(n.inputs[0]).rank(), axis = n.i("axis", 0);
    if (axis < 0) axis += rank;
    bool whole = blocked(n.inputs[0]) && axis == 1;
    for (ValueId v : n.outputs) {
      auto c = v == kAbsent ? std::nullopt : channels(v);
      whole &= c && *c % block_ == 0;
    }
    if (!whole) return rows();
    result_in_blocks();
  }

  void place_elementwise() {
    Node& n = *node_;
    ValueId y = n.outputs[0];
    int64_t rank = type(y).rank();
    auto c = channels(y);
    bool any = false, usable = rank >= 3 && c && n.outputs.size() == 1 && type(y).dtype == DType::f32;
    auto program = block_program(g_, n);
    enum class How { scalar, channel, blocks };
    std::vector<How> how(n.inputs.size(), How::scalar);
    for (size_t k = 0; usable && k < n.inputs.size(); ++k) {
      ValueId v = n.inputs[k];
      if (v == kAbsent || std::find(program->inputs.begin(), program->inputs.end(), v) == program->inputs.end())
        continue;
      const Type& t = type(v);
      any |= blocked(v) && t.dims == type(y).dims;
      if (t.dtype != DType::f32 || !t.ranked) {
        usable = false;
        break;
      }
      bool ones = true, channel = int64_t(t.dims.size()) >= rank - 1;
      for (size_t d = 0; d < t.dims.size(); ++d) {
        ones &= t.dims[d].is(1);
        if (int64_t(d) + rank - int64_t(t.dims.size()) == 1)
          channel &= t.dims[d].is(*c);
        else
          channel &= t.dims[d].is(1);
      }
      if (ones) continue;
      if (g_.is_constant(v)) {
        how[k] = How::channel;
        usable &= channel;
      } else {
        how[k] = How::blocks;
        usable &= t.rank() == rank && t.dims[1].is(*c);
      }
    }
    if (!any || !usable) return rows();
    for (size_t k = 0; k < n.inputs.size(); ++k)
      if (how[k] == How::blocks)
        n.inputs[k] = as_blocks(n.inputs[k]);
      else if (n.inputs[k] != kAbsent)
        n.inputs[k] = as_rows(n.inputs[k]);
    result_in_blocks();
  }

  Lowering& l_;
  Graph& g_;
  int block_;
  Node* node_ = nullptr;
  std::unordered_map<ValueId, ValueId> rows_of_, blocks_of_;
};

}  // namespace

Status assign_layouts(Lowering& l) {
  Layouts(l).run();
  return {};
}

}  // namespace ai_vmm::cpu
