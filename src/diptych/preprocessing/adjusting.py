"""A recipe with another size, crop, mean or std, as an option of the command line names them."""

from __future__ import annotations

from collections.abc import Sequence

from diptych.preprocessing.recipe import Preprocessing
from diptych.preprocessing.steps import (
    CentreCrop,
    Colour,
    Grey,
    Normalise,
    RecipeStep,
    Resize,
    Scale,
    SpatialOrder,
)

__all__ = ["adjusted"]


def adjusted(
    recipe: Preprocessing | None,
    *,
    resize: tuple[int, ...] = (),
    crop: tuple[int, ...] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    channels: int = 3,
) -> Preprocessing:
    """A recipe with some settings replaced, and all others kept.

    Args:
        recipe: The recipe; by default Pillow's antialiased bilinear on 8 bits, then 0-1.
        resize: One number for the shorter side, as torchvision's Resize takes it, or (height, width). It
            takes the place of the recipe's first; there is no other then.
        crop: The side or (height, width) of a centre crop after the resize.
        mean: One number or three, of values in 0-1; without `std`, the recipe's own std is kept, or 1.
        std: Likewise; without `mean`, the recipe's own mean is kept, or 0.
        channels: 1 or 3, of a recipe that is made here.

    Raises:
        ModelError: The settings make no recipe.
    """
    first: RecipeStep = Grey("pillow") if channels == 1 else Colour()
    steps = list(recipe.steps) if recipe is not None else [first, Scale()]
    kernel = next((step.kernel for step in steps if isinstance(step, Resize)), "pillow-bilinear")
    rounded = next((step.round for step in steps if isinstance(step, Resize)), True)
    if resize:
        fit = "cover" if len(resize) == 1 else "stretch"
        new = Resize(resize[0], resize[-1], kernel, fit, rounded)
        place = next((i for i, step in enumerate(steps) if isinstance(step, Resize)), _front(steps))
        steps = [step for step in steps if not isinstance(step, Resize)]
        steps.insert(place, new)
    if crop:
        steps = [step for step in steps if not isinstance(step, CentreCrop)]
        last = max((i + 1 for i, step in enumerate(steps) if isinstance(step, Resize)), default=_front(steps))
        steps.insert(last, CentreCrop(crop[0], crop[-1]))
    if mean or std:
        old = next((step for step in steps if isinstance(step, Normalise)), None)
        count = len(mean or std)
        own_mean, own_std = (old.mean, old.std) if old else ((0.0,) * count, (1.0,) * count)
        normalise = Normalise(tuple(mean or own_mean), tuple(std or own_std))
        if old is not None:
            steps[steps.index(old)] = normalise
        else:
            if not any(isinstance(step, Scale) for step in steps):
                steps.insert(_end(steps), Scale())
            steps.insert(_end(steps), normalise)
    return Preprocessing(tuple(steps))


def _front(steps: list[RecipeStep]) -> int:
    """The place before the values leave 8 bits, which is after the colours are made."""
    return next((i for i, step in enumerate(steps) if not isinstance(step, Colour | Grey)), len(steps))


def _end(steps: list[RecipeStep]) -> int:
    return next((i for i, step in enumerate(steps) if isinstance(step, SpatialOrder)), len(steps))
