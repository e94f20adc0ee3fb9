#include "gpu/ops/library.hpp"

namespace ai_vmm::gpu {

namespace {

// What the library leaves undone: the epilogue, element by element.
constexpr const char* kFinish = R"(${functions}
KERNEL void ${kernel}(GLOBAL const float* RESTRICT R, GLOBAL float* RESTRICT C, ${idx} inner, ${idx} channels,
                      ${idx} count${parameters}) {
  const ${idx} o = (${idx})GID0, c = o / inner % channels;
  if (o >= count) return;
  float v = R[o];
  ${tail_body}  C[o] = ${tail_result};
}
)";

}  // namespace

std::optional<Bound> library_bound(const Bind& b, const LibraryTask& task, size_t first, size_t second,
                                   const Epilogue* epilogue, int64_t count, int64_t inner, int64_t channels,
                                   bool to_scratch) {
  if (!b.traits.libraries || !b.driver.library_call(task).ok()) return std::nullopt;
  const bool finish = epilogue && !epilogue->code.code.empty();
  Bound bound;
  bound.note = "library";
  Launch l;
  l.library = task;
  l.in(first).in(second);
  if (to_scratch || finish) {
    l.scratch(0);
    bound.scratch = round_up(count * 4, b.traits.alignment);
  } else {
    l.out(0);
  }
  l.scratch(bound.scratch);
  bound.scratch += kLibraryWorkspace;
  l.items({1});
  bound.launches.push_back(std::move(l));
  if (finish) {
    EpilogueText tail = epilogue_text(epilogue, 1, true);
    Launch f = launch("finish", kFinish,
                      {{"idx", b.idx()},
                       {"functions", tail.functions},
                       {"parameters", tail.parameters},
                       {"tail_body", tail.body},
                       {"tail_result", tail.result}});
    f.scratch(0).out(0).scalar(b.index(inner)).scalar(b.index(channels)).scalar(b.index(count));
    add_epilogue(f, epilogue);
    f.items({count}, {group_for(b.traits, count)});
    bound.launches.push_back(std::move(f));
  }
  return bound;
}

}  // namespace ai_vmm::gpu
