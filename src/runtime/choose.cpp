#include "runtime/choose.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace ai_vmm {

namespace {
double now_us() {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
std::string ms(double us) {
  char text[32];
  std::snprintf(text, sizeof text, us < 1e4 ? "%.3f ms" : "%.1f ms", us / 1e3);
  return text;
}
}  // namespace

void choose_threads(Deployment::Impl& d, std::span<const int> counts, const std::map<std::string, Shape>& shapes,
                    int budget_ms) {
  const size_t first = d.report.candidates.size();
  for (int t : counts) {
    Candidate c;
    c.backend = d.report.backend;
    c.device = d.report.device;
    c.precision = d.report.precision;
    c.threads = t;
    c.simulated = d.simulated;
    d.report.candidates.push_back(c);
  }
  auto candidates = std::span(d.report.candidates).subspan(first);
  auto settle = [&](size_t chosen, const std::string& why) {
    candidates[chosen].chosen = true;
    candidates[chosen].reason = why;
    d.threads = d.report.threads = candidates[chosen].threads;
  };

  auto given = random_inputs(d.inputs, shapes, 1);
  Outputs out;
  Status trial = given.ok() ? Status() : given.status().copy();
  for (const Candidate& c : candidates)  // warms caches and compiles the shape class
    if (trial.ok()) trial = d.run(*given, out, c.threads);
  if (!trial.ok()) {
    for (auto& c : candidates) c.reason = "not measured: the trial run on random inputs failed";
    settle(0, "not measured: the trial run on random inputs failed (" + trial.message() +
                  "); the most threads by default");
    return;
  }
  // Rounds over all candidates, so that a drift of the machine hits all alike.
  std::vector<std::vector<double>> times(candidates.size());
  double deadline = now_us() + budget_ms * 1e3;
  for (int round = 0; round < 50 && (round == 0 || now_us() < deadline); ++round)
    for (size_t i = 0; i < candidates.size(); ++i) {
      out.clear();
      double start = d.simulated ? double(d.simulated_ns) / 1e3 : now_us();
      if (Status s = d.run(*given, out, candidates[i].threads); !s.ok()) continue;
      times[i].push_back((d.simulated ? double(d.simulated_ns) / 1e3 : now_us()) - start);
    }
  size_t best = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    std::sort(times[i].begin(), times[i].end());
    candidates[i].runs = int(times[i].size());
    if (times[i].empty()) continue;
    candidates[i].median_us = times[i][times[i].size() / 2];
    candidates[i].min_us = times[i][0];
    // Fewer threads must win plainly: near a tie the difference is noise.
    if (candidates[i].median_us < candidates[best].median_us * 0.97) best = i;
  }
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (i == best) continue;
    char ratio[48];
    std::snprintf(ratio, sizeof ratio, "%.2f x the chosen one", candidates[i].median_us / candidates[best].median_us);
    candidates[i].reason = (candidates[i].median_us < candidates[best].median_us ? "no plain win: " : "slower: ") +
                           ms(candidates[i].median_us) + ", " + ratio;
  }
  settle(best, (candidates.size() > 1 ? "fastest: " : "the only candidate: ") + ms(candidates[best].median_us) +
                   " median of " + std::to_string(candidates[best].runs) + (d.simulated ? " simulated runs" : " runs"));
}

}  // namespace ai_vmm
