"""Writing a picture from rows that come one after the other; the kind of the file follows its suffix."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from io import BufferedRandom, FileIO, UnsupportedOperation
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diptych.errors import ImageError, UsageError
from diptych.files import encoded, replacing
from diptych.images.rows import Array, Kept
from diptych.images.streams import png_writing

__all__ = ["WRITABLE", "Checked", "check", "write"]

Rows = Iterable[Array]
Shape = tuple[int, int, int]

_TIFF, _PNG = (".tif", ".tiff"), (".png",)
_WHOLE = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
# Pixels a side that each format or its encoder takes.
_MOST_ACROSS = {"JPEG": 65_500, "WEBP": 16_383, "BMP": 32_767}
_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "BMP": {}}
WRITABLE = (*_TIFF, *_PNG, *_WHOLE)
_STRIP_BYTES = 1 << 18
_TILE = (256, 256)
_CLASSIC_LIMIT = (1 << 32) - (1 << 25)  # bytes of pixels; room for the tags and for compression that fails


def check(path: str | os.PathLike[str], shape: Shape, dtype: np.dtype[Any]) -> None:
    """Checks that a picture can be in a file of that name.

    Args:
        path: The file.
        shape: (H, W, 1 or 3).
        dtype: uint8, uint16 or float32.

    Raises:
        UsageError: The suffix is not one of `WRITABLE`.
        ImageError: Files of that kind cannot hold this dtype, or so many pixels a side.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITABLE:
        raise UsageError(f"a picture is written as {', '.join(WRITABLE)}, and {path} ends as none of these")
    if suffix in _TIFF:
        return
    what = "fractions (float32)" if dtype == np.float32 else "16 bits a channel"
    if dtype == np.float32 or (dtype == np.uint16 and suffix not in _PNG):
        takes = ".tif" if dtype == np.float32 else ".tif or .png"
        raise ImageError(f"{path} cannot hold {what}, which the picture has; write it as {takes}")
    kind = _WHOLE.get(suffix)
    if kind is not None and max(shape[:2]) > _MOST_ACROSS[kind]:
        raise ImageError(
            f"{path} cannot hold {shape[1]} x {shape[0]} pixels: {suffix} ends at {_MOST_ACROSS[kind]} a side; "
            "write it as .tif or .png"
        )


def write(
    path: str | os.PathLike[str],
    shape: Shape,
    dtype: np.dtype[Any],
    rows: Rows,
    kept: Kept | None = None,
) -> None:
    """Writes a picture, whole or not at all.

    TIFF (BigTIFF from 4 GB on; tiles and Deflate, in tiles, where `kept` has them) and PNG stream. JPEG (quality 95),
    WebP (lossless) and BMP are encoded whole.

    Args:
        path: The file; its suffix is the format.
        shape: (H, W, 1 or 3).
        dtype: uint8, uint16 or float32.
        rows: Arrays (n, W, channels) of this dtype, in order. What they raise is passed on.
        kept: What else of the original is written.

    Raises:
        UsageError: As for `check`.
        ImageError: As for `check`.
        OutputError: The file cannot be written.
    """
    check(path, shape, dtype)
    kept = kept or Kept()
    suffix = Path(path).suffix.lower()
    with replacing(Path(path)) as temporary:
        if suffix in _TIFF:
            _write_tiff(temporary, shape, dtype, rows, kept)
        elif suffix in _PNG:
            png_writing.write(temporary, shape, dtype, rows, kept)
        else:
            _write_whole(temporary, _WHOLE[suffix], shape, dtype, rows, kept)


def _write_whole(path: Path, kind: str, shape: Shape, dtype: np.dtype[Any], rows: Rows, kept: Kept) -> None:
    pixels, done = np.empty(shape, dtype), 0
    for part in rows:
        pixels[done : done + len(part)] = part
        done += len(part)
    image = Image.fromarray(pixels if shape[2] == 3 else pixels[..., 0])
    dpi = {"dpi": kept.resolution} if kept.resolution and kind != "WEBP" else {}
    path.write_bytes(encoded(image, format=kind, **_OPTIONS[kind], **dpi))


def _write_tiff(path: Path, shape: Shape, dtype: np.dtype[Any], rows: Rows, kept: Kept) -> None:
    import tifffile

    height, width, channels = shape
    row_bytes = width * channels * dtype.itemsize
    options: dict[str, Any] = {}
    # tifffile would compress strips only of a whole picture.
    tile = kept.tile or (_TILE if kept.compressed else None)
    if tile is not None:
        options["tile"] = tile
        pieces = _tiles(_bands(rows, tile[0]), tile)
    else:
        options["rowsperstrip"] = max(1, min(height, _STRIP_BYTES // row_bytes))
        pieces = _bands(rows, options["rowsperstrip"])
    if kept.compressed:
        options |= {"compression": "zlib", "predictor": dtype.kind == "u"}
    if kept.icc_profile is not None:
        options["iccprofile"] = kept.icc_profile
    if kept.resolution is not None:
        options |= {"resolution": kept.resolution, "resolutionunit": "INCH"}
    bigtiff = height * row_bytes > _CLASSIC_LIMIT
    with Checked(FileIO(path, "w+")) as stream, tifffile.TiffWriter(stream, bigtiff=bigtiff) as file:
        file.write(
            (piece if channels == 3 else piece[..., 0] for piece in pieces),
            shape=shape if channels == 3 else shape[:2],
            dtype=dtype,
            photometric="rgb" if channels == 3 else "minisblack",
            metadata=None,
            software="Diptych",
            maxworkers=1,
            **options,
        )


class Checked(BufferedRandom):
    """A file whose every write tells when it fails: NumPy's own, by descriptor, keep silent about the last bytes."""

    def fileno(self) -> int:
        """None: so that all bytes are written by `write`."""
        raise UnsupportedOperation("written to by `write` alone")


def _bands(rows: Rows, tall: int) -> Iterator[Array]:
    """The same rows, `tall` at a time; the last band may be lower."""
    waiting: list[Array] = []
    count = 0
    for part in rows:
        while len(part):
            taken = part[: tall - count]
            waiting.append(taken)
            count, part = count + len(taken), part[len(taken) :]
            if count == tall:
                yield np.ascontiguousarray(np.concatenate(waiting) if len(waiting) > 1 else taken)
                waiting, count = [], 0
    if waiting:
        yield np.ascontiguousarray(np.concatenate(waiting))


def _tiles(bands: Iterable[Array], tile: tuple[int, int]) -> Iterator[Array]:
    tall, wide = tile
    for band in bands:
        for left in range(0, band.shape[1], wide):
            part = band[:, left : left + wide]
            whole = np.zeros((tall, wide, band.shape[2]), band.dtype)
            whole[: part.shape[0], : part.shape[1]] = part
            yield whole
