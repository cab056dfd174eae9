"""Expressions: what an anonymous Julia function computes, as a tree of calls by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from diptych.formats.julia import JuliaStruct

__all__ = [
    "Apply",
    "Argument",
    "Call",
    "Captured",
    "Constant",
    "Expression",
    "Function",
    "Name",
    "Tuple",
    "Written",
]


_LONGEST = 200  # nodes of an expression that is written out


@dataclass(frozen=True)
class Argument:
    """An argument of the function, counted from 1."""

    index: int
    name: str = "x"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class Constant:
    """A value written in the code."""

    value: Any

    def __str__(self) -> str:
        return _plain(self.value)


@dataclass(frozen=True, eq=False)
class Captured:
    """A variable of the surrounding code, with the value it had."""

    name: str
    value: Any

    def __str__(self) -> str:
        return _plain(self.value)


@dataclass(frozen=True)
class Name:
    """A function, or `:`, by its name in Julia."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Tuple:
    """A tuple."""

    items: tuple[Expression, ...]

    @property
    def size(self) -> int:
        """The number of nodes in it."""
        return 1 + sum(_size(item) for item in self.items)

    def __str__(self) -> str:
        return "(" + ", ".join(map(str, self.items)) + ")"


@dataclass(frozen=True)
class Call:
    """A call of a readable function. `broadcast` means that Julia has a dot: `relu.(x)`, `2 .* x`."""

    function: str
    arguments: tuple[Expression, ...]
    keywords: tuple[tuple[str, Expression], ...] = ()
    broadcast: bool = False
    size: int = field(default=0, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        parts = [*self.arguments, *(value for _, value in self.keywords)]
        object.__setattr__(self, "size", 1 + sum(_size(part) for part in parts))

    def __str__(self) -> str:
        if self.size > _LONGEST:  # an expression that uses the same part often would be endless
            return f"{self.function}(…)"
        if len(self.arguments) == 2 and not self.function.isidentifier():
            left, right = (f"({a})" if isinstance(a, Call) else str(a) for a in self.arguments)
            return f"{left} {'.' if self.broadcast else ''}{self.function} {right}"
        inside = ", ".join(map(str, self.arguments))
        if self.keywords:
            inside += "; " + ", ".join(f"{key} = {value}" for key, value in self.keywords)
        return f"{self.function}{'.' if self.broadcast else ''}({inside})"


@dataclass(frozen=True, eq=False)
class Apply:
    """A call of a captured value that is not a named function, such as a layer."""

    value: JuliaStruct
    arguments: tuple[Expression, ...]

    @property
    def size(self) -> int:
        """The number of nodes in it."""
        return 1 + sum(_size(part) for part in self.arguments)

    def __str__(self) -> str:
        if self.size > _LONGEST:
            return f"{self.value.type.name}(...)(…)"
        return f"{self.value.type.name}(...)(" + ", ".join(map(str, self.arguments)) + ")"


Expression: TypeAlias = Argument | Constant | Captured | Name | Tuple | Call | Apply


class Written(JuliaStruct):
    """A function, or a struct that can be called, whose body is Julia source rather than lowered code."""

    where: str

    def apply(self, arguments: Sequence[Expression]) -> Expression:
        """The expression that a call gives. Raises `FormatError` with the line that is not understood."""
        raise NotImplementedError


@dataclass(frozen=True)
class Function:
    """What a function computes, and where its code is: "#26 (three_conv.jl, line 5)"."""

    expression: Expression
    where: str

    def __str__(self) -> str:
        return str(self.expression)


def _size(part: Expression) -> int:
    return part.size if isinstance(part, (Call, Tuple, Apply)) else 1


def _plain(value: Any) -> str:
    if isinstance(value, JuliaStruct):
        return value.type.name.lstrip("#")
    return f"{value.item()!r}" if isinstance(value, np.generic) else repr(value)[:40]
