"""Finds the files in a folder and its subfolders."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from diptych.errors import ImageError

__all__ = ["natural", "nested"]


def nested(folder: str | os.PathLike[str], suffixes: Collection[str]) -> list[Path]:
    """Finds the files with certain suffixes in a folder and its subfolders.

    Hidden files and folders are left out, and links to folders are not followed, as they may form cycles.

    Args:
        folder: The folder.
        suffixes: In lower case with the dot, such as ".png". The case of the files' suffixes does not matter.

    Returns:
        The files, folder by folder, in the order of `natural`.

    Raises:
        ImageError: The folder does not exist, or holds no such files.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ImageError(f"there is no folder {root}; check the name")
    found: list[Path] = []
    for place, folders, names in os.walk(root):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural)
        seen = (name for name in names if not name.startswith("."))
        fitting = (name for name in seen if Path(name).suffix.lower() in suffixes)
        found += [Path(place, name) for name in sorted(fitting, key=natural)]
    if not found:
        raise ImageError(
            f"the folder {root} holds no pictures ({', '.join(suffixes)}), and neither do its subfolders"
        )
    return found


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key that compares the numbers in names by value: picture2 comes before picture10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts], name
