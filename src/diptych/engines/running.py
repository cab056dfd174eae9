"""What every engine that walks the layers itself shares: taking a batch in, and going through the tree."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeVar

import numpy as np

from diptych.errors import ShapeError, UsageError
from diptych.model.layers import Array, Chain, Connection, Layer, Parallel, SkipConnection
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes

__all__ = ["CONTAINERS", "admit", "run"]

CONTAINERS: tuple[type[Layer], ...] = (Chain, SkipConnection, Parallel)

Value = TypeVar("Value")  # an array of the engine's own kind
Concatenate = Callable[[Sequence[Any], int], Any]

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "multiply": operator.mul,
    "subtract": operator.sub,
}


def _pairwise(operation: str, maximum: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return maximum if operation == "maximum" else _OPERATORS[operation]


def admit(model: Model, batch: Any) -> Array:
    """`batch` as a C-contiguous float32 array that fits `model`; the same array where it is one already.

    Raises `UsageError` where it holds no real numbers, `ShapeError` where it is empty or does not fit.
    """
    array = np.asarray(batch)
    if array.dtype.kind not in "biuf":
        raise UsageError(f"a batch is an array of real numbers, got dtype {array.dtype}; convert it first")
    if array.ndim < 2 or array.size == 0:
        raise ShapeError(f"a batch has the shape (N, C, ...) with no empty axis, got {array.shape}")
    layer_shapes(model, array.shape)
    with np.errstate(over="ignore"):  # a float64 beyond float32's range becomes infinite, as in every engine
        return np.ascontiguousarray(array, dtype=np.float32)


def run(
    layer: Layer,
    value: Value,
    leaf: Callable[[Layer, Value], Value],
    concatenate: Concatenate,
    maximum: Callable[[Any, Any], Any],
    record: Callable[[str, Value], None] | None = None,
    path: str = "",
) -> Value:
    """`layer(value)`: containers are unfolded here, any other layer goes to `leaf`.

    `record` is told the path and the output of every layer, those inside a container before it.
    """

    def child(index: int, argument: Value) -> Value:
        child_path = f"{path}.{index}" if path else str(index)
        return run(layer.children[index], argument, leaf, concatenate, maximum, record, child_path)

    if isinstance(layer, Chain):
        result = value
        for index in range(len(layer.layers)):
            result = child(index, result)
    elif isinstance(layer, SkipConnection):
        result = _joined(layer.connection, [child(0, value), value], concatenate, maximum)
    elif isinstance(layer, Parallel):
        outputs = [child(index, value) for index in range(len(layer.branches))]
        result = _joined(layer.connection, outputs, concatenate, maximum)
    else:
        result = leaf(layer, value)
    if record is not None and path:
        record(path, result)
    return result


def _joined(
    connection: Connection,
    values: Sequence[Any],
    concatenate: Concatenate,
    maximum: Callable[[Any, Any], Any],
) -> Any:
    if connection.operation == "concatenate":
        return concatenate(values, connection.axis)
    return reduce(_pairwise(connection.operation, maximum), values)
