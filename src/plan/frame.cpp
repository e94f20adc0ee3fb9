#include "plan/frame.hpp"

#include <algorithm>

namespace ai_vmm {

Frame::Frame(const Plan& plan)
    : plan_(plan), made_(plan.values.size()), values_(plan.values.size()), buffers_(plan.values.size(), nullptr) {
  for (size_t i = 0; i < made_.size(); ++i) values_[i] = &made_[i];
  for (const auto& [slot, value] : plan.constants) values_[size_t(slot)] = &value;
}

void Frame::start(std::span<const Data* const> inputs, std::span<const Data* const> captures,
                  std::span<Data* const> outputs) {
  for (size_t i = 0; i < plan_.inputs.size(); ++i) values_[size_t(plan_.inputs[i])] = inputs[i];
  for (size_t i = 0; i < plan_.captures.size(); ++i) values_[size_t(plan_.captures[i])] = captures[i];
  for (size_t k = 0; k < outputs.size(); ++k)
    if (outputs[k]->is_tensor()) buffers_[size_t(plan_.outputs[k])] = outputs[k];
}

Status Frame::run_region(const Plan::Step& step, const RunRequest& request) {
  region_inputs_.clear();
  region_outputs_.clear();
  for (int v : step.inputs) region_inputs_.push_back(&at(v).tensor());
  for (int v : step.outputs) {
    Data& to = buffers_[size_t(v)] ? *buffers_[size_t(v)] : made_[size_t(v)];
    region_outputs_.push_back(to.is_tensor() ? &std::get<Tensor>(to) : &to.emplace<Tensor>());
    values_[size_t(v)] = &to;
  }
  return step.executable->run(region_inputs_, region_outputs_, request);
}

Status Frame::deliver(std::span<Data* const> outputs) {
  for (size_t k = 0; k < outputs.size(); ++k) {
    const int slot = plan_.outputs[k];
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
  for (Data& d : made_)
    if (!d.empty()) d = Data();
  for (int slot : plan_.outputs)
    if (Data*& buffer = buffers_[size_t(slot)]) {
      if (values_[size_t(slot)] == buffer) values_[size_t(slot)] = &made_[size_t(slot)];
      buffer = nullptr;
    }
}

}  // namespace ai_vmm
