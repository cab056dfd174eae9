"""The steps of a recipe: frozen dataclasses that hold and check settings, but compute nothing.

Pixels pass from step to step as (H, W) or (H, W, 3). They are 8-bit (uint8, 0-255) until a step turns them into
float32: `Resize(round=False)` and `Grey("float")` keep the range 0-255, and `Scale` gives 0-1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from diptych.errors import ModelError
from diptych.preprocessing.grey import WEIGHTS
from diptych.preprocessing.levels import Invert, Light, LowPass, Standardise
from diptych.preprocessing.resize import KERNELS

__all__ = [
    "FITS",
    "FREE_FITS",
    "GREY_WEIGHTS",
    "MAX_PIXELS",
    "MAX_SIDE",
    "MAX_STEPS",
    "CentreCrop",
    "Colour",
    "Grey",
    "Normalise",
    "RecipeStep",
    "Resize",
    "Scale",
    "SpatialOrder",
]

GREY_WEIGHTS = tuple(WEIGHTS)
FITS = ("stretch", "crop", "pad")
# After these the size of the result depends on the picture.
FREE_FITS = ("cover", "cover-rounded", "contain")
ORDERS = ("hw", "wh")
MAX_STEPS = 32
MAX_SIDE = 16384
# A recipe can come from an untrusted model file, in which more pixels than this are a mistake or an attack.
MAX_PIXELS = 2**26
_LARGEST = 1e6  # of a mean or a standard deviation: far beyond any real one, and safe in float32


@dataclass(frozen=True)
class Grey:
    """Converts colour to grey with the Rec. 601 weights 0.299, 0.587, 0.114; a grey picture is left unchanged.

    Args:
        weights: The library whose rounding to 8 bits is reproduced: "julia" (Colors.jl 0.11 and later on N0f8),
            "pillow" (`convert("L")`) or "opencv" (`cvtColor`), which differ by one level for about one colour in a
            thousand. "float" gives float32 without rounding, as Julia does for Float32 colours.
    """

    weights: str = "julia"

    def __post_init__(self) -> None:
        _one_of("Grey", "weights", self.weights, GREY_WEIGHTS)


@dataclass(frozen=True)
class Colour:
    """Converts grey to three equal channels; a colour picture is left unchanged."""


@dataclass(frozen=True)
class Resize:
    """Resizes a picture.

    Args:
        height: Rows of the result, 1 to 16384.
        width: Columns of the result, 1 to 16384.
        kernel: One of `KERNELS`.
        fit: What happens to another aspect ratio. "stretch" ignores it; "crop" scales until the picture covers the
            size and keeps the centre, as torchvision's Resize and CenterCrop do; "pad" scales until the picture fits
            and centres it, as Pillow's `ImageOps.pad` does. Three keep the whole picture at its aspect ratio, whatever
            size comes out: "cover" scales until the picture covers the size, rounded down as torchvision's Resize to
            one number does; "cover-rounded" the same, rounded to the nearest as timm's ResizeKeepRatio does; and
            "contain" until it fits, rounded as there.
        round: Whether the result is rounded to 8 bits, as by Pillow, OpenCV and Julia's N0f8. Otherwise it is float32
            in the same range; after `Scale` only False is allowed.
        fill: The level of the padding, 0-255.

    Raises:
        ModelError: If a setting is out of range.
    """

    height: int
    width: int
    kernel: str = "pillow-bilinear"
    fit: str = "stretch"
    round: bool = True
    fill: int = 0

    def __post_init__(self) -> None:
        _check_size("Resize", self.height, self.width)
        _one_of("Resize", "kernel", self.kernel, tuple(KERNELS))
        _one_of("Resize", "fit", self.fit, FITS + FREE_FITS)
        if not isinstance(self.round, bool):
            raise ModelError(f"Resize expects round to be true or false, but got {_short(self.round)}")
        _whole_number("Resize", "fill", self.fill, 0, 255)


@dataclass(frozen=True)
class CentreCrop:
    """Keeps the centre of a picture, as torchvision's CenterCrop does; a side that is too short is padded.

    Args:
        height: Rows of the result, 1 to 16384.
        width: Columns of the result, 1 to 16384.
        fill: The level of the padding, 0-255: one for all channels, or one for each of three.

    Raises:
        ModelError: If a setting is out of range.
    """

    height: int
    width: int
    fill: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        _check_size("CentreCrop", self.height, self.width)
        fill: Any = self.fill
        if not isinstance(fill, list | tuple) or len(fill) not in (1, 3):
            raise ModelError(f"CentreCrop expects fill to be one or three levels, but got {_short(fill)}")
        for level in fill:
            _whole_number("CentreCrop", "fill", level, 0, 255)
        object.__setattr__(self, "fill", tuple(fill))


@dataclass(frozen=True)
class Scale:
    """Converts 0-255 to 0-1: divides by 255 in float32, which is also what `Float32.(img)` does to Julia's N0f8."""


