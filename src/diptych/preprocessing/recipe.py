"""The recipe: an ordered, immutable list of steps, checked as a whole when it is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diptych import display
from diptych.errors import ModelError, ShapeError
from diptych.preprocessing import document as documents
from diptych.preprocessing.grey import WEIGHTS
from diptych.preprocessing.levels import Invert, Light, LowPass, Standardise, applied
from diptych.preprocessing.order import check_order
from diptych.preprocessing.pillow import begin, is_pillow_picture
from diptych.preprocessing.resize import centred, resized
from diptych.preprocessing.steps import (
    FREE_FITS,
    MAX_STEPS,
    CentreCrop,
    Colour,
    Grey,
    Normalise,
    RecipeStep,
    Resize,
    Scale,
    SpatialOrder,
)
from diptych.preprocessing.wording import sentence

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Preprocessing"]

Array = NDArray[Any]

_LONGEST_NAME = 100


@dataclass(frozen=True)
class Preprocessing:
    """A recipe: the steps from a picture to the input of a model. Recipes with equal steps are equal.

    Pixels are 8-bit until a step turns them into float32 (see `diptych.preprocessing.steps`), so the order of the
    steps decides where values are rounded.

    Args:
        steps: The steps, in order; at most 32.
        name: A name, of at most 100 printable characters.

    Raises:
        ModelError: If the order of the steps makes no sense: it would divide by 255 twice, round float32 values to
            8 bits, or normalise before scaling.
    """

    steps: tuple[RecipeStep, ...]
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if len(self.steps) > MAX_STEPS:
            raise ModelError(
                f"a recipe has at most {MAX_STEPS} steps, but this one has {len(self.steps)}; join some"
            )
        if not isinstance(self.name, str) or len(self.name) > _LONGEST_NAME or not self.name.isprintable():
            raise ModelError(
                f"a recipe's name is at most {_LONGEST_NAME} printable characters; choose another"
            )
        check_order(self.steps)

    # -- pictures -----------------------------------------------------------------------------------------

    def apply(self, image: Array | Image) -> NDArray[np.float32]:
        """Prepares one picture.

        Args:
            image: uint8 (H, W, 3) or (H, W), or a Pillow image of mode L or RGB, which gives the same values faster.

        Returns:
            The input of the model: float32 (C, H, W), C-contiguous; in 0-1 if the recipe has `Scale`, otherwise in
            0-255. Values are not clipped: bicubic and Lanczos kernels on float32 may exceed the range.

        Raises:
            ShapeError: If the array has another shape.
            ModelError: If it has another dtype.
        """
        pixels, steps = begin(image, self.steps) if is_pillow_picture(image) else (image, self.steps)
        pixels, scaled = _checked_picture(pixels), False
        for step in steps:
            pixels = _applied(step, pixels, scaled)
            scaled = scaled or isinstance(step, Scale)
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(planes, dtype=np.float32)

    def apply_batch(self, images: Iterable[Array | Image], names: Sequence[str] = ()) -> NDArray[np.float32]:
        """Prepares several pictures as one batch.

        Args:
            images: The pictures, as `apply` takes them.
            names: Their names, for messages.

        Returns:
            float32 (N, C, H, W).

        Raises:
            ShapeError: If there is no picture, or one gets another shape than the first; with its name.
            ModelError: If a picture has another dtype than uint8.
        """
        items: list[NDArray[np.float32]] = []
        for index, image in enumerate(images):
            who = names[index] if index < len(names) else f"picture {index + 1}"
            try:
                item = self.apply(image)
            except ModelError as error:
                raise type(error)(f"{who}: {error}") from error
            if items and item.shape != items[0].shape:
                raise ShapeError(
                    f"{who} comes out of the recipe as {_shape(item)}, but those before it as "
                    f"{_shape(items[0])}; add a Resize, Grey or Colour step so that all come out alike"
                )
            items.append(item)
        if not items:
            raise ShapeError("a batch needs at least one picture, but none was given")
        return np.stack(items)

    def display(self, item: Array) -> NDArray[np.uint8]:
        """Turns an input of the model back into a picture to look at.

        This undoes the spatial order, mean and std, light, inversion and scale, then rounds and clips. NaN becomes
        black. What `Standardise` took away is not known: the values fill the whole range.

        Args:
            item: float32 (C, H, W) with 1 or 3 channels.

        Returns:
            uint8 (H, W) or (H, W, 3).

        Raises:
            ShapeError: If the item has another shape.
        """
        if item.ndim != 3 or item.shape[0] not in (1, 3):
            raise ShapeError(f"display expects one input of shape (1 or 3, H, W), but got {_shape(item)}")
        values = np.asarray(item, dtype=np.float32)
        for number in reversed(range(len(self.steps))):
            step = self.steps[number]
            top = 1 if any(isinstance(before, Scale) for before in self.steps[:number]) else 255
            if isinstance(step, SpatialOrder) and step.order == "wh":
                values = values.transpose(0, 2, 1)
            elif isinstance(step, Normalise):
                values = values * _per_channel(step.std) + _per_channel(step.mean)
            elif isinstance(step, Standardise):  # its mean and std are gone: as much of the range as there is
                low, high = float(np.nanmin(values)), float(np.nanmax(values))
                values = (values - low) / max(high - low, 1e-12) * np.float32(top)
            elif isinstance(step, Scale):
                values = values * np.float32(255)
            elif isinstance(step, Invert):
                values = np.float32(top) - values
            elif isinstance(step, Light):
                values = applied(Light("srgb" if step.to == "linear" else "linear"), values, top)
        levels = np.clip(np.rint(np.nan_to_num(values, nan=0.0)), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))

    def upright(self, item: Array) -> Array:
        """An input (C, H, W) or (C, W, H) in the orientation of the picture: undoes `SpatialOrder` alone."""
        turns = sum(isinstance(step, SpatialOrder) and step.order == "wh" for step in self.steps)
        return item.transpose(0, 2, 1) if turns % 2 else item

    # -- what comes out -----------------------------------------------------------------------------------

    @property
    def channels(self) -> int | None:
        """The number of channels of the result: 1, 3, or None if it depends on the picture."""
        channels: int | None = None
        for step in self.steps:
            if isinstance(step, Grey):
                channels = 1
            elif isinstance(step, Colour) or (isinstance(step, Normalise) and len(step.mean) == 3):
                channels = 3
        return channels

    @property
    def size(self) -> tuple[int, int] | None:
        """The sizes of the last two axes of the result, or None if they depend on the picture."""
        size: tuple[int, int] | None = None
        for step in self.steps:
            if isinstance(step, Resize | CentreCrop):
                free = isinstance(step, Resize) and step.fit in FREE_FITS
                size = None if free else (step.height, step.width)
            elif isinstance(step, SpatialOrder) and step.order == "wh" and size:
                size = (size[1], size[0])
        return size

    def _repr_html_(self) -> str:
        rows = [(str(number), line) for number, line in enumerate(self.describe(), 1)]
        return display.heading(self.name or "a recipe") + display.table(("", "step"), rows)

    def describe(self) -> list[str]:
        """The steps in plain words, one line each."""
        if not self.steps:
            return ["the pixels unchanged, 0-255 as float32"]
        lines = [sentence(step) for step in self.steps]
        if not any(isinstance(step, Scale) for step in self.steps):
            lines.append("not scaled: the values stay in 0-255")
        return lines

    # -- documents ----------------------------------------------------------------------------------------

    def to_document(self) -> dict[str, Any]:
        """The recipe as values that JSON can hold; `from_document` reads it back."""
        return documents.to_document(self.steps, self.name)

    @classmethod
    def from_document(cls, document: Any) -> Preprocessing:
        """Reads a recipe back.

        Args:
            document: What `to_document` gave, or anything else that a file holds in its place.

        Raises:
            ModelError: If the document is not a complete recipe.
        """
        steps, name = documents.from_document(document)
        return cls(steps, name=name)


def _applied(step: RecipeStep, pixels: Array, scaled: bool) -> Array:
    """The pixels after one step; `scaled` says whether they are already in 0-1."""
    if isinstance(step, Grey):
        return WEIGHTS[step.weights](pixels)
    if isinstance(step, Colour):
        return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
    if isinstance(step, Resize):
        ground = step.fill / 255 if scaled else step.fill
        kept = pixels if step.round else pixels.astype(np.float32, copy=False)
        return resized(kept, step.height, step.width, step.kernel, step.fit, ground)
    if isinstance(step, CentreCrop):
        fill = np.array(step.fill, np.float32) / np.float32(255) if scaled else np.array(step.fill)
        return centred(pixels, step.height, step.width, fill)
    if isinstance(step, Invert | Light | LowPass | Standardise):
        return applied(step, pixels, 1 if scaled else 255)
    if isinstance(step, Scale):
        return np.divide(pixels, np.float32(255), dtype=np.float32)
    if isinstance(step, Normalise):
        return _normalised(step, pixels)
    return pixels.swapaxes(0, 1) if step.order == "wh" else pixels


def _normalised(step: Normalise, pixels: Array) -> Array:
    channels = 1 if pixels.ndim == 2 else 3
    if len(step.mean) not in (1, channels):
        raise ShapeError(
            f"Normalise has {len(step.mean)} means, but the picture is grey; "
            "put Colour() before it in the recipe"
        )
    mean, std = np.array(step.mean, np.float32), np.array(step.std, np.float32)
    if channels == 1:
        mean, std = mean[0], std[0]
    result: Array = (pixels - mean) / std
    return result


def _per_channel(values: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array(values, np.float32).reshape(-1, 1, 1)


def _checked_picture(image: Any) -> Array:
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or dtype is None:
        raise ModelError(
            f"a picture is a uint8 array (H, W, 3) or (H, W), but this is a {type(image).__name__}"
        )
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) or 0 in shape:
        hint = "; lay alpha over white first" if len(shape) == 3 and shape[2] == 4 else ""
        raise ShapeError(
            f"a picture is a uint8 array (H, W, 3) or (H, W), but this one is {_shape(image)}{hint}"
        )
    if dtype != np.uint8:
        raise ModelError(
            f"a picture is a uint8 array with values 0-255, but this one is {dtype}; "
            "pass the picture as it was read, the recipe does the scaling"
        )
    array: Array = image
    return array


def _shape(array: Array) -> str:
    return " x ".join(str(n) for n in array.shape)
