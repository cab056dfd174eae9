"""Filters that leave the pixels along the border unchanged, as Pillow's kernels do."""

from __future__ import annotations

import numpy as np

from diptych.model.layers import (
    Activation,
    Chain,
    Connection,
    Conv,
    MaxPool,
    Pad,
    Parallel,
    SkipConnection,
)

__all__ = ["left_alone"]


def left_alone(layers: Chain, width: int, channels: int) -> Chain:
    """Layers that compute `layers`, but leave `width` pixels along the border unchanged.

    A plane of -1, padded with zeros, has a maximum over windows of radius `width` of m = 0 along the border and
    m = -1 inside. Values lie in 0..1, so relu(y - m - 1) + relu(x + m) is x along the border and y inside: one of
    the two terms is always 0.

    Args:
        layers: The filter.
        width: The width of the border in pixels.
        channels: The number of channels.
    """
    white = Conv(
        np.zeros((channels, 1, 1, 1), np.float32), np.full(channels, -1, np.float32), groups=channels
    )
    zeros = Pad(((width, width), (width, width)), "zero")
    along = Chain((white, zeros, MaxPool((2 * width + 1, 2 * width + 1), (1, 1))))
    relu = Activation("relu")
    within = Parallel(
        Connection("add"),
        (
            Chain((*layers.layers, Activation("clamp"))),
            Chain((*along.layers, Activation("affine", (-1.0, -1.0)))),
        ),
    )
    return Chain(
        (
            Parallel(
                Connection("add"),
                (Chain((within, relu)), Chain((SkipConnection(along, Connection("add")), relu))),
            ),
        )
    )
