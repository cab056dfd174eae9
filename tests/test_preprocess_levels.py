"""The steps that invert, standardise, smooth, or change the light of a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych.errors import ModelError
from diptych.formats.julia_project.recipe import preprocess_text
from diptych.model.layers import Chain, Conv
from diptych.model.model import Model
from diptych.preprocessing import (
    Grey,
    Invert,
    Light,
    LowPass,
    Normalise,
    Preprocessing,
    Resize,
    Scale,
    Standardise,
)

PICTURE = np.random.default_rng(5).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def test_dark_becomes_light_before_scaling_and_behind() -> None:
    for steps in ((Invert(), Scale()), (Scale(), Invert())):
        made = Preprocessing(steps).apply(PICTURE)
        assert np.allclose(made, 1 - PICTURE.transpose(2, 0, 1) / 255, atol=1e-7)
        assert np.array_equal(Preprocessing(steps).display(made), PICTURE)


@pytest.mark.parametrize("corrected", [False, True])
def test_a_picture_is_standardised_by_its_own_mean_and_std(corrected: bool) -> None:
    made = Preprocessing((Scale(), Standardise(1e-6, corrected))).apply(PICTURE)
    values = PICTURE / 255
    wanted = (values - values.mean()) / (values.std(ddof=int(corrected)) + 1e-6)
    assert np.allclose(made, wanted.transpose(2, 0, 1), atol=1e-5)
    flat = np.full((4, 4), 7, np.uint8)
    assert np.all(Preprocessing((Scale(), Standardise())).apply(flat) == 0)


def test_smoothing_is_that_of_images_jl() -> None:
    """KernelFactors.gaussian(0.75 * 40 / 10), 13 taps, normalised at the edge; no smoothing keeps what is flat."""
    line = np.zeros((40, 4), np.uint8)
    line[20] = 255
    made = Preprocessing((LowPass(10, 4),)).apply(line)[0]
    taps = np.exp(-(np.arange(-6, 7) ** 2) / (2 * 3.0**2))
    sideways = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 0.75**2))
    assert np.allclose(made[14:27, 2], 255 * taps / taps.sum(), rtol=1e-5)
    assert made[13, 2] == made[27, 2] == 0
    assert np.allclose(made[20], made[20, 0])
    assert len(sideways) == 5
    flat = np.full((40, 30), 90, np.uint8)
    assert np.allclose(Preprocessing((LowPass(7, 9),)).apply(flat), 90, atol=1e-4)


def test_linear_light_and_back() -> None:
    made = Preprocessing((Light("linear"), Light("srgb"))).apply(PICTURE)
    assert np.allclose(made, PICTURE.transpose(2, 0, 1), atol=1e-3)
    grey = np.full((1, 1), 188, np.uint8)  # half of the light
    assert Preprocessing((Light("linear"), Scale())).apply(grey)[0, 0, 0] == pytest.approx(0.5, abs=5e-3)


def test_they_are_stored_in_words_and_as_json() -> None:
    recipe = Preprocessing(
        (Grey("julia"), Invert(), Light(), LowPass(8, 8), Resize(8, 8, "imresize", round=False), Light("srgb"),
         Scale(), Standardise(1e-3, True))
    )  # fmt: skip
    again = Preprocessing.from_document(recipe.to_document())
    assert again == recipe
    text = " ".join(recipe.describe())
    assert all(word in text for word in ("invert", "linear", "smoothed", "each picture's own mean"))


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((LowPass(8, 8), Resize(8, 8)), "round=False"),
        ((Scale(), Standardise(), Normalise((0.5,), (0.5,))), "only SpatialOrder may follow Standardise"),
        ((Scale(), Standardise(), Invert()), "only SpatialOrder may follow Standardise"),
    ],
)
def test_orders_that_make_no_sense(steps: tuple[object, ...], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Preprocessing(steps)  # type: ignore[arg-type]


def test_settings_out_of_range() -> None:
    with pytest.raises(ModelError, match="epsilon"):
        Standardise(0)
    with pytest.raises(ModelError, match="whole number from 1"):
        LowPass(0, 4)
    with pytest.raises(ModelError, match="linear, srgb"):
        Light("gamma")
    with pytest.raises(ModelError, match="smooth over"):
        Preprocessing((LowPass(1, 1),)).apply(np.zeros((2000, 1), np.uint8))


def test_other_formats_hold_them(tmp_path: Path) -> None:
    weight = np.ones((1, 3, 1, 1), np.float32)
    model = Model(Chain((Conv(weight),)), input_shape=(3, 40, 30))
    inverted = model.with_(preprocessing=Preprocessing((Invert(), Scale())))
    diptych.convert(inverted, tmp_path / "m.onnx", preprocessing_inside=True)
    smoothed = model.with_(preprocessing=Preprocessing((LowPass(40, 30), Scale())))
    diptych.convert(smoothed, tmp_path / "n.onnx", preprocessing_inside=True)
    assert "low_pass(pixels, 40, 30)" in preprocess_text(smoothed.preprocessing)
    assert "inverted(pixels, 255)" in preprocess_text(inverted.preprocessing)
    diptych.convert(smoothed, tmp_path / "m.safetensors")
    assert diptych.read(tmp_path / "m.safetensors").preprocessing == smoothed.preprocessing
