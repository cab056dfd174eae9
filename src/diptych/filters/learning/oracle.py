"""What a target that is linear in pieces says when it is asked: its pieces, and whether a form gives them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from diptych.filters.learning import kernels, linear, probing_queries
from diptych.filters.learning.pairs import Pair
from diptych.filters.learning.task import Task
from diptych.model.layers import Array, Chain, Conv

__all__ = ["FARTHEST", "Oracle", "Piece", "solved"]

FARTHEST = 3  # pixels of reach up to which pieces are looked for
BASES = 64  # windows around which they are measured
MOST = 30  # pieces; what shows more is no filter of this kind
AMPLITUDES = (32, 8, 2)  # levels by which a base is changed: much tells most, little meets no kink
LEAST = 1e-3  # levels: what is left of an exact form in float32
SURE = 8  # standard errors by which two forms must differ


@dataclass(frozen=True, eq=False)
class Piece:
    """A linear form of a window and 1, (K + 1,), the constant last; its taps are known to within `error`."""

    form: Array
    error: float

    def differs(self, other: Piece) -> bool:
        """Whether it is surely another form; the constant is less certain, as it balances all taps at once."""
        off, error = np.abs(self.form - other.form), self.error + other.error
        return bool(off[:-1].max() > error or off[-1] > error * np.sqrt(len(off)) / 2)


class Oracle:
    """What the target says about windows of one or all channels."""

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
        """The largest error that is none, in 0..1."""
        return linear.WITHIN if self.whole else linear.EXACT

    @property
    def free(self) -> tuple[Array, Array]:
        """What was seen and not clipped: windows (n, K + 1), and what is wanted (n,)."""
        x, targets = self.seen
        kept = (targets > linear.CLIPPED) & (targets < 1 - linear.CLIPPED)
        return x[kept], targets[kept]

    def _windows(self, pairs: tuple[Pair, ...], count: int, seed: int) -> tuple[Array, Array]:
        """(n, K + 1) windows with a 1, and (n,) what is wanted."""
        windows, targets = self.task.windows(self.radius, count, seed, pairs)
        flat = np.rint(255 * windows[:, : self.channels].reshape(count, -1).astype(np.float64)) / 255
        levels = 255 * targets[:, 0].astype(np.float64)
        return np.column_stack([flat, np.ones(count)]), (np.rint(levels) if self.whole else levels) / 255

    def pieces(self) -> list[Piece]:
        """The linear forms found around windows, the most certain first; none where there are too many."""
        found: list[Piece] = []
        for piece in sorted(self._measured(), key=lambda piece: piece.error):
            if all(piece.differs(other) for other in found):
                found.append(piece)
            if len(found) > MOST:
                return []
        return found

    def _measured(self) -> Iterator[Piece]:
        """The linear form around each base, by least squares over random changes, where it is linear there."""
        x, targets = self.seen
        bases = np.rint(255 * x[(targets > 0.02) & (targets < 0.98)][:BASES, :-1]).astype(np.int64)
        random = np.random.default_rng([self.task.seed, 8])
        taps = x.shape[1] - 1
        for amplitude in AMPLITUDES:
            moves = random.integers(-amplitude, amplitude + 1, (6 * taps + 100, taps))
            room = (bases.min(axis=1, initial=255) >= amplitude) & (
                bases.max(axis=1, initial=0) <= 255 - amplitude
            )
            answers = self._query((bases[room, None] + moves).reshape(-1, taps)).reshape(-1, len(moves))
            design = np.column_stack([moves / 255, np.ones(len(moves))])
            inverse = np.linalg.pinv(design)
            forms = answers @ inverse.T
            left = 255 * np.abs(answers - forms @ design.T)
            spread = np.sqrt(np.square(left).mean(axis=1))
            most, usual = (0.75, 0.35) if self.whole else (255e-6, 255e-6)
            there = (left.max(axis=1) <= most) & (spread <= usual)
            errors = SURE / 255 * np.maximum(spread, LEAST) * float(np.linalg.norm(inverse[0]))
            for base, form, error in zip(bases[room][there], forms[there], errors[there], strict=True):
                yield Piece(np.append(form[:-1], form[-1] - form[:-1] @ base / 255), float(error))
            kept = np.ones(len(bases), bool)
            kept[np.flatnonzero(room)[there]] = False
            bases = bases[kept]

    def _query(self, windows: Array) -> Array:
        """The target's answers at the centres of windows (n, K) in levels: laid out as tiles of one picture."""
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
        """Whether an unclipped answer is what is wanted."""
        return bool(np.abs(np.clip(answer, 0, 1) - targets).max() <= self.tolerance)

    @property
    def tolerances(self) -> tuple[float, ...]:
        """By how much taps may be off after least squares, the likeliest first."""
        return (2e-3, 2e-4, 4e-5) if self.whole else (1e-6,)

    def tidied(self, form: Array, tolerance: float) -> Array:
        """A form whose taps are fractions where they can be, and zero where they are nothing but rounding."""
        taps = kernels.snapped(np.where(np.abs(form[:-1]) < tolerance, 0, form[:-1]), tolerance)
        return np.append(taps, form[-1])

    def convolutions(self, forms: Array) -> tuple[list[Conv], int]:
        """The linear forms times a divisor, for every channel by itself where all are alike."""
        size = 2 * self.radius + 1
        taps, bias = forms[:, :-1].reshape(len(forms), self.channels, size, size), forms[:, -1]
        convs, divisor = kernels.factored(taps, 1e-5 if self.whole else 2e-7)
        convs = kernels.with_bias(convs, divisor * bias)
        return self.for_all(convs), divisor

    def for_all(self, convs: list[Conv]) -> list[Conv]:
        """The convolutions for every channel by itself where all are alike."""
        alike = self.task.target.per_channel
        return kernels.repeated(convs, self.task.channels[0]) if alike else convs

    def branches(self, forms: Array) -> tuple[tuple[Chain, ...], int]:
        """Each linear form by itself, all times the same divisor."""
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


def solved(x: Array, t: Array) -> Array:
    """Least squares; what the data leave open is as small as can be."""
    inverse = np.linalg.pinv(x.T @ x, rcond=1e-11, hermitian=True)
    solution: Array = inverse @ (x.T @ t)
    solution += inverse @ (x.T @ (t - x @ solution))  # once more: the normal equations lose digits
    return solution
