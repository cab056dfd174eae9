"""Sums of absolute values of linear forms: y = S x + c + sum over i of s_i |D_i x + d_i|, with s_i = 1 or -1.

Examples are |gx| + |gy| and sums of clamped forms. Term i has a breakpoint where D_i x + d_i = 0. The linear
pieces on both sides differ by a multiple of D_i x + d_i, so all terms are among the differences of the pieces.
Absolute values of forms that are not multiples of each other are linearly independent functions, so least
squares over all differences gives the true terms their weight, and all others a weight of zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from diptych.filters.learning import kernels
from diptych.filters.learning.oracle import LinearPiece, Oracle, least_squares
from diptych.filters.learning.rounded import middle_of, polished
from diptych.model.layers import Activation, Array, Chain, Conv

__all__ = ["summed"]

MAX_BREAKPOINTS = 8  # terms
MAX_CANDIDATES = 300
MIN_STRENGTH = 0.04  # Breakpoints weaker than this fraction of the strongest are dropped.
MAX_COLUMNS = 700  # unknowns of one least squares problem
HALF_LEVEL = 0.5 / 255 + 1e-9  # in 0..1; the largest rounding error, with a margin


@dataclass(frozen=True, eq=False)
class _Sum:
    """The coefficients of such a sum.

    Attributes:
        straight: S and c, (K + 1,).
        bent: D_i and d_i, (U, K + 1).
        signs: s_i, (U,).
    """

    straight: Array
    bent: Array
    signs: Array

    def __call__(self, x: Array) -> Array:
        result: Array = x @ self.straight + np.abs(x @ self.bent.T) @ self.signs
        return result


def summed(oracle: Oracle, pieces: list[LinearPiece]) -> Chain | None:
    """The network of a sum of absolute values; None where the target is not such a sum."""
    first = _chosen(oracle, _candidates(pieces))
    if first is None:
        return None
    found = _settled(oracle, _refined(oracle, first))
    if all(oracle.agrees(found(x), targets) for x, targets in oracle.checks):
        return _layers(oracle, found)
    return None


def _candidates(pieces: list[LinearPiece]) -> Array:
    """The differences of all pairs of pieces, (n, K + 1), without duplicates.

    They are scaled to a largest coefficient of 1 and sorted by their uncertainty.
    """
    found: list[tuple[float, Array]] = []
    for one, other in combinations(pieces, 2):
        form = one.form - other.form
        largest = form[np.abs(form[:-1]).argmax()]
        found.append(((one.error + other.error) / abs(largest), form / largest))
    kept: list[tuple[float, Array]] = []
    for error, form in sorted(found, key=lambda one: one[0]):
        same = (
            min(np.abs(form - other).max(), np.abs(form + other).max()) <= error + least
            for least, other in kept
        )
        if error < 0.5 and not any(same):
            kept.append((error, form))
    return np.array([form for _, form in kept[:MAX_CANDIDATES]])


def _chosen(oracle: Oracle, candidates: Array) -> _Sum | None:
    """The candidates with a significant weight in a least squares fit; None where there are too many."""
    if not len(candidates):
        return None
    x, targets = oracle.free
    x, targets = x[:4000], targets[:4000]
    found = least_squares(np.column_stack([x, np.abs(x @ candidates.T)]), targets)
    straight, weights = found[: x.shape[1]], found[x.shape[1] :]
    strong = np.abs(weights) > MIN_STRENGTH * np.abs(weights).max()
    if strong.sum() > MAX_BREAKPOINTS or strong.sum() * x.shape[1] > MAX_COLUMNS:
        return None
    bent = np.abs(weights[strong, None]) * candidates[strong]
    return _Sum(straight, bent, np.sign(weights[strong]))


def _refined(oracle: Oracle, found: _Sum) -> _Sum:
    """Least squares over all coefficients.

    With the sign of each form known from the estimate before, the sum is linear in its coefficients. The signs
    are updated until they no longer change.
    """
    x, targets = oracle.free
    before = None
    for _ in range(8):
        sides = np.sign(x @ found.bent.T)
        if before is not None and (sides == before).all():
            break
        before = sides
        bent = [side[:, None] * x for side in (sides * found.signs).T]
        solution = least_squares(np.column_stack([x, *bent]), targets).reshape(len(found.bent) + 1, -1)
        found = _Sum(solution[0], solution[1:], found.signs)
    return found


def _polished(oracle: Oracle, found: _Sum) -> _Sum:
    """The coefficients moved until hardly any result is more than half a level off."""
    x, targets = oracle.free
    sides = np.sign(x @ found.bent.T) * found.signs
    x = np.column_stack([x, *(side[:, None] * x for side in sides.T)])
    solution = np.concatenate([found.straight, *found.bent])
    known = solution != 0  # coefficients that are zero stay zero
    solution[known] = polished(x[:, known], targets, solution[known])
    straight, *bent = solution.reshape(len(found.bent) + 1, -1)
    return _Sum(straight, np.array(bent), found.signs)


def _settled(oracle: Oracle, found: _Sum) -> _Sum:
    """The coefficients as exact fractions where possible."""
    if not oracle.whole:
        return _tidied(oracle, found, oracle.tolerances[0])
    x, targets = oracle.free
    for tolerance in oracle.tolerances:
        tidied = _tidied(oracle, found, tolerance)
        if np.abs(targets - tidied(x)).max() <= HALF_LEVEL:
            return tidied
        found = _polished(oracle, tidied)
    return found


def _tidied(oracle: Oracle, found: _Sum, tolerance: float) -> _Sum:
    """The coefficients rounded to fractions within `tolerance`, and the constants that fit them best."""
    straight = oracle.tidied(found.straight, tolerance)
    bent = np.array([oracle.tidied(form, tolerance) for form in found.bent])
    x, targets = oracle.free
    sides = np.sign(x @ bent.T) * found.signs
    taps = np.concatenate([straight[None, :-1], bent[:, :-1]])
    values = x[:, :-1] @ taps.T
    left = targets - values[:, 0] - (sides * values[:, 1:]).sum(axis=1)
    constants = least_squares(np.column_stack([sides, np.ones(len(x))]), left)[:-1]
    # Breakpoints of filters that people write lie at whole or half levels of the form with a largest coefficient
    # of 1. Constants close to such values are moved there.
    largest = 510 / np.abs(bent[:, :-1]).max(axis=1)
    near = np.rint(constants * largest) / largest
    bent[:, -1] = np.where(np.abs(near - constants) < (0.1 / 255 if oracle.whole else 1e-6), near, constants)
    straight[-1] = 0
    result = _Sum(straight, bent, found.signs)
    straight[-1] = (
        middle_of(255 * result(x), 255 * targets) / 255 if oracle.whole else (targets - result(x)).mean()
    )
    if abs(straight[-1]) < 1e-7:
        straight[-1] = 0
    return result


def _layers(oracle: Oracle, found: _Sum) -> Chain:
    """Layers: Conv, abs, and a 1 x 1 Conv that adds up.

    The straight part passes through abs too, with a constant added that keeps it positive.
    """
    units, weights, bias = list(found.bent), list(found.signs), float(found.straight[-1])
    if np.abs(found.straight[:-1]).max() > 1e-7:
        raised = -float(np.minimum(found.straight[:-1], 0).sum())
        units.append(np.append(found.straight[:-1], raised))
        weights.append(1.0)
        bias -= raised
    convs, divisor = min(
        (oracle.convolutions(np.array(units)), _by_direction(oracle, np.array(units))),
        key=lambda made: sum(conv.weight.size for conv in made[0]),
    )
    total = [Conv(np.array(weights, np.float32).reshape(1, -1, 1, 1))]
    total = kernels.with_bias(total, divisor * np.array([bias]))
    pad = kernels.padded(oracle.radius, oracle.task.padding_mode)
    return Chain((*pad, *convs, Activation("abs"), *oracle.for_all(total), *kernels.clipped(divisor)))


def _by_direction(oracle: Oracle, units: Array) -> tuple[list[Conv], int]:
    """The forms as 1 x 1 combinations of distinct directions, where several are multiples of one direction."""
    directions: list[Array] = []
    weights = np.zeros((len(units), len(units)))
    for unit, form in enumerate(units[:, :-1]):
        at = np.abs(form).argmax()
        same = (i for i, one in enumerate(directions) if np.abs(form / form[at] * one[at] - one).max() < 1e-6)
        index = next(same, len(directions))
        if index == len(directions):
            directions.append(form)
        weights[unit, index] = form[at] / directions[index][at]
    mixing = weights[:, : len(directions), None, None].astype(np.float32)
    convs, divisor = oracle.convolutions(np.pad(np.array(directions), ((0, 0), (0, 1))))
    mixed = kernels.with_bias([Conv(mixing)], divisor * units[:, -1])
    return [*convs, *oracle.for_all(mixed)], divisor
