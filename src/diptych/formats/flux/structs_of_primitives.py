"""How layers that pick, reorder and reduce become structs of Flux.

Files hold named functions only, and Julia's functions of that kind take keywords or several arguments. What a product
with a matrix of zeros and ones computes is therefore written as a `Dense` layer along the axis that is moved first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diptych.formats.flux.functions import function
from diptych.formats.flux.structs import FluxSite, LayerRule
from diptych.formats.flux.structs_of_joins import USE_A_PROJECT, permutation, reshaped
from diptych.formats.julia import JuliaStruct
from diptych.model import layers as L
from diptych.model.layers import Array, Layer, Shape, fold

__all__ = ["PRIMITIVES", "by_matrices"]

_LARGEST = 2**24  # numbers in a matrix that stands for indices


def _permute(s: FluxSite, layer: L.Permute) -> JuliaStruct:
    count = len(layer.order)
    return permutation(tuple(count - layer.order[count - 1 - d] for d in range(count)))


def _slice(s: FluxSite, layer: L.Slice) -> JuliaStruct:
    if s.builder.state:
        return function("Base", "identity")
    shape = _entry(s)
    kept = range(shape[layer.axis])[layer.start : layer.stop : layer.step]
    return _chosen(s, shape, layer.axis, list(kept))


def _gather(s: FluxSite, layer: L.Gather) -> JuliaStruct:
    _not_as_state(s)
    return _chosen(s, _entry(s), layer.axis, layer.indices.astype(int).tolist())


def _chosen(s: FluxSite, shape: Shape, axis: int, indices: list[int]) -> JuliaStruct:
    matrix = np.zeros((len(indices), shape[axis]), np.float32)
    matrix[np.arange(len(indices)), indices] = 1
    return _along(s, shape, axis, matrix)


def by_matrices(s: FluxSite, each: Callable[[int], Layer], why: str) -> JuliaStruct:
    """A linear layer that treats each spatial axis alone, as a product with a matrix along each.

    Args:
        s: Its place.
        each: The same layer for one spatial axis of (N, C, size), by the number of the axis.
        why: The refusal where the size of the input is not known, or the matrices would be too large.
    """
    entry = s.builder.shapes.get(s.path)
    if entry is None:
        raise s.refuse(f"{why}; give --shape (model.input_shape), or {USE_A_PROJECT}")
    parts, at = [], entry
    for axis in range(2, len(entry)):
        unit = np.eye(at[axis], dtype=np.float32)[:, np.newaxis]
        if at[axis] ** 2 > _LARGEST or each(axis - 2).output_shape(unit.shape)[2] * at[axis] > _LARGEST:
            raise s.refuse(f"{why}; {USE_A_PROJECT}")
        matrix = each(axis - 2)(unit)[:, 0].T
        if matrix.shape[0] != matrix.shape[1] or not np.array_equal(matrix, unit[:, 0]):
            parts.append(_along(s, at, axis, np.ascontiguousarray(matrix)))
        at = (*at[:axis], len(matrix), *at[axis + 1 :])
    return s.chain(*parts) if parts else function("Base", "identity")


def _along(s: FluxSite, shape: Shape, axis: int, matrix: Array) -> JuliaStruct:
    """The product with a matrix along one axis."""
    if matrix.size > _LARGEST:
        raise s.refuse(f"it needs a matrix of {matrix.shape} for this; {USE_A_PROJECT}")
    last = len(shape) - 1
    values: dict[str, Any] = {
        "weight": s.array(matrix, "same", lambda a: a),
        "bias": s.bias(None),
        "σ": function("Base", "identity"),
    }
    dense = s.struct("Dense", **values)
    if axis == last:
        return dense
    swapped = list(range(1, len(shape) + 1))
    swapped[0], swapped[last - axis] = swapped[last - axis], swapped[0]
    move = tuple(swapped)
    return s.chain(permutation(move), dense, permutation(move))


def _reduce(s: FluxSite, layer: L.Reduce) -> JuliaStruct:
    if s.builder.state:
        return function("Base", "identity")
    shape = _entry(s)
    whole = layer.axes == tuple(range(2, len(shape)))
    if whole and layer.keep and len(shape) > 2 and layer.kind in ("mean", "max"):
        return s.struct("GlobalMeanPool" if layer.kind == "mean" else "GlobalMaxPool")
    if layer.kind in ("max", "min"):
        return _extreme(s, layer, shape)
    if layer.kind not in ("mean", "sum"):
        raise s.refuse(f"it has no named function for a {layer.kind} along some axes; {USE_A_PROJECT}")
    parts, at = [], shape
    for axis in layer.axes:
        share = 1 / at[axis] if layer.kind == "mean" else 1.0
        parts.append(_along(s, at, axis, np.full((1, at[axis]), share, np.float32)))
        at = (*at[:axis], 1, *at[axis + 1 :])
    if not layer.keep:
        sizes = layer.output_shape(shape)[1:]
        parts.append(s.builder.layer(L.Reshape(sizes), s.path))
    return s.chain(*parts)


def _rms_norm(s: FluxSite, layer: L.RMSNorm) -> JuliaStruct:
    """A value divided by the root of the mean of its squares, which Flux has no layer for."""
    shape = _entry(s)
    axes = tuple(range(len(shape) - len(layer.shape), len(shape)))
    root = L.Chain(
        (
            L.Activation("abs2"),
            L.Reduce("mean", axes),
            L.Activation("affine", (1.0, layer.epsilon)),
            L.Activation("sqrt"),
        )
    )
    parts: list[L.Layer] = [L.Parallel(L.Connection("divide"), (L.Activation(), root))]
    if layer.scale is not None:
        parts.append(L.Scale(layer.scale))
    composed = L.Chain(tuple(parts))

    def enter(path: str, inner: L.Layer, at: Shape) -> None:
        place = f"{s.path}.{path}" if path else s.path
        s.builder.shapes[place], s.builder.ranks[place] = at, len(at)

    fold(
        composed,
        shape,
        lambda inner, at, path: inner.output_shape(at),
        lambda connection, shapes, path: connection.joined_shape(shapes),
        enter=enter,
    )
    return s.builder.layer(composed, s.path)


def _extreme(s: FluxSite, layer: L.Reduce, shape: Shape) -> JuliaStruct:
    """The largest or smallest value along some axes, by a pool over these, moved first and merged."""
    rest = [axis for axis in range(1, len(shape)) if axis not in layer.axes]
    order = [0, *rest, *layer.axes]
    merged = (
        int(np.prod([shape[axis] for axis in rest])),
        int(np.prod([shape[axis] for axis in layer.axes])),
    )
    count = len(order)
    parts: list[JuliaStruct] = []
    if order != list(range(count)):
        parts.append(permutation(tuple(count - order[count - 1 - d] for d in range(count))))
    pool = s.struct("MaxPool", k=(merged[1],), pad=(0, 0), stride=(merged[1],))
    if layer.kind == "min":
        negative = s.builder.layer(L.Activation("affine", (-1.0, 0.0)), s.path)
        parts += [negative, reshaped(merged), pool, negative]
    else:
        parts += [reshaped(merged), pool]
    return s.chain(*parts, reshaped(layer.output_shape(shape)[1:]))


def _expand(s: FluxSite, layer: L.Expand) -> JuliaStruct:
    """A Scale by ones, which Julia broadcasts; its bias of a single 0 tells it from others."""
    _not_as_state(s)
    ones = s.array(np.ones(layer.shape, np.float32), "reversed", lambda a: a.T)
    zero = s.array(np.zeros((1,) * len(layer.shape), np.float32), "reversed", lambda a: a.T)
    if s.version < (0, 13):
        return s.struct("Diagonal", scale=ones, bias=zero)
    return s.struct("Scale", scale=ones, bias=zero, σ=function("Base", "identity"))


def _constant(s: FluxSite, layer: L.Constant) -> JuliaStruct:
    """Weights of 0 give one 0 a sample, of which a second layer makes the values, which are its bias."""
    _not_as_state(s)
    count = int(np.prod(_entry(s)[1:]))
    if max(count, layer.value.size) > _LARGEST:
        raise s.refuse(f"it needs a matrix of {count} numbers for this; {USE_A_PROJECT}")
    same = function("Base", "identity")
    values = s.array(layer.value, "vector", lambda a: np.ascontiguousarray(a).reshape(-1))
    narrow, wide = np.zeros((1, count), np.float32), np.zeros((layer.value.size, 1), np.float32)
    return s.chain(
        function("Flux", "flatten"),
        s.struct("Dense", weight=s.array(narrow, "same", lambda a: a), bias=s.bias(None), σ=same),
        s.struct("Dense", weight=s.array(wide, "same", lambda a: a), bias=values, σ=same),
        reshaped(layer.value.shape),
    )


def _prelu(s: FluxSite, layer: L.PReLU) -> JuliaStruct:
    """relu(x) - slope * relu(-x)."""
    _not_as_state(s)
    negative = (L.Activation("affine", (-1.0, 0.0)), L.Activation("relu"), L.Scale(-layer.slope))
    branches = (L.Activation("relu"), L.Chain(negative))
    return s.builder.layer(L.Parallel(L.Connection("add"), branches), s.path)


def _refused(why: str) -> LayerRule:
    def rule(s: FluxSite, layer: Layer) -> JuliaStruct:
        raise s.refuse(f"{why}; {USE_A_PROJECT}")

    return rule


def _entry(s: FluxSite) -> Shape:
    shape = s.builder.shapes.get(s.path)
    if shape is None:
        raise s.refuse("it must know the size of what it takes; give --shape (model.input_shape)")
    return shape


def _not_as_state(s: FluxSite) -> None:
    if s.builder.state:
        raise s.refuse("it has no such struct whose weights alone could be stored; write a .bson file")


PRIMITIVES: dict[type[Layer], LayerRule] = {
    L.Permute: _permute,
    L.Slice: _slice,
    L.Gather: _gather,
    L.Reduce: _reduce,
    L.RMSNorm: _rms_norm,
    L.PReLU: _prelu,
    L.Expand: _expand,
    L.Constant: _constant,
    L.LocalResponseNorm: _refused("it has no local response normalisation"),
}
