"""A picture before and after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diptych.filters.target import Target
from diptych.model.layers import Array, PadMode

__all__ = ["Pair", "extended"]

NUMPY_PAD: dict[PadMode, str] = {
    "zero": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "wrap": "wrap",
}


def extended(planes: Array, radius: int, mode: PadMode) -> Array:
    """(C, H, W) -> (C, H + 2 radius, W + 2 radius), by the edge mode."""
    sides = ((0, 0), (radius, radius), (radius, radius))
    result: Array = np.pad(planes, sides, mode=NUMPY_PAD[mode])  # type: ignore[call-overload]
    return result


@dataclass(frozen=True, eq=False)
class Pair:
    """A picture before and after: float32 (C, H, W) and (C', H, W), both 0..1."""

    inputs: Array
    wanted: Array

    @classmethod
    def of(cls, target: Target, picture: Array) -> Pair:
        """The pair that `target` makes of a uint8 picture (H, W, 3) or (H, W)."""
        return cls(_planes(picture) / np.float32(255), _planes(target(picture)))

    @property
    def picture(self) -> Array:
        """The picture before, uint8 (H, W, 3) or (H, W)."""
        levels = np.rint(255 * self.inputs).astype(np.uint8)
        return levels[0] if len(levels) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.inputs.shape[1], self.inputs.shape[2]


def _planes(picture: Array) -> Array:
    planes = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    return np.ascontiguousarray(planes, dtype=np.float32)
