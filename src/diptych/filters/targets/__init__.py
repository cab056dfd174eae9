"""Filters by name, from any function, or from pairs of pictures before and after."""

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
    """The filter that `target` means.

    - a name with parameters: "sobel", "gaussian:sigma=2", "unsharp:sigma=2,amount=1.5"; see `NAMES`, `FILTERS`;
    - "package.module:function", which is imported, the current folder first;
    - a function: uint8 (H, W, 3) or (H, W) to uint8 levels or floats from 0 to 1, of the same size;
    - (before, after): two folders, files, arrays, or lists of them, giving `Pairs`; or a list of such pairs;
    - a `Target`, as it is.

    Raises `UsageError` for a name, parameter, module or function that does not exist, and for a function that
    does not keep to the contract; `ImageError` for pairs that cannot be read.
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
        "a filter is a name, 'package.module:function', a function, or pictures (before, after), "
        f"not {type(target).__name__}"
    )


def _tidy(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _by_name(text: str) -> Target:
    written, colon, rest = text.partition(":")
    name = _tidy(written)
    if name not in FILTERS:
        said = f"no filter is called {written.strip()[:60]!r}, and `diptych filter list` names all that there are"
        raise UsageError("; ".join(filter(None, (said, nearest(name, FILTERS, 3)))))
    return FILTERS[name].target(name, _parameters(name, colon, rest))


def _parameters(name: str, colon: str, text: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in text.split(",") if colon else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key in given:
            raise UsageError(f"the filter {name!r} is given {key} twice, in {text[:60]!r}; give it once")
        if not (key and equals and value):
            raise UsageError(
                f"parameters of the filter {name!r} are written {name}:name=value,name=value, not {text[:60]!r}"
            )
        given[key] = value
    return given
