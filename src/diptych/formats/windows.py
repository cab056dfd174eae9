"""Layers for what other frameworks do at the borders of pictures: ceil_mode, padding of any axis, pixel unshuffling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diptych.model.layers import (
    Conv,
    Flatten,
    Layer,
    MaxPool,
    MeanPool,
    Pad,
    PadMode,
    Pads,
    Permute,
    Reshape,
)

__all__ = ["ceil_padding", "padding_layers", "pool_layers", "unshuffle"]


def pool_layers(
    kind: str,
    sizes: Sequence[int] | None,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Pads,
    dilation: tuple[int, ...],
    ceil: bool,
    counted: bool = True,
) -> list[Layer] | None:
    """The layers of a pool.

    Args:
        kind: "max" or "mean".
        sizes: Of the spatial axes; None if unknown.
        kernel, stride, padding, dilation: For each spatial axis. A mean has no dilation.
        ceil: Whether the number of windows is rounded up. A window that would begin behind the picture and its
            padding at the low end is left out, as in PyTorch and ONNX.
        counted: Whether a mean counts padding, but not what lies beyond it.

    Returns:
        The layers; None if they depend on sizes that are not known.
    """
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    more: list[int] = [0] * len(kernel)
    if ceil:
        for i, (span, s, (low, high)) in enumerate(zip(spans, stride, padding, strict=True)):
            if sizes is not None:
                more[i] = _beyond(sizes[i], span, s, low, high)
            elif low + s <= span and low == high:
                more[i] = s - 1  # exact for every size: no window begins behind the picture
            else:
                return None
    longer = tuple((low, high + extra) for (low, high), extra in zip(padding, more, strict=True))
    if kind == "max":
        return [MaxPool(kernel, stride, longer, dilation)]
    if not any(more):
        return [MeanPool(kernel, stride, padding, counted or not any(map(any, padding)))]
    if not counted or not any(map(any, padding)):
        return [MeanPool(kernel, stride, longer, count_padding=False)]
    beyond = tuple((0, extra) for extra in more)
    return [Pad(padding), MeanPool(kernel, stride, beyond, count_padding=False)]


def ceil_padding(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Pads,
    dilation: Sequence[int],
) -> Pads:
    """The padding with which the number of windows is rounded up for spatial axes of these sizes."""
    axes = zip(sizes, kernel, stride, padding, dilation, strict=True)
    return tuple((low, high + _beyond(n, d * (k - 1) + 1, s, low, high)) for n, k, s, (low, high), d in axes)


def _beyond(size: int, span: int, stride: int, low: int, high: int) -> int:
    """How much further the padding must reach at the high end."""
    room = size + low + high - span
    count = -(-room // stride) + 1
    if (count - 1) * stride >= size + low:
        count -= 1
    return max((count - 1) * stride - room, 0)


def padding_layers(pairs: Pads, mode: PadMode, number: float, channels: int) -> list[Layer]:
    """The layers that pad any axes but the batch.

    Args:
        pairs: (low, high) for each axis, the batch included.
        mode, number: As for `Pad`.
        channels: The size of axis 1.
    """
    rank = len(pairs)
    layers: list[Layer] = []
    if any(map(any, pairs[2:])):
        layers.append(Pad(pairs[2:], mode, number))
    if rank < 2 or not any(pairs[1]):
        return layers
    if rank == 2:
        return [Reshape((1, channels)), Pad((pairs[1],), mode, number), Flatten()]
    swap = Permute((0, 2, 1, *range(3, rank)))  # to where a `Pad` sees the channels
    others: Pads = ((0, 0),) * (rank - 3)
    return [*layers, swap, Pad((pairs[1], *others), mode, number), swap]


def unshuffle(factor: int, channels: int) -> Conv:
    """The inverse of a `PixelShuffle` of pictures: a convolution with kernels of a single 1."""
    kernels = np.zeros((channels, factor * factor, factor * factor), np.float32)
    kernels[:] = np.eye(factor * factor, dtype=np.float32)
    weight = kernels.reshape(channels * factor * factor, 1, factor, factor)
    return Conv(weight, stride=(factor, factor), groups=channels)
