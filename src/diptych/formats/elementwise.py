"""Which elementwise function a few operations make: told by what they give, however they are spelled.

GELU alone has half a dozen spellings. Operations that are elementwise throughout are one function of one
number; it is worked out in float64 at some hundred places and compared with those of `layers.ACTIVATIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from diptych.formats.graph import Erf, Join, Step
from diptych.model.layers import Activation, Array

__all__ = ["named_function"]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(x, 0.0))


def _gelu_tanh(x: Array) -> Array:
    return np.asarray(x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


_FORMULAS: dict[str, Callable[..., Any]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leakyrelu": lambda x, a: np.where(x > 0, x, a * x),
    "trelu": lambda x, theta: np.where(x > theta, x, 0.0),
    "elu": lambda x, a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
    "sigmoid": _sigmoid,
    "hardsigmoid": lambda x, slope=1 / 6: np.clip(slope * x + 0.5, 0, 1),
    "gelu_sigmoid": lambda x: x * _sigmoid(1.702 * x),
    "logsigmoid": lambda x: -_softplus(-x),
    "tanh": np.tanh,
    "hardtanh": np.clip,
    "tanhshrink": lambda x: x - np.tanh(x),
    "softshrink": lambda x, size: x - np.clip(x, -size, size),
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "swish": lambda x: x * _sigmoid(x),
    "hardswish": lambda x: x * np.clip((x + 3) / 6, 0, 1),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "lisht": lambda x: x * np.tanh(x),
    "logcosh": lambda x: np.logaddexp(x, -x) - math.log(2),
    "gelu_tanh": _gelu_tanh,
    "gelu_erf": lambda x: x / 2 * (1 + _erf(x / math.sqrt(2))),
    "abs": np.abs,
    "abs2": np.square,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "clamp": np.clip,
    "affine": lambda x, scale, shift: scale * x + shift,
}

# What several operations may amount to; the others are one operation everywhere.
_COMPOSITES = (
    "hardsigmoid",
    "hardswish",
    "swish",
    "mish",
    "gelu_erf",
    "gelu_tanh",
    "gelu_sigmoid",
    "logsigmoid",
    "tanhshrink",
    "softsign",
    "lisht",
    "logcosh",
    "abs2",
)
_PLACES = np.concatenate([np.linspace(-8, 8, 161), [-40.0, -20.0, 15.0, 30.0]])
_EXPECTED = {name: np.asarray(_FORMULAS[name](_PLACES)) for name in _COMPOSITES}
_JOINS: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "multiply": np.multiply,
    "subtract": np.subtract,
    "divide": np.divide,
    "maximum": np.maximum,
}


def named_function(steps: list[Step]) -> Activation | None:
    """The function that `steps` are, if they are more than one operation and it has a name."""
    if not _worth_trying(steps):
        return None
    with np.errstate(all="ignore"):
        values = _through(steps, _PLACES)
        if values is None or not np.isfinite(values).all():
            return None
    for name, expected in _EXPECTED.items():
        if _close(values, expected):
            return Activation(name)
    slope = float(-values[np.argmin(np.abs(_PLACES + 1))])
    if isinstance(steps[0].layer, Join) and _close(values, _FORMULAS["leakyrelu"](_PLACES, slope)):
        return Activation("leakyrelu", (slope,))
    return None


def _close(values: Array, expected: Array) -> bool:
    return bool((np.abs(values - expected) <= 2e-6 * np.maximum(1, np.abs(expected))).all())


def _worth_trying(steps: list[Step]) -> bool:
    first = steps[0].layer
    if isinstance(first, Join):
        return first.operation in _JOINS
    starts = isinstance(first, Erf) or (isinstance(first, Activation) and first.name == "affine")
    return starts and len(steps) > 1


def _through(steps: list[Step], x: Array) -> Array | None:
    for step in steps:
        layer = step.layer
        if isinstance(layer, Erf):
            x = _erf(x)
        elif isinstance(layer, Activation) and layer.name in _FORMULAS:
            x = np.asarray(_FORMULAS[layer.name](x, *layer.parameters))
        elif isinstance(layer, Join) and layer.operation in _JOINS:
            parts = [_through(branch, x) for branch in step.branches]
            known = [part for part in parts if part is not None]
            if len(known) < len(parts):
                return None
            x = reduce(_JOINS[layer.operation], known)
        else:
            return None
    return x
