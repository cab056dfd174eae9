"""Julia values as the bytes of a JLD2 file, with the same objects in the same order as JLD2 writes them.

Format 0.2.0 is what JLD2 0.5 and 0.6 write, 0.1.1 what 0.4 wrote; every JLD2 from 0.4 on reads 0.1.1, only
those from 0.5 on read 0.2.0. The sections named are those of the "HDF5 File Format
Specification Version 3.0".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np

from diptych.formats.hdf5.mapped import NOWHERE, lookup3
from diptych.formats.jld2.types import (
    REFERENCE,
    TEXT,
    TYPE,
    TypeKey,
    compound,
    fields_of,
    inline,
    is_struct,
    kind_of,
    opaque,
    plain,
    string,
)
from diptych.formats.julia import BFloat16, Symbol
from diptych.formats.julia.elements import array_to_bytes, element_type, round_to_bfloat16

__all__ = ["serialise"]

_BASE = 512
_SUPERBLOCK = 48
_NULL = bytes(16)  # an empty string or sequence
_CONTINUATION = struct.pack("<BHB", 0, 16, 0) + _NULL  # room for a continuation, as an empty message
# The description of a struct must fit a message of 65 535 bytes; the parts of a larger one become objects of their own.
_LARGEST_DESCRIPTION = 60_000

_Session: TypeAlias = dict[Any, int]


@dataclass(frozen=True)
class _Committed:
    """A type that has been written: its address, its HDF5 type, and how each field of a struct is stored."""

    address: int
    code: bytes
    keeps: tuple[str, ...] = ()  # "inside", "apart" or "nothing"


@dataclass(frozen=True)
class _Attribute:
    """`size` bytes of value that `content` makes when the attribute's turn comes (IV.A.2.m, version 2)."""

    name: str
    code: bytes
    shared: bool
    space: bytes
    size: int
    content: Callable[[], bytes]

    def __len__(self) -> int:
        return 8 + len(self.name) + 1 + len(self.code) + len(self.space) + self.size


@dataclass
class _Heap:
    at: int
    length: int
    free: int
    count: int = 0


def serialise(
    values: Mapping[str, Any], version: str = "0.1.1", made_by: str = "Diptych 64-bit LE"
) -> bytearray:
    """The bytes of a JLD2 file with `values` under their keys.

    The same values give the same bytes. Raises `OutputError` for a value that has no place in such a file.
    """
    return _Jld2Writer(version, made_by).file(values)


def _space(kind: int, shape: tuple[int, ...] = ()) -> bytes:
    """A dataspace message (IV.A.2.b), of the kind 0 (scalar), 1 (simple) or 2 (null)."""
    return struct.pack(f"<BBBB{len(shape)}Q", 2, len(shape), 0, kind, *shape)


_SCALAR, _EMPTY = _space(0), _space(2)


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("<BHB", kind, len(body), flags) + body


def _prefix(size: int) -> bytes:
    """IV.A.1.b: the beginning of an object header whose messages take `size` bytes."""
    flag, code = (0, "<B") if size < 256 else (1, "<H") if size < 65536 else (2, "<I")
    return b"OHDR\2" + bytes([flag]) + struct.pack(code, size)


def _shared(address: int) -> bytes:
    return struct.pack("<BBQ", 3, 2, address)


