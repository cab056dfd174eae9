"""Lengths by folding: sqrt(a^2 + b^2) from absolute values and rotations.

Taking absolute values folds the plane into a quarter; turning that quarter to lie on both sides of the first
axis and taking absolute values again halves it, and so on, as CORDIC's vectoring does (Volder 1959). After k
turns every vector lies within 45/2^k degrees of one direction, and its length is nearly its share along it:
each turn costs four weights and gains 12 dB, where a star of ReLUs doubles its units for that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from diptych.filters.learning.initialisation import Samples
from diptych.model.layers import Activation, Array, Chain, Conv, Layer, Pad, PadMode

__all__ = ["Folded", "folded"]


@dataclass(frozen=True, eq=False)
class Folded:
    """The length of the two maps `front` (2, K) of a window whose channels `mix` (C,) makes one.

    `last` (1, 2) weighs what is left after the turns.
    """

    mix: Array | None
    front: Array
    turns: int
    last: Array
    clamped: bool = False

    @property
    def weights(self) -> int:
        """How many numbers there are."""
        return (0 if self.mix is None else self.mix.size) + self.front.size + 4 * self.turns + 2

    def _kernels(self) -> list[Array]:
        """The turns, (2, 2), and the last direction, (1, 2)."""
        angles = [np.pi / 4 / 2**turn for turn in range(self.turns)]
        turning = [np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) for a in angles]
        return [*turning, self.last]

    def folds(self, windows: Array) -> Array:
        """The two absolute values after all turns, (N, 2)."""
        mixed = windows[:, 0] if self.mix is None else self.mix @ windows
        values: Array = np.abs(mixed @ self.front.T)
        for kernel in self._kernels()[:-1]:
            values = np.abs(values @ kernel.T)
        return values

    def __call__(self, windows: Array) -> Array:
        """(N, C, K) -> (N, 1)."""
        values: Array = self.folds(windows) @ self.last.T
        return np.clip(values, 0, 1) if self.clamped else values

    def layers(self, radius: int, padding_mode: PadMode, copies: int = 1) -> Chain:
        """As layers, from 0..1 to 0..1; `copies`: the same for each of so many channels, apart."""
        side, fold = 2 * radius + 1, Activation("abs")
        layers: list[Layer] = [] if self.mix is None else [Conv(_kernel(self.mix[None, :, None, None]))]
        layers.append(Pad(((radius, radius),) * 2, padding_mode))
        *turning, last = (kernel[:, :, None, None] for kernel in self._kernels())
        kernels = (self.front.reshape(2, 1, side, side), *turning)
        layers += [Conv(_kernel(kernel, copies), groups=copies, activation=fold) for kernel in kernels]
        clamp = Activation("clamp") if self.clamped else Activation()
        return Chain((*layers, Conv(_kernel(last, copies), groups=copies, activation=clamp)))


def _kernel(values: Array, copies: int = 1) -> Array:
    return np.ascontiguousarray(np.tile(values, (copies, 1, 1, 1)), dtype=np.float32)


def folded(samples: Samples, mix: Array | None, front: Array, turns: int, clamped: bool) -> Folded:
    """The folded length of `front`'s maps, its last weights those that err least, relative to the pictures."""
    blank = Folded(mix, front, turns, np.ones((1, 2)))
    roots = np.sqrt(samples.shares)
    last = np.linalg.lstsq(blank.folds(samples.windows) * roots, samples.targets * roots, rcond=None)[0]
    return replace(blank, last=last.T, clamped=clamped)
