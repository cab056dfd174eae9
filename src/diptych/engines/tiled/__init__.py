"""Filters run on a part of a picture: the same pixel gets the same bits, whatever part is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

import numpy as np

from diptych.engines.tiled.preparing import (
    PADDING_MODES,
    PreparedFilter,
    halo,
    prepare,
    with_explicit_padding,
)
from diptych.engines.tiled.regions import Halo, Region
from diptych.errors import MissingExtra, UnsupportedLayer
from diptych.model.layers import Array, Conv
from diptych.model.model import Model

__all__ = [
    "OWN",
    "PADDING_MODES",
    "Halo",
    "PreparedFilter",
    "Region",
    "TiledFilter",
    "automatic",
    "compile",
    "halo",
    "prepare",
    "with_explicit_padding",
]

# Engines with a `tiled_filter(model, peak)` of their own, which run nothing but filters.
OWN = ("halide",)
_AUTOMATIC = ("halide", "onnxruntime", "torch", "numpy")

# Multiply-adds a pixel from which on the convolutions of ONNX Runtime are faster than what Halide makes of
# them, and it compiles for as long as a picture of ten megapixels takes.
HEAVY = 4000


class TiledFilter(Protocol):
    """A filter made ready on one engine.

    `cell`: regions made of whole squares of this grid, which begins at the picture's first pixel, are
    computed without waste; 1 where any region is.
    """

    engine: str
    device: str
    prepared: PreparedFilter
    cell: int

    def __call__(self, block: Array, at: tuple[int, int], size: tuple[int, int], region: Region) -> Array:
        """The filtered `region` of a picture of `size` (H, W).

        `block`, (h, w, C), uint8, uint16 or float32, is the part of the picture whose first pixel is
        `at` (row, column). It holds `region` grown by the halo, as far as the picture goes; where the
        filter wraps round, the picture goes on for ever, and `at` may be negative. Gives
        (region height, region width, C') in the same dtype. The same pixel is the same bits whatever the
        region.
        """


def compile(  # noqa: A001 - the engines' common verb
    model: Model,
    engine: str = "auto",
    device: str = "auto",
    *,
    peak: int | None,
    padding_mode: str | None = None,
) -> TiledFilter:
    """Makes a filter ready; `padding_mode` replaces what every `Pad` takes the pixels beyond the border to be.

    `peak`: 255 for uint8 pictures, 65535 for uint16, None for float32 in 0..1 (nothing clipped or rounded).
    `engine` "auto" is the first of `automatic` that can express every layer. Raises `ModelError` for what is
    not a filter, and whatever `engines.compile` raises.
    """
    model.check()
    explicit = with_explicit_padding(model, padding_mode)
    if engine != "auto":
        return _compile(explicit, engine, device, peak)
    for candidate in automatic(model) if device in ("auto", "cpu") else ("torch",):
        try:
            return _compile(explicit, candidate, device, peak)
        except (MissingExtra, UnsupportedLayer) as error:
            refused = error
    raise refused


def automatic(model: Model) -> tuple[str, ...]:
    """The engines that are worth trying on a CPU, the likeliest to be fastest first."""
    weights = [layer.weight for _, layer in model.walk() if isinstance(layer, Conv)]
    heavy = sum(np.count_nonzero(weight) for weight in weights) >= HEAVY
    return _AUTOMATIC[1:] if heavy else _AUTOMATIC


def _compile(model: Model, engine: str, device: str, peak: int | None) -> TiledFilter:
    if engine in OWN:
        own: TiledFilter = import_module(f"diptych.engines.{engine}").tiled_filter(model, peak)
        return own
    from diptych.engines.tiled.running import General

    return General(prepare(model, peak), engine, device)
