"""Graphs of values, from which models of other frameworks are read.

A reader builds a `ValueGraph`, in which each value is the output of one operation or several values joined.
`nesting` turns the graph into nested sequences of steps, and `patterns` turns the steps into layers.
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

# A placeholder for the batch size in shapes: a large prime, so that no size of a layer is mistaken for it.
BATCH = 7919
_MOST = 20_000  # nodes of a graph


# ---- Operations that are not layers -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Piece:
    """An operation of another framework that is only part of a layer; `patterns` combines them into layers."""

    @property
    def arrays(self) -> dict[str, Array]:
        """The fields that hold arrays, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}


@dataclass(frozen=True, eq=False)
class Reduce(Piece):
    """A reduction over `axes`.

    Attributes:
        kind: "mean", "max" or "sum".
        axes: The axes, the batch axis being 0.
        keep: Whether the reduced axes stay, with length 1.
    """

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
    """Axis i of the output is axis `order[i]` of the input."""

    order: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Fill(Piece):
    """Padding of the spatial axes, (low, high) for each, with a number other than zero."""

    padding: tuple[tuple[int, int], ...]
    number: float


@dataclass(frozen=True, eq=False)
class Shift(Piece):
    """x + bias, where bias broadcasts against the last axes."""

    bias: Array


@dataclass(frozen=True, eq=False)
class Round(Piece):
    """Rounding to the nearest whole number."""


@dataclass(frozen=True, eq=False)
class Lookup(Piece):
    """The rows of `weight` whose indices, from 0, are the input."""

    weight: Array


@dataclass(frozen=True, eq=False)
class Erf(Piece):
    """The error function."""


# The operation of a node with one input.
Operation: TypeAlias = Layer | Piece


@dataclass(frozen=True, eq=False)
class Join:
    """An operation on several values: one of those of `Connection`, or "divide"."""

    operation: str
    axis: int = 1


# ---- The graph ----------------------------------------------------------------------------------------


@dataclass(eq=False)
class Value:
    """The output of one node.

    Attributes:
        name: Of the node, as messages name it.
        shape: With `BATCH` as the batch size; None if unknown.
        made_by: The operation that computes it; None for the input of the graph.
        inputs: The values it is computed from.
        dominator: The nearest value that every path from the graph's input to this one passes.
        depth: The number of its dominators.
        index: Its position in the order of computation.
    """

    name: str
    shape: Shape | None
    made_by: Operation | Join | None = None
    inputs: tuple[Value, ...] = ()
    dominator: Value | None = None
    depth: int = 0
    index: int = 0


@dataclass(frozen=True, eq=False)
class Tangle:
    """Part of a graph that cannot be nested: named nodes, each an optional join followed by steps.

    The steps of node i are `branches[i]` of the `Step` that holds the tangle.

    Attributes:
        names: A name for each node; the last node is the output.
        inputs: For each node the names of its inputs; "input" is the input of the tangle.
        joins: For each node how its inputs are joined; None for a single input.
    """

    names: tuple[str, ...]
    inputs: tuple[tuple[str, ...], ...]
    joins: tuple[Join | None, ...]


@dataclass(eq=False)
class Step:
    """One operation in a sequence.

    Attributes:
        layer: The operation, or a join with its `branches`.
        name: Of the node, as messages name it.
        before, after: The shapes of its input and output; None if unknown.
        branches: The steps of each branch, which all begin at the input of this step; empty for one operation.
    """

    layer: Operation | Join | Tangle
    name: str
    before: Shape | None
    after: Shape | None
    branches: list[list[Step]] = field(default_factory=list)


class ValueGraph:
    """The values computed from one input. Only shapes are worked out, no numbers.

    Args:
        shape: Of the input, with `BATCH` as the batch size; None if unknown.
        merging: Whether the same operation applied twice to the same value gives one value.
    """

    def __init__(self, shape: Shape | None, merging: bool = False) -> None:
        self.input = Value("the input", shape)
        self._merging = merging
        self._applied: dict[tuple[object, ...], Value] = {}
        self._joins: dict[tuple[object, ...], Value] = {}
        self._count = 0

    def apply(self, layer: Operation, value: Value, name: str, shape: Shape | None = None) -> Value:
        """Adds a node with one input.

        Args:
            layer: The operation.
            value: Its input.
            name: Of the node, for messages.
            shape: Of the output. By default it follows from the layer; for most pieces it must be given.

        Raises:
            ShapeError: The layer cannot take the shape of `value`.
            UnsupportedLayer: The graph is too large.
        """
        self._grow(name)
        if shape is None and value.shape is not None and not isinstance(layer, Piece):
            shape = follow_shapes(layer, value.shape, path=name)
        if isinstance(layer, Erf | Shift | Round) and shape is None:
            shape = value.shape
        result = Value(name, shape, layer, (value,), value, value.depth + 1, self._count)
        key = (id(layer) if layer.arrays else repr(layer), id(value))
        return self._applied.setdefault(key, result) if self._merging else result

    def join(self, operation: str, values: Sequence[Value], name: str, axis: int = 1) -> Value:
        """Adds a node that joins several values, from left to right.

        A concatenation that begins with all the values of an earlier one uses the earlier result, so that dense
        connections become a chain of skip connections.

        Args:
            operation: One of `Join`.
            values: One or more; a single value is returned as it is.
            name: Of the node, for messages.
            axis: The axis of a concatenation, the batch axis being 0.

        Raises:
            ShapeError: The shapes do not fit together.
            UnsupportedLayer: The graph is too large.
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
    """Reads without merging repeated operations, and with merging where only that gives a nested model.

    Merging comes second because it can entangle branches that were written separately.

    Args:
        read: Called with whether to merge.

    Raises:
        UnsupportedLayer: Neither reading succeeds; the error is that of the first.
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


def refusal(name: str, reason: str, what: str = "the layer") -> UnsupportedLayer:
    """The error for a node that no layer can express, or for another part of the graph, `what`."""
    return UnsupportedLayer(name, "a Diptych model", reason, what)


def _meeting(a: Value, b: Value) -> Value:
    """The nearest common dominator of two values."""
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
    """The layers that reshape `shape` to `sizes`.

    Args:
        shape: With `BATCH` as the batch size.
        sizes: Including the batch axis; at most one is -1, which stands for the size that is left.
        name: Of the node, for messages.

    Raises:
        UnsupportedLayer: The batch axis does not stay first.
        ShapeError: `sizes` hold another number of values than `shape`.
    """
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
    """The layers that join x and a constant elementwise.

    Args:
        operation: "add", "subtract", "multiply" or "divide".
        constant: Broadcasts against x.
        flipped: Whether x is the second operand.

    Returns:
        The layers, or None if no layer computes this.
    """
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
    """(1, C, 1, 1) -> (C, 1, 1), as `Scale` stores its arrays."""
    shape = array.shape
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return array if shape == array.shape else np.reshape(array, shape)
