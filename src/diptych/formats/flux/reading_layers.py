"""How each struct of Flux is read as one of our layers: one small function for each struct.

Julia orders sizes W, H, C, N where Diptych has N, C, H, W, so tuples and the axes of arrays are reversed. `Conv` is
a true convolution, so its kernel is flipped (see `diptych.axes`); that of `CrossCor` is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diptych.axes import flip_kernel, reverse_axes
from diptych.errors import FormatError
from diptych.formats.flux.functions import path_of
from diptych.formats.flux.reading import Fields, FluxReader, LayerRule
from diptych.formats.flux.reading_functions import (
    connection_of,
    joined_by_function,
    swapped_connection,
)
from diptych.formats.flux.reading_graphs import carried_graph, merged_product, permutation_of, undoes
from diptych.formats.flux.reading_recurrent import RECURRENT, attention_and_first
from diptych.formats.julia import JuliaStruct, Symbol
from diptych.formats.julia.arrays import as_array
from diptych.formats.julia.lowered import is_function
from diptych.model.layers import (
    Activation,
    AdaptiveMaxPool,
    AdaptiveMeanPool,
    Array,
    BatchNorm,
    Bilinear,
    Chain,
    Connection,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Embedding,
    Expand,
    GlobalMaxPool,
    GlobalMeanPool,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    MaxPool,
    MeanPool,
    Pads,
    Parallel,
    PixelShuffle,
    Scale,
    SkipConnection,
    Softmax,
    Upsample,
    child_path,
)

__all__ = ["RULES", "weight_of_norm"]


def _same(array: Array) -> Array:
    return array


def _flipped(array: Array) -> Array:
    return flip_kernel(reverse_axes(array))


def _depthwise_weight(array: Array) -> Array:
    """(kw, kh, multiplier, in) -> (in * multiplier, 1, kh, kw), flipped."""
    ours = _flipped(array)
    if ours.ndim < 3:
        raise FormatError(f"it has {ours.ndim} axes; at least 3 are expected")
    return ours.reshape(ours.shape[0] * ours.shape[1], 1, *ours.shape[2:])


# ---- Convolution --------------------------------------------------------------------------------------


def _conv(r: FluxReader, f: Fields) -> Layer:
    crossing = f.struct == "CrossCor"
    weight = f.array(
        "weight", "reversed" if crossing else "flipped", reverse_axes if crossing else _flipped, None
    )
    rank = _rank(f, weight)
    groups = f.whole("groups") if f.has("groups") else 1
    if crossing:
        r.hint(f.path, struct="CrossCor")
    return _with_windows(f, rank, lambda **options: Conv(weight, groups=groups, **options))


def _depthwise(r: FluxReader, f: Fields) -> Layer:
    weight = f.array("weight", "depthwise", _depthwise_weight, None)
    raw = as_array(f.get("weight"))
    groups = raw.shape[-1] if raw is not None else 1
    r.hint(f.path, struct="DepthwiseConv")
    return _with_windows(f, _rank(f, weight), lambda **options: Conv(weight, groups=groups, **options))


def _conv_transpose(r: FluxReader, f: Fields) -> Layer:
    weight = f.array("weight", "flipped", _flipped, None)
    rank = _rank(f, weight)
    groups = f.whole("groups") if f.has("groups") else 1
    extra = f.wholes("outpad", (rank,))[::-1] if f.has("outpad") else (0,) * rank
    return _with_windows(
        f, rank, lambda **options: ConvTranspose(weight, groups=groups, output_padding=extra, **options)
    )


def _rank(f: Fields, weight: Array) -> int:
    rank = weight.ndim - 2
    if rank not in (1, 2, 3):
        raise f.refuse(f"has a kernel of {weight.ndim} axes, where 3 to 5 are expected")
    f.reader.rank = f.reader.rank or rank
    return rank


def _with_windows(f: Fields, rank: int, build: Callable[..., Layer]) -> Layer:
    bias = f.maybe("bias", "same", _same, 1)
    stride, padding = f.wholes("stride", (rank,))[::-1], _padding(f, rank)
    dilation = f.wholes("dilation", (rank,))[::-1] if f.has("dilation") else (1,) * rank
    return f.activated(
        "σ",
        lambda activation: build(
            bias=bias, stride=stride, padding=padding, dilation=dilation, activation=activation
        ),
    )


def _padding(f: Fields, rank: int) -> Pads:
    """Padding as (low, high) pairs, W last. Flux stores one or two numbers for each axis, W first."""
    stored = f.wholes("pad", (rank, 2 * rank))
    if len(stored) == rank:
        f.reader.hint(f.path, pad=rank)
        return tuple((n, n) for n in reversed(stored))
    return tuple((stored[2 * i], stored[2 * i + 1]) for i in reversed(range(rank)))


# ---- Dense layers -------------------------------------------------------------------------------------


def _dense(r: FluxReader, f: Fields) -> Layer:
    weight = f.array("weight", "same", _same, 2)  # (out, in) on both sides
    bias = f.maybe("bias", "same", _same, 1)
    raw = f.get("weight")
    if isinstance(raw, JuliaStruct) and raw.type.name in ("Transpose", "Adjoint"):
        r.hint(f.path, weight=raw.type.name)
    return f.activated("σ", lambda activation: Dense(weight, bias, activation))


def _bilinear(r: FluxReader, f: Fields) -> Layer:
    weight = f.array("weight", "same", _same, 3)
    bias = f.maybe("bias", "same", _same, 1)
    if weight.shape[1] != weight.shape[2]:
        raise f.refuse(
            f"takes two inputs, of {weight.shape[1]} and {weight.shape[2]} features, where models in Diptych have one"
        )
    return f.activated("σ", lambda activation: Bilinear(weight, bias, activation))


def _scale(r: FluxReader, f: Fields) -> Layer:
    scale = f.array("scale", "reversed", reverse_axes, None)
    bias = f.maybe("bias", "reversed", reverse_axes, None)
    if bias is not None and bias.size == 1 < scale.size and not bias.any() and (scale == 1).all():
        return Expand(scale.shape)  # as `structs_of_primitives` writes it
    if f.struct == "Diagonal":
        return Scale(scale, bias)
    return f.activated("σ", lambda activation: Scale(scale, bias, activation))


def _embedding(r: FluxReader, f: Fields) -> Layer:
    return Embedding(f.array("weight", "reversed", reverse_axes, 2), first=1)


def _embedding_bag(r: FluxReader, f: Fields) -> Layer:
    weight = f.array("weight", "reversed", reverse_axes, 2)
    reduction = f.get("reduction")
    name = reduction.type.name if isinstance(reduction, JuliaStruct) else ""
    ways: dict[str, Any] = {"#mean": "mean", "#sum": "sum", "#maximum": "max"}
    if name not in ways:
        raise f.refuse(
            f"reduces by {name.removeprefix('#') or 'an unknown function'}, where mean, sum or maximum is expected"
        )
    return Embedding(weight, first=1, reduction=ways[name])


def _weight_norm(r: FluxReader, f: Fields) -> Layer:
    inner, which, g = f.get("layer"), f.get("which"), f.get("g")
    v = None
    if isinstance(inner, JuliaStruct) and isinstance(which, Symbol) and which.name == "weight":
        place = r.fields(inner, f.path)
        v = as_array(place.get("weight"))
    dims = f.get("dims")
    if isinstance(dims, JuliaStruct) and dims.type.name == "Colon":
        dims = ()
    weight = weight_of_norm(v, np.asarray(g) if isinstance(g, np.floating) else as_array(g), dims)
    if weight is None or not isinstance(inner, JuliaStruct):
        raise f.refuse("does not normalise the weight of a layer along one axis or all of them")
    index = next(i for i, value in enumerate(inner.fields) if value is place.get("weight"))
    fields = [*inner.fields[:index], weight, *inner.fields[index + 1 :]]
    r.warn("WeightNorm was computed once: the model holds the resulting weights instead of g and v")
    r.hint(f.path, weight_norm=dims or 0)
    return r._layer(JuliaStruct(inner.type, fields, inner.names), f.path)


def weight_of_norm(v: Array | None, g: Array | None, dims: Any) -> Array | None:
    """The weight that Flux's `WeightNorm` computes, g v / sqrt(sum(v^2) + eps), or None if the parts do not fit.

    Args:
        v: The direction, of the shape of the weight.
        g: The length, of a shape that broadcasts against `v`.
        dims: The axis of `v`, counted from 1, along which the squares are summed; () for all axes.

    Returns:
        The weight in the dtype of `v`, in Fortran order.
    """
    if v is None or g is None or v.dtype.kind != "f" or g.dtype.kind != "f":
        return None
    if dims != () and not (isinstance(dims, int) and 1 <= dims <= v.ndim):
        return None
    axes = tuple(range(v.ndim)) if dims == () else (dims - 1,)
    squares = np.square(v, dtype=np.float64).sum(axis=axes, keepdims=True)
    try:
        weight = (g * v / np.sqrt(squares + np.finfo(g.dtype).eps)).astype(v.dtype)
    except ValueError:
        return None
    return np.asfortranarray(weight) if weight.shape == v.shape else None


# ---- Normalisation ------------------------------------------------------------------------------------


def _noted_mode(r: FluxReader, f: Fields) -> None:
    active = f.get("active")
    if active is True:
        r.warn(f"{f.struct} was saved in training mode (active = true); Diptych runs it in test mode")
    if isinstance(active, bool):
        r.hint(f.path, active=active)


def _norm(r: FluxReader, f: Fields) -> Layer:
    _noted_mode(r, f)
    scale, shift = (f.maybe(name, "same", _same, 1) for name in ("γ", "β"))
    tracked = f.get("track_stats") is not False
    mean, variance = (f.maybe(name, "vector", _vector, 1) if tracked else None for name in ("μ", "σ²"))
    epsilon = _epsilon(r, f)
    if f.has("momentum") and isinstance(f.get("momentum"), (float, np.floating)):
        momentum = f.number("momentum")
        if f.struct != "BatchNorm" and abs(momentum - 0.1) > 1e-7:
            r.hint(f.path, momentum=momentum)
    if f.get("chs") is not None and scale is None and mean is None:  # otherwise the length of an array tells
        r.hint(f.path, chs=f.whole("chs"))
    if f.struct == "BatchNorm":
        momentum = f.number("momentum") if f.has("momentum") else 0.1
        return f.activated("λ", lambda a: BatchNorm(scale, shift, mean, variance, epsilon, momentum, a))
    if f.struct == "InstanceNorm":
        return f.activated("λ", lambda a: InstanceNorm(scale, shift, mean, variance, epsilon, a))
    groups = f.whole("G")
    return f.activated("λ", lambda a: GroupNorm(groups, scale, shift, mean, variance, epsilon, a))


def _vector(array: Array) -> Array:
    # GroupNorm stored (G, 1) before 0.12.
    return array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array


def _epsilon(r: FluxReader, f: Fields) -> float:
    if f.get("ϵ") is None:
        return 1e-5
    if isinstance(f.get("ϵ"), float):
        r.hint(f.path, epsilon="Float64")
    return f.number("ϵ")


def _layer_norm(r: FluxReader, f: Fields) -> Layer:
    formula = r.formula("LayerNorm", f.path)
    diagonal = f.get("diag")
    inner = r.fields(diagonal, f.path) if _is(diagonal, "Diagonal", "Scale") else None
    scale = inner.array("scale", "reversed", reverse_axes, None) if inner else None
    shift = inner.maybe("bias", "reversed", reverse_axes, None) if inner else None
    if not f.has("size"):  # 0.11 and before normalised along the first axis alone
        if scale is None:
            raise f.refuse("does not have a scale, which would tell its size")
        epsilon = 0.0 if r.signs.old_nnlib else 1e-5
        return LayerNorm(scale.shape, scale, shift, epsilon, formula)
    size = f.get("size")
    shape = f.wholes("size", (len(size) if isinstance(size, tuple) else 1,))[::-1]
    epsilon = _epsilon(r, f)
    return f.activated("λ", lambda a: LayerNorm(shape, scale, shift, epsilon, formula, a))


def _is(value: Any, *names: str) -> bool:
    return isinstance(value, JuliaStruct) and value.type.path[0] == "Flux" and value.type.name in names


def _dropout(r: FluxReader, f: Fields) -> Layer:
    _noted_mode(r, f)
    if isinstance(f.get("p"), np.float32):
        r.hint(f.path, p="Float32")
    dims = f.get("dims")
    if isinstance(dims, int) and not isinstance(dims, bool):
        r.hint(f.path, dims=dims)
    if f.struct == "AlphaDropout":
        r.hint(f.path, struct="AlphaDropout")
    return Dropout(f.number("p"))


# ---- Pools and shape ----------------------------------------------------------------------------------


def _pool(r: FluxReader, f: Fields) -> Layer:
    kernel = f.wholes("k", (1, 2, 3))[::-1]
    r.rank = r.rank or len(kernel)
    kind = MaxPool if f.struct == "MaxPool" else MeanPool
    return kind(kernel, f.wholes("stride", (len(kernel),))[::-1], _padding(f, len(kernel)))


def _adaptive(r: FluxReader, f: Fields) -> Layer:
    kind = AdaptiveMaxPool if f.struct == "AdaptiveMaxPool" else AdaptiveMeanPool
    return kind(f.wholes("out", (1, 2, 3))[::-1], "flux")


def _upsample(r: FluxReader, f: Fields) -> Layer:
    mode = f.type.parameters[0] if f.type.parameters else None
    name = mode.name if isinstance(mode, Symbol) else ""
    ranks = {"nearest": r.rank or 2, "linear": 1, "bilinear": 2, "trilinear": 3}
    if name not in ranks:
        raise f.refuse(f"has the mode {name or mode}, where {', '.join(ranks)} are expected")
    scale, size = f.get("scale"), f.get("size")
    options: dict[str, Any] = {} if name == "nearest" else {"mode": "linear", "align_corners": True}
    if size is not None:
        return Upsample(size=_some(f, "size")[::-1], **options)
    if isinstance(scale, tuple):
        whole = all(isinstance(n, (int, np.integer)) for n in scale)
        if not 1 <= len(scale) <= 3 or not all(isinstance(n, (int, float, np.number)) for n in scale):
            raise f.refuse(f"has the scale {str(scale)[:40]}, where one to three numbers are expected")
        if not whole:
            r.hint(f.path, scale=[n if isinstance(n, int) else float(n) for n in scale])
        return Upsample(tuple(float(n) for n in reversed(scale)), **options)
    r.hint(f.path, scale=scale if isinstance(scale, int) else f.number("scale"))
    return Upsample((f.number("scale"),) * ranks[name], **options)


def _some(f: Fields, name: str) -> tuple[int, ...]:
    value = f.get(name)
    return f.wholes(name, (len(value) if isinstance(value, tuple) and value else 1,))


def _pixel_shuffle(r: FluxReader, f: Fields) -> Layer:
    return PixelShuffle(f.whole("r"))


# ---- Containers ---------------------------------------------------------------------------------------


def _inside(r: FluxReader, f: Fields, first: int = 0) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    values, names, container = f.children("layers")
    if container == "vector" or (container == "named" and f.struct != "Chain"):
        r.hint(f.path, container=container, **({"names": list(names)} if names else {}))
    if f.struct != "Chain":
        return r.branches(values, f.path, first), names
    known = attention_and_first(r, values, f.path)
    layers = [
        r.passed(known[i]) if i in known else r.layer(v, child_path(f.path, i))
        for i, v in enumerate(values, first)
    ]
    return tuple(layers), names


def _chain(r: FluxReader, f: Fields) -> Layer:
    values, _, _ = f.children("layers")
    for rule in (_joined_by_permuting, merged_product, carried_graph, _constant):
        made = rule(r, f, values)
        if made is not None:
            return made
    layers, names = _inside(r, f)
    return Chain(layers, names)


def _constant(r: FluxReader, f: Fields, values: Sequence[Any]) -> Layer | None:
    """Reads back what `structs_of_primitives` makes of a Constant: weights of 0, and a bias that is reshaped."""
    if len(values) != 4 or _named(values[0]) != "flatten" or not all(_is(v, "Dense") for v in values[1:3]):
        return None
    narrow, wide = (r.fields(value, f.path) for value in values[1:3])
    weights = [as_array(fields.get("weight")) for fields in (narrow, wide)]
    bias, end = as_array(wide.get("bias")), values[3]
    if any(w is None or w.ndim != 2 or w.any() for w in weights) or bias is None or not is_function(end):
        return None
    sizes = end.fields[1] if end.type.name == "Fix2" and isinstance(end.fields[1], tuple) else ()
    shape = tuple(int(n) for n in reversed(sizes[:-1]) if isinstance(n, (int, np.integer)))
    if _named(end.fields[0]) != "reshape" or len(shape) != len(sizes) - 1 or np.prod(shape) != bias.size:
        return None
    return Constant(np.ascontiguousarray(bias.reshape(shape)))


def _joined_by_permuting(r: FluxReader, f: Fields, values: tuple[Any, ...]) -> Layer | None:
    """Reads back what `structs_of_containers` makes of a concatenation along another axis than Julia's first."""
    if len(values) == 3 and _is(values[1], "Recur"):
        return _sequence_by_permuting(r, f, values)
    if len(values) == 3:
        return _softmax_by_permuting(r, f, values)
    if len(values) == 2 and f.path and _is(values[0], "MultiHeadAttention"):
        return attention_and_first(r, values, f.path)[0]
    if len(values) != 2 or not _is(values[0], "SkipConnection", "Parallel"):
        return None
    fields = r.fields(values[0], f.path)
    connection = fields.get("connection")
    if _named(connection) == "vcat" and values[0].type.name == "Parallel":
        return _branches_that_permute(r, f, fields, permutation_of(values[1]))
    if not _is(connection, "Parallel"):
        return None
    inner = r.fields(connection, f.path)
    moves = [permutation_of(v) for v in inner.children("layers")[0]]
    back = permutation_of(values[1])
    function = inner.get("connection")
    if _named(function) != "vcat" or len(set(moves)) != 1 or not undoes(back, moves[0]):
        return None
    assert moves[0] is not None
    made = r.layer(values[0], f.path)
    joined = Connection("concatenate", -moves[0][0])
    if isinstance(made, SkipConnection):
        return SkipConnection(made.inner, joined)
    assert isinstance(made, Parallel)
    return Parallel(joined, made.branches)


