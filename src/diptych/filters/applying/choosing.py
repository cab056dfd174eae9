"""Which engine filters a picture fastest: found out on a small part of the very picture."""

from __future__ import annotations

import sys
from time import perf_counter
from weakref import WeakKeyDictionary

from diptych.engines import regional as regionals
from diptych.engines.regional import Region, Regional
from diptych.errors import DiptychError, ModelError
from diptych.filters.applying.tiles import Rows, Window, run
from diptych.model.model import Model

__all__ = ["ready"]

SMALL = 1_000_000  # pixels: filtering fewer takes less time than finding out what is fastest
_PART = (256, 2048)  # pixels that are timed, at most

_Key = tuple[str, str, int | None, str | None]
# A model is immutable, so what an engine made of it is kept for as long as the model lives.
_ready: WeakKeyDictionary[Model, dict[_Key, Regional]] = WeakKeyDictionary()


def ready(
    model: Model, engine: str, device: str, peak: int | None, edge: str | None, source: Rows
) -> Regional:
    """The filter on the engine asked for; "auto" times those there are on a part of `source`, once a model.

    Pictures of less than a megapixel are not worth it: ONNX Runtime takes them, NumPy where it cannot.
    PyTorch is timed only where the program has loaded it: it needs more memory than the rest together.
    """
    made = _ready.setdefault(model, {})
    key = (engine, device, peak, edge)
    if key in made:
        return made[key]
    if engine != "auto" or device not in ("auto", "cpu"):
        made[key] = regionals.compile(model, engine, device, peak=peak, edge=edge)
        return made[key]
    small = source.height * source.width < SMALL
    found = _all(model, peak, edge, ("onnxruntime",) if small else _candidates())
    if not found:
        found = [regionals.compile(model, "numpy", "cpu", peak=peak, edge=edge)]
    if small:
        return found[0]
    made[key] = found[0] if len(found) == 1 else min(found, key=lambda one: _seconds(one, source))
    return made[key]


def _candidates() -> tuple[str, ...]:
    return ("halide", "onnxruntime", *(("torch",) if "torch" in sys.modules else ()))


def _all(model: Model, peak: int | None, edge: str | None, names: tuple[str, ...]) -> list[Regional]:
    """The filter on each of the engines that are there and can express it."""
    regionals.prepare(regionals.edged(model, edge), peak)  # what is no filter is said once, by no engine
    found = []
    for name in names:
        try:
            found.append(regionals.compile(model, name, "auto", peak=peak, edge=edge))
        except (DiptychError, ImportError):
            continue
    return found


def _seconds(regional: Regional, source: Rows) -> float:
    """For a part from the middle, the better of two runs after a first."""
    height, width = (min(a, b) for a, b in zip(_PART, (source.height, source.width), strict=True))
    top = (source.height - height) // 2 // regional.cell * regional.cell
    region, window = Region(top, 0, min(top + height, source.height), width), Window(source)
    times = []
    try:
        for _ in range(3):
            start = perf_counter()
            run(regional, source, window, region)
            times.append(perf_counter() - start)
    except ModelError:  # an engine that cannot after all
        return float("inf")
    return min(times[1:])
