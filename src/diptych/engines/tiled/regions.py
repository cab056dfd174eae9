"""Regions of a picture, and the halo: the pixels around a pixel that a filter uses."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Halo", "Region"]


@dataclass(frozen=True)
class Region:
    """A rectangle of pixels: the rows [top, bottom) and the columns [left, right) of the whole picture."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    def grown(self, halo: Halo) -> Region:
        """The region with its halo; it may extend beyond the picture."""
        return Region(
            self.top - halo.top, self.left - halo.left, self.bottom + halo.bottom, self.right + halo.right
        )

    def common(self, other: Region) -> Region:
        """The intersection; its height or width is 0 if the regions do not overlap."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Region(top, left, max(top, bottom), max(left, right))

    def clipped(self, size: tuple[int, int]) -> Region:
        """The part inside a picture of `size`, (height, width)."""
        return self.common(Region(0, 0, *size))

    def snapped(self, cell: int, size: tuple[int, int]) -> Region:
        """The region enlarged to whole squares of `cell` pixels and clipped to a picture of `size`.

        The grid of squares begins at the first pixel of the picture.
        """
        return Region(
            self.top // cell * cell,
            self.left // cell * cell,
            -(-self.bottom // cell) * cell,
            -(-self.right // cell) * cell,
        ).clipped(size)


@dataclass(frozen=True)
class Halo:
    """The number of pixels above, left of, below and right of a pixel on which its filtered value depends."""

    top: int
    left: int
    bottom: int
    right: int
