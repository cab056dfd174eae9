"""Smoothing in stages, each rounded to whole levels: SciPy's on uint8, and Pillow's GaussianBlur and UnsharpMask.

The profile of the filter along each axis is found as in `separable`. Then the ways are tried in which libraries compute
it, and that is taken which gives every pixel of the trial pictures.

Source of Pillow's passes: `libImaging/BoxBlur.c`, after Gwosdek, Grewenig, Bruhn and Weickert, "Theoretical foundations
of Gaussian convolution by extended box filtering" (2011).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TypeAlias

import numpy as np

from diptych.filters.learning import kernels, probing_queries
from diptych.filters.learning.ranks import run
from diptych.filters.learning.separable import profile
from diptych.filters.learning.task import Candidate, Task
from diptych.model.layers import (
    Activation,
    Array,
    Chain,
    Connection,
    Conv,
    Layer,
    Pad,
    PadMode,
    Parallel,
    SkipConnection,
)

__all__ = ["fit"]

METHOD = "stages"
LEAST_RADIUS, MOST_RADIUS = 1, 40  # pixels
OTHER_ROUNDING = 5e-4  # share of pixels that float32 may round the other way
PASSES = 3  # of Pillow's GaussianBlur along each axis
NUDGES = (5e-5, 1e-3)  # levels, before what is rounded; for taps of many digits, and for simple fractions
NUDGE = NUDGES[0]
AMPLIFIED = 800
SIDE = 90  # pixels more than the radius of the trial pictures

Pass: TypeAlias = tuple[int, Array]  # the axis, and the taps along it


def fit(task: Task) -> Candidate | None:
    """The first way of smoothing in stages that gives every pixel; None without one."""
    inputs, outputs = task.channels
    alike = task.target.per_channel or (inputs, outputs) == (1, 1)
    if not task.answers or not alike or not LEAST_RADIUS <= task.radius <= MOST_RADIUS or task.time_left <= 0:
        return None
    noise = probing_queries.noise(task.target, task.seed + 1)
    if not probing_queries.in_whole_levels(noise):
        return None
    across, offset = profile(task, 1)
    down, _ = profile(task, 0)
    if abs(offset) > 4 / 255 or not (across.any() and down.any()):
        return None
    side = task.radius + SIDE
    trials = [
        (pair.inputs[:, :side, :side], pair.target) for pair in (noise[0], noise[3], *task.held_out[:2])
    ]
    for remark, layers in _ways(task, across, down):
        if task.time_left <= 0:
            return None
        if all(_same(task, layers, *trial) for trial in trials):
            return Candidate(layers, METHOD, remark)
    return None


def _same(task: Task, layers: Chain, inputs: Array, target: Array) -> bool:
    height, width = (
        n - task.radius if n < m else n for n, m in zip(inputs.shape[1:], target.shape[1:], strict=True)
    )
    given = run(layers, inputs)[:, :height, :width]
    off = np.abs(given - target[:, :height, :width])
    return bool(off.max() < 1.1 / 255 and np.mean(off > 0.1 / 255) <= OTHER_ROUNDING)


def _ways(task: Task, across: Array, down: Array) -> Iterator[tuple[str, Chain]]:
    channels, mode = task.channels[0], task.padding_mode
    whole = float(across.sum())
    if 0.9 < whole < 1.1 and across.min() > -1e-3:
        for taps, other in (
            (across / whole, down / down.sum()),
            *((taps, taps) for taps in _gaussians(across)),
        ):
            passes: list[Pass] = [(0, other), (1, taps)]
            for order, rule, nudge in product((passes, passes[::-1]), ("floor", "round"), NUDGES):
                between = "cut off" if rule == "floor" else "rounded"
                yield (
                    f"one kernel along each axis, {between} to whole levels in between",
                    _finished(_smoothed(order, rule, channels, mode, nudge)),
                )
    for radius, amount in _pillow_like(across):
        blur = _smoothed(_pillow_passes(radius), "round", channels, "replicate", 1e-5)
        if amount is None:
            yield f"Pillow's GaussianBlur({radius:g})", _finished(blur)
        else:
            for threshold in (3, 0, 2, 1, 4, 5, 10):
                yield (
                    f"Pillow's UnsharpMask({radius:g}, {amount}, {threshold})",
                    _unsharp(blur, amount, threshold, channels),
                )


def _gaussians(across: Array) -> Iterator[Array]:
    """Gaussian taps of round widths near that of a profile, cut at four sigma, as SciPy does."""
    places = np.arange(len(across)) - len(across) // 2
    for sigma in _usual(math.sqrt(max(float(across @ places**2) / float(across.sum()), 0.0)))[:3]:
        offsets = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
        taps = np.exp(-0.5 * (offsets / sigma) ** 2)
        yield taps / taps.sum()


def _smoothed(
    passes: Sequence[Pass], rule: str, channels: int, mode: PadMode, nudge: float = NUDGE
) -> list[Layer]:
    """Passes one after the other, from 0..1 to levels; the result of each is rounded."""
    layers: list[Layer] = [Activation("affine", (255.0, 0.0)), Activation("round")]
    for axis, taps in passes:
        radius = len(taps) // 2
        edges = ((radius, radius), (0, 0)) if axis == 0 else ((0, 0), (radius, radius))
        shape = (1, 1, -1, 1) if axis == 0 else (1, 1, 1, -1)
        weight = np.tile(taps.reshape(shape), (channels, 1, 1, 1)).astype(np.float32)
        bias = np.full(channels, (0.5 if rule == "round" else 0.0) + nudge, np.float32)
        layers += [Pad(edges, mode), Conv(weight, bias, groups=channels), Activation("floor")]
    return layers


def _finished(layers: list[Layer]) -> Chain:
    return Chain((*layers, Activation("affine", (1 / 255, 0.0))))


# ---- Pillow -------------------------------------------------------------------------------------------


def _pillow_like(across: Array) -> Iterator[tuple[float, int | None]]:
    """The radius of a GaussianBlur, or the radius and percent of an UnsharpMask, that the profile could be of."""
    middle = len(across) // 2
    places = np.arange(len(across)) - middle
    whole = float(across.sum())
    if not 0.9 < whole < 1.1:
        return
    if across[middle] < 1:
        yield from (
            (radius, None) for radius in _usual(math.sqrt(max(float(across @ places**2) / whole, 0.0)))
        )
        return
    for percent in _percents(across):
        blurred = -across * 100 / percent
        blurred[middle] += 1 + 100 / percent
        spread = float(blurred @ places**2) / max(float(blurred.sum()), 1e-6)
        yield from ((radius, percent) for radius in _usual(math.sqrt(max(spread, 0.0))))


def _percents(across: Array) -> list[int]:
    """Usual amounts, those first with which the blur's middle is about as high as its neighbours."""
    middle = len(across) // 2
    beside = -float(across[middle - 1] + across[middle + 1]) / 2
    excess = float(across[middle]) - 1
    usual = sorted({*range(10, 310, 10), 75, 125, 175, 225, 400, 500})
    return sorted(usual, key=lambda percent: abs(percent / 100 - excess - 1.1 * beside))[:6]


