"""What is to be imitated: a filter as a function from an 8-bit picture to values in 0..1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diptych.model.layers import Array, PadMode

__all__ = ["Function", "Target"]

# uint8 (H, W, 3) or (H, W) -> uint8 levels, or floats in levels (0..255, may run over), (H, W, 3) or (H, W).
Function = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Target:
    """A filter, and what is known about it.

    `channels`: how many go in and come out, 3 or 1 each; colour is RGB. `edge`: what the reference takes the
    pixels beyond the border to be. `radius`: how far, in pixels, an output depends on the input, None where
    that is not known. `per_channel`: the channels are treated alike and apart. `rounded`: the reference
    gives whole levels, so that no imitation can be told from it by less than half a level. `grey`: it works on
    grey pictures, and makes colour grey first, in whole levels, by these weights of `preprocessing.Grey`.
    `left_alone`: so many pixels along the border stay as they are.
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
        """The filtered picture, float32 in 0..1, unrounded where the reference is.

        `image`: uint8, (H, W, 3) for three input channels, (H, W) for one.
        """
        values = np.asarray(self.function(image))
        levels: Array = np.clip(values.astype(np.float32) / np.float32(255), 0, 1)
        return levels
