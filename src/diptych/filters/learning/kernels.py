"""From the taps of a linear filter to the cheapest layers that compute it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from diptych.model.layers import Activation, Array, Chain, Conv, Layer, Pad, PadMode

__all__ = ["clipped", "clips", "factored", "layers", "padded", "repeated", "snapped", "trimmed", "with_bias"]

_USUAL_DENOMINATORS = np.array((*range(1, 257), 273, 512, 1000, 1024, 4096))  # tried first
_ALL_DENOMINATORS = np.arange(1, 4097)
EXACT_SUMS = 2**24  # whole numbers up to here are exact in float32


@dataclass(frozen=True, eq=False)
class _Factor:
    """The weight of one convolution, float64 (out, in / groups, h, w)."""

    weight: Array
    groups: int = 1

    def conv(self, times: float = 1) -> Conv:
        """The layer, with its weight multiplied by `times`."""
        return Conv((self.weight * times).astype(np.float32), groups=self.groups)


def layers(taps: Array, bias: Array, padding_mode: PadMode, tolerance: float = 0.0) -> Chain:
    """Layers that compute clip(taps * x + bias, 0, 1); the clip is left out where it never acts.

    Args:
        taps: Float64 (C', C, k, k).
        bias: (C',).
        padding_mode: How the picture is extended by k // 2 pixels.
        tolerance: The uncertainty of the taps, within which they may be simplified.
    """
    convs, divisor = factored(taps, tolerance)
    convs = with_bias(convs, divisor * bias)
    if divisor == 1 and not clips(taps, bias):
        return Chain((*padded(taps.shape[-1] // 2, padding_mode), *convs))
    return Chain((*padded(taps.shape[-1] // 2, padding_mode), *convs, *clipped(divisor)))


def with_bias(convs: list[Conv], bias: Array) -> list[Conv]:
    """The convolutions with a bias on the last one, unless it is zero."""
    last = convs[-1]
    kept = bias.astype(np.float32) if np.abs(bias).max() > 1e-7 else None
    return [*convs[:-1], Conv(last.weight, kept, groups=last.groups)]


def clipped(divisor: int) -> list[Activation]:
    """Layers for clamp(x / divisor, 0, 1) that give exact results for odd multiples of half the divisor.

    For such x the result lies exactly between two levels. 1/f is inexact in float32, but where its relative
    error is below 2^-25, the product k f (1/f) is rounded to k. So the divisor is split into factors with that
    property. The clamp comes first, because engines may merge a multiplication into the convolution before it,
    which would be inexact.
    """
    if divisor == 1:
        return [Activation("clamp")]
    odd = divisor
    while odd % 2 == 0:
        odd //= 2
    splits = [(f, odd // f) for f in range(1, odd + 1) if odd % f == 0]
    first = next((one for one, other in splits if _inverts(one) and _inverts(other)), 1)
    steps = [first, divisor // first] if first > 1 else [divisor]
    return [Activation("clamp", (0.0, float(divisor))), *(Activation("affine", (1 / f, 0.0)) for f in steps)]


def _inverts(factor: int) -> bool:
    return abs(float(np.float32(1 / factor)) * factor - 1) < 2.0**-25


def padded(radius: int, padding_mode: PadMode) -> list[Layer]:
    """A list of one `Pad` by `radius` on all sides; empty for radius 0."""
    return [Pad(((radius, radius), (radius, radius)), padding_mode)] if radius else []


def clips(taps: Array, bias: Array) -> bool:
    """Whether some input in 0..1 gives an output outside of 0..1."""
    above = np.where(taps > 0, taps, 0).sum(axis=(1, 2, 3)) + bias
    below = np.where(taps < 0, taps, 0).sum(axis=(1, 2, 3)) + bias
    return bool(above.max() > 1 + 1e-6 or below.min() < -1e-6)


def trimmed(taps: Array, tolerance: float) -> Array:
    """Taps within `tolerance` of zero become zero, and outer rings of zeros are cut off."""
    taps = np.where(np.abs(taps) > tolerance, taps, 0)
    while taps.shape[-1] > 1:
        ring = taps.copy()
        ring[..., 1:-1, 1:-1] = 0
        if ring.any():
            return taps
        taps = taps[..., 1:-1, 1:-1]
    return taps


def snapped(values: Array, tolerance: float) -> Array:
    """Replaces values by fractions of one small denominator where all lie within `tolerance` of such fractions.

    The kernels that people write have such taps, for example 1/9, 1/16 and -1/2.
    """
    # Every number is close to a fraction with a large denominator. Denominators are tried only as long as a
    # match by chance has a probability below 1/10.
    tried = _USUAL_DENOMINATORS[tolerance * _USUAL_DENOMINATORS < 0.05]
    found = _common(values, tried, tolerance)
    return values if found is None else np.rint(values * found) / found


def _common(values: Array, denominators: Array, tolerance: float) -> int | None:
    """The first of the denominators of which all `values` are multiples within `tolerance`; None without one."""
    for value in np.unique(values):
        denominators = denominators[np.abs(value - np.rint(value * denominators) / denominators) <= tolerance]
    return int(denominators[0]) if len(denominators) else None


def factored(taps: Array, tolerance: float) -> tuple[list[Conv], int]:
    """The convolutions with the fewest weights that compute taps (C', C, k, k) times a divisor.

    The divisor is 1 unless results can lie exactly between two levels. Then all weights are whole numbers, whose
    sums are exact in float32, so that these results are rounded as the filter rounds them.

    Args:
        taps: Float64 (C', C, k, k).
        tolerance: The largest error of a tap.

    Returns:
        The convolutions, and the divisor.
    """
    tolerance = max(tolerance, 2e-7 * float(np.abs(taps).max(initial=0)))
    forms = [[_Factor(taps)], _apart(taps, tolerance), _mixed_first(taps, tolerance)]
    best = min((form for form in forms if form), key=lambda form: sum(factor.weight.size for factor in form))
    # The smallest whole number that makes all weights of a factor whole; 0 where it is beyond 4096.
    divisors = [_common(factor.weight, _ALL_DENOMINATORS, 2e-13) or 0 for factor in best]
    divisor = prod(divisors)
    ties = divisor % 2 == 0 and divisor & (divisor - 1) != 0
    if ties and _exact(best, divisors):
        return [factor.conv(own) for factor, own in zip(best, divisors, strict=True)], divisor
    return [factor.conv() for factor in best], 1


def _exact(factors: list[_Factor], divisors: list[int]) -> bool:
    """Whether all sums of 8-bit levels stay within the whole numbers that float32 represents exactly."""
    low, high = 0.0, 255.0
    for factor, own in zip(factors, divisors, strict=True):
        up, down = (
            float(np.maximum(sign * own * factor.weight, 0).sum(axis=(1, 2, 3)).max()) for sign in (1, -1)
        )
        low, high = up * low - down * high, up * high - down * low
    return max(-low, high) < EXACT_SUMS


def repeated(convs: list[Conv], channels: int) -> list[Conv]:
    """The convolutions for several channels, applied to each channel alone."""
    return [
        Conv(
            np.tile(conv.weight, (channels, 1, 1, 1)),
            None if conv.bias is None else np.tile(conv.bias, channels),
            groups=channels * conv.groups,
        )
        for conv in convs
    ]


def _apart(taps: Array, tolerance: float) -> list[_Factor] | None:
    """One group for each channel; None where channels are mixed."""
    outputs, inputs = taps.shape[:2]
    if outputs != inputs or any(taps[o, i].any() for o in range(outputs) for i in range(inputs) if o != i):
        return None
    return _planes(np.stack([taps[c, c] for c in range(outputs)]), tolerance)


def _mixed_first(taps: Array, tolerance: float) -> list[_Factor] | None:
    """One weighted sum of the channels, such as a luma, followed by spatial kernels on it; None where it does not fit.

    The weights are the leading singular vector of the taps as a matrix (C, C' k k), which must have rank 1.
    """
    outputs, inputs, size, _ = taps.shape
    by_channel = taps.transpose(1, 0, 2, 3).reshape(inputs, -1)
    left, strength, right = np.linalg.svd(by_channel, full_matrices=False)
    if inputs == 1 or size == 1 or strength[0] == 0:
        return None
    if np.abs(strength[0] * np.outer(left[:, 0], right[0]) - by_channel).max() > 4 * tolerance:
        return None
    mix, rest = left[:, 0] * strength[0], right[0]
    # Normalise the weights to a sum of 1, as for a luma, unless they cancel.
    scale = mix.sum() if np.abs(mix.sum()) > 0.1 * np.abs(mix).max() else mix[np.abs(mix).argmax()]
    slack = 4 * tolerance / np.abs(by_channel).max()
    mix, rest = snapped(mix / scale, slack), snapped(rest * scale, slack * np.abs(rest * scale).max())
    kernels = rest.reshape(outputs, 1, size, size)
    after = _planes(kernels[:, 0], tolerance) if outputs == 1 else [_Factor(kernels)]
    return [_Factor(mix.reshape(1, inputs, 1, 1)), *after]


def _planes(kernels: Array, tolerance: float) -> list[_Factor]:
    """Kernels (C, k, k), each for its own channel, as columns times rows where that takes fewer weights.

    The singular value decomposition gives the separable terms. The smallest rank is taken that meets the taps
    within `tolerance`.
    """
    count, size, _ = kernels.shape
    left, strength, right = np.linalg.svd(kernels)
    for rank in range(1, (size + 1) // 2):
        columns, rows = left[..., :rank] * strength[:, None, :rank], right[:, :rank]
        if np.abs(columns @ rows - kernels).max() <= 4 * tolerance:
            # Make the largest entry of each row 1, so that fractional kernels get fractional factors.
            at = np.abs(rows).argmax(axis=2)[..., None]
            largest = np.take_along_axis(rows, at, axis=2)
            rows, columns = rows / largest, columns * largest.transpose(0, 2, 1)
            first = columns.transpose(0, 2, 1).reshape(count * rank, 1, size, 1)
            return [_Factor(first, count), _Factor(rows[:, :, None], count)]
    return [_Factor(kernels[:, None], count)]
