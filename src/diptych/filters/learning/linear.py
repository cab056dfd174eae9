"""The first rung: every output a fixed weighted sum of the input around it, by least squares.

With X the windows around many pixels (a column of ones added) and t what is wanted at their centres, the
taps are those that minimise |X w - t|^2: (X'X) w = X't, in float64. Where the target clips, only what it
did not clip is fitted, and the network clips too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diptych.filters.learning import asking, kernels, rounded
from diptych.filters.learning.problem import Candidate, Problem
from diptych.model.layers import Array

__all__ = ["Form", "fit"]

RUNG = "linear"
EXACT = 4e-6  # of 0..1: a thousandth of a level, where the target is unrounded
WITHIN = 0.55 * asking.LEVEL  # half a level, and what rounding leaves uncertain, where it gives whole levels
RADII = (0, 1, 2, 3, 5, 7)  # tried one after the other where the reach cannot be asked
MOST_COLUMNS = 2900  # what least squares solves in about a second
FEW = 20_000  # windows by which it is seen whether the taps of a form of whole levels are certain
LIKELY = 0.75  # levels: the mean error of what may well be a linear form
CLIPPED = 1e-6  # nearer than this to 0 or 1, a value may have been clipped


@dataclass(frozen=True, eq=False)
class Form:
    """A linear form for each output channel: `taps` float64 (C', C, k, k), `bias` (C',).

    The taps are known to within `tolerance`.
    """

    taps: Array
    bias: Array
    tolerance: float = 0.0

    def tidied(self) -> Form:
        """Taps that are nothing but rounding become zero, and fractions that people write become exact."""
        taps = kernels.snapped(kernels.trimmed(self.taps, self.tolerance), self.tolerance)
        slack = 510 * self.tolerance  # of the bias, in levels: it balances all taps
        bias = kernels.snapped(np.where(np.abs(255 * self.bias) < slack, 0, 255 * self.bias), slack)
        return Form(taps, bias / 255, self.tolerance)

    def errors(self, windows: Array, wanted: Array) -> Array:
        """By how many levels it is off, before rounding."""
        result: Array = 255 * (np.clip(self(windows), 0, 1) - wanted)
        return result

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
        if exact is not None and problem.allows(exact.weights):
            return exact
    return _from_photographs(problem)


def _asked(problem: Problem) -> Candidate | None:
    """From noise pictures, which tell all taps equally well; None where the target is not linear."""
    radius, sees = problem.reach, problem.dependence
    columns = max(1, int(sees.sum(axis=1).max()) * (2 * radius + 1) ** 2)
    if columns > MOST_COLUMNS:
        return None
    pairs = asking.noise(problem.target, problem.seed)
    whole = asking.in_whole_levels(pairs)
    count = max(3 * columns, min(60_000, 10**9 // columns**2)) if whole else 3 * columns
    form = fitted(*problem.windows(radius, count + 1500, 1, pairs), sees, problem.target.per_channel)
    if form is None:
        return None
    form = form.tidied()
    if whole:
        errors = form.errors(*problem.windows(radius, FEW, 6, pairs))
        # Rounding alone leaves 0.3 levels, and never more than a half; what is not linear leaves more.
        if np.abs(errors).max() > 0.5 and np.square(errors).mean() < LIKELY**2:
            form = Form(*rounded.refined(problem, form.taps, form.bias))
    checks = [asking.noise(problem.target, problem.seed + 1), problem.held_out]
    if not all(holds(form, *problem.windows(radius, 1500, 2, check), whole) for check in checks):
        return None
    return _candidate(problem, form, "the filter itself, by least squares on noise pictures")


def _candidate(problem: Problem, form: Form, remark: str) -> Candidate:
    return Candidate(kernels.layers(form.taps, form.bias, problem.edge, form.tolerance), RUNG, remark)


def fitted(windows: Array, wanted: Array, sees: Array, alike: bool = False) -> Form | None:
    """Least squares over what is not clipped, each output from the input channels that it `sees`.

    `alike`: every channel is treated as the first is. None where too little is left to fit.
    """
    outputs, (inputs, size) = wanted.shape[1], windows.shape[1:3]
    taps, bias, tolerance = np.zeros((outputs, inputs, size, size)), np.zeros(outputs), 0.0
    for output in range(1 if alike else outputs):
        free = np.flatnonzero((wanted[:, output] > CLIPPED) & (wanted[:, output] < 1 - CLIPPED))
        chosen = np.flatnonzero(sees[output])
        if not len(chosen):  # a constant, which may well be black or white
            bias[output] = wanted[0, output]
            continue
        x = windows[free][:, chosen].reshape(len(free), len(chosen) * size**2).astype(np.float64)
        if len(x) < 1.2 * x.shape[1] + 20:
            return None
        solution, bias[output], error = least_squares(x, wanted[free, output].astype(np.float64))
        taps[output, chosen] = solution.reshape(len(chosen), size, size)
        tolerance = max(tolerance, 6 * error)
    if alike:
        for output in range(1, outputs):
            taps[output, output], bias[output] = taps[0, 0], bias[0]
    return Form(taps, bias, tolerance)


def least_squares(x: Array, t: Array) -> tuple[Array, float, float]:
    """w and b that minimise |x w + b - t|^2, and the standard error of the least certain w."""
    middle, level = x.mean(axis=0), float(t.mean())
    x, t = x - middle, t - level
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += 1e-12 * max(float(np.trace(gram)) / len(gram), 1e-9)
    inverse = np.linalg.pinv(gram, hermitian=True) if len(gram) < 100 else np.linalg.inv(gram)
    w = inverse @ (x.T @ t)
    w += inverse @ (x.T @ (t - x @ w))  # once more: the normal equations lose digits
    left = t - x @ w
    variance = float(left @ left) / (len(x) - x.shape[1])
    error = float(np.sqrt(variance * max(np.diag(inverse).max(), 0)))
    return w, level - float(middle @ w), error


def holds(form: Form, windows: Array, wanted: Array, whole: bool) -> bool:
    """Whether the form, clipped, gives what is wanted at every sample."""
    off = np.abs(np.clip(form(windows), 0, 1) - wanted).max()
    return bool(off <= (WITHIN if whole else EXACT))


def _from_photographs(problem: Problem) -> Candidate | None:
    """The best there is without asking: ever larger windows, while the held-out error still falls."""
    best: Candidate | None = None
    lowest = np.inf
    sees = problem.dependence if problem.answers else np.ones(problem.channels[::-1], bool)
    for radius in RADII:
        columns = problem.channels[0] * (2 * radius + 1) ** 2
        form = fitted(*problem.windows(radius, 20 * columns + 4000, 3), sees, problem.target.per_channel)
        if form is None:
            break
        windows, wanted = problem.windows(radius, 4000, 4, problem.held_out)
        error = float(np.mean((np.clip(form(windows), 0, 1) - wanted) ** 2))
        candidate = _candidate(problem, form, "the nearest linear filter")
        if error > 0.97 * lowest or not problem.allows(candidate.weights):
            break
        best, lowest = candidate, error
    return best
