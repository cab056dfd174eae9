"""Graphs of values: how models that are graphs elsewhere are read.

A reader builds a `ValueGraph`: each value is one layer's output, or several values joined. `nesting` makes steps of
it, one after the other and nested, and `patterns` makes layers of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from diptych.errors import ModelError, ShapeError, UnsupportedLayer
from diptych.model import layers as L
from diptych.model.layers import (
    Activation,
    Array,
    Chain,
    Connection,
    Flatten,
    Layer,
    Reshape,
    Scale,
    Shape,
    follow_shapes,
    walk,
)

__all__ = [
    "BATCH",
    "Erf",
    "Fill",
    "Gather",
    "Join",
    "Lookup",
    "Operation",
    "Piece",
    "Reduce",
    "Round",
    "Shape",
    "Shift",
    "Slice",
    "Step",
    "Tangle",
    "Transpose",
    "Value",
    "ValueGraph",
    "first_or_merged",
    "refusal",
    "reshape_layers",
    "with_constant",
]

# The batch size while shapes are worked out: a prime that no layer has for a size, so that it is recognised.
BATCH = 7919
_MOST = 20_000


# ---- What only exists while reading -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a layer, as other formats spell it; `patterns` puts them together."""

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays it holds, by field name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}


@dataclass(frozen=True, eq=False)
class Reduce(Piece):
    """The "mean", "max" or "sum" over `axes`, which stay with length 1 where `keep`."""

    kind: str
    axes: tuple[int, ...]
    keep: bool = True


@dataclass(frozen=True, eq=False)
class Slice(Piece):
    """The values [start, stop) along `axis`."""

    axis: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Gather(Piece):
    """The values at `indices` along `axis`."""

    axis: int
    indices: Array


@dataclass(frozen=True, eq=False)
class Transpose(Piece):
    """The axes in another order."""

    order: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Fill(Piece):
    """Padding of the spatial axes with a number other than zero."""

    padding: tuple[tuple[int, int], ...]
    number: float


@dataclass(frozen=True, eq=False)
class Shift(Piece):
    """x + bias, broadcast against the last axes."""

    bias: Array


@dataclass(frozen=True, eq=False)
class Round(Piece):
    """The nearest whole number."""


@dataclass(frozen=True, eq=False)
class Lookup(Piece):
    """Rows of `weight` by their numbers."""

    weight: Array


@dataclass(frozen=True, eq=False)
class Erf(Piece):
    """The error function."""


# What a node with one input does.
Operation: TypeAlias = Layer | Piece


@dataclass(frozen=True, eq=False)
class Join:
    """How values are joined: a `Connection`'s operations, and "divide"."""

    operation: str
    axis: int = 1


# ---- The graph ----------------------------------------------------------------------------------------


@dataclass(eq=False)
class Value:
    """What one node gives. `shape` is None where the reader cannot know it."""

    name: str
    shape: Shape | None
    made_by: Operation | Join | None = None
    inputs: tuple[Value, ...] = ()
    dominator: Value | None = None
    depth: int = 0  # how many dominators it has
    index: int = 0  # in order of computation


@dataclass(frozen=True, eq=False)
class Tangle:
    """Branches that meet in no nested way: named values, each a join (or None) and then a row of steps.

    The rows are the `branches` of the step.
    """

    names: tuple[str, ...]
    inputs: tuple[tuple[str, ...], ...]
    joins: tuple[Join | None, ...]


@dataclass(eq=False)
class Step:
    """One link of a chain: a layer, or a join with its branches."""

    layer: Operation | Join | Tangle
    name: str
    before: Shape | None
    after: Shape | None
    branches: list[list[Step]] = field(default_factory=list)


