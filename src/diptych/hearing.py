"""What reading a model had to guess, told to whoever listens: the command line shows it, whatever the command is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["hearing", "tell"]

_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)


def tell(texts: Sequence[str]) -> None:
    """Adds sentences, each once, to what is being heard; nothing happens where nobody listens."""
    heard = _heard.get()
    if heard is not None:
        heard.extend(text for text in dict.fromkeys(texts) if text not in heard)


@contextmanager
def hearing() -> Iterator[list[str]]:
    """Collects the sentences that are told while the block runs."""
    heard: list[str] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)
