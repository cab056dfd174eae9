"""Julia's element types and NumPy's: what the bytes of an array of isbits values mean, and back.

Layouts are C's, as Julia's are ("Calling C and Fortran Code", the manual's section on struct types).
Where NumPy has no such type the array carries the Julia type as metadata of its dtype (`element_type`
reads it), so that an array that came from a file goes back as what it was:

    BFloat16                     float32, widened exactly
    Normed{UInt8,8} (N0f8) ...   float32, float64 for 32 bits and more: raw / (2^f - 1); Fixed raw / 2^f
    Char                         str of length 1 ("<U1")
    Int128, UInt128              Python integers (object)
    tuples and structs of bits   structured; a struct of unknown fields is raw bytes ("V12")
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.formats.julia import BFloat16, Char, Int128, JuliaType, Symbol, UInt128

__all__ = [
    "array_from_bytes",
    "array_to_bytes",
    "element_type",
    "layout",
    "scalar_from_bytes",
    "scalar_to_bytes",
]

NUMBERS: dict[tuple[str, ...], str] = {
    ("Core", "Bool"): "?",
    ("Core", "Int8"): "<i1",
    ("Core", "Int16"): "<i2",
    ("Core", "Int32"): "<i4",
    ("Core", "Int64"): "<i8",
    ("Core", "UInt8"): "<u1",
    ("Core", "UInt16"): "<u2",
    ("Core", "UInt32"): "<u4",
    ("Core", "UInt64"): "<u8",
    ("Core", "Float16"): "<f2",
    ("Core", "Float32"): "<f4",
    ("Core", "Float64"): "<f8",
}
_PATHS = {np.dtype(code): path for path, code in NUMBERS.items()}
_BFLOAT16 = {("Core", "BFloat16"), ("BFloat16s", "BFloat16")}
_WIDE = {("Core", "Int128"): True, ("Core", "UInt128"): False}
_COMPLEX: dict[str, np.dtype[Any]] = {"<f4": np.dtype("<c8"), "<f8": np.dtype("<c16")}
# Field names of structs of one repeated parameter, first parameter (Base, ColorTypes).
_UNIFORM: dict[tuple[str, ...], tuple[str, ...]] = {
    ("Base", "Complex"): ("re", "im"),
    ("Base", "Rational"): ("num", "den"),
    ("ColorTypes", "RGB"): ("r", "g", "b"),
    ("ColorTypes", "BGR"): ("b", "g", "r"),
    ("ColorTypes", "RGBA"): ("r", "g", "b", "alpha"),
    ("ColorTypes", "ARGB"): ("alpha", "r", "g", "b"),
    ("ColorTypes", "Gray"): ("val",),
    ("ColorTypes", "GrayA"): ("val", "alpha"),
    ("ColorTypes", "HSV"): ("h", "s", "v"),
    ("ColorTypes", "Lab"): ("l", "a", "b"),
}
_DEEPEST = 4  # structs inside structs; a damaged file could nest them without end


def marked(dtype: Any, kind: JuliaType) -> np.dtype[Any]:
    """`dtype` with the Julia type as metadata."""
    made: np.dtype[Any] = np.dtype(dtype, metadata={"julia": kind})
    return made


def element_type(array: NDArray[Any]) -> JuliaType | None:
    """The Julia element type of an array; None where NumPy's has no equal in Julia."""
    kind = (array.dtype.metadata or {"julia": None}).get("julia")
    if isinstance(kind, JuliaType):
        return kind
    dtype = array.dtype.newbyteorder("<")
    if dtype in _PATHS:
        return JuliaType(_PATHS[dtype])
    for part, whole in _COMPLEX.items():
        if dtype == whole:
            return JuliaType(("Base", "Complex"), (JuliaType(_PATHS[np.dtype(part)]),))
    if dtype == np.dtype("<U1"):
        return JuliaType(("Core", "Char"))
    return JuliaType(("Core", "Any")) if dtype == np.dtype(object) else None