class ValueGraph:
    """Values from one input on. Nothing is computed, only shapes.

    With `merging`, the same operation on the same value is one value: what was written twice then meets.
    """

    def __init__(self, shape: Shape | None, merging: bool = False) -> None:
        self.input = Value("the input", shape)
        self._merging = merging
        self._applied: dict[tuple[object, ...], Value] = {}
        self._joins: dict[tuple[object, ...], Value] = {}
        self._count = 0

    def apply(self, layer: Operation, value: Value, name: str, shape: Shape | None = None) -> Value:
        """The output of `layer`; a piece's shape must be given. Raises `ShapeError` where it cannot take it."""
        self._grow(name)
        if shape is None and value.shape is not None and not isinstance(layer, Piece):
            shape = follow_shapes(layer, value.shape, path=name)
        if isinstance(layer, Erf | Shift | Round) and shape is None:
            shape = value.shape
        result = Value(name, shape, layer, (value,), value, value.depth + 1, self._count)
        key = (id(layer) if layer.arrays else repr(layer), id(value))
        return self._applied.setdefault(key, result) if self._merging else result

    def join(self, operation: str, values: Sequence[Value], name: str, axis: int = 1) -> Value:
        """Several values joined, from the left.

        A concatenation that begins with all values of an earlier one is made of that one: so dense
        connections become a chain of skip connections.
        """
        self._grow(name)
        values = list(values)
        if len(values) == 1:
            return values[0]
        key = (operation, axis, *map(id, values))
        if self._merging and key in self._joins:
            return self._joins[key]
        for count in range(len(values) - 1, 1, -1):
            known = self._joins.get((operation, axis, *map(id, values[:count])))
            if operation == "concatenate" and known is not None:
                values = [known, *values[count:]]
                break
        shape = self._joined(operation, axis, values, name)
        nearest = values[0]
        for value in values[1:]:
            nearest = _meeting(nearest, value)
        result = Value(
            name, shape, Join(operation, axis), tuple(values), nearest, nearest.depth + 1, self._count
        )
        self._joins[key] = result
        return result

    def _joined(self, operation: str, axis: int, values: Sequence[Value], name: str) -> Shape | None:
        shapes = [v.shape for v in values if v.shape is not None]
        if len(shapes) < len(values):
            return None
        connection = Connection("concatenate", axis) if operation == "concatenate" else Connection()
        try:
            return connection.joined_shape(shapes)
        except ShapeError as error:
            raise ShapeError(f"{name} ({operation}) {error}") from error

    def _grow(self, name: str) -> None:
        self._count += 1
        if self._count > _MOST:
            raise refusal(name, f"the graph has more than {_MOST} nodes")


def first_or_merged(read: Callable[[bool], Chain]) -> Chain:
    """`read(merging)` as the code stands; where that is no tree, with repeated operations merged.

    Not merged at once, because merging may entangle what was written apart.
    """
    try:
        first = read(False)
    except UnsupportedLayer as refused:
        try:
            return read(True)
        except ModelError:
            raise refused from None
    if not _holds_graph(first):
        return first
    try:
        merged = read(True)
    except ModelError:
        return first
    return first if _holds_graph(merged) else merged


def _holds_graph(layers: Layer) -> bool:
    return any(isinstance(layer, L.Graph) for _, layer in walk(layers))


def refusal(name: str, reason: str) -> UnsupportedLayer:
    """The error for a node that no layer can express."""
    return UnsupportedLayer(name, "a Diptych model", reason)


def _meeting(a: Value, b: Value) -> Value:
    """The nearest value that all paths to both pass."""
    while a is not b:
        if a.depth >= b.depth:
            above = a.dominator
            if above is None:
                return a
            a = above
        else:
            assert b.dominator is not None
            b = b.dominator
    return a


def reshape_layers(shape: Shape, sizes: Sequence[int], name: str) -> list[Operation]:
    """A reshape of `shape` to `sizes`, both with the batch axis and one of the sizes -1 at most."""
    known = math.prod(n for n in sizes if n != -1)
    total = math.prod(shape)
    resolved = tuple(total // max(known, 1) if n == -1 else int(n) for n in sizes)
    shown = ", ".join("N" if n == BATCH else str(n) for n in sizes)
    if not resolved or resolved[0] != BATCH:
        raise refusal(name, f"a reshape to ({shown}) does not keep the batch axis first")
    if math.prod(resolved) != total:
        raise ShapeError(f"{name} cannot make ({shown}) of {total // BATCH} values a sample")
    if len(resolved) == 2:
        return [Flatten()]
    return [Reshape(tuple(int(n) for n in (sizes[1:] if sizes[0] == BATCH else resolved[1:])))]


def with_constant(operation: str, constant: Array, flipped: bool) -> list[Operation] | None:
    """x and a constant joined elementwise; `flipped` where x comes second. None where there is no layer."""
    if operation not in ("add", "subtract", "multiply", "divide") or (operation == "divide" and flipped):
        return None
    if constant.size > 1:
        array = without_leading_ones(constant)
        if operation in ("multiply", "divide"):
            return [Scale(array if operation == "multiply" else np.asarray(1 / array))]
        if operation == "subtract" and flipped:
            return [Activation("affine", (-1.0, 0.0)), Shift(array)]
        return [Shift(-array if operation == "subtract" else array)]
    number = float(constant.reshape(()))
    table = {
        "add": (1.0, number),
        "subtract": (-1.0, number) if flipped else (1.0, -number),
        "multiply": (number, 0.0),
        "divide": (1 / number if number else math.inf, 0.0),
    }
    return [Activation("affine", table[operation])]


def without_leading_ones(array: Array) -> Array:
    """(1, C, 1, 1) -> (C, 1, 1): as `Scale` has its arrays. The array itself where nothing is to be dropped."""
    shape = array.shape
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return array if shape == array.shape else np.reshape(array, shape)
