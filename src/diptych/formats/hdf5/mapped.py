"""A file mapped into memory, and a bounded cursor over part of it: what the HDF5 readers stand on.

Section numbers refer to the "HDF5 File Format Specification Version 3.0" (The HDF Group).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NoReturn

from diptych.errors import FormatError
from diptych.files import contents

__all__ = ["NOWHERE", "Cursor", "MappedFile", "lookup3"]

NOWHERE = 0xFFFF_FFFF_FFFF_FFFF  # the address that means "none"
_BIT32 = 0xFFFF_FFFF


class MappedFile:
    """The bytes of a file, with a `FormatError` that names the byte for every read outside them.

    `path` is for messages. Addresses count from `base`, the byte at which the superblock begins.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.data = _contents(Path(path))
        self.size = len(self.data)
        self.base = 0

    def fail(self, what: str, at: int) -> NoReturn:
        """Raises the `FormatError` of a damaged file."""
        raise FormatError(
            f"{self.path} is damaged or cut short: {what} at byte {at}; get or save the file again"
        )

    def refuse(self, what: str, at: int, instead: str) -> NoReturn:
        """Raises the `FormatError` of a feature that is not supported; `instead` says what to do."""
        raise FormatError(f"{self.path} holds {what} at byte {at}, which is not read here; {instead}")

    def bytes(self, at: int, count: int) -> memoryview:
        """A view of `count` bytes from byte `at` of the file."""
        if at < 0 or count < 0 or at + count > self.size:
            self.fail(f"{count} bytes expected beyond the end of the file", at)
        return self.data[at : at + count]

    def uint(self, at: int, count: int) -> int:
        """The little-endian unsigned integer of `count` bytes at byte `at`."""
        return int.from_bytes(self.bytes(at, count), "little")

    def cursor(self, at: int, count: int) -> Cursor:
        """A reader over `count` bytes from byte `at`."""
        self.bytes(at, count)
        return Cursor(self, at, at + count)

    def place(self, address: int) -> int:
        """The byte of the file that an address stands for."""
        if address == NOWHERE or self.base + address >= self.size:
            self.fail(f"the address {address:#x} points outside the file", self.base)
        return self.base + address


class Cursor:
    """Reads part of a file, from byte `at` to byte `end`. A read beyond the end raises `FormatError`."""

    def __init__(self, file: MappedFile, at: int, end: int) -> None:
        self.file = file
        self.at = at
        self.end = end

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return self.end - self.at

    def skip(self, count: int) -> int:
        """Skips `count` bytes and returns where they begin."""
        at = self.at
        if count < 0 or at + count > self.end:
            self.file.fail(f"{count} bytes expected where {self.left} are left", at)
        self.at += count
        return at

    def uint(self, count: int) -> int:
        """The next unsigned integer of `count` bytes."""
        at = self.skip(count)
        return int.from_bytes(self.file.data[at : at + count], "little")

    def part(self, count: int) -> Cursor:
        """A cursor over the next `count` bytes."""
        at = self.skip(count)
        return Cursor(self.file, at, at + count)

    def text(self, count: int) -> str:
        """The next `count` bytes as UTF-8."""
        at = self.skip(count)
        try:
            return str(self.file.data[at : at + count], "utf-8")
        except UnicodeDecodeError:
            self.file.fail("a name is not UTF-8", at)

    def name(self) -> str:
        """A name up to its zero byte."""
        window = bytes(self.file.data[self.at : min(self.end, self.at + 65536)])
        length = window.find(b"\0")
        if length < 0:
            self.file.fail("a name without an end", self.at)
        text = self.text(length)
        self.skip(1)
        return text

    def align(self, start: int) -> None:
        """Skips the padding up to the next multiple of 8 bytes from `start`."""
        self.skip(-(self.at - start) % 8)


def _contents(path: Path) -> memoryview:
    try:
        data = contents(path)
    except OSError as error:
        raise FormatError(
            f"cannot read {path}: {error.strerror or error}; check the name and the permissions"
        ) from error
    if not data:
        raise FormatError(f"{path} is empty; give a file that JLD2 wrote")
    return memoryview(data)


def lookup3(data: bytes) -> int:
    """The checksum of HDF5: `hashlittle` with the seed 0, from Bob Jenkins's lookup3.c (2006, public domain)."""
    a = b = c = (0xDEADBEEF + len(data)) & _BIT32
    whole = max(0, (len(data) - 1) // 12)
    for x, y, z in struct.iter_unpack("<III", data[: 12 * whole]):
        a, b, c = (a + x) & _BIT32, (b + y) & _BIT32, (c + z) & _BIT32
        a = ((a - c) ^ ((c << 4) | (c >> 28))) & _BIT32
        c = (c + b) & _BIT32
        b = ((b - a) ^ ((a << 6) | (a >> 26))) & _BIT32
        a = (a + c) & _BIT32
        c = ((c - b) ^ ((b << 8) | (b >> 24))) & _BIT32
        b = (b + a) & _BIT32
        a = ((a - c) ^ ((c << 16) | (c >> 16))) & _BIT32
        c = (c + b) & _BIT32
        b = ((b - a) ^ ((a << 19) | (a >> 13))) & _BIT32
        a = (a + c) & _BIT32
        c = ((c - b) ^ ((b << 4) | (b >> 28))) & _BIT32
        b = (b + a) & _BIT32
    if not data:
        return c
    x, y, z = struct.unpack("<III", data[12 * whole :].ljust(12, b"\0"))
    a, b, c = (a + x) & _BIT32, (b + y) & _BIT32, (c + z) & _BIT32
    c = _final(c, b, 14)
    a = _final(a, c, 11)
    b = _final(b, a, 25)
    c = _final(c, b, 16)
    a = _final(a, c, 4)
    b = _final(b, a, 14)
    return _final(c, b, 24)


def _final(value: int, other: int, turn: int) -> int:
    turned = ((other << turn) | (other >> (32 - turn))) & _BIT32
    return ((value ^ other) - turned) & _BIT32
