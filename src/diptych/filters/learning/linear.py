"""The first rung: every output a fixed weighted sum of the input around it, by least squares.

With X the windows around many pixels (a column of ones added) and t what is wanted at their centres, the
taps are those that minimise |X w - t|^2: (X'X) w = X't, in float64. Where the target clips, only what it
did not clip is fitted, and the network clips too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from diptych.filters.learning import kernels, probing_queries, rounded
from diptych.filters.learning.task import Candidate, Task
from diptych.inference import predict
from diptych.model.layers import Array, Chain, Conv, Pad
from diptych.model.model import Model

__all__ = ["Form", "fit"]

METHOD = "linear"
EXACT = 4e-6  # of 0..1: a thousandth of a level, where the target is unrounded
WITHIN = (
    0.55 * probing_queries.LEVEL
)  # half a level, and what rounding leaves uncertain, where it gives whole levels
RADII = (0, 1, 2, 3, 5, 7)  # tried one after the other where the reach cannot be asked
ALWAYS = 3  # the radius up to which fitting takes no time: also tried where the time is up
MOST_COLUMNS = 2900  # what least squares solves in about a second
FEW = 20_000  # windows by which it is seen whether the taps of a form of whole levels are certain
LIKELY = 0.75  # levels: the mean error of what may well be a linear form
WORSE, FLOOR = 10**0.01, 1e-12  # 0.1 dB, and 120 dB: what may be lost where taps are factorised
LOOSEST = 0.1  # of the largest tap: beyond that nothing is known of its factors
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

    def errors(self, windows: Array, targets: Array) -> Array:
        """By how many levels it is off, before rounding."""
        result: Array = 255 * (np.clip(self(windows), 0, 1) - targets)
        return result

    def __call__(self, windows: Array) -> Array:
        """(n, C, k, k) windows, or larger ones, of which the middle counts -> (n, C') values."""
        extra = (windows.shape[-1] - self.taps.shape[-1]) // 2
        middle = windows[..., extra : windows.shape[-2] - extra, extra : windows.shape[-1] - extra]
        flat = middle.reshape(len(middle), -1).astype(np.float64)
        result: Array = flat @ self.taps.reshape(len(self.taps), -1).T + self.bias
        return result


def fit(task: Task) -> Candidate | None:
    """The linear filter itself where the target is one, else the linear filter nearest to it."""
    if task.answers:
        exact = _from_noise(task)
        if exact is not None and task.allows(exact.weights):
            return exact
    return _from_photographs(task)


def _from_noise(task: Task) -> Candidate | None:
    """From noise pictures, which tell all taps equally well; None where the target is not linear."""
    radius, sees = task.radius, task.dependence
    columns = max(1, int(sees.sum(axis=1).max()) * (2 * radius + 1) ** 2)
    if columns > MOST_COLUMNS:
        return None
    pairs = probing_queries.noise(task.target, task.seed)
    whole = probing_queries.in_whole_levels(pairs)
    count = max(3 * columns, min(60_000, 10**9 // columns**2)) if whole else 3 * columns
    form = fitted(*task.windows(radius, count + 1500, 1, pairs), sees, task.target.per_channel)
    if form is None:
        return None
    form = form.tidied()
    checks = [probing_queries.noise(task.target, task.seed + 1), task.held_out]
    likely = False
    if whole:
        errors = form.errors(*task.windows(radius, FEW, 6, pairs))
        # Rounding alone leaves 0.3 levels, and never more than a half; what is not linear leaves more.
        likely = bool(np.square(errors).mean() < LIKELY**2)
        if likely and np.abs(errors).max() > 0.5 and task.time_left > 0:
            form = Form(*rounded.refined(task, form.taps, form.bias))
    checked = [task.windows(radius, 1500, 2, check) for check in checks]
    if not all(holds(form, *check, whole) for check in checked):
        if not likely or task.time_left > 0:
            return None
        return _cheapest(task, (form,), *checked[-1], "a linear filter; more time would make it more exact")
    remark = "the filter itself, by least squares on noise pictures"
    return _cheapest(task, (form,), *checked[-1], remark)


def _cheapest(task: Task, forms: Sequence[Form], windows: Array, targets: Array, remark: str) -> Candidate:
    """The first form whose cheapest layers are at most 0.1 dB worse on the windows than the last form itself.

    Noisy samples leave taps uncertain, and what differs from them by no more may still be worse. Where no
    good one is within the budget of weights, the best that is.
    """
    most = WORSE * _error(forms[-1](windows), targets) + FLOOR
    tried = []
    for each in (*forms, replace(forms[-1], tolerance=0.0)):
        chain = kernels.layers(each.taps, each.bias, task.padding_mode, each.tolerance)
        candidate = Candidate(chain, METHOD, remark)
        error = _error(_computed(chain, windows), targets)
        if error <= most and task.allows(candidate.weights):
            return candidate
        tried.append((not task.allows(candidate.weights), error, candidate))
    return min(tried, key=lambda one: one[:2])[2]


def _error(values: Array, targets: Array) -> float:
    return float(np.mean((np.clip(values, 0, 1) - targets) ** 2))


def _computed(chain: Chain, windows: Array) -> Array:
    """(n, C') that layers give at the centres of windows (n, C, k, k), which need no padding."""
    valid = Chain(tuple(layer for layer in chain.layers if not isinstance(layer, Pad)))
    own = 1 + sum(layer.weight.shape[2] - 1 for layer in valid.layers if isinstance(layer, Conv))
    extra = (windows.shape[-1] - own) // 2
    middle = windows[..., extra : extra + own, extra : extra + own]
    model = Model(valid, input_shape=middle.shape[1:])
    return predict(model, np.ascontiguousarray(middle, np.float32), engine="numpy")[:, :, 0, 0]


def fitted(windows: Array, targets: Array, sees: Array, alike: bool = False) -> Form | None:
    """Least squares over what is not clipped, each output from the input channels that it `sees`.

    `alike`: every channel is treated as the first is. None where too little is left to fit.
    """
    outputs, (inputs, size) = targets.shape[1], windows.shape[1:3]
    taps, bias, tolerance = np.zeros((outputs, inputs, size, size)), np.zeros(outputs), 0.0
    for output in range(1 if alike else outputs):
        free = np.flatnonzero((targets[:, output] > CLIPPED) & (targets[:, output] < 1 - CLIPPED))
        chosen = np.flatnonzero(sees[output])
        if not len(chosen):  # a constant, which may well be black or white
            bias[output] = targets[0, output]
            continue
        x = windows[free][:, chosen].reshape(len(free), len(chosen) * size**2).astype(np.float64)
        if len(x) < 1.2 * x.shape[1] + 20:
            return None
        solution, bias[output], error = least_squares(x, targets[free, output].astype(np.float64))
        taps[output, chosen] = solution.reshape(len(chosen), size, size)
        # Never so much that the taps themselves are lost in it, as they are in the noise of a few pictures.
        tolerance = max(tolerance, min(6 * error, LOOSEST * float(np.abs(solution).max(initial=0))))
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


def holds(form: Form, windows: Array, targets: Array, whole: bool) -> bool:
    """Whether the form, clipped, gives what is wanted at every sample."""
    off = np.abs(np.clip(form(windows), 0, 1) - targets).max()
    return bool(off <= (WITHIN if whole else EXACT))


def _from_photographs(task: Task) -> Candidate | None:
    """The best there is without asking: ever larger windows, while the held-out error still falls."""
    best: Candidate | None = None
    lowest = np.inf
    for radius in RADII:
        if best is not None and task.time_left <= 0 and radius > ALWAYS:
            break
        columns = task.channels[0] * (2 * radius + 1) ** 2
        samples = task.windows(radius, 20 * columns + 4000, 3)
        windows, targets = task.windows(radius, 4000, 4, task.held_out)
        form = None
        for sees in [task.dependence] if task.answers else _guesses(task.channels):
            other = fitted(*samples, sees, task.target.per_channel)
            if other is not None and (
                form is None or _error(form(windows), targets) > WORSE * _error(other(windows), targets)
            ):
                form = other
        if form is None:
            break
        error = _error(form(windows), targets)
        forms = (form.tidied(), form)
        candidate = _cheapest(task, forms, windows, targets, "the nearest linear filter")
        if error > 0.97 * lowest or not task.allows(candidate.weights):
            break
        best, lowest = candidate, error
    return best


def _guesses(channels: tuple[int, int]) -> list[Array]:
    """Which input channels each output may depend on, where it cannot be asked: its own, then all."""
    every = np.ones(channels[::-1], bool)
    return [np.eye(channels[0], dtype=bool), every] if channels == (3, 3) else [every]
