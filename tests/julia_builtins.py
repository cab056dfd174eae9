"""What the interpreter has built in: the functions of Julia's Base that our exports call, and Flux's layers.

Flux's layers are stated in Flux's own terms (kernels that are convolved, sizes in Julia's order of axes) and
computed by our reference engine, so that an export with a wrong pad, stride or orientation gives other numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from diptych.model import layers as L
from julia_interpreter import Scope, compile_text
from julia_numbers import COLON, JuliaError, broadcast, plain

__all__ = ["defined", "program"]


# ---- Base -----------------------------------------------------------------------------------------------


def _vector(function: Callable[..., Any]) -> Callable[..., Any]:
    function.vector = True  # type: ignore[attr-defined]
    return function


def _converter(dtype: Any) -> type:
    """Int, UInt8, Float32, Float64: called they convert, exactly or not at all; they also stand for the type."""

    def convert(value: Any) -> Any:
        array = np.asarray(value)
        if np.issubdtype(dtype, np.integer) and (array != np.floor(array)).any():
            raise JuliaError("InexactError")
        if dtype is np.uint8 and ((array < 0) | (array > 255)).any():
            raise JuliaError("InexactError")
        return array.astype(dtype) if isinstance(value, np.ndarray) else plain(dtype(value))

    return _Type(dtype, convert)  # type: ignore[return-value]


class _Type:
    vector = True

    def __init__(self, dtype: Any, convert: Callable[[Any], Any]) -> None:
        self.dtype, self.convert = dtype, convert

    def __call__(self, value: Any) -> Any:
        return self.convert(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Type) and other.dtype is self.dtype

    def __hash__(self) -> int:
        return hash(self.dtype)


TYPES = {
    "Int": _converter(np.int64), "UInt8": _converter(np.uint8),
    "Float32": _converter(np.float32), "Float64": _converter(np.float64),
}  # fmt: skip


def _size(x: Any, axis: int | None = None) -> Any:
    if axis is None:
        return tuple(x.shape)
    return x.shape[axis - 1] if axis <= x.ndim else 1


def _reshape(x: Any, *sizes: Any) -> Any:
    flat = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple) else sizes
    return np.asarray(x).reshape([-1 if n is COLON else n for n in flat], order="F")


def _cat(*parts: Any, dims: int) -> Any:
    widest = max(dims, *(p.ndim for p in parts))
    return np.concatenate([p.reshape(p.shape + (1,) * (widest - p.ndim)) for p in parts], dims - 1)


def _axes(dims: Any) -> Any:
    return tuple(d - 1 for d in dims) if isinstance(dims, tuple | range) else dims - 1


def _sum(x: Any, dims: Any = None) -> Any:
    if dims is None:
        return plain(np.sum(x))
    return np.sum(x, axis=_axes(dims), keepdims=True, dtype=x.dtype)


def _maximum(x: Any, dims: Any = None) -> Any:
    return plain(np.max(x)) if dims is None else np.max(x, axis=_axes(dims), keepdims=True)


def _prod(x: Any, dims: Any = None) -> Any:
    return int(np.prod(x)) if dims is None else np.prod(x, axis=_axes(dims), keepdims=True, dtype=x.dtype)


def _round(*given: Any) -> Any:
    if len(given) == 1:
        return np.rint(given[0])
    kind, value = given
    return kind(np.rint(value))


def _towards(rule: Callable[[Any], Any]) -> Callable[..., Any]:
    return _vector(lambda *given: given[0](rule(given[1])) if len(given) == 2 else rule(given[0]))


def _zeros(kind: Any, *sizes: int) -> Any:
    return np.zeros(sizes, kind.dtype)


def _fill(value: Any, *sizes: int) -> Any:
    return np.full(sizes, value, np.asarray(value).dtype)


def _eltype(x: Any) -> Any:
    return next(t for t in TYPES.values() if t.dtype == x.dtype)


def _reduce(function: Any, items: Any, init: Any = None) -> Any:
    return reduce(function, items) if init is None else reduce(function, items, init)


def _match(pattern: str, text: str) -> Any:
    found = re.search(pattern, text)
    return None if found is None else SimpleNamespace(captures=list(found.groups()))


def _error(text: str) -> None:
    raise JuliaError(text)


def _clamp(x: Any, low: Any, high: Any) -> Any:
    return plain(type(x)(min(max(x, low), high))) if not isinstance(x, int) else min(max(x, low), high)


def _get(make: Any, table: dict[Any, Any], key: Any) -> Any:
    if key not in table:
        table[key] = make()
    return table[key]


def _same_type(like: Any, value: Any) -> Any:
    return plain(type(like)(value))


def _floats(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return _vector(lambda x: function(np.float64(x) if isinstance(x, int) else x))


BASE: dict[str, Any] = {
    **TYPES, "nothing": None, "pi": np.float64(np.pi), "Inf32": np.float32(np.inf),
    "NaN": np.float64("nan"), "ndims": np.ndim, "size": _size,
    "reshape": _reshape, "cat": _cat, "sum": _sum, "maximum": _maximum, "round": _round, "zeros": _zeros,
    "fill": _fill, "eltype": _eltype, "reduce": _reduce, "match": _match, "error": _error, "clamp": _clamp,
    "get!": _get, "oftype": _same_type, "identity": lambda x: x, "div": lambda a, b: int(a / b),
    "floor": _towards(np.floor), "trunc": _towards(np.trunc), "ceil": _towards(np.ceil), "cld": lambda a, b: -(-a // b),
    "mod": lambda a, b: a % b, "mod1": lambda a, b: (a - 1) % b + 1, "min": min, "max": max,
    "abs": _vector(np.abs), "abs2": _vector(np.square), "exp": _floats(np.exp), "sqrt": _floats(np.sqrt),
    "sin": _floats(np.sin), "cos": _floats(np.cos), "tan": _floats(np.tan), "asin": _floats(np.arcsin),
    "acos": _floats(np.arccos), "atan": _floats(np.arctan), "sinh": _floats(np.sinh), "cosh": _floats(np.cosh),
    "asinh": _floats(np.arcsinh), "acosh": _floats(np.arccosh), "atanh": _floats(np.arctanh),
    "minimum": lambda x, dims: np.min(x, axis=_axes(dims), keepdims=True),
    "batched_mul": lambda a, b: np.einsum("ikn,kjn->ijn", a, b),
    "tanh": _floats(np.tanh), "log": _floats(np.log), "log1p": _floats(np.log1p),
    "sign": _vector(np.sign), "one": _vector(np.ones_like),
    "zero": lambda x: type(x)(0) if not isinstance(x, _Type) else x(0),
    "ifelse": _vector(np.where), "ntuple": lambda f, n: tuple(f(i) for i in range(1, n + 1)),
    "prod": _prod, "length": lambda x: np.size(x) if isinstance(x, np.ndarray) else len(x),
    "copy": np.copy, "collect": np.array, "push!": lambda x, v: x.append(v), "map": lambda f, x: tuple(map(f, x)),
    "permutedims": lambda x, order: np.transpose(x, [d - 1 for d in order]),
    "dropdims": lambda x, dims: np.squeeze(x, _axes(dims)), "vec": lambda x: x.reshape(-1, order="F"),
    "isempty": lambda x: len(x) == 0, "string": lambda *x: "".join(map(str, x)), "Colon": lambda: COLON,
    "enumerate": lambda x: enumerate(x, 1), "Tuple": tuple, "reverse": lambda x: x[::-1], "parse": lambda t, x: int(x),
    "strip": str.strip, "split": lambda text, by: text.split(by), "haskey": lambda d, k: k in d,
    "occursin": lambda a, b: a in b, "joinpath": lambda *p: str(Path(*p)), "isfile": lambda p: Path(p).is_file(),
    "read": lambda p: np.fromfile(p, np.uint8), "sizeof": lambda t: np.dtype(t.dtype).itemsize,
    "reinterpret": lambda t, x: np.ascontiguousarray(x).view(t.dtype), "Dict": lambda *p: dict(p),
    "String": lambda x: x.tobytes().decode(), "join": lambda x, by: by.join(x),
    "write": lambda p, x: Path(p).write_bytes(x.tobytes()),
    "vcat": lambda *p: np.concatenate(p), "Base": SimpleNamespace(tail=lambda x: x[1:]),
    "Bool": _converter(np.bool_), "Int8": _converter(np.int8), "Int16": _converter(np.int16),
    "Int32": _converter(np.int32), "Int64": _converter(np.int64), "UInt16": _converter(np.uint16),
    "UInt32": _converter(np.uint32), "UInt64": _converter(np.uint64), "Float16": _converter(np.float16),
}  # fmt: skip
_vector(BASE["zero"])


# ---- Flux -----------------------------------------------------------------------------------------------


def _theirs(x: Any) -> Any:
    """(W, H, C, N) <-> (N, C, H, W)."""
    return np.ascontiguousarray(np.transpose(x))


def _by_reference(layer: Any, x: Any) -> Any:
    return _theirs(layer.compute(_theirs(x).astype(np.float64)).astype(np.float32))


def _pairs(pad: Any, rank: int) -> Any:
    """Flux's pad, one number an axis or (low, high) for each, in our order of axes."""
    pads = [(p, p) for p in pad] if len(pad) == rank else list(zip(pad[::2], pad[1::2], strict=True))
    return tuple(pads[::-1])


