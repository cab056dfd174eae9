"""The page of a filter: how well a model imitates it, in pictures and numbers, and how it was learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.report.embedding import Embedded, Quality, embed_figure, embed_image
from diptych.report.html import within_limit
from diptych.report.living_filter import LivingFilter
from diptych.report.templates import render_template, write_page

__all__ = ["FilterBar", "FilterContent", "FilterPicture", "render_filter", "write_filter_page"]


@dataclass(frozen=True)
class FilterPicture:
    """One picture: the files of its four images, the factor of the error shown, and its numbers in words."""

    name: str
    input: Path
    target: Path
    output: Path
    error: Path
    factor: int
    figures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FilterBar:
    """A PSNR in dB, drawn as a bar; `text` is the value in words, and `own` marks the model itself."""

    name: str
    psnr: float
    text: str
    own: bool = False


@dataclass(frozen=True)
class FilterContent:
    """The content of the page. Tables are rows of words; the first cell of each row is its heading.

    Attributes:
        heading: The title.
        verdict: The result in one sentence.
        facts: What is listed under the title.
        bars: The model's PSNR beside others'.
        pictures: The first is shown large.
        score_columns: The columns of `scores`.
        scores: One row for each picture.
        method_columns: The columns of `methods`.
        methods: One row for each method that was tried.
        curve: The file of a figure of this package, or None.
        remarks: Sentences beside the result.
        live: What makes the page alive, or None for a page without scripts.
    """

    heading: str
    verdict: str
    facts: tuple[tuple[str, str], ...]
    bars: tuple[FilterBar, ...]
    pictures: tuple[FilterPicture, ...]
    score_columns: tuple[str, ...]
    scores: tuple[tuple[str, ...], ...]
    method_columns: tuple[str, ...] = ()
    methods: tuple[tuple[str, ...], ...] = ()
    curve: Path | None = None
    remarks: tuple[str, ...] = ()
    live: LivingFilter | None = None


def write_filter_page(path: str | Path, content: FilterContent) -> None:
    """Writes the page as one self-contained file; raises `OutputError` where it cannot be written."""
    write_page(path, render_filter(content))


def render_filter(content: FilterContent) -> str:
    """The page as HTML, escaped; images are made smaller until it is within 8 MB."""
    return within_limit(lambda quality: _render(content, quality))


def _render(content: FilterContent, quality: Quality) -> str:
    def picture(path: Path) -> Embedded:
        return embed_image(path, quality)

    return render_template(
        "filter.html.j2",
        {},
        content=content,
        picture=picture,
        curve=embed_figure(content.curve, quality) if content.curve else None,
        width=lambda bar: _width(bar.psnr, content.bars),
    )


def _width(psnr: float, bars: Sequence[FilterBar]) -> str:
    """The length of a bar as a percentage of the longest."""
    longest = max(bar.psnr for bar in bars)
    return f"{100 * max(psnr, 0) / longest:.2f}%" if longest > 0 else "0%"
