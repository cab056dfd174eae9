"""Evaluates the part of Julia that architectures are written in: operations, arithmetic, tuples, calls, closures.

Nothing is executed: names of Flux are looked up in literal tables, functions of the file are followed as source, and
whatever else a file does (loading data, training) leaves an `Unknown`. An argument of a closure is an
`expressions.Argument`, so that calling it gives the same expressions as lowered code does. Steps, depth and sizes
are limited, because a file may be hostile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from tree_sitter import Node

from diptych.errors import FormatError
from diptych.formats.julia import JuliaStruct, NamedTuple, Symbol
from diptych.formats.julia.expressions import Apply, Argument, Call
from diptych.formats.julia.expressions import Tuple as TupleExpression
from diptych.formats.julia.lowered import call_of
from diptych.formats.julia_source import operations
from diptych.formats.julia_source.functions import COMPUTED, NAMES, Random, function_name, name_value
from diptych.formats.julia_source.syntax import has_mistake, parts, short, text_of
from diptych.formats.julia_source.values import (
    COLON,
    DRAWN,
    Built,
    Constructor,
    Method,
    NotUnderstood,
    Own,
    OwnType,
    Pair,
    Scope,
    Unknown,
    WrittenFunction,
)

__all__ = ["MOST_ITEMS", "Evaluator", "Higher", "Rule", "is_symbolic"]

Rule: TypeAlias = "Callable[[Evaluator, Node, Scope], Any]"
Higher: TypeAlias = "Callable[[Evaluator, list[Any], dict[str, Any], Node | None], Any]"

_MOST_STEPS = 400_000
_DEEPEST = 120  # nested expressions
_MOST_CALLS = 40  # functions of the file inside each other
MOST_ITEMS = 4096  # of a vector, a comprehension or a splat
_LARGEST = 10**6  # nodes of an expression, counted as a tree


def is_symbolic(value: Any) -> bool:
    """Whether a value depends on the argument of a closure."""
    if not isinstance(value, (tuple, list)):
        return isinstance(value, _SYMBOLIC)
    return any(isinstance(item, _SYMBOLIC) for item in _leaves([value]))


_SYMBOLIC = (Argument, Call, Apply, TupleExpression)


def _leaves(values: Sequence[Any]) -> Iterator[Any]:
    """The items of tuples, vectors and pairs that are no such containers; of very many, the first ones."""
    stack: list[Any] = list(values)
    met: set[int] = set()
    while stack and len(met) < MOST_ITEMS:
        item = stack.pop()
        inside = (item.first, item.second) if isinstance(item, Pair) else item
        if not isinstance(inside, (tuple, list)):
            yield item
        elif id(item) not in met:
            met.add(id(item))
            stack.extend(inside)


class Evaluator:
    """Evaluates expressions; `statements.py` runs the statements of a file and of its functions.

    Args:
        constructors: The layers of Flux or Lux by name.
        rules: How each kind of node is evaluated.
        higher: The functions that take functions, such as `map`.
    """

    def __init__(
        self, constructors: dict[str, Constructor], rules: Mapping[str, Rule], higher: Mapping[str, Higher]
    ) -> None:
        self.constructors, self.rules, self.higher = constructors, rules, higher
        self.globals = Scope(label="")
        self.steps = self.depth = self.calls = 0
        self.called: set[str] = set()  # the functions of the file that were followed
        self.active: list[str] = []  # those that are being followed
        self.inside_package = 0  # functions of a package among these
        self.ends: list[Any] = []
        self.dotted = False  # inside of @., which puts a dot into every call
        self.where: Callable[[Node], str] = lambda node: ""
        self.output_size: Callable[[Any, tuple[int, ...]], tuple[int, ...]] = lambda value, size: size
        self.run_body: Callable[[list[Node], Scope], Any] = lambda nodes, scope: None
        self.run_function: Callable[[list[Node], Scope], Any] = lambda nodes, scope: None

    def sentence(self, error: NotUnderstood) -> str:
        """What is not understood, with its line and text."""
        if error.node is None:
            return error.why
        return f"{self.where(error.node)}: {short(error.node)}: {error.why}"

    # ---- Expressions ----

    def value(self, node: Node, scope: Scope) -> Any:
        """The value of an expression. Raises `NotUnderstood`, with the innermost piece that is not understood."""
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise FormatError(f"more than {_MOST_STEPS} steps would be needed to evaluate it")
        if self.depth > _DEEPEST:
            raise NotUnderstood("it is nested too deeply", node)
        rule = self.rules.get(node.type)
        if rule is None or has_mistake(node):
            raise NotUnderstood("this is not read", node)
        self.depth += 1
        try:
            return rule(self, node, scope)
        except NotUnderstood as error:
            raise (
                error if error.node is not None else NotUnderstood(error.why, node, error.hides_model)
            ) from error
        finally:
            self.depth -= 1

    def known(self, value: Any, node: Node) -> Any:
        """The value, unless it is unknown."""
        if isinstance(value, Unknown):
            raise NotUnderstood(f"{short(node, 40)} is not known{self.because(value)}", node)
        return value

    def because(self, value: Unknown) -> str:
        """Where and why a value became unknown."""
        if value.node is None:
            return f": {value.why}" if value.why else ""
        return f": {value.why} ({self.where(value.node)}: {short(value.node)})"

    def name(self, name: str, node: Node, scope: Scope) -> Any:
        """The value of a name: of the file, of Flux, or unknown."""
        owner = scope.owner(name)
        if owner is not None:
            return owner.names[name]
        if name == "end" and self.ends:
            return self.ends[-1]
        if name in self.constructors:
            return self.constructors[name]
        if name == "nothing":
            return None
        if name.startswith(".") and len(name) > 1:
            return NAMES["BroadcastFunction"].build([name_value(name[1:])], {})
        found = name_value(name)
        return found if found is not None else Unknown(f"{name} is not defined in the file", node)

    def items(self, value: Any, node: Node) -> list[Any]:
        """The items of something that is splatted or iterated."""
        self.known(value, node)
        if isinstance(value, TupleExpression):
            return list(value.items)
        if isinstance(value, JuliaStruct) and value.type.name == "Chain":
            value = value.fields[0]
        if isinstance(value, (tuple, list, range)) and len(value) <= MOST_ITEMS:
            return list(value)
        if isinstance(value, np.ndarray) and value.ndim == 1 and value.size <= MOST_ITEMS:
            return list(value)
        if isinstance(value, (int, float)):
            return [value]
        raise NotUnderstood(f"{short(node, 40)} cannot be listed", node)

    # ---- Calls ----

    def arguments(self, node: Node, scope: Scope) -> tuple[list[Any], dict[str, Any]]:
        """The positional arguments and the keywords of an argument list."""
        given: list[Any] = []
        keywords: dict[str, Any] = {}
        after = False
        if any(child.type == "for_clause" for child in node.children):
            return [self.rules["comprehension_expression"](self, node, scope)], {}
        for child in node.children:
            if child.type == ";":
                after = True
            if not child.is_named or child.type.endswith("comment"):
                continue
            if child.type in ("named_argument", "named_field"):
                name, value = parts(child)[0], parts(child)[-1]
                keywords[text_of(name)] = self.value(value, scope)
            elif child.type == "splat_expression":
                self._splat(child, scope, given, keywords, after)
            elif after:
                self._keyword(child, scope, keywords)
            else:
                given.append(self.argument(child, scope))
            if len(given) > MOST_ITEMS:
                raise NotUnderstood(f"it has more than {MOST_ITEMS} arguments", node)
        return given, keywords

    def argument(self, child: Node, scope: Scope) -> Any:
        """The value of an argument, which may be `:`."""
        return COLON if child.type == "operator" and text_of(child) == ":" else self.value(child, scope)

    def _splat(
        self, child: Node, scope: Scope, given: list[Any], keywords: dict[str, Any], after: bool
    ) -> None:
        inner = parts(child)[0]
        value = self.value(inner, scope)
        if isinstance(value, NamedTuple) and after:
            keywords.update(value.as_dict())
        elif isinstance(value, dict) and after:
            keywords.update({str(key): item for key, item in value.items()})
        elif after:
            self.known(value, inner)
            if len(self.items(value, inner)):
                raise NotUnderstood("its keywords are not known", child)
        elif isinstance(value, Call):  # sizes of the input, perhaps: lowering lists them
            given.append(Call("splat", (value,)))
        else:
            given += self.items(value, inner)

    def _keyword(self, child: Node, scope: Scope, keywords: dict[str, Any]) -> None:
        """The short form `f(; pad, stride)`, or a pair `:pad => 1`."""
        if child.type == "identifier":
            keywords[text_of(child)] = self.value(child, scope)
            return
        value = self.value(child, scope)
        if isinstance(value, Pair) and isinstance(value.first, Symbol):
            keywords[value.first.name] = value.second
            return
        raise NotUnderstood("this is not a keyword", child)

    def call(self, function: Any, given: list[Any], keywords: dict[str, Any], node: Node | None) -> Any:
        """Calls a value."""
        if isinstance(function, Unknown):
            return function if function.node is not None else Unknown(function.why, node)
        if isinstance(function, OwnType):
            return self.construct(function, given, keywords, node)
        if isinstance(function, Own):
            return self.call_own(function, given, node)
        if isinstance(function, WrittenFunction):
            return self.follow(function.methods, function.name, given, keywords, node)
        if isinstance(function, Constructor):
            return self._build(function, given, keywords, node)
        if isinstance(function, JuliaStruct):
            return self._struct(function, given, keywords, node)
        if is_symbolic(function):
            raise NotUnderstood("it calls something that the input decides", node)
        raise NotUnderstood(f"a {type(function).__name__} is called", node)

    def _build(
        self, function: Constructor, given: list[Any], keywords: dict[str, Any], node: Node | None
    ) -> Any:
        if any(map(is_symbolic, given)) and function.name not in self.constructors:
            return self.expression(function.name, given, keywords, False, node)
        value = _unknown([*given, *(v for k, v in keywords.items() if k not in DRAWN)])
        if value is not None:
            if function.name in self.constructors:
                raise NotUnderstood(f"an argument is not known{self.because(value)}", node)
            return value
        try:
            made = function.build(given, keywords)
        except NotUnderstood:
            raise
        except (TypeError, ValueError, IndexError, AttributeError, OverflowError, KeyError) as error:
            raise NotUnderstood(f"{function.name} is not read with these arguments", node) from error
        return self._placed(made, node)

    def _placed(self, made: Any, node: Node | None) -> Any:
        if isinstance(made, (Built, Own)) and made.node is None:
            made.node = node
        return made

    def _struct(
        self, function: JuliaStruct, given: list[Any], keywords: dict[str, Any], node: Node | None
    ) -> Any:
        name = function_name(function)
        unknown = next((v for v in (*given, *keywords.values()) if isinstance(v, Unknown)), None)
        if unknown is not None:
            return unknown
        if name is None:
            if function.type.path == ("Base", "ComposedFunction"):
                outer, inner = function.fields
                return self.call(outer, [self.call(inner, given, keywords, node)], {}, node)
            if function.type.path in (("Base", "Fix1"), ("Base", "Fix2")):
                f, x = function.fields
                return self.call(f, [x, *given] if function.type.name == "Fix1" else [*given, x], {}, node)
            if len(given) == 1 and is_symbolic(given[0]) and not keywords:
                return Apply(function, (given[0],))
            if len(given) > 1 and all(map(is_symbolic, given)) and not keywords:
                return Apply(function, tuple(given))
            return Unknown("a layer is applied to data", node)
        if name == "|>" and len(given) == 2:
            return self.call(given[1], [given[0]], {}, node)
        higher = self.higher.get(name)
        if higher is not None and given and not isinstance(given[0], Unknown):
            found = higher(self, given, keywords, node)
            if found is not None:
                return found
        if any(map(is_symbolic, (*given, *keywords.values()))):
            return self.expression(name, given, keywords, False, node)
        computed = COMPUTED.get(name)
        if computed is None:
            return Unknown(f"{name} is not computed", node)
        try:
            return operations.checked(computed(*given, **keywords))
        except NotUnderstood:
            raise
        except (
            TypeError,
            ValueError,
            IndexError,
            ZeroDivisionError,
            OverflowError,
            AttributeError,
            KeyError,
        ) as error:
            raise NotUnderstood(f"{name} is not read with these arguments", node) from error

    def expression(
        self, name: str, given: Sequence[Any], keywords: dict[str, Any], dotted: bool, node: Node | None
    ) -> Any:
        """A call that depends on the argument of a closure, as `lowered.py` makes it of lowered code."""
        for value in (*given, *keywords.values()):
            if isinstance(value, Unknown):
                raise NotUnderstood(f"a value is not known{self.because(value)}", node)
        try:
            made: Any = call_of(
                name,
                [operations.expression(v) for v in given],
                {k: operations.expression(v) for k, v in keywords.items()},
                dotted,
            )
        except FormatError as error:
            raise NotUnderstood(operations.clause(error), node) from error
        if getattr(made, "size", 1) > _LARGEST:
            raise NotUnderstood(f"it computes more than {_LARGEST} steps", node)
        return operations.plain(made)

    # ---- Functions of the file ----

    def follow(
        self,
        methods: list[Method],
        name: str,
        given: list[Any],
        keywords: dict[str, Any],
        node: Node | None,
        owner: Any = None,
    ) -> Any:
        """Calls the method that fits the arguments."""
        fitting = [m for m in methods if self._fits(m, given)]
        if not fitting:
            raise NotUnderstood(f"{name or 'the function'} has no method for {len(given)} arguments", node)
        method = max(enumerate(fitting), key=lambda pair: (_annotations(pair[1]), pair[0]))[1]
        if self.calls >= _MOST_CALLS:
            raise NotUnderstood(f"functions are nested more than {_MOST_CALLS} deep", node)
        inner = Scope(method.scope, name)
        if method.owner:
            inner.names[method.owner] = owner
        if name:
            self.called.add(name)
        self._bind(method, given, keywords, inner)
        self.calls += 1
        self.active.append(name)
        self.inside_package += bool(method.package)
        depth, self.depth = self.depth, 0
        try:
            return self.run_function(method.body, inner)
        except NotUnderstood as error:
            if not method.package:
                raise
            raise NotUnderstood(f"{method.package} has no {name} with these arguments", node) from error
        finally:
            self.calls -= 1
            self.active.pop()
            self.inside_package -= bool(method.package)
            self.depth = depth

    def _fits(self, method: Method, given: list[Any]) -> bool:
        splat = any(s for *_, s in method.parameters)
        if len(given) < method.required or (len(given) > len(method.parameters) and not splat):
            return False
        pairs = zip(method.parameters, given, strict=False)
        return all(operations.is_a(value, kind, self.globals) for (_, kind, _, s), value in pairs if not s)

    def _bind(self, method: Method, given: list[Any], keywords: dict[str, Any], inner: Scope) -> None:
        rest = list(given)
        for name, _, default, splat in method.parameters:
            if splat:
                inner.names[name], rest = tuple(rest), []
            elif rest:
                self._parameter(name, rest.pop(0), inner)
            else:
                if default is None:
                    raise NotUnderstood(f"the argument {name} is not given", method.node)
                inner.names[name] = self.default(default, inner)
        left = dict(keywords)
        for name, default, splat in method.keywords:
            if splat:
                inner.names[name] = NamedTuple(tuple(left), list(left.values()))
                left = {}
            elif name in left:
                inner.names[name] = left.pop(name)
            elif default is None:
                inner.names[name] = Unknown(f"the keyword {name} is not given", method.node)
            else:
                inner.names[name] = self.default(default, inner)
        if left:
            raise NotUnderstood(f"there is no keyword {next(iter(left))}", None)

    def _parameter(self, name: str, value: Any, inner: Scope) -> None:
        names = name.split(",")
        if len(names) == 1:
            inner.names[name] = value
            return
        for one, item in zip(names, operations.destructured(value, len(names), self), strict=False):
            inner.names[one] = item

    def default(self, node: Node, scope: Scope) -> Any:
        """The value of an expression, unknown if it is not understood."""
        try:
            return self.value(node, scope)
        except NotUnderstood as error:
            return Unknown(error.why, error.node or node)

    # ---- Structs of the file ----

    def construct(self, kind: OwnType, given: list[Any], keywords: dict[str, Any], node: Node | None) -> Any:
        """Makes an instance of a struct of the file, by the constructor that fits."""
        methods = kind.inner or [m for m in kind.outer if self._fits(m, given)]
        plain = len(given) == len(kind.fields) and not keywords and not kind.inner
        exact = [m for m in kind.outer if self._fits(m, given) and (_annotations(m) or not plain)]
        if kind.inner:
            fitting = [m for m in (*kind.inner, *kind.outer) if self._fits(m, given)]
            made = self.follow(fitting or methods, kind.name, given, keywords, node)
        elif exact and not (kind.keywords and not given):
            made = self.follow(exact, kind.name, given, keywords, node)
        elif plain and not (kind.keywords and not given):
            made = self.instance(kind, given)
        elif kind.keywords and not given:
            made = self._by_keywords(kind, keywords, node)
        else:
            raise NotUnderstood(f"{kind.name} has {len(kind.fields)} fields, not {len(given)}", node)
        return self._placed(made, node)

    def instance(self, kind: OwnType, given: list[Any]) -> Own:
        """An instance with these fields."""
        return operations.instance(kind, given, self)

    def _by_keywords(self, kind: OwnType, keywords: dict[str, Any], node: Node | None) -> Own:
        scope = Scope(kind.scope)
        for name, _, default in kind.fields:
            if name in keywords:
                scope.names[name] = keywords[name]
            elif default is not None:
                scope.names[name] = self.default(default, scope)
            else:
                scope.names[name] = Unknown(f"the field {name} is not given", node)
        return self.instance(kind, [scope.names[name] for name, *_ in kind.fields])

    def call_own(self, value: Own, given: list[Any], node: Node | None) -> Any:
        """Calls an instance of a struct of the file."""
        kind = value.kind
        if kind is None or not kind.calls:
            raise NotUnderstood(
                f"{value.type.name} has no method (m::{value.type.name})(x) in the file", node
            )
        if any(isinstance(v, Unknown) for v in given):
            return next(v for v in given if isinstance(v, Unknown))
        if not any(self._fits(m, given) for m in kind.calls):
            counts = sorted({len(m.parameters) for m in kind.calls})
            raise NotUnderstood(
                f"{kind.name} takes {' or '.join(map(str, counts))} inputs, not {len(given)}", node
            )
        return self.follow(kind.calls, "", given, {}, node, owner=value)

    # ---- Dots ----

    def broadcast(self, function: Any, given: list[Any], keywords: dict[str, Any], node: Node) -> Any:
        """Calls with a dot: for each item of a vector, or as an elementwise expression."""
        for value in (function, *given):
            if isinstance(value, Unknown):
                return value
        if any(map(is_symbolic, given)) and not any(isinstance(v, (tuple, list)) for v in given):
            name = function_name(function)
            if name is None and isinstance(function, Constructor) and function.name not in self.constructors:
                name = function.name
            if name is not None:
                return self.expression(name, given, keywords, True, node)
            return self.call(function, given, keywords, node)
        drawn = next((v for v in given if isinstance(v, Random)), None)
        if drawn is not None:  # numbers of the same shape, such as 0.1f0 .* randn(Float32, 3)
            return drawn
        length = max((len(v) for v in given if isinstance(v, (tuple, list, range))), default=0)
        if length == 0:
            return self.call(function, given, keywords, node)
        if length > MOST_ITEMS:
            raise NotUnderstood(f"it has more than {MOST_ITEMS} items", node)
        rows = [
            [
                v[i]
                if isinstance(v, (tuple, list, range)) and len(v) > 1
                else v[0]
                if isinstance(v, (tuple, list, range))
                else v
                for v in given
            ]
            for i in range(length)
        ]
        made = [self.call(function, row, keywords, node) for row in rows]
        return (
            tuple(made)
            if all(isinstance(v, tuple) for v in given if isinstance(v, (tuple, list, range)))
            else made
        )


def _unknown(values: list[Any]) -> Unknown | None:
    """An unknown among some values and the parts of tuples, vectors and pairs; None if there is none."""
    return next((item for item in _leaves(values) if isinstance(item, Unknown)), None)


def _annotations(method: Method) -> int:
    return sum(1 for _, kind, _, _ in method.parameters if kind is not None and text_of(kind) != "Any")
