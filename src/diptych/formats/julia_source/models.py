"""Which of the layers in a file is the model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tree_sitter import Node

from diptych.errors import FormatError, ShapeError
from diptych.formats.flux.versions import Signs
from diptych.formats.julia import JuliaStruct, JuliaType
from diptych.formats.julia_source.evaluator import Evaluator
from diptych.formats.julia_source.expressions import HIGHER, RULES
from diptych.formats.julia_source.functions import function_name
from diptych.formats.julia_source.scanning import in_layers
from diptych.formats.julia_source.statements import Runner, is_model
from diptych.formats.julia_source.syntax import parse, parts, short, text_of
from diptych.formats.julia_source.text import Source
from diptych.formats.julia_source.values import (
    Built,
    Constructor,
    Event,
    Method,
    NotUnderstood,
    Own,
    OwnType,
    Unknown,
    WrittenFunction,
)

__all__ = ["Found", "SeveralModels", "SourceFile", "expanded", "split_key"]

_LISTED = 12


class SeveralModels(FormatError):
    """Several models in one file, with their keys."""

    def __init__(self, message: str, keys: list[str]) -> None:
        super().__init__(message)
        self.keys = keys


class Found:
    """The model that was chosen: its value, its key, and a remark on what else the file holds."""

    def __init__(self, value: Any, key: str, node: Node | None, remark: str = "") -> None:
        self.value, self.key, self.node, self.remark = value, key, node, remark


class SourceFile:
    """A file of Julia source whose statements were run.

    Args:
        source: The text.
        constructors: The layers by name.
        given: Assignments that replace those of the file, such as "STATE_SIZE = 4".
    """

    def __init__(self, source: Source, constructors: dict[str, Constructor], given: str = "") -> None:
        self.source = source
        outputs = Constructor("outputsize", self._outputs)
        self.e = Evaluator({**constructors, "outputsize": outputs}, RULES, HIGHER)
        self.e.output_size = self.output_size
        self.e.where = lambda node: source.place(node.start_point[0])
        self.runner = Runner(self.e)
        self.needing: list[tuple[NotUnderstood, Node]] = []
        root = parse(source.text)
        try:
            if "Metalhead" in source.text:
                self._use_metalhead()
            known = set(self.e.globals.names)
            self.runner.top(parts(parse(given)))
            self.runner.fixed = set(self.e.globals.names) - known
            self.runner.top(parts(root))
            self.explored = self._explore()
        except RecursionError as error:
            raise FormatError(f"{source.name} is nested too deeply to be read") from error
        except FormatError as error:
            raise FormatError(f"{source.name}: {error}") from error

    def _use_metalhead(self) -> None:
        """Defines the architectures of Metalhead; what goes wrong in them is told of the call in the file."""
        text = (Path(__file__).parent / "metalhead.jl").read_text("utf-8")
        self.runner.top(parts(parse(text)))
        for value in self.e.globals.names.values():
            methods = value.outer + value.calls if isinstance(value, OwnType) else value.methods
            for method in methods:
                method.package = "Metalhead"

    # ---- Sizes ----

    def output_size(self, value: Any, size: tuple[int, ...]) -> tuple[int, ...]:
        """The size of a layer's output in Julia's order, for an input of `size`. Raises `NotUnderstood`."""
        from diptych.formats.julia_source.reading import SourceReader

        try:
            layer = SourceReader(self, Signs(exact=(0, 16))).read(value)
            return layer.output_shape(size[::-1])[::-1]
        except (FormatError, ShapeError) as error:
            text = "×".join(map(str, size))
            raise NotUnderstood(f"its output for an input of {text} is not known: {error}") from error

    def _outputs(self, given: list[Any], keywords: dict[str, Any]) -> tuple[int, ...]:
        """Flux's `outputsize(layer, size; padbatch)`."""
        value, size = given[0], tuple(given[1])
        if isinstance(value, (list, tuple)):
            value = Built(JuliaType(("Flux", "Chain")), [tuple(value)], ("layers",))
        return self.output_size(value, (*size, 1) if keywords.get("padbatch") is True else size)

    # ---- Functions that return models ----

    def _explore(self) -> set[str]:
        """Calls the functions of the file that nothing has called, with their defaults, and notes what they return."""
        called = {name for event in self.runner.events for name in event.calls}
        inside: set[str] = set()
        for name, function in list(self.e.globals.names.items()):
            if not isinstance(function, WrittenFunction) or function.name != name or name in called:
                continue
            if any(method.package for method in function.methods):
                continue
            self.e.called = set()
            events = len(self.runner.events)
            for method in function.methods:
                self._try(name, method)
            inside |= self.e.called - {name} if self.runner.events[events:] else set()
        for name, kind in list(self.e.globals.names.items()):
            written = (
                isinstance(kind, OwnType) and kind.name == name and not any(m.package for m in kind.calls)
            )
            if written and kind.calls and not self._made(kind):
                self._try_type(name, kind)
        return inside

    def _made(self, kind: OwnType) -> bool:
        return any(
            _walk(e.value, lambda v: isinstance(v, Own) and v.kind is kind) for e in self.runner.events
        )

    def _failed(self, error: NotUnderstood, node: Node) -> None:
        self.runner.failures.setdefault((node.start_byte, node.end_byte), (error, node))

    def _try_type(self, name: str, kind: OwnType) -> None:
        """Makes a struct that can be called, and that nothing has made, with the defaults of its constructors."""
        self.e.called = set()
        if kind.keywords or any(not m.required for m in (*kind.inner, *kind.outer)):
            try:
                value = self.e.construct(kind, [], {}, kind.node)
            except NotUnderstood as error:
                if in_layers(error.node):
                    self._failed(error, error.node or kind.node)
                return
            if is_model(value):
                self.runner.note(name, value, kind.node)

    def _try(self, name: str, method: Method) -> None:
        if not any(map(self.runner.scan.makes_layers, method.body)) and not self._calls_own(method):
            return
        given = [self._argument(name, p) for p in method.parameters if p[2] is None and not p[3]]
        try:
            value = self.e.follow([method], name, given, {}, method.node)
        except NotUnderstood as error:
            if any(isinstance(g, Unknown) for g in given):
                self.needing.append((NotUnderstood("it needs arguments", method.node), method.node))
            elif any(default is None and not splat for _, default, splat in method.keywords):
                self.needing.append((NotUnderstood("it needs keywords", method.node), method.node))
            elif error.hides_model or in_layers(error.node):
                self._failed(error, method.node)
            return
        if is_model(value):
            self.runner.note(name, value, method.node)

    def _calls_own(self, method: Method) -> bool:
        text = text_of(method.node)
        names = [n for n, v in self.e.globals.names.items() if isinstance(v, (WrittenFunction, OwnType))]
        return any(re.search(rf"\b{re.escape(n)}\(", text) for n in names if n != method.name)

    def _argument(self, name: str, parameter: tuple[str, Node | None, Node | None, bool]) -> Any:
        """The value for a parameter that must be given: the defaults of a struct, or unknown."""
        kind = self.e.globals.names.get(text_of(parameter[1])) if parameter[1] is not None else None
        if isinstance(kind, OwnType) and kind.keywords:
            try:
                return self.e.construct(kind, [], {}, None)
            except NotUnderstood:
                pass
        return Unknown(f"{parameter[0]} is an argument of {name}", parameter[1])

    # ---- Choosing ----

    def chosen(self, key: str | None) -> Found:
        """The model of that key, or the only one.

        Raises:
            FormatError: There is none, or there are several; with the lines.
        """
        if key is not None:
            return self._by_key(key)
        found = self._candidates()
        failures = self._failures(found)
        if len(found) == 1 and not failures:
            return Found(found[0].value, found[0].key, found[0].node)
        if not found and not failures:
            failures = self.needing
        if not found and not failures:
            raise FormatError(self._none())
        if not found:
            error, node = failures[0]
            more = f"; {len(failures) - 1} more models are not understood either" if len(failures) > 1 else ""
            raise FormatError(f"{self._place(error, node)}{more}{self._needs(node)}")
        listed = ", ".join(f"{e.key} ({self._line(e.node)})" for e in found[:_LISTED])
        if failures:
            error, node = failures[0]
            raise SeveralModels(
                f"{self.source.name} holds models that are understood, {listed}, and one that is not: "
                f"{self._place(error, node)}; name the one to read with --key (key=...)",
                [e.key for e in found],
            )
        raise SeveralModels(
            f"{self.source.name} holds several models: {listed}; name the one to read with --key (key=...)",
            [e.key for e in found],
        )

    def _needs(self, node: Node) -> str:
        for name, value in self.e.globals.names.items():
            if isinstance(value, WrittenFunction) and any(m.node == node for m in value.methods):
                return f"; give them with --key, such as --key '{name}(…)'"
        return ""

    def _place(self, error: NotUnderstood, node: Node) -> str:
        where = error.node or node
        return f"{self.e.where(where)}: {short(where)}: {error.why}"

    def _line(self, node: Node) -> str:
        place = self.e.where(node).removeprefix(self.source.name).lstrip(":, ")
        return f"line {place}" if place.isdigit() else place

    def _candidates(self) -> list[Event]:
        events: dict[str, Event] = {}
        for event in self.runner.events:
            known = events.get(event.key)
            if (
                known is not None
                and known.value is not event.value
                and not _contains(event.value, known.value)
            ):
                events[f"{known.key}:{self._line(known.node).removeprefix('line ')}"] = known
            events[event.key] = event
        named = [Event(key, e.value, e.node, e.calls) for key, e in events.items()]
        called = {name for e in named for name in e.calls}
        found: list[Event] = []
        for event in sorted(named, key=lambda e: (e.key.count("."), ":" in e.key)):
            others = [e for e in named if e.value is not event.value]
            same = any(
                e.value is event.value or _signature(e.value) == _signature(event.value) for e in found
            )
            inside = any(_contains(e.value, event.value) for e in others)
            helper = event.key in called | self.explored or event.key.split(".")[0] in called
            if not same and not inside and not helper:
                found.append(event)
        return found

    def _failures(self, found: list[Event]) -> list[tuple[NotUnderstood, Node]]:
        """The models that were not understood, without those whose name a later statement gave a model."""
        names = {event.key.split(":")[0] for event in self.runner.events}
        called = {name for event in self.runner.events for name in event.calls}
        left: list[tuple[NotUnderstood, Node]] = []
        for error, node in self.runner.failures.values():
            inside = parts(node)
            target = text_of(inside[0]).split("(")[0] if inside else ""
            later = any(e.key == target and e.node.start_byte > node.start_byte for e in self.runner.events)
            helper = target.removeprefix("function ").strip() in called
            known = any(
                other.start_byte <= node.start_byte and node.end_byte <= other.end_byte for _, other in left
            )
            if (
                not later
                and not helper
                and not known
                and (node.type != "function_definition" or target not in names)
            ):
                left.append((error, node))
        return left

    def _none(self) -> str:
        """The sentence for a file without a model."""
        text = (
            f"{self.source.name} holds no model: no layer of Flux or Lux, such as Chain(...), is made in it"
        )
        kinds = {n: v for n, v in self.e.globals.names.items() if isinstance(v, OwnType) and v.calls}
        structs = [n for n, v in kinds.items() if not any(m.package for m in v.calls)]
        if structs:
            names = ", ".join(structs[:_LISTED])
            text += f" with known arguments; it defines {names}: make one with --key, such as --key '{structs[-1]}(…)'"
        return text

    def _by_key(self, key: str) -> Found:
        redefined = re.fullmatch(r"(\S+):((?:cell \d+, line )?\d+)", key)
        for event in reversed(self.runner.events):
            line = self._line(event.node).removeprefix("line ")
            if event.key == key or (redefined and (event.key, line) == redefined.groups()):
                return Found(event.value, key, event.node)
        root = parse(key)
        nodes = parts(root)
        if len(nodes) != 1 or root.has_error:
            raise FormatError(f"{self.source.name} does not have {key!r}{self._known()}")
        outer, self.e.where = self.e.where, lambda node: f"--key {key}"
        try:
            value = self.e.value(nodes[0], self.e.globals)
            if isinstance(value, (WrittenFunction, OwnType)) and not is_model(value):
                value = self.e.call(value, [], {}, None)
        except NotUnderstood as error:
            raise FormatError(f"{self.source.name}: --key {key}: {error.why}{self._known()}") from error
        finally:
            self.e.where = outer
        if isinstance(value, Unknown):
            raise FormatError(f"{self.source.name}: --key {key}: {value.why}{self._known()}")
        if not is_model(value) and not isinstance(value, WrittenFunction):
            raise FormatError(f"{self.source.name}: {key} is not a model{self._known()}")
        return Found(value, key, None)

    def _known(self) -> str:
        names = ", ".join(dict.fromkeys(e.key for e in self._candidates()[:_LISTED]))
        return f"; it holds {names}" if names else ""