def _convolution(kind: Any) -> Callable[..., Any]:
    def make(
        w: Any, b: Any, f: Any = None, *, stride: Any = (), pad: Any = (), dilation: Any = (), groups: int = 1
    ):
        rank = w.ndim - 2
        weight = np.flip(_theirs(w), tuple(range(2, w.ndim)))
        layer = kind(
            weight, None if b is False else b, stride[::-1], _pairs(pad, rank) if pad else (),
            dilation=dilation[::-1], groups=groups,
        )  # fmt: skip
        return lambda x: broadcast(f or BASE["identity"], [_by_reference(layer, x)])

    return make


def _dense(w: Any, b: Any, f: Any = None) -> Any:
    layer = L.Dense(w, None if b is False else b)
    return lambda x: broadcast(f or BASE["identity"], [_by_reference(layer, x)])


def _pool(kind: Any) -> Callable[..., Any]:
    def make(k: Any, *, stride: Any = None, pad: Any = ()) -> Any:
        layer = kind(k[::-1], (stride or k)[::-1], _pairs(pad, len(k)) if pad else ())
        return lambda x: _by_reference(layer, x)

    return make


class _BatchNorm:
    def __init__(self, channels: int, f: Any, *, affine: bool) -> None:
        self.f = f
        setattr(self, "ϵ", 1e-5)  # noqa: B010 - Python would write it ε
        self.μ = np.zeros(channels, np.float32)
        setattr(self, "σ²", np.ones(channels, np.float32))
        self.γ = np.ones(channels, np.float32) if affine else None
        self.β = np.zeros(channels, np.float32) if affine else None

    def __call__(self, x: Any) -> Any:
        layer = L.BatchNorm(self.γ, self.β, self.μ, getattr(self, "σ²"), float(vars(self)["ϵ"]))
        return broadcast(self.f, [_by_reference(layer, x)])


