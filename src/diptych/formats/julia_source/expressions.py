"""How each kind of expression is evaluated, and the functions that take functions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from tree_sitter import Node

from diptych.formats.julia import JuliaStruct, NamedTuple
from diptych.formats.julia_source import operations
from diptych.formats.julia_source.autosize import autosized
from diptych.formats.julia_source.evaluator import MOST_ITEMS, Evaluator, Higher, Rule, is_symbolic
from diptych.formats.julia_source.functions import name_value
from diptych.formats.julia_source.syntax import operator_of, parts, short, text_of
from diptych.formats.julia_source.values import Built, Constructor, NotUnderstood, Own, Pair, Scope, Unknown

__all__ = ["DOTS", "HIGHER", "RULES", "with_dots"]

# ---- Rules for each kind of node ----------------------------------------------------------------------


_DEVICE = re.compile(r"(\w+\.)*\w*(dev|gpu|cpu|cuda)\w*(\(.*\))?", re.IGNORECASE)


def _call(e: Evaluator, node: Node, scope: Scope) -> Any:
    callee, *rest = parts(node)
    clause = next((c for c in rest if c.type == "do_clause"), None)
    lists = next((c for c in rest if c.type == "argument_list"), None)
    if lists is None:
        raise NotUnderstood("this is not read", node)
    function = e.value(callee, scope)
    if isinstance(function, Unknown):
        _check_hidden(e, callee, lists, scope, function)
    if isinstance(function, Unknown) and not (function.node is not None and function.node == callee):
        return function
    given, keywords = e.arguments(lists, scope)
    if clause is not None:
        given.insert(0, operations.closure(clause, scope, e))
    moved = isinstance(function, Unknown) and len(given) == 1 and isinstance(given[0], (Built, Own))
    if moved and _DEVICE.fullmatch(short(callee)):
        return given[0]
    if isinstance(function, Unknown):
        return Unknown(function.why, node)
    if e.dotted and callee.type != "interpolation_expression":
        return e.broadcast(function, given, keywords, node)
    return e.call(function, given, keywords, node)


# Types that hold a model beside data and optimisers, and compute nothing themselves.
_HOLDERS = frozenset(
    ("TrainState", "TrainingState", "DataLoader", "Optimiser", "Ref", "WeakRef", "StatefulLuxLayer", "Duplicated",
     "Const", "FluxDistributedModel", "Enzyme", "Logger", "Dict")
)  # fmt: skip


def _check_hidden(e: Evaluator, callee: Node, lists: Node, scope: Scope, function: Unknown) -> None:
    """Refuses `MyNet(Chain(…))` where MyNet is not known: what it computes of the layers is not either."""
    name = text_of(callee).rsplit(".", 1)[-1]
    if not name[:1].isupper() or name in _HOLDERS:
        return
    try:
        given, keywords = e.arguments(lists, scope)
    except NotUnderstood as error:
        raise NotUnderstood(error.why, error.node, error.hides_model) from error
    if any(isinstance(value, (Built, Own)) for value in (*given, *keywords.values())):
        raise NotUnderstood(function.why, callee, hides_model=True)


def _dotted_call(e: Evaluator, node: Node, scope: Scope) -> Any:
    callee, lists = parts(node)[0], parts(node)[-1]
    function = e.value(callee, scope)
    given, keywords = e.arguments(lists, scope)
    return e.broadcast(function, given, keywords, node)


def _binary(e: Evaluator, node: Node, scope: Scope) -> Any:
    left, right = parts(node)[0], parts(node)[-1]
    sign = operator_of(node)
    if e.dotted and sign in _DOTTABLE:
        sign = f".{sign}"
    if sign in ("&&", "||"):
        first = e.value(left, scope)
        if isinstance(first, bool):
            return e.value(right, scope) if first == (sign == "&&") else first
        return first if isinstance(first, Unknown) else Unknown("the condition is not known", node)
    if sign in ("^", ".^"):
        return _power(e, node, scope)
    if sign in _COMPARISONS and left.type == "binary_expression" and operator_of(left) in _COMPARISONS:
        return _compared(e, left, node, scope)
    a = e.argument(left, scope)
    b = e.argument(right, scope)
    if sign == "=>":
        return Pair(a, b)
    if sign == "|>":
        if isinstance(b, Unknown) and isinstance(a, (Built, Own)):
            return _through_unknown(a, b, right)
        return e.call(b, [a], {}, node)
    if sign == "∘":
        return operations.composed(b, a)
    for value in (a, b):
        if isinstance(value, Unknown):
            return value
    if sign in (".|>",):
        return e.broadcast(b, [a], {}, node)
    if sign.startswith(".") and len(sign) > 1:
        return e.broadcast(name_value(sign[1:]), [a, b], {}, node)
    function = e.name(sign, node, scope)
    return e.call(function, [a, b], {}, node)


_DOTTABLE = frozenset(
    ("+", "-", "*", "/", "\\", "÷", "%", "<", ">", "<=", ">=", "≤", "≥", "==", "!=", "≠", "|>", "&", "|")
)
_COMPARISONS = ("<", ">", "<=", ">=", "≤", "≥", "==", "!=")


def _operation(e: Evaluator, sign: str, a: Any, b: Any, node: Node) -> Any:
    """The value of `a sign b`."""
    for value in (a, b):
        if isinstance(value, Unknown):
            return value
    if sign.startswith("."):
        return e.broadcast(name_value(sign[1:]), [a, b], {}, node)
    return e.call(name_value(sign), [a, b], {}, node)


def _power(e: Evaluator, node: Node, scope: Scope) -> Any:
    """The value of `a^b^c`, which is a^(b^c), and of `2x^c`, which is 2(x^c)."""
    signs: list[str] = []
    operands: list[Node] = []
    while node.type == "binary_expression" and operator_of(node) in ("^", ".^"):
        signs.insert(0, operator_of(node))
        operands.insert(0, parts(node)[-1])
        node = parts(node)[0]
    factor, base = parts(node) if node.type == "juxtaposition_expression" else (None, node)
    operands.insert(0, base)
    value = e.value(operands[-1], scope)
    for sign, operand in zip(reversed(signs), reversed(operands[:-1]), strict=True):
        power = ".^" if e.dotted else sign
        value = _operation(e, power, e.value(operand, scope), value, operand)
    dotted = "." if ".^" in signs or e.dotted else ""
    return value if factor is None else _operation(e, f"{dotted}*", e.value(factor, scope), value, node)


def _compared(e: Evaluator, left: Node, node: Node, scope: Scope) -> Any:
    """The value of `a < b < c`."""
    first = e.value(left, scope)
    second = _operation(
        e, operator_of(node), e.value(parts(left)[-1], scope), e.value(parts(node)[-1], scope), node
    )
    if isinstance(first, bool) and isinstance(second, bool):
        return first and second
    return first if isinstance(first, Unknown) else Unknown("the condition is not known", node)


def _through_unknown(model: Any, function: Unknown, node: Node) -> Any:
    """A model that goes through something unknown: a device leaves it as it is, all else may make another model."""
    if _DEVICE.fullmatch(short(node)):
        return model
    raise NotUnderstood(function.why, function.node or node, hides_model=True)


def _unary(e: Evaluator, node: Node, scope: Scope) -> Any:
    value = e.value(parts(node)[-1], scope)
    sign = operator_of(node)
    if isinstance(value, Unknown):
        return value
    if sign.startswith(".") or e.dotted:
        return e.broadcast(name_value(sign.removeprefix(".")), [value], {}, node)
    return e.call(name_value(sign), [value], {}, node)


def _ternary(e: Evaluator, node: Node, scope: Scope) -> Any:
    test, then, otherwise = parts(node)
    condition = e.value(test, scope)
    if isinstance(condition, (bool, np.bool_)):
        return e.value(then if condition else otherwise, scope)
    if isinstance(condition, Unknown):
        branches = [e.default(n, scope) for n in (then, otherwise)]
        return branches[0] if operations.agree(*branches) else Unknown("the condition is not known", node)
    return e.expression(
        "ifelse", [condition, e.value(then, scope), e.value(otherwise, scope)], {}, False, node
    )


def _tuple(e: Evaluator, node: Node, scope: Scope) -> Any:
    given, keywords = e.arguments(node, scope)
    if keywords:
        return NamedTuple(tuple(keywords), list(keywords.values()))
    return tuple(given)


def _vector(e: Evaluator, node: Node, scope: Scope) -> Any:
    rows = parts(node)
    given: list[Any] = []
    for child in rows:
        if child.type == "splat_expression":
            given += e.items(e.value(parts(child)[0], scope), child)
        else:
            given.append(e.value(child, scope))
    if any(c.type == ";" for c in node.children):
        return operations.joined(given)
    return operations.limited(given)


def _matrix(e: Evaluator, node: Node, scope: Scope) -> Any:
    rows = [[e.value(item, scope) for item in parts(row)] for row in parts(node) if row.type == "matrix_row"]
    return operations.matrix(rows)


def _comprehension(e: Evaluator, node: Node, scope: Scope) -> Any:
    inside = parts(node)
    made: list[Any] = []
    clauses = [c for c in inside[1:] if c.type in ("for_clause", "if_clause")]
    _loop(e, inside[0], clauses, Scope(scope), made)
    return made


def _loop(e: Evaluator, body: Node, clauses: list[Node], scope: Scope, made: list[Any]) -> None:
    if not clauses:
        if len(made) >= MOST_ITEMS:
            raise NotUnderstood(f"it has more than {MOST_ITEMS} items", body)
        made.append(e.value(body, scope))
        return
    clause, rest = clauses[0], clauses[1:]
    if clause.type == "if_clause":
        test = e.known(e.value(parts(clause)[0], scope), clause)
        if test:
            _loop(e, body, rest, scope, made)
        return
    bindings = [b for b in parts(clause) if b.type == "for_binding"]
    operations.bound(e, bindings, scope, lambda inner: _loop(e, body, rest, inner, made))


def _parenthesised(e: Evaluator, node: Node, scope: Scope) -> Any:
    inside = parts(node)
    if any(c.type == "for_clause" for c in inside):
        return _comprehension(e, node, scope)
    value = None
    for child in inside:
        value = e.run_body([child], scope) if child.type == "assignment" else e.value(child, scope)
    return value


def _range(e: Evaluator, node: Node, scope: Scope) -> Any:
    pieces = parts(node)
    if pieces[0].type == "range_expression":  # start:step:stop
        pieces = [*parts(pieces[0]), *pieces[1:]]
    numbers = [e.value(child, scope) for child in pieces]
    for value in numbers:
        if isinstance(value, Unknown):
            return value
    if any(map(is_symbolic, numbers)):
        return e.expression(":", numbers, {}, False, node)
    return operations.ranged(numbers)


def _index(e: Evaluator, node: Node, scope: Scope) -> Any:
    owner_node, place = parts(node)[0], parts(node)[-1]
    owner = e.value(owner_node, scope)
    if isinstance(owner, Unknown):
        return owner
    if isinstance(owner, Constructor):
        return e.value(place, scope)  # Float32[1, 2]
    indices, children = [], parts(place)
    for number, child in enumerate(children, 1):
        e.ends.append(operations.last_index(owner, number if len(children) > 1 else None))
        try:
            indices.append(e.argument(child, scope))
        finally:
            e.ends.pop()
    return operations.indexed(e, owner, indices, node)


def _field(e: Evaluator, node: Node, scope: Scope) -> Any:
    inside = parts(node)
    owner = e.value(inside[0], scope)
    name = text_of(inside[-1]).lstrip(":")
    return operations.field_of(e, owner, name, node)


def _interpolated(e: Evaluator, node: Node, scope: Scope) -> Any:
    if any(c.type == "string_interpolation" for c in node.children):
        return Unknown("a text is put together", node)
    return "".join(text_of(c) for c in node.children if c.type in ("content", "escape_sequence"))


def _identifier(e: Evaluator, node: Node, scope: Scope) -> Any:
    return e.name(text_of(node), node, scope)


def _juxtaposed(e: Evaluator, node: Node, scope: Scope) -> Any:
    first, second = parts(node)
    if second.type == "call_expression" and parts(second)[0].type == "operator":
        raise NotUnderstood("write a space behind the operator", node)
    return _operation(e, ".*" if e.dotted else "*", e.value(first, scope), e.value(second, scope), node)


def _splatted(e: Evaluator, node: Node, scope: Scope) -> Any:
    raise NotUnderstood("a splat stands outside of arguments", node)


def _assigned(e: Evaluator, node: Node, scope: Scope) -> Any:
    return e.run_body([node], scope)


def _adjoint(e: Evaluator, node: Node, scope: Scope) -> Any:
    value = e.value(parts(node)[0], scope)
    if is_symbolic(value):
        raise NotUnderstood("it transposes its argument", node)
    return value if isinstance(value, Unknown) else operations.transposed(value)


def _macro(e: Evaluator, node: Node, scope: Scope) -> Any:
    name = next((text_of(c) for c in node.named_children if c.type == "macro_identifier"), "")
    inside = [c for c in parts(node) if c.type in ("macro_argument_list", "argument_list")]
    if name == "@autosize" and inside:
        return autosized(e, inside[0], scope)
    if name == "@compact":
        raise NotUnderstood(f"the macro {name} is not read", node)
    if name in _TRANSPARENT and inside and parts(inside[0]):
        return e.value(parts(inside[0])[-1], scope)
    if name in DOTS and inside and parts(inside[0]):
        return with_dots(e, lambda: e.value(parts(inside[0])[-1], scope))
    return Unknown(f"the macro {name} is not read", node)


# Macros whose value is that of the expression behind them.
_TRANSPARENT = frozenset(
    ("@show", "@time", "@view", "@views", "@inbounds", "@fastmath", "@nograd", "@inline", "@noinline")
)
DOTS = ("@.", "@__dot__")


def with_dots(e: Evaluator, evaluate: Callable[[], Any], dotted: bool = True) -> Any:
    """The value of code in which every call has a dot, or has none again."""
    before, e.dotted = e.dotted, dotted
    try:
        return evaluate()
    finally:
        e.dotted = before


def _without_dots(e: Evaluator, node: Node, scope: Scope) -> Any:
    return with_dots(e, lambda: e.value(parts(node)[-1], scope), dotted=False)


RULES: dict[str, Rule] = {
    "adjoint_expression": _adjoint,
    "arrow_function_expression": lambda e, n, s: operations.closure(n, s, e),
    "assignment": _assigned,
    "binary_expression": _binary,
    "boolean_literal": lambda e, n, s: text_of(n) == "true",
    "broadcast_call_expression": _dotted_call,
    "call_expression": _call,
    "character_literal": lambda e, n, s: text_of(n)[1:-1],
    "compound_statement": lambda e, n, s: e.run_body(parts(n), s),
    "comprehension_expression": _comprehension,
    "field_expression": _field,
    "float_literal": lambda e, n, s: operations.number(text_of(n)),
    "function_definition": lambda e, n, s: operations.closure(n, s, e),
    "identifier": _identifier,
    "if_statement": lambda e, n, s: e.run_body([n], s),
    "index_expression": _index,
    "interpolation_expression": _without_dots,
    "integer_literal": lambda e, n, s: operations.number(text_of(n)),
    "juxtaposition_expression": _juxtaposed,
    "let_statement": lambda e, n, s: e.run_body([n], s),
    "macrocall_expression": _macro,
    "matrix_expression": _matrix,
    "open_tuple": _tuple,
    "operator": lambda e, n, s: e.name(text_of(n), n, s),
    "parametrized_type_expression": lambda e, n, s: e.value(parts(n)[0], s),
    "parenthesized_expression": _parenthesised,
    "command_literal": lambda e, n, s: Unknown("a command", n),
    "prefixed_command_literal": lambda e, n, s: Unknown("a command", n),
    "prefixed_string_literal": lambda e, n, s: Unknown("a text", n),
    "quote_expression": lambda e, n, s: operations.quoted(n),
    "range_expression": _range,
    "splat_expression": _splatted,
    "string_literal": _interpolated,
    "ternary_expression": _ternary,
    "tuple_expression": _tuple,
    "typed_expression": lambda e, n, s: e.value(parts(n)[0], s),
    "unary_expression": _unary,
    "vector_expression": _vector,
}


# ---- Functions that take functions ----------------------------------------------------------------------


def _map(e: Evaluator, given: list[Any], keywords: dict[str, Any], node: Node | None) -> Any:
    function, *lists = given
    if len(lists) != 1 or node is None or not isinstance(lists[0], (tuple, list, range)):
        return None
    made = [e.call(function, [item], {}, node) for item in e.items(lists[0], node)]
    return tuple(made) if isinstance(lists[0], tuple) else made


def _ntuple(e: Evaluator, given: list[Any], keywords: dict[str, Any], node: Node | None) -> Any:
    function, count = given
    if not isinstance(count, int) or not 0 <= count <= MOST_ITEMS:
        return None
    return tuple(e.call(function, [i], {}, node) for i in range(1, count + 1))


def _fold(e: Evaluator, given: list[Any], keywords: dict[str, Any], node: Node | None) -> Any:
    if len(given) not in (2, 3) or node is None or isinstance(given[1], (JuliaStruct, int, float)):
        return None
    items = e.items(given[1], node)
    if "init" in keywords or len(given) == 3:
        items.insert(0, keywords["init"] if "init" in keywords else given[2])
    value = items[0] if items else None
    for item in items[1:]:
        value = e.call(given[0], [value, item], {}, node)
    return value


def _broadcast(e: Evaluator, given: list[Any], keywords: dict[str, Any], node: Node | None) -> Any:
    return None if node is None else e.broadcast(given[0], given[1:], keywords, node)


HIGHER: dict[str, Higher] = {
    "broadcast": _broadcast,
    "foldl": _fold,
    "map": _map,
    "ntuple": _ntuple,
    "reduce": _fold,
}
