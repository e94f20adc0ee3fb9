# %% [markdown]
# # Read text
# PP-OCR's recogniser turns a picture of one line, of any width, into characters.

# %%
import models
import numpy as np
from PIL import Image

import ai_vmm

model = ai_vmm.deploy(models.text_recogniser())
characters = ["", *model.metadata["character"].split("\n"), " "]  # 0 is the blank of CTC
print(model.inputs[0], "->", model.outputs[0])

# %% [markdown]
# The height is 48, the width what the picture asks for; pixels go from -1 to 1, blue first.

# %%
picture = Image.open(models.ROOT / "samples" / "hello.png").convert("RGB")
picture = picture.resize((round(48 * picture.width / picture.height), 48))
x = np.asarray(picture, np.float32)[None, :, :, ::-1].transpose(0, 3, 1, 2) / 127.5 - 1

# %% [markdown]
# One row of probabilities comes back for each 8 pixels. Repetitions of a character are one, and blanks are left out.

# %%
y = model(x)[0]
best = y.argmax(axis=1)
kept = [k for i, k in enumerate(best) if k and (i == 0 or k != best[i - 1])]
print("".join(characters[k] for k in kept))
print(f"surest {y.max(axis=1).max():.3f}, least sure {y[best > 0].max(axis=1).min():.3f}")
