"""Functions of Julia on what does not depend on the numbers of the input: numbers, sizes, tuples and arrays."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from diptych.formats.julia.expressions import Name
from diptych.formats.julia.lowering.sizes import Dim, divided, plus, product
from diptych.formats.julia.lowering.values import COLON, array_of, is_number, whole, wholes

__all__ = ["FOLDED", "NotConstant", "folded"]

_LONGEST = 4096


class NotConstant(Exception):
    """The function is not computed for these arguments."""


def folded(name: str, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """The value of a function of constants. Raises `NotConstant`."""
    rule = FOLDED.get(name)
    if rule is None or (keywords and name not in ("zeros", "ones")):
        raise NotConstant
    try:
        with np.errstate(all="ignore"):
            return rule(*arguments, **keywords)
    except (TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError, AttributeError) as error:
        raise NotConstant from error


def _sizes(values: Sequence[Any]) -> bool:
    return all(whole(v) is not None or isinstance(v, Dim) for v in values)


def _arithmetic(
    operation: Callable[[Any, Any], Any], of_sizes: Callable[[Any, Any], Any]
) -> Callable[..., Any]:
    def two(a: Any, b: Any) -> Any:
        if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
            return tuple(map(two, a, b))
        if isinstance(a, Dim) or isinstance(b, Dim):
            return _known(of_sizes(a, b) if _sizes((a, b)) else None)
        if is_number(a) and is_number(b):
            return _plain(operation(_number(a), _number(b)))
        left, right = array_of(a), array_of(b)
        if left is None or right is None:
            raise NotConstant
        return np.asarray(operation(left, right))

    return lambda *values: reduce(two, values) if len(values) > 1 else _alone(values[0], operation)


def _alone(value: Any, operation: Callable[[Any, Any], Any]) -> Any:
    if operation is operator.sub:
        return -value
    return value


def _number(value: Any) -> Any:
    if isinstance(value, (bool, np.bool_, np.integer)):
        return int(value)
    return value if isinstance(value, int) else float(value)


def _plain(value: Any) -> Any:
    if isinstance(value, complex) or (isinstance(value, int) and abs(value) >= 2**63):
        raise NotConstant
    return value


def _known(value: Any) -> Any:
    if value is None:
        raise NotConstant
    return value


def _whole_division(a: Any, b: Any) -> Any:
    if isinstance(a, Dim) or isinstance(b, Dim):
        return _known(divided(a, b))
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _compared(operation: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(a: Any, b: Any) -> bool:
        if operation in (operator.eq, operator.ne) and isinstance(a, (tuple, str)) and type(a) is type(b):
            if not _sizes(a if isinstance(a, tuple) else ()):
                raise NotConstant
            return bool(operation(a, b))
        if not (is_number(a) and is_number(b)):
            raise NotConstant
        return bool(operation(a, b))

    return compare


def _index(owner: Any, *indices: Any) -> Any:
    if len(indices) != 1 or not isinstance(owner, (tuple, range)):
        raise NotConstant
    (index,) = indices
    if index == COLON:
        return owner
    if isinstance(index, (tuple, range)):
        return tuple(_index(owner, i) for i in index)
    place = whole(index)
    if place is None or not 1 <= place <= len(owner):
        raise NotConstant
    return owner[place - 1]


def _range(low: Any, middle: Any, high: Any = None) -> Any:
    step, stop = (1, middle) if high is None else (middle, high)
    numbers = wholes((low, step, stop))
    if numbers is None or numbers[1] == 0:
        raise NotConstant
    made = range(numbers[0], numbers[2] + (1 if numbers[1] > 0 else -1), numbers[1])
    if len(made) > _LONGEST:
        raise NotConstant
    return tuple(made)


def _listed(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, range)):
        raise NotConstant
    return tuple(value)


def _of_numbers(
    function: Callable[[float], float], elementwise: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    def apply(value: Any) -> Any:
        if is_number(value):
            return function(value)
        array = array_of(value)
        if array is None:
            raise NotConstant
        return elementwise(array)

    return apply


def _converted(*arguments: Any) -> Any:
    return arguments[-1] if is_number(arguments[-1]) or array_of(arguments[-1]) is not None else _known(None)


def _rounded(function: Callable[[float], int]) -> Callable[..., Any]:
    return lambda *a: function(a[-1]) if isinstance(a[0], Name) else float(function(a[-1]))


def _filled(value: float) -> Callable[..., Any]:
    def make(*sizes: Any) -> Any:
        numbers = wholes(sizes[1:] if isinstance(sizes[0], Name) else sizes)
        if numbers is None or math.prod(numbers) > 2**22:
            raise NotConstant
        return np.full(numbers[::-1], value, np.float32)

    return make


def _size(value: Any, axis: Any = None) -> Any:
    if not isinstance(value, np.ndarray):
        raise NotConstant
    sizes = value.shape[::-1]
    return sizes if axis is None else sizes[axis - 1] if axis <= len(sizes) else 1


def _all(values: Any) -> Any:
    if isinstance(values, tuple) and all(isinstance(v, bool) for v in values):
        return all(values)
    raise NotConstant


def _unwrapped(value: Any) -> Any:
    return value


def _reshaped(array: Any, *sizes: Any) -> Any:
    given = sizes[0] if isinstance(sizes[0], tuple) else sizes
    numbers = wholes(tuple(-1 if size == COLON else size for size in given))
    return array.reshape(_known(numbers)[::-1])


FOLDED: dict[str, Callable[..., Any]] = {
    "+": _arithmetic(operator.add, plus),
    "-": _arithmetic(operator.sub, lambda a, b: a if b == 0 else 0 if a == b else None),
    "*": _arithmetic(operator.mul, lambda a, b: product((a, b))),
    "/": _arithmetic(operator.truediv, divided),
    "^": _arithmetic(operator.pow, lambda a, b: product([a] * b) if isinstance(b, int) and 0 < b < 9 else None),
    "÷": _whole_division, "div": _whole_division, "fld": _whole_division,
    "cld": lambda a, b: -(-a // b), "%": math.fmod, "rem": math.fmod, "mod": lambda a, b: a % b,
    ">": _compared(operator.gt), "<": _compared(operator.lt), ">=": _compared(operator.ge),
    "<=": _compared(operator.le), "==": _compared(operator.eq), "!=": _compared(operator.ne),
    "≥": _compared(operator.ge), "≤": _compared(operator.le), "≠": _compared(operator.ne),
    "===": _compared(operator.eq), "!==": _compared(operator.ne),
    "!": lambda a: not a if isinstance(a, bool) else _known(None),
    "&": lambda a, b: a and b if isinstance(a, bool) and isinstance(b, bool) else _known(None),
    "|": lambda a, b: a or b if isinstance(a, bool) and isinstance(b, bool) else _known(None),
    "max": lambda *v: max(v) if all(map(is_number, v)) else _known(None),
    "min": lambda *v: min(v) if all(map(is_number, v)) else _known(None),
    "prod": lambda v: product(_listed(v)), "sum": lambda v: reduce(lambda a, b: _known(plus(a, b)), _listed(v)),
    "length": lambda v: len(_listed(v)) if isinstance(v, tuple) else v.size,
    "first": lambda v: _listed(v)[0], "last": lambda v: _listed(v)[-1], "lastindex": lambda v: len(_listed(v)),
    "firstindex": lambda v: 1, "getindex": _index, "reverse": lambda v: _listed(v)[::-1], "tail": lambda v: v[1:],
    "front": lambda v: v[:-1], ":": _range, "vect": lambda *v: v, "collect": _unwrapped, "Tuple": _listed,
    "tuple": lambda *v: v, "vcat": lambda *v: tuple(i for p in v for i in (p if isinstance(p, tuple) else (p,))),
    "sqrt": _of_numbers(math.sqrt, np.sqrt), "exp": _of_numbers(math.exp, np.exp), "log": _of_numbers(math.log, np.log),
    "abs": _of_numbers(abs, np.abs), "abs2": _of_numbers(lambda x: x * x, np.square), "float": _unwrapped,
    "inv": lambda a: 1 / a, "Float32": _converted, "Float64": _converted, "convert": _converted, "oftype": _converted,
    "eltype": lambda a: Name("Float32"), "Int": lambda a: int(a) if a == int(a) else _known(None),
    "floor": _rounded(math.floor), "ceil": _rounded(math.ceil), "round": _rounded(round), "trunc": _rounded(math.trunc),
    "zeros": _filled(0), "ones": _filled(1), "size": _size, "ndims": lambda a: a.ndim, "Val": _unwrapped,
    "all": _all, "identity": _unwrapped, "transpose": lambda a: a.T, "adjoint": lambda a: a.T,
    "reshape": _reshaped, "vec": lambda a: a.reshape(-1),
    "isnothing": lambda a: a is None, "iseven": lambda a: a % 2 == 0, "isodd": lambda a: a % 2 == 1,
}  # fmt: skip
