"""Julia values as plain Python data: what the BSON and JLD2 readers give and `flux.py` understands.

Int64, Float64, Bool, String and nothing are Python's own; other numbers NumPy scalars (`Float32` is
`np.float32`) or the small classes below. Arrays are NumPy arrays with Julia's own shape, in Fortran
order, views of the file where that is possible; an element type that NumPy has not (BFloat16, N0f8,
Char) is read as the nearest one and kept as the dtype's metadata, see `elements.py`.
Tuples are tuples, `Vector{Any}` lists, `Dict{Symbol}` a dict with string keys, other dictionaries
`JuliaDict`. Nothing here is ever called or imported: a function is a name.

Identity is kept: two places that shared one Julia object hold the same Python object.
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
    """`:name`."""

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
    """A value whose content the file does not hold: `reason` is a sentence with what the user can do.

    It stands in the tree so that what is beside it can still be read.
    """

    reason: str


class Char(str):
    """A `Char`, to tell it from a `String` of length 1."""


class BFloat16(float):
    """A `BFloat16` number."""


class Int128(int):
    """An `Int128`."""


class UInt128(int):
    """A `UInt128`."""


@dataclass(eq=False, repr=False)
class JuliaType:
    """A type: `path` such as ("Flux", "Conv") without a leading "Main", and its parameters.

    Parameters are types, integers, symbols, tuples or `JuliaStruct`s for type variables. The type of
    the function `relu` is ("NNlib", "#relu").

    `definition` is only there for anonymous functions in BSON.jl files: the `Core.TypeName` struct that
    their code hangs from, which `lowered.py` reads.
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


# A damaged file can share types so that their full text has no end in practice.
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
    """An instance of a type that Python has no equal of: its fields by position, and by name where known.

    BSON.jl stores no field names (`names` is empty then); JLD2 does. A function is an instance of its
    type without fields. Mutable, because objects may refer to each other in cycles.
    """

    type: JuliaType
    fields: list[Any] = field(default_factory=list)
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        # Fields may refer back to this struct: never print them.
        return f"<{self.type} with {len(self.fields)} fields>"


class NamedTuple(tuple[Any, ...]):
    """A tuple whose values have names; `type` is the Julia type where a file gave it."""

    names: tuple[str, ...]
    type: JuliaType | None

    def __new__(
        cls,
        names: Sequence[str],
        values: Sequence[Any],
        type: JuliaType | None = None,  # noqa: A002
    ) -> NamedTuple:
        """Raises `ValueError` where there are not as many names as values."""
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
    """A dictionary with any keys (`Dict`, `IdDict`): two sequences of equal length.

    Keys that Python cannot hash, arrays of an optimiser's state for one, are found by identity.
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

    # The Mapping's own comparison would need hashable keys, and follow cycles.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


def _plain(key: Any) -> bool:
    # Only these compare to a truth value, cheaply, whatever the file holds.
    return isinstance(key, (str, int, float, bytes, Symbol)) or (hasattr(key, "dtype") and not key.shape)
