"""Baselines that need no learning: a constant, the unchanged picture, and the best linear filter.

They are fitted to the very pictures of the evaluation, so no other constant and no other 7 x 7 kernel does better.
Whatever a model gains over them, it has learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from diptych.filters.planes import coloured, extended, picture_of, planes_of
from diptych.filters.samples import FilterSample
from diptych.model.layers import Array, PadMode
from diptych.preprocessing.grey import grey_float

__all__ = ["Baseline", "baselines"]

Baseline: TypeAlias = Callable[[FilterSample], Array]

_SIDE = 7
_PIXELS = 20_000  # to fit the kernels to; there are 147 unknowns for each output channel


def baselines(samples: Sequence[FilterSample], padding_mode: PadMode) -> dict[str, Baseline]:
    """Functions by name, from a sample to float32 in 0..1 of the target's shape."""
    return {
        "constant": _constant(samples),
        "identity": _identity,
        "best linear": _linear(samples, padding_mode),
    }


def _constant(samples: Sequence[FilterSample]) -> Baseline:
    """The mean of each channel over all pixels, which minimises the squared error."""
    pixels = sum(s.target.shape[0] * s.target.shape[1] for s in samples)
    mean = sum(s.target.sum(axis=(0, 1), dtype=np.float64) for s in samples) / pixels
    return lambda sample: np.broadcast_to(np.asarray(mean, np.float32), sample.target.shape)


def _identity(sample: FilterSample) -> Array:
    """The unchanged picture; its luma (Rec. 601) where the target is grey."""
    picture = sample.picture.astype(np.float32) / np.float32(255)
    if sample.target.ndim == picture.ndim:
        return picture
    return grey_float(picture) if picture.ndim == 3 else coloured(picture)


def _linear(samples: Sequence[FilterSample], padding_mode: PadMode) -> Baseline:
    """The 7 x 7 kernels and offsets, for all pairs of channels, that minimise the squared error."""
    random = np.random.default_rng(0)
    sizes = np.array([s.picture.shape[0] * s.picture.shape[1] for s in samples], float)
    counts = np.maximum((_PIXELS * sizes / sizes.sum()).astype(int), 1)
    drawn = [_windows(s, padding_mode, count, random) for s, count in zip(samples, counts, strict=True)]
    seen, target = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    # Grey pictures in three channels leave the kernels undetermined; the pseudo-inverse takes the smallest ones.
    solution = np.linalg.pinv(seen.T @ seen, rcond=1e-13, hermitian=True) @ (seen.T @ target)
    return lambda sample: _applied(sample, padding_mode, solution)


def _windows(
    sample: FilterSample, padding_mode: PadMode, count: int, random: np.random.Generator
) -> tuple[Array, Array]:
    """Windows around random pixels with a 1 appended, (count, C 7 7 + 1), and targets, (count, C')."""
    planes = extended(planes_of(sample.picture), _SIDE // 2, padding_mode)
    windows = np.lib.stride_tricks.sliding_window_view(planes, (_SIDE, _SIDE), (1, 2))
    height, width = sample.picture.shape[:2]
    rows, columns = random.integers(0, height, count), random.integers(0, width, count)
    seen = np.ones((count, planes.shape[0] * _SIDE**2 + 1))
    seen[:, :-1] = windows[:, rows, columns].transpose(1, 0, 2, 3).reshape(count, -1)
    seen[:, :-1] /= 255
    return seen, sample.target[rows, columns].reshape(count, -1).astype(np.float64)


def _applied(sample: FilterSample, padding_mode: PadMode, solution: Array) -> Array:
    import cv2

    r = _SIDE // 2
    planes = extended(planes_of(sample.picture), r, padding_mode) / np.float32(255)
    kernels = solution[:-1].T.reshape(-1, len(planes), _SIDE, _SIDE).astype(np.float32)
    result = np.empty((len(kernels), *sample.picture.shape[:2]), np.float32)
    for channel, own in enumerate(kernels):
        result[channel] = solution[-1, channel]
        for plane, kernel in zip(planes, own, strict=True):
            result[channel] += np.asarray(cv2.filter2D(plane, cv2.CV_32F, kernel))[r:-r, r:-r]
    return np.clip(picture_of(result), 0, 1)
