"""Where one operation of a PyTorch graph is read: its name, its input, and the weights seen so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from diptych.errors import ModelError
from diptych.formats.graph import BATCH, Operation, Shape, Value, ValueGraph, refusal, reshape_layers
from diptych.model.layers import Array, Flatten, Pads, Reshape

__all__ = ["TorchSite", "Weights", "numbers"]


class Weights:
    """Tensors as arrays: a copy each, the same one wherever the same tensor is used."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Tensor, Array]] = {}

    def array(self, tensor: Tensor, name: str) -> Array:
        """A float16, 32 or 64 array; bfloat16 becomes float32, which holds it exactly."""
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if key not in self._known:
            if tensor.is_meta or tensor.is_quantized or tensor.is_complex() or tensor.layout != torch.strided:
                raise refusal(
                    name, f"its weights are not plain numbers but {tensor.dtype} on {tensor.device}"
                )
            plain = tensor.detach().cpu()
            if plain.dtype not in (torch.float16, torch.float32, torch.float64):
                plain = plain.to(torch.float32)
            self._known[key] = tensor, np.array(plain.numpy())  # the tensor is kept, so that its place is
        return self._known[key][1]


class TorchSite:
    """One operation applied to one value."""

    def __init__(self, graph: ValueGraph, weights: Weights, name: str, value: Value) -> None:
        self.graph, self.weights, self.name, self.value = graph, weights, name, value

    @property
    def shape(self) -> Shape | None:
        """The shape of the input, its batch axis `BATCH`; None where no example was given."""
        return self.value.shape

    def known_shape(self) -> Shape:
        """The same, where the operation cannot be read without."""
        if self.shape is None:
            raise ModelError(
                f"{self.name} depends on the size of its input, which is not known: give from_torch an "
                "example=batch"
            )
        return self.shape

    def array(self, tensor: Tensor | None) -> Array | None:
        """A weight that may be absent."""
        return None if tensor is None else self.weights.array(tensor, self.name)

    def weight(self, tensor: Tensor) -> Array:
        """A weight."""
        return self.weights.array(tensor, self.name)

    def refuse(self, reason: str) -> NoReturn:
        """Raises `UnsupportedLayer` for this operation."""
        raise refusal(self.name, reason)

    def reshaped(self, new: Sequence[int]) -> list[Operation]:
        """A reshape to `new`, the batch axis included."""
        sizes = list(new)
        if self.shape is None:
            if sizes and sizes[0] in (BATCH, -1) and (sizes[0] == BATCH or -1 not in sizes[1:]):
                return [Flatten()] if len(sizes) == 2 else [Reshape(tuple(sizes[1:]))]
            self.known_shape()
        return reshape_layers(self.known_shape(), sizes, self.name)

    def pads(self, padding: Any, rank: int) -> Pads:
        """A symmetric padding as pairs."""
        return tuple((n, n) for n in numbers(padding, rank))


def numbers(value: Any, rank: int) -> tuple[int, ...]:
    """One number an axis, from one for all or a sequence."""
    values = tuple(int(v) for v in value) if isinstance(value, tuple | list) else (int(value),)
    return values * rank if len(values) == 1 else values
