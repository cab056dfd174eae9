"""Filters of single pixels: every level of a channel, or of a luma, becomes another.

A curve on the 256 levels is a sum of clamped ramps, one for each straight piece that is not flat:

    y = v0 + sum over pieces of (v_end - v_start) clamp((255 x - start) / (end - start), 0, 1)

Each term lies within its own rise, so nothing large cancels, as it would between ReLUs. A jump between two
levels is a ramp one level wide, and exact on the levels.
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
CLOSE = 0.02 / 255  # how far a straight piece may leave the curve; rounded levels never change
# Weighted sums of R, G and B that a curve may be of: Rec.601, Rec.709 (scikit-image's), the mean, one channel.
LUMAS = (REC601, (0.2125, 0.7154, 0.0721), (0.2126, 0.7152, 0.0722), (1 / 3,) * 3)
SINGLE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True, eq=False)
class Curve:
    """A polyline: `values` (0..1) at `levels` (0..255, rising); level before the first and after the last."""

    levels: Array
    values: Array

    def __call__(self, levels: Array) -> Array:
        """The curve at `levels`."""
        result: Array = np.interp(levels, self.levels, self.values)
        return result

    @property
    def ramps(self) -> list[tuple[float, float, float]]:
        """(start, end, rise) of every piece that is not flat."""
        pieces = zip(self.levels[:-1], self.levels[1:], np.diff(self.values), strict=True)
        return [(float(a), float(b), float(rise)) for a, b, rise in pieces if rise != 0]


def straightened(table: Array, close: float = CLOSE) -> Curve:
    """The polyline through few of the 256 entries that comes within `close` of all and rounds as they do."""
    kept = [0]
    while kept[-1] < len(table) - 1:
        start, end = kept[-1], kept[-1] + 1
        for further in range(start + 2, len(table)):
            if not _stands_for(table, start, further, close):
                # A longer piece may fit again, but on a curve it hardly ever does.
                if further > end + 8:
                    break
                continue
            end = further
        kept.append(end)
    return Curve(np.array(kept, float), table[kept].astype(np.float64))


def _stands_for(table: Array, start: int, end: int, close: float) -> bool:
    chord = np.linspace(table[start], table[end], end - start + 1)
    part = table[start : end + 1]
    if np.abs(chord - part).max() > close:
        return False
    return close > 1 / 255 or bool((np.rint(255 * chord) == np.rint(255 * part)).all())


def fit(task: Task) -> Candidate | None:
    """A curve of every channel, or of a luma; None where neighbours count, or neither gives what is wanted."""
    if task.answers and task.radius > 0:
        return None
    inputs, outputs = task.channels
    pairs = probing_queries.colours(task.target, task.seed) if task.answers else task.training
    checked = (
        (*probing_queries.noise(task.target, task.seed + 1), *task.held_out)
        if task.answers
        else task.held_out
    )
    for close in (CLOSE, 0.3 / 255, 1 / 255, 2 / 255, 4 / 255, 8 / 255):
        found = None
        if task.time_left <= 0:
            return None
        if inputs == outputs:
            found = _of_channels(pairs, checked, close)
        if found is None and inputs == 3:
            found = _of_luma(pairs, checked, close)
        if found is None:
            return None
        candidate = Candidate(found, METHOD, "straight pieces through the levels")
        if task.allows(candidate.weights):
            return candidate
    return None


def _tables(levels: list[Array], targets: list[Array]) -> Array | None:
    """(256,) values by level, from flat levels and values; None where one level has two values."""
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


def _of_channels(pairs: tuple[Pair, ...], checked: tuple[Pair, ...], close: float) -> Chain | None:
    """One curve for each channel."""
    curves = []
    for channel in range(len(pairs[0].inputs)):
        table = _tables([_levels(p)[channel] for p in pairs], [p.target[channel] for p in pairs])
        if table is None:
            return None
        for pair in checked:
            if np.abs(table[_levels(pair)[channel]] - pair.target[channel]).max() > 1e-5:
                return None
        curves.append(straightened(table, close))
    return Chain(tuple(_ramps(curves)))


def _ramps(curves: list[Curve]) -> list[Conv | Activation]:
    """The layers of one curve for each channel, all with as many ramps as the longest has."""
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


def _of_luma(pairs: tuple[Pair, ...], checked: tuple[Pair, ...], close: float) -> Chain | None:
    """One curve of a weighted sum of the channels, for each output."""
    seen, targets = _pixels(pairs)
    check_seen, check_targets = _pixels(checked)
    for weights in (*LUMAS, *SINGLE):
        curves = []
        for output in range(targets.shape[1]):
            curve = _curve_of(seen @ np.array(weights), targets[:, output], close)
            off = np.abs(curve(check_seen @ np.array(weights)) - check_targets[:, output])
            if np.mean(off > max(2 * close, 0.25 / 255)) > 2e-4:
                break
            curves.append(curve)
        else:
            mix = np.repeat(np.array(weights, np.float32).reshape(1, 3, 1, 1), len(curves), axis=0)
            return Chain((Conv(mix), *_ramps(curves)))
    return None


def _pixels(pairs: tuple[Pair, ...]) -> tuple[Array, Array]:
    """All pixels of some pairs, at most 60,000 of each: levels (n, C) and values (n, C')."""
    seen, targets = [], []
    for pair in pairs:
        step = max(1, pair.inputs[0].size // 60_000)
        seen.append(_levels(pair).reshape(len(pair.inputs), -1)[:, ::step].T)
        targets.append(pair.target.reshape(len(pair.target), -1)[:, ::step].T)
    return np.concatenate(seen), np.concatenate(targets)


def _curve_of(levels: Array, values: Array, close: float) -> Curve:
    """The polyline through samples of a function of one real variable, jumps narrowed to where they are.

    Whole levels are its vertices. Where all samples between two of them have the value of one or the other,
    there is a jump, and its ramp is the middle half of the gap between the last low and the first high one.
    """
    order = np.argsort(levels, kind="stable")
    levels, values = levels[order], values[order].astype(np.float64)
    table = np.interp(np.arange(256), levels, values)
    vertices = straightened(table, close)
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