class Chain:
    def __init__(self, *layers: Any) -> None:
        self.layers = layers

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


class SkipConnection:
    def __init__(self, layers: Any, connection: Any) -> None:
        self.layers, self.connection = layers, connection

    def __call__(self, x: Any) -> Any:
        return self.connection(self.layers(x), x)


class Parallel:
    def __init__(self, connection: Any, *layers: Any) -> None:
        self.connection = connection
        self.layers = layers[0] if len(layers) == 1 and isinstance(layers[0], tuple) else layers

    def __call__(self, x: Any) -> Any:
        return self.connection(*[layer(x) for layer in self.layers])


def _softmax(log: bool) -> Callable[..., Any]:
    return lambda x, dims=1: _by_reference(L.Softmax(x.ndim - dims, log), x)


def _scalar(name: str) -> Callable[..., Any]:
    defaults = L.ACTIVATIONS[name][1]
    return _vector(
        lambda x, *p: (
            L.ACTIVATIONS[name].numpy(np.asarray(x, np.float64), *(p or defaults)).astype(np.float32)[()]
        )
    )


NNLIB = ("relu", "leakyrelu", "trelu", "elu", "celu", "selu", "sigmoid", "logsigmoid", "softplus", "softsign",
         "swish", "mish")  # fmt: skip

