"""What a report shows: records that `pipeline` fills and `html` renders, with paths to image files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

__all__ = ["Facts", "Figure", "ImageResult", "LayerFigure", "LayerRow", "ReportContent", "Skipped"]

Facts: TypeAlias = tuple[tuple[str, str], ...]
"""Pairs of a name and its value, listed in this order."""


@dataclass(frozen=True)
class Figure:
    """One drawn plot.

    Attributes:
        path: its PNG file.
        title: its heading on the page.
        alt: what it shows, for people who cannot see it.
        caption: what it means.
    """

    path: Path
    title: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class LayerFigure:
    """The plot of one layer's output for one image, and the numbers that describe it.

    Attributes:
        path: the PNG file.
        layer: the layer's path in the model, such as "0" or "3.1".
        title: its heading on the page.
        shape: the shape of the output without the batch axis.
        low: the smallest finite value.
        high: the largest finite value.
        dead: the channels that have the same value everywhere.
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
    """One image: the picture, what the model saw of it, and what the model predicts.

    Attributes:
        name: what the page calls it.
        picture: the file of the picture.
        seen: the file that shows what the model saw.
        predictions: (class name, value), the largest value first.
        facts: what is known about it.
        remarks: decisions made in reading it, such as "transparency over white".
        ignored: words of the prompt that were not understood.
        figures: views of the input.
        layers: plots of the layers' outputs.
    """

    name: str
    picture: Path
    seen: Path
    predictions: tuple[tuple[str, float], ...] = ()
    facts: Facts = ()
    remarks: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    layers: tuple[LayerFigure, ...] = ()


@dataclass(frozen=True)
class LayerRow:
    """One line of the architecture table; None where a number is unknown or does not apply."""

    path: str
    layer: str
    output: str
    parameters: int | None = None
    multiply_adds: int | None = None
    receptive_field: str = ""


@dataclass(frozen=True)
class Skipped:
    """A picture that could not be used, and a sentence that says why."""

    name: str
    reason: str


@dataclass(frozen=True)
class ReportContent:
    """The content of one report.

    Attributes:
        title: the prompt, which the template quotes, or another heading.
        is_prompt: whether `title` is a prompt.
        model: the model's name.
        trained: `Model.trained`; where it is False, every probability says so.
        gives_probabilities: whether predictions are probabilities, not scores.
        images: the images, in order.
        skipped: pictures that could not be used.
        facts: what is listed under the title.
        recipe: the steps of the recipe in words.
        recipe_name: the name of the recipe, or "".
        layers: the lines of the architecture table.
        layer_totals: the totals under the table.
        command: the command line that does the same run again, or "".
        versions: package -> version.
        files: file name -> SHA-256.
        timings: step -> seconds in words.
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
