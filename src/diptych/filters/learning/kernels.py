"""From the taps of a linear filter to the cheapest layers that compute it."""

from __future__ import annotations

import numpy as np

from diptych.model.layers import Activation, Array, Chain, Conv, Layer, Pad, PadMode

__all__ = ["clips", "layers", "padded", "snapped", "trimmed"]

GRID = 65536  # multiples of 1/65536 times 8-bit levels are exact in float32, and so are their sums


def layers(taps: Array, bias: Array, edge: PadMode, tolerance: float = 0.0) -> Chain:
    """clip(taps * x + bias), clipped only where it can run over 0..1.

    `taps` (C', C, k, k) float64, each known to within `tolerance`; `bias` (C',).
    """
    end: list[Layer] = [Activation("clamp")] if clips(taps, bias) else []
    return Chain((*padded(taps.shape[-1] // 2, edge), *_convolutions(taps, bias, tolerance), *end))


def padded(radius: int, edge: PadMode) -> list[Layer]:
    """A `Pad` on all sides, or nothing where there is no radius."""
    return [Pad(((radius, radius), (radius, radius)), edge)] if radius else []


def clips(taps: Array, bias: Array) -> bool:
    """Whether some input in 0..1 gives an output beyond 0..1."""
    above = np.where(taps > 0, taps, 0).sum(axis=(1, 2, 3)) + bias
    below = np.where(taps < 0, taps, 0).sum(axis=(1, 2, 3)) + bias
    return bool(above.max() > 1 + 1e-6 or below.min() < -1e-6)


def trimmed(taps: Array, tolerance: float) -> Array:
    """Taps within `tolerance` of zero become zero, and rings of zeros are cut off."""
    taps = np.where(np.abs(taps) > tolerance, taps, 0)
    while taps.shape[-1] > 1:
        ring = taps.copy()
        ring[..., 1:-1, 1:-1] = 0
        if ring.any():
            return taps
        taps = taps[..., 1:-1, 1:-1]
    return taps


def snapped(values: Array, tolerance: float) -> Array:
    """The fractions of one small denominator that all `values` lie within `tolerance` of, if there is one.

    The filters that people write have such taps: 1/9, 1/16, -1/2.
    """
    for denominator in (*range(1, 257), 273, 512, 1000, 1024, 4096):
        multiples = np.rint(values * denominator)
        # Every number is near some fraction: only what chance gives less than once in ten times counts.
        if tolerance * denominator < 0.05 and np.abs(values - multiples / denominator).max() <= tolerance:
            snapped_values: Array = multiples / denominator
            return snapped_values
    return values


def _convolutions(taps: Array, bias: Array, tolerance: float) -> list[Conv]:
    """The factorisation of (C', C, k, k) taps with the fewest weights: all compute the same."""
    tolerance = max(tolerance, 2e-7 * float(np.abs(taps).max(initial=0)))
    forms = [[Conv(taps.astype(np.float32))], _apart(taps, tolerance), _mixed_first(taps, tolerance)]
    best = min((form for form in forms if form), key=lambda form: sum(conv.weight.size for conv in form))
    last = best[-1]
    kept = bias.astype(np.float32) if np.abs(bias).max() > 1e-7 else None
    return [*best[:-1], Conv(last.weight, kept, groups=last.groups)]


def _apart(taps: Array, tolerance: float) -> list[Conv] | None:
    """Every channel by itself: one group each."""
    outputs, inputs = taps.shape[:2]
    if outputs != inputs or any(taps[o, i].any() for o in range(outputs) for i in range(inputs) if o != i):
        return None
    return _planes(np.stack([taps[c, c] for c in range(outputs)]), tolerance)


def _mixed_first(taps: Array, tolerance: float) -> list[Conv] | None:
    """One weighted sum of the channels (a luma), and whatever follows on that alone."""
    outputs, inputs, size, _ = taps.shape
    by_channel = taps.transpose(1, 0, 2, 3).reshape(inputs, -1)
    left, strength, right = np.linalg.svd(by_channel, full_matrices=False)
    if inputs == 1 or size == 1 or strength[0] == 0:
        return None
    if np.abs(strength[0] * np.outer(left[:, 0], right[0]) - by_channel).max() > 4 * tolerance:
        return None
    mix, rest = _scaled(left[:, 0] * strength[0], right[0])
    kernels = rest.reshape(outputs, 1, size, size)
    after = _planes(kernels[:, 0], tolerance) if outputs == 1 else [Conv(kernels.astype(np.float32))]
    return [Conv(mix.reshape(1, inputs, 1, 1).astype(np.float32)), *after]


def _scaled(mix: Array, rest: Array) -> tuple[Array, Array]:
    """A mixture of channels scaled to sum to 1, so that grey stays what it is, to the last bit in levels."""
    total = float(mix.sum())
    if np.abs(total) < 0.1 * np.abs(mix).max():
        total = float(mix[np.abs(mix).argmax()])
        return mix / total, rest * total
    exact = np.rint(mix / total * GRID)
    exact[np.abs(exact).argmax()] += GRID - exact.sum()
    return exact / GRID, rest * total


def _planes(kernels: Array, tolerance: float) -> list[Conv]:
    """(C, k, k), a kernel for each channel alone: as sums of column times row where that is less.

    The singular value decomposition, cut where the taps are met within `tolerance`.
    """
    count, size, _ = kernels.shape
    left, strength, right = np.linalg.svd(kernels)
    for rank in range(1, (size + 1) // 2):
        columns, rows = left[..., :rank] * strength[:, None, :rank], right[:, :rank]
        if np.abs(columns @ rows - kernels).max() <= 4 * tolerance:
            # The largest entry of each row is 1, so that the factors of fractions are fractions.
            at = np.abs(rows).argmax(axis=2)[..., None]
            largest = np.take_along_axis(rows, at, axis=2)
            rows, columns = rows / largest, columns * largest.transpose(0, 2, 1)
            first = columns.transpose(0, 2, 1).reshape(count * rank, 1, size, 1)
            second = rows[:, :, None]
            return [Conv(factor.astype(np.float32), groups=count) for factor in (first, second)]
    return [Conv(kernels[:, None].astype(np.float32), groups=count)]
