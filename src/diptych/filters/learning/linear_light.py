"""Linear filters in linear light: levels to light, one kernel, and light back to levels.

The usual curves are tried. With the right one, light behind the filter is a linear function of light before it, so the
kernel is a least squares problem, as for a linear filter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from diptych.filters.learning import kernels, probing_queries
from diptych.filters.learning.solving import CLIPPED, least_squares
from diptych.filters.learning.task import Candidate, Task
from diptych.model.layers import Activation, Array, Chain, Connection, Layer, Parallel

__all__ = ["fit"]

METHOD = "linear light"
MAX_RADIUS = 12  # pixels
WINDOWS = 24_000
MOST_OFF, USUAL_OFF = 1.1 / 255, 0.4 / 255  # the largest and the RMS error, in 0..1
LEAST_GAIN = 0.7  # the RMS error must be smaller than this share of that of the best kernel on levels
DARK = 0.02  # in 0..1; below it rounding decides


@dataclass(frozen=True)
class _Curve:
    """A curve from levels to light, both in 0..1, and back, as functions and as layers."""

    name: str
    to_light: Callable[[Array], Array]
    to_levels: Callable[[Array], Array]
    before: tuple[Layer, ...]
    behind: tuple[Layer, ...]


def fit(task: Task) -> Candidate | None:
    """The curves and the kernel of a filter in linear light; None for other filters."""
    inputs, outputs = task.channels
    alike = task.target.per_channel or (inputs, outputs) == (1, 1)
    if not task.answers or not alike or not 1 <= task.radius <= MAX_RADIUS or task.time_left <= 0:
        return None
    pairs = probing_queries.noise(task.target, task.seed)
    windows, targets = task.windows(task.radius, WINDOWS, 14, pairs)
    x, y = windows[:, 0].reshape(len(windows), -1).astype(np.float64), targets[:, 0].astype(np.float64)
    free = (y > max(CLIPPED, DARK)) & (y < 1 - CLIPPED)
    if free.sum() < 4 * x.shape[1]:
        return None
    x, y = x[free], y[free]
    plain, offset, _ = least_squares(x, y)
    usual = float(np.sqrt(np.mean((x @ plain + offset - y) ** 2)))
    for curve in _curves():
        light = curve.to_light(x)
        taps, shift, error = least_squares(light, curve.to_light(y))
        if abs(shift) > 0.01:
            continue
        tidied = kernels.snapped(np.where(np.abs(taps) < 4 * error, 0, taps), 4 * error)
        for kernel in (tidied, taps):
            off = curve.to_levels(np.clip(light @ kernel, 0, 1)) - y
            root = float(np.sqrt(np.mean(off**2)))
            if root <= min(USUAL_OFF, LEAST_GAIN * usual) and np.abs(off).max() <= MOST_OFF:
                return Candidate(
                    _layers(task, curve, kernel, error), METHOD, f"a kernel in linear light ({curve.name})"
                )
    return None


def _layers(task: Task, curve: _Curve, kernel: Array, error: float) -> Chain:
    channels, side = task.channels[0], 2 * task.radius + 1
    taps = np.zeros((channels, channels, side, side))
    taps[np.arange(channels), np.arange(channels)] = kernel.reshape(side, side)
    convs, divisor = kernels.factored(taps, 4 * error)
    made: list[Layer] = [*convs, *(kernels.clipped(divisor))]
    return Chain((*kernels.padded(task.radius, task.padding_mode), *curve.before, *made, *curve.behind))


def _curves() -> Iterator[_Curve]:
    yield _Curve("sRGB", _from_srgb, _to_srgb, (_parts(*_LIGHT),), (_parts(*_LEVELS),))
    for gamma in (2.2, 2.0, 2.4, 1.8):
        yield _power(gamma)


def _power(gamma: float) -> _Curve:
    return _Curve(
        f"gamma {gamma:g}",
        lambda x: x**gamma,
        lambda x: x ** (1 / gamma),
        (Activation("power", (gamma,)),),
        (Activation("power", (1 / gamma,)),),
    )


# ---- sRGB (IEC 61966-2-1) -----------------------------------------------------------------------------

_DARK_LEVEL, _SLOPE, _OFFSET, _EXPONENT = 0.04045, 12.92, 0.055, 2.4
_DARK_LIGHT = _DARK_LEVEL / _SLOPE


def _from_srgb(x: Array) -> Array:
    return np.where(x <= _DARK_LEVEL, x / _SLOPE, ((np.maximum(x, 0) + _OFFSET) / (1 + _OFFSET)) ** _EXPONENT)


def _to_srgb(x: Array) -> Array:
    bright = (1 + _OFFSET) * np.maximum(x, _DARK_LIGHT) ** (1 / _EXPONENT) - _OFFSET
    return np.where(x <= _DARK_LIGHT, x * _SLOPE, bright)


_Affine = tuple[float, float]
_LIGHT: tuple[float, float, _Affine, float, _Affine] = (
    _DARK_LEVEL, 1 / _SLOPE, (1 / (1 + _OFFSET), _OFFSET / (1 + _OFFSET)), _EXPONENT, (1.0, -_DARK_LIGHT)
)  # fmt: skip
_LEVELS: tuple[float, float, _Affine, float, _Affine] = (
    _DARK_LIGHT, _SLOPE, (1.0, 0.0), 1 / _EXPONENT, (1 + _OFFSET, -_OFFSET - _DARK_LEVEL)
)  # fmt: skip


def _parts(end: float, slope: float, inside: _Affine, exponent: float, outside: _Affine) -> Layer:
    """A line up to `end` plus, from there on, outside(inside(x)^exponent), which is 0 at `end`."""
    line = Chain((Activation("clamp", (0.0, end)), Activation("affine", (slope, 0.0))))
    power = Chain(
        (
            Activation("clamp", (end, 1.0)),
            Activation("affine", inside),
            Activation("power", (exponent,)),
            Activation("affine", outside),
        )
    )
    return Parallel(Connection("add"), (line, power))
