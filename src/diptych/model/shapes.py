"""The output shape of every layer of a model, without computing anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from diptych.errors import ShapeError
from diptych.model.layers import Connection, Layer, Shape, fold, follow_shapes
from diptych.model.model import Model

__all__ = ["Sizes", "layer_shapes", "sizes"]


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


@dataclass(frozen=True)
class Sizes:
    """What the values of a model need, for one shape of the input.

    Attributes:
        entry: The shape of the input, batch axis included.
        shapes: As `layer_shapes` gives them.
        held: How many values are alive at once, at most, for one sample, where each goes as soon as no layer needs it
            any more.
        mixes_samples: Whether a sample's output depends on the other samples of its batch, as with the statistics of a
            batch.
    """

    entry: Shape
    shapes: dict[str, Shape]
    held: int
    mixes_samples: bool


_sizes: WeakKeyDictionary[Model, Sizes] = WeakKeyDictionary()


def sizes(model: Model, shape: Sequence[int]) -> Sizes:
    """What the values of a model need; it is kept for the last shape of each model.

    Args:
        model: Any model.
        shape: The shape of the input, batch axis included.

    Raises:
        ShapeError: Names the first layer that cannot take its input.
    """
    known, entry = _sizes.get(model), tuple(shape)
    if known is None or known.entry != entry:
        try:
            known = _followed(model, entry)
        except ShapeError:
            layer_shapes(model, entry)  # names the layer
            raise
        _sizes[model] = known
    return known


def _followed(model: Model, entry: Shape) -> Sizes:
    shapes: dict[str, Shape] = {}
    alive, mixes = _Alive(), False

    def value(shape: Shape) -> _Value:
        if any(size < 1 for size in shape):
            raise ShapeError(f"the shape {shape} is empty")
        return _Value(shape, alive)

    def leaf(layer: Layer, entry: _Value, path: str) -> _Value:
        nonlocal mixes
        result = value(layer.output_shape(entry.shape))
        mixes = mixes or layer.mixes_samples(entry.shape)
        return result

    def join(connection: Connection, entries: Sequence[_Value], path: str) -> _Value:
        nonlocal mixes
        shape = connection.joined_shape([each.shape for each in entries])
        mixes = mixes or shape[0] != entries[0].shape[0]
        return value(shape)

    def visit(path: str, layer: Layer, result: _Value) -> None:
        shapes[path] = result.shape

    fold(model.layers, value(entry), leaf, join, visit)
    return Sizes(entry, shapes, alive.most, mixes)


@dataclass
class _Alive:
    """How many values there are now, and were at most."""

    now: int = 0
    most: int = 0


class _Value:
    """Stands for an array of a shape: it is counted until nothing refers to it, as the array would be kept."""

    def __init__(self, shape: Shape, alive: _Alive) -> None:
        self.shape, self._alive, self._size = shape, alive, math.prod(shape[1:])
        alive.now += self._size
        alive.most = max(alive.most, alive.now)

    def __del__(self) -> None:
        self._alive.now -= self._size
