"""From the expression of an anonymous Julia function to our layers.

Julia's axis d is our axis -d. An expression that no layer computes is refused, with the function and its line.
Nothing is guessed: `reshape` must keep the batch axis, and a mean must cover all spatial axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diptych.errors import FormatError
from diptych.formats.julia import JuliaStruct
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
)
from diptych.model.layers import (
    ACTIVATIONS,
    Activation,
    Chain,
    Connection,
    Flatten,
    GlobalMaxPool,
    GlobalMeanPool,
    Layer,
    MaxPool,
    MeanPool,
    Pads,
    Parallel,
    PixelShuffle,
    Reshape,
    SkipConnection,
    Softmax,
    Upsample,
)

__all__ = ["ACTIVATION_NAMES", "NOT_IN_JULIA", "as_connection", "as_layers"]

LayerOf = Callable[[JuliaStruct], Layer]

# What Julia and NNlib have no function of one number for.
NOT_IN_JULIA = ("affine", "clamp", "quickgelu", "erf", "power")

# The names in NNlib that differ from ours; every other activation has the same name.
ACTIVATION_NAMES: dict[str, str] = {
    **{name: name for name in ACTIVATIONS if name not in (*NOT_IN_JULIA, "identity")},
    "σ": "sigmoid",
    "sigmoid_fast": "sigmoid",
    "hardσ": "hardsigmoid",
    "logσ": "logsigmoid",
    "tanh_fast": "tanh",
    "gelu": "gelu_tanh",
}
# Without a dot, on a whole array, these mean something else in Julia: a matrix's exponential, product ...
_MATRIX = {"exp", "sqrt", "tanh", "^", "abs2", "sin", "cos", "tan", "asin", "acos", "atan"}
_MATRIX |= {"sinh", "cosh", "asinh", "acosh", "atanh", "log", "floor", "ceil", "round", "trunc", "sign"}
_COMPARISONS = {">", ">=", "<", "<="}
_GATES = {"sigmoid": "swish", "tanh": "lisht", "hardsigmoid": "hardswish"}


def as_layers(
    function: Function, elementwise: bool = False, layer_of: LayerOf | None = None
) -> tuple[Layer, ...]:
    """The layers that compute a function of one argument.

    Args:
        function: The function, from `interpret`.
        elementwise: Whether it is an activation, which is applied to single numbers and so needs no dots.
        layer_of: Reads a layer that the function captured.

    Returns:
        The layers in order; () for the identity.

    Raises:
        FormatError: If no layer computes a part of the function.
    """
    return _Translation(function, elementwise, layer_of).layers(function.expression)


def as_connection(function: Function, order: tuple[int, ...] = ()) -> Connection:
    """How a function joins the outputs of several branches.

    Raises `FormatError` unless it is a dotted +, - or *, or a cat, vcat or hcat, of all arguments in order, or in the
    `order` that is given.
    """
    expression = function.expression
    translation = _Translation(function, False, None)
    if isinstance(expression, Call):
        arguments = expression.arguments
        expected = list(order or range(1, len(arguments) + 1))
        if [a.index for a in arguments if isinstance(a, Argument)] == expected:
            connection = translation.connection(expression)
            if connection is not None:
                return connection
    raise translation.refuse(expression, "joins its arguments in a way that no Connection does")


class _Translation:
    def __init__(self, function: Function, elementwise: bool, layer_of: LayerOf | None) -> None:
        self.where, self.elementwise, self.layer_of = function.where, elementwise, layer_of

    def refuse(self, part: Expression, why: str) -> FormatError:
        text = str(part)
        text = text if len(text) <= 80 else text[:80] + "…"
        return FormatError(
            f"the Julia function {self.where} {why}: {text}; "
            "in Julia use named layers such as Flux.flatten instead and save again"
        )

    def layers(self, part: Expression) -> tuple[Layer, ...]:
        """The layers that turn the argument of the function into `part`."""
        if isinstance(part, Argument):
            return ()
        if isinstance(part, Apply):
            if self.layer_of is None or len(part.arguments) != 1:
                raise self.refuse(part, "calls a captured value")
            return (*self.layers(part.arguments[0]), self.layer_of(part.value))
        if not isinstance(part, Call):
            raise self.refuse(part, "gives something that does not depend on its argument")
        found = self.activation(part)
        if found is not None:
            return self.activated(*found)
        shaped = _SHAPES.get(part.function)
        if shaped is not None and part.arguments and not part.broadcast:
            return shaped(self, part)
        joined = self.joined(part)
        if joined is not None:
            return joined
        raise self.refuse(part, f"uses {part.function} in a way that no layer does")

    # ---- Elementwise functions ----

    def activated(self, activation: Activation, inner: Expression) -> tuple[Layer, ...]:
        before = self.layers(inner)
        last = before[-1] if before else None
        # min(max(x, 0), 6) arrives as relu, then a bound from above.
        if (
            activation.name == "clamp"
            and activation.parameters[0] == -np.inf
            and isinstance(last, Activation)
        ):
            high = activation.parameters[1]
            if last.name == "relu":
                bounded = Activation("relu6") if high == 6 else Activation("clamp", (0.0, high))
                return (*before[:-1], bounded)
            if last.name == "clamp" and last.parameters[1] == np.inf:
                return (*before[:-1], Activation("clamp", (last.parameters[0], high)))
        return (*before, activation) if activation else before

    def activation(self, part: Call) -> tuple[Activation, Expression] | None:
        """The activation that a call computes, and the expression it is applied to; None if it is not one."""
        name, arguments = part.function, part.arguments
        if part.keywords or not arguments:
            return None
        if name in _MATRIX and not (self.elementwise or part.broadcast):
            raise self.refuse(part, f"calls {name} on a whole array, which needs a dot")
        if name in ACTIVATION_NAMES:
            return self.named(part)
        if name == "clamp" and len(arguments) == 3:
            bounds = [self.number(a) for a in arguments[1:]]
            return (Activation("clamp", _real(bounds)), arguments[0]) if None not in bounds else None
        if name == "ifelse" and len(arguments) == 3:
            return self.branch(*arguments)
        if name == "-" and len(arguments) == 1:
            return Activation("affine", (-1.0, 0.0)), arguments[0]
        if len(arguments) != 2:
            return None
        return self.binary(name, *arguments, dotted=self.elementwise or part.broadcast)

    def named(self, part: Call) -> tuple[Activation, Expression] | None:
        numbers = [self.number(a) for a in part.arguments[1:]]
        name = ACTIVATION_NAMES[part.function]
        if None in numbers or len(numbers) > len(ACTIVATIONS[name][1]):
            return None
        given = (*_real(numbers), *ACTIVATIONS[name][1][len(numbers) :])
        return Activation(name, given), part.arguments[0]

    def binary(
        self, name: str, left: Expression, right: Expression, dotted: bool
    ) -> tuple[Activation, Expression] | None:
        low, high = self.number(left), self.number(right)
        if (low is None) == (high is None):
            return self.gate(name, left, right) if dotted else None
        inner = left if low is None else right
        number = high if low is None else low
        assert number is not None
        if name == "max":
            return Activation("relu") if number == 0 else Activation("clamp", (number, np.inf)), inner
        if name == "min":
            return Activation("clamp", (-np.inf, number)), inner
        if name == "^":
            return (Activation("abs2"), inner) if low is None and number == 2 else None
        affine = _affine(name, number, number_first=low is not None)
        return (Activation("affine", affine), inner) if affine is not None else None

    def gate(self, name: str, left: Expression, right: Expression) -> tuple[Activation, Expression] | None:
        """The activations that are written as x f(x) or max(x, a x)."""
        for inner, other in ((left, right), (right, left)):
            if name == "*" and inner == other:
                return Activation("abs2"), inner
            found = self.activation(other) if isinstance(other, Call) else None
            if found is None or found[1] != inner:
                continue
            activation = found[0]
            if name == "*" and activation.name in _GATES:
                return Activation(_GATES[activation.name]), inner
            if name == "max" and activation.name == "affine":
                slope, shift = activation.parameters
                if shift == 0 and 0 <= slope <= 1:
                    return Activation("leakyrelu", (slope,)), inner
        return None

    def branch(
        self, test: Expression, then: Expression, otherwise: Expression
    ) -> tuple[Activation, Expression] | None:
        """The activations that are written as `x > a ? x : ...`, in either order."""
        if (
            not isinstance(test, Call)
            or test.function not in (">", ">=", "<", "<=")
            or len(test.arguments) != 2
        ):
            return None
        inner, bound = test.arguments
        greater = test.function in (">", ">=")
        if self.number(inner) is not None:
            inner, bound, greater = bound, inner, not greater
        threshold = self.number(bound)
        above, below = (then, otherwise) if greater else (otherwise, then)
        if threshold is None or above != inner:
            return None
        flat = self.number(below)
        if flat is not None:
            if threshold == 0 and flat == 0:
                return Activation("relu"), inner
            strict = test.function == (">" if greater else "<=")
            return (Activation("trelu", (threshold,)), inner) if flat == 0 and strict else None
        found = self.activation(below) if isinstance(below, Call) else None
        if found is None or found[1] != inner or threshold != 0 or found[0].name != "affine":
            return None
        slope, shift = found[0].parameters
        return (Activation("leakyrelu", (slope,)), inner) if shift == 0 and 0 <= slope <= 1 else None

    def number(self, part: Expression) -> float | None:
        """The value of an expression that does not depend on the argument; `zero(x)` counts as 0."""
        if isinstance(part, Call) and part.function in ("zero", "one") and len(part.arguments) == 1:
            return float(part.function == "one")
        if isinstance(part, Call) and part.function == "-" and len(part.arguments) == 1:
            inner = self.number(part.arguments[0])
            return None if inner is None else -inner
        value = part.value if isinstance(part, (Constant, Captured)) else None
        if isinstance(value, (bool, int, float, np.number, np.bool_)) and not np.iscomplexobj(value):
            return float(value) if abs(float(value)) < 1e30 else None
        return None

    # ---- Joins ----

    def connection(self, part: Call) -> Connection | None:
        if part.function in ("+", "-") and not part.keywords:
            two = part.function == "+" or len(part.arguments) == 2
            return Connection("add" if part.function == "+" else "subtract") if two else None
        if part.function == "*" and part.broadcast:
            return Connection("multiply")
        axes = {"vcat": 1, "hcat": 2}
        axis = axes.get(part.function)
        if part.function == "cat":
            axis = _whole(dict(part.keywords).get("dims"))
        return Connection("concatenate", -axis) if axis is not None and axis > 0 else None

    def joined(self, part: Call) -> tuple[Layer, ...] | None:
        """Reads f(x) + x as a SkipConnection and f(x) + g(x) as a Parallel."""
        connection = self.connection(part)
        if connection is None or len(part.arguments) < 2 or any(map(self.is_value, part.arguments)):
            return None
        branches = [_one(self.layers(argument)) for argument in part.arguments]
        if len(part.arguments) == 2 and isinstance(part.arguments[1], Argument):
            return (SkipConnection(branches[0], connection),)
        commutes = connection.operation in ("add", "multiply")
        if len(part.arguments) == 2 and commutes and isinstance(part.arguments[0], Argument):
            return (SkipConnection(branches[1], connection),)
        return (Parallel(connection, tuple(branches)),)

    def is_value(self, part: Expression) -> bool:
        return isinstance(part, (Constant, Captured, Name, Tuple)) or self.number(part) is not None

    # ---- Shapes ----

    def reshape(self, part: Call) -> tuple[Layer, ...]:
        sizes = part.arguments[1:]
        if len(sizes) == 1 and isinstance(sizes[0], Tuple):
            sizes = sizes[0].items
        if part.keywords or len(sizes) < 2:
            raise self.refuse(part, "reshapes away the batch")
        entries = [-1 if _is_colon(size) else _whole(size) for size in sizes[:-1]]
        batch = sizes[-1]
        if not _is_colon(batch) and not _is_batch(batch):
            raise self.refuse(part, "reshapes to a fixed batch")
        if None in entries:
            raise self.refuse(part, "reshapes to a shape that depends on the input's size")
        shape = tuple(reversed([entry for entry in entries if entry is not None]))
        if shape.count(-1) + _is_colon(batch) > 1 or any(entry < -1 or entry == 0 for entry in shape):
            raise self.refuse(part, "reshapes to a shape that is not one")
        return (*self.layers(part.arguments[0]), Flatten() if shape == (-1,) else Reshape(shape))

    def flatten(self, part: Call) -> tuple[Layer, ...]:
        if len(part.arguments) != 1 or part.keywords:
            raise self.refuse(part, "calls flatten with more than an array")
        return (*self.layers(part.arguments[0]), Flatten())

    def pooled(self, part: Call) -> tuple[Layer, ...]:
        """Reads `mean(x, dims = (1, 2))` or `maximum` over all spatial axes."""
        dims = _dims(part)
        if (
            len(part.arguments) != 1
            or dims is None
            or len(dims) < 2
            or dims != tuple(range(1, len(dims) + 1))
        ):
            raise self.refuse(part, f"takes the {part.function} over other axes than the spatial ones")
        return (*self.layers(part.arguments[0]), _POOLS[part.function]())

    def dropdims(self, part: Call) -> tuple[Layer, ...]:
        inner = part.arguments[0]
        pooled = (
            isinstance(inner, Call) and inner.function in ("mean", "maximum") and _dims(inner) == _dims(part)
        )
        if not pooled:
            raise self.refuse(part, "drops other axes than those a mean or maximum left")
        return (*self.layers(inner), Flatten())

    def softmax(self, part: Call) -> tuple[Layer, ...]:
        dims = _dims(part) if part.keywords else (1,)
        if len(part.arguments) != 1 or dims is None or len(dims) != 1:
            raise self.refuse(part, "takes a softmax over several axes")
        return (*self.layers(part.arguments[0]), Softmax(axis=-dims[0], log=part.function == "logsoftmax"))

    def windowed(self, part: Call) -> tuple[Layer, ...]:
        """Reads `maxpool(x, (2, 2); stride, pad)`, whose window, stride and padding have W first in Julia."""
        keywords = dict(part.keywords)
        kernel = _numbers(part.arguments[1]) if len(part.arguments) == 2 else None
        if not kernel or any(k < 1 for k in kernel) or not keywords.keys() <= {"stride", "pad"}:
            raise self.refuse(part, f"calls {part.function} in an unknown way")
        stride = _numbers(keywords["stride"]) if "stride" in keywords else kernel
        pad = _numbers(keywords["pad"]) if "pad" in keywords else (0,)
        if stride is None or pad is None:
            raise self.refuse(part, f"calls {part.function} with sizes that are not numbers")
        strides, padding = _spread(stride, len(kernel)), _pads(pad, len(kernel))
        if strides is None or padding is None:
            raise self.refuse(part, f"calls {part.function} with sizes that do not fit the window")
        kind = MaxPool if part.function == "maxpool" else MeanPool
        return (*self.layers(part.arguments[0]), kind(kernel[::-1], strides[::-1], padding))

    def upsample(self, part: Call) -> tuple[Layer, ...]:
        scale = _numbers(part.arguments[1]) if len(part.arguments) == 2 else None
        if not scale or part.keywords or any(s < 1 for s in scale):
            raise self.refuse(part, "calls upsample_nearest in an unknown way")
        return (*self.layers(part.arguments[0]), Upsample(scale=tuple(float(s) for s in reversed(scale))))

    def shuffled(self, part: Call) -> tuple[Layer, ...]:
        factor = _whole(part.arguments[1]) if len(part.arguments) == 2 else None
        if factor is None or factor < 1 or part.keywords:
            raise self.refuse(part, "calls pixel_shuffle in an unknown way")
        return (*self.layers(part.arguments[0]), PixelShuffle(factor))


_POOLS: dict[str, type[Layer]] = {"mean": GlobalMeanPool, "maximum": GlobalMaxPool}
_SHAPES: dict[str, Callable[[_Translation, Call], tuple[Layer, ...]]] = {
    "dropdims": _Translation.dropdims,
    "flatten": _Translation.flatten,
    "logsoftmax": _Translation.softmax,
    "maximum": _Translation.pooled,
    "maxpool": _Translation.windowed,
    "mean": _Translation.pooled,
    "meanpool": _Translation.windowed,
    "pixel_shuffle": _Translation.shuffled,
    "reshape": _Translation.reshape,
    "softmax": _Translation.softmax,
    "upsample_nearest": _Translation.upsample,
}


def _affine(name: str, number: float, number_first: bool) -> tuple[float, float] | None:
    """The (scale, shift) of x + n, x - n, n - x, n x or x / n."""
    if name == "+":
        return 1.0, number
    if name == "-":
        return (-1.0, number) if number_first else (1.0, -number)
    if name == "*":
        return number, 0.0
    return (1 / number, 0.0) if name == "/" and number and not number_first else None


def _real(numbers: list[float | None]) -> tuple[float, ...]:
    return tuple(number for number in numbers if number is not None)


def _one(layers: tuple[Layer, ...]) -> Layer:
    return layers[0] if len(layers) == 1 else Chain(layers)


def _value(part: Expression | None) -> Any:
    return part.value if isinstance(part, (Constant, Captured)) else None


def _whole(part: Expression | None) -> int | None:
    value = _value(part)
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return int(value) if whole and abs(int(value)) < 2**31 else None


def _numbers(part: Expression) -> tuple[int, ...] | None:
    """A number or a tuple of numbers, written in the code or captured."""
    value = _value(part)
    parts = part.items if isinstance(part, Tuple) else (part,)
    if isinstance(value, tuple):
        parts = tuple(Constant(item) for item in value)
    numbers = [_whole(item) for item in parts]
    return None if None in numbers else tuple(n for n in numbers if n is not None)


def _dims(part: Call) -> tuple[int, ...] | None:
    keywords = dict(part.keywords)
    return _numbers(keywords["dims"]) if keywords.keys() == {"dims"} else None


def _is_colon(part: Expression) -> bool:
    value = _value(part)
    return part == Name(":") or (isinstance(value, JuliaStruct) and value.type.path == ("Base", "Colon"))


def _is_batch(part: Expression) -> bool:
    """`size(x, 4)`, `size(x, ndims(x))`: the last axis, taken at its word where it is a number from 2 on."""
    if not isinstance(part, Call) or part.function != "size" or len(part.arguments) != 2:
        return False
    axis = part.arguments[1]
    number = _whole(axis)
    return (isinstance(axis, Call) and axis.function == "ndims") or (number is not None and number >= 2)


def _spread(numbers: tuple[int, ...], rank: int) -> tuple[int, ...] | None:
    spread = numbers * rank if len(numbers) == 1 else numbers
    return spread if len(spread) == rank and all(n >= 1 for n in spread) else None


def _pads(numbers: tuple[int, ...], rank: int) -> Pads | None:
    """Padding as pairs, W last, from one number, one for each axis, or (low, high) for each axis, W first."""
    if any(n < 0 for n in numbers):
        return None
    if len(numbers) == 2 * rank:
        return tuple((numbers[2 * i], numbers[2 * i + 1]) for i in reversed(range(rank)))
    spread = numbers * rank if len(numbers) == 1 else numbers
    return tuple((n, n) for n in reversed(spread)) if len(spread) == rank else None