def _branches_that_permute(
    r: FluxReader, f: Fields, fields: Fields, back: tuple[int, ...] | None
) -> Layer | None:
    """The same as Flux 0.12 has it, where each branch permutes its own axes."""
    branches, moves = [], []
    for value in fields.children("layers")[0]:
        if not _is(value, "Chain"):
            return None
        parts = r.fields(value, f.path).get("layers")
        if not isinstance(parts, tuple) or len(parts) != 2:
            return None
        branches.append(parts[0])
        moves.append(permutation_of(parts[1]))
    if len(set(moves)) != 1 or moves[0] is None or not undoes(back, moves[0]):
        return None
    made = tuple(r.layer(branch, child_path(f.path, i)) for i, branch in enumerate(branches))
    return Parallel(Connection("concatenate", -moves[0][0]), made)


def _sequence_by_permuting(r: FluxReader, f: Fields, values: tuple[Any, ...]) -> Layer | None:
    """A recurrent layer of 0.14 or before, whose sequences are (features, N, time), on (features, time, N)."""
    if not all(permutation_of(value) == (1, 3, 2) for value in (values[0], values[2])):
        return None
    made = r.layer(values[1], f.path)
    r.hints.pop(f.path, None)
    return made


def _softmax_by_permuting(r: FluxReader, f: Fields, values: tuple[Any, ...]) -> Layer | None:
    move, back, name = permutation_of(values[0]), permutation_of(values[2]), _named(values[1])
    if move is None or not undoes(back, move) or name not in ("softmax", "logsoftmax"):
        return None
    return Softmax(-move[0], name == "logsoftmax")


