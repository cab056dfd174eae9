"""Plots of how a filter was learned, and of what it does to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diptych.errors import ShapeError
from diptych.report.figure import headline, new_figure, save
from diptych.report.grid import number
from diptych.report.paper import INK, MUTED

__all__ = ["learning_curve", "loss_figure", "pictures_figure"]

FIRST, SECOND = "#0b6863", "#98330d"
_GRID = "#dcd8cf"

Array = NDArray[Any]


def learning_curve(
    path: str | Path, curve: Sequence[tuple[float, float, float]], title: str, facts: str = ""
) -> None:
    """Draws the loss, on a logarithmic scale, and the held-out PSNR over the steps of training.

    Args:
        path: The PNG file to write.
        curve: (steps, loss, PSNR in dB) at least once; NaN where something was not measured.
        title: The heading.
        facts: The line under it.

    Raises:
        ShapeError: The curve is empty.
        OutputError: The file cannot be written.
    """
    if not curve:
        raise ShapeError(f"{title}: a learning curve needs at least one (steps, loss, PSNR)")
    steps, loss, psnr = np.array(curve, float).T
    with new_figure(8.0, 3.6) as figure:
        headline(figure, title, facts)
        left = figure.add_axes((0.075, 0.14, 0.395, 0.6))
        right = figure.add_axes((0.575, 0.14, 0.395, 0.6))
        _line(left, steps, np.where(loss > 0, loss, np.nan), SECOND)
        left.set_title("Loss")
        _logarithmic(left, loss)
        _line(right, steps, psnr, FIRST)
        right.set_title("Held-out PSNR, dB")
        _name_best(right, steps, psnr)
        for axes in (left, right):
            axes.set_xlabel("steps")
        save(figure, path)


def loss_figure(
    training: Sequence[float],
    validation: Sequence[float],
    title: str = "Loss while training",
    beside: tuple[str, float] | None = None,
) -> Figure:
    """Draws the training and validation loss over the epochs, with the best epoch marked.

    Args:
        training: The loss of each epoch.
        validation: The same on validation data.
        title: The heading.
        beside: The name and value of another loss to compare with.

    Raises:
        ShapeError: There is no epoch, or not one value of each for every epoch.
    """
    if len(training) == 0 or len(training) != len(validation):
        raise ShapeError(
            "a plot of losses needs one training and one validation loss for each epoch, "
            f"got {len(training)} and {len(validation)}"
        )
    best = int(np.argmin(validation))
    with new_figure(8.0, 3.8) as figure:
        facts = (
            f"{len(training)} epochs · smallest validation loss {validation[best]:.4g} in epoch {best + 1}"
        )
        headline(figure, title, facts)
        axes = figure.add_axes((0.085, 0.13, 0.885, 0.66))
        epochs = np.arange(1, len(training) + 1)
        _line(axes, epochs, training, SECOND, "training")
        _line(axes, epochs, validation, FIRST, "validation")
        axes.plot(best + 1, validation[best], "o", color=FIRST, markersize=5)
        axes.set_xlabel("epoch")
        if beside is not None:
            axes.axhline(beside[1], color=INK, linewidth=1.2, linestyle=(0, (4, 3)), label=beside[0])
        _logarithmic(axes, np.array([*training, *validation, *([beside[1]] if beside else [])]))
        axes.locator_params(axis="x", integer=True)
        axes.legend(frameon=False, labelcolor=INK)
        return figure


def pictures_figure(rows: Sequence[Sequence[Array]], names: Sequence[str], captions: Sequence[str]) -> Figure:
    """Draws rows of images, each with a caption under it.

    Args:
        rows: uint8 images, (H, W) or (H, W, 3).
        names: The headings of the columns.
        captions: One for each row.
    """
    columns, side = len(names), 1.72
    height = 0.5 + len(rows) * (side + 0.24)
    with new_figure(0.9 + columns * (side + 0.12), height) as figure:
        width = figure.get_figwidth()
        for column, name in enumerate(names):
            left = (0.45 + column * (side + 0.12)) / width
            figure.text(left, 1 - 0.28 / height, name, size=9.5, weight="bold", va="center")
            for index, row in enumerate(rows):
                bottom = 1 - (0.42 + (index + 1) * (side + 0.24) - 0.24) / height
                axes = figure.add_axes((left, bottom, side / width, side / height))
                axes.imshow(row[column], cmap="gray", vmin=0, vmax=255)
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
        for index, caption in enumerate(captions):
            bottom = 1 - (0.42 + (index + 1) * (side + 0.24) - 0.12) / height
            figure.text(0.45 / width, bottom, caption, color=MUTED, va="center")
        return figure


def _line(
    axes: Any, x: Array | Sequence[float], y: Array | Sequence[float], colour: str, label: str = ""
) -> None:
    # One point does not make a line.
    axes.plot(x, y, color=colour, linewidth=1.6, marker="o" if len(x) == 1 else "", markersize=4, label=label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_GRID, linewidth=0.5)
    axes.set_axisbelow(True)


def _logarithmic(axes: Any, values: Array) -> None:
    """Uses a logarithmic scale if the positive values span more than a decade."""
    positive = values[np.isfinite(values) & (values > 0)]
    if len(positive) and positive.max() > 10 * positive.min():
        axes.set_yscale("log")
        # matplotlib's own labels need math text, which is off because titles may hold a $.
        axes.yaxis.set_major_formatter(lambda value, _: number(value))
        axes.yaxis.set_minor_formatter(lambda value, _: "")


def _name_best(axes: Any, steps: Array, psnr: Array) -> None:
    finite = np.isfinite(psnr)
    if finite.any():
        best = int(np.nanargmax(np.where(finite, psnr, np.nan)))
        axes.plot(steps[best], psnr[best], "o", color=FIRST, markersize=5)
        axes.annotate(
            f"{psnr[best]:.1f}",
            (steps[best], psnr[best]),
            xytext=(0, 6),
            textcoords="offset points",
            ha="right",
            color=INK,
        )
