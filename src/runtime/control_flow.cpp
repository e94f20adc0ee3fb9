#include "runtime/control_flow.hpp"

#include <algorithm>

#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

const Data kNothing;

const Data& input(const Plan::Step& step, const Frame& frame, size_t k) {
  return k < step.inputs.size() && step.inputs[k] >= 0 ? frame.at(step.inputs[k]) : kNothing;
}

void set_output(const Plan::Step& step, Frame& frame, size_t k, Data value) {
  if (k < step.outputs.size() && step.outputs[k] >= 0) frame.set(step.outputs[k], std::move(value));
}

std::vector<const Data*> captured(const Plan::SubPlan& body, const Frame& frame) {
  std::vector<const Data*> c;
  c.reserve(body.captures.size());
  for (int v : body.captures) c.push_back(&frame.at(v));
  return c;
}

// Runs a body. `out` is left with what it gives.
Status run_body(const Plan& plan, const std::vector<Data>& in, std::span<const Data* const> captures,
                std::vector<Data>& out, Execution& x) {
  std::vector<const Data*> from;
  for (const Data& d : in) from.push_back(&d);
  out.assign(plan.outputs.size(), Data());
  std::vector<Data*> to;
  for (Data& d : out) to.push_back(&d);
  return execute(plan, from, captures, to, x);
}

Result<bool> condition(const Data& d) {
  if (!d.is_tensor() || d.tensor().dtype() != DType::boolean || d.tensor().count() != 1)
    return Status(Code::invalid_argument, "A condition must be one boolean.");
  return d.tensor().as<uint8_t>()[0] != 0;
}

// Tensors of equal type and shape, laid one after another along a new leading axis, or along `axis`.
class Collector {
 public:
  Status add(const Data& d) {
    if (!d.is_tensor()) return Status(Code::invalid_argument, "A scan output must be a tensor.");
    if (!parts_.empty() && (parts_[0].shape() != d.tensor().shape() || parts_[0].dtype() != d.tensor().dtype()))
      return Status(Code::invalid_argument, "A scan output changes its shape from " + to_string(parts_[0].shape()) +
                                                " to " + to_string(d.tensor().shape()) + " between iterations.");
    parts_.push_back(d.tensor());
    return {};
  }
  // `reverse`: the last part first. `type` stands in where there is no part.
  Result<Data> stack(int64_t axis, bool reverse, const Type& type) {
    Shape inner;
    DType dtype = type.dtype;
    if (parts_.empty()) {
      if (dtype == DType::undefined) dtype = DType::f32;
      for (const Dim& d : type.dims) inner.push_back(d.constant().value_or(0));
    } else {
      inner = parts_[0].shape();
      dtype = parts_[0].dtype();
    }
    int64_t rank = int64_t(inner.size()) + 1;
    if (axis < -rank || axis >= rank)
      return Status(Code::invalid_argument, "The scan axis " + std::to_string(axis) + " is outside the output.");
    if (axis < 0) axis += rank;
    Shape shape = inner;
    shape.insert(shape.begin() + axis, int64_t(parts_.size()));
    Tensor out = AI_VMM_TAKE(Tensor::make(dtype, shape, true));
    int64_t outer = ref::product(std::span(inner).first(size_t(axis))),
            run = ref::product(std::span(inner).subspan(size_t(axis)));
    auto n = int64_t(parts_.size());
    for (int64_t i = 0; i < n; ++i) {
      const Tensor& part = parts_[size_t(reverse ? n - 1 - i : i)];
      for (int64_t o = 0; o < outer; ++o) {
        if (bits(dtype) >= 8) {
          int64_t size = bits(dtype) / 8;
          std::memcpy(static_cast<char*>(out.mutable_data()) + (o * n + i) * run * size,
                      static_cast<const char*>(part.data()) + o * run * size, size_t(run * size));
        } else {
          for (int64_t r = 0; r < run; ++r) ref::copy_element(out, (o * n + i) * run + r, part, o * run + r);
        }
      }
    }
    return Data(std::move(out));
  }

 private:
  std::vector<Tensor> parts_;
};

