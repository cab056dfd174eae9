"""Modules for recurrent layers and attention, which give their output alone.

The first three are `torch.nn`'s own, with its parameters under its names; `torch.nn` has no other activation of an RNN
than tanh and relu, and no GRU whose reset gate stands before the product.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GRU", "LSTM", "RNN", "GRUResetBefore", "MultiHeadAttention", "RNNOfAny", "Whole"]


class Whole(nn.Module):
    """Mixin: (N, T, features) -> (N, T, hidden), or (N, features) -> (N, hidden) for one step.

    Attributes:
        reverse: Whether the last step comes first.
        initial, initial_cell: (hidden,), the state before the first step, or None for zeros.
    """

    reverse = False
    initial: nn.Parameter | None
    initial_cell: nn.Parameter | None

    def start_from(self, initial: nn.Parameter | None, cell: nn.Parameter | None = None) -> None:
        """Registers the state before the first step."""
        self.register_parameter("initial", initial)
        self.register_parameter("initial_cell", cell)

    def forward(self, x: Tensor) -> Tensor:
        """The output at every step."""
        steps = x.reshape(-1, *x.shape[-2:]) if x.ndim > 2 else x[:, None]
        outputs = self.run(steps.flip(1) if self.reverse else steps)
        outputs = outputs.flip(1) if self.reverse else outputs
        return outputs.reshape(*x.shape[:-1], -1)

    def run(self, steps: Tensor) -> Tensor:
        """The outputs of (N, T, features), the first step first."""
        own: Any = self
        state: Any = self._start(self.initial, len(steps)).unsqueeze(0)
        if isinstance(own, nn.LSTM):
            state = (state, self._start(self.initial_cell, len(steps)).unsqueeze(0))
        outputs: Tensor = own.stepped(steps, state)
        return outputs

    def _start(self, initial: Tensor | None, samples: int) -> Tensor:
        own: Any = self
        weight = own.weight_hh_l0
        if initial is None:
            zeros: Tensor = weight.new_zeros(samples, weight.shape[1])
            return zeros
        return initial.expand(samples, -1).contiguous()

    def extra_repr(self) -> str:
        """The sizes and the direction."""
        return super().extra_repr() + (", reverse" if self.reverse else "")


class RNN(Whole, nn.RNN):  # type: ignore[misc]
    """`nn.RNN` of one layer."""

    def stepped(self, steps: Tensor, state: Any) -> Tensor:
        """The outputs from a state."""
        outputs: Tensor = nn.RNN.forward(self, steps, state)[0]
        return outputs


class LSTM(Whole, nn.LSTM):  # type: ignore[misc]
    """`nn.LSTM` of one layer."""

    def stepped(self, steps: Tensor, state: Any) -> Tensor:
        """The outputs from a state."""
        outputs: Tensor = nn.LSTM.forward(self, steps, state)[0]
        return outputs


class GRU(Whole, nn.GRU):  # type: ignore[misc]
    """`nn.GRU` of one layer."""

    def stepped(self, steps: Tensor, state: Any) -> Tensor:
        """The outputs from a state."""
        outputs: Tensor = nn.GRU.forward(self, steps, state)[0]
        return outputs


class _Stepped(Whole):
    """A recurrent layer that `torch.nn` lacks, one step after the other."""

    bias_ih_l0: nn.Parameter | None

    def __init__(self, weight: nn.Parameter, recurrent: nn.Parameter, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight_ih_l0, self.weight_hh_l0 = weight, recurrent
        self.register_parameter("bias_ih_l0", bias)

    def stepped(self, steps: Tensor, state: Tensor) -> Tensor:
        """The outputs from a state."""
        projected = F.linear(steps, self.weight_ih_l0, self.bias_ih_l0)
        outputs, at = [], state[0]
        for part in projected.unbind(1):
            at = self.step(part, at)
            outputs.append(at)
        return torch.stack(outputs, 1)

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """The output of one step, from the weighted input and the output of the step before."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The sizes and the direction."""
        hidden = self.weight_hh_l0.shape[1]
        return f"{self.weight_ih_l0.shape[1]}, {hidden}" + (", reverse" if self.reverse else "")


class RNNOfAny(_Stepped):
    """An RNN with any activation, the child "activation"."""

    activation: nn.Module

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """The output of one step."""
        output: Tensor = self.activation(projected + F.linear(state, self.weight_hh_l0))
        return output


class GRUResetBefore(_Stepped):
    """A GRU that resets its state before the product with the recurrent weights."""

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """The output of one step."""
        hidden = state.shape[-1]
        gates = projected[:, : 2 * hidden] + F.linear(state, self.weight_hh_l0[: 2 * hidden])
        r, z = gates.sigmoid().chunk(2, 1)
        new = projected[:, 2 * hidden :] + F.linear(r * state, self.weight_hh_l0[2 * hidden :])
        return (1 - z) * new.tanh() + z * state


class MultiHeadAttention(nn.Module):
    """Self-attention over (N, T, features) with a module for each product."""

    def __init__(
        self, query: nn.Linear, key: nn.Linear, value: nn.Linear, out: nn.Linear, heads: int
    ) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out, self.heads = query, key, value, out, heads

    def forward(self, x: Tensor) -> Tensor:
        """The attended values."""
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result

    def extra_repr(self) -> str:
        """The number of heads."""
        return f"heads={self.heads}"
