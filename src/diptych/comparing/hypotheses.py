"""What a cause is, and what it works with when it is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from diptych.comparing.alignment import Alignment, Row
from diptych.comparing.editing import replaced
from diptych.comparing.runs import Run
from diptych.model.layers import Layer

__all__ = ["Case", "Cause", "Trial", "Which", "both_layers", "layer_pairs", "layer_trials", "lone_layers"]

Which: TypeAlias = Literal["a", "b"]


@dataclass(frozen=True, eq=False)
class Case:
    """Two runs, their alignment, and the row where they differ first."""

    a: Run
    b: Run
    alignment: Alignment
    row: Row

    @property
    def at_input(self) -> bool:
        """Whether the models are already given different values."""
        return self.row.a.layer is None and self.row.b.layer is None

    def run(self, which: Which) -> Run:
        """One of the runs, by its letter."""
        return self.a if which == "a" else self.b

    def changed(self, which: Which, tried: str, run: Run) -> Trial:
        """A trial in which one run is replaced."""
        return Trial(tried, run, self.b) if which == "a" else Trial(tried, self.a, run)


@dataclass(frozen=True, eq=False)
class Trial:
    """The two runs with something changed.

    Attributes:
        tried: The change in words that follow "with".
        a: The run of A.
        b: The run of B.
    """

    tried: str
    a: Run
    b: Run


@dataclass(frozen=True)
class Cause:
    """One reason why two models may differ.

    Attributes:
        name: What it is called.
        reason: What goes wrong, a clause without a full stop.
        trials: Gives the trials that would undo it.
    """

    name: str
    reason: str
    trials: Callable[[Case], Iterator[Trial]]


def layer_trials(
    case: Case, which: Which, changes: Mapping[str, Layer], what: str, most_listed: int = 4
) -> Iterator[Trial]:
    """Trials with layers of one run replaced: all of them, then only the one where the models differ.

    Args:
        case: What is tried on.
        which: The run whose layers are replaced.
        changes: Path -> the layer to put there.
        what: The change in words, with "{layers}" where "layer 0 of B" belongs.
        most_listed: How many layers are named before "and 3 more".
    """
    if not changes:
        return
    run = case.run(which)
    here = case.row.a.path if which == "a" else case.row.b.path
    groups = [changes]
    if len(changes) > 1 and here in changes:
        groups.append({here: changes[here]})
    for group in groups:
        shown = list(dict.fromkeys(run.origin.get(path, path) for path in group))
        listed = ", ".join(shown[:most_listed])
        if len(shown) > most_listed:
            listed += f" and {len(shown) - most_listed} more"
        where = f"layer{'s' if len(shown) > 1 else ''} {listed} of {which.upper()}"
        yield case.changed(which, what.format(layers=where), run.with_(model=replaced(run.model, group)))


def layer_pairs(case: Case) -> Iterator[tuple[Row, Layer, Layer]]:
    """Every row in which each model has a layer of its own, with these layers."""
    for row in case.alignment.rows:
        layers = both_layers(case, row)
        if layers is not None:
            yield row, *layers


def both_layers(case: Case, row: Row) -> tuple[Layer, Layer] | None:
    """The two layers of a row as they are now; None where only one model has a layer there."""
    if row.lone or row.a.layer is None or row.b.layer is None:
        return None
    return case.a.layers[row.a.path], case.b.layers[row.b.path]


def lone_layers(case: Case) -> Iterator[tuple[Which, str, Layer]]:
    """The layers that only one model has, with its letter and their path, where they change something."""
    seen_a: set[str] = set()
    seen_b: set[str] = set()
    for row in case.alignment.rows:
        if not row.agrees and row.b.path in seen_b and row.a.path not in seen_a and row.a.layer:
            yield "a", row.a.path, case.a.layers[row.a.path]
        if not row.agrees and row.a.path in seen_a and row.b.path not in seen_b and row.b.layer:
            yield "b", row.b.path, case.b.layers[row.b.path]
        seen_a.add(row.a.path)
        seen_b.add(row.b.path)
