"""Filters that are linear in pieces: |gx| + |gy|, max(|gx|, |gy|), max(R, G, B), whatever has few pieces.

Around almost every window such a filter is a linear form, and its gradient can be measured by changing one
pixel after the other. A few dozen windows show all the gradients there are. With the pieces g_j x + c_j
known, two shapes are tried, and kept where they give what is wanted on other windows:

- a sum of kinks, g_0 x + c_0 + sum of (D_i x + d_i + s_i |D_i x + d_i|) / 2, where all differences between
  pieces are sums of some of the D_i, and s_i is 1 for a kink that bends up, -1 for one that bends down;
- the largest, or the smallest, of all pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from diptych.filters.learning import asking, kernels, linear
from diptych.filters.learning.pairs import Pair
from diptych.filters.learning.problem import Candidate, Problem
from diptych.model.layers import Activation, Array, Chain, Connection, Conv, Layer, Parallel

__all__ = ["fit"]

RUNG = "pieces"
FARTHEST = 3  # pixels of reach up to which gradients are measured
BASES = 48  # windows at which they are
MOST = 12  # pieces; what shows more is no filter of this kind
KINKS = 4


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Linear forms of a window and 1: `forms` (m, K + 1), the last column the constants."""

    forms: Array

    def __call__(self, x: Array) -> Array:
        """(n, K + 1) windows with a 1 -> (n, m)."""
        result: Array = x @ self.forms.T
        return result


def fit(problem: Problem) -> Candidate | None:
    """The network of a filter that is linear in few pieces; None for all others."""
    alike = problem.target.per_channel
    if not problem.answers or problem.reach > FARTHEST or (problem.channels[1] != 1 and not alike):
        return None
    asked = _Asked(problem, 1 if alike else problem.channels[0])
    pieces = asked.pieces()
    if pieces is None:
        return None
    for made, name in ((_kinked, "a sum of kinks"), (_extreme, "the largest or smallest of linear forms")):
        layers = made(asked, pieces)
        if layers is not None:
            return Candidate(layers, RUNG, f"{name}, {len(pieces.forms)} linear pieces")
    return None


