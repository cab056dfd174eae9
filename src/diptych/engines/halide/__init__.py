"""The engine halide: compiles a filter to one vectorised loop over strips of the picture.

It runs only filters, that is, local layers with stride 1. `scheduling` describes the loop, and `values` why the value
of a pixel does not depend on the part of the picture that is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diptych.engines.batches import validate_batch
from diptych.engines.halide.extending import extended, parts, seeing
from diptych.engines.halide.fixed import MOST, FixedProgram, Plan, planned
from diptych.engines.halide.lowering import joined, layer_value, pads_first
from diptych.engines.halide.program import Program, Tracing
from diptych.engines.halide.scheduling import NARROWEST
from diptych.engines.halide.values import InputPicture, LayerValue
from diptych.engines.tiled import Halo, PreparedFilter, Region, prepare, with_explicit_padding
from diptych.engines.tiled.preparing import leaves, shrinkage
from diptych.errors import ModelError, ShapeError, UnsupportedLayer
from diptych.model.layers import NUMPY_PAD, Array, Chain, Connection, Container, Layer, Pad, PadMode, fold
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes
from diptych.model.trace import Trace

__all__ = ["DEVICES", "NAME", "Compiled", "Filter", "compile", "tiled_filter"]

NAME = "halide"
DEVICES = ("cpu",)


def compile(model: Model, device: str = "auto") -> Compiled:  # noqa: A001 - the engines' common verb
    """Compiles a model for batches of finite values.

    Args:
        model: Local layers with stride 1 over pictures (C, H, W).
        device: "cpu" or "auto".

    Raises:
        UnsupportedLayer: A layer is not local, or has a stride.
    """
    if model.input_shape is not None and len(model.input_shape) != 3:
        shape = str(model.input_shape)
        reason = "it takes pictures, (channels, height, width)"
        raise UnsupportedLayer(shape, "the engine halide", reason, what="a model for inputs of shape")
    wraps = _picture_mode(model.layers)
    for path, layer in sorted(model.walk(), key=lambda pair: isinstance(pair[1], Container)):
        _explicit(layer, path)
        if isinstance(layer, Pad) and (layer.mode == "wrap") != (wraps == "wrap"):
            where = f"{path} (Pad)"
            raise UnsupportedLayer(where, "the engine halide", "if one Pad wraps round, all must")
    return Compiled(model)


def tiled_filter(model: Model, peak: int | None) -> Filter:
    """Compiles a filter for parts of pictures.

    Args:
        model: The filter.
        peak: As for `diptych.engines.tiled.compile`.

    Raises:
        ModelError: The model is not a filter.
    """
    return Filter(prepare(model, peak), *([0.0] if _is_promised_exact(model) else []))


def _is_promised_exact(model: Model) -> bool:
    """Whether the notes of a learned filter call it exact, which results near to it are not."""
    notes = model.notes.get("filter")
    return isinstance(notes, Mapping) and notes.get("verdict") == "exact"


def _explicit(layer: Layer, path: str = "") -> tuple[Layer, ...]:
    """The layers equal to `layer`, with padding as `Pad`."""
    try:
        return with_explicit_padding(Model(Chain((layer,))), None).layers.layers
    except ModelError as error:
        reason = str(error).split(") ", 1)[-1].split(";", 1)[0]
        raise UnsupportedLayer(
            f"{path} ({type(layer).__name__})", "the engine halide", f"it {reason}"
        ) from error


def _value(layer: Layer, picture: InputPicture, record: Any = None) -> LayerValue:
    raw: LayerValue = picture.raw

    def leaf(layer: Layer, value: LayerValue, path: str) -> LayerValue:
        for part in _explicit(layer):
            value = layer_value(part, value, picture)
        return value

    def join(connection: Connection, values: Sequence[LayerValue], path: str) -> LayerValue:
        return joined(connection, values)

    return fold(layer, raw, leaf, join, record)


def _picture_mode(layers: Chain) -> PadMode | None:
    """The padding mode of the picture itself; None if nothing reads beyond its border."""
    wraps = any(isinstance(layer, Pad) and layer.mode == "wrap" for layer in leaves(layers))
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
    """A `TiledFilter` compiled by Halide.

    Filters of 8 bits are computed in integers where `fixed` proves at most `most` levels of error before rounding.
    Otherwise the filter is divided into stages where intermediate values are padded, because one program for all would
    be slow to compile and to run. In float pictures, every pixel whose halo holds a value that is not finite becomes
    NaN: in the compiled code, the maximum of a number and NaN would depend on their order.
    """

    engine = NAME
    device = "cpu"
    cell = 1

    def __init__(self, prepared: PreparedFilter, most: float = MOST) -> None:
        self.prepared = prepared
        layers = pads_first(prepared.layers)
        fixed = planned(prepared, most)
        chains = [layers] if prepared.wraps or fixed else _cut(layers)
        ends = [(i == 0, i == len(chains) - 1) for i in range(len(chains))]
        self._stages = [_Stage(chain, prepared, *end, fixed) for chain, end in zip(chains, ends, strict=True)]

    def __call__(self, block: Array, at: tuple[int, int], size: tuple[int, int], region: Region) -> Array:
        """See `TiledFilter`."""
        # Halide's indices have 32 bits. Far below the top border, the rows above are left out of a large picture.
        skipped = max(0, at[0] - self.prepared.halo.top - 1)
        at, size = (at[0] - skipped, at[1]), (size[0] - skipped, size[1])
        region = Region(region.top - skipped, region.left, region.bottom - skipped, region.right)
        block = np.ascontiguousarray(block)
        if block.dtype.kind != "f" or (known := np.isfinite(block)).all():
            return self._filtered(block, at, size, region)
        result = self._filtered(np.where(known, block, np.float32(0)), at, size, region)
        result[seeing(~np.asarray(known.all(axis=2)), at, region, self.prepared.halo)] = np.nan
        return result

    def _filtered(self, block: Array, at: tuple[int, int], size: tuple[int, int], region: Region) -> Array:
        if len(self._stages) == 1:
            return self._stages[0](block, at, size, region)
        result: Array | None = None
        for tile in _tiles(region):
            pixels = self._through(block, at, size, tile)
            if result is None:
                result = np.empty((*region.shape, pixels.shape[2]), pixels.dtype)
            rows = slice(tile.top - region.top, tile.bottom - region.top)
            result[rows, tile.left - region.left : tile.right - region.left] = pixels
        assert result is not None
        return result

    def _through(self, block: Array, at: tuple[int, int], size: tuple[int, int], tile: Region) -> Array:
        regions = [tile]
        for stage in self._stages[:0:-1]:
            regions.append(regions[-1].grown(stage.halo).clipped(size))
        for stage, region in zip(self._stages, reversed(regions), strict=True):
            block, at = stage(block, at, size, region), (region.top, region.left)
        return block


_TILE = 256  # side in pixels, for filters of several stages, whose intermediate values have many channels


def _tiles(region: Region) -> list[Region]:
    tops, lefts = range(region.top, region.bottom, _TILE), range(region.left, region.right, _TILE)
    return [Region(y, x, y + _TILE, x + _TILE).common(region) for y in tops for x in lefts]


def _cut(layers: Chain) -> list[Chain]:
    """Divides a filter into stages that keep the size of the picture, with as little padding inside as possible."""
    stages: list[list[Layer]] = [[]]
    grown = [0, 0]
    for layer in layers.layers:
        pads = [leaf for leaf in leaves(layer) if isinstance(leaf, Pad)]
        if pads and stages[-1] and not any(grown):
            stages.append([])
        stages[-1].append(layer)
        if isinstance(layer, Pad):
            grown = [grown[axis] + sum(layer.padding[axis]) for axis in (0, 1)]
        elif not layer.children:
            grown = [grown[axis] - shrinkage(layer)[axis] for axis in (0, 1)]
    return [Chain(tuple(stage)) for stage in stages]


def _padding_halo(layers: Chain) -> Halo:
    """The sum of the padding in a stage, which is at least its halo."""
    pads = [leaf.padding for leaf in leaves(layers) if isinstance(leaf, Pad)]
    rows, columns = (sum(max(padding[axis]) for padding in pads) for axis in (0, 1))
    return Halo(rows, columns, rows, columns)


class _Stage:
    """A filter or part of one. A program for each number of channels is compiled when first needed."""

    def __init__(
        self, layers: Chain, prepared: PreparedFilter, first: bool, last: bool, fixed: Plan | None
    ) -> None:
        self._layers, self._fixed = layers, fixed
        self._mode = _picture_mode(layers)
        self.halo = prepared.halo if first and last else _padding_halo(layers)
        self._peaks = (prepared.peak if first else None, prepared.peak if last else None)
        self._divisors = (prepared.divisor if first else 1, prepared.divisor if last else 1)
        self._programs: dict[int, Program | FixedProgram] = {}

    def __call__(self, block: Array, at: tuple[int, int], size: tuple[int, int], region: Region) -> Array:
        program = self._program(block.shape[2])
        wide = max(region.shape[1], NARROWEST)
        whole = Region(region.top, region.left, region.bottom, region.left + wide)
        result = np.empty((*whole.shape, program.channels), program.dtype)
        held = Region(*at, at[0] + block.shape[0], at[1] + block.shape[1])
        sides = (self.halo.top, self.halo.left, self.halo.bottom, self.halo.right)
        read = Halo(*(pixels + program.margin for pixels in sides))
        for part, direct in parts(whole, held, read, NARROWEST):
            seen = part.grown(read)
            pixels = block if direct else extended(block, at, size, seen, self._mode)
            begin = at if direct else (seen.top, seen.left)
            rows, columns = part.top - whole.top, part.left - whole.left
            target = result[rows : rows + part.shape[0], columns : columns + part.shape[1]]
            halo_size = self.halo.top + self.halo.bottom, self.halo.left + self.halo.right
            program(pixels, begin, size, target, (part.top, part.left), halo_size)
        return result if wide == region.shape[1] else np.ascontiguousarray(result[:, : region.shape[1]])

    def _program(self, channels: int) -> Program | FixedProgram:
        if channels not in self._programs and self._fixed is not None:
            self._programs[channels] = FixedProgram(self._fixed, channels)
        if channels not in self._programs:
            self._programs[channels] = Program(
                lambda picture: _value(self._layers, picture),
                channels,
                self._mode,
                self._peaks,
                self._divisors,
            )
        return self._programs[channels]


class Compiled:
    """A model of local layers for batches, with a program for each number of channels."""

    engine = NAME
    device = "cpu"

    def __init__(self, model: Model) -> None:
        self._model = model
        self._layers = with_explicit_padding(model, None).layers
        self._mode = _picture_mode(self._layers)
        self._programs: dict[int, Program] = {}
        self._tracings: dict[int, Tracing] = {}

    def __call__(self, batch: Array) -> Array:
        """Runs the model.

        Args:
            batch: Float32 (N, C, H, W).

        Returns:
            Float32 (N, C', H', W').

        Raises:
            ShapeError: The model cannot take the batch.
        """
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
        """The output of every layer, by a second program that is compiled when first needed."""
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

    def _recorded(self, picture: InputPicture) -> list[LayerValue]:
        values: list[LayerValue] = []
        _value(self._model.layers, picture, lambda path, layer, value: values.append(value))
        return values

    def _admitted(self, batch: Any) -> Array:
        x = validate_batch(self._model, batch)
        if x.ndim != 4:
            raise ShapeError(f"the engine halide takes batches (N, C, H, W), got the shape {x.shape}")
        return x

    def _block(self, planes: Array) -> tuple[Array, tuple[int, int]]:
        """A sample (C, H, W) as pixels (h, w, C), padded by all that is read, and (row, column) of its first pixel."""
        pads = [layer.padding for layer in leaves(self._layers) if isinstance(layer, Pad)]
        rows, columns = (
            [sum(padding[axis][end] for padding in pads) + NARROWEST for end in (0, 1)] for axis in (0, 1)
        )
        mode: Any = NUMPY_PAD[self._mode or "replicate"]
        pixels = np.pad(planes.transpose(1, 2, 0), (rows, columns, (0, 0)), mode)
        return np.ascontiguousarray(pixels), (-rows[0], -columns[0])
