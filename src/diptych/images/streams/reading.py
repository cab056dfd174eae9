"""Opening a picture to be read by rows, whether its kind can be or not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from diptych.images import files, kinds, tiff
from diptych.images.opening import most_pixels, opened, quiet
from diptych.images.rows import Kept, StreamSource, Whole, over_white

__all__ = ["open"]


def open(path: str | os.PathLike[str]) -> StreamSource:  # noqa: A001 - the field's verb
    """Opens a picture to be read by rows, upright, RGB or grey, without alpha.

    TIFF files stream: they are read as far as rows are asked for, whatever their size, unless they lie on their side,
    are CMYK or Lab, or hold whole numbers of more than 16 bits. Other files are decoded whole, as `files.read` does,
    but a PNG with 16 bits keeps them.

    Args:
        path: The file.

    Raises:
        ImageError: As `files.read` does.
    """
    path = Path(path)
    with opened(path) as stream:
        head = stream.read(kinds.HEAD)
    kind = kinds.of(head).name
    if kind == "TIFF":
        source = tiff.opened(path, most_pixels())
        if source is not None:
            return source
    if kind == "PNG" and head[24:25] == b"\x10":  # IHDR's bit depth
        return _deep_png(path)
    pixels, remarks = files.decode(path)
    return Whole(np.asarray(pixels), remarks, _kept(path))


def _deep_png(path: Path) -> Whole:
    deep, remarks = files.png_at_full_depth(path)
    if deep is None:
        return Whole(np.asarray(files.decode(path)[0]), remarks, _kept(path))
    others = tuple(remark for remark in remarks if not remark.startswith("16 bits to 8"))
    if deep.ndim == 2:
        return Whole(deep, others, _kept(path))
    colour = deep[..., :3] if deep.shape[2] >= 3 else deep[..., :1]
    if deep.shape[2] in (2, 4):
        colour = over_white(np.ascontiguousarray(colour), deep[..., -1:])
    return Whole(np.ascontiguousarray(colour), others, _kept(path))


def _kept(path: Path) -> Kept:
    """The resolution; a colour profile has been applied already."""
    try:
        with quiet(), Image.open(path) as image:
            given = image.info.get("dpi")
            pair = (float(given[0]), float(given[1])) if given else None
    except MemoryError:
        raise
    except Exception:  # the pixels were good; this is an ornament
        return Kept()
    return Kept(resolution=pair if pair and min(pair) > 0 else None)
