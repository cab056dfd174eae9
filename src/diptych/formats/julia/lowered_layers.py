"""From the expression of a Julia function to our layers.

An expression that no layer computes is refused, with the function and its line. Nothing is guessed: `reshape` must keep
the batch axis, and nothing may mix samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from diptych.formats.julia.expressions import Argument, Call, Constant, Expression, Function
from diptych.formats.julia.lowering.arrays import ARRAYS
from diptych.formats.julia.lowering.elementwise import ACTIVATION_NAMES, ELEMENTWISE, NOT_IN_JULIA
from diptych.formats.julia.lowering.lowering import LayerOf, Lowering, Rules
from diptych.formats.julia.lowering.sizes import Shape
from diptych.formats.julia.lowering.values import Flow, whole
from diptych.model.layers import Connection, Layer, NormFormula

__all__ = ["ACTIVATION_NAMES", "NOT_IN_JULIA", "as_connection", "as_layers", "joined_layers"]

_RULES = Rules(ELEMENTWISE, ARRAYS)


def as_layers(
    function: Function,
    elementwise: bool = False,
    layer_of: LayerOf | None = None,
    entry: Shape | None = None,
    formula: Callable[[], NormFormula] | None = None,
) -> tuple[Layer, ...]:
    """The layers that compute a function of one argument.

    Args:
        function: The function, from `interpret`.
        elementwise: Whether it is an activation, which is applied to single numbers and so needs no dots.
        layer_of: Reads a layer that the function captured.
        entry: The shape of its argument, as far as it is known, batch first.
        formula: The divisor of `Flux.normalise`, asked for where that is called.

    Returns:
        The layers in order; () for the identity.

    Raises:
        FormatError: If no layer computes a part of the function.
    """
    lowering = Lowering(function.where, _RULES, elementwise, layer_of, formula)
    return lowering.layers(function.expression, [Flow(lowering.graph.input, entry)])


def joined_layers(
    function: Function,
    branches: Sequence[Layer],
    layer_of: LayerOf | None = None,
    entry: Shape | None = None,
    formula: Callable[[], NormFormula] | None = None,
) -> tuple[Layer, ...]:
    """The layers that compute a function of the outputs of several branches, which all have the same input.

    Arguments and errors are those of `as_layers`.
    """
    lowering = Lowering(function.where, _RULES, False, layer_of, formula)
    source = Flow(lowering.graph.input, entry)
    return lowering.layers(
        function.expression, [lowering.apply("branch", source, branch) for branch in branches]
    )


def as_connection(function: Function, order: tuple[int, ...] = ()) -> Connection:
    """How a function joins the outputs of several branches.

    Raises `FormatError` unless it is a +, - or a dotted operation, or a cat, vcat or hcat, of all arguments in order,
    or in the `order` that is given.
    """
    expression = function.expression
    if isinstance(expression, Call):
        flat = _flattened(expression)
        expected = list(order or range(1, len(flat) + 1))
        if len(flat) == len(expected) and [a.index for a in flat if isinstance(a, Argument)] == expected:
            connection = _connection(expression, len(flat))
            if connection is not None:
                return connection
    raise Lowering(function.where, _RULES).refuse(
        expression, "joins its arguments in a way that no Connection does"
    )


def _flattened(part: Call) -> tuple[Expression, ...]:
    """The operands of a .+ b .+ c, which Julia nests to the left."""
    first = part.arguments[0] if part.arguments else None
    same = isinstance(first, Call) and (first.function, first.broadcast) == (part.function, part.broadcast)
    if isinstance(first, Call) and same and part.function in "+*" and not part.keywords:
        return (*_flattened(first), *part.arguments[1:])
    return part.arguments


_DOTTED = {"*": "multiply", "/": "divide", "max": "maximum", "min": "minimum"}


def _connection(part: Call, count: int) -> Connection | None:
    if part.function in ("+", "-") and not part.keywords:
        two = part.function == "+" or count == 2
        return Connection("add" if part.function == "+" else "subtract") if two else None
    if part.function in _DOTTED and part.broadcast:
        two = count == 2 or part.function != "/"
        return Connection(_DOTTED[part.function]) if two else None  # type: ignore[arg-type]
    axes = {"vcat": 1, "hcat": 2}
    axis = axes.get(part.function)
    if part.function == "cat":
        given: Any = dict(part.keywords).get("dims")
        axis = whole(given.value) if isinstance(given, Constant) else None
    return Connection("concatenate", -axis) if axis is not None and axis > 0 else None
