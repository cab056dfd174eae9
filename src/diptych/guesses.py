"""What reading a model had to guess: collected for the command line, which shows it whatever the command is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["collected", "tell"]

_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


def tell(texts: Sequence[str]) -> None:
    """Adds sentences, each once, to what is being collected; nothing happens where nobody collects."""
    found = _collected.get()
    if found is not None:
        found.extend(text for text in dict.fromkeys(texts) if text not in found)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collects the sentences that are told while the block runs."""
    found: list[str] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)
