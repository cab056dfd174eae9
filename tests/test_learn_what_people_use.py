"""Filters as people write them: adaptive thresholds, curves behind blurs, disks, and SciPy's edge."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage

from diptych.filters import apply, learn
from diptych.filters.learning import methods
from diptych.model.layers import Array

Function = Callable[[Array], Array]


@pytest.fixture(autouse=True)
def only_closed_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "METHODS", methods.CLOSED)


def grey(image: Array) -> Array:
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def adaptive_threshold(image: Array) -> Array:
    kind, side = cv2.ADAPTIVE_THRESH_MEAN_C, 11
    return np.asarray(cv2.adaptiveThreshold(grey(image), 255, kind, cv2.THRESH_BINARY, side, 2))


def threshold_of_a_blur(image: Array) -> Array:
    return np.where(np.asarray(cv2.blur(grey(image), (5, 5))) > 120, 255, 0).astype(np.uint8)


def brighter_than_the_left(image: Array) -> Array:
    return np.where(image.astype(int) - np.roll(image, 1, 1) > 20, 200, 30).astype(np.uint8)


def closing_with_an_ellipse(image: Array) -> Array:
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    return np.asarray(cv2.morphologyEx(image, cv2.MORPH_CLOSE, element))


def opening_with_a_disk(image: Array) -> Array:
    across = np.arange(-3, 4)
    disk = across[:, None] ** 2 + across**2 <= 9
    return np.dstack([ndimage.grey_opening(image[..., c], footprint=disk, mode="nearest") for c in range(3)])


def dilation_with_any_footprint(image: Array) -> Array:
    return np.asarray(cv2.dilate(image, np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]], np.uint8)))


def erosion_with_any_footprint(image: Array) -> Array:
    mask = np.array(
        [[0, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], bool
    )
    return np.dstack([ndimage.grey_erosion(image[..., c], footprint=mask, mode="mirror") for c in range(3)])


def blur_with_scipys_own_edge(image: Array) -> Array:
    return np.asarray(ndimage.gaussian_filter(image / 255, (1.2, 1.2, 0)))


def blur_in_light_of_gamma(image: Array) -> Array:
    light = ndimage.gaussian_filter((image / 255) ** 2.2, (1.5, 1.5, 0))
    return np.clip(light, 0, 1) ** (1 / 2.2)


def mean_in_whole_levels(image: Array) -> Array:
    return np.asarray(ndimage.uniform_filter(image, (5, 5, 1)))


def gaussian_in_whole_levels(image: Array) -> Array:
    return np.asarray(ndimage.gaussian_filter(image, (1.5, 1.5, 0)))


def by_pillow(kind: ImageFilter.MultibandFilter) -> Function:
    return lambda image: np.asarray(Image.fromarray(image).filter(kind))


@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    [
        by_pillow(ImageFilter.GaussianBlur(2)),
        by_pillow(ImageFilter.GaussianBlur(5.5)),
        by_pillow(ImageFilter.BoxBlur(2)),
        by_pillow(ImageFilter.UnsharpMask()),
        by_pillow(ImageFilter.UnsharpMask(3, 80, 0)),
        blur_in_light_of_gamma,
        mean_in_whole_levels,
        gaussian_in_whole_levels,
        adaptive_threshold,
        threshold_of_a_blur,
        brighter_than_the_left,
        closing_with_an_ellipse,
        opening_with_a_disk,
        dilation_with_any_footprint,
        erosion_with_any_footprint,
        blur_with_scipys_own_edge,
    ],
)
def test_it_is_exact(function: Function) -> None:
    learned = learn(function)
    assert learned.report.verdict == "exact", learned.report.text()
    picture = np.random.default_rng(8).integers(0, 256, (60, 71, 3)).astype(np.uint8)
    picture[:30] = picture[::3, ::3][:15, :24].repeat(2, 0).repeat(3, 1)[:30, :71]
    expected = function(picture)
    given = apply(learned, picture) if expected.dtype == np.uint8 else apply(learned, picture) / 255
    assert np.mean(np.abs(given - expected) > (0 if expected.dtype == np.uint8 else 0.51 / 255)) < 2e-3


def root_of_a_blur(image: Array) -> Array:
    return np.clip(ndimage.gaussian_filter(image / 255, (1, 1, 0), mode="mirror"), 0, 1) ** 0.5


def contrast_of_a_mean(image: Array) -> Array:
    return np.asarray(
        1 / (1 + np.exp(8 * (0.5 - ndimage.uniform_filter(image / 255, (3, 3, 1), mode="mirror"))))
    )


def blur_in_the_light_of_srgb(image: Array) -> Array:
    x = image / 255
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    light = np.clip(ndimage.gaussian_filter(light, (2, 2, 0)), 0, 1)
    levels = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * levels).astype(np.uint8)


@pytest.mark.slow
def test_a_blur_in_linear_light_is_close() -> None:
    report = learn(blur_in_the_light_of_srgb, goal=58).report
    assert report.method == "linear light"
    assert report.verdict in ("exact", "close"), report.text()


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [5, 8])
def test_a_wide_gaussian_of_opencv_is_close(sigma: float) -> None:
    report = learn(lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), sigma)), goal=58).report
    assert report.verdict == "close", report.text()
    assert report.worst_psnr > 58


@pytest.mark.slow
@pytest.mark.parametrize("function", [root_of_a_blur, contrast_of_a_mean])
def test_a_curve_behind_a_kernel_is_close(function: Function) -> None:
    report = learn(function).report
    assert report.method == "kernel and curve"
    assert report.verdict in ("exact", "close"), report.text()
