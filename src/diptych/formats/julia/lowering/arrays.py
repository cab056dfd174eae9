"""Functions of whole arrays: reductions, pools, padding and joins.

Julia's axis d of an array with r axes is our axis r - d, or -d counted from the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diptych.axes import flip_kernel
from diptych.formats.julia.expressions import Call, Name
from diptych.formats.julia.lowering.lowering import Lowering, Rule
from diptych.formats.julia.lowering.shapes import SHAPES, axis_of, flow_of, only
from diptych.formats.julia.lowering.sizes import BATCH, fresh, product
from diptych.formats.julia.lowering.values import COLON, Flow, Made, number, whole, wholes
from diptych.model import layers as L
from diptych.model.layers import Activation, Layer, Pads

__all__ = ["ARRAYS", "MAKERS"]


# ---- Reductions ---------------------------------------------------------------------------------------

_KINDS: dict[str, L.ReduceKind] = {
    "mean": "mean", "sum": "sum", "maximum": "max", "minimum": "min", "prod": "product", "logsumexp": "logsumexp",
}  # fmt: skip


def _reduce(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    if len(arguments) == 1 and isinstance(arguments[0], tuple):
        return _of_tuple(w, part, arguments[0])
    only(w, part, keywords, "dims")
    flow = flow_of(w, part, arguments[-1])
    if len(arguments) == 2 and isinstance(arguments[0], Name):  # sum(abs2, x; dims = 1)
        flow = w.mapped(part, arguments[0].name, flow)
    elif len(arguments) != 1:
        raise w.refuse(part, f"calls {part.function} in an unknown way")
    return reduced(w, part, flow, _KINDS[part.function], _dims(w, part, flow, keywords))


def _of_tuple(w: Lowering, part: Call, values: tuple[Any, ...]) -> Any:
    if part.function != "sum" or not all(isinstance(v, Flow) for v in values):
        raise w.refuse(part, f"calls {part.function} in an unknown way")
    return w.join(part, "add", values)


def _dims(w: Lowering, part: Call, flow: Flow, keywords: dict[str, Any]) -> tuple[int, ...]:
    given = keywords.get("dims")
    dims = wholes(given)
    if given is None or given == COLON:
        raise w.refuse(part, f"takes the {part.function} over the batch too, which mixes samples")
    if not dims or len(set(dims)) < len(dims):
        raise w.refuse(part, f"takes the {part.function} over axes that are not known")
    return dims


def reduced(w: Lowering, part: Any, flow: Flow, kind: L.ReduceKind, dims: Sequence[int]) -> Flow:
    """A reduction over Julia's axes, which stay with length 1."""
    dims = sorted(dims)
    spatial = len(dims) >= 1 and list(dims) == list(range(1, len(dims) + 1))
    pool = {"mean": L.GlobalMeanPool(), "max": L.GlobalMaxPool()}.get(kind)
    if flow.rank is None:
        if len(dims) < 2 or not spatial or pool is None:
            raise w.refuse(part, "takes a reduction over other axes than the spatial ones")
        return w.apply(part, flow, pool, shape=(BATCH, fresh(), *[1] * len(dims)))
    axes = tuple(sorted(axis_of(w, part, flow, dim) for dim in dims))
    if 0 in axes:
        raise w.refuse(part, "takes a reduction over the batch, which mixes samples")
    assert flow.shape is not None
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(flow.shape))
    if pool is not None and flow.rank > 2 and axes == tuple(range(2, flow.rank)):
        return w.apply(part, flow, pool, shape=shape)
    # Two at a time over (2, 3) would be taken for a global pool where the number of axes is not recorded.
    groups = [axes] if axes != (2, 3) or kind not in ("mean", "max") else [(2,), (3,)]
    made = w.apply(part, flow, *(L.Reduce(kind, group) for group in groups), shape=shape)
    summed = (flow, axes, product([flow.shape[axis] for axis in axes])) if kind == "sum" else None
    return Flow(made.value, made.shape, None, summed)


