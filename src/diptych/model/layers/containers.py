"""Layers made of layers, and the one fold that everything about a whole tree is written with."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from typing import ClassVar, Literal, TypeAlias, TypeVar

import numpy as np

from diptych.errors import ModelError, ShapeError
from diptych.model.layers.base import Array, Layer, Shape
from diptych.model.layers.checks import check_axis
from diptych.model.layers.receptive import Field, widest

__all__ = [
    "Chain",
    "Connection",
    "Container",
    "Graph",
    "Parallel",
    "SkipConnection",
    "child_path",
    "fold",
    "follow_fields",
    "follow_shapes",
    "walk",
]

T = TypeVar("T")


# ---- Joining several values ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Connection(Layer):
    """How several values are joined: elementwise with broadcasting, from the left, "concatenate" or "matmul".

    "matmul" is the product of the matrices in the last two axes, for all places of the axes before them. "where" takes
    three values, and gives the second where the first is not 0, elsewhere the third.
    It is a field of `SkipConnection` and `Parallel`, and a layer of a `Graph`. A single value stays what it is.

    Attributes:
        operation: One of `OPERATIONS`.
        axis: That of a concatenation.
    """

    OPERATIONS: ClassVar[tuple[str, ...]] = (
        "add",
        "multiply",
        "subtract",
        "divide",
        "maximum",
        "minimum",
        "matmul",
        "where",
        "concatenate",
    )

    operation: Literal[
        "add", "multiply", "subtract", "divide", "maximum", "minimum", "matmul", "where", "concatenate"
    ] = "add"
    axis: int = 1

    def check(self) -> None:
        check_axis(self.axis, "the connection's axis")

    def describe(self) -> list[str]:
        if self.operation == "concatenate" and self.axis != 1:
            return [f"concatenate along axis {self.axis}"]
        return [self.operation]

    def joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        """The shape of the joined value. Raises `ShapeError` as `output_shape` does."""
        if not shapes:
            raise ShapeError("has no branches to join; give it at least one")
        first, shown = shapes[0], ", ".join(map(str, shapes))
        if any(len(s) != len(first) for s in shapes):
            raise ShapeError(f"joins arrays of different rank: {shown}")
        if self.operation == "concatenate":
            axis = self.axis + (len(first) if self.axis < 0 else 0)
            if not 0 <= axis < len(first):
                raise ShapeError(f"joins along axis {self.axis}, which {first} does not have")
            if any(s[:axis] + s[axis + 1 :] != first[:axis] + first[axis + 1 :] for s in shapes):
                raise ShapeError(f"along axis {axis} needs equal other axes, got {shown}")
            return (*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1 :])
        if self.operation == "matmul":
            return reduce(self._product_shape, shapes)
        if self.operation == "where" and len(shapes) != 3:
            raise ShapeError(f"takes a condition and two values to choose from, got {shown}")
        return _broadcast(shapes)

    @staticmethod
    def _product_shape(a: Shape, b: Shape) -> Shape:
        if len(a) < 3 or a[-1] != b[-2]:
            raise ShapeError(f"multiplies matrices, (N, ..., n, k) by (N, ..., k, m), got {a} and {b}")
        return (*_broadcast([a[:-2], b[:-2]]), a[-2], b[-1])

    def join(self, arrays: Sequence[Array]) -> Array:
        """The joined array, in the dtype of the arrays."""
        if self.operation == "concatenate":
            return np.concatenate(arrays, self.axis)
        if self.operation == "where":
            condition, chosen, other = arrays
            return np.where(condition != 0, chosen, other)
        return reduce(_PAIRWISE[self.operation], arrays)

    def output_shape(self, shape: Shape) -> Shape:
        return self.joined_shape([shape])

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return prod(result) * entry[-1] if self.operation == "matmul" else 0

    def compute(self, x: Array) -> Array:
        return x


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    for sizes in zip(*shapes, strict=True):
        if len({s for s in sizes if s != 1}) > 1:
            raise ShapeError(f"needs equal shapes, got {', '.join(map(str, shapes))}")
    return tuple(max(sizes) for sizes in zip(*shapes, strict=True))


_PAIRWISE: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "multiply": np.multiply,
    "subtract": np.subtract,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "matmul": lambda a, b: np.matmul(a, b, dtype=np.float64).astype(np.result_type(a, b)),
}


# ---- Containers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Container(Layer):
    """A layer that holds layers. What passes from one to the other is said once, in `through`."""

    @abstractmethod
    def through(self, value: T, child: Callable[..., T], join: Callable[[Connection, Sequence[T]], T]) -> T:
        """What becomes of `value`.

        Args:
            value: What enters: an array, a shape, a tensor or whatever else is followed through the layers.
            child: `child(index, *values)` gives what the layer inside of that index makes of its inputs.
            join: What a connection of the container's own makes of several values.
        """

    @abstractmethod
    def with_children(self, children: Sequence[Layer]) -> Layer:
        """A copy with other layers inside, as many as before."""

    @property
    @abstractmethod
    def children(self) -> tuple[Layer, ...]:
        """The layers directly inside this one, in the order of their path indices."""

    def output_shape(self, shape: Shape) -> Shape:
        return follow_shapes(self, shape)

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return follow_fields(self, field, entry)

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        total = 0

        def leaf(layer: Layer, shape: Shape, path: str) -> Shape:
            nonlocal total
            behind = layer.output_shape(shape)
            total += layer.multiply_adds(shape, behind)
            return behind

        def join(connection: Connection, shapes: Sequence[Shape], path: str) -> Shape:
            nonlocal total
            behind = connection.joined_shape(shapes)
            total += connection.multiply_adds(shapes[0], behind) if len(shapes) > 1 else 0
            return behind

        fold(self, entry, leaf, join)
        return total

    def __call__(self, x: Array) -> Array:
        """The layers inside in NumPy, each rounded to float32."""
        return fold(
            self,
            x,
            lambda layer, value, path: layer(value),
            lambda connection, values, path: connection.join(values),
        )

    def compute(self, x: Array) -> Array:
        return self(x)


@dataclass(frozen=True, eq=False)
class Chain(Container):
    """One layer after another. `names`, where given, label them; paths are always indices."""

    layers: tuple[Layer, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def children(self) -> tuple[Layer, ...]:
        return self.layers

    def with_children(self, children: Sequence[Layer]) -> Chain:
        return replace(self, layers=tuple(children))

    def through(self, value: T, child: Callable[..., T], join: Callable[[Connection, Sequence[T]], T]) -> T:
        for index in range(len(self.layers)):
            value = child(index, value)
        return value

    def check(self) -> None:
        if self.names and len(self.names) != len(self.layers):
            raise ModelError(f"{len(self.names)} names were given for {len(self.layers)} layers")

    def describe(self) -> list[str]:
        return [f"Chain of {len(self.layers)}"]


@dataclass(frozen=True, eq=False)
class SkipConnection(Container):
    """connection(inner(x), x), in this order, which matters for "concatenate" and "subtract"."""

    inner: Layer
    connection: Connection = Connection()

    @property
    def children(self) -> tuple[Layer, ...]:
        return (self.inner,)

    def with_children(self, children: Sequence[Layer]) -> SkipConnection:
        (inner,) = children
        return replace(self, inner=inner)

    def through(self, value: T, child: Callable[..., T], join: Callable[[Connection, Sequence[T]], T]) -> T:
        return join(self.connection, [child(0, value), value])

    def check(self) -> None:
        self.connection.check()

    def describe(self) -> list[str]:
        return [f"SkipConnection {self.connection.label}"]


@dataclass(frozen=True, eq=False)
class Parallel(Container):
    """connection(branch(x) for every branch): all branches see the same input."""

    connection: Connection
    branches: tuple[Layer, ...]

    @property
    def children(self) -> tuple[Layer, ...]:
        return self.branches

    def with_children(self, children: Sequence[Layer]) -> Parallel:
        return replace(self, branches=tuple(children))

    def through(self, value: T, child: Callable[..., T], join: Callable[[Connection, Sequence[T]], T]) -> T:
        return join(self.connection, [child(index, value) for index in range(len(self.branches))])

    def check(self) -> None:
        if not self.branches:
            raise ModelError("it must have at least one branch")
        self.connection.check()

    def describe(self) -> list[str]:
        return [f"Parallel of {len(self.branches)} {self.connection.label}"]


@dataclass(frozen=True, eq=False)
class Graph(Container):
    """Layers that do not form a tree: each takes the values that it names, as in feature pyramids and dense U-Nets.

    The nodes are four tuples of the same order, which is one in which they can be computed. A `Connection`
    takes one or several inputs, any other layer one.

    Attributes:
        layers: What each node does.
        names: What its value is called, each name once; `Graph.INPUT` is what enters the graph.
        inputs: The names of the values that it takes, all of earlier nodes or `Graph.INPUT`.
        outputs: The names of the results. The first one is the value of the graph as a layer; the others are
            found in a trace, and `with_output` makes one of them the first.
    """

    INPUT: ClassVar[str] = "input"

    layers: tuple[Layer, ...]
    names: tuple[str, ...]
    inputs: tuple[tuple[str, ...], ...]
    outputs: tuple[str, ...]

    @property
    def children(self) -> tuple[Layer, ...]:
        return self.layers

    def with_children(self, children: Sequence[Layer]) -> Graph:
        return replace(self, layers=tuple(children))

    def with_output(self, name: str) -> Graph:
        """The same graph with that output first. Raises `ModelError` where there is no such output."""
        if name not in self.outputs:
            raise ModelError(f"the graph has no output {name!r}; its outputs are {', '.join(self.outputs)}")
        return replace(self, outputs=(name, *(other for other in self.outputs if other != name)))

    def through(self, value: T, child: Callable[..., T], join: Callable[[Connection, Sequence[T]], T]) -> T:
        last_use = {name: index for index, inputs in enumerate(self.inputs) for name in inputs}
        values = {self.INPUT: value}
        for index, (name, inputs) in enumerate(zip(self.names, self.inputs, strict=True)):
            values[name] = child(index, *[values[each] for each in inputs])
            for each in set(inputs):
                if last_use[each] == index and each != self.outputs[0]:
                    del values[each]
        return values[self.outputs[0]]

    def check(self) -> None:
        if not len(self.layers) == len(self.names) == len(self.inputs):
            counts = (
                f"{len(self.layers)} layers, {len(self.names)} names and {len(self.inputs)} lists of inputs"
            )
            raise ModelError(f"a graph has as many of each, but there are {counts}")
        known = {self.INPUT}
        for layer, name, inputs in zip(self.layers, self.names, self.inputs, strict=True):
            if not name or name in known:
                raise ModelError(
                    f"node names are texts, each once and not {self.INPUT!r}, but {name!r} is there"
                )
            unknown = [each for each in inputs if each not in known]
            if unknown:
                raise ModelError(f"node {name!r} takes {unknown[0]!r}, which no earlier node gives")
            if not inputs or (len(inputs) > 1 and not isinstance(layer, Connection)):
                raise ModelError(
                    f"node {name!r}, a {type(layer).__name__}, takes one value, not {len(inputs)}"
                )
            known.add(name)
        if not self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise ModelError(f"field 'outputs' must hold one or more names, each once, got {self.outputs}")
        for name in self.outputs:
            if name not in known:
                raise ModelError(f"the output {name!r} is the name of no node")

    def describe(self) -> list[str]:
        more = f"outputs {', '.join(self.outputs)}" if len(self.outputs) > 1 else ""
        return [f"Graph of {len(self.layers)}", more]


# ---- Following a value through a tree -----------------------------------------------------------------

Leaf: TypeAlias = Callable[[Layer, T, str], T]
Join: TypeAlias = Callable[[Connection, Sequence[T], str], T]
Visit: TypeAlias = Callable[[str, Layer, T], None]


def child_path(path: str, index: int) -> str:
    """The path of a child: ("", 3) -> "3", ("3", 1) -> "3.1"."""
    return f"{path}.{index}" if path else str(index)


def walk(layer: Layer, path: str = "") -> Iterator[tuple[str, Layer]]:
    """Every layer inside `layer` with its path ("0", "3.1"), each before its own children."""
    for index, child in enumerate(layer.children):
        inner = child_path(path, index)
        yield inner, child
        yield from walk(child, inner)


def fold(
    layer: Layer,
    value: T,
    leaf: Leaf[T],
    join: Join[T],
    visit: Visit[T] | None = None,
    enter: Visit[T] | None = None,
    path: str = "",
) -> T:
    """Follows a value through a layer and all layers inside it, in order of computation.

    Args:
        layer: Where it enters.
        value: What enters.
        leaf: (layer, value, path) -> what a layer without others inside makes of it.
        join: (connection, values, path) -> what several values become; the path is that of the container, or
            of the `Connection` in a `Graph`.
        visit: Told the path, the layer and the result of every layer below `layer`, containers after what
            they hold; also of `layer` where it has a path.
        enter: Told the path, the layer and the (first) value in front of every layer below `layer`, before it.
        path: That of `layer`, "" for the whole model.

    Returns:
        The value behind `layer`.
    """

    def child(index: int, *values: T) -> T:
        inner, at = layer.children[index], child_path(path, index)
        if enter is not None:
            enter(at, inner, values[0])
        if not isinstance(inner, Connection):
            return fold(inner, values[0], leaf, join, visit, enter, at)
        joined = join(inner, values, at)
        if visit is not None:
            visit(at, inner, joined)
        return joined

    if isinstance(layer, Container):
        result = layer.through(value, child, lambda connection, values: join(connection, values, path))
    else:
        result = leaf(layer, value, path)
    if visit is not None and path:
        visit(path, layer, result)
    return result


def follow_shapes(layer: Layer, shape: Shape, visit: Visit[Shape] | None = None, path: str = "") -> Shape:
    """The output shape of a layer; `visit` is told those of all layers inside, as `fold` does.

    Raises:
        ShapeError: A layer cannot take what reaches it; the text names its path.
    """

    def leaf(layer: Layer, shape: Shape, path: str) -> Shape:
        with _located(path, type(layer).__name__):
            result = layer.output_shape(shape)
            if any(size < 1 for size in result):
                raise ShapeError(f"would give the empty shape {result} from {shape}; use a larger input")
        return result

    def join(connection: Connection, shapes: Sequence[Shape], path: str) -> Shape:
        with _located(path, connection.operation):
            return connection.joined_shape(shapes)

    return fold(layer, shape, leaf, join, visit, path=path)


def follow_fields(
    layer: Layer,
    field: Field | None,
    entry: Shape | None,
    visit: Visit[Field | None] | None = None,
    path: str = "",
) -> Field | None:
    """The receptive field behind a layer, from that in front of it, `field`, and the shape there, if known."""
    Place: TypeAlias = tuple[Field | None, Shape | None]

    def leaf(layer: Layer, value: Place, path: str) -> Place:
        field, entry = value
        result = None if entry is None else layer.output_shape(entry)
        if field is None or field.everything:
            return field, result
        return layer.receptive_field(field, entry, result), result

    def join(connection: Connection, values: Sequence[Place], path: str) -> Place:
        shapes = [shape for _, shape in values if shape is not None]
        known = len(shapes) == len(values)
        field = widest([field for field, _ in values])
        if field is not None and connection.operation == "matmul":
            field = field.whole()
        return field, connection.joined_shape(shapes) if known else None

    def told(path: str, layer: Layer, value: Place) -> None:
        if visit is not None:
            visit(path, layer, value[0])

    return fold(layer, (field, entry), leaf, join, told, path=path)[0]


@contextmanager
def _located(path: str, kind: str) -> Iterator[None]:
    """Completes the text of a `ShapeError` with the place of the layer."""
    try:
        yield
    except ShapeError as error:
        raise ShapeError(f"{f'layer {path} ({kind})' if path else kind} {error}") from error
