"""Filters by name, from Python functions, and from pairs of pictures before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diptych.errors import UsageError
from diptych.filters.target import Target
from diptych.filters.targets import functions
from diptych.filters.targets.named import nearest
from diptych.filters.targets.pairs import Pairs, paired
from diptych.filters.targets.table import FILTERS

__all__ = ["FILTERS", "NAMES", "Pairs", "resolve"]

NAMES: Mapping[str, str] = {name: named.summary for name, named in FILTERS.items()}


def resolve(target: Any) -> Target:
    """Finds the filter that `target` means.

    Args:
        target: One of the following.

            - A name, with parameters where needed: "sobel", "gaussian:sigma=2", "unsharp:sigma=2,amount=1.5".
              `NAMES` lists them all.
            - "package.module:function", which is imported; the current folder is searched first.
            - A function from uint8 (H, W, 3) or (H, W) to uint8 levels or floats in 0..1 of the same size.
            - A tuple (before, after) of two folders, files, arrays, or lists of them; or a list of such tuples.
            - A `Target`, which is returned unchanged.

    Returns:
        The filter; for pictures it is of the subclass `Pairs`.

    Raises:
        UsageError: There is no such name, parameter, module or function, or the function does not return
            pictures as described above.
        ImageError: A picture of a pair cannot be read.
    """
    if isinstance(target, Target):
        return target
    if isinstance(target, str):
        module, colon, rest = target.partition(":")
        if colon and "=" not in rest and rest and _tidy(module) not in FILTERS:
            return functions.imported(target.strip())
        return _by_name(target)
    if callable(target):
        return functions.described(target)
    if isinstance(target, tuple) and len(target) == 2:
        return paired(*target)
    if (
        isinstance(target, list)
        and target
        and all(isinstance(one, tuple) and len(one) == 2 for one in target)
    ):
        return paired([one[0] for one in target], [one[1] for one in target])
    raise UsageError(
        "a filter must be a name, 'package.module:function', a function, or pictures (before, after), "
        f"not {type(target).__name__}"
    )


def _tidy(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _by_name(text: str) -> Target:
    written, colon, rest = text.partition(":")
    name = _tidy(written)
    if name not in FILTERS:
        said = f"no filter is called {written.strip()[:60]!r}; `diptych filter list` shows all names"
        raise UsageError("; ".join(filter(None, (said, nearest(name, FILTERS, 3)))))
    return FILTERS[name].target(name, _parameters(name, colon, rest))


def _parameters(name: str, colon: str, text: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in text.split(",") if colon else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key in given:
            raise UsageError(
                f"the filter {name!r} has the parameter {key} twice in {text[:60]!r}; give it once"
            )
        if not (key and equals and value):
            raise UsageError(
                f"parameters of the filter {name!r} must be written as {name}:name=value,name=value, not {text[:60]!r}"
            )
        given[key] = value
    return given