def _spread(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """`std` and `var`, by default divided by n - 1."""
    only(w, part, keywords, "dims", "corrected", "mean")
    flow = flow_of(w, part, arguments[0])
    dims = _dims(w, part, flow, keywords)
    corrected = keywords.get("corrected", True)
    if flow.shape is None or len(arguments) != 1 or not isinstance(corrected, bool):
        raise w.refuse(part, f"calls {part.function} in an unknown way")
    count = product([flow.shape[axis_of(w, part, flow, dim)] for dim in dims])
    if corrected and (not isinstance(count, int) or count < 2):
        raise w.refuse(
            part, f"takes the {part.function} over a number of values that depends on the input's size"
        )
    variance = _variance(w, part, flow, dims)[1]
    if corrected:
        assert isinstance(count, int)
        variance = w.pointwise(part, variance, Activation("affine", (count / (count - 1), 0.0)))
    return variance if part.function == "var" else w.pointwise(part, variance, Activation("sqrt"))


def _variance(w: Lowering, part: Any, flow: Flow, dims: Sequence[int]) -> tuple[Flow, Flow]:
    """The value minus its mean, and the mean of its square."""
    centred = w.join(part, "subtract", [flow, reduced(w, part, flow, "mean", dims)])
    return centred, reduced(w, part, w.pointwise(part, centred, Activation("abs2")), "mean", dims)


def _normalise(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    only(w, part, keywords, "dims", "ϵ", "ε", "eps")
    flow = flow_of(w, part, arguments[0])
    given = [keywords[name] for name in ("ϵ", "ε", "eps") if name in keywords]
    epsilon = number(given[0]) if given else float(np.float32(1e-5))
    if w.formula is None or epsilon is None or len(arguments) != 1:
        raise w.refuse(part, "calls normalise in an unknown way")
    formula = w.formula()
    dims = wholes(keywords["dims"]) if "dims" in keywords else None
    if dims is None or (flow.rank is not None and dims == (flow.rank,)):
        if "dims" in keywords and dims is None:
            raise w.refuse(part, "normalises over axes that are not known")
        return w.apply(part, flow, L.Normalise(0, epsilon, formula), shape=flow.shape)
    if len(dims) == 1:
        return w.apply(
            part, flow, L.Normalise(axis_of(w, part, flow, dims[0]), epsilon, formula), shape=flow.shape
        )
    if flow.rank is None:
        raise w.refuse(part, "normalises an array whose number of axes is not known")
    centred, variance = _variance(w, part, flow, dims)
    root, inside = Activation("sqrt"), {"std + eps": 0.0, "sqrt(var + eps)": epsilon}.get(formula, epsilon**2)
    steps = (
        [Activation("affine", (1.0, inside)), root]
        if inside
        else [root, Activation("affine", (1.0, epsilon))]
    )
    return w.join(part, "divide", [centred, w.pointwise(part, variance, *steps)])


def _softmax(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    flow, dims = flow_of(w, part, arguments[0]), wholes(keywords.get("dims", 1))
    if len(arguments) != 1 or not keywords.keys() <= {"dims"} or dims is None or len(dims) != 1:
        raise w.refuse(part, "takes a softmax over several axes")
    if flow.rank is not None and dims[0] == flow.rank:
        raise w.refuse(part, "takes a softmax over the batch, which mixes samples")
    layer = L.Softmax(-dims[0], part.function == "logsoftmax")
    return w.apply(part, flow, layer, shape=flow.shape)


# ---- Pools, padding, enlarging ------------------------------------------------------------------------


def _pool_of(w: Lowering, part: Call, name: str, sizes: Any, keywords: dict[str, Any]) -> Layer:
    kernel = wholes(sizes)
    if not kernel or any(k < 1 for k in kernel) or not keywords.keys() <= {"stride", "pad"}:
        raise w.refuse(part, f"calls {part.function} in an unknown way")
    stride = wholes(keywords["stride"]) if "stride" in keywords else kernel
    pad = wholes(keywords["pad"]) if "pad" in keywords else (0,)
    if stride is None or pad is None:
        raise w.refuse(part, f"calls {part.function} with sizes that are not numbers")
    strides, padding = _per_axis(stride, len(kernel)), _pads(pad, len(kernel))
    if strides is None or padding is None:
        raise w.refuse(part, f"calls {part.function} with sizes that do not fit the window")
    return (L.MaxPool if name == "max" else L.MeanPool)(kernel[::-1], strides[::-1], padding)


def _pool(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """`maxpool(x, (2, 2); stride, pad)`, whose window, stride and padding have W first in Julia."""
    flow = flow_of(w, part, arguments[0])
    sizes = arguments[1] if len(arguments) == 2 else None
    if flow.shape is not None and sizes == flow.shape[:1:-1] and not keywords:  # meanpool(x, size(x)[1:2])
        return w.apply(part, flow, _WHOLE[part.function]())
    if whole(sizes) is not None and flow.rank is not None:
        sizes = (sizes,) * (flow.rank - 2)
    return w.apply(part, flow, _pool_of(w, part, part.function.removesuffix("pool"), sizes, keywords))


_WHOLE: dict[str, type[L.GlobalMeanPool] | type[L.GlobalMaxPool]] = {
    "meanpool": L.GlobalMeanPool, "maxpool": L.GlobalMaxPool,
}  # fmt: skip


def _per_axis(numbers: tuple[int, ...], rank: int) -> tuple[int, ...] | None:
    spread = numbers * rank if len(numbers) == 1 else numbers
    return spread if len(spread) == rank and all(n >= 1 for n in spread) else None


def _pads(numbers: tuple[int, ...], rank: int) -> Pads | None:
    """Padding as pairs, W last, from one number, one for each axis, or (low, high) for each axis, W first."""
    if any(n < 0 for n in numbers):
        return None
    if len(numbers) == 2 * rank:
        return tuple((numbers[2 * i], numbers[2 * i + 1]) for i in reversed(range(rank)))
    spread = numbers * rank if len(numbers) == 1 else numbers
    return tuple((n, n) for n in reversed(spread)) if len(spread) == rank else None


_MODES: dict[str, L.PadMode] = {
    "pad_zeros": "zero", "pad_constant": "constant", "pad_reflect": "reflect", "pad_repeat": "replicate",
    "pad_circular": "wrap", "pad_symmetric": "symmetric",
}  # fmt: skip


def _pad(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    flow, numbers = flow_of(w, part, arguments[0]), wholes(arguments[1]) if len(arguments) > 1 else None
    value = number(arguments[2]) if len(arguments) == 3 else 0.0
    if not numbers or value is None or len(arguments) > 3 or not keywords.keys() <= {"dims"}:
        raise w.refuse(part, f"calls {part.function} in an unknown way")
    mode = _MODES[part.function]
    constant = mode in ("zero", "constant")
    if "dims" in keywords and keywords["dims"] != COLON:
        dims = wholes(keywords["dims"])
    elif constant:  # NNlib pads all axes then, the batch too
        dims = tuple(range(1, flow.rank + 1)) if flow.rank is not None else None
    elif len(numbers) == 1:
        dims = tuple(range(1, (flow.rank or 4) - 1))
    else:
        dims = tuple(range(1, len(numbers) // 2 + 1))
    if not dims or len(numbers) not in (1, 2 * len(dims), *([len(dims)] if constant else [])):
        raise w.refuse(part, f"calls {part.function} in an unknown way")
    pairs = dict(zip(dims, _pairs(numbers, len(dims)), strict=True))
    spatial = max([2, *(dim for dim, pair in pairs.items() if any(pair))])
    if flow.rank is not None and any(dim > flow.rank - 2 and any(pair) for dim, pair in pairs.items()):
        raise w.refuse(part, "pads the channels or the batch")
    spatial = flow.rank - 2 if flow.rank is not None else spatial
    padding = tuple(pairs.get(dim, (0, 0)) for dim in range(spatial, 0, -1))
    if mode == "constant" and value == 0:
        mode = "zero"
    return w.apply(part, flow, L.Pad(padding, mode, value if mode == "constant" else 0.0))


def _pairs(numbers: tuple[int, ...], count: int) -> list[tuple[int, int]]:
    if len(numbers) == 1:
        return [(numbers[0], numbers[0])] * count
    if len(numbers) == count:
        return [(n, n) for n in numbers]
    return [(numbers[2 * i], numbers[2 * i + 1]) for i in range(count)]


def _upsample(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    flow = flow_of(w, part, arguments[0])
    only(w, part, keywords, "size", "align_corners")
    given = [*arguments[1:], *([keywords["size"]] if "size" in keywords else [])]
    mode = "nearest" if part.function == "upsample_nearest" else "linear"
    corners = keywords.get("align_corners", True)
    if len(given) != 1 or not isinstance(corners, bool):
        raise w.refuse(part, f"calls {part.function} in an unknown way")
    layer = _upsampling(w, part, flow.rank, mode, given[0], "size" in keywords, corners)
    return w.apply(part, flow, layer)


def _upsampling(
    w: Lowering, part: Call, rank: int | None, mode: str, given: Any, to_size: bool, corners: bool = True
) -> Layer:
    parts = given if isinstance(given, tuple) else (given,) * ((rank or 4) - 2)
    numbers = [n for item in parts if (n := number(item)) is not None]
    if not numbers or len(numbers) < len(parts) or any(n <= 0 for n in numbers) or not parts:
        raise w.refuse(part, f"calls {part.function} in an unknown way")
    options: dict[str, Any] = {"mode": mode, "align_corners": mode == "linear" and corners}
    if to_size:
        return L.Upsample(size=tuple(int(n) for n in reversed(numbers)), **options)
    return L.Upsample(scale=tuple(float(n) for n in reversed(numbers)), **options)


def _shuffle(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    factor = whole(arguments[1]) if len(arguments) == 2 else None
    if factor is None or factor < 1 or keywords:
        raise w.refuse(part, "calls pixel_shuffle in an unknown way")
    return w.apply(part, flow_of(w, part, arguments[0]), L.PixelShuffle(factor))


def _dropout(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    if keywords.get("active") is not False:
        raise w.refuse(part, "drops values at random, when it predicts too, unless active = false is given")
    return flow_of(w, part, next((a for a in arguments if isinstance(a, Flow)), None))


# ---- Layers that are made inside ----------------------------------------------------------------------


# The layers that a function may make and call, such as `MaxPool((2, 2))(x)`: those without weights.
MAKERS = (
    "MaxPool", "MeanPool", "GlobalMeanPool", "GlobalMaxPool", "AdaptiveMeanPool", "AdaptiveMaxPool", "Upsample",
    "PixelShuffle",
)  # fmt: skip


def _make(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    name = part.function
    if name in ("MaxPool", "MeanPool") and len(arguments) == 1:
        return Made((_pool_of(w, part, name.removesuffix("Pool").lower(), arguments[0], keywords),))
    if name in ("GlobalMeanPool", "GlobalMaxPool") and not arguments and not keywords:
        return Made(((L.GlobalMeanPool if "Mean" in name else L.GlobalMaxPool)(),))
    sizes = wholes(arguments[0]) if len(arguments) == 1 else None
    if name in ("AdaptiveMeanPool", "AdaptiveMaxPool") and sizes and not keywords:
        return Made(((L.AdaptiveMeanPool if "Mean" in name else L.AdaptiveMaxPool)(sizes[::-1], "flux"),))
    if name == "PixelShuffle" and sizes and len(sizes) == 1 and not keywords:
        return Made((L.PixelShuffle(sizes[0]),))
    if name == "Upsample" and sizes and not keywords:
        return Made((_upsampling(w, part, None, "nearest", arguments[0], False),))
    raise w.refuse(part, f"makes a {name} in an unknown way")


def _call(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    made, *rest = arguments
    if not isinstance(made, Made) or len(rest) != 1 or keywords:
        raise w.refuse(part, "calls something that it computes itself")
    return w.apply(part, flow_of(w, part, rest[0]), *made.layers)


def _conv(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """`conv(x, weight; stride, pad, dilation, groups, flipped)`, which turns its kernel unless `flipped`."""
    only(w, part, keywords, "stride", "pad", "dilation", "groups", "flipped")
    flow, weight = (*arguments, None, None)[:2]
    count = weight.ndim - 2 if isinstance(weight, np.ndarray) else 0
    numbers = {name: wholes(keywords.get(name, default)) for name, default in
               (("stride", 1), ("pad", 0), ("dilation", 1), ("groups", 1))}  # fmt: skip
    flipped = keywords.get("flipped", False)
    if (
        len(arguments) != 2
        or not 1 <= count <= 3
        or None in numbers.values()
        or not isinstance(flipped, bool)
    ):
        raise w.refuse(part, "calls conv in an unknown way")
    stride, dilation = (_per_axis(numbers[name] or (), count) for name in ("stride", "dilation"))
    padding = _pads(numbers["pad"] or (), count)
    if stride is None or dilation is None or padding is None or not isinstance(weight, np.ndarray):
        raise w.refuse(part, "calls conv with sizes that do not fit the kernel")
    kernel = np.ascontiguousarray(weight if flipped else flip_kernel(weight), np.float32)
    layer = L.Conv(
        kernel,
        stride=stride[::-1],
        padding=padding,
        dilation=dilation[::-1],
        groups=(numbers["groups"] or (1,))[0],
    )
    return w.apply(part, flow_of(w, part, flow), layer)


def _gated(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """`glu(x, dim)`: the first half along an axis times the sigmoid of the second."""
    flow, dim = flow_of(w, part, arguments[0]), whole(arguments[1]) if len(arguments) == 2 else 1
    axis = axis_of(w, part, flow, dim or 0)
    size = flow.shape[axis] if flow.shape is not None else None
    if not isinstance(size, int) or size % 2 or axis == 0 or keywords or flow.shape is None:
        raise w.refuse(part, "splits an axis whose size is not known")
    shape = (*flow.shape[:axis], size // 2, *flow.shape[axis + 1 :])
    first, second = (
        w.apply(part, flow, L.Slice(axis, at, at + size // 2), shape=shape) for at in (0, size // 2)
    )
    return w.join(part, "multiply", [first, w.pointwise(part, second, Activation("sigmoid"))])


# ---- Joins --------------------------------------------------------------------------------------------


def _cat(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    dims = {"vcat": 1, "hcat": 2}.get(part.function) or whole(keywords.get("dims"))
    if dims is None or dims < 1 or (keywords and part.function != "cat"):
        raise w.refuse(part, "concatenates along an axis that is not known")
    first = next(a for a in arguments if isinstance(a, Flow))
    if first.rank is not None and dims == first.rank:
        raise w.refuse(part, "concatenates batches")
    flows = []
    for given in arguments:
        item = given
        if (
            isinstance(item, np.ndarray)
            and first.rank is not None
            and item.ndim in (first.rank, first.rank - 1)
        ):
            array = item[0] if item.ndim == first.rank and len(item) == 1 else item
            item = w.constant(part, array, first)
        flows.append(flow_of(w, part, item))
    if len(flows) == 1:
        return flows[0]
    return w.join(part, "concatenate", flows, -dims)


def _matrices(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """`batched_mul(a, b)`: the last two of our axes are in the other order, and so are the matrices."""
    flows = [flow_of(w, part, item) for item in arguments]
    if len(flows) != 2 or keywords:
        raise w.refuse(part, "multiplies matrices in a way that no layer does")
    return w.join(part, "matmul", flows[::-1])


ARRAYS: dict[str, Rule] = {
    **SHAPES,
    **dict.fromkeys(_KINDS, _reduce), "std": _spread, "var": _spread, "normalise": _normalise,
    "softmax": _softmax, "logsoftmax": _softmax,
    "maxpool": _pool, "meanpool": _pool, **dict.fromkeys(_MODES, _pad),
    **dict.fromkeys(("upsample_nearest", "upsample_linear", "upsample_bilinear", "upsample_trilinear"), _upsample),
    "pixel_shuffle": _shuffle, "dropout": _dropout, **dict.fromkeys(MAKERS, _make), "call": _call,
    "cat": _cat, "vcat": _cat, "hcat": _cat, "batched_mul": _matrices, "⊠": _matrices, "conv": _conv, "glu": _gated,
}  # fmt: skip