def split_key(key: str | None) -> tuple[str, str | None]:
    """The assignments in front of a key, and the key itself: "n = 4; build(n)" gives ("n = 4", "build(n)")."""
    if key is None or ";" not in key:
        return "", key
    given, _, chosen = key.rpartition(";")
    return given.strip(), chosen.strip() or None


def _inside(value: Any) -> list[Any]:
    if isinstance(value, WrittenFunction):
        return [layer for method in value.methods for layer in _captured(method)]
    if isinstance(value, JuliaStruct):
        return value.fields
    return list(value) if isinstance(value, (tuple, list)) else []


def _captured(method: Method) -> list[Any]:
    """The layers around a function that its body names."""
    own = {name for name, *_ in (*method.parameters, *method.keywords)}
    waiting, names = list(method.body), set()
    while waiting:
        node = waiting.pop()
        waiting += node.named_children
        if node.type == "identifier":
            names.add(text_of(node))
    owners = [(name, method.scope.owner(name)) for name in sorted(names - own)]
    found = [owner.names[name] for name, owner in owners if owner is not None]
    return [value for value in found if isinstance(value, (Built, Own))]


def _walk(value: Any, visit: Callable[[Any], bool]) -> bool:
    stack, met = [value], set()
    while stack:
        item = stack.pop()
        if visit(item):
            return True
        for part in _inside(item):
            if isinstance(part, (JuliaStruct, tuple, list)) and id(part) not in met:
                met.add(id(part))
                stack.append(part)
    return False


