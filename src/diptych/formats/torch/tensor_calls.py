"""Functions and methods that reorder, pick, join and reduce tensors: the table `TENSOR_CALLS`, by PyTorch's names.

A rule takes a `TensorSite`, which offers the operations of `Views`, and the arguments, of which those that depend on
the model's input are values; it returns a value, or a list of them. Parameters have the names that PyTorch gives them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NoReturn, TypeAlias

import numpy as np
import torch

from diptych.formats.graph import BATCH, Value, ValueGraph, power_layers, refusal
from diptych.formats.torch.site import Weights, numbers
from diptych.formats.views import END, Tensor, View, Views
from diptych.model import layers as L
from diptych.model.layers import Activation, Array

__all__ = ["TENSOR_CALLS", "VIEW_CALLS", "Rule", "TensorSite", "binary", "listed"]


class TensorSite(Views):
    """The operations of `Views`, with constants given as PyTorch's tensors or as numbers."""

    def __init__(self, graph: ValueGraph, weights: Weights, name: str, own_batch: int | None = None) -> None:
        super().__init__(graph, name, own_batch)
        self.weights = weights

    def operand(self, given: Any) -> Tensor | Array:
        """A value as it is, a constant as an array."""
        if isinstance(given, Value | View):
            return given
        if isinstance(given, torch.nn.Parameter) and bool(given.isinf().any()):
            self.refuse("a weight of it is infinite; take an earlier checkpoint")
        if isinstance(given, torch.Tensor):
            return self.array(given)
        return np.asarray(float(given))

    def array(self, tensor: torch.Tensor) -> Array:
        """The array of a constant; axes along which it repeats are not copied."""
        repeated = [n > 1 and step == 0 for n, step in zip(tensor.shape, tensor.stride(), strict=True)]
        if not any(repeated):
            return self.weights.array(tensor, self.name)
        one = tensor[tuple(slice(0, 1) if each else slice(None) for each in repeated)]
        return np.broadcast_to(self.weights.array(one, self.name), tuple(tensor.shape))

    def refuse(self, reason: str) -> NoReturn:
        """Raises `UnsupportedLayer` with the name of this operation."""
        raise refusal(self.name, reason)


Rule: TypeAlias = Callable[..., Any]


def listed(sizes: Sequence[Any]) -> list[Any]:
    """Numbers given one by one or as one sequence."""
    one = len(sizes) == 1 and isinstance(sizes[0], tuple | list | torch.Size)
    return list(sizes[0] if one else sizes)


# ---- Order and shape ----------------------------------------------------------------------------------


def _permute(s: TensorSite, x: Tensor, *dims: Any) -> Tensor:
    order = listed(dims)
    return s.permute(x, [axis % len(order) for axis in order])


