"""A trace: the output of every layer, by path, in the order of computation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from diptych.model.layers import Array

__all__ = ["Trace"]


class Trace(Mapping[str, Array]):
    """Maps the path of every layer, such as "0" or "3.1", to its output, float32 (N, C, H, W) or (N, features).

    The layers inside a container come before the container.

    Args:
        activations: The outputs by path, in the order of computation.
        batch: The input, which is the attribute `input`.
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
        """The output of the last top-level layer; the input if there are no layers."""
        top = [path for path in self._activations if "." not in path]
        return self._activations[top[-1]] if top else self.input
