"""Channels that change nothing are left out: what is left gives the same numbers, but for rounding.

A channel is dead if nothing takes it (all weights behind it are 0), or if it is the same number everywhere, whatever
the input: its own weights are 0, or those of the BatchNorm behind it. Such a number moves into the bias of the layer
that takes it. Only channels between two layers of one sequence are looked at, and none where zeros are put around a
number that is not 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias

import numpy as np

from diptych.model import layers as L
from diptych.model.layers import Array, Layer, child_path
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes

__all__ = ["Pruned", "pruned"]

Leaf: TypeAlias = tuple[str, Layer]

_MOST_ROUNDS = 50  # one channel less may leave another one dead
_POINTWISE = L.Activation | L.Dropout
# Layers that keep a number that is the same everywhere.
_KEEPING = (L.MaxPool, L.GlobalMaxPool, L.GlobalMeanPool, L.AdaptiveMaxPool, L.AdaptiveMeanPool, L.Upsample)


@dataclass(frozen=True)
class Pruned:
    """A model without its dead channels.

    Attributes:
        model: The model.
        removed: How many channels are left out.
        layers: Of how many layers.
        before: The parameters of the model as it was.
    """

    model: Model
    removed: int
    layers: int
    before: int

    def text(self) -> str:
        """What was left out, in one sentence."""
        if not self.removed:
            return "prune: no channel is dead, so nothing is left out"
        plural = "s" if self.layers > 1 else ""
        return (
            f"prune: {self.removed} dead channels of {self.layers} layer{plural} are left out, "
            f"{self.before:,} parameters become {self.model.parameters:,}"
        )

    def to_document(self) -> dict[str, int]:
        """The counts as a JSON object."""
        return {"channels": self.removed, "layers": self.layers, "parameters_before": self.before}


def pruned(model: Model) -> Pruned:
    """The model without its dead channels; its outputs are the same, but for rounding."""
    removed: Counter[str] = Counter()
    found = model
    for _ in range(_MOST_ROUNDS):
        changes, counts = _round(found)
        if not counts:
            break
        removed += counts
        tree: Any = _with(found.layers, changes, "")
        found = found.with_(layers=tree)
    return Pruned(found, removed.total(), len(removed), model.parameters)


def _round(model: Model) -> tuple[dict[str, Layer], Counter[str]]:
    """The layers to replace, by path, and how many channels each loses."""
    shared = {key for key, count in Counter(id(layer) for _, layer in model.walk()).items() if count > 1}
    changes: dict[str, Layer] = {}
    counts: Counter[str] = Counter()
    flat = _of_features(model)
    for leaves in _sequences(model.layers, ""):
        for start in range(len(leaves)):
            part = [(path, changes.get(path, layer)) for path, layer in leaves[start:]]
            link = _link(part, flat)
            if link is None or any(id(layer) in shared for _, layer in link.layers):
                continue
            made = link.without_dead()
            if made is not None:
                changes |= made[0]
                counts[leaves[start][0]] += made[1]
    return changes, counts


def _of_features(model: Model) -> set[str]:
    """The paths of layers whose output is (N, features)."""
    shape = model.input_shape
    if shape is None or None in shape:
        return set()
    shapes = layer_shapes(model, (1, *(n for n in shape if n is not None)))
    return {path for path, result in shapes.items() if len(result) == 2}


def _sequences(layer: Layer, path: str) -> Iterator[list[Leaf]]:
    """The layers that follow each other, one list for each stretch without branches."""
    stretch: list[Leaf] = []
    waiting = [(path, layer)]
    while waiting:
        place, at = waiting.pop(0)
        inside = [(child_path(place, i), child) for i, child in enumerate(at.children)]
        if isinstance(at, L.Chain):
            waiting = inside + waiting
        elif inside:
            yield stretch
            stretch = []
            for each, child in inside:
                yield from _sequences(child, each)
        else:
            stretch.append((place, at))
    yield stretch


def _with(layer: Layer, changes: Mapping[str, Layer], path: str) -> Layer:
    if path in changes:
        return changes[path]
    children = [_with(child, changes, child_path(path, i)) for i, child in enumerate(layer.children)]
    same = all(new is old for new, old in zip(children, layer.children, strict=True))
    return layer if same else layer.with_children(children)


# ---- From a layer that makes channels to the one that takes them ----------------------------------------


@dataclass(frozen=True)
class _Link:
    """A layer, those behind it that treat each channel alone, and the one that takes the channels."""

    maker: Leaf
    between: list[Leaf]
    taker: Leaf

    @property
    def layers(self) -> list[Leaf]:
        """All of them."""
        return [self.maker, *self.between, self.taker]

    def without_dead(self) -> tuple[dict[str, Layer], int] | None:
        """These layers without dead channels, and how many there are; None if there is none."""
        maker: Any = self.maker[1]
        taker: Any = self.taker[1]
        values = _numbers(maker, [layer for _, layer in self.between])
        weight = _by_channel(taker, len(values))
        unused = ~weight.any(axis=(0, 2))
        padded = isinstance(taker, L.Conv) and any(map(any, taker.padding))
        folded = np.isfinite(values) & ((values == 0) | (not padded)) & ~unused
        keep = np.flatnonzero(~(unused | folded))
        if len(keep) == len(values):
            return None
        if not len(keep):
            if len(values) == 1:
                return None
            keep = np.array([0])
            folded[0] = False
        dead = np.setdiff1d(np.arange(len(values)), keep)
        moved = [c for c in dead if folded[c]]
        changes = {path: _kept(layer, keep, len(values)) for path, layer in (self.maker, *self.between)}
        shift = (weight[:, moved].astype(np.float64).sum(axis=2) * values[moved]).sum(axis=1)
        bias = taker.bias
        if np.any(shift):
            bias = (shift if bias is None else bias + shift).astype(taker.weight.dtype)
        left = weight[:, keep]
        sizes = taker.weight.shape[2:] if isinstance(taker, L.Conv) else ()
        whole = left.reshape(len(weight), len(keep), *sizes) if sizes else left.reshape(len(weight), -1)
        changes[self.taker[0]] = replace(taker, weight=np.ascontiguousarray(whole), bias=bias)
        return changes, len(dead)


def _link(leaves: list[Leaf], features: set[str]) -> _Link | None:
    """What begins with the first of these layers; None if its channels do not go to one layer only."""
    _, maker = leaves[0]
    by_conv = isinstance(maker, L.Conv) and maker.groups == 1
    if not by_conv and not isinstance(maker, L.Dense):
        return None
    made: Any = maker
    count = len(made.weight)
    between: list[Leaf] = []
    flattened = False
    for path, layer in leaves[1:]:
        if isinstance(layer, L.Dense) and (flattened or not by_conv):
            return _Link(leaves[0], between, (path, layer)) if layer.weight.shape[1] % count == 0 else None
        if isinstance(layer, L.Conv) and by_conv and not flattened and layer.groups == 1:
            return _Link(leaves[0], between, (path, layer))
        if isinstance(layer, L.Flatten) and by_conv and not flattened:
            flattened = True
        elif not isinstance(layer, _POINTWISE) and (
            flattened or not _treats_each(layer, count, by_conv or path in features, by_conv)
        ):
            return None
        between.append((path, layer))
    return None


def _treats_each(layer: Layer, count: int, on_axis_1: bool, pictures: bool) -> bool:
    """Whether a layer computes every channel by itself."""
    if isinstance(layer, L.BatchNorm):
        return on_axis_1 and layer.tracked
    if isinstance(layer, L.Scale):
        return all(_each(array, count, pictures) for array in layer.arrays.values())
    if isinstance(layer, L.PReLU):
        return _each(layer.slope, count, pictures)
    if isinstance(layer, L.Conv):
        return pictures and layer.groups == count == len(layer.weight)
    return pictures and isinstance(layer, (*_KEEPING, L.MeanPool, L.Pad))


def _each(array: Array, count: int, pictures: bool) -> bool:
    """Whether an array has one number in all, or one for each channel."""
    if array.size == 1:
        return True
    shape = array.shape if not pictures else array.shape[:1]
    return array.size == count and shape == (count,) and (array.ndim > 1 or not pictures)


def _by_channel(taker: Any, count: int) -> Array:
    """The weights as (out, channels, weights of each)."""
    result: Array = taker.weight.reshape(len(taker.weight), count, -1)
    return result


def _kept(layer: Any, keep: Array, count: int) -> Layer:
    """A layer with some of its channels."""
    changes = {
        name: np.ascontiguousarray(array[keep])
        for name, array in layer.arrays.items()
        if array.ndim and len(array) == count and array.size > 1
    }
    if isinstance(layer, L.Conv) and layer.groups > 1:
        changes["groups"] = len(keep)  # type: ignore[assignment]
    result: Layer = replace(layer, **changes) if changes else layer
    return result


# ---- Channels that are the same number everywhere -------------------------------------------------------


def _numbers(maker: Any, between: list[Layer]) -> Array:
    """The number that each channel is in front of the taker, whatever the input; NaN where there is none."""
    rows = maker.weight.reshape(len(maker.weight), -1)
    bias = np.zeros(len(rows)) if maker.bias is None else maker.bias.astype(np.float64)
    with np.errstate(all="ignore"):
        values = _activated(maker, np.where(rows.any(axis=1), np.nan, bias))
        for layer in between:
            values = _through(layer, values)
    return values


def _activated(layer: Any, values: Array) -> Array:
    result: Array = layer.activation.compute(values) if layer.activation else values
    return result


def _through(layer: Any, values: Array) -> Array:
    if isinstance(layer, L.Activation):
        result: Array = layer.compute(values)
        return result
    if isinstance(layer, L.BatchNorm):
        assert layer.variance is not None
        factor = (1.0 if layer.scale is None else layer.scale) / np.sqrt(layer.variance + layer.epsilon)
        shift = np.zeros(len(values)) if layer.shift is None else layer.shift
        constant = np.broadcast_to(factor, values.shape) == 0
        return _activated(layer, np.where(constant, shift, (values - layer.mean) * factor + shift))
    if isinstance(layer, L.Scale):
        factor = layer.scale.reshape(-1).astype(np.float64)
        shift = np.zeros(1) if layer.bias is None else layer.bias.reshape(-1)
        return _activated(layer, np.where(factor == 0, shift, values * factor + shift))
    if isinstance(layer, L.PReLU):
        return np.where(values > 0, values, values * layer.slope.reshape(-1))
    if isinstance(layer, L.Conv):
        kernels = layer.weight.reshape(len(values), prod(layer.weight.shape[1:])).astype(np.float64)
        bias = np.zeros(len(values)) if layer.bias is None else layer.bias
        inside = _unpadded(values, any(map(any, layer.padding)), 0.0)
        return _activated(layer, np.where(kernels.any(axis=1), inside * kernels.sum(axis=1) + bias, bias))
    if isinstance(layer, L.MeanPool):
        return _unpadded(values, layer.count_padding and any(map(any, layer.padding)), 0.0)
    if isinstance(layer, L.Pad) and layer.mode in ("zero", "constant"):
        return _unpadded(values, True, layer.value if layer.mode == "constant" else 0.0)
    return values


def _unpadded(values: Array, padded: bool, fill: float) -> Array:
    """The numbers that are still the same everywhere where `fill` is put around them."""
    return np.where(values == fill, values, np.nan) if padded else values
