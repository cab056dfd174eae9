"""Compiles a filter for one type of pixel, and runs it on parts of pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

# To be set before the package is loaded, which then makes its thread pool, otherwise for all processors of the machine.
if "HL_NUM_THREADS" not in os.environ and hasattr(os, "sched_getaffinity"):
    os.environ["HL_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))

import halide as hl
import numpy as np

from diptych.engines.halide.elementwise import Expr, number
from diptych.engines.halide.scheduling import NARROWEST, schedule, schedule_simply, values_before
from diptych.engines.halide.values import C, InputPicture, LayerValue, X, Y
from diptych.model.layers import Array, PadMode

__all__ = ["Loops", "Program", "Tracing", "buffer_of", "threads"]

_PIXELS: dict[int | None, Any] = {255: hl.UInt(8), 65535: hl.UInt(16), None: hl.Float(32)}
_DTYPES: dict[int | None, Any] = {255: np.uint8, 65535: np.uint16, None: np.float32}


def threads() -> int:
    """The number of threads that compute."""
    return int(os.environ.get("HL_NUM_THREADS", "0")) or os.cpu_count() or 1


class Program:
    """A compiled filter for pictures (H, W, C) with a fixed number of channels.

    Args:
        build: Called with the picture; returns the output of the filter.
        channels: Of the input.
        mode: Of every `Pad` of the picture itself. The blocks hold the pixels beyond its border.
        peaks: The highest level of the input and of the output, 255 or 65535; None for floats.
        divisors: The input is divided by the first, and the output multiplied by the second.

    Attributes:
        channels: Of the output.
        grown: (rows, columns) by which the output is larger than the picture.
        dtype: Of the output.
        margin: How many pixels beyond the halo may be read.
    """

    def __init__(
        self,
        build: Callable[[InputPicture], LayerValue],
        channels: int,
        mode: PadMode | None,
        peaks: tuple[int | None, int | None] = (None, None),
        divisors: tuple[int, int] = (1, 1),
    ) -> None:
        picture = InputPicture(_PIXELS[peaks[0]], channels, divisors[0], mode)
        last = build(picture)
        self.channels, self.grown = last.channels, last.grown
        self.dtype = _DTYPES[peaks[1]]
        inner = any(value.copies and value.sources for value in values_before(last))
        self.margin = NARROWEST if inner else 0
        output = hl.Func("filtered")
        output[C, X, Y] = _pixel(last.read(X, Y, C) * number(divisors[1]), peaks[1])
        output.output_buffer().dim(0).set_stride(1)
        output.output_buffer().dim(1).set_stride(last.channels)
        self._plan = schedule(output, last.channels, last)
        self._run = Loops(output)

    def __call__(
        self,
        block: Array,
        at: tuple[int, int],
        size: tuple[int, int],
        result: Array,
        begin: tuple[int, int],
        halo_size: tuple[int, int] = (0, 0),
    ) -> None:
        """Computes a part of the output.

        Args:
            block: A part of the picture, (h, w, C), with all pixels that are read.
            at: (row, column) of its first pixel.
            size: (height, width) of the picture.
            result: Is filled with the part, (h, w, C'); at least `NARROWEST` pixels wide.
            begin: (row, column) of the first pixel of the part.
            halo_size: The rows and columns of the halo, for the choice of tiles.
        """
        rows, columns = self._plan.tile(result.shape[0], result.shape[1], halo_size, threads())
        numbers = {"width": size[1], "height": size[0], "rows": rows, "columns": columns}
        self._run({"picture": buffer_of(block, at), **numbers}, buffer_of(result, begin))


class Tracing:
    """Computes several values for a float picture, each of them whole.

    Args:
        build: Called with the picture; returns the values.
        channels: Of the input.
        mode: Of every `Pad` of the picture itself.
    """

    def __init__(
        self, build: Callable[[InputPicture], list[LayerValue]], channels: int, mode: PadMode | None
    ) -> None:
        self.values = build(InputPicture(hl.Float(32), channels, 1, mode))
        schedule_simply(list(dict.fromkeys(v for value in self.values for v in values_before(value))))
        outputs = []
        for value in self.values:
            output = hl.Func("traced")
            output[C, X, Y] = value.read(X, Y, C)
            outputs.append(output)
        self._run = Loops(*outputs)

    def __call__(self, block: Array, at: tuple[int, int], size: tuple[int, int]) -> list[Array]:
        """The values, each float32 (h, w, c), for a block as in `Program`."""
        shapes = [(size[0] + v.grown[0], size[1] + v.grown[1], v.channels) for v in self.values]
        results = [np.empty(shape, np.float32) for shape in shapes]
        arguments = {"picture": buffer_of(block, at), "width": size[1], "height": size[0]}
        self._run(arguments, *(buffer_of(result, (0, 0)) for result in results))
        return results


class Loops:
    """A compiled pipeline that takes its arguments by name."""

    def __init__(self, *outputs: Any) -> None:
        pipeline = hl.Pipeline(list(outputs))
        arguments = list(pipeline.infer_arguments())
        self._names = [argument.name for argument in arguments]
        self._function = pipeline.compile_to_callable(arguments, hl.get_host_target())

    def __call__(self, arguments: dict[str, Any], *results: Any) -> None:
        """Runs the pipeline; the results are buffers to be filled."""
        self._function(*(arguments[name] for name in self._names), *results)


def _pixel(value: Expr, peak: int | None) -> Expr:
    """A value as a pixel; for integers it is rounded half to even and clipped."""
    if peak is None:
        return value
    level = hl.round(hl.clamp(value, number(0), number(peak)))
    return hl.cast(_PIXELS[peak], hl.cast(hl.Int(32), level))


def buffer_of(array: Array, at: tuple[int, int]) -> Any:
    """An array (h, w, c) as a buffer whose first pixel is `at`."""
    buffer = hl.Buffer(array if array.flags.writeable else np.asarray(_Writable(array)))
    buffer.set_min([0, at[1], at[0]])
    return buffer


class _Writable:
    """Declares an array writable, since Halide does not take read-only arrays even as input."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}
