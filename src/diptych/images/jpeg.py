"""JPEG decoding that refuses what libjpeg only warns about.

Pillow and OpenCV return a picture where the entropy-coded data are damaged or end too early, partly grey or shifted;
libjpeg-turbo reports that as a warning, which simplejpeg turns into an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["decode", "may_hold"]

_BLOCKS_PER_BYTE = 8  # a block of 8 x 8 samples takes at least one bit
_SPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}


def decode(data: bytes, channels: int) -> NDArray[np.uint8]:
    """Decodes a JPEG file strictly.

    Args:
        data: The file.
        channels: 1 for grey, 3 for RGB, 4 for the inks of a CMYK file as they are stored.

    Returns:
        The pixels, uint8 (H, W) for grey, else (H, W, channels).

    Raises:
        ValueError: The file is truncated or damaged.
    """
    import simplejpeg

    space: Any = _SPACES[channels]
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, space, fastdct=False, fastupsample=False)
    return pixels[..., 0] if channels == 1 else pixels


def may_hold(length: int, width: int, height: int) -> bool:
    """Whether a file of `length` bytes can hold that many pixels (arithmetic coding may hold a few more)."""
    return width * height <= 64 * _BLOCKS_PER_BYTE * length + (1 << 20)