// The part of `t` at index `at` of `axis`, without that axis.
Result<Data> slice(const Tensor& t, int64_t axis, int64_t at) {
  Shape shape = t.shape();
  int64_t n = shape[size_t(axis)];
  int64_t outer = ref::product(std::span(shape).first(size_t(axis))),
          run = ref::product(std::span(shape).subspan(size_t(axis) + 1));
  shape.erase(shape.begin() + axis);
  Tensor out = AI_VMM_TAKE(Tensor::make(t.dtype(), shape));
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t r = 0; r < run; ++r) ref::copy_element(out, o * run + r, t, (o * n + at) * run + r);
  return Data(std::move(out));
}

Status run_if(const Plan::Step& step, Frame& frame, Execution& x) {
  bool yes = AI_VMM_TAKE(condition(input(step, frame, 0)));
  const Plan::SubPlan& body = step.bodies[yes ? 0 : 1];
  auto captures = captured(body, frame);
  std::vector<Data> out;
  AI_VMM_TRY(run_body(*body.plan, {}, captures, out, x));
  for (size_t k = 0; k < out.size(); ++k) set_output(step, frame, k, std::move(out[k]));
  return {};
}

Status run_loop(const Plan::Step& step, Frame& frame, Execution& x) {
  const Plan::SubPlan& body = step.bodies[0];
  const Plan& plan = *body.plan;
  int64_t trips = INT64_MAX;
  if (const Data& m = input(step, frame, 0); m.is_tensor()) trips = ref::ints(m.tensor()).at(0);
  bool go = true;
  if (const Data& c = input(step, frame, 1); c.is_tensor()) go = AI_VMM_TAKE(condition(c));
  size_t carried = plan.inputs.size() - 2;
  if (plan.outputs.size() < carried + 1)
    return Status(Code::invalid_argument, "The body gives fewer outputs than it carries.");
  size_t scans = plan.outputs.size() - 1 - carried;
  std::vector<Data> state(plan.inputs.size());
  for (size_t k = 0; k < carried; ++k) state[2 + k] = input(step, frame, 2 + k);
  std::vector<Collector> collected(scans);
  auto captures = captured(body, frame);
  for (int64_t i = 0; i < trips && go; ++i) {
    Tensor iteration = AI_VMM_TAKE(Tensor::make(DType::i64, {}));
    iteration.as_mutable<int64_t>()[0] = i;
    Tensor cond = AI_VMM_TAKE(Tensor::make(DType::boolean, {}));
    cond.as_mutable<uint8_t>()[0] = 1;
    state[0] = Data(std::move(iteration));
    state[1] = Data(std::move(cond));
    std::vector<Data> out;
    AI_VMM_TRY(run_body(plan, state, captures, out, x));
    go = AI_VMM_TAKE(condition(out[0]));
    for (size_t k = 0; k < carried; ++k) state[2 + k] = std::move(out[1 + k]);
    for (size_t k = 0; k < scans; ++k) AI_VMM_TRY(collected[k].add(out[1 + carried + k]));
  }
  for (size_t k = 0; k < carried; ++k) set_output(step, frame, k, std::move(state[2 + k]));
  for (size_t k = 0; k < scans; ++k) {
    const Type& type = plan.value(plan.outputs[1 + carried + k]).type;
    set_output(step, frame, carried + k, AI_VMM_TAKE(collected[k].stack(0, false, type)));
  }
  return {};
}

