"""The files of a folder and of the folders inside it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from diptych.errors import ImageError

__all__ = ["natural", "nested"]


def nested(folder: str | os.PathLike[str], suffixes: Collection[str]) -> list[Path]:
    """The files that end in one of `suffixes` (".png"; case does not matter), in this folder and any inside.

    Sorted as people count, folder by folder: picture2 before picture10. Hidden files and folders are left
    out, links to folders are not followed (they may lead in circles). Raises `ImageError` where there is no
    such folder, or none of these files in it.
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
            f"the folder {root} holds no pictures ({', '.join(suffixes)}), nor do those inside it"
        )
    return found


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """What names are sorted by, as people count: picture2 before picture10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts], name
