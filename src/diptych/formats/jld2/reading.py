"""From the objects of a JLD2 file to Julia values.

JLD2's manual, "Internals & Design", describes how it maps Julia's types to HDF5; `diptych.formats.hdf5` reads the HDF5.

Two things are JLD2's own. Types are committed under `/_types`: an HDF5 type with the attribute `julia_type`,
a struct of the type's name and parameters. And what takes no bytes (a function, `()`, `nothing`, a struct
without fields) has no member in its HDF5 struct: format 0.2.0 names such fields in the attributes
`field_names` and `field_types`; in format 0.1.1 only tuples and named tuples can be completed, from their
type's parameters, and a struct comes without the fields that take no bytes.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np

from diptych.formats.hdf5 import Hdf5File, Object
from diptych.formats.hdf5.chunks import elements
from diptych.formats.hdf5.mapped import NOWHERE
from diptych.formats.hdf5.messages import Attribute, Datatype, Member
from diptych.formats.jld2.structs import (
    from_bytes,
    from_fields,
    from_written,
    is_type,
    number_of,
    packed,
    plain_type,
    singleton,
    stays_struct,
    type_path,
)
from diptych.formats.julia import UNDEFINED, JuliaDict, JuliaStruct, JuliaType, NamedTuple, Symbol
from diptych.formats.julia.elements import array_from_bytes, layout, marked

__all__ = ["values_of"]

_DEEPEST = 200  # structs inside structs in one dataset
_LARGEST_FLOOR = 16 << 20  # bytes of Python objects that even the smallest file may give
_NUMERIC = ("opaque", "compound", "integer", "float", "bits")

# What a reading step can request: the value of an object, or the committed type at an address.
_Request: TypeAlias = "tuple[str, int]"
_Steps: TypeAlias = Generator[_Request, Any, Any]


@dataclass(frozen=True)
class _Committed:
    """A type under `/_types`: how its values are stored, and the Julia type that it stands for."""

    datatype: Datatype
    type: JuliaType
    written: JuliaType | None
    names: tuple[str, ...]
    types: tuple[int, ...]
    empty: bool


def values_of(file: Hdf5File) -> dict[str, Any]:
    """The values under the root group by name, groups as dicts, without `_types`.

    Raises `FormatError` with the byte where the file is not what JLD2 writes.
    """
    top = _Jld2Reader(file).run(("value", file.root))
    if not isinstance(top, dict):
        file.fail("no group at the root", file.start)
    return top


class _Jld2Reader:
    """Reads objects without recursion: each reading is a generator that asks for the others it needs.

    Whatever can take part in a cycle (lists, structs, dictionaries) is remembered before its content is read.
    """

    def __init__(self, file: Hdf5File) -> None:
        self.file = file
        self.known: dict[_Request, Any] = {}
        self.texts: dict[tuple[int, int, int], str] = {}
        self.singletons: dict[int, Any] = {}
        self.budget = 4 * file.size + _LARGEST_FLOOR

    def run(self, first: _Request) -> Any:
        """The answer to a request, which may require further requests."""
        stack = [(first, self.start(first))]
        running = {first}
        answer: Any = None
        while stack:
            request, steps = stack[-1]
            try:
                wanted = steps.send(answer)
            except StopIteration as stop:
                answer = self.known[request] = stop.value
                running.discard(request)
                stack.pop()
                continue
            if wanted in self.known:
                answer = self.known[wanted]
            elif wanted in running:
                self.file.fail("a value that contains itself", self.file.place(wanted[1]))
            else:
                stack.append((wanted, self.start(wanted)))
                running.add(wanted)
                answer = None
        return answer

    def start(self, request: _Request) -> _Steps:
        kind, address = request
        return self.value(address) if kind == "value" else self.committed(address)

    def spend(self, count: int, at: int) -> None:
        """Counts the Python objects that are made, as 64 bytes each, so that a small file cannot fill the memory."""
        self.budget -= 64 * count
        if self.budget < 0:
            self.file.fail("more values than a file of this size can hold", at)

    # -- objects

    def value(self, address: int) -> _Steps:
        """A group as a dict, a committed type as its `JuliaType`, a dataset as its value."""
        thing = self.file.object(address)
        if thing.is_group:
            return (yield from self.group(thing))
        if thing.datatype is None:
            self.file.fail("an object that is neither a group nor a value", self.file.place(address))
        if thing.dataspace is None:
            return (yield ("type", address)).type
        datatype, committed = thing.datatype, None
        if datatype.kind == "shared":
            committed = yield ("type", datatype.committed)
            datatype = committed.datatype
        alone = committed is not None and committed.empty and "dimensions" not in thing.attributes
        if alone and committed is not None and thing.dataspace.kind == "null":
            return self.single(committed.type)
        if thing.dataspace.kind == "scalar":
            cell = elements(self.file, thing, datatype.size)
            return (yield from self.scalar(thing, datatype, committed, cell))
        return (yield from self.array(thing, datatype, committed))

    def group(self, thing: Object) -> _Steps:
        found: dict[str, Any] = {}
        self.known["value", thing.address] = found
        for name, address in thing.links.items():
            if name != "_types" or thing.address != self.file.root:
                found[name] = yield ("value", address)
        return found

    def scalar(
        self, thing: Object, datatype: Datatype, committed: _Committed | None, cell: memoryview
    ) -> _Steps:
        at = self.file.place(thing.address)
        if committed is None:
            return (yield from self.plain(datatype, cell, at, 0))
        box = self.box(committed)
        if box is not None:
            self.known["value", thing.address] = box
        value = yield from self.typed(committed, cell, at, 0, box)
        return value if box is None else box

    def box(self, committed: _Committed) -> JuliaStruct | JuliaDict | dict[str, Any] | None:
        """The object that will hold a struct's or dictionary's content, made before it is read."""
        path = committed.type.path
        if path in {("Base", "Dict"), ("Base", "IdDict")} and committed.written is not None:
            key = committed.type.parameters[0] if committed.type.parameters else None
            symbols = isinstance(key, JuliaType) and key.path == ("Core", "Symbol")
            return {} if symbols and path[1] == "Dict" else JuliaDict(committed.type)
        datatype = committed.datatype
        if datatype.kind != "compound" or committed.written is not None or is_type(datatype):
            return None
        return JuliaStruct(committed.type) if stays_struct(committed.type) else None

    # -- committed types

    def committed(self, address: int) -> _Steps:
        """A committed type (JLD2 manual, "Internals": datatypes with a `julia_type` attribute)."""
        thing = self.file.object(address)
        at = self.file.place(address)
        if thing.datatype is None or thing.datatype.kind == "shared" or "julia_type" not in thing.attributes:
            self.file.fail("no committed Julia type", at)
        kind = yield from self.attribute(thing.attributes["julia_type"], at)
        written = None
        if "written_type" in thing.attributes:
            written = yield from self.attribute(thing.attributes["written_type"], at)
        if not isinstance(kind, JuliaType) or not isinstance(written, JuliaType | None):
            self.file.fail("a committed type whose Julia type is not a type", at)
        names: tuple[str, ...] = tuple(m.name for m in thing.datatype.members)
        if "field_names" in thing.attributes:
            names = tuple((yield from self.attribute(thing.attributes["field_names"], at)))
        types: tuple[int, ...] = (0,) * len(names)
        key = "field_types" if "field_types" in thing.attributes else "field_datatypes"
        if key in thing.attributes:
            types = self.references(thing.attributes[key], at)
        if len(types) != len(names) or not all(isinstance(name, str) for name in names):
            self.file.fail(f"{len(names)} fields with {len(types)} types, or without names", at)
        return _Committed(thing.datatype, kind, written, names, types, "empty" in thing.attributes)

    def attribute(self, attribute: Attribute, at: int) -> _Steps:
        """The value of an attribute: one type, or a list of names."""
        datatype = attribute.datatype
        if datatype.kind == "shared":
            # `committed` would not end here, because the attribute of the type `DataType` has that type itself.
            shared = self.file.object(datatype.committed).datatype
            if shared is None or shared.kind == "shared":
                self.file.fail("an attribute without a type", attribute.at)
            datatype = shared
        count = attribute.dataspace.count
        cells = self.file.bytes(attribute.at, count * datatype.size)
        self.spend(count, at)
        found = []
        for index in range(count):
            cell = cells[index * datatype.size : (index + 1) * datatype.size]
            found.append((yield from self.plain(datatype, cell, attribute.at, 0)))
        return found[0] if attribute.dataspace.kind == "scalar" else found

    def references(self, attribute: Attribute, at: int) -> tuple[int, ...]:
        if attribute.datatype.kind != "reference":
            self.file.fail("field types that are not references", at)
        count = attribute.dataspace.count
        self.spend(count, at)
        return tuple(np.frombuffer(self.file.bytes(attribute.at, 8 * count), "<u8").tolist())

    # -- single values; `cell` is exactly the bytes of one element

    def plain(self, datatype: Datatype, cell: memoryview, at: int, depth: int) -> _Steps:
        """A value that its HDF5 type describes completely."""
        kind = datatype.kind
        if kind in ("integer", "float", "bits", "enum"):
            return number_of(datatype, cell)
        if kind == "string":
            return str(cell, "utf-8", "surrogateescape")
        if kind == "text":
            return self.text(cell)
        if kind == "opaque":
            return bytes(cell)
        if kind == "reference":
            address = int.from_bytes(cell, "little")
            return UNDEFINED if address in (0, NOWHERE) else (yield ("value", address))
        if kind == "sequence":
            return (yield from self.sequence(datatype, cell, at, depth))
        if kind == "compound":
            return (yield from self.compound(datatype, cell, at, depth))
        if kind == "array" and datatype.base is not None and datatype.base.dtype is not None:
            values = np.frombuffer(cell, datatype.base.dtype)
            return values.reshape(datatype.shape[::-1], order="F")
        self.file.refuse(f"a value of the HDF5 kind {kind!r}", at, "save the model again with JLD2")

    def text(self, cell: memoryview) -> str:
        """A variable-length string, stored as its length and its place in a global heap."""
        length, address = int.from_bytes(cell[:4], "little"), int.from_bytes(cell[4:12], "little")
        index = int.from_bytes(cell[12:16], "little")
        if length == 0:
            return ""
        known = self.texts.get((address, index, length))
        if known is None:
            raw = self.file.heap_object(address, index)
            if length > len(raw):
                self.file.fail(f"a string of {length} bytes in {len(raw)}", self.file.place(address))
            self.spend(1 + length // 64, self.file.place(address))
            known = str(raw[:length], "utf-8", "surrogateescape")
            self.texts[address, index, length] = known
        return known

    def sequence(self, datatype: Datatype, cell: memoryview, at: int, depth: int) -> _Steps:
        count, address = int.from_bytes(cell[:4], "little"), int.from_bytes(cell[4:12], "little")
        if count == 0 or datatype.base is None:
            return []
        base = datatype.base
        raw = self.file.heap_object(address, int.from_bytes(cell[12:16], "little"))
        if base.size == 0 or count * base.size > len(raw) or depth > _DEEPEST:
            self.file.fail(f"a sequence of {count} elements in {len(raw)} bytes", at)
        self.spend(count, at)
        found: list[Any] = []
        for start in range(0, count * base.size, base.size):
            value = yield from self.plain(base, raw[start : start + base.size], at, depth + 1)
            found.append(value)
        return found

    def compound(self, datatype: Datatype, cell: memoryview, at: int, depth: int) -> _Steps:
        """A type (name and parameters), a union of types, or a struct that no Julia type stands behind."""
        names = tuple(m.name for m in datatype.members)
        found = {}
        if depth > _DEEPEST:
            self.file.fail(f"structs nested more than {_DEEPEST} deep", at)
        self.spend(4 + len(names), at)
        for member in datatype.members:
            part = cell[member.offset : member.offset + member.datatype.size]
            found[member.name] = yield from self.plain(member.datatype, part, at, depth + 1)
        kinds = tuple(m.datatype.kind for m in datatype.members)
        if names == ("name", "parameters") and kinds == ("text", "sequence"):
            return self.julia_type(found["name"], found["parameters"], at)
        if names == ("description", "datatype", "unionall") and kinds[1:] == ("sequence", "sequence"):
            return JuliaType(("Core", "Union"), (*found["datatype"], *found["unionall"]))
        return NamedTuple(tuple(found), tuple(found.values()))

    def julia_type(self, name: str, parameters: list[Any], at: int) -> JuliaType:
        path = type_path(name)
        if path == ("NTuple",) and len(parameters) == 2 and isinstance(parameters[0], int):
            count = parameters[0]
            if not 0 <= count < 65536:
                self.file.fail(f"a tuple type of {count} elements", at)
            self.spend(count, at)
            return JuliaType(("Core", "Tuple"), (parameters[1],) * count)
        return JuliaType(("Core", "Tuple") if path == ("Tuple",) else path, tuple(parameters))

    def typed(self, committed: _Committed, cell: memoryview, at: int, depth: int, box: Any = None) -> _Steps:
        """A value of a committed type; a struct's or dictionary's content goes into `box` if there is one."""
        kind = committed.type
        if depth > _DEEPEST or len(cell) != committed.datatype.size:
            self.file.fail("a struct that is not as long as its type says, or nested too deep", at)
        if committed.written is not None:
            inner = yield from self.fields_or_plain(committed, cell, at, depth)
            return from_written(kind, committed.written, inner, box, lambda what: self.file.fail(what, at))
        if committed.empty:
            return self.single(kind)
        if committed.datatype.kind == "compound" and not is_type(committed.datatype):
            names, values = yield from self.fields(committed, cell, at, depth)
            if box is not None:
                box.names, box.fields = names, values
                return box
            return from_fields(kind, names, values)
        value = yield from self.plain(committed.datatype, cell, at, depth + 1)
        if kind.path == ("Core", "Symbol") and isinstance(value, str):
            return Symbol(value)
        if isinstance(value, bytes):
            try:
                return from_bytes(kind, value)
            except ValueError as error:
                self.file.fail(str(error), at)
        return value

    def fields_or_plain(self, committed: _Committed, cell: memoryview, at: int, depth: int) -> _Steps:
        if committed.empty:
            return None
        if committed.datatype.kind != "compound":
            return (yield from self.plain(committed.datatype, cell, at, depth + 1))
        _, values = yield from self.fields(committed, cell, at, depth)
        return values

    def single(self, kind: JuliaType) -> Any:
        if id(kind) not in self.singletons:
            self.singletons[id(kind)] = singleton(kind)
        return self.singletons[id(kind)]

    def fields(self, committed: _Committed, cell: memoryview, at: int, depth: int) -> _Steps:
        """The names and values of a struct's fields, those without bytes restored from their types."""
        members = {m.name: m for m in committed.datatype.members}
        names, types, kinds = self.plan(committed)
        self.spend(4 + len(names), at)
        values = []
        for index, name in enumerate(names):
            member = members.get(name)
            if member is not None:
                part = cell[member.offset : member.offset + member.datatype.size]
                values.append((yield from self.field(member, types[index], part, at, depth + 1)))
            elif types[index]:
                values.append(self.single((yield ("type", types[index])).type))
            else:
                kind = kinds[index]
                if kind is None:
                    self.file.fail(f"a field {name!r} without bytes and without a type", at)
                values.append(self.single(kind))
        return names, values

    def plan(
        self, committed: _Committed
    ) -> tuple[tuple[str, ...], tuple[int, ...], tuple[JuliaType | None, ...]]:
        """The fields' names, their committed types' addresses (0 for none), and types known otherwise."""
        names, types = committed.names, committed.types
        kind = committed.type
        all_names: tuple[str, ...] = ()
        inner = kind.parameters
        if kind.path == ("Core", "Tuple"):
            all_names = tuple(str(i + 1) for i in range(len(inner)))
        elif kind.path == ("Core", "NamedTuple") and len(inner) == 2 and isinstance(inner[0], tuple):
            all_names = tuple(n.name if isinstance(n, Symbol) else str(n) for n in inner[0])
            inner = inner[1].parameters if isinstance(inner[1], JuliaType) else ()
        if len(all_names) != len(inner) or not set(names) <= set(all_names):
            return names, types, (None,) * len(names)
        by_name = dict(zip(names, types, strict=True))
        kinds = tuple(k if isinstance(k, JuliaType) else None for k in inner)
        return all_names, tuple(by_name.get(n, 0) for n in all_names), kinds

    def field(self, member: Member, address: int, cell: memoryview, at: int, depth: int) -> _Steps:
        """A stored field: HDF5 copies a committed type into its struct, `address` tells which it was."""
        if address:
            committed = yield ("type", address)
            if committed.datatype.kind == member.datatype.kind:
                return (yield from self.typed(committed, cell, at, depth))
        return (yield from self.plain(member.datatype, cell, at, depth))

    # -- arrays

    def array(self, thing: Object, datatype: Datatype, committed: _Committed | None) -> _Steps:
        """An array in Julia's shape: a view of the file where NumPy has the element type."""
        at = self.file.place(thing.address)
        shape = self.shape(thing)
        kind = None if committed is None else committed.type
        if committed is not None and committed.empty:
            return self.empty_elements(committed.type, shape, at)
        count = prod(shape)
        if thing.dataspace is not None and thing.dataspace.kind == "null":
            if count:
                self.file.fail(f"{count} elements without bytes", at)
            raw = memoryview(b"")
        else:
            raw = elements(self.file, thing, datatype.size)
            if count * datatype.size != len(raw):
                self.file.fail(f"an array of {count} elements in {len(raw)} bytes", at)
        made = self.numbers(datatype, committed, raw, shape, at)
        if made is not None:
            return made
        if "julia_type" in thing.attributes:
            found = yield from self.attribute(thing.attributes["julia_type"], at)
            kind = found if isinstance(found, JuliaType) else None
        return (yield from self.objects(thing, datatype, committed, kind, raw, shape))

    def shape(self, thing: Object) -> tuple[int, ...]:
        """Julia's shape; the attribute `dimensions` tells it where HDF5's shape cannot."""
        special = thing.attributes.get("dimensions")
        if special is None:
            return thing.dataspace.shape[::-1] if thing.dataspace is not None else ()
        if special.datatype.kind != "integer" or special.datatype.size != 8 or special.dataspace.count > 32:
            self.file.fail("an array's dimensions that are not integers", special.at)
        raw = self.file.bytes(special.at, 8 * special.dataspace.count)
        return tuple(np.frombuffer(raw, "<u8").tolist())[::-1]

    def empty_elements(self, kind: JuliaType, shape: tuple[int, ...], at: int) -> Any:
        """An array whose elements take no bytes, such as `nothing`."""
        if len(shape) > 32 or prod(shape) > max(65536, self.file.size):
            self.file.fail(f"{prod(shape)} elements that take no bytes", at)
        self.spend(prod(shape), at)
        made = np.empty(shape, np.dtype(object, metadata={"julia": kind, "bits": True}), order="F")
        made.fill(self.single(kind))
        return made

    def numbers(
        self,
        datatype: Datatype,
        committed: _Committed | None,
        raw: memoryview,
        shape: tuple[int, ...],
        at: int,
    ) -> Any:
        """The array if its elements are numbers, characters or structs of these; otherwise None."""
        if len(shape) > 32 or max(shape, default=0) >= 1 << 62:
            self.file.fail(f"an array of {len(shape)} dimensions", at)
        kind = None if committed is None or committed.written is not None else committed.type
        if kind is None and committed is not None:
            return None
        if kind is None:
            kind = plain_type(datatype)
            if kind is None:
                return None
        elif datatype.kind not in _NUMERIC or kind.path == ("JLD2", "InlineUnionEl"):
            return None
        dtype = packed(datatype)
        if datatype.kind == "compound" and (dtype is None or not _all_stored(committed)):
            return None
        natural = layout(kind)
        try:
            if (
                natural is None
                or natural == dtype
                or (natural.names is None and _same_size(natural, datatype))
            ):
                if datatype.dtype is not None and datatype.dtype.byteorder == ">":
                    return np.frombuffer(raw, datatype.dtype).reshape(shape, order="F")
                if natural is not None or datatype.kind == "opaque":
                    if not len(raw) and natural is None:
                        return np.empty(shape, marked(f"V{datatype.size}", kind))
                    return array_from_bytes(kind, raw, shape)
        except ValueError as error:
            self.file.fail(str(error), at)
        if dtype is None:
            return None
        return np.frombuffer(raw, marked(dtype, kind)).reshape(shape, order="F")

    def objects(
        self,
        thing: Object,
        datatype: Datatype,
        committed: _Committed | None,
        kind: JuliaType | None,
        raw: memoryview,
        shape: tuple[int, ...],
    ) -> _Steps:
        """An array of any other elements: a list, or an array of objects unless it has one dimension."""
        at = self.file.place(thing.address)
        size, count = datatype.size, prod(shape)
        self.spend(count, at)
        made: list[Any] = [UNDEFINED] * count
        target: Any = made
        if len(shape) != 1:
            dtype = np.dtype(object) if kind is None else marked(object, kind)
            target = np.empty(shape, dtype, order="F")
            made = target.reshape(-1, order="F")
        self.known["value", thing.address] = target
        for index in range(count):
            cell = raw[index * size : (index + 1) * size]
            if committed is not None:
                made[index] = yield from self.typed(committed, cell, at, 0)
            else:
                made[index] = yield from self.plain(datatype, cell, at, 0)
        return target


def _all_stored(committed: _Committed | None) -> bool:
    return committed is not None and len(committed.names) == len(committed.datatype.members)


def _same_size(natural: np.dtype[Any], datatype: Datatype) -> bool:
    return natural.itemsize == datatype.size
