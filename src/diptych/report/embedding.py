"""Picture files as data: URLs for the report, small enough to carry, in light and in dark."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.errors import OutputError
from diptych.report.paper import DARK_INK, DARK_PAPER, INK, PAPER, PHOTOGRAPHS, channels

__all__ = ["Embedded", "Quality", "embed_figure", "embed_picture"]

_SMALL = 24_000  # bytes: such a PNG is carried as it is
_NEUTRAL = 12  # how far from the line between paper and ink a pixel may be and still be lettering


@dataclass(frozen=True)
class Quality:
    """The longest side of figures and of pictures, in pixels, and WebP's quality."""

    figure: int
    picture: int
    webp: int


@dataclass(frozen=True)
class Embedded:
    """A picture as a data: URL with its size; `dark` is the same for dark screens, or ""."""

    url: str
    width: int
    height: int
    dark: str = ""


def embed_picture(path: Path, quality: Quality) -> Embedded:
    """A picture or photograph, scaled down to `quality.picture` at most."""
    picture, data = _open(path)
    if data is not None and max(picture.size) <= quality.picture:
        return Embedded(_url(data, "png"), picture.width, picture.height)
    return _webp(_scaled(picture, quality.picture), quality.webp)


def embed_figure(path: Path, quality: Quality) -> Embedded:
    """A plot of this package: its paper and ink exchanged for dark ones in a second version."""
    picture, _ = _open(path)
    dark = _darkened(picture)
    small = _scaled(picture, quality.figure)
    return _webp(small, quality.webp, _scaled(dark, quality.figure))


def _open(path: Path) -> tuple[Any, bytes | None]:
    """The picture in RGB or grey and, where the file is a PNG small enough to be carried, its bytes."""
    from PIL import Image

    try:
        data = path.read_bytes()
        opened = Image.open(io.BytesIO(data))
        photographs = opened.info.get(PHOTOGRAPHS, "")
        small = opened.format == "PNG" and len(data) <= _SMALL
        picture = opened.convert("L" if opened.mode in ("L", "1", "I;16") else "RGB")
    except OSError as error:
        raise OutputError(f"the report cannot show {path}: {error}; run again to make it anew") from error
    picture.info[PHOTOGRAPHS] = photographs
    return picture, data if small else None


def _scaled(picture: Any, longest: int) -> Any:
    factor = longest / max(picture.size)
    if factor >= 1:
        return picture
    size = [max(round(n * factor), 1) for n in picture.size]
    return picture.resize(size, resample=3, reducing_gap=2.0)


def _webp(picture: Any, quality: int, dark: Any = None) -> Embedded:
    urls = []
    for each in (picture, dark):
        stream = io.BytesIO()
        if each is not None:
            # Method 2: a third of the time of the default 4 for a few per cent more bytes.
            each.convert("RGB").save(stream, format="WEBP", quality=quality, method=2)
        urls.append(_url(stream.getvalue(), "webp") if each is not None else "")
    return Embedded(urls[0], picture.width, picture.height, urls[1])


def _url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


# ---- Dark paper ---------------------------------------------------------------------------------------


def _darkened(picture: Any) -> Any:
    """The figure on dark paper: what lies on the line between paper and ink moves, data colours stay.

    viridis and the other data colours keep clear of that line. Photographs do not, so plots record where
    they are, and they are put back.
    """
    from PIL import Image, ImageChops

    light = picture.convert("RGB")
    neutral, tables = _tables()
    red, green, blue = light.split()
    coloured = None
    for channel, expected in ((green, red.point(neutral[1])), (blue, red.point(neutral[2]))):
        far = ImageChops.difference(channel, expected).point([0] * (_NEUTRAL + 1) + [255] * (255 - _NEUTRAL))
        coloured = far if coloured is None else ImageChops.lighter(coloured, far)
    dark = Image.merge("RGB", [red.point(table) for table in tables])
    dark.paste(light, mask=coloured)
    for box in _photographs(picture):
        dark.paste(light.crop(box), box)
    return dark


def _tables() -> tuple[list[list[int]], list[list[int]]]:
    """By the red value of a neutral pixel: its expected channels in light, and its channels in dark."""
    paper, ink = channels(PAPER), channels(INK)
    inked = [min(max((paper[0] - red) / (paper[0] - ink[0]), 0.0), 1.0) for red in range(256)]

    def between(first: tuple[int, int, int], second: tuple[int, int, int]) -> list[list[int]]:
        return [[round(a + t * (b - a)) for t in inked] for a, b in zip(first, second, strict=True)]

    return between(paper, ink), between(channels(DARK_PAPER), channels(DARK_INK))


def _photographs(picture: Any) -> list[tuple[int, int, int, int]]:
    boxes = []
    for text in str(picture.info.get(PHOTOGRAPHS, "")).split(";"):
        numbers = text.split()
        if len(numbers) == 4 and all(n.isdecimal() for n in numbers):
            boxes.append((int(numbers[0]), int(numbers[1]), int(numbers[2]), int(numbers[3])))
    return boxes
