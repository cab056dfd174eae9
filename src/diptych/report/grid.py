"""The grid of feature maps: every channel of a layer in one figure, numbered, with its scale."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from diptych.options import ScaleRule
from diptych.report.mosaic import (
    Grid,
    Range,
    arrange,
    choose_channels,
    dead_channels,
    finite_range,
    tile,
)
from diptych.report.paper import INK, MUTED, PAPER

__all__ = ["colours", "draw_grid", "header", "number", "written"]


_WIDTH, _NARROWEST, _MARGIN, _HEADER, _LARGEST = 1200, 760, 40, 134, 420
_SMALL = 96  # pixels: narrower tiles have smaller captions


def colours(name: str = "viridis") -> NDArray[np.uint8]:
    """The 256 colours of a matplotlib colour map, (256, 3) uint8."""
    table = matplotlib.colormaps[name](np.arange(256), bytes=True)
    return np.ascontiguousarray(table[:, :3], dtype=np.uint8)


def number(value: float, digits: int = 3) -> str:
    """A value with this many significant digits and a real minus sign, such as −0.125 or 1.2e5."""
    text = f"{value:.{digits}g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
    return text.replace("-", "−")


def numbers(channels: tuple[int, ...], most: int = 10) -> str:
    """Channel numbers for a line of text: "4, 9, 30", cut after `most`."""
    shown = ", ".join(str(c) for c in channels[:most])
    return f"{shown} and {len(channels) - most} more" if len(channels) > most else shown


def written(text: str) -> str:
    """`text` on one line, with a box for each character that the font of figures does not have."""
    known = _characters()
    return "".join(c if ord(c) in known else "□" for c in " ".join(text.split()))


def header(maps: NDArray[Any], title: str, shown: tuple[int, ...]) -> tuple[str, str]:
    """The two lines above a grid: the title with the number of flat channels, and the facts."""
    dead, broken = dead_channels(maps), _broken(maps)
    count = len(maps)
    first = f"{title} — {len(dead)} of {count} flat in this picture" if dead else title
    facts = [f"{count} channel{'s' if count != 1 else ''} of {maps.shape[1]} × {maps.shape[2]}"]
    if len(shown) < count:
        facts[0] += f", the {len(shown)} strongest shown"
    if dead:
        facts.append(f"flat (hatched): {numbers(dead)}")
    if broken:
        facts.append(f"NaN or infinite (magenta): {numbers(broken)}")
    return first, " · ".join(facts)


def draw_grid(maps: NDArray[Any], title: str, scale: ScaleRule) -> Any:
    """The figure of maps (C, H, W) as a Pillow image, as `plots.feature_maps` describes it."""
    from PIL import Image, ImageDraw

    shown = choose_channels(maps)
    grid = _arranged(len(shown), maps.shape[1], maps.shape[2], scale)
    width = max(grid.width + 2 * _MARGIN, _NARROWEST)
    height = _HEADER + grid.height + _MARGIN - 12
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    _write_header(draw, header(maps, title, shown), width)
    limits = finite_range(maps)
    _draw_scale(image, draw, limits if scale == "shared" else None, width)
    left = (width - grid.width) // 2
    table = colours()
    dead, broken = set(dead_channels(maps)), set(_broken(maps))
    for index, channel in enumerate(shown):
        own = limits if scale == "shared" else finite_range(maps[channel])
        top, x = grid.corner(index)
        top, x = top + _HEADER, x + left
        pixels = tile(maps[channel], grid, own, table, channel in dead)
        image.paste(Image.fromarray(pixels), (x, top))
        extremes: tuple[str, ...] = ("flat",) if channel in dead else ("NaN",) if channel in broken else ()
        if scale == "per-map" and not extremes:
            extremes = (number(own.low, 2), number(own.high, 2))
        _write_caption(draw, grid, x, top + grid.tile_height, str(channel), extremes)
    return image


def _broken(maps: NDArray[Any]) -> tuple[int, ...]:
    finite = np.isfinite(maps).reshape(len(maps), -1).all(axis=1)
    return tuple(int(i) for i in np.flatnonzero(~finite))


def _arranged(count: int, height: int, width: int, scale: ScaleRule) -> Grid:
    """The grid with the widest tiles that fit, and captions of as many lines as their width needs."""
    ranges = scale == "per-map"
    for least, gap, caption in ((170, 12, 30), (_SMALL, 12, 44 if ranges else 30)):
        grid = arrange(count, height, width, _WIDTH - 2 * _MARGIN, _LARGEST, gap, caption)
        if grid.tile_width >= least:
            return grid
    return arrange(count, height, width, _WIDTH - 2 * _MARGIN, _LARGEST, 8, 54 if ranges else 22)


def _write_header(draw: Any, lines: tuple[str, str], width: int) -> None:
    space = width - 2 * _MARGIN
    draw.text((_MARGIN, 28), _cut(lines[0], 24, True, space), font=_font(24, True), fill=INK)
    rest, y = lines[1].split(" · "), 70
    while rest and y < 110:
        taken = 1
        while taken < len(rest) and _font(16, False).getlength(" · ".join(rest[: taken + 1])) < space - 300:
            taken += 1
        line = _cut(" · ".join(rest[:taken]), 16, False, space - 290)
        draw.text((_MARGIN, y), line, font=_font(16, False), fill=MUTED)
        rest, y = rest[taken:], y + 23


def _cut(text: str, size: int, bold: bool, space: int) -> str:
    """`text` in characters that the font has, shortened to fit."""
    text, font = written(text), _font(size, bold)
    while len(text) > 8 and font.getlength(text) > space:
        text = text[:-2].rstrip() + "…"
    return text


def _draw_scale(image: Any, draw: Any, limits: Range | None, width: int) -> None:
    from PIL import Image

    bar_width, x, y = 250, width - _MARGIN - 250, 76
    ramp = colours()[np.linspace(0, 255, bar_width).round().astype(int)]
    image.paste(Image.fromarray(np.repeat(ramp[None], 12, axis=0)), (x, y))
    font = _font(14, False)
    low, high = "each map's minimum", "maximum"
    if limits is not None:
        low, high = number(limits.low), number(limits.high)
        draw.text((x + bar_width // 2, y + 17), "all maps", font=font, fill=MUTED, anchor="ma")
    draw.text((x, y + 17), low, font=font, fill=INK)
    draw.text((x + bar_width, y + 17), high, font=font, fill=INK, anchor="ra")


def _write_caption(draw: Any, grid: Grid, x: int, y: int, channel: str, extremes: tuple[str, ...]) -> None:
    """The channel's number in bold, and "flat", "NaN" or its lowest and highest value."""
    small = grid.tile_width < _SMALL
    size = 12 if small else 14
    font, bold = _font(size, False), _font(size, True)
    draw.text((x, y + 4), channel, font=bold, fill=INK)
    if not extremes:
        return
    if len(extremes) == 1 or grid.tile_width >= 170:
        draw.text(
            (x + bold.getlength(channel) + size // 2, y + 4), " … ".join(extremes), font=font, fill=MUTED
        )
        return
    for line, text in enumerate(extremes if small else (" … ".join(extremes),)):
        draw.text((x, y + 20 + 14 * line), text, font=_font(11 if small else 12, False), fill=MUTED)


@lru_cache(maxsize=16)
def _font(size: int, bold: bool) -> Any:
    from PIL import ImageFont

    # Fonts that come with matplotlib give the same letters on every machine.
    return ImageFont.truetype(font_file(bold), size, layout_engine=ImageFont.Layout.BASIC)


def font_file(bold: bool = False) -> str:
    """DejaVu Sans as matplotlib ships it."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name)


@lru_cache(maxsize=1)
def _characters() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(font_file()).get_charmap())
