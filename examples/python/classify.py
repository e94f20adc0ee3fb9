# %% [markdown]
# # Classify pictures
# Is a line of text upright or upside down? A small convolutional network says it, for many pictures in one batch.

# %%
import models
import numpy as np
from PIL import Image

import ai_vmm

model = ai_vmm.deploy(models.text_direction())
print(model)

# %% [markdown]
# The network takes f32[N,3,48,192]: pixels from -1 to 1, colours first, padded with 0 to the right.


# %%
def prepare(picture: Image.Image) -> np.ndarray:
    width = min(192, round(48 * picture.width / picture.height))
    pixels = np.asarray(picture.convert("RGB").resize((width, 48)), np.float32) / 127.5 - 1
    x = np.zeros((1, 3, 48, 192), np.float32)
    x[0, :, :, :width] = pixels.transpose(2, 0, 1)
    return x


upright = Image.open(models.ROOT / "samples" / "hello.png").crop((0, 0, 180, 48))
pictures = [upright, upright.rotate(180), upright.rotate(180).rotate(180)]

# %% [markdown]
# `run_batch` joins the samples, runs once and gives each its own result.

# %%
name = model.inputs[0].name
results = model.run_batch([{name: prepare(p)} for p in pictures])
for result in results:
    probabilities = next(iter(result.values()))[0]
    print(f"{('upright', 'upside down')[probabilities.argmax()]}: {probabilities.max():.3f}")

# %% [markdown]
# Why it runs as it does; in Jupyter this is a table.

# %%
print(model.explain())
