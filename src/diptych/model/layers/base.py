"""What every layer defines about itself, on one page of its own.

Axis order is PyTorch's: activations are (N, C, *spatial), kernels (out, in / groups, *kernel) in
cross-correlation orientation. Spatial tuples follow the array's own axes, so (height, width) for images.
Padding is a pair (low, high) for every spatial axis, because Flux's `SamePad` is not symmetric.
Weights are float32 unless a file held another float type; engines compute in float32.

A layer knows nothing of other engines or of file formats: each of these holds a table that lowers layers.
Every method below that is abstract must be written for a new layer; nothing has a default that could be wrong.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diptych.model.layers.receptive import Field

__all__ = ["Array", "Layer", "Pads", "Shape", "by", "rounded"]

Array: TypeAlias = NDArray[Any]
Pads: TypeAlias = tuple[tuple[int, int], ...]
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Layer(ABC):
    """The base of every layer: a frozen dataclass that holds its weights and hyper-parameters.

    `check` and `output_shape` raise errors whose text is completed by the caller, who knows the layer's path:
    "layer 3.1 (Conv): " and "layer 3.1 (Conv) " are put in front.
    """

    @property
    def children(self) -> tuple[Layer, ...]:
        """The layers directly inside this one, in the order of their path indices."""
        return ()

    def with_children(self, children: Sequence[Layer]) -> Layer:
        """A copy with other layers inside; a layer without children is given back as it is."""
        if children:
            raise TypeError(f"a {type(self).__name__} has no layers inside")
        return self

    @property
    def arrays(self) -> dict[str, Array]:
        """This layer's own weights by field name, children's excluded, absent ones left out."""
        named = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in named if isinstance(value, np.ndarray)}

    @property
    def label(self) -> str:
        """The layer in one ASCII line, such as "Conv 3x3, 1 -> 16, stride 2, relu"."""
        return ", ".join(part for part in self.describe() if part)

    def __call__(self, x: Array) -> Array:
        """The layer in NumPy: computed in float64, rounded to a C-contiguous float32 array.

        Args:
            x: The input, (N, C, *spatial) or any other shape that `output_shape` takes.

        Returns:
            A float32 array of the shape `output_shape(x.shape)`.
        """
        return rounded(self.compute(x.astype(np.float64)))

    @abstractmethod
    def check(self) -> None:
        """Checks that the fields fit each other, which no type can say.

        Raises:
            ModelError: A field contradicts another or is out of range; the text begins with the field.
        """

    @abstractmethod
    def describe(self) -> list[str]:
        """The parts of `label`: kind and sizes, then whatever differs from the default. Empty ones are dropped."""

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of `shape`, both with the batch axis.

        Raises:
            ShapeError: The layer does not take that shape; the text is a predicate, such as "takes 3 channels".
        """

    def mixes_samples(self, shape: Shape) -> bool:
        """Whether a sample's output depends on the other samples of a batch of `shape`, as batch statistics do."""
        return False

    @abstractmethod
    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        """How much of the model's input one value behind this layer depends on.

        Args:
            field: That of one value in front of the layer; it never sees the whole input already.
            entry: The shape in front of the layer, None where it is not known.
            result: The shape behind it, None where it is not known.

        Returns:
            The field behind the layer; None where it cannot be told.
        """

    @abstractmethod
    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        """The multiply-adds of convolutions and matrix products; other arithmetic counts 0.

        Args:
            entry: The shape in front of the layer.
            result: The shape behind it.
        """

    @abstractmethod
    def compute(self, x: Array) -> Array:
        """The formula of the layer, without its activation, on a float64 array."""


def rounded(x: Array) -> Array:
    """The float32 array that the next layer sees."""
    return np.ascontiguousarray(x, dtype=np.float32)


def by(sizes: Any) -> str:
    """(3, 5) -> "3x5"."""
    return "x".join(map(str, sizes))
