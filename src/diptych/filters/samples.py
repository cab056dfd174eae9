"""What a filter model is judged on: pictures, and what the target makes of them; and the model's own answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from diptych import inference
from diptych.engines import tiled
from diptych.engines.tiled.running import General, from_values
from diptych.errors import ModelError, UsageError
from diptych.filters import data, targets
from diptych.filters.learned import Learned, grey_weights, notes_of
from diptych.filters.planes import greyed
from diptych.filters.target import Target
from diptych.filters.targets.pairs import Pairs
from diptych.images import files
from diptych.images.picture import Picture
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.progress import Progress, silent

__all__ = [
    "Answers",
    "Sample",
    "answering",
    "channels_of",
    "filter_of",
    "gather",
    "held_out",
    "target_of",
    "taught_from",
]

Answers: TypeAlias = Callable[[Array], tuple[Array, Array]]
"""A uint8 picture -> the model's output as float32 in 0..1, unrounded, and as the uint8 it is written as."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture, uint8 (H, W, 3) or (H, W), and what is wanted of it: float32 in 0..1, of the same size."""

    name: str
    picture: Array
    target: Array


def filter_of(model: Learned | Model | str | Path) -> Model:
    """The filter model in what was given. Raises `ModelError` where it is not a filter of pictures."""
    loaded = model.model if isinstance(model, Learned) else inference.load_model(model)
    channels_of(loaded)
    return loaded


def channels_of(model: Model) -> tuple[int, int]:
    """How many channels a filter model takes and gives, 3 or 1 each; as many as it takes where it gives any."""
    given, made = tiled.prepare(model, None).channels
    for count, verb in ((given, "takes"), (made, "gives")):
        if count not in (1, 3, None):
            raise ModelError(
                f"{model.name or 'the model'} {verb} {count} channels, and a filter to be judged takes and gives "
                "pictures, of 3 channels or 1"
            )
    return given or 3, made or given or 3


def target_of(model: Model, target: Any = None) -> Target:
    """The `Target` that was given, or else the one that the model was taught, where that has a name."""
    if target is not None:
        return targets.resolve(target)
    name = notes_of(model).get("target")
    # Only what is in the table: a model file must not choose which Python module is imported and run.
    if isinstance(name, str) and name.partition(":")[0] in targets.NAMES:
        return targets.resolve(name)
    taught = f"was taught {name!r}, which is no filter's name" if name else "does not say what it was taught"
    raise UsageError(
        f"{model.name or 'the model'} {taught}; say what to judge it by with --target NAME or --pairs BEFORE AFTER"
    )


def gather(model: Model, target: Target, images: Any = None) -> tuple[Sample, ...]:
    """Pictures in the model's own number of channels, with what is wanted of each.

    A filter of grey pictures may be judged by one of colours, which sees them before they are made grey.
    `images`: by default all pairs where the target is known by pairs, else the held-out photographs. Raises
    `UsageError` where the target has other channels, or there are no pictures.
    """
    channels, made = channels_of(model)
    name = model.name or "the model"
    for own, other, verb in ((channels, target.channels[0], "takes"), (made, target.channels[1], "gives")):
        if own != other and (own, verb) != (1, "takes"):
            raise UsageError(
                f"{name} {verb} {own} channel{'s' * (own != 1)} and {target.name} {other}; choose a target of the "
                "same kind"
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
        Sample(name, picture if channels == 3 else greyed(picture, weights), target(picture))
        for name, picture in fitting
    )
    if not samples:
        raise UsageError("there are no pictures to judge by; give --images a folder that holds some")
    return samples


def taught_from(target: Target, images: Any = None, seed: int = 0, progress: Progress = silent) -> data.Data:
    """What `learn` with these arguments learns from and judges by: pairs bring their own pictures.

    Raises `UsageError` where pairs are given others, and what `data.gather` raises.
    """
    if isinstance(target, Pairs):
        if images is not None:
            raise UsageError(
                "pairs bring their own pictures; leave images out, or learn from a function instead"
            )
        images = target.before
    return data.gather(images, channels=target.channels[0], seed=seed, progress=progress)


def held_out(target: Target, images: Any = None, seed: int = 0) -> list[Picture]:
    """The pictures that `learn` with these arguments judges by, and never learns from."""
    return [Picture(pixels, name) for name, pixels in taught_from(target, images, seed).held_out.items()]


def _given(images: Any) -> Iterator[tuple[str, Array]]:
    single = isinstance(images, str | Path | Picture | np.ndarray)
    for number, image in enumerate([images] if single else _iterable(images), 1):
        for each in files.find([image]) if isinstance(image, str | Path) else [image]:
            picture = inference.picture(each, f"picture {number}")
            yield picture.name, picture.pixels


def _iterable(images: Any) -> Iterable[Any]:
    if not isinstance(images, Iterable):
        raise UsageError(f"images are paths, arrays or Pictures, not {type(images).__name__}")
    return images


def answering(model: Model, engine: str = "auto", device: str = "auto") -> Answers:
    """A filter model made ready to answer for whole pictures, as `filters.apply` computes them."""
    levels = tiled.compile(model, engine, device, peak=255)
    if isinstance(levels, General):  # what it computes before it rounds serves for both
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
    """What a filter makes of a whole picture, (H, W) where it has one channel."""
    height, width = picture.shape[:2]
    block, at = picture.reshape(height, width, -1), (0, 0)
    if filtering.prepared.wraps:
        top, left, bottom, right = astuple(filtering.prepared.halo)
        block, at = np.pad(block, ((top, bottom), (left, right), (0, 0)), mode="wrap"), (-top, -left)
    result = filtering(block, at, (height, width), tiled.Region(0, 0, height, width))
    return result[..., 0] if result.shape[2] == 1 else result
