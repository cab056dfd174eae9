"""What a cause is, and what it has to work with when it is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from diptych.comparing.alignment import Evaluation, Row
from diptych.comparing.editing import replaced
from diptych.comparing.runs import Side
from diptych.model.layers import Layer

__all__ = ["Cause", "Situation", "Try", "Which", "alone", "both_layers", "pairs", "with_layers"]

Which: TypeAlias = Literal["a", "b"]


@dataclass(frozen=True, eq=False)
class Situation:
    """Two sides, their evaluation, and the row where they part."""

    a: Side
    b: Side
    evaluation: Evaluation
    row: Row

    @property
    def at_input(self) -> bool:
        """Whether the models are already given different numbers."""
        return self.row.a.layer is None and self.row.b.layer is None

    def side(self, which: Which) -> Side:
        """One side by its letter."""
        return self.a if which == "a" else self.b

    def changed(self, which: Which, tried: str, side: Side) -> Try:
        """A try in which one side is another."""
        return Try(tried, side, self.b) if which == "a" else Try(tried, self.a, side)


@dataclass(frozen=True, eq=False)
class Try:
    """The two sides with something changed, and the change in words that follow "with"."""

    tried: str
    a: Side
    b: Side


@dataclass(frozen=True)
class Cause:
    """One way for two models to part: its name, what goes wrong, and the changes that would undo it."""

    name: str
    reason: str
    tries: Callable[[Situation], Iterator[Try]]


def with_layers(
    s: Situation, which: Which, changes: Mapping[str, Layer], what: str, few: int = 4
) -> Iterator[Try]:
    """All these layers of one side exchanged, then the one where the models part alone.

    `what` is a text with "{layers}" where "layer 0 of B" belongs.
    """
    if not changes:
        return
    side = s.side(which)
    here = s.row.a.path if which == "a" else s.row.b.path
    groups = [changes]
    if len(changes) > 1 and here in changes:
        groups.append({here: changes[here]})
    for group in groups:
        shown = list(dict.fromkeys(side.origin.get(path, path) for path in group))
        listed = ", ".join(shown[:few]) + (f" and {len(shown) - few} more" if len(shown) > few else "")
        where = f"layer{'s' if len(shown) > 1 else ''} {listed} of {which.upper()}"
        yield s.changed(which, what.format(layers=where), side.with_(model=replaced(side.model, group)))


def pairs(s: Situation) -> Iterator[tuple[Row, Layer, Layer]]:
    """Every row in which each side has a layer of its own."""
    for row in s.evaluation.rows:
        layers = both_layers(s, row)
        if layers is not None:
            yield row, *layers


def both_layers(s: Situation, row: Row) -> tuple[Layer, Layer] | None:
    """The two layers of a row as they are now, where neither side is alone in it."""
    if row.lone or row.a.layer is None or row.b.layer is None:
        return None
    return s.a.layers[row.a.path], s.b.layers[row.b.path]


def alone(s: Situation) -> Iterator[tuple[Which, str, Layer]]:
    """The layers that one side has alone, with the side and the path, where they change something."""
    seen_a: set[str] = set()
    seen_b: set[str] = set()
    for row in s.evaluation.rows:
        if not row.agrees and row.b.path in seen_b and row.a.path not in seen_a and row.a.layer:
            yield "a", row.a.path, s.a.layers[row.a.path]
        if not row.agrees and row.a.path in seen_a and row.b.path not in seen_b and row.b.layer:
            yield "b", row.b.path, s.b.layers[row.b.path]
        seen_a.add(row.a.path)
        seen_b.add(row.b.path)
