# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Image filters as tiny networks
#
# An image filter is a function from pictures to pictures; a small network learns to do the same.

# %%
from diptych import filters
from diptych.datasets.photographs import photograph

learned = filters.learn("sobel", budget=20, seed=0)
learned

# %%
result = filters.apply(learned, photograph("coffee"))
result.shape, result.dtype

# %%
import matplotlib.pyplot as plt

figure = plt.figure(figsize=(9, 3))
for place, (title, pixels) in enumerate([("picture", photograph("coffee")), ("the network", result)], 1):
    axes = figure.add_subplot(1, 2, place)
    axes.imshow(pixels, cmap="gray")
    axes.set_title(title)
    axes.axis("off")

# %% [markdown]
# A filter of one's own is a Python function:

# %%
import numpy as np


def warmer(picture):
    """More red, less blue."""
    return np.clip(picture * np.array([1.15, 1.0, 0.85]) + [5, 0, 0], 0, 255).astype(np.uint8)


own = filters.learn(warmer, budget=20, seed=0)
own

# %%
evaluation = filters.evaluate(own, target=warmer)
print(evaluation.text())

# %% [markdown]
# It is a model like any other: for PyTorch, ONNX, Flux or a browser.

# %%
own.save("warmer.onnx")
own.save("warmer.bson")
own.model
