"""What a report shows: records that `pipeline` fills and `html` renders, with paths to image files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from diptych.report.living import Living

__all__ = ["Facts", "Figure", "ImageResult", "LayerFigure", "LayerRow", "ReportContent", "Skipped"]

Facts: TypeAlias = tuple[tuple[str, str], ...]
"""Pairs of a name and its value, listed in this order."""


@dataclass(frozen=True)
class Figure:
    """One drawn plot.

    Attributes:
        path: Its PNG file.
        title: Its heading on the page.
        alt: What it shows, for people who cannot see it.
        caption: What it means.
    """

    path: Path
    title: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class LayerFigure:
    """The plot of one layer's output for one image, and the numbers that describe it.

    Attributes:
        path: The PNG file.
        layer: The layer's path in the model, such as "0" or "3.1".
        title: Its heading on the page.
        shape: The shape of the output without the batch axis.
        low: The smallest finite value.
        high: The largest finite value.
        dead: The channels that have the same value everywhere.
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
        name: What the page calls it.
        picture: The file of the picture.
        seen: The file that shows what the model saw.
        predictions: (class name, value), the largest value first.
        facts: What is known about it.
        remarks: Decisions made in reading it, such as "transparency over white".
        ignored: Words of the prompt that were not understood.
        figures: Views of the input.
        layers: Plots of the layers' outputs.
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
        title: The prompt, which the template quotes, or another heading.
        is_prompt: Whether `title` is a prompt.
        model: The model's name.
        trained: `Model.trained`; where it is False, every probability says so.
        gives_probabilities: Whether predictions are probabilities, not scores.
        images: The images, in order.
        skipped: Pictures that could not be used.
        facts: What is listed under the title.
        recipe: The steps of the recipe in words.
        recipe_name: The name of the recipe, or "".
        layers: The lines of the architecture table.
        layer_totals: The totals under the table.
        command: The command line that does the same run again, or "".
        versions: Package -> version.
        files: File name -> SHA-256.
        timings: Step -> seconds in words.
        live: What makes the page alive; None for a static one.
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
    live: Living | None = None
