"""From Julia values to the tagged documents that BSON.jl reads (BSON.jl 0.3, src/write.jl and extensions.jl).

Mutable objects met twice, and whatever lies on a cycle, become `_backrefs`, so that tied weights stay tied.
The same values give the same document, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from diptych.errors import FormatError
from diptych.formats.bson.wire import Document
from diptych.formats.julia import (
    BFloat16,
    Char,
    Int128,
    JuliaDict,
    JuliaModule,
    JuliaStruct,
    JuliaType,
    NamedTuple,
    Symbol,
    UInt128,
    Undefined,
    Unreadable,
)
from diptych.formats.julia.elements import array_to_bytes, element_type, layout, scalar_to_bytes

__all__ = ["document_of", "type_of"]

DEEPEST = 200
_TAGS = {
    "symbol", "tuple", "svec", "array", "datatype", "unionall", "jl_bottom_type", "ref", "struct",
    "jl_anonymous", "backref",
}  # fmt: skip
_SHARED = (list, dict, np.ndarray, JuliaDict, JuliaStruct, JuliaType)


def document_of(values: Mapping[str, Any]) -> Document:
    """The document of a file with `values` under its top keys, in their order, then `_backrefs`.

    Raises `FormatError` for a value that a BSON.jl file cannot hold, with its place.
    """
    if "_backrefs" in values or (isinstance(values.get("tag"), str) and values["tag"] in _TAGS):
        raise FormatError("a BSON.jl file cannot have a top key _backrefs or tag; rename it")
    return _BsonWriter(dict(values)).write()


class _BsonWriter:
    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.numbers: dict[int, int] = {}  # the number in _backrefs of each shared object, by id
        self.shared: list[Any] = []

    def write(self) -> Document:
        self.number_shared()
        top = {key: self.document(value, key, 1) for key, value in self.values.items()}
        if self.shared:
            top["_backrefs"] = [
                self.content(value, f"_backrefs[{i}]", 1) for i, value in enumerate(self.shared)
            ]
        return top

    def number_shared(self) -> None:
        """Numbers every object that occurs more than once, in the order in which the second occurrences come."""
        met: set[int] = {id(self.values)}
        stack: list[Any] = list(reversed(self.values.values()))
        while stack:
            value = stack.pop()
            if isinstance(value, _SHARED) and not _empty(value):
                if id(value) in met:
                    if id(value) not in self.numbers:
                        self.shared.append(value)
                        self.numbers[id(value)] = len(self.shared)
                    continue
                met.add(id(value))
            stack.extend(reversed(_inside(value)))

    def document(self, value: Any, place: str, depth: int) -> Any:
        number = self.numbers.get(id(value)) if isinstance(value, _SHARED) else None
        if number is not None:
            return {"tag": "backref", "ref": number}
        return self.content(value, place, depth)

    def content(self, value: Any, place: str, depth: int) -> Any:
        if depth > DEEPEST:
            raise FormatError(f"cannot write {place[:60]}…: values are nested more than {DEEPEST} deep")
        if value is None or isinstance(value, (bool, np.int32, bytes)) or type(value) in (float, str):
            return value
        if isinstance(value, (np.float64, np.bool_)):
            return value.item()
        if isinstance(value, (int, np.int64)) and not isinstance(value, (Int128, UInt128)):
            if not -(2**63) <= value < 2**63:
                raise FormatError(f"cannot write {place}: {value} does not fit Int64; make it an Int128")
            return int(value)
        for kind, write in _WRITERS:
            if isinstance(value, kind):
                return write(self, value, place, depth + 1)
        number = scalar_to_bytes(value)
        if number is not None:
            return {"tag": "struct", "type": self.document(number[0], place, depth), "data": number[1]}
        raise FormatError(
            f"cannot write {place}: a BSON.jl file has no form for {type(value).__name__}; give plain values"
        )

    def items(self, values: Any, place: str, depth: int) -> list[Any]:
        made = []
        for i, item in enumerate(values):
            made.append(self.document(item, f"{place}[{i}]", depth))
        return made

    def dict(self, value: dict[str, Any], place: str, depth: int) -> Document:
        tag = value.get("tag")
        if not all(isinstance(key, str) for key in value) or (isinstance(tag, str) and tag in _TAGS):
            raise FormatError(f"cannot write {place}: its keys must be strings, and not the tag of BSON.jl")
        return {key: self.document(item, f"{place}.{key}", depth) for key, item in value.items()}

    def tuple(self, value: tuple[Any, ...], place: str, depth: int) -> Document:
        return {"tag": "tuple", "data": self.items(value, place, depth)}

    def named_tuple(self, value: NamedTuple, place: str, depth: int) -> Document:
        kind = value.type or type_of(value)
        return {
            "tag": "struct",
            "type": self.document(kind, place, depth),
            "data": self.items(value, place, depth),
        }

    def symbol(self, value: Symbol, place: str, depth: int) -> Document:
        return {"tag": "symbol", "name": value.name}

    def module(self, value: JuliaModule, place: str, depth: int) -> Document:
        return {"tag": "ref", "path": list(_full(value.path))}

    def undefined(self, value: Undefined, place: str, depth: int) -> Document:
        return {"tag": "struct", "type": self.type(JuliaType(("BSON", "Undef")), place, depth), "data": []}

    def unreadable(self, value: Unreadable, place: str, depth: int) -> Document:
        raise FormatError(f"cannot write {place}: {value.reason}")

    def type(self, value: JuliaType, place: str, depth: int) -> Document:
        if value.path == ("Core", "Union") and not value.parameters:
            return {"tag": "jl_bottom_type"}
        parameters = self.items(value.parameters, place, depth)
        if value.definition is not None:
            definition = self.document(value.definition, place, depth)
            return {"tag": "jl_anonymous", "typename": definition, "params": parameters}
        path = value.path if len(value.path) > 1 else ("Main", *value.path)
        return {"tag": "datatype", "name": list(_full(path)), "params": parameters}

    def struct(self, value: JuliaStruct, place: str, depth: int) -> Document:
        if value.type.path == ("Core", "SimpleVector"):
            return {"tag": "svec", "data": self.items(value.fields, place, depth)}
        if value.type.path == ("Core", "UnionAll") and len(value.fields) == 2:
            var, body = self.items(value.fields, place, depth)
            return {"tag": "unionall", "var": var, "body": body}
        kind = self.document(value.type, place, depth)
        if len(value.fields) == 1 and isinstance(value.fields[0], bytes):
            return {"tag": "struct", "type": kind, "data": value.fields[0]}  # a primitive type of its own
        return {"tag": "struct", "type": kind, "data": self.items(value.fields, f"{place}.fields", depth)}

    def dictionary(self, value: JuliaDict, place: str, depth: int) -> Document:
        stored = [value.stored_keys, value.stored_values]
        return {
            "tag": "struct",
            "type": self.document(value.type, place, depth),
            "data": self.items(stored, place, depth),
        }

    def complex(self, value: Any, place: str, depth: int) -> Document:
        parts = [value.real, value.imag]
        return {
            "tag": "struct",
            "type": self.document(type_of(value), place, depth),
            "data": self.items(parts, place, depth),
        }

    def array(self, value: np.ndarray[Any, Any], place: str, depth: int) -> Any:
        kind = element_type(value)
        metadata: Mapping[str, Any] = value.dtype.metadata or {}
        if value.dtype == np.uint8 and value.ndim == 1 and "julia" not in metadata:
            return value.tobytes()  # Vector{UInt8} is BSON's own binary
        if kind is None:
            raise FormatError(
                f"cannot write {place}: Julia has no element type for {value.dtype}; convert it"
            )
        boxed = value.dtype == np.dtype(object) and (layout(kind) is None or kind.path == ("Core", "Any"))
        if boxed and value.ndim == 1 and not metadata.get("bits"):
            return self.items(value, place, depth)
        data: Any = b"" if metadata.get("bits") else None
        if data is None:
            flat = value.reshape(-1, order="F")
            data = self.items(flat, place, depth) if boxed else array_to_bytes(value, kind)
        sizes = [int(n) for n in value.shape]
        return {"tag": "array", "type": self.document(kind, place, depth), "size": sizes, "data": data}


# The order matters: a NamedTuple is also a tuple, and a Char also a str.
_WRITERS: tuple[tuple[Any, Callable[..., Any]], ...] = (
    (NamedTuple, _BsonWriter.named_tuple),
    (tuple, _BsonWriter.tuple),
    (list, _BsonWriter.items),
    (dict, _BsonWriter.dict),
    (np.ndarray, _BsonWriter.array),
    (JuliaStruct, _BsonWriter.struct),
    (JuliaType, _BsonWriter.type),
    (JuliaDict, _BsonWriter.dictionary),
    (Symbol, _BsonWriter.symbol),
    (JuliaModule, _BsonWriter.module),
    (Undefined, _BsonWriter.undefined),
    (Unreadable, _BsonWriter.unreadable),
    ((complex, np.complexfloating), _BsonWriter.complex),
)


def _empty(value: Any) -> bool:
    """Whether a value is a named function or a type without parameters, whose identity does not matter."""
    if isinstance(value, JuliaStruct):
        return not value.fields and value.type.definition is None
    return isinstance(value, JuliaType) and not value.parameters and value.definition is None


def _inside(value: Any) -> list[Any]:
    if isinstance(value, NamedTuple):
        return [value.type, *value] if value.type is not None else list(value)
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, JuliaStruct):
        return [value.type, *value.fields]
    if isinstance(value, JuliaType):
        return [*value.parameters, value.definition]
    if isinstance(value, JuliaDict):
        return [value.type, value.stored_keys, value.stored_values]
    if isinstance(value, np.ndarray):
        kind = (value.dtype.metadata or {}).get("julia")
        boxed = value.reshape(-1, order="F").tolist() if value.dtype == np.dtype(object) else []
        return [kind, *boxed]
    return []


def _full(path: tuple[str, ...]) -> tuple[str, ...]:
    """The path of a type as Julia spells it: that of Base starts at Main."""
    return ("Main", *path) if path[:1] == ("Base",) else path


def type_of(value: Any) -> JuliaType:
    """The Julia type of a value, as `typeof` would give it; `Core.Any` if it is not known."""
    if isinstance(value, (JuliaStruct, JuliaDict)):
        return value.type
    if isinstance(value, NamedTuple):
        names = tuple(Symbol(name) for name in value.names)
        return value.type or JuliaType(("Core", "NamedTuple"), (names, type_of(tuple(value))))
    if isinstance(value, tuple):
        return JuliaType(("Core", "Tuple"), tuple(type_of(item) for item in value))
    if isinstance(value, np.ndarray):
        return JuliaType(("Core", "Array"), (element_type(value) or JuliaType(("Core", "Any")), value.ndim))
    if isinstance(value, list):
        return JuliaType(("Core", "Array"), (JuliaType(("Core", "Any")), 1))
    if isinstance(value, (complex, np.complexfloating)):
        return JuliaType(("Base", "Complex"), (type_of(value.real),))
    for kind, name in _NAMES:
        if isinstance(value, kind):
            return JuliaType(("Core", name))
    number = scalar_to_bytes(value)
    return number[0] if number is not None else JuliaType(("Core", "Any"))


_NAMES: tuple[tuple[type, str], ...] = (
    (type(None), "Nothing"),
    (bool, "Bool"),
    (Char, "Char"),
    (str, "String"),
    (Int128, "Int128"),
    (UInt128, "UInt128"),
    (int, "Int64"),
    (BFloat16, "BFloat16"),
    (float, "Float64"),
    (Symbol, "Symbol"),
    (JuliaType, "DataType"),
    (JuliaModule, "Module"),
)
