"""How each of our layers becomes a struct of Flux: one small function for each layer, the inverse of `reading_layers`.

A refusal continues the sentence "Flux 0.14.25 cannot express the layer 3 (Pad):", so "its" means that version's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from diptych.axes import flip_kernel, reverse_axes
from diptych.formats.flux.functions import function
from diptych.formats.flux.structs import FluxSite, LayerRule, broadcast, fix, kind_of
from diptych.formats.flux.structs_of_containers import CONTAINERS
from diptych.formats.flux.structs_of_graphs import graph
from diptych.formats.flux.structs_of_joins import USE_A_PROJECT, moved, permutation, reshaped, there_and_back
from diptych.formats.flux.structs_of_primitives import PRIMITIVES, by_matrices
from diptych.formats.flux.structs_of_recurrent import RECURRENT
from diptych.formats.julia import JuliaStruct, JuliaType, Symbol
from diptych.model import layers as L
from diptych.model.layers import Array, Layer, NormFormula, Pads

__all__ = ["RULES"]


def _same(array: Array) -> Array:
    return array


def _flipped(array: Array) -> Array:
    return reverse_axes(flip_kernel(array))


# ---- Convolution --------------------------------------------------------------------------------------


def _conv(s: FluxSite, layer: L.Conv) -> JuliaStruct:
    name, groups = "Conv", layer.groups
    hinted = s.hints.get("struct")
    depthwise = layer.weight.shape[1] == 1 and groups > 1 and layer.weight.shape[0] % groups == 0
    if hinted == "CrossCor" and groups == 1:
        name = "CrossCor"
    elif depthwise and s.version < (0, 13) and (hinted == "DepthwiseConv" or s.version < (0, 12, 6)):
        return _with_windows(
            s, layer, "DepthwiseConv", s.array(layer.weight, "depthwise", _depthwise(groups))
        )
    elif groups > 1 and s.version < (0, 12, 6):
        raise s.refuse("its Conv does not have groups; write for 0.12.6 or later")
    change, convert = ("reversed", reverse_axes) if name == "CrossCor" else ("flipped", _flipped)
    return _with_windows(s, layer, name, s.array(layer.weight, change, convert), groups=groups)


def _depthwise(groups: int) -> Any:
    """(in * multiplier, 1, kh, kw) -> (kw, kh, multiplier, in)."""
    return lambda a: _flipped(a.reshape(groups, a.shape[0] // groups, *a.shape[2:]))


def _conv_transpose(s: FluxSite, layer: L.ConvTranspose) -> JuliaStruct:
    padding, extra = layer.padding, layer.output_padding
    if s.version < (0, 14, 17) and any(extra):
        # Padding less at the high end gives the same values.
        padding = tuple((low, high - more) for (low, high), more in zip(padding, extra, strict=True))
        if any(high < 0 for _, high in padding):
            raise s.refuse("its ConvTranspose does not have output padding; write for 0.14.17 or later")
    if layer.groups > 1 and s.version < (0, 12, 8):
        raise s.refuse("its ConvTranspose does not have groups; write for 0.12.8 or later")
    weight = s.array(layer.weight, "flipped", _flipped)
    return _with_windows(
        s, layer, "ConvTranspose", weight, padding, groups=layer.groups, outpad=tuple(reversed(extra))
    )


def _with_windows(
    s: FluxSite,
    layer: L.Conv | L.ConvTranspose,
    name: str,
    weight: Array,
    padding: Pads | None = None,
    **more: Any,
) -> JuliaStruct:
    values: dict[str, Any] = {
        "weight": weight,
        "bias": s.bias(layer.bias),
        "stride": tuple(reversed(layer.stride)),
        "pad": _pad_tuple(s, layer.padding if padding is None else padding),
        "dilation": tuple(reversed(layer.dilation)),
        **more,
    }
    return s.activated(layer.activation, lambda f: s.struct(name, σ=f, **values))


def _pad_tuple(s: FluxSite, padding: Pads) -> tuple[int, ...]:
    """Padding as (low, high) for each axis, W first, or in the short form if the file had that."""
    if s.hints.get("pad") == len(padding) and all(low == high for low, high in padding):
        return tuple(low for low, _ in reversed(padding))
    return tuple(edge for pair in reversed(padding) for edge in pair)


# ---- Dense layers -------------------------------------------------------------------------------------


def _dense(s: FluxSite, layer: L.Dense) -> JuliaStruct:
    weight: Any = s.array(layer.weight, "same", _same)
    wrapper = s.hints.get("weight")
    if wrapper in ("Transpose", "Adjoint"):
        if s.version < (0, 13):
            s.builder.note(
                "transposed weights need `using LinearAlgebra` before BSON.jl 0.3.6 and earlier load the file"
            )
        parent = s.array(layer.weight.T, "same", _same)
        kind = kind_of(parent)
        weight = JuliaStruct(JuliaType(("LinearAlgebra", wrapper), (kind.parameters[0], kind)), [parent])
    bias = s.bias(layer.bias)
    return s.activated(layer.activation, lambda f: s.struct("Dense", weight=weight, bias=bias, σ=f))


def _bilinear(s: FluxSite, layer: L.Bilinear) -> JuliaStruct:
    weight, bias = s.array(layer.weight, "same", _same), s.bias(layer.bias)
    if s.rank not in (None, 2):
        raise s.refuse(
            f"its Bilinear takes features alone, (N, features), and not {s.rank} axes; {USE_A_PROJECT}"
        )
    return s.activated(layer.activation, lambda f: s.struct("Bilinear", weight=weight, bias=bias, σ=f))


def _scale(s: FluxSite, layer: L.Scale) -> JuliaStruct:
    scale = s.array(layer.scale, "reversed", reverse_axes)
    if s.version < (0, 13):
        bias = np.zeros_like(layer.scale) if layer.bias is None else layer.bias
        made = s.struct("Diagonal", scale=scale, bias=s.array(bias, "reversed", reverse_axes))
        return s.chain(made, *map(broadcast, _after(s, layer.activation)))
    bias = s.bias(layer.bias, reverse_axes)
    return s.activated(layer.activation, lambda f: s.struct("Scale", scale=scale, bias=bias, σ=f))


def _after(s: FluxSite, activation: L.Activation) -> list[JuliaStruct]:
    return s.functions(activation) if activation else []


def _embedding(s: FluxSite, layer: L.Embedding) -> JuliaStruct:
    weight = s.array(layer.weight, "reversed", reverse_axes)
    if layer.reduction == "none":
        made = s.struct("Embedding", weight=weight, padding_idx=None)
    else:
        name = {"mean": ("Statistics", "mean"), "sum": ("Base", "sum"), "max": ("Base", "maximum")}
        made = s.struct("EmbeddingBag", weight=weight, reduction=function(*name[layer.reduction]))
    if layer.first == 1:
        return made
    return s.chain(broadcast(fix("Fix2", function("Base", "+"), 1 - layer.first)), made)


# ---- Normalisation ------------------------------------------------------------------------------------


def _channels(s: FluxSite, *arrays: Array | None) -> int:
    known = next((array.shape[0] for array in arrays if array is not None), s.hints.get("chs"))
    shape = s.builder.shapes.get(s.path)
    if known is None and shape is not None and len(shape) > 1:
        known = shape[1]
    if not isinstance(known, int):
        raise s.refuse(
            "it must know the number of channels, which the model does not record; give --shape (model.input_shape)"
        )
    return known


def _affine(s: FluxSite, layer: Any, channels: int) -> tuple[Array | None, Array | None]:
    """Shift and scale. Flux has both or neither, so a missing one is filled in."""
    scale, shift = layer.scale, layer.shift
    if scale is None and shift is None:
        return None, None
    scale = np.ones(channels, np.float32) if scale is None else scale
    shift = np.zeros(channels, np.float32) if shift is None else shift
    return s.array(shift, "same", _same), s.array(scale, "same", _same)


def _norm(s: FluxSite, layer: L.BatchNorm | L.InstanceNorm | L.GroupNorm) -> JuliaStruct:
    by_group = isinstance(layer, L.GroupNorm)
    mean, variance = layer.mean, layer.variance
    channels = _channels(s, layer.scale, layer.shift, None if by_group else mean)
    name = type(layer).__name__
    if isinstance(layer, L.GroupNorm) and mean is not None and variance is not None and s.version >= (0, 14):
        # GroupNorm does not track statistics any more; a BatchNorm with those of each channel's group is equal.
        each = channels // layer.groups
        name, mean, variance = "BatchNorm", np.repeat(mean, each), np.repeat(variance, each)
    shift, scale = _affine(s, layer, channels)
    wide = s.hints.get("epsilon") == "Float64"
    momentum = layer.momentum if isinstance(layer, L.BatchNorm) else s.hints.get("momentum", 0.1)
    values: dict[str, Any] = {
        "β": shift,
        "γ": scale,
        "μ": None if mean is None else s.array(mean, "same", _same),
        "σ²": None if variance is None else s.array(variance, "same", _same),
        "ϵ": layer.epsilon if wide else np.float32(layer.epsilon),
        "momentum": momentum if wide else np.float32(momentum),
        "affine": scale is not None,
        "track_stats": mean is not None,
        "active": s.hints.get("active"),
        "chs": channels,
    }
    if isinstance(layer, L.GroupNorm):
        values["G"] = layer.groups
    made = s.activated(layer.activation, lambda f: s.struct(name, λ=f, **values))
    if name == "GroupNorm" and s.rank == 2 and s.version < (0, 14):  # it needs a spatial axis there
        return s.chain(reshaped((channels, 1)), made, reshaped((channels,)))
    return made


_SMALL = 1e-4  # an epsilon of which it hardly matters where it is added


def _epsilon(s: FluxSite, formula: NormFormula, epsilon: float) -> float:
    """The epsilon with which this version's own formula gives the divisor that `formula` gives.

    The two square roots are equal with different epsilons. "std + eps" and "sqrt(var + eps^2)" differ by less than
    eps, so for small epsilons one stands for the other, with a remark.
    """
    own: NormFormula = "std + eps"
    if s.version >= (0, 15):
        own = "sqrt(var + eps)" if s.version >= (0, 16, 11) else "sqrt(var + eps^2)"
    if formula == own or epsilon == 0:
        return epsilon
    if own == "std + eps" and formula == "sqrt(var + eps)":
        raise s.refuse(
            "it divides by std + eps, not by sqrt(var + eps); write for Flux 0.15 or later, or give --shape "
            "(model.input_shape), with which a LayerNorm can be written exactly"
        )
    if "std + eps" in (own, formula):
        if epsilon > _SMALL:
            raise s.refuse(
                f"it divides by {own}, which differs too much from {formula} with the epsilon {epsilon:g}"
            )
        s.builder.formulas.setdefault(f"divided by {formula}, but by {own}", []).append(
            f"{s.path} ({type(s.layer).__name__})"
        )
    if own == "sqrt(var + eps)":
        return epsilon**2
    return float(np.sqrt(epsilon)) if formula == "sqrt(var + eps)" else epsilon


def _layer_norm(s: FluxSite, layer: L.LayerNorm) -> JuliaStruct:
    entry = s.builder.shapes.get(s.path)
    if entry is None and s.rank == len(layer.shape) + 1:
        entry = (1, *layer.shape)
    squared = layer.formula == "sqrt(var + eps^2)" and layer.epsilon > _SMALL
    by_hand = (squared or layer.formula == "sqrt(var + eps)") and bool(layer.epsilon)
    by_hand = by_hand and s.version < (0, 15) and entry is not None
    epsilon = 0.0 if by_hand else _epsilon(s, layer.formula, layer.epsilon)
    shift, scale = layer.shift, layer.scale
    affine = scale is not None or shift is not None
    if affine:
        scale = np.ones(layer.shape, np.float32) if scale is None else scale
        shift = np.zeros(layer.shape, np.float32) if shift is None else shift
    functions = s.functions(layer.activation)
    own = functions[0] if len(functions) == 1 else function("Base", "identity")

    def diagonal() -> Any:
        if not affine and s.version < (0, 13):
            return None
        if scale is None or shift is None:
            return (
                broadcast(own) if layer.activation and len(functions) == 1 else function("Base", "identity")
            )
        arrays = {
            "scale": s.array(scale, "reversed", reverse_axes),
            "bias": s.array(shift, "reversed", reverse_axes),
        }
        if s.version < (0, 13):
            return s.struct("Diagonal", **arrays)
        return s.struct("Scale", **arrays, σ=own)

    if by_hand:
        assert entry is not None
        parts = _normalised_by_instance(s, layer, entry)
        if affine:
            parts.append(diagonal())
        done = affine and s.version >= (0, 13) and len(functions) == 1
        return s.chain(*parts, *(() if done else map(broadcast, functions)))
    wide = s.hints.get("epsilon") == "Float64"
    values: dict[str, Any] = {  # a dict, because Python normalises a keyword argument ϵ to ε
        "λ": own,
        "diag": diagonal(),
        "ϵ": epsilon if wide else np.float32(epsilon),
        "size": tuple(reversed(layer.shape)),
        "affine": affine,
    }
    made = s.struct("LayerNorm", **values)
    return made if len(functions) == 1 else s.chain(made, *map(broadcast, functions))


def _normalised_by_instance(s: FluxSite, layer: L.LayerNorm, entry: L.Shape) -> list[JuliaStruct]:
    """Division by sqrt(var + eps), which up to 0.14 the InstanceNorm of Flux has and its LayerNorm has not.

    The axes that are normalised become one spatial axis, and the others channels.
    """
    others = int(np.prod(entry[1 : len(entry) - len(layer.shape)]))
    values: dict[str, Any] = {
        "β": None,
        "γ": None,
        "μ": None,
        "σ²": None,
        "ϵ": np.float32(layer.epsilon if layer.formula == "sqrt(var + eps)" else layer.epsilon**2),
        "momentum": np.float32(0.1),
        "affine": False,
        "track_stats": False,
        "active": None,
        "chs": others,
    }
    norm = s.struct("InstanceNorm", λ=function("Base", "identity"), **values)
    return [reshaped((others, int(np.prod(layer.shape)))), norm, reshaped(entry[1:])]


def _normalise(s: FluxSite, layer: L.Normalise) -> JuliaStruct:
    if layer.axis != 0 and (s.rank is None or layer.axis != -s.rank):
        raise s.refuse("its normalise works along the batch axis only")
    if not np.isclose(_epsilon(s, layer.formula, layer.epsilon), 1e-5, rtol=1e-3):
        raise s.refuse("its normalise always has the epsilon 1e-5")
    return function("Flux", "normalise")


def _dropout(s: FluxSite, layer: L.Dropout) -> JuliaStruct:
    name = "AlphaDropout" if s.hints.get("struct") == "AlphaDropout" else "Dropout"
    random = "_GLOBAL_RNG" if s.version < (0, 14) else "TaskLocalRNG"
    return s.struct(
        name,
        p=np.float32(layer.probability) if s.hints.get("p") == "Float32" else layer.probability,
        dims=s.hints.get("dims", JuliaStruct(JuliaType(("Base", "Colon")))),
        active=s.hints.get("active"),
        rng=JuliaStruct(JuliaType(("Random", random))),
    )


# ---- Pools and shape ----------------------------------------------------------------------------------


def _pool(s: FluxSite, layer: L.MaxPool | L.MeanPool) -> JuliaStruct:
    if isinstance(layer, L.MeanPool) and not layer.count_padding and any(map(any, layer.padding)):
        return by_matrices(s, lambda axis: _mean_along(layer, axis), "its MeanPool counts padding as values")
    if isinstance(layer, L.MaxPool) and layer.dilated:
        raise s.refuse(f"its MaxPool does not skip values; {USE_A_PROJECT}")
    return s.struct(
        type(layer).__name__,
        k=tuple(reversed(layer.kernel)),
        pad=_pad_tuple(s, layer.padding),
        stride=tuple(reversed(layer.stride)),
    )


def _mean_along(layer: L.MeanPool, axis: int) -> L.MeanPool:
    own = slice(axis, axis + 1)
    return L.MeanPool(layer.kernel[own], layer.stride[own], layer.padding[own], count_padding=False)


def _adaptive(s: FluxSite, layer: L.AdaptiveMaxPool | L.AdaptiveMeanPool) -> JuliaStruct:
    shape = s.builder.shapes.get(s.path)
    divides = shape is not None and all(n % m == 0 for n, m in zip(shape[2:], layer.output, strict=True))
    if layer.rule != "flux" and set(layer.output) != {1} and not divides:
        why = "its windows differ unless the output sizes divide the input sizes"
        if isinstance(layer, L.AdaptiveMaxPool):
            raise s.refuse(f"{why}; give --shape (model.input_shape) if they do")
        return by_matrices(s, lambda axis: L.AdaptiveMeanPool(layer.output[axis : axis + 1], layer.rule), why)
    return s.struct(type(layer).__name__, out=tuple(reversed(layer.output)))


def _upsample(s: FluxSite, layer: L.Upsample) -> JuliaStruct:
    sizes = layer.size or layer.scale
    mode = "nearest" if layer.mode == "nearest" else ("linear", "bilinear", "trilinear")[len(sizes) - 1]
    why = _not_its_upsample(s, layer, mode, s.builder.shapes.get(s.path))
    if why:
        return by_matrices(s, lambda axis: _one_axis(layer, axis), why)
    scale: Any = tuple(int(n) if float(n).is_integer() else float(n) for n in reversed(layer.scale)) or None
    noted = s.hints.get("scale")
    if noted is not None and scale is not None and _spread(noted, len(scale)) == [float(n) for n in scale]:
        scale = tuple(noted) if isinstance(noted, list) else noted
    size = tuple(reversed(layer.size)) or None
    return s.struct("Upsample", mode=Symbol(mode), scale=scale, size=size)


def _not_its_upsample(s: FluxSite, layer: L.Upsample, mode: str, entry: L.Shape | None) -> str:
    """Why this version's Upsample is another one; "" if it is not."""
    if mode != "nearest" and not layer.align_corners:
        return "its Upsample aligns the corners when it interpolates, and this layer does not (align_corners=False)"
    if s.version < (0, 13) and mode in ("linear", "trilinear"):
        return f"its Upsample does not have the mode {mode}"
    if mode != "nearest":
        to_one = 1 in (layer.output_shape(entry) if entry else (0, 0, *layer.size))[2:]
        return "its Upsample cannot interpolate to a size of 1" if to_one else ""
    sizes_there = entry[2:] if layer.size and entry is not None else ()
    odd = any(m % n for n, m in zip(sizes_there, layer.size, strict=False))
    whole = all(float(n).is_integer() for n in layer.size or layer.scale)
    return "" if whole and not odd else "its nearest upsampling takes whole factors only"


