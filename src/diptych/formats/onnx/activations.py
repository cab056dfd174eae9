"""The elementwise functions as standard ONNX operations, by the formulas of `layers.ACTIVATIONS`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from diptych.formats.onnx.graph import OnnxSite

__all__ = ["ACTIVATION_RULES"]

Rule: TypeAlias = Callable[..., str]


def _operation(name: str) -> Rule:
    return lambda s, x: s.node(name, x)


def _clip(s: OnnxSite, x: str, low: float, high: float) -> str:
    return s.node("Clip", x, s.constant(low), s.constant(high))


def _leakyrelu(s: OnnxSite, x: str, a: float) -> str:
    if a <= 1:
        return s.node("LeakyRelu", x, alpha=a)
    return s.node("Max", x, s.node("Mul", x, s.constant(a)))


def _gelu_tanh(s: OnnxSite, x: str) -> str:
    cube = s.node("Mul", s.node("Mul", x, x), x)
    inner = s.node("Add", x, s.node("Mul", cube, s.constant(0.044715)))
    tanh = s.node("Tanh", s.node("Mul", inner, s.constant(math.sqrt(2 / math.pi))))
    return _half_of_one_plus(s, x, tanh)


def _gelu_erf(s: OnnxSite, x: str) -> str:
    erf = s.node("Erf", s.node("Mul", x, s.constant(math.sqrt(0.5))))
    return _half_of_one_plus(s, x, erf)


def _half_of_one_plus(s: OnnxSite, x: str, y: str) -> str:
    half = s.node("Mul", x, s.constant(0.5))
    return s.node("Mul", half, s.node("Add", y, s.constant(1.0)))


def _logsigmoid(s: OnnxSite, x: str) -> str:
    return s.node("Neg", s.node("Softplus", s.node("Neg", x)))


def _logcosh(s: OnnxSite, x: str) -> str:
    # log(cosh(x)) = |x| + log(1 + exp(-2 |x|)) - log 2, which cannot overflow.
    size = s.node("Abs", x)
    rest = s.node("Softplus", s.node("Mul", size, s.constant(-2.0)))
    return s.node("Sub", s.node("Add", size, rest), s.constant(math.log(2)))


def _affine(s: OnnxSite, x: str, scale: float, shift: float) -> str:
    return s.node("Add", s.node("Mul", x, s.constant(scale)), s.constant(shift))


def _power(s: OnnxSite, x: str, exponent: float) -> str:
    return s.node("Reciprocal", x) if exponent == -1 else s.node("Pow", x, s.constant(exponent))


ACTIVATION_RULES: dict[str, Rule] = {
    "identity": _operation("Identity"),
    "relu": _operation("Relu"),
    "relu6": lambda s, x: _clip(s, x, 0.0, 6.0),
    "leakyrelu": _leakyrelu,
    "trelu": lambda s, x, theta: s.node("ThresholdedRelu", x, alpha=theta),
    "elu": lambda s, x, a: s.node("Elu", x, alpha=a),
    "celu": lambda s, x, a: s.node("Celu", x, alpha=a),
    "selu": _operation("Selu"),
    "gelu_tanh": _gelu_tanh,
    "gelu_erf": _gelu_erf,
    "sigmoid": _operation("Sigmoid"),
    "hardsigmoid": lambda s, x, slope: s.node("HardSigmoid", x, alpha=slope, beta=0.5),
    "logsigmoid": _logsigmoid,
    "tanh": _operation("Tanh"),
    "hardtanh": _clip,
    "tanhshrink": lambda s, x: s.node("Sub", x, s.node("Tanh", x)),
    "softshrink": lambda s, x, size: s.node("Shrink", x, lambd=size, bias=size),
    "softplus": _operation("Softplus"),
    "softsign": _operation("Softsign"),
    "swish": lambda s, x: s.node("Mul", x, s.node("Sigmoid", x)),
    "quickgelu": lambda s, x: s.node("Mul", x, s.node("Sigmoid", s.node("Mul", x, s.constant(1.702)))),
    "hardswish": _operation("HardSwish"),
    "mish": lambda s, x: s.node("Mul", x, s.node("Tanh", s.node("Softplus", x))),
    "lisht": lambda s, x: s.node("Mul", x, s.node("Tanh", x)),
    "logcosh": _logcosh,
    "abs": _operation("Abs"),
    "abs2": lambda s, x: s.node("Mul", x, x),
    "exp": _operation("Exp"),
    "sqrt": _operation("Sqrt"),
    "sin": _operation("Sin"),
    "cos": _operation("Cos"),
    "tan": _operation("Tan"),
    "asin": _operation("Asin"),
    "acos": _operation("Acos"),
    "atan": _operation("Atan"),
    "sinh": _operation("Sinh"),
    "cosh": _operation("Cosh"),
    "asinh": _operation("Asinh"),
    "acosh": _operation("Acosh"),
    "atanh": _operation("Atanh"),
    "log": _operation("Log"),
    "erf": _operation("Erf"),
    "floor": _operation("Floor"),
    "ceil": _operation("Ceil"),
    "round": _operation("Round"),
    "trunc": lambda s, x: s.node("Mul", s.node("Sign", x), s.node("Floor", s.node("Abs", x))),
    "sign": _operation("Sign"),
    "step": lambda s, x, theta: s.node("Cast", s.node("Greater", x, s.constant(theta)), to=1),  # 1: FLOAT
    "power": _power,
    "clamp": _clip,
    "affine": _affine,
}
