"""Two models given different pictures or batches: each known fault planted, and named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from diptych.axes import swap_spatial
from diptych.model.layers import (
    Array,
    Conv,
    Dense,
    Flatten,
    MaxPool,
)
from diptych.preprocessing import KERNELS, Invert, Light, LowPass, Preprocessing, Standardise
from diptych.preprocessing.steps import Colour, Grey, Normalise, Resize, Scale, SpatialOrder
from little_models import GREY, RECIPE, changed, compare, model, names, numbers, pictures, seeing, weight


def _other(recipe: Preprocessing, kind: type[Any], **fields: Any) -> Preprocessing:
    return Preprocessing(
        tuple(replace(step, **fields) if isinstance(step, kind) else step for step in recipe.steps)
    )


@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel != "pillow-bilinear"])
def test_another_resize_kernel_is_named(kernel: str) -> None:
    found = compare(
        seeing(), seeing(), pictures(), preprocessing=(RECIPE, _other(RECIPE, Resize, kernel=kernel))
    )
    assert names(found) == ["another resize kernel or antialias"]
    assert found.first_divergence == "input"
    assert "Pillow's bilinear (antialiased)" in found.causes[0].tried


IMAGENET = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("a", "b", "cause"),
    [
        (RECIPE, _other(RECIPE, Resize, round=False), "rounding to 8 bits"),
        (RECIPE, _other(RECIPE, Resize, fit="crop"), "another fit"),
        (RECIPE, _other(RECIPE, Resize, height=20), "another size"),
        (RECIPE, Preprocessing((Colour(), Resize(24, 32, "pillow-bilinear"))), "never divided by 255"),
        (RECIPE, Preprocessing((*RECIPE.steps, IMAGENET)), "mean and std missing or different"),
        (
            Preprocessing((*RECIPE.steps, IMAGENET)),
            Preprocessing((*RECIPE.steps, Normalise((0.5,), (0.5,)))),
            "mean and std missing or different",
        ),
        (
            RECIPE,
            Preprocessing((*RECIPE.steps, SpatialOrder("wh"))),
            "image transposed (spatial axes swapped)",
        ),
        (GREY, _other(GREY, Grey, weights="pillow"), "grey weights"),
        (GREY, _other(GREY, Grey, weights="opencv"), "grey weights"),
        (
            GREY,
            Preprocessing((Resize(60, 70, "imresize"), Grey("julia"), Scale())),
            "steps of the recipe in another order",
        ),
        (
            Preprocessing((Grey("julia"), Resize(24, 32, "imresize"), Scale())),
            Preprocessing((Grey("julia"), LowPass(24, 32), Resize(24, 32, "imresize", round=False), Scale())),
            "low-pass before resizing",
        ),
        (
            RECIPE,
            Preprocessing((Colour(), Light("linear"), Resize(24, 32, round=False), Light("srgb"), Scale())),
            "resized in linear light",
        ),
        (
            Preprocessing((Resize(24, 32, "pillow-bilinear"), Grey("pillow"), Scale())),
            Preprocessing(
                (Invert(), Grey("julia"), Resize(24, 32, "imresize", "pad"), Scale(), Standardise())
            ),
            "another recipe",
        ),
    ],
)
def test_another_recipe_is_named(a: Preprocessing, b: Preprocessing, cause: str) -> None:
    one = seeing(1 if a.channels == 1 else 3)
    found = compare(one, one, pictures(), preprocessing=(a, b))
    assert names(found) == [cause]
    assert found.explained
    assert found.first_divergence == "input"


def test_two_faults_in_one_recipe_are_both_found() -> None:
    b = Preprocessing((Colour(), Resize(24, 32, "imresize"), Scale(), IMAGENET))
    found = compare(seeing(), seeing(), pictures(), preprocessing=(RECIPE, b))
    assert sorted(names(found)) == ["another resize kernel or antialias", "mean and std missing or different"]
    assert found.explained


BATCH = np.stack([RECIPE.apply(picture) for picture in pictures()])


@pytest.mark.parametrize(
    ("batch", "cause"),
    [
        (BATCH[:, ::-1], "BGR for RGB"),
        (BATCH[:, :, ::-1], "image upside down"),
        (BATCH[..., ::-1], "image mirrored"),
        (BATCH[:, :, ::-1, ::-1], "image turned by 180°"),
        (BATCH.swapaxes(2, 3), "image transposed (spatial axes swapped)"),
        (BATCH / np.float32(255), "divided by 255 twice, or only once"),
        (BATCH * np.float32(255), "never divided by 255"),
        ((BATCH - 0.5) / np.float32(0.5), "mean and std missing or different"),
        (BATCH - np.float32(0.5), "mean and std missing or different"),  # the mean alone
        (1 - BATCH, "light and dark exchanged"),
        (BATCH.transpose(0, 3, 2, 1).reshape(BATCH.shape), "reshape where the axes must be permuted"),
        (BATCH.transpose(0, 2, 3, 1).reshape(BATCH.shape), "reshape where the axes must be permuted"),
        (BATCH[::-1], "samples in another order"),
        (np.stack([(x - x.mean()) / x.std() for x in BATCH]), "standardised picture by picture"),
        (np.stack([(x - x.mean()) / x.std(ddof=1) for x in BATCH]), "standardised picture by picture"),
        (BATCH.astype(np.float16).astype(np.float32), "input in half precision"),
    ],
)
def test_a_fault_in_a_dumped_batch_is_named(batch: Array, cause: str) -> None:
    found = compare(seeing(), seeing(), (BATCH, np.ascontiguousarray(batch)))
    assert names(found) == [cause]
    assert found.explained
    assert found.first_divergence == "input"


def test_the_recipe_that_made_a_dumped_batch_is_found() -> None:
    dumped = np.stack([_other(RECIPE, Resize, kernel="opencv-area").apply(picture) for picture in pictures()])
    found = compare(seeing(), seeing(), (pictures(), dumped), preprocessing=RECIPE)
    assert names(found) == ["another resize kernel or antialias"]
    assert "OpenCV's area mean" in found.causes[0].tried


def test_a_dumped_batch_with_two_faults() -> None:
    found = compare(seeing(), seeing(), (BATCH, np.ascontiguousarray(BATCH[:, ::-1] / np.float32(255))))
    assert sorted(names(found)) == ["BGR for RGB", "divided by 255 twice, or only once"]


def test_no_cause_is_claimed_for_other_pictures() -> None:
    other = np.random.default_rng(9).random(BATCH.shape, dtype=np.float32)
    found = compare(seeing(), seeing(), (BATCH, other))
    assert found.causes == ()
    assert not found.agrees


def test_a_model_made_for_bgr_is_recognised() -> None:
    a = seeing()
    b = changed(a, 0, weight=np.ascontiguousarray(weight(a, 0)[:, ::-1]))
    assert names(compare(a, b, BATCH)) == ["BGR for RGB"]


def test_a_model_made_for_transposed_pictures_is_recognised() -> None:
    a = model(Conv(numbers(4, 3, 3, 3)), MaxPool((2, 2)), Flatten(), Dense(numbers(5, 4 * 7 * 7)))
    turned = weight(a, 3).reshape(5, 4, 7, 7).swapaxes(2, 3).reshape(5, -1)
    b = changed(changed(a, 0, weight=swap_spatial(weight(a, 0))), 3, weight=np.ascontiguousarray(turned))
    found = compare(a, b, np.ascontiguousarray(BATCH[..., :16, :16]))
    assert names(found) == ["image transposed (spatial axes swapped)"]
    assert found.explained


def test_two_conventions_that_give_the_same_result_are_recognised() -> None:
    a = model(Conv(numbers(4, 3, 3, 3)), MaxPool((2, 2)), Flatten(), Dense(numbers(5, 4 * 11 * 15)))
    turned = weight(a, 3).reshape(5, 4, 11, 15).swapaxes(2, 3).reshape(5, -1)
    b = changed(changed(a, 0, weight=swap_spatial(weight(a, 0))), 3, weight=np.ascontiguousarray(turned))
    recipes = (RECIPE, Preprocessing((*RECIPE.steps, SpatialOrder("wh"))))
    found = compare(a, b, pictures(), preprocessing=recipes)
    assert names(found) == ["image transposed (spatial axes swapped)"]
    assert "The results agree nevertheless" in found.diagnosis
    assert found.explained
