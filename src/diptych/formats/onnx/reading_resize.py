"""ONNX's Resize and Upsample as layers."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import numpy as np

from diptych.formats.graph import Operation, Value
from diptych.formats.onnx.reading_node import Node, Rule
from diptych.formats.resampling import (
    along_axis,
    antialiased,
    coordinates,
    cubic_taps,
    linear_taps,
    nearest_index,
    weights,
)
from diptych.model import layers as L
from diptych.model.layers import Array

__all__ = ["RESIZES"]

_LARGEST = 2**24  # numbers in a matrix of weights


class _Target(NamedTuple):
    """What a spatial axis becomes."""

    size: int
    output: int
    scale: float

    @property
    def exact(self) -> bool:
        return abs(self.size * self.scale - self.output) < 1e-6 * self.output


def _resize(n: Node) -> Value:
    targets = _targets(n)
    mode = n.attributes.get("mode", "nearest")
    where = n.attributes.get("coordinate_transformation_mode", "half_pixel")
    where = "asymmetric" if n.opset < 11 else where
    rounding = n.attributes.get("nearest_mode", "round_prefer_floor")
    rounding = "floor" if n.opset < 11 else rounding
    cubic = float(n.attributes.get("cubic_coeff_a", -0.75))
    outside, antialias = n.flag("exclude_outside"), n.flag("antialias")
    value = float(n.attributes.get("extrapolation_value", 0.0))
    if mode == "bilinear":
        mode = "linear"
    if mode not in ("nearest", "linear", "cubic"):
        n.refuse(f"no layer resizes in the mode {mode!r}")
    if not antialias and not outside and mode != "cubic":
        own = _upsample(targets, mode, where, rounding)
        if own is not None:
            return n.give(own)
    layers: list[Operation] = []
    regions = _regions(n, where)
    for axis, (target, region) in enumerate(zip(targets, regions, strict=True), 2):
        places = coordinates(where, *target, region)
        if places is None:
            n.refuse(f"no layer resizes with {where} coordinates")
        if target.size * target.output > _LARGEST:
            n.refuse(f"it would take a matrix of {target.output} x {target.size} numbers")
        coefficient = cubic if mode == "cubic" else None
        if antialias and mode != "nearest":
            if where not in ("half_pixel", "pytorch_half_pixel"):
                n.refuse(f"no layer resizes with antialias and {where} coordinates")
            layers += along_axis(n.rank + 2, axis, antialiased(*target, coefficient, inside_only=outside))
        elif mode == "nearest":
            short = (
                coordinates(where, target.size, target.output, cast(float, np.float32(target.scale)), region)
                or []
            )
            indices = _nearest(places, target.size, rounding)
            if indices != _nearest(short, target.size, rounding):
                n.refuse(
                    f"no layer resizes to the nearest pixel with {where} coordinates and {rounding} from "
                    f"{target.size} to {target.output}, where they lie between two pixels but for rounding errors"
                )
            layers += along_axis(n.rank + 2, axis, np.eye(target.size)[indices])
        else:
            taps = linear_taps if coefficient is None else cubic_taps(coefficient)
            matrix = weights(places, target.size, taps, outside and mode == "cubic")
            layers += _with_outside(n, axis, matrix, places, value if where == "tf_crop_and_resize" else None)
    return n.give(*layers)


def _upsample(targets: list[_Target], mode: str, where: str, rounding: str) -> L.Upsample | None:
    """The layer, where it computes the same."""
    whole = all(t.output % t.size == 0 for t in targets)
    if not all(t.exact for t in targets):
        return None
    if mode == "nearest":
        floored = (where, rounding) == ("asymmetric", "floor")
        centred = whole and where in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round")
        if not floored and not (centred and all(t.output > 1 for t in targets)):
            return None
    elif where == "pytorch_half_pixel":
        if any(t.output == 1 for t in targets):
            return None
    elif where not in ("half_pixel", "align_corners"):
        return None
    kind: Any = mode
    scale = tuple(t.output / t.size for t in targets) if whole else ()
    return L.Upsample(
        scale, () if whole else tuple(t.output for t in targets), kind, where == "align_corners"
    )


def _nearest(places: list[float], size: int, rounding: str) -> list[int]:
    return [min(max(nearest_index(float(place), rounding), 0), size - 1) for place in places]


def _with_outside(
    n: Node, axis: int, matrix: Array, places: list[float], value: float | None
) -> list[Operation]:
    """Coordinates outside of the picture give `value`, unless it is None."""
    beyond = np.array([not 0 <= place <= matrix.shape[1] - 1 for place in places])
    if value is None or not beyond.any():
        return list(along_axis(n.rank + 2, axis, matrix))
    return list(
        along_axis(n.rank + 2, axis, np.where(beyond[:, None], 0, matrix), np.where(beyond, value, 0.0))
    )


def _regions(n: Node, where: str) -> list[tuple[float, float]]:
    """Start and end of each spatial axis, for cropping."""
    roi = n.constant(1) if n.opset >= 11 and where == "tf_crop_and_resize" else None
    if roi is None or roi.size == 0:
        return [(0.0, 1.0)] * n.rank
    axes = _chosen(n)
    given = roi.reshape(-1).tolist()
    pairs = dict(zip(axes, zip(given[: len(axes)], given[len(axes) :], strict=False), strict=False))
    if any(pairs.get(i, (0, 1)) != (0, 1) for i in (0, 1)):
        n.refuse("only the spatial axes can be cropped")
    return [pairs.get(i, (0.0, 1.0)) for i in range(2, len(n.shape))]


def _chosen(n: Node) -> list[int]:
    axes = n.attributes.get("axes")
    return list(range(len(n.shape))) if axes is None else [int(a) % len(n.shape) for a in axes]


def _targets(n: Node) -> list[_Target]:
    """What each spatial axis becomes."""
    sizes, chosen = (n.numbers("", 3) if n.opset >= 11 else None), _chosen(n)
    policy = n.attributes.get("keep_aspect_ratio_policy", "stretch")
    spatial = n.shape[2:]
    if sizes:
        new = dict(zip(chosen, sizes, strict=False))
        if any(new.get(i, n.shape[i]) not in (n.shape[i], n.own_batch) for i in (0, 1)):
            n.refuse("only the spatial axes can be resized")
        if policy == "stretch":
            wanted = [new.get(i, m) for i, m in enumerate(spatial, 2)]
            return [_Target(m, k, k / m) for m, k in zip(spatial, wanted, strict=True)]
        if policy not in ("not_larger", "not_smaller"):
            n.refuse(f"its keep_aspect_ratio_policy {policy!r} is unknown")
        ratios = [new[i] / n.shape[i] if i >= 2 else 1.0 for i in chosen]
        scale = min(ratios) if policy == "not_larger" else max(ratios)
        if scale != 1 and min(chosen) < 2:
            n.refuse("only the spatial axes can be resized")
        return [
            _Target(m, math.floor(m * scale + 0.5), scale) if i in chosen else _Target(m, m, 1.0)
            for i, m in enumerate(spatial, 2)
        ]
    factors = dict(zip(chosen, _factors(n), strict=False))
    if not factors or any(factors.get(i, 1) != 1 for i in (0, 1)):
        n.refuse("only the spatial axes can be resized, by constant factors")
    own = tuple(float(factors.get(i, 1)) for i in range(2, len(n.shape)))
    if not all(0 < f < 1e6 for f in own):
        n.refuse(f"its factors are {own}, but must be above 0 and below 1e6")
    if any(math.floor(m * f) < 1 for m, f in zip(spatial, own, strict=True)):
        n.refuse(f"its factors {own} leave nothing of {spatial}")
    return [_Target(m, math.floor(m * f), f) for m, f in zip(spatial, own, strict=True)]


def _factors(n: Node) -> list[float]:
    if n.opset < 9:
        given = n.attributes.get("scales")
        if given is None:  # Upsample of the first operator set
            pair = (n.attributes.get("height_scale"), n.attributes.get("width_scale"))
            given = [] if None in pair else [1.0, 1.0, *pair]
    else:
        given = n.constant(1 if n.opset < 10 or len(n.inputs) == 2 else 2)
    return np.asarray([] if given is None else given).reshape(-1).tolist()


RESIZES: dict[str, Rule] = {"Resize": _resize, "Upsample": _resize}
