"""Checks that several layers make: of their fields, and of the shapes that reach them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from diptych.errors import ModelError, ShapeError
from diptych.model.layers.base import Array, Pads, Shape

__all__ = [
    "MOST_AXES",
    "check_axis",
    "check_least",
    "check_not_negative",
    "check_pads",
    "check_rank",
    "check_shape",
    "check_sizes",
    "check_sizes_per_axis",
    "need_channels",
    "need_spatial",
    "short",
]

MOST_AXES = 8


def check_rank(array: Array, ranks: Sequence[int], field: str) -> None:
    """Raises `ModelError` where a weight has another number of axes, or no values."""
    if array.ndim not in ranks:
        expected = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        raise ModelError(f"field {field!r} must have {expected} axes, got the shape {array.shape}")
    if 0 in array.shape:
        raise ModelError(f"field {field!r} is empty, its shape is {array.shape}")


def check_shape(array: Array | None, shape: Shape, field: str) -> None:
    """Raises `ModelError` where a weight that is there has another shape."""
    if array is not None and array.shape != shape:
        raise ModelError(f"field {field!r} must have the shape {shape}, got {array.shape}")


def check_least(value: int, least: int, field: str) -> None:
    """Raises `ModelError` below `least`."""
    if value < least:
        raise ModelError(f"field {field!r} must be {least} or more, got {value}")


def check_sizes_per_axis(values: tuple[int, ...], count: int, least: int, field: str) -> None:
    """Raises `ModelError` unless there are `count` numbers of `least` or more."""
    if len(values) != count or any(v < least for v in values):
        raise ModelError(
            f"field {field!r} must be {count} whole numbers of {least} or more, got {short(values)}"
        )


def check_sizes(values: tuple[int, ...], most: int, field: str) -> None:
    """Raises `ModelError` unless there are 1 to `most` numbers of 1 or more."""
    if not 1 <= len(values) <= most or any(v < 1 for v in values):
        raise ModelError(
            f"field {field!r} must be 1 to {most} whole numbers of 1 or more, got {short(values)}"
        )


def check_pads(values: Pads, rank: int) -> None:
    """Raises `ModelError` unless 'padding' holds `rank` pairs of numbers of 0 or more."""
    if len(values) != rank or any(len(pair) != 2 or min(pair) < 0 for pair in values):
        raise ModelError(f"field 'padding' must be {rank} pairs of whole numbers >= 0, got {short(values)}")


def check_not_negative(value: float, field: str) -> None:
    """Raises `ModelError` for a negative number, NaN or infinity."""
    if not (math.isfinite(value) and value >= 0):
        raise ModelError(f"field {field!r} must be a number of 0 or more, got {value}")


def check_axis(axis: int, field: str = "field 'axis'") -> None:
    """Raises `ModelError` for an axis that no array here can have."""
    if not -MOST_AXES <= axis < MOST_AXES:
        raise ModelError(f"{field} must be {-MOST_AXES} to {MOST_AXES - 1}, got {axis}")


def need_spatial(rank: int, shape: Shape) -> None:
    """Raises `ShapeError` unless `shape` has `rank` spatial axes."""
    if len(shape) != rank + 2:
        axes = ("", "N, C, W", "N, C, H, W", "N, C, D, H, W")[rank] if rank <= 3 else f"rank {rank + 2}"
        raise ShapeError(f"takes ({axes}), got {len(shape)} axes: {shape}")


def need_channels(expected: int, shape: Shape) -> None:
    """Raises `ShapeError` unless axis 1 of `shape` has that length."""
    if shape[1] != expected:
        raise ShapeError(f"takes {expected} channels on axis 1, got {shape[1]} in {shape}")


def short(value: object) -> str:
    """The repr of a value, cut at 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