FLUX: dict[str, Any] = {
    **{name: _scalar(name) for name in NNLIB},
    "Chain": Chain, "SkipConnection": SkipConnection, "Parallel": Parallel, "Dense": _dense,
    "Conv": _convolution(L.Conv), "ConvTranspose": _convolution(L.ConvTranspose),
    "MaxPool": _pool(L.MaxPool), "MeanPool": _pool(L.MeanPool),
    "GlobalMaxPool": lambda: lambda x: _by_reference(L.GlobalMaxPool(), x),
    "GlobalMeanPool": lambda: lambda x: _by_reference(L.GlobalMeanPool(), x),
    "AdaptiveMaxPool": lambda n: lambda x: _by_reference(L.AdaptiveMaxPool(n[::-1], "flux"), x),
    "AdaptiveMeanPool": lambda n: lambda x: _by_reference(L.AdaptiveMeanPool(n[::-1], "flux"), x),
    "BatchNorm": lambda channels, f=BASE["identity"], *, affine=True: _BatchNorm(channels, f, affine=affine),
    "Dropout": lambda p: BASE["identity"], "softmax": _softmax(False), "logsoftmax": _softmax(True),
    "Upsample": lambda mode, *, scale: lambda x: _by_reference(L.Upsample(scale[::-1]), x),
    "PixelShuffle": lambda r: lambda x: _by_reference(L.PixelShuffle(r), x),
    "Flux": SimpleNamespace(flatten=lambda x: _reshape(x, COLON, x.shape[-1]), relu=None),
}  # fmt: skip
setattr(FLUX["Flux"], "testmode!", lambda model: model)


def _order(values: Any, *, rev: bool, alg: Any) -> Any:
    """Julia's stable sort, the largest first."""
    return np.argsort(-values if rev else values, kind="stable") + 1


def _joined(*parts: Any) -> Any:
    """`vcat` of arrays, or of lists of texts."""
    if any(isinstance(p, list) for p in parts):
        return [v for p in parts for v in p]
    return np.concatenate(parts)


BASE.update(
    {
        "vcat": _joined,
        "sortperm": _order,
        "MergeSort": None,
        "any": lambda x: bool(np.any(x)),
        "all": lambda x: bool(np.all(x)),
        "repeat": lambda text, n: text * n,
        "append!": lambda x, more: x.extend(more),
        "rstrip": str.rstrip,
        "isfinite": np.isfinite,
        "@sprintf": lambda text, *values: text % values,
    }
)


def defined(text: str) -> Scope:
    """The names that a text defines."""
    scope = Scope(Scope(None, {**BASE, **FLUX}))
    compile_text(text)(scope)
    return scope


def program(*files: Path) -> Scope:
    """The names that these files define, run in order in a scope of their own; `include` is left to the caller."""
    scope = Scope(Scope(None, {**BASE, **FLUX}))
    scope.names["include"] = lambda name: None
    for file in files:
        scope.parent.names["@__DIR__"] = str(file.parent)  # type: ignore[union-attr]
        compile_text(file.read_text("utf-8"))(scope)
    return scope
