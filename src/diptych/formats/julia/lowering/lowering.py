"""From the expression of a Julia function to a graph of our layers.

The expressions come from lowered code (`lowered.py`) or from source (`julia_source`): what a function of Julia means is
said in the tables `ELEMENTWISE` and `ARRAYS`, once for both. Values that depend on the input are followed
with their shapes as far as these are known; everything else is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from diptych.errors import FormatError, ModelError
from diptych.formats.graph import Operation, Value, ValueGraph, with_constant
from diptych.formats.julia import JuliaStruct
from diptych.formats.julia import NamedTuple as JuliaNamedTuple
from diptych.formats.julia.arrays import as_array
from diptych.formats.julia.expressions import (
    Apply,
    Argument,
    Call,
    Captured,
    Constant,
    Expression,
    Name,
    Tuple,
)
from diptych.formats.julia.lowering.constants import NotConstant, folded
from diptych.formats.julia.lowering.sizes import Dim, Shape, behind, followed, known
from diptych.formats.julia.lowering.values import (
    COLON,
    Flow,
    Made,
    Pending,
    Shares,
    SizeOf,
    SomeSize,
    Test,
    array_of,
)
from diptych.formats.nesting import nested_steps
from diptych.formats.patterns import as_chain
from diptych.model import layers as L
from diptych.model.layers import Array, Connection, Layer, NormFormula

__all__ = ["LayerOf", "Lowering", "Rule", "Rules"]

LayerOf = Callable[[JuliaStruct], Layer]
Rule = Callable[["Lowering", Call, Sequence[Any], dict[str, Any]], Any]


class Rules(NamedTuple):
    """What the functions of Julia mean: of single numbers, with or without a dot, and of whole arrays."""

    elementwise: Mapping[str, Rule]
    arrays: Mapping[str, Rule]


_MOST = 20_000  # parts of one function
_SHOWN = 80


class Lowering:
    """Lowers one function.

    Args:
        where: The function and its line, for messages.
        rules: What the functions of Julia mean.
        elementwise: Whether it is applied to single numbers, and so needs no dots.
        layer_of: Reads a layer that the function captured.
        formula: The divisor of `normalise`, for the version of Flux.
    """

    def __init__(
        self,
        where: str,
        rules: Rules,
        elementwise: bool = False,
        layer_of: LayerOf | None = None,
        formula: Callable[[], NormFormula] | None = None,
    ) -> None:
        self.where, self.rules, self.elementwise = where, rules, elementwise
        self.layer_of, self.formula = layer_of, formula
        self.graph = ValueGraph(None)
        self.inputs: list[Flow] = []
        self._items: dict[int, tuple[Expression, Any]] = {}

    def refuse(self, part: Any, why: str) -> FormatError:
        """The error for a part of the function."""
        text = str(part)
        text = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
        return FormatError(
            f"the Julia function {self.where} {why}: {text}; "
            "in Julia use named layers such as Flux.flatten instead and save again"
        )

    def layers(self, expression: Expression, inputs: Sequence[Flow]) -> tuple[Layer, ...]:
        """The layers from the input of the graph to an expression of the function's arguments."""
        self.inputs = list(inputs)
        item = self.item(expression)
        if isinstance(item, tuple) and any(isinstance(each, Flow | Shares) for each in item):
            raise self.refuse(
                expression, "gives several values, where a layer gives one: take [1] or first of them"
            )
        if isinstance(item, Shares):
            raise self.refuse(expression, "gives the shares of an attention, which no layer does")
        if not isinstance(item, Flow):
            raise self.refuse(expression, "gives something that does not depend on its argument")
        return self.chain(item, expression)

    def chain(self, flow: Flow, part: Any = "") -> tuple[Layer, ...]:
        """The layers that lead from the input of the graph to a value."""
        try:
            return as_chain(nested_steps(self.graph, self.settled(flow, part))).layers
        except ModelError as error:
            raise self.refuse(part, f"is not read: {error}") from error

    # ---- Expressions ----

    def item(self, expression: Expression) -> Any:
        """What an expression stands for: a `Flow`, or a number, a size, a tuple, an array or a function."""
        waiting = [expression]
        while waiting:
            part = waiting[-1]
            if id(part) in self._items:
                waiting.pop()
                continue
            missing = [inner for inner in _first(part) if id(inner) not in self._items]
            if missing:
                waiting += reversed(missing)
                continue
            if len(self._items) > _MOST:
                raise self.refuse("", f"computes more than {_MOST} values")
            self._items[id(part)] = (part, self._made(part))
            waiting.pop()
        return self._items[id(expression)][1]

    def _made(self, part: Expression) -> Any:
        if isinstance(part, Argument):
            return self.inputs[part.index - 1]
        if isinstance(part, (Constant, Captured)):
            return _constant(part.value)
        if isinstance(part, Name):
            return part
        if isinstance(part, Tuple):
            return tuple(item for each in part.items for item in self._several(each))
        if isinstance(part, Apply):
            return self._applied(part)
        return self.call(part)

    def _applied(self, part: Apply) -> Any:
        arguments = [self.item(a) for a in part.arguments]
        if part.value.type.path == ("Flux", "MultiHeadAttention") and self.layer_of is not None:
            return self._attended(part, arguments)
        if self.layer_of is None or len(arguments) != 1 or not isinstance(arguments[0], Flow):
            raise self.refuse(part, "calls a captured value")
        return self.apply(part, arguments[0], self.layer_of(part.value))

    def _attended(self, part: Apply, arguments: list[Any]) -> Any:
        """The pair that an attention gives: its values, and the shares, which no layer does."""
        assert self.layer_of is not None
        first = arguments[0]
        if not isinstance(first, Flow) or any(
            not isinstance(a, Flow) or (a.value, a.order) != (first.value, first.order) for a in arguments
        ):
            raise self.refuse(
                part, "gives an attention other queries than keys and values, where a layer has one input"
            )
        return self.apply(part, first, self.layer_of(part.value)), Shares()

    def call(self, part: Call) -> Any:
        """The item of a call."""
        if part.function == "ifelse" and len(part.arguments) == 3:
            test = self.item(part.arguments[0])
            if isinstance(test, (bool, np.bool_)):
                return self.item(part.arguments[1 if test else 2])
        arguments: list[Any] = []
        for argument in part.arguments:
            arguments += self._several(argument)
        keywords = {name: self.item(value) for name, value in part.keywords}
        rule = None if part.broadcast else self.rules.arrays.get(part.function)
        if rule is None:
            rule = self.rules.elementwise.get(part.function)
        if any(map(_depends, (*arguments, *keywords.values()))):
            if rule is None and part.broadcast and part.function in self.rules.arrays:
                raise self.refuse(part, f"broadcasts {part.function}")
            if rule is None:
                raise self.refuse(part, f"uses {part.function} in a way that no layer does")
            try:
                return rule(self, part, arguments, keywords)
            except ModelError as error:
                raise self.refuse(part, f"is not read: {error}") from error
        try:
            return folded(part.function, arguments, keywords)
        except NotConstant:
            if part.function in ("prod", "*", "÷", "div", "-", "+") and any(map(_is_size, arguments)):
                return SomeSize()
            if (
                part.function in self.rules.arrays and not part.broadcast
            ):  # layers that are made, ranges to an end
                return self.rules.arrays[part.function](self, part, arguments, keywords)
            sizes = any(map(_is_size, arguments))
            why = (
                "asks for a size of the input that is not known"
                if sizes
                else "computes something that is not read"
            )
            raise self.refuse(part, why) from None

    def mapped(self, part: Call, name: str, flow: Flow) -> Flow:
        """A named function of each number of a value."""
        rule = self.rules.elementwise.get(name)
        made = rule(self, Call(name, part.arguments, (), True), [flow], {}) if rule is not None else None
        if not isinstance(made, Flow):
            raise self.refuse(part, f"applies {name} to each number, which no layer does")
        return made

    def _several(self, argument: Expression) -> list[Any]:
        if not isinstance(argument, Call) or argument.function != "splat":
            return [self.item(argument)]
        items = self.item(argument.arguments[0])
        if not isinstance(items, tuple):
            raise self.refuse(argument.arguments[0], "splats a value that is not a tuple")
        return list(items)

    # ---- Values ----

    def apply(self, part: Any, flow: Flow, *layers: Operation, shape: Shape | None = None) -> Flow:
        """The value behind layers that work on the axes as they are seen."""
        value = self.settled(flow, part)
        at = flow.shape
        for layer in layers:
            for each in layer.layers if isinstance(layer, L.Chain) else (layer,):
                value = self.graph.apply(each, value, _name(part))
                at = behind(each, at) if isinstance(each, Layer) else at
        return Flow(value, shape or at)

    def pointwise(self, part: Any, flow: Flow, *layers: Operation) -> Flow:
        """The value behind layers that treat each number alone, whatever the order of axes."""
        value = flow.value
        for layer in layers:
            value = self.graph.apply(layer, value, _name(part))
        return replace(flow, value=value, summed=None)

    def settled(self, flow: Flow, part: Any) -> Value:
        """The value with its axes in the order in which they are seen."""
        order = flow.order
        if order is None or order == tuple(range(len(order))):
            return flow.value
        if order[0] != 0:
            raise self.refuse(part, "moves the batch axis, which is Julia's last")
        return self.graph.apply(L.Permute(order), flow.value, _name(part))

    def join(self, part: Any, operation: str, flows: Sequence[Flow], axis: int = 1) -> Flow:
        """Values joined by one of the operations of `Connection`; an axis is counted from the end where negative."""
        ranks = {flow.rank for flow in flows if flow.rank is not None}
        if len(ranks) > 1 and operation != "concatenate":
            raise self.refuse(part, "joins arrays of different numbers of axes")
        orders = {flow.order for flow in flows}
        keep = operation not in ("concatenate", "matmul") and len(orders) == 1
        values = [flow.value if keep else self.settled(flow, part) for flow in flows]
        shapes = [flow.shape for flow in flows if flow.shape is not None]
        connection = Connection(operation, axis)  # type: ignore[arg-type]
        shape = followed(connection.joined_shape, shapes) if len(shapes) == len(flows) else None
        if shape is None and ranks and operation != "concatenate":
            shape = flows[0].shape
        value = self.graph.join(operation, values, _name(part), axis)
        return Flow(value, shape, flows[0].order if keep else None)

    def constant(self, part: Any, array: Array, like: Flow) -> Flow:
        """A constant array, of our order without the batch, as a value."""
        array = np.ascontiguousarray(array, np.float32)
        value = self.graph.apply(L.Constant(array), like.value, _name(part))
        shape = (like.shape[0], *array.shape) if like.shape is not None else None
        return Flow(value, shape)

    def with_array(self, part: Any, operation: str, flow: Flow, item: Any, flipped: bool) -> Flow:
        """A value and a constant, a number or an array, joined elementwise."""
        array = array_of(item)
        if array is None:
            raise self.refuse(part, "joins a value with something that is not an array")
        if array.size == 1:
            array = array.reshape(())
            flow_at = flow
        else:
            flow_at = Flow(self.settled(flow, part), flow.shape)
            array = self._without_batch(part, array, flow)
        shape = known(flow_at.shape)
        entry = None if shape is None else (_SOME_BATCH, *shape)
        layers = with_constant(operation, array, flipped, entry if array.ndim else None)
        if layers is not None:
            return self.pointwise(part, flow_at, *map(_single, layers))
        if flow.rank is None:
            raise self.refuse(part, "joins arrays whose numbers of axes are not known")
        other = self.constant(part, array.reshape((1,) * (flow.rank - 1 - array.ndim) + array.shape), flow_at)
        return self.join(part, operation, [other, flow_at] if flipped else [flow_at, other])

    def _without_batch(self, part: Any, array: Array, flow: Flow) -> Array:
        if flow.rank is not None and array.ndim > flow.rank:
            raise self.refuse(part, "joins arrays of different numbers of axes")
        if array.ndim == flow.rank:
            if array.shape[0] != 1:
                raise self.refuse(part, "has a number for each sample of a batch")
            return array.reshape(array.shape[1:])
        return array


