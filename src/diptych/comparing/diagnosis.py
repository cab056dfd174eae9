"""The search for the cause: every known one is tried, and the one that removes the difference is named.

A trial counts if the difference at the first row that differs falls to a hundredth, or to the size of rounding
errors. All trials run on the models cut after that row; those that count there run in full, and the first that
makes everything agree is taken, else the one after which the models differ latest. If none counts alone, the most
helpful ones are tried together with every other, for `TIME_LIMIT` seconds. What is found is kept, and the search
continues from there, so that several faults in different layers are found one after the other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from diptych.comparing.alignment import Alignment, Row, align
from diptych.comparing.comparison import FoundCause
from diptych.comparing.hypotheses import Case, Cause, Trial
from diptych.comparing.input_causes import INPUT_CAUSES, WHOLE_RECIPE
from diptych.comparing.layer_causes import LAYER_CAUSES
from diptych.comparing.runs import Run
from diptych.comparing.sequence_causes import SEQUENCE_CAUSES
from diptych.comparing.weight_causes import WEIGHT_CAUSES
from diptych.errors import DiptychError

__all__ = ["CAUSES", "TIME_LIMIT", "Search"]

CAUSES: tuple[Cause, ...] = (*WEIGHT_CAUSES, *SEQUENCE_CAUSES, *LAYER_CAUSES, *INPUT_CAUSES)

_FALL = 100.0  # how many times smaller the difference must become
_ROUNDING = 2e-6  # the relative difference of two engines in float32
_MOST_FAULTS = 4  # found one after the other
_HELPFUL = 0.9  # the largest part of the difference that a trial may leave to be combined with others
TIME_LIMIT = 20.0  # seconds, after which no more causes are tried together
_TOGETHER = 8  # trials that are combined with every other


@dataclass(frozen=True, eq=False)
class _Scored:
    """A trial with the difference that it leaves at the row where it is judged."""

    causes: tuple[Cause, ...]
    trial: Trial
    tried: tuple[str, ...]
    after: float


class Search:
    """The search between two runs; afterwards `found` holds the causes and `alignment` what they leave."""

    def __init__(self, a: Run, b: Run, alignment: Alignment, tolerance: float) -> None:
        self.a, self.b, self.alignment, self.tolerance = a, b, alignment, tolerance
        self.found: list[FoundCause] = []
        self.trials = 0
        self.cut_short = False
        self._end = time.monotonic() + TIME_LIMIT
        # Where both are given the same values, a trial may change what a model sees: that is not a difference.
        self.inputs = not alignment.rows[0].agrees

    def find_causes(self) -> None:
        """Finds one cause after the other, until everything agrees or nothing helps."""
        while not self.alignment.agrees and len(self.found) < _MOST_FAULTS:
            best = self._next_cause()
            if best is None:
                return
            result, alignment = best
            row = self._judged()
            where = "the input" if row.a.layer is None and row.b.layer is None else f"layer {row.a.shown}"
            for cause, tried in zip(result.causes, result.tried, strict=True):
                self.found.append(
                    FoundCause(cause.name, cause.reason, tried, where, row.relative, result.after)
                )
            self.a, self.b, self.alignment = result.trial.a, result.trial.b, alignment

    def _next_cause(self) -> tuple[_Scored, Alignment] | None:
        """The best trial of one cause or of two, and the alignment that it leads to."""
        row = self.alignment.first_row
        assert row is not None
        case = Case(self.a, self.b, self.alignment, row)
        singles: list[_Scored] = []
        best = self._best(_kept(self._scored(case, (), ()), singles))
        return best or self._together(case, singles) or self._whole(case)

    def _whole(self, case: Case) -> tuple[_Scored, Alignment] | None:
        """The recipe of the other side, where the recipes differ in more than two causes explain."""
        scored = ((trial, self._difference(trial, case)) for trial in self._trials(WHOLE_RECIPE, case))
        return self._best(
            _Scored((WHOLE_RECIPE,), trial, (trial.tried,), after)
            for trial, after in scored
            if after is not None
        )

    def _judged(self) -> Row:
        """The row where a trial is judged: the first that differs, or the next one with a layer of each model.

        Beside a layer that only one model has, such as a BatchNorm that the other has folded into its
        weights, even correct values differ.
        """
        rows, first = self.alignment.rows, self.alignment.first
        assert first is not None
        if rows[first].a.layer is None and rows[first].b.layer is None:
            return rows[first]
        while first + 1 < len(rows) and (rows[first].lone or rows[first + 1].lone):
            first += 1
        return rows[first]

    def _together(self, case: Case, singles: list[_Scored]) -> tuple[_Scored, Alignment] | None:
        """Tries two causes at once: the most helpful single ones, each with every other cause."""
        before = self._judged().relative
        for first in singles:
            if not first.after < _HELPFUL * before:
                continue
            changed = Case(first.trial.a, first.trial.b, case.alignment, case.row)
            best = self._best(self._in_time(self._scored(changed, first.causes, first.tried)))
            if best is not None:
                return best
        return None

    def _in_time(self, results: Iterator[_Scored]) -> Iterator[_Scored]:
        while not self.cut_short and (result := next(results, None)) is not None:
            yield result
            self.cut_short = time.monotonic() > self._end

    def _scored(self, case: Case, causes: tuple[Cause, ...], tried: tuple[str, ...]) -> Iterator[_Scored]:
        """Every trial of every other cause, after `causes` were removed, with the difference it leaves."""
        for cause in CAUSES:
            if cause in causes or (case.at_input and cause not in INPUT_CAUSES):
                continue
            for trial in self._trials(cause, case):
                after = self._difference(trial, case)
                if after is not None:
                    yield _Scored((*causes, cause), trial, (*tried, trial.tried), after)

    def _trials(self, cause: Cause, case: Case) -> Iterator[Trial]:
        """The trials of a cause; none from the point where it does not apply to these models."""
        trials = cause.trials(case)
        while True:
            try:
                trial = next(trials, None)
            except DiptychError:
                return
            if trial is None:
                return
            yield trial

    def _difference(self, trial: Trial, case: Case) -> float | None:
        """The difference left where trials are judged; None where the changed models do not run."""
        self.trials += 1
        judged = self._judged()
        tops = (-1, -1) if case.at_input else (judged.a.top, judged.b.top)
        try:
            alignment = align(trial.a, trial.b, self.tolerance, inputs=self.inputs, tops=tops)
        except DiptychError:
            return None
        row = alignment.beside(judged) or (alignment.rows[-1] if alignment.rows else None)
        return None if row is None else row.relative

    def _counts(self, result: _Scored) -> bool:
        before = self._judged().relative
        limit = before / _FALL if math.isfinite(before) else self.tolerance
        return result.after <= max(limit, _ROUNDING)

    def _best(self, results: Iterable[_Scored]) -> tuple[_Scored, Alignment] | None:
        """The first trial that makes everything agree, else the one after which the models differ latest."""
        best: tuple[_Scored, Alignment] | None = None
        for result in results:
            if not self._counts(result):
                continue
            try:
                full = align(result.trial.a, result.trial.b, self.tolerance, inputs=self.inputs)
            except DiptychError:
                continue
            if full.agrees:
                return result, full
            if best is None or (full.first or 0) > (best[1].first or 0):
                best = result, full
        return best


def _kept(results: Iterable[_Scored], most_helpful: list[_Scored]) -> Iterator[_Scored]:
    """Passes `results` on, and keeps the most helpful in the list; only a few, because they are large."""
    for result in results:
        if math.isfinite(result.after):
            most_helpful.append(result)
            most_helpful.sort(key=lambda kept: kept.after)
            del most_helpful[_TOGETHER:]
        yield result
