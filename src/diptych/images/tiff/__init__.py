"""TIFF files of any size, read piece by piece."""

from diptych.images.tiff.source import opened

__all__ = ["opened"]