@dataclass(frozen=True)
class Normalise:
    """Computes (x - mean) / std in float32, on values in 0-1.

    Args:
        mean: One number for all channels, or one for each of three channels.
        std: As many positive numbers as `mean` has.

    Raises:
        ModelError: If the numbers are not finite, too large or too small, or not as many.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _numbers("mean", self.mean))
        object.__setattr__(self, "std", _numbers("std", self.std))
        if len(self.mean) != len(self.std):
            raise ModelError(
                f"Normalise expects as many means as standard deviations, "
                f"but got {len(self.mean)} and {len(self.std)}"
            )
        if min(self.std) < 1 / _LARGEST:
            raise ModelError(
                f"Normalise expects every std to be at least {1 / _LARGEST:g}, but got {self.std}"
            )


@dataclass(frozen=True)
class SpatialOrder:
    """Chooses the order of the spatial axes of the result.

    Julia code that loads a picture, rows first, and feeds it with `reshape(img, H, W, 1, 1)` treats the rows as W. In
    our order of axes, (N, C, H, W), that is the transposed picture, "wh".

    Args:
        order: "hw" for (C, H, W), or "wh" for (C, W, H).
    """

    order: str = "hw"

    def __post_init__(self) -> None:
        _one_of("SpatialOrder", "order", self.order, ORDERS)


RecipeStep: TypeAlias = (
    Grey
    | Colour
    | Invert
    | Light
    | LowPass
    | Resize
    | CentreCrop
    | Scale
    | Standardise
    | Normalise
    | SpatialOrder
)


def _check_size(step: str, height: Any, width: Any) -> None:
    for name, value in (("height", height), ("width", width)):
        _whole_number(step, name, value, 1, MAX_SIDE)
    if height * width > MAX_PIXELS:
        raise ModelError(
            f"{step} expects at most {MAX_PIXELS} pixels in all, but {height} x {width} "
            f"is {height * width}; choose a smaller size"
        )


def _one_of(step: str, name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ModelError(f"{step} expects {name} to be one of {', '.join(allowed)}, but got {_short(value)}")


def _whole_number(step: str, name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ModelError(
            f"{step} expects {name} to be a whole number from {least} to {most}, but got {_short(value)}"
        )


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    """One or three finite numbers as a tuple of floats."""
    if isinstance(values, int | float) and not isinstance(values, bool):
        values = (values,)
    numbers: tuple[Any, ...] = ()
    if isinstance(values, Iterable) and not isinstance(values, str | bytes | dict):
        numbers = tuple(value for value, _ in zip(values, range(4), strict=False))
    # The comparison also refuses NaN and infinity.
    good = all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) <= _LARGEST for n in numbers)
    if len(numbers) not in (1, 3) or not good:
        raise ModelError(
            f"Normalise expects {name} to be one or three finite numbers of at most {_LARGEST:g}, "
            f"but got {_short(values)}"
        )
    return tuple(float(n) for n in numbers)


def _short(value: Any) -> str:
    """What came, short enough for a sentence, however large or deep it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a number of more than 18 digits"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    if isinstance(value, list | tuple) and len(value) <= 4 and all(isinstance(v, int | float) for v in value):
        return "[" + ", ".join(_short(v) for v in value) + "]"
    size = f" of {len(value)}" if isinstance(value, list | tuple | dict) else ""
    return f"a {type(value).__name__}{size}"
