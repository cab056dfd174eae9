"""A model as a filter: explicit padding and valid layers, in the picture's own levels where that is exact.

Every intermediate array is counted from its own first pixel. A valid layer makes element i from elements
i ... i + dilation (kernel - 1) of its input, and a `Pad` makes element i from element i - low, so neither
needs to say where a kernel has its centre, and even kernels are nothing special.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeAlias, get_args

import numpy as np

from diptych.engines.tiled.regions import Halo
from diptych.errors import ModelError, UsageError
from diptych.model import layers as L
from diptych.model.layers import Array, Chain, Layer, PadMode, Parallel, SkipConnection, child_path, fold
from diptych.model.model import Model

__all__ = ["PADDING_MODES", "PreparedFilter", "halo", "prepare", "shrinkage", "with_explicit_padding"]

PADDING_MODES: tuple[str, ...] = get_args(PadMode)
CHANNELS = (1, 3, 4)

Span: TypeAlias = tuple[tuple[int, int], tuple[int, int]]  # (lowest, highest) offset, for rows and columns
Growth: TypeAlias = tuple[int, int]  # rows and columns more than the picture has
Sized: TypeAlias = tuple[int | None, Growth]  # channels, None where any number will do, and the growth


@dataclass(frozen=True, eq=False)
class PreparedFilter:
    """A filter ready for any engine.

    `layers` holds `Pad`, `Conv`, `MaxPool`, `MeanPool` (all with stride 1 and no padding of their own),
    `Scale` (arrays (C, 1, 1) or (1, 1, 1)), `Activation`, and the containers. `channels`: how many go in
    and come out, None where any number does. `peak`: the highest level of integer pictures (255, 65535),
    None for pictures of fractions. A value is divided by `divisor` at entry and multiplied by it at exit:
    1 where the layers themselves compute in levels. `wraps`: every `Pad` wraps round, so the picture has no
    border. `least`: the (height, width) that a picture must have: 1 unless kernels come before their padding.
    """

    layers: Chain
    channels: tuple[int | None, int | None]
    halo: Halo
    peak: int | None
    divisor: int
    wraps: bool
    least: tuple[int, int]


def halo(model: Model) -> Halo:
    """How far around a pixel its value depends on others. Raises `ModelError` for what is not a filter."""
    return prepare(model, None).halo


def with_explicit_padding(model: Model, padding_mode: str | None) -> Model:
    """`model` with padding as `Pad` layers, every one of mode `padding_mode` unless that is None.

    Raises `ModelError` as `prepare` does, `UsageError` for an unknown mode.
    """
    if padding_mode is not None and padding_mode not in PADDING_MODES:
        raise UsageError(f"no edge is called {padding_mode!r}; the edges are {', '.join(PADDING_MODES)}")
    return model.with_(layers=_Explicit(model.name or "the model", padding_mode).chain(model.layers, ""))


def prepare(model: Model, peak: int | None) -> PreparedFilter:
    """`model` as a filter for pictures whose highest level is `peak`; None: fractions, 0..1.

    Padding inside layers becomes `Pad`, batch normalisation becomes `Scale`. Raises `ModelError` that names
    the layer where the model is not a filter: local, of the same size out as in, without global statistics.
    """
    plain = with_explicit_padding(model, None).layers
    pads = [layer for layer in leaves(plain) if isinstance(layer, L.Pad)]
    wraps = bool(pads) and all(pad.mode == "wrap" for pad in pads)
    sizes = _Sizes(model.name or "the model")
    first = model.input_shape[0] if model.input_shape and len(model.input_shape) == 3 else None
    channels = sizes.check(plain, first)
    if any(pad.mode == "wrap" for pad in pads) and (not wraps or any(any(sizes.grown[id(p)]) for p in pads)):
        raise ModelError(
            f"{sizes.name} is not a filter that can be applied in parts: where one Pad wraps round, each must, "
            "and must be followed by what takes its rows away; give another edge"
        )
    rows, columns = _span(plain, ((0, 0), (0, 0)), sizes.grown)
    lows, highs = [max(0, -axis[0]) for axis in (rows, columns)], [max(0, a[1]) for a in (rows, columns)]
    levels = None if peak is None else _in_levels(plain, peak)
    assert levels is None or isinstance(levels, Chain)
    return PreparedFilter(
        layers=plain if levels is None else levels,
        channels=channels,
        halo=Halo(lows[0], lows[1], highs[0], highs[1]),
        peak=peak,
        divisor=1 if peak is None or levels is not None else peak,
        wraps=wraps,
        least=sizes.least,
    )


def shrinkage(layer: Layer) -> tuple[int, int]:
    """How many rows and columns fewer come out of a layer than go in (a `Pad` gives none away)."""
    if isinstance(layer, L.Conv):
        rows, columns = layer.weight.shape[2:]
        return layer.dilation[0] * (rows - 1), layer.dilation[1] * (columns - 1)
    if isinstance(layer, L.MaxPool | L.MeanPool):
        return layer.kernel[0] - 1, layer.kernel[1] - 1
    return 0, 0


def leaves(layer: Layer) -> list[Layer]:
    """The layers that hold no others, in order."""
    return [leaf for child in layer.children for leaf in leaves(child)] if layer.children else [layer]


# ---- Padding made explicit ----------------------------------------------------------------------------

_WHY: Mapping[type[Layer], str] = {
    L.Dense: "mixes along whole rows",
    L.Bilinear: "mixes along whole rows",
    L.Flatten: "gives up the picture's shape",
    L.Reshape: "gives up the picture's shape",
    L.GlobalMaxPool: "looks at the whole picture",
    L.GlobalMeanPool: "looks at the whole picture",
    L.AdaptiveMaxPool: "looks at parts that depend on the picture's size",
    L.AdaptiveMeanPool: "looks at parts that depend on the picture's size",
    L.BatchNorm: "normalises by statistics of the whole picture",
    L.InstanceNorm: "normalises by statistics of the whole picture",
    L.GroupNorm: "normalises by statistics of the whole picture",
    L.LayerNorm: "normalises along whole rows",
    L.Normalise: "normalises by statistics of the whole picture",
    L.Softmax: "is a classifier's",
    L.Upsample: "changes the picture's size",
    L.PixelShuffle: "changes the picture's size",
    L.ConvTranspose: "is not one that slides over a picture",
    L.Embedding: "looks numbers up in a table",
    L.Graph: "is no row of layers, nor branches that meet at once",
}


def _refuse(name: str, path: str, layer: Layer, why: str) -> NoReturn:
    raise ModelError(
        f"{name} is not a filter: layer {path} ({type(layer).__name__}) {why}; a filter is made of Conv, "
        "MaxPool and MeanPool with stride 1, Pad, Scale and activations, and keeps the picture's size"
    )


@dataclass(frozen=True)
class _Explicit:
    """The layers anew, padding split off, everything foldable folded."""

    name: str
    padding_mode: str | None

    def chain(self, layer: Layer, path: str) -> Chain:
        made: list[Layer] = []
        for one in self.layers(layer, path):
            last = made[-1] if made else None
            if isinstance(one, L.Activation) and isinstance(last, L.Conv | L.Scale) and not last.activation:
                made[-1] = replace(last, activation=one)
            else:
                made.append(one)
        return Chain(tuple(made))

    def layers(self, layer: Layer, path: str) -> list[Layer]:
        """What takes the place of `layer`; every `Pad` is a new object."""
        if isinstance(layer, Chain):
            children = enumerate(layer.layers)
            return [made for i, child in children for made in self.layers(child, child_path(path, i))]
        if isinstance(layer, SkipConnection | Parallel):
            connection = layer.connection
            if connection.operation == "concatenate" and connection.axis not in (1, -3):
                _refuse(self.name, path, layer, "joins along another axis than the channels")
            inside = [self.chain(child, child_path(path, i)) for i, child in enumerate(layer.children)]
            return [layer.with_children(inside)]
        rule = _RULES.get(type(layer))
        made = rule(layer) if rule is not None else _WHY.get(type(layer), "is of an unknown kind")
        if isinstance(made, str):
            _refuse(self.name, path, layer, made)
        return [self._pad(one) if isinstance(one, L.Pad) else one for one in made if not _idle(one)]

    def _pad(self, pad: L.Pad) -> L.Pad:
        mode: Any = self.padding_mode or pad.mode
        return L.Pad(pad.padding, mode)


def _idle(layer: Layer) -> bool:
    if isinstance(layer, L.Pad):
        return not any(map(any, layer.padding))
    return isinstance(layer, L.Activation) and not layer


Made: TypeAlias = "list[Layer] | str"  # what takes a layer's place, or why nothing can


def _conv(layer: L.Conv) -> Made:
    if layer.weight.ndim != 4:
        return f"slides over {layer.weight.ndim - 2} axes, not over 2"
    if set(layer.stride) != {1}:
        return "has a stride, so that the picture shrinks"
    return [L.Pad(layer.padding), replace(layer, padding=((0, 0), (0, 0)))]


def _pool(layer: L.MaxPool | L.MeanPool) -> Made:
    if len(layer.kernel) != 2:
        return f"slides over {len(layer.kernel)} axes, not over 2"
    if set(layer.stride) != {1}:
        return "has a stride, so that the picture shrinks"
    if any(p >= k for pads, k in zip(layer.padding, layer.kernel, strict=True) for p in pads):
        return "has windows that lie in its padding alone"
    if isinstance(layer, L.MeanPool) and not layer.count_padding and any(map(any, layer.padding)):
        return "counts fewer pixels at the border"
    # A window that holds a repeated edge pixel holds the pixel itself, so its maximum is the same.
    mode: PadMode = "replicate" if isinstance(layer, L.MaxPool) else "zero"
    return [L.Pad(layer.padding, mode), replace(layer, padding=((0, 0), (0, 0)))]


def _pad(layer: L.Pad) -> Made:
    if len(layer.padding) != 2 or any(p < 0 for pads in layer.padding for p in pads):
        return f"pads by {layer.padding}, where two pairs of numbers from 0 on are expected"
    return [layer]


def _scale(layer: L.Scale) -> Made:
    arrays = [layer.scale] if layer.bias is None else [layer.scale, layer.bias]
    if any(set(a.shape[-2:]) - {1} or a.ndim > 4 or (a.ndim == 4 and len(a) != 1) for a in arrays):
        return "has a factor for every pixel of a picture of one size"
    scale, *bias = [np.asarray(a, np.float32).reshape(-1, 1, 1) for a in arrays]
    return [L.Scale(scale, bias[0] if bias else None, layer.activation)]


def _norm(layer: L.BatchNorm | L.InstanceNorm) -> Made:
    if layer.mean is None or layer.variance is None:
        return _WHY[type(layer)]
    factor = 1 / np.sqrt(layer.variance.astype(np.float64) + layer.epsilon)
    factor = factor if layer.scale is None else factor * layer.scale
    shift = -layer.mean.astype(np.float64) * factor
    shift = shift if layer.shift is None else shift + layer.shift
    scale, bias = (np.float32(values).reshape(-1, 1, 1) for values in (factor, shift))
    return [L.Scale(scale, bias, layer.activation)]


_RULES: Mapping[type[Layer], Callable[[Any], Made]] = {
    L.Activation: lambda layer: [layer],
    L.BatchNorm: _norm,
    L.Conv: _conv,
    L.Dropout: lambda layer: [],
    L.InstanceNorm: _norm,
    L.MaxPool: _pool,
    L.MeanPool: _pool,
    L.Pad: _pad,
    L.Scale: _scale,
}


# ---- Sizes and halos ----------------------------------------------------------------------------------


class _Sizes:
    """Follows channels and size through the layers.

    `grown`: what came into each `Pad`, by identity. `least`: the smallest picture that leaves any pixel.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.grown: dict[int, Growth] = {}
        self.least = (1, 1)

    def check(self, layers: Chain, first: int | None) -> tuple[int | None, int | None]:
        """Channels in and out. Raises `ModelError` where sizes do not fit, or the picture's is not kept."""
        given = self._first(layers) if first is None else first
        channels, growth = fold(layers, (given, (0, 0)), self._leaf, self._join)
        if growth != (0, 0):
            raise ModelError(
                f"{self.name} is not a filter: its output has {growth[0]:+d} rows and {growth[1]:+d} columns of "
                "its input's; pad by as much as the kernels take away"
            )
        for count, side in ((given, "takes"), (channels, "gives")):
            if count is not None and count not in CHANNELS:
                raise ModelError(
                    f"{self.name} {side} {count} channels, where a picture has 1 (grey), 3 (RGB) or 4"
                )
        return given, channels

    def _first(self, layer: Layer) -> int | None:
        """The channels that the first layer with weights takes, None where any number does."""
        if isinstance(layer, L.Conv):
            return int(layer.weight.shape[1]) * layer.groups
        if isinstance(layer, L.Scale):
            return int(layer.scale.shape[0]) if len(layer.scale) > 1 else None
        if isinstance(layer, Parallel):
            return next(filter(None, map(self._first, layer.branches)), None)
        for child in layer.children:
            if (found := self._first(child)) is not None or isinstance(child, Parallel | SkipConnection):
                return found
        return None

    def _leaf(self, layer: Layer, value: Sized, path: str) -> Sized:
        count, growth = value
        if isinstance(layer, L.Pad):
            self.grown[id(layer)] = growth
            (a, b), (c, d) = layer.padding
            return count, (growth[0] + a + b, growth[1] + c + d)
        rows, columns = shrinkage(layer)
        growth = (growth[0] - rows, growth[1] - columns)
        self.least = (max(self.least[0], 1 - growth[0]), max(self.least[1], 1 - growth[1]))
        return self._channels(layer, count), growth

    def _channels(self, layer: Layer, count: int | None) -> int | None:
        if isinstance(layer, L.Conv):
            expected: int = layer.weight.shape[1] * layer.groups
            result: int = layer.weight.shape[0]
        elif isinstance(layer, L.Scale) and len(layer.scale) > 1:
            expected = result = len(layer.scale)
        else:
            return count
        if count is not None and count != expected:
            raise ModelError(f"{self.name}: a {type(layer).__name__} takes {expected} channels, got {count}")
        return result

    def _join(self, connection: L.Connection, parts: Sequence[Sized], path: str) -> Sized:
        counts, sizes = [part[0] for part in parts], {part[1] for part in parts}
        if len(sizes) != 1:
            raise ModelError(f"{self.name} is not a filter: it joins pictures of different sizes")
        known = [count for count in counts if count is not None]
        if connection.operation == "concatenate":
            return (sum(known) if len(known) == len(counts) else None), sizes.pop()
        if len(set(known) - {1}) > 1:
            raise ModelError(f"{self.name} joins {' and '.join(map(str, known))} channels")
        return (max(known) if len(known) == len(counts) else None), sizes.pop()


