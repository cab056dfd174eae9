"""What `docs/make_filter_table.py` measured of the filters with names: the verdict, and the seconds to learn them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from diptych.filters.verdicts import VERDICTS

__all__ = ["REFUSED", "figures", "grouped"]

REFUSED = "refused"
_TIMES = ((10.0, "within 10 seconds"), (60.0, "within a minute"), (float("inf"), "in minutes"))


@cache
def figures() -> Mapping[str, Mapping[str, Any]]:
    """By name: the "verdict", one of `VERDICTS` or `REFUSED`, and the "seconds", None for what is refused."""
    found: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "figures.json").read_text("utf-8"))
    return found


def grouped(names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """The names by verdict and time, the best and quickest first, each group with its heading."""
    left, known = list(names), figures()
    for verdict in VERDICTS:
        least = 0.0
        for most, time in _TIMES:
            chosen = [
                name
                for name in left
                if name in known
                and known[name]["verdict"] == verdict
                and least <= known[name]["seconds"] < most
            ]
            if chosen:
                yield f"{verdict.capitalize()}, learned {time}", chosen
            least = most
    refused = [name for name in left if known.get(name, {}).get("verdict") == REFUSED]
    if refused:
        yield "Refused, because no local network can do it", refused
    unknown = [name for name in left if name not in known]
    if unknown:
        yield "Not measured yet", unknown
