#include "plan/frame.hpp"

#include <algorithm>

namespace ai_vmm {

namespace {
// The memory of a region's device, where it is not the host's.
DeviceMemory* own_memory(const Plan::Step& step) {
  DeviceMemory* m = step.executable ? step.executable->device().memory() : nullptr;
  return m && !m->shares_host() ? m : nullptr;
}

constexpr std::string_view kHostName = "host";

void count(const RunRequest& r, std::string_view from, std::string_view to, Why why, int64_t copied, int64_t shared,
           int64_t ahead = 0) {
  if (r.transfers) r.transfers->add(from, to, why, copied, shared, ahead);
}
// Time and energy of a copy over a simulated link, of which `hidden_ns` passed beside other work.
void take_time(const RunRequest& r, const DeviceMemory& link, int64_t bytes, double hidden_ns = 0) {
  if (!r.info) return;
  const double ns = link.link_ns(bytes);
  r.info->device_ns += std::max(0.0, ns - hidden_ns);
  r.info->joules += link.link_joules(ns);
}
}  // namespace

Frame::Frame(const Plan& plan)
    : plan_(plan),
      made_(plan.values.size()),
      values_(plan.values.size()),
      buffers_(plan.values.size(), nullptr),
      copies_(plan.values.size()),
      states_(plan.values.size(), nullptr),
      of_region_(plan.values.size(), 0),
      leaves_(plan.values.size(), 0),
      next_(plan.steps.size(), nullptr) {
  for (size_t i = 0; i < made_.size(); ++i) values_[i] = &made_[i];
  for (const auto& [slot, value] : plan.constants) values_[size_t(slot)] = &value;
  for (int slot : plan.outputs) leaves_[size_t(slot)] = 1;
  for (const Plan::Step& step : plan.steps)
    if (step.executable)
      for (int slot : step.outputs) of_region_[size_t(slot)] = 1;
  const Plan::Step* next = nullptr;
  for (size_t i = plan.steps.size(); i-- > 0;) {
    next_[i] = next;
    if (plan.steps[i].executable) next = own_memory(plan.steps[i]) ? &plan.steps[i] : nullptr;
  }
}

void Frame::start(std::span<const Data* const> inputs, std::span<const Data* const> captures,
                  std::span<Data* const> outputs, std::span<HeldState* const> states) {
  for (size_t i = 0; i < plan_.inputs.size(); ++i) {
    const auto slot = size_t(plan_.inputs[i]);
    states_[slot] = states.empty() ? nullptr : states[i];
    values_[slot] = states_[slot] ? &made_[slot] : inputs[i];
  }
  for (size_t i = 0; i < plan_.captures.size(); ++i) values_[size_t(plan_.captures[i])] = captures[i];
  for (size_t k = 0; k < outputs.size(); ++k)
    if (outputs[k]->is_tensor()) buffers_[size_t(plan_.outputs[k])] = outputs[k];
}

DeviceTensor* Frame::find_copy(int slot, const DeviceMemory& memory) {
  for (DeviceTensor& t : copies_[size_t(slot)])
    if (t.block && &t.block.memory() == &memory) return &t;
  return nullptr;
}

Result<DeviceTensor*> Frame::bring(int slot, DeviceMemory& to, const RunRequest& r) {
  const std::string& here = to.device().label();
  const Why why = of_region_[size_t(slot)] ? Why::region : Why::input;
  if (DeviceTensor* t = find_copy(slot, to)) {
    AI_VMM_TRY(to.settle(t->block));
    if (t->written_ns >= 0 && r.info) take_time(r, to, t->bytes, r.info->device_ns - t->written_ns);
    t->written_ns = -1;
    return t;
  }
  auto& copies = copies_[size_t(slot)];
  DeviceTensor made;
  if (HeldState* held = states_[size_t(slot)]; held && to.device().states()) {
    int64_t bytes = 0;
    made.state = AI_VMM_TAKE(held->on(to.device(), &bytes));
    made.dtype = held->rows().dtype();
    made.shape = held->rows().shape();
    take_time(r, to, bytes);
    if (bytes) count(r, kHostName, here, Why::state, bytes, 0);
    copies.push_back(std::move(made));
    return &copies.back();
  }
  AI_VMM_TRY(read_state(slot));
  if (const Data& host = at(slot); !host.empty()) {
    const Tensor& t = host.tensor();
    made.dtype = t.dtype();
    made.shape = t.shape();
    made.bytes = t.bytes();
    made.block = AI_VMM_TAKE(to.take(made.bytes));
    AI_VMM_TRY(to.write(made.block, t.data(), made.bytes));
    take_time(r, to, made.bytes);
    count(r, kHostName, here, why, made.bytes, 0);
  } else {
    const DeviceTensor& from = copies.front();
    DeviceMemory& there = from.block.memory();
    made.dtype = from.dtype;
    made.shape = from.shape;
    made.bytes = from.bytes;
    made.block = AI_VMM_TAKE(to.share(from.block, from.bytes));
    if (made.block) {
      take_time(r, to, made.bytes);  // it reads over its link all the same
      count(r, there.device().label(), here, why, 0, made.bytes);
    } else {
      made.block = AI_VMM_TAKE(to.take(made.bytes));
      AI_VMM_TRY(to.copy(from.block, made.block, made.bytes));
      take_time(r, there, made.bytes);
      take_time(r, to, made.bytes);
      count(r, there.device().label(), here, why, made.bytes, 0);
    }
  }
  copies.push_back(std::move(made));
  return &copies.back();
}

// A state's rows as a tensor of the host, for whoever takes no states.
Status Frame::read_state(int slot) {
  HeldState* held = states_[size_t(slot)];
  if (held && at(slot).empty()) made_[size_t(slot)] = Data(AI_VMM_TAKE(held->dense(0, held->rows().rows())));
  return {};
}

Status Frame::bring_home(int slot, Why why, const RunRequest& r) {
  if (slot >= 0) AI_VMM_TRY(read_state(slot));
  if (slot < 0 || !at(slot).empty() || copies_[size_t(slot)].empty()) return {};
  const DeviceTensor& from = copies_[size_t(slot)].front();
  DeviceMemory& there = from.block.memory();
  Data& to = buffers_[size_t(slot)] ? *buffers_[size_t(slot)] : made_[size_t(slot)];
  if (to.is_tensor())
    AI_VMM_TRY(check_buffer(plan_.value(slot).name, from.dtype, from.shape, to.tensor()));
  else
    to = Data(AI_VMM_TAKE(Tensor::make(from.dtype, from.shape)));
  AI_VMM_TRY(there.read(from.block, std::get<Tensor>(to).mutable_data(), from.bytes));
  values_[size_t(slot)] = &to;
  take_time(r, there, from.bytes);
  count(r, there.device().label(), kHostName, why, from.bytes, 0);
  return {};
}

Status Frame::bring_home(const Plan::Step& step, const RunRequest& request) {
  for (int v : step.inputs) AI_VMM_TRY(bring_home(v, Why::host, request));
  for (const Plan::SubPlan& body : step.bodies)
    for (int v : body.captures) AI_VMM_TRY(bring_home(v, Why::host, request));
  return {};
}

void Frame::prefetch(size_t step, const RunRequest& r) {
  const Plan::Step* next = next_[step];
  if (!next) return;
  DeviceMemory& memory = *own_memory(*next);
  for (int v : next->inputs) {
    const Data& host = at(v);
    if (host.empty() || find_copy(v, memory)) continue;  // not made yet, or there already
    const Tensor& t = host.tensor();
    auto block = memory.take(t.bytes());
    if (!block.ok()) return;  // when its turn comes there may be room, or the failure is reported
    auto begun = memory.write_ahead(*block, t.data(), t.bytes());
    if (!begun.ok() || !*begun) return;
    count(r, kHostName, memory.device().label(), of_region_[size_t(v)] ? Why::region : Why::input, t.bytes(), 0,
          t.bytes());
    copies_[size_t(v)].push_back({t.dtype(), t.shape(), *std::move(block), t.bytes(), r.info ? r.info->device_ns : -1});
  }
}

Status Frame::run_region(const Plan::Step& step, const RunRequest& request) {
  const Device& device = step.executable->device();
  DeviceMemory* own = own_memory(step);
  const bool shared = device.memory() && !own;
  region_inputs_.clear();
  region_outputs_.clear();
  placed_.clear();
  for (int v : step.inputs) {
    if (own) {
      placed_.push_back(AI_VMM_TAKE(bring(v, *own, request)));
      region_inputs_.push_back(nullptr);
      continue;
    }
    AI_VMM_TRY(bring_home(v, Why::region, request));
    region_inputs_.push_back(&at(v).tensor());
    if (shared)
      count(request, kHostName, device.label(), of_region_[size_t(v)] ? Why::region : Why::input, 0,
            at(v).tensor().bytes());
  }
  for (int v : step.outputs) {
    if (own) {
      placed_.push_back(&copies_[size_t(v)].emplace_back());
      region_outputs_.push_back(nullptr);
      continue;
    }
    Data& to = buffers_[size_t(v)] ? *buffers_[size_t(v)] : made_[size_t(v)];
    region_outputs_.push_back(to.is_tensor() ? &std::get<Tensor>(to) : &to.emplace<Tensor>());
    values_[size_t(v)] = &to;
  }
  Status status = step.executable->run(region_inputs_, region_outputs_, request, placed_);
  if (shared && status.ok())
    for (int v : step.outputs)
      count(request, device.label(), kHostName, leaves_[size_t(v)] ? Why::output : Why::region, 0,
            at(v).tensor().bytes());
  return status;
}

void Frame::release(int slot) {
  auto& copies = copies_[size_t(slot)];
  while (!copies.empty()) copies.pop_back();  // a shared one before the one that it shares; writes before their source
  made_[size_t(slot)] = Data();
}

Status Frame::deliver(std::span<Data* const> outputs, const RunRequest& request) {
  for (size_t k = 0; k < outputs.size(); ++k) {
    const int slot = plan_.outputs[k];
    AI_VMM_TRY(bring_home(slot, Why::output, request));
    const Data& value = at(slot);
    Data& out = *outputs[k];
    if (!out.is_tensor()) {
      const bool again =
          std::find(plan_.outputs.begin() + std::ptrdiff_t(k) + 1, plan_.outputs.end(), slot) != plan_.outputs.end();
      if (&value == &made_[size_t(slot)] && !again)
        out = std::move(made_[size_t(slot)]);
      else
        out = value;
      continue;
    }
    const Tensor& buffer = out.tensor();
    if (!value.is_tensor())
      return Status(Code::invalid_argument,
                    "Output \"" + plan_.value(slot).name + "\" is not a tensor; it cannot be written into a buffer.");
    const Tensor& t = value.tensor();
    if (&t == &buffer || t.data() == buffer.data()) continue;
    AI_VMM_TRY(check_buffer(plan_.value(slot).name, t.dtype(), t.shape(), buffer));
    Tensor to = buffer;
    if (t.dtype() == DType::string) {
      auto from = t.as<std::string>();
      std::copy(from.begin(), from.end(), to.as_mutable<std::string>().begin());
    } else if (t.bytes()) {
      std::memcpy(to.mutable_data(), t.data(), size_t(t.bytes()));
    }
  }
  return {};
}

void Frame::finish() {
  for (size_t slot = 0; slot < made_.size(); ++slot)
    if (!made_[slot].empty() || !copies_[slot].empty()) release(int(slot));
  for (int slot : plan_.outputs)
    if (Data*& buffer = buffers_[size_t(slot)]) {
      if (values_[size_t(slot)] == buffer) values_[size_t(slot)] = &made_[size_t(slot)];
      buffer = nullptr;
    }
}

}  // namespace ai_vmm
