"""A model: layers with their weights, preprocessing, class names and other facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from diptych import display
from diptych.errors import ModelError
from diptych.model.layers import Array, Chain, Layer, Softmax, walk
from diptych.model.layers.whole import WholeGraph
from diptych.preprocessing import Preprocessing

__all__ = ["Model", "Source"]


STATISTICS = ("mean", "variance")
"""The arrays of norms that are measured in training, and not trained."""


@dataclass(frozen=True)
class Source:
    """Where a model came from.

    Attributes:
        format: Of the file, such as "ONNX".
        framework: The program that made the model, such as "Flux" or "pytorch".
        version: Of the framework.
        warnings: What was uncertain in reading the file.
        extras: Other values in the file, such as the epoch or losses.
    """

    format: str = ""
    framework: str = ""
    version: str = ""
    warnings: tuple[str, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Model:
    """Layers with their weights, and what is needed to use them.

    Attributes:
        layers: The outermost container.
        preprocessing: The recipe from pixels to the input, or None.
        classes: A name for each output, or None.
        input_shape: Of one sample, without the batch axis, such as (3, 32, 32); None for a free size, or for the
            whole if unknown.
        trained: False for initial weights, None if unknown.
        name: May be empty.
        source: Where the model came from.
        notes: Facts that JSON can hold, such as the accuracy or how the model was trained.
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
        """Yields (path, layer) for every layer, containers before their children."""
        return walk(self.layers)

    def _repr_html_(self) -> str:
        rows = [
            (path, layer.label, f"{sum(a.size for a in layer.arrays.values()):,}")
            for path, layer in self.walk()
        ]
        return display.heading(self.name or "a model") + display.table(
            ("path", "layer", "weights"), rows, 400
        )

    def weights(self) -> dict[str, Array]:
        """The weights by path and field, such as "0.weight". Those of a shared layer occur under each of its paths."""
        return {
            f"{path}.{name}": value for path, layer in self.walk() for name, value in layer.arrays.items()
        }

    @property
    def parameters(self) -> int:
        """The number of weights, counting shared ones once; running statistics are not trained, and not counted."""
        return self._count(trained=True)

    @property
    def statistics(self) -> int:
        """The number of running means and variances of norms."""
        return self._count(trained=False)

    def _count(self, trained: bool) -> int:
        sizes = {
            id(value): value.size
            for _, layer in self.walk()
            for name, value in layer.arrays.items()
            if (name in STATISTICS) != trained
        }
        return sum(sizes.values())

    @property
    def gives_probabilities(self) -> bool:
        """Whether the last layer is a softmax, so that the outputs are probabilities."""
        last: Layer = self.layers
        while isinstance(last, Chain) and last.layers:
            last = last.layers[-1]
        return (isinstance(last, Softmax) and not last.log) or (
            isinstance(last, WholeGraph) and last.probable
        )

    @property
    def gives_features(self) -> bool:
        """Whether the outputs are features, and there are no classes, as the note "output" says."""
        return self.classes is None and self.notes.get("output") == "features"

    def with_(self, **changes: Any) -> Model:
        """A copy with some fields replaced; weights are shared."""
        return replace(self, **changes)

    def check(self) -> None:
        """Checks that all weights are finite.

        Raises:
            ModelError: A weight is NaN or infinite.
        """
        for where, value in self.weights().items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                bad = int(np.count_nonzero(~np.isfinite(value)))
                raise ModelError(
                    f"the weight {where} of {self.name or 'the model'} holds {bad} NaN or infinite values of "
                    f"{value.size}; take an earlier checkpoint"
                )
