"""Applying learned filters to pictures of any size, in constant memory where the format allows it."""

from diptych.filters.applying.apply import Applied, apply

__all__ = ["Applied", "apply"]
