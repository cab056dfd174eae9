"""The colours of paper and ink in figures and pages, light and dark."""

from __future__ import annotations

__all__ = ["DARK_INK", "DARK_PAPER", "INK", "MUTED", "PAPER", "PHOTOGRAPHS", "channels"]

PAPER, INK, MUTED = "#fdfcfa", "#23211d", "#676259"
DARK_PAPER, DARK_INK = "#211f1c", "#ece8e0"

PHOTOGRAPHS = "diptych-photographs"
"""The PNG text key under which a figure records where photographs are: "left top right bottom; ..." in pixels."""


def channels(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of "#rrggbb", 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
