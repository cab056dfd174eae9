"""The networks that `train` fits: a small CNN, and a linear layer behind a frozen network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from diptych.errors import UsageError
from diptych.formats.torch import from_torch
from diptych.model.layers import Array, Chain, Dense, Flatten, Layer, Softmax
from diptych.model.model import Model

__all__ = ["SmallCnn", "frozen_part", "head_of", "with_head", "with_softmax"]


class SmallCnn(nn.Sequential):
    """Three blocks of convolution, batch norm, relu and pooling, the mean over the picture, and a linear layer.

    Args:
        classes: How many outputs it has.
        seed: Of the initial weights.
    """

    def __init__(self, classes: int, seed: int) -> None:
        torch.manual_seed(seed)
        blocks: list[nn.Module] = []
        for inside, out in ((3, 32), (32, 64), (64, 128)):
            blocks += [
                nn.Conv2d(inside, out, 3, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        super().__init__(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes))


def with_softmax(module: nn.Module, size: int) -> Model:
    """The model of a trained `SmallCnn` for pictures of `size` pixels a side, with probabilities as outputs."""
    model = from_torch(module.eval(), torch.zeros(1, 3, size, size))
    return model.with_(layers=Chain((*model.layers.layers, Softmax())))


def frozen_part(model: Model) -> Model:
    """A network up to the linear layer that tells its classes apart.

    Raises:
        UsageError: It has no such layer at its end.
    """
    layers = list(_flat(model.layers))
    while layers and not isinstance(layers[-1], Dense):
        if not isinstance(layers[-1], Softmax):
            break
        layers.pop()
    if not layers or not isinstance(layers[-1], Dense) or len(layers) < 2:
        raise UsageError(
            f"{model.name or 'the network'} does not end with a linear layer for its classes, so it cannot be a "
            "backbone; name a classifier, or leave --backbone out for a small CNN of its own"
        )
    return model.with_(layers=Chain(tuple(layers[:-1])), classes=None)


def _flat(chain: Chain) -> list[Layer]:
    """The layers of a chain, with those of chains at its end in their place."""
    *before, last = chain.layers or (chain,)
    return [*before, *_flat(last)] if isinstance(last, Chain) and last.layers else list(chain.layers)


def head_of(features: Array, classes: int) -> tuple[nn.Linear, Array, Array]:
    """A linear layer that starts at zero, with the mean and deviation of the features it will see, which are removed.

    Args:
        features: Those to learn from, float32 (N, features).
        classes: How many outputs it has.
    """
    mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    head = nn.Linear(features.shape[1], classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head, mean, np.where(deviation > 1e-6, deviation, 1.0)


def with_head(frozen: Model, head: nn.Linear, mean: Array, deviation: Array) -> Model:
    """The frozen network with the trained layer behind it, into which the mean and deviation are multiplied."""
    weight = _numpy(head.weight) / deviation
    bias = _numpy(head.bias) - weight @ mean
    layer = Dense(weight.astype(np.float32), bias.astype(np.float32))
    layers = frozen.layers.layers
    flat = () if layers and isinstance(layers[-1], Flatten) else (Flatten(),)
    return frozen.with_(layers=Chain((*layers, *flat, layer, Softmax())))


def _numpy(value: Tensor) -> Array:
    return value.detach().numpy().astype(np.float64)
