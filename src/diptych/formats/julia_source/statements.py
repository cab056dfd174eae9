"""Runs statements: those at the top of a file, and those of its functions while they are followed.

A statement that is not understood leaves its names `Unknown`; loading data and training are such statements. Layers
that are assigned to a name are noted as `Event`s, from which `models.py` chooses the model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tree_sitter import Node

from diptych.errors import FormatError
from diptych.formats.julia_source import operations
from diptych.formats.julia_source.definitions import method_of, own_type, written
from diptych.formats.julia_source.evaluator import Evaluator
from diptych.formats.julia_source.expressions import DOTS, with_dots
from diptych.formats.julia_source.functions import name_value
from diptych.formats.julia_source.scanning import Scanner
from diptych.formats.julia_source.syntax import operator_of, parts, text_of
from diptych.formats.julia_source.values import (
    Built,
    Constructor,
    Event,
    Method,
    NotUnderstood,
    Own,
    OwnType,
    Scope,
    Unknown,
    WrittenFunction,
)

__all__ = ["Runner", "is_model"]

_MOST_MODELS = 2000
_MOST_ROUNDS = 256  # of a loop
_STEPS_OF_A_LOOP = 30_000


class _Return(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class _Leave(Exception):
    """`break` or `continue`."""

    def __init__(self, goes_on: bool) -> None:
        self.goes_on = goes_on


def is_model(value: Any) -> bool:
    """Whether a value can be read as a model: a layer, or a struct of the file that can be called."""
    if isinstance(value, Own):
        return value.kind is not None and bool(value.kind.calls)
    return isinstance(value, Built)


class Runner:
    """Runs statements with an `Evaluator`, and notes the models that they make."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.e = evaluator
        self.events: list[Event] = []
        self.fixed: set[str] = set()  # names of the file whose value the user gave
        self.failures: dict[tuple[int, int], tuple[NotUnderstood, Node]] = {}  # by their places
        self.scan = Scanner()
        evaluator.run_body, evaluator.run_function = self.body, self.function

    # ---- Bodies ----

    def top(self, statements: list[Node]) -> None:
        """Runs the statements of the file."""
        self._declare(statements, self.e.globals)
        for statement in statements:
            self.e.called = set()
            self.attempt(statement, self.e.globals, top=True)

    def _declare(self, statements: list[Node], scope: Scope) -> None:
        """Defines functions and structs first, since a file may use them before the line of their definition."""
        for statement in statements:
            if statement.type in ("module_definition",):
                self._declare(parts(statement), scope)
            self._define(statement, scope)

    def function(self, nodes: list[Node], scope: Scope) -> Any:
        """The value that the body of a function returns."""
        try:
            return self.body(nodes, scope)
        except _Return as back:
            return back.value

    def body(self, nodes: list[Node], scope: Scope) -> Any:
        """The value of the last of some statements."""
        value: Any = None
        for number, node in enumerate(nodes):
            last = number == len(nodes) - 1
            value = self.statement(node, scope) if last else self.attempt(node, scope)
        return value

    def attempt(self, node: Node, scope: Scope, top: bool = False) -> Any:
        """Runs a statement; what it would assign becomes unknown if it is not understood."""
        try:
            value = self.statement(node, scope)
        except NotUnderstood as error:
            self.forget(node, scope, error)
            return None
        except _Return:
            if top:
                return None
            raise
        except _Leave:
            if top:
                return None
            raise
        if isinstance(value, Unknown) and node.type == "call_expression":
            self.changed(node, scope, value)
        if top and is_model(value) and node.type in ("call_expression", "binary_expression"):
            self.note(f"line{self.e.where(node).rsplit(':', 1)[-1].rsplit(' ', 1)[-1]}", value, node)
        return value

    def forget(self, node: Node, scope: Scope, error: NotUnderstood) -> None:
        """Makes the names that a statement assigns, and the vectors that it changes, unknown."""
        if not self.e.inside_package and (error.hides_model or self.scan.makes_layers(node)):
            self.failures.setdefault((node.start_byte, node.end_byte), (error, node))
        for name in self.scan.assigned(node):
            if scope.parent is None and name in self.fixed:
                continue
            owner = scope.owner(name)
            known = owner.names[name] if owner is not None else None
            if not isinstance(known, (OwnType,)):
                scope.assign(name, Unknown(error.why, error.node or node))
        self.changed(node, scope, Unknown(error.why, error.node or node))

    def changed(self, node: Node, scope: Scope, unknown: Unknown) -> None:
        """Makes the vectors unknown that a call which is not understood, such as `push!(layers, ...)`, changes."""
        for name in self.scan.grown(node):
            owner = scope.owner(name)
            vector = owner.names[name] if owner is not None else None
            if isinstance(vector, list):  # of which another name, or the caller, may be in use
                vector.append(unknown)
                scope.assign(name, unknown)

    def note(self, key: str, value: Any, node: Node) -> None:
        """Notes a model that was assigned, unless inside a function of a package."""
        if self.e.inside_package:
            return
        if len(self.events) >= _MOST_MODELS:
            raise FormatError(f"more than {_MOST_MODELS} models are made")
        self.events.append(
            Event(key, value, node, frozenset(self.e.called - {key.split(".")[0], *self.e.active}))
        )

    # ---- Statements ----

    def statement(self, node: Node, scope: Scope) -> Any:
        """The value of one statement. Raises `NotUnderstood`."""
        rule = _STATEMENTS.get(node.type)
        if rule is not None:
            return rule(self, node, scope)
        return self.e.value(node, scope)

    def assignment(self, node: Node, scope: Scope) -> Any:
        """Runs `name = value`, `a, b = value`, `x.field = value`, or defines `f(x) = value`."""
        inside = parts(node)
        target, source = inside[0], inside[-1]
        if self._define(node, scope):
            return None
        before, self.e.called = self.e.called, set()  # the functions that this value alone is made of
        try:
            nested = source.type == "assignment"
            value = self.assignment(source, scope) if nested else self.e.value(source, scope)
            self.assign(target, value, scope, node)
        finally:
            self.e.called |= before
        return value

    def assign(self, target: Node, value: Any, scope: Scope, node: Node) -> None:
        """Assigns a value to a name, to several, to a field or to an item."""
        if scope.parent is None and text_of(target) in self.fixed:
            return
        if target.type == "typed_expression":
            target = parts(target)[0]
        if target.type in ("identifier", "operator"):
            name = text_of(target)
            scope.assign(name, value)
            if is_model(value):
                self.note(f"{scope.label}.{name}" if scope.label else name, value, node)
        elif target.type in ("open_tuple", "tuple_expression"):
            names = parts(target)
            splat = next((i for i, n in enumerate(names) if n.type == "splat_expression"), None)
            count = len(names) if splat is None else splat
            for one, item in zip(names, operations.destructured(value, count, self.e), strict=False):
                self.assign(one, item, scope, node)
        elif target.type == "field_expression":
            owner = self.e.value(parts(target)[0], scope)
            name = text_of(parts(target)[-1])
            if isinstance(owner, Own) and name in owner.names:
                owner.fields[owner.names.index(name)] = value
            elif isinstance(owner, Built):
                self._lost(parts(target)[0], scope, node)
        elif target.type == "index_expression":
            self._put(target, value, scope, node)

    def _put(self, target: Node, value: Any, scope: Scope, node: Node) -> None:
        owner = self.e.value(parts(target)[0], scope)
        places = parts(parts(target)[-1])
        index = self.e.value(places[0], scope) if len(places) == 1 else None
        if isinstance(owner, list) and isinstance(index, int) and 1 <= index <= len(owner):
            owner[index - 1] = value
        elif isinstance(owner, dict):
            literals_key = getattr(index, "name", index)
            owner[literals_key] = value
        elif isinstance(owner, (Built, list)):
            self._lost(parts(target)[0], scope, node)

    def _lost(self, owner: Node, scope: Scope, node: Node) -> None:
        """A layer that is changed in place: its name no longer tells what it computes."""
        root = owner
        while root.type in ("field_expression", "index_expression"):
            root = parts(root)[0]
        if root.type == "identifier":
            name = text_of(root)
            self.events = [event for event in self.events if event.key != name]
            scope.assign(name, Unknown("a part of it is replaced", node))

    def compound(self, node: Node, scope: Scope) -> Any:
        """Runs `name += value`."""
        target, source = parts(node)[0], parts(node)[-1]
        sign = operator_of(node)[:-1]
        value = self.e.call(
            name_value(sign.lstrip(".")), [self.e.value(target, scope), self.e.value(source, scope)], {}, node
        )
        self.assign(target, value, scope, node)
        return value

    # ---- Definitions ----

    def _define(self, node: Node, scope: Scope) -> bool:
        """Defines a function or struct; False if the statement is neither."""
        if node.type == "macrocall_expression":
            return self._by_macro(node, scope)
        if node.type == "struct_definition":
            return self._struct(node, scope, keywords=False)
        if node.type == "const_statement":
            return self._define(parts(node)[0], scope)
        if node.type == "docstring" or node.type == "string_literal":
            return False
        method = method_of(node, scope)
        if method is None:
            return False
        self._add(method, scope)
        return True

    def _by_macro(self, node: Node, scope: Scope) -> bool:
        name = next((text_of(c) for c in node.named_children if c.type == "macro_identifier"), "")
        inside = next((c for c in node.named_children if c.type == "macro_argument_list"), None)
        if inside is None:
            return False
        for child in parts(inside):
            if child.type == "struct_definition":
                return self._struct(child, scope, keywords=name in ("@kwdef", "@with_kw", "@with_kw_noshow"))
            if child.type in ("function_definition", "assignment") and method_of(child, scope) is not None:
                return self._define(child, scope)
        return False

    def _struct(self, node: Node, scope: Scope, keywords: bool) -> bool:
        made = own_type(node, scope, keywords)
        if made is None:
            return False
        known = scope.names.get(made.name)
        if isinstance(known, OwnType) and known.node == node:
            return True
        if isinstance(known, OwnType):  # methods that were declared before
            made.calls, made.outer = known.calls, known.outer
        inner = Scope(scope)
        inner.names["new"] = Constructor("new", lambda given, _: self.e.instance(made, given))
        for method in made.inner:
            method.scope = inner
        if isinstance(known, WrittenFunction):
            made.outer = known.methods
        scope.names[made.name] = made
        return True

    def _add(self, method: Method, scope: Scope) -> None:
        name = method.name
        if method.owner:
            kind = self.e.globals.names.get(name)
            if not isinstance(kind, OwnType):
                kind = OwnType(name, [], method.node, scope)
                self.e.globals.names[name] = kind
            _put_method(kind.calls, method)
            return
        if "." in name:
            return  # Flux.trainable(m::VAE) = …, Base.show(…)
        known = scope.names.get(name)
        if isinstance(known, OwnType):
            _put_method(known.outer, method)
        elif isinstance(known, WrittenFunction):
            _put_method(known.methods, method)
        else:
            made = written([method], name, method.node)
            made.bind(self.e, self.e.where(method.node))
            scope.names[name] = made

    # ---- Control flow ----

    def branch(self, node: Node, scope: Scope) -> Any:
        """Runs an `if`. If its condition is not known, only what all branches agree on is kept."""
        ways, complete = _branches(node)
        for test, body in ways:
            condition = True if test is None else self._condition(test, scope)
            if condition is True:
                return self.body(body, scope)
            if condition is None:
                return self._undecided(node, [b for _, b in ways], complete, scope)
        return None

    def _condition(self, test: Node, scope: Scope) -> bool | None:
        try:
            value = self.e.value(test, scope)
        except NotUnderstood:
            return None
        return value if isinstance(value, bool) else None

    def _undecided(self, node: Node, bodies: list[list[Node]], complete: bool, scope: Scope) -> Any:
        outcomes: list[dict[str, Any]] = []
        names = self.scan.assigned(node)
        for body in bodies:
            if any(map(self.scan.returns, body)):
                raise NotUnderstood("whether it returns here is not known", node)
            inner = Scope(scope, scope.label)
            inner.names.update({n: o.names[n] for n in names if (o := scope.owner(n)) is not None})
            for statement in body:
                self.attempt(statement, inner)
            outcomes.append(inner.names)
        if not complete:
            outcomes.append({n: o.names[n] for n in names if (o := scope.owner(n)) is not None})
        for name in names:
            found = [outcome.get(name) for outcome in outcomes]
            made = [value for value in found if is_model(value)]
            if len(made) == 1 and all(isinstance(v, Unknown) or v is made[0] for v in found):
                scope.assign(name, made[0])  # the others load it from a file
            elif all(operations.agree(found[0], other) for other in found[1:]):
                scope.assign(name, found[0])
            else:
                scope.assign(name, Unknown("it depends on a condition that is not known", node))
        return Unknown("it depends on a condition that is not known", node)

    def loop(self, node: Node, scope: Scope) -> Any:
        """Runs a `for` over something known, within limits; otherwise what it assigns is unknown."""
        bindings = [c for c in parts(node) if c.type == "for_binding"]
        body = [c for c in parts(node) if c.type != "for_binding"]
        start, rounds = self.e.steps, 0

        def once(inner: Scope) -> None:
            nonlocal rounds
            rounds += 1
            if rounds > _MOST_ROUNDS or self.e.steps - start > _STEPS_OF_A_LOOP:
                raise NotUnderstood("the loop is too long", node)
            held = _Through(inner, scope)
            try:
                for statement in body:
                    self.attempt(statement, held)
            except _Leave as leave:
                if not leave.goes_on:
                    raise

        try:
            operations.bound(self.e, bindings, scope, once)
        except _Leave:
            pass
        except NotUnderstood as error:
            self.forget(node, scope, error)
            for name in self.scan.grown(node):
                scope.assign(name, Unknown(error.why, error.node or node))
        return None

    def skipped(self, node: Node, scope: Scope) -> Any:
        """A statement that is not run: what it assigns is unknown."""
        self.forget(node, scope, NotUnderstood("it is set in code that is not followed", node))
        for name in self.scan.grown(node):
            scope.assign(name, Unknown("it is changed in code that is not followed", node))
        return None

    def tried(self, node: Node, scope: Scope) -> Any:
        """Runs the body of a `try`, as if nothing failed."""
        body = [c for c in parts(node) if c.type not in ("catch_clause", "finally_clause", "else_clause")]
        return self.body(body, scope)

    def let(self, node: Node, scope: Scope) -> Any:
        """Runs a `let` in a scope of its own."""
        inner = Scope(scope, scope.label)
        inside = parts(node)
        for child in inside:
            if child.type == "let_binding":
                if self._define(child, inner):
                    continue
                pair = parts(child)
                inner.names[text_of(pair[0])] = self.e.value(pair[-1], scope)
        return self.body([c for c in inside if c.type != "let_binding"], inner)

    def returned(self, node: Node, scope: Scope) -> Any:
        """Runs `return value`."""
        inside = parts(node)
        raise _Return(self.e.value(inside[0], scope) if inside else None)

    def left(self, node: Node, scope: Scope) -> Any:
        """Runs `break` or `continue`."""
        raise _Leave(node.type == "continue_statement")

    def module(self, node: Node, scope: Scope) -> Any:
        """Runs the statements of a module, whose names are used like those of the file."""
        inside = parts(node)[1:]
        self._declare(inside, scope)
        for statement in inside:
            self.attempt(statement, scope, top=True)
        return None

    def macro(self, node: Node, scope: Scope) -> Any:
        """Runs a macro: `@load` and its like set names from files."""
        name = next((text_of(c) for c in node.named_children if c.type == "macro_identifier"), "")
        inside = next((c for c in node.named_children if c.type == "macro_argument_list"), None)
        if self._by_macro(node, scope):
            return None
        if name == "@load" and inside is not None:
            for child in parts(inside)[1:]:
                if child.type == "identifier":
                    scope.assign(text_of(child), Unknown("it is loaded from a file", node))
            return None
        if inside is not None and name not in ("@load", "@save", "@functor", "@layer", "@eval", "@treelike"):
            for child in parts(inside):
                if child.type in ("assignment", "for_statement", "compound_statement", "const_statement"):
                    return with_dots(self.e, partial(self.attempt, child, scope), name in DOTS)
        return self.e.value(node, scope)


