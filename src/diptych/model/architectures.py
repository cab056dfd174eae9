"""Architectures by name, with seeded initial weights.

Weights are drawn as Flux does by default, uniformly from +-sqrt(6 / (fan in + fan out)) (Glorot and Bengio,
"Understanding the difficulty of training deep feedforward neural networks", 2010); biases are zero. The random numbers
come from NumPy's PCG64, so that a seed gives the same weights on every platform.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from diptych.errors import UsageError
from diptych.model.layers import (
    IDENTITY,
    Activation,
    Array,
    Chain,
    Conv,
    Dense,
    Flatten,
    Layer,
    MaxPool,
    Softmax,
)
from diptych.model.model import Model, Source
from diptych.preprocessing import named as recipe_named

__all__ = ["NAMES", "named"]

RELU = Activation("relu")


class Initialiser:
    """Makes layers whose weights are drawn in turn from one seeded random stream."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.Generator(np.random.PCG64(seed))

    def conv(self, inputs: int, outputs: int, padding: int = 0, activation: Activation = IDENTITY) -> Conv:
        """A 3 x 3 convolution."""
        pads = ((padding, padding), (padding, padding))
        return Conv(self._glorot(outputs, inputs, 3, 3), _zeros(outputs), padding=pads, activation=activation)

    def dense(self, inputs: int, outputs: int, activation: Activation = IDENTITY) -> Dense:
        """A fully connected layer."""
        return Dense(self._glorot(outputs, inputs), _zeros(outputs), activation)

    def _glorot(self, outputs: int, inputs: int, *kernel: int) -> Array:
        limit = np.sqrt(6 / ((inputs + outputs) * prod(kernel)))
        weight: Array = (2 * self._random.random((outputs, inputs, *kernel)) - 1) * limit
        return weight.astype(np.float32)


def _zeros(size: int) -> Array:
    return np.zeros(size, np.float32)


def _small_cnn_32(make: Initialiser, outputs: int) -> list[Layer]:
    return [
        make.conv(3, 16, padding=1, activation=RELU),
        MaxPool((2, 2)),
        make.conv(16, 32, padding=1, activation=RELU),
        MaxPool((2, 2)),
        make.conv(32, 64, padding=1, activation=RELU),
        MaxPool((2, 2)),
        Flatten(),
        make.dense(64 * 4 * 4, 128, RELU),
        make.dense(128, outputs),
        Softmax(),
    ]


def _two_conv_224(make: Initialiser, outputs: int) -> list[Layer]:
    return [
        make.conv(1, 16, padding=1),
        RELU,
        MaxPool((2, 2)),
        make.conv(16, 32, padding=1),
        RELU,
        MaxPool((2, 2)),
        Flatten(),
        make.dense(32 * 56 * 56, outputs),
        Softmax(),
    ]


def _three_conv_224(make: Initialiser, outputs: int) -> list[Layer]:
    return [
        make.conv(1, 16, activation=RELU),
        MaxPool((2, 2)),
        make.conv(16, 32, activation=RELU),
        MaxPool((2, 2)),
        make.conv(32, 64, activation=RELU),
        MaxPool((2, 2)),
        Flatten(),
        make.dense(64 * 26 * 26, 128, RELU),
        make.dense(128, outputs),
        Softmax(),
    ]


# name: (description, layers, recipe, input shape)
_ARCHITECTURES: dict[str, tuple[str, Callable[[Initialiser, int], list[Layer]], str, tuple[int, ...]]] = {
    "small-cnn-32": (
        "32 x 32 colour: padded convolutions 16/32/64 with pools, Dense 1024 -> 128 -> classes, softmax",
        _small_cnn_32,
        "colour-32",
        (3, 32, 32),
    ),
    "two-conv-224": (
        "224 x 224 grey: twice convolution, ReLU and pool (16, 32 channels), one Dense layer, softmax",
        _two_conv_224,
        "grey-224-normalised",
        (1, 224, 224),
    ),
    "three-conv-224": (
        "224 x 224 grey: convolutions 16/32/64 with pools, Dense 43264 -> 128 -> classes, softmax",
        _three_conv_224,
        "julia-grey-224",
        (1, 224, 224),
    ),
}

NAMES: dict[str, str] = {name: entry[0] for name, entry in _ARCHITECTURES.items()}


def named(name: str, seed: int = 0, classes: Sequence[str] | None = None) -> Model:
    """An untrained model of a named architecture, with its recipe and input shape.

    Args:
        name: One of `NAMES`.
        seed: Of the initial weights, 0 or more.
        classes: Two or more class names, one for each output. Without them there are 10 outputs.

    Returns:
        The model, with float32 weights.

    Raises:
        UsageError: The name is unknown, the seed negative, or there are fewer than two classes.
    """
    if name not in _ARCHITECTURES:
        near = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"no architecture is called {name!r}{hint} (known: {', '.join(NAMES)})")
    if seed < 0:
        raise UsageError(f"a seed must be a whole number of 0 or more, got {seed}")
    if classes is not None and len(classes) < 2:
        raise UsageError(f"a classifier needs at least two classes, got {len(classes)}")
    _, layers, recipe, input_shape = _ARCHITECTURES[name]
    outputs = 10 if classes is None else len(classes)
    return Model(
        Chain(tuple(layers(Initialiser(seed), outputs))),
        preprocessing=recipe_named(recipe),
        classes=None if classes is None else tuple(classes),
        input_shape=input_shape,
        trained=False,
        name=name,
        source=Source(framework="diptych", extras={"architecture": name, "seed": seed}),
    )