def _transpose(s: TensorSite, x: Tensor, dim0: int, dim1: int) -> Tensor:
    order = list(range(s.rank(x)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return s.permute(x, order)


def _movedim(s: TensorSite, x: Tensor, source: Any, destination: Any) -> Tensor:
    places = torch.movedim(torch.empty(list(range(s.rank(x))), device="meta"), source, destination)
    return s.permute(x, list(places.shape))


def _view(s: TensorSite, x: Tensor, *sizes: Any) -> Tensor:
    wanted = listed(sizes)
    if wanted and isinstance(wanted[0], torch.dtype):
        s.refuse("it changes the type of numbers")
    keeps = wanted[:1] == [BATCH] or (wanted[:1] == [-1] and -1 not in wanted[1:])
    if x.shape is None and isinstance(x, Value) and keeps:
        return s.apply(x, L.Flatten() if len(wanted) == 2 else L.Reshape(tuple(wanted[1:])))
    return s.reshape(x, wanted)


def _flatten(s: TensorSite, x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    if (start_dim, end_dim) == (1, -1) and isinstance(x, Value):
        return s.apply(x, L.Flatten())
    shape = s.shape(x)
    first, last = start_dim % len(shape), end_dim % len(shape)
    return s.reshape(x, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


def _unflatten(s: TensorSite, x: Tensor, dim: int, sizes: Any) -> Tensor:
    shape = s.shape(x)
    axis = dim % len(shape)
    return s.reshape(x, (*shape[:axis], *sizes, *shape[axis + 1 :]))


def _squeeze(s: TensorSite, x: Tensor, dim: Any = None) -> Tensor:
    shape = s.shape(x)
    axes = range(len(shape)) if dim is None else (dim if isinstance(dim, tuple | list) else (dim,))
    gone = {axis % len(shape) for axis in axes if shape[axis % len(shape)] == 1}
    return s.reshape(x, [n for axis, n in enumerate(shape) if axis not in gone])


def _unsqueeze(s: TensorSite, x: Tensor, dim: int) -> Tensor:
    shape = list(s.shape(x))
    shape.insert(dim % (len(shape) + 1), 1)
    return s.reshape(x, shape)


def _expand(s: TensorSite, x: Tensor, *sizes: Any, implicit: bool = False) -> Tensor:
    wanted = listed(sizes)
    shape = s.shape(x)
    if len(wanted) > len(shape) and isinstance(x, Value):
        x = s.reshape(x, (1,) * (len(wanted) - len(shape)) + shape)
    return s.expand(x, wanted)


def _expand_as(s: TensorSite, x: Tensor, other: Any) -> Tensor:
    return s.expand(x, list(other.shape))


def _repeat(s: TensorSite, x: Tensor, *sizes: Any) -> Tensor:
    counts = listed(sizes)
    if len(counts) > s.rank(x):
        x = s.reshape(x, (1,) * (len(counts) - s.rank(x)) + s.shape(x))
    for axis, count in enumerate(counts):
        if count != 1:
            x = s.concatenate([x] * count, s.axis(x, axis))
    return x


# ---- Parts --------------------------------------------------------------------------------------------


def _getitem(s: TensorSite, x: Tensor, index: Any) -> Any:
    places = list(index) if isinstance(index, tuple) else [index]
    used = sum(place is not None and place is not Ellipsis for place in places)
    if any(place is Ellipsis for place in places):
        at = next(i for i, place in enumerate(places) if place is Ellipsis)
        places[at : at + 1] = [slice(None)] * (s.rank(x) - used)
    axis = 0
    for place in places:
        if place is None:
            x = _unsqueeze(s, x, axis)
            axis += 1
        elif isinstance(place, slice):
            part = _part(s, x, axis, place)
            if isinstance(part, torch.Tensor):  # there is nothing in it
                return part
            x = part
            axis += 1
        elif isinstance(place, int):
            x = s.select(x, axis, place)
        elif isinstance(place, torch.Tensor | list) and np.asarray(place).dtype.kind == "i":
            x = s.gather(x, axis, np.asarray(place))
            axis += np.ndim(place)
        else:
            s.refuse(f"no layer takes the part {str(place)[:40]}")
    return x


def _part(s: TensorSite, x: Tensor, axis: int, place: slice) -> Any:
    if place == slice(None):
        return x
    size = s.shape(x)[axis]
    start = 0 if place.start is None else max(place.start, -size)
    stop = END if place.stop is None else max(place.stop, -size)
    if not range(size)[
        start:stop
    ]:  # such as the tokens in front of those of the picture, where there are none
        return torch.empty((*s.shape(x)[:axis], 0, *s.shape(x)[axis + 1 :]))
    return s.slice(x, axis, start, stop, place.step or 1)


def _slice(s: TensorSite, x: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    return _part(s, x, dim % s.rank(x), slice(start, end, step))


def _narrow(s: TensorSite, x: Tensor, dim: int, start: int, length: int) -> Any:
    return _slice(s, x, dim, start, start + length)


def _select(s: TensorSite, x: Tensor, dim: int, index: int) -> Tensor:
    return s.select(x, dim, index)


def _split(s: TensorSite, x: Tensor, split_size: Any = None, dim: int = 0, **others: Any) -> list[Tensor]:
    wanted = others.get("split_size_or_sections", others.get("split_sizes", split_size))
    axis = s.axis(x, dim)
    size = s.shape(x)[axis]
    if isinstance(wanted, int):
        wanted = [min(wanted, size - start) for start in range(0, size, wanted)]
    ends = np.cumsum(wanted).tolist()
    return [s.slice(x, axis, end - part, end) for part, end in zip(wanted, ends, strict=True)]


def _chunk(s: TensorSite, x: Tensor, chunks: int, dim: int = 0) -> list[Tensor]:
    return _split(s, x, -(-s.shape(x)[s.axis(x, dim)] // chunks), dim)


def _tensor_split(s: TensorSite, x: Tensor, sections: Any, dim: int = 0) -> list[Tensor]:
    size = s.shape(x)[s.axis(x, dim)]
    if not isinstance(sections, int):
        edges = [0, *sections, size]
        return _split(s, x, [b - a for a, b in pairwise(edges)], dim)
    each, more = divmod(size, sections)
    return _split(s, x, [each + (i < more) for i in range(sections)], dim)


def _unbind(s: TensorSite, x: Tensor, dim: int = 0) -> list[Tensor]:
    axis = s.axis(x, dim)
    return [s.select(x, axis, i) for i in range(s.shape(x)[axis])]


def _index_select(s: TensorSite, x: Tensor, dim: int, index: torch.Tensor) -> Tensor:
    return s.gather(x, dim, index.numpy())


def _index(s: TensorSite, x: Tensor, indices: Sequence[Any]) -> Tensor:
    chosen = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(chosen) != 1 or not isinstance(chosen[0][1], torch.Tensor):
        s.refuse("no layer picks values by several indices")
    return s.gather(x, chosen[0][0], chosen[0][1].numpy())


def _windows(s: TensorSite, x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Tensor.unfold: the windows along an axis; what is in them becomes the last axis."""
    axis = s.axis(x, dimension)
    starts = np.arange(0, s.shape(x)[axis] - size + 1, step)
    cut = s.gather(x, axis, starts[:, None] + np.arange(size))
    rank = s.rank(cut)
    return s.permute(cut, [d for d in range(rank) if d != axis + 1] + [axis + 1])


def _columns(
    s: TensorSite, x: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """F.unfold: a convolution with kernels of a single 1, and its places in a row."""
    if not isinstance(x, Value):
        s.refuse("the batch is not the first axis of its input")
    kernel, channels = numbers(kernel_size, 2), s.shape(x)[1]
    taps = math.prod(kernel)
    weight = np.tile(np.eye(taps, dtype=np.float32), (channels, 1)).reshape(channels * taps, 1, *kernel)
    around = tuple((n, n) for n in numbers(padding, 2))
    layer = L.Conv(weight, None, numbers(stride, 2), around, numbers(dilation, 2), channels)
    return s.apply(x, layer, L.Reshape((channels * taps, -1)))


def _fold(
    s: TensorSite,
    x: Tensor,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """F.fold: a transposed convolution with kernels of a single 1, which adds what overlaps."""
    if not isinstance(x, Value):
        s.refuse("the batch is not the first axis of its input")
    kernel, sizes = numbers(kernel_size, 2), numbers(output_size, 2)
    steps, around, apart = (numbers(n, 2) for n in (stride, padding, dilation))
    taps = math.prod(kernel)
    channels = s.shape(x)[1] // taps
    spans = [d * (k - 1) + 1 for d, k in zip(apart, kernel, strict=True)]
    edges = list(zip(sizes, around, spans, steps, strict=True))
    places = [(n + 2 * p - span) // step + 1 for n, p, span, step in edges]
    made = [(m - 1) * step - 2 * p + span for m, (_, p, span, step) in zip(places, edges, strict=True)]
    weight = np.tile(np.eye(taps, dtype=np.float32).reshape(taps, 1, *kernel), (channels, 1, 1, 1))
    extra = tuple(n - m for n, m in zip(sizes, made, strict=True))
    pads = tuple((p, p) for p in around)
    layer = L.ConvTranspose(weight, None, steps, pads, extra, apart, channels)
    return s.apply(x, L.Reshape((channels * taps, *places)), layer)


def _roll(s: TensorSite, x: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    if dims is None:
        s.refuse("it rolls over all axes, the batch among them")
    pairs = zip(*((v if isinstance(v, tuple | list) else (v,)) for v in (shifts, dims)), strict=True)
    for shift, dim in pairs:
        size = s.shape(x)[dim % s.rank(x)]
        if shift % size:
            x = s.gather(x, dim, (np.arange(size) - shift) % size)
    return x


def _flip(s: TensorSite, x: Tensor, *dims: Any) -> Tensor:
    for dim in listed(dims):
        x = s.gather(x, dim, np.arange(s.shape(x)[dim % s.rank(x)])[::-1])
    return x


# ---- Joins --------------------------------------------------------------------------------------------


def _cat(s: TensorSite, tensors: Sequence[Any], dim: int = 0, **others: Any) -> Tensor:
    parts = [s.operand(part) for part in tensors]
    kept = [p for p in parts if not (isinstance(p, np.ndarray) and p.size == 0)]
    return s.concatenate(kept, others.get("axis", dim))


def _stack(s: TensorSite, tensors: Sequence[Any], dim: int = 0) -> Tensor:
    first = next(part for part in tensors if isinstance(part, Value | View))
    axis = dim % (s.rank(first) + 1)
    parts = [
        _unsqueeze(s, part, axis) if isinstance(part, Value | View) else s.array(part.unsqueeze(axis))
        for part in tensors
    ]
    return s.concatenate(parts, axis)


def binary(operation: str, flipped: bool = False) -> Rule:
    """The rule for two operands joined elementwise, the second one first if `flipped`."""

    def rule(s: TensorSite, a: Any, b: Any, *, alpha: float = 1, rounding_mode: Any = None) -> Tensor:
        if rounding_mode is not None:
            s.refuse("no layer divides whole numbers")
        first, second = s.operand(a), s.operand(b)
        if alpha != 1:
            number = np.asarray(float(alpha))
            second = (
                second * number if isinstance(second, np.ndarray) else s.combine("multiply", second, number)
            )
        pair = (second, first) if flipped else (first, second)
        return s.combine(operation, *pair)

    return rule


def _matmul(s: TensorSite, a: Any, b: Any, **others: Any) -> Tensor:
    return s.matmul(s.operand(a), s.operand(b))


def _addmm(s: TensorSite, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = s.matmul(s.operand(a), s.operand(b))
    if alpha != 1:
        product = s.combine("multiply", product, np.asarray(float(alpha)))
    offset = s.operand(bias)
    if beta != 1:
        number = np.asarray(float(beta))
        offset = offset * number if isinstance(offset, np.ndarray) else s.combine("multiply", offset, number)
    return s.combine("add", product, offset) if beta != 0 else product


def _addcmul(s: TensorSite, x: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
    first, second = s.operand(tensor1), s.operand(tensor2)
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return s.combine("add", s.operand(x), first * second * value)
    product = s.combine("multiply", first, second)
    if value != 1:
        product = s.combine("multiply", product, np.asarray(float(value)))
    return s.combine("add", s.operand(x), product)


def _like(s: TensorSite, x: Any, *rest: Any, **others: Any) -> Any:
    """To the type of another tensor: all are floats here."""
    return x


# ---- Reductions ---------------------------------------------------------------------------------------


def _axes(s: TensorSite, x: Tensor, dim: Any, kind: str) -> tuple[int, ...]:
    if dim is None or dim == []:
        s.refuse(f"a {kind} over all axes mixes samples")
    return tuple(dim) if isinstance(dim, tuple | list | torch.Size) else (dim,)


def _reduce(kind: str) -> Rule:
    def rule(s: TensorSite, x: Tensor, dim: Any = None, keepdim: bool = False, **others: Any) -> Tensor:
        axes = _axes(s, x, others.get("axis", dim), kind)
        return s.reduce(x, kind, axes, others.get("keepdims", keepdim))

    return rule


def _largest(kind: str, operation: str) -> Rule:
    """torch.max and torch.min: of two tensors, or along one axis, where the indices are not read."""

    def rule(s: TensorSite, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        if isinstance(dim, Value | View | torch.Tensor):
            return s.combine(operation, s.operand(x), s.operand(dim))
        return [s.reduce(x, kind, _axes(s, x, dim, kind), keepdim), None]

    return rule


def _norm(
    s: TensorSite, x: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, **others: Any
) -> Tensor:
    order = others.get("ord", p)
    if order in ("fro", None):
        order = 2
    axes = _axes(s, x, dim, "norm")
    if order in (math.inf, -math.inf):
        return s.reduce(s.apply(x, Activation("abs")), "max" if order > 0 else "min", axes, keepdim)
    if not isinstance(order, int | float) or order == 0:
        s.refuse(f"no layer is a norm of the order {order}")
    sizes = s.apply(x, *([] if order == 2 else [Activation("abs")]), *power_layers(float(order)))
    return s.apply(s.reduce(sizes, "sum", axes, keepdim), *power_layers(1 / float(order)))


def _normalize(s: TensorSite, x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    size = _norm(s, x, p, dim, True)
    return s.combine("divide", x, s.apply(size, Activation("clamp", (eps, math.inf))))


def _variance(root: bool) -> Rule:
    def rule(
        s: TensorSite, x: Tensor, dim: Any = None, unbiased: Any = True, keepdim: bool = False, **others: Any
    ) -> Tensor:
        correction = others.get("correction", 1 if unbiased else 0)
        correction = 1 if correction is None else correction
        axes = _axes(s, x, dim, "variance")
        count = math.prod(s.shape(x)[axis] for axis in axes)
        centred = s.combine("subtract", x, s.reduce(x, "mean", axes, True))
        mean = s.reduce(s.apply(centred, Activation("abs2")), "mean", axes, keepdim)
        factor = count / max(count - correction, 1)
        scaled = s.apply(mean, Activation("affine", (factor, 0.0))) if factor != 1 else mean
        return s.apply(scaled, Activation("sqrt")) if root else scaled

    return rule


def _variance_and_mean(s: TensorSite, x: Tensor, dim: Any = None, **others: Any) -> list[Tensor]:
    keep = others.get("keepdim", False)
    return [_variance(False)(s, x, dim, **others), s.reduce(x, "mean", _axes(s, x, dim, "mean"), keep)]


def _softmax(log: bool) -> Rule:
    def rule(s: TensorSite, x: Tensor, dim: int | None = None, *rest: Any, **others: Any) -> Tensor:
        if dim is None:
            dim = 0 if s.rank(x) == 3 else 1  # PyTorch's deprecated default
        if isinstance(x, Value) and dim == 0:
            s.refuse("a softmax over the batch axis mixes samples")
        return s.softmax(x, dim, log)

    return rule


def _rms_norm(s: TensorSite, x: Tensor, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Tensor:
    axes = tuple(range(-len(normalized_shape), 0))
    epsilon = float(torch.finfo(torch.float32).eps) if eps is None else eps
    squares = s.reduce(s.apply(x, Activation("abs2")), "mean", axes, True)
    divided = s.combine(
        "divide", x, s.apply(squares, Activation("affine", (1.0, epsilon)), Activation("sqrt"))
    )
    return divided if weight is None else s.combine("multiply", divided, s.operand(weight))


def _cumsum(s: TensorSite, x: Tensor, dim: int, **others: Any) -> Tensor:
    axis, order = s.axis(x, dim), list(range(s.rank(x)))
    order[axis], order[-1] = order[-1], order[axis]
    triangle = np.triu(np.ones((s.shape(x)[axis],) * 2, np.float32))
    return s.permute(s.matmul(s.permute(x, order), triangle), order)


_MODES: dict[str, L.PadMode] = {"reflect": "reflect", "replicate": "replicate", "circular": "wrap"}


def _pad(s: TensorSite, x: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """Padding of a view, whose axes are not channels and space."""
    edges = [int(n) for n in pad]
    if min(edges, default=0) < 0:
        s.refuse("no layer crops here")
    pairs = [(edges[i], edges[i + 1]) for i in range(0, len(edges), 2)][::-1]
    number = float(value or 0)
    kind = _MODES.get(mode) or ("constant" if number else "zero")
    return s.pad(x, [(0, 0)] * (s.rank(x) - len(pairs)) + pairs, kind, number)


# Rules for views, where `calls.CALLS` has one for values.
VIEW_CALLS: dict[str, Rule] = {
    "pad": _pad,
    "constant_pad_nd": lambda s, x, pad, value=0: _pad(s, x, pad, value=value),
}

TENSOR_CALLS: dict[str, Rule] = {
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    "swapdims": _transpose,
    "movedim": _movedim,
    "t": lambda s, x: _transpose(s, x, 0, 1),
    "view": _view,
    "reshape": _view,
    "_unsafe_view": _view,
    "view_as": lambda s, x, other: _view(s, x, list(other.shape)),
    "reshape_as": lambda s, x, other: _view(s, x, list(other.shape)),
    "flatten": _flatten,
    "unflatten": _unflatten,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "expand": _expand,
    "expand_as": _expand_as,
    "repeat": _repeat,
    "tile": _repeat,
    "getitem": _getitem,
    "slice": _slice,
    "narrow": _narrow,
    "select": _select,
    "split": _split,
    "split_with_sizes": _split,
    "chunk": _chunk,
    "tensor_split": _tensor_split,
    "unbind": _unbind,
    "index_select": _index_select,
    "index": _index,
    "unfold": _windows,
    "im2col": _columns,
    **dict.fromkeys(("fold", "col2im"), _fold),
    "roll": _roll,
    "flip": _flip,
    "cat": _cat,
    "concat": _cat,
    "concatenate": _cat,
    "stack": _stack,
    **{name: binary("add") for name in ("add", "iadd")},
    **{name: binary("subtract") for name in ("sub", "isub", "subtract")},
    "rsub": binary("subtract", flipped=True),
    **{name: binary("multiply") for name in ("mul", "imul", "multiply")},
    **{name: binary("divide") for name in ("truediv", "div", "divide", "itruediv")},
    **{name: binary("power") for name in ("pow", "ipow", "float_power")},
    "maximum": binary("maximum"),
    "minimum": binary("minimum"),
    **dict.fromkeys(("matmul", "bmm", "mm", "imatmul"), _matmul),
    "addmm": _addmm,
    "addcmul": _addcmul,
    "type_as": _like,
    "expand_copy": _expand,
    "baddbmm": _addmm,
    "mean": _reduce("mean"),
    "sum": _reduce("sum"),
    "amax": _reduce("max"),
    "amin": _reduce("min"),
    "prod": _reduce("product"),
    "logsumexp": _reduce("logsumexp"),
    "max": _largest("max", "maximum"),
    "min": _largest("min", "minimum"),
    "norm": _norm,
    "vector_norm": _norm,
    "linalg_vector_norm": _norm,
    "normalize": _normalize,
    "var": _variance(root=False),
    "std": _variance(root=True),
    "var_mean": _variance_and_mean,
    "softmax": _softmax(log=False),
    "_softmax": _softmax(log=False),
    "log_softmax": _softmax(log=True),
    "_log_softmax": _softmax(log=True),
    "rms_norm": _rms_norm,
    "cumsum": _cumsum,
}
