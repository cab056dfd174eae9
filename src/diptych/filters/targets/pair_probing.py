"""What can be known of pairs before time is spent: are they aligned, compressed, noisy, related at all?"""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.errors import UsageError
from diptych.filters.targets.pairs import Pairs
from diptych.model.layers import Array
from diptych.preprocessing.grey import grey_float

__all__ = ["blockiness", "examine", "noise", "shift"]

_MOST = 4  # pairs looked at
_SIDE = 256  # pixels of each
_FARTHEST = 24  # pixels of a shift that are looked for
_SAMPLES = 1500  # neighbourhoods compared to tell noise
_SURE = 0.4  # a correlation below says nothing about where a picture lies
_CLEAR = 0.05  # a correlation must be larger by this to be called the better one
_BLOCKY = 1.12  # steps at multiples of eight, over steps elsewhere
_POINTLESS = 1.5, 8.0  # this blocky, and off by this many levels: only the compression would be learned
_UNRELATED = 0.03, 0.05  # a linear fit explains less than this share, and the details correlate less
_NOISY = 2.5  # levels; wide filters and those that jump show up to 2 without any noise


def examine(pairs: Pairs) -> tuple[str, ...]:
    """Remarks on these pairs. Raises `UsageError` where learning from them is pointless.

    Refused: pairs shifted by two pixels or more (one pixel gets a remark: derivatives and relief look like
    that), pairs whose pictures have nothing to do with each other, and compression so strong that its blocks
    outweigh everything else. Milder compression and noise are averaged away in learning: they get a remark
    that says which PSNR cannot be passed.
    """
    remarks: list[str] = []
    noises: list[float | None] = []
    related: list[bool] = []
    blocky: list[str] = []
    for name in list(pairs.before)[:_MOST]:
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
                    f"the picture after the filter of {name!r} was compressed so strongly that its 8 x 8 blocks "
                    f"({size:.0f} levels) outweigh the filter; save it as PNG or TIFF"
                )
        noises.append(noise(before, rest))
    if related and not any(related):
        raise UsageError(
            "the pictures after the filter have nothing to do with those before it: nothing around a pixel tells "
            "what it becomes; are the pairs the right ones, and the right way up?"
        )
    blocky += [name for name in pairs.compressed if name not in blocky]
    if blocky:
        remarks.append(
            f"{', '.join(map(repr, blocky[:3]))}{' and more' * (len(blocky) > 3)} after the filter: lossy "
            "compression, whose traces limit the PSNR that can be reached; PNG or TIFF would not"
        )
    known = [value for value in noises if value is not None]
    if known and (typical := float(np.median(known))) > _NOISY:
        remarks.append(
            f"the pictures after the filter differ by chance by about {typical:.1f} levels of luma where "
            f"those before are alike: no PSNR above {20 * np.log10(255 / typical):.0f} dB can be measured on them"
        )
    return tuple(remarks)


def shift(before: Array, after: Array) -> tuple[int, int, float, float]:
    """By how many pixels `after` lies (below, right of) `before`, the correlation there and without a shift.

    Both (H, W) in levels. The details of `after` are correlated with the details and with the strength of the
    edges of `before`, at every shift up to 24 pixels; a shift counts only if its opposite is worse.
    """
    best = (0, 0, 0.0, 0.0)
    details = _standard(_detail(after))
    for feature in (_detail(before), _detail(_edges(before))):
        found = _correlation(_standard(feature), details)
        size = np.abs(found)
        size = np.where(size > size[::-1, ::-1] + _CLEAR, size, 0)
        still = float(abs(found[_FARTHEST, _FARTHEST]))
        down, across = np.unravel_index(int(size.argmax()), size.shape)
        peak = float(size[down, across])
        if peak > max(still + _CLEAR, best[2], _SURE):
            best = (int(down) - _FARTHEST, int(across) - _FARTHEST, peak, still)
        elif still > best[2]:
            best = (0, 0, still, still)
    return best


def blockiness(values: Array) -> float:
    """Mean step between neighbours where 8 x 8 blocks meet, over the largest such mean elsewhere; 1 is none."""
    worst = []
    for axis in (0, 1):
        steps = np.abs(np.diff(values, axis=axis)).mean(axis=1 - axis)
        phases = [float(steps[phase::8].mean()) for phase in range(8)]
        worst.append(phases[7] / max(*phases[:7], 1e-6))
    return float(np.mean(worst))


def noise(before: Array, rest: Array) -> float | None:
    """The standard deviation, in levels, of what nothing around a pixel explains; None where that is unclear.

    The Gamma test (Stefansson, Koncar and Jones 1997): half the squared difference between the results of
    like neighbourhoods, extrapolated to neighbourhoods that are the same; here on smooth ones, where many are
    alike. `before` (H, W) in levels, `rest`: what a linear fit leaves of the result.
    """
    from scipy import ndimage, spatial

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
    gamma = np.median(squares, axis=0) / 2 / 0.455  # the median of chi squared with one degree of freedom
    slope, start = np.polyfit(near, gamma, 1) if np.ptp(near) > 1e-9 else (0.0, float(gamma[0]))
    return float(np.sqrt(max(start if slope > 0 else gamma[0], 0)))


def _alignment(name: str, place: tuple[int, int], peak: float, still: float) -> list[str]:
    down, across = place
    if max(abs(down), abs(across)) >= 2:
        raise UsageError(
            f"the pair {name!r} is misaligned: the picture after the filter lies {_where(down, across)} "
            f"(correlation {peak:.2f}, against {still:.2f} where it should lie); align the pictures first"
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
    """At most 256 x 256 pixels of it, whose corner lies on the grid of 8 x 8 blocks."""
    top, left = (max(side - _SIDE, 0) // 16 * 8 for side in picture.shape[:2])
    return picture[top : top + _SIDE, left : left + _SIDE]


def _edges(values: Array) -> Array:
    from scipy import ndimage

    return np.asarray(np.hypot(ndimage.sobel(values, 0), ndimage.sobel(values, 1)))


def _detail(values: Array) -> Array:
    from scipy import ndimage

    return np.asarray(values - ndimage.gaussian_filter(values, 2))


def _standard(values: Array) -> Array:
    values = values - values.mean()
    return np.asarray(values / max(float(np.sqrt((values**2).sum())), 1e-9))


def _correlation(one: Array, other: Array) -> Array:
    """Of `other` with `one` moved by -24..24 pixels down and across, (49, 49)."""
    shape = [side + _FARTHEST for side in one.shape]
    both = np.fft.rfft2(other, shape) * np.conj(np.fft.rfft2(one, shape))
    found: Any = np.fft.irfft2(both, shape)
    places = np.arange(-_FARTHEST, _FARTHEST + 1)
    return np.asarray(found[np.ix_(places, places)])


def _fitted(before: Array, after: Array) -> Array:
    """The best linear filter of 5 x 5 pixels of the picture and of the strength of its edges together."""
    from numpy.lib.stride_tricks import sliding_window_view

    planes = [np.pad(plane, 2, mode="edge") for plane in (before, _edges(before))]
    columns = [sliding_window_view(plane, (5, 5)).reshape(before.size, 25) for plane in planes]
    features = np.concatenate([*columns, np.ones((before.size, 1))], axis=1)
    some = features[::7].astype(np.float64)
    normal = some.T @ some + 1e-3 * np.eye(some.shape[1])  # flat pictures leave it singular
    solved = np.linalg.solve(normal, some.T @ after.ravel()[::7])
    return np.asarray((features @ solved).reshape(after.shape))
