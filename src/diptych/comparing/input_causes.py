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
from diptych.preprocessing import (
    KERNELS,
    Grey,
    Light,
    LowPass,
    Normalise,
    Preprocessing,
    RecipeStep,
    Resize,
    SpatialOrder,
)
from diptych.preprocessing.steps import FITS, GREY_WEIGHTS
from diptych.preprocessing.wording import sentence

__all__ = ["INPUT_CAUSES", "WHOLE_RECIPE"]

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


def _inverted(top: float, x: Array) -> Array:
    return np.float32(top) - x


def _standardised(corrected: bool, by_channel: bool, x: Array) -> Array:
    axes = tuple(range(2 if by_channel else 1, x.ndim))
    values = x.astype(np.float64)
    spread = values.std(axis=axes, keepdims=True, ddof=int(corrected))
    made: Array = (values - values.mean(axis=axes, keepdims=True)) / np.maximum(spread, 1e-12)
    return made.astype(np.float32)


def _half(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


def _reshaped(order: tuple[int, ...], x: Array) -> Array:
    """The values in another order of axes, taken for the shape they had: `reshape` where `permutedims` is meant."""
    return np.ascontiguousarray(x.transpose(order)).reshape(x.shape)


def _put_right(order: tuple[int, ...], x: Array) -> Array:
    """The inverse of `_reshaped`."""
    shape = tuple(x.shape[axis] for axis in order)
    back = tuple(order.index(axis) for axis in range(len(order)))
    return np.ascontiguousarray(x.reshape(shape).transpose(back))


# Julia's (colours, rows, columns) read as (columns, rows, colours), and NumPy's (rows, columns, colours) as (C, H, W).
_ORDERS = (
    ((0, 3, 2, 1), "Julia's reshape(channelview(image), ...)"),
    ((0, 2, 3, 1), "NumPy's reshape of (H, W, C)"),
)


def _reshape_for_permute(case: Case) -> Iterator[Trial]:
    changes = [
        (
            f"B's pictures as {what} {'reads' if turn is _reshaped else 'should have read'} them",
            partial(turn, order),
        )
        for order, what in _ORDERS
        for turn in (_reshaped, _put_right)
    ]
    yield from _batch(tuple(changes))(case)


def _other_samples(case: Case) -> Iterator[Trial]:
    """The samples of B in the order of those of A, where every one of A is among them."""
    a, b = case.a.batch, case.b.batch
    if not case.at_input or a.shape != b.shape or not 2 <= len(a) <= _MOST_SAMPLES:
        return
    left = list(range(len(b)))
    order: list[int] = []
    for sample in a:
        found = next((i for i in left if np.allclose(b[i], sample, rtol=1e-4, atol=1e-5)), None)
        if found is None:
            return
        left.remove(found)
        order.append(found)
    listed = ", ".join(str(i + 1) for i in order[:8])
    changed = case.b.with_(adjustments=(*case.b.adjustments, lambda x: x[order]))
    yield case.changed("b", f"B's samples in the order {listed}{', …' if len(order) > 8 else ''}", changed)


_MOST_SAMPLES = 256


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


def _steps_reversed(case: Case) -> Iterator[Trial]:
    """The steps of sequences, (N, time, features), from the last to the first."""
    if case.b.batch.ndim == 3:
        adjustments = (*case.b.adjustments, lambda x: x[:, ::-1])
        yield case.changed(
            "b", "B's sequences from the last step to the first", case.b.with_(adjustments=adjustments)
        )


def _mean_and_std(case: Case) -> Iterator[Trial]:
    """Every usual mean and std, and those of both recipes, applied to the input of B or taken out of it."""
    recipes = [run.recipe for run in (case.a, case.b) if run.recipe is not None]
    own = [step for recipe in recipes for step in recipe.steps if isinstance(step, Normalise)]
    for step in dict.fromkeys((*own, *_USUAL)):
        if case.b.batch.ndim != 4 or len(step.mean) not in (1, case.b.batch.shape[1]):
            continue
        values = f"the mean {_list(step.mean)} and std {_list(step.std)}"
        mean = Normalise(step.mean, (1.0,) * len(step.mean))
        std = Normalise((0.0,) * len(step.mean), step.std)
        for tried, change in (
            (f"{values} applied to B's input", partial(_normalised, step)),
            (f"{values} taken out of B's input", partial(_not_normalised, step)),
            (f"the mean {_list(step.mean)} alone subtracted from B's input", partial(_normalised, mean)),
            (f"the mean {_list(step.mean)} alone added to B's input", partial(_not_normalised, mean)),
            (f"B's input divided by the std {_list(step.std)} alone", partial(_normalised, std)),
            (f"B's input multiplied by the std {_list(step.std)} alone", partial(_not_normalised, std)),
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


def _standardisation(case: Case) -> Iterator[Trial]:
    for which in ("b", "a"):
        run = case.run(which)
        for by_channel in (False, True):
            for corrected, count in ((False, "n"), (True, "n - 1")):
                change = partial(_standardised, corrected, by_channel)
                what = f"standardised by picture{' and channel' if by_channel else ''}, std by {count}"
                if run.batch.ndim == 4 and case.at_input:
                    changed = run.with_(adjustments=(*run.adjustments, change))
                    yield case.changed(which, f"{which.upper()}'s input {what}", changed)


def _half_precision(case: Case) -> Iterator[Trial]:
    if not case.at_input:
        return
    for which in ("b", "a"):
        run = case.run(which)
        changed = run.with_(adjustments=(*run.adjustments, _half))
        yield case.changed(which, f"{which.upper()}'s input rounded to float16", changed)


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


# ---- Changes of the recipe ----------------------------------------------------------------------------

Steps: TypeAlias = tuple[RecipeStep, ...]
Alternatives: TypeAlias = Callable[[Preprocessing, Preprocessing | None], Iterator[Steps]]


def _of_both(alternatives: Alternatives) -> Callable[[Case], Iterator[Trial]]:
    """The same for either model: a step that cannot be undone is added to the other side."""

    def trials(case: Case) -> Iterator[Trial]:
        for which in ("b", "a"):
            yield from _recipes(alternatives, which)(case)

    return trials


def _recipes(alternatives: Alternatives, only: Which | None = None) -> Callable[[Case], Iterator[Trial]]:
    """Trials with another recipe for B, or for A where B has none, where the models are given other values."""

    def trials(case: Case) -> Iterator[Trial]:
        which: Which = only or ("b" if case.b.recipe is not None else "a")
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


def _other_low_pass(recipe: Preprocessing, _: Preprocessing | None) -> Iterator[Steps]:
    """With a low-pass before the resize, or without; behind it pixels are not rounded."""
    without = tuple(step for step in recipe.steps if not isinstance(step, LowPass))
    if len(without) < len(recipe.steps):
        yield without
        return
    for number, step in enumerate(recipe.steps):
        if isinstance(step, Resize) and step.fit == "stretch":
            behind = tuple(
                replace(each, round=False) if isinstance(each, Resize) else
                Grey("float") if isinstance(each, Grey) else each
                for each in recipe.steps[number:]
            )  # fmt: skip
            yield (*recipe.steps[:number], LowPass(step.height, step.width), *behind)


def _other_light(recipe: Preprocessing, _: Preprocessing | None) -> Iterator[Steps]:
    """With the resize in linear light, or without."""
    without = tuple(step for step in recipe.steps if not isinstance(step, Light))
    if len(without) < len(recipe.steps):
        yield without
        return
    for number, step in enumerate(recipe.steps):
        if isinstance(step, Resize):
            resize = replace(step, round=False)
            after = [Grey("float") if isinstance(each, Grey) else each for each in recipe.steps[number + 1 :]]
            yield (*recipe.steps[:number], Light("linear"), resize, Light("srgb"), *after)


def _whole(recipe: Preprocessing, other: Preprocessing | None) -> Iterator[Steps]:
    if other is not None and other.steps != recipe.steps:
        yield other.steps


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
        "input in half precision",
        "one side's input went through float16, with 11 bits for each number",
        _half_precision,
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
    Cause(
        "light and dark exchanged",
        "one side inverts its pictures, such as digits that are black on white",
        _batch(
            (
                ("B's input inverted (1 - x)", partial(_inverted, 1.0)),
                ("B's input inverted (255 - x)", partial(_inverted, 255.0)),
                ("the sign of B's input changed", partial(_inverted, 0.0)),
            )
        ),
    ),
    Cause(
        "reshape where the axes must be permuted",
        "reshape keeps the values in the order of memory: colours and places are mixed up; permutedims moves the axes",
        _reshape_for_permute,
    ),
    Cause(
        "standardised picture by picture",
        "one side subtracts each picture's own mean and divides by its own std",
        _standardisation,
    ),
    Cause(
        "samples in another order",
        "the batches hold the same samples, but not in the same order",
        _other_samples,
    ),
    Cause(
        "time reversed in the input",
        "one side is given sequences from their last step to their first",
        _steps_reversed,
    ),
    Cause(
        "low-pass before resizing",
        "one side smooths a picture before Julia's imresize makes it smaller, as the documentation advises",
        _of_both(_other_low_pass),
    ),
    Cause(
        "resized in linear light",
        "one side converts sRGB to linear light before it resizes, and back",
        _of_both(_other_light),
    ),
    Cause("another size", "the recipes resize to different sizes", _recipes(_other_size)),
)
WHOLE_RECIPE = Cause("another recipe", "the two recipes differ in several steps", _recipes(_whole))
"""Tried where no other cause and no two of them explain the difference."""
