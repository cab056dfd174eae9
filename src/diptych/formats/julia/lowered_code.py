"""Where BSON.jl keeps the lowered code of an anonymous function.

A closure's type leads to its `Core.TypeName`, that to a method table, that to a `Method`, and that to a
`CodeInfo`, whose first field is the list of statements (BSON.jl, src/anonymous.jl). Positions differ between
Julia versions (seen: 1.1, 1.5 and 1.10), so parts are found by their types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.errors import FormatError
from diptych.formats.julia import JuliaStruct, Symbol

__all__ = ["Code", "code_of", "is_core"]


@dataclass(frozen=True)
class Code:
    """The statements of one method; `arguments` and `slots` name its inputs, `captured` the closure's fields.

    `where` is for messages: "#26 (three_conv.jl, line 5)". With `splat` the last argument takes the rest.
    """

    statements: list[Any]
    where: str
    slots: tuple[str, ...]
    arguments: int
    splat: bool
    captured: tuple[str, ...]


def code_of(value: JuliaStruct, arguments: int | None = None) -> Code | None:
    """The code of a closure, or None for other values. Raises `FormatError` if the file does not hold it."""
    definition = value.type.definition
    if not isinstance(definition, JuliaStruct):
        return None
    methods = [m for m in _lists_of(definition, "Method") if arguments is None or _fits(m, arguments)]
    if not methods:
        raise FormatError(
            f"the anonymous function {value.type.name} has no code in the file for this many arguments; "
            "use a named layer such as Flux.flatten in Julia, and save the model again"
        )
    method = methods[0]
    info = next((f for f in method.fields if is_core(f, "CodeInfo")), None)
    statements = info.fields[0] if info is not None and info.fields else None
    if not isinstance(statements, list):
        raise FormatError(
            f"the code of {_where(method)} is compressed; use a named layer in Julia, and save the model again"
        )
    names = next((f for f in definition.fields if is_core(f, "SimpleVector")), None)
    captured = tuple(s.name if isinstance(s, Symbol) else "" for s in names.fields) if names else ()
    slots = _slots(method, info) if info is not None else ()
    count, splat = _signature(method)
    return Code(statements, _where(method), slots, count, splat, captured)


def is_core(value: Any, name: str) -> bool:
    """Whether a value is a struct of the type `name` of Julia's Core."""
    return isinstance(value, JuliaStruct) and value.type.path[0] == "Core" and value.type.name == name


def _lists_of(definition: JuliaStruct, name: str) -> list[JuliaStruct]:
    """The methods in the method table: a list inside the last list among the fields."""
    for table in reversed(definition.fields):
        for part in table if isinstance(table, list) else ():
            if isinstance(part, list) and part and all(is_core(item, name) for item in part):
                return part
    return []


def _signature(method: JuliaStruct) -> tuple[int, bool]:
    """The number of arguments, the function not counted, and whether the last takes all that are left.

    `nargs` and `isva` are the first number and the first boolean after the slots' names, which are a string, or an
    empty vector in Julia 1.0 and 1.1.
    """
    names = (i for i, f in enumerate(method.fields) if isinstance(f, str) or is_core(f, "SimpleVector"))
    place = next(names, len(method.fields))
    after = method.fields[place + 1 :]
    count = next((int(f) for f in after if isinstance(f, (int, np.integer)) and not isinstance(f, bool)), 0)
    return count - 1, next((f for f in after if isinstance(f, bool)), False)


def _slots(method: JuliaStruct, info: JuliaStruct) -> tuple[str, ...]:
    """The names of the arguments and variables; Julia 1.0 and 1.1 have them in the `CodeInfo`."""
    text = next((f for f in method.fields if isinstance(f, str)), None)
    if text is not None:
        return tuple(text.split("\0")[:-1])
    lists = (f for f in info.fields[1:] if isinstance(f, list) and f)
    names = next((f for f in lists if all(isinstance(item, Symbol) for item in f)), [])
    return tuple(item.name for item in names)


def _fits(method: JuliaStruct, arguments: int) -> bool:
    count, splat = _signature(method)
    return arguments >= count - 1 if splat else arguments == count


def _where(method: JuliaStruct) -> str:
    symbols = [f.name for f in method.fields if isinstance(f, Symbol)]
    line = next((int(f) for f in method.fields if isinstance(f, (int, np.integer))), None)
    if len(symbols) < 2 or line is None:
        return symbols[0] if symbols else "an anonymous function"
    return f"{symbols[0]} ({symbols[1]}, line {line})"
