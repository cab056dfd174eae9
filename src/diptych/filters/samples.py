"""The pictures of an evaluation with the filter's results for them, and the model's results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from diptych.engines import tiled
from diptych.engines.tiled.running import General, from_values
from diptych.errors import ModelError, UsageError
from diptych.files import as_text
from diptych.filters import data, targets
from diptych.filters.learned import Learned, grey_weights, notes_of
from diptych.filters.planes import greyed
from diptych.filters.target import Target
from diptych.filters.targets.pairs import Pairs
from diptych.images.arguments import Images, as_picture, each_image
from diptych.images.picture import Picture
from diptych.loading import load_model
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.progress import Progress, silent

__all__ = [
    "Answers",
    "FilterSample",
    "answering",
    "channels_of",
    "filter_of",
    "gather",
    "held_out",
    "target_of",
    "taught_from",
]

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

Answers: TypeAlias = Callable[[Array], tuple[Array, Array]]
"""From a uint8 picture to the model's result: float32 in 0..1, unrounded, and uint8, as it is written."""


@dataclass(frozen=True, eq=False)
class FilterSample:
    """A picture, and the filter's result for it.

    Attributes:
        name: The picture's name.
        picture: Uint8 (H, W, 3) or (H, W).
        target: Float32 in 0..1, of the same size.
    """

    name: str
    picture: Array
    target: Array


def filter_of(model: Learned | Model | str | Path) -> Model:
    """The model of a learned filter, or of a file.

    Raises:
        ModelError: It is not a filter of pictures.
    """
    loaded = model.model if isinstance(model, Learned) else load_model(model)
    channels_of(loaded)
    return loaded


def channels_of(model: Model) -> tuple[int, int]:
    """The numbers of input and output channels of a filter, 3 or 1 each.

    Raises:
        ModelError: The model is not a filter, or has another number of channels.
    """
    given, made = tiled.prepare(model, None).channels
    for count, verb in ((given, "takes"), (made, "gives")):
        if count not in (1, 3, None):
            raise ModelError(
                f"{model.name or 'the model'} {verb} {count} channels, and a filter takes and gives pictures, "
                "of 3 channels or 1; give another model"
            )
    return given or 3, made or given or 3


def target_of(model: Model, target: Any = None) -> Target:
    """The filter to evaluate a model against.

    Args:
        model: The model.
        target: Whatever `targets.resolve` takes; None for the filter that the model was taught.

    Raises:
        UsageError: The model was not taught a filter with a name.
    """
    if target is not None:
        return targets.resolve(target)
    name = notes_of(model).get("target")
    # Only filters of the table: a model file must not choose which Python module is imported and run.
    if isinstance(name, str) and name.partition(":")[0] in targets.NAMES:
        return targets.resolve(name)
    advice = "name the filter to compare with by --target NAME or --pairs BEFORE AFTER"
    taught = "does not say what it was taught"
    if isinstance(name, str) and name:
        taught = f"was taught {name!r}, which is not the name of a filter"
        if _FUNCTION.fullmatch(name):
            taught = f"was taught the function {name}, and a model file does not choose what is imported"
            advice = f"say so if you trust it: --target {name}"
    raise UsageError(f"{model.name or 'the model'} {taught}; {advice}")


