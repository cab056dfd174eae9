"""Filters as little models, and pictures for them, for the tests that apply filters."""

import numpy as np

from diptych.images import streams
from diptych.model import layers as L
from diptych.model.model import Model

RELU = L.Activation("relu")


def conv(rng, inputs, outputs, mode, whole_numbers=False):
    """A padded convolution of any kernel, even ones and off-centre ones too."""
    kernel, dilation = rng.integers(1, 5, 2), int(rng.integers(1, 3))
    taken = [int(k - 1) * dilation for k in kernel]
    lows = [int(rng.integers(0, t + 1)) for t in taken]
    pads = tuple((low, t - low) for low, t in zip(lows, taken, strict=True))
    shape = (outputs, inputs, *kernel)
    if whole_numbers:
        weight, bias = rng.integers(-2, 3, shape), None
    else:
        weight, bias = (
            rng.normal(size=shape) / (inputs * kernel.prod()),
            np.float32(rng.normal(size=outputs) / 9),
        )
    own = {"dilation": (dilation, dilation), "activation": RELU}
    if mode == "zero" and rng.random() < 0.3:
        return (L.Conv(np.float32(weight), bias, padding=pads, **own),)
    return L.Pad(pads, mode), L.Conv(np.float32(weight), bias, **own)


def network(seed, mode, whole_numbers=False):
    """Several stages of every kind that a filter may have."""
    rng = np.random.default_rng(seed)
    first = channels = int(rng.choice([1, 3]))
    made = []
    for kind in rng.integers(0, 5, int(rng.integers(1, 4))):
        inside = lambda n: L.Chain(conv(rng, channels, n, mode, whole_numbers))  # noqa: B023, E731
        if kind <= 1:
            made += inside(2).layers
            channels = 2
        elif kind == 2:
            made.append(L.SkipConnection(inside(channels)))
        elif kind == 3:
            made.append(L.Parallel(L.Connection("concatenate"), (inside(1), inside(2))))
            channels = 3
        elif mode != "wrap":
            made.append(L.MaxPool((3, 2), (1, 1), ((1, 1), (0, 1))))
    made += conv(rng, channels, int(rng.choice([1, 3])), mode, whole_numbers)
    return Model(L.Chain(tuple(made)), input_shape=(first, None, None), name=f"network {seed}")


def picture(seed, height, width, channels, dtype):
    rng = np.random.default_rng(seed)
    peak = streams.PEAKS[np.dtype(dtype)]
    shape = (height, width) if channels == 1 else (height, width, channels)
    return rng.random(shape).astype(dtype) if peak is None else rng.integers(0, peak + 1, shape).astype(dtype)


def blur(mode="replicate", size=3, channels=3):
    weight = np.full((channels, 1, size, size), 1 / size**2, np.float32)
    pads = ((size // 2, size // 2),) * 2
    layers = L.Chain((L.Pad(pads, mode), L.Conv(weight, groups=channels)))
    notes = {"filter": {"per_channel": True}}
    return Model(layers, input_shape=(channels, None, None), name="blur", notes=notes)


def luma(weights=(0.25, 0.5, 0.25)):
    return Model(
        L.Chain((L.Conv(np.float32(weights).reshape(1, 3, 1, 1)),)), input_shape=(3, None, None), name="luma"
    )
