"""Sums of kinks: y = S x + c + sum of s_i |D_i x + d_i|, with s_i 1 for a kink that bends up, -1 for down.

Such are |gx| + |gy|, sums of clamped absolute values, whatever adds up curves of linear forms. The two pieces
on both sides of a kink differ by a form that is zero along it: so the kinks are among the differences of all
pieces, and the absolute values of different differences are linearly independent functions. Least squares
over all of them gives the true kinks their weight and all others none.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from diptych.filters.learning import kernels
from diptych.filters.learning.oracle import Oracle, Piece, solved
from diptych.filters.learning.rounded import middle_of, polished
from diptych.model.layers import Activation, Array, Chain, Conv

__all__ = ["summed"]

MOST = 8  # kinks
CANDIDATES = 300
SLIGHT = 0.04  # of the strongest kink: less is none
COLUMNS = 700  # unknowns that are solved for at once
HALF = 0.5 / 255 + 1e-9  # what rounding takes away at most


@dataclass(frozen=True, eq=False)
class _Sum:
    """straight (K + 1,), bent (U, K + 1), signs (U,)."""

    straight: Array
    bent: Array
    signs: Array

    def __call__(self, x: Array) -> Array:
        result: Array = x @ self.straight + np.abs(x @ self.bent.T) @ self.signs
        return result


def summed(oracle: Oracle, pieces: list[Piece]) -> Chain | None:
    """The network of a sum of kinks; None where the target is none."""
    first = _chosen(oracle, _candidates(pieces))
    if first is None:
        return None
    found = _settled(oracle, _refined(oracle, first))
    if all(oracle.agrees(found(x), targets) for x, targets in oracle.checks):
        return _layers(oracle, found)
    return None


def _candidates(pieces: list[Piece]) -> Array:
    """Where pieces meet, as forms (n, K + 1) whose largest tap is 1; the same ones once."""
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
    return np.array([form for _, form in kept[:CANDIDATES]])


def _chosen(oracle: Oracle, candidates: Array) -> _Sum | None:
    """The candidates that least squares gives a weight."""
    if not len(candidates):
        return None
    x, targets = oracle.free
    x, targets = x[:4000], targets[:4000]
    found = solved(np.column_stack([x, np.abs(x @ candidates.T)]), targets)
    straight, weights = found[: x.shape[1]], found[x.shape[1] :]
    strong = np.abs(weights) > SLIGHT * np.abs(weights).max()
    if strong.sum() > MOST or strong.sum() * x.shape[1] > COLUMNS:
        return None
    bent = np.abs(weights[strong, None]) * candidates[strong]
    return _Sum(straight, bent, np.sign(weights[strong]))


def _refined(oracle: Oracle, found: _Sum) -> _Sum:
    """By least squares over all taps, the side of each kink taken from the estimate before."""
    x, targets = oracle.free
    before = None
    for _ in range(8):
        sides = np.sign(x @ found.bent.T)
        if before is not None and (sides == before).all():
            break
        before = sides
        bent = [side[:, None] * x for side in (sides * found.signs).T]
        solution = solved(np.column_stack([x, *bent]), targets).reshape(len(found.bent) + 1, -1)
        found = _Sum(solution[0], solution[1:], found.signs)
    return found


def _polished(oracle: Oracle, found: _Sum) -> _Sum:
    """Moved until hardly an answer is more than half a level off, by Newton's method as in `rounded`."""
    x, targets = oracle.free
    sides = np.sign(x @ found.bent.T) * found.signs
    x = np.column_stack([x, *(side[:, None] * x for side in sides.T)])
    solution = np.concatenate([found.straight, *found.bent])
    known = solution != 0  # taps that are nothing but rounding have been left out
    solution[known] = polished(x[:, known], targets, solution[known])
    straight, *bent = solution.reshape(len(found.bent) + 1, -1)
    return _Sum(straight, np.array(bent), found.signs)


def _settled(oracle: Oracle, found: _Sum) -> _Sum:
    """With fractions for taps where they can be."""
    if not oracle.whole:
        return _tidied(oracle, found, oracle.tolerances[0])
    x, targets = oracle.free
    for tolerance in oracle.tolerances:
        tidied = _tidied(oracle, found, tolerance)
        if np.abs(targets - tidied(x)).max() <= HALF:
            return tidied
        found = _polished(oracle, tidied)
    return found


def _tidied(oracle: Oracle, found: _Sum, tolerance: float) -> _Sum:
    """With fractions for taps, and the constants that go with them."""
    straight = oracle.tidied(found.straight, tolerance)
    bent = np.array([oracle.tidied(form, tolerance) for form in found.bent])
    x, targets = oracle.free
    sides = np.sign(x @ bent.T) * found.signs
    taps = np.concatenate([straight[None, :-1], bent[:, :-1]])
    values = x[:, :-1] @ taps.T
    left = targets - values[:, 0] - (sides * values[:, 1:]).sum(axis=1)
    constants = solved(np.column_stack([sides, np.ones(len(x))]), left)[:-1]
    # Kinks lie at whole levels of the form whose largest tap is 1, or half ones: hardly anybody puts them elsewhere.
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
    """Conv, abs, and a 1 x 1 Conv that adds up; what is straight is a unit too, raised so that it is positive."""
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
    """Units that see the same linear form, multiplied and shifted, see it computed once."""
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
