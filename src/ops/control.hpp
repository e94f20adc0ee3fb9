// Types that meet: the branches of an If, the rounds of a Loop, the elements of a sequence.
#pragma once

#include "ops/op.hpp"

namespace ai_vmm {

// The narrowest type that admits values of both: sizes that differ become fresh symbols, ranks that differ none at all.
Type join_types(Infer& c, const Type& a, const Type& b);

}  // namespace ai_vmm
