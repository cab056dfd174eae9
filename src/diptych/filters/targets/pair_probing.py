"""Checks on pairs before time is spent: are they aligned, compressed, noisy, and related?"""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.errors import UsageError
from diptych.extras import imported
from diptych.filters.targets.pairs import Pairs
from diptych.model.layers import Array
from diptych.preprocessing.grey import grey_float

__all__ = ["blockiness", "examine", "noise", "shift"]

_MAX_PAIRS = 4  # pairs that are examined
_SIDE = 256  # pixels; the side of the part that is examined
_MAX_SHIFT = 24  # pixels
_SAMPLES = 1500  # neighbourhoods for the estimate of noise
_MIN_CORRELATION = 0.4  # a smaller correlation does not show where a picture lies
_MARGIN = 0.05  # by how much a correlation must be larger to be preferred
_BLOCKY = 1.12  # blockiness from which on compression is assumed
_POINTLESS = 1.5, 8.0  # blockiness, and RMS in levels, from which on only the compression would be learned
_UNRELATED = (
    0.03,
    0.05,
)  # share that a linear fit explains, and correlation of details; pairs below both are unrelated
_NOISY = 2.5  # levels; large and discontinuous filters show up to 2 without any noise


def examine(pairs: Pairs) -> tuple[str, ...]:
    """Examines pairs of pictures.

    Refused are pairs shifted by two pixels or more, unrelated pictures, and compression so strong that its blocks
    outweigh everything else. A shift of one pixel gets a remark, because derivatives and reliefs look like that.
    Milder compression and noise average out in learning; they get a remark that gives the limit on the PSNR.

    Args:
        pairs: The pairs, of which the first four are examined.

    Returns:
        Remarks.

    Raises:
        UsageError: Learning from these pairs would be pointless.
    """
    remarks: list[str] = []
    noises: list[float | None] = []
    related: list[bool] = []
    blocky: list[str] = []
    for name in list(pairs.before)[:_MAX_PAIRS]:
        before, after = (grey_float(_middle(side[name])) for side in (pairs.before, pairs.after))
        if min(before.shape) < 4 * 8:
            continue
        down, across, peak, still = shift(before, after)
        remarks += _alignment(name, (down, across), peak, still)
        rest = after - _fitted(before, after)
        variance = _detail(after).var()
        explained = _detail(rest).var() < (1 - _UNRELATED[0]) * variance
        related.append(bool(peak > _UNRELATED[1] or explained or variance < 1e-6))
        step, size = blockiness(rest), float(np.sqrt(np.mean(rest**2)))
        if step > _BLOCKY and step > blockiness(before) * 1.05:
            blocky.append(name)
            if step > _POINTLESS[0] and size > _POINTLESS[1]:
                raise UsageError(
                    f"in the pair {name!r} the picture after the filter was compressed so strongly that its 8 x 8 "
                    f"blocks ({size:.0f} levels) outweigh the filter; save it as PNG or TIFF"
                )
        noises.append(noise(before, rest))
    if related and not any(related):
        raise UsageError(
            "the pictures after the filter are unrelated to those before it: no pixel can be predicted from its "
            "neighbourhood; check that the pairs match and are not rotated"
        )
    blocky += [name for name in pairs.compressed if name not in blocky]
    if blocky:
        remarks.append(
            f"{', '.join(map(repr, blocky[:3]))}{' and more' * (len(blocky) > 3)} after the filter: lossy "
            "compression limits the PSNR that can be reached; use PNG or TIFF instead"
        )
    known = [value for value in noises if value is not None]
    if known and (typical := float(np.median(known))) > _NOISY:
        remarks.append(
            f"the pictures after the filter contain noise of about {typical:.1f} levels of luma, so no PSNR above "
            f"{20 * np.log10(255 / typical):.0f} dB can be measured on them"
        )
    return tuple(remarks)


def shift(before: Array, after: Array) -> tuple[int, int, float, float]:
    """Finds the shift of a picture against another, by cross-correlation.

    The details of `after` are correlated with the details of `before`, and with those of its gradient magnitude, at
    every shift of up to 24 pixels. A shift counts only if its opposite correlates less.

    Args:
        before: (H, W) in levels.
        after: (H, W) in levels.

    Returns:
        Pixels down, pixels to the right, the correlation there, and the correlation without a shift.
    """
    best = (0, 0, 0.0, 0.0)
    details = _standard(_detail(after))
    for feature in (_detail(before), _detail(_edges(before))):
        found = _correlation(_standard(feature), details)
        size = np.abs(found)
        size = np.where(size > size[::-1, ::-1] + _MARGIN, size, 0)
        still = float(abs(found[_MAX_SHIFT, _MAX_SHIFT]))
        down, across = np.unravel_index(int(size.argmax()), size.shape)
        peak = float(size[down, across])
        if peak > max(still + _MARGIN, best[2], _MIN_CORRELATION):
            best = (int(down) - _MAX_SHIFT, int(across) - _MAX_SHIFT, peak, still)
        elif still > best[2]:
            best = (0, 0, still, still)
    return best


