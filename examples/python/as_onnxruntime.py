# %% [markdown]
# # In the place of onnxruntime
# A program written for ONNX Runtime runs as it is: by `python -m ai_vmm.as_onnxruntime program.py`, by the environment variable
# `AI_VMM_AS_ONNXRUNTIME=1`, or, as here, by one import that differs.

# %%
import models
import numpy as np

import ai_vmm.onnxruntime as onnxruntime

print(onnxruntime.get_available_providers())

# %%
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(str(models.text_direction()), options, providers=["CPUExecutionProvider"])
for value in (*session.get_inputs(), *session.get_outputs()):
    print(value)

# %%
x = np.zeros((2, 3, 48, 192), np.float32)
print(session.run(None, {"x": x})[0])
try:
    session.run(None, {"x": x.astype(np.float64)})
except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument as e:
    print(e)

# %% [markdown]
# Bound memory: the result is written where the program wants it.

# %%
y = np.empty((2, 2), np.float32)
binding = session.io_binding()
binding.bind_cpu_input("x", x)
binding.bind_output(session.get_outputs()[0].name, "cpu", 0, np.float32, y.shape, y.ctypes.data)
session.run_with_iobinding(binding)
print(y)

# %% [markdown]
# What onnxruntime cannot say: where it runs, and why.

# %%
print(session.deployment.explain())
