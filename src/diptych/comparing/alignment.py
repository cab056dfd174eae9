"""Which layer of one model is compared with which of the other, and how much their outputs differ.

Two models with the same kinds of layers in the same order are paired one to one. Otherwise (an activation is
built into a Conv in one and a layer in the other, a BatchNorm is folded into the weights, a layer is missing) the
outputs are aligned as sequences, by dynamic programming: a pair scores for the same kind of layer, for the same
shape apart from axes of length 1, and most for the same values. A layer without a partner is compared with the
last output of the other model; it counts as a difference only if the next pair differs too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import TypeAlias

import numpy as np

from diptych.comparing.runs import LayerOutput, Run
from diptych.model.layers import Activation, Array, Layer

__all__ = ["Alignment", "Difference", "Row", "align", "measure", "same_kinds"]


@dataclass(frozen=True)
class Difference:
    """How much two arrays differ; infinite where their shapes do, or only one has a NaN or infinite value.

    Attributes:
        absolute: The largest |a - b|.
        relative: `absolute` divided by the largest |a| or |b|, so that values near zero count no more than
            others.
        cosine: Of the angle between the arrays as vectors; 1 for the same direction.
    """

    absolute: float
    relative: float
    cosine: float


_BLOCK = 2**16  # values compared at a time, so that intermediate results stay in the cache
UNLIKE = Difference(math.inf, math.inf, math.nan)


def measure(a: Array, b: Array) -> Difference:
    """Measures how much two arrays differ.

    Args:
        a: (N, ...).
        b: An array of the same shape, apart from axes of length 1.
    """
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


_SIGMOID_ROUNDING = (
    2**-23
)  # float32 next to 1: ONNX Runtime's sigmoid is right to half of it, not to a part of itself


def _ends_in_sigmoid(layer: Layer | None) -> bool:
    activation = layer if isinstance(layer, Activation) else getattr(layer, "activation", None)
    return isinstance(activation, Activation) and activation.name == "sigmoid"


@dataclass(frozen=True, eq=False)
class Row:
    """Two outputs that are compared. They are measured only when asked: a trial looks at one row of many.

    Attributes:
        a: The output of A; its last one where only B has this layer.
        b: The output of B; its last one where only A has this layer.
        tolerance: The largest relative difference that counts as equal.
        lone: "a" or "b" where only that model has this layer, else "".
    """

    a: LayerOutput
    b: LayerOutput
    tolerance: float
    lone: str = ""

    @cached_property
    def relative(self) -> float:
        """The largest difference divided by the largest magnitude."""
        absolute, scale = _largest(self.a.value, self.b.value)
        return math.inf if math.isinf(absolute) else absolute / scale if scale else 0.0

    @cached_property
    def difference(self) -> Difference:
        """Every measure of the difference."""
        return measure(self.a.value, self.b.value)

    @property
    def agrees(self) -> bool:
        """Whether the outputs agree within the tolerance, or within the rounding of a sigmoid near 1."""
        if self.relative <= self.tolerance:
            return True
        if not all(_ends_in_sigmoid(side.layer) for side in (self.a, self.b)):
            return False
        return _largest(self.a.value, self.b.value)[0] <= _SIGMOID_ROUNDING


@dataclass(frozen=True, eq=False)
class Alignment:
    """Two runs, layer by layer."""

    rows: tuple[Row, ...]

    @cached_property
    def first(self) -> int | None:
        """The number of the first row that differs."""
        return _first(self.rows)

    @property
    def agrees(self) -> bool:
        """Whether no row differs."""
        return self.first is None

    @property
    def first_row(self) -> Row | None:
        """The first row that differs."""
        return None if self.first is None else self.rows[self.first]

    def beside(self, row: Row) -> Row | None:
        """The row of the same layers as `row`, which belongs to another alignment."""
        both = (r for r in self.rows if r.a.path == row.a.path and r.b.path == row.b.path)
        either = (r for r in self.rows if not r.lone and (r.a.path == row.a.path or r.b.path == row.b.path))
        return next(both, next(either, None))


def align(
    a: Run, b: Run, tolerance: float, *, inputs: bool = True, tops: tuple[int, int] | None = None
) -> Alignment:
    """Runs both models and pairs their outputs.

    Args:
        a: One run.
        b: The other.
        tolerance: The largest relative difference that counts as equal.
        inputs: Whether the first row compares what the models are given.
        tops: The top-level layers to stop at; (-1, ...) compares the inputs only.

    Raises:
        DiptychError: A model cannot run.
    """
    start_a, start_b = _input(a), _input(b)
    rows = [Row(start_a, start_b, tolerance)] if inputs else []
    if tops is None or min(tops) >= 0:
        outputs_a = a.outputs(tops[0] if tops else None)
        outputs_b = b.outputs(tops[1] if tops else None)
        rows += _aligned(start_a, start_b, outputs_a, outputs_b, tolerance)
    return Alignment(tuple(rows))


def _input(run: Run) -> LayerOutput:
    return LayerOutput("input", "input", None, run.viewed(run.batch))


def same_kinds(a: Run, b: Run) -> bool:
    """Whether both models have the same kinds of layers in the same order, whatever the settings."""
    return [type(layer) for layer in a.layers.values()] == [type(layer) for layer in b.layers.values()]


# ---- Rows ---------------------------------------------------------------------------------------------


Pairs: TypeAlias = list[tuple[LayerOutput | None, LayerOutput | None]]


def _aligned(
    start_a: LayerOutput,
    start_b: LayerOutput,
    outputs_a: list[LayerOutput],
    outputs_b: list[LayerOutput],
    tolerance: float,
) -> list[Row]:
    pairs: Pairs
    if [type(output.layer) for output in outputs_a] == [type(output.layer) for output in outputs_b]:
        pairs = list(zip(outputs_a, outputs_b, strict=True))
    else:
        pairs = _paired(outputs_a, outputs_b, tolerance)
    rows, last_a, last_b = [], start_a, start_b
    for number, (a, b) in enumerate(pairs):
        last_a, last_b = a or last_a, b or last_b
        # The results of the models are always a pair, whichever layers give them.
        lone = "" if number == len(pairs) - 1 or (a and b) else ("b" if a is None else "a")
        rows.append(Row(last_a, last_b, tolerance, lone))
    return rows


def _first(rows: Sequence[Row]) -> int | None:
    """The first row that differs: a lone layer in front of a pair that differs counts too."""
    first_pair = next((i for i, row in enumerate(rows) if not row.lone and not row.agrees), None)
    if first_pair is None:
        return None
    first = first_pair
    for i in range(first_pair - 1, -1, -1):
        if not rows[i].lone:
            break
        if not rows[i].agrees and _squeezed(rows[i].a.value) == _squeezed(rows[i].b.value):
            first = i
    return first


def _paired(a: list[LayerOutput], b: list[LayerOutput], tolerance: float) -> Pairs:
    """The alignment with the largest score; leaving an output without a partner costs nothing."""
    marks_a, marks_b = [_Signature(output) for output in a], [_Signature(output) for output in b]
    best = np.zeros((len(a) + 1, len(b) + 1))
    scores = np.array([[x.score(y, tolerance) for y in marks_b] for x in marks_a]).reshape(len(a), len(b))
    for i in range(len(a) - 1, -1, -1):
        for j in range(len(b) - 1, -1, -1):
            best[i, j] = max(best[i + 1, j], best[i, j + 1], best[i + 1, j + 1] + scores[i, j])
    pairs: Pairs = []
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
    return [*pairs, *zip_longest(a[i:], []), *((None, output) for output in b[j:])]


class _Signature:
    """What two outputs are matched by: kind of layer, shape, and a few of the values."""

    def __init__(self, output: LayerOutput) -> None:
        self.kind = type(output.layer)
        self.shape = _squeezed(output.value)
        flat = output.value.reshape(-1)
        self.values = np.float64(flat[:: max(1, flat.size // 97)])

    def score(self, other: _Signature, tolerance: float) -> float:
        if self.shape != other.shape:
            return 1.0 if self.kind is other.kind else 0.0
        scale = max(np.abs(self.values).max(), np.abs(other.values).max())
        varied = np.ptp(self.values) > tolerance * scale
        alike = varied and bool(np.abs(self.values - other.values).max() <= tolerance * scale)
        return (4.0 if self.kind is other.kind else 0.5) + (6.0 if alike else 0.0)


def _squeezed(value: Array) -> tuple[int, ...]:
    return (value.shape[0], *(n for n in value.shape[1:] if n != 1))
