"""Halide: a whole filter as one vectorised loop over strips of the picture, compiled for this processor.

It runs nothing but filters: local layers with stride 1. See `scheduling` for how, and `values` for why the
same pixel gets the same bits wherever the picture is cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.engines.halide.extending import extended, parts
from diptych.engines.halide.lowering import concatenated, largest, layer_value, pads_first
from diptych.engines.halide.program import Program, Tracing
from diptych.engines.halide.scheduling import NARROWEST
from diptych.engines.halide.values import Picture, Value
from diptych.engines.regional import Prepared, Reach, Region, edged, prepare
from diptych.engines.running import CONTAINERS, admit, run
from diptych.errors import ModelError, ShapeError, UnsupportedLayer
from diptych.model.layers import Array, Chain, Layer, Pad, PadMode
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes
from diptych.model.trace import Trace

__all__ = ["DEVICES", "NAME", "Compiled", "Filter", "compile", "regional"]

NAME = "halide"
DEVICES = ("cpu",)


def compile(model: Model, device: str = "auto") -> Compiled:  # noqa: A001 - the engines' common verb
    """Makes `model` ready. Raises `UnsupportedLayer` for a layer that is not local, or shrinks the picture."""
    if model.input_shape is not None and len(model.input_shape) != 3:
        shape = f"of inputs {model.input_shape}"
        raise UnsupportedLayer(shape, "the engine halide", "it takes pictures, (channels, height, width)")
    wraps = _picture_mode(model.layers)
    for path, layer in sorted(model.walk(), key=lambda pair: isinstance(pair[1], CONTAINERS)):
        _explicit(layer, path)
        if isinstance(layer, Pad) and (layer.mode == "wrap") != (wraps == "wrap"):
            where = f"{path} (Pad)"
            raise UnsupportedLayer(where, "the engine halide", "where one Pad wraps round, each must")
    return Compiled(model)


def regional(model: Model, peak: int | None) -> Filter:
    """Makes a filter ready for parts of pictures: see `diptych.engines.regional.compile`."""
    return Filter(prepare(model, peak))


def _explicit(layer: Layer, path: str = "") -> tuple[Layer, ...]:
    """The layers that say the same with padding apart from computing."""
    try:
        return edged(Model(Chain((layer,))), None).layers.layers
    except ModelError as error:
        reason = str(error).split(") ", 1)[-1].split(";", 1)[0]
        raise UnsupportedLayer(
            f"{path} ({type(layer).__name__})", "the engine halide", f"it {reason}"
        ) from error


def _value(layer: Layer, picture: Picture, record: Any = None) -> Value:
    raw: Value = picture.raw

    def leaf(layer: Layer, value: Value) -> Value:
        for part in _explicit(layer):
            value = layer_value(part, value, picture)
        return value

    return run(layer, raw, leaf, concatenated, largest, record)


_NUMPY_MODES: dict[PadMode | None, str] = {
    None: "edge",
    "zero": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "wrap": "wrap",
}


def _leaves(layer: Layer) -> list[Layer]:
    return [leaf for child in layer.children for leaf in _leaves(child)] if layer.children else [layer]


def _picture_mode(layers: Chain) -> PadMode | None:
    """What the picture itself continues with beyond its border; None where nothing sees that."""
    wraps = any(isinstance(layer, Pad) and layer.mode == "wrap" for layer in _leaves(layers))
    return "wrap" if wraps else _first_mode(layers)


def _first_mode(layer: Layer) -> PadMode | None:
    if isinstance(layer, Pad):
        return layer.mode
    for child in layer.children:
        mode = _first_mode(child)
        if mode is not None or isinstance(layer, Chain):
            return mode
    return None


class Filter:
    """A filter of parts of pictures. Programs are made when first needed, one a number of channels."""

    engine = NAME
    device = "cpu"
    cell = 1

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self._layers = pads_first(prepared.layers)
        self._mode = _picture_mode(self._layers)
        self._programs: dict[int, Program] = {}

    def __call__(self, block: Array, at: tuple[int, int], size: tuple[int, int], region: Region) -> Array:
        """See `Regional`."""
        # Halide counts in 32 bits; far below its top border a large picture may as well begin later.
        skipped = max(0, at[0] - self.prepared.reach.top - 1)
        at, size = (at[0] - skipped, at[1]), (size[0] - skipped, size[1])
        region = Region(region.top - skipped, region.left, region.bottom - skipped, region.right)
        program = self._program(block.shape[2])
        block = np.ascontiguousarray(block)
        wide = max(region.shape[1], NARROWEST)
        whole = Region(region.top, region.left, region.bottom, region.left + wide)
        result = np.empty((*whole.shape, program.channels), block.dtype)
        reach = self.prepared.reach
        held = Region(*at, at[0] + block.shape[0], at[1] + block.shape[1])
        sides = (reach.top, reach.left, reach.bottom, reach.right)
        read = Reach(*(pixels + program.margin for pixels in sides))
        for part, direct in parts(whole, held, read, NARROWEST):
            seen = part.grown(read)
            begin, pixels = (seen.top, seen.left), block
            if direct:
                begin = at
            else:
                pixels = extended(block, at, size, seen, self._mode)
            target = result[part.top - whole.top :, part.left - whole.left :][
                : part.shape[0], : part.shape[1]
            ]
            around = reach.top + reach.bottom, reach.left + reach.right
            program(pixels, begin, size, target, (part.top, part.left), around)
        return result if wide == region.shape[1] else np.ascontiguousarray(result[:, : region.shape[1]])

    def _program(self, channels: int) -> Program:
        if channels not in self._programs:
            p = self.prepared
            self._programs[channels] = Program(
                lambda picture: _value(self._layers, picture), channels, self._mode, p.peak, p.divisor
            )
        return self._programs[channels]


class Compiled:
    """A model of local layers for batches, one program for each number of channels."""

    engine = NAME
    device = "cpu"

    def __init__(self, model: Model) -> None:
        self._model = model
        self._layers = edged(model, None).layers
        self._mode = _picture_mode(self._layers)
        self._programs: dict[int, Program] = {}
        self._tracings: dict[int, Tracing] = {}

    def __call__(self, batch: Array) -> Array:
        """Float32 (N, C, H, W) -> float32 output. Raises `ShapeError` where the batch does not fit."""
        x = self._admitted(batch)
        channels = x.shape[1]
        if channels not in self._programs:
            layers = pads_first(self._layers)
            self._programs[channels] = Program(
                lambda picture: _value(layers, picture), channels, _picture_mode(layers)
            )
        program = self._programs[channels]
        height, width = x.shape[2] + program.grown[0], x.shape[3] + program.grown[1]
        results = np.empty((len(x), height, max(width, NARROWEST), program.channels), np.float32)
        for planes, result in zip(x, results, strict=True):
            program(*self._block(planes), x.shape[2:], result, (0, 0))
        return np.ascontiguousarray(results[:, :, :width].transpose(0, 3, 1, 2))

    def trace(self, batch: Array) -> Trace:
        """Every layer's output, from a second program that is made when first asked for."""
        x = self._admitted(batch)
        paths = list(layer_shapes(self._model, x.shape))
        if not paths:
            return Trace({}, x)
        if x.shape[1] not in self._tracings:
            self._tracings[x.shape[1]] = Tracing(self._recorded, x.shape[1], self._mode)
        tracing = self._tracings[x.shape[1]]
        samples = [tracing(*self._block(planes), x.shape[2:]) for planes in x]
        layers = [np.stack(values).transpose(0, 3, 1, 2) for values in zip(*samples, strict=True)]
        return Trace(dict(zip(paths, map(np.ascontiguousarray, layers), strict=True)), x)

    def _recorded(self, picture: Picture) -> list[Value]:
        values: list[Value] = []
        _value(self._model.layers, picture, lambda path, value: values.append(value))
        return values

    def _admitted(self, batch: Any) -> Array:
        x = admit(self._model, batch)
        if x.ndim != 4:
            raise ShapeError(f"the engine halide takes batches (N, C, H, W), got the shape {x.shape}")
        return x

    def _block(self, planes: Array) -> tuple[Array, tuple[int, int]]:
        """A sample (C, H, W) as pixels (h, w, C) with all that is seen beyond its border, and where it begins."""
        pads = [layer.padding for layer in _leaves(self._layers) if isinstance(layer, Pad)]
        rows, columns = (
            [sum(padding[axis][end] for padding in pads) + NARROWEST for end in (0, 1)] for axis in (0, 1)
        )
        mode: Any = _NUMPY_MODES[self._mode]
        pixels = np.pad(planes.transpose(1, 2, 0), (rows, columns, (0, 0)), mode)
        return np.ascontiguousarray(pixels), (-rows[0], -columns[0])
