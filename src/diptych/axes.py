"""Every change of axis order or orientation between Flux and PyTorch, and nowhere else.

Julia stores arrays column-major and Flux writes sizes the other way round: (W, H, C, N) where we have
(N, C, H, W). The bytes in memory are the same, so reversing all axes is the whole exchange, for a Dense
weight as for an image. What remains is that Flux's `Conv` is a true convolution and ours a
cross-correlation (so kernels are flipped), and that some Julia programs feed pictures as H x W.

Each function is its own inverse and returns a new C-contiguous array of the same dtype.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["flip_kernel", "reverse_axes", "swap_spatial"]

Array: TypeAlias = NDArray[Any]


def reverse_axes(array: Array) -> Array:
    """Julia's axis order <-> ours: (W, H, C, N) <-> (N, C, H, W); any rank, also 0 and 1."""
    return _own(array.T)


def flip_kernel(weight: Array) -> Array:
    """Convolution <-> cross-correlation: the spatial axes, all but the first two, run backwards.

    `weight` is (out, in / groups, *kernel), or (in, out / groups, *kernel) of a transposed convolution.
    """
    return _own(np.flip(weight, axis=tuple(range(2, weight.ndim))))


def swap_spatial(array: Array) -> Array:
    """The last two axes exchanged: (..., H, W) <-> (..., W, H), for pictures and 2-D kernels alike."""
    return _own(np.swapaxes(array, -1, -2))


def _own(view: Array) -> Array:
    return np.array(view, order="C")
