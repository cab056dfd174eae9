"""The chunks of a PNG file, each checked by its checksum, before a decoder sees them.

PNG specification (W3C, third edition), https://www.w3.org/TR/png-3/. Long text entries and the colour profile are
taken out, because decoders limit the memory for text by refusing the whole picture.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["PngFile", "parse"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type
_MOST_PROFILE = 1 << 24  # bytes of an inflated colour profile
_MOST_TEXT = (1 << 20) - 1024  # bytes of an inflated text entry that is kept; Pillow takes up to a megabyte
_MOST_TEXTS = 1 << 24  # and of all of them
_DEFLATE_RATIO = 1032  # the most that deflate can shorten: two bits for 258 bytes
_STEP = 1 << 16  # compressed bytes at a time, which are at most 64 MiB of pixels
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_SHORT_PROFILE = b"\0"  # a profile that cannot be used, which is said where profiles are applied


@dataclass(frozen=True)
class PngFile:
    """A PNG file whose checksums are right.

    Attributes:
        width: Columns, as the header says.
        height: Rows, as the header says.
        depth: Bits a sample.
        pixels: The file without its colour profile and without long text entries.
        bare: The file with nothing but the chunks that decide the pixels of its first frame.
        icc_profile: The colour profile, or None.
        left_out: The names of the text entries that were too long to keep.
    """

    width: int
    height: int
    depth: int
    pixels: bytes
    bare: bytes
    icc_profile: bytes | None
    left_out: tuple[str, ...]
    _compressed: tuple[memoryview, ...]
    _size: int

    def has_surplus(self) -> bool:
        """Whether there are more bytes of pixels than the header says. Damage is left to the decoder."""
        inflater, left = zlib.decompressobj(), self._size
        try:
            for part in self._compressed:
                for at in range(0, len(part), _STEP):
                    left -= len(inflater.decompress(part[at : at + _STEP]))
                    if left < 0 or inflater.eof:
                        return left < 0
        except zlib.error:
            pass
        return False


def parse(data: bytes) -> PngFile:
    """Checks a PNG file and takes it apart.

    Args:
        data: The file.

    Raises:
        ValueError: A chunk fails its checksum or is cut off, or the pixels are too few bytes for the header.
    """
    view = memoryview(data)
    profile: bytes | None = None
    left_out: list[str] = []
    pixels, bare, compressed, text = [view[:8]], [view[:8]], list[memoryview](), 0
    for kind, body, chunk in _chunks(view):
        if kind in _TEXT:
            size = _text_size(kind, body)
            if size > _MOST_TEXT or text + size > _MOST_TEXTS:
                left_out.append(bytes(body[:80]).partition(b"\0")[0].decode("latin-1"))
                continue
            text += size
        if kind == b"iCCP":
            profile = _profile(bytes(body))
            continue
        pixels.append(chunk)
        if kind in _PIXELS:
            bare.append(chunk)
        if kind == b"IDAT":
            compressed.append(body)
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    passes = _ADAM7 if data[28] else _WHOLE
    size = sum(_filtered(width, height, depth * _SAMPLES.get(colour, 1), *each) for each in passes)
    held = sum(map(len, compressed))
    if size > _DEFLATE_RATIO * held + 1024:
        raise ValueError(f"{held:,} bytes of pixels cannot hold {width} x {height} of them")
    return PngFile(
        width,
        height,
        depth,
        b"".join(pixels),
        b"".join(bare),
        profile,
        tuple(left_out),
        tuple(compressed),
        size,
    )


def _filtered(width: int, height: int, bits: int, left: int, top: int, across: int, down: int) -> int:
    """The bytes of one pass: a row that is not empty is a byte for its filter, and its pixels."""
    columns, rows = -(-(width - left) // across), -(-(height - top) // down)
    return max(rows, 0) * (1 + (columns * bits + 7) // 8) if columns > 0 else 0


def _chunks(view: memoryview) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Yields the kind, the content and the whole of each chunk, up to IEND."""
    at, number = len(_SIGNATURE), 0
    while True:
        if at + 12 > len(view):
            raise ValueError("it ends before the chunk IEND")
        length, kind = struct.unpack_from(">I4s", view, at)
        end = at + 12 + length
        if not kind.isalpha():
            raise ValueError(f"at byte {at:,} there is no chunk")
        if end > len(view):
            raise ValueError(f"it ends within the chunk {kind.decode()} at byte {at:,}")
        if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", view, end - 4)[0]:
            raise ValueError(f"the chunk {kind.decode()} at byte {at:,} fails its checksum")
        if (number == 0) != (kind == b"IHDR") or (number == 0 and length != 13):
            raise ValueError("its header is not where it must be")
        yield kind, view[at + 8 : end - 4], view[at:end]
        if kind == b"IEND":
            return
        at, number = end, number + 1


def _text_size(kind: bytes, body: memoryview) -> int:
    """The size of a text entry once it is inflated, or more than any that is kept."""
    if kind == b"tEXt" or len(body) > _MOST_TEXT:
        return len(body)
    _, _, rest = bytes(body).partition(b"\0")
    if kind == b"iTXt":
        if rest[:1] != b"\1":
            return len(body)
        rest = b"\0" + rest[2:].split(b"\0", 2)[-1]
    content = _inflated(rest[1:], _MOST_TEXT)
    return _MOST_TEXT + 1 if content is None else len(content)


def _profile(body: bytes) -> bytes:
    return _inflated(body.partition(b"\0")[2][1:], _MOST_PROFILE) or _SHORT_PROFILE


def _inflated(data: bytes, most: int) -> bytes | None:
    """At most `most` bytes of a zlib stream; None where it is damaged or longer."""
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(data, most)
    except zlib.error:
        return None
    return content if inflater.eof else None
