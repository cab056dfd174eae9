"""The magnitude sqrt(a^2 + b^2) by absolute values and rotations.

Absolute values map the plane to a quadrant. A rotation by 45 degrees puts the quadrant symmetrically around the
first axis, absolute values halve it, and so on, as in the vectoring mode of CORDIC (Volder 1959). After k
rotations every vector lies within 45 / 2^k degrees of one direction, and its magnitude is close to its component
along that direction. Each rotation costs four weights and gains 12 dB; a star of ReLUs needs twice the units
for the same gain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from diptych.filters.learning.initialisation import Samples
from diptych.model.layers import Activation, Array, Chain, Conv, Layer, Pad, PadMode

__all__ = ["Folded", "folded"]


@dataclass(frozen=True, eq=False)
class Folded:
    """The weights of a network that computes the magnitude of two linear maps.

    Attributes:
        mix: The weights of the channels, (C,), or None for one channel.
        front: The maps, (2, K).
        rotations: The number of rotations.
        last: The weights of the two values after all rotations, (1, 2).
        clamped: Whether the result is limited to 0..1.
    """

    mix: Array | None
    front: Array
    rotations: int
    last: Array
    clamped: bool = False

    @property
    def weights(self) -> int:
        """The number of weights."""
        return (0 if self.mix is None else self.mix.size) + self.front.size + 4 * self.rotations + 2

    def _kernels(self) -> list[Array]:
        """The rotation matrices, (2, 2), and the last weights, (1, 2)."""
        angles = [np.pi / 4 / 2**rotation for rotation in range(self.rotations)]
        turning = [np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) for a in angles]
        return [*turning, self.last]

    def folds(self, windows: Array) -> Array:
        """The two absolute values after all rotations, (N, 2)."""
        mixed = windows[:, 0] if self.mix is None else self.mix @ windows
        values: Array = np.abs(mixed @ self.front.T)
        for kernel in self._kernels()[:-1]:
            values = np.abs(values @ kernel.T)
        return values

    def __call__(self, windows: Array) -> Array:
        """The results (N, 1) for windows (N, C, K)."""
        values: Array = self.folds(windows) @ self.last.T
        return np.clip(values, 0, 1) if self.clamped else values

    def layers(self, radius: int, padding_mode: PadMode, copies: int = 1) -> Chain:
        """The network as layers, from 0..1 to 0..1.

        Args:
            radius: The radius of the windows.
            padding_mode: How the picture is extended.
            copies: The number of channels to which the network is applied alone.
        """
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


def folded(samples: Samples, mix: Array | None, front: Array, rotations: int, clamped: bool) -> Folded:
    """The magnitude of the maps `front`, with the least squares `last` weights for the weighted samples."""
    blank = Folded(mix, front, rotations, np.ones((1, 2)))
    roots = np.sqrt(samples.shares)
    last = np.linalg.lstsq(blank.folds(samples.windows) * roots, samples.targets * roots, rcond=None)[0]
    return replace(blank, last=last.T, clamped=clamped)
