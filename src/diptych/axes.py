"""Conversion of axis order and kernel orientation between Flux and PyTorch. All of it is done here.

Julia stores arrays column-major, and Flux orders axes as (W, H, C, N) where Diptych has (N, C, H, W). The bytes in
memory are the same, so that reversing the order of all axes converts any array, be it a Dense weight or an image. Two
differences remain: `Conv` in Flux is a convolution and in Diptych a cross-correlation, so that kernels are flipped;
and some Julia programs pass pictures with height and width exchanged.

Each function is its own inverse and returns a new C-contiguous array of the same dtype.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["flip_kernel", "reverse_axes", "swap_spatial"]

Array: TypeAlias = NDArray[Any]


def reverse_axes(array: Array) -> Array:
    """Reverses the order of the axes: (W, H, C, N) <-> (N, C, H, W). Takes any rank, also 0 and 1."""
    return _own(array.T)


def flip_kernel(weight: Array) -> Array:
    """Reverses a kernel along its spatial axes: convolution <-> cross-correlation.

    Args:
        weight: (out, in / groups, *kernel), or (in, out / groups, *kernel) of a transposed convolution.

    Returns:
        The same shape.
    """
    return _own(np.flip(weight, axis=tuple(range(2, weight.ndim))))


def swap_spatial(array: Array) -> Array:
    """Exchanges the last two axes of pictures or 2-D kernels: (..., H, W) <-> (..., W, H)."""
    return _own(np.swapaxes(array, -1, -2))


def _own(view: Array) -> Array:
    return np.array(view, order="C")
