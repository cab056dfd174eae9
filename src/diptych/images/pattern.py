"""Pictures in place of others: a test pattern for an unreadable one, a preview for a large one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from diptych.images.picture import Picture

__all__ = ["colour_bars", "preview"]

_BARS = ((191, 191, 191), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (191, 0, 0), (0, 0, 191))


def colour_bars(name: str, reason: str, size: int = 512) -> Picture:
    """Draws colour bars, a cross and the words TEST PATTERN, so that nobody takes it for a photograph.

    The bars are those of the 75 % colour bar signal (SMPTE EG 1), in sRGB.

    Args:
        name: The name of the picture.
        reason: Why the other picture cannot be read, for the remark.
        size: Pixels a side.
    """
    bars = np.repeat(np.array(_BARS, np.uint8), -(-size // len(_BARS)), axis=0)[:size]
    image = Image.fromarray(np.broadcast_to(bars, (size, size, 3)).copy())
    draw = ImageDraw.Draw(image)
    line = max(1, size // 128)
    draw.line([(0, 0), (size, size)], fill="white", width=line)
    draw.line([(0, size), (size, 0)], fill="white", width=line)
    draw.rectangle((0, size * 0.42, size, size * 0.58), fill="black")
    font = ImageFont.load_default(size * 0.09)
    draw.text((size / 2, size / 2), "TEST PATTERN", fill="white", font=font, anchor="mm")
    return Picture(np.asarray(image), name, (f"a test pattern in its place: {reason}",))


def preview(pixels: NDArray[np.uint8], longest: int = 640) -> NDArray[np.uint8]:
    """Reduces a picture for a page.

    Args:
        pixels: Uint8, (H, W, 3) or (H, W).
        longest: The most pixels a side.

    Returns:
        The reduced picture, or the same array if it is small enough.
    """
    if max(pixels.shape[:2]) <= longest:
        return pixels
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(image)
