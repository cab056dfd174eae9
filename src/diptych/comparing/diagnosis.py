"""The search for the cause: every known one is tried, and the one that takes the difference away is named.

A try counts where the difference at the first row that parts falls to a hundredth, or to what rounding
leaves. All are tried on the models cut after that row; those that count there are run in full, and the first
that makes everything agree is taken, else the one after which the models part latest. Where none counts
alone, the most helpful are tried together with every other, for `SECONDS`. What is found is kept, and the
search goes on from there, so that several faults in different layers are found one after the other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from diptych.comparing.alignment import Evaluation, Row, evaluate
from diptych.comparing.comparison import FoundCause
from diptych.comparing.hypotheses import Cause, Situation, Try
from diptych.comparing.input_causes import INPUT_CAUSES
from diptych.comparing.layer_causes import LAYER_CAUSES
from diptych.comparing.runs import Side
from diptych.comparing.weight_causes import WEIGHT_CAUSES
from diptych.errors import DiptychError

__all__ = ["CAUSES", "SECONDS", "Search"]

CAUSES: tuple[Cause, ...] = (*WEIGHT_CAUSES, *LAYER_CAUSES, *INPUT_CAUSES)

_FALL = 100.0
_ROUNDING = 2e-6  # what float32 leaves between two engines, relative
_MOST = 4  # faults that are found one after the other
_HELPFUL = 0.9  # of the difference: what a try must leave at most to be combined with others
SECONDS = 20.0  # what may go by until no more causes are tried together
_TOGETHER = 5  # tries that are combined with every other


@dataclass(frozen=True, eq=False)
class _Result:
    """A try with what it left of the difference at the row in question."""

    causes: tuple[Cause, ...]
    attempt: Try
    tried: tuple[str, ...]
    after: float


class Search:
    """The search between two sides; afterwards `found` holds the causes and `evaluation` what is left."""

    def __init__(self, a: Side, b: Side, evaluation: Evaluation, tolerance: float) -> None:
        self.a, self.b, self.evaluation, self.tolerance = a, b, evaluation, tolerance
        self.found: list[FoundCause] = []
        self.tries = 0
        self.cut_short = False
        self._end = time.monotonic() + SECONDS
        # Where both are given the same, a try may change what a model sees without that being a difference.
        self.inputs = not evaluation.rows[0].agrees

    def run(self) -> None:
        """Finds cause after cause, until everything agrees or nothing helps."""
        while not self.evaluation.agrees and len(self.found) < _MOST:
            best = self._step()
            if best is None:
                return
            result, evaluation = best
            row = self._judged()
            where = "the input" if row.a.layer is None and row.b.layer is None else f"layer {row.a.shown}"
            for cause, tried in zip(result.causes, result.tried, strict=True):
                self.found.append(
                    FoundCause(cause.name, cause.reason, tried, where, row.relative, result.after)
                )
            self.a, self.b, self.evaluation = result.attempt.a, result.attempt.b, evaluation

    def _step(self) -> tuple[_Result, Evaluation] | None:
        row = self.evaluation.parting
        assert row is not None
        situation = Situation(self.a, self.b, self.evaluation, row)
        singles: list[_Result] = []
        best = self._best(_kept(self._results(situation, (), ()), singles))
        return best or self._together(situation, singles)

    def _judged(self) -> Row:
        """Where a try is measured: the first row that parts, or the next at which both sides stand level.

        Beside layers that one side has alone, such as a BatchNorm that the other has folded into its
        weights, even right numbers differ.
        """
        rows, first = self.evaluation.rows, self.evaluation.first
        assert first is not None
        if rows[first].a.layer is None and rows[first].b.layer is None:
            return rows[first]
        while first + 1 < len(rows) and (rows[first].lone or rows[first + 1].lone):
            first += 1
        return rows[first]

    def _together(self, s: Situation, singles: list[_Result]) -> tuple[_Result, Evaluation] | None:
        """Two causes at once: the most helpful of the singles, each with every other cause."""
        before = self._judged().relative
        for first in singles:
            if not first.after < _HELPFUL * before:
                continue
            changed = Situation(first.attempt.a, first.attempt.b, s.evaluation, s.row)
            best = self._best(self._in_time(self._results(changed, first.causes, first.tried)))
            if best is not None:
                return best
        return None

    def _in_time(self, results: Iterator[_Result]) -> Iterator[_Result]:
        while not self.cut_short and (result := next(results, None)) is not None:
            yield result
            self.cut_short = time.monotonic() > self._end

    def _results(self, s: Situation, causes: tuple[Cause, ...], tried: tuple[str, ...]) -> Iterator[_Result]:
        for cause in CAUSES:
            if cause in causes or (s.at_input and cause not in INPUT_CAUSES):
                continue
            for attempt in self._attempts(cause, s):
                after = self._difference(attempt, s)
                if after is not None:
                    yield _Result((*causes, cause), attempt, (*tried, attempt.tried), after)

    def _attempts(self, cause: Cause, s: Situation) -> Iterator[Try]:
        tries = cause.tries(s)
        while True:
            try:
                attempt = next(tries, None)
            except DiptychError:
                return  # this cause cannot be tried on these models
            if attempt is None:
                return
            yield attempt

    def _difference(self, attempt: Try, s: Situation) -> float | None:
        """What is left at the row in question; None where the changed models do not run."""
        self.tries += 1
        judged = self._judged()
        tops = (-1, -1) if s.at_input else (judged.a.top, judged.b.top)
        try:
            evaluation = evaluate(attempt.a, attempt.b, self.tolerance, inputs=self.inputs, tops=tops)
        except DiptychError:
            return None
        row = evaluation.beside(judged) or (evaluation.rows[-1] if evaluation.rows else None)
        return None if row is None else row.relative

    def _counts(self, result: _Result) -> bool:
        before = self._judged().relative
        limit = before / _FALL if math.isfinite(before) else self.tolerance
        return result.after <= max(limit, _ROUNDING)

    def _best(self, results: Iterable[_Result]) -> tuple[_Result, Evaluation] | None:
        """The first that makes everything agree, else the one after which the models part latest."""
        best: tuple[_Result, Evaluation] | None = None
        for result in results:
            if not self._counts(result):
                continue
            try:
                full = evaluate(result.attempt.a, result.attempt.b, self.tolerance, inputs=self.inputs)
            except DiptychError:
                continue
            if full.agrees:
                return result, full
            if best is None or (full.first or 0) > (best[1].first or 0):
                best = result, full
        return best


def _kept(results: Iterable[_Result], most_helpful: list[_Result]) -> Iterator[_Result]:
    """`results` as they come; the most helpful, and no more of these large things, stay in the list."""
    for result in results:
        if math.isfinite(result.after):
            most_helpful.append(result)
            most_helpful.sort(key=lambda kept: kept.after)
            del most_helpful[_TOGETHER:]
        yield result
