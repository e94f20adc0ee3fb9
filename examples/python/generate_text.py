# %% [markdown]
# # Generate text with a cache
# A GPT-2 keeps keys and values of what it has read. Each step then reads one token, whatever the length so far; the cache
# goes from one run's outputs to the next run's inputs without a copy.

# %%
import time

import models
import numpy as np

import ai_vmm

model = ai_vmm.deploy(models.small_gpt2(), seed=1)
layers = [p.name for p in model.inputs if p.name.startswith("past_key_values")]
heads, width = model.inputs[2].shape[1], model.inputs[2].shape[3]


# %%
def step(tokens: list[int], cache: dict[str, np.ndarray]) -> tuple[int, dict[str, np.ndarray]]:
    """Reads tokens after those in the cache: the most probable next one, and the longer cache."""
    past = cache[layers[0]].shape[2]
    out = model.run({"input_ids": np.array([tokens]), "position_ids": np.arange(past, past + len(tokens))[None], **cache})
    return int(out["logits"][0, -1].argmax()), {n: out[n.replace("past_key_values", "present")] for n in layers}


def nothing() -> dict[str, np.ndarray]:
    return {name: np.zeros((1, heads, 0, width), np.float32) for name in layers}


# %%
prompt = list(b"Measure, then choose. ")
start = time.perf_counter()
token, cache = step(prompt, nothing())
written = [token]
while len(written) < 100:
    token, cache = step([token], cache)
    written.append(token)
seconds = time.perf_counter() - start
print(f"{len(written)} tokens with a cache: {len(written) / seconds:.0f} a second; its weights are random, and so is its text")

# %% [markdown]
# Without a cache every step reads everything again. The tokens are the same.

# %%
again = list(prompt)
for _ in range(20):
    again.append(step(again, nothing())[0])
assert again[len(prompt):] == written[:20], "the cache changed the text"
print("the same tokens without a cache")
