"""Values and what can be done with them: numbers, tuples, vectors, ranges, indices and fields."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from tree_sitter import Node

from diptych.errors import FormatError
from diptych.formats.julia import JuliaStruct, JuliaType, NamedTuple, Symbol
from diptych.formats.julia.expressions import Apply, Argument, Call, Constant, Expression, Name
from diptych.formats.julia.expressions import Tuple as TupleExpression
from diptych.formats.julia_source import definitions
from diptych.formats.julia_source.functions import Random, function_name, name_value
from diptych.formats.julia_source.syntax import parts, short, text_of
from diptych.formats.julia_source.values import (
    COLON,
    Built,
    Constructor,
    Module,
    NotUnderstood,
    Own,
    OwnType,
    Pair,
    Scope,
    Unknown,
    WrittenFunction,
)

if TYPE_CHECKING:
    from diptych.formats.julia_source.evaluator import Evaluator

_MOST_ITEMS = 4096
_LARGEST_WHOLE = 2**63


def number(text: str) -> Any:
    """A literal: 12, 0x1f, 1_000, 2.5, 1e-3, or 2.5f0, which is a Float32."""
    plain = text.replace("_", "")
    try:
        if re.fullmatch(r"0[xob].*", plain):
            return int(plain, 0)
        if "f" in plain:
            return np.float32(plain.replace("f", "e"))
        if re.fullmatch(r"\d+", plain):
            return checked(int(plain)) if len(plain) < 40 else Unknown("it is too large")
        return float(plain)
    except ValueError as error:
        raise NotUnderstood("this number is not read") from error


def checked(value: Any) -> Any:
    """A computed value, if it is within the limits."""
    if isinstance(value, int) and not -_LARGEST_WHOLE <= value < _LARGEST_WHOLE:
        raise NotUnderstood("it is larger than an Int64")
    return limited(value) if isinstance(value, (list, tuple)) else value


def limited(items: Any) -> Any:
    """The items, unless they are too many."""
    if len(items) > _MOST_ITEMS:
        raise NotUnderstood(f"it has more than {_MOST_ITEMS} items")
    return items


def expression(value: Any) -> Expression:
    """A value as part of an expression. Raises `NotUnderstood` for a named tuple, and for tuples without end."""
    return _expression(value, [_MOST_ITEMS])


def _expression(value: Any, left: list[int]) -> Expression:
    if isinstance(value, (Argument, Call, Apply, TupleExpression)):
        return value
    if value is COLON:
        return Name(":")
    if isinstance(value, Constructor):
        return Name(value.name)
    if isinstance(value, NamedTuple):
        raise NotUnderstood("a named tuple is used")
    if isinstance(value, (tuple, range, list)):
        left[0] -= len(value)
        if left[0] < 0:
            raise NotUnderstood(f"it has more than {_MOST_ITEMS} items")
        return TupleExpression(tuple(_expression(item, left) for item in value))
    return Constant(value)


def plain(made: Expression) -> Any:
    """The reverse: numbers and tuples as values."""
    if isinstance(made, Constant):
        return made.value
    if isinstance(made, TupleExpression):
        return tuple(map(plain, made.items))
    if isinstance(made, Name):
        return COLON if made.name == ":" else name_value(made.name)
    return made


def clause(error: FormatError) -> str:
    """What `lowered.py` says about a function, without its name and the advice for files."""
    text = str(error).split("; use named layers")[0].split("; in Julia use")[0]
    return re.sub(
        r"^the Julia function .*? (?=(calls|uses|passes|builds|broadcasts|splats|reads|computes) )",
        "it ",
        text,
    )


def quoted(node: Node) -> Any:
    """The value of `:name`."""
    inside = parts(node)
    if len(inside) == 1 and inside[0].type in ("identifier", "operator"):
        return Symbol(text_of(inside[0]))
    raise NotUnderstood("this quoted expression is not read", node)


def closure(node: Node, scope: Scope, e: Evaluator) -> WrittenFunction:
    """The function that an arrow, a do block or `function (x)` makes."""
    made = definitions.closure(node, scope)
    made.bind(e, e.where(node))
    return made


def instance(kind: OwnType, given: list[Any], e: Evaluator) -> Own:
    """An instance of a struct of the file."""
    names = tuple(name for name, *_ in kind.fields)
    if len(given) > len(names):
        raise NotUnderstood(f"{kind.name} has {len(names)} fields, not {len(given)}")
    left = [Unknown(f"the field {name} is not set") for name in names[len(given) :]]
    made = Own(JuliaType(("Main", kind.name)), [*given, *left], names, kind=kind)
    made.bind(e, e.where(kind.node))
    return made


def composed(outer: Any, inner: Any) -> JuliaStruct:
    """The function `outer ∘ inner`; `composed(b, a)` is `a ∘ b`, which calls b first."""
    return JuliaStruct(JuliaType(("Base", "ComposedFunction")), [inner, outer], ("outer", "inner"))


def same(a: Any, b: Any) -> bool:
    """Whether two values are certainly equal."""
    if isinstance(a, JuliaStruct) and isinstance(b, JuliaStruct):
        return a is b or (
            a.type.path == b.type.path and not a.fields and not b.fields and a.type.name[:1] == "#"
        )
    if isinstance(a, Constructor) or isinstance(b, Constructor):
        return a is b
    return type(a) is type(b) and isinstance(a, (bool, int, float, str, Symbol, np.floating)) and a == b


def agree(a: Any, b: Any) -> bool:
    """Whether two values make the same models: equal ones, or two devices."""
    if isinstance(a, Unknown) or isinstance(b, Unknown):
        return False
    devices = [isinstance(v, Constructor) and v.name in ("gpu", "cpu", "cu") for v in (a, b)]
    plain = [v is None or (function_name(v) == "identity") for v in (a, b)]
    return a is b or same(a, b) or all(d or p for d, p in zip(devices, plain, strict=True))


def joined(values: list[Any]) -> Any:
    """The vector `[a; b]` of numbers and vectors."""
    made: list[Any] = []
    for value in values:
        made += list(value) if isinstance(value, (tuple, list, range)) else [value]
        limited(made)
    return made


def matrix(rows: list[list[Any]]) -> Any:
    """The matrix `[1 2; 3 4]`, or the row `[a b]`."""
    flat = [item for row in rows for item in row]
    if all(len(row) == 1 for row in rows):
        return joined(flat)
    if all(isinstance(item, (int, float, np.floating)) for item in flat) and len({len(r) for r in rows}) == 1:
        return np.asfortranarray(np.array(rows, np.float32))
    return Unknown("a matrix of other values than numbers")


def transposed(value: Any) -> Any:
    """The value of `x'`."""
    if isinstance(value, np.ndarray) and value.ndim <= 2:
        return value.T if value.ndim == 2 else value[None, :]
    if isinstance(value, (int, float)):
        return value
    return Unknown("it is transposed")


def ranged(numbers: list[Any]) -> Any:
    """The range `a:b` or `a:step:b`."""
    if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in numbers):
        raise NotUnderstood("a range of other values than whole numbers")
    start, step, stop = (numbers[0], 1, numbers[1]) if len(numbers) == 2 else numbers
    if step == 0:
        raise NotUnderstood("a range with step 0")
    return range(int(start), int(stop) + (1 if step > 0 else -1), int(step))


def last_index(owner: Any, axis: int | None = None) -> Any:
    """The value of `end` inside brackets, at the index of that number where there are several."""
    if isinstance(owner, (tuple, list, range, str)):
        return len(owner)
    if isinstance(owner, JuliaStruct) and owner.type.name == "Chain":
        return len(owner.fields[0])
    if isinstance(owner, (Call, Argument, Apply)):
        from diptych.formats.julia.lowered import call_of

        try:
            return plain(call_of("lastindex", [owner] if axis is None else [owner, Constant(axis)]))
        except FormatError:
            return Unknown("the end of this is not known")
    if isinstance(owner, np.ndarray):
        return owner.size
    return Unknown("the end of this is not known")


def indexed(e: Evaluator, owner: Any, indices: list[Any], node: Node) -> Any:
    """The value of `owner[indices...]`."""
    for index in indices:
        if isinstance(index, Unknown):
            return index
    if isinstance(owner, (Argument, Call, Apply)):
        return e.expression("getindex", [owner, *indices], {}, False, node)
    if isinstance(owner, dict):
        key = indices[0].name if isinstance(indices[0], Symbol) else indices[0]
        return (
            owner.get(key, Unknown(f"there is no entry {key}", node))
            if isinstance(key, (str, int))
            else Unknown("", node)
        )
    if len(indices) != 1:
        return Unknown("an array is indexed", node)
    index = indices[0]
    if isinstance(owner, JuliaStruct) and owner.type.name == "Chain":
        inside = owner.fields[0]
        found = _item(inside, index, node)
        chain = isinstance(index, (range, list, tuple))
        return Built(owner.type, [tuple(found)], ("layers",), node=node) if chain else found
    if isinstance(owner, Pair):
        return _item((owner.first, owner.second), index, node)
    if isinstance(owner, (tuple, list, range, str)):
        return _item(owner, index, node)
    if isinstance(owner, JuliaStruct) and owner.type.name == "Parallel":
        return _item(owner.fields[-1], index, node)
    return Unknown("an array is indexed", node)


def _item(owner: Any, index: Any, node: Node) -> Any:
    if index is COLON:
        return owner
    if isinstance(index, Symbol) and isinstance(owner, NamedTuple):
        return owner.as_dict().get(index.name, Unknown(f"there is no {index.name}", node))
    if isinstance(index, (range, list, tuple)):
        found = [_item(owner, i, node) for i in limited(index)]
        return tuple(found) if isinstance(owner, tuple) else found
    if isinstance(index, (int, np.integer)) and not isinstance(index, bool) and 1 <= index <= len(owner):
        return owner[int(index) - 1]
    raise NotUnderstood(f"there is no item {short(node, 40)}", node)


def field_of(e: Evaluator, owner: Any, name: str, node: Node) -> Any:
    """The value of `owner.name`."""
    if isinstance(owner, Unknown):
        owner_text = short(parts(node)[0], 40)
        if owner.why == f"{owner_text} is not defined in the file" and re.fullmatch(r"[A-Z]\w*", owner_text):
            return e.name(name, node, Scope())  # an unknown module, such as Zygote
        return owner
    if isinstance(owner, Module):
        return e.name(name, node, e.globals if owner.name == "Metalhead" else Scope())
    if isinstance(owner, NamedTuple):
        return owner.as_dict().get(name, Unknown(f"there is no {name}", node))
    if isinstance(owner, dict):
        return owner.get(name, Unknown(f"there is no {name}", node))
    if isinstance(owner, Pair):
        return getattr(owner, name, Unknown(f"a pair has no {name}", node))
    if isinstance(owner, JuliaStruct) and name in owner.names:
        return owner.fields[owner.names.index(name)]
    if (
        isinstance(owner, JuliaStruct)
        and owner.type.name == "Chain"
        and isinstance(owner.fields[0], NamedTuple)
    ):
        return owner.fields[0].as_dict().get(name, Unknown(f"there is no layer {name}", node))
    if isinstance(owner, (Argument, Call, Apply)):
        raise NotUnderstood("it reads a field of its argument", node)
    return Unknown(f"there is no field {name}", node)


def destructured(value: Any, count: int, e: Evaluator) -> list[Any]:
    """The parts of a value that is assigned to several names."""
    if isinstance(value, Unknown):
        return [value] * count
    if isinstance(value, (Call, Apply, Argument)):
        return [e.expression("getindex", [value, i], {}, False, None) for i in range(1, count + 1)]
    if isinstance(value, Pair):
        return [value.first, value.second][:count]
    if isinstance(value, JuliaStruct) and value.type.name == "Chain":
        value = value.fields[0]
    if isinstance(value, (tuple, list, range)) and len(value) >= count:
        return list(value)[:count]
    return [Unknown("it does not have that many parts")] * count


def bound(e: Evaluator, bindings: list[Node], scope: Scope, body: Callable[[Scope], None]) -> None:
    """Runs `body` for every value of `for a in …, b in …`, each in a scope of its own."""
    if not bindings:
        body(scope)
        return
    inside = parts(bindings[0])
    target, source = inside[0], inside[-1]
    for item in e.items(e.value(source, scope), source):
        inner = Scope(scope)
        names = (
            [text_of(n) for n in parts(target)] if target.type in ("tuple_expression", "open_tuple") else []
        )
        if names:
            inner.names.update(zip(names, destructured(item, len(names), e), strict=False))
        else:
            inner.names[text_of(target)] = item
        bound(e, bindings[1:], inner, body)


_NUMBERS: dict[str, tuple[type, ...]] = {
    "Int": (int, np.integer), "Int64": (int, np.integer), "Int32": (int, np.integer), "Integer": (int, np.integer),
    "Real": (int, float, np.number), "Number": (int, float, np.number),
    "AbstractFloat": (float, np.floating), "Float32": (float, np.floating), "Float64": (float, np.floating),
    "Bool": (bool,), "Symbol": (Symbol,), "String": (str,), "AbstractString": (str,), "Pair": (Pair,),
    "Tuple": (tuple, TupleExpression), "NTuple": (tuple, TupleExpression), "NamedTuple": (NamedTuple,),
    "Dims": (tuple,),
    "Vector": (list, np.ndarray, Random, range, Argument, Call, Apply),
    "AbstractVector": (list, np.ndarray, Random, range, Argument, Call, Apply),
    "Matrix": (np.ndarray, Random, Argument, Call, Apply),
    "AbstractMatrix": (np.ndarray, Random, Argument, Call, Apply),
    "AbstractArray": (list, np.ndarray, Random, range, Argument, Call, Apply),
    "Array": (list, np.ndarray, Random, Argument, Call, Apply),
}  # fmt: skip


def is_a(value: Any, kind: Node | None, scope: Scope) -> bool:
    """Whether a value may belong to a type; only what is certain is denied."""
    if kind is None or isinstance(value, Unknown):
        return True
    name = text_of(kind).split("{")[0].rsplit(".", 1)[-1]
    if name in _NUMBERS:
        whole = name in ("Int", "Int64", "Int32", "Integer") and isinstance(value, bool)
        return isinstance(value, _NUMBERS[name]) and not whole
    own = scope.names.get(name)
    if isinstance(own, OwnType):
        return isinstance(value, Own) and value.kind is own
    if isinstance(value, Own) and value.kind is not None:
        return name in (value.kind.name, value.kind.supertype, "Any") or name not in ("Function", "Chain")
    if name == "Function":
        return isinstance(value, (JuliaStruct, Constructor))
    if name in ("Chain", "Conv", "Dense", "SkipConnection", "Parallel", "BatchNorm"):
        return isinstance(value, JuliaStruct) and value.type.name == name
    if name == "Nothing":
        return value is None
    return True
