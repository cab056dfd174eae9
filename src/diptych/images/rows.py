"""A picture that is read a few rows at a time, or that had to be read whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["PEAKS", "Kept", "StreamSource", "Whole", "over_white"]

Array = NDArray[Any]

# The highest level of each dtype a picture may have; numbers with a fraction go from 0 to 1.
PEAKS: dict[np.dtype[Any], int | None] = {
    np.dtype(np.uint8): 255,
    np.dtype(np.uint16): 65535,
    np.dtype(np.float32): None,
}


@dataclass(frozen=True)
class Kept:
    """What of a file, beside its pixels, is worth keeping in another.

    `resolution`: pixels an inch, across and down. `tile`: (height, width) of a TIFF's tiles.
    """

    icc_profile: bytes | None = None
    resolution: tuple[float, float] | None = None
    compressed: bool = False
    tile: tuple[int, int] | None = None


class StreamSource(Protocol):
    """A picture to read from: uint8, uint16 or float32, with 1 (grey) or 3 (RGB) channels.

    `streams`: whether memory stays small however large the picture is. `remarks`: what had to be decided.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]
    streams: bool
    remarks: tuple[str, ...]
    kept: Kept

    def rows(self, top: int, bottom: int) -> Array:
        """Rows top ... bottom - 1 as (rows, width, channels); in order is fastest, any order works.

        Raises `ImageError` where the file turns out damaged.
        """

    def close(self) -> None:
        """Lets go of the file."""


@dataclass
class Whole:
    """A picture in memory, (H, W) or (H, W, channels)."""

    pixels: Array
    remarks: tuple[str, ...] = ()
    kept: Kept = field(default_factory=Kept)
    streams: bool = False

    def __post_init__(self) -> None:
        if self.pixels.ndim == 2:
            self.pixels = self.pixels[..., None]
        self.height, self.width, self.channels = self.pixels.shape
        self.dtype = self.pixels.dtype

    def rows(self, top: int, bottom: int) -> Array:
        """A view of the rows."""
        return self.pixels[top:bottom]

    def close(self) -> None:
        """Nothing is open."""


def over_white(colour: Array, alpha: Array, premultiplied: bool = False) -> Array:
    """Colour (..., C) over white in proportion to `alpha` (..., 1), in the same dtype, rounded to nearest.

    `premultiplied`: the colour is multiplied by its alpha already.
    """
    peak = PEAKS[colour.dtype]
    if peak is None:
        blended: Array = (colour if premultiplied else colour * alpha) + (1 - alpha)
        return blended
    a = alpha.astype(np.uint64)
    if premultiplied:
        return np.minimum(colour + (peak - a), peak).astype(colour.dtype)
    return ((colour * a + (peak - a) * peak + peak // 2) // peak).astype(colour.dtype)


def whole_rows(source: StreamSource) -> Array:
    """Returns all rows of a source, (height, width, channels)."""
    return source.rows(0, source.height)
