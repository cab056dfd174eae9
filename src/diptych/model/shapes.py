"""The output shape of every layer of a model, without computing anything."""

from __future__ import annotations

from collections.abc import Sequence

from diptych.model.layers import Layer, Shape, follow_shapes
from diptych.model.model import Model

__all__ = ["layer_shapes"]


def layer_shapes(model: Model, shape: Sequence[int]) -> dict[str, Shape]:
    """The output shape of every layer.

    Args:
        model: Any model.
        shape: The shape of the input, batch axis included.

    Returns:
        Layer path -> output shape, in order of computation.

    Raises:
        ShapeError: Names the first layer that cannot take its input.
    """
    shapes: dict[str, Shape] = {}

    def record(path: str, layer: Layer, shape: Shape) -> None:
        shapes[path] = shape

    follow_shapes(model.layers, tuple(shape), record)
    return shapes