class _Through(Scope):
    """The scope of one round of a loop: names that were known before the loop are set outside."""

    def __init__(self, inner: Scope, outer: Scope) -> None:
        super().__init__(inner, outer.label)
        self.outer = outer

    def assign(self, name: str, value: Any) -> None:
        owner = self.outer.owner(name)
        local = self.parent is not None and name in self.parent.names
        if owner is not None and not local:
            owner.names[name] = value
        else:
            self.names[name] = value


Rule = Callable[[Runner, Node, Scope], Any]
_STATEMENTS: dict[str, Rule] = {
    "assignment": Runner.assignment,
    "break_statement": Runner.left,
    "compound_assignment_expression": Runner.compound,
    "compound_statement": lambda r, n, s: r.body(parts(n), s),
    "const_statement": lambda r, n, s: r.statement(parts(n)[0], s),
    "continue_statement": Runner.left,
    "export_statement": lambda r, n, s: None,
    "for_statement": Runner.loop,
    "function_definition": lambda r, n, s: None if r._define(n, s) else r.e.value(n, s),
    "global_statement": lambda r, n, s: (
        r.statement(parts(n)[0], s) if parts(n)[0].type == "assignment" else None
    ),
    "if_statement": Runner.branch,
    "import_statement": lambda r, n, s: None,
    "let_statement": Runner.let,
    "local_statement": lambda r, n, s: (
        r.statement(parts(n)[0], s) if parts(n)[0].type == "assignment" else None
    ),
    "macrocall_expression": Runner.macro,
    "module_definition": Runner.module,
    "return_statement": Runner.returned,
    "struct_definition": lambda r, n, s: r._define(n, s) and None,
    "try_statement": Runner.tried,
    "using_statement": lambda r, n, s: None,
    "while_statement": Runner.skipped,
    "abstract_definition": lambda r, n, s: None,
}


def _branches(node: Node) -> tuple[list[tuple[Node | None, list[Node]]], bool]:
    """The (condition, body) of an `if` and its clauses, and whether there is an `else`."""
    inside = parts(node)
    clauses = [c for c in inside if c.type in ("elseif_clause", "else_clause")]
    ways: list[tuple[Node | None, list[Node]]] = [(inside[0], [c for c in inside[1:] if c not in clauses])]
    for clause in clauses:
        body = parts(clause)
        ways.append((None, body) if clause.type == "else_clause" else (body[0], body[1:]))
    return ways, any(test is None for test, _ in ways)


def _put_method(methods: list[Method], method: Method) -> None:
    """Adds a method; one of the same node or with the same types replaces the older one."""
    if any(m.node == method.node for m in methods):
        return
    signature = _signature(method)
    methods[:] = [m for m in methods if _signature(m) != signature]
    methods.append(method)


def _signature(method: Method) -> tuple[Any, ...]:
    return tuple(
        (text_of(kind) if kind else "", splat, default is None)
        for _, kind, default, splat in method.parameters
    )