def _contains(outer: Any, inner: Any) -> bool:
    """Whether a layer lies inside another one; a Chain does if all its layers do, as where it is splatted."""
    if isinstance(inner, JuliaStruct) and inner.type.name == "Chain" and inner is not outer:
        layers = [layer for layer in inner.fields[0] if isinstance(layer, Built)]
        if layers and all(_walk(outer, lambda item, layer=layer: item is layer) for layer in layers):  # type: ignore[misc]
            return True
    return outer is not inner and _walk(outer, lambda item: item is inner)


def _signature(value: Any, known: dict[int, tuple[Any, str]] | None = None) -> str:
    """A text that is the same for the same layers, whatever their weights."""
    known = {} if known is None else known
    if id(value) in known:
        return known[id(value)][1]
    if isinstance(value, np.ndarray):
        text = f"array{value.shape}"
    elif isinstance(value, WrittenFunction):
        text = " ".join(text_of(m.node) for m in value.methods)
    elif isinstance(value, (JuliaStruct, tuple, list)):
        known[id(value)] = (value, "")  # a struct may hold itself
        name = function_name(value) or value.type.name if isinstance(value, JuliaStruct) else "tuple"
        text = f"{name}({','.join(_signature(part, known) for part in _inside(value))})"
    else:
        text = repr(value)[:80]
    digest = hashlib.sha256(text.encode()).hexdigest()  # of equal length, however often a layer is used again
    known[id(value)] = (value, digest)
    return digest


def expanded(value: Any, known: dict[int, tuple[Any, int]] | None = None) -> int:
    """The number of layers as a tree, in which a layer counts as often as it is used."""
    known = {} if known is None else known
    if id(value) not in known:
        known[id(value)] = (value, 1)
        known[id(value)] = (value, 1 + sum(expanded(part, known) for part in _inside(value)))
    return known[id(value)][1]