def layout(kind: Any, depth: int = 0) -> np.dtype[Any] | None:
    """The dtype of one element as the file holds it; None where the fields are not known."""
    if not isinstance(kind, JuliaType) or depth > _DEEPEST:
        return None
    if kind.path in NUMBERS:
        return np.dtype(NUMBERS[kind.path])
    if kind.path in _BFLOAT16:
        return np.dtype("<u2")
    if kind.path == ("Core", "Char"):
        return np.dtype("<u4")
    if kind.path in _WIDE:
        return np.dtype([("low", "<u8"), ("high", "<i8" if _WIDE[kind.path] else "<u8")])
    if _fixed_point(kind):
        return layout(kind.parameters[0], depth + 1)
    names, types = _fields(kind)
    if not names:
        return None
    parts: list[tuple[str, np.dtype[Any]]] = []
    for name, kind_inside in zip(names, types, strict=True):
        part = layout(kind_inside, depth + 1)
        if part is None:
            return None
        parts.append((name, part))
    if kind.path == ("Base", "Complex") and parts[0][1].str in _COMPLEX:
        return _COMPLEX[parts[0][1].str]
    whole: np.dtype[Any] = np.dtype(parts, align=True)
    return whole


def _fields(kind: JuliaType) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    parameters = kind.parameters
    if kind.path in _UNIFORM and parameters:
        names = _UNIFORM[kind.path]
        return names, (parameters[0],) * len(names)
    if kind.path == ("Core", "Tuple"):
        return tuple(str(i + 1) for i in range(len(parameters))), parameters
    if kind.path in {("Core", "Pair"), ("Base", "Pair")} and len(parameters) == 2:
        return ("first", "second"), parameters
    if kind.path == ("Core", "NamedTuple") and len(parameters) == 2:
        names, values = parameters
        if (
            isinstance(names, tuple)
            and isinstance(values, JuliaType)
            and len(names) == len(values.parameters)
        ):
            spelled = tuple(name.name if isinstance(name, Symbol) else str(name) for name in names)
            return (spelled, values.parameters) if len(set(spelled)) == len(spelled) else ((), ())
    return (), ()


def _fixed_point(kind: JuliaType) -> float | None:
    """What one raw unit of a FixedPointNumbers type is worth, as its inverse; None for other types."""
    if kind.path[:1] != ("FixedPointNumbers",) or len(kind.parameters) != 2:
        return None
    bits = kind.parameters[1]
    if not isinstance(bits, (int, np.integer)) or not 0 < bits <= 64:
        return None
    return {"Normed": float(2 ** int(bits) - 1), "Fixed": float(2 ** int(bits))}.get(kind.name)


# ---- Arrays -------------------------------------------------------------------------------------------


def array_from_bytes(kind: JuliaType, raw: memoryview | bytes, shape: tuple[int, ...]) -> NDArray[Any]:
    """The array of `shape` (Julia's) whose column-major bytes are `raw`: a view where NumPy has the type.

    Raises `ValueError`, with a clause for an error message, where the bytes do not match the shape.
    """
    count = math.prod(shape)
    size = len(raw)
    dtype = layout(kind)
    if dtype is None:
        if count == 0 or size % count:
            raise ValueError(f"{size} bytes do not divide into {count} elements of type {kind}")
        dtype = marked(f"V{size // count}", kind)
    elif size != count * dtype.itemsize:
        raise ValueError(
            f"{_spelled(shape)} elements of {kind} need {count * dtype.itemsize} bytes, not {size}"
        )
    flat = _natural(kind, np.frombuffer(raw, dtype))
    return flat.reshape(shape, order="F")


