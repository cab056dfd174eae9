"""Runs filters on parts of a picture. The value of a pixel does not depend on the part, to the last bit."""

from __future__ import annotations

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
from diptych.extras import imported
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

# Engines that run only filters, by their own `tiled_filter(model, peak)`.
OWN = ("halide",)
_AUTOMATIC = ("halide", "onnxruntime", "torch", "numpy")

# Multiply-adds per pixel from which ONNX Runtime is faster than Halide, whose compilation then takes as long as
# filtering a picture of ten megapixels.
HEAVY = 4000


class TiledFilter(Protocol):
    """A filter compiled for one engine.

    Attributes:
        engine, device: Their names.
        prepared: The prepared filter.
        cell: The side in pixels of the grid of squares, beginning at the first pixel of the picture, on which the
            engine computes. A region of whole squares is computed without waste; 1 if every region is.
    """

    engine: str
    device: str
    prepared: PreparedFilter
    cell: int

    def __call__(self, block: Array, at: tuple[int, int], size: tuple[int, int], region: Region) -> Array:
        """Computes a region of the filtered picture.

        Args:
            block: A part of the picture, (h, w, C), uint8, uint16 or float32. It holds `region` grown by the halo and
                clipped to the picture. If the filter wraps round, the picture is periodic, and nothing is clipped.
            at: (row, column) of the first pixel of `block`; may be negative if the filter wraps round.
            size: (height, width) of the whole picture.
            region: What to compute.

        Returns:
            (region height, region width, C') in the dtype of `block`. Each pixel has the same bits whatever the region.
        """


def compile(  # noqa: A001 - the engines' common verb
    model: Model,
    engine: str = "auto",
    device: str = "auto",
    *,
    peak: int | None,
    padding_mode: str | None = None,
) -> TiledFilter:
    """Compiles a filter for one engine.

    Args:
        model: The filter.
        engine: The name of an engine, or "auto" for the first of `automatic` that can express every layer.
        device: The name of a device, or "auto".
        peak: The highest level of the pictures: 255 for uint8, 65535 for uint16, None for float32 in 0..1, which are
            neither clipped nor rounded.
        padding_mode: Replaces the mode of every `Pad`; one of `PADDING_MODES`.

    Returns:
        The compiled filter.

    Raises:
        ModelError: The model is not a filter.
        UsageError: The engine, device or padding mode is unknown.
        MissingExtra: The engine is not installed.
        UnsupportedLayer: The engine cannot express a layer.
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
    """The engines worth trying on a CPU, the one that is probably fastest first."""
    weights = [layer.weight for _, layer in model.walk() if isinstance(layer, Conv)]
    heavy = sum(np.count_nonzero(weight) for weight in weights) >= HEAVY
    return _AUTOMATIC[1:] if heavy else _AUTOMATIC


def _compile(model: Model, engine: str, device: str, peak: int | None) -> TiledFilter:
    if engine in OWN:
        own: TiledFilter = imported(f"diptych.engines.{engine}").tiled_filter(model, peak)
        return own
    from diptych.engines.tiled.running import General

    return General(prepare(model, peak), engine, device)
