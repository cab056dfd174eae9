"""Resizing along one axis as indices or as a matrix of weights, by the rules of ONNX and PyTorch.

What `Upsample` does not do is read with these: every resize of a picture treats one axis after the other, and along one
axis of a known size it is a product with a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from diptych.model.layers import Array, Dense, Gather, Layer, Permute

__all__ = [
    "along_axis",
    "antialiased",
    "coordinates",
    "cubic_taps",
    "linear_taps",
    "nearest_index",
    "weights",
]

Taps = Callable[[float], tuple[float, ...]]


def along_axis(rank: int, axis: int, matrix: Array, bias: Array | None = None) -> list[Layer]:
    """The layers that multiply one axis of an input of `rank` axes by a matrix (m, n)."""
    if bias is None and np.array_equal(matrix, np.eye(len(matrix))):
        return []
    chosen = matrix.argmax(axis=1)
    if bias is None and np.array_equal(matrix, np.eye(matrix.shape[1])[chosen]):
        return [Gather(chosen.astype(np.float32), axis)]
    dense = Dense(matrix.astype(np.float32), None if bias is None else bias.astype(np.float32))
    if axis == rank - 1:
        return [dense]
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    swap = Permute(tuple(order))
    return [swap, dense, swap]


def coordinates(
    kind: str, size: int, output: int, scale: float, region: tuple[float, float] = (0.0, 1.0)
) -> list[float] | None:
    """Where each of `output` values lies among `size` values, by an ONNX coordinate_transformation_mode.

    Args:
        kind: The mode.
        size, output: The numbers of values.
        scale: The factor; it need not be output / size.
        region: Start and end, for the mode "tf_crop_and_resize".

    Returns:
        The coordinates; None for an unknown mode.
    """
    last, places = size - 1, range(output)
    if kind in ("half_pixel", "pytorch_half_pixel"):
        if kind == "pytorch_half_pixel" and output == 1:
            return [0.0]
        return [(i + 0.5) / scale - 0.5 for i in places]
    if kind == "half_pixel_symmetric":
        offset = size / 2 * (1 - output / (scale * size))
        return [offset + (i + 0.5) / scale - 0.5 for i in places]
    if kind == "align_corners":
        return [i * last / (output - 1) if output > 1 else 0.0 for i in places]
    if kind == "asymmetric":
        return [i / scale for i in places]
    if kind == "tf_half_pixel_for_nn":
        return [(i + 0.5) / scale for i in places]
    if kind == "tf_crop_and_resize":
        start, end = region
        if output == 1:
            return [0.5 * (start + end) * last]
        return [start * last + i * (end - start) * last / (output - 1) for i in places]
    return None


def nearest_index(place: float, rounding: str) -> int:
    """The whole number that an ONNX nearest_mode takes for a coordinate."""
    rules: dict[str, Callable[[float], Any]] = {
        "floor": math.floor,
        "ceil": math.ceil,
        "round_prefer_floor": lambda x: math.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: math.floor(x + 0.5),
    }
    return int(rules[rounding](place))


def linear_taps(fraction: float) -> tuple[float, ...]:
    """The shares of the value before and the one after."""
    return (1 - fraction, fraction)


def cubic_taps(a: float) -> Taps:
    """The shares of two values before and two after, of the cubic kernel with coefficient `a`."""

    def near(x: float) -> float:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: float) -> float:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return lambda f: (far(f + 1), near(f), near(1 - f), far(2 - f))


def weights(places: list[float], size: int, taps: Taps, exclude_outside: bool = False) -> Array:
    """The matrix (m, n) that interpolates at `places`; what lies outside repeats the value at the edge."""
    matrix = np.zeros((len(places), size))
    for row, place in zip(matrix, places, strict=True):
        below = math.floor(place)
        shares = taps(place - below)
        first = below - len(shares) // 2 + 1
        for index, share in enumerate(shares, first):
            if 0 <= index < size or not exclude_outside:
                row[min(max(index, 0), size - 1)] += share
        if exclude_outside:
            row /= row.sum()
    return matrix


def antialiased(size: int, output: int, scale: float, cubic: float | None, inside_only: bool = True) -> Array:
    """The matrix of a resize that looks at every value when it makes smaller, as Pillow and PyTorch do.

    Args:
        size, output: The numbers of values.
        scale: The factor; it need not be output / size.
        cubic: The coefficient of the cubic kernel; None for the linear one.
        inside_only: Whether what lies outside is left out, as Pillow does, or repeats the value at the edge, as ONNX.
    """
    matrix = np.zeros((output, size))
    width, reach = min(scale, 1.0), (1.0 if cubic is None else 2.0) / min(scale, 1.0)
    for i, row in enumerate(matrix):
        centre = (i + 0.5) / scale
        first, stop = math.floor(centre - reach + 0.5), math.floor(centre + reach + 0.5)
        if inside_only:
            first, stop = max(first, 0), min(stop, size)
        distance = np.abs((np.arange(first, stop) - centre + 0.5) * width)
        if cubic is None:
            shares = np.maximum(1 - distance, 0)
        else:
            near = ((cubic + 2) * distance - (cubic + 3)) * distance**2 + 1
            far = (((distance - 5) * distance + 8) * distance - 4) * cubic
            shares = np.where(distance < 1, near, np.where(distance < 2, far, 0))
        np.add.at(row, np.clip(np.arange(first, stop), 0, size - 1), shares / shares.sum())
    return matrix
