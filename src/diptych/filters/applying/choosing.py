"""The choice of an engine for a picture: the fastest one on a small part of that picture."""

from __future__ import annotations

import sys
from time import perf_counter
from weakref import WeakKeyDictionary

import numpy as np

from diptych.engines import tiled
from diptych.engines.tiled import Region, TiledFilter
from diptych.engines.tiled.tables import table
from diptych.errors import DiptychError, ModelError
from diptych.filters.applying.tiles import RowBuffer, RowSource, run
from diptych.images.streams import Whole
from diptych.model.model import Model

__all__ = ["ready"]

SMALL = 1_000_000  # pixels; smaller pictures take less time than finding the fastest engine
_TIMED_PART = (256, 2048)  # (height, width) that is timed, at most
_ROWS_AT_ONCE = 32

_Key = tuple[str, str, int | None, str | None, bool]
# Models are immutable, so a compiled filter is valid as long as its model lives.
_cache: WeakKeyDictionary[Model, dict[_Key, TiledFilter]] = WeakKeyDictionary()


def ready(
    model: Model, engine: str, device: str, peak: int | None, padding_mode: str | None, source: RowSource
) -> TiledFilter:
    """Compiles a filter for an engine; "auto" chooses the fastest on a part of `source`.

    The choice is made once for each model and kept as long as the model lives. Pictures of less than a megapixel
    are not timed: ONNX Runtime takes them, or NumPy where it cannot. PyTorch is timed only where the program has
    imported it, because it needs more memory than all others together. Halide is not compiled for networks that
    are too heavy for it.

    Args:
        model: The filter.
        engine: The name of an engine, or "auto".
        device: "auto", "cpu", "cuda" or "mps".
        peak: 255, 65535, or None for floats in 0..1.
        padding_mode: The padding mode that replaces the model's own, or None.
        source: The picture.

    Returns:
        The compiled filter, from a cache where it has been compiled before.

    Raises:
        ModelError: The model is not a filter.
        UsageError: There is no such engine, device or padding mode.
    """
    compiled = _cache.setdefault(model, {})
    small = engine == "auto" and source.height * source.width < SMALL
    key = (engine, device, peak, padding_mode, small)
    if key not in compiled:
        compiled[key] = _chosen(model, engine, device, peak, padding_mode, None if small else source)
    return compiled[key]


def _chosen(
    model: Model,
    engine: str,
    device: str,
    peak: int | None,
    padding_mode: str | None,
    source: RowSource | None,
) -> TiledFilter:
    """The filter on the named engine; for "auto" the fastest on `source`, or the first without a source."""
    if engine != "auto" or device not in ("auto", "cpu"):
        return tiled.compile(model, engine, device, peak=peak, padding_mode=padding_mode)
    looked_up = table(tiled.prepare(tiled.with_explicit_padding(model, padding_mode), peak))
    if looked_up is not None:
        return looked_up
    found = _compiled(
        model, peak, padding_mode, _candidates(model) if source is not None else ("onnxruntime",)
    )
    if not found:
        return tiled.compile(model, "numpy", "cpu", peak=peak, padding_mode=padding_mode)
    if source is None or len(found) == 1:
        return found[0]
    part = _part(source)
    return min(found, key=lambda one: _seconds(one, part))


def _candidates(model: Model) -> tuple[str, ...]:
    there = {"halide", "onnxruntime", *({"torch"} & sys.modules.keys())}
    return tuple(name for name in tiled.automatic(model) if name in there)


def _compiled(
    model: Model, peak: int | None, padding_mode: str | None, names: tuple[str, ...]
) -> list[TiledFilter]:
    """The filter on each of the engines that are installed and support all of its layers."""
    tiled.prepare(
        tiled.with_explicit_padding(model, padding_mode), peak
    )  # raises once for a model that is not a filter
    found = []
    for name in names:
        try:
            found.append(tiled.compile(model, name, "auto", peak=peak, padding_mode=padding_mode))
        except (DiptychError, ImportError):
            continue
    return found


def _part(source: RowSource) -> RowSource:
    """The middle of the picture, at most `_TIMED_PART`; read a few rows at a time, as wide rows are large."""
    height, width = (min(a, b) for a, b in zip(_TIMED_PART, (source.height, source.width), strict=True))
    top = (source.height - height) // 2
    bands = range(top, top + height, _ROWS_AT_ONCE)
    rows = [source.rows(row, min(row + _ROWS_AT_ONCE, top + height))[:, :width].copy() for row in bands]
    return Whole(np.concatenate(rows))


def _seconds(tiled_filter: TiledFilter, part: RowSource) -> float:
    """The time for `part`: the better of two runs after a first; infinite where the engine fails."""
    region, times = Region(0, 0, part.height, part.width), []
    try:
        for _ in range(3):
            start = perf_counter()
            run(tiled_filter, part, RowBuffer(part), region)
            times.append(perf_counter() - start)
    except ModelError:  # the engine fails after all
        return float("inf")
    return min(times[1:])
