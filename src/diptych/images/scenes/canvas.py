"""A canvas that is painted at a higher resolution and reduced at the end, so that edges are smooth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from diptych.images.scenes.rng import cosine, sine

Colour = tuple[int, int, int]
Point = tuple[float, float]
Stops = Sequence[tuple[float, Colour]]
Bytes = npt.NDArray[np.uint8]

_ALONG = (-1.0, -0.94, -0.85, -0.7, -0.5, 0.0, 0.5, 0.7, 0.85, 0.94, 1.0)
_CIRCLE = tuple((cosine(i / 40), sine(i / 40)) for i in range(40))


def mix(a: Colour, b: Colour, t: float) -> Colour:
    """a + (b - a) t, the colour between a (t = 0) and b (t = 1)."""
    return (
        int(a[0] + (b[0] - a[0]) * t + 0.5),
        int(a[1] + (b[1] - a[1]) * t + 0.5),
        int(a[2] + (b[2] - a[2]) * t + 0.5),
    )


def ramp(stops: Stops, count: int) -> npt.NDArray[np.float32]:
    """Colours interpolated between the stops, whose positions go from 0 to 1: float32 (count, 3)."""
    position = (np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count)
    colours = np.empty((count, 3), np.float32)
    colours[:] = stops[0][1]
    for (p0, c0), (p1, c1) in pairwise(stops):
        part = np.minimum(np.maximum((position - np.float32(p0)) / np.float32(p1 - p0), 0), 1)
        colours += part[:, None] * np.array((c1[0] - c0[0], c1[1] - c0[1], c1[2] - c0[2]), np.float32)
    return colours


@lru_cache(maxsize=1)
def _falloff() -> Image.Image:
    """A soft round spot, 128 pixels wide: (1 - r^2)^2."""
    axis = (np.arange(128, dtype=np.float64) - 63.5) / 64.0
    inside = np.maximum(0.0, 1.0 - axis[:, None] * axis[:, None] - axis[None, :] * axis[None, :])
    return Image.fromarray((inside * inside * 255.0 + 0.5).astype(np.uint8))


@lru_cache(maxsize=1)
def _dither() -> npt.NDArray[np.float32]:
    """Bayer's 8 x 8 thresholds in (0, 1), which hide the steps of slow gradients."""
    tile = np.array([[0]])
    for _ in range(3):
        tile = np.block([[4 * tile, 4 * tile + 2], [4 * tile + 3, 4 * tile + 1]])
    return ((tile + 0.5) / 64.0).astype(np.float32)


@lru_cache(maxsize=256)
def _weakened(strength: float) -> list[int]:
    return [int(i * strength + 0.5) for i in range(256)]


def _supersampling(longest: int) -> int:
    return 4 if longest <= 256 else 3 if longest <= 700 else 2 if longest <= 2600 else 1


