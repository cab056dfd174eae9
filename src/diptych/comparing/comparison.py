"""The result of a comparison: every layer, the first that differs, the likely cause; as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diptych import display
from diptych.model.layers import Array

__all__ = ["Comparison", "FoundCause", "LayerPair", "short"]


@dataclass(frozen=True)
class LayerPair:
    """One line of the table: a layer of each model, and how much their outputs differ.

    Attributes:
        path_a: The layer's path in A; "input" for what the models are given; None where only B has this
            layer, which is then compared with the last output of A.
        path_b: The same for B.
        layer_a: The layer of A in words, "" where there is none.
        layer_b: The same for B.
        shape_a: The shape of the output of A, with the batch axis.
        shape_b: The same for B.
        largest_absolute: The largest |a - b|; infinite where the shapes differ.
        largest_relative: `largest_absolute` divided by the largest magnitude in the layer.
        cosine: Of the angle between the outputs as vectors; 1 for the same direction.
        agrees: Whether `largest_relative` is within the tolerance.
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
        """The path in A, or in B where A has no such layer."""
        return self.path_a if self.path_a is not None else str(self.path_b)


@dataclass(frozen=True)
class FoundCause:
    """A cause that was tried and removes the difference.

    Attributes:
        name: Its name in the table of causes.
        reason: What goes wrong.
        tried: What was changed.
        where: The layer where the models differed, in words.
        before: The largest relative difference there.
        after: The same with the change.
    """

    name: str
    reason: str
    tried: str
    where: str
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models compared on the same pictures or the same batch.

    Attributes:
        name_a: What the user calls A.
        name_b: What the user calls B.
        engine_a: The engine A ran on.
        engine_b: The engine B ran on.
        given: What the models were given, in words.
        tolerance: The largest relative difference that counts as equal.
        layers: The layers in order, the input first.
        first_divergence: The path in A of the first layer that differs; "input" where the models are
            already given different values; None where they agree.
        diagnosis: The result in sentences.
        causes: The causes that were found; empty where no known cause explains the difference.
        explained: Whether the models agree once all causes are removed.
        remarks: Sentences to show beside the result.
        parting: The number in `layers` of the first that differs, or None.
        sample: The number of the sample in the batch that differs most where the models part.
        sides: What A and B give for that sample, float32 (...), for each of `layers`.
        picture: The picture that A was given as that sample, uint8 (H, W, 3) or (H, W), or None.
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
    sample: int = 0
    sides: tuple[tuple[Array, Array], ...] = ()
    picture: Array | None = None

    @property
    def agrees(self) -> bool:
        """Whether every layer agrees within the tolerance."""
        return self.first_divergence is None

    def _repr_html_(self) -> str:
        rows = [
            (pair.path, pair.layer_a or pair.layer_b, short(pair.largest_absolute), short(pair.largest_relative),
             "" if pair.agrees else "differs")
            for pair in self.layers
        ]  # fmt: skip
        head = ("layer", "", "largest absolute", "largest relative", "")
        return display.paragraph(self.diagnosis) + display.table(head, rows, 400)

    def to_document(self) -> dict[str, Any]:
        """The comparison as a JSON object; infinite and undefined numbers become null."""
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
        """The table, an arrow at its first row that differs, and the diagnosis."""
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
    """A difference with two digits; a dash where the shapes differ."""
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
