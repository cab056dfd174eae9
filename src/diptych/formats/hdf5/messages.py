"""The messages of HDF5 object headers that JLD2 writes: types, shapes, layouts, filters, attributes, links.

Section numbers refer to the "HDF5 File Format Specification Version 3.0" (The HDF Group).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.formats.hdf5.mapped import NOWHERE, Cursor

__all__ = [
    "Attribute",
    "Dataspace",
    "Datatype",
    "Filter",
    "Layout",
    "Member",
    "read_attribute",
    "read_dataspace",
    "read_datatype",
    "read_filters",
    "read_layout",
    "read_link",
    "read_link_info",
    "read_shared",
]

# Types nest in each other; the deepest in practice, Julia's NamedTuples in NamedTuples, have some twenty levels.
_DEEPEST_TYPE = 120


@dataclass(frozen=True)
class Member:
    """One field of a compound type: its name, where it lies in the element, and its type."""

    name: str
    offset: int
    datatype: Datatype


@dataclass(frozen=True)
class Datatype:
    """A type (IV.A.2.d).

    `kind` is integer, float, bits, string, opaque, compound, reference, enum, sequence, text, array or
    shared; `dtype` is set where NumPy has the type; `committed` is the address of a shared type.
    """

    kind: str
    size: int
    dtype: np.dtype[Any] | None = None
    members: tuple[Member, ...] = ()
    base: Datatype | None = None
    shape: tuple[int, ...] = ()
    signed: bool = False
    committed: int = NOWHERE


@dataclass(frozen=True)
class Dataspace:
    """A shape (IV.A.2.b): `kind` is scalar, simple or null; `shape` is in the file's order."""

    kind: str
    shape: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """The number of elements."""
        product = 0 if self.kind == "null" else 1
        for length in self.shape:
            product *= length
        return product


