"""Which engine filters a picture fastest: found out on a small part of the very picture."""

from __future__ import annotations

import sys
from time import perf_counter
from weakref import WeakKeyDictionary

import numpy as np

from diptych.engines import tiled
from diptych.engines.tiled import Region, TiledFilter
from diptych.errors import DiptychError, ModelError
from diptych.filters.applying.tiles import Rows, Window, run
from diptych.images.streams import Whole
from diptych.model.model import Model

__all__ = ["ready"]

SMALL = 1_000_000  # pixels: filtering fewer takes less time than finding out what is fastest
_PART = (256, 2048)  # pixels that are timed, at most
_BAND = 32  # rows

_Key = tuple[str, str, int | None, str | None, bool]
# A model is immutable, so what an engine made of it is kept for as long as the model lives.
_ready: WeakKeyDictionary[Model, dict[_Key, TiledFilter]] = WeakKeyDictionary()


def ready(
    model: Model, engine: str, device: str, peak: int | None, edge: str | None, source: Rows
) -> TiledFilter:
    """The filter on the engine asked for; "auto" times those there are on a part of `source`, once a model.

    Pictures of less than a megapixel are not worth it: ONNX Runtime takes them, NumPy where it cannot.
    PyTorch is timed only where the program has loaded it: it needs more memory than the rest together.
    Halide is not compiled for networks that are too heavy for it.
    """
    made = _ready.setdefault(model, {})
    small = engine == "auto" and source.height * source.width < SMALL
    key = (engine, device, peak, edge, small)
    if key not in made:
        made[key] = _chosen(model, engine, device, peak, edge, None if small else source)
    return made[key]


def _chosen(
    model: Model, engine: str, device: str, peak: int | None, edge: str | None, source: Rows | None
) -> TiledFilter:
    """The engine asked for, else the fastest on `source`, or without one the first that can."""
    if engine != "auto" or device not in ("auto", "cpu"):
        return tiled.compile(model, engine, device, peak=peak, padding_mode=edge)
    found = _all(model, peak, edge, _candidates(model) if source is not None else ("onnxruntime",))
    if not found:
        return tiled.compile(model, "numpy", "cpu", peak=peak, padding_mode=edge)
    if source is None or len(found) == 1:
        return found[0]
    part = _part(source)
    return min(found, key=lambda one: _seconds(one, part))


def _candidates(model: Model) -> tuple[str, ...]:
    there = {"halide", "onnxruntime", *({"torch"} & sys.modules.keys())}
    return tuple(name for name in tiled.automatic(model) if name in there)


def _all(model: Model, peak: int | None, edge: str | None, names: tuple[str, ...]) -> list[TiledFilter]:
    """The filter on each of the engines that are there and can express it."""
    tiled.prepare(
        tiled.with_explicit_padding(model, edge), peak
    )  # what is no filter is said once, by no engine
    found = []
    for name in names:
        try:
            found.append(tiled.compile(model, name, "auto", peak=peak, padding_mode=edge))
        except (DiptychError, ImportError):
            continue
    return found


def _part(source: Rows) -> Rows:
    """At most `_PART` pixels from the middle, read a few rows at a time: those of a wide picture are large."""
    height, width = (min(a, b) for a, b in zip(_PART, (source.height, source.width), strict=True))
    top = (source.height - height) // 2
    bands = range(top, top + height, _BAND)
    rows = [source.rows(row, min(row + _BAND, top + height))[:, :width].copy() for row in bands]
    return Whole(np.concatenate(rows))


def _seconds(tiled_filter: TiledFilter, part: Rows) -> float:
    """For `part`, the better of two runs after a first."""
    region, times = Region(0, 0, part.height, part.width), []
    try:
        for _ in range(3):
            start = perf_counter()
            run(tiled_filter, part, Window(part), region)
            times.append(perf_counter() - start)
    except ModelError:  # an engine that cannot after all
        return float("inf")
    return min(times[1:])
