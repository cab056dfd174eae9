"""What every engine does with a batch: it is validated, and computed one sample at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from diptych.errors import ShapeError, UsageError
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.model.shapes import Sizes, sizes

__all__ = ["Run", "by_sample", "processors", "validate_batch"]

Run: TypeAlias = Callable[[Array], Sequence[Array]]
"""From a batch, (N, ...), to its outputs."""


_MOST_VALUES = 2**28
"""The most values (1 GiB of float32) that a layer may give for one sample."""

_MOST_HELD = _MOST_TRACED = 2**30
"""The most values (4 GiB of float32) of one sample that may be held at once, and that a trace may keep."""


_SECONDS_FOR_THREADS = 0.002
"""Work that is done sooner would only be delayed by starting threads for it."""


def validate_batch(model: Model, batch: Any, *, traced: bool = False) -> Array:
    """A batch as engines compute with it.

    Args:
        model: The model that it must fit.
        batch: An array of real numbers, (N, C, *spatial), (N, features) or whatever shape the model takes.
        traced: Whether the output of every layer will be kept.

    Returns:
        A C-contiguous float32 array; the same array where it is one already.

    Raises:
        UsageError: It does not hold real numbers.
        ShapeError: It is empty, does not fit the model, or a layer's output would take more memory than the limit.
    """
    array = np.asarray(batch)
    if array.dtype.kind not in "biuf":
        raise UsageError(f"a batch is an array of real numbers, got dtype {array.dtype}; convert it first")
    if array.ndim < (1 if model.input_shape == () else 2) or array.size == 0:
        raise ShapeError(f"a batch has the shape (N, C, ...) with no empty axis, got {array.shape}")
    _check_sizes(sizes(model, array.shape), traced)
    with np.errstate(over="ignore"):  # a float64 beyond float32's range becomes infinite, as in every engine
        return np.ascontiguousarray(array, dtype=np.float32)


def _check_sizes(found: Sizes, traced: bool) -> None:
    """A file of some hundred bytes can ask for an output of any size: it is refused before it is computed."""
    if found.held <= _MOST_VALUES and not traced:  # which no single output exceeds then
        return
    shapes = found.shapes
    values = {path: math.prod(shape[1:]) for path, shape in shapes.items()}
    path = max(values, key=lambda path: values[path], default="")
    if path and values[path] > _MOST_VALUES:
        raise ShapeError(
            f"layer {path} would give {shapes[path][1:]} for one sample, {_gibibytes(values[path])}, and the limit is "
            f"{_gibibytes(_MOST_VALUES)}; use a smaller input"
        )
    if found.held > _MOST_HELD:
        raise ShapeError(
            f"the model would hold {_gibibytes(found.held)} at once for one sample, where branches meet or wait, and "
            f"the limit is {_gibibytes(_MOST_HELD)}; use a smaller input"
        )
    if traced and sum(values.values()) > _MOST_TRACED:
        raise ShapeError(
            f"the outputs of all layers would take {_gibibytes(sum(values.values()))} for one sample, and the limit "
            f"is {_gibibytes(_MOST_TRACED)}; use a smaller input"
        )


def _gibibytes(values: int) -> str:
    return f"{values * 4 / 2**30:,.1f} GiB"


def by_sample(model: Model, x: Array, prepare: Callable[[], Run]) -> list[Array]:
    """The outputs for a batch, each sample computed alone and in a fixed number of parts, whatever the batch.

    Kernels add up in another order for another size of batch, number of parts or place in memory, which changes
    the last digits. Here a picture has the same bytes in every batch and on any number of processors. Samples run
    side by side instead, which was as fast (`benchmarks/forward_pass.py`). Where samples depend on each other, as
    with the statistics of the batch, the whole batch is computed at once.

    Args:
        model: The model.
        x: The batch, (N, ...).
        prepare: Called once in each thread that computes; returns what computes a batch there.

    Returns:
        The outputs, each (N, ...).
    """
    if sizes(model, x.shape).mixes_samples:
        return [np.array(value, order="C") for value in prepare()(_aligned(x))]
    began = perf_counter()
    outputs = [np.array(value, order="C") for value in prepare()(_aligned(x[:1]))]
    if len(x) == 1:
        return outputs
    seconds = (perf_counter() - began) * (len(x) - 1)
    outputs = [np.repeat(value, len(x), axis=0) for value in outputs]

    def compute(indices: range) -> None:
        run, sample = prepare(), _aligned(x[:1])
        for index in indices:
            sample[:] = x[index]
            for output, value in zip(outputs, run(sample), strict=True):
                output[index] = value[0]

    workers = min(processors(), len(x) - 1)
    if workers == 1 or seconds < _SECONDS_FOR_THREADS:
        compute(range(1, len(x)))
        return outputs
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(compute, (range(1 + worker, len(x), workers) for worker in range(workers))))
    return outputs


def _aligned(x: Array) -> Array:
    """A copy that begins at a multiple of 64 bytes: where an array begins decides in which order it is added up."""
    memory = np.empty(x.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + x.nbytes].view(np.float32).reshape(x.shape)
    copy[:] = x
    return copy


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