_SOME_BATCH = 7919


def _single(layer: Operation) -> Operation:
    """A layer with its arrays in single precision."""
    arrays = {name: array.astype(np.float32) for name, array in layer.arrays.items()}
    return replace(layer, **arrays) if arrays else layer


def _first(part: Expression) -> Sequence[Expression]:
    """The parts that are needed before `part`; of a choice only what decides it."""
    if isinstance(part, Call):
        if part.function == "ifelse":
            return part.arguments[:1]
        return (*map(_unsplatted, part.arguments), *(value for _, value in part.keywords))
    if isinstance(part, Apply):
        return part.arguments
    return tuple(map(_unsplatted, part.items)) if isinstance(part, Tuple) else ()


def _unsplatted(part: Expression) -> Expression:
    return part.arguments[0] if isinstance(part, Call) and part.function == "splat" else part


def _constant(value: Any) -> Any:
    """A value of a file: arrays in our order, tuples of such."""
    if isinstance(value, JuliaStruct) and not value.fields and value.type.definition is None:
        name = value.type.name
        if value.type.path == ("Base", "Colon"):
            return COLON
        return Name(name[1:]) if len(name) > 1 and name[0] == "#" and "#" not in name[1:] else value
    if isinstance(value, np.ndarray) or (
        isinstance(value, JuliaStruct) and not value.type.name.startswith("#")
    ):
        try:
            array = as_array(value)
        except FormatError:
            array = None
        return value if array is None else np.asarray(array).T
    if isinstance(value, (tuple, list)) and not isinstance(value, JuliaNamedTuple):
        return tuple(map(_constant, value))
    return value


def _is_size(item: Any) -> bool:
    return any(map(_is_size, item)) if isinstance(item, tuple) else isinstance(item, SizeOf | SomeSize | Dim)


def _depends(item: Any) -> bool:
    if isinstance(item, tuple):
        return any(map(_depends, item))
    return isinstance(item, (Flow, Made, Test)) or (isinstance(item, Pending) and not _is_size(item))


def _name(part: Any) -> str:
    return part.function if isinstance(part, Call) else type(part).__name__
