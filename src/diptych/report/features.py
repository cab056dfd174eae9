"""The `features` verb's drawing: one file a layer, numbered convolutions first of all.

File names: the k-th convolution in the order of the model, counted from 1 and through containers, gives
`conv_layer_<k>_feature_maps.png`; any other layer `layer_<path>_feature_maps.png`, its path with "-" for ".".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from numpy.typing import NDArray

from diptych.errors import UsageError
from diptych.model.layers import Conv, ConvTranspose, Dense, Layer
from diptych.model.model import Model
from diptych.report.content import LayerFigure
from diptych.report.mosaic import dead_channels, finite_range

__all__ = ["LayerChoice", "convolutions", "feature_plots", "layer_title"]

LayerChoice: TypeAlias = Literal["convolutions", "all"] | Iterable[str]


def convolutions(model: Model) -> list[str]:
    """The paths of every Conv and ConvTranspose, in order, those inside containers too."""
    return [path for path, layer in model.walk() if isinstance(layer, Conv | ConvTranspose)]


def feature_plots(
    trace: Mapping[str, NDArray[Any]],
    model: Model,
    out: str | Path,
    image_index: int = 0,
    layers: LayerChoice = "convolutions",
    scale: Literal["shared", "per-map"] = "per-map",
    suffix: str = "",
) -> list[LayerFigure]:
    """Draws the chosen layers' activations for image `image_index` of the traced batch into the folder `out`.

    `layers` is "convolutions", "all", or layer paths. `suffix` comes before ".png", to keep the files of
    several images apart. Raises `UsageError` for a path or an image that is not there, `OutputError` where
    a file cannot be written.
    """
    from diptych.report.plots import activations

    numbers = {path: index for index, path in enumerate(convolutions(model), 1)}
    by_path = dict(model.walk())
    drawn = []
    for path in _chosen(layers, list(numbers), trace):
        batch = trace[path]
        if not 0 <= image_index < len(batch):
            raise UsageError(
                f"the trace holds {len(batch)} images, so there is no image {image_index}; count from 0"
            )
        array = batch[image_index]
        title = layer_title(by_path[path], numbers.get(path), path)
        name = f"conv_layer_{numbers[path]}" if path in numbers else f"layer_{path.replace('.', '-')}"
        file = Path(out) / f"{name}_feature_maps{suffix}.png"
        activations(file, array, title, scale)
        limits = finite_range(array)
        dead = dead_channels(array) if array.ndim > 1 else ()
        drawn.append(LayerFigure(file, path, title, array.shape, limits.low, limits.high, dead))
    return drawn


def _chosen(layers: LayerChoice, convolution_paths: list[str], trace: Mapping[str, Any]) -> list[str]:
    if layers == "convolutions":
        return convolution_paths
    if layers == "all":
        return [path for path, array in trace.items() if array.ndim >= 2]
    chosen = [layers] if isinstance(layers, str) else list(layers)
    for path in chosen:
        if path not in trace:
            known = ", ".join(list(trace)[:12])
            raise UsageError(
                f"the model has no layer {path!r}; its layers are {known}{' …' if len(trace) > 12 else ''}"
            )
    return chosen


def layer_title(layer: Layer, convolution: int | None = None, path: str = "") -> str:
    """A layer in a few words, such as "Convolution 2 · Conv 3 × 3, 16 → 32, relu"."""
    title = type(layer).__name__
    if isinstance(layer, Conv | ConvTranspose):
        kernel = " × ".join(map(str, layer.weight.shape[2:]))
        first, second = layer.weight.shape[:2]
        ins, outs = (second * layer.groups, first)
        if isinstance(layer, ConvTranspose):
            ins, outs = first, second * layer.groups
        title += f" {kernel}, {ins} → {outs}"
    elif isinstance(layer, Dense):
        title += f" {layer.weight.shape[1]} → {layer.weight.shape[0]}"
    activation = getattr(layer, "activation", None)
    if activation:
        title += f", {activation.name}"
    where = f"Convolution {convolution}" if convolution else f"Layer {path}" if path else ""
    return f"{where} · {title}" if where else title