class _Asked:
    """What the target says about windows of one or all channels."""

    def __init__(self, problem: Problem, channels: int) -> None:
        self.problem, self.channels, self.radius = problem, channels, problem.reach
        noise = asking.noise(problem.target, problem.seed)
        self.whole = asking.in_whole_levels(noise)
        # Whole levels say nothing about small changes, and large ones may meet a kink.
        self.step = 40 if self.whole else 4
        self.seen = self._windows(noise, 4000, 6)
        self.checks = [
            self._windows(pairs, 2000, 7)
            for pairs in (asking.noise(problem.target, problem.seed + 1), problem.held_out)
        ]

    @property
    def tolerance(self) -> float:
        """The largest error that is none, in 0..1."""
        return linear.WITHIN if self.whole else linear.EXACT

    def _windows(self, pairs: tuple[Pair, ...], count: int, seed: int) -> tuple[Array, Array]:
        """(n, K + 1) windows with a 1, and (n,) what is wanted."""
        windows, wanted = self.problem.windows(self.radius, count, seed, pairs)
        flat = windows[:, : self.channels].reshape(count, -1).astype(np.float64)
        return np.column_stack([flat, np.ones(count)]), wanted[:, 0].astype(np.float64)

    def pieces(self) -> _Pieces | None:
        """The linear forms that the measured gradients belong to; None for one, or too many."""
        x, wanted = self.seen
        free = np.flatnonzero((wanted > 0.02) & (wanted < 0.98))[: 4 * BASES]
        bases = [base for base in x[free] if self._has_room(base)][:BASES]
        found: list[Array] = []
        for form in self._forms(np.array(bases)) if bases else ():
            size = np.abs(form[:-1]).max()
            near = 1.5 / self.step if self.whole else 2e-3 * size
            if all(np.abs(form - other)[:-1].max() > near for other in found):
                found.append(form)
            if len(found) > MOST:
                return None
        return _Pieces(np.array(found)) if len(found) > 1 else None

    def _has_room(self, base: Array) -> bool:
        levels = 255 * base[:-1]
        return bool(levels.min() >= self.step and levels.max() <= 255 - self.step)

    def _forms(self, bases: Array) -> Iterator[Array]:
        """The linear form around each base, where it is the same in all directions."""
        count, taps = len(bases), bases.shape[1] - 1
        levels = np.rint(255 * bases[:, None, :-1]).astype(np.int64)
        moves = self.step * np.concatenate([np.zeros((1, taps)), np.eye(taps), -np.eye(taps)]).astype(
            np.int64
        )
        answers = self._ask((levels + moves).reshape(-1, taps)).reshape(count, -1)
        up = (answers[:, 1 : taps + 1] - answers[:, :1]) * (255 / self.step)
        down = (answers[:, :1] - answers[:, taps + 1 :]) * (255 / self.step)
        for base, gradient, other, value in zip(bases, up, down, answers[:, 0], strict=True):
            size = max(np.abs(gradient).max(), np.abs(other).max())
            slack = 2.02 / self.step if self.whole else 1e-3 * size
            if size > 1e-3 and np.abs(gradient - other).max() <= slack:
                middle = (gradient + other) / 2
                yield np.append(middle, value - middle @ base[:-1])

    def _ask(self, windows: Array) -> Array:
        """The target's answers at the centres of windows (n, K) in levels: laid out as tiles of one picture."""
        size = 2 * self.radius + 1
        across = int(np.ceil(np.sqrt(len(windows))))
        tiles = np.full((across * across, 3 if self.problem.channels[0] == 3 else 1, size, size), 128)
        tiles[: len(windows), : self.channels] = windows.reshape(-1, self.channels, size, size)
        tiles = tiles.reshape(across, across, -1, size, size).transpose(0, 3, 1, 4, 2)
        picture = tiles.reshape(across * size, across * size, -1).astype(np.uint8)
        pair = Pair.of(self.problem.target, picture if picture.shape[2] == 3 else picture[..., 0])
        centres = pair.wanted[0, self.radius :: size, self.radius :: size]
        return centres.reshape(-1)[: len(windows)].astype(np.float64)

    def agrees(self, answer: Array, wanted: Array) -> bool:
        """Whether an unclipped answer is what is wanted."""
        return bool(np.abs(np.clip(answer, 0, 1) - wanted).max() <= self.tolerance)

    def convolutions(self, forms: Array) -> tuple[list[Conv], int]:
        """The linear forms times a divisor, for every channel by itself where all are alike."""
        size = 2 * self.radius + 1
        taps, bias = forms[:, :-1].reshape(len(forms), self.channels, size, size), forms[:, -1]
        convs, divisor = kernels.factored(taps, 1e-5 if self.whole else 2e-7)
        convs = kernels.with_bias(convs, divisor * bias)
        alike = self.problem.target.per_channel
        return (kernels.repeated(convs, self.problem.channels[0]) if alike else convs), divisor

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
        channels = self.problem.channels[0] if self.problem.target.per_channel else 1
        return tuple(Chain(tuple(kernels.repeated(convs, channels))) for convs in plain), 1


def solved(x: Array, t: Array) -> Array:
    """Least squares; what the data leave open is as small as can be."""
    inverse = np.linalg.pinv(x.T @ x, rcond=1e-11, hermitian=True)
    solution: Array = inverse @ (x.T @ t)
    solution += inverse @ (x.T @ (t - x @ solution))  # once more: the normal equations lose digits
    return solution


# ---- A sum of kinks -----------------------------------------------------------------------------------


def _kinked(asked: _Asked, pieces: _Pieces) -> Chain | None:
    differences = pieces.forms[1:] - pieces.forms[0]
    chosen = _generators(differences, asked.whole)
    if chosen is None:
        return None
    base, kinks = pieces.forms[0], differences[list(chosen)]
    for signs in _signs(len(kinks)):
        straight, bent = _refined(asked, base + kinks.sum(axis=0) / 2, kinks, signs)
        if all(asked.agrees(_bend(x, straight, bent, signs), wanted) for x, wanted in asked.checks):
            return _kinked_layers(asked, straight, bent, signs)
    return None


def _generators(differences: Array, whole: bool) -> tuple[int, ...] | None:
    """Few of the differences, such that all are sums of some of them."""
    near = 0.08 if whole else 5e-3 * float(np.abs(differences).max())
    for count in range(1, KINKS + 1):
        subsets = np.array(np.meshgrid(*[[0, 1]] * count)).reshape(count, -1).T
        for chosen in combinations(range(len(differences)), count):
            sums = subsets @ differences[list(chosen), :-1]
            if np.abs(sums[:, None] - differences[None, :, :-1]).max(axis=2).min(axis=0).max() <= near:
                return chosen
    return None


