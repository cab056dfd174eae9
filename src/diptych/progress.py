"""How long work tells how far it is: a callable that anyone may pass, and that does nothing by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Progress", "silent"]

Progress: TypeAlias = Callable[[int, int, str], object]
"""Called with what is done, of how much, and what it is: (7, 60, "generated_image_1")."""


def silent(done: int, total: int, what: str) -> None:
    """Says nothing."""
