"""Queries to a piecewise linear target: its linear pieces, and whether a form reproduces it.

A linear form of a window x is f . (x, 1), with one coefficient for each pixel and a constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from diptych.filters.learning import kernels, linear, probing_queries, solving
from diptych.filters.learning.pairs import Pair
from diptych.filters.learning.task import Task
from diptych.model.layers import Array, Chain, Conv

__all__ = ["MAX_RADIUS", "LinearPiece", "Oracle", "least_squares"]

MAX_RADIUS = 3  # pixels; targets with a larger radius are not queried
BASE_WINDOWS = 64  # around which pieces are measured
MAX_PIECES = 30  # a target with more pieces is given up
AMPLITUDES = (32, 8, 2)  # levels of perturbation; large ones measure best, small ones cross no breakpoint
MIN_SPREAD = 1e-3  # levels; the residual of an exact form in float32
STANDARD_ERRORS = 8  # by which two forms must differ


@dataclass(frozen=True, eq=False)
class LinearPiece:
    """A linear form of a window, one piece of the target.

    Attributes:
        form: Coefficients (K + 1,), the constant last.
        error: The uncertainty of the coefficients.
    """

    form: Array
    error: float

    def differs(self, other: LinearPiece) -> bool:
        """Whether two pieces differ by more than their uncertainty.

        The constant is less certain than the other coefficients, because their errors add up in it.
        """
        off, error = np.abs(self.form - other.form), self.error + other.error
        return bool(off[:-1].max() > error or off[-1] > error * np.sqrt(len(off)) / 2)


class Oracle:
    """Answers questions about a piecewise linear target.

    Attributes:
        task: Its target is queried.
        channels: 1 where all channels are treated alike, otherwise the number of input channels.
        radius: The radius of the windows.
        whole: Whether the target gives whole levels.
        seen: Windows of noise with a 1 appended, (n, K + 1), and targets, (n,).
        checks: The same for other noise and for the held-out pictures, on which forms are verified.
    """

    def __init__(self, task: Task, channels: int) -> None:
        self.task, self.channels, self.radius = task, channels, task.radius
        noise = probing_queries.noise(task.target, task.seed)
        self.whole = probing_queries.in_whole_levels(noise)
        values = channels * (2 * self.radius + 1) ** 2
        self.seen = self._windows(noise, min(24_000, 3_000_000 // values) if self.whole else 4000, 6)
        self.checks = [
            self._windows(pairs, 2000, 7)
            for pairs in (probing_queries.noise(task.target, task.seed + 1), task.held_out)
        ]

    @property
    def tolerance(self) -> float:
        """The largest error, in 0..1, of a form that counts as exact."""
        return linear.WITHIN if self.whole else linear.EXACT

    @property
    def free(self) -> tuple[Array, Array]:
        """The windows (n, K + 1) and targets (n,) that are not clipped."""
        x, targets = self.seen
        kept = (targets > solving.CLIPPED) & (targets < 1 - solving.CLIPPED)
        return x[kept], targets[kept]

    def _windows(self, pairs: tuple[Pair, ...], count: int, seed: int) -> tuple[Array, Array]:
        """Random windows with a 1 appended, (n, K + 1), and targets (n,)."""
        windows, targets = self.task.windows(self.radius, count, seed, pairs)
        flat = np.rint(255 * windows[:, : self.channels].reshape(count, -1).astype(np.float64)) / 255
        levels = 255 * targets[:, 0].astype(np.float64)
        return np.column_stack([flat, np.ones(count)]), (np.rint(levels) if self.whole else levels) / 255

    def pieces(self) -> list[LinearPiece]:
        """The linear pieces that were found, the most certain first; empty where there are too many."""
        found: list[LinearPiece] = []
        for piece in sorted(self._measure(), key=lambda piece: piece.error):
            if all(piece.differs(other) for other in found):
                found.append(piece)
            if len(found) > MAX_PIECES:
                return []
        return found

    def _measure(self) -> Iterator[LinearPiece]:
        """The linear form around each base window, where the target is linear there.

        Each base is perturbed at random, and the form is the least squares solution for the answers: with the
        perturbations D (a column of ones appended) it is pinv(D) y. Small residuals show that the target is linear
        within the perturbations. The standard error of a coefficient is the residuals' standard deviation times the
        norm of its row of pinv(D).
        """
        x, targets = self.seen
        bases = np.rint(255 * x[(targets > 0.02) & (targets < 0.98)][:BASE_WINDOWS, :-1]).astype(np.int64)
        random = np.random.default_rng([self.task.seed, 8])
        taps = x.shape[1] - 1
        for amplitude in AMPLITUDES:
            perturbations = random.integers(-amplitude, amplitude + 1, (6 * taps + 100, taps))
            room = (bases.min(axis=1, initial=255) >= amplitude) & (
                bases.max(axis=1, initial=0) <= 255 - amplitude
            )
            answers = self._query((bases[room, None] + perturbations).reshape(-1, taps)).reshape(
                -1, len(perturbations)
            )
            design = np.column_stack([perturbations / 255, np.ones(len(perturbations))])
            inverse = np.linalg.pinv(design)
            forms = answers @ inverse.T
            left = 255 * np.abs(answers - forms @ design.T)
            spread = np.sqrt(np.square(left).mean(axis=1))
            most, usual = (0.75, 0.35) if self.whole else (255e-6, 255e-6)
            there = (left.max(axis=1) <= most) & (spread <= usual)
            errors = (
                STANDARD_ERRORS / 255 * np.maximum(spread, MIN_SPREAD) * float(np.linalg.norm(inverse[0]))
            )
            for base, form, error in zip(bases[room][there], forms[there], errors[there], strict=True):
                yield LinearPiece(np.append(form[:-1], form[-1] - form[:-1] @ base / 255), float(error))
            kept = np.ones(len(bases), bool)
            kept[np.flatnonzero(room)[there]] = False
            bases = bases[kept]

    def _query(self, windows: Array) -> Array:
        """The target at the centres of windows (n, K) in levels, which are laid out as tiles of one picture."""
        size = 2 * self.radius + 1
        across = int(np.ceil(np.sqrt(len(windows))))
        if not across:
            return np.zeros(0)
        tiles = np.full((across * across, 3 if self.task.channels[0] == 3 else 1, size, size), 128)
        tiles[: len(windows), : self.channels] = windows.reshape(-1, self.channels, size, size)
        tiles = tiles.reshape(across, across, -1, size, size).transpose(0, 3, 1, 4, 2)
        picture = tiles.reshape(across * size, across * size, -1).astype(np.uint8)
        pair = Pair.of(self.task.target, picture if picture.shape[2] == 3 else picture[..., 0])
        centres = pair.target[0, self.radius :: size, self.radius :: size]
        return centres.reshape(-1)[: len(windows)].astype(np.float64)

    def agrees(self, answer: Array, targets: Array) -> bool:
        """Whether results, once clipped, match the targets."""
        return bool(np.abs(np.clip(answer, 0, 1) - targets).max() <= self.tolerance)

    @property
    def tolerances(self) -> tuple[float, ...]:
        """Possible errors of coefficients after least squares, the most likely first."""
        return (2e-3, 2e-4, 4e-5) if self.whole else (1e-6,)

    def tidied(self, form: Array, tolerance: float) -> Array:
        """The form with tiny coefficients set to zero, and exact fractions where all are close to them."""
        taps = kernels.snapped(np.where(np.abs(form[:-1]) < tolerance, 0, form[:-1]), tolerance)
        return np.append(taps, form[-1])

    def convolutions(self, forms: Array) -> tuple[list[Conv], int]:
        """Convolutions for the linear forms times a divisor, repeated for all channels that are alike."""
        size = 2 * self.radius + 1
        taps, bias = forms[:, :-1].reshape(len(forms), self.channels, size, size), forms[:, -1]
        convs, divisor = kernels.factored(taps, 1e-5 if self.whole else 2e-7)
        convs = kernels.with_bias(convs, divisor * bias)
        return self.for_all(convs), divisor

    def for_all(self, convs: list[Conv]) -> list[Conv]:
        """The convolutions repeated for all channels that are treated alike."""
        alike = self.task.target.per_channel
        return kernels.repeated(convs, self.task.channels[0]) if alike else convs

    def branches(self, forms: Array) -> tuple[tuple[Chain, ...], int]:
        """One branch for each linear form, all times the same divisor."""
        apart = [self.convolutions(form[None]) for form in forms]
        divisors = {divisor for _, divisor in apart}
        if len(divisors) == 1:
            return tuple(Chain(tuple(convs)) for convs, _ in apart), divisors.pop()
        size = 2 * self.radius + 1
        plain = [
            kernels.with_bias(
                [Conv(form[:-1].reshape(1, self.channels, size, size).astype(np.float32))], form[-1:]
            )
            for form in forms
        ]
        return tuple(Chain(tuple(self.for_all(convs))) for convs in plain), 1


def least_squares(x: Array, t: Array) -> Array:
    """The least squares solution of x w = t; where it is not unique, the one with the smallest norm."""
    inverse = np.linalg.pinv(x.T @ x, rcond=1e-11, hermitian=True)
    solution: Array = inverse @ (x.T @ t)
    solution += inverse @ (x.T @ (t - x @ solution))  # iterative refinement
    return solution