def _span(layer: Layer, need: Span, grown: Mapping[int, Growth]) -> Span:
    """What of a layer's input is needed for `need` of its output, both as offsets from an output pixel."""
    if isinstance(layer, Chain):
        for child in reversed(layer.layers):
            need = _span(child, need, grown)
        return need
    if isinstance(layer, SkipConnection):
        return _union([_span(layer.inner, need, grown), need])
    if isinstance(layer, Parallel):
        return _union([_span(branch, need, grown) for branch in layer.branches])
    if isinstance(layer, L.Pad):
        axes = zip(layer.padding, need, grown[id(layer)], strict=True)
        rows, columns = (_behind(layer.mode, pads[0], axis, growth) for pads, axis, growth in axes)
        return rows, columns
    axes_taken = zip(need, shrinkage(layer), strict=True)
    rows, columns = ((low, high + taken) for (low, high), taken in axes_taken)
    return rows, columns


def _behind(mode: str, before: int, need: tuple[int, int], growth: int) -> tuple[int, int]:
    """Along one axis: the offsets needed behind a `Pad`, those included that a border is made of.

    At the first border element t < 0 is taken from -t (reflect) or put beside 0 (replicate, zero), at the
    last one counted back from the end, which lies `growth` elements beyond the picture's.
    """
    low, high = need[0] - before, need[1] - before
    if mode == "reflect":
        return min(low, 2 * growth - high), max(high, -low)
    if mode == "wrap":
        return low, high
    return min(low, growth), max(high, 0)


