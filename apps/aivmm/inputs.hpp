// What a model is fed: from files, or at random.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ai_vmm/vmm.hpp"
#include "command.hpp"
#include "image.hpp"

namespace ai_vmm::cli {

struct Feed {
  Inputs inputs;
  std::map<std::string, std::string> said;  // by input: where it comes from
  std::vector<std::string> notes;           // assumptions, one sentence each
};

// --shape NAME=1x3x224x224, as given; names are not checked.
Result<std::map<std::string, Shape>> parse_shapes(const Arguments& arguments);

// Builds every input that `ports` lists from --input, --shape, --random and the --image options. All failures are the
// caller's: a file that is not there, a type or a shape that does not fit, inputs that are missing.
Result<Feed> make_feed(const std::vector<Port>& ports, const Arguments& arguments);

}  // namespace ai_vmm::cli
