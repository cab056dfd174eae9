"""What notebooks show of the results: HTML without scripts, in which everything from outside is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["figure", "heading", "maps_of", "paragraph", "picture", "strip", "table"]

Array = NDArray[Any]

_MOST_MAPS, _TILE, _GAP, _COLUMNS = 16, 96, 3, 8


def heading(text: str) -> str:
    """A line in bold."""
    return f"<p><strong>{escape(text)}</strong></p>"


def paragraph(text: str) -> str:
    """A line."""
    return f"<p>{escape(text)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], most: int = 60) -> str:
    """A table; of more than `most` rows the first ones, and how many are left out."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows[:most]
    )
    left = paragraph(f"and {len(rows) - most} more") if len(rows) > most else ""
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{left}"


def picture(pixels: Array, alt: str) -> str:
    """A picture, uint8 (H, W, 3) or (H, W), as a PNG inside the HTML."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alt, quote=True)}">'


def figure(width: float, height: float) -> Any:
    """A figure of matplotlib, in inches, that a notebook shows without pyplot."""
    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", dpi=110)
            return stream.getvalue()

    return Shown(figsize=(width, height), layout="constrained")


def strip(values: Array, alt: str) -> str:
    """The first channels of one sample side by side, each in the colours of its own range."""
    import matplotlib
    from PIL import Image

    maps = maps_of(values)[:_MOST_MAPS]
    colours = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
    rows = -(-len(maps) // _COLUMNS)
    columns = min(len(maps), _COLUMNS)
    step = _TILE + _GAP
    sheet = np.full((rows * step - _GAP, columns * step - _GAP, 3), 255, np.uint8)
    for number, each in enumerate(maps):
        low, high = float(np.nanmin(each)), float(np.nanmax(each))
        scaled = (each - low) / (high - low) if high > low else np.zeros_like(each)
        cells = Image.fromarray(colours[np.rint(np.nan_to_num(scaled) * 255).astype(np.uint8)])
        tile = np.asarray(cells.resize((_TILE, _TILE), Image.Resampling.NEAREST))
        top, left = number // _COLUMNS * step, number % _COLUMNS * step
        sheet[top : top + _TILE, left : left + _TILE] = tile
    return picture(sheet, alt)


def maps_of(values: Array) -> Array:
    """The first sample of (N, C, H, W), (N, C, W) or (N, C) as maps (C, H, W)."""
    sample = values[0] if values.ndim > 1 else values
    if sample.ndim < 2:
        return sample.reshape(1, 1, -1)
    return sample[:, None, :] if sample.ndim == 2 else sample.reshape(len(sample), sample.shape[-2], -1)
