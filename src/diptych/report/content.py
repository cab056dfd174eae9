"""What a report shows: records that `pipeline` fills and `html` sets, with paths to drawn pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

__all__ = ["Facts", "Figure", "ImageResult", "LayerFigure", "LayerRow", "ReportContent", "Skipped"]

Facts: TypeAlias = tuple[tuple[str, str], ...]
"""Pairs of a name and its value, shown as a list in this order."""


@dataclass(frozen=True)
class Figure:
    """One drawn plot. `alt` says what is to be seen, for who cannot see it; `caption` what it means."""

    path: Path
    title: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class LayerFigure:
    """The plot of one layer's output for one image, and the figures that describe it.

    `layer` is the layer's path in the model ("0", "3.1"), `shape` its output without the batch axis, `low`
    and `high` the finite range, `dead` the channels that are the same everywhere.
    """

    path: Path
    layer: str
    title: str
    shape: tuple[int, ...]
    low: float
    high: float
    dead: tuple[int, ...] = ()


@dataclass(frozen=True)
class ImageResult:
    """One image on its way: the picture, what the model saw of it, and what the model said.

    `predictions` are (class name, value) in falling order. `ignored` are prompt words not understood;
    `notes` what reading had to decide ("alpha over white"); `figures` views of the input.
    """

    name: str
    picture: Path
    seen: Path
    predictions: tuple[tuple[str, float], ...] = ()
    facts: Facts = ()
    notes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    layers: tuple[LayerFigure, ...] = ()


@dataclass(frozen=True)
class LayerRow:
    """One line of the architecture table; None where a number is not known or not meant."""

    path: str
    layer: str
    output: str
    parameters: int | None = None
    multiply_adds: int | None = None
    receptive_field: str = ""


@dataclass(frozen=True)
class Skipped:
    """A picture that could not be used, and the sentence that says why."""

    name: str
    reason: str


@dataclass(frozen=True)
class ReportContent:
    """All of one report.

    `title` is the prompt, quoted by the template where `is_prompt`, or the folder's name; `facts` stand
    under it. `trained` follows `Model.trained`: False is shown beside every probability. `command` does
    the same run again.
    """

    title: str
    is_prompt: bool
    model: str
    trained: bool | None
    gives_probabilities: bool
    images: tuple[ImageResult, ...]
    skipped: tuple[Skipped, ...] = ()
    facts: Facts = ()
    recipe: tuple[str, ...] = ()
    recipe_name: str = ""
    layers: tuple[LayerRow, ...] = ()
    layer_totals: Facts = ()
    command: str = ""
    versions: Facts = ()
    files: Facts = ()
    timings: Facts = ()
