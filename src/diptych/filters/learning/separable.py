"""Wide separable kernels, found along one axis at a time.

A picture whose rows are all alike shows only the sums of a kernel's columns, so its answer is a problem of one
dimension, with few unknowns and little error even where results are rounded. The product of both profiles is the kernel
of every box and every Gaussian; whether it is that of the filter is checked on other pictures.
"""

from __future__ import annotations

import numpy as np

from diptych.filters.learning import kernels, probing_queries
from diptych.filters.learning.pairs import Pair
from diptych.filters.learning.ranks import run
from diptych.filters.learning.solving import CLIPPED, least_squares
from diptych.filters.learning.task import Candidate, Task
from diptych.model.layers import Array, Chain, Conv

__all__ = ["found", "profile"]

METHOD = "linear"
LEAST_RADIUS, MOST_RADIUS = 6, 64  # pixels; smaller kernels are found whole
LENGTH, LINES = 1200, 8  # pixels of a line, and lines of noise
MOST_OFF, USUAL_OFF = 1.01 / 255, 0.35 / 255  # the largest and the RMS error of what is rounded, in 0..1


def found(task: Task) -> Candidate | None:
    """The product of a kernel along rows and one along columns; None where the filter is another."""
    inputs, outputs = task.channels
    alike = task.target.per_channel or (inputs, outputs) == (1, 1)
    if not task.answers or not alike or not LEAST_RADIUS <= task.radius <= MOST_RADIUS:
        return None
    across, offset = profile(task, 1)
    down, _ = profile(task, 0)
    whole = float(across.sum())
    if abs(whole) < 1e-3 or abs(whole - float(down.sum())) > 1e-2:
        return None
    conv = Conv(
        np.tile((down / whole).reshape(1, 1, -1, 1), (inputs, 1, 1, 1)).astype(np.float32), groups=inputs
    )
    bias = np.full(inputs, offset, np.float32) if abs(offset) > 1e-4 else None
    last = Conv(
        np.tile(across.reshape(1, 1, 1, -1), (inputs, 1, 1, 1)).astype(np.float32), bias, groups=inputs
    )
    taps = np.outer(down, across)[None, None] / whole
    clip = kernels.clipped(1) if kernels.clips(taps, np.array([offset])) else []
    layers = Chain((*kernels.padded(task.radius, task.padding_mode), conv, last, *clip))
    if not _holds(task, layers):
        return None
    return Candidate(layers, METHOD, "a kernel along rows and one along columns")


def profile(task: Task, axis: int) -> tuple[Array, float]:
    """The sums of the kernel over the other axis, (2 radius + 1,), and what is added to the result."""
    random, radius = np.random.default_rng([task.seed, 13, axis]), task.radius
    x, y = [], []
    for _ in range(LINES):
        line = random.integers(0, 256, LENGTH + 2 * radius, dtype=np.uint8)
        plane = np.broadcast_to(line, (2 * radius + 3, len(line)))
        plane = np.ascontiguousarray(plane if axis == 1 else plane.T)
        picture = plane if task.channels[0] == 1 else np.repeat(plane[..., None], 3, axis=2)
        answer = Pair.of(task.target, picture).target[0]
        middle = answer[radius + 1] if axis == 1 else answer[:, radius + 1]
        x.append(np.lib.stride_tricks.sliding_window_view(line / 255, 2 * radius + 1))
        y.append(middle[radius : radius + LENGTH])
    seen, values = np.concatenate(x), np.concatenate(y).astype(np.float64)
    free = (values > CLIPPED) & (values < 1 - CLIPPED)
    if free.sum() < 4 * seen.shape[1]:
        return np.zeros(2 * radius + 1), 0.0
    taps, offset, error = least_squares(seen[free], values[free])
    tolerance = 5 * error
    return kernels.snapped(np.where(np.abs(taps) < tolerance / 5, 0, taps), tolerance), float(offset)


def _holds(task: Task, layers: Chain) -> bool:
    """Whether the layers give the filter's results on noise and on held-out pictures, within rounding."""
    noise = probing_queries.noise(task.target, task.seed + 1)
    side = 2 * task.radius + 40
    whole = probing_queries.in_whole_levels(noise)
    for pair in (*noise[:2], *task.held_out[:3]):
        inputs = pair.inputs[:, : 2 * side, : 2 * side]
        given = run(layers, inputs)
        own = tuple(
            slice(0, n if n == m else n - task.radius)
            for n, m in zip(inputs.shape[1:], pair.size, strict=True)
        )
        off = np.abs(np.clip(given, 0, 1) - pair.target[:, : 2 * side, : 2 * side])[:, *own]
        if off.max() > (MOST_OFF if whole else 1e-4) or np.sqrt(np.mean(off**2)) > USUAL_OFF:
            return False
    return True
