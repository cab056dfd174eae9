"""What a rule needs to read one operation of a PyTorch graph: its name, its input, and access to weights."""

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
    """Copies tensors to arrays; a tensor used several times gives the same array."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Tensor, Array]] = {}

    def array(self, tensor: Tensor, name: str) -> Array:
        """The array of a tensor.

        Args:
            tensor: A weight.
            name: Of the operation, for messages.

        Returns:
            A float16, float32 or float64 array; other types, such as bfloat16, become float32.

        Raises:
            UnsupportedLayer: The tensor does not hold plain numbers.
        """
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if key not in self._known:
            if tensor.is_meta or tensor.is_quantized or tensor.is_complex() or tensor.layout != torch.strided:
                raise refusal(name, f"its weights are {tensor.dtype} on {tensor.device}, not plain numbers")
            plain = tensor.detach().cpu()
            if plain.dtype not in (torch.float16, torch.float32, torch.float64):
                plain = plain.to(torch.float32)
            # Keeping the tensor makes sure that no other tensor gets its address.
            self._known[key] = tensor, np.array(plain.numpy())
        return self._known[key][1]


class TorchSite:
    """One operation applied to one value.

    Attributes:
        graph: The graph to which the layers are added.
        weights: The arrays of the tensors read so far.
        name: Of the operation, for messages.
        value: Its input.
    """

    def __init__(self, graph: ValueGraph, weights: Weights, name: str, value: Value) -> None:
        self.graph, self.weights, self.name, self.value = graph, weights, name, value

    @property
    def shape(self) -> Shape | None:
        """The shape of the input, with `BATCH` as the batch size; None if no example was given."""
        return self.value.shape

    def known_shape(self) -> Shape:
        """The shape of the input, for an operation that cannot be read without it.

        Raises:
            ModelError: No example was given.
        """
        if self.shape is None:
            raise ModelError(
                f"{self.name} depends on the size of its input, which is not known: give from_torch an "
                "example=batch"
            )
        return self.shape

    def array(self, tensor: Tensor | None) -> Array | None:
        """The array of a weight that may be absent."""
        return None if tensor is None else self.weights.array(tensor, self.name)

    def weight(self, tensor: Tensor) -> Array:
        """The array of a weight."""
        return self.weights.array(tensor, self.name)

    def refuse(self, reason: str) -> NoReturn:
        """Raises `UnsupportedLayer` with the name of this operation."""
        raise refusal(self.name, reason)

    def reshaped(self, new: Sequence[int]) -> list[Operation]:
        """The layers that reshape the input to `new`, which includes the batch axis."""
        sizes = list(new)
        if self.shape is None:
            if sizes and sizes[0] in (BATCH, -1) and (sizes[0] == BATCH or -1 not in sizes[1:]):
                return [Flatten()] if len(sizes) == 2 else [Reshape(tuple(sizes[1:]))]
            self.known_shape()
        return reshape_layers(self.known_shape(), sizes, self.name)

    def pads(self, padding: Any, rank: int) -> Pads:
        """A symmetric padding as (low, high) for each axis."""
        return tuple((n, n) for n in numbers(padding, rank))


def numbers(value: Any, rank: int) -> tuple[int, ...]:
    """One number for each of `rank` axes, from a sequence or from one number for all."""
    values = tuple(int(v) for v in value) if isinstance(value, tuple | list) else (int(value),)
    return values * rank if len(values) == 1 else values
