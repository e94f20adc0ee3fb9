// The extension "streams" for any backend whose calls wait for their work: a thread a stream that works off a queue.
#pragma once

#include <functional>

#include "ai_vmm/backend_abi.h"
#include "ai_vmm/types.hpp"

namespace ai_vmm {

const AiVmmStreams& streams();

// Runs `work` after what was enqueued before; its failure comes out at the next event.
void enqueue(AiVmmStream* stream, std::function<Status()> work);

}  // namespace ai_vmm
