"""A model by name prepares pictures exactly as timm or torchvision does. Expected values are made with Pillow.

`benchmarks/named_recipes.py` compares every configuration with the libraries themselves.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from diptych.errors import ModelError
from diptych.hub import recipes
from diptych.preprocessing import CentreCrop, Preprocessing, Resize, Scale

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
SIZES = [(97, 203), (203, 97), (31, 17), (224, 224), (225, 223), (255, 257), (1, 1), (301, 149)]
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def picture(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(height * 999 + width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def resized(image: Image.Image, height: int, width: int, method: Any) -> Image.Image:
    return image.resize((width, height), method)


def centre(image: Image.Image, height: int, width: int, fill: Any = 0) -> Image.Image:
    """torchvision's center_crop on a Pillow picture."""
    more = [max(0, width - image.width), max(0, height - image.height)]
    if any(more):
        border = (more[0] // 2, more[1] // 2, (more[0] + 1) // 2, (more[1] + 1) // 2)
        image = ImageOps.expand(image, border, fill)
    top, left = round((image.height - height) / 2.0), round((image.width - width) / 2.0)
    return image.crop((left, top, left + width, top + height))


def normalised(image: Image.Image, mean: Any = MEAN, std: Any = STD) -> Any:
    levels = np.asarray(image).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return (levels - np.float32(mean)[:, None, None]) / np.float32(std)[:, None, None]


def shortest(image: Image.Image, size: int, method: Any) -> Image.Image:
    """torchvision's Resize to one number."""
    h, w = image.height, image.width
    if h <= w:
        return resized(image, size, int(size * w / h), method)
    return resized(image, int(size * h / w), size, method)


def keep_ratio(image: Image.Image, height: int, width: int, longest: float, method: Any) -> Image.Image:
    """timm's ResizeKeepRatio."""
    ratios = image.height / height, image.width / width
    ratio = max(ratios) * longest + min(ratios) * (1.0 - longest)
    return resized(image, round(image.height * 1.0 / ratio), round(image.width * 1.0 / ratio), method)


def equal(recipe: Preprocessing, expected: Any) -> None:
    for size in SIZES:
        image = picture(*size)
        wanted = expected(image)
        for given in (image, np.asarray(image)):
            ours = recipe.apply(given)
            assert ours.shape == wanted.shape
            assert ours.tobytes() == wanted.tobytes(), size


@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 0.95, 0.965, 1.0])
@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
def test_centre(crop_pct: float, name: str) -> None:
    method = Image.Resampling[name.upper()]
    recipe = recipes.of_timm(
        {
            "input_size": [3, 64, 64],
            "interpolation": name,
            "crop_pct": crop_pct,
            "crop_mode": "center",
            "mean": MEAN,
            "std": STD,
        }
    )
    assert recipe.size == (64, 64)
    equal(recipe, lambda image: normalised(centre(shortest(image, int(64 / crop_pct), method), 64, 64)))


def test_centre_of_a_size_that_is_not_square_is_rounded_as_timm_rounds() -> None:
    config = {"input_size": (3, 48, 61), "crop_pct": 0.9, "mean": MEAN, "std": STD}
    equal(
        recipes.of_timm(config),
        lambda image: normalised(
            centre(keep_ratio(image, int(48 / 0.9), int(61 / 0.9), 0.0, BICUBIC), 48, 61)
        ),
    )


@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_squash(crop_pct: float) -> None:
    config = {
        "input_size": (3, 56, 56),
        "crop_mode": "squash",
        "crop_pct": crop_pct,
        "mean": MEAN,
        "std": STD,
    }
    scaled = int(56 / crop_pct)
    equal(
        recipes.of_timm(config),
        lambda image: normalised(centre(resized(image, scaled, scaled, BICUBIC), 56, 56)),
    )


