"""Julia's values for the interpreter: promotion, operators, broadcasting, 1-based indices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "COLON",
    "ELEMENTWISE",
    "OPERATORS",
    "JuliaError",
    "aligned",
    "broadcast",
    "index",
    "plain",
    "put",
    "vector",
]

COLON = slice(None)


class JuliaError(Exception):
    """What Julia, or a program in it, would raise."""


# ---- Numbers --------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """NumPy's integers and booleans as Python's, so that Int is int."""
    if isinstance(value, np.bool_):
        return bool(value)
    return int(value) if isinstance(value, np.int64) else value


def promoted(a: Any, b: Any) -> tuple[Any, Any]:
    """Two operands as Julia promotes them: Int meets Float32 as Float32, UInt8 meets Int as Int."""

    def kind(v: Any) -> str:
        if isinstance(v, bool | np.bool_):
            return "bool"
        return "int64" if isinstance(v, int) else str(getattr(v, "dtype", type(v).__name__))

    ranks = ["bool", "uint8", "int64", "float32", "float64"]
    top = max(kind(a), kind(b), key=ranks.index)
    if top == "bool":
        return a, b

    def cast(v: Any) -> Any:
        if kind(v) == top:
            return v
        if isinstance(v, np.ndarray):
            return v.astype(top)
        return int(v) if top == "int64" else np.dtype(top).type(v)

    return cast(a), cast(b)


def aligned(values: list[Any]) -> list[Any]:
    """Arrays with the axes that are missing added at the end, as Julia broadcasts."""
    arrays = [np.asarray(v) if isinstance(v, list | tuple | range) else v for v in values]
    rank = max((a.ndim for a in arrays if isinstance(a, np.ndarray)), default=0)
    return [a.reshape(a.shape + (1,) * (rank - a.ndim)) if isinstance(a, np.ndarray) else a for a in arrays]


def _divide(a: Any, b: Any) -> Any:
    a, b = promoted(a, b)
    if isinstance(a, int):
        a, b = np.float64(a), np.float64(b)
    return a / b


def _times(a: Any, b: Any) -> Any:
    if isinstance(a, str):
        return a + b
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a @ b
    a, b = promoted(a, b)
    return a * b


def _numeric(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def apply(a: Any, b: Any) -> Any:
        return plain(operation(*promoted(a, b)))

    return apply


def _equal(a: Any, b: Any) -> Any:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return a.shape == np.shape(b) and bool((a == b).all())
    return a == b


def _power(a: Any, b: Any) -> Any:
    return a * b if isinstance(a, str) else plain(a**b)


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": _numeric(lambda a, b: a + b), "-": _numeric(lambda a, b: a - b), "*": _times, "/": _divide, "^": _power,
    "<": _numeric(lambda a, b: a < b), "<=": _numeric(lambda a, b: a <= b), ">": _numeric(lambda a, b: a > b),
    ">=": _numeric(lambda a, b: a >= b), "==": _equal, "!=": lambda a, b: not _equal(a, b),
    "===": lambda a, b: a is b, "!==": lambda a, b: a is not b, "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b, "in": lambda a, b: a in b, "=>": lambda a, b: (a, b),
    "isa": isinstance, "%": lambda a, b: a % b,
}  # fmt: skip
ELEMENTWISE = {**OPERATORS, "*": _numeric(lambda a, b: a * b), "==": _numeric(lambda a, b: a == b)}


def broadcast(function: Any, arguments: list[Any]) -> Any:
    """`f.(a, b)`: whole arrays at once where the function can, else value by value."""
    arguments = aligned(arguments)
    if not any(isinstance(a, np.ndarray) for a in arguments):
        return function(*arguments)
    if getattr(function, "vector", False):
        return function(*arguments)
    shape = np.broadcast_shapes(*[a.shape for a in arguments if isinstance(a, np.ndarray)])
    columns = [
        np.broadcast_to(a, shape).ravel() if isinstance(a, np.ndarray) else [a] * int(np.prod(shape))
        for a in arguments
    ]
    values = [function(*map(plain, row)) for row in zip(*columns, strict=True)]
    return vector(values).reshape(shape)


def vector(values: list[Any]) -> Any:
    """A comprehension's result: an array of numbers, else a list."""
    values = [plain(v) for v in values]
    if not values or any(not isinstance(v, int | float | np.number) for v in values):
        return values
    kinds = {type(v) for v in values}
    dtype = {int: np.int64, bool: np.bool_, float: np.float64}
    if len(kinds) > 1:
        raise JuliaError(f"a vector of mixed types {kinds}")
    kind = kinds.pop()
    return np.array(values, dtype.get(kind, kind))


# ---- Indices --------------------------------------------------------------------------------------------


def index(array: Any, places: list[Any]) -> Any:
    if array is not None and isinstance(array, type):  # Int[], Float64[]
        return []
    if isinstance(array, dict):
        return array[places[0]]
    if not isinstance(array, np.ndarray):
        place = places[0]
        if isinstance(place, range):
            return array[place.start - 1 : place.stop - 1]
        _inside(place, len(array))
        return array[place - 1]
    if len(places) == 1 and array.ndim > 1:
        array = array.reshape(-1, order="F")
    for place in places[array.ndim :]:
        if not (place == 1 if isinstance(place, int) else True):
            raise JuliaError("BoundsError")
    axis = 0
    for place in places[: array.ndim]:
        if isinstance(place, int):
            _inside(place, array.shape[axis])
            array = array[(slice(None),) * axis + (place - 1,)]
            continue
        if place is not COLON:
            wanted = np.asarray(place)
            for p in wanted.ravel():
                _inside(int(p), array.shape[axis])
            array = np.take(array, wanted - 1, axis)
            axis += wanted.ndim - 1
        axis += 1
    return plain(array) if np.ndim(array) == 0 else array


def _inside(place: int, length: int) -> None:
    if not 1 <= place <= length:
        raise JuliaError(f"BoundsError: {place} of {length}")


def put(array: Any, places: list[Any], value: Any) -> None:
    if isinstance(array, dict):
        array[places[0]] = value
        return
    if not isinstance(array, np.ndarray):
        array[places[0] - 1] = value
        return
    at = []
    for axis, place in enumerate(places):
        if isinstance(place, int):
            _inside(place, array.shape[axis])
            at.append(slice(place - 1, place))
        elif isinstance(place, range):
            _inside(place.start, array.shape[axis])
            _inside(place.stop - 1, array.shape[axis])
            at.append(slice(place.start - 1, place.stop - 1))
        else:
            at.append(slice(None))
    target = array[tuple(at)]
    if isinstance(value, np.ndarray):
        value = value.reshape(target.shape, order="F")
    elif array.dtype == np.uint8 and not isinstance(value, np.uint8) and value != int(value):
        raise JuliaError("InexactError")
    target[...] = value
