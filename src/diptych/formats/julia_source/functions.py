"""The functions and names of Julia, Flux and NNlib that source may use, apart from layers.

A function is a value by its name, as in a file; those in `COMPUTED` are also computed, of numbers and tuples.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.formats.flux.functions import function
from diptych.formats.julia import UNDEFINED, JuliaStruct, JuliaType, NamedTuple, Symbol
from diptych.formats.julia.lowered import READABLE
from diptych.formats.julia_source.values import (
    Built,
    Constructor,
    Module,
    NotUnderstood,
    Own,
    Pair,
    Unknown,
    WrittenFunction,
)

__all__ = ["COMPUTED", "NAMES", "Random", "function_name", "name_value"]

_LONGEST = 4096
_MODULES = frozenset(
    ("Base", "CUDA", "Core", "Flux", "Functors", "LinearAlgebra", "Lux", "LuxCore", "MLUtils", "Main", "NNlib",
     "Statistics", "Zygote", "Random", "Boltz", "Metalhead", "Optimisers", "Math", "MLDataDevices", "LuxLib")
)  # fmt: skip


@dataclass(frozen=True)
class Random:
    """Numbers that are drawn when the file runs: only their shape is known."""

    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"an array of {'×'.join(map(str, self.shape)) or 'one number'}"


# ---- What is computed -----------------------------------------------------------------------------------


def _divided(a: Any, b: Any) -> Any:
    return math.trunc(a / b) if isinstance(a, float) or isinstance(b, float) else _toward_zero(a, b)


def _toward_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _plus(*values: Any) -> Any:
    return _elementwise(operator.add, values)


def _elementwise(operation: Callable[[Any, Any], Any], values: tuple[Any, ...]) -> Any:
    made = values[0]
    for value in values[1:]:
        made = _two(operation, made, value)
    return made


def _two(operation: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return tuple(operation(x, y) for x, y in zip(a, b, strict=True))
    return _number(operation(_real(a), _real(b)))


def _real(value: Any) -> Any:
    if isinstance(value, (int, float, np.number, np.bool_)):
        return value
    raise NotUnderstood("it computes with something other than a number")


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, np.integer) else value


def _short(text: str) -> str:
    if len(text) > _LONGEST:
        raise NotUnderstood(f"it is a text of more than {_LONGEST} characters")
    return text


def _times(*values: Any) -> Any:
    if all(isinstance(v, str) for v in values):
        return _short("".join(values))
    return _elementwise(lambda a, b: a * b, values)


def _minus(*values: Any) -> Any:
    return -_real(values[0]) if len(values) == 1 else _elementwise(lambda a, b: a - b, values)


def _over(a: Any, b: Any) -> Any:
    return _real(a) / _real(b)


def _power(a: Any, b: Any) -> Any:
    _real(a), _real(b)
    if isinstance(a, int) and isinstance(b, int):
        if b < 0 or (abs(a) > 1 and b > 63):
            raise NotUnderstood("it is out of range")
        return a**b
    return float(a) ** float(b)


def _prod(items: Any) -> Any:
    made: Any = 1
    for item in _listed(items):
        made = made * _real(item)
    return made


def _listed(items: Any) -> list[Any]:
    if isinstance(items, (tuple, list, range)) and len(items) <= _LONGEST:
        return list(items)
    if isinstance(items, np.ndarray) and items.size <= _LONGEST:
        return list(items.ravel(order="F"))
    if isinstance(items, (int, float, np.number)):
        return [items]
    raise NotUnderstood("it is not a list of known length")


def _sum(items: Any) -> Any:
    return sum(map(_real, _listed(items)))


def _rounded(how: Callable[[float], int]) -> Callable[..., Any]:
    def apply(*values: Any, digits: Any = None) -> Any:
        whole = isinstance(values[0], Constructor)
        value = _real(values[1] if whole else values[0])
        if digits is not None:
            return round(float(value), int(digits))
        return how(float(value)) if whole else float(how(float(value)))

    return apply


def _size(value: Any, axis: Any = None) -> Any:
    shape = value.shape if isinstance(value, (Random, np.ndarray)) else None
    if isinstance(value, (list, range)):
        shape = (len(value),)
    if shape is None:
        raise NotUnderstood("its size is not known")
    if axis is None:
        return tuple(shape)
    return shape[axis - 1] if 1 <= axis <= len(shape) else 1


def _length(value: Any) -> int:
    if isinstance(value, JuliaStruct) and value.type.name == "Chain":
        value = value.fields[0]
    if isinstance(value, Random):
        return math.prod(value.shape)
    if isinstance(value, (tuple, list, range, str, dict)):
        return len(value)
    if isinstance(value, np.ndarray):
        return value.size
    raise NotUnderstood("its length is not known")


def _joined(*values: Any) -> Any:
    made: list[Any] = []
    for value in values:
        made += list(value) if isinstance(value, (tuple, list, range)) else [value]
        if len(made) > _LONGEST:
            raise NotUnderstood(f"it has more than {_LONGEST} items")
    return made


def _push(items: Any, *values: Any) -> Any:
    if not isinstance(items, list) or len(items) + len(values) > _LONGEST:
        raise NotUnderstood("it adds to something that is not a short vector")
    items.extend(values)
    return items


def _push_first(items: Any, *values: Any) -> Any:
    if not isinstance(items, list) or len(items) + len(values) > _LONGEST:
        raise NotUnderstood("it adds to something that is not a short vector")
    items[:0] = values
    return items


def _append(items: Any, *values: Any) -> Any:
    for value in values:
        _push(items, *_listed(value if not isinstance(value, JuliaStruct) else value.fields[0]))
    return items


def _drawn(*values: Any, **keywords: Any) -> Random:
    sizes = [v for v in values if isinstance(v, int) and not isinstance(v, bool)]
    shapes = [v for v in values if isinstance(v, tuple)]
    shape = tuple(sizes) if sizes else shapes[0] if shapes else ()
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise NotUnderstood("its shape is not known")
    return Random(shape)


def _filled(number: float) -> Callable[..., Any]:
    def make(*values: Any) -> Any:
        drawn = _drawn(*values)
        return np.broadcast_to(np.float32(number), drawn.shape)

    return make


def _fill(value: Any, *sizes: Any) -> Any:
    if len(sizes) == 1 and isinstance(sizes[0], int) and 0 <= sizes[0] <= _LONGEST:
        return [value] * sizes[0]
    return Random(tuple(sizes[0]) if isinstance(sizes[0], tuple) else sizes)


def _repeat(value: Any, count: Any) -> Any:
    if isinstance(value, list) and isinstance(count, int) and 0 <= count * len(value) <= _LONGEST:
        return value * count
    raise NotUnderstood("it is repeated too often")


def _first(value: Any, count: Any = None) -> Any:
    items = (
        value.fields[0] if isinstance(value, JuliaStruct) and value.type.name == "Chain" else _listed(value)
    )
    return items[0] if count is None else items[:count]


def _last(value: Any, count: Any = None) -> Any:
    items = (
        value.fields[0] if isinstance(value, JuliaStruct) and value.type.name == "Chain" else _listed(value)
    )
    return items[-1] if count is None else items[-count:]


def _reversed(value: Any) -> Any:
    if isinstance(value, tuple):
        return value[::-1]
    return _listed(value)[::-1]


def _zip(*lists: Any) -> Any:
    return [tuple(row) for row in zip(*map(_listed, lists), strict=False)]


def _equal(a: Any, b: Any) -> bool:
    plain = (bool, int, float, str, Symbol, tuple, type(None), np.floating)
    if not isinstance(a, plain) or not isinstance(b, plain):
        if isinstance(a, JuliaStruct) and isinstance(b, JuliaStruct):
            return a is b or (function_name(a) is not None and function_name(a) == function_name(b))
        raise NotUnderstood("it compares other values than numbers and text")
    return bool(a == b)


def _merge(*tuples: Any) -> Any:
    made: dict[str, Any] = {}
    for item in tuples:
        if not isinstance(item, NamedTuple):
            raise NotUnderstood("it merges other values than named tuples")
        made.update(item.as_dict())
    return NamedTuple(tuple(made), list(made.values()))


def _is_multiple(test: Callable[[int], bool]) -> Callable[[Any], bool]:
    return lambda value: test(int(_real(value)))


def _collect(value: Any) -> Any:
    return _listed(value)


def _cumulative(operation: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    def make(items: Any) -> Any:
        made: list[Any] = []
        for item in _listed(items):
            made.append(operation(made[-1], _real(item)) if made else _real(item))
        return made

    return make


def _transposed(value: Any) -> Any:
    if isinstance(value, (np.ndarray, Random)) and len(value.shape) == 2:
        return JuliaStruct(JuliaType(("LinearAlgebra", "Transpose")), [value], ("parent",))
    raise NotUnderstood("it transposes something that is not a matrix")


COMPUTED: dict[str, Callable[..., Any]] = {
    "+": _plus, "-": _minus, "*": _times, "/": _over, "^": _power, "÷": _divided, "div": _divided,
    "fld": lambda a, b: int(_real(a) // _real(b)), "cld": lambda a, b: int(-(-_real(a) // _real(b))),
    "%": lambda a, b: _number(math.fmod(_real(a), _real(b))) if isinstance(a, float) else a - _toward_zero(a, b) * b,
    "rem": lambda a, b: a - _toward_zero(a, b) * b, "mod": lambda a, b: _real(a) % _real(b),
    ">": lambda a, b: bool(_real(a) > _real(b)), "<": lambda a, b: bool(_real(a) < _real(b)),
    ">=": lambda a, b: bool(_real(a) >= _real(b)), "<=": lambda a, b: bool(_real(a) <= _real(b)),
    "≥": lambda a, b: bool(_real(a) >= _real(b)), "≤": lambda a, b: bool(_real(a) <= _real(b)),
    "==": _equal, "!=": lambda a, b: not _equal(a, b), "≠": lambda a, b: not _equal(a, b),
    "===": _equal, "!==": lambda a, b: not _equal(a, b), "isequal": _equal,
    "!": lambda a: not a if isinstance(a, bool) else _refused(), "isnothing": lambda a: a is None,
    "in": lambda a, b: a in _listed(b), "∈": lambda a, b: a in _listed(b),
    "prod": _prod, "sum": _sum, "length": _length, "size": _size, "ndims": lambda a: len(_size(a)),
    "first": _first, "last": _last, "reverse": _reversed, "collect": _collect, "zip": _zip,
    "enumerate": lambda a: [(i, v) for i, v in enumerate(_listed(a), 1)],
    "max": lambda *v: max(map(_real, v)), "min": lambda *v: min(map(_real, v)),
    "maximum": lambda a: max(map(_real, _listed(a))), "minimum": lambda a: min(map(_real, _listed(a))),
    "abs": lambda a: abs(_real(a)), "sqrt": lambda a: math.sqrt(_real(a)), "exp": lambda a: math.exp(_real(a)),
    "isqrt": lambda a: math.isqrt(_real(a)), "log2": lambda a: math.log2(_real(a)), "log": lambda a: math.log(_real(a)),
    "floor": _rounded(math.floor), "ceil": _rounded(math.ceil), "round": _rounded(round),
    "trunc": _rounded(math.trunc), "vcat": _joined, "push!": _push, "append!": _append, "pushfirst!": _push_first,
    "fill": _fill, "repeat": _repeat, "rand": _drawn, "randn": _drawn, "rand32": _drawn, "randn32": _drawn,
    "zeros": _filled(0), "ones": _filled(1), "zeros32": _filled(0), "ones32": _filled(1), "merge": _merge,
    "iseven": _is_multiple(lambda n: n % 2 == 0), "isodd": _is_multiple(lambda n: n % 2 == 1),
    "isempty": lambda a: _length(a) == 0, "cumsum": _cumulative(lambda a, b: a + b),
    "cumprod": _cumulative(lambda a, b: a * b), "identity": lambda a: a,
    "eachindex": lambda a: range(1, _length(a) + 1),
    "axes": lambda a, d=1: range(1, _size(a, d) + 1), "glorot_uniform": _drawn, "glorot_normal": _drawn,
    "kaiming_normal": _drawn, "kaiming_uniform": _drawn, "keys": lambda a: list(a.names),
    "values": tuple, "float": lambda a: float(_real(a)), "abs2": lambda a: _real(a) ** 2,
    "transpose": _transposed, "adjoint": _transposed,
    "string": lambda *a: _short("".join(map(str, a))) if all(isinstance(v, (str, int)) for v in a) else _refused(),
}  # fmt: skip


def _refused() -> Any:
    raise NotUnderstood("it is not computed")


# ---- Names ----------------------------------------------------------------------------------------------


def _same(arguments: list[Any], keywords: dict[str, Any]) -> Any:
    """Functions that change where a model is computed, or in which mode: not what it computes."""
    return next(
        (a for a in arguments if isinstance(a, (JuliaStruct, NamedTuple, tuple, list))), arguments[-1]
    )


def _last_argument(arguments: list[Any], keywords: dict[str, Any]) -> Any:
    return arguments[-1]


def _copied(arguments: list[Any], keywords: dict[str, Any]) -> Any:
    """A copy: another object of the same layers."""
    value = arguments[0]
    if isinstance(value, Built):
        return Built(value.type, list(value.fields), value.names, node=value.node)
    return list(value) if isinstance(value, list) else value


def _value_of(arguments: list[Any], keywords: dict[str, Any]) -> Any:
    return arguments[0]


def _float32(arguments: list[Any], keywords: dict[str, Any]) -> Any:
    return np.float32(_real(arguments[0]))


def _float64(arguments: list[Any], keywords: dict[str, Any]) -> Any:
    return float(_real(arguments[0]))


def _int(arguments: list[Any], keywords: dict[str, Any]) -> Any:
    value = _real(arguments[0])
    if value != int(value):
        raise NotUnderstood("it is not a whole number")
    return int(value)


def _device(arguments: list[Any], keywords: dict[str, Any]) -> Any:
    return NAMES["gpu"]


def _dictionary(arguments: list[Any], keywords: dict[str, Any]) -> Any:
    made: dict[Any, Any] = dict(keywords)
    for item in (
        _listed(arguments[0]) if len(arguments) == 1 and isinstance(arguments[0], list) else arguments
    ):
        if not isinstance(item, Pair) or not isinstance(item.first, (str, int, Symbol)):
            raise NotUnderstood("its keys are not known")
        made[item.first.name if isinstance(item.first, Symbol) else item.first] = item.second
    return made


def _tuple_of(arguments: list[Any], keywords: dict[str, Any]) -> Any:
    return tuple(_listed(arguments[0])) if arguments else ()


_UNDEFINED = Unknown("it is not set")


def _vector_of(arguments: list[Any], keywords: dict[str, Any]) -> Any:
    if len(arguments) == 2 and arguments[0] is UNDEFINED and isinstance(arguments[1], int):
        if not 0 <= arguments[1] <= _LONGEST:
            raise NotUnderstood(f"it has more than {_LONGEST} items")
        return [_UNDEFINED] * arguments[1]
    if not all(isinstance(a, (list, tuple, range)) for a in arguments):
        raise NotUnderstood("an array without values")
    return _listed(arguments[0]) if arguments else []


def _named_tuple(arguments: list[Any], keywords: dict[str, Any]) -> Any:
    return NamedTuple(tuple(keywords), list(keywords.values()))


def _fixed(first: bool) -> Callable[[list[Any], dict[str, Any]], Any]:
    def make(arguments: list[Any], keywords: dict[str, Any]) -> Any:
        kind = JuliaType(("Base", "Fix1" if first else "Fix2"))
        return JuliaStruct(kind, list(arguments), ("f", "x"))

    return make


def _broadcast_function(arguments: list[Any], keywords: dict[str, Any]) -> Any:
    return JuliaStruct(JuliaType(("Base", "Broadcast", "BroadcastFunction")), list(arguments), ("f",))


_SAME = (
    "gpu", "cpu", "f32", "f64", "f16", "cu", "testmode!", "trainmode!", "Adapt", "adapt", "loadmodel!",
    "loadparams!", "gpu_device_", "track_stats", "todevice", "dev", "to_device", "f32_", "paramtype", "destructure_",
)  # fmt: skip

NAMES: dict[str, Any] = {
    **{name: Constructor(name, _same) for name in _SAME},
    "fmap": Constructor("fmap", _last_argument),
    "deepcopy": Constructor("deepcopy", _copied),
    "copy": Constructor("copy", _copied),
    "Val": Constructor("Val", _value_of),
    "Float32": Constructor("Float32", _float32),
    "Float64": Constructor("Float64", _float64),
    "Float16": Constructor("Float16", _float32),
    "Int": Constructor("Int", _int),
    "Int64": Constructor("Int64", _int),
    "Int32": Constructor("Int32", _int),
    "Integer": Constructor("Integer", _int),
    "Any": Constructor("Any", _value_of),
    "Vector": Constructor("Vector", _vector_of),
    "Array": Constructor("Array", _vector_of),
    "Tuple": Constructor("Tuple", _tuple_of),
    "tuple": Constructor("tuple", lambda arguments, keywords: tuple(arguments)),
    "NamedTuple": Constructor("NamedTuple", _named_tuple),
    "Dict": Constructor("Dict", _dictionary),
    "gpu_device": Constructor("gpu_device", _device),
    "cpu_device": Constructor("cpu_device", _device),
    "get_device": Constructor("get_device", _device),
    "reactant_device": Constructor("reactant_device", _device),
    "Fix1": Constructor("Fix1", _fixed(True)),
    "Fix2": Constructor("Fix2", _fixed(False)),
    "BroadcastFunction": Constructor("BroadcastFunction", _broadcast_function),
    "nothing": None,
    "undef": UNDEFINED,
    "pi": math.pi,
    "π": math.pi,
    "Inf": math.inf,
    "Inf32": np.float32(np.inf),
    "true": True,
    "false": False,
    **{name: Module(name) for name in _MODULES},
}

_PLACES = {
    "Statistics": ("mean", "std", "var"),
    "Flux": ("flatten", "normalise"),
    "NNlib": (
        "relu", "relu6", "leakyrelu", "trelu", "elu", "celu", "selu", "gelu", "gelu_tanh", "gelu_erf", "gelu_sigmoid",
        "σ", "sigmoid", "sigmoid_fast", "hardσ", "hardsigmoid", "logσ", "logsigmoid", "tanh_fast", "hardtanh",
        "tanhshrink", "softshrink", "softplus", "softsign", "swish", "hardswish", "mish", "lisht", "logcosh",
        "softmax", "logsoftmax", "maxpool", "meanpool", "upsample_nearest", "upsample_bilinear", "pixel_shuffle",
        "rrelu", "pad_zeros", "pad_reflect", "pad_repeat", "pad_circular", "batched_mul", "conv", "depthwiseconv",
        "logsumexp", "glu", "pad_symmetric", "pad_constant",
    ),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}
_BASE = (
    "sin", "cos", "tan", "clamp", "ifelse", "zero", "one", "cat", "hcat", "vcat", "dropdims", "permutedims", "reshape",
    "selectdim", "view", "getindex", "map", "reduce", "foldl", "broadcast", "ntuple", "|>", "tanh", "exp", "eachslice",
    "stack", "transpose", "adjoint", "sqrt", "atan", "sign", "inv", "dropdims", "circshift", "squeeze", "mapslices",
)  # fmt: skip


def name_value(name: str) -> Any:
    """The value of a name that the file does not define; None if nothing here has that name, or it is `nothing`."""
    if name in NAMES:
        return NAMES[name]
    module = _MODULE_OF.get(name)
    if module is not None:
        return function(module, name)
    if name in COMPUTED or name in READABLE or name in _BASE:
        return function("Base", name)
    return None


def function_name(value: Any) -> str | None:
    """The name of a named function; None for any other value."""
    if not isinstance(value, JuliaStruct) or isinstance(value, (WrittenFunction, Own)) or value.fields:
        return None
    name = value.type.name
    return name[1:] if len(name) > 1 and name[0] == "#" else None