def _union(spans: list[Span]) -> Span:
    rows, columns = (
        (min(span[axis][0] for span in spans), max(span[axis][1] for span in spans)) for axis in (0, 1)
    )
    return rows, columns


# ---- Levels -------------------------------------------------------------------------------------------

# Activations f with f(p x) = p f(x) once the parameters named here are multiplied by p.
_LEVEL_PARAMETERS: Mapping[str, tuple[int, ...]] = {
    "identity": (),
    "relu": (),
    "leakyrelu": (),
    "abs": (),
    "clamp": (0, 1),
    "hardtanh": (0, 1),
    "trelu": (0,),
    "softshrink": (0,),
    "affine": (1,),
}


def _in_levels(layer: Layer, peak: int) -> Layer | None:
    """The layer that does to levels, 0..peak, what `layer` does to fractions; None where there is none."""
    if isinstance(layer, L.Pad | L.MaxPool | L.MeanPool):
        return layer
    if isinstance(layer, L.Activation):
        return _activation_in_levels(layer, peak)
    if isinstance(layer, L.Conv | L.Scale):
        activation = _activation_in_levels(layer.activation, peak)
        if activation is None:
            return None
        return replace(layer, bias=_times(layer.bias, peak), activation=activation)
    children = [_in_levels(child, peak) for child in layer.children]
    known = tuple(child for child in children if child is not None)
    if len(known) < len(children):
        return None
    if isinstance(layer, SkipConnection | Parallel) and layer.connection.operation == "multiply":
        return None
    return layer.with_children(known)


def _times(bias: Array | None, peak: int) -> Array | None:
    return None if bias is None else np.asarray(bias.astype(np.float64) * peak, np.float32)


def _activation_in_levels(activation: L.Activation, peak: int) -> L.Activation | None:
    if activation.name == "relu6":
        return L.Activation("clamp", (0.0, 6.0 * peak))
    scaled = _LEVEL_PARAMETERS.get(activation.name)
    if scaled is None:
        return None
    given = enumerate(activation.parameters)
    return L.Activation(activation.name, tuple(p * peak if i in scaled else p for i, p in given))
