# %% [markdown]
# # Embed sentences
# all-MiniLM-L6-v2 maps sentences to directions; what means the same points the same way.

# %%
import asyncio
import unicodedata

import models
import numpy as np

import ai_vmm

model = ai_vmm.deploy(models.sentence_encoder(), shapes={n: (1, 16) for n in
                                                         ("input_ids", "attention_mask", "token_type_ids")})
vocabulary = models.vocabulary()

# %% [markdown]
# BERT's word pieces: lower case without accents, punctuation apart, then the longest piece that fits, again and again.


# %%
def pieces(text: str) -> list[int]:
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    words = "".join(c if c.isalnum() else f" {c} " for c in plain).split()
    ids = []
    for word in words:
        start, found = 0, []
        while start < len(word):
            end = next((e for e in range(len(word), start, -1)
                        if ("##" if start else "") + word[start:e] in vocabulary), None)
            if end is None:
                found = [vocabulary["[UNK]"]]
                break
            found.append(vocabulary[("##" if start else "") + word[start:end]])
            start = end
        ids += found
    return [vocabulary["[CLS]"], *ids, vocabulary["[SEP]"]]


def feed(text: str) -> dict[str, np.ndarray]:
    ids = np.array([pieces(text)])
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


# %% [markdown]
# Sentences of different lengths run at the same time, awaited together.

# %%
sentences = ["A cat sleeps on the sofa.", "The kitten is taking a nap on the couch.", "Interest rates rose sharply.",
             "The central bank raised its rates."]


async def embed(texts: list[str]) -> np.ndarray:
    runs = [model.run_async(**feed(text)) for text in texts]
    return np.concatenate([(await run)["sentence_embedding"] for run in runs])


vectors = asyncio.run(embed(sentences))
likeness = vectors @ vectors.T
for i, sentence in enumerate(sentences):
    nearest = max((j for j in range(len(sentences)) if j != i), key=lambda j: likeness[i, j])
    print(f"{sentence}  ~  {sentences[nearest]}  ({likeness[i, nearest]:.2f})")
