"""How the structs in a JLD2 file become Python values, and the values of types that take no bytes.

JLD2 converts some Julia types before writing them and reverses that when reading (its `writeas`, manual
section "Custom Serialization"): dictionaries, modules, big integers, simple vectors, long tuples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from diptych.formats.hdf5.messages import Datatype
from diptych.formats.julia import (
    BFloat16,
    Int128,
    JuliaDict,
    JuliaModule,
    JuliaStruct,
    JuliaType,
    NamedTuple,
    Symbol,
    UInt128,
    Unreadable,
)
from diptych.formats.julia.elements import element_type, scalar_from_bytes

__all__ = [
    "from_bytes",
    "from_fields",
    "from_written",
    "is_type",
    "number_of",
    "packed",
    "plain_type",
    "singleton",
    "stays_struct",
    "type_path",
]

_GPU = {"CuArrays", "CUDA", "CUDAnative", "AMDGPU", "Metal", "oneAPI"}
_GPU_ARRAYS = {"CuArray", "CuDeviceArray", "ROCArray", "MtlArray", "oneArray"}
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DEEPEST = 50


def type_path(name: str) -> tuple[str, ...]:
    """The path of "NNlib.#relu" or "Main.Base.Fix1", without a leading "Main"."""
    outer, hash_sign, inner = name.partition(".#")
    parts = (*outer.split("."), "#" + inner) if hash_sign else tuple(name.split("."))
    return parts[1:] if parts[0] == "Main" and len(parts) > 1 else parts


def singleton(kind: JuliaType, depth: int = 0) -> Any:
    """The only value of a type that takes no bytes: `nothing`, (), a function, or a struct without fields."""
    if kind.path == ("Core", "Nothing"):
        return None
    inner = kind.parameters
    if kind.path == ("Core", "NamedTuple") and len(inner) == 2 and isinstance(inner[1], JuliaType):
        names, values = inner[0], singleton(inner[1], depth + 1)
        if isinstance(names, tuple) and isinstance(values, tuple) and len(names) == len(values):
            return NamedTuple([n.name if isinstance(n, Symbol) else str(n) for n in names], values, kind)
    if kind.path == ("Core", "Tuple") and depth < _DEEPEST:
        return tuple(singleton(part, depth + 1) for part in inner if isinstance(part, JuliaType))
    return JuliaStruct(kind)


def stays_struct(kind: JuliaType) -> bool:
    """Whether a stored struct of this type becomes a `JuliaStruct`, which can be made before its fields."""
    tuples = kind.path in {("Core", "Tuple"), ("Core", "NamedTuple"), ("JLD2", "InlineUnionEl")}
    return not tuples and kind.path != ("Base", "Complex") and not _lost(kind)


def from_fields(kind: JuliaType, names: tuple[str, ...], values: list[Any]) -> Any:
    """A stored struct as a Python value of the corresponding kind, or as a `JuliaStruct` if there is none."""
    if kind.path == ("Core", "Tuple"):
        return tuple(values)
    if kind.path == ("Core", "NamedTuple"):
        return NamedTuple(names, values, kind)
    if kind.path == ("JLD2", "InlineUnionEl") and len(values) == 3:
        # An element of an array of a union of two bits types: 0 selects the first type, 255 the second.
        return values[2] if values[0] else values[1]
    if kind.path == ("Base", "Complex") and len(values) == 2:
        return _complex(kind, values)
    if _lost(kind):
        return Unreadable(
            f"a GPU array ({kind}) was saved, and its numbers stayed on the GPU; "
            "in Julia, where the model still lives, run model = cpu(model) and save it again"
        )
    return JuliaStruct(kind, values, names)


def from_bytes(kind: JuliaType, raw: bytes) -> Any:
    """A primitive: a number or character where it is a known one, else its bytes in a `JuliaStruct`.

    Raises `ValueError`, with a clause for an error message, where there are not as many bytes as it needs.
    """
    value = scalar_from_bytes(kind, raw)
    return JuliaStruct(kind, [raw]) if value is None else value


def from_written(
    kind: JuliaType,
    written: JuliaType,
    inner: Any,
    box: JuliaDict | dict[str, Any] | None,
    fail: Callable[[str], NoReturn],
) -> Any:
    """The value of a type that JLD2 converted before writing.

    `inner` is the vector where it was `written` as one, the list of fields where as a struct, else the value.
    `box` is the dictionary to fill, where there is one.
    """
    vector = written.path == ("Core", "Array")
    if box is not None:
        # JLD2 0.4 wrote a vector of pairs, later versions a struct that holds one.
        return _fill(box, inner if vector or not isinstance(inner, list) or not inner else inner[0], fail)
    if kind.path == ("Core", "Module") and isinstance(inner, str):
        return JuliaModule(type_path(inner))
    if kind.path == ("Base", "GMP", "BigInt") and isinstance(inner, str):
        return _big_integer(inner, fail)
    if vector and kind.path == ("Core", "Tuple"):
        return _tuple_of(inner)
    if kind.path == ("Core", "SimpleVector"):
        return JuliaStruct(kind, inner if isinstance(inner, list) else [inner])
    if inner is None:
        return JuliaStruct(kind)
    return JuliaStruct(kind, inner if isinstance(inner, list) and not vector else [inner])


def _tuple_of(values: Any) -> tuple[Any, ...]:
    """A tuple of more than ten equal types, which was written as a vector."""
    if not isinstance(values, np.ndarray):
        return tuple(values) if isinstance(values, list) else (values,)
    found = element_type(values)
    if found is not None and found.path[-1] == "BFloat16":
        return tuple(BFloat16(v) for v in values)
    return tuple(_plain_list(values)) if values.ndim == 1 else (values,)


def _fill(box: JuliaDict | dict[str, Any], pairs: Any, fail: Callable[[str], NoReturn]) -> Any:
    keys, values = [], []
    if isinstance(pairs, np.ndarray) and pairs.dtype.names == ("first", "second") and pairs.ndim == 1:
        keys, values = _plain_list(pairs["first"]), _plain_list(pairs["second"])
    elif isinstance(pairs, np.ndarray) and pairs.dtype.names in (("first",), ("second",)) and pairs.ndim == 1:
        stored = _plain_list(pairs[pairs.dtype.names[0]])
        left: list[Any] = [None] * len(stored)
        keys, values = (stored, left) if pairs.dtype.names == ("first",) else (left, stored)
    elif isinstance(pairs, list) and all(map(_is_pair, pairs)):
        keys, values = [_side(p, 0) for p in pairs], [_side(p, 1) for p in pairs]
    elif not (isinstance(pairs, np.ndarray) and not pairs.size):
        fail("a dictionary that is not a list of pairs")
    if isinstance(box, JuliaDict):
        box.stored_keys, box.stored_values = keys, values
    else:
        if not all(isinstance(key, Symbol) for key in keys):
            fail("a dictionary of symbols with another key")
        box.update(zip((key.name for key in keys), values, strict=True))
    return box


def _is_pair(value: Any) -> bool:
    if not isinstance(value, JuliaStruct):
        return False
    return len(value.fields) == 2 or (value.type.name == "Pair" and len(value.type.parameters) == 2)


def _side(pair: JuliaStruct, side: int) -> Any:
    """The first or second value of a pair; one that takes no bytes is not stored, and follows from its type."""
    if len(pair.fields) == 2:
        return pair.fields[side]
    name = ("first", "second")[side]
    if name in pair.names:
        return pair.fields[pair.names.index(name)]
    kind = pair.type.parameters[side]
    plain = not isinstance(kind, JuliaType) or kind.path == ("Core", "Nothing")
    return None if plain else () if kind.path == ("Core", "Tuple") else JuliaStruct(kind)


def _plain_list(column: Any) -> list[Any]:
    python = column.dtype.str[1:] in ("i8", "f8", "b1")
    return column.tolist() if python else list(column)


def _big_integer(text: str, fail: Callable[[str], NoReturn]) -> int:
    """A `BigInt`, which JLD2 writes in base 62: digits, then capital letters, then small letters."""
    digits = text.removeprefix("-")
    if not digits or len(digits) > 10_000 or not set(digits) <= set(_DIGITS):
        fail("a BigInt that is not a number in base 62")
    number = 0
    for digit in digits:
        number = 62 * number + _DIGITS.index(digit)
    return -number if text.startswith("-") else number


def _complex(kind: JuliaType, parts: list[Any]) -> Any:
    if all(isinstance(part, np.float32) for part in parts):
        return np.complex64(complex(*map(float, parts)))
    if all(type(part) is float for part in parts):
        return complex(*parts)
    return JuliaStruct(kind, parts, ("re", "im"))


def _lost(kind: JuliaType) -> bool:
    return kind.path[0] in _GPU and kind.path[-1] in _GPU_ARRAYS


def number_of(datatype: Datatype, cell: memoryview) -> Any:
    """A number: int, float or bool for Int64, Float64 or Bool, a NumPy scalar or `Int128` for other types."""
    if datatype.kind == "bits" and datatype.size == 1:
        return cell[0] != 0
    if datatype.dtype is None:
        wide = Int128 if datatype.signed else UInt128
        return wide(int.from_bytes(cell, "little", signed=datatype.signed))
    value = np.frombuffer(cell, datatype.dtype)[0]
    return (
        value.item()
        if datatype.dtype.str[1:] in ("i8", "f8")
        else value.astype(value.dtype.newbyteorder("="))
    )


def plain_type(datatype: Datatype) -> JuliaType | None:
    """The Julia type of an element without a committed type."""
    if datatype.kind == "bits" and datatype.size == 1:
        return JuliaType(("Core", "Bool"))
    if datatype.kind == "integer" and datatype.size == 16:
        return JuliaType(("Core", "Int128" if datatype.signed else "UInt128"))
    if datatype.dtype is None or datatype.kind == "reference":
        return None
    letter = {"i": "Int", "u": "UInt", "f": "Float"}[datatype.dtype.kind]
    return JuliaType(("Core", f"{letter}{8 * datatype.size}"))


def packed(datatype: Datatype) -> np.dtype[Any] | None:
    """The dtype of a struct of numbers as JLD2 packs it, or None if the struct holds anything else."""
    if datatype.kind == "bits" and datatype.size == 1:
        return np.dtype("?")
    if datatype.kind in ("integer", "float"):
        return datatype.dtype
    if datatype.kind == "opaque":
        return np.dtype((np.void, datatype.size))
    if datatype.kind != "compound" or not datatype.members:
        return None
    parts = [packed(m.datatype) for m in datatype.members]
    names = [m.name for m in datatype.members]
    if any(part is None for part in parts) or len(set(names)) < len(names) or not all(names):
        return None
    offsets = [m.offset for m in datatype.members]
    return np.dtype({"names": names, "formats": parts, "offsets": offsets, "itemsize": datatype.size})


def is_type(datatype: Datatype) -> bool:
    """Whether a struct in the file is a Julia type (name and parameters) or a union of types."""
    kinds = tuple((m.name, m.datatype.kind) for m in datatype.members)
    return kinds == (("name", "text"), ("parameters", "sequence")) or kinds[:1] == (("description", "text"),)
