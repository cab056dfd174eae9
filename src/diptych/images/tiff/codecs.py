"""The compressions of TIFF pieces, undone strictly: what is damaged or cut off is an error.

Each function takes the bytes of a strip or tile and raises `ValueError`, or whatever a library raises, for damage.
"""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from typing import Any

import numpy as np

from diptych.images import jpeg
from diptych.images.rows import Array

__all__ = ["BIT_ORDER", "JPEG", "NONE", "RATIOS", "WITH_PREDICTOR", "inflated", "jpeg_piece"]

NONE, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD = 1, 5, 7, 8, 32773, 32946, 34925, 50000
RATIOS = {
    NONE: 1,
    LZW: 2731,  # 4096 bytes for a code of 12 bits
    JPEG: 1536,  # a bit for each 64 samples of three channels, two of them subsampled
    DEFLATE: 1032,
    OLD_DEFLATE: 1032,
    PACKBITS: 64,
    LZMA: 8192,
    ZSTD: 43_691,  # three bytes for a block of 128 KB
}
"""The compressions that are read here, with the most bytes that a compressed byte may stand for."""
WITH_PREDICTOR = (LZW, DEFLATE, OLD_DEFLATE, LZMA, ZSTD)
"""Those whose samples may be differences."""
BIT_ORDER = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8), bitorder="little")).tobytes()
"""Each byte with its bits in the other order, for `bytes.translate`: the tag FillOrder."""
_MOST_LZMA_MEMORY = 1 << 27


def inflated(data: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    """Undoes any compression but JPEG.

    Args:
        data: The compressed bytes.
        compression: One of `RATIOS`.
        row_bytes: The bytes of a row.
        rows: How many rows are needed.

    Returns:
        At least that many rows.

    Raises:
        ValueError: There are fewer bytes, or a checksum is wrong.
    """
    size = row_bytes * rows
    if compression in (DEFLATE, OLD_DEFLATE):
        result = _to_its_end(zlib.decompressobj(), data, size)
    elif compression == LZMA:
        result = _to_its_end(lzma.LZMADecompressor(memlimit=_MOST_LZMA_MEMORY), data, size)
    elif compression == PACKBITS:
        result = _unpacked(data, size)
    else:
        result = _by_libtiff(data, compression, row_bytes, rows)
    if len(result) < size:
        raise ValueError(f"a piece has {len(result):,} bytes, not {size:,}")
    return result


def _to_its_end(decompressor: Any, data: bytes, size: int) -> bytes:
    """The first `size` bytes; what follows is read too, as the checksum comes last."""
    result: bytes = decompressor.decompress(data, size)
    while not decompressor.eof:
        rest = getattr(decompressor, "unconsumed_tail", b"")
        more = decompressor.decompress(rest, 1 << 16)
        if not more and not decompressor.eof:
            raise ValueError("compressed data end too early")
    return result


def _unpacked(data: bytes, size: int) -> bytes:
    """PackBits, TIFF 6.0, section 9."""
    result, at = bytearray(), 0
    while len(result) < size:
        if at >= len(data):
            raise ValueError("compressed data end too early")
        count = data[at]
        if count < 128:
            part = data[at + 1 : at + 2 + count]
            if len(part) <= count:
                raise ValueError("compressed data end too early")
            result += part
            at += 2 + count
        else:
            if count > 128:
                if at + 1 >= len(data):
                    raise ValueError("compressed data end too early")
                result += data[at + 1 : at + 2] * (257 - count)
            at += 2 if count > 128 else 1
    if len(result) > size:
        raise ValueError("compressed data go beyond a piece")
    return bytes(result)


def _by_libtiff(data: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    """LZW and Zstandard: libtiff takes the piece for an 8-bit grey picture as wide as a row has bytes."""
    from PIL.TiffImagePlugin import TiffImageFile

    picture = TiffImageFile(io.BytesIO(_as_tiff(data, row_bytes, rows, compression)))
    picture.load()
    return np.asarray(picture).tobytes()


def _as_tiff(data: bytes, width: int, rows: int, compression: int) -> bytes:
    """A TIFF file of one strip, 8-bit grey."""
    entries = [
        (256, width),
        (257, rows),
        (258, 8),
        (259, compression),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, rows),
    ]
    entries.append((279, len(data)))
    body = data + b"\0" * (len(data) % 2)
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = b"II*\0" + struct.pack("<I", 8 + len(body))
    return head + body + struct.pack("<H", len(entries)) + directory + b"\0\0\0\0"


def jpeg_piece(data: bytes, tables: bytes, samples: int, ycbcr: bool) -> Array:
    """Decodes a JPEG strip or tile. Layout: Technical Note 2 for TIFF 6.0 (1995).

    Args:
        data: The piece: a JPEG file that may lack its tables.
        tables: The tag JPEGTables, or no bytes.
        samples: 1 or 3.
        ycbcr: Whether three samples are YCbCr, not RGB.

    Returns:
        Uint8, (rows, width, samples), grey or RGB.

    Raises:
        ValueError: The piece is truncated or damaged.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError("a piece is not JPEG")
    # Adobe's marker says which colours these are; without it libjpeg guesses.
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([ycbcr]) if samples == 3 else b""
    shared = tables[2:-2] if tables[:2] == b"\xff\xd8" and tables[-2:] == b"\xff\xd9" else tables
    pixels = jpeg.decode(b"\xff\xd8" + adobe + shared + data[2:], samples)
    return pixels.reshape(*pixels.shape[:2], samples)
