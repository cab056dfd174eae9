"""Recognises the activation function that a sequence of elementwise operations computes.

The same function is written in many ways; GELU alone in half a dozen. The operations are therefore evaluated in
float64 at 165 numbers, and the results compared with those of the functions in `layers.ACTIVATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from diptych.formats.graph import Join, Step
from diptych.model.layers import ACTIVATIONS, Activation, Array

__all__ = ["named_function"]

# The activations that other frameworks write as several operations.
_COMPOSITES = (
    "hardsigmoid",
    "hardswish",
    "swish",
    "mish",
    "gelu_erf",
    "gelu_tanh",
    "quickgelu",
    "logsigmoid",
    "tanhshrink",
    "softsign",
    "lisht",
    "logcosh",
    "abs2",
    "sigmoid",
    "softplus",
)
_PLACES = np.concatenate([np.linspace(-8, 8, 161), [-40.0, -20.0, 15.0, 30.0]])
_EXPECTED = {name: ACTIVATIONS[name].numpy(_PLACES, *ACTIVATIONS[name].parameters) for name in _COMPOSITES}
_JOINS: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "multiply": np.multiply,
    "subtract": np.subtract,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


def named_function(steps: list[Step]) -> Activation | None:
    """The activation that `steps` compute.

    Returns:
        The activation whose values differ by at most 2e-6 (relative above 1), or None if no activation is that close
        or the steps are a single operation.
    """
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
    if isinstance(steps[0].layer, Join) and _close(values, ACTIVATIONS["leakyrelu"].numpy(_PLACES, slope)):
        return Activation("leakyrelu", (slope,))
    return None


def _close(values: Array, expected: Array) -> bool:
    return bool((np.abs(values - expected) <= 2e-6 * np.maximum(1, np.abs(expected))).all())


def _worth_trying(steps: list[Step]) -> bool:
    first = steps[0].layer
    if isinstance(first, Join):
        return first.operation in _JOINS
    starts = isinstance(first, Activation) and first.name in ("affine", "erf", "power", "exp")
    return starts and len(steps) > 1


def _through(steps: list[Step], x: Array) -> Array | None:
    for step in steps:
        layer = step.layer
        if isinstance(layer, Activation):
            x = layer.compute(x)
        elif isinstance(layer, Join) and layer.operation in _JOINS:
            parts = [_through(branch, x) for branch in step.branches]
            known = [part for part in parts if part is not None]
            if len(known) < len(parts):
                return None
            x = reduce(_JOINS[layer.operation], known)
        else:
            return None
    return x