class _Jld2Writer:
    def __init__(self, version: str, made_by: str) -> None:
        self.old = version == "0.1.1"
        head = f"HDF5-based Julia Data Format, version {version}\0 ({made_by})\0".encode()
        self.out = bytearray(head.ljust(_BASE + _SUPERBLOCK, b"\0"))
        self.heap: _Heap | None = None
        self.types: dict[TypeKey, _Committed] = {}
        self.type_addresses: list[int] = []
        self.type_type: _Committed | None = None
        self.arrays: _Session = {}
        self.held: list[Any] = []  # keeps the objects alive that `arrays` knows by their ids
        self.file_session: _Session = {}

    def file(self, values: Mapping[str, Any]) -> bytearray:
        links = {name: self.value(value, kind_of(value, name)) for name, value in values.items()}
        if self.type_addresses:
            links["_types"] = self.group({f"{i + 1:08d}": a for i, a in enumerate(self.type_addresses)})
        root = self.group(links)
        block = struct.pack(
            "<8sBBBB4Q", b"\x89HDF\r\n\x1a\n", 2, 8, 8, 0, _BASE, NOWHERE, len(self.out), root
        )
        self.put(0, block + struct.pack("<I", lookup3(block)))
        return self.out

    # -- bytes; addresses count from the superblock

    def reserve(self, size: int, align: int = 1) -> int:
        start = -(-len(self.out) // align) * align
        self.out.extend(bytes(start + size - len(self.out)))
        return start - _BASE

    def put(self, address: int, data: bytes) -> None:
        self.out[_BASE + address : _BASE + address + len(data)] = data

    def put_checked(self, address: int, data: bytes) -> None:
        self.put(address, data + struct.pack("<I", lookup3(data)))

    def group(self, links: Mapping[str, int]) -> int:
        """A group with its links in its header (IV.A.2.c, g, k)."""
        body = _message(0x02, 0, struct.pack("<BBQQ", 0, 0, NOWHERE, NOWHERE)) + _message(0x0A, 0, b"\0\0")
        for name, address in links.items():
            raw = name.encode()
            size = "<BBBB" if len(raw) < 256 else "<BBBH"
            flag = 0x10 if len(raw) < 256 else 0x11
            body += _message(
                0x06, 0, struct.pack(size, 1, flag, 1, len(raw)) + raw + struct.pack("<Q", address)
            )
        room = 0 if self.old else max(0, 4 - len(links)) * 24
        if room:
            body += _message(0x00, 0, bytes(room - 4))
        header = _prefix(len(body) + len(_CONTINUATION)) + body + _CONTINUATION
        address = self.reserve(len(header) + 4)
        self.put_checked(address, header)
        return address

    def in_heap(self, data: bytes) -> bytes:
        """Puts `data` into a global heap (III.E) and returns the heap's address and the object's number.

        As JLD2 does: into the last heap, or that one lengthened if it ends the file, else into a new one of
        4096 bytes; a collection's size is written without its own 16 bytes.
        """
        size = (16 + len(data) + 7) // 8 * 8
        heap = self.heap
        full = heap is None or heap.count >= 65535
        if heap is None or full or size + 16 >= heap.free:
            if heap is not None and not full and len(self.out) == _BASE + heap.at + 16 + heap.length:
                more = size - heap.free + 16
                heap.free += more
                heap.length += more
                self.reserve(more)
                self.put(heap.at + 8, struct.pack("<Q", heap.length))
            else:
                length = max(size, 4096)
                heap = self.heap = _Heap(self.reserve(16 + length, 8), length, length)
                self.put(heap.at, b"GCOL" + struct.pack("<IQ", 1, length))
        at = heap.at + 16 + heap.length - heap.free
        heap.count += 1
        self.put(at, struct.pack("<HHIQ", heap.count, 1, 0, len(data)) + data)
        heap.free -= size
        if heap.free >= 16:
            self.put(at + size, struct.pack("<QQ", 0, heap.free - 16))
        return struct.pack("<QI", heap.at, heap.count)

    def text(self, value: str) -> bytes:
        raw = value.encode("utf-8", "surrogateescape")
        return struct.pack("<I", len(raw)) + self.in_heap(raw)

    # -- datasets

    def dataset(
        self,
        code: bytes,
        shared: bool,
        space: bytes,
        size: int,
        content: Callable[[], bytes],
        attributes: tuple[_Attribute, ...] = (),
        array: bool = False,
        track: Callable[[int], None] = lambda address: None,
    ) -> int:
        """Reserves the header and fills it in after `content` has written the objects that follow it."""
        head = _message(0x05, 0, b"\3\x09") + _message(0x01, 0, space)
        size_of_head = len(head) + sum(4 + len(a) for a in attributes) + 4 + len(code)
        limit = (8192 if array else 65535) if self.old else (1 if array else 8192)
        compact = size == 0 or size < limit
        tail = b"" if self.old else _CONTINUATION
        total = size_of_head + (8 + size if compact else 22) + len(tail)
        address = self.reserve(len(_prefix(total)) + total + 4)
        track(address)
        for attribute in attributes:
            head += self.attribute(attribute)
        head += _message(0x03, 3 if shared else 1, code)
        if compact:
            head += _message(0x08, 0, struct.pack("<BBH", 4, 0, size) + content())
            self.put_checked(address, _prefix(total) + head + tail)
        else:
            place = self.reserve(size, 8)
            head += _message(0x08, 0, struct.pack("<BBQQ", 4, 1, place, size))
            self.put_checked(address, _prefix(total) + head + tail)
            self.put(place, content())
        return address

    def attribute(self, attribute: _Attribute) -> bytes:
        name = attribute.name.encode() + b"\0"
        sizes = (len(name), len(attribute.code), len(attribute.space))
        head = struct.pack("<BBHHH", 2, int(attribute.shared), *sizes)
        return _message(0x0C, 0, head + name + attribute.code + attribute.space + attribute.content())

    def value(self, value: Any, kind: TypeKey) -> int:
        """Writes a value as an object of its own, unless it is an array that was written before; its address."""
        if kind.name == "Core.Array":
            if id(value) not in self.arrays:
                self.held.append(value)
                return self.array(value, kind)
            return self.arrays[id(value)]
        if kind.name == "Core.String":
            raw = value.encode("utf-8", "surrogateescape")
            return self.dataset(string(len(raw)), False, _SCALAR, len(raw), lambda: raw)
        code = plain(kind)
        if code is not None:
            raw = _number(value, kind)
            return self.dataset(code, False, _SCALAR, len(raw), lambda: raw)
        committed = self.commit(kind)
        if not self.has_data(kind):
            return self.dataset(_shared(committed.address), True, _EMPTY, 0, bytes)
        size = int(struct.unpack_from("<I", committed.code, 4)[0])
        return self.dataset(
            _shared(committed.address), True, _SCALAR, size, lambda: self.inside(value, kind, committed)
        )

    def inside(self, value: Any, kind: TypeKey, committed: _Committed | None = None) -> bytes:
        """The bytes of a value within its parent."""
        if kind.name in ("Core.String", "Core.Symbol"):
            return self.text(value.name if isinstance(value, Symbol) else value)
        if not is_struct(kind):
            return _number(value, kind)
        if self.as_vector(kind):
            return struct.pack("<Q", self.value(list(value), TypeKey("Core.Array", (kind.parameters[0], 1))))
        keeps = (committed or self.commit(kind)).keeps
        parts = []
        for keep, part, inner in zip(keeps, value, fields_of(kind)[1], strict=True):
            if keep == "inside":
                parts.append(self.inside(part, inner))
            elif keep == "apart":
                parts.append(struct.pack("<Q", self.value(part, inner)))
        return b"".join(parts)

    def array(self, value: Any, kind: TypeKey) -> int:
        """An array of numbers, strings, or anything by reference; HDF5's shape is Julia's reversed."""
        element = kind.parameters[0]
        shape = value.shape[::-1] if isinstance(value, np.ndarray) else (len(value),)
        attributes: list[_Attribute] = []
        code, shared, size = TEXT, False, 16
        boxed = element.name in ("Core.Any", "Core.Array") or is_struct(element)
        if boxed:
            address = self.type_object(element, self.file_session)
            code, size = REFERENCE, 8
            data = struct.pack("<Q", address)
            attributes.append(_Attribute("julia_type", REFERENCE, False, _SCALAR, 8, lambda: data))
        elif element.name == "Core.Symbol":
            code, shared = _shared(self.commit(element).address), True
        elif element.name != "Core.String":
            number = plain(element)
            shared = number is None
            code = _shared(self.commit(element).address) if number is None else number
            size = 2 if number is None else int(struct.unpack_from("<I", number, 4)[0])
        if not self.has_data(element):
            return self.nothings(element, len(value))
        if not shape:
            shape = (1,)
            attributes.append(_Attribute("dimensions", _INT64, False, _space(1, (0,)), 0, bytes))

        def content() -> bytes:
            if boxed:
                places = [self.value(part, kind_of(part, "a list's element")) for part in value]
                return struct.pack(f"<{len(places)}Q", *places)
            if isinstance(value, list):
                return b"".join(self.inside(part, element) for part in value)
            found = element_type(value)
            return array_to_bytes(value, found) if found is not None else b""

        def track(address: int) -> None:
            self.arrays[id(value)] = address

        return self.dataset(
            code, shared, _space(1, shape), size * prod(shape), content, tuple(attributes), True, track
        )

    def nothings(self, element: TypeKey, count: int) -> int:
        """Writes a vector whose elements take no bytes; only its length is stored."""
        length = struct.pack("<Q", count)
        dimensions = _Attribute("dimensions", _INT64, False, _space(1, (1,)), 8, lambda: length)
        return self.dataset(_shared(self.commit(element).address), True, _EMPTY, 0, bytes, (dimensions,))

    # -- types

    def session(self) -> _Session:
        """The memory of types written apart: in JLD2 0.4 one for the file, later one for each attribute."""
        return self.file_session if self.old else {}

    def commit(self, kind: TypeKey) -> _Committed:
        """The committed type (JLD2 manual, "Internals"), written if it has not been."""
        if kind not in self.types:
            if kind.name == "Core.Symbol":
                self.commit_code(kind, TEXT)
            elif kind.name.endswith("BFloat16"):
                self.commit_code(kind, opaque(2))
            elif self.as_vector(kind):
                written = TypeKey("Core.Array", (kind.parameters[0], 1))
                self.commit_code(kind, REFERENCE, written=written)
            elif self.has_data(kind):
                self.commit_struct(kind)
            else:
                one = _Attribute(
                    "empty", plain(TypeKey("Core.UInt8")) or b"", False, _SCALAR, 1, lambda: b"\1"
                )
                self.commit_code(kind, opaque(1), (one,))
        return self.types[kind]

    def commit_struct(self, kind: TypeKey) -> None:
        names, inner = fields_of(kind)
        members: list[tuple[str, bytes]] = []
        kept: list[tuple[str, str, int]] = []  # name, how, address of the committed type
        for name, part in zip(names, inner, strict=True):
            if not self.has_data(part):
                kept.append((name, "nothing", 0 if self.old else self.commit(part).address))
                continue
            how = "inside" if inline(part) else "apart"
            code, address = self.field_code(part) if how == "inside" else (REFERENCE, 0)
            members.append((name, code))
            kept.append((name, how, address))
        if sum(len(code) for _, code in members) > _LARGEST_DESCRIPTION:
            members = [(name, REFERENCE if code[0] == 0x36 else code) for name, code in members]
            codes = dict(members)
            kept = [(n, "apart", 0) if codes.get(n) == REFERENCE else (n, how, a) for n, how, a in kept]
        keeps = tuple(how for _, how, _ in kept)
        self.commit_code(kind, compound(members), self.field_attributes(kept), keeps)

    def field_code(self, kind: TypeKey) -> tuple[bytes, int]:
        code = TEXT if kind.name == "Core.String" else plain(kind)
        if code is not None:
            return code, 0
        committed = self.commit(kind)
        return committed.code, committed.address

    def field_attributes(self, kept: list[tuple[str, str, int]]) -> tuple[_Attribute, ...]:
        """Which committed types the fields have; in format 0.2.0 also the names of those without bytes."""
        if self.old:
            kept = [entry for entry in kept if entry[1] != "nothing"]
        if not any(address for _, _, address in kept):
            return ()
        space = _space(1, (len(kept),))
        addresses = struct.pack(f"<{len(kept)}Q", *(address for _, _, address in kept))
        name = "field_datatypes" if self.old else "field_types"
        types = _Attribute(name, REFERENCE, False, space, 8 * len(kept), lambda: addresses)
        if self.old:
            return (types,)
        names = [name for name, _, _ in kept]
        size = 16 * len(names)
        texts = _Attribute(
            "field_names", TEXT, False, space, size, lambda: b"".join(self.text(name) for name in names)
        )
        return texts, types

    def commit_code(
        self,
        kind: TypeKey,
        code: bytes,
        attributes: tuple[_Attribute, ...] = (),
        keeps: tuple[str, ...] = (),
        written: TypeKey | None = None,
    ) -> None:
        first = [self.type_attribute("julia_type", kind)]
        if written is not None:
            first.append(self.type_attribute("written_type", written))
        self.write_type(kind, code, (*first, *attributes), keeps)

    def type_attribute(self, name: str, kind: TypeKey) -> _Attribute:
        shared, session = self.type_of_types(), self.session()
        return _Attribute(name, shared, True, _SCALAR, 32, lambda: self.type_bytes(kind, session))

    def as_vector(self, kind: TypeKey) -> bool:
        """Whether JLD2 0.5 and later write a tuple of equal types as a vector: from 11 elements on."""
        inner = kind.parameters
        return not self.old and kind.name == "Core.Tuple" and len(inner) > 10 and _equal(inner)

    def has_data(self, kind: TypeKey) -> bool:
        """Whether a value of the type takes any bytes in the file; a tuple that is kept as a vector always does."""
        if is_struct(kind):
            return self.as_vector(kind) or any(self.has_data(part) for part in fields_of(kind)[1])
        return kind.name != "Core.Nothing"

    def write_type(
        self, kind: TypeKey, code: bytes, attributes: tuple[_Attribute, ...], keeps: tuple[str, ...] = ()
    ) -> None:
        size = 4 + len(code) + sum(4 + len(a) for a in attributes)
        address = self.reserve(len(_prefix(size)) + size + 4)
        self.types[kind] = _Committed(address, code, keeps)
        self.type_addresses.append(address)
        body = _message(0x03, 0x40, code)
        for attribute in attributes:
            body += self.attribute(attribute)
        self.put_checked(address, _prefix(size) + body)

    def type_of_types(self) -> bytes:
        """The HDF5 type of types, which is committed first and has itself as its attribute's type."""
        kind = TypeKey("Core.DataType")
        if kind not in self.types:
            own = _shared(len(self.out) - _BASE)
            name = _Attribute("julia_type", own, True, _SCALAR, 32, lambda: self.type_bytes(kind, {}))
            self.write_type(kind, TYPE, (name,))
        return _shared(self.types[kind].address)

    def type_bytes(self, kind: TypeKey, session: _Session) -> bytes:
        """A type as its name and references to its parameters."""
        name, parameters = kind.name, kind.parameters
        if not self.old and name == "Core.Tuple":
            name, parameters = _tuple_as_jld2_06(parameters)
        first = self.text(name)
        if not parameters:
            return first + _NULL
        places = [self.parameter(p, session) for p in parameters]
        return first + struct.pack("<I", len(places)) + self.in_heap(struct.pack(f"<{len(places)}Q", *places))

    def parameter(self, parameter: Any, session: _Session) -> int:
        if isinstance(parameter, TypeKey):
            structured = is_struct(parameter) and self.has_data(parameter) and inline(parameter)
            if (
                structured
                or self.as_vector(parameter)
                or parameter.name == "Core.Symbol"
                or parameter.name.endswith("BFloat16")
            ):
                return self.commit(parameter).address
            return self.type_object(parameter, session)
        return self.value(parameter, kind_of(parameter, "a type's parameter"))

    def type_object(self, kind: TypeKey, session: _Session) -> int:
        if kind in session:
            return session[kind]

        def track(address: int) -> None:
            session[kind] = address

        shared = self.type_of_types()
        return self.dataset(shared, True, _SCALAR, 32, lambda: self.type_bytes(kind, session), track=track)


_INT64 = plain(TypeKey("Core.Int64")) or b""


def _tuple_as_jld2_06(parameters: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """JLD2 0.6 shortens a tuple type of equal parameters, two of them to `NTuple`."""
    if not _equal(parameters):
        return "Core.Tuple", parameters
    return ("NTuple", (2, parameters[0])) if len(parameters) == 2 else ("Tuple", parameters)


def _equal(parameters: tuple[Any, ...]) -> bool:
    return all(p == parameters[0] for p in parameters)


def _number(value: Any, kind: TypeKey) -> bytes:
    if isinstance(value, BFloat16):
        return round_to_bfloat16(np.array([value], "<f4")).tobytes()
    name = kind.name.removeprefix("Core.")
    dtype = np.dtype("?" if name == "Bool" else name.lower()).newbyteorder("<")
    return np.array([value], dtype).tobytes()
