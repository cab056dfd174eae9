"""What a filter model is judged on: pictures, and what the target makes of them; and the model's own answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from diptych import inference
from diptych.errors import ModelError, ShapeError, UsageError
from diptych.filters.learned import Learned
from diptych.filters.target import Target
from diptych.images import files
from diptych.images.picture import Picture
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.preprocessing.grey import grey_julia

__all__ = ["Answers", "Sample", "answering", "filter_of", "gather", "target_of"]

Answers: TypeAlias = Callable[[Array], tuple[Array, Array]]
"""A uint8 picture -> the model's output as float32 in 0..1, unrounded, and as the uint8 it is written as."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture, uint8 (H, W, 3) or (H, W), and what is wanted of it: float32 in 0..1, of the same size."""

    name: str
    picture: Array
    wanted: Array


def filter_of(model: Learned | Model | str | Path) -> Model:
    """The filter model in what was given. Raises `ModelError` where it is not a filter."""
    loaded = model.model if isinstance(model, Learned) else inference.load_model(model)
    shape = loaded.input_shape
    channels = shape[0] if shape and len(shape) == 3 else None
    if channels not in (1, 3) or loaded.classes is not None:
        raise _not_a_filter(loaded, f"it takes {shape}, not colour or grey pictures of any size")
    return loaded


def _not_a_filter(model: Model, reason: str) -> ModelError:
    return ModelError(
        f"{model.name or 'the model'} is not a filter, which gives a picture of the same size: {reason}; "
        "make one with: diptych filter learn NAME -o FILE"
    )


def target_of(model: Model, target: Any = None) -> Target:
    """The `Target` that was given, or else the one that the model was taught, where that has a name."""
    from diptych.filters import targets

    if target is not None:
        return target if isinstance(target, Target) else targets.resolve(target)
    notes = model.notes.get("filter")
    name = notes.get("target") if isinstance(notes, Mapping) else None
    # Only what is in the table: a model file must not choose which Python module is imported and run.
    if isinstance(name, str) and name.partition(":")[0] in targets.NAMES:
        return targets.resolve(name)
    taught = f"was taught {name!r}, which is no filter's name" if name else "does not say what it was taught"
    raise UsageError(
        f"{model.name or 'the model'} {taught}; say what to judge it by with --target NAME or --pairs BEFORE AFTER"
    )


def gather(model: Model, target: Target, images: Any = None) -> tuple[Sample, ...]:
    """Pictures, by default the held-out photographs, in the model's own number of channels, with what is wanted."""
    channels = int((model.input_shape or (3,))[0] or 3)
    if target.channels[0] != channels:
        raise UsageError(
            f"{target.name} takes {target.channels[0]} channels and {model.name or 'the model'} takes {channels}; "
            "choose a target of the same kind"
        )
    pictures = _held_out(channels) if images is None else _given(images, channels)
    samples = tuple(Sample(name, picture, target(picture)) for name, picture in pictures)
    if not samples:
        raise UsageError("there are no pictures to judge by; give --images a folder that holds some")
    return samples


def _held_out(channels: int) -> Sequence[tuple[str, Array]]:
    from diptych.filters import data

    held_out = data.gather(None, channels=channels).held_out
    return [(f"picture {number}", picture) for number, picture in enumerate(held_out, 1)]


def _given(images: Any, channels: int) -> Sequence[tuple[str, Array]]:
    single = isinstance(images, str | Path | Picture | np.ndarray)
    pictures: list[tuple[str, Array]] = []
    for image in [images] if single else _iterable(images):
        for each in files.find([image]) if isinstance(image, str | Path) else [image]:
            read = inference.picture(each, f"picture {len(pictures) + 1}")
            pictures.append((read.name, _in_channels(read.pixels, channels)))
    return pictures


def _iterable(images: Any) -> Iterable[Any]:
    if not isinstance(images, Iterable):
        raise UsageError(f"images are paths, arrays or Pictures, not {type(images).__name__}")
    return images


def _in_channels(pixels: Array, channels: int) -> Array:
    if channels == 3:
        return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return pixels if pixels.ndim == 2 else grey_julia(pixels)


def answering(model: Model, engine: str = "auto", device: str = "auto") -> Answers:
    """The model made ready to answer. Raises `ModelError` where it turns out not to be a filter."""
    compiled = inference.compiled_for(model, engine, device)

    def answers(picture: Array) -> tuple[Array, Array]:
        from diptych.filters.metrics import to_levels

        planes = picture[None, None] if picture.ndim == 2 else picture.transpose(2, 0, 1)[None]
        try:
            given = compiled(np.ascontiguousarray(planes, np.float32) / np.float32(255))
        except ShapeError as error:
            raise _not_a_filter(model, str(error)) from error
        if given.ndim != 4 or given.shape[2:] != picture.shape[:2] or given.shape[1] not in (1, 3):
            raise _not_a_filter(model, f"a picture {picture.shape} came out as {given.shape[1:]}")
        values = np.clip(given[0, 0] if given.shape[1] == 1 else given[0].transpose(1, 2, 0), 0, 1)
        return values, to_levels(values)

    return answers
