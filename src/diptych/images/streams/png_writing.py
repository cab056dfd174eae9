"""PNG files written row by row: 8 or 16 bits, grey or RGB, never more than a few rows in memory.

PNG specification (W3C, third edition): chunks, filter types 1 (left) and 2 (above), big-endian samples.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from diptych.images.rows import Array, Kept

__all__ = ["write"]

_LEVEL = 4  # zlib's: twice as fast as 6, files a few percent larger
_INCH = 0.0254


def write(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], rows: Iterable[Array], kept: Kept
) -> None:
    """Writes a PNG file.

    Args:
        path: The file.
        shape: (H, W, 1 or 3).
        dtype: Uint8 or uint16.
        rows: Arrays (n, W, channels) of its rows, in order.
        kept: Of which the resolution is written.
    """
    height, width, channels = shape
    with path.open("wb") as stream:
        stream.write(b"\x89PNG\r\n\x1a\n")

        def chunk(kind: bytes, data: bytes) -> None:
            check = zlib.crc32(data, zlib.crc32(kind))
            stream.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check))

        colour = 2 if channels == 3 else 0
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * dtype.itemsize, colour, 0, 0, 0))
        if kept.resolution is not None:
            chunk(b"pHYs", struct.pack(">IIB", *(round(value / _INCH) for value in kept.resolution), 1))
        packer = zlib.compressobj(_LEVEL)
        above = np.zeros((1, width * channels * dtype.itemsize), np.uint8)
        for part in rows:
            plain = np.ascontiguousarray(part, dtype.newbyteorder(">")).view(np.uint8).reshape(len(part), -1)
            chunk(b"IDAT", packer.compress(_filtered(plain, above, channels * dtype.itemsize)))
            above = plain[-1:].copy()
        chunk(b"IDAT", packer.flush())
        chunk(b"IEND", b"")


def _filtered(plain: Array, above: Array, step: int) -> bytes:
    """Each row as its difference from the left or from above, whichever is nearer to 0."""
    left = plain.copy()
    left[:, step:] -= plain[:, :-step]
    up = plain - np.concatenate([above, plain[:-1]])
    costs = [np.abs(rows.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64) for rows in (left, up)]
    from_left = costs[0] <= costs[1]
    out = np.empty((len(plain), plain.shape[1] + 1), np.uint8)
    out[:, 0] = np.where(from_left, 1, 2)
    out[:, 1:] = np.where(from_left[:, None], left, up)
    return out.tobytes()
