"""Image files as data: URLs for a page, small enough to embed, for light and for dark screens."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.errors import OutputError, out_of_memory
from diptych.files import encoded
from diptych.report.paper import DARK_INK, DARK_PAPER, INK, PAPER, PHOTOGRAPHS, channels

__all__ = ["Embedded", "Quality", "embed_figure", "embed_image"]

_SMALL = 24_000  # bytes: a PNG of this size is embedded as it is
_NEUTRAL = 12  # levels that a pixel of lettering may be away from the line between paper and ink


@dataclass(frozen=True)
class Quality:
    """The longest side of figures and of pictures, in pixels, and the quality of WebP, 0 to 100."""

    figure: int
    image: int
    webp: int


@dataclass(frozen=True)
class Embedded:
    """An image as a data: URL with its size in pixels; `dark` is the one for dark screens, or ""."""

    url: str
    width: int
    height: int
    dark: str = ""


def embed_image(path: Path, quality: Quality) -> Embedded:
    """A picture, scaled down to at most `quality.image` pixels a side."""
    image, data = _open(path)
    if data is not None and max(image.size) <= quality.image:
        return Embedded(_url(data, "png"), image.width, image.height)
    return _webp(_scaled(image, quality.image), quality.webp)


def embed_figure(path: Path, quality: Quality) -> Embedded:
    """A plot of this package, with a second version in which paper and ink are exchanged for dark ones."""
    image, _ = _open(path)
    dark = _darkened(image)
    small = _scaled(image, quality.figure)
    return _webp(small, quality.webp, _scaled(dark, quality.figure))


def _open(path: Path) -> tuple[Any, bytes | None]:
    """The image in RGB or grey and, where the file is a PNG small enough to embed, its bytes."""
    from PIL import Image

    try:
        data = path.read_bytes()
        opened = Image.open(io.BytesIO(data))
        photographs = opened.info.get(PHOTOGRAPHS, "")
        small = opened.format == "PNG" and len(data) <= _SMALL
        image = opened.convert("L" if opened.mode in ("L", "1", "I;16") else "RGB")
    except OSError as error:
        if out_of_memory(error):
            raise MemoryError from error
        raise OutputError(f"the report cannot show {path}: {error}; run again to make it anew") from error
    image.info[PHOTOGRAPHS] = photographs
    return image, data if small else None


def _scaled(image: Any, longest: int) -> Any:
    factor = longest / max(image.size)
    if factor >= 1:
        return image
    size = [max(round(n * factor), 1) for n in image.size]
    return image.resize(size, resample=3, reducing_gap=2.0)


def _webp(image: Any, quality: int, dark: Any = None) -> Embedded:
    def url(each: Any) -> str:
        # Method 2: a third of the time of the default 4 for a few per cent more bytes.
        return _url(encoded(each.convert("RGB"), format="WEBP", quality=quality, method=2), "webp")

    return Embedded(url(image), image.width, image.height, "" if dark is None else url(dark))


def _url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


# ---- Dark paper ---------------------------------------------------------------------------------------


def _darkened(image: Any) -> Any:
    """The figure on dark paper: colours on the line between paper and ink are exchanged, data colours stay.

    viridis and the other data colours are far from that line. Photographs are not, so plots record where
    they are, and they are pasted back.
    """
    from PIL import Image, ImageChops

    light = image.convert("RGB")
    neutral, tables = _tables()
    red, green, blue = light.split()
    coloured = None
    for channel, expected in ((green, red.point(neutral[1])), (blue, red.point(neutral[2]))):
        far = ImageChops.difference(channel, expected).point([0] * (_NEUTRAL + 1) + [255] * (255 - _NEUTRAL))
        coloured = far if coloured is None else ImageChops.lighter(coloured, far)
    dark = Image.merge("RGB", [red.point(table) for table in tables])
    dark.paste(light, mask=coloured)
    for box in _photographs(image):
        dark.paste(light.crop(box), box)
    return dark


def _tables() -> tuple[list[list[int]], list[list[int]]]:
    """For each red value of a neutral pixel: its channels on light paper, and on dark paper."""
    paper, ink = channels(PAPER), channels(INK)
    inked = [min(max((paper[0] - red) / (paper[0] - ink[0]), 0.0), 1.0) for red in range(256)]

    def between(first: tuple[int, int, int], second: tuple[int, int, int]) -> list[list[int]]:
        return [[round(a + t * (b - a)) for t in inked] for a, b in zip(first, second, strict=True)]

    return between(paper, ink), between(channels(DARK_PAPER), channels(DARK_INK))


def _photographs(image: Any) -> list[tuple[int, int, int, int]]:
    boxes = []
    for text in str(image.info.get(PHOTOGRAPHS, "")).split(";"):
        numbers = text.split()
        if len(numbers) == 4 and all(n.isdecimal() for n in numbers):
            boxes.append((int(numbers[0]), int(numbers[1]), int(numbers[2]), int(numbers[3])))
    return boxes