def _usual(radius: float) -> list[float]:
    """Round numbers near a measured radius, the nearest first."""
    steps = {round(step * n, 2) for step in (0.5, 0.1, 0.25) for n in range(1, 400)}
    return sorted((r for r in steps if abs(r - radius) < 0.15 * radius + 0.1), key=lambda r: abs(r - radius))[
        :8
    ]


def _pillow_passes(radius: float) -> list[Pass]:
    variance = radius**2 / PASSES
    length = math.sqrt(12 * variance + 1)
    whole = math.floor((length - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    box = float(np.float32(whole + part))
    inner = int((1 << 24) / (2 * box + 1))
    end = ((1 << 24) - (2 * int(box) + 1) * inner) // 2
    taps = np.array([end, *[inner] * (2 * int(box) + 1), end]) / (1 << 24)
    # Fractions such as 4/15 lead to ties. Pillow decides them by what its taps of 24 bits are off, which is too little
    # for float32, so that it is amplified.
    simple = kernels.snapped(taps, 2 / (1 << 24))
    taps = simple + AMPLIFIED * (taps - simple)
    return [(axis, taps) for axis in (1, 0) for _ in range(PASSES)]


def _unsharp(blur: list[Layer], percent: int, threshold: int, channels: int) -> Chain:
    """x + trunc((x - blur) percent / 100) where they differ by more than `threshold` levels, else x.

    With d = x - blur in whole levels, the change is sign(d) floor(|d| percent / 100), switched off up to the
    threshold by a step.
    """
    levels = Activation("affine", (255.0, 0.0))
    difference = Chain(
        (SkipConnection(Chain((*blur, Activation("affine", (-1 / 255, 0.0)))), Connection("add")), levels)
    )
    halves = []
    for sign in (1.0, -1.0):
        size: list[Layer] = [Activation("affine", (sign, 0.0)), Activation("relu")]
        part = Chain((Activation("affine", (percent / 100, NUDGE)), Activation("floor")))
        passed = Chain((Activation("affine", (1.0, -0.5 - threshold)), Activation("step")))
        chosen = Parallel(Connection("multiply"), (part, passed))
        halves.append(Chain((*size, chosen, Activation("affine", (sign / 255, 0.0)))))
    change = Chain((difference, Parallel(Connection("add"), tuple(halves))))
    return Chain((SkipConnection(change, Connection("add")), Activation("clamp")))
