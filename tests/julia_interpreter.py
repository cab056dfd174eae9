"""A small interpreter of the Julia that our exports are written in, so that tests can run it without Julia.

It reads the text with the tree-sitter grammar and keeps what matters to arithmetic: 1-based indices, columns
first, Int / Float32 / Float64 / UInt8 promotion, broadcasting from the first axis, loop variables that end
with the loop. What it does not know it refuses. It is no proof that Julia accepts a file: where a real Julia
is found the same checks run there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
from tree_sitter import Language, Node, Parser
from tree_sitter_julia import language

from julia_numbers import (
    COLON,
    ELEMENTWISE,
    OPERATORS,
    JuliaError,
    aligned,
    broadcast,
    index,
    plain,
    put,
    vector,
)

_PARSER = Parser(Language(language()))
Code = Callable[["Scope"], Any]


class _Return(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class _Continue(Exception):
    pass


class Scope:
    """Names, and the scope around; the outermost one holds what is built in."""

    def __init__(self, parent: Scope | None = None, names: dict[str, Any] | None = None) -> None:
        self.names: dict[str, Any] = {} if names is None else names
        self.parent = parent
        self.ends: list[int] = parent.ends if parent else []

    def get(self, name: str) -> Any:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        raise JuliaError(f"UndefVarError: {name}")

    def set(self, name: str, value: Any) -> None:
        scope: Scope | None = self
        while scope is not None and scope.parent is not None and scope.parent.parent is not None:
            if name in scope.names:
                break
            scope = scope.parent
        owner = scope if scope is not None and name in scope.names and scope.parent else self
        owner.names[name] = value


class Function:
    def __init__(self, scope: Scope, parameters: list[Any], keywords: list[Any], body: Code) -> None:
        self.scope, self.parameters, self.keywords, self.body = scope, parameters, keywords, body

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        scope = Scope(self.scope)
        rest = list(arguments)
        for name, kind, default in self.parameters:
            if kind == "splat":
                scope.names[name], rest = tuple(rest), []
            elif rest:
                scope.names[name] = rest.pop(0)
            elif default is not None:
                scope.names[name] = default(scope)
            else:
                raise JuliaError(f"MethodError: {name} is missing")
        for name, default in self.keywords:
            if name in named:
                scope.names[name] = named.pop(name)
            elif default is None:
                raise JuliaError(f"UndefKeywordError: {name}")
            else:
                scope.names[name] = default(scope)
        if rest or named:
            raise JuliaError(f"MethodError: {rest or named} not expected")
        try:
            return self.body(scope)
        except _Return as back:
            return back.value


# ---- From text to closures -------------------------------------------------------------------------------


def _text(node: Node) -> str:
    return (node.text or b"").decode()


def _parts(node: Node) -> list[Node]:
    return [child for child in node.named_children if child.type not in ("line_comment", "block_comment")]


@cache
def compile_text(text: str) -> Code:
    """A whole file. Raises `JuliaError` where it is no Julia."""
    root = _PARSER.parse(text.encode()).root_node
    if root.has_error:
        raise JuliaError("the text is no Julia")
    return _block(_parts(root))


def functions_of(text: str) -> Code:
    """The functions and constants of a file alone, for a script that would also run."""
    kinds = ("function_definition", "const_statement", "assignment")
    nodes = _parts(_PARSER.parse(text.encode()).root_node)
    return _block(
        [n for n in nodes if n.type in kinds and not _text(n).startswith(("function main", "status"))]
    )


def _block(nodes: list[Node]) -> Code:
    codes = [_compile(node) for node in nodes]

    def run(scope: Scope) -> Any:
        result = None
        for code in codes:
            result = code(scope)
        return result

    return run


def _compile(node: Node) -> Code:
    maker = _MAKERS.get(node.type)
    if maker is None:
        raise JuliaError(f"not known here: {node.type}: {_text(node)[:60]}")
    return maker(node)


def _constant(value: Any) -> Code:
    return lambda scope: value


def _integer(node: Node) -> Code:
    text = _text(node)
    return _constant(np.uint8(int(text, 16)) if text.startswith("0x") and len(text) == 4 else int(text, 0))


def _float(node: Node) -> Code:
    text = _text(node)
    return _constant(np.float32(text.replace("f", "e")) if "f" in text else np.float64(text))


_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\\\": "\\", '\\"': '"', "\\$": "$"}


def _string(node: Node) -> Code:
    pieces: list[Code] = []
    for child in node.children:
        if child.type == "content":
            pieces.append(_constant(_text(child)))
        elif child.type == "escape_sequence":
            pieces.append(_constant(_ESCAPES[_text(child)]))
        elif child.type == "string_interpolation":
            inner = _compile(_parts(child)[0])
            pieces.append(lambda scope, inner=inner: str(inner(scope)))
    return lambda scope: "".join(piece(scope) for piece in pieces)


def _identifier(node: Node) -> Code:
    name = _text(node)
    if name == "end":
        return lambda scope: scope.ends[-1]
    return lambda scope: scope.get(name)


def _operator(node: Node) -> Code:
    text = _text(node)
    return _constant(COLON if text == ":" else OPERATORS[text])


def _binary(node: Node) -> Code:
    left, sign, right = _parts(node)
    a, b, name = _compile(left), _compile(right), _text(sign)
    if name == "&&":
        return lambda scope: a(scope) and b(scope)
    if name == "||":
        return lambda scope: a(scope) or b(scope)
    if left.type == "binary_expression" and _text(_parts(left)[1]) in ("<", "<=") and name in ("<", "<="):
        middle = _compile(_parts(left)[2])  # a <= b < c
        return lambda scope: a(scope) and OPERATORS[name](middle(scope), b(scope))
    if name.startswith("."):
        dotted = ELEMENTWISE[name[1:]]
        return lambda scope: dotted(*aligned([a(scope), b(scope)]))
    operation = OPERATORS[name]

    def run(scope: Scope) -> Any:
        x, y = a(scope), b(scope)
        if name in ("+", "-") and isinstance(x, np.ndarray) != isinstance(y, np.ndarray):
            raise JuliaError(f"MethodError: {name} of an array and a number needs a dot")
        return operation(x, y)

    return run


def _unary(node: Node) -> Code:
    sign, value = _parts(node)
    code = _compile(value)
    return (lambda scope: not code(scope)) if _text(sign) == "!" else (lambda scope: -code(scope))


def _range(node: Node) -> Code:
    first, last = _parts(node)[0], _parts(node)[-1]
    if first.type == "range_expression":  # a:step:b
        a, step, b = (_compile(n) for n in (*_parts(first), last))
        return lambda scope: range(a(scope), b(scope) + (1 if step(scope) > 0 else -1), step(scope))
    if len(_parts(node)) == 3:
        a, step, b = (_compile(n) for n in _parts(node))
        return lambda scope: range(a(scope), b(scope) + (1 if step(scope) > 0 else -1), step(scope))
    a, b = _compile(first), _compile(last)
    return lambda scope: range(a(scope), b(scope) + 1)


def _arguments(node: Node) -> Callable[[Scope], tuple[list[Any], dict[str, Any]]]:
    items: list[tuple[str, str, Code]] = []
    for child in _parts(node):
        if child.type == "named_argument":
            items.append(("named", _text(_parts(child)[0]), _compile(_parts(child)[-1])))
        elif child.type == "splat_expression":
            items.append(("splat", "", _compile(_parts(child)[0])))
        else:
            items.append(("one", "", _compile(child)))

    def run(scope: Scope) -> tuple[list[Any], dict[str, Any]]:
        given: list[Any] = []
        named: dict[str, Any] = {}
        for kind, name, code in items:
            if kind == "named":
                named[name] = code(scope)
            elif kind == "splat":
                given += list(code(scope))
            else:
                given.append(code(scope))
        return given, named

    return run


def _call(node: Node) -> Code:
    parts = _parts(node)
    function, arguments = _compile(parts[0]), _arguments(parts[1])

    def run(scope: Scope) -> Any:
        given, named = arguments(scope)
        return function(scope)(*given, **named)

    return run


def _broadcast_call(node: Node) -> Code:
    parts = _parts(node)
    function, arguments = _compile(parts[0]), _arguments(parts[1])
    return lambda scope: broadcast(function(scope), arguments(scope)[0])


def _vector(node: Node) -> Code:
    arguments = _arguments(node)
    return lambda scope: vector(arguments(scope)[0])


def _places(node: Node) -> Callable[[Scope, Any], list[Any]]:
    codes = [_compile(child) for child in _parts(node)]

    def run(scope: Scope, array: Any) -> list[Any]:
        result: list[Any] = []
        for number, code in enumerate(codes):
            shape = getattr(array, "shape", None)
            many = len(codes) > 1 and shape
            scope.ends.append(shape[number] if many and number < len(shape) else _length(array))
            result.append(code(scope))
            scope.ends.pop()
        return [place for r in result for place in (r if isinstance(r, _Splat) else [r])]

    return run


class _Splat(list[Any]):
    pass


def _splat(node: Node) -> Code:
    code = _compile(_parts(node)[0])
    return lambda scope: _Splat(code(scope))


def _length(array: Any) -> int:
    if isinstance(array, np.ndarray):
        return array.size
    return len(array) if hasattr(array, "__len__") else 0


def _indexed(node: Node) -> Code:
    target, places = _compile(_parts(node)[0]), _parts(node)[1]
    if places.type == "comprehension_expression":
        return _compile(places)  # Int[x for ...]
    name = _text(_parts(node)[0])
    types = {"UInt8": np.uint8, "Float32": np.float32, "Int": np.int64, "Float64": np.float64}
    if name in types or name[:4] in ("Vect", "Stri", "Unio"):
        entries = _arguments(places)
        if name in types and _parts(places):
            return lambda scope: np.array(entries(scope)[0], types[name])
        return lambda scope: entries(scope)[0]
    find = _places(places)

    def run(scope: Scope) -> Any:
        array = target(scope)
        return index(array, find(scope, array))

    return run


def _field(node: Node) -> Code:
    owner, name = _compile(_parts(node)[0]), _text(_parts(node)[1])
    return lambda scope: getattr(owner(scope), name)


def _assign(node: Node) -> Code:
    left, right = _parts(node)[0], _parts(node)[-1]
    if left.type == "call_expression":
        if _parts(left)[0].type == "parenthesized_expression":
            return _callable(left, _compile(right))
        return _function(left, _compile(right))
    return _assignment(left, _compile(right))


def _assignment(left: Node, value: Code) -> Code:
    if left.type == "identifier":
        name = _text(left)

        def name_it(scope: Scope) -> Any:
            result = value(scope)
            scope.set(name, result)
            return result

        return name_it
    if left.type in ("open_tuple", "tuple_expression"):
        names = [_text(n) for n in _parts(left)]

        def unpack(scope: Scope) -> Any:
            result = list(value(scope))
            for name, item in zip(names, result, strict=True):
                scope.set(name, plain(item))
            return result

        return unpack
    owner = _compile(_parts(left)[0])
    if left.type == "field_expression":
        field = _text(_parts(left)[1])
        return lambda scope: setattr(owner(scope), field, value(scope))
    places = _places(_parts(left)[1])

    def store(scope: Scope) -> Any:
        array = owner(scope)
        return put(array, places(scope, array), value(scope))

    return store


def _compound(node: Node) -> Code:
    left, sign, right = _parts(node)
    before, value, name = _compile(left), _compile(right), _text(sign)[:-1]
    if name == ".":

        def fill(scope: Scope) -> Any:
            before(scope)[...] = value(scope)

        return fill
    return _assignment(left, lambda scope: OPERATORS[name](before(scope), value(scope)))


def _parameters(node: Node) -> tuple[list[Any], list[Any]]:
    parameters, keywords, after = [], [], False
    for child in node.children:
        if child.type == ";":
            after = True
        elif child.type == "named_argument":
            entry = (_text(_parts(child)[0]), _compile(_parts(child)[-1]))
            if after:
                keywords.append(entry)
            else:
                parameters.append((entry[0], "default", entry[1]))
        elif child.type == "splat_expression":
            parameters.append((_text(_parts(child)[0]), "splat", None))
        elif child.type == "identifier":
            if after:
                keywords.append((_text(child), None))
            else:
                parameters.append((_text(child), "one", None))
        elif child.is_named and child.type != "line_comment":
            raise JuliaError(f"not known here as a parameter: {_text(child)}")
    return parameters, keywords


def _function(call: Node, body: Code) -> Code:
    name = _text(_parts(call)[0])
    parameters, keywords = _parameters(_parts(call)[1])

    def define(scope: Scope) -> Any:
        made = Function(scope, parameters, keywords, body)
        scope.names[name] = made
        return made

    return define


def _struct(node: Node) -> Code:
    """A type with a field for each name; it can be called once `(x::Name)(...) = ...` says how."""
    head, *fields = map(_text, _parts(node))

    def filled(self: Any, *values: Any) -> None:
        self.__dict__ |= dict(zip(fields, values, strict=True))

    def define(scope: Scope) -> Any:
        scope.names[head] = type(head, (), {"__init__": filled})

    return define


def _callable(call: Node, body: Code) -> Code:
    """`(name::Type)(x) = ...`."""
    typed = _parts(_parts(call)[0])[0]
    name, kind = map(_text, _parts(typed))
    parameters, keywords = _parameters(_parts(call)[1])

    def define(scope: Scope) -> Any:
        function = Function(scope, [(name, "one", None), *parameters], keywords, body)
        scope.get(kind).__call__ = lambda self, *x: function(self, *x)  # noqa: PLW0108 - a method, which an object is not

    return define


def _definition(node: Node) -> Code:
    signature, *body = _parts(node)
    code = _block(body)
    call = _parts(signature)[0]
    if call.type == "argument_list":
        parameters, keywords = _parameters(call)
        return lambda scope: Function(scope, parameters, keywords, code)
    return _function(call, code)


def _arrow(node: Node) -> Code:
    left, body = _parts(node)[0], _parts(node)[-1]
    code = _compile(body)
    if left.type == "identifier":
        parameters: list[Any] = [(_text(left), "one", None)]
    else:
        parameters, _ = _parameters(left)
    return lambda scope: Function(scope, parameters, [], code)


def _return(node: Node) -> Code:
    code = _compile(_parts(node)[0]) if _parts(node) else _constant(None)

    def leave(scope: Scope) -> Any:
        raise _Return(code(scope))

    return leave


def _continue(node: Node) -> Code:
    def skip(scope: Scope) -> Any:
        raise _Continue

    return skip


def _if(node: Node) -> Code:
    branches: list[tuple[Code, Code]] = []
    condition, *rest = _parts(node)
    body = [n for n in rest if n.type not in ("elseif_clause", "else_clause")]
    branches.append((_compile(condition), _block(body)))
    for clause in (n for n in rest if n.type in ("elseif_clause", "else_clause")):
        parts = _parts(clause)
        if clause.type == "elseif_clause":
            branches.append((_compile(parts[0]), _block(parts[1:])))
        else:
            branches.append((_constant(True), _block(parts)))

    def run(scope: Scope) -> Any:
        for test, code in branches:
            truth = test(scope)
            if not isinstance(truth, bool):
                raise JuliaError(f"TypeError: non-boolean {type(truth).__name__} used in a condition")
            if truth:
                return code(scope)
        return None

    return run


def _ternary(node: Node) -> Code:
    test, yes, no = (_compile(n) for n in _parts(node))
    return lambda scope: yes(scope) if test(scope) else no(scope)


def _loops(bindings: list[Node], body: Callable[[Scope], None]) -> Callable[[Scope], None]:
    """Nested loops; every turn has a scope of its own."""
    if not bindings:
        return body
    target, *_, source = _parts(bindings[0])
    values, inside = _compile(source), _loops(bindings[1:], body)
    names = [_text(n) for n in _parts(target)] if target.type == "tuple_expression" else [_text(target)]

    def run(scope: Scope) -> None:
        for value in values(scope):
            turn = Scope(scope)
            each = [value] if len(names) == 1 else list(value)
            turn.names.update(zip(names, map(plain, each), strict=True))
            with suppress(_Continue):
                inside(turn)

    return run


def _for(node: Node) -> Code:
    bindings = [n for n in _parts(node) if n.type == "for_binding"]
    body = _block([n for n in _parts(node) if n.type != "for_binding"])
    return _loops(bindings, body)


def _comprehension(node: Node) -> Code:
    parts = _parts(node)
    value = _compile(parts[0])
    bindings = [n for p in parts if p.type == "for_clause" for n in _parts(p)]
    tests = [_compile(_parts(p)[0]) for p in parts if p.type == "if_clause"]

    def run(scope: Scope) -> Any:
        results: list[Any] = []

        def add(turn: Scope) -> None:
            if all(test(turn) for test in tests):
                results.append(value(turn))

        _loops(bindings, add)(scope)
        return vector(results)

    return run


def _parenthesized(node: Node) -> Code:
    parts = _parts(node)
    return _comprehension(node) if any(p.type == "for_clause" for p in parts) else _block(parts)


def _tuple(node: Node) -> Code:
    arguments = _arguments(node)
    return lambda scope: tuple(arguments(scope)[0])


def _regex(node: Node) -> Code:
    return _constant(_text(node)[2:-1])


def _parametrized(node: Node) -> Code:
    """Dict{String,Any}(pairs...) and Vector{UInt8}(text)."""
    if _text(node).startswith("Dict"):
        return _constant(lambda *pairs: dict(pairs))
    return _constant(lambda text: np.frombuffer(text.encode(), np.uint8))


_MAKERS: dict[str, Callable[[Node], Code]] = {
    "integer_literal": _integer,
    "float_literal": _float,
    "boolean_literal": lambda node: _constant(_text(node) == "true"),
    "string_literal": _string,
    "prefixed_string_literal": _regex,
    "quote_expression": lambda node: _constant(_text(node)),
    "identifier": _identifier,
    "operator": _operator,
    "binary_expression": _binary,
    "unary_expression": _unary,
    "range_expression": _range,
    "call_expression": _call,
    "broadcast_call_expression": _broadcast_call,
    "vector_expression": _vector,
    "index_expression": _indexed,
    "field_expression": _field,
    "parametrized_type_expression": _parametrized,
    "macrocall_expression": lambda node: _call(node) if len(_parts(node)) > 1 else _identifier(node),
    "macro_identifier": _identifier,
    "assignment": _assign,
    "compound_assignment_expression": _compound,
    "function_definition": _definition,
    "struct_definition": _struct,
    "arrow_function_expression": _arrow,
    "return_statement": _return,
    "if_statement": _if,
    "continue_statement": _continue,
    "ternary_expression": _ternary,
    "for_statement": _for,
    "comprehension_expression": _comprehension,
    "generator": _comprehension,
    "parenthesized_expression": _parenthesized,
    "tuple_expression": _tuple,
    "open_tuple": _tuple,
    "splat_expression": _splat,
    "const_statement": lambda node: _compile(_parts(node)[0]),
    "using_statement": lambda node: _constant(None),
    "line_comment": lambda node: _constant(None),
}