Status run_scan(const Plan::Step& step, Frame& frame, Execution& x) {
  const Plan::SubPlan& body = step.bodies[0];
  const Plan& plan = *body.plan;
  const Node& node = *step.node;
  auto scan_inputs = size_t(node.i("num_scan_inputs"));
  if (scan_inputs > plan.inputs.size() || scan_inputs == 0)
    return Status(Code::invalid_argument, "num_scan_inputs is " + std::to_string(scan_inputs) + "; the body takes " +
                                              std::to_string(plan.inputs.size()) + " inputs.");
  size_t states = plan.inputs.size() - scan_inputs;
  if (plan.outputs.size() < states)
    return Status(Code::invalid_argument, "The body gives fewer outputs than it carries.");
  size_t scan_outputs = plan.outputs.size() - states;
  auto at = [](const std::vector<int64_t>& list, size_t k) { return k < list.size() ? list[k] : int64_t(0); };
  auto in_axes = node.ints("scan_input_axes"), in_directions = node.ints("scan_input_directions");
  auto out_axes = node.ints("scan_output_axes"), out_directions = node.ints("scan_output_directions");
  int64_t length = -1;
  std::vector<int64_t> axes(scan_inputs);
  for (size_t k = 0; k < scan_inputs; ++k) {
    const Data& d = input(step, frame, states + k);
    if (!d.is_tensor()) return Status(Code::invalid_argument, "A scan input must be a tensor.");
    int64_t rank = d.tensor().rank(), axis = at(in_axes, k);
    if (axis < -rank || axis >= rank)
      return Status(Code::invalid_argument, "The scan axis " + std::to_string(axis) + " is outside a tensor of rank " +
                                                std::to_string(rank) + ".");
    axes[k] = axis < 0 ? axis + rank : axis;
    int64_t n = d.tensor().dim(axes[k]);
    if (length >= 0 && n != length)
      return Status(Code::invalid_argument, "Scan inputs have different lengths: " + std::to_string(length) + " and " +
                                                std::to_string(n) + ".");
    length = n;
  }
  std::vector<Data> state(plan.inputs.size());
  for (size_t k = 0; k < states; ++k) state[k] = input(step, frame, k);
  std::vector<Collector> collected(scan_outputs);
  auto captures = captured(body, frame);
  for (int64_t i = 0; i < length; ++i) {
    for (size_t k = 0; k < scan_inputs; ++k)
      state[states + k] = AI_VMM_TAKE(
          slice(input(step, frame, states + k).tensor(), axes[k], at(in_directions, k) ? length - 1 - i : i));
    std::vector<Data> out;
    AI_VMM_TRY(run_body(plan, state, captures, out, x));
    for (size_t k = 0; k < states; ++k) state[k] = std::move(out[k]);
    for (size_t k = 0; k < scan_outputs; ++k) AI_VMM_TRY(collected[k].add(out[states + k]));
  }
  for (size_t k = 0; k < states; ++k) set_output(step, frame, k, std::move(state[k]));
  for (size_t k = 0; k < scan_outputs; ++k) {
    const Type& type = plan.value(plan.outputs[states + k]).type;
    set_output(step, frame, states + k,
               AI_VMM_TAKE(collected[k].stack(at(out_axes, k), at(out_directions, k) != 0, type)));
  }
  return {};
}

Status run_sequence_map(const Plan::Step& step, Frame& frame, Execution& x) {
  const Plan::SubPlan& body = step.bodies[0];
  const Plan& plan = *body.plan;
  if (!input(step, frame, 0).is_sequence())
    return Status(Code::invalid_argument, "The first input must be a sequence.");
  size_t length = input(step, frame, 0).sequence().size();
  std::vector<std::shared_ptr<Sequence>> results;
  for (size_t k = 0; k < plan.outputs.size(); ++k) results.push_back(std::make_shared<Sequence>());
  auto captures = captured(body, frame);
  for (size_t i = 0; i < length; ++i) {
    std::vector<Data> in;
    for (size_t k = 0; k < plan.inputs.size(); ++k) {
      const Data& d = input(step, frame, k);
      if (!d.is_sequence()) {
        in.push_back(d);
      } else if (i < d.sequence().size()) {
        in.push_back(d.sequence()[i]);
      } else {
        return Status(Code::invalid_argument, "Sequence inputs have different lengths.");
      }
    }
    std::vector<Data> out;
    AI_VMM_TRY(run_body(plan, in, captures, out, x));
    for (size_t k = 0; k < out.size(); ++k) results[k]->push_back(std::move(out[k]));
  }
  for (size_t k = 0; k < results.size(); ++k) set_output(step, frame, k, Data(std::move(results[k])));
  return {};
}

}  // namespace

Status run_control_flow(const Plan::Step& step, Frame& frame, Execution& x) {
  switch (step.kind) {
    case Plan::Kind::if_: return run_if(step, frame, x);
    case Plan::Kind::loop: return run_loop(step, frame, x);
    case Plan::Kind::scan: return run_scan(step, frame, x);
    default: return run_sequence_map(step, frame, x);
  }
}

}  // namespace ai_vmm
