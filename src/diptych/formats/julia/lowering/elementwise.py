"""Functions of single numbers: activations, arithmetic, comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from diptych.formats.graph import clamped, power_layers
from diptych.formats.julia.expressions import Call, Name
from diptych.formats.julia.lowering.constants import folded
from diptych.formats.julia.lowering.lowering import Lowering, Rule
from diptych.formats.julia.lowering.sizes import Dim
from diptych.formats.julia.lowering.values import Flow, Test, array_of, is_number, number
from diptych.model.layers import ACTIVATIONS, Activation, Dense, Reduce

__all__ = ["ACTIVATION_NAMES", "ELEMENTWISE", "NOT_IN_JULIA"]

# What Julia and NNlib have no function of one number for.
NOT_IN_JULIA = ("affine", "clamp", "quickgelu", "erf", "power", "step")

# The names in NNlib that differ from ours; every other activation has the same name.
ACTIVATION_NAMES: dict[str, str] = {
    **{name: name for name in ACTIVATIONS if name not in (*NOT_IN_JULIA, "identity")},
    "σ": "sigmoid",
    "sigmoid_fast": "sigmoid",
    "hardσ": "hardsigmoid",
    "logσ": "logsigmoid",
    "tanh_fast": "tanh",
    "gelu": "gelu_tanh",
    "gelu_sigmoid": "gelu_tanh",
}
# Without a dot, on a whole array, these mean something else in Julia: a matrix's exponential, product ...
_MATRIX = {"exp", "sqrt", "tanh", "^", "abs2", "sin", "cos", "tan", "asin", "acos", "atan", "inv"}
_MATRIX |= {"sinh", "cosh", "asinh", "acosh", "atanh", "log", "floor", "ceil", "round", "trunc", "sign"}
_OPERATIONS = {
    "+": "add",
    "-": "subtract",
    "*": "multiply",
    "/": "divide",
    "max": "maximum",
    "min": "minimum",
}


def _dotted(w: Lowering, part: Call) -> bool:
    """Whether each number is treated alone. Refuses functions that mean something else without a dot."""
    alone = w.elementwise or part.broadcast
    if part.function in _MATRIX and not alone:
        raise w.refuse(part, f"calls {part.function} on a whole array, which needs a dot")
    return alone


def _named(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    _dotted(w, part)
    name = ACTIVATION_NAMES[part.function]
    flow, *rest = arguments
    defaults = ACTIVATIONS[name][1]
    given = [n for item in rest if (n := number(item)) is not None]
    if not isinstance(flow, Flow) or keywords or len(given) < len(rest) or len(rest) > len(defaults):
        raise w.refuse(part, f"uses {part.function} in a way that no layer does")
    return w.pointwise(part, flow, Activation(name, (*given, *defaults[len(given) :])))


def _clamp(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    bounds = [number(a) for a in arguments[1:]]
    if len(bounds) != 2 or None in bounds or not isinstance(arguments[0], Flow):
        raise w.refuse(part, "uses clamp in a way that no layer does")
    low, high = bounds
    assert low is not None
    assert high is not None
    return w.pointwise(part, arguments[0], Activation("clamp", (low, high)))


def _limited(w: Lowering, part: Call, flow: Flow, limit: float) -> Flow:
    """max(x, limit) or min(x, limit); both in turn are one clamp."""
    low, high = (limit, math.inf) if part.function == "max" else (-math.inf, limit)
    made = flow.value.made_by
    if part.function == "min" and isinstance(made, Activation):
        before = {"relu": (0.0, math.inf), "clamp": made.parameters}.get(made.name)
        if before is not None and before[1] == math.inf and before[0] <= high:
            (source,) = flow.value.inputs
            return w.pointwise(part, Flow(source, flow.shape, flow.order), clamped(before[0], high))
    return w.pointwise(part, flow, clamped(low, high))


def _arithmetic(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    alone = _dotted(w, part)
    if keywords or not arguments:
        raise w.refuse(part, f"uses {part.function} in a way that no layer does")
    if len(arguments) == 1:
        if part.function == "-":
            return w.pointwise(part, arguments[0], Activation("affine", (-1.0, 0.0)))
        return arguments[0]
    made, *rest = [_mask(w, part, item) if isinstance(item, Test) else item for item in arguments]
    for item in rest:
        made = _two(w, part, made, item, alone)
    return made


def _two(w: Lowering, part: Call, a: Any, b: Any, alone: bool) -> Any:
    operation = _OPERATIONS[part.function]
    if isinstance(a, Flow) and isinstance(b, Flow):
        if not alone and operation in ("multiply", "divide", "maximum", "minimum"):
            raise w.refuse(part, f"uses {part.function} in a way that no layer does")
        return w.join(part, operation, [a, b])
    flow, other, flipped = (a, b, False) if isinstance(a, Flow) else (b, a, True)
    if not isinstance(flow, Flow):
        raise w.refuse(part, "computes something that is not read")
    if isinstance(other, Dim):
        return _by_size(w, part, flow, other, flipped)
    limit = number(other)
    if limit is not None and operation in ("maximum", "minimum"):
        return _limited(w, part, flow, limit)
    array = array_of(other)
    if array is not None and array.ndim and not alone and operation == "multiply":
        return _matrix(w, part, array, flow, flipped)
    mean = _as_mean(w, part, flow, other) if operation in ("multiply", "divide") and not flipped else None
    return mean or w.with_array(part, operation, flow, other, flipped)


def _by_size(w: Lowering, part: Call, flow: Flow, size: Dim, flipped: bool) -> Flow:
    """A sum over axes divided by their sizes is a mean."""
    made = _as_mean(w, part, flow, size) if part.function == "/" and not flipped else None
    if made is None:
        raise w.refuse(part, "computes with a size that depends on the input")
    return made


def _as_mean(w: Lowering, part: Call, flow: Flow, divisor: Any) -> Flow | None:
    if flow.summed is None or part.function != "/" or divisor != flow.summed[2]:
        return None
    source, axes, _ = flow.summed
    return w.apply(part, source, Reduce("mean", axes), shape=flow.shape)


def _matrix(w: Lowering, part: Call, matrix: Any, flow: Flow, flipped: bool) -> Flow:
    """W * x, a matrix times the features of a batch."""
    if not flipped or matrix.ndim != 2 or flow.rank not in (None, 2):
        raise w.refuse(part, "multiplies matrices in a way that no layer does")
    return w.apply(part, flow, Dense(np.ascontiguousarray(matrix.T, np.float32)))


def _power(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    _dotted(w, part)
    base, exponent = arguments
    if isinstance(exponent, Flow) or not isinstance(base, Flow):
        value = number(base)
        if value is None or value <= 0 or not isinstance(exponent, Flow):
            raise w.refuse(part, "raises to a power that is not one number")
        return w.with_array(part, "power", exponent, value, True)
    value = number(exponent)
    if value is None:
        raise w.refuse(part, "raises to a power that is not one number")
    return w.pointwise(part, base, *power_layers(value))


_OTHERS: dict[str, tuple[Activation, ...]] = {
    "log1p": (Activation("affine", (1.0, 1.0)), Activation("log")),
    "expm1": (Activation("exp"), Activation("affine", (1.0, -1.0))),
    "log2": (Activation("log"), Activation("affine", (1 / math.log(2), 0.0))),
    "log10": (Activation("log"), Activation("affine", (1 / math.log(10), 0.0))),
    "exp2": (Activation("affine", (math.log(2), 0.0)), Activation("exp")),
    "exp10": (Activation("affine", (math.log(10), 0.0)), Activation("exp")),
    "deg2rad": (Activation("affine", (math.pi / 180, 0.0)),),
}


def _other(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    if len(arguments) != 1 or not (w.elementwise or part.broadcast) or not isinstance(arguments[0], Flow):
        raise w.refuse(part, f"calls {part.function} on a whole array, which needs a dot")
    return w.pointwise(part, arguments[0], *_OTHERS[part.function])


def _multiplied_and_added(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    if len(arguments) != 3:
        raise w.refuse(part, f"uses {part.function} in a way that no layer does")
    alone = _dotted(w, part)
    product = _either(w, Call("*", part.arguments[:2], (), part.broadcast), arguments[0], arguments[1], alone)
    return _either(w, Call("+", part.arguments, (), part.broadcast), product, arguments[2], alone)


def _either(w: Lowering, part: Call, a: Any, b: Any, alone: bool) -> Any:
    if isinstance(a, Flow) or isinstance(b, Flow):
        return _two(w, part, a, b, alone)
    return folded(part.function, (a, b), {})


def _inverse(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    _dotted(w, part)
    return w.pointwise(part, arguments[0], *power_layers(-1.0))


def _same(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """Conversions to another precision or place, which the engine chooses."""
    flows = [_mask(w, part, a) if isinstance(a, Test) else a for a in arguments if isinstance(a, Flow | Test)]
    if len(flows) != 1 or any(not isinstance(a, Flow | Test | Name) for a in arguments):
        raise w.refuse(part, f"uses {part.function} in a way that no layer does")
    return flows[0]


def _zero(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    return float(part.function in ("one", "ones_like"))


def _of_type(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    if is_number(arguments[-1]) and len(arguments) == 2:
        return arguments[-1]
    raise w.refuse(part, "converts something that is not a number")


# ---- Choices ------------------------------------------------------------------------------------------


_SIGNS = {">": ">", "<": "<", ">=": ">=", "<=": "<=", "≥": ">=", "≤": "<="}
_MIRRORED = {">": "<", "<": ">", ">=": "<=", "<=": ">="}


def _compare(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    if not (w.elementwise or part.broadcast) or len(arguments) != 2 or part.function not in _SIGNS:
        raise w.refuse(part, "compares in a way that no layer does")
    left, right = arguments
    sign = _SIGNS[part.function]
    if not isinstance(left, Flow):
        left, right, sign = right, left, _MIRRORED[sign]
    return Test(sign, left, right)


def choice(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """`ifelse`, of numbers: a named function where there is one, or else a sum of both sides, each times 0 or 1."""
    test, then, otherwise = arguments[0], w.item(part.arguments[1]), w.item(part.arguments[2])
    if not isinstance(test, Test) or not (w.elementwise or part.broadcast):
        raise w.refuse(part, "chooses by something that depends on the input's size, which is not known")
    named = _named_choice(w, part, test, then, otherwise)
    if named is not None:
        return named
    mask = _mask(w, part, test)
    inverse = w.pointwise(part, mask, Activation("affine", (-1.0, 1.0)))
    sides = [_masked(w, part, m, side) for m, side in ((mask, then), (inverse, otherwise))]
    kept = [side for side in sides if side is not None]
    return w.join(part, "add", kept) if kept else w.pointwise(part, mask, Activation("affine", (0.0, 0.0)))


def _masked(w: Lowering, part: Call, mask: Flow, side: Any) -> Flow | None:
    if isinstance(side, Flow):
        return w.join(part, "multiply", [mask, side])
    return None if number(side) == 0 else w.with_array(part, "multiply", mask, side, False)


def _mask(w: Lowering, part: Call, test: Test) -> Flow:
    """1 where the comparison holds, otherwise 0."""
    strict, greater = test.sign in (">", "<"), test.sign in (">", ">=")
    a, b = (test.left, test.right) if greater == strict else (test.right, test.left)
    difference = Call("-", part.arguments, (), True)
    flow = _two(w, difference, a, b, True)
    flow = w.pointwise(part, flow, Activation("sign"), Activation("relu"))  # 1 where a > b
    return flow if strict else w.pointwise(part, flow, Activation("affine", (-1.0, 1.0)))


def _named_choice(w: Lowering, part: Call, test: Test, then: Any, otherwise: Any) -> Flow | None:
    """relu, trelu, leakyrelu and elu, written as `x > a ? x : ...` in either order."""
    flow, threshold = test.left, number(test.right)
    greater = test.sign in (">", ">=")
    above, below = (then, otherwise) if greater else (otherwise, then)
    if threshold is None or not isinstance(above, Flow) or above.value is not flow.value:
        return None
    flat = number(below)
    if flat is not None:
        if threshold == 0 and flat == 0:
            return w.pointwise(part, flow, Activation("relu"))
        strict = test.sign == (">" if greater else "<=")
        return w.pointwise(part, flow, Activation("trelu", (threshold,))) if flat == 0 and strict else None
    if not isinstance(below, Flow) or threshold != 0:
        return None
    steps: list[Activation] = []
    value = below.value
    while value is not flow.value:
        if not isinstance(value.made_by, Activation) or len(value.inputs) != 1:
            return None
        steps.append(value.made_by)
        (value,) = value.inputs
    return _below_zero(w, part, flow, steps[::-1])


def _below_zero(w: Lowering, part: Call, flow: Flow, steps: list[Activation]) -> Flow | None:
    scale, shift = (steps[-1].parameters if steps and steps[-1].name == "affine" else (1.0, 0.0))[:2]
    if [s.name for s in steps] == ["affine"] and shift == 0 and 0 <= scale <= 1:
        return w.pointwise(part, flow, Activation("leakyrelu", (scale,)))
    names = [s.name for s in steps]
    if names[:1] != ["exp"] or set(names[1:]) != {"affine"}:
        return None
    scale, shift = 1.0, 0.0
    for step in steps[1:]:
        scale, shift = scale * step.parameters[0], shift * step.parameters[0] + step.parameters[1]
    return w.pointwise(part, flow, Activation("elu", (scale,))) if shift == -scale else None


ELEMENTWISE: dict[str, Rule] = {
    **dict.fromkeys(ACTIVATION_NAMES, _named),
    **dict.fromkeys(_OPERATIONS, _arithmetic),
    **dict.fromkeys(_SIGNS, _compare),
    "^": _power,
    "clamp": _clamp,
    "ifelse": choice,
    "inv": _inverse,
    **dict.fromkeys(_OTHERS, _other),
    "muladd": _multiplied_and_added,
    "fma": _multiplied_and_added,
    **dict.fromkeys(("identity", "Float32", "Float64", "float", "f32", "cpu", "gpu"), _same),
    **dict.fromkeys(("copy", "collect", "Array", "convert", "cu"), _same),
    "zero": _zero,
    "one": _zero,
    "oftype": _of_type,
}
