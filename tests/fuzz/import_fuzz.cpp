// Whatever bytes come in, the importer gives a graph that is well formed, whose text form parses back, or a Status: it
// never crashes, hangs or asks for more memory than a small multiple of what it was given.
//
//   cmake -S . -B build-fuzz -G Ninja -DAI_VMM_FUZZ=ON -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++
//   ninja -C build-fuzz import_fuzz
//   build-fuzz/bin/import_fuzz -max_total_time=600 -max_len=4096 -timeout=10 new-inputs tests/fuzz/corpus
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/check.hpp"
#include "base/memory_budget.hpp"
#include "graph/text.hpp"
#include "import/onnx.hpp"

using namespace ai_vmm;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  MemoryBudget::Scope limit(std::make_shared<MemoryBudget>(int64_t(256) << 20));
  auto bytes = std::as_bytes(std::span(data, size));
  if (auto graph = import_onnx(bytes); graph.ok()) {
    Status s = graph->verify();
    AI_VMM_CHECK(s.ok(), s.message());
    std::string text = graph->to_text();
    auto again = parse_text(text, constants_of(*graph));
    AI_VMM_CHECK(again.ok(), again.status().message());
    AI_VMM_CHECK(again->to_text() == text);
  }
  Type tensor = Type::tensor(DType::f32);
  for (const Type& type : {tensor, Type::sequence(tensor), Type::optional(tensor), Type::map(DType::i64, tensor)})
    if (auto value = read_onnx_data(bytes, type); value.ok()) {
      // What was read can be written and read again.
      std::string written = write_onnx_data(*value, type);
      auto again = read_onnx_data(std::as_bytes(std::span<const char>(written)), type);
      AI_VMM_CHECK(again.ok(), again.status().message());
    }
  return 0;
}
