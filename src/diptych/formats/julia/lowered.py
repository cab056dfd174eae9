"""Anonymous Julia functions, read from the lowered code that BSON.jl stores beside them.

`x -> reshape(x, :, size(x, 4))` is in the file as a list of statements such as

    %1 = call Main.size _2 4
    %2 = call Main.reshape _2 : %1
    return %2

(Julia's manual, "Julia ASTs", section "Lowered form"). Walking them with symbols instead of numbers gives an
expression; nothing is ever run. A call of a function that is not in `READABLE` is refused with its name and the line
of Julia code.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from diptych.errors import FormatError
from diptych.formats.julia import JuliaModule, JuliaStruct, NamedTuple, Symbol
from diptych.formats.julia.expressions import (
    Apply,
    Argument,
    Call,
    Captured,
    Constant,
    Expression,
    Function,
    Name,
    Tuple,
    Written,
)
from diptych.formats.julia.lowered_code import code_of, is_core
from diptych.formats.julia.lowering.arrays import ARRAYS, MAKERS
from diptych.formats.julia.lowering.constants import FOLDED
from diptych.formats.julia.lowering.elementwise import ELEMENTWISE

__all__ = ["MODULES", "READABLE", "call_of", "interpret", "is_function", "lacks_code"]

# The functions that are understood, by name. A call of any other function is refused.
READABLE = frozenset((*ELEMENTWISE, *ARRAYS, *FOLDED, "splat"))
_MOST_STATEMENTS = 5000
_LARGEST = 200  # nodes of one expression
_LARGEST_OF_SOURCE = 10**6  # as a tree; a network written as one function uses its values again
_DEEPEST = 8  # functions that call captured functions


# Values that only exist while the code is walked.


@dataclass(frozen=True)
class _Type:
    """A type such as `NamedTuple{(:dims,)}` or `Val{2}`, which the code calls to make a value."""

    name: str
    parameters: tuple[Any, ...]


@dataclass(frozen=True)
class _Keywords:
    pairs: tuple[tuple[str, Expression], ...]


@dataclass(frozen=True)
class _Sorter:
    """The result of `Core.kwfunc(f)`, which takes the keywords of f first (Julia before 1.9)."""


@dataclass(frozen=True)
class _Self:
    """The closure itself, whose fields are the values that it captured."""

    closure: JuliaStruct
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Row:
    """A tuple that holds such values."""

    items: tuple[_Value, ...]


_Value: TypeAlias = "Expression | _Type | _Keywords | _Sorter | _Self | _Row"


def is_function(value: Any) -> bool:
    """Whether a value is a function: a named one, a closure, a `Base.Fix1` or `Fix2`, or a composition."""
    return isinstance(value, JuliaStruct) and (
        isinstance(value, Written)
        or value.type.definition is not None
        or _singleton(value) is not None
        or lacks_code(value)
        or value.type.path in {("Base", "Fix1"), ("Base", "Fix2"), ("Base", "ComposedFunction")}
    )


def _singleton(value: JuliaStruct) -> str | None:
    """The name of a named function, whose type is called "#relu"; None for other values."""
    name = value.type.name
    if isinstance(value, Written):
        return None
    if value.fields or value.type.definition is not None or len(name) < 2 or name[0] != "#":
        return ":" if value.type.path == ("Base", "Colon") else None
    return name[1:]


def lacks_code(value: JuliaStruct) -> bool:
    """Whether a value is a closure, of a type such as "#28#30", whose code is not in the file."""
    if isinstance(value, Written):
        return False
    return value.type.definition is None and re.fullmatch(r"#.*#\d+", value.type.name) is not None


# The modules whose functions are trusted by name: `relu` of any other module may compute anything.
MODULES = frozenset(
    ("Base", "Core", "CUDA", "CuArrays", "Flux", "MLUtils", "Metalhead", "NNlib", "NNlibCUDA", "Statistics")
)


def interpret(value: JuliaStruct, arguments: int = 1) -> Function:
    """What a function computes, as an expression.

    Args:
        value: A closure, a named function, a `Base.Fix1`, a `Base.Fix2` or a composition.
        arguments: The number of its arguments.

    Raises:
        FormatError: If it calls something that is not readable, with its name, the function and the line of code.
    """
    if not isinstance(value, JuliaStruct | Written):
        raise FormatError(f"a {type(value).__name__} stands where a function is expected")
    walker = _Walker()
    walker.where = value.where if isinstance(value, Written) else str(value.type.name)
    names = [f"x{i}" if arguments > 1 else "x" for i in range(1, arguments + 1)]
    code = code_of(value)
    if code is not None and len(code.slots) > arguments:
        names = [slot or name for slot, name in zip(code.slots[1:], names, strict=False)]
        walker.where = code.where
    inputs = tuple(Argument(i, name) for i, name in enumerate(names, 1))
    where = walker.where
    result = walker.apply(value, inputs, ())
    return Function(walker.finished(result), where)


def call_of(
    name: str,
    arguments: Sequence[Expression],
    keywords: Mapping[str, Expression] | None = None,
    dotted: bool = False,
) -> Expression:
    """The expression of a call by name, as lowered code gives it; `dotted` means a dot behind the name.

    Raises:
        FormatError: If the function is not readable.
    """
    walker = _Walker()
    walker.largest = _LARGEST_OF_SOURCE
    pairs = tuple((keywords or {}).items())
    if dotted and pairs:
        raise walker.refuse(f"broadcasts {name} with keywords")
    if dotted:
        return walker.finished(_broadcasted(walker, [Name(name), *arguments]))
    return walker.finished(walker.named(name, arguments, pairs))


# ---- Walking it ---------------------------------------------------------------------------------------


class _Walker:
    def __init__(self) -> None:
        self.where = "an anonymous function"
        self.depth = 0
        self.steps = 0
        self.largest = _LARGEST

    def refuse(self, what: str) -> FormatError:
        return FormatError(
            f"the Julia function {self.where} {what}, which Diptych does not read; "
            "use named layers such as Flux.flatten in Julia instead, and save the model again"
        )

    def finished(self, value: _Value) -> Expression:
        if isinstance(value, (_Type, _Keywords, _Sorter, _Self, _Row)):
            raise self.refuse("uses a type or itself as a value")
        return value

    # ---- Calls ----

    def apply(self, value: Any, arguments: Sequence[_Value], keywords: Sequence[tuple[str, Any]]) -> _Value:
        """Calls a Julia value from the file."""
        if not isinstance(value, JuliaStruct):
            raise self.refuse(f"calls {str(value)[:40]}")
        if isinstance(value, Written) and not keywords:
            return value.apply([self.finished(a) for a in arguments])
        if lacks_code(value):
            raise FormatError(
                f"the anonymous function {value.type.name} has no code in the file: JLD2, and BSON.jl on newer "
                "Julia, store only its name; use a named layer such as Flux.flatten in Julia, and save the model again"
            )
        name = _singleton(value)
        if name is not None and value.type.path[0] not in MODULES:
            raise FormatError(
                f"the function {'.'.join(value.type.path).replace('#', '')} was defined by the model's author, and its "
                "code is not in the file; use a function of Flux or NNlib in Julia, and save the model again"
            )
        if name is not None:
            return self.named(name, arguments, tuple(keywords))
        kind, fields = value.type.path, value.fields
        if kind == ("Base", "Fix1") and len(fields) == 2:
            return self.apply(fields[0], [Constant(fields[1]), *arguments], keywords)
        if kind == ("Base", "Fix2") and len(fields) == 2:
            return self.apply(fields[0], [*arguments, Constant(fields[1])], keywords)
        if kind == ("Base", "ComposedFunction") and len(fields) == 2:
            return self.apply(fields[0], [self.apply(fields[1], arguments, keywords)], ())
        if value.type.definition is not None:
            return self.enter(value, arguments, keywords)
        if keywords:
            raise self.refuse(f"calls a {value.type.name} with keywords")
        return Apply(value, tuple(self.finished(a) for a in arguments))

    def enter(self, closure: JuliaStruct, arguments: Sequence[_Value], keywords: Sequence[Any]) -> _Value:
        code = code_of(closure, len(arguments))
        if code is None or keywords:
            raise self.refuse(f"calls {closure.type.name} with keywords")
        if self.depth >= _DEEPEST:
            raise self.refuse(f"nests functions more than {_DEEPEST} deep")
        outer, self.where = self.where, code.where
        self.depth += 1
        given = list(arguments)
        if code.splat:
            rest = tuple(self.finished(a) for a in given[code.arguments - 1 :])
            given = [*given[: code.arguments - 1], Tuple(rest)]
        slots: dict[int, _Value] = {1: _Self(closure, code.captured)}
        slots.update(enumerate(given, 2))
        result = self.run(code.statements, 0, {}, slots)
        self.depth -= 1
        self.where = outer
        return result

    def call(self, function: _Value, arguments: list[_Value], keywords: tuple[Any, ...] = ()) -> _Value:
        if isinstance(function, Name):
            return self.named(function.name, arguments, keywords)
        if isinstance(function, (Constant, Captured)):
            return self.apply(function.value, arguments, keywords)
        if isinstance(function, Call) and function.function in MAKERS and not keywords:
            return self.readable("call", (function, *map(self.finished, arguments)), (), broadcast=False)
        if isinstance(function, _Sorter) and len(arguments) >= 2:
            return self.with_keywords(arguments)
        if isinstance(function, _Type) and function.name == "Val":
            return Constant(function.parameters[0])
        if isinstance(function, _Type) and len(arguments) == 1 and isinstance(arguments[0], Tuple):
            names, items = function.parameters, arguments[0].items
            if len(names) == len(items):
                return _Keywords(tuple(zip(names, items, strict=True)))
        raise self.refuse("calls something that it computes itself")

    def with_keywords(self, arguments: Sequence[_Value]) -> _Value:
        """Calls a keyword sorter, whose arguments are the keywords, the function and its arguments."""
        keywords = arguments[0]
        if not isinstance(keywords, _Keywords):
            raise self.refuse("passes keywords that it computes itself")
        return self.call(arguments[1], list(arguments[2:]), keywords.pairs)

    def named(self, name: str, arguments: Sequence[_Value], keywords: tuple[Any, ...]) -> _Value:
        special = _SPECIAL.get(name)
        if special is not None and not keywords:
            return special(self, list(arguments))
        plain = tuple(self.finished(a) for a in arguments)
        return self.readable(name, plain, keywords, broadcast=False)

    def readable(
        self, name: str, arguments: tuple[Expression, ...], keywords: tuple[Any, ...], *, broadcast: bool
    ) -> Expression:
        if name == "identity" and len(arguments) == 1:
            return arguments[0]
        if name not in READABLE:
            raise self.refuse(f"calls {name}")
        folded = _fold(name, arguments)
        if folded is not None:
            return folded
        call = Call(name, arguments, keywords, broadcast)
        if call.size > self.largest:
            raise self.refuse(f"computes more than {self.largest} steps")
        return call

    # ---- Statements ----

    def run(self, code: list[Any], at: int, results: dict[int, _Value], slots: dict[int, _Value]) -> _Value:
        """The value that is returned from statement `at` on. If a condition is not known, both branches are walked."""
        while True:
            self.steps += 1
            if not 0 <= at < len(code) or self.steps > _MOST_STATEMENTS:
                raise self.refuse("has code that does not end")
            statement = code[at]
            jump = self.jump(statement, at, results, slots)
            if jump is None:
                results[at + 1] = self.statement(statement, results, slots)
                at += 1
                continue
            condition, targets = jump
            if not targets:
                return condition
            if any(target <= at for target in targets):
                raise self.refuse("contains a loop")
            if len(targets) == 1:
                at = targets[0]
                continue
            test = self.finished(condition)
            known = getattr(test, "value", None)
            if isinstance(known, (bool, np.bool_)):
                at = targets[0] if known else targets[1]
                continue
            branches = [self.finished(self.run(code, t, dict(results), dict(slots))) for t in targets]
            return self.readable("ifelse", (test, *branches), (), broadcast=False)

    def jump(
        self, statement: Any, at: int, results: dict[int, _Value], slots: dict[int, _Value]
    ) -> tuple[_Value, tuple[int, ...]] | None:
        """How a statement goes on: (value, ()) returns, (None, (target,)) jumps, (test, (then, otherwise)) branches."""
        if not isinstance(statement, JuliaStruct):
            return None
        name, fields = statement.type.name, statement.fields
        if name == "Expr":
            name, fields = _expression(statement)
        if name in ("return", "ReturnNode"):
            return self.value(fields[0] if fields else None, results, slots), ()
        if name in ("goto", "GotoNode") and fields:
            return Constant(None), (self.label(fields[0]),)
        if name in ("gotoifnot", "GotoIfNot") and len(fields) == 2:
            return self.value(fields[0], results, slots), (at + 1, self.label(fields[1]))
        return None

    def label(self, value: Any) -> int:
        if not isinstance(value, (int, np.integer)):
            raise self.refuse("jumps to a target that is not a number")
        return int(value) - 1

    def statement(self, statement: Any, results: dict[int, _Value], slots: dict[int, _Value]) -> _Value:
        if not is_core(statement, "Expr"):
            return (
                Constant(None) if is_core(statement, "NewvarNode") else self.value(statement, results, slots)
            )
        head, parts = _expression(statement)
        if head == "call" and parts:
            function, *arguments = (self.value(part, results, slots) for part in parts)
            return self.call(function, arguments)
        if head == "=" and len(parts) == 2 and is_core(parts[0], "SlotNumber"):
            made = self.statement(parts[1], results, slots)
            slots[_number(parts[0])] = made
            return made
        if head in ("meta", "inbounds", "line", "loopinfo", "code_coverage_effect"):
            return Constant(None)
        raise self.refuse(f"uses the statement {head}")

    def value(self, part: Any, results: dict[int, _Value], slots: dict[int, _Value]) -> _Value:
        if isinstance(part, Symbol):
            return Name(part.name)
        if isinstance(part, tuple) and not isinstance(part, NamedTuple):
            return Tuple(tuple(Constant(item) for item in part))
        if not isinstance(part, JuliaStruct):
            return Constant(part)
        name, fields = part.type.name, part.fields
        if is_core(part, "SSAValue") or name in ("SlotNumber", "Argument"):
            known = results if name == "SSAValue" else slots
            if _number(part) not in known:
                raise self.refuse("uses a value before it is set")
            return known[_number(part)]
        if is_core(part, "GlobalRef") and len(fields) > 1 and isinstance(fields[1], Symbol):
            return Name(fields[1].name)
        if is_core(part, "QuoteNode") and fields:
            return Constant(fields[0])
        if is_core(part, "Expr"):
            return self.statement(part, results, slots)
        singleton = _singleton(part)
        return Name(singleton) if singleton is not None else Constant(part)


def _expression(statement: JuliaStruct) -> tuple[str, list[Any]]:
    fields = statement.fields
    if len(fields) < 2 or not isinstance(fields[0], Symbol) or not isinstance(fields[1], list):
        return "?", []
    return fields[0].name, fields[1]


def _number(part: JuliaStruct) -> int:
    value = part.fields[0] if part.fields else None
    return int(value) if isinstance(value, (int, np.integer)) else -1


# ---- Functions that lowering inserts ----------- --------------------------------------------------------


def _getfield(walker: _Walker, arguments: list[_Value]) -> _Value:
    owner, key = (*arguments, None, None)[:2]
    wanted = key.value if isinstance(key, Constant) else None
    held = owner.value if isinstance(owner, (Constant, Captured)) else None
    if isinstance(wanted, Symbol):
        if isinstance(owner, Name) and owner.name in MODULES:  # NNlib.relu
            return Name(wanted.name)
        if isinstance(held, JuliaModule):
            return Name(wanted.name)
        if isinstance(held, NamedTuple) and wanted.name in held.names:
            return Captured(wanted.name, held.as_dict()[wanted.name])
        if (
            isinstance(held, JuliaStruct) and held.type.name == "Box" and held.fields
        ):  # a variable that was set again
            return Captured(wanted.name, held.fields[0])
        if isinstance(held, JuliaStruct) and wanted.name in held.names:
            return Captured(wanted.name, held.fields[held.names.index(wanted.name)])
    if isinstance(owner, _Self) and isinstance(wanted, Symbol) and wanted.name in owner.names:
        index = owner.names.index(wanted.name)
        if index < len(owner.closure.fields):
            return Captured(wanted.name, owner.closure.fields[index])
    if isinstance(owner, Tuple) and isinstance(wanted, int) and 1 <= wanted <= len(owner.items):
        return owner.items[wanted - 1]
    raise walker.refuse(f"reads a field {getattr(wanted, 'name', wanted)!s:.40}")


def _apply_type(walker: _Walker, arguments: list[_Value]) -> _Value:
    if len(arguments) == 2 and isinstance(arguments[0], Name):
        name, given = arguments[0].name, arguments[1]
        if name == "Val" and isinstance(given, Constant):
            return _Type("Val", (given.value,))
        if name == "NamedTuple" and isinstance(given, Tuple):
            keys = [item.value for item in given.items if isinstance(item, Constant)]
            if all(isinstance(key, Symbol) for key in keys):
                return _Type("NamedTuple", tuple(key.name for key in keys))
    raise walker.refuse("builds a type")


def _broadcasted(walker: _Walker, arguments: list[_Value]) -> _Value:
    function, *rest = arguments or [Constant(None)]
    if function == Name("literal_pow"):
        return _power(walker, rest, broadcast=True)
    if isinstance(function, (Constant, Captured)) and isinstance(function.value, JuliaStruct):
        singleton = _singleton(function.value)
        if singleton is None:
            return walker.apply(function.value, rest, ())  # elementwise by its own: x -> leakyrelu(x, a)
        function = Name(singleton)
    if not isinstance(function, Name):
        raise walker.refuse("broadcasts something that it computes itself")
    plain = tuple(walker.finished(a) for a in rest)
    return walker.readable(function.name, plain, (), broadcast=True)


def _power(walker: _Walker, arguments: list[_Value], broadcast: bool = False) -> _Value:
    """The call literal_pow(^, x, Val(2)), which Julia makes of `x^2`."""
    if len(arguments) != 3:
        raise walker.refuse("calls literal_pow")
    base, exponent = (walker.finished(a) for a in arguments[1:])
    return walker.readable("^", (base, exponent), (), broadcast=broadcast)


def _materialize(walker: _Walker, arguments: list[_Value]) -> _Value:
    if len(arguments) != 1:
        raise walker.refuse("calls materialize")
    return arguments[0]


def _splat(walker: _Walker, arguments: list[_Value]) -> _Value:
    """The call _apply_iterate(iterate, f, tuples...), which Julia makes of `f(x...)`."""
    if len(arguments) < 2:
        raise walker.refuse("calls _apply_iterate")
    items: list[_Value] = []
    for argument in arguments[2:]:
        if isinstance(argument, (Tuple, _Row)):
            items.extend(argument.items)
        elif isinstance(argument, Call):
            items.append(Call("splat", (argument,)))
        else:
            raise walker.refuse("splats a value that is not a tuple")
    return walker.call(arguments[1], items)


def _getindex(walker: _Walker, arguments: list[_Value]) -> _Value:
    """Indexing. The elements of a tuple and `size(x)[k]` are found at once."""
    if len(arguments) == 2:
        owner, index = arguments
        place = index.value if isinstance(index, Constant) else None
        if isinstance(owner, Tuple) and isinstance(place, int) and 1 <= place <= len(owner.items):
            return owner.items[place - 1]
        sizes = isinstance(owner, Call) and owner.function == "size" and len(owner.arguments) == 1
        ends = isinstance(index, Call) and index.function == "ndims"
        if isinstance(owner, Call) and sizes and (isinstance(place, int) or ends):
            return walker.readable("size", (*owner.arguments, walker.finished(index)), (), broadcast=False)
    plain = tuple(walker.finished(a) for a in arguments)
    return walker.readable("getindex", plain, (), broadcast=False)


def _lastindex(walker: _Walker, arguments: list[_Value]) -> _Value:
    if len(arguments) == 1 and isinstance(arguments[0], Call) and arguments[0].function == "size":
        return walker.readable("ndims", arguments[0].arguments, (), broadcast=False)
    plain = tuple(walker.finished(a) for a in arguments)
    return walker.readable("lastindex", plain, (), broadcast=False)


def _iterate(walker: _Walker, arguments: list[_Value]) -> _Value:
    """The call indexed_iterate(values, k), which Julia makes of `a, b = values`; it gives the k-th and a state."""
    if len(arguments) < 2 or not isinstance(arguments[1], Constant):
        raise walker.refuse("calls indexed_iterate")
    return Tuple((walker.finished(_getindex(walker, arguments[:2])), Constant(None)))


def _tuple(walker: _Walker, arguments: list[_Value]) -> _Value:
    if any(isinstance(a, (_Type, _Keywords, _Sorter, _Self, _Row)) for a in arguments):
        return _Row(tuple(arguments))
    return Tuple(tuple(walker.finished(a) for a in arguments))


def _pipe(walker: _Walker, arguments: list[_Value]) -> _Value:
    if len(arguments) != 2:
        raise walker.refuse("calls |>")
    return walker.call(arguments[1], [arguments[0]])


def _keyword_call(walker: _Walker, arguments: list[_Value]) -> _Value:
    if len(arguments) < 2:
        raise walker.refuse("calls kwcall")
    return walker.with_keywords(arguments)


_SPECIAL: dict[str, Callable[[_Walker, list[_Value]], _Value]] = {
    "_apply_iterate": _splat,
    "apply_type": _apply_type,
    "Val": lambda walker, arguments: walker.finished(arguments[0] if arguments else Constant(None)),
    "broadcast": _broadcasted,
    "broadcasted": _broadcasted,
    "getfield": _getfield,
    "getindex": _getindex,
    "getproperty": _getfield,
    "kwcall": _keyword_call,
    "kwfunc": lambda walker, arguments: _Sorter(),
    "indexed_iterate": _iterate,
    "isdefined": lambda walker, arguments: Constant(True),
    "lastindex": _lastindex,
    "literal_pow": _power,
    "materialize": _materialize,
    "tuple": _tuple,
    "typeassert": lambda walker, arguments: arguments[0] if arguments else Constant(None),
    "vect": _tuple,
    "|>": _pipe,
}

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


def _fold(name: str, arguments: tuple[Expression, ...]) -> Expression | None:
    """The value of arithmetic on plain numbers, and of ranges such as `1:3`, which are computed at once."""
    values = [a.value for a in arguments if isinstance(a, (Constant, Captured))]
    numbers = [v for v in values if isinstance(v, (int, float, np.number))]
    if len(numbers) != len(arguments) or len(numbers) < 2:
        return None
    if name == ":" and len(numbers) == 2:
        low, high = numbers
        if not isinstance(low, int) or not isinstance(high, int) or not 0 <= high - low < 16:
            return None
        return Tuple(tuple(Constant(i) for i in range(low, high + 1)))
    if (
        name not in _ARITHMETIC
        or (len(numbers) > 2 and name not in "+*")
        or (name == "/" and not all(numbers[1:]))
    ):
        return None
    made = numbers[0] if type(numbers[0]) is int else float(numbers[0])
    for value in numbers[1:]:
        made = _ARITHMETIC[name](made, value if type(value) is int else float(value))
    return Constant(made)
