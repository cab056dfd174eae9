"""Julia values as plain Python data, which the BSON and JLD2 readers produce and `formats.flux` interprets.

| Julia | Python |
|---|---|
| Int64, Float64, Bool, String, nothing | int, float, bool, str, None |
| other numbers | NumPy scalars, or the small classes below |
| Array | a NumPy array of Julia's shape in Fortran order, a view of the file where possible |
| Tuple, `Vector{Any}` | tuple, list |
| `Dict{Symbol}`, other dictionaries | a dict with string keys, `JuliaDict` |
| any other struct | `JuliaStruct` |

An element type that NumPy lacks (BFloat16, N0f8, Char) is read as the nearest one and recorded in the metadata of
the dtype, see `elements.py`. Nothing is ever called or imported: a function is represented by its name. Two places
that shared one object in Julia hold the same object in Python.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "UNDEFINED",
    "BFloat16",
    "Char",
    "Int128",
    "JuliaDict",
    "JuliaModule",
    "JuliaStruct",
    "JuliaType",
    "NamedTuple",
    "Symbol",
    "UInt128",
    "Undefined",
    "Unreadable",
]


@dataclass(frozen=True)
class Symbol:
    """A Julia symbol, `:name`."""

    name: str


@dataclass(frozen=True)
class JuliaModule:
    """A module such as `Base.Broadcast`, by its path without a leading `Main`."""

    path: tuple[str, ...]


class Undefined:
    """The value of a field that was never assigned (`BSON.Undef`, a null reference)."""

    def __repr__(self) -> str:
        return "#undef"


UNDEFINED = Undefined()


@dataclass(frozen=True)
class Unreadable:
    """A value whose content is not in the file. It takes the value's place, so that the rest can still be read.

    `reason` is a sentence that says why, and what the user can do.
    """

    reason: str


class Char(str):
    """A `Char`, as opposed to a `String` of length 1."""


class BFloat16(float):
    """A `BFloat16` number."""


class Int128(int):
    """An `Int128`."""


class UInt128(int):
    """A `UInt128`."""


@dataclass(eq=False, repr=False)
class JuliaType:
    """A Julia type. The type of the function `relu` has the path ("NNlib", "#relu").

    Attributes:
        path: Modules and name, such as ("Flux", "Conv"), without a leading "Main".
        parameters: Types, integers, symbols, tuples, or `JuliaStruct`s for type variables.
        definition: The `Core.TypeName` struct that holds the code of an anonymous function in a BSON.jl file, which
            `lowered.py` reads; None for every other type.
    """

    path: tuple[str, ...]
    parameters: tuple[Any, ...] = ()
    definition: Any = None

    @property
    def name(self) -> str:
        """The last part of the path: "Conv"."""
        return self.path[-1] if self.path else ""

    def __str__(self) -> str:
        pieces: list[str] = []
        _spell(self, pieces)
        text = "".join(pieces)
        return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"

    __repr__ = __str__


# Types in a damaged file can refer to each other so often that their full text would be practically endless.
_LONGEST = 400


def _spell(value: Any, pieces: list[str]) -> None:
    if len(pieces) > _LONGEST:
        return
    if not isinstance(value, JuliaType):
        pieces.append(f":{value.name}" if isinstance(value, Symbol) else str(value))
        return
    pieces.append(".".join(value.path))
    for index, parameter in enumerate(value.parameters):
        pieces.append(", " if index else "{")
        _spell(parameter, pieces)
    if value.parameters:
        pieces.append("}")


@dataclass(eq=False)
class JuliaStruct:
    """An instance of a Julia struct. It is mutable, because objects may refer to each other in cycles.

    Attributes:
        type: Its type. A function is an instance of its own type, without fields.
        fields: The values of its fields, in order.
        names: The names of the fields. JLD2 stores them; BSON.jl does not, and `names` is empty.
    """

    type: JuliaType
    fields: list[Any] = field(default_factory=list)
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        # Fields are not shown, because they may refer back to this struct.
        return f"<{self.type} with {len(self.fields)} fields>"


class NamedTuple(tuple[Any, ...]):
    """A tuple whose values have names. `type` is the Julia type if the file gave it."""

    names: tuple[str, ...]
    type: JuliaType | None

    def __new__(
        cls,
        names: Sequence[str],
        values: Sequence[Any],
        type: JuliaType | None = None,  # noqa: A002
    ) -> NamedTuple:
        """Raises `ValueError` unless there are as many names as values."""
        made = super().__new__(cls, values)
        if len(names) != len(made):
            raise ValueError(f"{len(names)} names for {len(made)} values")
        made.names, made.type = tuple(names), type
        return made

    def as_dict(self) -> dict[str, Any]:
        """The values by name, in order."""
        return dict(zip(self.names, self, strict=True))


@dataclass(eq=False)
class JuliaDict(Mapping[Any, Any]):
    """A dictionary with keys of any kind (`Dict`, `IdDict`), stored as two sequences of equal length.

    A key that Python cannot hash, such as an array in the state of an optimiser, is found by identity.
    """

    type: JuliaType
    stored_keys: Any = ()
    stored_values: Any = ()

    def __getitem__(self, key: Any) -> Any:
        for known, value in zip(self.stored_keys, self.stored_values, strict=False):
            if known is key or (_plain(known) and _plain(key) and known == key):
                return value
        raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.stored_keys)

    def __len__(self) -> int:
        return len(self.stored_keys)

    def __repr__(self) -> str:
        return f"<{self.type} with {len(self)} entries>"

    # Mapping's comparison would need hashable keys and would follow cycles.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


def _plain(key: Any) -> bool:
    # Comparing keys of these kinds is cheap and gives a single truth value, whatever the file holds.
    return isinstance(key, (str, int, float, bytes, Symbol)) or (hasattr(key, "dtype") and not key.shape)
