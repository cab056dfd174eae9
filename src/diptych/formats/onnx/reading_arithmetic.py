"""ONNX products, arithmetic and functions of single values as layers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from diptych.formats.graph import Value, clamped, power_layers
from diptych.formats.onnx.reading_node import Node, Rule, plain
from diptych.formats.views import Tensor
from diptych.model import layers as L
from diptych.model.layers import Activation, Array

__all__ = ["ARITHMETIC"]


# ---- Products -----------------------------------------------------------------------------------------


def _gemm(n: Node) -> Tensor:
    if n.flag("transA") or len(n.shape) != 2:
        n.refuse("only a product of (N, features) with weights has a layer")
    n.attributes.get("broadcast")  # always so in newer versions
    weight, bias = n.weight(1), n.constant(2)
    weight = weight if n.flag("transB") else np.ascontiguousarray(weight.T)
    alpha, beta = n.attributes.get("alpha", 1.0), n.attributes.get("beta", 1.0)
    weight = weight if alpha == 1 else weight * np.float32(alpha)
    if bias is not None:
        bias = bias if beta == 1 else bias * np.float32(beta)
        if bias.ndim > 1 and bias.shape[0] != 1:
            n.refuse(f"its bias of the shape {bias.shape} has a number for each sample of one batch")
        if bias.shape != weight.shape[:1]:
            bias = np.array(np.broadcast_to(bias.reshape(-1), weight.shape[:1]))
    return n.views.last(n.x, 1, L.Dense(weight, bias))


def _matmul(n: Node) -> Tensor:
    return n.views.matmul(n.operand(0), n.operand(1))


# ---- Arithmetic ---------------------------------------------------------------------------------------


def _arithmetic(operation: str) -> Rule:
    def rule(n: Node) -> Tensor:
        operands = [n.operand(i) for i in range(len(n.inputs))]
        if n.opset < 7 and len(operands) == 2:
            operands[1] = _as_placed(n, operands[1])
        return _from_the_left(n, operation, operands)

    return rule


def _as_placed(n: Node, second: Tensor | Array) -> Tensor | Array:
    """The second operand of operator sets before 7, whose first axis meets the axis that an attribute names."""
    broadcast, axis = n.attributes.get("broadcast", 0), n.attributes.get("axis")
    if not broadcast or axis is None or not isinstance(second, np.ndarray):
        return second
    behind = len(n.shape) - int(axis) % len(n.shape) - second.ndim
    return second.reshape(second.shape + (1,) * max(behind, 0))


def _from_the_left(n: Node, operation: str, operands: list[Tensor | Array]) -> Tensor:
    values = [i for i in operands if not isinstance(i, np.ndarray)]
    if len(values) == len(operands) > 2 and all(isinstance(i, Value) for i in values):
        return n.graph.join(operation, [i for i in values if isinstance(i, Value)], n.name)
    constants = [i for i in operands if isinstance(i, np.ndarray)]
    if len(operands) > 2 and operation in ("add", "maximum", "minimum"):
        operands = [*values, *constants]
    result = operands[0]
    for operand in operands[1:]:
        result = n.views.combine(operation, result, operand)
    if isinstance(result, np.ndarray):
        n.refuse("its inputs are constants")
    return result


def _mean(n: Node) -> Tensor:
    operands = [n.operand(i) for i in range(len(n.inputs))]
    total = _from_the_left(n, "add", operands)
    return n.views.apply(total, Activation("affine", (1 / len(operands), 0.0)))


def _clip(n: Node) -> Tensor:
    def limit(index: int, name: str, default: float) -> float:
        array = n.constant(index)
        return float(n.attributes.get(name, default) if array is None else plain(array))

    return n.pointwise(clamped(limit(1, "min", -math.inf), limit(2, "max", math.inf)))


def _comparison(relation: str) -> Rule:
    return lambda n: n.views.compare(relation, n.operand(0), n.operand(1))


def _where(n: Node) -> Tensor:
    return n.views.choose(n.operand(0), n.operand(1), n.operand(2))


def _not(n: Node) -> Tensor:
    return n.pointwise(Activation("affine", (-1.0, 1.0)))


def _hard_max(n: Node) -> Tensor:
    """1 at the first of the largest values along an axis, elsewhere 0."""
    axis = n.axis(1 if n.opset < 13 else -1)
    x, views = n.x, n.views
    if n.opset < 13:
        x = views.reshape(x, (*n.shape[:axis], math.prod(n.shape[axis:])))
    size = views.shape(x)[axis]
    largest = views.compare("equal", x, views.reduce(x, "max", (axis,), True))
    order = list(range(views.rank(x)))
    order[axis], order[-1] = order[-1], order[axis]
    count = views.matmul(views.permute(largest, order), np.triu(np.ones((size, size), np.float32)))
    first = views.compare("at most", views.permute(count, order), np.asarray(1.0))
    return views.reshape(views.combine("multiply", largest, first), n.shape)


def _power(n: Node) -> Tensor:
    return n.views.combine("power", n.operand(0), n.operand(1))


# ---- Functions of single values -----------------------------------------------------------------------


def _function(name: str, *parameters: tuple[str, float]) -> Rule:
    def rule(n: Node) -> Tensor:
        n.attributes.get("consumed_inputs")  # of operator sets before 6: which memory may be overwritten
        return n.pointwise(Activation(name, tuple(float(n.attributes.get(k, v)) for k, v in parameters)))

    return rule


def _selu(n: Node) -> Tensor:
    n.attributes.get("consumed_inputs")
    usual = (1.6732, 1.0507) if n.opset < 6 else (1.67326319217681884765625, 1.05070102214813232421875)
    alpha, gamma = float(n.attributes.get("alpha", usual[0])), float(n.attributes.get("gamma", usual[1]))
    if abs(alpha - 1.6732632423543772) < 1e-6 and abs(gamma - 1.0507009873554805) < 1e-6:
        return n.pointwise(Activation("selu"))
    return n.pointwise(Activation("elu", (alpha,)), Activation("affine", (gamma, 0.0)))


def _hard_sigmoid(n: Node) -> Tensor:
    n.attributes.get("consumed_inputs")
    slope, middle = float(n.attributes.get("alpha", 0.2)), float(n.attributes.get("beta", 0.5))
    if middle == 0.5:
        return n.pointwise(Activation("hardsigmoid", (slope,)))
    return n.pointwise(Activation("affine", (slope, middle)), Activation("clamp", (0.0, 1.0)))


def _shrink(n: Node) -> Tensor:
    size = float(n.attributes.get("lambd", 0.5))
    bias = float(n.attributes.get("bias", 0.0))
    if size < 0:
        n.refuse(f"its lambd is {size}, so that values are both above and below")
    if bias != size:
        kept = [
            n.views.combine(
                "multiply",
                n.pointwise(Activation("affine", (1.0, sign * bias))),
                n.pointwise(Activation("affine", (-sign, 0.0)), Activation("step", (size,))),
            )
            for sign in (1.0, -1.0)
        ]
        return n.views.combine("add", *kept)
    return n.pointwise(Activation("softshrink", (size,)))


def _prelu(n: Node) -> Value:
    n.attributes.get("consumed_inputs")
    slope, shape = n.weight(1), n.shape
    if slope.size == 1:
        return n.give(Activation("leakyrelu", (plain(slope),)))
    if n.opset < 7 and slope.ndim == 1:
        slope = slope.reshape(-1, *[1] * (len(shape) - 2))
    if slope.ndim >= len(shape):
        if slope.ndim > len(shape) or slope.shape[0] != 1:
            n.refuse(f"its slopes of the shape {slope.shape} do not fit a batch of any size")
        slope = slope.reshape(slope.shape[1:])
    return n.give(L.PReLU(slope))


def _gelu(n: Node) -> Tensor:
    return n.pointwise(Activation("gelu_tanh" if n.attributes.get("approximate") == "tanh" else "gelu_erf"))


def _swish(n: Node) -> Tensor:
    alpha = float(n.attributes.get("alpha", 1.0))
    if alpha == 1:
        return n.pointwise(Activation("swish"))
    if abs(alpha - 1.702) < 1e-6:
        return n.pointwise(Activation("quickgelu"))
    scaled = Activation("affine", (alpha, 0.0))
    return n.pointwise(scaled, Activation("swish"), Activation("affine", (1 / alpha, 0.0)))


def _softmax(log: bool) -> Rule:
    def rule(n: Node) -> Tensor:
        axis = n.axis(1 if n.opset < 13 else -1)
        if n.opset >= 13 or math.prod(n.shape[axis + 1 :]) == 1:
            return n.views.softmax(n.x, n.views.axis(n.x, axis), log)
        n.views.axis(n.x, axis)
        flat = n.reshaped((*n.shape[:axis], math.prod(n.shape[axis:])))
        return n.views.reshape(n.views.softmax(flat, axis, log), n.shape)

    return rule


def _dropout(n: Node) -> Tensor:
    n.attributes.get("seed")
    n.attributes.get("is_test")  # of operator sets before 7; a model computes as in tests
    n.attributes.get("consumed_inputs")
    training, ratio = n.constant(2), n.constant(1)
    if training is not None and training.any():
        n.refuse("its dropout is active in evaluation, too")
    share = n.attributes.get("ratio", 0.5)
    return n.pointwise(L.Dropout(float(share if ratio is None else plain(ratio))))


def _cast(n: Node) -> Tensor:
    n.attributes.get("saturate")  # of floats of 8 bits, which are refused
    n.attributes.get("round_mode")
    kind = n.attributes.get("to")
    if kind in (1, 11) or (kind == 10 and n.half):  # float32, float64; float16 in a network of float16
        return n.pointwise(Activation())
    if kind == 9:  # a truth value, which is a float of 0 or 1 here
        made = n.x.made_by if isinstance(n.x, Value) else None
        known = isinstance(made, Activation) and made.name == "step"
        return n.x if known else n.pointwise(Activation("abs"), Activation("step"))
    if kind not in (6, 7):  # int32, int64
        n.refuse("no layer rounds to half precision, or converts to small or unsigned integers")
    return n.pointwise(Activation("trunc"))


def _cast_like(n: Node) -> Tensor | Array:
    """To the type of the second input; what depends on the picture is of floats."""
    n.attributes.get("saturate")
    n.attributes.get("round_mode")
    first, second = n.operand(0), n.operand(1)
    if isinstance(second, np.ndarray) and second.dtype.kind != "f":
        n.refuse("no layer converts to integers of the type of a constant")
    return first.astype(np.float32) if isinstance(first, np.ndarray) else n.pointwise(Activation())


_PLAIN = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "HardSwish": "hardswish",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Mish": "mish",
    "Abs": "abs",
    "Exp": "exp",
    "Sqrt": "sqrt",
    "Sin": "sin",
    "Cos": "cos",
    "Tan": "tan",
    "Asin": "asin",
    "Acos": "acos",
    "Atan": "atan",
    "Sinh": "sinh",
    "Cosh": "cosh",
    "Asinh": "asinh",
    "Acosh": "acosh",
    "Atanh": "atanh",
    "Log": "log",
    "Erf": "erf",
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
    "Sign": "sign",
}
_JOINS: tuple[tuple[str, str], ...] = (
    ("Add", "add"),
    ("Sum", "add"),
    ("Sub", "subtract"),
    ("Mul", "multiply"),
    ("Div", "divide"),
    ("Max", "maximum"),
    ("Min", "minimum"),
)


def _layers(*layers: Activation) -> Callable[[Node], Tensor]:
    def rule(n: Node) -> Tensor:
        n.attributes.get("consumed_inputs")
        return n.pointwise(*layers)

    return rule


ARITHMETIC: dict[str, Rule] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    **{theirs: _arithmetic(ours) for theirs, ours in _JOINS},
    "Mean": _mean,
    "Clip": _clip,
    "Pow": _power,
    **{theirs: _function(ours) for theirs, ours in _PLAIN.items()},
    "Neg": _layers(Activation("affine", (-1.0, 0.0))),
    "Reciprocal": lambda n: n.pointwise(*power_layers(-1)),
    "LeakyRelu": _function("leakyrelu", ("alpha", 0.01)),
    "Greater": _comparison("greater"),
    "Less": _comparison("less"),
    "GreaterOrEqual": _comparison("at least"),
    "LessOrEqual": _comparison("at most"),
    "Equal": _comparison("equal"),
    "And": _arithmetic("multiply"),
    "Or": _arithmetic("maximum"),
    "Not": _not,
    "Where": _where,
    "Hardmax": _hard_max,
    "ThresholdedRelu": _function("trelu", ("alpha", 1.0)),
    "Elu": _function("elu", ("alpha", 1.0)),
    "Celu": _function("celu", ("alpha", 1.0)),
    "Selu": _selu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Swish": _swish,
    "Shrink": _shrink,
    "PRelu": _prelu,
    "Softmax": _softmax(log=False),
    "LogSoftmax": _softmax(log=True),
    "Dropout": _dropout,
    "Identity": lambda n: n.x,
    "Cast": _cast,
    "CastLike": _cast_like,
}
