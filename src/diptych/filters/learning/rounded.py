"""Linear filters that round to whole levels: their exact taps, from a million results.

Let y = round(w x + b) be the result for a window x. The residual y - w x - b is a rounding error, uniform
within half a level, with a standard deviation of 1 / sqrt(12) = 0.29 levels. Least squares over M pixels of
noise of amplitude a therefore leaves each tap uncertain by about 0.29 / (a sqrt(M)), a few millionths here.
The normal equations (X'X) dw = X'r need the autocorrelation of the noise and its cross-correlation with the
residuals r; both are computed by FFT (Wiener-Khinchin theorem).

Programs often compute with fractions of one denominator, mostly a power of two. Such taps can be verified:
for the right taps there is an interval of biases for which every single result is rounded correctly. Its
middle also tells how the filter rounds ties.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diptych.filters.learning import kernels
from diptych.filters.learning.pairs import Pair
from diptych.filters.learning.task import Task
from diptych.model.layers import Array

__all__ = ["middle_of", "polished", "refined"]

SIDE, BLOCK = 1024, 64  # pixels; the noise picture, and its blocks of one brightness
STEPS = 4  # of least squares; the last one changes nothing any more
DENOMINATORS = np.unique([*range(1, 257), 273, 1000, *(2**k for k in range(9, 17))])
MIN_AMPLITUDE = 48  # levels; with less contrast too few different fractions are rounded
ROUNDING_STD = 12**-0.5  # levels; the standard deviation of rounding errors
MAX_WINDOWS = 20_000  # used for one Newton step
NEWTON_STEPS = 6
# The objective grows like the cube of the distance from its minimum, because the number of results that are
# off grows with it. There Newton's step covers half of the distance, and is lengthened by this factor.
OVER_RELAXATION = 1.6
FEW_WINDOWS = 4000  # on which a denominator is tried before all results are


def refined(task: Task, taps: Array, bias: Array) -> tuple[Array, Array, float]:
    """Refines a linear filter whose results are whole levels.

    Args:
        task: Its target is probed with noise.
        taps: First estimates, float64 (C', C, k, k).
        bias: First estimates, (C',), in 0..1.

    Returns:
        The taps, the bias, and the uncertainty of the taps: 0 where exact fractions were found.
    """
    noise = _Noise(task, taps, bias)
    for _ in range(STEPS):
        taps, bias = noise.corrected(taps, bias)
    tolerance = 6 * noise.uncertainty
    taps = kernels.trimmed(taps, tolerance)
    exact = noise.fractions(taps, tolerance)
    if exact is not None:
        return *exact, 0.0
    return *noise.polished(taps, bias), noise.uncertainty / 4


class _Noise:
    """A target's results for noise, with a contrast for which few results are clipped."""

    def __init__(self, task: Task, taps: Array, bias: Array) -> None:
        self.task = task
        self.alike = task.target.per_channel
        middle, amplitude = _contrast(taps, bias)
        random = np.random.default_rng([task.seed, 6])
        shape = (SIDE, SIDE, 3)[: 3 if task.channels[0] == 3 else 2]
        # Pixels are either dark or bright, which determines the taps best, but of many levels, so that many
        # different fractions are rounded. The share of bright pixels varies between blocks; otherwise the sum of
        # all taps would be poorly determined.
        blocks = random.uniform(0.1, 0.9, (SIDE // BLOCK, SIDE // BLOCK, *shape[2:]))
        shares = blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)
        signs = np.where(random.random(shape, dtype=np.float32) < shares, 1, -1)
        sizes = random.integers((amplitude + 1) // 2, amplitude + 1, shape, dtype=np.int16)
        pair = Pair.of(task.target, (middle + signs * sizes).astype(np.uint8))
        self.inputs = 255.0 * pair.inputs - middle
        self.levels = np.rint(255.0 * pair.target)
        self.middle = middle
        self.spectra = np.fft.rfft2(self.inputs)
        self.inverse = np.linalg.inv(self._autocorrelation(taps.shape[-1]))
        self.free = (self.levels > 0) & (self.levels < 255)
        border = task.radius
        for side in (slice(0, border), slice(SIDE - border, SIDE)):
            self.free[:, side] = False
            self.free[:, :, side] = False

    @property
    def uncertainty(self) -> float:
        """The standard error of a tap: sqrt(max diag((X'X)^-1)) times that of rounding."""
        count = self.free.sum() if self.alike else self.free.sum(axis=(1, 2)).min()
        return float(ROUNDING_STD * np.sqrt(np.diag(self.inverse).max() / max(count, 1)))

    def _autocorrelation(self, size: int) -> Array:
        """X'X / M for one channel, (k k, k k).

        Its entry for two taps depends only on their distance, so it is read from the circular autocorrelation of
        the noise.
        """
        by_shift = np.fft.irfft2(np.square(np.abs(self.spectra)).mean(axis=0), (SIDE, SIDE)) / SIDE**2
        rows, columns = (at.ravel() for at in np.mgrid[:size, :size])
        squares: Array = by_shift[rows[:, None] - rows, columns[:, None] - columns]
        return squares

    def corrected(self, taps: Array, bias: Array) -> tuple[Array, Array]:
        """Taps and bias (in 0..1) after one step of least squares on the residuals.

        The step is dw = (X'X)^-1 X'r, with X'r as a circular cross-correlation.
        """
        left = np.where(self.free, self.levels - self._computed(taps, bias), 0)
        counts = np.maximum(self.free.sum(axis=(1, 2)), 1)
        spectra = np.fft.rfft2(left)
        size, moves, seen = taps.shape[-1], np.zeros_like(taps), np.abs(taps).sum(axis=(2, 3)) > 0
        for output, channel in np.argwhere(seen):
            by_shift = np.fft.irfft2(np.conj(spectra[output]) * self.spectra[channel], (SIDE, SIDE))
            move = self.inverse @ _shifts(by_shift, size).ravel() / counts[output]
            moves[output, channel] = move.reshape(size, size)
        shifts = left.sum(axis=(1, 2)) / counts
        if self.alike:
            own = range(len(taps))
            moves[own, own], shifts[:] = moves[own, own].mean(axis=0), shifts.mean()
        taps = taps + moves
        # The residuals belong to noise about the middle grey; the bias is the value at black.
        return taps, bias + (shifts - self.middle * moves.sum(axis=(1, 2, 3))) / 255

    def polished(self, taps: Array, bias: Array) -> tuple[Array, Array]:
        """Moves taps and bias until hardly any result is more than half a level off.

        Minimises the sum of max(|r| - 1/2, 0)^2 over all residuals r by Newton's method. This function is convex,
        and 0 for the true taps, which it determines more precisely than least squares: the set of taps for which
        all results are right shrinks like 1 / M, the standard error of least squares only like 1 / sqrt(M).
        """
        best, fewest = (taps, bias), self.levels.size + 1
        for _ in range(NEWTON_STEPS):
            left = np.where(self.free, self.levels - self._computed(taps, bias), 0)
            beyond = np.sign(left) * np.maximum(np.abs(left) - 0.5, 0)
            count = int(np.count_nonzero(beyond))
            if count < fewest:
                best, fewest = (taps, bias), count
            if count < len(taps) or self.task.time_left <= 0:
                break
            taps, bias = taps.copy(), bias.copy()
            for outputs in [range(len(taps))] if self.alike else [[output] for output in range(len(taps))]:
                move, shift = self._move(beyond, outputs, taps)
                for output in outputs:
                    own = [output] if self.alike else np.arange(taps.shape[1])
                    taps[output, own] += move
                    bias[output] += shift
        return best

    def _move(self, beyond: Array, outputs: Sequence[int], taps: Array) -> tuple[Array, float]:
        """The Newton step for taps (C or 1, k, k) and bias of outputs that are alike."""
        size, windows, values = taps.shape[-1], [], []
        for output in outputs:
            rows, columns = (at[:MAX_WINDOWS] for at in np.nonzero(beyond[output]))
            channels = slice(output, output + 1) if self.alike else slice(None)
            windows.append(self._windows_at(rows, columns, size, channels))
            values.append(beyond[output, rows, columns])
        x = np.concatenate(windows)
        if not len(x):
            return np.zeros((1, size, size)), 0.0
        x = np.column_stack([x, np.full(len(x), 255.0)])
        square = x.T @ x
        square[np.diag_indices_from(square)] *= 1.01
        move = (
            OVER_RELAXATION
            * np.linalg.pinv(square, rcond=1e-9, hermitian=True)
            @ (x.T @ np.concatenate(values))
        )
        return move[:-1].reshape(-1, size, size), float(move[-1])

    def _computed(self, taps: Array, bias: Array) -> Array:
        """The unrounded results in levels, (C', H, W), by FFT; wrong along the border."""
        size = taps.shape[-1]
        result = np.empty_like(self.levels)
        for output, own in enumerate(taps):
            total = np.zeros_like(self.spectra[0])
            for channel in np.flatnonzero(np.abs(own).sum(axis=(1, 2))):
                kernel = np.zeros((SIDE, SIDE))
                kernel[:size, :size] = own[channel]
                rolled = np.roll(kernel, (-(size // 2), -(size // 2)), (0, 1))
                total += self.spectra[channel] * np.conj(np.fft.rfft2(rolled))
            level = self.middle * own.sum() + 255 * bias[output]
            result[output] = np.fft.irfft2(total, (SIDE, SIDE)) + level
        return result

    def fractions(self, taps: Array, tolerance: float) -> tuple[Array, Array] | None:
        """Taps with one denominator, and a bias, for which every result is right; None without any.

        Denominators are tried from small to large, as long as the taps are known well enough to tell neighbouring
        fractions apart.
        """
        outputs = range(1 if self.alike else len(taps))
        windows = [self._windows(output, taps.shape[-1]) for output in outputs]
        for denominator in DENOMINATORS[self.uncertainty * DENOMINATORS < 0.2]:
            near = np.rint(taps * denominator) / denominator
            if np.abs(near - taps).max() > tolerance:
                continue
            if all(_span(x @ near[o].ravel(), y) is not None for o, (x, y) in enumerate(windows)):
                bias = self._biases(near)
                if bias is not None:
                    return near, bias
        return None

    def _windows(self, output: int, size: int) -> tuple[Array, Array]:
        """A few windows (n, C k k) and targets (n,), in levels."""
        rows, columns = (at[:FEW_WINDOWS] for at in np.nonzero(self.free[output]))
        return self._windows_at(rows, columns, size, slice(None)), self.levels[output, rows, columns]

    def _windows_at(self, rows: Array, columns: Array, size: int, channels: slice) -> Array:
        """The windows (n, C k k) around some pixels, in levels."""
        half = size // 2
        seen = np.lib.stride_tricks.sliding_window_view(self.inputs[channels], (size, size), (1, 2))
        windows = seen[:, rows - half, columns - half].transpose(1, 0, 2, 3).reshape(len(rows), -1)
        return windows + self.middle

    def _biases(self, taps: Array) -> Array | None:
        """For each output the bias for which all results are right, in 0..1; None without one."""
        computed = self._computed(taps, np.zeros(len(taps)))
        planes = list(zip(computed, self.levels, self.free, strict=True))
        groups = [planes] if self.alike else [[plane] for plane in planes]
        biases = []
        for group in groups:
            span = _span(
                np.concatenate([values[free] for values, _, free in group]),
                np.concatenate([levels[free] for _, levels, free in group]),
            )
            if span is None:
                return None
            biases.append(_bias(*span))
        return np.resize(biases, len(taps)) / 255


def _contrast(taps: Array, bias: Array) -> tuple[int, int]:
    """The middle grey and amplitude of noise, in levels, for which results are rarely clipped."""
    sums, levels = taps.sum(axis=(1, 2, 3)), 255 * bias
    strength = float(np.sqrt((np.square(taps).sum(axis=(1, 2, 3)) + 0.2 * sums**2).max()))
    middles = np.arange(32, 224)
    room = np.minimum(
        sums[:, None] * middles + levels[:, None], 255 - sums[:, None] * middles - levels[:, None]
    )
    middle = int(middles[(np.minimum(room.min(axis=0), 1e9) - 1e-3 * np.abs(middles - 127)).argmax()])
    margin = max(float(room[:, middle - 32].min()), 4.0)
    amplitude = min(middle, 255 - middle, int(margin / (2.5 * strength)) if strength else 127)
    # With low contrast too few different fractions are rounded; clipping half of the results is better.
    return (middle, amplitude) if amplitude >= MIN_AMPLITUDE else (127, 127)


def _span(computed: Array, levels: Array) -> tuple[float, float] | None:
    """The interval of biases, in levels, for which all results are rounded to their targets; None if empty."""
    off = levels - computed
    low, high = float(off.max()) - 0.5, float(off.min()) + 0.5
    return (low, high) if low <= high + 1e-7 else None


def _bias(low: float, high: float) -> float:
    """The bias in the middle of the interval; 0 where that is nearly as good."""
    middle = (low + high) / 2
    return 0.0 if abs(middle) < 0.1 * (high - low) or abs(middle) < 1e-7 else middle


def polished(x: Array, targets: Array, solution: Array) -> Array:
    """Moves w until hardly any x w is more than half a level from its target, as `_Noise.polished` does.

    Args:
        x: (n, K).
        targets: (n,), in 0..1.
        solution: The first estimate of w, (K,).

    Returns:
        The w with the fewest results that are off.
    """
    best, fewest = solution, len(x) + 1
    for _ in range(NEWTON_STEPS):
        left = 255 * (targets - x @ solution)
        beyond = np.flatnonzero(np.abs(left) > 0.5)
        if len(beyond) < fewest:
            best, fewest = solution, len(beyond)
        if not len(beyond):
            break
        over = left[beyond] - 0.5 * np.sign(left[beyond])
        square = x[beyond].T @ x[beyond]
        square[np.diag_indices_from(square)] *= 1.01
        solution = solution + OVER_RELAXATION / 255 * np.linalg.pinv(square, rcond=1e-9, hermitian=True) @ (
            x[beyond].T @ over
        )
    return best


def middle_of(computed: Array, levels: Array) -> float:
    """The bias for which most results are rounded to their targets.

    Args:
        computed: Results without a bias, in levels.
        levels: The targets in levels.

    Returns:
        The middle of the interval for which all are right; without such an interval, the mean difference.
    """
    span = _span(computed, levels)
    return float((levels - computed).mean()) if span is None else _bias(*span)


def _shifts(by_shift: Array, size: int) -> Array:
    """The shifts -(size // 2) .. size // 2 of a circular correlation along both axes, (size, size)."""
    rows = np.arange(size) - size // 2
    result: Array = by_shift[np.ix_(rows, rows)]
    return result
