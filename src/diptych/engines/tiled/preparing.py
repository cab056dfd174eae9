"""Prepares a model as a filter: padding becomes layers of its own, and values become levels where that is exact.

Indices count from the first pixel of each intermediate array. A layer without padding computes element i from the
elements i ... i + dilation (kernel - 1) of its input, and a `Pad` copies element i from element i - low. So the centre
of a kernel does not matter, and even kernels need no special case.
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

PADDING_MODES: tuple[str, ...] = tuple(mode for mode in get_args(PadMode) if mode != "constant")
CHANNELS = (1, 3, 4)

Span: TypeAlias = tuple[tuple[int, int], tuple[int, int]]  # (lowest, highest) offset for rows and for columns
Growth: TypeAlias = tuple[int, int]  # how many more rows and columns than the picture
Sized: TypeAlias = tuple[int | None, Growth]  # channels (None for any number) and growth


@dataclass(frozen=True, eq=False)
class PreparedFilter:
    """A filter prepared for any engine.

    Attributes:
        layers: `Pad`; `Conv`, `MaxPool` and `MeanPool` with stride 1 and without padding; `Scale` with arrays (C, 1, 1)
            or (1, 1, 1); `Activation`; and containers of these.
        channels: The number of channels of the input and of the output; None for any number.
        halo: The pixels around a pixel on which its value depends.
        peak: The highest level of integer pictures, 255 or 65535; None for float pictures in 0..1.
        divisor: The input is divided by it and the output multiplied; 1 if the layers compute in levels.
        wraps: Whether every `Pad` wraps round, so that the picture is periodic.
        least: The smallest (height, width) of a picture; above 1 only if kernels come before their padding.
    """

    layers: Chain
    channels: tuple[int | None, int | None]
    halo: Halo
    peak: int | None
    divisor: int
    wraps: bool
    least: tuple[int, int]


def halo(model: Model) -> Halo:
    """The pixels around a pixel on which its filtered value depends.

    Raises:
        ModelError: The model is not a filter.
    """
    return prepare(model, None).halo


def with_explicit_padding(model: Model, padding_mode: str | None) -> Model:
    """The model with all padding as `Pad` layers.

    Args:
        model: A filter.
        padding_mode: The mode of every `Pad`, one of `PADDING_MODES`; None keeps their modes.

    Raises:
        ModelError: A layer cannot be part of a filter.
        UsageError: The mode is unknown.
    """
    if padding_mode is not None and padding_mode not in PADDING_MODES:
        raise UsageError(f"no edge is called {padding_mode!r}; the edges are {', '.join(PADDING_MODES)}")
    return model.with_(layers=_Explicit(model.name or "the model", padding_mode).chain(model.layers, ""))


def prepare(model: Model, peak: int | None) -> PreparedFilter:
    """Prepares a model as a filter. Padding of layers becomes `Pad`, and batch normalisation becomes `Scale`.

    Args:
        model: Local layers with stride 1 that keep the size of the picture.
        peak: The highest level of the pictures, 255 or 65535; None for floats in 0..1.

    Returns:
        The prepared filter.

    Raises:
        ModelError: The model is not a filter; names the layer.
    """
    plain = with_explicit_padding(model, None).layers
    pads = [layer for layer in leaves(plain) if isinstance(layer, L.Pad)]
    wraps = bool(pads) and all(pad.mode == "wrap" for pad in pads)
    sizes = _Sizes(model.name or "the model")
    first = model.input_shape[0] if model.input_shape and len(model.input_shape) == 3 else None
    channels = sizes.check(plain, first)
    if any(pad.mode == "wrap" for pad in pads) and (not wraps or any(any(sizes.grown[id(p)]) for p in pads)):
        raise ModelError(
            f"{sizes.name} is not a filter that can be applied in parts: if one Pad wraps round, all must, "
            "and each must be followed by kernels that use up its rows; give another edge"
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
    """How many rows and columns the output of a layer has less than its input; (0, 0) for a `Pad`."""
    if isinstance(layer, L.Conv):
        rows, columns = layer.weight.shape[2:]
        return layer.dilation[0] * (rows - 1), layer.dilation[1] * (columns - 1)
    if isinstance(layer, L.MaxPool | L.MeanPool):
        return layer.kernel[0] - 1, layer.kernel[1] - 1
    return 0, 0


def leaves(layer: Layer) -> list[Layer]:
    """The layers without children, in order."""
    return [leaf for child in layer.children for leaf in leaves(child)] if layer.children else [layer]


# ---- Padding made explicit ----------------------------------------------------------------------------

_WHY: Mapping[type[Layer], str] = {
    L.Dense: "mixes along whole rows",
    L.Bilinear: "mixes along whole rows",
    L.Flatten: "changes the shape of the picture",
    L.Reshape: "changes the shape of the picture",
    L.GlobalMaxPool: "depends on the whole picture",
    L.GlobalMeanPool: "depends on the whole picture",
    L.AdaptiveMaxPool: "has windows that depend on the picture's size",
    L.AdaptiveMeanPool: "has windows that depend on the picture's size",
    L.BatchNorm: "normalises by statistics of the whole picture",
    L.InstanceNorm: "normalises by statistics of the whole picture",
    L.GroupNorm: "normalises by statistics of the whole picture",
    L.LayerNorm: "normalises along whole rows",
    L.RMSNorm: "normalises along whole rows",
    L.Normalise: "normalises by statistics of the whole picture",
    L.Softmax: "computes the probabilities of a classifier",
    L.Upsample: "changes the picture's size",
    L.PixelShuffle: "changes the picture's size",
    L.ConvTranspose: "is not supported in filters",
    L.Embedding: "looks numbers up in a table",
    L.Permute: "changes the order of the axes",
    L.Slice: "takes part of an axis",
    L.Gather: "picks values along an axis",
    L.Expand: "changes the shape of the picture",
    L.Constant: "does not depend on the picture",
    L.Reduce: "reduces whole axes",
    L.PReLU: "is not supported in filters",
    L.LocalResponseNorm: "is not supported in filters",
    L.Graph: "is not a sequence of layers with branches that are joined at once",
}


def _refuse(name: str, path: str, layer: Layer, why: str) -> NoReturn:
    raise ModelError(
        f"{name} is not a filter: layer {path} ({type(layer).__name__}) {why}; a filter is made of Conv, "
        "MaxPool and MeanPool with stride 1, Pad, Scale and activations, and keeps the picture's size"
    )


@dataclass(frozen=True)
class _Explicit:
    """Makes the layers again with padding as `Pad`, batch normalisation as `Scale`, and activations merged."""

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
        """The layers that replace `layer`; every `Pad` is a new object."""
        if isinstance(layer, Chain):
            children = enumerate(layer.layers)
            return [made for i, child in children for made in self.layers(child, child_path(path, i))]
        if isinstance(layer, SkipConnection | Parallel):
            connection = layer.connection
            if connection.operation == "concatenate" and connection.axis not in (1, -3):
                _refuse(self.name, path, layer, "joins along another axis than the channels")
            if connection.operation == "matmul":
                _refuse(self.name, path, layer, "multiplies matrices")
            if connection.operation == "where":
                _refuse(self.name, path, layer, "chooses by a condition")
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


Made: TypeAlias = "list[Layer] | str"  # the layers that replace a layer, or why it cannot be in a filter


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
    if isinstance(layer, L.MaxPool) and layer.dilated:
        return "has windows that skip pixels"
    if any(p >= k for pads, k in zip(layer.padding, layer.kernel, strict=True) for p in pads):
        return "has windows that hold only padding"
    if isinstance(layer, L.MeanPool) and not layer.count_padding and any(map(any, layer.padding)):
        return "averages over fewer pixels at the border"
    # A window with a repeated edge pixel also holds the pixel itself, so its maximum is the same.
    mode: PadMode = "replicate" if isinstance(layer, L.MaxPool) else "zero"
    return [L.Pad(layer.padding, mode), replace(layer, padding=((0, 0), (0, 0)))]


def _pad(layer: L.Pad) -> Made:
    if len(layer.padding) != 2 or any(p < 0 for pads in layer.padding for p in pads):
        return f"pads by {layer.padding}, where two pairs of numbers of 0 or more are expected"
    if layer.value:
        return f"pads with {layer.value:g}, not with zero"
    return [replace(layer, mode="zero") if layer.mode == "constant" else layer]


def _scale(layer: L.Scale) -> Made:
    arrays = [layer.scale] if layer.bias is None else [layer.scale, layer.bias]
    if any(set(a.shape[-2:]) - {1} or a.ndim > 4 or (a.ndim == 4 and len(a) != 1) for a in arrays):
        return "has a factor for each pixel of a picture of a fixed size"
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
    """Follows channels and sizes through the layers.

    Attributes:
        name: Of the model, for messages.
        grown: id of each `Pad` -> the growth of its input.
        least: The smallest picture for which no layer's output is empty.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.grown: dict[int, Growth] = {}
        self.least = (1, 1)

    def check(self, layers: Chain, first: int | None) -> tuple[int | None, int | None]:
        """The channels of input and output. Raises `ModelError` if sizes do not fit or the size is not kept."""
        given = self._first(layers) if first is None else first
        channels, growth = fold(layers, (given, (0, 0)), self._leaf, self._join)
        if growth != (0, 0):
            raise ModelError(
                f"{self.name} is not a filter: its output has {growth[0]:+d} rows and {growth[1]:+d} columns "
                "compared with its input; pad by as much as the kernels take away"
            )
        for count, side in ((given, "takes"), (channels, "gives")):
            if count is not None and count not in CHANNELS:
                raise ModelError(
                    f"{self.name} {side} {count} channels, where a picture has 1 (grey), 3 (RGB) or 4"
                )
        return given, channels

    def _first(self, layer: Layer) -> int | None:
        """The number of channels that the first layer with weights takes, or None for any number."""
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
    """The part of a layer's input needed for the part `need` of its output, as offsets from an output pixel."""
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
    """The offsets along one axis that a `Pad` needs of its input, including those from which it fills the border.

    At the low border element t < 0 is copied from -t (reflect), -t - 1 (symmetric) or 0 (replicate). At the high
    border indices count back from the end of the array, which is `growth` elements longer than the picture.
    """
    low, high = need[0] - before, need[1] - before
    if mode == "reflect":
        return min(low, 2 * growth - high), max(high, -low)
    if mode == "symmetric":
        return min(low, 2 * growth - high + 1), max(high, -low - 1)
    if mode == "wrap":
        return low, high
    return min(low, growth), max(high, 0)


def _union(spans: list[Span]) -> Span:
    rows, columns = (
        (min(span[axis][0] for span in spans), max(span[axis][1] for span in spans)) for axis in (0, 1)
    )
    return rows, columns


# ---- Levels -------------------------------------------------------------------------------------------

# Activations f with f(p x) = p f(x) if the parameters at these positions are multiplied by p.
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
    """The layer that computes with levels 0..peak what `layer` computes with 0..1, or None if there is none."""
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
