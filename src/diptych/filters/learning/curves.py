"""Filters of single pixels: a curve maps every level of a channel, or of a luma, to another.

A curve on the 256 levels is a sum of clamped ramps, one for each linear piece that is not flat:

    y = v0 + sum over pieces of (v_end - v_start) clamp((255 x - start) / (end - start), 0, 1)

Each term stays within its own rise, so large terms never cancel, as they would between ReLUs. A jump between
two levels is a ramp one level wide, which is exact on whole levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diptych.filters.learning import probing_queries
from diptych.filters.learning.pairs import Pair
from diptych.filters.learning.task import Candidate, Task
from diptych.filters.planes import REC601
from diptych.model.layers import Activation, Array, Chain, Conv

__all__ = ["Curve", "fit", "straightened"]

METHOD = "curve"
TOLERANCE = 0.02 / 255  # in 0..1; the largest distance of the polyline from the curve
# Weights of R, G and B that are tried: Rec.601, Rec.709 (scikit-image and exact), mean, one channel.
LUMAS = (REC601, (0.2125, 0.7154, 0.0721), (0.2126, 0.7152, 0.0722), (1 / 3,) * 3)
SINGLE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True, eq=False)
class Curve:
    """A polyline, constant before its first level and after its last.

    Attributes:
        levels: Rising, in 0..255.
        values: In 0..1, one for each level.
    """

    levels: Array
    values: Array

    def __call__(self, levels: Array) -> Array:
        """The values of the curve at `levels`."""
        result: Array = np.interp(levels, self.levels, self.values)
        return result

    @property
    def ramps(self) -> list[tuple[float, float, float]]:
        """(start, end, rise) of every piece that is not flat."""
        pieces = zip(self.levels[:-1], self.levels[1:], np.diff(self.values), strict=True)
        return [(float(a), float(b), float(rise)) for a, b, rise in pieces if rise != 0]


def straightened(table: Array, tolerance: float = TOLERANCE) -> Curve:
    """A polyline with few vertices through the 256 entries of a table.

    Vertices are chosen greedily: each piece is extended as long as it stays within `tolerance` of all entries
    and, for tolerances up to a level, is rounded to the same levels.
    """
    kept = [0]
    while kept[-1] < len(table) - 1:
        start, end = kept[-1], kept[-1] + 1
        for further in range(start + 2, len(table)):
            if not _stands_for(table, start, further, tolerance):
                # A longer piece might fit again, but hardly ever does on a smooth curve.
                if further > end + 8:
                    break
                continue
            end = further
        kept.append(end)
    return Curve(np.array(kept, float), table[kept].astype(np.float64))


def _stands_for(table: Array, start: int, end: int, tolerance: float) -> bool:
    """Whether a straight piece may replace the entries from `start` to `end`."""
    chord = np.linspace(table[start], table[end], end - start + 1)
    part = table[start : end + 1]
    if np.abs(chord - part).max() > tolerance:
        return False
    return tolerance > 1 / 255 or bool((np.rint(255 * chord) == np.rint(255 * part)).all())


def fit(task: Task) -> Candidate | None:
    """A curve for each channel, or of a luma; None where neighbours matter or neither kind is accurate."""
    if task.answers and task.radius > 0:
        return None
    inputs, outputs = task.channels
    pairs = probing_queries.colours(task.target, task.seed) if task.answers else task.training
    checked = (
        (*probing_queries.noise(task.target, task.seed + 1), *task.held_out)
        if task.answers
        else task.held_out
    )
    for tolerance in (TOLERANCE, 0.3 / 255, 1 / 255, 2 / 255, 4 / 255, 8 / 255):
        found = None
        if task.time_left <= 0:
            return None
        if inputs == outputs:
            found = _of_channels(pairs, checked, tolerance)
        if found is None and inputs == 3:
            found = _of_luma(pairs, checked, tolerance)
        if found is None:
            return None
        candidate = Candidate(found, METHOD, "linear pieces through the levels")
        if task.allows(candidate.weights):
            return candidate
    return None


def _tables(levels: list[Array], targets: list[Array]) -> Array | None:
    """The value of each of the 256 levels, (256,); None where pixels of one level have different values."""
    flat_levels = np.concatenate([part.ravel() for part in levels])
    flat = np.concatenate([part.ravel() for part in targets]).astype(np.float64)
    counts = np.bincount(flat_levels, minlength=256)
    means = np.bincount(flat_levels, flat, 256) / np.maximum(counts, 1)
    if np.abs(flat - means[flat_levels]).max() > 1e-5:
        return None
    known = np.flatnonzero(counts)
    table: Array = np.interp(np.arange(256), known, means[known])
    return table


def _levels(pair: Pair) -> Array:
    levels: Array = np.rint(255 * pair.inputs).astype(np.int64)
    return levels


def _of_channels(pairs: tuple[Pair, ...], checked: tuple[Pair, ...], tolerance: float) -> Chain | None:
    """A curve for each channel; None where a channel is not a function of its own level."""
    curves = []
    for channel in range(len(pairs[0].inputs)):
        table = _tables([_levels(p)[channel] for p in pairs], [p.target[channel] for p in pairs])
        if table is None:
            return None
        for pair in checked:
            if np.abs(table[_levels(pair)[channel]] - pair.target[channel]).max() > 1e-5:
                return None
        curves.append(straightened(table, tolerance))
    return Chain(tuple(_ramps(curves)))


def _ramps(curves: list[Curve]) -> list[Conv | Activation]:
    """The layers of one curve for each channel, all with as many ramps as the longest curve."""
    count = max(1, *(len(curve.ramps) for curve in curves))
    slopes, starts, rises = (np.zeros((len(curves), count)) for _ in range(3))
    for c, curve in enumerate(curves):
        for r, (start, end, rise) in enumerate(curve.ramps):
            slopes[c, r], starts[c, r], rises[c, r] = 255 / (end - start), -start / (end - start), rise
    base = np.array([curve.values[0] for curve in curves], np.float32)
    channels = len(curves)
    return [
        Conv(
            slopes.reshape(-1, 1, 1, 1).astype(np.float32), starts.ravel().astype(np.float32), groups=channels
        ),
        Activation("clamp"),
        Conv(rises[:, :, None, None].astype(np.float32), base if base.any() else None, groups=channels),
    ]


def _of_luma(pairs: tuple[Pair, ...], checked: tuple[Pair, ...], tolerance: float) -> Chain | None:
    """A curve of one weighted sum of the channels, for each output; None where no weights fit."""
    seen, targets = _pixels(pairs)
    check_seen, check_targets = _pixels(checked)
    for weights in (*LUMAS, *SINGLE):
        curves = []
        for output in range(targets.shape[1]):
            curve = _curve_of(seen @ np.array(weights), targets[:, output], tolerance)
            off = np.abs(curve(check_seen @ np.array(weights)) - check_targets[:, output])
            if np.mean(off > max(2 * tolerance, 0.25 / 255)) > 2e-4:
                break
            curves.append(curve)
        else:
            mix = np.repeat(np.array(weights, np.float32).reshape(1, 3, 1, 1), len(curves), axis=0)
            return Chain((Conv(mix), *_ramps(curves)))
    return None


def _pixels(pairs: tuple[Pair, ...]) -> tuple[Array, Array]:
    """Up to 60,000 pixels of each pair: levels (n, C) and targets (n, C')."""
    seen, targets = [], []
    for pair in pairs:
        step = max(1, pair.inputs[0].size // 60_000)
        seen.append(_levels(pair).reshape(len(pair.inputs), -1)[:, ::step].T)
        targets.append(pair.target.reshape(len(pair.target), -1)[:, ::step].T)
    return np.concatenate(seen), np.concatenate(targets)


def _curve_of(levels: Array, values: Array, tolerance: float) -> Curve:
    """The polyline through samples of a function of one real variable.

    Whole levels are its vertices. Where all samples between two of them have the value of one or the other,
    the function jumps, and its ramp is the middle half of the gap between the last low and the first high sample.
    """
    order = np.argsort(levels, kind="stable")
    levels, values = levels[order], values[order].astype(np.float64)
    table = np.interp(np.arange(256), levels, values)
    vertices = straightened(table, tolerance)
    at, found = [vertices.levels[0]], [vertices.values[0]]
    for level, value in zip(vertices.levels[1:], vertices.values[1:], strict=True):
        low, high = np.searchsorted(levels, [at[-1] - 1e-9, level + 1e-9])
        inside, here = values[low:high], levels[low:high]
        before = np.abs(inside - found[-1]) < 1e-5
        if (
            value != found[-1]
            and level - at[-1] < 1.5
            and (before | (np.abs(inside - value) < 1e-5)).all()
            and before.any()
        ):
            last, first = here[before].max(), here[~before].min(initial=level)
            if first > last:
                at += [last + (first - last) / 4, first - (first - last) / 4]
                found += [found[-1], value]
        at.append(level)
        found.append(value)
    return Curve(np.array(at), np.array(found))
