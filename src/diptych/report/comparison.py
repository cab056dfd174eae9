"""The page of a comparison: the activations of both models where they differ first, and the likely cause."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.comparing import Comparison, LayerPair
from diptych.comparing.comparison import short
from diptych.files import encoded
from diptych.report.mosaic import Range, arrange, finite_range, tile
from diptych.report.sliding import Sliding, as_maps, most_apart, sliding
from diptych.report.templates import render_template, write_page

__all__ = ["render_comparison", "write_comparison"]

Array = NDArray[Any]

_SPACE, _MOST_MAPS, _MOST_VALUES = 560, 16, 256
_DECADES = 8  # the strip of differences reaches from 1e-8 to 1


@dataclass(frozen=True)
class _Panel:
    """One image of the page: a data: URL, its size, and what it shows."""

    url: str
    width: int
    height: int
    name: str
    alt: str
    range: str


@dataclass(frozen=True)
class _Plate:
    """The two panels, the map of their difference where the shapes are equal, and the caption."""

    sides: tuple[_Panel, _Panel]
    difference: _Panel | None
    caption: str


def write_comparison(path: str | Path, comparison: Comparison) -> None:
    """Writes the page as one self-contained file; raises `OutputError` where it cannot be written."""
    write_page(path, render_comparison(comparison))


def render_comparison(comparison: Comparison) -> str:
    """The page as HTML, in which everything from outside is escaped."""
    return render_template(
        "comparison.html.j2",
        {"short": _short, "shape": lambda shape: " × ".join(map(str, shape)), "height": _height},
        comparison=comparison,
        plate=_plate(comparison),
        slider=_sliding(comparison),
        given=_picture(comparison),
        verdict=_verdict(comparison),
        heading=_heading(comparison),
        layer=_layer,
    )


# ---- The two panels -----------------------------------------------------------------------------------


def _plate(comparison: Comparison) -> _Plate | None:
    if not comparison.sides:
        return None
    maps = [as_maps(values) for values in comparison.sides[_shown(comparison)]]
    alike = maps[0].shape == maps[1].shape
    chosen = _chosen(*maps) if alike else tuple(range(min(len(m) for m in maps)))[:_MOST_MAPS]
    shown = [m[list(chosen)] for m in maps]
    limits = finite_range(np.concatenate([m.ravel() for m in shown]))
    names = ("A", "B")
    panels = [
        _panel(m, limits, "viridis", name, f"What {name} gives, {_range(finite_range(m))}")
        for m, name in zip(shown, names, strict=True)
    ]
    difference = None
    if alike:
        apart = np.abs(shown[0] - shown[1])
        own = finite_range(apart)
        alt = f"The difference of both, absolute, {_range(own)}"
        difference = _panel(apart, Range(0.0, own.high), "magma", "|A − B|", alt)
    return _Plate((panels[0], panels[1]), difference, _caption(chosen, maps[0], comparison))


def _shown(comparison: Comparison) -> int:
    """The number of the layer that is shown first: where the models part, or the last."""
    return len(comparison.layers) - 1 if comparison.parting is None else comparison.parting


def _sliding(comparison: Comparison) -> Sliding | None:
    labels = [f"{pair.path} · {_layer(pair)}" for pair in comparison.layers]
    return sliding(comparison.sides, labels, _shown(comparison)) if comparison.sides else None


def _picture(comparison: Comparison) -> _Panel | None:
    """The picture that both were given, at most 640 pixels wide or high."""
    if comparison.picture is None:
        return None
    from PIL import Image

    image = Image.fromarray(comparison.picture)
    image.thumbnail((640, 640))
    data = encoded(image, format="WEBP", quality=85, method=4)
    url = f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}"
    height, width = comparison.picture.shape[:2]
    words = f"{width} × {height} pixels"
    return _Panel(
        url, image.width, image.height, "The picture", f"The picture that was given, {words}", words
    )


def _chosen(a: Array, b: Array) -> tuple[int, ...]:
    return most_apart(a, b, _MOST_VALUES if a.shape[1:] == (1, 1) else _MOST_MAPS)


def _panel(maps: Array, limits: Range, colour_map: str, name: str, alt: str) -> _Panel:
    """The maps as one PNG, transparent between them, so that it suits light and dark pages."""
    from PIL import Image

    from diptych.report.grid import colours

    grid = arrange(len(maps), maps.shape[1], maps.shape[2], _SPACE, 260, 6, 6)
    table = colours(colour_map)
    pixels = np.zeros((grid.height - grid.caption, grid.width, 4), np.uint8)
    for index, each in enumerate(maps):
        top, left = grid.corner(index)
        area = pixels[top : top + grid.tile_height, left : left + grid.tile_width]
        area[..., :3] = tile(each, grid, limits, table, dead=False)
        area[..., 3] = 255
    data = encoded(Image.fromarray(pixels), format="PNG", optimize=True)
    url = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
    return _Panel(url, pixels.shape[1], pixels.shape[0], name, alt, _range(limits))


# ---- Wording ------------------------------------------------------------------------------------------


def _heading(comparison: Comparison) -> str:
    where = comparison.first_divergence
    if where is None:
        return "A and B agree"
    return "A and B differ at the input" if where == "input" else f"A and B differ first at layer {where}"


def _verdict(comparison: Comparison) -> str:
    if comparison.agrees:
        return "They give the same values"
    if not comparison.causes:
        return "No known cause explains it"
    names = " and ".join(dict.fromkeys(cause.name for cause in comparison.causes))
    return names[0].upper() + names[1:]


def _caption(chosen: tuple[int, ...], maps: Array, comparison: Comparison) -> str:
    what = "values" if maps.shape[1:] == (1, 1) else "channels"
    if len(chosen) == len(maps):
        which = f"all {len(maps)} {what}" if len(maps) > 1 else "the one channel"
    else:
        which = f"the {len(chosen)} of {len(maps)} {what} that differ most"
    first = comparison.first_divergence
    where = "the result" if first is None else "the input" if first == "input" else f"layer {first}"
    return f"Both models at {where}, sample {comparison.sample} of the batch: {which}, on one colour scale."


def _layer(pair: LayerPair) -> str:
    names = [name for name in (pair.layer_a, pair.layer_b) if name]
    return " | ".join(dict.fromkeys(names)).replace("->", "→")


def _range(limits: Range) -> str:
    return f"{limits.low:.3g} … {limits.high:.3g}".replace("-", "−")


def _short(value: float) -> str:
    return short(value).replace("-", "−") if math.isfinite(value) else "–"


def _height(value: float) -> str:
    """A difference on the logarithmic scale of the strip, as a percentage of its height."""
    if not math.isfinite(value):
        return "100%"
    if value <= 0:
        return "0%"
    return f"{100 * min(max((math.log10(value) + _DECADES) / _DECADES, 0.0), 1.0):.1f}%"
