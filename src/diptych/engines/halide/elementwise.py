"""The elementwise functions as Halide expressions, by the formulas of `layers.ACTIVATIONS`."""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi, sqrt
from typing import Any, TypeAlias

import halide as hl

from diptych.model.layers import Activation

__all__ = ["ACTIVATIONS", "activated", "number"]

Expr: TypeAlias = Any  # hl.Expr; the package has no type annotations


def number(value: float) -> Expr:
    """A float32 constant."""
    return hl.f32(float(value))


def activated(activation: Activation, x: Expr) -> Expr:
    """The activation applied to `x`, a float32 expression."""
    return ACTIVATIONS[activation.name](x, *map(number, activation.parameters))


def _positive(x: Expr) -> Expr:
    return hl.max(x, number(0))


def _clip(x: Expr, low: Expr, high: Expr) -> Expr:
    return hl.min(hl.max(x, low), high)


def _softplus(x: Expr) -> Expr:
    return _positive(x) + hl.log(number(1) + hl.exp(-hl.abs(x)))


def _sigmoid(x: Expr) -> Expr:
    small = hl.exp(-hl.abs(x))  # never overflows
    return hl.select(x > number(0), number(1), small) / (number(1) + small)


def _tanh(x: Expr) -> Expr:
    """By the exponential function; near 0, where this loses precision, by a Taylor polynomial."""
    square = x * x
    small = x * (
        number(1) + square * (number(-1 / 3) + square * (number(2 / 15) - square * number(17 / 315)))
    )
    fraction = hl.exp(number(-2) * hl.abs(x))
    large = (number(1) - fraction) / (number(1) + fraction)
    return hl.select(hl.abs(x) < number(0.1), small, hl.select(x < number(0), -large, large))


def _elu(x: Expr, a: Expr) -> Expr:
    return hl.select(x > number(0), x, a * (hl.exp(hl.min(x, number(0))) - number(1)))


def _celu(x: Expr, a: Expr) -> Expr:
    return hl.select(x > number(0), x, a * (hl.exp(hl.min(x, number(0)) / a) - number(1)))


def _selu(x: Expr) -> Expr:
    return number(1.0507009873554805) * _elu(x, number(1.6732632423543772))


def _gelu_tanh(x: Expr) -> Expr:
    return x * number(0.5) * (number(1) + _tanh(number(sqrt(2 / pi)) * (x + number(0.044715) * x * x * x)))


def _hardswish(x: Expr) -> Expr:
    return x * _clip(x * number(1 / 6) + number(0.5), number(0), number(1))


def _affine(x: Expr, scale: Expr, shift: Expr) -> Expr:
    """The product is rounded before the addition; exact filters rely on it (`filters.learning.kernels.clipped`)."""
    return hl.strict_float(scale * x) + shift


def _logcosh(x: Expr) -> Expr:
    return hl.abs(x) + hl.log(number(1) + hl.exp(number(-2) * hl.abs(x))) - number(log(2))


ACTIVATIONS: dict[str, Callable[..., Expr]] = {
    "identity": lambda x: x,
    "relu": _positive,
    "relu6": lambda x: _clip(x, number(0), number(6)),
    "leakyrelu": lambda x, a: hl.select(x > number(0), x, a * x),
    "trelu": lambda x, theta: hl.select(x > theta, x, number(0)),
    "elu": _elu,
    "celu": _celu,
    "selu": _selu,
    "gelu_tanh": _gelu_tanh,
    "gelu_erf": lambda x: x * number(0.5) * (number(1) + hl.erf(x * number(sqrt(0.5)))),
    "sigmoid": _sigmoid,
    "hardsigmoid": lambda x, slope: _clip(slope * x + number(0.5), number(0), number(1)),
    "logsigmoid": lambda x: -_softplus(-x),
    "tanh": _tanh,
    "hardtanh": _clip,
    "tanhshrink": lambda x: x - _tanh(x),
    "softshrink": lambda x, limit: x - _clip(x, -limit, limit),
    "softplus": _softplus,
    "softsign": lambda x: x / (number(1) + hl.abs(x)),
    "swish": lambda x: x * _sigmoid(x),
    "quickgelu": lambda x: x * _sigmoid(number(1.702) * x),
    "hardswish": _hardswish,
    "mish": lambda x: x * _tanh(_softplus(x)),
    "lisht": lambda x: x * _tanh(x),
    "logcosh": _logcosh,
    "abs": hl.abs,
    "abs2": lambda x: x * x,
    "exp": hl.exp,
    "sqrt": hl.sqrt,
    "sin": hl.sin,
    "cos": hl.cos,
    "tan": hl.tan,
    "asin": hl.asin,
    "acos": hl.acos,
    "atan": hl.atan,
    "sinh": hl.sinh,
    "cosh": hl.cosh,
    "asinh": hl.asinh,
    "acosh": hl.acosh,
    "atanh": hl.atanh,
    "log": hl.log,
    "erf": hl.erf,
    "floor": hl.floor,
    "ceil": hl.ceil,
    "round": hl.round,
    "trunc": hl.trunc,
    "sign": lambda x: hl.select(x > number(0), number(1), hl.select(x < number(0), number(-1), x)),
    "step": lambda x, theta: hl.select(x > theta, number(1), number(0)),
    "power": hl.pow,
    "clamp": _clip,
    "affine": _affine,
}
