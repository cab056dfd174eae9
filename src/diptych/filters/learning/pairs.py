"""A picture with the filter's result for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diptych.filters.planes import extended, picture_of, planes_of
from diptych.filters.target import Target
from diptych.model.layers import Array

__all__ = ["Pair", "extended"]


@dataclass(frozen=True, eq=False)
class Pair:
    """A picture before and after the filter.

    Attributes:
        inputs: Before, float32 (C, H, W) in 0..1.
        target: After, float32 (C', H, W) in 0..1.
    """

    inputs: Array
    target: Array

    @classmethod
    def of(cls, target: Target, picture: Array) -> Pair:
        """The pair of a uint8 picture, (H, W, 3) or (H, W), and the filter's result for it."""
        return cls(planes_of(picture) / np.float32(255), planes_of(target(picture)))

    @property
    def picture(self) -> Array:
        """The picture before, uint8 (H, W, 3) or (H, W)."""
        return np.ascontiguousarray(picture_of(np.rint(255 * self.inputs).astype(np.uint8)))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.inputs.shape[1], self.inputs.shape[2]
