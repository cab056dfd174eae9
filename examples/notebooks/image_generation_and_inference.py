# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Generate pictures, prepare them, run a model
#
# Three pictures from a prompt, brought to what the model takes by its own recipe, and classified. Everything works
# offline: the painter and the classifier come with the package. With the extra `diffusion`,
# `diptych.generate(..., generator="stabilityai/sd-turbo")` takes any diffusers model instead.

# %%
import matplotlib.pyplot as plt
import numpy as np

import diptych

images = diptych.generate("a lighthouse by the sea at dusk", count=3, seed=0)
[image.shape for image in images]

# %%
figure = plt.figure(figsize=(9, 3))
for place, image in enumerate(images, 1):
    axes = figure.add_subplot(1, 3, place)
    axes.imshow(image)
    axes.axis("off")

# %% [markdown]
# ## The recipe
#
# The model was trained on pictures that went through these steps, in this order. They are stored with it, so nobody has
# to remember them, and nobody divides by 255 twice.

# %%
model = diptych.load_model("scenes")
model.preprocessing

# %%
batch = model.preprocessing.apply_batch(images)
batch.shape, batch.dtype, float(batch.min()), float(batch.max())

# %% [markdown]
# ## The forward pass

# %%
probabilities = diptych.predict(model, batch)
for row in probabilities:
    best = row.argmax()
    print(f"{model.classes[best]}: {row[best]:.4f}")

# %%
assert np.array_equal(
    probabilities, diptych.predict(model, images)
)  # pictures go through the recipe by themselves
diptych.inspect(model)