def gather(model: Model, target: Target, images: Any = None) -> tuple[FilterSample, ...]:
    """Gathers pictures and the filter's results for them.

    A model of grey pictures can be evaluated against a filter of colour, which sees the pictures in colour.

    Args:
        model: The model, in whose channels the pictures are given.
        target: The filter.
        images: Files, folders, uint8 arrays or `Picture`s. By default all pairs where the target is given by pairs,
            otherwise the held-out photographs.

    Raises:
        UsageError: The filter has other channels than the model, or there are no pictures.
        ImageError: A picture cannot be read.
    """
    channels, made = channels_of(model)
    name = model.name or "the model"
    for own, other, verb in ((channels, target.channels[0], "takes"), (made, target.channels[1], "gives")):
        if own != other and (own, verb) != (1, "takes"):
            raise UsageError(
                f"{name} {verb} {own} channel{'s' * (own != 1)} and {target.name} {other}; choose a target with the "
                "same channels"
            )
    if images is None and isinstance(target, Pairs):
        pictures: Iterable[tuple[str, Array]] = target.whole.items()
    elif images is None:
        pictures = data.gather(None, channels=target.channels[0]).held_out.items()
    else:
        pictures = _given(images)
    fitting = ((name, data.with_channels(picture, target.channels[0])) for name, picture in pictures)
    weights = grey_weights(model)
    samples = tuple(
        FilterSample(as_text(name), picture if channels == 3 else greyed(picture, weights), target(picture))
        for name, picture in fitting
    )
    if not samples:
        raise UsageError("there are no pictures to evaluate on; give --images a folder that holds some")
    return samples


def taught_from(target: Target, images: Any = None, seed: int = 0, progress: Progress = silent) -> data.Data:
    """The pictures that `learn` with these arguments uses.

    Raises:
        UsageError: Pictures are given besides pairs, which bring their own; or there are too few.
    """
    if isinstance(target, Pairs):
        if images is not None:
            raise UsageError(
                "pairs bring their own pictures; leave images out, or learn from a function instead"
            )
        images = target.before
    return data.gather(images, channels=target.channels[0], seed=seed, progress=progress)


def held_out(target: Target, images: Any = None, seed: int = 0) -> list[Picture]:
    """The pictures that `learn` with these arguments evaluates on, and never trains on.

    Args:
        target: The filter.
        images: The pictures to learn from, as `learn` takes them.
        seed: The seed of `learn`.

    Raises:
        UsageError: See `taught_from`.
    """
    return [Picture(pixels, name) for name, pixels in taught_from(target, images, seed).held_out.items()]


def _given(images: Images) -> Iterator[tuple[str, Array]]:
    for image in each_image(images):
        picture = as_picture(image)
        yield picture.name, picture.pixels


def answering(model: Model, engine: str = "auto", device: str = "auto") -> Answers:
    """Makes a filter model ready for whole pictures, with the results that `filters.apply` gives.

    Args:
        model: The model.
        engine: The engine's name, or "auto".
        device: The device's name, or "auto".

    Returns:
        A function from a uint8 picture to the model's result, as unrounded float32 in 0..1 and as uint8.
    """
    levels = tiled.compile(model, engine, device, peak=255)
    if isinstance(levels, General):  # its values before rounding serve for both results
        rounded = replace(levels.prepared, divisor=1)
        levels.prepared = replace(levels.prepared, peak=None)

        def both(picture: Array) -> tuple[Array, Array]:
            values = _whole(levels, picture.astype(np.float32))
            return np.clip(values / np.float32(255), 0, 1), from_values(rounded, values, np.uint8)

        return both
    fractions = tiled.compile(model, engine, device, peak=None)

    def answers(picture: Array) -> tuple[Array, Array]:
        values = _whole(fractions, picture.astype(np.float32) / np.float32(255))
        return np.clip(values, 0, 1), _whole(levels, picture)

    return answers


def _whole(filtering: tiled.TiledFilter, picture: Array) -> Array:
    """The result for a whole picture, (H, W) where it has one channel."""
    height, width = picture.shape[:2]
    block, at = picture.reshape(height, width, -1), (0, 0)
    if filtering.prepared.wraps:
        top, left, bottom, right = astuple(filtering.prepared.halo)
        block, at = np.pad(block, ((top, bottom), (left, right), (0, 0)), mode="wrap"), (-top, -left)
    result = filtering(block, at, (height, width), tiled.Region(0, 0, height, width))
    return result[..., 0] if result.shape[2] == 1 else result
