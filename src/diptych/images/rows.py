"""Pictures that are read a few rows at a time, or that had to be read whole."""

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
    """What a filtered file keeps of its source beside the pixels.

    Attributes:
        icc_profile: The colour profile, or None.
        resolution: Pixels an inch, across and down, or None.
        compressed: Whether a TIFF is compressed.
        tile: The (height, width) of a TIFF's tiles, or None for strips.
    """

    icc_profile: bytes | None = None
    resolution: tuple[float, float] | None = None
    compressed: bool = False
    tile: tuple[int, int] | None = None


class StreamSource(Protocol):
    """A picture to read from.

    Attributes:
        height: Rows.
        width: Columns.
        channels: 1 for grey, 3 for RGB.
        dtype: Uint8, uint16 or float32.
        streams: Whether memory stays small however large the picture is.
        remarks: What had to be decided.
        kept: What a filtered file keeps of this one.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]
    streams: bool
    remarks: tuple[str, ...]
    kept: Kept

    def rows(self, top: int, bottom: int) -> Array:
        """Reads rows. Any order works; from top to bottom is fastest.

        Args:
            top: The first row.
            bottom: The row after the last.

        Returns:
            The rows, (bottom - top, width, channels).

        Raises:
            ImageError: The file turns out to be damaged.
        """

    def close(self) -> None:
        """Closes the file."""


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
        """Returns a view of the rows."""
        return self.pixels[top:bottom]

    def close(self) -> None:
        """Does nothing: no file is open."""


def over_white(colour: Array, alpha: Array, premultiplied: bool = False) -> Array:
    """Blends colour over white.

    Args:
        colour: Uint8, uint16 or float32, (..., C).
        alpha: The opacity, of the same dtype, (..., 1).
        premultiplied: Whether the colour is multiplied by its alpha already.

    Returns:
        The blended colour, of the same dtype, rounded to nearest.
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
