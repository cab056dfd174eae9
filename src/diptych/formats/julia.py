"""Julia values as plain Python data: what the BSON and JLD2 readers give and `flux.py` understands.

Numbers, strings, bytes, None and booleans are themselves. Arrays are NumPy arrays with Julia's own shape,
in Fortran order, views of the file where that is possible. Tuples are tuples, `Vector{Any}` lists,
dictionaries with `Symbol` or string keys dicts. Nothing here is ever called or imported: a function
is a name.

Identity is kept: two places that shared one Julia object hold the same Python object.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["JuliaModule", "JuliaStruct", "JuliaType", "Symbol", "Undefined"]


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


@dataclass(eq=False)
class JuliaType:
    """A type: `path` such as ("Flux", "Conv") without a leading "Main", and its parameters.

    Parameters are types, integers, symbols, tuples or `JuliaStruct`s for type variables. The type of the function `relu`
    is ("NNlib", "#relu").
    """

    path: tuple[str, ...]
    parameters: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the path: "Conv"."""
        return self.path[-1] if self.path else ""

    def __str__(self) -> str:
        inside = ", ".join(str(p) for p in self.parameters)
        return ".".join(self.path) + (f"{{{inside}}}" if inside else "")


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
