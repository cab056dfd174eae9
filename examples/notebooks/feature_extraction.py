# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Feature extraction
#
# What every layer of a network makes of a picture, and the picture's place among others.

# %%
import numpy as np

import diptych

images = diptych.generate("a village by a lake", count=6, seed=1) + diptych.generate(
    "a red desert", count=6, seed=1
)
trace = diptych.trace("scenes", images)
trace

# %% [markdown]
# The first convolution finds edges and colours. Every channel is shown in the colours of its own range.

# %%
trace["0"].plot()

# %%
trace["4"].plot(sample=7)

# %% [markdown]
# The values before the last layer make a vector for each picture. Pictures of one prompt lie closer to each other:

# %%
vectors = np.asarray(trace["7"])
vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
likeness = vectors @ vectors.T
within = (likeness[:6, :6].mean() + likeness[6:, 6:].mean()) / 2
across = likeness[:6, 6:].mean()
print(f"within a prompt {within:.2f}, across {across:.2f}")
assert within > across

# %% [markdown]
# Which parts of the picture does the answer stand on?

# %%
from PIL import Image

Image.fromarray(images[0]).save("village.png")
explanation = diptych.explain("scenes", "village.png", method="occlusion")
explanation
