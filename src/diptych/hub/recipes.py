"""Recipes from timm's pretrained configurations and torchvision's transforms, with the same bytes.

timm's come from `create_transform(**resolve_data_config(pretrained_cfg=...), is_training=False)`, torchvision's from
`weights.transforms()`, both applied to Pillow pictures. `benchmarks/named_recipes.py` compares all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from diptych.errors import ModelError
from diptych.preprocessing import (
    CentreCrop,
    Colour,
    Grey,
    Normalise,
    Preprocessing,
    RecipeStep,
    Resize,
    Scale,
)

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "of_timm", "of_torchvision"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_KERNELS = {
    "bilinear": "pillow-bilinear",
    "bicubic": "pillow-bicubic",
    "lanczos": "pillow-lanczos",
    "nearest": "nearest",
    "nearest-exact": "nearest",
}


def of_timm(config: Mapping[str, Any]) -> Preprocessing:
    """The recipe of a pretrained configuration.

    Args:
        config: `pretrained_cfg` of a timm model or of its config.json. What is missing has timm's defaults: 224 x 224,
            bicubic, crop_pct 0.875, crop_mode "center", ImageNet's mean and std.

    Raises:
        ModelError: A setting is not one that timm has, or the input is neither grey nor colour.
    """
    channels, height, width = _input_size(config.get("input_size") or (3, 224, 224))
    mean, std = (
        _values(name, config.get(name) or usual, channels)
        for name, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    )
    kernel = _kernel(config.get("interpolation") or "bicubic")
    crop_pct = config.get("crop_pct") or 0.875
    if not isinstance(crop_pct, int | float) or not 0 < crop_pct <= 16:
        raise ModelError(f"crop_pct is a number above 0, got {str(crop_pct)[:40]}")
    mode = config.get("crop_mode") or "center"
    scaled = [math.floor(n / crop_pct) for n in (height, width)]
    fill: tuple[int, ...] = (0,)
    if mode == "squash":
        fit = "stretch"
    elif mode == "border":
        fit, fill = "contain", tuple(round(255 * value) for value in mean)
    elif mode == "center":
        fit = "cover" if scaled[0] == scaled[1] else "cover-rounded"
    else:
        raise ModelError(f"crop_mode is center, squash or border, got {str(mode)[:40]!r}")
    steps = (
        _first(channels),
        Resize(scaled[0], scaled[1], kernel, fit),
        CentreCrop(height, width, fill),
        Scale(),
        Normalise(mean, std),
    )
    return Preprocessing(steps, name="timm")


def of_torchvision(transforms: Any) -> Preprocessing:
    """The recipe of `weights.transforms()` of torchvision.

    Args:
        transforms: The presets for classification or for semantic segmentation; others have other inputs.

    Raises:
        ModelError: It is another preset.
    """
    mean, std = getattr(transforms, "mean", None), getattr(transforms, "std", None)
    if mean is None or std is None or len(mean) != 3:
        raise ModelError(f"the preset {type(transforms).__name__} is not one for pictures of three channels")
    steps: list[RecipeStep] = [Colour()]
    interpolation = getattr(transforms, "interpolation", "bilinear")
    resize = getattr(transforms, "resize_size", None)
    if resize:
        sizes = [resize] if isinstance(resize, int) else list(resize)
        fit = "cover" if len(sizes) == 1 else "stretch"
        kernel = _kernel(getattr(interpolation, "value", interpolation))
        steps.append(Resize(sizes[0], sizes[-1], kernel, fit))
    crop = getattr(transforms, "crop_size", None)
    if crop:
        sizes = [crop] if isinstance(crop, int) else list(crop)
        steps.append(CentreCrop(sizes[0], sizes[-1]))
    steps += [Scale(), Normalise(tuple(mean), tuple(std))]
    return Preprocessing(tuple(steps), name="torchvision")


def _first(channels: int) -> RecipeStep:
    return Colour() if channels == 3 else Grey("pillow")


def _kernel(name: Any) -> str:
    kernel = _KERNELS.get(name) if isinstance(name, str) else None
    if kernel is None:
        raise ModelError(f"the interpolation is one of {', '.join(_KERNELS)}, got {str(name)[:40]!r}")
    return kernel


def _input_size(given: Any) -> tuple[int, int, int]:
    whole = isinstance(given, Sequence) and len(given) == 3 and all(isinstance(n, int) for n in given)
    if not whole or given[0] not in (1, 3):
        raise ModelError(f"input_size is (1 or 3, height, width), got {str(given)[:40]}")
    return given[0], given[1], given[2]


def _values(name: str, given: Any, channels: int) -> tuple[float, ...]:
    values = tuple(given) if isinstance(given, Sequence) else (given,)
    if len(values) not in (1, channels) or not all(isinstance(v, int | float) for v in values):
        raise ModelError(f"{name} has {channels} numbers, one for each channel, got {str(given)[:60]}")
    return tuple(float(value) for value in values)
