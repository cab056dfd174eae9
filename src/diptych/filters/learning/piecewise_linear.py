"""Piecewise linear filters with few pieces, such as |gx| + |gy|, max(|gx|, |gy|) and max(R, G, B).

Around almost every window such a filter is a linear form, which is measured by small changes of the pixels. A
few dozen windows show all pieces. Two kinds of network are then tried, and verified on other windows: a sum of
absolute values (see `breakpoints`), and the maximum or minimum of all pieces.
"""

from __future__ import annotations

import numpy as np

from diptych.filters.learning import breakpoints, kernels
from diptych.filters.learning.oracle import MAX_RADIUS, LinearPiece, Oracle, least_squares
from diptych.filters.learning.rounded import middle_of
from diptych.filters.learning.task import Candidate, Task
from diptych.model.layers import Activation, Array, Chain, Connection, Layer, Parallel

__all__ = ["fit"]

METHOD = "piecewise_linear"


def fit(task: Task) -> Candidate | None:
    """The network of a piecewise linear filter with few pieces; None for other filters."""
    alike = task.target.per_channel
    if not task.answers or task.radius > MAX_RADIUS or (task.channels[1] != 1 and not alike):
        return None
    oracle = Oracle(task, 1 if alike else task.channels[0])
    pieces = oracle.pieces()
    if len(pieces) < 2:
        return None
    for made, name in (
        (breakpoints.summed, "a sum of absolute values"),
        (_extreme, "the maximum or minimum of linear forms"),
    ):
        layers = made(oracle, pieces)
        if layers is not None:
            return Candidate(layers, METHOD, f"{name}, {len(pieces)} linear pieces")
    return None


def _extreme(oracle: Oracle, pieces: list[LinearPiece]) -> Chain | None:
    """The network of the maximum or minimum of all pieces; None where neither fits."""
    for sign in (1.0, -1.0):
        forms = _fitted(oracle, sign * np.array([piece.form for piece in pieces]), sign)
        if all(oracle.agrees(sign * (x @ forms.T).max(axis=1), targets) for x, targets in oracle.checks):
            branches, divisor = oracle.branches(forms)
            largest: list[Layer] = [Parallel(Connection("maximum"), branches)]
            if sign < 0:
                largest.append(Activation("affine", (-1.0, 0.0)))
            pad = kernels.padded(oracle.radius, oracle.task.padding_mode)
            return Chain((*pad, *largest, *kernels.clipped(divisor)))
    return None


def _fitted(oracle: Oracle, forms: Array, sign: float) -> Array:
    """Each form fitted by least squares to the windows where it is the largest."""
    x, targets = oracle.free
    largest = (x @ forms.T).argmax(axis=1)
    fitted = forms.copy()
    for index in range(len(forms)):
        mine = largest == index
        if mine.sum() > 1.2 * x.shape[1]:
            fitted[index] = least_squares(x[mine], sign * targets[mine])
        fitted[index] = oracle.tidied(fitted[index], oracle.tolerances[0])
        if mine.any():
            left = sign * targets[mine] - x[mine, :-1] @ fitted[index, :-1]
            fitted[index, -1] = middle_of(0 * left, 255 * left) / 255 if oracle.whole else left.mean()
        if abs(fitted[index, -1]) < 1e-7:
            fitted[index, -1] = 0
    return fitted