@dataclass(frozen=True)
class Filter:
    """One step of a filter pipeline (IV.A.2.l)."""

    number: int
    name: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where the elements lie (IV.A.2.i).

    `kind` is plain (compact or contiguous; `at` is the byte in the file) or chunked: `address` is that of the
    chunk or its index, `chunk` its shape without the element's size, `index` the kind of index (0 a version 1
    B-tree, 1 a single chunk, 2 implicit, 3 a fixed array).
    """

    kind: str
    at: int = 0
    size: int = 0
    address: int = NOWHERE
    chunk: tuple[int, ...] = ()
    index: int = 0
    mask: int = 0
    filtered: bool = False


@dataclass(frozen=True)
class Attribute:
    """IV.A.2.m. `at` is the byte in the file at which its value begins."""

    name: str
    datatype: Datatype
    dataspace: Dataspace
    at: int


def read_dataspace(c: Cursor) -> Dataspace:
    """IV.A.2.b, versions 1 and 2."""
    at = c.at
    version, rank, flags = c.uint(1), c.uint(1), c.uint(1)
    if version == 1:
        c.skip(5)
        kind = 1 if rank else 0
    elif version == 2:
        kind = c.uint(1)
    else:
        c.file.refuse(f"a dataspace of version {version}", at, "save the model again with JLD2")
    if kind > 2 or rank > 32 or (kind == 0 and rank):
        c.file.fail(f"a dataspace of kind {kind} and {rank} dimensions", at)
    shape = tuple(c.uint(8) for _ in range(rank))
    if flags & 1 and c.left >= 8 * rank:
        c.skip(8 * rank)
    return Dataspace(("scalar", "simple", "null")[kind], shape)


def read_datatype(c: Cursor, depth: int = 0) -> Datatype:
    """IV.A.2.d, versions 1 to 3."""
    at = c.at
    if depth > _DEEPEST_TYPE:
        c.file.fail(f"a type nested more than {_DEEPEST_TYPE} deep", at)
    head = c.uint(1)
    version, number = head >> 4, head & 15
    bits, size = c.uint(3), c.uint(4)
    if not 1 <= version <= 4:
        c.file.fail(f"a datatype of version {version}", at)
    if number in (0, 4):
        return _fixed(c, at, number, bits, size)
    if number == 1:
        return _float(c, at, bits, size)
    if number == 3:
        return Datatype("string", size)
    if number == 5:
        c.skip(bits & 0xFF)
        return Datatype("opaque", size)
    if number == 6:
        return _compound(c, version, bits & 0xFFFF, size, depth)
    if number == 7:
        if size != 8:
            c.file.refuse("HDF5 region references", at, "save the model again with JLD2")
        return Datatype("reference", size, np.dtype("<u8"))
    if number == 8:
        return _enum(c, version, bits & 0xFFFF, size, depth)
    if number == 9:
        kind = "text" if bits & 15 == 1 else "sequence"
        if size != 16:
            c.file.fail(f"a variable-length type of {size} bytes", at)
        return Datatype(kind, size, base=read_datatype(c, depth + 1))
    if number != 10:
        c.file.refuse(f"an HDF5 type of class {number}", at, "save the model again with JLD2")
    return _array(c, version, size, depth)


def _fixed(c: Cursor, at: int, number: int, bits: int, size: int) -> Datatype:
    offset, precision = c.uint(2), c.uint(2)
    if size not in (1, 2, 4, 8, 16) or offset or precision != 8 * size:
        c.file.refuse(f"integers of {precision} bits in {size} bytes", at, "save them as Int8 to Int128")
    signed = bool(bits & 8) and number == 0
    order = ">" if bits & 1 else "<"
    dtype = None if size == 16 else np.dtype(f"{order}{'i' if signed else 'u'}{size}")
    if size == 16 and bits & 1:
        c.file.refuse("big-endian 128-bit integers", at, "save them in little-endian order")
    return Datatype("bits" if number == 4 else "integer", size, dtype, signed=signed)


_FLOATS = {(2, 10, 5, 0, 10, 15): "f2", (4, 23, 8, 0, 23, 127): "f4", (8, 52, 11, 0, 52, 1023): "f8"}


def _float(c: Cursor, at: int, bits: int, size: int) -> Datatype:
    c.skip(4)
    layout = (size, c.uint(1), c.uint(1), c.uint(1), c.uint(1), c.uint(4))
    if layout == (2, 7, 8, 0, 7, 127):
        return Datatype("opaque", 2)
    if layout not in _FLOATS or bits & 0x40:
        c.file.refuse(
            f"floating-point numbers of an unknown layout {layout}", at, "save them as Float16, 32 or 64"
        )
    return Datatype("float", size, np.dtype((">" if bits & 1 else "<") + _FLOATS[layout]))


def _compound(c: Cursor, version: int, count: int, size: int, depth: int) -> Datatype:
    width = 1 if size < 256 else 2 if size < 65536 else 3 if size < 1 << 24 else 4
    members: list[Member] = []
    used = 0
    for _ in range(count):
        start = c.at
        name = c.name()
        if version < 3:
            c.align(start)
            offset = c.uint(4)
            if version == 1 and c.uint(28) & 0xFF:
                c.file.refuse(
                    "an array inside a version 1 compound type", start, "save the file again with JLD2"
                )
        else:
            # JLD2 writes four bytes where the specification says three.
            offset = c.uint(4 if width == 3 else width)
        inner = read_datatype(c, depth + 1)
        used += inner.size
        if offset + inner.size > size or used > size:
            c.file.fail(f"the field {name!r} lies outside its struct", start)
        members.append(Member(name, offset, inner))
    return Datatype("compound", size, members=tuple(members))


def _enum(c: Cursor, version: int, count: int, size: int, depth: int) -> Datatype:
    base = read_datatype(c, depth + 1)
    for _ in range(count):
        start = c.at
        c.name()
        if version < 3:
            c.align(start)
    c.skip(count * base.size)
    if base.size != size:
        c.file.fail("an enumeration of another size than its integers", c.at)
    return Datatype("enum", size, base.dtype, base=base, signed=base.signed)


def _array(c: Cursor, version: int, size: int, depth: int) -> Datatype:
    at = c.at
    rank = c.uint(1)
    if version == 2:
        c.skip(3)
    shape = tuple(c.uint(4) for _ in range(rank))
    if version == 2:
        c.skip(4 * rank)
    base = read_datatype(c, depth + 1)
    expected = base.size
    for length in shape:
        expected *= length
    if expected != size:
        c.file.fail(f"an array type of {expected} bytes that says {size}", at)
    return Datatype("array", size, base=base, shape=shape)


def read_shared(c: Cursor) -> Datatype:
    """IV.A.2 "Shared Message": the type is committed elsewhere."""
    at = c.at
    version, kind = c.uint(1), c.uint(1)
    if version == 1:
        c.skip(6)
    elif version not in (2, 3) or kind not in (0, 2):
        c.file.refuse(
            f"a shared message of version {version}, type {kind}", at, "save the file again with JLD2"
        )
    return Datatype("shared", 0, committed=c.uint(8))


def read_link(c: Cursor) -> tuple[str, int]:
    """IV.A.2.g: hard links only."""
    at = c.at
    version, flags = c.uint(1), c.uint(1)
    if version != 1:
        c.file.fail(f"a link of version {version}", at)
    kind = c.uint(1) if flags & 8 else 0
    if flags & 4:
        c.skip(8)
    if flags & 16:
        c.skip(1)
    name = c.text(c.uint(1 << (flags & 3)))
    if kind != 0:
        c.file.refuse(f"the soft or external link {name!r}", at, "save the value itself")
    return name, c.uint(8)


def read_link_info(c: Cursor) -> None:
    """IV.A.2.c: JLD2 keeps links in the header; a fractal heap shows the hand of another program."""
    at = c.at
    c.skip(1)
    flags = c.uint(1)
    if flags & 1:
        c.skip(8)
    if c.uint(8) != NOWHERE:
        c.file.refuse("a group whose names are in a fractal heap", at, "save the model again with JLD2")


def read_attribute(c: Cursor) -> Attribute:
    """IV.A.2.m, versions 1 to 3."""
    at = c.at
    version, flags = c.uint(1), c.uint(1)
    if version not in (1, 2, 3):
        c.file.fail(f"an attribute of version {version}", at)
    name_size, type_size, space_size = c.uint(2), c.uint(2), c.uint(2)
    if version == 3:
        c.skip(1)
    padding = 8 if version == 1 else 1
    name = c.text(name_size).rstrip("\0")
    c.skip(-name_size % padding)
    part = c.part(type_size)
    datatype = read_shared(part) if flags & 1 else read_datatype(part)
    c.skip(-type_size % padding)
    dataspace = read_dataspace(c.part(space_size))
    c.skip(-space_size % padding)
    return Attribute(name, datatype, dataspace, c.at)


def read_layout(c: Cursor) -> Layout:
    """IV.A.2.i, versions 3 and 4."""
    at = c.at
    version, kind = c.uint(1), c.uint(1)
    if version not in (3, 4):
        c.file.refuse(f"a data layout of version {version}", at, "save the file again with JLD2")
    if kind == 0:
        size = c.uint(2)
        return Layout("plain", c.skip(size), size)
    if kind == 1:
        address, size = c.uint(8), c.uint(8)
        if address == NOWHERE:
            if size:
                c.file.refuse("an array that was never written", at, "save the model again")
            return Layout("plain", at, 0)
        if size == 0:
            return Layout("plain", at, 0)
        start = c.file.place(address)
        c.file.bytes(start, size)
        return Layout("plain", start, size)
    if kind != 2:
        c.file.refuse("a virtual dataset", at, "save the values themselves")
    return _chunked_3(c) if version == 3 else _chunked_4(c)


def _chunked_3(c: Cursor) -> Layout:
    rank, address = c.uint(1), c.uint(8)
    shape = tuple(c.uint(4) for _ in range(rank))
    return Layout("chunked", address=address, chunk=shape[:-1], index=0)


def _chunked_4(c: Cursor) -> Layout:
    at = c.at
    flags, rank, width = c.uint(1), c.uint(1), c.uint(1)
    shape = tuple(c.uint(width) for _ in range(rank))
    index = c.uint(1)
    size = mask = 0
    if index == 1 and flags & 2:
        size, mask = c.uint(8), c.uint(4)
    elif index == 3:
        c.skip(1)
    elif index not in (1, 2):
        c.file.refuse(f"chunks found by an index of type {index}", at, "save the array in one piece")
    return Layout("chunked", 0, size, c.uint(8), shape[:-1], index, mask, bool(flags & 2))


def read_filters(c: Cursor) -> tuple[Filter, ...]:
    """IV.A.2.l, versions 1 and 2."""
    at = c.at
    version, count = c.uint(1), c.uint(1)
    if version not in (1, 2):
        c.file.fail(f"a filter pipeline of version {version}", at)
    if version == 1:
        c.skip(6)
    found = []
    for _ in range(count):
        number = c.uint(2)
        length = 0 if version == 2 and number < 256 else c.uint(2)
        c.skip(2)
        values = c.uint(2)
        name = c.text(length).rstrip("\0")
        if version == 1:
            c.skip(-length % 8)
        found.append(Filter(number, name, tuple(c.uint(4) for _ in range(values))))
        if version == 1 and values % 2:
            c.skip(4)
    return tuple(found)
