"""Causes in what the models are given: turned pictures, channels, scale, mean and std, the recipe.

Where both models are given the same values, the same changes show what input a model was made for: it then runs on
changed pictures, and its activations are turned back before they are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from diptych.axes import swap_spatial
from diptych.comparing.hypotheses import Case, Cause, Trial, Which
from diptych.comparing.runs import Change
from diptych.errors import ModelError
from diptych.model.layers import Array
from diptych.preprocessing import KERNELS, Grey, Normalise, Preprocessing, RecipeStep, Resize, SpatialOrder
from diptych.preprocessing.steps import FITS, GREY_WEIGHTS
from diptych.preprocessing.wording import sentence

__all__ = ["INPUT_CAUSES"]

# Means and stds in common use: ImageNet, -1 to 1, CIFAR-10, MNIST.
_USUAL = (
    Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    Normalise((0.5,), (0.5,)),
    Normalise((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    Normalise((0.1307,), (0.3081,)),
)


# ---- Changes of the batch -----------------------------------------------------------------------------


def _upside_down(x: Array) -> Array:
    return x[..., ::-1, :]


def _mirrored(x: Array) -> Array:
    return x[..., ::-1]


def _turned(x: Array) -> Array:
    return x[..., ::-1, ::-1]


def _channels_reversed(x: Array) -> Array:
    return x[:, ::-1]


def _times(factor: float, x: Array) -> Array:
    return x * np.float32(factor)


def _normalised(step: Normalise, x: Array) -> Array:
    return (x - _spread(step.mean, x)) / _spread(step.std, x)


def _not_normalised(step: Normalise, x: Array) -> Array:
    return x * _spread(step.std, x) + _spread(step.mean, x)


def _spread(values: tuple[float, ...], x: Array) -> Array:
    return np.array(values, np.float32).reshape(-1, *(1,) * (x.ndim - 2))


def _eight_bits(levels: int, x: Array) -> Array:
    return np.rint(x * np.float32(levels)) / np.float32(levels)


def _batch(
    changes: tuple[tuple[str, Change], ...], turns: bool = False, channels: int = 0
) -> Callable[[Case], Iterator[Trial]]:
    """Trials that change the batch of B; with `turns`, by turning the pictures (twice gives the original)."""

    def trials(case: Case) -> Iterator[Trial]:
        batch = case.b.batch
        if batch.ndim != 4 or (channels and batch.shape[1] != channels):
            return
        for tried, change in changes:
            view = (*case.b.view, change) if turns and not case.at_input else case.b.view
            yield case.changed("b", tried, case.b.with_(adjustments=(*case.b.adjustments, change), view=view))
            if turns and case.at_input:  # B may be made for turned pictures
                both = f"{tried}, and all activations of B,"
                yield case.changed("b", both, case.b.with_(view=(*case.b.view, change)))

    return trials


def _mean_and_std(case: Case) -> Iterator[Trial]:
    """Every usual mean and std, and those of both recipes, applied to the input of B or taken out of it."""
    recipes = [run.recipe for run in (case.a, case.b) if run.recipe is not None]
    own = [step for recipe in recipes for step in recipe.steps if isinstance(step, Normalise)]
    for step in dict.fromkeys((*own, *_USUAL)):
        if case.b.batch.ndim != 4 or len(step.mean) not in (1, case.b.batch.shape[1]):
            continue
        values = f"the mean {_list(step.mean)} and std {_list(step.std)}"
        for tried, change in (
            (f"{values} applied to B's input", partial(_normalised, step)),
            (f"{values} taken out of B's input", partial(_not_normalised, step)),
        ):
            yield case.changed("b", tried, case.b.with_(adjustments=(*case.b.adjustments, change)))


def _rounding(case: Case) -> Iterator[Trial]:
    yield from _recipes(_other_values(Resize, "round", (True, False)))(case)
    if not case.at_input:
        return
    for which in ("b", "a"):
        for levels, scale in ((255, "0-1"), (1, "0-255")):
            run = case.run(which)
            changed = run.with_(adjustments=(*run.adjustments, partial(_eight_bits, levels)))
            yield case.changed(which, f"{which.upper()}'s input, in {scale}, rounded to 8 bits", changed)


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


# ---- Changes of the recipe ----------------------------------------------------------------------------

Steps: TypeAlias = tuple[RecipeStep, ...]
Alternatives: TypeAlias = Callable[[Preprocessing, Preprocessing | None], Iterator[Steps]]


def _recipes(alternatives: Alternatives) -> Callable[[Case], Iterator[Trial]]:
    """Trials with another recipe for B, or for A where B has none, where the models are given other values."""

    def trials(case: Case) -> Iterator[Trial]:
        which: Which = "b" if case.b.recipe is not None else "a"
        run, other = case.run(which), case.a.recipe if which == "b" else case.b.recipe
        if not case.at_input or run.recipe is None:
            return
        for steps in alternatives(run.recipe, other):
            try:
                recipe = Preprocessing(steps)
            except ModelError:
                continue
            new = [step for step in steps if step not in run.recipe.steps]
            said = "; ".join(f"“{sentence(step)}”" for step in new) or "its steps in another order"
            yield case.changed(which, f"{said} in {which.upper()}'s recipe", run.with_(recipe=recipe))

    return trials


def _other_values(kind: type[Any], field: str, values: tuple[object, ...]) -> Alternatives:
    """Recipes in which one step of this kind has another value in this field."""

    def alternatives(recipe: Preprocessing, _: Preprocessing | None) -> Iterator[Steps]:
        for number, step in enumerate(recipe.steps):
            for value in values if isinstance(step, kind) else ():
                if getattr(step, field) != value:
                    changes: dict[str, Any] = {field: value}
                    yield (*recipe.steps[:number], replace(step, **changes), *recipe.steps[number + 1 :])

    return alternatives


def _other_order(recipe: Preprocessing, _: Preprocessing | None) -> Iterator[Steps]:
    steps = recipe.steps
    for number in range(len(steps) - 1):
        yield (*steps[:number], steps[number + 1], steps[number], *steps[number + 2 :])


def _other_mean(recipe: Preprocessing, other: Preprocessing | None) -> Iterator[Steps]:
    own = tuple(step for step in (other.steps if other else ()) if isinstance(step, Normalise))
    for number, step in enumerate(recipe.steps):
        for usual in (*own, *_USUAL) if isinstance(step, Normalise) else ():
            yield (*recipe.steps[:number], usual, *recipe.steps[number + 1 :])


def _other_size(recipe: Preprocessing, other: Preprocessing | None) -> Iterator[Steps]:
    for size in [step for step in (other.steps if other else ()) if isinstance(step, Resize)]:
        without = tuple(step for step in recipe.steps if not isinstance(step, Resize))
        for number in range(len(without) + 1):
            yield (*without[:number], size, *without[number:])
        same = [replace(case, height=size.height, width=size.width) if isinstance(case, Resize) else case
                for case in recipe.steps]  # fmt: skip
        yield tuple(same)


def _other_spatial_order(recipe: Preprocessing, _: Preprocessing | None) -> Iterator[Steps]:
    without = tuple(step for step in recipe.steps if not isinstance(step, SpatialOrder))
    yield (*without, SpatialOrder("wh")) if len(without) == len(recipe.steps) else without


def _spatial_order(case: Case) -> Iterator[Trial]:
    yield from _recipes(_other_spatial_order)(case)
    yield from _batch((("B's pictures transposed (height and width swapped)", swap_spatial),), turns=True)(
        case
    )


def _normalisation(case: Case) -> Iterator[Trial]:
    yield from _recipes(_other_mean)(case)
    yield from _mean_and_std(case)


INPUT_CAUSES: tuple[Cause, ...] = (
    Cause(
        "another resize kernel or antialias",
        "Pillow and torchvision antialias when they shrink a picture; Julia's imresize and OpenCV do not",
        _recipes(_other_values(Resize, "kernel", tuple(KERNELS))),
    ),
    Cause(
        "rounding to 8 bits",
        "one side rounds its pixels to 8 bits before the model, the other keeps them as floats",
        _rounding,
    ),
    Cause(
        "grey weights",
        "Julia, Pillow and OpenCV round grey differently, by one level on about one colour in a thousand",
        _recipes(_other_values(Grey, "weights", GREY_WEIGHTS)),
    ),
    Cause(
        "steps of the recipe in another order",
        "with grey before or after resizing, pixels are rounded to 8 bits at different points",
        _recipes(_other_order),
    ),
    Cause(
        "image transposed (spatial axes swapped)",
        "Julia loads a picture as height x width and Flux takes width x height: one side swapped them",
        _spatial_order,
    ),
    Cause(
        "image upside down",
        "the rows run from the bottom up",
        _batch((("B's pictures upside down", _upside_down),), turns=True),
    ),
    Cause(
        "image mirrored",
        "the columns run from right to left",
        _batch((("B's pictures mirrored", _mirrored),), turns=True),
    ),
    Cause(
        "image turned by 180°",
        "rows and columns run backwards",
        _batch((("B's pictures turned by 180°", _turned),), turns=True),
    ),
    Cause(
        "BGR for RGB",
        "OpenCV reads pictures as blue, green, red: the channels of one side are reversed",
        _batch((("the channels of B's pictures reversed", _channels_reversed),), channels=3),
    ),
    Cause(
        "divided by 255 twice, or only once",
        "Julia's Gray and RGB values are from 0 to 1 already: dividing by 255 again makes a picture almost black",
        _batch((("B's input multiplied by 255", partial(_times, 255.0)),)),
    ),
    Cause(
        "never divided by 255",
        "one side takes pixels from 0 to 1, the other was given pixels from 0 to 255",
        _batch((("B's input divided by 255", partial(_times, 1 / 255)),)),
    ),
    Cause(
        "mean and std missing or different",
        "one side subtracts a mean and divides by a std; the other does not, or uses other values",
        _normalisation,
    ),
    Cause(
        "another fit",
        "one side stretches, crops or pads pictures where the other does not",
        _recipes(_other_values(Resize, "fit", FITS)),
    ),
    Cause("another size", "the recipes resize to different sizes", _recipes(_other_size)),
)
