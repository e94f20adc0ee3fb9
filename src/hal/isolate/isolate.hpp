// Backends in a process of their own: a crash costs the device, not this process, and a call that hangs is killed.
//
// The host keeps a table of the interface like any other backend's; behind it every call is a message to a child
// process (apps/plugin_host) that has the real one. Tensors travel through memory that both map, one region a context.
// Levels 1 and 2 cross; extensions do not, because their pointers would mean nothing on the other side.
#pragma once

#include <string>

#include "ai_vmm/backend_abi.h"
#include "ai_vmm/types.hpp"

namespace ai_vmm::isolate {

// Starts the process for `subject`, a plugin's file or the name of a backend of the build. The table lives for ever; a
// process that ended is started again when a device is next opened.
Result<const AiVmmBackend*> connect(const std::string& subject);

// The child's side: serves the host on descriptor `control` until it goes away.
int serve(const std::string& subject, int control);

}  // namespace ai_vmm::isolate
