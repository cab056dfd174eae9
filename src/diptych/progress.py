"""How work reports its progress: by calling a function that does nothing by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Progress", "silent"]

Progress: TypeAlias = Callable[[int, int, str], object]
"""Called with how much is done, of how much, and what: (7, 60, "generated_image_1")."""


def silent(done: int, total: int, what: str) -> None:
    """Reports nothing."""
