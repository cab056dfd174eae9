"""Where in a picture: a part of it, and how far around a pixel a filter looks."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Halo", "Region"]


@dataclass(frozen=True)
class Region:
    """The pixels of rows top ... bottom - 1 and columns left ... right - 1, counted in the whole picture."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    def grown(self, halo: Halo) -> Region:
        """With everything that its pixels depend on; it may stick out of the picture."""
        return Region(
            self.top - halo.top, self.left - halo.left, self.bottom + halo.bottom, self.right + halo.right
        )

    def common(self, other: Region) -> Region:
        """What both hold; of height or width 0 where they do not meet."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Region(top, left, max(top, bottom), max(left, right))

    def clipped(self, size: tuple[int, int]) -> Region:
        """What of it lies in a picture of (height, width)."""
        return self.common(Region(0, 0, *size))

    def snapped(self, cell: int, size: tuple[int, int]) -> Region:
        """Enlarged to whole squares of a grid of `cell` pixels that begins at the picture's first pixel."""
        return Region(
            self.top // cell * cell,
            self.left // cell * cell,
            -(-self.bottom // cell) * cell,
            -(-self.right // cell) * cell,
        ).clipped(size)


@dataclass(frozen=True)
class Halo:
    """How many pixels above, left of, below and right of a pixel its filtered value depends on."""

    top: int
    left: int
    bottom: int
    right: int
