"""Linear filters: each output is a fixed weighted sum of the inputs around it, found by least squares.

Let X hold the windows around many pixels, one a row, with a column of ones, and t the targets at their
centres. The taps w minimise |X w - t|^2 and solve the normal equations X'X w = X't, in float64. Where the
target is clipped at 0 or 1 it is left out of the fit, and the network clips as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from diptych.filters.learning import kernels, probing_queries, rounded, separable
from diptych.filters.learning.solving import CLIPPED, least_squares
from diptych.filters.learning.task import Candidate, Task
from diptych.model.layers import Array, Chain, Conv, Pad
from diptych.model.model import Model
from diptych.predicting import predict

__all__ = ["Form", "fit"]

METHOD = "linear"
# The largest errors, in 0..1, of an exact form: a thousandth of a level for unrounded targets; half a level and a
# margin for targets in whole levels.
EXACT, WITHIN = 4e-6, 0.55 * probing_queries.LEVEL
RADII = (0, 1, 2, 3, 5, 7)  # tried in this order where the radius cannot be probed
MAX_CHEAP_RADIUS = 3  # tried even when the time is up, because fitting takes no time
MAX_COLUMNS = 2900  # unknowns, solved in about a second
FEW_WINDOWS = 20_000  # on which rounding errors are examined
LIKELY_RMS = 0.75  # levels; a form with a smaller RMS error is probably linear
# What simplified taps may add to the squared error: 0.1 dB, or an error of 120 dB.
ALLOWED_LOSS, FLOOR = 10**0.01, 1e-12
MAX_TOLERANCE = 0.1  # of the largest tap; the tolerance is never larger


@dataclass(frozen=True, eq=False)
class Form:
    """One linear form for each output channel.

    Attributes:
        taps: Float64 (C', C, k, k).
        bias: (C',).
        tolerance: The uncertainty of the taps.
    """

    taps: Array
    bias: Array
    tolerance: float = 0.0

    def tidied(self) -> Form:
        """The form with tiny taps set to zero, and with exact fractions where all taps are close to them."""
        taps = kernels.snapped(kernels.trimmed(self.taps, self.tolerance), self.tolerance)
        slack = 510 * self.tolerance  # levels; the errors of all taps add up in the bias
        bias = kernels.snapped(np.where(np.abs(255 * self.bias) < slack, 0, 255 * self.bias), slack)
        return Form(taps, bias / 255, self.tolerance)

    def errors(self, windows: Array, targets: Array) -> Array:
        """The errors in levels on windows and targets, clipped but not rounded."""
        result: Array = 255 * (np.clip(self(windows), 0, 1) - targets)
        return result

    def __call__(self, windows: Array) -> Array:
        """Values (n, C') at the centres of windows (n, C, k, k); larger windows are cropped."""
        extra = (windows.shape[-1] - self.taps.shape[-1]) // 2
        middle = windows[..., extra : windows.shape[-2] - extra, extra : windows.shape[-1] - extra]
        flat = middle.reshape(len(middle), -1).astype(np.float64)
        result: Array = flat @ self.taps.reshape(len(self.taps), -1).T + self.bias
        return result


def fit(task: Task) -> Candidate | None:
    """The filter itself where it is linear, otherwise the linear filter closest to it."""
    wide = separable.found(task)
    if wide is not None and task.allows(wide.weights):
        return wide
    if task.answers:
        exact = _from_noise(task)
        if exact is not None and task.allows(exact.weights):
            return exact
    return _from_photographs(task)


def _from_noise(task: Task) -> Candidate | None:
    """The exact form, from noise pictures, which determine all taps equally well; None if not linear."""
    radius, sees = task.radius, task.dependence
    columns = max(1, int(sees.sum(axis=1).max()) * (2 * radius + 1) ** 2)
    if columns > MAX_COLUMNS:
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
        errors = form.errors(*task.windows(radius, FEW_WINDOWS, 6, pairs))
        # Rounding alone gives an RMS error of 0.29 levels and at most half a level; nonlinearity gives more.
        likely = bool(np.square(errors).mean() < LIKELY_RMS**2)
        if likely and np.abs(errors).max() > 0.5 and task.time_left > 0:
            form = Form(*rounded.refined(task, form.taps, form.bias))
    checked = [task.windows(radius, 1500, 2, check) for check in checks]
    if not all(holds(form, *check, whole) for check in checked):
        if not likely or task.time_left > 0:
            return None
        return _cheapest(
            task, (form,), *checked[-1], "a linear filter; more time would make its taps more accurate"
        )
    remark = "the filter itself, by least squares on noise pictures"
    return _cheapest(task, (form,), *checked[-1], remark)


def _cheapest(task: Task, forms: Sequence[Form], windows: Array, targets: Array, remark: str) -> Candidate:
    """The candidate with the fewest weights that loses at most 0.1 dB against the last form.

    Noise in the samples leaves taps uncertain, so simplified taps within that uncertainty may still be worse.
    Where no candidate is both accurate and within the limit on weights, the most accurate allowed one is taken.
    """
    most = ALLOWED_LOSS * _error(forms[-1](windows), targets) + FLOOR
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
    """What the layers compute at the centres of windows (n, C, k, k), without padding: (n, C')."""
    valid = Chain(tuple(layer for layer in chain.layers if not isinstance(layer, Pad)))
    own = 1 + sum(layer.weight.shape[2] - 1 for layer in valid.layers if isinstance(layer, Conv))
    extra = (windows.shape[-1] - own) // 2
    middle = windows[..., extra : extra + own, extra : extra + own]
    model = Model(valid, input_shape=middle.shape[1:])
    return predict(model, np.ascontiguousarray(middle, np.float32), engine="numpy")[:, :, 0, 0]


def fitted(windows: Array, targets: Array, sees: Array, alike: bool = False) -> Form | None:
    """Least squares over the targets that are not clipped.

    Args:
        windows: (n, C, k, k).
        targets: (n, C').
        sees: Which input channels each output depends on, bool (C', C).
        alike: All channels are treated as the first one, which alone is fitted.

    Returns:
        The form with its tolerance; None where too few windows are left.
    """
    outputs, (inputs, size) = targets.shape[1], windows.shape[1:3]
    taps, bias, tolerance = np.zeros((outputs, inputs, size, size)), np.zeros(outputs), 0.0
    for output in range(1 if alike else outputs):
        free = np.flatnonzero((targets[:, output] > CLIPPED) & (targets[:, output] < 1 - CLIPPED))
        chosen = np.flatnonzero(sees[output])
        if not len(chosen):  # a constant output, which may be black or white
            bias[output] = targets[0, output]
            continue
        x = windows[free][:, chosen].reshape(len(free), len(chosen) * size**2).astype(np.float64)
        if len(x) < 1.2 * x.shape[1] + 20:
            return None
        solution, bias[output], error = least_squares(x, targets[free, output].astype(np.float64))
        taps[output, chosen] = solution.reshape(len(chosen), size, size)
        # With few noisy pictures the error may exceed the taps, which must not all be rounded away.
        tolerance = max(tolerance, min(6 * error, MAX_TOLERANCE * float(np.abs(solution).max(initial=0))))
    if alike:
        for output in range(1, outputs):
            taps[output, output], bias[output] = taps[0, 0], bias[0]
    return Form(taps, bias, tolerance)


def holds(form: Form, windows: Array, targets: Array, whole: bool) -> bool:
    """Whether the clipped form gives every target within rounding."""
    off = np.abs(np.clip(form(windows), 0, 1) - targets).max()
    return bool(off <= (WITHIN if whole else EXACT))


def _from_photographs(task: Task) -> Candidate | None:
    """The best fit on ordinary pictures, with windows that grow while the held-out error falls."""
    best: Candidate | None = None
    lowest = np.inf
    for radius in RADII:
        if best is not None and task.time_left <= 0 and radius > MAX_CHEAP_RADIUS:
            break
        columns = task.channels[0] * (2 * radius + 1) ** 2
        samples = task.windows(radius, 20 * columns + 4000, 3)
        windows, targets = task.windows(radius, 4000, 4, task.held_out)
        form = None
        for sees in [task.dependence] if task.answers else _guesses(task.channels):
            other = fitted(*samples, sees, task.target.per_channel)
            if other is not None and (
                form is None
                or _error(form(windows), targets) > ALLOWED_LOSS * _error(other(windows), targets)
            ):
                form = other
        if form is None:
            break
        error = _error(form(windows), targets)
        forms = (form.tidied(), form)
        candidate = _cheapest(task, forms, windows, targets, "the closest linear filter")
        if error > 0.97 * lowest or not task.allows(candidate.weights):
            break
        best, lowest = candidate, error
    return best


def _guesses(channels: tuple[int, int]) -> list[Array]:
    """Which input channels each output may depend on, where it cannot be probed: its own, then all."""
    every = np.ones(channels[::-1], bool)
    return [np.eye(channels[0], dtype=bool), every] if channels == (3, 3) else [every]
