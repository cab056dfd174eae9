"""The page of a filter: how well a model imitates it, on pictures, in figures, and how it was learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.report.embedding import Embedded, Quality, embed_figure, embed_picture
from diptych.report.html import within_limit
from diptych.report.templates import render_template, write_page

__all__ = ["FilterBar", "FilterContent", "FilterPicture", "render_filter", "write_filter_page"]


@dataclass(frozen=True)
class FilterPicture:
    """One picture: four picture files, the factor that its error is shown with, and its figures in words."""

    name: str
    input: Path
    target: Path
    output: Path
    error: Path
    factor: int
    figures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FilterBar:
    """A PSNR in dB to be drawn as a bar: `text` is its figure in words; `own` marks the model itself."""

    name: str
    psnr: float
    text: str
    own: bool = False


@dataclass(frozen=True)
class FilterContent:
    """Everything that the page shows. Tables are rows of words, the first cell of each its heading.

    `pictures`: the first is shown large. `scores` has a column for each of `score_columns`, `rungs` for each
    of `rung_columns`. `curve` is a figure of this package, or None.
    """

    heading: str
    verdict: str
    facts: tuple[tuple[str, str], ...]
    bars: tuple[FilterBar, ...]
    pictures: tuple[FilterPicture, ...]
    score_columns: tuple[str, ...]
    scores: tuple[tuple[str, ...], ...]
    rung_columns: tuple[str, ...] = ()
    rungs: tuple[tuple[str, ...], ...] = ()
    curve: Path | None = None
    remarks: tuple[str, ...] = ()


def write_filter_page(path: str | Path, content: FilterContent) -> None:
    """Writes the page, complete in itself. Raises `OutputError` where it cannot be written."""
    write_page(path, render_filter(content))


def render_filter(content: FilterContent) -> str:
    """The page as text; everything from outside is escaped, pictures are made smaller until it is 8 MB."""
    return within_limit(lambda quality: _render(content, quality))


def _render(content: FilterContent, quality: Quality) -> str:
    def picture(path: Path) -> Embedded:
        return embed_picture(path, quality)

    return render_template(
        "filter.html.j2",
        {},
        content=content,
        picture=picture,
        curve=embed_figure(content.curve, quality) if content.curve else None,
        width=lambda bar: _width(bar.psnr, content.bars),
    )


def _width(psnr: float, bars: Sequence[FilterBar]) -> str:
    """The length of a bar in per cent of the longest."""
    longest = max(bar.psnr for bar in bars)
    return f"{100 * max(psnr, 0) / longest:.2f}%" if longest > 0 else "0%"
