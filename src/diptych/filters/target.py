"""`Target`: a filter as a function from an 8-bit picture to values in 0..1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diptych.model.layers import Array, PadMode

__all__ = ["Function", "Target"]

# uint8 (H, W, 3) or (H, W) -> uint8 levels, or floats in levels (0..255, may run over), of the same size
Function = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Target:
    """A filter, and what is known about it.

    Attributes:
        name: What it is called in reports.
        function: From uint8 (H, W, 3) or (H, W) to levels in 0..255 of the same size: uint8, or floats that may
            run over.
        reference: The same filter in a public library, or where it comes from.
        channels: The numbers of input and output channels, 3 (RGB) or 1 each.
        edge: How the filter extends a picture beyond its border.
        radius: How far an output pixel depends on the input, in pixels; None where unknown.
        per_channel: The channels are treated alike, each alone.
        rounded: Results are whole levels, so an imitation cannot be distinguished from it within half a level.
        grey: The weights of `preprocessing.Grey` by which the filter makes colour grey before anything else; ""
            where it does not.
        left_alone: The width in pixels of a border that stays unchanged.
    """

    name: str
    function: Function
    reference: str
    channels: tuple[int, int] = (3, 1)
    edge: PadMode = "replicate"
    radius: int | None = None
    per_channel: bool = False
    rounded: bool = False
    grey: str = ""
    left_alone: int = 0

    def __call__(self, image: Array) -> Array:
        """Filters a picture.

        Args:
            image: Uint8, (H, W, 3) for three input channels, (H, W) for one.

        Returns:
            Float32 in 0..1, (H, W, 3) or (H, W), clipped but not rounded.
        """
        values = np.asarray(self.function(image))
        levels: Array = np.clip(values.astype(np.float32) / np.float32(255), 0, 1)
        return levels
