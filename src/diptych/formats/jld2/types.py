"""Julia types of the values that are written to JLD2: their names, sizes in memory and HDF5 types.

Only what `Flux.loadmodel!` and its companions need: nested tuples and named tuples of numbers, strings,
symbols, nothing, and arrays of numbers or strings. How much room a value takes in Julia's memory decides
whether JLD2 writes it inside its parent or as an object of its own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.errors import OutputError
from diptych.formats.julia import BFloat16, JuliaType, NamedTuple, Symbol
from diptych.formats.julia.elements import element_type

__all__ = [
    "REFERENCE",
    "TEXT",
    "TYPE",
    "TypeKey",
    "compound",
    "fields_of",
    "inline",
    "is_struct",
    "kind_of",
    "memory",
    "opaque",
    "plain",
    "string",
]

# JLD2 writes a struct of more bytes as an object of its own (MAX_INLINE_SIZE in its writing_datatypes.jl).
_LARGEST_INLINE = 1024
_DEEPEST = 100


@dataclass(frozen=True)
class TypeKey:
    """A Julia type, as a hashable key: its name as JLD2 spells it, and its parameters."""

    name: str
    parameters: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        # Types nest, so hashing them anew each time would make deep models slow.
        object.__setattr__(self, "_hash", hash((self.name, self.parameters)))

    def __hash__(self) -> int:
        return int(self.__dict__["_hash"])


def _fixed(size: int, signed: bool) -> bytes:
    return struct.pack("<BBBBIHH", 0x30, 8 if signed else 0, 0, 0, size, 0, 8 * size)


def _float(size: int, sign: int, *shape: int) -> bytes:
    return struct.pack("<BBBBIHHBBBBI", 0x31, 0x20, sign, 0, size, 0, 8 * size, *shape)


def _basic(head: int, flags: int, size: int) -> bytes:
    return struct.pack("<BBBBI", head, flags, 0, 0, size)


REFERENCE = _basic(0x37, 0, 8)
TEXT = struct.pack("<BBBBI", 0x39, 0x11, 1, 0, 16) + _fixed(1, False)
_NUMBERS = {
    "Core.Int8": _fixed(1, True),
    "Core.Int16": _fixed(2, True),
    "Core.Int32": _fixed(4, True),
    "Core.Int64": _fixed(8, True),
    "Core.UInt8": _fixed(1, False),
    "Core.UInt16": _fixed(2, False),
    "Core.UInt32": _fixed(4, False),
    "Core.UInt64": _fixed(8, False),
    "Core.Float16": _float(2, 0x0F, 10, 5, 0, 10, 15),
    "Core.Float32": _float(4, 0x1F, 23, 8, 0, 23, 127),
    "Core.Float64": _float(8, 0x3F, 52, 11, 0, 52, 1023),
    "Core.Bool": struct.pack("<BBBBIHH", 0x34, 0, 0, 0, 1, 0, 8),
}
_SIZES = {name: struct.unpack_from("<I", code, 4)[0] for name, code in _NUMBERS.items()}


def opaque(size: int) -> bytes:
    """The opaque HDF5 type of `size` bytes."""
    return _basic(0x35, 0, size)


def string(size: int) -> bytes:
    """The HDF5 type of a UTF-8 string of exactly `size` bytes."""
    return _basic(0x33, 0x11, size)


def plain(kind: TypeKey) -> bytes | None:
    """The HDF5 type of a number, or None for other types."""
    return _NUMBERS.get(kind.name)


def compound(members: list[tuple[str, bytes]]) -> bytes:
    """The HDF5 type of a struct of named members, one after the other without padding (IV.A.2.d, class 6)."""
    sizes = [struct.unpack_from("<I", code, 4)[0] for _, code in members]
    size = sum(sizes)
    width = "<B" if size < 256 else "<H" if size < 65536 else "<I"
    out = struct.pack("<BHBI", 0x36, len(members), 0, size)
    at = 0
    for (name, code), length in zip(members, sizes, strict=True):
        out += name.encode() + b"\0" + struct.pack(width, at) + code
        at += length
    return out


# How a type itself is stored: its name, and references to its parameters.
TYPE = compound([("name", TEXT), ("parameters", struct.pack("<BBBBI", 0x39, 0, 0, 0, 16) + REFERENCE)])


def kind_of(value: Any, where: str, depth: int = 0) -> TypeKey:
    """The Julia type of a value to write. Raises `OutputError`, naming `where`, for a value that has none."""
    if depth > _DEEPEST:
        raise OutputError(f"cannot write {where[:60]}…: it is nested more than {_DEEPEST} deep; flatten it")
    if value is None:
        return TypeKey("Core.Nothing")
    if isinstance(value, np.ndarray):
        return TypeKey("Core.Array", (_element(value, where), value.ndim))
    if isinstance(value, NamedTuple):
        names = tuple(Symbol(name) for name in value.names)
        inner = tuple(kind_of(v, f"{where}.{n}", depth + 1) for n, v in value.as_dict().items())
        return TypeKey("Core.NamedTuple", (names, TypeKey("Core.Tuple", inner)))
    if isinstance(value, tuple):
        return TypeKey(
            "Core.Tuple", tuple(kind_of(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value))
        )
    if isinstance(value, list):
        inner = tuple({kind_of(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)})
        named = len(inner) == 1 and (inner[0].name == "Core.String" or _boxed(inner[0]))
        return TypeKey("Core.Array", (inner[0] if named else TypeKey("Core.Any"), 1))
    return _scalar_kind(value, where)


def _boxed(kind: TypeKey) -> bool:
    """Whether the elements of a vector of the type are references: structs with anything but numbers."""
    if is_struct(kind):
        return any(_boxed(part) for part in fields_of(kind)[1])
    return kind.name in ("Core.Array", "Core.String", "Core.Symbol")


_SCALARS = {
    bool: "Core.Bool",
    int: "Core.Int64",
    float: "Core.Float64",
    str: "Core.String",
    Symbol: "Core.Symbol",
}


def _scalar_kind(value: Any, where: str) -> TypeKey:
    if type(value) in _SCALARS:
        if type(value) is int and not -(1 << 63) <= value < 1 << 63:
            raise OutputError(f"cannot write {where}: {value} does not fit an Int64; write it as a string")
        return TypeKey(_SCALARS[type(value)])
    if isinstance(value, np.generic):
        found = element_type(np.asarray(value))
        name = ".".join(found.path) if isinstance(found, JuliaType) else ""
        if name in _NUMBERS:
            return TypeKey(name)
    if isinstance(value, BFloat16):
        return TypeKey("BFloat16s.BFloat16")
    raise OutputError(
        f"cannot write {where}: JLD2 files take tuples, named tuples, arrays, numbers, strings, symbols and "
        f"nothing, not {type(value).__name__}; convert it first"
    )


def _element(array: np.ndarray[Any, Any], where: str) -> TypeKey:
    found = element_type(array)
    name = ".".join(found.path) if isinstance(found, JuliaType) else ""
    if name in _NUMBERS or name.endswith(".BFloat16"):
        return TypeKey(name)
    raise OutputError(
        f"cannot write {where}: a Flux state cannot hold an array of {array.dtype}; convert it to float32"
    )


def fields_of(kind: TypeKey) -> tuple[tuple[str, ...], tuple[TypeKey, ...]]:
    """The names and types of the fields of a tuple (named by their index from 1) or named tuple."""
    if kind.name == "Core.Tuple":
        return tuple(str(i + 1) for i in range(len(kind.parameters))), kind.parameters
    names, inner = kind.parameters
    return tuple(name.name for name in names), inner.parameters


def is_struct(kind: TypeKey) -> bool:
    """Whether a type is a tuple or named tuple."""
    return kind.name in ("Core.Tuple", "Core.NamedTuple")


def memory(kind: TypeKey) -> tuple[int, int]:
    """The size and alignment in bytes of a value in Julia's memory, where arrays and texts are pointers."""
    if kind.name in _SIZES:
        return _SIZES[kind.name], _SIZES[kind.name]
    if kind.name.endswith("BFloat16"):
        return 2, 2
    if kind.name == "Core.Nothing":
        return 0, 1
    if not is_struct(kind):
        return 8, 8
    size, widest = 0, 1
    for part in fields_of(kind)[1]:
        length, align = memory(part)
        size = -(-size // align) * align + length
        widest = max(widest, align)
    return -(-size // widest) * widest, widest


def inline(kind: TypeKey) -> bool:
    """Whether a field of the type is written inside its parent rather than as an object of its own."""
    return kind.name != "Core.Array" and memory(kind)[0] <= _LARGEST_INLINE
