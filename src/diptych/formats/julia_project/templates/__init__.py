"""The Julia files that every project holds, and the parts that `preprocess.jl` is made of."""

from __future__ import annotations

from pathlib import Path

__all__ = ["template"]


def template(name: str) -> str:
    """The text of one file in this folder."""
    return (Path(__file__).parent / name).read_text("utf-8")
