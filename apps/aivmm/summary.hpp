// What came out of a model, for people.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "ai_vmm/vmm.hpp"

namespace ai_vmm::cli {

// "f32[1,1000]"; sequences and maps in words.
std::string type_text(const Data& data);
// Smallest, mean and largest element, the first few, and the five largest where the tensor looks like class scores.
std::string summary(const Data& data);

// Text that a recogniser read: scores [1, T, classes] → the best class of each step, repeats merged, blanks (class 0)
// dropped (CTC, greedy). The characters are the model's metadata `character`, one a line, for classes 1 and up; a last
// class beyond them is the space. nullopt where metadata or output do not look so.
struct ReadText {
  std::string text;
  double confidence = 0;  // mean score of the steps that gave a character
};
std::optional<ReadText> decode_ctc(const std::map<std::string, std::string>& metadata, const Data& scores);

}  // namespace ai_vmm::cli
