"""Filters that leave the pixels along the border as they are, as Pillow's kernels do."""

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
    """What `layers` make of a picture of so many channels, and along its border the picture itself.

    A plane of -1, with zeros around it, has the maximum m = 0 where a window of `width` meets the border and -1
    within. Values are 0..1, so of relu(y - m - 1) + relu(x + m) one term is always 0: the first along the border.
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
