"""Plots of arrays as PNG files, in one style (`figure.py`), without changing matplotlib's global state.

Colours are viridis: perceptually uniform and safe for colour-blind readers. Every function raises `OutputError`
where its file cannot be written.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diptych.errors import ShapeError
from diptych.options import ScaleRule
from diptych.report.figure import headline, new_figure, save, save_image
from diptych.report.grid import draw_grid, number, written
from diptych.report.mosaic import dead_channels, finite_range, fit
from diptych.report.paper import INK, MUTED

__all__ = [
    "activations",
    "dead_channels",
    "feature_maps",
    "input_contour",
    "input_heatmap",
    "input_image_visualizations",
    "input_surface",
    "loaded_image_verification",
    "vector",
]

Array = NDArray[Any]


# ---- Feature maps -------------------------------------------------------------------------------------


def activations(path: str | Path, array: Array, title: str, scale: ScaleRule = "per-map") -> None:
    """Draws the output of one layer for one image, in the way that suits its rank.

    Args:
        path: The PNG file to write.
        array: The output without the batch axis: (C, H, W) becomes a grid of maps; (C, D, H, W) a grid of the
            middle slices, which the title says; (C, W) a heat map with one row for each channel;
            (features,) bars.
        title: The heading.
        scale: "per-map" or "shared", for grids.

    Raises:
        ShapeError: The array has another rank.
    """
    if array.ndim == 4:
        middle = array.shape[1] // 2
        array, title = array[:, middle], f"{title}, slice {middle} of {array.shape[1]}"
    if array.ndim == 3:
        feature_maps(path, array, title, scale)
    elif array.ndim == 2:
        _rows(path, array, title)
    elif array.ndim == 1:
        vector(path, array, title)
    else:
        raise ShapeError(
            f"{title}: a plot needs an activation of 1 to 4 axes without the batch axis, got {array.shape}"
        )


def feature_maps(path: str | Path, maps: Array, title: str, scale: ScaleRule = "per-map") -> None:
    """Draws a grid of maps, numbered from 0, with the colour bar of their scale.

    Dead channels are hatched, named and counted; NaN and infinite values are magenta. Of more than 256
    channels, the strongest are drawn.

    Args:
        path: The PNG file to write.
        maps: (C, H, W).
        title: The heading.
        scale: "shared" for one range for all maps, so that brightness compares between channels; "per-map"
            for a range for each map, with its smallest and largest value under it.

    Raises:
        ShapeError: The array is empty or of another rank, or there is no such scale.
    """
    if maps.ndim != 3 or 0 in maps.shape:
        raise ShapeError(f"{title}: a grid of feature maps needs (C, H, W), got {maps.shape}")
    if scale not in ("shared", "per-map"):
        raise ShapeError(f"{title}: the scale is 'shared' or 'per-map', not {scale!r}")
    save_image(draw_grid(np.asarray(maps), title, scale), path)


def vector(path: str | Path, values: Array, title: str) -> None:
    """Draws the values of a Dense layer as bars; more than 512 as the range of each of 512 groups.

    Args:
        path: The PNG file to write.
        values: (features,).
        title: The heading.
    """
    shown = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
    limits = finite_range(values)
    facts = [f"{values.size} features", f"{number(limits.low)} … {number(limits.high)}"]
    facts.append(f"{int(np.count_nonzero(values == 0))} at zero")
    if (broken := int(np.count_nonzero(~np.isfinite(values)))) > 0:
        facts.append(f"{broken} NaN or infinite, left out")
    with new_figure(8.0, 3.2) as figure:
        axes = figure.add_axes((0.075, 0.16, 0.895, 0.6))
        groups = np.array_split(np.nan_to_num(shown), min(values.size, 512))
        high = np.array([max(g.max(), 0.0) for g in groups])
        low = np.array([min(g.min(), 0.0) for g in groups])
        edges = np.linspace(-0.5, values.size - 0.5, len(groups) + 1)
        # One polygon, not a rectangle for each bar: a Dense layer may have thousands.
        axes.stairs(high, edges, baseline=low, fill=True, color="#2a6f8e", linewidth=0)
        axes.axhline(0, color=MUTED, linewidth=0.6)
        axes.margins(x=0.01)
        axes.set_xlabel("feature")
        axes.spines[["top", "right"]].set_visible(False)
        headline(figure, title, " · ".join(facts))
        save(figure, path)


def _rows(path: str | Path, array: Array, title: str) -> None:
    with new_figure(8.0, 4.2) as figure:
        axes = figure.add_axes((0.075, 0.12, 0.83, 0.7))
        image = _image(axes, array, aspect="auto")
        axes.set_xlabel("position")
        axes.set_ylabel("channel")
        _colour_bar(figure, image, (0.925, 0.12, 0.014, 0.7))
        dead = dead_channels(array)
        note = f"{array.shape[0]} channels × {array.shape[1]}" + (f" · {len(dead)} dead" if dead else "")
        headline(figure, title, note)
        save(figure, path)


# ---- The input ----------------------------------------------------------------------------------------


def input_heatmap(path: str | Path, grey: Array, title: str = "Input as a heat map") -> None:
    """Draws the values of a preprocessed picture in colour, with their scale.

    Args:
        path: The PNG file to write.
        grey: (H, W): one channel of the preprocessed picture, or the mean of its channels.
        title: The heading.

    Raises:
        ShapeError: The array has another rank, or is empty.
    """
    with new_figure(6.0, 5.4) as figure:
        headline(figure, title, _facts(grey))
        axes = figure.add_axes((0.1, 0.09, 0.74, 0.74))
        image = _image(axes, grey)
        _colour_bar(figure, image, (0.87, 0.09, 0.025, 0.74))
        save(figure, path)


def input_contour(path: str | Path, grey: Array, title: str = "Input as contours") -> None:
    """Draws lines of equal value and the areas between them, upright like the picture; see `input_heatmap`."""
    with new_figure(6.0, 5.4) as figure:
        headline(figure, title, _facts(grey))
        axes = figure.add_axes((0.1, 0.09, 0.74, 0.74))
        areas = _contour(axes, grey)
        _colour_bar(figure, areas, (0.87, 0.09, 0.025, 0.74))
        save(figure, path)


def input_surface(path: str | Path, grey: Array, title: str = "Input as a surface") -> None:
    """Draws the values as heights of at most 64 x 64 cells, the upper edge of the picture at the back.

    See `input_heatmap`.
    """
    with new_figure(6.0, 5.4) as figure:
        headline(figure, title, _facts(grey))
        axes: Any = figure.add_axes((0.0, 0.02, 0.88, 0.96), projection="3d")
        surface = _surface(axes, grey, 1.12)
        _colour_bar(figure, surface, (0.89, 0.1, 0.025, 0.46))
        save(figure, path)


def input_image_visualizations(
    path: str | Path, picture: Array, grey: Array, title: str = "The input"
) -> None:
    """Draws four views of one input: the picture, a heat map, contours and a surface.

    Args:
        path: The PNG file to write.
        picture: What the model sees, uint8 (H, W, 3) or (H, W).
        grey: (H, W): one channel of the preprocessed picture, or the mean of its channels.
        title: The heading.
    """
    with new_figure(8.0, 7.8) as figure:
        headline(figure, title, _facts(grey))
        places = [(0.06, 0.49, 0.37, 0.38), (0.53, 0.49, 0.37, 0.38), (0.06, 0.045, 0.37, 0.38)]
        first, second, third = (figure.add_axes(place, anchor="NW") for place in places)
        _image(first, picture)
        first.set_title("What the model sees")
        image = _image(second, grey)
        second.set_title("Heat map")
        _colour_bar(figure, image, (0.91, 0.49, 0.014, 0.38))
        _contour(third, grey)
        third.set_title("Contours")
        fourth: Any = figure.add_axes((0.475, 0.0, 0.47, 0.42), projection="3d")
        _surface(fourth, grey, 1.1)
        figure.text(0.53, 0.4375, "Surface", size=9.5, weight="bold")
        save(figure, path)


def loaded_image_verification(
    path: str | Path,
    original: Array,
    preprocessed: Array,
    recipe: Sequence[str],
    batch_item: Array,
    original_size: tuple[int, int] | None = None,
) -> None:
    """Draws what was loaded beside what the model sees, with the recipe and the resulting values.

    Args:
        path: The PNG file to write.
        original: The picture as it was loaded, uint8 (H, W, 3) or (H, W).
        preprocessed: What the model sees, uint8 (H, W, 3) or (H, W).
        recipe: One line for each step.
        batch_item: The array itself, float32 (C, H, W), whose type, shape and range are printed.
        original_size: The true (height, width) where `original` is only a preview.
    """
    lines = recipe_lines(recipe)
    height = 4.75 + 0.19 * len(lines)
    with new_figure(8.0, height) as figure:
        panels = (
            (0.06, original, original_size or original.shape, "Loaded"),
            (0.53, preprocessed, preprocessed.shape, "What the model sees"),
        )
        for x, pixels, shape, name in panels:
            axes = figure.add_axes((x, 1 - 4.0 / height, 0.41, 3.28 / height))
            _image(axes, _at_most(pixels, 640), ticks=False)
            axes.set_anchor("N")
            figure.text(x, 1 - 0.36 / height, name, weight="bold", size=11.5, va="center")
            size = f"{shape[0]} × {shape[1]}, {'grey' if pixels.ndim == 2 else 'colour'}"
            figure.text(x, 1 - 0.57 / height, size, color=MUTED, va="center")
        figure.text(0.06, 1 - 4.3 / height, "The recipe between them", weight="bold", size=9.5)
        figure.text(0.53, 1 - 4.3 / height, "The values the model gets", weight="bold", size=9.5)
        figure.text(0.53, 1 - 4.52 / height, _values(batch_item), color=MUTED)
        for index, line in enumerate(lines):
            figure.text(0.06, 1 - (4.52 + 0.19 * index) / height, line, color=MUTED)
        save(figure, path)


def recipe_lines(recipe: Sequence[str], width: int = 56) -> list[str]:
    """The steps of a recipe, numbered and broken into lines of at most `width` characters."""
    lines: list[str] = []
    for number_, step in enumerate(recipe, 1):
        lines += textwrap.wrap(f"{number_}. {written(step)}", width, subsequent_indent="    ")
    return lines or ["none: the picture as it is"]


def _values(batch_item: Array) -> str:
    limits, shape = finite_range(batch_item), " × ".join(map(str, batch_item.shape))
    broken = int(np.count_nonzero(~np.isfinite(batch_item)))
    last = f"{broken} NaN or infinite" if broken else f"mean {number(float(np.mean(batch_item)))}"
    return f"{batch_item.dtype}, {shape} · {number(limits.low)} … {number(limits.high)} · {last}"


# ---- Parts of a figure --------------------------------------------------------------------------------


def _image(axes: Any, array: Array, aspect: str = "equal", ticks: bool = True) -> Any:
    if array.dtype == np.uint8:
        image = axes.imshow(array, cmap="gray", vmin=0, vmax=255, aspect=aspect)
    else:
        limits = finite_range(array)
        shown = np.ma.masked_invalid(array)
        image = axes.imshow(shown, vmin=limits.low, vmax=limits.high, aspect=aspect)
    _quiet(axes, ticks)
    return image


def _quiet(axes: Any, ticks: bool) -> None:
    axes.spines[:].set_visible(False)
    axes.locator_params(nbins=5, integer=True)
    if not ticks:
        axes.set(xticks=[], yticks=[])


def _contour(axes: Any, grey: Array) -> Any:
    height, width = grey.shape
    values = np.ma.masked_invalid(_at_most(grey, 96))
    row = (np.arange(values.shape[0]) + 0.5) * height / values.shape[0] - 0.5
    column = (np.arange(values.shape[1]) + 0.5) * width / values.shape[1] - 0.5
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    _quiet(axes, True)
    limits = finite_range(grey)
    if not limits.high > limits.low or min(values.shape) < 2:
        # There is no line of equal value: a flat colour shows that.
        return _image(axes, grey)
    levels = np.linspace(limits.low, limits.high, 9)
    areas = axes.contourf(column, row, values, levels=levels)
    axes.contour(column, row, values, levels=levels, colors=INK, linewidths=0.35, alpha=0.7)
    return areas


def _surface(axes: Any, grey: Array, zoom: float = 1.0) -> Any:
    height, width = grey.shape
    values = np.nan_to_num(_at_most(grey, 64).astype(np.float64), nan=finite_range(grey).low)
    if min(values.shape) < 2:
        values = np.repeat(np.repeat(values, 2, axis=0), 2, axis=1)
    row, column = np.mgrid[0 : height - 1 : values.shape[0] * 1j, 0 : width - 1 : values.shape[1] * 1j]
    limits = finite_range(values)
    surface = axes.plot_surface(
        column,
        row,
        values,
        cmap="viridis",
        vmin=limits.low,
        vmax=limits.high,
        rcount=64,
        ccount=64,
        linewidth=0,
        antialiased=False,
    )
    # Row 0 at the back and column 0 at the left, like a picture that lies on a table.
    axes.set(xlim=(0, width - 1 or 1), ylim=(height - 1 or 1, 0))
    if limits.high > limits.low:
        axes.set_zlim(limits.low, limits.high)
    axes.view_init(elev=50, azim=-80)
    longest = max(height, width)
    axes.set_box_aspect((width / longest, height / longest, 0.2), zoom=zoom)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((0, 0, 0, 0))
        axis.line.set_color(MUTED)
        axis._axinfo["grid"].update(color="#dcd8cf", linewidth=0.5)
    axes.grid(False)
    if limits.high > limits.low:
        axes.set_zticks([limits.low, limits.high], [number(limits.low), number(limits.high)], size=7)
    else:
        axes.set_zticks([])
    axes.tick_params(pad=-1)
    axes.locator_params(nbins=4)
    return surface


def _colour_bar(figure: Figure, drawn: Any, place: tuple[float, float, float, float]) -> None:
    low, high = drawn.get_clim()
    if not high > low:
        return  # one value has no scale; the headline gives it
    bar: Any = figure.colorbar(drawn, cax=figure.add_axes(place))
    bar.outline.set_visible(False)
    ticks = np.linspace(low, high, 5)
    bar.set_ticks(ticks, labels=[number(tick) for tick in ticks])
    bar.ax.tick_params(length=0)


def _facts(grey: Array) -> str:
    if grey.ndim != 2 or 0 in grey.shape:
        raise ShapeError(f"a plot of the input needs one channel (H, W), got {grey.shape}")
    limits = finite_range(grey)
    facts = f"{grey.shape[0]} × {grey.shape[1]} · {number(limits.low)} … {number(limits.high)}"
    broken = int(np.count_nonzero(~np.isfinite(grey)))
    return facts + (f" · {broken} NaN or infinite, left blank" if broken else "")


def _at_most(array: Array, longest: int) -> Array:
    """The array (H, W) or (H, W, 3), reduced by area means to at most `longest` a side."""
    factor = longest / max(array.shape[:2])
    if factor >= 1:
        return array
    height, width = (max(round(n * factor), 1) for n in array.shape[:2])
    if array.ndim == 2:
        result = fit(array, height, width)
    else:
        result = np.stack([fit(array[..., i], height, width) for i in range(array.shape[2])], axis=-1)
    return np.rint(result).astype(np.uint8) if array.dtype == np.uint8 else result
