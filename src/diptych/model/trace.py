"""A trace: the output of every layer, by path, in the order of computation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from diptych import display
from diptych.errors import UsageError
from diptych.model.layers import Array

__all__ = ["Activation", "Trace"]


class Activation(np.ndarray):
    """The output of a layer, an array like any other, that can be drawn."""

    def plot(self, sample: int = 0) -> Any:
        """Draws the channels of a sample.

        Args:
            sample: Its number in the batch.

        Returns:
            A `matplotlib.figure.Figure` of at most 16 channels, each in the colours of its own range.

        Raises:
            UsageError: There is no such sample.
        """
        if not 0 <= sample < len(self):
            raise UsageError(f"there are {len(self)} samples, numbered from 0; got {sample}")
        maps = display.maps_of(np.asarray(self)[sample : sample + 1])[:16]
        columns = min(len(maps), 8)
        rows = -(-len(maps) // columns)
        figure = display.figure(1.6 * columns, 1.8 * rows)
        for number, each in enumerate(maps):
            axes = figure.add_subplot(rows, columns, number + 1)
            axes.imshow(each, interpolation="nearest", aspect="auto" if len(each) == 1 else "equal")
            axes.set_title(str(number), fontsize=8)
            axes.axis("off")
        return figure

    def _repr_html_(self) -> str:
        if self.dtype.kind not in "fiu" or not self.size or not 2 <= self.ndim <= 4:
            return display.paragraph(repr(np.asarray(self)))
        shape = " × ".join(map(str, self.shape))
        return display.paragraph(f"{shape}, {self.dtype}") + display.strip(
            np.asarray(self), f"activations {shape}"
        )


class Trace(Mapping[str, Activation]):
    """Maps the path of every layer, such as "0" or "3.1", to its output, float32 (N, C, H, W) or (N, features).

    The layers inside a container come before the container.

    Args:
        activations: The outputs by path, in the order of computation.
        batch: The input, which is the attribute `input`.
    """

    def __init__(self, activations: Mapping[str, Array], batch: Array) -> None:
        self._activations = {path: value.view(Activation) for path, value in activations.items()}
        self.input = batch

    def __getitem__(self, path: str) -> Activation:
        try:
            return self._activations[path]
        except KeyError:
            raise KeyError(
                f"there is no layer {path!r}; the layers are {', '.join(self._activations)}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._activations)

    def __len__(self) -> int:
        return len(self._activations)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{path}: {value.shape}" for path, value in self.items())
        return f"Trace({shapes})"

    @property
    def output(self) -> Array:
        """The output of the last top-level layer; the input if there are no layers."""
        top = [path for path in self._activations if "." not in path]
        return self._activations[top[-1]] if top else self.input

    def _repr_html_(self) -> str:
        rows = [
            (path, " × ".join(map(str, value.shape)), f"{value.min():.4g} … {value.max():.4g}")
            for path, value in self.items()
        ]
        return display.table(("layer", "output", "range"), rows)
