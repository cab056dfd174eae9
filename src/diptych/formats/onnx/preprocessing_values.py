"""What the steps of a recipe are made of in an ONNX graph: arithmetic, the pictures between two steps, their axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from diptych.formats.onnx.graph import OnnxSite

__all__ = ["Axis", "Pixels", "Place"]


class Place(OnnxSite):
    """Adds arithmetic to a graph. An operand is the name of a value, or a number, which becomes a constant.

    A Python float becomes float64 and an int int64; a NumPy number or array keeps its type.
    """

    def do(self, operation: str, *operands: Any, **attributes: Any) -> str:
        """Adds a node, and returns the name of its output."""
        return self.node(
            operation, *(o if isinstance(o, str) else self.number(o) for o in operands), **attributes
        )

    def number(self, value: Any) -> str:
        """The name of a constant; equal constants are stored once."""
        array = np.asarray(value)
        for name, known in self.graph.constants.items():
            if known.dtype == array.dtype and np.array_equal(known, array):
                return name
        return self.constant(array, array.dtype)

    def cast(self, value: str, kind: int) -> str:
        """The value cast to a type of `TensorProto`."""
        return self.node("Cast", value, to=kind)

    def double(self, value: str) -> str:
        """The value cast to float64."""
        return self.cast(value, TensorProto.DOUBLE)

    def floored(self, product: str, by: str) -> str:
        """floor(product / by) of integers far below 2^52, whose float64 quotient is never rounded up to an integer."""
        return self.node("Floor", self.node("Div", product, by))

    def summed(self, values: list[str]) -> str:
        """The sum, added from left to right as the libraries do."""
        total = values[0]
        for value in values[1:]:
            total = self.node("Add", total, value)
        return total


@dataclass(frozen=True)
class Pixels:
    """The pictures between two steps.

    Attributes:
        value: The name of the value (N, C, H, W), uint8 or float32.
        channels: C.
        eight_bit: Whether it is uint8.
        scaled: Whether levels are 0..1 instead of 0..255.
    """

    value: str
    channels: int = 3
    eight_bit: bool = True
    scaled: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis of a resize; the attributes are names of values.

    Attributes:
        source, target: The number of pixels before and after scaling, float64 scalars.
        positions: The pixels of the scaled picture that are kept, float64 (n,).
        inside: Which of the kept pixels the scaled picture covers, bool (n,); empty if it covers all.
    """

    source: str
    target: str
    positions: str
    inside: str = ""
