"""What a model takes, as far as its layers tell it: most files of Flux record no input shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diptych.errors import ModelError, ShapeError
from diptych.model.layers import Bilinear, Conv, ConvTranspose, Dense, Flatten, MaxPool, MeanPool
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes

__all__ = ["asked_shape", "assumed_shape", "entry_axes", "likely_input", "sample_shape"]

_USUAL_SIZES = (32, 28, 64, 96, 128, 224, 256)
_LARGEST = 512
_FAR_APART = (509, 251)  # two sizes that only a model of free size takes both


def entry_axes(model: Model) -> tuple[int, int] | None:
    """(channels or features, number of spatial axes) that the first layers ask for; None where none tells."""
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
    """One sample's shape that the model takes, such as (3, 32, 32): recorded, the recipe's, or found by trying.

    Pools round down, so that a few sizes near each other may fit where one of them is given. Raises
    `ModelError` where no shape is recorded and no square one fits.
    """
    shape = model.input_shape
    if shape is not None and None not in shape:
        return tuple(n for n in shape if n is not None)
    found = next((shape for shape in _trials(model) if _takes(model, shape)), None)
    if found is None:
        raise ModelError(
            f"{model.name or 'the model'} does not record the shape of its input, and no square one was found "
            "that fits: name it with --shape, such as 1,28,28, or "
            "model.with_(input_shape=(1, 28, 28))"
        )
    return found


def likely_input(model: Model) -> tuple[int | None, ...] | None:
    """As `sample_shape`, with None for sizes that are free; None where nothing tells."""
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
    """As `sample_shape`, but None where sizes are free, and no recipe names one, or where nothing tells."""
    shape = likely_input(model)
    sized = model.preprocessing is not None and model.preprocessing.size is not None
    return None if shape is None or (None in shape and not sized) else sample_shape(model)


def asked_shape(model: Model, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a batch, (N, C, H, W), from what a user asks for: that, or one sample's shape, (C, H, W).

    Which of both it is, the layers tell by what they take. Raises `ShapeError` where they take neither.
    """
    batch, alone = tuple(shape), (1, *shape)
    if not batch or min(batch) < 1:
        raise ShapeError(f"a shape is one sample's, such as 1,28,28, of sizes from 1 up, got {_by(batch)}")
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
    """How many axes one sample has; 3, a picture, where a Dense layer after a Flatten does not tell."""
    if model.input_shape is not None:
        return len(model.input_shape)
    first = next((layer for _, layer in model.walk() if not layer.children), None)
    entry = None if isinstance(first, Flatten) else entry_axes(model)
    return 3 if entry is None else 1 + entry[1]


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _trials(model: Model) -> Iterator[tuple[int, ...]]:
    """Shapes of one sample to try, the likeliest first; what is recorded is kept."""
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
