// Decodes with GPT-2 over growing steps: each step feeds the keys and values of the step before. Once the first bucket
// of sizes is compiled nothing more is, and the last step gives what the whole sequence gives in one run.
//
//   decode MODEL [BACKEND] [STEPS]
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "ai_vmm/vmm.hpp"

using ai_vmm::Data;
using ai_vmm::Tensor;

namespace {

int fail(const std::string& why) {
  std::printf("FAIL: %s\n", why.c_str());
  return 1;
}

ai_vmm::Inputs feeds(const ai_vmm::Deployment& model, std::vector<int64_t> ids, int64_t first) {
  const auto n = int64_t(ids.size());
  std::vector<int64_t> positions;
  for (int64_t i = 0; i < n; ++i) positions.push_back(first + i);
  ai_vmm::Inputs in{{"input_ids", Tensor::of<int64_t>({1, n}, ids)},
                    {"position_ids", Tensor::of<int64_t>({1, n}, positions)}};
  for (const auto& port : model.inputs())
    if (port.name.starts_with("past_key_values."))
      in[port.name] = Tensor::of<float>({1, port.shape[1], 0, port.shape[3]}, {});
  return in;
}

constexpr int64_t kStateSteps = 48;

// The first steps once more, with states for caches: the same logits to the bit. Half way the states are forked and
// snapshot; the forks, and what comes back from the snapshots, go on to the same logits too.
std::string decode_with_states(const ai_vmm::Deployment& model, const std::vector<int64_t>& ids,
                               const std::vector<std::vector<float>>& expected) {
  using Uses = std::map<std::string, ai_vmm::StateUse>;
  auto run = [&](const Uses& states, size_t first, size_t last) -> std::string {
    for (size_t i = first; i < last; ++i) {
      auto out = model.run({{"input_ids", Tensor::of<int64_t>({1, 1}, {ids[i]})},
                            {"position_ids", Tensor::of<int64_t>({1, 1}, {int64_t(i)})}},
                           {.states = states});
      if (!out.ok()) return "step " + std::to_string(i) + " with states: " + out.status().message();
      auto logits = out->at("logits").tensor().as<float>();
      if (!std::equal(logits.begin(), logits.end(), expected[i].begin(), expected[i].end()))
        return "step " + std::to_string(i) + " with states gives other logits than with tensors";
    }
    return "";
  };
  Uses states;
  for (const auto& port : model.inputs())
    if (port.name.starts_with("past_key_values.")) {
      auto state = model.make_state(port.name, int64_t(ids.size()), {{"batch", 1}});
      if (!state.ok()) return state.status().message();
      states.insert({port.name, {*state, "present." + port.name.substr(16)}});
    }
  const size_t half = expected.size() / 2;
  if (std::string why = run(states, 0, half); !why.empty()) return why;
  Uses forks, restored;
  for (const auto& [input, use] : states) {
    forks.insert({input, {use.state.fork(), use.output}});
    auto back = ai_vmm::State::restore(use.state.snapshot());
    if (!back.ok()) return back.status().message();
    restored.insert({input, {*back, use.output}});
  }
  for (const Uses& way : {states, forks, restored})
    if (std::string why = run(way, half, expected.size()); !why.empty()) return why;
  std::printf("%zu steps with %zu states, forks and snapshots: the same logits to the bit\n", expected.size(),
              states.size());
  return "";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return fail("usage: decode MODEL [BACKEND] [STEPS]");
  const int64_t steps = argc > 3 ? std::atoll(argv[3]) : 256;
  constexpr int64_t kFirstBucket = 2;  // the first plan is exact, the second leaves room to grow
  ai_vmm::VMM vmm;
  auto model = vmm.deploy(argv[1], {.backend = argc > 2 ? argv[2] : "cpu"});
  if (!model.ok()) return fail(model.status().message());

  std::vector<int64_t> ids;
  for (int64_t i = 0; i < steps; ++i) ids.push_back((i * 7919 + 13) % 50257);
  auto in = feeds(*model, {ids[0]}, 0);
  int64_t settled = 0;
  double slowest = 0, sum = 0;
  std::vector<float> last;
  std::vector<std::vector<float>> logits_of;  // of the first steps
  for (int64_t step = 0; step < steps; ++step) {
    in["input_ids"] = Tensor::of<int64_t>({1, 1}, {ids[size_t(step)]});
    in["position_ids"] = Tensor::of<int64_t>({1, 1}, {step});
    auto start = std::chrono::steady_clock::now();
    auto out = model->run(in);
    double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    if (!out.ok()) return fail("step " + std::to_string(step) + ": " + out.status().message());
    sum += ms;
    slowest = std::max(slowest, step > kFirstBucket ? ms : 0);
    for (auto& [name, value] : *out)
      if (name.starts_with("present.")) in["past_key_values." + name.substr(8)] = value;
    if (step + 1 == kFirstBucket) settled = model->report().compilations;
    auto logits = out->at("logits").tensor().as<float>();
    if (step + 1 == steps) last.assign(logits.begin(), logits.end());
    if (step < kStateSteps) logits_of.emplace_back(logits.begin(), logits.end());
  }
  if (std::string why = decode_with_states(*model, ids, logits_of); !why.empty()) return fail(why);
  const int64_t compilations = model->report().compilations;
  std::printf("%lld steps, mean %.2f ms, slowest %.2f ms; compilations: %lld after step %lld, %lld at the end\n",
              (long long)steps, sum / double(steps), slowest, (long long)settled, (long long)kFirstBucket,
              (long long)compilations);
  if (compilations != settled) return fail("something was compiled after the first bucket");

  auto whole = model->run(feeds(*model, ids, 0));
  if (!whole.ok()) return fail(whole.status().message());
  auto logits = whole->at("logits").tensor().as<float>();
  const float* reference = logits.data() + logits.size() - last.size();
  float most = 0, error = 0;
  for (size_t i = 0; i < last.size(); ++i) {
    most = std::max(most, std::fabs(reference[i]));
    error = std::max(error, std::fabs(reference[i] - last[i]));
  }
  std::printf("largest logit %.4g, largest difference to the run of the whole sequence %.3g\n", double(most),
              double(error));
  if (!(error <= 1e-4f * most) || most == 0) return fail("the cached steps and the whole sequence disagree");
  return 0;
}
