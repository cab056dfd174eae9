"""Finds self-attention among products, reshapes and permutations, and makes it one layer.

Frameworks write it in many ways: one product for queries, keys and values or three, heads in front of them or behind,
the scale before or after the product. What is rearranged is followed value by value, so it does not matter in which
way: each value of a query must be a row of one weight at its own step, and each step must be treated alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diptych.model import layers as L
from diptych.model.layers import Array, Chain, Layer, Shape, child_path, fold, walk

__all__ = ["with_attention"]

_ARRANGING = (L.Permute, L.Slice, L.Gather, L.Reshape, L.Flatten, L.Dropout)
_MOST = 2**26  # values that are followed


def with_attention(layers: Chain, shape: Shape | None) -> Chain:
    """The layers with every self-attention, from its products to that of its output, as one `MultiHeadAttention`.

    Args:
        layers: The layers.
        shape: Of the input, with any batch size; None if it is not known, when nothing is found.
    """
    if shape is None or not any(_is_core(layer) for _, layer in walk(layers)):
        return layers
    entries: dict[str, Shape] = {}

    def enter(path: str, layer: Layer, at: Shape) -> None:
        entries[path] = at

    fold(
        layers,
        shape,
        lambda layer, at, path: layer.output_shape(at),
        lambda connection, shapes, path: connection.joined_shape(shapes),
        enter=enter,
    )
    made = _rebuilt(layers, "", _Known(entries, {}))
    assert isinstance(made, Chain)
    return made


@dataclass(frozen=True)
class _Known:
    """The shapes in front of the layers by path, and the parts taken of weights, so that tied ones stay tied."""

    entries: Mapping[str, Shape]
    parts: dict[tuple[int, bytes], tuple[Array, Array]]

    def part(self, array: Array, rows: Array) -> Array:
        """Some rows of an array, which is the array itself where these are all of them in order."""
        if len(rows) == len(array) and np.array_equal(rows, np.arange(len(rows))):
            return array
        key = (id(array), rows.tobytes())
        if key not in self.parts:
            self.parts[key] = (
                array,
                array[rows],
            )  # keeping the array makes sure that no other one gets its number
        return self.parts[key][1]


def _rebuilt(layer: Layer, path: str, known: _Known) -> Layer:
    if not layer.children:
        return layer
    if not isinstance(layer, Chain) or layer.names:
        return layer.with_children(
            [_rebuilt(child, child_path(path, i), known) for i, child in enumerate(layer.children)]
        )
    made: list[Layer] = []
    begun: list[int] = []  # of each layer in `made`, the index of the first child that it stands for
    index = 0
    while index < len(layer.layers):
        child = layer.layers[index]
        found = _attention_at(layer.layers, index, path, known) if _is_core(child) else None
        if found is None:
            made.append(_rebuilt(child, child_path(path, index), known))
            begun.append(index)
            index += 1
            continue
        while begun and begun[-1] >= found.first:
            made.pop()
            begun.pop()
        made.append(found.layer)
        begun.append(found.first)
        index = found.behind
    return Chain(tuple(made))


@dataclass(frozen=True)
class _Found:
    """An attention in place of the children from `first` until before `behind`."""

    layer: L.MultiHeadAttention
    first: int
    behind: int


@dataclass(frozen=True, eq=False)
class _Projection:
    """Rows of a Dense layer for every head, (heads, size of a head)."""

    dense: L.Dense
    rows: Array
    factor: float = 1.0

    def weight(self, known: _Known) -> Array:
        """(heads * size, features), in the order of the heads."""
        return known.part(self.dense.weight, self.rows.reshape(-1))

    def bias(self, known: _Known) -> Array | None:
        """The bias of each row, or None."""
        return None if self.dense.bias is None else known.part(self.dense.bias, self.rows.reshape(-1))


def _is_product(layer: Layer) -> bool:
    return (
        isinstance(layer, L.Parallel) and layer.connection.operation == "matmul" and len(layer.branches) == 2
    )


def _inside(layer: Layer) -> tuple[Layer, ...]:
    return layer.layers if isinstance(layer, Chain) else (layer,)


def _is_core(layer: Layer) -> bool:
    """Whether a layer is a product of shares, which a softmax gives, and values."""
    if not isinstance(layer, L.Parallel) or not _is_product(layer):
        return False
    inside = _inside(layer.branches[0])
    return bool(inside) and _is_product(inside[0]) and any(isinstance(each, L.Softmax) for each in inside)


def _attention_at(children: Sequence[Layer], index: int, path: str, known: _Known) -> _Found | None:
    core = children[index]
    assert isinstance(core, L.Parallel)
    scores, *rest = _inside(core.branches[0])
    assert isinstance(scores, L.Parallel)
    after = _factor(rest)
    if after is None:
        return None
    first = _start(children, index)
    entry = known.entries[child_path(path, first)]
    if len(entry) != 3 or entry[1] < 1:
        return None
    before = children[first:index]
    steps = entry[1]
    branches = [_inside(branch) for branch in (*scores.branches, core.branches[1])]
    parts = [_projection((*before, *branch), steps, i == 1) for i, branch in enumerate(branches)]
    query, key, value = parts
    if query is None or key is None or value is None or query.rows.shape != key.rows.shape:
        return None
    heads, size = query.rows.shape
    if value.rows.shape[0] != heads or value.factor != 1:
        return None
    out = _output(children[index + 1 :], (1, heads, steps, value.rows.shape[1]))
    if out is None:
        return None
    dense, columns, count = out
    factor = query.factor * key.factor * after * math.sqrt(size)
    scaled = 1.0 if abs(factor - 1) < 1e-6 else factor
    weight, bias = query.weight(known), query.bias(known)
    layer = L.MultiHeadAttention(
        query=weight if scaled == 1 else (weight * scaled).astype(weight.dtype),
        key=key.weight(known),
        value=value.weight(known),
        out=_ordered(dense.weight, columns),
        query_bias=bias if bias is None or scaled == 1 else (bias * scaled).astype(bias.dtype),
        key_bias=key.bias(known),
        value_bias=value.bias(known),
        out_bias=dense.bias,
        heads=heads,
    )
    return _Found(layer, first, index + 1 + count)


def _ordered(weight: Array, columns: Array) -> Array:
    same = np.array_equal(columns, np.arange(len(columns)))
    return weight if same else np.ascontiguousarray(weight[:, columns])


def _start(children: Sequence[Layer], index: int) -> int:
    """The index of the Dense layer behind which values are only rearranged until `index`; else `index`."""
    at = index - 1
    while at >= 0 and isinstance(children[at], _ARRANGING):
        at -= 1
    return at if at >= 0 and isinstance(children[at], L.Dense) else index


def _factor(layers: Sequence[Layer]) -> float | None:
    """What scores are multiplied by before a softmax of their last axis, with which the layers end; None for others."""
    factor, *rest = 1.0, *layers
    while (
        rest and isinstance(rest[0], L.Activation) and rest[0].name == "affine" and rest[0].parameters[1] == 0
    ):
        factor *= rest.pop(0).parameters[0]  # type: ignore[attr-defined]
    rest = [each for each in rest if not isinstance(each, L.Dropout)]
    soft = rest[0] if len(rest) == 1 else None
    return factor if isinstance(soft, L.Softmax) and soft.axis in (-1, 3) and not soft.log else None


def _projection(layers: Sequence[Layer], steps: int, turned: bool) -> _Projection | None:
    """The rows that become (heads, steps, size of a head), or (heads, size, steps) if `turned`; None for others."""
    if not layers or not isinstance(layers[0], L.Dense) or layers[0].activation:
        return None
    dense, factor = layers[0], 1.0
    rows = dense.weight.shape[0]
    moved: list[Layer] = []
    for layer in layers[1:]:
        if isinstance(layer, L.Activation) and layer.name == "affine" and layer.parameters[1] == 0:
            factor *= layer.parameters[0]
        else:
            moved.append(layer)
    places = _places(moved, (1, steps, rows))
    if places is None or places.ndim != 4:
        return None
    places = places[0].swapaxes(1, 2) if turned else places[0]
    if places.shape[1] != steps:
        return None
    expected = np.arange(steps)[:, None] * rows + places[:, :1]
    return _Projection(dense, places[:, 0], factor) if np.array_equal(places, expected) else None


def _output(layers: Sequence[Layer], shape: Shape) -> tuple[L.Dense, Array, int] | None:
    """The Dense layer of the output, its column for each value of each head, and how many layers lead to it."""
    moved: list[Layer] = []
    for count, layer in enumerate(layers, 1):
        if isinstance(layer, L.Dense):
            places = _places(moved, shape)
            if layer.activation or places is None or places.ndim != 3 or places.shape[1] != shape[2]:
                return None
            return _columns(layer, places[0], shape, count)
        if not isinstance(layer, _ARRANGING):
            return None
        moved.append(layer)
    return None


def _columns(dense: L.Dense, places: Array, shape: Shape, count: int) -> tuple[L.Dense, Array, int] | None:
    _, heads, steps, size = shape
    head, rest = np.divmod(places, steps * size)
    step, at = np.divmod(rest, size)
    own = head * size + at  # which value of which head each column takes
    if places.shape[1] != heads * size or not np.array_equal(
        step, np.broadcast_to(np.arange(steps)[:, None], step.shape)
    ):
        return None
    if not np.array_equal(own, np.broadcast_to(own[:1], own.shape)):
        return None
    return dense, np.argsort(own[0]), count


def _places(layers: Sequence[Layer], shape: Shape) -> Array | None:
    """Where each value of the result stood in an array of `shape`, or None if the layers do more than rearrange."""
    if math.prod(shape) > _MOST:
        return None
    places: Array = np.arange(math.prod(shape)).reshape(shape)
    for layer in layers:
        if not isinstance(layer, _ARRANGING):
            return None
        places = layer.compute(places)
    return places
