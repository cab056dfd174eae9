"""The pictures on which a filter is judged, and which nothing is learned from.

Photographs and made pictures of all hues; two are grey.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from diptych.datasets.photographs import photograph
from diptych.model.layers import Array

__all__ = ["HELD_OUT", "held_out_picture"]

_SIDE = 256
_FOLDER = Path(__file__).parent / "pictures"


def held_out_picture(name: str) -> Array:
    """A picture of `HELD_OUT`: uint8, (H, W, 3), or (H, W) for the grey ones."""
    return _MAKERS[name]()


def _of_scikit_image(name: str) -> Callable[[], Array]:
    return lambda: photograph(name)


def _in_the_box(name: str) -> Callable[[], Array]:
    def opened() -> Array:
        from PIL import Image

        with Image.open(_FOLDER / f"{name}.png") as image:
            return np.asarray(image)

    return opened


def _painted(prompt: str) -> Callable[[], Array]:
    def paint() -> Array:
        from diptych.images import scenes

        return scenes.paint(prompt, width=_SIDE, height=_SIDE).pixels

    return paint


def _levels(values: Array) -> Array:
    levels: Array = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
    return levels


def _hues() -> Array:
    """Every hue across; from black over the full colour to white downwards."""
    wheel = np.array([colorsys.hsv_to_rgb(column / _SIDE, 1, 1) for column in range(_SIDE)])
    down = np.linspace(0, 2, _SIDE)[:, None, None]
    return _levels(wheel * np.minimum(down, 1) + (1 - wheel) * np.maximum(down - 1, 0))


def _neon() -> Array:
    """Strokes of light in saturated colours, each with its glow, on a dark ground."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:_SIDE, :_SIDE]
    light = np.full((_SIDE, _SIDE, 3), 0.03)
    for stroke in range(12):
        (y, x), (down, across) = random.uniform(0, _SIDE, 2), random.uniform(-90, 90, 2)
        along = np.clip(((rows - y) * down + (columns - x) * across) / (down**2 + across**2), 0, 1)
        distance = np.hypot(rows - y - along * down, columns - x - along * across)
        colour = np.array(colorsys.hsv_to_rgb(stroke / 12, 0.95, 1))
        light += np.exp(-distance / 9)[..., None] * colour * 0.8 + (distance < 1.5)[..., None] * (
            0.4 + 0.6 * colour
        )
    return _levels(light)


def _words() -> Array:
    """Lines of text in many colours on many grounds."""
    from PIL import Image, ImageDraw, ImageFont

    random = np.random.default_rng(1)
    image = Image.new("RGB", (_SIDE, _SIDE))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default_imagefont()
    for top in range(0, _SIDE, 16):
        ground, ink = (tuple(random.integers(0, 256, 3).tolist()) for _ in range(2))
        draw.rectangle((0, top, _SIDE, top + 15), fill=ground)
        text = "".join(chr(code) for code in random.integers(33, 127, _SIDE // 6))
        draw.text((2, top + 2), text, fill=ink, font=font)
    return np.asarray(image)


_MAKERS: Mapping[str, Callable[[], Array]] = {
    **{name: _of_scikit_image(name) for name in ("camera", "chelsea", "coffee", "motorcycle", "page")},
    **{name: _in_the_box(name) for name in ("china", "flower", "hopper")},
    "forest": _painted("a forest in summer"),
    "sunset": _painted("a lake at sunset"),
    "hues": _hues,
    "neon": _neon,
    "words": _words,
}
HELD_OUT = tuple(_MAKERS)
"""Names; skin and fur, foliage and flowers, buildings, machines, night, text and gradients."""
