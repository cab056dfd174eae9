"""Figures in the style of this package, and their PNG files, without changing matplotlib's global state.

The same input gives the same bytes: fonts are matplotlib's own, settings are its defaults and `STYLE`, whatever
the user's matplotlibrc says, and no date or program name is written. All files are light, for paper and slides; the
report makes dark versions for dark screens.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diptych.files import encoded, replacing
from diptych.report.grid import written
from diptych.report.paper import INK, MUTED, PAPER, PHOTOGRAPHS

__all__ = ["STYLE", "headline", "new_figure", "save", "save_image"]

_DPI = 150
_LOCK = threading.Lock()
# Settings of windows and of the process, which do not affect what a figure looks like.
_ELSEWHERE = ("backend", "webagg", "tk.", "date.", "animation", "keymap", "toolbar", "interactive")
STYLE: dict[Any, Any] = {
    **{key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(_ELSEWHERE)},
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 7.0,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "image.cmap": "viridis",
    "image.interpolation": "nearest",
}


class _Shown(Figure):
    """A figure that a notebook shows without a window backend."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png")
        return stream.getvalue()


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of this size in inches, in the style of this package, while the block runs."""
    # rc_context changes the whole process: two threads must not draw at once.
    with _LOCK, matplotlib.rc_context(STYLE):
        figure = _Shown(figsize=(width, height), dpi=_DPI)
        FigureCanvasAgg(figure)
        yield figure


def save(figure: Figure, path: str | Path) -> None:
    """Writes the figure as a PNG file that records where its photographs are, which stay light on dark paper."""
    from PIL import Image

    canvas: Any = figure.canvas
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    height = len(pixels)
    boxes = []
    for axes in figure.axes:
        # Grey photographs look like lettering when the figure is darkened, so their places are recorded.
        if any(np.asarray(image.get_array()).dtype == np.uint8 for image in axes.images):
            box = axes.get_window_extent()
            boxes.append(f"{round(box.x0)} {height - round(box.y1)} {round(box.x1)} {height - round(box.y0)}")
    save_image(Image.fromarray(pixels), path, "; ".join(boxes))


def save_image(image: Any, path: str | Path, photographs: str = "") -> None:
    """Writes a Pillow image as a PNG file; `photographs` is the text under `PHOTOGRAPHS`."""
    from PIL.PngImagePlugin import PngInfo

    information = PngInfo()
    if photographs:
        information.add_text(PHOTOGRAPHS, photographs)
    with replacing(path) as temporary:
        # Level 3 takes half the time of the default 6 for a few per cent more bytes.
        temporary.write_bytes(encoded(image, format="PNG", compress_level=3, pnginfo=information))


def headline(figure: Figure, title: str, facts: str) -> None:
    """Writes the title of a figure and the line of facts under it."""
    height = figure.get_figheight()
    figure.text(0.06, 1 - 0.3 / height, written(title), size=11.5, weight="bold", va="center")
    figure.text(0.06, 1 - 0.53 / height, written(facts), color=MUTED, va="center")
