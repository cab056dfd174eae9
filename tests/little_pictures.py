"""Little pictures without a symmetry in anything, and a PNG written by hand."""

from __future__ import annotations

import struct
import zlib

import numpy as np

_RANDOM = np.random.default_rng(7)
COLOUR = _RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = _RANDOM.integers(0, 256, (5, 7), dtype=np.uint8)
ALPHA = np.array([0, 1, 64, 128, 200, 254, 255], np.uint8)[None].repeat(5, axis=0)
SIXTEEN = _RANDOM.integers(0, 65536, (5, 7), dtype=np.uint16)


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand: `rows` with their filter bytes, `extra` chunks before the pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    before = b"".join(chunk(*one) for one in extra)
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
