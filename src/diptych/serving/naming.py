"""How models are named on the command line of the server."""

from __future__ import annotations

__all__ = ["name_and_model"]


def name_and_model(text: str) -> tuple[str, str]:
    """The two parts of NAME=MODEL; the name is "" where only a model is given.

    Args:
        text: Such as "flowers=flowers-v3.onnx", "mine.bson" or "https://example.org/a.onnx?b=c#sha256=...".
    """
    name, equals, model = text.partition("=")
    return (name, model) if equals and name and not set(name) & set("/:") else ("", text)
