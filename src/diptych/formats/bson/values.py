"""From BSON.jl's tagged documents to Julia values (BSON.jl 0.3, src/read.jl and src/extensions.jl).

Containers are made empty and filled from a queue, breadth first. So neither cycles nor chains of backrefs
recurse; only tuples and types, which cannot change once made, are built at once, to a bounded depth.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from diptych.errors import FormatError
from diptych.formats.bson.wire import Document
from diptych.formats.julia import (
    UNDEFINED,
    JuliaDict,
    JuliaModule,
    JuliaStruct,
    JuliaType,
    NamedTuple,
    Symbol,
    Unreadable,
)
from diptych.formats.julia.elements import array_from_bytes, layout, marked, scalar_from_bytes

__all__ = ["values_of"]

DEEPEST = 200
_GPU = {"CuArrays", "CUDA", "CUDAnative", "AMDGPU", "Metal", "oneAPI"}
_GPU_ARRAYS = {"CuArray", "CuDeviceArray", "ROCArray", "MtlArray", "oneArray"}
_BUSY = object()


class _BsonPlace:
    """The place of a value, such as "model.fields[0][3]", which is put into words only for a message."""

    __slots__ = ("depth", "outer", "step")

    def __init__(self, outer: _BsonPlace | None, step: str, depth: int) -> None:
        self.outer, self.step, self.depth = outer, step, depth

    def inside(self, step: str) -> _BsonPlace:
        return _BsonPlace(self, step, self.depth + 1)

    def __str__(self) -> str:
        steps: list[str] = []
        place: _BsonPlace | None = self
        while place is not None:
            steps.append(place.step)
            place = place.outer
        text = "".join(reversed(steps))
        return text if len(text) <= 160 else text[:120] + "…" + text[-40:]


def values_of(document: Document, name: str, size: int) -> dict[str, Any]:
    """The values under the top keys of a parsed file of `size` bytes; `name` is for messages.

    Raises `FormatError` with the place inside the document where it is not what BSON.jl writes.
    """
    return _BsonReader(document, name, size).read()


class _BsonReader:
    def __init__(self, document: Document, name: str, size: int) -> None:
        self.document, self.name, self.size = document, name, size
        backrefs = document.get("_backrefs", [])
        if not isinstance(backrefs, list):
            raise FormatError(f"{name} is damaged: _backrefs must be an array; get the file again")
        self.backrefs: list[Any] = backrefs
        self.known: dict[int, Any] = {}  # backref number -> value
        self.queue: deque[Callable[[], None]] = deque()
        self.dictionaries: list[tuple[JuliaDict, _BsonPlace]] = []
        self.tags: dict[str, Callable[[Document, _BsonPlace], Any]] = {
            "symbol": self.read_symbol,
            "tuple": self.read_tuple,
            "svec": self.read_svec,
            "array": self.read_array,
            "datatype": self.read_datatype,
            "unionall": self.read_unionall,
            "jl_bottom_type": lambda raw, place: JuliaType(("Core", "Union")),
            "ref": lambda raw, place: JuliaModule(self.path(raw, "path", place)),
            "struct": self.read_struct,
            "jl_anonymous": self.read_anonymous,
            "backref": self.read_backref,
        }

    def read(self) -> dict[str, Any]:
        stored = {key: raw for key, raw in self.document.items() if key != "_backrefs"}
        # `bson(path, Dict("model" => ...))`: the whole file is one tagged dictionary.
        tag = stored.get("tag")
        tagged = isinstance(tag, str) and tag in self.tags
        whole = self.value(stored, _BsonPlace(None, "the top", 0)) if tagged else None
        top = {key: self.value(raw, _BsonPlace(None, key, 1)) for key, raw in stored.items() if not tagged}
        while self.queue:
            self.queue.popleft()()
        for dictionary, place in self.dictionaries:
            self.check_dictionary(dictionary, place)
        if isinstance(whole, JuliaDict):
            return {str(getattr(key, "name", key)): whole[key] for key in whole}
        if whole is not None:
            raise FormatError(
                f"{self.name} holds one {stored['tag']} without a name; save it with BSON.@save"
            )
        return top

    def refuse(self, place: _BsonPlace, what: str) -> FormatError:
        return FormatError(f"{self.name} is damaged at {place}: {what}; get the file again")

    # ---- Values --------------------------------------------------------------------------------------

    def value(self, raw: Any, place: _BsonPlace) -> Any:
        if isinstance(raw, memoryview):
            return np.frombuffer(raw, np.uint8)
        if not isinstance(raw, (dict, list)):
            return raw
        if place.depth > DEEPEST:
            raise self.refuse(place, f"values are nested more than {DEEPEST} deep")
        if isinstance(raw, list):
            return self.filled_later([], raw, place)
        tag = raw.get("tag")
        decode = self.tags.get(tag) if isinstance(tag, str) else None
        if decode is not None:
            return decode(raw, place)
        plain: dict[str, Any] = {}
        if raw:
            self.queue.append(lambda: self.fill_dict(plain, raw, place))
        return plain

    def filled_later(self, target: list[Any], raw: list[Any], place: _BsonPlace) -> list[Any]:
        def fill() -> None:
            target.extend(self.value(item, place.inside(f"[{i}]")) for i, item in enumerate(raw))

        if raw:
            self.queue.append(fill)
        return target

    def fill_dict(self, target: dict[str, Any], raw: Document, place: _BsonPlace) -> None:
        for key, item in raw.items():
            target[key] = self.value(item, place.inside(f".{key}"))

    def part(self, raw: Document, key: str, kind: type | tuple[type, ...], place: _BsonPlace) -> Any:
        found = raw.get(key)
        if not isinstance(found, kind):
            raise self.refuse(place, f"the {raw['tag']} there has no {key!r} of the right kind")
        return found

    def read_backref(self, raw: Document, place: _BsonPlace) -> Any:
        number = raw.get("ref")
        if not isinstance(number, (int, np.int32)) or not 1 <= number <= len(self.backrefs):
            raise self.refuse(place, f"it points to object {number!s:.20} of {len(self.backrefs)}")
        found = self.known.get(int(number), self)
        if found is _BUSY:
            raise self.refuse(place, "a tuple or type contains itself")
        if found is self:
            self.known[int(number)] = _BUSY
            found = self.known[int(number)] = self.value(self.backrefs[number - 1], place)
        return found

    def read_symbol(self, raw: Document, place: _BsonPlace) -> Symbol:
        return Symbol(self.part(raw, "name", str, place))

    def read_tuple(self, raw: Document, place: _BsonPlace) -> tuple[Any, ...]:
        made = []
        for i, item in enumerate(self.part(raw, "data", list, place)):
            made.append(self.value(item, place.inside(f"[{i}]")))
        return tuple(made)

    def read_svec(self, raw: Document, place: _BsonPlace) -> JuliaStruct:
        vector = JuliaStruct(JuliaType(("Core", "SimpleVector")))
        self.filled_later(vector.fields, self.part(raw, "data", list, place), place)
        return vector

    # ---- Types ---------------------------------------------------------------------------------------

    def path(self, raw: Document, key: str, place: _BsonPlace) -> tuple[str, ...]:
        parts = self.part(raw, key, list, place)
        if not parts or not all(isinstance(part, str) for part in parts):
            raise self.refuse(place, f"the {raw['tag']} there has no name")
        return tuple(parts[1:] if parts[0] == "Main" and len(parts) > 1 else parts)

    def parameters(self, raw: Document, place: _BsonPlace) -> tuple[Any, ...]:
        """The parameters of a type: a list, or a tagged array if all of them are integers."""
        stored = raw.get("params")
        if isinstance(stored, dict):
            stored = self.value(stored, place)
            if not isinstance(stored, np.ndarray) or stored.ndim != 1:
                raise self.refuse(place, "a type's parameters are neither a list nor a vector")
            return tuple(stored.tolist())
        made = []
        for i, item in enumerate(self.part(raw, "params", list, place)):
            made.append(self.value(item, place.inside(f"{{{i}}}")))
        return tuple(made)

    def read_datatype(self, raw: Document, place: _BsonPlace) -> JuliaType:
        return JuliaType(self.path(raw, "name", place), self.parameters(raw, place))

    def read_unionall(self, raw: Document, place: _BsonPlace) -> JuliaStruct:
        union = JuliaStruct(JuliaType(("Core", "UnionAll")), names=("var", "body"))
        self.filled_later(union.fields, [raw.get("var"), raw.get("body")], place)
        return union

    def read_anonymous(self, raw: Document, place: _BsonPlace) -> JuliaType:
        """The type of a closure; its name is the second field of its `Core.TypeName`."""
        stored = self.part(raw, "typename", dict, place)
        definition = self.value(stored, place.inside(".typename"))
        while isinstance(stored, dict) and stored.get("tag") == "backref":
            stored = self.backrefs[stored["ref"] - 1]  # `value` has already checked the number and cycles
        fields = stored.get("data") if isinstance(stored, dict) else None
        symbol = fields[1] if isinstance(fields, list) and len(fields) > 1 else None
        name = symbol.get("name") if isinstance(symbol, dict) else None
        if not isinstance(definition, JuliaStruct) or not isinstance(name, str):
            raise self.refuse(place, "an anonymous function has no name")
        return JuliaType((name,), self.parameters(raw, place), definition)

    # ---- Arrays --------------------------------------------------------------------------------------

    def read_array(self, raw: Document, place: _BsonPlace) -> Any:
        kind = self.value(raw.get("type"), place.inside(".type"))
        shape = self.shape(raw, place)
        data = self.part(raw, "data", (list, memoryview), place)
        if isinstance(data, list):
            return self.boxed(kind, shape, data, place)
        if not isinstance(kind, JuliaType):
            raise self.refuse(place, "an array's element type is not a type")
        dtype = layout(kind)
        if not len(data) and (dtype is None or not dtype.itemsize):
            return self.zero_size(kind, shape, place)
        try:
            return array_from_bytes(kind, data, shape)
        except ValueError as error:
            raise self.refuse(place, str(error)) from error

    def shape(self, raw: Document, place: _BsonPlace) -> tuple[int, ...]:
        sizes = self.part(raw, "size", list, place)
        if len(sizes) > 32 or not all(isinstance(n, (int, np.int32)) and 0 <= n < 2**62 for n in sizes):
            raise self.refuse(place, "an array's size must be at most 32 numbers from 0 on")
        return tuple(int(n) for n in sizes)

    def boxed(self, kind: Any, shape: tuple[int, ...], data: list[Any], place: _BsonPlace) -> Any:
        """An array of objects: strings, arrays, unions."""
        if math.prod(shape) != len(data):
            raise self.refuse(place, f"{len(data)} elements do not fill {'×'.join(map(str, shape)) or 1}")
        if layout(kind) is not None:
            raise self.refuse(place, f"an array of {kind} must be stored as bytes")
        dtype = marked(object, kind) if isinstance(kind, JuliaType) else np.dtype(object)
        made = np.empty(shape, dtype, order="F")
        flat = made.reshape(-1, order="F")

        def fill() -> None:
            for i, item in enumerate(data):
                flat[i] = self.value(item, place.inside(f"[{i}]"))

        self.queue.append(fill)
        return made

    def zero_size(self, kind: JuliaType, shape: tuple[int, ...], place: _BsonPlace) -> Any:
        """An array whose elements take no bytes, such as `[nothing, nothing]`, or an empty one."""
        count = math.prod(shape)
        if count * 8 > self.size:
            raise self.refuse(place, f"{count} elements of {kind} are declared, but it has no bytes")
        made = np.empty(shape, np.dtype(object, metadata={"julia": kind, "bits": True}), order="F")
        made.fill(None if kind.path == ("Core", "Nothing") else JuliaStruct(kind))
        return made

    # ---- Structs -------------------------------------------------------------------------------------

    def read_struct(self, raw: Document, place: _BsonPlace) -> Any:
        kind = self.value(raw.get("type"), place.inside(".type"))
        data = self.part(raw, "data", (list, memoryview), place)
        if not isinstance(kind, JuliaType):
            raise self.refuse(place, "a struct's type is not a type")
        lost = self.lost(kind)
        if lost is not None:
            return lost
        if isinstance(data, memoryview):
            return self.read_primitive(kind, bytes(data), place)
        special: dict[tuple[str, ...], Callable[[], Any]] = {
            ("BSON", "Undef"): lambda: UNDEFINED,
            ("Core", "NamedTuple"): lambda: self.read_named_tuple(kind, data, place),
            ("Base", "Dict"): lambda: self.read_dictionary(kind, data, place),
            ("Base", "IdDict"): lambda: self.read_dictionary(kind, data, place),
            ("Base", "Complex"): lambda: self.read_complex(kind, data, place),
        }
        if kind.path in special:
            return special[kind.path]()
        made = JuliaStruct(kind)

        def fill() -> None:
            made.fields.extend(self.value(item, place.inside(f".fields[{i}]")) for i, item in enumerate(data))

        self.queue.append(fill)
        return made

    def lost(self, kind: JuliaType) -> Unreadable | None:
        """A value that Julia saved as an address in memory, which is meaningless in another process."""
        if kind.path[0] in _GPU and kind.name in _GPU_ARRAYS:
            return Unreadable(
                f"a GPU array ({kind}) was saved, and BSON.jl stores only its address, not its numbers; "
                "in Julia, where the model still lives, run model = cpu(model) and save it again"
            )
        if kind.path in {("Base", "GMP", "BigInt"), ("Base", "MPFR", "BigFloat")}:
            return Unreadable(
                f"BSON.jl stores only the address of a {kind.name}, not its digits; "
                "in Julia convert it to Int128 or a String and save again"
            )
        return None

    def read_primitive(self, kind: JuliaType, raw: bytes, place: _BsonPlace) -> Any:
        try:
            value = scalar_from_bytes(kind, raw)
        except ValueError as error:
            raise self.refuse(place, str(error)) from error
        return JuliaStruct(kind, [raw]) if value is None else value

    def read_named_tuple(self, kind: JuliaType, data: list[Any], place: _BsonPlace) -> NamedTuple:
        names = kind.parameters[0] if kind.parameters else None
        if not isinstance(names, tuple) or not all(isinstance(name, Symbol) for name in names):
            raise self.refuse(place, "a NamedTuple has no names")
        if len(names) != len(data):
            raise self.refuse(place, f"a NamedTuple has {len(names)} names and {len(data)} values")
        made = []
        for name, item in zip(names, data, strict=True):
            made.append(self.value(item, place.inside(f".{name.name}")))
        return NamedTuple([name.name for name in names], made, kind)

    def read_dictionary(self, kind: JuliaType, data: list[Any], place: _BsonPlace) -> JuliaDict:
        if len(data) != 2:
            raise self.refuse(place, f"a {kind.name} must hold its keys and its values")
        made = JuliaDict(kind, self.value(data[0], place), self.value(data[1], place.inside(".values")))
        self.dictionaries.append((made, place))
        return made

    def check_dictionary(self, made: JuliaDict, place: _BsonPlace) -> None:
        for part in (made.stored_keys, made.stored_values):
            if not isinstance(part, list) and not (isinstance(part, np.ndarray) and part.ndim == 1):
                raise self.refuse(place, "a dictionary's keys and values must be vectors")
        if len(made.stored_keys) != len(made.stored_values):
            raise self.refuse(
                place, f"a dictionary has {len(made.stored_keys)} keys and {len(made.stored_values)} values"
            )

    def read_complex(self, kind: JuliaType, data: list[Any], place: _BsonPlace) -> Any:
        parts = [self.value(item, place.inside(f".fields[{i}]")) for i, item in enumerate(data)]
        if len(parts) != 2:
            raise self.refuse(place, "a complex number must have two parts")
        if all(isinstance(part, np.float32) for part in parts):
            return np.complex64(complex(*map(float, parts)))
        if all(type(part) is float for part in parts):
            return complex(*parts)
        return JuliaStruct(kind, parts, ("re", "im"))
