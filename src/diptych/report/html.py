"""`report.html`: a self-contained page of at most 8 MB that shows a whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from diptych.errors import OutputError
from diptych.report.content import ImageResult, LayerFigure, ReportContent
from diptych.report.embedding import Embedded, Quality, embed_figure, embed_image
from diptych.report.templates import render_template, write_page

__all__ = ["LARGEST_BYTES", "MOST_IMAGES", "render", "thousands", "within_limit", "write_report"]

LARGEST_BYTES = 8_000_000
"""Of a page that runs nothing."""
LARGEST_ALIVE = 6_000_000
"""Of a page with a small model in it; with a larger one, that and `ROOM` for everything else."""
ROOM = 700_000
MOST_IMAGES = 24
"""Images shown in full; the others are listed with their predictions in a table."""

_QUALITIES = (Quality(1200, 1024, 85), Quality(1000, 640, 70), Quality(700, 400, 60), Quality(420, 240, 45))
"""From good to coarse: the first that keeps the page within the limit is used."""


@dataclass(frozen=True)
class _Pictures:
    """Every image file of a report, embedded."""

    by_path: dict[Path, Embedded]

    def __call__(self, path: Path) -> Embedded:
        return self.by_path[path]


def write_report(path: str | Path, content: ReportContent) -> None:
    """Writes the page; raises `OutputError` where it cannot be written, or an image file is missing."""
    write_page(path, render(content))


def render(content: ReportContent) -> str:
    """The page as HTML: everything from outside is escaped, and images are data: URLs.

    Images are made smaller until the page is within `LARGEST_BYTES`.
    """
    limit = LARGEST_BYTES if content.live is None else max(LARGEST_ALIVE, content.live.size + ROOM)
    return within_limit(lambda quality: _render(content, _embed_all(content, quality)), limit)


def within_limit(rendered: Callable[[Quality], str], limit: int = LARGEST_BYTES) -> str:
    """The page with the best images that `limit` bytes allow; raises `OutputError` if none does."""
    for quality in _QUALITIES:
        document = rendered(quality)
        if len(document.encode()) <= limit:
            return document
    raise OutputError(
        f"the page would be larger than {limit / 1e6:.1f} MB even with small images; "
        "make it from fewer pictures"
    )


def _embed_all(content: ReportContent, quality: Quality) -> _Pictures:
    pictures: dict[Path, bool] = {}  # whether each is a figure, in order
    for image in content.images[:MOST_IMAGES]:
        pictures[image.picture] = pictures[image.seen] = False
        drawn = [figure.path for figure in image.figures] + [figure.path for figure in image.layers]
        pictures.update(dict.fromkeys(drawn, True))
    # Pillow releases the interpreter's lock while it encodes.
    with ThreadPoolExecutor(max_workers=4) as pool:
        jobs = {
            path: pool.submit(embed_figure if figure else embed_image, path, quality)
            for path, figure in pictures.items()
        }
        return _Pictures({path: job.result() for path, job in jobs.items()})


def _render(content: ReportContent, pictures: _Pictures) -> str:
    return render_template(
        "template.html.j2",
        {"number": _number, "percent": _percent, "thousands": thousands, "shape": _shape, "many": _many},
        content=content,
        shown=content.images[:MOST_IMAGES],
        rest=content.images[MOST_IMAGES:],
        picture=pictures,
        width=_width,
        verdict=_verdict,
        layer_alt=_layer_alt,
    )


# ---- Wording ------------------------------------------------------------------------------------------


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _percent(value: float) -> str:
    """A probability as text, such as 97.3 %; "0 %" and "100 %" only if they are exact."""
    if 0 < value < 0.0005:
        return "< 0.1 %"
    if 0.9995 < value < 1:
        return "> 99.9 %"
    return f"{100 * value:.1f} %"


def thousands(value: int | None) -> str:
    """A whole number with a narrow no-break space between groups of three digits, as in SI."""
    return "–" if value is None else f"{value:,}".replace(",", "\u202f")


def _shape(shape: Iterable[int]) -> str:
    return " × ".join(str(n) for n in shape)


def _many(count: int, singular: str, plural: str = "") -> str:
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


def _width(value: float, image: ImageResult, probabilities: bool) -> str:
    """The length of a prediction's bar, as a percentage of 1 or, for scores, of the largest magnitude."""
    longest = 1.0 if probabilities else max((abs(v) for _, v in image.predictions), default=1.0) or 1.0
    part = abs(value) / longest if value == value else 0.0
    return f"{100 * min(part, 1.0):.2f}%"


def _verdict(image: ImageResult, content: ReportContent) -> str:
    """The first class and its value in words, marked if the model is untrained."""
    if not image.predictions:
        return "no prediction"
    name, value = image.predictions[0]
    said = f"{name}, {_percent(value) if content.gives_probabilities else f'score {_number(value)}'}"
    return f"{said} (untrained)" if content.trained is False else said


def _layer_alt(figure: LayerFigure) -> str:
    """What the plot of one layer shows, for people who cannot see it."""
    count = figure.shape[0]
    extent = f"from {_number(figure.low)} to {_number(figure.high)}"
    if len(figure.shape) == 1:
        return f"Bars of the {_many(count, 'value')} of {figure.title}, {extent}."
    dead = f"; {len(figure.dead)} of them flat in this picture" if figure.dead else ""
    return f"Grid of the {_many(count, 'feature map')} of {figure.title}, values {extent}{dead}."
