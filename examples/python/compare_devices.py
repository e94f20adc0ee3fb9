# %% [markdown]
# # Compare devices
# The same model on every device that this machine has, timed in turns.

# %%
import statistics
import time

import models
import numpy as np

import ai_vmm

for device in ai_vmm.devices():
    print(f"{device.backend}:{device.index}  {device.name}  {device.problem or 'usable'}")

# %%
x = np.random.default_rng(0).standard_normal((1, 3, 48, 192), np.float32)
deployments = {}
for backend in dict.fromkeys(d.backend for d in ai_vmm.devices() if d.usable):
    try:
        deployments[backend] = ai_vmm.deploy(models.text_direction(), device=backend)
    except ai_vmm.Error as e:
        print(f"{backend} does not run this model: {e}")

# %% [markdown]
# Rounds over all devices, so that a drift of the machine hits all alike.

# %%
times = {backend: [] for backend in deployments}
results = {}
for _ in range(3):
    for backend, model in deployments.items():
        start = time.perf_counter()
        results[backend] = model(x)
        times[backend].append(time.perf_counter() - start)
for backend, seconds in sorted(times.items(), key=lambda item: statistics.median(item[1])):
    difference = np.abs(results[backend] - results["reference"]).max()
    print(f"{backend:12} {1e3 * statistics.median(seconds):9.2f} ms, spread {1e3 * (max(seconds) - min(seconds)):.2f} ms; "
          f"differs from the reference by at most {difference:.1e}")

# %% [markdown]
# Left to itself, `deploy` measures and says what it chose.

# %%
chosen = ai_vmm.deploy(models.text_direction(), shapes={"x": (1, 3, 48, 192)})
print(chosen.explain())
