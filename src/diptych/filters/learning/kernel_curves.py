"""Filters that apply a curve, or a step, to a linear filter: an adaptive threshold, the gamma of a blur.

The result is f(w . x) for windows x. Where f has many values, w and f are found in turns: f is inverted on the values
that it takes, and w solves the least squares problem for these. A step tells only on which side of a limit w . x is;
there the kernels are tried that libraries offer, and the direction that least squares find.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from diptych.filters.learning import kernels, probing_queries
from diptych.filters.learning.curves import Curve, straightened
from diptych.filters.learning.solving import least_squares
from diptych.filters.learning.task import Candidate, Task
from diptych.filters.planes import REC601
from diptych.model.layers import Activation, Array, Chain, Conv, Layer

__all__ = ["fit"]

METHOD = "kernel and curve"
MAX_RADIUS = 12  # pixels
WINDOWS = 30_000
ROUNDS = 12  # of inverting the curve and solving for the kernel
MOST_WRONG = 2e-4  # share of windows on the wrong side of a step
FEW_VALUES = 16  # a curve has more
BINS = 1024  # of w . x, for the curve
WIDTH = 0.002 / 255  # of a step, in 0..1; differences from a mean of 121 pixels are 0.004 levels from a half
WITHIN = 0.6 / 255  # in 0..1; the RMS distance from the curve


def fit(task: Task) -> Candidate | None:
    """The kernel and the curve, or the step, of a filter with one output; None for other filters."""
    one = task.channels[1] == 1 or task.target.per_channel
    if not task.answers or not one or not 1 <= task.radius <= MAX_RADIUS or task.time_left <= 0:
        return None
    pairs = probing_queries.noise(task.target, task.seed)
    count = min(WINDOWS, 40_000_000 // (2 * task.radius + 1) ** 2 // task.channels[0])
    windows, targets = task.windows(task.radius, count, 11, (*pairs, *task.held_out[:0], *task.training[:3]))
    values = np.unique(np.rint(255 * targets[:, 0]))
    inputs = 1 if task.target.per_channel else task.channels[0]
    x = windows[:, :inputs].reshape(count, -1).astype(np.float64)
    y = targets[:, 0].astype(np.float64)
    if len(values) == 2 and probing_queries.in_whole_levels(pairs):
        return _step(task, x, y, inputs)
    if len(values) > FEW_VALUES:
        return _curve(task, x, y, inputs)
    return None


# ---- Steps --------------------------------------------------------------------------------------------


def _step(task: Task, x: Array, y: Array, inputs: int) -> Candidate | None:
    low, high = float(y.min()), float(y.max())
    above = y > (low + high) / 2
    for name, taps in _directions(task.radius, inputs, x, y):
        seen = x @ taps.ravel()
        if np.corrcoef(seen, above)[0, 1] < 0:
            taps, seen = -taps, -seen
        limit, wrong = _limit(seen, above)
        if wrong > MOST_WRONG:
            continue
        weight, bias = (taps / WIDTH).astype(np.float32), np.array([0.5 - limit / WIDTH], np.float32)
        conv = Conv(weight, bias, activation=Activation("clamp"))
        return _made(task, [conv, Activation("affine", (high - low, low))], f"a step behind {name}")
    return None


def _directions(radius: int, inputs: int, x: Array, y: Array) -> Iterator[tuple[str, Array]]:
    """Kernels (1, C, k, k) with their names: usual ones, and the direction that least squares find."""
    import cv2

    side = 2 * radius + 1
    mix = np.array(REC601 if inputs == 3 else (1.0,))[:, None, None]
    middle = np.zeros((side, side))
    middle[radius, radius] = 1
    profile = np.asarray(cv2.getGaussianKernel(side, -1)).ravel()
    smooth = {"a mean": np.full((side, side), 1 / side**2), "a Gaussian": np.outer(profile, profile)}
    for name, kernel in smooth.items():
        yield f"the difference from {name}", (mix * (middle - kernel))[None]
        yield name, (mix * kernel)[None]
    taps, _, error = least_squares(x, y)
    total, largest = max(float(np.abs(taps).sum()), 1e-12), max(float(np.abs(taps).max()), 1e-12)
    for parts in (1, 2, 4):  # Sobel's weights are halves of the largest
        found = np.rint(parts * taps / largest) / parts
        if found.any():
            yield "a kernel", (found / np.abs(found).sum()).reshape(1, inputs, side, side)
    small = 6 * error / total
    found = np.where(np.abs(taps / total) < small, 0, taps / total)
    yield "a kernel", kernels.snapped(found, small).reshape(1, inputs, side, side)


def _limit(seen: Array, above: Array) -> tuple[float, float]:
    """The limit that separates two kinds of values best, and the share of values on the wrong side."""
    order = np.argsort(seen, kind="stable")
    values, kinds = seen[order], above[order]
    wrong = np.concatenate([[0], np.cumsum(kinds)]) + np.concatenate([np.cumsum(~kinds[::-1])[::-1], [0]])
    least = np.flatnonzero(wrong == wrong.min())
    at = int(least[len(least) // 2])
    lowest, highest = 255 * values[max(at - 1, 0)], 255 * values[min(at, len(values) - 1)]
    limit = (lowest + highest) / 2
    for near in (
        np.floor(limit) + 0.5,
        np.round(limit),
        np.round(4 * limit) / 4,
    ):  # as means in whole levels have it
        if lowest < near < highest:
            limit = near
            break
    return float(limit / 255), float(wrong[at] / len(values))


# ---- Curves -------------------------------------------------------------------------------------------


def _curve(task: Task, x: Array, y: Array, inputs: int) -> Candidate | None:
    low, high = float(y.min()), float(y.max())
    free = (y > low + 1e-3) & (y < high - 1e-3)
    if free.sum() < 3 * x.shape[1]:
        return None
    keys = np.unique(np.rint(2550 * y[free]), return_inverse=True)[1]
    taps, _, error = least_squares(x[free], y[free])
    for _ in range(ROUNDS):
        seen = x[free] @ taps
        means = np.bincount(keys, seen) / np.maximum(np.bincount(keys), 1)
        taps, _, error = least_squares(x[free], means[keys])
        total = float(np.abs(taps).sum())
        if total < 1e-9 or task.time_left <= 0:
            return None
        taps, error = taps / total, error / total
    if taps.sum() < 0:
        taps = -taps
    taps = kernels.snapped(np.where(np.abs(taps) < 4 * error, 0, taps), 4 * error)
    seen = x @ taps
    lowest, highest = float(np.minimum(taps, 0).sum()), float(np.maximum(taps, 0).sum())
    place = (seen - lowest) / (highest - lowest)
    table, off = _tabulated(place, y)
    straight = np.polyfit(seen[free], y[free], 1)
    if off > WITHIN or np.std(np.polyval(straight, seen[free]) - y[free]) < 1.2 * off:
        return None  # no curve, or a straight one
    side = 2 * task.radius + 1
    weight = (taps / (highest - lowest)).reshape(1, inputs, side, side)
    offset = -lowest / (highest - lowest)
    bias = np.array([offset], np.float32) if abs(offset) > 1e-9 else None
    return _made(task, [Conv(weight.astype(np.float32), bias), *_ramps(table)], "a curve behind a kernel")


def _tabulated(place: Array, y: Array) -> tuple[Curve, float]:
    """The curve through (place, y), places in 0..1, and the RMS distance from it."""
    bins = np.clip((place * BINS).astype(int), 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    known = np.flatnonzero(counts)
    centres = np.bincount(bins, place, BINS)[known] / counts[known]
    means = np.bincount(bins, y, BINS)[known] / counts[known]
    even = np.interp(np.linspace(0, 1, 512), centres, means)
    off = float(np.sqrt(np.mean((np.interp(place, np.linspace(0, 1, 512), even) - y) ** 2)))
    curve = straightened(even, 0.1 / 255)
    return Curve(curve.levels / 511, curve.values), off


def _ramps(curve: Curve) -> list[Layer]:
    """The layers of a curve whose levels go from 0 to 1."""
    ramps = curve.ramps or [(0.0, 1.0, 0.0)]
    starts, ends, rises = (np.array(part) for part in zip(*ramps, strict=True))
    slopes = 1 / (ends - starts)
    return [
        Conv(slopes.reshape(-1, 1, 1, 1).astype(np.float32), (-starts * slopes).astype(np.float32)),
        Activation("clamp"),
        Conv(rises.reshape(1, -1, 1, 1).astype(np.float32), np.array([curve.values[0]], np.float32)),
    ]


# ---- Layers -------------------------------------------------------------------------------------------


def _made(task: Task, layers: list[Layer], remark: str) -> Candidate:
    """The layers, repeated for all channels that are treated alike, behind the padding."""
    copies = task.channels[0] if task.target.per_channel else 1
    repeated = [_repeated(layer, copies) for layer in layers]
    return Candidate(Chain((*kernels.padded(task.radius, task.padding_mode), *repeated)), METHOD, remark)


def _repeated(layer: Layer, copies: int) -> Layer:
    if copies == 1 or not isinstance(layer, Conv):
        return layer
    bias = None if layer.bias is None else np.tile(layer.bias, copies)
    return Conv(np.tile(layer.weight, (copies, 1, 1, 1)), bias, groups=copies, activation=layer.activation)
