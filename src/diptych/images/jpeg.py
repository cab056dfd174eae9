"""JPEG decoding that refuses what libjpeg only warns about.

Pillow and OpenCV return a picture where the entropy-coded data are damaged or end too early, partly grey or shifted;
libjpeg-turbo reports that as a warning, which simplejpeg turns into an error.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["as_image", "decode", "may_hold", "plain_header"]

_BLOCKS_PER_BYTE = 8  # a block of 8 x 8 samples takes at least one bit
_SPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}
_ONLY_PIXELS = (0xE0, 0xFE, 0xDB, 0xC4, 0xDD)  # segments JFIF, comment, and three kinds of tables
_FRAMES = (0xC0, 0xC1, 0xC2)  # of sequential and progressive pictures


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
    pixels = _decoded(data, _SPACES[channels])
    return pixels[..., 0] if channels == 1 else pixels


def _decoded(data: bytes, space: Any) -> NDArray[np.uint8]:
    import simplejpeg

    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, space, fastdct=False, fastupsample=False)
    return pixels


def as_image(data: bytes, channels: int) -> Image.Image:
    """Decodes a JPEG file strictly, as a Pillow image.

    Pillow stores RGB with a fourth byte. Where pyarrow is loaded, as in jobs, the decoder writes the pixels so, and
    they are not copied; it saves a twelfth of decoding and resizing a photograph.

    Args:
        data: The file.
        channels: 1 for grey, 3 for RGB.

    Raises:
        ValueError: As `decode` does.
    """
    arrow: Any = sys.modules.get("pyarrow")
    if channels != 3 or arrow is None:
        return Image.fromarray(decode(data, channels))
    pixels = _decoded(data, "RGBX")
    height, width, bands = pixels.shape
    return Image.fromarrow(
        arrow.FixedSizeListArray.from_arrays(arrow.array(pixels.reshape(-1)), bands), "RGB", (width, height)
    )


def plain_header(head: bytes) -> tuple[int, int, int] | None:
    """The width, height and channels of a JPEG file that holds pixels and tables only, as most do in collections.

    Args:
        head: The file's beginning.

    Returns:
        None where `head` ends before the pixels begin, or holds EXIF data, a colour profile, or anything else that
        Pillow is to judge; also where it is damaged.
    """
    at, frame = 2, None
    while at + 10 <= len(head) and head[at] == 0xFF:
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4])
        if marker == 0xDA:  # the pixels begin
            return frame
        if marker in _FRAMES and frame is None:
            bits, channels = head[at + 4], head[at + 9]
            height, width = int.from_bytes(head[at + 5 : at + 7]), int.from_bytes(head[at + 7 : at + 9])
            if bits != 8 or channels not in (1, 3) or not height or not width:
                return None
            frame = width, height, channels
        elif marker not in _ONLY_PIXELS:
            return None
        at += 2 + length
    return None


def may_hold(length: int, width: int, height: int) -> bool:
    """Whether a file of `length` bytes can hold that many pixels (arithmetic coding may hold a few more)."""
    return width * height <= 64 * _BLOCKS_PER_BYTE * length + (1 << 20)
