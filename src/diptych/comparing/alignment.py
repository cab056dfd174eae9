"""Which layer of one model stands beside which of the other, and how far their outputs are apart.

Two models with the same kinds of layers in the same order are paired one to one. Otherwise (an activation
built into Conv here and a layer there, BatchNorm folded into the weights, a layer left out) the outputs are
aligned as sequences, by dynamic programming: a pair scores for the same kind of layer, for the same shape
without the axes of length 1, and most for the same values. A layer without a partner is compared with what
the other side holds at that point; it counts as a difference only where the next pair differs too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

import numpy as np

from diptych.comparing.runs import Side, Step
from diptych.model.layers import Array

__all__ = ["Difference", "Evaluation", "Row", "evaluate", "measure", "same_kinds"]


@dataclass(frozen=True)
class Difference:
    """How far two arrays are apart.

    `absolute` is the largest |a - b|; `relative` that, divided by the largest |a| or |b|, so that values
    near zero do not count more than others; `cosine` that of the angle between both, 1 for one direction.
    Infinite where shapes differ or only one of two values is NaN or infinite.
    """

    absolute: float
    relative: float
    cosine: float


_BLOCK = 2**16  # values at a time: what is computed in between stays in the cache
UNLIKE = Difference(math.inf, math.inf, math.nan)


def measure(a: Array, b: Array) -> Difference:
    """The difference of two outputs whose shapes agree apart from axes of length 1."""
    absolute, scale = _largest(a, b)
    if not math.isfinite(absolute):
        return UNLIKE
    x, y = np.float64(a).ravel(), np.float64(b).ravel()
    finite = np.isfinite(x)
    if not finite.all():
        x, y = x[finite], y[finite]
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    cosine = float(x @ y) / length if length else float(absolute == 0)
    return Difference(absolute, absolute / scale if scale else 0.0, min(max(cosine, -1.0), 1.0))


def _largest(a: Array, b: Array) -> tuple[float, float]:
    """The largest |a - b|, infinite where the arrays cannot be compared, and the largest magnitude."""
    if _squeezed(a) != _squeezed(b):
        return math.inf, math.inf
    x, y = a.reshape(-1), b.reshape(-1)
    if not (np.isfinite(x.sum(dtype=np.float64)) and np.isfinite(y.sum(dtype=np.float64))):
        broken = ~(np.isfinite(x) & np.isfinite(y))
        if not np.array_equal(x[broken], y[broken], equal_nan=True):
            return math.inf, math.inf
        x, y = x[~broken], y[~broken]
    if not x.size:
        return 0.0, 0.0
    absolute = scale = 0.0
    with np.errstate(over="ignore"):
        for start in range(0, x.size, _BLOCK):
            p, q = x[start : start + _BLOCK], y[start : start + _BLOCK]
            d = p - q
            absolute = max(absolute, float(d.max()), -float(d.min()))
            scale = max(scale, float(p.max()), -float(p.min()), float(q.max()), -float(q.min()))
    return absolute, scale


@dataclass(frozen=True, eq=False)
class Row:
    """Two steps side by side. Where one side has no step, its last output stands in and `lone` is set.

    Nothing is measured before it is asked for: a try looks at one row of many.
    """

    a: Step
    b: Step
    tolerance: float
    lone: str = ""  # the side, "a" or "b", that has this layer alone

    @cached_property
    def relative(self) -> float:
        """The largest difference, divided by the largest magnitude."""
        absolute, scale = _largest(self.a.value, self.b.value)
        return math.inf if math.isinf(absolute) else absolute / scale if scale else 0.0

    @cached_property
    def difference(self) -> Difference:
        """All measures."""
        return measure(self.a.value, self.b.value)

    @property
    def agrees(self) -> bool:
        """Whether the outputs agree within the tolerance."""
        return self.relative <= self.tolerance


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All rows of one pair of runs."""

    rows: tuple[Row, ...]

    @cached_property
    def first(self) -> int | None:
        """The number of the first row that parts."""
        return _first(self.rows)

    @property
    def agrees(self) -> bool:
        """Whether nothing parts."""
        return self.first is None

    @property
    def parting(self) -> Row | None:
        """The first row that parts."""
        return None if self.first is None else self.rows[self.first]

    def beside(self, row: Row) -> Row | None:
        """The row here that holds the same layers as `row` of another evaluation."""
        both = (r for r in self.rows if r.a.path == row.a.path and r.b.path == row.b.path)
        either = (r for r in self.rows if not r.lone and (r.a.path == row.a.path or r.b.path == row.b.path))
        return next(both, next(either, None))