def _spelled(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "1"


def _natural(kind: JuliaType, flat: NDArray[Any]) -> NDArray[Any]:
    if kind.path in _BFLOAT16:
        widened: NDArray[Any] = flat.astype("<u4") << 16
        return widened.view(marked("<f4", kind))
    if kind.path == ("Core", "Char"):
        return np.array([_char(int(bits)) for bits in flat], dtype="<U1")
    if kind.path in _WIDE:
        numbers = [(int(high) << 64) + int(low) for low, high in zip(flat["low"], flat["high"], strict=True)]
        wide = np.empty(len(numbers), dtype=marked(object, kind))
        wide[:] = numbers
        return wide
    if kind.path == ("Core", "Bool") and flat.size and flat.view(np.uint8).max() > 1:
        return np.not_equal(flat.view(np.uint8), 0)  # any other byte would make two kinds of True
    unit = _fixed_point(kind)
    if unit is not None:
        dtype = marked("<f4" if flat.dtype.itemsize <= 2 else "<f8", kind)
        return (flat.astype(np.float64) / unit).astype(dtype)
    if flat.dtype.names is not None:
        return flat.view(marked(flat.dtype, kind))
    return flat


def array_to_bytes(array: NDArray[Any], kind: JuliaType) -> bytes:
    """The column-major bytes of `array` as Julia holds elements of `kind`."""
    flat = array.reshape(-1, order="F")
    if kind.path in _BFLOAT16:
        return round_to_bfloat16(flat).tobytes()
    if kind.path == ("Core", "Char"):
        return b"".join(_char_bytes(str(character)) for character in flat)
    if kind.path in _WIDE:
        return b"".join(int(number).to_bytes(16, "little", signed=_WIDE[kind.path]) for number in flat)
    unit = _fixed_point(kind)
    dtype = layout(kind)
    if unit is not None and dtype is not None:
        return np.rint(flat.astype(np.float64) * unit).astype(dtype).tobytes()
    return flat.astype(dtype or flat.dtype, copy=False).tobytes()


def round_to_bfloat16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """The upper 16 bits of float32 values, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(values.astype("<f4")), (bits >> 16) | 0x40, rounded).astype("<u2")


def _char(bits: int) -> str:
    """Julia's Char is its UTF-8 bytes from the high end of 32 bits."""
    raw = bits.to_bytes(4, "big").rstrip(b"\0") or b"\0"
    text = raw.decode("utf-8", "replace")
    return text if len(text) == 1 else "�"


def _char_bytes(character: str) -> bytes:
    return (character or "\0").encode("utf-8").ljust(4, b"\0")[::-1]


# ---- Scalars ------------------------------------------------------------------------------------------


def scalar_from_bytes(kind: JuliaType, raw: bytes) -> Any:
    """The number or character of a primitive type; None where the type is not a known one.

    Raises `ValueError`, with a clause for an error message, where there are not as many bytes as it needs.
    """
    dtype = layout(kind) if kind.path in NUMBERS or kind.path in _WIDE else None
    if kind.path in _BFLOAT16:
        dtype = np.dtype("<u2")
    if kind.path == ("Core", "Char"):
        dtype = np.dtype("<u4")
    if dtype is None:
        return None
    if len(raw) != dtype.itemsize:
        raise ValueError(f"a {kind} needs {dtype.itemsize} bytes, not {len(raw)}")
    value = array_from_bytes(kind, raw, (1,))[0]
    if kind.path in _WIDE:
        return Int128(value) if kind.name == "Int128" else UInt128(value)
    if kind.path in _BFLOAT16:
        return BFloat16(value)
    if kind.path == ("Core", "Char"):
        return Char(value or "\0")
    return {"Int64": int, "Float64": float, "Bool": bool}.get(kind.name, lambda number: number)(value)


def scalar_to_bytes(value: Any) -> tuple[JuliaType, bytes] | None:
    """The Julia type and bytes of a number that BSON has no element for; None for anything else."""
    if isinstance(value, BFloat16):
        return JuliaType(("BFloat16s", "BFloat16")), round_to_bfloat16(np.array([value], "<f4")).tobytes()
    if isinstance(value, Char):
        return JuliaType(("Core", "Char")), _char_bytes(value)
    if isinstance(value, (Int128, UInt128)):
        kind = JuliaType(("Core", type(value).__name__))
        return kind, int(value).to_bytes(16, "little", signed=isinstance(value, Int128))
    if isinstance(value, np.generic) and value.dtype.newbyteorder("<") in _PATHS:
        dtype = value.dtype.newbyteorder("<")
        return JuliaType(_PATHS[dtype]), value.astype(dtype).tobytes()
    return None