def blockiness(values: Array) -> float:
    """The mean step across borders of 8 x 8 blocks, over the largest mean step elsewhere; 1 without blocks."""
    worst = []
    for axis in (0, 1):
        steps = np.abs(np.diff(values, axis=axis)).mean(axis=1 - axis)
        phases = [float(steps[phase::8].mean()) for phase in range(8)]
        worst.append(phases[7] / max(*phases[:7], 1e-6))
    return float(np.mean(worst))


def noise(before: Array, rest: Array) -> float | None:
    """The standard deviation of noise in a result, by the Gamma test (Stefansson, Koncar and Jones 1997).

    Half the squared difference between the results of similar neighbourhoods is extrapolated to equal ones. Smooth
    neighbourhoods are used, since many of them are similar.

    Args:
        before: (H, W) in levels.
        rest: What a linear fit leaves of the result, (H, W) in levels.

    Returns:
        Levels; None where too few neighbourhoods are smooth.
    """
    ndimage, spatial = imported("scipy.ndimage"), imported("scipy.spatial")

    mean = ndimage.uniform_filter(before, 5)
    spread = ndimage.uniform_filter(before**2, 5) - mean**2
    rows, columns = np.nonzero(spread[4:-4, 4:-4] <= np.quantile(spread[4:-4, 4:-4], 0.3))
    rows, columns = rows + 4, columns + 4
    if len(rows) < 500:
        return None
    if len(rows) > _SAMPLES:
        chosen = np.random.default_rng(0).choice(len(rows), _SAMPLES, replace=False)
        rows, columns = rows[chosen], columns[chosen]
    around = [(down, across) for down in (-2, -1, 0, 1, 2) for across in (-2, -1, 0, 1, 2)]
    features = np.stack([before[rows + down, columns + across] for down, across in around], axis=1)
    results = rest[rows, columns]
    distances, partners = spatial.cKDTree(features).query(features, k=9)
    near = np.mean(np.minimum(distances[:, 1:], 50) ** 2, axis=0)
    squares = (results[partners[:, 1:]] - results[:, None]) ** 2
    gamma = (
        np.median(squares, axis=0) / 2 / 0.455
    )  # the median of chi squared with one degree of freedom is 0.455
    slope, start = np.polyfit(near, gamma, 1) if np.ptp(near) > 1e-9 else (0.0, float(gamma[0]))
    return float(np.sqrt(max(start if slope > 0 else gamma[0], 0)))


def _alignment(name: str, place: tuple[int, int], peak: float, still: float) -> list[str]:
    down, across = place
    if max(abs(down), abs(across)) >= 2:
        raise UsageError(
            f"the pair {name!r} is misaligned: the picture after the filter is shifted {_where(down, across)} "
            f"(correlation {peak:.2f}, against {still:.2f} without a shift); align the pictures first"
        )
    if down or across:
        return [f"the pair {name!r} may be misaligned by one pixel ({_where(down, across)})"]
    return []


def _where(down: int, across: int) -> str:
    pixels = {number: f"{abs(number)} pixel{'s' * (abs(number) != 1)}" for number in (down, across)}
    parts = [f"{pixels[down]} {'down' if down > 0 else 'up'}"] * (down != 0)
    parts += [f"{pixels[across]} to the {'right' if across > 0 else 'left'}"] * (across != 0)
    return " and ".join(parts)


def _middle(picture: Array) -> Array:
    """The middle of a picture, at most 256 x 256 pixels, aligned with the grid of 8 x 8 blocks."""
    top, left = (max(side - _SIDE, 0) // 16 * 8 for side in picture.shape[:2])
    return picture[top : top + _SIDE, left : left + _SIDE]


def _edges(values: Array) -> Array:
    ndimage = imported("scipy.ndimage")

    return np.asarray(np.hypot(ndimage.sobel(values, 0), ndimage.sobel(values, 1)))


def _detail(values: Array) -> Array:
    ndimage = imported("scipy.ndimage")

    return np.asarray(values - ndimage.gaussian_filter(values, 2))


def _standard(values: Array) -> Array:
    values = values - values.mean()
    return np.asarray(values / max(float(np.sqrt((values**2).sum())), 1e-9))


def _correlation(one: Array, other: Array) -> Array:
    """The correlation of `other` with `one` moved by -24..24 pixels down and across, (49, 49)."""
    shape = [side + _MAX_SHIFT for side in one.shape]
    both = np.fft.rfft2(other, shape) * np.conj(np.fft.rfft2(one, shape))
    found: Any = np.fft.irfft2(both, shape)
    places = np.arange(-_MAX_SHIFT, _MAX_SHIFT + 1)
    return np.asarray(found[np.ix_(places, places)])


def _fitted(before: Array, after: Array) -> Array:
    """The best linear filter of 5 x 5 pixels of the picture and of its gradient magnitude."""
    from numpy.lib.stride_tricks import sliding_window_view

    planes = [np.pad(plane, 2, mode="edge") for plane in (before, _edges(before))]
    columns = [sliding_window_view(plane, (5, 5)).reshape(before.size, 25) for plane in planes]
    features = np.concatenate([*columns, np.ones((before.size, 1))], axis=1)
    some = features[::7].astype(np.float64)
    normal = some.T @ some + 1e-3 * np.eye(some.shape[1])  # keeps it regular for flat pictures
    solved = np.linalg.solve(normal, some.T @ after.ravel()[::7])
    return np.asarray((features @ solved).reshape(after.shape))
