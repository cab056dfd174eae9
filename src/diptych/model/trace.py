"""A trace: what every layer gave, by path, in the order of the computation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from diptych.model.layers import Array

__all__ = ["Trace"]


class Trace(Mapping[str, Array]):
    """Layer path ("0", "3.1") -> that layer's float32 output, (N, C, H, W) or (N, features).

    Every layer is there, those inside containers too, each before the container that holds it.
    """

    def __init__(self, activations: Mapping[str, Array], batch: Array) -> None:
        self._activations = dict(activations)
        self.input = batch

    def __getitem__(self, path: str) -> Array:
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
        """What the last top-level layer gave; the input where there is no layer."""
        top = [path for path in self._activations if "." not in path]
        return self._activations[top[-1]] if top else self.input
