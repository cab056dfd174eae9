"""The first rung: every output a fixed weighted sum of the input around it, by least squares.

With X the windows around many pixels (a column of ones added) and t what is wanted at their centres, the
taps are those that minimise |X w - t|^2: (X'X) w = X't, in float64. Where the target clips, only what it
did not clip is fitted, and the network clips too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diptych.filters.learning import asking, kernels
from diptych.filters.learning.pairs import Pair
from diptych.filters.learning.problem import Candidate, Problem
from diptych.model.layers import Array

__all__ = ["Form", "fit"]

RUNG = "linear"
EXACT = 4e-6  # of 0..1: a thousandth of a level, where the target is unrounded
WITHIN = 0.505 * asking.LEVEL  # half a level and a little, where the target gives whole levels
RADII = (0, 1, 2, 3, 5, 7)  # tried one after the other where the reach cannot be asked
MOST_COLUMNS = 2900  # what least squares solves in about a second


@dataclass(frozen=True, eq=False)
class Form:
    """A linear form for each output channel: `taps` float64 (C', C, k, k), `bias` (C',)."""

    taps: Array
    bias: Array

    def __call__(self, windows: Array) -> Array:
        """(n, C, k, k) windows, or larger ones, of which the middle counts -> (n, C') values."""
        extra = (windows.shape[-1] - self.taps.shape[-1]) // 2
        middle = windows[..., extra : windows.shape[-2] - extra, extra : windows.shape[-1] - extra]
        flat = middle.reshape(len(middle), -1).astype(np.float64)
        result: Array = flat @ self.taps.reshape(len(self.taps), -1).T + self.bias
        return result


def fit(problem: Problem) -> Candidate | None:
    """The linear filter itself where the target is one, else the linear filter nearest to it."""
    if problem.answers:
        exact = _asked(problem)
        if exact is not None:
            return exact
    return _from_photographs(problem)


def _candidate(problem: Problem, form: Form, remark: str) -> Candidate:
    clamp = kernels.clips(form.taps, form.bias)
    return Candidate(kernels.layers(form.taps, form.bias, problem.edge, clamp), RUNG, remark)


def _asked(problem: Problem) -> Candidate | None:
    """From noise pictures, which tell all taps equally well; None where the target is not linear."""
    radius, sees = problem.reach, problem.dependence
    columns = int(sees.sum(axis=1).max()) * (2 * radius + 1) ** 2
    if columns > MOST_COLUMNS:
        return None
    pairs = asking.noise(problem.target, problem.seed)
    whole = asking.in_whole_levels(pairs)
    windows, wanted = problem.windows(radius, (5 if whole else 3) * columns + 1500, 1, pairs)
    form = fitted(windows, wanted, sees)
    if form is None:
        return None
    form = tidy(form, wanted.shape[0], whole)
    checks = [asking.noise(problem.target, problem.seed + 1), problem.held_out]
    if not all(holds(form, *problem.windows(radius, 1500, 2, check), whole) for check in checks):
        return None
    return _candidate(problem, form, "the filter itself, by least squares on noise pictures")


def fitted(windows: Array, wanted: Array, sees: Array) -> Form | None:
    """Least squares over what is not clipped, each output from the input channels that it `sees`."""
    inputs, size = windows.shape[1], windows.shape[-1]
    taps = np.zeros((wanted.shape[1], inputs, size, size))
    bias = np.zeros(wanted.shape[1])
    for output in range(wanted.shape[1]):
        free = (wanted[:, output] > CLIPPED) & (wanted[:, output] < 1 - CLIPPED)
        chosen = np.flatnonzero(sees[output])
        x = windows[free][:, chosen].reshape(int(free.sum()), -1).astype(np.float64)
        if len(x) < 1.2 * x.shape[1] + 20:
            return None
        solution, bias[output] = least_squares(x, wanted[free, output].astype(np.float64))
        taps[output, chosen] = solution.reshape(len(chosen), size, size)
    return Form(taps, bias)


CLIPPED = 1e-6


def least_squares(x: Array, t: Array) -> tuple[Array, float]:
    """w and b that minimise |x w + b - t|^2, from centred columns; as little of w as the data leave open."""
    middle, level = x.mean(axis=0), float(t.mean())
    x, t = x - middle, t - level
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += 1e-12 * max(float(np.trace(gram)) / max(len(gram), 1), 1e-12)
    try:
        w: Array = np.linalg.solve(gram, x.T @ t)
        w += np.linalg.solve(gram, x.T @ (t - x @ w))  # one refinement: the normal equations lose digits
    except np.linalg.LinAlgError:
        w = np.linalg.lstsq(x, t, rcond=None)[0]
    return w, level - float(middle @ w)


def tidy(form: Form, samples: int, whole: bool) -> Form:
    """Taps that are nothing but rounding become zero, and fractions that people write become exact."""
    # Rounding to levels leaves each tap an error of about LEVEL / sqrt(12 n) / (deviation of noise, 0.2).
    error = asking.LEVEL / np.sqrt(12 * samples) / 0.2 if whole else 1e-7
    taps = kernels.trimmed(form.taps, noise=5 * error / np.abs(form.taps).max(initial=1e-9))
    taps = kernels.snapped(taps, 5 * error)
    bias = np.where(np.abs(form.bias) < 20 * error, 0, form.bias)
    return Form(taps, kernels.snapped(bias * 255, 20 * error * 255) / 255)


def holds(form: Form, windows: Array, wanted: Array, whole: bool) -> bool:
    """Whether the form, clipped, gives what is wanted at every sample."""
    given = np.clip(form(windows), 0, 1)
    off = np.abs(given - wanted)
    return bool(off.max() <= WITHIN) if whole else bool(off.max() <= EXACT)


def _from_photographs(problem: Problem) -> Candidate | None:
    """The best there is without asking: ever larger windows, while the held-out error still falls."""
    best: Form | None = None
    lowest = np.inf
    sees = np.ones(problem.channels[::-1], bool)
    for radius in RADII:
        columns = problem.channels[0] * (2 * radius + 1) ** 2
        form = fitted(*problem.windows(radius, 20 * columns + 4000, 3), sees)
        if form is None:
            break
        windows, wanted = problem.windows(radius, 4000, 4, problem.held_out)
        error = float(np.mean((np.clip(form(windows), 0, 1) - wanted) ** 2))
        if error > 0.97 * lowest:
            break
        best, lowest = form, error
    return None if best is None else _candidate(problem, best, "the nearest linear filter")


def residual(form: Form, pairs: Sequence[Pair], problem: Problem, radius: int) -> float:
    """The largest error at random pixels of `pairs`."""
    windows, wanted = problem.windows(radius, 2000, 5, pairs)
    return float(np.abs(np.clip(form(windows), 0, 1) - wanted).max())
