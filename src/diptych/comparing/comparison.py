"""The outcome of a comparison: rows, the first that parts, the likely cause, as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diptych.model.layers import Array

__all__ = ["Comparison", "FoundCause", "LayerPair", "short"]


@dataclass(frozen=True)
class LayerPair:
    """One line of the table: a layer of each model and how far their outputs are apart.

    A path is "input" for what the models are given, and None where only the other side has this layer,
    which is then compared with what this side holds at that point. `largest_relative` is the largest
    absolute difference divided by the largest magnitude in the layer; both are infinite where shapes differ.
    """

    path_a: str | None
    path_b: str | None
    layer_a: str
    layer_b: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    largest_absolute: float
    largest_relative: float
    cosine: float
    agrees: bool

    @property
    def path(self) -> str:
        """The path in a, or in b where a has no such layer."""
        return self.path_a if self.path_a is not None else str(self.path_b)


@dataclass(frozen=True)
class FoundCause:
    """A cause that was tried and takes the difference away.

    `name` is its name in the table of causes, `reason` says what goes wrong, `tried` what was changed, and
    `before` and `after` are the largest relative differences where the models parted.
    """

    name: str
    reason: str
    tried: str
    where: str
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models on the same pictures or the same batch.

    `first_divergence` is the path in a of the first layer that parts, "input" where the models are already
    given different numbers, None where they agree. `causes` are empty where no known cause explains the
    difference; `diagnosis` says it in words either way. `sides` holds both outputs of the first layer that
    parts (of the last one, where none does), as float32 (N, ...).
    """

    name_a: str
    name_b: str
    engine_a: str
    engine_b: str
    given: str
    tolerance: float
    layers: tuple[LayerPair, ...]
    first_divergence: str | None
    diagnosis: str
    causes: tuple[FoundCause, ...] = ()
    explained: bool = False
    remarks: tuple[str, ...] = ()
    parting: int | None = None
    sides: tuple[Array, Array] | None = None

    @property
    def agrees(self) -> bool:
        """Whether every layer, and the result, agree within the tolerance."""
        return self.first_divergence is None

    def to_document(self) -> dict[str, Any]:
        """As JSON; infinite and undefined numbers become null."""
        return {
            "a": {"model": self.name_a, "engine": self.engine_a},
            "b": {"model": self.name_b, "engine": self.engine_b},
            "given": self.given,
            "tolerance": self.tolerance,
            "agrees": self.agrees,
            "first_divergence": self.first_divergence,
            "diagnosis": self.diagnosis,
            "explained": self.explained,
            "causes": [
                {
                    "name": cause.name,
                    "reason": cause.reason,
                    "tried": cause.tried,
                    "where": cause.where,
                    "before": _finite(cause.before),
                    "after": _finite(cause.after),
                }
                for cause in self.causes
            ],
            "layers": [
                {
                    "path_a": pair.path_a,
                    "path_b": pair.path_b,
                    "layer_a": pair.layer_a,
                    "layer_b": pair.layer_b,
                    "shape_a": list(pair.shape_a),
                    "shape_b": list(pair.shape_b),
                    "largest_absolute": _finite(pair.largest_absolute),
                    "largest_relative": _finite(pair.largest_relative),
                    "cosine": _finite(pair.cosine),
                    "agrees": pair.agrees,
                }
                for pair in self.layers
            ],
            "remarks": list(self.remarks),
        }

    def text(self) -> str:
        """The table, its first row that parts marked with an arrow, and the diagnosis."""
        head = ["", "A", "B", "layer", "output", "absolute", "relative", "cosine"]
        rows = [self._cells(index, pair) for index, pair in enumerate(self.layers)]
        names = f"A: {self.name_a} ({self.engine_a})\nB: {self.name_b} ({self.engine_b})\ngiven: {self.given}"
        return f"{names}\n\n{_table(head, rows)}\n\n{self.diagnosis}"

    def _cells(self, index: int, pair: LayerPair) -> list[str]:
        mark = "->" if index == self.parting else ("" if pair.agrees else "!=")
        same_layer, same_shape = pair.layer_a == pair.layer_b, pair.shape_a == pair.shape_b
        lone = pair.path_a is None or pair.path_b is None
        return [
            mark,
            pair.path_a if pair.path_a is not None else "-",
            pair.path_b if pair.path_b is not None else "-",
            pair.layer_a if same_layer else (pair.layer_a + pair.layer_b if lone else
                                             f"{pair.layer_a} | {pair.layer_b}"),
            _by(pair.shape_a) if same_shape else f"{_by(pair.shape_a)} | {_by(pair.shape_b)}",
            short(pair.largest_absolute),
            short(pair.largest_relative),
            "-" if math.isnan(pair.cosine) else f"{pair.cosine:.6f}",
        ]  # fmt: skip


def short(value: float) -> str:
    """A difference in two digits; a dash where the arrays have different shapes."""
    return "-" if not math.isfinite(value) else "0" if value == 0 else f"{value:.1e}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