def evaluate(
    a: Side, b: Side, tolerance: float, *, inputs: bool = True, tops: tuple[int, int] | None = None
) -> Evaluation:
    """Runs both and lays them side by side, the inputs first where `inputs`.

    `tops` stops both at a top-level layer; (-1, ...) compares the inputs only.
    """
    start_a, start_b = _input(a), _input(b)
    rows = [Row(start_a, start_b, tolerance)] if inputs else []
    if tops is None or min(tops) >= 0:
        steps_a = a.steps(tops[0] if tops else None)
        steps_b = b.steps(tops[1] if tops else None)
        rows += _aligned(start_a, start_b, steps_a, steps_b, tolerance)
    return Evaluation(tuple(rows))


def _input(side: Side) -> Step:
    return Step("input", "input", None, side.viewed(side.batch))


def same_kinds(a: Side, b: Side) -> bool:
    """Whether both have the same kinds of layers in the same order, whatever their settings."""
    return [type(layer) for layer in a.layers.values()] == [type(layer) for layer in b.layers.values()]


# ---- Rows ---------------------------------------------------------------------------------------------


def _aligned(
    start_a: Step, start_b: Step, steps_a: list[Step], steps_b: list[Step], tolerance: float
) -> list[Row]:
    pairs: list[tuple[Step | None, Step | None]]
    if [type(step.layer) for step in steps_a] == [type(step.layer) for step in steps_b]:
        pairs = list(zip(steps_a, steps_b, strict=True))
    else:
        pairs = _paired(steps_a, steps_b, tolerance)
    rows, last_a, last_b = [], start_a, start_b
    for number, (a, b) in enumerate(pairs):
        last_a, last_b = a or last_a, b or last_b
        # The results are always a pair, whichever layers they come from.
        lone = "" if number == len(pairs) - 1 or (a and b) else ("b" if a is None else "a")
        rows.append(Row(last_a, last_b, tolerance, lone))
    return rows


def _first(rows: Sequence[Row]) -> int | None:
    parted = next((i for i, row in enumerate(rows) if not row.lone and not row.agrees), None)
    if parted is None:
        return None
    first = parted
    for i in range(parted - 1, -1, -1):
        if not rows[i].lone:
            break
        if not rows[i].agrees and _squeezed(rows[i].a.value) == _squeezed(rows[i].b.value):
            first = i
    return first


def _paired(a: list[Step], b: list[Step], tolerance: float) -> list[tuple[Step | None, Step | None]]:
    """The alignment of largest score; leaving a step out costs nothing."""
    marks_a, marks_b = [_Mark(step) for step in a], [_Mark(step) for step in b]
    best = np.zeros((len(a) + 1, len(b) + 1))
    scores = np.array([[x.score(y, tolerance) for y in marks_b] for x in marks_a]).reshape(len(a), len(b))
    for i in range(len(a) - 1, -1, -1):
        for j in range(len(b) - 1, -1, -1):
            best[i, j] = max(best[i + 1, j], best[i, j + 1], best[i + 1, j + 1] + scores[i, j])
    pairs: list[tuple[Step | None, Step | None]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        if scores[i, j] > 0 and best[i, j] == best[i + 1, j + 1] + scores[i, j]:
            pairs.append((a[i], b[j]))
            i, j = i + 1, j + 1
        elif best[i, j] == best[i + 1, j]:
            pairs.append((a[i], None))
            i += 1
        else:
            pairs.append((None, b[j]))
            j += 1
    return [*pairs, *zip_longest(a[i:], []), *((None, step) for step in b[j:])]


class _Mark:
    """What two steps are matched by: kind, shape, and a few of the values."""

    def __init__(self, step: Step) -> None:
        self.kind = type(step.layer)
        self.shape = _squeezed(step.value)
        flat = step.value.reshape(-1)
        self.values = np.float64(flat[:: max(1, flat.size // 97)])

    def score(self, other: _Mark, tolerance: float) -> float:
        if self.shape != other.shape:
            return 1.0 if self.kind is other.kind else 0.0
        scale = max(np.abs(self.values).max(), np.abs(other.values).max())
        varied = np.ptp(self.values) > tolerance * scale
        alike = varied and bool(np.abs(self.values - other.values).max() <= tolerance * scale)
        return (4.0 if self.kind is other.kind else 0.5) + (6.0 if alike else 0.0)


def _squeezed(value: Array) -> tuple[int, ...]:
    return (value.shape[0], *(n for n in value.shape[1:] if n != 1))
