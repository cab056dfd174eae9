"""Functions of single values, and softmax."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from diptych.errors import ModelError, ShapeError
from diptych.model.layers.base import Array, Layer, Shape, rounded
from diptych.model.layers.checks import check_axis
from diptych.model.layers.receptive import Field

__all__ = [
    "ACTIVATIONS",
    "IDENTITY",
    "Activated",
    "Activation",
    "Dropout",
    "Function",
    "Softmax",
    "need_axis",
]


class Function(NamedTuple):
    """An elementwise function.

    Attributes:
        formula: As text, of x and the parameters.
        parameters: The defaults of the parameters.
        numpy: The function of a float64 array and the parameters. No large |x| overflows on the way.
    """

    formula: str
    parameters: tuple[float, ...]
    numpy: Callable[..., Array]


erf = np.vectorize(math.erf, otypes=[np.float64])


def _softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


def _sigmoid(x: Array) -> Array:
    return np.exp(-_softplus(-x))


def _elu(x: Array, a: float) -> Array:
    return np.where(x > 0, x, a * np.expm1(np.minimum(x, 0)))


def _gelu_tanh(x: Array) -> Array:
    result: Array = x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return result


def _gelu_erf(x: Array) -> Array:
    result: Array = x / 2 * (1 + erf(x / np.sqrt(2)))
    return result


def _power(x: Array, exponent: float) -> Array:
    """x^exponent; not a number for a negative x unless the exponent is whole, as in PyTorch and ONNX."""
    result: Array = np.power(x, exponent)
    return result


SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717

# The names are NNlib's or Julia's, in ASCII; σ is "sigmoid". "quickgelu" is CLIP's GELU.
ACTIVATIONS: dict[str, Function] = {
    "identity": Function("x", (), lambda x: x),
    "relu": Function("max(x, 0)", (), lambda x: np.maximum(x, 0)),
    "relu6": Function("min(max(x, 0), 6)", (), lambda x: np.clip(x, 0, 6)),
    "leakyrelu": Function("x if x > 0 else a x", (0.01,), lambda x, a: np.where(x > 0, x, a * x)),
    "trelu": Function("x if x > theta else 0", (1.0,), lambda x, theta: np.where(x > theta, x, 0)),
    "elu": Function("x if x > 0 else a (exp(x) - 1)", (1.0,), _elu),
    "celu": Function(
        "x if x > 0 else a (exp(x / a) - 1)",
        (1.0,),
        lambda x, a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0) / a)),
    ),
    "selu": Function(
        "1.0507 (x if x > 0 else 1.6733 (exp(x) - 1))", (), lambda x: SELU_SCALE * _elu(x, SELU_ALPHA)
    ),
    "gelu_tanh": Function("x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))", (), _gelu_tanh),
    "gelu_erf": Function("x/2 (1 + erf(x / sqrt 2))", (), _gelu_erf),
    "sigmoid": Function("1 / (1 + exp(-x))", (), _sigmoid),
    "hardsigmoid": Function(
        "clip(slope x + 1/2, 0, 1)", (1 / 6,), lambda x, slope: np.clip(slope * x + 0.5, 0, 1)
    ),
    "logsigmoid": Function("log(sigmoid(x))", (), lambda x: -_softplus(-x)),
    "tanh": Function("tanh(x)", (), np.tanh),
    "hardtanh": Function("clip(x, low, high)", (-1.0, 1.0), np.clip),
    "tanhshrink": Function("x - tanh(x)", (), lambda x: x - np.tanh(x)),
    "softshrink": Function("x - clip(x, -l, l)", (0.5,), lambda x, limit: x - np.clip(x, -limit, limit)),
    "softplus": Function("log(1 + exp(x))", (), _softplus),
    "softsign": Function("x / (1 + |x|)", (), lambda x: x / (1 + np.abs(x))),
    "swish": Function("x sigmoid(x)", (), lambda x: x * _sigmoid(x)),
    "quickgelu": Function("x sigmoid(1.702 x)", (), lambda x: x * _sigmoid(1.702 * x)),
    "hardswish": Function("x clip((x + 3) / 6, 0, 1)", (), lambda x: x * np.clip((x + 3) / 6, 0, 1)),
    "mish": Function("x tanh(softplus(x))", (), lambda x: x * np.tanh(_softplus(x))),
    "lisht": Function("x tanh(x)", (), lambda x: x * np.tanh(x)),
    "logcosh": Function(
        "log(cosh(x))", (), lambda x: np.abs(x) + np.log1p(np.exp(-2 * np.abs(x))) - np.log(2)
    ),
    "abs": Function("|x|", (), np.abs),
    "abs2": Function("x^2", (), np.square),
    "exp": Function("exp(x)", (), np.exp),
    "sqrt": Function("sqrt(x)", (), np.sqrt),
    "sin": Function("sin(x)", (), np.sin),
    "cos": Function("cos(x)", (), np.cos),
    "tan": Function("tan(x)", (), np.tan),
    "asin": Function("asin(x)", (), np.arcsin),
    "acos": Function("acos(x)", (), np.arccos),
    "atan": Function("atan(x)", (), np.arctan),
    "sinh": Function("sinh(x)", (), np.sinh),
    "cosh": Function("cosh(x)", (), np.cosh),
    "asinh": Function("asinh(x)", (), np.arcsinh),
    "acosh": Function("acosh(x)", (), np.arccosh),
    "atanh": Function("atanh(x)", (), np.arctanh),
    "log": Function("log(x)", (), np.log),
    "erf": Function("erf(x)", (), erf),
    "floor": Function("floor(x)", (), np.floor),
    "ceil": Function("ceil(x)", (), np.ceil),
    "round": Function("the nearest whole number, of two the even one", (), np.rint),
    "trunc": Function("the whole part, towards 0", (), np.trunc),
    "sign": Function("-1, 0 or 1", (), np.sign),
    "step": Function("1 if x > theta else 0", (0.0,), lambda x, theta: np.where(x > theta, 1.0, 0.0)),
    "power": Function("x^p", (2.0,), _power),
    "clamp": Function("clip(x, low, high)", (0.0, 1.0), np.clip),
    "affine": Function("scale x + shift", (1.0, 0.0), lambda x, scale, shift: scale * x + shift),
}


@dataclass(frozen=True, eq=False)
class _Pointwise(Layer):
    """A layer that gives each value its own, whatever the shape."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Activation(_Pointwise):
    """An elementwise function of `ACTIVATIONS` by name: a layer by itself, or the last field of others.

    Attributes:
        name: A key of `ACTIVATIONS`.
        parameters: As many as the function takes; () for the defaults.
    """

    name: str = "identity"
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.name!r}; known: {', '.join(ACTIVATIONS)}")
        defaults = ACTIVATIONS[self.name].parameters
        given = tuple(float(p) for p in self.parameters) or defaults
        if len(given) != len(defaults):
            raise ValueError(f"{self.name} takes {len(defaults)} parameters, got {len(given)}")
        object.__setattr__(self, "parameters", given)

    def __bool__(self) -> bool:
        """False for the identity, which does nothing."""
        return self.name != "identity"

    def check(self) -> None:
        if any(math.isnan(p) for p in self.parameters):
            raise ModelError(f"a parameter of the activation {self.name} is not a number")

    def describe(self) -> list[str]:
        if self.parameters == ACTIVATIONS[self.name].parameters:
            return [self.name]
        return [f"{self.name}({', '.join(f'{p:g}' for p in self.parameters)})"]

    def compute(self, x: Array) -> Array:
        return ACTIVATIONS[self.name].numpy(x, *self.parameters)


