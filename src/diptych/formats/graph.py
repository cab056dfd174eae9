"""Graphs of values, from which models of other frameworks are read.

A reader builds a `ValueGraph`, in which each value is the output of one operation or several values joined.
`nesting` turns the graph into nested sequences of steps, and `patterns` turns the steps into layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

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
    "Join",
    "Lookup",
    "Operation",
    "Piece",
    "Shape",
    "Shift",
    "Step",
    "Tangle",
    "Value",
    "ValueGraph",
    "clamped",
    "first_or_merged",
    "power_layers",
    "readable",
    "refusal",
    "reshape_layers",
    "resolved_sizes",
    "shown",
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
class Shift(Piece):
    """x + bias, where bias broadcasts against the last axes."""

    bias: Array


@dataclass(frozen=True, eq=False)
class Lookup(Piece):
    """The rows of `weight` whose indices, from 0, are the input."""

    weight: Array


# The operation of a node with one input.
Operation: TypeAlias = Layer | Piece


@dataclass(frozen=True, eq=False)
class Join:
    """An operation on several values: one of those of `Connection`."""

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
            with readable():
                shape = follow_shapes(layer, value.shape, path=name)
        if isinstance(layer, Shift) and shape is None:
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
        values = self._unexpanded(operation, values)
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

    def _unexpanded(self, operation: str, values: Sequence[Value]) -> list[Value]:
        """The values, without repetitions that the join makes itself, so that no size of a picture is fixed."""
        if operation in ("concatenate", "matmul") or any(value.shape is None for value in values):
            return list(values)
        result = list(values)
        for index, value in enumerate(values):
            others = result[:index] + result[index + 1 :]
            if not isinstance(value.made_by, L.Expand) or value.shape is None or not others:
                continue
            shapes = [other.shape for other in others if other.shape is not None]
            if any(len(shape) != len(value.shape) for shape in shapes):
                continue
            source = value.inputs[0]
            assert source.shape is not None
            sizes = [*shapes, source.shape]
            if tuple(max(each) for each in zip(*sizes, strict=True)) == Connection().joined_shape(
                [*shapes, value.shape]
            ):
                result[index] = source
        return result

    def _joined(self, operation: str, axis: int, values: Sequence[Value], name: str) -> Shape | None:
        shapes = [v.shape for v in values if v.shape is not None]
        if len(shapes) < len(values):
            return None
        connection = Connection(cast(Any, operation), axis)
        try:
            with readable():
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
    if not _may_be_shorter(first):
        return first
    try:
        merged = read(True)
    except ModelError:
        return first
    return merged if _size(merged) < _size(first) else first


def _may_be_shorter(layers: Layer) -> bool:
    """Whether there is a graph, or a division, as in a normalisation whose mean is taken twice."""
    return any(
        isinstance(layer, L.Graph)
        or (isinstance(layer, L.SkipConnection | L.Parallel) and layer.connection.operation == "divide")
        for _, layer in walk(layers)
    )


def _size(layers: Layer) -> tuple[int, int]:
    """The number of graphs, then that of layers."""
    inside = [layer for _, layer in walk(layers)]
    return sum(isinstance(layer, L.Graph) for layer in inside), len(inside)


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


def shown(sizes: Sequence[int]) -> str:
    """Sizes in words, where the placeholder of the batch is N: (7919, 3) -> "(N, 3)"."""
    texts = [_with_n(n) for n in sizes]
    return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"


def _with_n(n: int) -> str:
    if n == 0 or n % BATCH:
        return str(n)
    return "N" if n == BATCH else f"{n // BATCH} N"


@contextmanager
def readable() -> Iterator[None]:
    """Puts N for the placeholder of the batch into the text of a `ShapeError`."""
    try:
        yield
    except ShapeError as error:
        text = re.sub(r"\d+", lambda found: _with_n(int(found[0])), str(error))
        raise ShapeError(text) from error


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
    resolved = resolved_sizes(shape, sizes, name)
    if not resolved or resolved[0] != BATCH:
        raise refusal(name, f"a reshape to {shown(resolved)} does not keep the batch axis first")
    if resolved == shape:
        return []
    if len(resolved) == 2:
        return [Flatten()]
    return [Reshape(tuple(int(n) for n in (sizes[1:] if sizes[0] == BATCH else resolved[1:])))]


def resolved_sizes(shape: Shape, sizes: Sequence[int], name: str) -> Shape:
    """`sizes` with the size that is left in place of -1. Raises `ShapeError` if they do not fit `shape`."""
    known = math.prod(n for n in sizes if n != -1)
    total = math.prod(shape)
    resolved = tuple(total // max(known, 1) if n == -1 else int(n) for n in sizes)
    if math.prod(resolved) != total:
        raise ShapeError(f"{name} cannot make {shown(resolved)} of {total // BATCH} values a sample")
    return resolved


def power_layers(exponent: float) -> list[Operation]:
    """The layers that raise to a power."""
    if exponent == 1:
        return []
    named = {2.0: "abs2", 0.5: "sqrt"}.get(exponent)
    return [Activation(named) if named else Activation("power", (exponent,))]


def with_constant(
    operation: str, constant: Array, flipped: bool, shape: Shape | None = None
) -> list[Operation] | None:
    """The layers that join x and a constant elementwise.

    Args:
        operation: One of those of `Connection`, or "power".
        constant: Broadcasts against the last axes of x, of which the first is not the batch.
        flipped: Whether x is the second operand.
        shape: Of x, if it is known.

    Returns:
        The layers, or None if it takes a `Connection` with a constant.
    """
    if constant.size == 1:
        return _with_number(operation, float(constant.reshape(())), flipped)
    array = without_leading_ones(constant)
    if operation not in ("add", "subtract", "multiply", "divide"):
        return None
    before: list[Operation] = []
    if operation == "divide" and flipped:
        before, operation = power_layers(-1), "multiply"
    if shape is not None:
        if array.ndim >= len(shape):
            return None
        whole = np.broadcast_shapes(shape[1:], array.shape)
        if whole != shape[1:]:
            before.append(L.Expand(whole))
    if operation in ("multiply", "divide"):
        return [*before, Scale(array if operation == "multiply" else np.asarray(1 / array))]
    if operation == "subtract" and flipped:
        return [*before, Activation("affine", (-1.0, 0.0)), Shift(array)]
    return [*before, Shift(-array if operation == "subtract" else array)]


def _with_number(operation: str, number: float, flipped: bool) -> list[Operation] | None:
    if operation == "power":
        if not flipped:
            return power_layers(number)
        if not number > 0:
            return None
        return [Activation("affine", (math.log(number), 0.0)), Activation("exp")]
    if operation == "divide" and flipped:
        return [*power_layers(-1), Activation("affine", (number, 0.0))]
    if operation in ("maximum", "minimum"):
        low = operation == "maximum"
        return [clamped(number if low else -math.inf, math.inf if low else number)]
    table = {
        "add": (1.0, number),
        "subtract": (-1.0, number) if flipped else (1.0, -number),
        "multiply": (number, 0.0),
        "divide": (1 / number if number else math.inf, 0.0),
    }
    return [Activation("affine", table[operation])] if operation in table else None


def clamped(low: float, high: float) -> Activation:
    """The clamp to [low, high], by its own name where it has one."""
    named = {(0.0, math.inf): "relu", (0.0, 6.0): "relu6"}.get((low, high))
    return Activation(named) if named else Activation("clamp", (low, high))


def without_leading_ones(array: Array) -> Array:
    """(1, C, 1, 1) -> (C, 1, 1), as `Scale` stores its arrays."""
    shape = array.shape
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return array if shape == array.shape else np.reshape(array, shape)
