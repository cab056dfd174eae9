"""Opening a picture for reading by rows: which kinds stream, and what becomes of the others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diptych.images import files, kinds
from diptych.images.streams.source import Array, Kept, Source, Whole, over_white
from diptych.images.streams.tiff_reading import TiffSource, Unstreamable

__all__ = ["open", "tiff"]

# What the eight EXIF orientations need to stand upright.
_UPRIGHT: dict[int, Any] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}


def open(path: str | os.PathLike[str]) -> Source:  # noqa: A001 - the field's verb
    """A picture to be read by rows, upright, RGB or grey, without alpha.

    TIFF files of 8 or 16 bits or floats stream: they are read as far as rows are asked for, whatever their
    size. PNG, JPEG, WebP, BMP, GIF and the rarer TIFFs are decoded whole, as `files.read` does, but a PNG
    with 16 bits keeps them. Raises `ImageError` as `files.read` does.
    """
    path = Path(path)
    with files.opened(path) as stream:
        head = stream.read(kinds.HEAD)
    kind = kinds.of(head).name
    if kind == "TIFF":
        source = tiff(path)
        if source is not None:
            return source
    if kind == "PNG" and head[24:25] == b"\x10":  # IHDR's bit depth
        return _deep_png(path)
    pixels, notes = files.decode(path)
    return Whole(np.asarray(pixels), notes, _kept(path))


def tiff(path: Path, max_pixels: int = files.MAX_PIXELS) -> Source | None:
    """A TIFF to be read by rows; None where only Pillow reads its kind.

    Of one that lies on its side, which is read whole, at most `max_pixels` are taken.
    """
    try:
        source = TiffSource(path)
    except Unstreamable:
        return None
    return source if source.orientation not in _UPRIGHT else _turned(source, path, max_pixels)


def _turned(source: TiffSource, path: Path, max_pixels: int) -> Whole:
    """All of a TIFF that lies on its side: its first row may need its last pixels."""
    try:
        files.check_size(path, (source.width, source.height), max_pixels)
        pixels = _UPRIGHT[source.orientation](source.rows(0, source.height))
    finally:
        source.close()
    remark = f"turned upright (EXIF orientation {source.orientation})"
    return Whole(np.ascontiguousarray(pixels), (*source.remarks, remark), source.kept)


def _deep_png(path: Path) -> Whole:
    """A PNG with 16 bits a channel, which Pillow would cut to 8 where there is colour."""
    pixels, notes = files.decode(path)  # finds every damage, and says it in one sentence
    with files.opened(path) as stream:
        data = np.frombuffer(stream.read(), np.uint8)
    import cv2

    deep: Array | None = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.shape[:2] != np.asarray(pixels).shape[:2]:
        return Whole(np.asarray(pixels), notes, _kept(path))
    others = tuple(note for note in notes if not note.startswith("16 bits to 8"))
    if deep.ndim == 2:
        return Whole(deep, others, _kept(path))
    colour = deep[..., 2::-1] if deep.shape[2] >= 3 else deep[..., :1]
    if deep.shape[2] in (2, 4):
        colour = over_white(np.ascontiguousarray(colour), deep[..., -1:])
    return Whole(np.ascontiguousarray(colour), others, _kept(path))


def _kept(path: Path) -> Kept:
    """The resolution; a colour profile has been applied already."""
    try:
        with files.quiet(), Image.open(path) as image:
            given = image.info.get("dpi")
            pair = (float(given[0]), float(given[1])) if given else None
    except Exception:  # the pixels were good; this is an ornament
        return Kept()
    return Kept(resolution=pair if pair and min(pair) > 0 else None)
