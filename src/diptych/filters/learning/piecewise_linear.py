"""Filters that are linear in pieces: |gx| + |gy|, max(|gx|, |gy|), max(R, G, B), whatever has few pieces.

Around almost every window such a filter is a linear form, which can be measured by changing the pixels a
little. A few dozen windows show all the forms there are. With these pieces known, two shapes are tried, and
kept where they give what is wanted on other windows: a sum of kinks (see `kinks`), and the largest, or the
smallest, of all pieces.
"""

from __future__ import annotations

import numpy as np

from diptych.filters.learning import breakpoints, kernels
from diptych.filters.learning.oracle import FARTHEST, Asked, Piece, solved
from diptych.filters.learning.rounded import middle_of
from diptych.filters.learning.task import Candidate, Problem
from diptych.model.layers import Activation, Array, Chain, Connection, Layer, Parallel

__all__ = ["fit"]

RUNG = "piecewise_linear"


def fit(problem: Problem) -> Candidate | None:
    """The network of a filter that is linear in few pieces; None for all others."""
    alike = problem.target.per_channel
    if not problem.answers or problem.reach > FARTHEST or (problem.channels[1] != 1 and not alike):
        return None
    asked = Asked(problem, 1 if alike else problem.channels[0])
    pieces = asked.pieces()
    if len(pieces) < 2:
        return None
    for made, name in (
        (breakpoints.summed, "a sum of kinks"),
        (_extreme, "the largest or smallest of linear forms"),
    ):
        layers = made(asked, pieces)
        if layers is not None:
            return Candidate(layers, RUNG, f"{name}, {len(pieces)} linear pieces")
    return None


def _extreme(asked: Asked, pieces: list[Piece]) -> Chain | None:
    """The network of the largest, or the smallest, of all pieces."""
    for sign in (1.0, -1.0):
        forms = _fitted(asked, sign * np.array([piece.form for piece in pieces]), sign)
        if all(asked.agrees(sign * (x @ forms.T).max(axis=1), wanted) for x, wanted in asked.checks):
            branches, divisor = asked.branches(forms)
            largest: list[Layer] = [Parallel(Connection("maximum"), branches)]
            if sign < 0:
                largest.append(Activation("affine", (-1.0, 0.0)))
            pad = kernels.padded(asked.radius, asked.problem.edge)
            return Chain((*pad, *largest, *kernels.clipped(divisor)))
    return None


def _fitted(asked: Asked, forms: Array, sign: float) -> Array:
    """Each form by least squares over the windows where it is the largest."""
    x, wanted = asked.free
    largest = (x @ forms.T).argmax(axis=1)
    fitted = forms.copy()
    for index in range(len(forms)):
        mine = largest == index
        if mine.sum() > 1.2 * x.shape[1]:
            fitted[index] = solved(x[mine], sign * wanted[mine])
        fitted[index] = asked.tidied(fitted[index], asked.tolerances[0])
        if mine.any():
            left = sign * wanted[mine] - x[mine, :-1] @ fitted[index, :-1]
            fitted[index, -1] = middle_of(0 * left, 255 * left) / 255 if asked.whole else left.mean()
        if abs(fitted[index, -1]) < 1e-7:
            fitted[index, -1] = 0
    return fitted
