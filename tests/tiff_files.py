"""TIFF files of any samples, written by hand from TIFF 6.0, so that no library's habits are in them."""

from __future__ import annotations

import lzma
import struct
import zlib
from typing import Any

import numpy as np

REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def packed(values: np.ndarray, bits: int, order: str) -> bytes:
    """Rows of samples (rows, count): whole bytes in the file's byte order, others from the highest bit down."""
    if values.dtype.kind == "f" or bits in (8, 16, 32, 64):
        return values.astype(values.dtype.newbyteorder(order)).tobytes()
    if bits == 24:
        side = {"<": "little", ">": "big"}[order]
        return b"".join(int(value).to_bytes(3, side, signed=value < 0) for value in values.ravel())
    rows = []
    for row in values:
        text = "".join(f"{int(value):0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return b"".join(rows)


def packbits(data: bytes) -> bytes:
    """Literal runs, and one run of equal bytes wherever four follow each other."""
    result, at = bytearray(), 0
    while at < len(data):
        run = 1
        while run < 128 and data[at + run : at + run + 1] == data[at : at + 1]:
            run += 1
        if run >= 4:
            result += bytes([257 - run, data[at]])
            at += run
        else:
            part = data[at : at + 100]
            result += bytes([len(part) - 1]) + part
            at += len(part)
    return bytes(result)


COMPRESSIONS: dict[str, tuple[int, Any]] = {
    "none": (1, bytes),
    "deflate": (8, zlib.compress),
    "old deflate": (32946, zlib.compress),
    "packbits": (32773, packbits),
    "lzma": (34925, lzma.compress),
}


def tiff(
    samples: np.ndarray,
    bits: int,
    *,
    planar: bool = False,
    compression: str = "none",
    predictor: bool = False,
    order: str = "<",
    rows: int | None = None,
    tile: tuple[int, int] | None = None,
    reverse: bool = False,
    photometric: int | None = None,
    more: tuple[tuple[int, int, tuple[int, ...]], ...] = (),
    big: bool = False,
) -> bytes:
    """A file that holds `samples` (height, width, channels)."""
    height, width, channels = samples.shape
    number, compress = COMPRESSIONS[compression]
    tall, wide = tile or (rows or height, width)
    planes = [samples[..., i : i + 1] for i in range(channels)] if planar else [samples]
    pieces = []
    for plane in planes:
        for top in range(0, height, tall):
            for left in range(0, width, wide):
                part = plane[top : top + tall, left : left + wide]
                if tile:
                    whole = np.zeros((tall, wide, part.shape[2]), part.dtype)
                    whole[: part.shape[0], : part.shape[1]] = part
                    part = whole
                if predictor:
                    numbers = part.view(f"u{part.dtype.itemsize}")
                    part = np.concatenate([numbers[:, :1], np.diff(numbers, axis=1)], axis=1)
                data = compress(packed(part.reshape(len(part), -1), bits, order))
                pieces.append(data.translate(REVERSED) if reverse else data)
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    start = 16 if big else 8
    offsets = [start + sum(map(len, pieces[:i])) for i in range(len(pieces))]
    entries = [
        (256, 4, (width,)),
        (257, 4, (height,)),
        (258, 3, (bits,) * channels),
        (259, 3, (number,)),
        (262, 3, ((2 if channels >= 3 else 1) if photometric is None else photometric,)),
        (266, 3, (2 if reverse else 1,)),
        (277, 3, (channels,)),
        (284, 3, (2 if planar else 1,)),
        (317, 3, (2 if predictor else 1,)),
        (339, 3, (kind,) * channels),
        *([(322, 4, (wide,)), (323, 4, (tall,))] if tile else [(278, 4, (tall,))]),
        (324 if tile else 273, 4, tuple(offsets)),
        (325 if tile else 279, 4, tuple(map(len, pieces))),
        *more,
    ]
    return _file(sorted(entries), b"".join(pieces), order, big)


def _file(
    entries: list[tuple[int, int, tuple[int, ...]]], body: bytes, order: str, big: bool = False
) -> bytes:
    start, room = (16, 8) if big else (8, 4)
    body += b"\0" * (-len(body) % 8)
    directory, word = b"", "Q" if big else "I"
    for tag, kind, values in entries:
        content = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(content) > room:
            place = start + len(body)
            body += content + b"\0" * (-len(content) % 8)
            content = struct.pack(order + word, place)
        directory += struct.pack(order + "HH" + word, tag, kind, len(values)) + content.ljust(room, b"\0")
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, start + len(body))
        return head + body + struct.pack(order + "Q", len(entries)) + directory + bytes(8)
    head = mark + struct.pack(order + "HI", 42, start + len(body))
    return head + body + struct.pack(order + "H", len(entries)) + directory + bytes(4)
