// The hot path of ai_vmm.onnxruntime.InferenceSession.run.
#pragma once

#include <nanobind/nanobind.h>

namespace ai_vmm::python {
void bind_session(nanobind::module_& m);
}