@pytest.mark.parametrize("crop_pct", [1.0, 0.94])
def test_border(crop_pct: float) -> None:
    config = {
        "input_size": (3, 56, 56),
        "crop_mode": "border",
        "crop_pct": crop_pct,
        "mean": MEAN,
        "std": STD,
    }
    scaled, fill = int(56 / crop_pct), tuple(round(255 * value) for value in MEAN)
    longish = [size for size in SIZES if min(size) > 1]  # a side must not become 0 there
    recipe = recipes.of_timm(config)
    for size in longish:
        image = picture(*size)
        wanted = normalised(centre(keep_ratio(image, scaled, scaled, 1.0, BICUBIC), 56, 56, fill))
        assert recipe.apply(image).tobytes() == wanted.tobytes(), size


def test_torchvisions_presets() -> None:
    preset = SimpleNamespace(
        resize_size=[58], crop_size=[50], mean=MEAN, std=STD, interpolation=SimpleNamespace(value="bilinear")
    )
    equal(
        recipes.of_torchvision(preset),
        lambda image: normalised(centre(shortest(image, 58, BILINEAR), 50, 50)),
    )
    segmentation = SimpleNamespace(resize_size=[40], mean=MEAN, std=STD, interpolation="bilinear")
    recipe = recipes.of_torchvision(segmentation)
    assert recipe.size is None
    equal(recipe, lambda image: normalised(shortest(image, 40, BILINEAR)))
    with pytest.raises(ModelError, match="not one for pictures of three channels"):
        recipes.of_torchvision(SimpleNamespace())


def test_what_is_missing_has_timms_defaults() -> None:
    assert recipes.of_timm({}) == recipes.of_timm(
        {
            "input_size": (3, 224, 224),
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "crop_mode": "center",
            "mean": recipes.IMAGENET_MEAN,
            "std": recipes.IMAGENET_STD,
        }
    )
    assert "resize to 256 x 256" in recipes.of_timm({}).describe()[1]


def test_grey_networks_take_grey() -> None:
    recipe = recipes.of_timm({"input_size": (1, 28, 28), "mean": [0.5], "std": [0.5], "crop_pct": 1.0})
    assert recipe.channels == 1
    assert recipe.apply(picture(30, 40)).shape == (1, 28, 28)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"input_size": (4, 8, 8)}, r"input_size is \(1 or 3, height, width\), got \(4, 8, 8\)"),
        ({"input_size": "224"}, "input_size is"),
        ({"interpolation": "magic"}, "interpolation is one of bilinear, bicubic.* got 'magic'"),
        ({"crop_pct": -1}, "crop_pct is a number above 0, got -1"),
        ({"crop_pct": 1e-9}, "Resize expects height to be a whole number from 1 to 16384"),
        ({"crop_mode": "corner"}, "crop_mode is center, squash or border, got 'corner'"),
        ({"mean": [0.1, 0.2]}, "mean has 3 numbers, one for each channel"),
        ({"std": ["a", "b", "c"]}, "std has 3 numbers"),
        ({"std": [0, 0, 0]}, "every std to be at least"),
    ],
)
def test_a_setting_that_timm_does_not_have_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        recipes.of_timm(config)


def test_the_recipe_is_stored_with_its_crop() -> None:
    recipe = recipes.of_timm({"crop_mode": "border", "mean": MEAN, "std": STD})
    assert Preprocessing.from_document(recipe.to_document()) == recipe


def test_a_centre_crop_says_what_it_cannot_be() -> None:
    with pytest.raises(ModelError, match="fill to be one or three levels"):
        CentreCrop(4, 4, (1, 2))
    with pytest.raises(ModelError, match="fill to be a whole number from 0 to 255, but got 256"):
        CentreCrop(4, 4, (256,))
    with pytest.raises(ModelError, match="CentreCrop expects at most"):
        CentreCrop(16384, 16384)
    with pytest.raises(
        ModelError, match="fit to be one of stretch, crop, pad, cover, cover-rounded, contain"
    ):
        Resize(4, 4, fit="shortest")


def test_padding_after_scale_is_in_the_same_scale() -> None:
    ours = Preprocessing((Scale(), CentreCrop(20, 20, (51,)))).apply(np.full((10, 20), 255, np.uint8))
    assert set(np.unique(ours)) == {np.float32(0.2), np.float32(1)}
