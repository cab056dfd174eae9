"""Linear filters that give whole levels: what rounding hides is found from a million answers.

With w the taps, b the bias and y = round(w x + b), every answer leaves y - w x - b within half a level, evenly
spread. Over M pixels of noise of amplitude a, the least squares of that leave w uncertain by about
0.29 / (a sqrt(M)), a few millionths. X'X and X't are correlations, by the fast Fourier transform.

Programs that round often calculate with fractions of one denominator, mostly a power of two. Such taps are
certain once found: for the right ones there is a bias with which every single answer is right, and the span
of such biases tells the rule of rounding too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diptych.filters.learning import kernels
from diptych.filters.learning.pairs import Pair
from diptych.filters.learning.task import Task
from diptych.model.layers import Array

__all__ = ["middle_of", "polished", "refined"]

SIDE, BLOCK = 1024, 64  # pixels, of the noise, and of its parts of one brightness
STEPS = 4  # the last changes nothing any more
DENOMINATORS = np.unique([*range(1, 257), 273, 1000, *(2**k for k in range(9, 17))])
LEAST = 48  # levels of amplitude
SPREAD = 12**-0.5  # the standard deviation of what rounding takes away, in levels
MOST = 20_000  # windows at a time
POLISHES = 6
BOLD = 1.6  # times Newton's step, which goes half the way where the goal is flat
FEW = 4000  # windows on which a denominator is tried before all


def refined(task: Task, taps: Array, bias: Array) -> tuple[Array, Array, float]:
    """Taps (C', C, k, k), bias (C',) and what the taps may be off by, from first estimates of both."""
    noise = _Noise(task, taps, bias)
    for _ in range(STEPS):
        taps, bias = noise.corrected(taps, bias)
    uncertain = 6 * noise.uncertainty
    taps = kernels.trimmed(taps, uncertain)
    exact = noise.fractions(taps, uncertain)
    if exact is not None:
        return *exact, 0.0
    return *noise.polished(taps, bias), noise.uncertainty / 4


class _Noise:
    """A target's answers about black-and-white noise whose contrast keeps most of them from being clipped."""

    def __init__(self, task: Task, taps: Array, bias: Array) -> None:
        self.task = task
        self.alike = task.target.per_channel
        middle, amplitude = _contrast(taps, bias)
        random = np.random.default_rng([task.seed, 6])
        shape = (SIDE, SIDE, 3)[: 3 if task.channels[0] == 3 else 2]
        # Either dark or bright, for it tells most, but of many levels: few give few fractions to be rounded.
        # How many are bright changes from block to block: else nothing tells the sum of all taps well.
        blocks = random.uniform(0.1, 0.9, (SIDE // BLOCK, SIDE // BLOCK, *shape[2:]))
        shares = blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)
        signs = np.where(random.random(shape, dtype=np.float32) < shares, 1, -1)
        sizes = random.integers((amplitude + 1) // 2, amplitude + 1, shape, dtype=np.int16)
        pair = Pair.of(task.target, (middle + signs * sizes).astype(np.uint8))
        self.inputs = 255.0 * pair.inputs - middle
        self.levels = np.rint(255.0 * pair.target)
        self.middle = middle
        self.spectra = np.fft.rfft2(self.inputs)
        self.inverse = np.linalg.inv(self._squares(taps.shape[-1]))
        self.free = (self.levels > 0) & (self.levels < 255)
        border = task.radius
        for side in (slice(0, border), slice(SIDE - border, SIDE)):
            self.free[:, side] = False
            self.free[:, :, side] = False

    @property
    def uncertainty(self) -> float:
        """The standard deviation of a tap."""
        count = self.free.sum() if self.alike else self.free.sum(axis=(1, 2)).min()
        return float(SPREAD * np.sqrt(np.diag(self.inverse).max() / max(count, 1)))

    def _squares(self, size: int) -> Array:
        """X'X / M of one channel, (k k, k k): what two pixels have in common depends on their distance."""
        by_shift = np.fft.irfft2(np.square(np.abs(self.spectra)).mean(axis=0), (SIDE, SIDE)) / SIDE**2
        rows, columns = (at.ravel() for at in np.mgrid[:size, :size])
        squares: Array = by_shift[rows[:, None] - rows, columns[:, None] - columns]
        return squares

    def corrected(self, taps: Array, bias: Array) -> tuple[Array, Array]:
        """The taps and bias (of 0..1) after one step of least squares."""
        left = np.where(self.free, self.levels - self._computed(taps, bias), 0)
        counts = np.maximum(self.free.sum(axis=(1, 2)), 1)
        spectra = np.fft.rfft2(left)
        size, moves, seen = taps.shape[-1], np.zeros_like(taps), np.abs(taps).sum(axis=(2, 3)) > 0
        for output, channel in np.argwhere(seen):
            by_shift = np.fft.irfft2(np.conj(spectra[output]) * self.spectra[channel], (SIDE, SIDE))
            move = self.inverse @ _around(by_shift, size).ravel() / counts[output]
            moves[output, channel] = move.reshape(size, size)
        shifts = left.sum(axis=(1, 2)) / counts
        if self.alike:
            own = range(len(taps))
            moves[own, own], shifts[:] = moves[own, own].mean(axis=0), shifts.mean()
        taps = taps + moves
        # The bias is that at the middle grey: at black it is lower by what the taps make of the middle.
        return taps, bias + (shifts - self.middle * moves.sum(axis=(1, 2, 3))) / 255

    def polished(self, taps: Array, bias: Array) -> tuple[Array, Array]:
        """Moved by Newton's method until hardly an answer is more than half a level off.

        The sum of the squares of what is beyond half a level is convex, and zero for the true taps: it tells
        more than least squares, whose error falls with 1 / sqrt(M) only.
        """
        best, fewest = (taps, bias), self.levels.size + 1
        for _ in range(POLISHES):
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
        """What to add to the taps (C or 1, k, k) and the bias of some outputs, which are alike."""
        size, windows, values = taps.shape[-1], [], []
        for output in outputs:
            rows, columns = (at[:MOST] for at in np.nonzero(beyond[output]))
            channels = slice(output, output + 1) if self.alike else slice(None)
            windows.append(self._around(rows, columns, size, channels))
            values.append(beyond[output, rows, columns])
        x = np.concatenate(windows)
        if not len(x):
            return np.zeros((1, size, size)), 0.0
        x = np.column_stack([x, np.full(len(x), 255.0)])
        square = x.T @ x
        square[np.diag_indices_from(square)] *= 1.01
        move = BOLD * np.linalg.pinv(square, rcond=1e-9, hermitian=True) @ (x.T @ np.concatenate(values))
        return move[:-1].reshape(-1, size, size), float(move[-1])

    def _computed(self, taps: Array, bias: Array) -> Array:
        """What the taps give, in levels, (C', H, W); wrong at the border."""
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

    def fractions(self, taps: Array, uncertain: float) -> tuple[Array, Array] | None:
        """Taps of one denominator, and the bias, with which every answer is right; None where there are none."""
        outputs = range(1 if self.alike else len(taps))
        windows = [self._windows(output, taps.shape[-1]) for output in outputs]
        for denominator in DENOMINATORS[self.uncertainty * DENOMINATORS < 0.2]:
            near = np.rint(taps * denominator) / denominator
            if np.abs(near - taps).max() > uncertain:
                continue
            if all(_span(x @ near[o].ravel(), y) is not None for o, (x, y) in enumerate(windows)):
                bias = self._biases(near)
                if bias is not None:
                    return near, bias
        return None

    def _windows(self, output: int, size: int) -> tuple[Array, Array]:
        """A few windows (n, C k k) in levels, and the levels that are wanted."""
        rows, columns = (at[:FEW] for at in np.nonzero(self.free[output]))
        return self._around(rows, columns, size, slice(None)), self.levels[output, rows, columns]

    def _around(self, rows: Array, columns: Array, size: int, channels: slice) -> Array:
        """The windows (n, C k k) around some pixels, in levels."""
        half = size // 2
        seen = np.lib.stride_tricks.sliding_window_view(self.inputs[channels], (size, size), (1, 2))
        windows = seen[:, rows - half, columns - half].transpose(1, 0, 2, 3).reshape(len(rows), -1)
        return windows + self.middle

    def _biases(self, taps: Array) -> Array | None:
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
    """Middle grey and amplitude, in levels, such that what the taps make of noise is hardly ever clipped."""
    sums, levels = taps.sum(axis=(1, 2, 3)), 255 * bias
    strength = float(np.sqrt((np.square(taps).sum(axis=(1, 2, 3)) + 0.2 * sums**2).max()))
    middles = np.arange(32, 224)
    room = np.minimum(
        sums[:, None] * middles + levels[:, None], 255 - sums[:, None] * middles - levels[:, None]
    )
    middle = int(middles[(np.minimum(room.min(axis=0), 1e9) - 1e-3 * np.abs(middles - 127)).argmax()])
    margin = max(float(room[:, middle - 32].min()), 4.0)
    amplitude = min(middle, 255 - middle, int(margin / (2.5 * strength)) if strength else 127)
    # Low contrast leaves too few fractions to be rounded: then rather half of the answers are clipped.
    return (middle, amplitude) if amplitude >= LEAST else (127, 127)


def _span(computed: Array, levels: Array) -> tuple[float, float] | None:
    """The lowest and the highest bias, in levels, with which all are rounded to what is wanted."""
    off = levels - computed
    low, high = float(off.max()) - 0.5, float(off.min()) + 0.5
    return (low, high) if low <= high + 1e-7 else None


def _bias(low: float, high: float) -> float:
    """The one that is farthest from going wrong; none at all where that is as good."""
    middle = (low + high) / 2
    return 0.0 if abs(middle) < 0.1 * (high - low) or abs(middle) < 1e-7 else middle


def polished(x: Array, targets: Array, solution: Array) -> Array:
    """x w nearer than half a level to what is wanted, in 0..1, hardly anywhere not: Newton's method for w."""
    best, fewest = solution, len(x) + 1
    for _ in range(POLISHES):
        left = 255 * (targets - x @ solution)
        beyond = np.flatnonzero(np.abs(left) > 0.5)
        if len(beyond) < fewest:
            best, fewest = solution, len(beyond)
        if not len(beyond):
            break
        over = left[beyond] - 0.5 * np.sign(left[beyond])
        square = x[beyond].T @ x[beyond]
        square[np.diag_indices_from(square)] *= 1.01
        solution = solution + BOLD / 255 * np.linalg.pinv(square, rcond=1e-9, hermitian=True) @ (
            x[beyond].T @ over
        )
    return best


def middle_of(computed: Array, levels: Array) -> float:
    """The bias with which most are rounded to what is wanted: all, where there is such a one."""
    span = _span(computed, levels)
    return float((levels - computed).mean()) if span is None else _bias(*span)


def _around(by_shift: Array, size: int) -> Array:
    """The shifts -size // 2 .. size // 2 of a circular correlation, both ways."""
    rows = np.arange(size) - size // 2
    result: Array = by_shift[np.ix_(rows, rows)]
    return result
