"""From the taps of a linear filter to the cheapest layers that compute it."""

from __future__ import annotations

import numpy as np

from diptych.model.layers import Activation, Array, Chain, Conv, Layer, Pad, PadMode

__all__ = ["clips", "convolutions", "layers", "snapped", "trimmed"]

SAME = 2e-7  # relative to the largest tap: what float32 cannot tell from nothing


def layers(taps: Array, bias: Array, edge: PadMode, clamp: bool) -> Chain:
    """clip(taps * x + bias): `taps` (C', C, k, k) float64, `bias` (C',)."""
    radius = taps.shape[-1] // 2
    pad: list[Layer] = [Pad(((radius, radius), (radius, radius)), edge)] if radius else []
    end: list[Layer] = [Activation("clamp")] if clamp else []
    return Chain((*pad, *convolutions(taps, bias), *end))


def trimmed(taps: Array, noise: float = SAME) -> Array:
    """Taps below `noise` times the largest become zero, and rings of zeros are cut off."""
    taps = np.where(np.abs(taps) > noise * np.abs(taps).max(initial=0), taps, 0)
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
        # By chance every number is near some fraction: only a coincidence of less than a tenth counts.
        if tolerance * denominator < 0.05 and np.abs(values - multiples / denominator).max() <= tolerance:
            return multiples / denominator
    return values


def convolutions(taps: Array, bias: Array) -> list[Conv]:
    """The factorisation of (C', C, k, k) taps with the fewest weights: all compute the same."""
    forms = [form for form in (_dense(taps), _depthwise(taps), _mixed_first(taps)) if form]
    best = min(forms, key=lambda form: sum(conv.weight.size for conv in form))
    last = best[-1]
    kept = bias.astype(np.float32) if np.abs(bias).max() > 1e-7 else None
    return [*best[:-1], Conv(last.weight, kept, groups=last.groups)]


def _dense(taps: Array) -> list[Conv]:
    return [Conv(taps.astype(np.float32))]


def _depthwise(taps: Array) -> list[Conv] | None:
    """Channels apart: one group each, its kernel as a sum of separable ones where that is less."""
    outputs, inputs = taps.shape[:2]
    if outputs != inputs or any(taps[o, i].any() for o in range(outputs) for i in range(inputs) if o != i):
        return None
    return _planes(np.stack([taps[c, c] for c in range(outputs)]))


def _mixed_first(taps: Array) -> list[Conv] | None:
    """One weighted sum of the channels (a luma), and whatever follows on that alone."""
    outputs, inputs = taps.shape[:2]
    if inputs == 1:
        return _planes(taps[:, 0]) if outputs == 1 else None
    by_channel = taps.transpose(1, 0, 2, 3).reshape(inputs, -1)
    total = by_channel.sum(axis=0)
    strongest = total if np.abs(total).max() > 0.1 * np.abs(by_channel).max() else by_channel[0]
    if not strongest.any():
        return None
    mix = by_channel @ strongest / (strongest @ strongest)
    if _differ(np.outer(mix, strongest), by_channel):
        return None
    first = Conv(mix.reshape(1, inputs, 1, 1).astype(np.float32))
    kernels = strongest.reshape(outputs, 1, *taps.shape[2:])
    if kernels.shape == (1, 1, 1, 1):
        return _dense(taps)
    rest = _planes(kernels[:, 0]) if outputs == 1 else _dense(kernels)
    return [first, *rest]


def _planes(kernels: Array) -> list[Conv]:
    """(C, k, k), a kernel for each channel alone: as sums of rank one, column times row, where that is less.

    The factors go through the largest tap (a cross approximation), so that fractions stay fractions.
    """
    count, size, _ = kernels.shape
    parts = [_crosses(kernel) for kernel in kernels]
    rank = max(len(part) for part in parts)
    if size == 1 or 2 * rank * size >= size**2:
        return [Conv(kernels[:, None].astype(np.float32), groups=count)]
    columns = np.zeros((count, rank, size))
    rows = np.zeros((count, rank, size))
    for c, part in enumerate(parts):
        for r, (column, row) in enumerate(part):
            columns[c, r], rows[c, r] = column, row
    first = columns.reshape(count * rank, 1, size, 1).astype(np.float32)
    return [Conv(first, groups=count), Conv(rows[:, :, None].astype(np.float32), groups=count)]


def _crosses(kernel: Array) -> list[tuple[Array, Array]]:
    """Columns and rows whose outer products add up to `kernel`, taken off at its largest remaining entry."""
    rest = kernel.copy()
    found: list[tuple[Array, Array]] = []
    while np.abs(rest).max() > 4 * SAME * np.abs(kernel).max() and len(found) < len(kernel):
        i, j = np.unravel_index(np.abs(rest).argmax(), rest.shape)
        column, row = rest[:, j].copy(), rest[i] / rest[i, j]
        found.append((column, row))
        rest = rest - np.outer(column, row)
    return found


def _differ(a: Array, b: Array) -> bool:
    return bool(np.abs(a - b).max() > 4 * SAME * np.abs(b).max())


def clips(taps: Array, bias: Array) -> bool:
    """Whether some input in 0..1 gives an output beyond 0..1."""
    above = np.where(taps > 0, taps, 0).sum(axis=(1, 2, 3)) + bias
    below = np.where(taps < 0, taps, 0).sum(axis=(1, 2, 3)) + bias
    return bool(above.max() > 1 + 1e-6 or below.min() < -1e-6)