IDENTITY = Activation()


@dataclass(frozen=True, eq=False)
class Activated(Layer):
    """A layer that ends in an elementwise function, its field `activation`."""

    @property
    @abstractmethod
    def activation(self) -> Activation:
        """The function, `IDENTITY` for none."""

    @property
    def label(self) -> str:
        """The layer and its function in one line."""
        return f"{super().label}, {self.activation.label}" if self.activation else super().label

    def __call__(self, x: Array) -> Array:
        """The layer and its function in NumPy: see `Layer`."""
        return rounded(self.activation.compute(self.compute(x.astype(np.float64))))


@dataclass(frozen=True, eq=False)
class Dropout(_Pointwise):
    """The identity at inference; the probability, 0 to 1, is kept so that a model can be trained further."""

    probability: float = 0.5

    def check(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ModelError(f"field 'probability' must be 0 to 1, got {self.probability}")

    def describe(self) -> list[str]:
        return [f"Dropout {self.probability:g}"]

    def compute(self, x: Array) -> Array:
        return x


@dataclass(frozen=True, eq=False)
class Softmax(Layer):
    """exp(x) / sum(exp(x)) along `axis` of (N, C, ...); the logarithm of it where `log`.

    Flux's `softmax` works along Julia's first axis, which is -1 here.
    """

    axis: int = 1
    log: bool = False

    def check(self) -> None:
        check_axis(self.axis)

    def describe(self) -> list[str]:
        return ["logsoftmax" if self.log else "softmax", "" if self.axis == 1 else f"axis {self.axis}"]

    def output_shape(self, shape: Shape) -> Shape:
        need_axis(self.axis, shape)
        return shape

    def mixes_samples(self, shape: Shape) -> bool:
        return self.axis in (0, -len(shape))

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field.along(self.axis) if field.spatial else field.whole()

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0

    def compute(self, x: Array) -> Array:
        shifted = x - x.max(axis=self.axis, keepdims=True)
        logarithms = shifted - np.log(np.exp(shifted).sum(axis=self.axis, keepdims=True))
        result: Array = logarithms if self.log else np.exp(logarithms)
        return result


def need_axis(axis: int, shape: Shape) -> None:
    """Raises `ShapeError` where `shape` does not have that axis."""
    if not -len(shape) <= axis < len(shape):
        raise ShapeError(f"works along axis {axis}, which {shape} does not have")
