"""ONNX graphs that say where numbers were rounded to 8 bits (QDQ): the rounding is computed in floats, exactly.

x / scale is rounded, moved by the zero point and clamped to the range of the integers, and then scaled back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diptych.formats.onnx.reading_node import Node, Rule, plain
from diptych.formats.views import Tensor
from diptych.model import layers as L
from diptych.model.layers import Activation, Array

__all__ = ["QUANTISED", "dequantised"]


def dequantised(attributes: Mapping[str, Any], x: Array, scale: Array, zero: Array | None = None) -> Array:
    """The floats that integers of a file stand for; the scale is one number, or one for each place along an axis."""
    if attributes.get("block_size") or attributes.get("output_dtype") not in (None, 0, 1):
        raise ValueError("only one scale for a whole array or for each place along an axis is read")
    axis = int(attributes.get("axis", 1))
    shape = [1] * x.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    offset = 0 if zero is None else zero.astype(np.int64).reshape(shape)
    return ((x.astype(np.int64) - offset) * scale.reshape(shape)).astype(np.float32)


def _quantize(n: Node) -> Tensor:
    scale, zero = n.weight(1), n.constant(2)
    kind = np.dtype(np.uint8) if zero is None else zero.dtype
    if n.attributes.get("block_size") or n.attributes.get("output_dtype") or n.attributes.get("precision"):
        n.refuse("only one scale for a whole array or for each channel is read")
    n.attributes.get("saturate")  # of floats of 8 bits, which are refused
    if kind not in (np.uint8, np.int8, np.uint16, np.int16) or (zero is not None and np.ptp(zero)):
        n.refuse(f"no layer rounds to {kind}, or with several zero points")
    rank = len(n.shape)
    shape = [1] * (rank - 1)
    axis = n.attributes.get("axis", 1)
    if scale.size > 1:
        shape[n.views.axis(n.x, axis) - 1] = scale.size
    unit = n.graph.apply(L.Constant(scale.astype(np.float32).reshape(shape)), n.value, n.name)
    divided = n.graph.join("divide", [n.value, unit], n.name)  # x times 1 / scale would be rounded otherwise
    offset, limits = 0.0 if zero is None else plain(zero), np.iinfo(kind)
    moved = [Activation("affine", (1.0, offset))] if offset else []
    clamp = Activation("clamp", (float(limits.min), float(limits.max)))
    return n.through(divided, Activation("round"), *moved, clamp)


def _dequantize(n: Node) -> Tensor:
    scale, zero = n.weight(1), n.constant(2)
    if n.attributes.get("block_size") or n.attributes.get("output_dtype") not in (None, 0, 1):
        n.refuse("only one scale for a whole array or for each channel is read")
    axis = n.attributes.get("axis", 1)
    if zero is not None and zero.any():
        if np.ptp(zero):
            n.refuse("no layer has several zero points")
        moved = n.pointwise(Activation("affine", (1.0, -plain(zero))))
    else:
        moved = n.x
    if scale.size > 1:
        axis = n.views.axis(n.x, axis)
        scale = scale.reshape(-1, *[1] * (len(n.shape) - 1 - axis))
    return n.views.combine("multiply", moved, scale.astype(np.float32))


QUANTISED: dict[str, Rule] = {"QuantizeLinear": _quantize, "DequantizeLinear": _dequantize}
