"""Computes ONNX operations on constants, such as those on shapes. The sizes of the results are bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, TypeAlias

import numpy as np

from diptych.errors import FormatError
from diptych.formats.graph import BATCH
from diptych.formats.onnx.reading_quantised import dequantised
from diptych.model.layers import Array, erf

__all__ = ["Folder"]

Attributes: TypeAlias = Mapping[str, Any]
_DTYPES = {1: "f4", 2: "u1", 3: "i1", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8"}
_MOST_AXES = 16


class Folder:
    """Computes operations on constants, so long as the results together do not exceed a number of values.

    Args:
        budget: That number; it keeps a small file from filling the memory.
    """

    def __init__(self, budget: int) -> None:
        self._left = budget

    def fold(
        self, operation: str, inputs: Sequence[Array | None], attributes: Attributes, outputs: int = 1
    ) -> list[Array] | None:
        """Computes an operation.

        Args:
            operation: The ONNX operation, such as "Gather".
            inputs: Its inputs; None for one that is absent.
            attributes: Its attributes.
            outputs: How many outputs it has.

        Returns:
            The results, or None if the operation is not supported.

        Raises:
            FormatError: The inputs do not fit, or the budget is exceeded.
        """
        rule = _RULES.get(operation)
        if rule is None:
            return None
        given = [i for i in inputs if i is not None]
        self._take(_size(operation, given))
        try:
            with np.errstate(all="ignore"):
                made = (
                    _split(attributes, outputs, *inputs)
                    if operation == "Split"
                    else rule(attributes, *inputs)
                )
                results = [np.asarray(each) for each in (made if isinstance(made, list) else [made])]
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
            raise FormatError(
                f"the constant operation {operation} has inputs that do not fit: {error}"
            ) from error
        if any(each.ndim > _MOST_AXES or each.dtype.kind not in "biuf" for each in results):
            raise FormatError(f"the constant operation {operation} does not give a plain array")
        return results

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise FormatError("its constants would take far more memory than the file")


def _split(attributes: Attributes, outputs: int, x: Any, split: Any = None) -> list[Array]:
    axis, given = int(attributes.get("axis", 0)), attributes.get("split")
    given = given if split is None else np.asarray(split).reshape(-1).tolist()
    each = -(-x.shape[axis] // int(attributes.get("num_outputs") or outputs))
    ends = np.cumsum(given)[:-1] if given is not None else np.arange(each, x.shape[axis], each)
    return list(np.split(x, ends, axis))


def _size(operation: str, given: Sequence[Array]) -> int:
    """An upper bound of the number of values in the result."""
    if operation in ("ConstantOfShape", "Expand"):
        sizes = np.asarray(given[-1] if given else 0).reshape(-1)[:_MOST_AXES].tolist()
        return math.prod(max(int(n), 1) for n in sizes) * (given[0].size if operation == "Expand" else 1)
    if operation == "Tile" and len(given) > 1:
        return given[0].size * math.prod(max(int(n), 1) for n in given[1].reshape(-1)[:_MOST_AXES].tolist())
    if operation == "MatMul" and len(given) == 2:
        return math.prod(given[0].shape[:-1]) * given[1].size
    if operation == "Range":
        start, stop, step = (float(np.asarray(g).reshape(-1)[0]) for g in given[:3])
        return int(min(abs((stop - start) / (step or 1)) + 1, 1e15))
    if operation == "Gather" and len(given) == 2:
        first = given[0]
        return given[1].size * max(first.size // max(min(first.shape, default=1), 1), 1)
    if operation in _BINARY or operation == "Where":
        try:
            return math.prod(np.broadcast_shapes(*(g.shape for g in given)))
        except ValueError:
            return 0
    return sum(g.size for g in given)


def _expand(attributes: Attributes, x: Array, shape: Array) -> Array:
    sizes = tuple(int(n) for n in shape)
    for axis, n in enumerate(sizes[::-1], 1):
        # A file with a fixed batch size repeats by the batch of its input what it also holds for that size.
        if n == BATCH and axis <= x.ndim and x.shape[-axis] not in (1, BATCH):
            one = x.take([0], -axis)
            x = one if np.array_equal(x, np.broadcast_to(one, x.shape)) else x
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, sizes))


def _axes(attributes: Attributes, axes: Any) -> list[int]:
    values = attributes.get("axes") if axes is None else np.asarray(axes).reshape(-1).tolist()
    return [] if values is None else [int(a) for a in values]


def _unsqueeze(attributes: Attributes, x: Array, axes: Any = None) -> Array:
    return np.expand_dims(x, tuple(_axes(attributes, axes)))


def _squeeze(attributes: Attributes, x: Array, axes: Any = None) -> Array:
    chosen = _axes(attributes, axes)
    return np.squeeze(x, tuple(chosen)) if chosen else np.squeeze(x)


def _slice(attributes: Attributes, x: Array, *given: Any) -> Array:
    listed = [attributes.get("starts"), attributes.get("ends"), attributes.get("axes"), None]
    for index, value in enumerate(given):
        listed[index] = None if value is None else np.asarray(value).reshape(-1).tolist()
    starts, ends = listed[0] or [], listed[1] or []
    axes, steps = listed[2] or range(len(starts)), listed[3] or [1] * len(starts)
    places: list[Any] = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        stop = None if step < 0 and end < -x.shape[axis] else int(end)
        places[axis] = slice(int(start), stop, int(step))
    return np.asarray(x[tuple(places)])


def _reshape(attributes: Attributes, x: Array, shape: Array) -> Array:
    sizes = [int(n) for n in np.asarray(shape).reshape(-1)]
    if not attributes.get("allowzero"):
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    return x.reshape(sizes)


def _constant_of_shape(attributes: Attributes, shape: Array) -> Array:
    value = attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else np.asarray(value)
    sizes = [int(n) for n in np.asarray(shape).reshape(-1)]
    return np.broadcast_to(fill.reshape(-1)[:1].reshape((1,) * len(sizes)), sizes)


def _divide(attributes: Attributes, a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        return np.asarray(np.where(b == 0, 0, np.trunc(a / np.where(b == 0, 1, b)))).astype(a.dtype)
    return np.asarray(a / b)


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(attributes: Attributes, x: Array, axes: Any = None) -> Array:
        chosen, keep = _axes(attributes, axes), bool(attributes.get("keepdims", 1))
        if not chosen and attributes.get("noop_with_empty_axes"):
            return x
        result = np.asarray(function(x, axis=tuple(chosen) or None, keepdims=keep))
        return result.astype(x.dtype)

    return rule


def _triangle(attributes: Attributes, x: Array, k: Any = 0) -> Array:
    diagonal = int(np.asarray(k).reshape(-1)[0])
    return np.triu(x, diagonal) if attributes.get("upper", 1) else np.tril(x, diagonal)


def _scatter(attributes: Attributes, x: Array, indices: Array, updates: Array) -> Array:
    if attributes.get("reduction", "none") != "none":
        raise ValueError(f"its reduction is {attributes['reduction']}, only none is read")
    result = np.array(x)
    result[tuple(np.moveaxis(indices.astype(np.int64), -1, 0))] = updates
    return result


def _gather_nd(attributes: Attributes, x: Array, indices: Array) -> Array:
    if attributes.get("batch_dims", 0):
        raise ValueError("its batch_dims are not 0")
    return np.asarray(x[tuple(np.moveaxis(indices.astype(np.int64), -1, 0))])


def _transpose(attributes: Attributes, x: Array) -> Array:
    return np.transpose(x, attributes.get("perm"))


_BINARY: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Equal": np.equal,
    "Less": np.less,
    "Greater": np.greater,
    "LessOrEqual": np.less_equal,
    "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Mod": np.mod,
    "Div": np.divide,
    "Pow": np.power,
}
_UNARY: dict[str, Callable[..., Any]] = {
    "Identity": np.asarray,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Neg": np.negative,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Abs": np.abs,
    "Reciprocal": np.reciprocal,
    "Not": np.logical_not,
    "Log": np.log,
    "Tanh": np.tanh,
    "Erf": erf,
    "Relu": lambda x: np.maximum(x, 0),
    "Sign": np.sign,
    "Cos": np.cos,
    "Sin": np.sin,
    "Round": np.rint,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda attributes, *inputs: function(*inputs)


_RULES: dict[str, Callable[..., Any]] = {
    **{name: _plain(function) for name, function in (*_BINARY.items(), *_UNARY.items())},
    "Div": _divide,
    "Cast": lambda attributes, x: x.astype(_DTYPES[attributes["to"]]),
    "Concat": lambda attributes, *parts: np.concatenate(parts, attributes["axis"]),
    "Gather": lambda attributes, x, i: np.take(x, i.astype(np.int64), attributes.get("axis", 0)),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Slice": _slice,
    "Reshape": _reshape,
    "Flatten": lambda attributes, x: x.reshape(math.prod(x.shape[: attributes.get("axis", 1)]), -1),
    "Transpose": _transpose,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Range": lambda attributes, a, b, step: np.arange(
        a.reshape(-1)[0], b.reshape(-1)[0], step.reshape(-1)[0]
    ),
    "Where": lambda attributes, condition, a, b: np.where(condition, a, b),
    "Shape": lambda attributes, x: np.array(
        x.shape[attributes.get("start", 0) : attributes.get("end", x.ndim)], np.int64
    ),
    "Size": lambda attributes, x: np.array(x.size, np.int64),
    "Min": lambda attributes, *parts: reduce(np.minimum, parts),
    "Max": lambda attributes, *parts: reduce(np.maximum, parts),
    "Sum": lambda attributes, *parts: reduce(np.add, parts),
    "ReduceProd": _reduction(np.prod),
    "ReduceSum": _reduction(np.sum),
    "ReduceMax": _reduction(np.max),
    "ReduceMin": _reduction(np.min),
    "ReduceMean": _reduction(np.mean),
    "Split": _split,
    "Tile": lambda attributes, x, repeats: np.tile(x, repeats.reshape(-1).tolist()),
    "MatMul": lambda attributes, a, b: np.matmul(a, b),
    "CastLike": lambda attributes, x, like: x.astype(like.dtype),
    "Trilu": _triangle,
    "ScatterND": _scatter,
    "GatherND": _gather_nd,
    "DequantizeLinear": dequantised,
}
