"""What the two models are given: one batch for both, or pictures with each model's own recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from diptych.comparing.runs import Run
from diptych.errors import MissingExtra, ModelError, ShapeError, UsageError
from diptych.images.arguments import Images, as_batch, as_picture, each_image, is_batch, remarks_on_folders
from diptych.loading import ModelLike, Recipe, load, recipe_of, takes
from diptych.model.entry import entry_axes
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes
from diptych.options import GenerationOptions, ReadOptions
from diptych.preprocessing import Preprocessing

__all__ = ["MOST_IMAGES", "Compared", "ComparisonInput", "Recipes", "compared", "runs_of"]

ComparisonInput: TypeAlias = "Images | tuple[Any, Any] | None"
"""Images or a float batch for both models; a pair with a float batch in it; None for pictures in the box."""
Recipes: TypeAlias = "Recipe | tuple[Recipe | None, Recipe | None] | None"
"""One recipe for both models, or a pair."""

MOST_IMAGES = 16
"""The most pictures that are compared: a fault shows on the first, and every trial runs on all of them."""

_PHOTOGRAPHS = ("coffee", "chelsea", "astronaut")
_SEED = 0


@dataclass(frozen=True)
class Compared:
    """One of the two models as the user gives it, and the options for reading its file."""

    model: ModelLike
    reading: ReadOptions


def compared(a: ModelLike, b: ModelLike, **options: Any) -> tuple[Compared, Compared]:
    """A and B with their options for reading.

    An option that is a pair has one value for each model; any other value is for every file that takes it.
    Raises `UsageError` where neither file does.
    """
    each: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name, value in options.items():
        if isinstance(value, tuple):
            if len(value) != 2:
                raise UsageError(f"{name} is one value for both models or a pair, not {len(value)} values")
            each[0][name], each[1][name] = value
        elif value is not None:
            takers = [i for i, model in enumerate((a, b)) if takes(model, name)]
            if not takers:
                raise UsageError(
                    f"{name} is for a file that holds weights alone or comes from Flux, but neither model is one"
                )
            for i in takers:
                each[i][name] = value
    return Compared(a, ReadOptions(**each[0])), Compared(b, ReadOptions(**each[1]))


def runs_of(
    a: Compared,
    b: Compared,
    images: ComparisonInput,
    recipes: Recipes,
    engines: tuple[str, str],
) -> tuple[Run, Run, str, tuple[str, ...]]:
    """Loads both models and prepares what they are given.

    Args:
        a: The model A and how to read it.
        b: The model B and how to read it.
        images: What `compare` takes.
        recipes: One recipe for both models, or a pair, or None for their own.
        engines: The engine of A and that of B.

    Returns:
        The run of A, the run of B, what they are given in words, and remarks.

    Raises:
        UsageError: Pictures are given, and no recipe is known for a model.
        ShapeError: A model cannot take what it is given.
    """
    models = load(a.model, a.reading), load(b.model, b.reading)
    names = _name(a.model, models[0], "A"), _name(b.model, models[1], "B")
    remarks: list[str] = []
    if isinstance(images, tuple) and len(images) == 2 and any(map(is_batch, images)):
        fields = [_input_of_one(images[i], models[i], _own(recipes, i), remarks) for i in (0, 1)]
        given = "each model its own input"
    elif is_batch(images):
        batch = as_batch(images)
        fields = [{"given_batch": batch}] * 2
        given = f"one batch for both, {_by(batch.shape)}"
    else:
        fields, given = _inputs_of_both(images, models, recipes, remarks)
    runs = [Run(names[i], models[i], engines[i], **fields[i]) for i in (0, 1)]
    for letter, run in zip("AB", runs, strict=True):
        _check(letter, run)
    return runs[0], runs[1], given, tuple(dict.fromkeys(remarks))


def _check(letter: str, run: Run) -> None:
    """Raises what is wrong with a model or its input, saying which of the two it is."""
    try:
        run.model.check()
        layer_shapes(run.model, run.batch.shape)
    except ShapeError as error:
        raise ShapeError(
            f"model {letter} ({run.name}) cannot take its input of shape {_by(run.batch.shape)}: {error}"
        ) from error
    except ModelError as error:
        raise ModelError(f"model {letter} ({run.name}): {error}") from error


def _inputs_of_both(
    images: Any, models: tuple[Model, Model], recipes: Recipes, remarks: list[str]
) -> tuple[list[dict[str, Any]], str]:
    """The fields of both runs, and what they are given in words."""
    chosen = [_recipe(models[i], models[1 - i], _own(recipes, i), remarks, "AB"[i]) for i in (0, 1)]
    if images is None and None in chosen:
        batch = _random_batch(*models)
        given = f"one batch for both, {_by(batch.shape)}, of random values in 0-1 (seed {_SEED})"
        return [{"given_batch": batch}] * 2, given
    if images is None:
        pixels, given = _pictures_in_the_box()
    else:
        pixels = _pixels(images, remarks)
        given = f"{len(pixels)} picture{'' if len(pixels) == 1 else 's'}"
    used = [recipe or recipe_of(model) for recipe, model in zip(chosen, models, strict=True)]
    return [{"images": pixels, "recipe": recipe} for recipe in used], given


def _input_of_one(images: Any, model: Model, recipe: Recipe | None, remarks: list[str]) -> dict[str, Any]:
    """The fields of one run, where each model has an input of its own."""
    if is_batch(images):
        return {"given_batch": as_batch(images)}
    return {"images": _pixels(images, remarks), "recipe": recipe_of(recipe or model)}


# ---- Recipes ------------------------------------------------------------------------------------------


def _own(recipes: Recipes, index: int) -> Recipe | None:
    return recipes[index] if isinstance(recipes, tuple) else recipes


def _recipe(
    model: Model, other: Model, asked: Recipe | None, remarks: list[str], letter: str
) -> Preprocessing | None:
    if asked is not None:
        return recipe_of(asked)
    if model.preprocessing is None and other.preprocessing is not None:
        remarks.append(f"model {letter} carries no preprocessing recipe: the other's is used for both")
    return model.preprocessing or other.preprocessing


# ---- Pictures and batches -----------------------------------------------------------------------------


def _pixels(images: Images, remarks: list[str]) -> tuple[Array, ...]:
    """The pixels of the first `MOST_IMAGES` images."""
    every = list(each_image(images))
    remarks += remarks_on_folders(images)
    if len(every) > MOST_IMAGES:
        remarks.append(f"the first {MOST_IMAGES} of {len(every)} pictures are compared")
    return tuple(as_picture(image).pixels for image in every[:MOST_IMAGES])


def _pictures_in_the_box() -> tuple[tuple[Array, ...], str]:
    """The pictures that are compared where none are given, and what they are: painted scenes without scikit-image."""
    from diptych.datasets.photographs import photograph

    count = len(_PHOTOGRAPHS)
    try:
        return tuple(photograph(name) for name in _PHOTOGRAPHS), f"{count} photographs in the box"
    except MissingExtra:
        from diptych.images.generation import paint

        scenes = paint("mountains by the sea", GenerationOptions(count=count))
        return tuple(
            picture.pixels for picture in scenes
        ), f"{count} painted scenes (the photographs need scikit-image)"


def _random_batch(a: Model, b: Model) -> Array:
    """Seeded values from 0 to 1, of the first shape that both models take; not square where that is possible."""
    for shape in _shapes(a, b):
        try:
            layer_shapes(a, shape)
            layer_shapes(b, shape)
        except ShapeError:
            continue
        return np.random.Generator(np.random.PCG64(_SEED)).random(shape, dtype=np.float32)
    raise ShapeError(
        "no input shape was found that both models take; give a float batch, or pictures with --images"
    )


def _shapes(a: Model, b: Model) -> Iterator[tuple[int, ...]]:
    for model in (a, b):
        if model.input_shape is not None and None not in model.input_shape:
            yield (2, *(n for n in model.input_shape if n is not None))
    channels, rank = entry_axes(a) or (3, 2)
    if rank == 0:
        yield (2, channels)
        return
    for size in ((29, 37, 23)[:rank], *((n,) * rank for n in (32, 28, 224, *range(1, 300)))):
        yield (2, channels, *size)


def _name(given: object, model: Model, letter: str) -> str:
    return str(given) if isinstance(given, str | Path) else model.name or f"model {letter}"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