def _one_axis(layer: L.Upsample, axis: int) -> L.Upsample:
    return replace(layer, size=layer.size[axis : axis + 1], scale=layer.scale[axis : axis + 1])


def _spread(noted: Any, count: int) -> list[float]:
    return [float(n) for n in noted] if isinstance(noted, list) else [float(noted)] * count


def _reshape(s: FluxSite, layer: L.Reshape) -> JuliaStruct:
    shape = layer.shape
    if shape == (-1,):
        return function("Flux", "flatten")
    if -1 in shape:
        entry = s.builder.shapes.get(s.path)
        if entry is None:
            raise s.refuse("its reshape leaves only the batch size free; give --shape (model.input_shape)")
        known = int(np.prod([n for n in shape if n != -1]))
        shape = tuple(int(np.prod(entry[1:])) // known if n == -1 else n for n in shape)
    return reshaped(shape)


_LARGEST_ADDED = 1e3  # what may be taken away before padding with zeros, and added behind it
_PADS = {"zero": "pad_zeros", "reflect": "pad_reflect", "replicate": "pad_repeat", "wrap": "pad_circular"}
_PADS |= {"constant": _PADS["zero"], "symmetric": "pad_symmetric"}


def _pad(s: FluxSite, layer: L.Pad) -> JuliaStruct:
    if layer.mode == "constant" and layer.value:
        if not abs(layer.value) < _LARGEST_ADDED:
            raise s.refuse(f"it has no named function that pads with {layer.value:g}; {USE_A_PROJECT}")
        steps = (L.Activation("affine", (1.0, -layer.value)), L.Activation("affine", (1.0, layer.value)))
        before, after = (s.builder.layer(step, s.path) for step in steps)
        return s.chain(before, _pad(s, L.Pad(layer.padding)), after)
    if layer.mode in ("wrap", "symmetric") and s.version < (0, 14):
        raise s.refuse(f"its NNlib does not have {_PADS[layer.mode]}; write for 0.14 or later")
    edges = tuple(edge for pair in reversed(layer.padding) for edge in pair)
    if layer.mode in ("zero", "constant"):
        edges += (0, 0, 0, 0)  # of the channels and the batch
    return fix("Fix2", function("NNlib", _PADS[layer.mode]), edges)


def _softmax(s: FluxSite, layer: L.Softmax) -> JuliaStruct:
    """softmax works along Julia's first axis, so another axis is moved there and back."""
    made = function("NNlib", "logsoftmax" if layer.log else "softmax")
    axis = moved(s, layer.axis, s.rank)
    if axis == 1:
        return made
    there, back = there_and_back(s, axis, s.rank)
    return s.chain(permutation(there), made, permutation(back))


def _activation(s: FluxSite, layer: L.Activation) -> JuliaStruct:
    noted = s.hints.get("function")
    if noted and s.version >= (0, 13):
        return function(*noted)
    if layer.name == "quickgelu":
        return s.gated_by_sigmoid(1.702)
    functions = s.functions(layer)
    if not layer or not functions:
        return function("Base", "identity")
    return s.chain(*map(broadcast, functions))


def _flatten(s: FluxSite, layer: L.Flatten) -> JuliaStruct:
    return function("Flux", "flatten")


def _plain(s: FluxSite, layer: Layer) -> JuliaStruct:
    return s.struct(type(layer).__name__)


def _pixel_shuffle(s: FluxSite, layer: L.PixelShuffle) -> JuliaStruct:
    return s.struct("PixelShuffle", r=layer.factor)


RULES: dict[type[Layer], LayerRule] = {
    L.Conv: _conv,
    L.ConvTranspose: _conv_transpose,
    L.Dense: _dense,
    L.Bilinear: _bilinear,
    L.Embedding: _embedding,
    L.Scale: _scale,
    L.BatchNorm: _norm,
    L.InstanceNorm: _norm,
    L.GroupNorm: _norm,
    L.LayerNorm: _layer_norm,
    L.Normalise: _normalise,
    L.Dropout: _dropout,
    L.MaxPool: _pool,
    L.MeanPool: _pool,
    L.GlobalMaxPool: _plain,
    L.GlobalMeanPool: _plain,
    L.AdaptiveMaxPool: _adaptive,
    L.AdaptiveMeanPool: _adaptive,
    L.Upsample: _upsample,
    L.PixelShuffle: _pixel_shuffle,
    L.Flatten: _flatten,
    L.Reshape: _reshape,
    L.Pad: _pad,
    L.Softmax: _softmax,
    L.Activation: _activation,
    **RECURRENT,
    **PRIMITIVES,
    **CONTAINERS,
    L.Graph: graph,
}
