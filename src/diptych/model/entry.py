"""Finds the input shape of a model from its layers, since most Flux files do not record it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diptych.errors import ModelError, ShapeError
from diptych.model.layers import (
    Bilinear,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    GlobalMaxPool,
    GlobalMeanPool,
    MaxPool,
    MeanPool,
)
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes

__all__ = ["asked_shape", "assumed_shape", "entry_axes", "likely_input", "sample_shape"]

_USUAL_SIZES = (32, 28, 64, 96, 128, 224, 256)
_LARGEST = 512
_FAR_APART = (509, 251)  # a model that takes both sizes takes any size


def entry_axes(model: Model) -> tuple[int, int] | None:
    """The input that the first layers of a model require.

    Returns:
        (channels or features, number of spatial axes), or None if no layer determines it.
    """
    rank = 2
    for _, layer in model.walk():
        if isinstance(layer, Conv):
            return layer.weight.shape[1] * layer.groups, layer.weight.ndim - 2
        if isinstance(layer, ConvTranspose):
            return layer.weight.shape[0], layer.weight.ndim - 2
        if isinstance(layer, Dense | Bilinear):
            return layer.weight.shape[1], 0
        if isinstance(layer, MaxPool | MeanPool):
            rank = len(layer.kernel)
        elif "scale" in layer.arrays and layer.arrays["scale"].ndim == 1:
            return layer.arrays["scale"].shape[0], rank
    return None


def sample_shape(model: Model) -> tuple[int, ...]:
    """A shape of one sample that the model takes.

    It is the recorded input shape; otherwise the first that fits of the size of the recipe, usual sizes, and all
    squares up to 512. Since pools round down, several neighbouring sizes may fit.

    Returns:
        The shape without the batch axis, such as (3, 32, 32).

    Raises:
        ModelError: No shape is recorded, and no square one fits.
    """
    shape = model.input_shape
    if shape is not None and None not in shape:
        return tuple(n for n in shape if n is not None)
    found = next((shape for shape in _trials(model) if _takes(model, shape)), None)
    if found is None:
        raise ModelError(
            f"{model.name or 'the model'} does not record the shape of its input, and no square shape was "
            "found that fits: name it with --shape, such as 1,28,28, or "
            "model.with_(input_shape=(1, 28, 28))"
        )
    return found


def likely_input(model: Model) -> tuple[int | None, ...] | None:
    """As `sample_shape`, but with None for sizes that are free.

    Returns:
        The shape without the batch axis, or None if none is recorded and no square one fits.
    """
    try:
        shape = sample_shape(model)
    except ModelError:
        return None
    if model.input_shape is not None:
        return model.input_shape
    if all(_takes(model, (shape[0], *(size,) * (len(shape) - 1))) for size in _FAR_APART):
        return (shape[0], *(None,) * (len(shape) - 1))
    return shape


def assumed_shape(model: Model) -> tuple[int, ...] | None:
    """As `sample_shape`, if the model or its recipe determines the sizes, or the output has none.

    Returns:
        The shape without the batch axis, or None if no shape fits, or if sizes are free, as in a network that turns
        pictures into pictures, and the recipe gives none. A network with a global pool takes any size as well, but
        ends in features, so the first usual size is assumed.
    """
    shape = likely_input(model)
    if shape is None:
        return None
    sized = model.preprocessing is not None and model.preprocessing.size is not None
    pooled = any(
        isinstance(layer, Dense | Flatten | GlobalMeanPool | GlobalMaxPool) for _, layer in model.walk()
    )
    return sample_shape(model) if None not in shape or sized or pooled else None


def asked_shape(model: Model, shape: Sequence[int]) -> tuple[int, ...]:
    """The batch shape that a user means by a shape.

    Args:
        model: The model that must take it.
        shape: Of one sample, (C, H, W), or of a batch, (N, C, H, W). Which of the two it is follows from what the
            model takes.

    Returns:
        The shape with the batch axis.

    Raises:
        ShapeError: A size is less than 1, or the model takes the shape in neither sense.
    """
    batch, alone = tuple(shape), (1, *shape)
    if not batch or min(batch) < 1:
        raise ShapeError(
            f"a shape must be that of one sample, such as 1,28,28, with sizes of 1 or more, got {_by(batch)}"
        )
    fitting = [each for each in (alone, batch) if len(each) > 1 and _takes(model, each[1:], each[0])]
    if len(fitting) == 1:
        return fitting[0]
    chosen = batch if len(batch) > _sample_axes(model) else alone
    if not fitting:
        try:
            layer_shapes(model, chosen)
        except ShapeError as error:
            raise ShapeError(f"the model does not take the shape {_by(shape)} asked for: {error}") from error
    return chosen


def _sample_axes(model: Model) -> int:
    """The number of axes of one sample; 3, as for a picture, if the layers do not determine it."""
    if model.input_shape is not None:
        return len(model.input_shape)
    first = next((layer for _, layer in model.walk() if not layer.children), None)
    entry = None if isinstance(first, Flatten) else entry_axes(model)
    return 3 if entry is None else 1 + entry[1]


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _trials(model: Model) -> Iterator[tuple[int, ...]]:
    """Shapes of one sample to try, the most likely first; recorded sizes are kept."""
    recipe, entry = model.preprocessing, entry_axes(model)
    channels, rank = entry or (recipe.channels if recipe is not None else None, 2)
    recorded = model.input_shape or (channels, *(None,) * rank)
    channels, free = recorded[0] or channels, recorded[1:]
    sizes = [recipe.size] if recipe is not None and recipe.size is not None else []
    for size in (*sizes, *((n,) * len(free) for n in (*_USUAL_SIZES, *range(1, _LARGEST + 1)))):
        if channels is not None and len(size) == len(free):
            yield (channels, *(known or n for known, n in zip(free, size, strict=True)))


def _takes(model: Model, shape: tuple[int, ...], count: int = 1) -> bool:
    try:
        layer_shapes(model, (count, *shape))
    except ShapeError:
        return False
    return True