def _signs(count: int) -> Iterator[Array]:
    """Which kinks bend up (1) and which down (-1): all up first."""
    for bits in range(2**count):
        yield np.array([-1.0 if bits >> i & 1 else 1.0 for i in range(count)])


def _bend(x: Array, straight: Array, bent: Array, signs: Array) -> Array:
    result: Array = x @ straight + np.abs(x @ bent.T) @ signs
    return result


def _refined(asked: _Asked, straight: Array, kinks: Array, signs: Array) -> tuple[Array, Array]:
    """Straight part and halved kinks by least squares, the side of each kink taken from the first estimate."""
    bent = kinks / 2
    x, wanted = asked.seen
    free = (wanted > linear.CLIPPED) & (wanted < 1 - linear.CLIPPED)
    x, wanted = x[free], wanted[free]
    before = None
    for _ in range(8):
        signed = np.sign(x @ bent.T)
        if before is not None and (signed == before).all():
            break
        before = signed
        sides = [side[:, None] * x for side in (signed * signs).T]
        solution = solved(np.column_stack([x, *sides]), wanted).reshape(len(bent) + 1, -1)
        straight, bent = solution[0], solution[1:]
    tolerance = 2e-3 if asked.whole else 1e-6
    return _tidied(straight, tolerance), np.array([_tidied(kink, tolerance) for kink in bent])


def _tidied(form: Array, tolerance: float) -> Array:
    """A form whose taps and constant are fractions where they can be."""
    taps = kernels.snapped(np.where(np.abs(form[:-1]) < tolerance, 0, form[:-1]), tolerance)
    constant = 255 * form[-1]
    slack = 255 * 10 * tolerance
    return np.append(taps, (0 if abs(constant) < slack else constant) / 255)


def _kinked_layers(asked: _Asked, straight: Array, bent: Array, signs: Array) -> Chain:
    """Conv, abs, and a 1 x 1 Conv that adds up; what is straight is a unit too, raised so that it is positive."""
    units, weights, bias = list(bent), list(signs), 0.0
    if np.abs(straight[:-1]).max() > 1e-7:
        raised = -float(np.minimum(straight[:-1], 0).sum())
        units.append(np.append(straight[:-1], raised))
        weights.append(1.0)
        bias = float(straight[-1]) - raised
    else:
        bias = float(straight[-1])
    convs, divisor = asked.convolutions(np.array(units))
    total = [Conv(np.array(weights, np.float32).reshape(1, -1, 1, 1))]
    total = kernels.with_bias(total, divisor * np.array([bias]))
    channels = asked.problem.channels[0] if asked.problem.target.per_channel else 1
    pad = kernels.padded(asked.radius, asked.problem.edge)
    end = [*kernels.repeated(total, channels), *kernels.clipped(divisor)]
    return Chain((*pad, *convs, Activation("abs"), *end))


# ---- The largest, or the smallest ---------------------------------------------------------------------


def _extreme(asked: _Asked, pieces: _Pieces) -> Chain | None:
    for sign in (1.0, -1.0):
        forms = _fitted_extreme(asked, sign * pieces.forms, sign)
        if all(asked.agrees(sign * (x @ forms.T).max(axis=1), wanted) for x, wanted in asked.checks):
            branches, divisor = asked.branches(forms)
            largest: list[Layer] = [Parallel(Connection("maximum"), branches)]
            if sign < 0:
                largest.append(Activation("affine", (-1.0, 0.0)))
            pad = kernels.padded(asked.radius, asked.problem.edge)
            return Chain((*pad, *largest, *kernels.clipped(divisor)))
    return None


def _fitted_extreme(asked: _Asked, forms: Array, sign: float) -> Array:
    """Each form by least squares over the windows where it is the largest."""
    x, wanted = asked.seen
    free = (wanted > linear.CLIPPED) & (wanted < 1 - linear.CLIPPED)
    largest = (x[free] @ forms.T).argmax(axis=1)
    fitted = forms.copy()
    for index in range(len(forms)):
        mine = largest == index
        if mine.sum() > 1.2 * x.shape[1]:
            fitted[index] = solved(x[free][mine], sign * wanted[free][mine])
        fitted[index] = _tidied(fitted[index], 2e-3 if asked.whole else 1e-6)
    return fitted
