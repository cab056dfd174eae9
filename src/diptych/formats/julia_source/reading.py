"""Reading the layers that source makes: `formats.flux` reads the structs, and closures become layers or graphs."""

from __future__ import annotations

from typing import Any

from diptych.errors import FormatError, UnsupportedLayer
from diptych.formats.flux.reading import FluxReader
from diptych.formats.flux.reading_functions import function_layer
from diptych.formats.flux.reading_layers import RULES
from diptych.formats.flux.versions import Signs
from diptych.formats.graph import Value, ValueGraph
from diptych.formats.julia import JuliaStruct
from diptych.formats.julia.expressions import Apply, Argument, Call, Expression, Function, Written
from diptych.formats.julia.expressions import Tuple as TupleExpression
from diptych.formats.julia.lowered_layers import as_connection, as_layers
from diptych.formats.julia_source.models import SourceFile
from diptych.formats.julia_source.syntax import short
from diptych.formats.nesting import nested_steps
from diptych.formats.patterns import as_chain
from diptych.model.layers import Activation, Chain, Layer

__all__ = ["SourceReader"]

_ADVICE = ("; in Julia use named layers", "; use named layers", "; use a named layer", "; save a Flux model")
_MOST_NODES = 20_000


class SourceReader(FluxReader):
    """Reads values of Julia source as layers. Errors name the line.

    Args:
        file: The file that the values come from.
        signs: The version of Flux.
    """

    def __init__(self, file: SourceFile, signs: Signs) -> None:
        super().__init__(RULES, signs, _function, file.source.name)
        self.file = file
        self._placed = False

    def read(self, value: Any) -> Layer:
        """The layer for the model itself."""
        bare = not isinstance(value, JuliaStruct) or value.type.name != "Chain"
        return self.layer(value, "0" if bare else "")

    def _layer(self, value: JuliaStruct, path: str) -> Layer:
        try:
            return super()._layer(value, path)
        except FormatError as error:
            node = getattr(value, "node", None)
            if self._placed or node is None:
                raise
            self._placed = True
            text = str(error)
            for advice in _ADVICE:
                text = text.split(advice)[0]
            text = text.removeprefix(f"{self.name}: ")
            place = self.file.e.where(node)
            if place in text:
                raise FormatError(text) from error
            raise FormatError(f"{place}: {short(node)}: {text}") from error


def _function(r: FluxReader, value: JuliaStruct, path: str) -> Layer:
    """The layer that computes a function of the source; for any other function the one for files."""
    if not isinstance(value, Written):
        return function_layer(r, value, path)
    expression = value.apply([Argument(1, "x")])
    function = Function(expression, value.where)

    def inner(part: JuliaStruct) -> Layer:
        return r.layer(part, f"{path}.0" if path else "0")

    if isinstance(expression, TupleExpression):
        raise FormatError(f"{value.where} gives several outputs, where a model has one")
    if not _shares(expression):
        layers = as_layers(function, layer_of=inner)
        return layers[0] if len(layers) == 1 else Chain(layers) if layers else Activation()
    try:
        return _Graph(r, path, value.where).chain(expression)
    except UnsupportedLayer as error:
        raise FormatError(f"{value.where} {error}") from error


def _arguments(part: Expression) -> tuple[Expression, ...]:
    return (
        part.arguments
        if isinstance(part, (Call, Apply))
        else part.items
        if isinstance(part, TupleExpression)
        else ()
    )


def _shares(expression: Expression) -> bool:
    """Whether a part of an expression is used twice, so that it is a graph and no tree."""
    stack, met = [expression], set()
    while stack:
        part = stack.pop()
        for inner in _arguments(part):
            if not isinstance(inner, (Call, Apply)):
                continue
            if id(inner) in met:
                return True
            met.add(id(inner))
            stack.append(inner)
    return False


class _Graph:
    """Turns an expression whose parts are shared into a graph of values."""

    def __init__(self, r: FluxReader, path: str, where: str) -> None:
        self.r, self.path, self.where = r, path, where
        self.graph = ValueGraph(None)
        self.known: dict[int, tuple[Expression, Value]] = {}
        self.count = 0

    def chain(self, expression: Expression) -> Layer:
        """The layers for the whole."""
        return as_chain(nested_steps(self.graph, self.value(expression)))

    def value(self, part: Expression) -> Value:
        """The value of a part, which is made once."""
        if isinstance(part, Argument):
            return self.graph.input
        if id(part) not in self.known:
            self.count += 1
            if self.count > _MOST_NODES:
                raise FormatError(f"{self.where} computes more than {_MOST_NODES} values")
            self.known[id(part)] = (part, self.made(part))
        return self.known[id(part)][1]

    def made(self, part: Expression) -> Value:
        """Computes one part."""
        if isinstance(part, Apply) and len(part.arguments) == 1:
            return self.applied([self.r.layer(part.value, f"{self.path}.0")], self.value(part.arguments[0]))
        if not isinstance(part, Call):
            raise FormatError(
                f"{self.where} gives something that does not depend on its argument: {str(part)[:80]}"
            )
        inner = [a for a in part.arguments if _depends(a)]
        if len(inner) > 1:
            arguments = tuple(Argument(i, f"x{i}") for i in range(1, len(part.arguments) + 1))
            joined = Call(part.function, arguments, part.keywords, part.broadcast)
            if len(inner) == len(part.arguments):
                connection = as_connection(Function(joined, self.where))
                values = [self.value(a) for a in part.arguments]
                return self.graph.join(connection.operation, values, part.function, connection.axis)
        if not inner:
            raise FormatError(f"{self.where} gives something that does not depend on its argument: {part}")
        first = inner[0]
        replaced = tuple(_replaced(a, first) for a in part.arguments)
        keywords = tuple((k, _replaced(v, first)) for k, v in part.keywords)
        call = Call(part.function, replaced, keywords, part.broadcast)
        return self.applied(as_layers(Function(call, self.where)), self.value(first))

    def applied(self, layers: Any, value: Value) -> Value:
        """The value behind some layers."""
        for layer in layers:
            children = layer.layers if isinstance(layer, Chain) else (layer,)
            for child in children:
                value = self.graph.apply(child, value, type(child).__name__)
        return value


def _depends(part: Expression) -> bool:
    if isinstance(part, Call) and part.function in ("size", "ndims"):
        return False
    return isinstance(part, (Argument, Apply)) or any(map(_depends, _arguments(part)))


def _replaced(part: Expression, old: Expression) -> Expression:
    """An expression with one part replaced by the argument; sizes of other values are taken for sizes of it."""
    if part is old:
        return Argument(1, "x")
    if isinstance(part, Call):
        return Call(
            part.function, tuple(_replaced(a, old) for a in part.arguments), part.keywords, part.broadcast
        )
    if isinstance(part, TupleExpression):
        return TupleExpression(tuple(_replaced(a, old) for a in part.items))
    return part
