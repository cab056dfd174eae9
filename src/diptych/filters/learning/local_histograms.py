"""The brightness of a pixel and its surroundings, as soft cumulative histograms at two scales: fixed layers.

Luma becomes `LEVELS` ramps, min(max(LEVELS luma - k, 0), 1). The local mean of ramp k is the share of the
surroundings that is brighter than level k. The means are B-spline blurs [1 2 1] / 4 with dilations 1, 2, 4, 8
and 16 (the "à trous" cascade of Holschneider et al. 1989), with a standard deviation of 3 pixels after three of
them and 13 after five. Differences of the ramps are tents around each level. Their products with the means pick
the share at the pixel's own level: its rank among its neighbours.

Filters that divide by local means, equalise local histograms or average similar pixels need these values, which
a few trained weights do not find. Paris and Durand (2006) compute the bilateral filter from such histograms.
"""

from __future__ import annotations

import numpy as np

from diptych.filters.learning.pairs import extended
from diptych.filters.planes import REC601
from diptych.model.layers import (
    Activation,
    Array,
    Chain,
    Connection,
    Conv,
    Layer,
    Pad,
    PadMode,
    Parallel,
    SkipConnection,
)

__all__ = ["COUNT", "completed", "layers", "light", "means", "weights"]

LEVELS = 8
COUNT = 5 * LEVELS  # channels: products with the far and near means, the means, and the ramps
_NEAR, _FAR = (1, 2, 4), (8, 16)
_SPLINE = np.array([1, 2, 1], np.float32) / 4
_KERNEL = np.repeat(np.outer(_SPLINE, _SPLINE)[None, None], LEVELS, axis=0)


def light(channels: int) -> Array:
    """The weights of the channels, float32 (channels,): Rec.601 luma for three, otherwise the mean."""
    return np.array(REC601 if channels == 3 else [1 / channels] * channels, np.float32)


def means(planes: Array, padding_mode: PadMode) -> Array:
    """The local means of a picture's ramps.

    Args:
        planes: Float32 (C, H, W) in 0..1.
        padding_mode: How the picture is extended.

    Returns:
        The far means and then the near ones, float16 (2 LEVELS, H, W).
    """
    near = _blurred(_ramps(planes), _NEAR, padding_mode)
    return np.concatenate([_blurred(near, _FAR, padding_mode), near]).astype(np.float16)


def completed(planes: Array, local_means: Array) -> Array:
    """What `layers` compute for a picture whose `means` are known.

    Args:
        planes: The picture, (C, H, W).
        local_means: Its `means`, (2 LEVELS, H, W).

    Returns:
        Float32 (COUNT + C, H, W).
    """
    ramps = _ramps(planes)
    tents = np.concatenate([1 - ramps[:1], ramps[:-1] - ramps[1:]])
    return np.concatenate(
        [np.tile(tents, (2, 1, 1)) * local_means, local_means, ramps, planes], dtype=np.float32
    )


def _ramps(planes: Array) -> Array:
    luma = np.tensordot(light(len(planes)), planes, 1)
    ramps: Array = np.clip(LEVELS * luma - np.arange(LEVELS, dtype=np.float32)[:, None, None], 0, 1)
    return ramps


def _blurred(values: Array, gaps: tuple[int, ...], padding_mode: PadMode) -> Array:
    side, middle = _SPLINE[:2]
    for gap in gaps:
        values = extended(values, gap, padding_mode)
        values = side * (values[:, : -2 * gap] + values[:, 2 * gap :]) + middle * values[:, gap:-gap]
        values = side * (values[..., : -2 * gap] + values[..., 2 * gap :]) + middle * values[..., gap:-gap]
    return values


def layers(channels: int, padding_mode: PadMode) -> SkipConnection:
    """Layers from (N, channels, H, W) in 0..1 to (N, COUNT + channels, H, W); the picture itself comes last."""
    mixing = np.repeat(LEVELS * light(channels)[None, :, None, None], LEVELS, axis=0)
    ramps = Conv(mixing, -np.arange(LEVELS, dtype=np.float32), activation=Activation("clamp"))
    joined = Connection("concatenate")
    far = SkipConnection(Chain(_blurs(_FAR, padding_mode)), joined)
    both = SkipConnection(Chain((*_blurs(_NEAR, padding_mode), far)), joined)
    products = SkipConnection(Parallel(Connection("multiply"), _factors()), joined)
    return SkipConnection(Chain((ramps, both, products)), joined)


def _factors() -> tuple[Conv, Conv]:
    """The two factors of the products, 2 LEVELS channels each, from the 3 LEVELS channels of means and ramps.

    They are the tents of the ramps, twice, and the means.
    """
    size = 2 * LEVELS
    tents, chosen = np.zeros((2, size, size + LEVELS, 1, 1), np.float32)
    for row in range(size):
        level = row % LEVELS
        tents[row, size + level] = -1
        if level:
            tents[row, size + level - 1] = 1
        chosen[row, row] = 1
    bias = (np.arange(size) % LEVELS == 0).astype(np.float32)
    return Conv(tents, bias), Conv(chosen)


def _blurs(gaps: tuple[int, ...], padding_mode: PadMode) -> tuple[Layer, ...]:
    pairs = (
        (Pad(((gap, gap),) * 2, padding_mode), Conv(_KERNEL, groups=LEVELS, dilation=(gap, gap)))
        for gap in gaps
    )
    return tuple(layer for pair in pairs for layer in pair)


def weights(channels: int) -> int:
    """The number of weights of `layers`."""
    ramps, products = LEVELS * (channels + 1), 2 * LEVELS * (2 * 3 * LEVELS + 1)
    return ramps + products + _KERNEL.size * len(_NEAR + _FAR)
