"""The scale of pictures of floats: 0-1, as filters take them, or 0-255."""

from __future__ import annotations

import numpy as np

from diptych.errors import ImageError
from diptych.images.pixels import OutOfRange, full_scale
from diptych.images.streams import StreamSource

__all__ = ["scale_of"]

_ROWS = 64  # rows read at a time


def scale_of(source: StreamSource, name: str) -> tuple[int, tuple[str, ...]]:
    """Finds the value that stands for white in a picture of floats. The picture is read once for it.

    Args:
        source: The picture.
        name: Its name for messages.

    Returns:
        1 or 255, and a remark where it is 255.

    Raises:
        ImageError: The picture holds NaN or infinity, or values on neither scale.
    """
    lowest, highest = np.inf, -np.inf
    for top in range(0, source.height, _ROWS):
        rows = source.rows(top, min(top + _ROWS, source.height))
        if not np.isfinite(rows).all():
            raise ImageError(
                f"{name} holds values that are not numbers (NaN or infinite), the first in rows {top} to "
                f"{top + len(rows) - 1}, which a filter would spread; replace them first"
            )
        lowest, highest = min(lowest, float(rows.min())), max(highest, float(rows.max()))
    try:
        full = full_scale(lowest, highest)
    except OutOfRange as error:
        raise ImageError(f"{name} cannot be filtered: {error}; bring it to 0-1") from error
    return full, (() if full == 1 else (f"fractions from {lowest:.4g} to {highest:.4g}, taken as 0-255",))