def _named(value: Any) -> str:
    path = path_of(value)
    return path[-1] if path is not None else ""


def _skip(r: FluxReader, f: Fields) -> Layer:
    (inner,) = r.branches([f.get("layers")], f.path)
    try:
        return SkipConnection(inner, connection_of(r, f, 2))
    except FormatError as error:
        swapped = swapped_connection(f)
        if swapped is not None:
            return Parallel(swapped, (Activation(), inner))  # (mx, x) -> cat(x, mx, dims=3)
        return joined_by_function(r, f, (inner, Activation()), error)


def _parallel(r: FluxReader, f: Fields) -> Layer:
    branches, _ = _inside(r, f)
    if not branches:
        raise f.refuse("does not have any branches")
    try:
        return Parallel(connection_of(r, f, len(branches)), branches)
    except FormatError as error:
        return joined_by_function(r, f, branches, error)


def _maxout(r: FluxReader, f: Fields) -> Layer:
    branches, _ = _inside(r, f)
    if not branches:
        raise f.refuse("does not have any branches")
    r.hint(f.path, struct="Maxout")
    return Parallel(Connection("maximum"), branches)


RULES: dict[str, LayerRule] = {
    "Conv": _conv,
    "CrossCor": _conv,
    "DepthwiseConv": _depthwise,
    "ConvTranspose": _conv_transpose,
    "Dense": _dense,
    "Bilinear": _bilinear,
    "Scale": _scale,
    "Diagonal": _scale,
    "Embedding": _embedding,
    "EmbeddingBag": _embedding_bag,
    "WeightNorm": _weight_norm,
    "BatchNorm": _norm,
    "InstanceNorm": _norm,
    "GroupNorm": _norm,
    "LayerNorm": _layer_norm,
    "Dropout": _dropout,
    "AlphaDropout": _dropout,
    "MaxPool": _pool,
    "MeanPool": _pool,
    "AdaptiveMaxPool": _adaptive,
    "AdaptiveMeanPool": _adaptive,
    "GlobalMaxPool": lambda r, f: GlobalMaxPool(),
    "GlobalMeanPool": lambda r, f: GlobalMeanPool(),
    "Upsample": _upsample,
    "PixelShuffle": _pixel_shuffle,
    **RECURRENT,
    "Chain": _chain,
    "SkipConnection": _skip,
    "Parallel": _parallel,
    "Maxout": _maxout,
}
