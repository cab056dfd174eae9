"""Small models without a symmetry in anything, and pictures like that, for the tests of `compare`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import diptych
from diptych.comparing import Comparison
from diptych.model.layers import (
    Activation,
    Array,
    BatchNorm,
    Chain,
    Conv,
    Dense,
    Flatten,
    GlobalMeanPool,
    Layer,
    LayerNorm,
    MaxPool,
    Softmax,
)
from diptych.model.model import Model
from diptych.preprocessing import (
    Colour,
    Grey,
    Preprocessing,
    Resize,
    Scale,
)

RELU = Activation("relu")


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32) * np.float32(0.4)


def model(*layers: Layer, **fields: Any) -> Model:
    return Model(Chain(layers), **fields)


def classifier() -> Model:
    """A little of everything, on pictures of 12 x 16; no layer is symmetric in anything."""
    norm = BatchNorm(
        1 + numbers(4) ** 2, numbers(4, seed=1), numbers(4, seed=2), 0.3 + numbers(4, seed=3) ** 2
    )
    return model(
        Conv(numbers(4, 3, 3, 3), numbers(4), padding=((1, 1), (1, 1)), activation=Activation("leakyrelu")),
        Conv(numbers(4, 4, 3, 3), numbers(4, seed=9)),
        norm,
        RELU,
        MaxPool((2, 2)),
        Flatten(),
        Dense(numbers(8, 4 * 5 * 7), numbers(8), Activation("gelu_tanh")),
        Dense(numbers(8, 8), numbers(8, seed=4)),
        LayerNorm((8,), 1 + numbers(8) ** 2, numbers(8, seed=5), epsilon=0.01),
        Dense(numbers(5, 8), numbers(5)),
        Softmax(),
        input_shape=(3, 12, 16),
        name="little",
    )


def changed(original: Model, index: int, **fields: Any) -> Model:
    """The model with some fields of one layer replaced."""
    layers = list(original.layers.layers)
    layers[index] = replace(layers[index], **fields)
    return original.with_(layers=Chain(tuple(layers)))


def everywhere(original: Model, kind: type[Layer], change: Callable[[Any], Layer]) -> Model:
    layers = tuple(change(each) if isinstance(each, kind) else each for each in original.layers.layers)
    return original.with_(layers=Chain(layers))


def weight(original: Model, index: int) -> Array:
    return original.layers.layers[index].arrays["weight"]


def without(original: Model, index: int) -> Model:
    layers = original.layers.layers
    return original.with_(layers=Chain(layers[:index] + layers[index + 1 :]))


def names(comparison: Comparison) -> list[str]:
    return [cause.name for cause in comparison.causes]


def compare(a: Model, b: Model, images: Any = None, **options: Any) -> Comparison:
    return diptych.compare(a, b, images, engine_a="numpy", engine_b="numpy", **options)


RECIPE = Preprocessing((Colour(), Resize(24, 32, "pillow-bilinear"), Scale()))
GREY = Preprocessing((Grey("julia"), Resize(60, 70, "imresize"), Scale()))


def seeing(channels: int = 3) -> Model:
    """A model for pictures of any size."""
    return model(Conv(numbers(4, channels, 3, 3), numbers(4), activation=RELU), GlobalMeanPool())


def pictures(count: int = 2) -> list[Array]:
    """Smooth pictures with some grain, not symmetric in anything, 60 x 90 in colour."""
    row, column = np.mgrid[:60, :90]
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        waves = [128 + 90 * np.sin(row / (5 + 3 * c + seed) + column / (11 - 2 * c)) for c in range(3)]
        made.append(np.clip(np.stack(waves, -1) + rng.normal(0, 25, (60, 90, 3)), 0, 255).astype(np.uint8))
    return made
