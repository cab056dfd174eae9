"""Julia's array wrappers, ranges and parameter lists as plain NumPy arrays.

The readers keep a `Transpose` or a `SubArray` as a struct; this module computes the array that it stands for. The
positions of the fields are those in Base and LinearAlgebra of Julia 1.0 to 1.12.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.errors import FormatError
from diptych.formats.julia import JuliaStruct, Unreadable
from diptych.formats.julia.elements import layout

__all__ = ["as_array", "parameters_in_order"]

Array = NDArray[Any]
_DEEPEST = 16  # a view of a view of ...
_LARGEST = 1 << 28  # the most elements that a range or a sparse matrix may expand to


def as_array(value: Any) -> Array | None:
    """The array that a Julia value stands for.

    Transpose, Adjoint, ReshapedArray, SubArray and PermutedDimsArray give views of their parent where possible.
    Ranges, Diagonal, BitArray, one-hot and sparse matrices are expanded. A TrackedArray (Flux 0.9 and before) gives
    its data.

    Returns:
        An array of Julia's shape, or None if the value is not an array.

    Raises:
        FormatError: If the fields contradict each other, or the file does not hold the numbers.
    """
    return _array(value, 0)


def _array(value: Any, depth: int) -> Array | None:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Unreadable):
        raise FormatError(f"cannot read an array: {value.reason}")
    if not isinstance(value, JuliaStruct) or value.type.name not in _WRAPPERS:
        return None
    if depth > _DEEPEST:
        raise FormatError(
            f"a {value.type.name} wraps more than {_DEEPEST} other arrays; save the plain Array"
        )
    try:
        return _WRAPPERS[value.type.name](value, depth + 1)
    except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError) as error:
        raise FormatError(
            f"a {value.type.name} cannot be read: its {len(value.fields)} fields contradict each other; "
            "save Array(x) in Julia instead"
        ) from error


def _parent(value: JuliaStruct, depth: int, index: int = 0) -> Array:
    found = _array(value.fields[index], depth)
    if found is None:
        raise ValueError("no array inside")
    return found


def _transpose(value: JuliaStruct, depth: int) -> Array:
    parent = _parent(value, depth)
    # The transpose of a vector is a matrix of one row.
    return parent[np.newaxis, :] if parent.ndim == 1 else parent.T


def _adjoint(value: JuliaStruct, depth: int) -> Array:
    made = _transpose(value, depth)
    return made.conj() if np.iscomplexobj(made) else made


def _reshaped(value: JuliaStruct, depth: int) -> Array:
    return _parent(value, depth).reshape(tuple(map(int, value.fields[1])), order="F")


def _permuted(value: JuliaStruct, depth: int) -> Array:
    order = value.type.parameters[2]
    return _parent(value, depth).transpose([int(axis) - 1 for axis in order])


def _view(value: JuliaStruct, depth: int) -> Array:
    parent = _parent(value, depth)
    indices = tuple(_index(index, depth) for index in value.fields[1])
    if len(indices) == 1 and parent.ndim != 1:
        parent = parent.reshape(-1, order="F")
    if len(indices) != parent.ndim:
        raise ValueError("as many indices as axes")
    for axis in reversed(range(len(indices))):
        parent = _along(parent, axis, indices[axis])
    return parent


def _index(index: Any, depth: int) -> int | Array:
    if isinstance(index, (int, np.integer)):
        return int(index) - 1
    if isinstance(index, JuliaStruct) and index.type.name == "Slice":
        index = index.fields[0]
    found = _array(index, depth)
    if found is None or found.ndim != 1:
        raise ValueError("an index that is neither a number nor a range")
    return found - 1


def _along(array: Array, axis: int, index: int | Array) -> Array:
    if isinstance(index, int):
        if not 0 <= index < array.shape[axis]:
            raise IndexError(index)
        return array[(slice(None),) * axis + (index,)]
    if index.size and (index.min() < 0 or index.max() >= array.shape[axis]):
        raise IndexError("out of bounds")
    step = int(index[1] - index[0]) if index.size > 1 else 1
    if index.size and step > 0 and np.array_equal(index, np.arange(index[0], index[-1] + 1, step)):
        return array[(slice(None),) * axis + (slice(int(index[0]), int(index[-1]) + 1, step),)]
    return array.take(index, axis)


def _bits(value: JuliaStruct, depth: int) -> Array:
    """A BitArray, with 64 bits to a chunk. Julia never sets the `dims` of a BitVector, so `len` is its length."""
    chunks, length, sizes = _parent(value, depth), int(value.fields[1]), value.fields[2]
    if length < 0 or length > chunks.size * 64:
        raise ValueError("more bits than chunks hold")
    flat = np.unpackbits(chunks.astype("<u8").view(np.uint8), bitorder="little")[:length].astype(bool)
    return flat if len(sizes) == 1 else flat.reshape(tuple(map(int, sizes)), order="F")


def _tracked(value: JuliaStruct, depth: int) -> Array:
    return _parent(value, depth, 1)


def _reinterpreted(value: JuliaStruct, depth: int) -> Array:
    """The same bytes as another type. The first axis shrinks or grows as the elements become larger or smaller."""
    parent, dtype = _parent(value, depth), layout(value.type.parameters[0])
    if dtype is None or parent.ndim == 0:
        raise ValueError("an unknown element type")
    flat = parent.reshape(-1, order="F").view(dtype)
    return flat.reshape((-1, *parent.shape[1:]), order="F")


def _diagonal(value: JuliaStruct, depth: int) -> Array:
    return np.diag(_bounded_square(_parent(value, depth)))


def _bounded_square(diagonal: Array) -> Array:
    _bounded(diagonal.size**2)
    return diagonal


def _bounded(count: int) -> int:
    if not 0 <= count <= _LARGEST:
        raise ValueError("too many elements")
    return count


def _unit_range(value: JuliaStruct, depth: int) -> Array:
    start, stop = value.fields[:2]
    _bounded(max(0, int(stop) - int(start) + 1))
    return np.arange(start, stop + 1)


def _one_to(value: JuliaStruct, depth: int) -> Array:
    return np.arange(1, _bounded(int(value.fields[0])) + 1)


def _step_range(value: JuliaStruct, depth: int) -> Array:
    start, step, stop = (int(number) for number in value.fields[:3])
    _bounded(max(0, (stop - start) // step + 1))
    return np.arange(start, stop + (1 if step > 0 else -1), step)


def _step_range_len(value: JuliaStruct, depth: int) -> Array:
    reference, step, length, offset = value.fields[:4]
    steps = np.arange(_bounded(int(length))) + 1 - int(offset)
    return np.asarray(_twice(reference) + steps * _twice(step))


def _twice(number: Any) -> float:
    """A number, or the sum of the two halves of a TwicePrecision."""
    return float(sum(map(float, number.fields))) if isinstance(number, JuliaStruct) else float(number)


def _one_hot(value: JuliaStruct, depth: int) -> Array:
    labels, first = int(value.fields[1]), value.fields[0]
    hot = np.asarray(first if not isinstance(first, JuliaStruct) else _parent(value, depth))
    _bounded(labels * hot.size)
    return np.asarray(np.arange(1, labels + 1).reshape((labels,) + (1,) * hot.ndim) == hot[np.newaxis])


def _sparse(value: JuliaStruct, depth: int) -> Array:
    """A SparseMatrixCSC, whose fields are rows, columns, the start of each column, the row of each value, values."""
    rows, columns = (int(number) for number in value.fields[:2])
    starts, places, values = (_parent(value, depth, index) for index in (2, 3, 4))
    _bounded(rows * columns)
    if starts.size != columns + 1 or places.size != values.size:
        raise ValueError("columns")
    column_of = np.repeat(np.arange(columns), np.diff(starts))[: values.size]
    dense = np.zeros((rows, columns), values.dtype, order="F")
    dense[places[: column_of.size] - 1, column_of] = values[: column_of.size]
    return dense


def _zeros(value: JuliaStruct, depth: int) -> Array:
    """The `Zeros` of Flux 0.11, an array without memory. That of Flux 0.12 has no size and is not an array."""
    sizes = tuple(map(int, value.fields[0]))
    _bounded(math.prod(sizes))
    return np.zeros(sizes, np.float32)


_WRAPPERS: dict[str, Callable[[JuliaStruct, int], Array]] = {
    "Adjoint": _adjoint,
    "BitArray": _bits,
    "Diagonal": _diagonal,
    "OneHotArray": _one_hot,
    "OneTo": _one_to,
    "PermutedDimsArray": _permuted,
    "ReinterpretArray": _reinterpreted,
    "ReshapedArray": _reshaped,
    "SparseMatrixCSC": _sparse,
    "StepRange": _step_range,
    "StepRangeLen": _step_range_len,
    "SubArray": _view,
    "TrackedArray": _tracked,
    "Transpose": _transpose,
    "UnitRange": _unit_range,
}


def parameters_in_order(value: Any) -> list[Any] | None:
    """The arrays of a `Flux.params(model)` in order, or None if the value is not a `Zygote.Params`.

    A `Zygote.Params` holds a Buffer with the arrays in order, and an unordered IdSet of the same arrays. Before Zygote
    0.5.3 its first field was the plain vector.
    """
    if not isinstance(value, JuliaStruct) or value.type.name != "Params" or not value.fields:
        return None
    order = value.fields[0]
    if isinstance(order, JuliaStruct) and order.fields:
        order = order.fields[0]
    return list(order) if isinstance(order, list) else None
