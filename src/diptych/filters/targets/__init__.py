"""Filters by name, from any function, or from pairs of pictures before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diptych.errors import UsageError
from diptych.filters.target import Target
from diptych.filters.targets.named import nearest
from diptych.filters.targets.table import FILTERS

__all__ = ["NAMES", "resolve"]

NAMES: Mapping[str, str] = {name: named.summary for name, named in FILTERS.items()}


def resolve(target: Any) -> Target:
    """The filter that `target` names: "gaussian:sigma=2"."""
    return by_name(target)


def by_name(text: str) -> Target:
    name, _, rest = text.partition(":")
    name = name.strip().lower().replace("-", "_")
    if name not in FILTERS:
        raise UsageError(
            f"no filter is called {name[:60]!r}: {nearest(name, FILTERS)}known are {', '.join(FILTERS)}"
        )
    return FILTERS[name].target(name, _parameters(name, rest))


def _parameters(name: str, text: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise UsageError(
                f"parameters of the filter {name!r} are written {name}:name=value,name=value, not {text[:60]!r}"
            )
        given[key] = value
    return given
