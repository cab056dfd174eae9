"""Opening a picture for reading by rows: which kinds stream, and what becomes of the others."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from diptych.images import files, kinds, tiff
from diptych.images.opening import opened, quiet
from diptych.images.rows import Array, Kept, StreamSource, Whole, over_white

__all__ = ["open"]


def open(path: str | os.PathLike[str]) -> StreamSource:  # noqa: A001 - the field's verb
    """A picture to be read by rows, upright, RGB or grey, without alpha.

    TIFF files of 8 or 16 bits or floats stream: they are read as far as rows are asked for, whatever their
    size. PNG, JPEG, WebP, BMP, GIF and the rarer TIFFs are decoded whole, as `files.read` does, but a PNG
    with 16 bits keeps them. Raises `ImageError` as `files.read` does.
    """
    path = Path(path)
    with opened(path) as stream:
        head = stream.read(kinds.HEAD)
    kind = kinds.of(head).name
    if kind == "TIFF":
        source = tiff.opened(path)
        if source is not None:
            return source
    if kind == "PNG" and head[24:25] == b"\x10":  # IHDR's bit depth
        return _deep_png(path)
    pixels, remarks = files.decode(path)
    return Whole(np.asarray(pixels), remarks, _kept(path))


def _deep_png(path: Path) -> Whole:
    """A PNG with 16 bits a channel, which Pillow would cut to 8 where there is colour."""
    pixels, remarks = files.decode(path)  # finds every damage, and says it in one sentence
    with opened(path) as stream:
        data = np.frombuffer(stream.read(), np.uint8)
    import cv2

    deep: Array | None = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.shape[:2] != np.asarray(pixels).shape[:2]:
        return Whole(np.asarray(pixels), remarks, _kept(path))
    others = tuple(remark for remark in remarks if not remark.startswith("16 bits to 8"))
    if deep.ndim == 2:
        return Whole(deep, others, _kept(path))
    colour = deep[..., 2::-1] if deep.shape[2] >= 3 else deep[..., :1]
    if deep.shape[2] in (2, 4):
        colour = over_white(np.ascontiguousarray(colour), deep[..., -1:])
    return Whole(np.ascontiguousarray(colour), others, _kept(path))


def _kept(path: Path) -> Kept:
    """The resolution; a colour profile has been applied already."""
    try:
        with quiet(), Image.open(path) as image:
            given = image.info.get("dpi")
            pair = (float(given[0]), float(given[1])) if given else None
    except Exception:  # the pixels were good; this is an ornament
        return Kept()
    return Kept(resolution=pair if pair and min(pair) > 0 else None)
