"""The output shape of every layer of a model, without computing anything."""

from __future__ import annotations

import math
from collections.abc import Sequence

from diptych.model.layers import Connection, Layer, Shape, fold, follow_shapes
from diptych.model.model import Model

__all__ = ["joined_values", "layer_shapes", "mixes_samples"]


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


def mixes_samples(model: Model, shape: Sequence[int]) -> bool:
    """Whether a sample's output depends on the other samples of its batch, as with the statistics of a batch.

    Args:
        model: Any model.
        shape: A shape of the input that the model takes, batch axis included.
    """
    found = []

    def leaf(layer: Layer, entry: Shape, path: str) -> Shape:
        found.append(layer.mixes_samples(entry))
        return layer.output_shape(entry)

    def join(connection: Connection, entries: Sequence[Shape], path: str) -> Shape:
        result = connection.joined_shape(entries)
        found.append(result[0] != entries[0][0])
        return result

    fold(model.layers, tuple(shape), leaf, join)
    return any(found)


def joined_values(model: Model, shape: Sequence[int]) -> int:
    """How many values for one sample are held at once where branches meet, at most, whatever the engine frees early.

    Where connections are nested, every level around a join holds about as much as the join itself.

    Args:
        model: Any model.
        shape: A shape of the input that the model takes, batch axis included.
    """
    held = [0]

    def leaf(layer: Layer, entry: Shape, path: str) -> Shape:
        return layer.output_shape(entry)

    def join(connection: Connection, entries: Sequence[Shape], path: str) -> Shape:
        held.append(sum(math.prod(entry[1:]) for entry in entries) * (1 + path.count(".")))
        return connection.joined_shape(entries)

    fold(model.layers, tuple(shape), leaf, join)
    return max(held)