class Canvas:
    """A canvas in units of the shorter side of the picture. x grows to the right, y downwards.

    Attributes:
        w, h: The width and height, of which the smaller is 1.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        unit = min(width, height)
        self.w, self.h = width / unit, height / unit
        self.factor = _supersampling(max(width, height))
        self.scale = float(unit * self.factor)
        self.pixel = 1.0 / unit
        self.image = Image.new("RGB", (width * self.factor, height * self.factor))
        self._draw = ImageDraw.Draw(self.image, "RGBA")

    # ---- flat shapes

    def _place(self, points: Iterable[Point]) -> list[tuple[int, int]]:
        s = self.scale
        return [(int(x * s + 0.5 + 65536) - 65536, int(y * s + 0.5 + 65536) - 65536) for x, y in points]

    def polygon(self, points: Iterable[Point], colour: Colour, alpha: float = 1.0) -> None:
        """A filled polygon."""
        self._draw.polygon(self._place(points), fill=(*colour, int(alpha * 255 + 0.5)))

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, alpha: float = 1.0) -> None:
        """A filled rectangle, at least one sample wide and high."""
        (a, b), (c, d) = self._place(((x0, y0), (x1, y1)))
        self._draw.rectangle((a, b, max(a, c - 1), max(b, d - 1)), fill=(*colour, int(alpha * 255 + 0.5)))

    def rects(self, boxes: Iterable[tuple[float, float, float, float]], colour: Colour) -> None:
        """Many opaque rectangles of one colour."""
        s, fill = self.scale, (*colour, 255)
        for x0, y0, x1, y1 in boxes:
            a, b = int(x0 * s + 0.5), int(y0 * s + 0.5)
            self._draw.rectangle((a, b, max(a, int(x1 * s + 0.5) - 1), max(b, int(y1 * s + 0.5) - 1)), fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, alpha: float = 1.0) -> None:
        """A filled ellipse around (x, y)."""
        (a, b), (c, d) = self._place(((x - rx, y - ry), (x + rx, y + ry)))
        self._draw.ellipse((a, b, max(a, c - 1), max(b, d - 1)), fill=(*colour, int(alpha * 255 + 0.5)))

    def line(self, points: Sequence[Point], width: float, colour: Colour, alpha: float = 1.0) -> None:
        """An open line of this width, or of one sample if that is wider."""
        thick = max(1, int(width * self.scale + 0.5))
        ink = (*colour, int(alpha * 255 + 0.5))
        self._draw.line(self._place(points), fill=ink, width=thick, joint="curve" if thick > 2 else None)

    def stroke(
        self, x: float, y: float, half: float, thick: float, colour: Colour, alpha: float = 1.0
    ) -> None:
        """A horizontal brush stroke with pointed ends."""
        t = thick * 0.5
        if t * self.scale < 3:
            k = half * 0.55
            over = [(x - half, y), (x - k, y - t), (x + k, y - t), (x + half, y)]
        else:
            over = [(x + half * u, y - t * (1 - u * u * u * u)) for u in _ALONG]
        self.polygon([*over, *((px, 2 * y - py) for px, py in reversed(over))], colour, alpha)

    # ---- shaded shapes

    def shade(self, shapes: Sequence[Sequence[Point]], stops: Stops, alpha: float = 1.0) -> None:
        """Polygons filled with a common vertical gradient, from their highest to their lowest point."""
        placed = [self._place(shape) for shape in shapes]
        width, height = self.image.size
        xs, ys = zip(*(point for shape in placed for point in shape), strict=True)
        top, bottom = min(ys), max(ys)
        left, right = max(0, min(xs)), min(width, max(xs) + 1)
        y0, y1 = max(0, top), min(height, bottom + 1)
        if y1 <= y0 or right <= left:
            return
        mask = Image.new("L", (right - left, y1 - y0))
        pen = ImageDraw.Draw(mask)
        for shape in placed:
            pen.polygon([(x - left, y - y0) for x, y in shape], fill=int(alpha * 255 + 0.5))
        column = (ramp(stops, max(1, bottom + 1 - top))[y0 - top : y1 - top] + np.float32(0.5)).astype(
            np.uint8
        )
        paint = Image.fromarray(column[:, None, :]).resize(mask.size, Image.Resampling.NEAREST)
        self.image.paste(paint, (left, y0), mask)

    def disc(self, x: float, y: float, r: float, stops: Stops) -> None:
        """A round shape with a vertical gradient."""
        self.shade([[(x + r * c, y + r * s) for c, s in _CIRCLE]], stops)

    def glow(self, x: float, y: float, rx: float, ry: float, colour: Colour, strength: float) -> None:
        """A soft elliptical spot of light or mist over what is already painted."""
        a, b = int(rx * self.scale), int(ry * self.scale)
        if a < 1 or b < 1:
            return
        cx, cy = int(x * self.scale), int(y * self.scale)
        left, top = max(0, cx - a), max(0, cy - b)
        right, bottom = min(self.image.width, cx + a), min(self.image.height, cy + b)
        if right <= left or bottom <= top:
            return
        box = (
            (left - cx + a) * 64 / a,
            (top - cy + b) * 64 / b,
            (right - cx + a) * 64 / a,
            (bottom - cy + b) * 64 / b,
        )
        spot = _falloff().resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=box)
        self.image.paste(colour, (left, top), spot.point(_weakened(strength)))

    def veil(self, y0: float, y1: float, colour: Colour, a0: float, a1: float) -> None:
        """A band across the picture whose opacity goes from a0 at y0 to a1 at y1."""
        (_, top), (_, bottom) = self._place(((0, y0), (0, y1)))
        first, last = max(0, top), min(self.image.height, bottom)
        if last <= first:
            return
        t = (np.arange(first, last) - top + 0.5) / (bottom - top)
        alpha = ((a0 + (a1 - a0) * t) * 255.0 + 0.5).astype(np.uint8)
        size = (self.image.width, last - first)
        mask = Image.fromarray(alpha[:, None]).resize(size, Image.Resampling.NEAREST)
        self.image.paste(colour, (0, first), mask)

    # ---- whole rows of finished pixels

    def rows(self, y0: float, y1: float) -> Bytes:
        """The picture between two heights, at its final resolution: uint8 (rows, width, 3)."""
        top, bottom = max(0, int(y0 / self.pixel + 0.5)), min(self.height, int(y1 / self.pixel + 0.5))
        box = (0, top * self.factor, self.image.width, bottom * self.factor)
        part = self.image.crop(box)
        return np.asarray(part.reduce(self.factor) if self.factor > 1 else part)

    def put_rows(self, y0: float, values: npt.NDArray[np.float32]) -> None:
        """Replaces the rows from the height `y0` on by `values`, float32 (rows, width, 3) in 0..255, with dithering."""
        rows = values.shape[0]
        top = max(0, int(y0 / self.pixel + 0.5))
        tile = np.tile(_dither(), (rows // 8 + 1, self.width // 8 + 1))[:rows, : self.width, None]
        pixels = np.clip(values + tile, 0, 255).astype(np.uint8)
        part = Image.fromarray(pixels)
        if self.factor > 1:
            size = (part.width * self.factor, part.height * self.factor)
            part = part.resize(size, Image.Resampling.NEAREST)
        self.image.paste(part, (0, top * self.factor))

    def finish(self) -> Bytes:
        """The finished picture: uint8 (height, width, 3)."""
        image = self.image.reduce(self.factor) if self.factor > 1 else self.image
        return np.array(image, dtype=np.uint8)
