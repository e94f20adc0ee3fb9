// The operator reference as a document.
#pragma once

#include <string>

namespace ai_vmm {

// Every operator of every domain in Markdown: signature, attributes, traits and meaning, out of the tables.
// docs/operators.md is this text.
std::string ops_markdown();

}  // namespace ai_vmm
