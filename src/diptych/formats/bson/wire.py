"""BSON's bytes as plain documents and back: the subset of bsonspec.org, version 1.1, that BSON.jl writes.

A document is a dict, an array a list, binary data a `memoryview` of the file (no copy), an int32 an
`np.int32` (so that it is not mistaken for an int64, which is an int), everything else itself.
Strings that are not UTF-8 keep their bytes as surrogate escapes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from mmap import mmap
from typing import Any, TypeAlias

import numpy as np

from diptych.errors import FormatError, OutputError

__all__ = ["Document", "parse", "serialise"]

Document: TypeAlias = dict[str, Any]

# A `Chain` inside a `Chain` nests four documents deeper, so no real model comes near this limit.
DEEPEST = 1000

_DOUBLE, _STRING, _DOCUMENT, _ARRAY, _BINARY, _BOOLEAN, _NULL, _INT32, _INT64 = (
    0x01,
    0x02,
    0x03,
    0x04,
    0x05,
    0x08,
    0x0A,
    0x10,
    0x12,
)
_WIDTHS = {_DOUBLE: 8, _INT64: 8, _INT32: 4, _BOOLEAN: 1}
# Element types that only MongoDB uses, so that a message can name them.
_FOREIGN = {
    0x06: "undefined",
    0x07: "ObjectId",
    0x09: "UTC datetime",
    0x0B: "regular expression",
    0x0C: "DBPointer",
    0x0D: "JavaScript code",
    0x0E: "symbol",
    0x0F: "JavaScript code with scope",
    0x11: "timestamp",
    0x13: "decimal128",
    0x7F: "max key",
    0xFF: "min key",
}

_int32 = struct.Struct("<i")
_int64 = struct.Struct("<q")
_double = struct.Struct("<d")


class _Parser:
    """Reads one document without recursion; positions are byte offsets in the file."""

    def __init__(self, source: bytes | mmap, name: str) -> None:
        self.source = source
        self.view = memoryview(source)
        self.name = name
        self.names: dict[bytes, str] = {}  # decoded keys, because a dozen keys repeat thousands of times

    def refuse(self, position: int, what: str) -> FormatError:
        return FormatError(f"{self.name} is damaged at byte {position}: {what}; get the file again")

    def length(self, position: int, end: int, least: int, what: str, header: int = 0) -> int:
        """The length stored at `position`, which may not exceed what is left after `header` bytes."""
        left = end - position - header
        if left < 0 or position + 4 > end:
            raise self.refuse(position, f"the length of a {what} is cut off")
        value: int = _int32.unpack_from(self.source, position)[0]
        if value < least or value > left:
            raise self.refuse(position, f"a {what} of {value} bytes does not fit the {left} left")
        return value

    def parse(self) -> Document:
        total = len(self.source)
        end = self.length(0, total, 5, "document") - 1
        root: Document = {}
        container: Document | list[Any] = root
        outer: list[tuple[Document | list[Any], int]] = []
        position = 4
        source = self.source
        while True:
            if position >= end:
                if position > end or source[position] != 0:
                    raise self.refuse(position, "a document does not end where its length says")
                position += 1
                if not outer:
                    return root
                container, end = outer.pop()
                continue
            kind = source[position]
            stop = source.find(b"\0", position + 1, end)
            if stop < 0:
                raise self.refuse(position, "a key has no end")
            key = self.key(source[position + 1 : stop])
            position = stop + 1
            if kind in (_DOCUMENT, _ARRAY):
                length = self.length(position, end, 5, "document")
                if len(outer) >= DEEPEST:
                    raise self.refuse(position, f"documents are nested more than {DEEPEST} deep")
                inner: Document | list[Any] = {} if kind == _DOCUMENT else []
                outer.append((container, end))
                _add(container, key, inner)
                container, end, position = inner, position + length - 1, position + 4
                continue
            value, position = self.scalar(kind, position, end)
            _add(container, key, value)

    def key(self, raw: bytes) -> str:
        known = self.names.get(raw)
        if known is None:
            known = self.names[raw] = raw.decode("utf-8", "surrogateescape")
        return known

    def scalar(self, kind: int, position: int, end: int) -> tuple[Any, int]:
        if kind == _STRING:
            length = self.length(position, end, 1, "string", header=4)
            if self.source[position + 3 + length] != 0:
                raise self.refuse(position, "a string does not end where its length says")
            text = self.source[position + 4 : position + 3 + length]
            return text.decode("utf-8", "surrogateescape"), position + 4 + length
        if kind == _BINARY:
            length = self.length(position, end, 0, "binary value", header=5)
            return self.view[position + 5 : position + 5 + length], position + 5 + length
        if kind == _NULL:
            return None, position
        width = _WIDTHS.get(kind)
        if width is None:
            raise self.foreign(kind, position)
        if position + width > end:
            raise self.refuse(position, "a number is cut off")
        return self.number(kind, position), position + width

    def number(self, kind: int, position: int) -> Any:
        if kind == _INT64:
            return _int64.unpack_from(self.source, position)[0]
        if kind == _DOUBLE:
            return _double.unpack_from(self.source, position)[0]
        if kind == _BOOLEAN:
            return self.source[position] != 0
        return np.int32(_int32.unpack_from(self.source, position)[0])

    def foreign(self, kind: int, position: int) -> FormatError:
        if kind in _FOREIGN:
            return FormatError(
                f"{self.name} holds a BSON {_FOREIGN[kind]} at byte {position}, which Julia's BSON.jl never "
                "writes: it looks like a MongoDB dump; give a file that BSON.jl saved"
            )
        return self.refuse(position, f"there is no BSON element type 0x{kind:02x}")


def _add(container: Document | list[Any], key: str, value: Any) -> None:
    if isinstance(container, list):
        container.append(value)
    else:
        container[key] = value


def parse(source: bytes | mmap, name: str = "the document") -> Document:
    """The one document in `source`; binary values are views of it.

    Raises `FormatError` with the byte offset where the bytes are not BSON, hold an element type that
    BSON.jl never writes, or are nested more than 1000 deep.
    """
    return _Parser(source, name).parse()


# ---- Writing ------------------------------------------------------------------------------------------


def serialise(document: Mapping[str, Any]) -> bytes:
    """The bytes of `document`, keys in their order.

    Values: None, bool, int (64 bit), `np.int32`, float, str, bytes-like, list, dict. Raises `OutputError`
    where a document would reach 2 GiB, BSON's limit, and `RecursionError` beyond Python's own depth.
    """
    parts: list[bytes | memoryview] = []
    _document(parts, list(document.items()))
    return b"".join(parts)


def _document(parts: list[bytes | memoryview], items: list[tuple[str, Any]]) -> int:
    """Appends a document to `parts` and returns its length; the length goes in front once it is known."""
    place = len(parts)
    parts.append(b"")
    size = 5
    for key, value in items:
        size += _element(parts, key, value)
    parts.append(b"\0")
    if size > 0x7FFFFFFF:
        raise OutputError("a BSON file cannot hold 2 GiB or more; write .safetensors or .jld2 instead")
    parts[place] = _int32.pack(size)
    return size


def _element(parts: list[bytes | memoryview], key: str, value: Any) -> int:
    name = key.encode("utf-8", "surrogateescape") + b"\0"
    if isinstance(value, (dict, list)):
        parts.append(bytes((_DOCUMENT if isinstance(value, dict) else _ARRAY,)) + name)
        items = value.items() if isinstance(value, dict) else ((str(i), v) for i, v in enumerate(value))
        return 1 + len(name) + _document(parts, list(items))
    if isinstance(value, (bytes, memoryview)):
        length = value.nbytes if isinstance(value, memoryview) else len(value)
        if length > 0x7FFFFFF0:
            raise OutputError("a BSON file cannot hold an array of 2 GiB; write .safetensors instead")
        parts.append(bytes((_BINARY,)) + name + _int32.pack(length) + b"\0")
        parts.append(value)
        return 1 + len(name) + 5 + length
    kind, raw = _scalar(value)
    parts.append(bytes((kind,)) + name + raw)
    return 1 + len(name) + len(raw)


def _scalar(value: Any) -> tuple[int, bytes]:
    if value is None:
        return _NULL, b""
    if isinstance(value, bool):
        return _BOOLEAN, bytes((value,))
    if isinstance(value, np.int32):
        return _INT32, _int32.pack(int(value))
    if isinstance(value, int):
        return _INT64, _int64.pack(value)
    if isinstance(value, float):
        return _DOUBLE, _double.pack(value)
    text = value.encode("utf-8", "surrogateescape") + b"\0"
    return _STRING, _int32.pack(len(text)) + text
