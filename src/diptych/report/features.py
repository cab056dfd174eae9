"""The verb `features`: the output of every layer for a picture, one plot for each.

The k-th convolution in the order of the model, counted from 1 and through containers, is drawn in
`conv_layer_<k>_feature_maps.png`; any other layer in `layer_<path>_feature_maps.png`, its path with "-" for ".".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from diptych.errors import UsageError
from diptych.files import keep, sole_writer
from diptych.images.arguments import ImageLike, as_picture
from diptych.loading import ModelLike, Recipe, load, recipe_of
from diptych.model.layers import Conv, ConvTranspose
from diptych.model.layers.whole import WholeGraph
from diptych.model.model import Model
from diptych.options import ScaleRule
from diptych.predicting import compiled_for
from diptych.progress import Progress, silent
from diptych.report.content import LayerFigure
from diptych.report.mosaic import dead_channels, finite_range

__all__ = ["Make", "chosen_layers", "convolutions", "feature_plots", "features"]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_]")

Make: TypeAlias = Callable[[str, Callable[[Path], object]], Path]
"""Makes the file with a name by calling the function that writes it, and returns its path."""


def features(
    model: ModelLike,
    image: ImageLike,
    *,
    out: str | Path = "maps",
    layers: str = "all",
    scale: ScaleRule = "per-map",
    preprocessing: Recipe | None = None,
    engine: str = "auto",
    device: str = "auto",
    progress: Progress = silent,
) -> list[Path]:
    """Draws the outputs of a model's layers for one image.

    Args:
        model: A model, its file or its name.
        image: A path, a uint8 array (H, W, 3) or (H, W), or a `Picture`.
        out: The folder for the plots, made where it is missing.
        layers: "all", "conv" for the convolutions, or paths such as "0,3.1".
        scale: "per-map" for one colour scale for each map, "shared" for one for all maps of a layer.
        preprocessing: The recipe; the model's own by default.
        engine: One of `engines.ENGINES`, or "auto".
        device: "auto", "cpu", "cuda" or "mps".
        progress: Told after each layer.

    Returns:
        The PNG files, in the order of the layers.

    Raises:
        UsageError: There is no such layer, or no recipe.
        ImageError: The image cannot be read.
        OutputError: A plot cannot be written, or would replace the image.
    """
    loaded = load(model)
    recipe = recipe_of(preprocessing if preprocessing is not None else loaded)
    paths = chosen_layers(loaded, layers)
    _check_scale(scale)
    compiled = compiled_for(loaded, engine, device)
    trace = compiled.trace(recipe.apply(as_picture(image).pixels)[np.newaxis])

    def make(name: str, write: Callable[[Path], object]) -> Path:
        keep([image] if isinstance(image, str | Path) else [], [Path(out) / name])
        write(Path(out) / name)
        return Path(out) / name

    with sole_writer(out):
        return [figure.path for figure in feature_plots(trace, loaded, make, paths, scale, progress)]


def convolutions(model: Model) -> list[str]:
    """The paths of every Conv and ConvTranspose, inside containers too, in order."""
    return [path for path, layer in model.walk() if isinstance(layer, Conv | ConvTranspose)]


def chosen_layers(model: Model, choice: str) -> tuple[str, ...]:
    """The layer paths of "all", "conv" or a list such as "0,3.1"; raises `UsageError` for an unknown one."""
    known = [*(path for path, _ in model.walk()), *_values_inside(model)]
    if choice == "all":
        return tuple(known)
    if choice == "conv":
        return tuple(convolutions(model))
    chosen = tuple(path.strip() for path in choice.split(","))
    for path in chosen:
        if path not in known:
            shown = ", ".join(known[:12]) + (" …" if len(known) > 12 else "")
            raise UsageError(f"the model has no layer {path!r}; give all, conv, or some of the paths {shown}")
    return chosen


def _values_inside(model: Model) -> dict[str, tuple[int, ...]]:
    """The values of a graph that is run as a whole, "0/NAME", and one sample's shapes; empty for any other model."""
    first = model.layers.layers[0] if model.layers.layers else None
    return {f"0/{name}": shape for name, shape in first.values} if isinstance(first, WholeGraph) else {}


def feature_plots(
    trace: Mapping[str, NDArray[Any]],
    model: Model,
    make: Make,
    paths: tuple[str, ...],
    scale: ScaleRule = "per-map",
    progress: Progress = silent,
) -> list[LayerFigure]:
    """Draws the outputs of layers for the first image of a traced batch.

    Args:
        trace: Layer path -> output, (N, ...).
        model: The model that was traced.
        make: Makes each file.
        paths: The layers to draw.
        scale: The colours of feature maps.
        progress: Told after each layer.
    """
    from diptych.report.plots import activations

    _check_scale(scale)
    numbers = {path: index for index, path in enumerate(convolutions(model), 1)}
    labels = {path: layer.label for path, layer in model.walk()}
    drawn = []
    for done, path in enumerate(paths, 1):
        array = trace[path][0]
        where = f"Convolution {numbers[path]}" if path in numbers else f"Layer {path}"
        title = f"{where} · {labels[path].replace('->', '→')}" if path in labels else f"Value {path[2:]}"
        name = f"conv_layer_{numbers[path]}" if path in numbers else f"layer_{_NOT_IN_NAMES.sub('-', path)}"
        draw = partial(activations, array=array, title=title, scale=scale)
        file = make(f"{name}_feature_maps.png", draw)
        limits = finite_range(array)
        dead = dead_channels(array) if array.ndim > 1 else ()
        drawn.append(LayerFigure(file, path, title, array.shape, limits.low, limits.high, dead))
        progress(done, len(paths), "drawing feature maps")
    return drawn


def _check_scale(scale: str) -> None:
    if scale not in get_args(ScaleRule):
        raise UsageError(f"scale is {' or '.join(get_args(ScaleRule))}, not {scale!r}")
