"""Recurrent layers: (N, time, features), one step after the other.

Every layer takes a whole sequence, (N, T, features) -> (N, T, hidden), which are the axes of PyTorch's `batch_first`
and, reversed, those of Flux 0.15 and later; or a single step from the initial state, (N, features) -> (N, hidden), as
Flux 0.14 and earlier call it. Further axes behind the batch hold sequences of their own. The gates lie one after the
other along the first axis of every weight.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np

from diptych.errors import ModelError, ShapeError
from diptych.model.layers.base import Array, Layer, Shape
from diptych.model.layers.checks import check_rank, check_shape
from diptych.model.layers.elementwise import ACTIVATIONS, Activation
from diptych.model.layers.receptive import Field

__all__ = ["GRU", "LSTM", "RNN", "Recurrent"]


@dataclass(frozen=True, eq=False)
class Recurrent(Layer):
    """What `RNN`, `LSTM` and `GRU` share.

    Attributes:
        weight: (gates * hidden, features), by which the input is multiplied.
        recurrent: (gates * hidden, hidden), by which the previous output is multiplied.
        bias: (gates * hidden,), or None.
        initial: (hidden,), the output before the first step; None for zeros.
        reverse: Whether the last step comes first. Every output keeps the place of its input.
    """

    GATES: ClassVar[int]

    weight: Array
    recurrent: Array
    bias: Array | None = None
    initial: Array | None = None
    reverse: bool = False

    @property
    def hidden(self) -> int:
        """The number of values of the output at each step."""
        return int(self.recurrent.shape[-1])

    @property
    def features(self) -> int:
        """The number of values of the input at each step."""
        return int(self.weight.shape[-1])

    def check(self) -> None:
        check_rank(self.weight, (2,), "weight")
        check_rank(self.recurrent, (2,), "recurrent")
        rows = self.GATES * self.hidden
        check_shape(self.recurrent, (rows, self.hidden), "recurrent")
        check_shape(self.weight, (rows, self.features), "weight")
        check_shape(self.bias, (rows,), "bias")
        check_shape(self.initial, (self.hidden,), "initial")

    def describe(self) -> list[str]:
        return [
            f"{type(self).__name__} {self.features} -> {self.hidden}",
            "reverse" if self.reverse else "",
            "" if self.bias is not None else "no bias",
            "initial state" if self.initial is not None else "",
        ]

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 2:
            raise ShapeError(f"takes (N, time, features), or (N, features) for one step, got {shape}")
        if shape[-1] != self.features:
            raise ShapeError(f"takes {self.features} features on the last axis, got {shape[-1]} in {shape}")
        return (*shape[:-1], self.hidden)

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field.whole()

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return prod(result) * self.GATES * (self.features + self.hidden)

    def compute(self, x: Array) -> Array:
        steps = x.reshape(-1, *x.shape[-2:]) if x.ndim > 2 else x[:, None]
        projected = steps @ self.weight.astype(np.float64).T
        projected = projected if self.bias is None else projected + self.bias
        recurrent = self.recurrent.astype(np.float64)
        state = self.first_state(len(steps))
        outputs = np.zeros((*projected.shape[:2], self.hidden))
        order = range(steps.shape[1])
        for place in reversed(order) if self.reverse else order:
            state = self.step(projected[:, place], recurrent, state)
            outputs[:, place] = state[0]
        return outputs.reshape(self.output_shape(x.shape))

    def first_state(self, samples: int) -> tuple[Array, ...]:
        """The state before the first step, each part (samples, hidden); the output is its first part."""
        return (self._start(self.initial, samples),)

    def _start(self, initial: Array | None, samples: int) -> Array:
        given = np.zeros(self.hidden) if initial is None else initial.astype(np.float64)
        return np.broadcast_to(given, (samples, self.hidden))

    @abstractmethod
    def step(self, projected: Array, recurrent: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        """The state behind one step.

        Args:
            projected: (N, gates * hidden), the input of the step times `weight`, plus `bias`.
            recurrent: The field of that name in float64.
            state: The state in front of the step, as `first_state` gives it.
        """


def _gates(x: Array, count: int) -> Sequence[Array]:
    return np.split(x, count, axis=-1)


def _sigmoid(x: Array) -> Array:
    result: Array = ACTIVATIONS["sigmoid"].numpy(x)
    return result


TANH = Activation("tanh")


@dataclass(frozen=True, eq=False)
class RNN(Recurrent):
    """h' = activation(weight x + recurrent h + bias).

    Attributes:
        function: The activation, tanh by default.
    """

    GATES = 1

    function: Activation = TANH

    def check(self) -> None:
        super().check()
        self.function.check()

    def describe(self) -> list[str]:
        name = self.function.name
        return [*super().describe(), "" if name == "tanh" else self.function.label]

    def step(self, projected: Array, recurrent: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        return (self.function.compute(projected + state[0] @ recurrent.T),)


@dataclass(frozen=True, eq=False)
class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997); the gates are input, forget, cell and output.

    c' = sigmoid(forget) c + sigmoid(input) tanh(cell) and h' = sigmoid(output) tanh(c').

    Attributes:
        initial_cell: (hidden,), c before the first step; None for zeros.
    """

    GATES = 4

    initial_cell: Array | None = None

    def check(self) -> None:
        super().check()
        check_shape(self.initial_cell, (self.hidden,), "initial_cell")

    def first_state(self, samples: int) -> tuple[Array, ...]:
        return (*super().first_state(samples), self._start(self.initial_cell, samples))

    def step(self, projected: Array, recurrent: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        output, memory = state
        enter, forget, cell, leave = _gates(projected + output @ recurrent.T, 4)
        memory = _sigmoid(forget) * memory + _sigmoid(enter) * np.tanh(cell)
        return _sigmoid(leave) * np.tanh(memory), memory


@dataclass(frozen=True, eq=False)
class GRU(Recurrent):
    """The gated recurrent unit (Cho et al., EMNLP 2014); the gates are reset, update and new.

    h' = (1 - z) n + z h with r = sigmoid(reset), z = sigmoid(update), where each gate is weight x + recurrent h +
    bias but that of n. With `reset` "after", n = tanh(weight x + bias + r (recurrent h + new_bias)), as in PyTorch
    and Flux's `GRU`; with "before", n = tanh(weight x + bias + recurrent (r h)), as in Flux's `GRUv3`.

    Attributes:
        new_bias: (hidden,), only with `reset` "after"; None for zeros.
        reset: Where the reset gate stands.
    """

    GATES = 3

    new_bias: Array | None = None
    reset: Literal["after", "before"] = "after"

    def check(self) -> None:
        super().check()
        check_shape(self.new_bias, (self.hidden,), "new_bias")
        if self.new_bias is not None and self.reset == "before":
            raise ModelError("field 'new_bias' must be None with reset 'before'; add it to the bias")

    def describe(self) -> list[str]:
        return [*super().describe(), "reset before the product" if self.reset == "before" else ""]

    def step(self, projected: Array, recurrent: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        (output,) = state
        gates: Any = _gates(projected, 3)
        resets, updates, news = np.split(recurrent, 3)
        r = _sigmoid(gates[0] + output @ resets.T)
        z = _sigmoid(gates[1] + output @ updates.T)
        if self.reset == "before":
            inner = (r * output) @ news.T
        else:
            inner = output @ news.T
            inner = r * (inner if self.new_bias is None else inner + self.new_bias)
        return ((1 - z) * np.tanh(gates[2] + inner) + z * output,)
