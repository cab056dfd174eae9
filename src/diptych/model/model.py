"""A model: layers with their weights, and what travels with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from diptych.errors import ModelError
from diptych.model.layers import Array, Chain, Layer, Softmax, walk
from diptych.preprocessing import Preprocessing

__all__ = ["Model", "Source"]


@dataclass(frozen=True)
class Source:
    """Where a model came from: file format, framework and its version, and what the reader had to say."""

    format: str = ""
    framework: str = ""
    version: str = ""
    warnings: tuple[str, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Model:
    """Layers, and the record that makes their numbers mean something.

    `input_shape` is one sample's shape without the batch axis, such as (3, 32, 32), with None for a free
    size. `trained` is False for seeded initial weights, None where a file does not say. `notes` holds
    JSON-able facts: accuracy, confusion matrix, how it was trained.
    """

    layers: Chain
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] | None = None
    input_shape: tuple[int | None, ...] | None = None
    trained: bool | None = None
    name: str = ""
    source: Source = Source()
    notes: Mapping[str, Any] = field(default_factory=dict)

    def walk(self) -> Iterator[tuple[str, Layer]]:
        """Every layer with its path, containers before their children."""
        return walk(self.layers)

    def weights(self) -> dict[str, Array]:
        """Every weight by its path and field, such as "0.weight"; a shared layer appears at each place."""
        return {
            f"{path}.{name}": value for path, layer in self.walk() for name, value in layer.arrays.items()
        }

    @property
    def parameters(self) -> int:
        """The number of weights, shared ones counted once."""
        return sum({id(value): value.size for value in self.weights().values()}.values())

    @property
    def gives_probabilities(self) -> bool:
        """Whether the last layer is a softmax, so that outputs are probabilities by construction."""
        last: Layer = self.layers
        while isinstance(last, Chain) and last.layers:
            last = last.layers[-1]
        return isinstance(last, Softmax) and not last.log

    def with_(self, **changes: Any) -> Model:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def check(self) -> None:
        """Raises `ModelError` where a weight is NaN or infinite: whatever it computed would be meaningless."""
        for where, value in self.weights().items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                bad = int(np.count_nonzero(~np.isfinite(value)))
                raise ModelError(
                    f"the weight {where} of {self.name or 'the model'} holds {bad} NaN or infinite values of "
                    f"{value.size}; take an earlier checkpoint"
                )
