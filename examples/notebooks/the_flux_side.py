# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The Flux side
#
# The same network for Julia: as a checkpoint of Flux, and as a project that runs without Flux. Python says beforehand
# which numbers Julia must get.

# %%
import numpy as np
import torch
from torch import nn

import diptych
from diptych.preprocessing import named

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(1, 8, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(8, 16, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(16 * 5 * 5, 10),
    nn.Softmax(dim=1),
).eval()
model = diptych.from_torch(network).with_(
    input_shape=(1, 28, 28), preprocessing=named("grey-28"), name="digits"
)
model

# %% [markdown]
# A checkpoint for Flux 0.14. Read back, it is the same network: axes reversed, kernels turned by 180°.

# %%
for remark in diptych.write(model, "digits.bson", flux_version="0.14"):
    print(remark)
again = diptych.load_model("digits.bson")
diptych.compare(model, again)

# %% [markdown]
# And a project: architecture, weights, recipe and a script in plain Julia. Run it with
# `julia --project=digits-julia digits-julia/predict.jl picture.png`.

# %%
done = diptych.convert("digits.bson", "digits-julia")
sorted(path.name for path in done.paths[0].iterdir()) if done.paths[0].is_dir() else done.paths

# %%
verification = diptych.verify("digits-julia")
assert verification.passed
print(verification.text())

# %% [markdown]
# The commonest fault, made on purpose: kernels that somebody forgot to turn.

# %%
from dataclasses import replace

layers = list(model.layers.layers)
place = next(i for i, layer in enumerate(layers) if type(layer).__name__ == "Conv")
layers[place] = replace(layers[place], weight=layers[place].weight[..., ::-1, ::-1].copy())
report = diptych.compare(
    model,
    model.with_(layers=replace(model.layers, layers=tuple(layers))),
    np.random.default_rng(0).random((2, 1, 28, 28), np.float32),
)
assert "kernels not flipped" in report.diagnosis
print(report.diagnosis)
