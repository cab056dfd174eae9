"""ONNX files that take uint8 pixels: the recipe as part of the graph gives what the recipe itself gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diptych
from diptych import formats
from diptych.datasets import photographs as box
from diptych.errors import ModelError, UsageError
from diptych.loading import TRAINED
from diptych.model import architectures
from diptych.model.document import to_document
from diptych.model.layers import Activation, Array, Chain, Conv, Dense, Flatten, Layer
from diptych.model.model import Model
from diptych.preprocessing import KERNELS, NAMES, Preprocessing, named
from diptych.preprocessing.steps import (
    FITS,
    FREE_FITS,
    CentreCrop,
    Colour,
    Grey,
    Light,
    LowPass,
    Normalise,
    Resize,
    Scale,
    SpatialOrder,
    Standardise,
)

SAME = Activation("affine", (1.0, 0.0))
# Single pixels and lines, odd and even, smaller and larger than any size asked for, wide and tall; 51 and 52
# rows of 30 are the last that Pillow resizes to 31 x 20 across first, and the first it resizes down first.
SIZES = (
    *((1, 1), (1, 7), (9, 1), (17, 20), (37, 53), (64, 32), (51, 30), (52, 30), (31, 20), (62, 40)),
    *((32, 32), (224, 224), (448, 448), (300, 401), (640, 123), (901, 500), (1000, 3)),
)
LATER = pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="Pillow 13 changed the order")


def session(path: Path) -> Any:
    onnx.checker.check_model(onnx.load(path), full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 2
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def written(path: Path, recipe: Preprocessing | None, *layers: Layer, **fields: Any) -> Path:
    shape = ((recipe.channels if recipe else None) or 3, None, None)
    model = Model(Chain(layers or (SAME,)), recipe, **{"input_shape": shape, **fields})
    formats.write(model, path / "m.onnx", preprocessing_inside=True)
    return path / "m.onnx"


LEVELS = {
    "standardised": (Scale(), Standardise(1e-3)),
    "standardised, divided by n - 1": (Scale(), Standardise(1e-5, True)),
    "standardised in grey": (Grey("pillow"), Standardise(1e-3, True)),
    "low-pass": (LowPass(9, 12), Resize(9, 12, "imresize", round=False), Scale()),
    "low-pass, in grey": (Grey("float"), LowPass(9, 12), Resize(9, 12, "imresize", round=False), Scale()),
    "in linear light": (
        Light("linear"),
        Resize(9, 12, "pillow-bilinear", round=False),
        Light("srgb"),
        Scale(),
    ),
    "light behind a scale": (Scale(), Light("linear"), Light("srgb")),
}


@pytest.mark.parametrize("name", LEVELS)
def test_steps_that_change_levels(name: str, tmp_path: Path) -> None:
    recipe = Preprocessing(LEVELS[name])
    ready = session(written(tmp_path, recipe))
    for height, width in ((37, 53), (17, 20), (64, 32)):
        batch = pictures(height, width)
        expected = np.stack([recipe.apply(picture) for picture in batch])
        (result,) = ready.run(None, {"pixels": batch})
        np.testing.assert_allclose(
            result, expected, rtol=1e-5, atol=3e-6 * max(1, float(np.abs(expected).max()))
        )


def inputs(path: Path) -> list[tuple[str, int, list[int | str]]]:
    return [
        (
            v.name,
            v.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim],
        )
        for v in onnx.load(path).graph.input
    ]


def pictures(height: int, width: int) -> Array:
    """Noise, and something smooth: a batch of two, uint8."""
    random = np.random.default_rng(1000 * height + width)
    noise = random.integers(0, 256, (height, width, 3))
    smooth = np.clip(128 + np.cumsum(random.integers(-9, 10, (height, width, 3)), axis=1), 0, 255)
    return np.stack([noise, smooth]).astype(np.uint8)


def furthest(path: Path, recipe: Preprocessing) -> float:
    """The largest difference from the recipe itself, in levels of 0-255."""
    opened, worst = session(path), 0.0
    unit = 255 if any(isinstance(step, Scale) for step in recipe.steps) else 1
    for size in SIZES:
        batch = pictures(*size)
        expected = recipe.apply_batch(batch)
        (found,) = opened.run(None, {"pixels": batch})
        assert found.dtype == np.float32
        assert found.shape == expected.shape
        worst = max(worst, float(np.abs(found - expected).max()) * unit)
    return worst


@pytest.mark.slow
@LATER
@pytest.mark.parametrize("name", NAMES)
def test_every_named_recipe_gives_the_very_same_values(name: str, tmp_path: Path) -> None:
    recipe = named(name)
    path = written(tmp_path, recipe)
    assert inputs(path) == [("pixels", onnx.TensorProto.UINT8, ["N", "height", "width", 3])]
    assert {node.domain for node in onnx.load(path).graph.node} == {""}
    assert furthest(path, recipe) == (0 if "opencv" not in str(recipe) else pytest.approx(0, abs=1.001))


RECIPES = {
    "8-bit colour": lambda *r: (Resize(31, 20, *r, fill=77),),
    "8-bit grey": lambda *r: (Grey("opencv"), Resize(31, 20, *r, fill=77), Scale(), SpatialOrder("wh")),
    "float colour": lambda *r: (Resize(31, 20, *r, round=False, fill=77), Scale()),
    "float grey": lambda *r: (Grey("float"), Scale(), Resize(40, 40, *r, round=False, fill=77), Colour()),
}
EXACT = ("nearest", "imresize")
# In levels of 255: float32 keeps 24 bits, and OpenCV works with float32 weights and sums.
FLOAT = {"pillow": 1e-4, "opencv": 0.02}


@LATER
@pytest.mark.parametrize("fit", FITS + FREE_FITS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", RECIPES)
def test_every_kernel_and_fit_agrees(kernel: str, fit: str, kind: str, tmp_path: Path) -> None:
    recipe = Preprocessing(RECIPES[kind](kernel, fit))
    library = kernel.split("-")[0]
    allowed = 0.0 if kind.startswith("8-bit") or kernel in EXACT else FLOAT[library]
    if library == "opencv" and kind.startswith("8-bit"):
        allowed = 1.001  # cubic; linear too where a machine's OpenCV has a faster way of its own
    assert furthest(written(tmp_path, recipe), recipe) <= allowed


@pytest.mark.parametrize("weights", ["julia", "pillow", "opencv", "float"])
def test_every_colour_becomes_the_same_grey(weights: str, tmp_path: Path) -> None:
    levels = np.arange(0, 256, 3, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, len(levels), -1, 3)
    recipe = Preprocessing((Grey(weights), Scale(), Normalise((0.4,), (0.3,))))
    (found,) = session(written(tmp_path, recipe)).run(None, {"pixels": colours})
    expected = recipe.apply_batch(colours)
    if weights == "opencv":  # a machine's OpenCV may have a faster way of its own
        assert np.abs(found - expected).max() <= 1.001 / 255 / 0.3
    else:
        np.testing.assert_array_equal(found, expected)


@LATER
def test_any_picture_gives_the_same_values(tmp_path: Path) -> None:
    recipes = [
        Preprocessing(
            (Resize(13, 17, "imresize", "crop"), Scale(), Normalise((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
        ),
        Preprocessing(
            (Resize(13, 17, "pillow-lanczos", "pad"), Resize(9, 9, "pillow-bicubic"), Grey("pillow"))
        ),
        Preprocessing((Resize(20, 20, "pillow-bicubic", "cover"), CentreCrop(19, 15), Scale())),
        Preprocessing((Resize(20, 17, "pillow-bilinear", "contain"), CentreCrop(19, 16, (3, 99, 255)))),
        Preprocessing((Scale(), CentreCrop(40, 33, (3, 99, 255)))),
    ]
    opened = []
    for number, recipe in enumerate(recipes):
        (tmp_path / str(number)).mkdir()
        opened.append(session(written(tmp_path / str(number), recipe)))

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1))
    def agrees(height: int, width: int, seed: int) -> None:
        batch = np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
        for recipe, runs in zip(recipes, opened, strict=True):
            np.testing.assert_array_equal(runs.run(None, {"pixels": batch})[0], recipe.apply_batch(batch))

    agrees()


# ---- Whole models -------------------------------------------------------------------------------------


def test_the_classifier_in_the_box_predicts_from_pixels_what_diptych_predicts(tmp_path: Path) -> None:
    model = diptych.read(TRAINED["scenes"])
    formats.write(model, tmp_path / "m.onnx", preprocessing_inside=True)
    opened = session(tmp_path / "m.onnx")
    names = ("astronaut", "chelsea", "coffee", "hubble", "motorcycle", "rocket", "camera", "page")
    for name in names:
        picture = box.photograph(name)
        colour = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
        upright = np.ascontiguousarray(colour.swapaxes(0, 1))
        for pixels in (colour, upright):
            (found,) = opened.run(None, {"pixels": np.stack([pixels, pixels[::-1]])})
            expected = diptych.predict(model, [pixels, np.ascontiguousarray(pixels[::-1])])
            np.testing.assert_allclose(found, expected, atol=1e-3)
            assert found.argmax(1).tolist() == expected.argmax(1).tolist()


def test_the_file_gives_exactly_the_model_back(tmp_path: Path) -> None:
    model = diptych.read(TRAINED["scenes"])
    formats.write(model, tmp_path / "pixels.onnx", preprocessing_inside=True)
    formats.write(model, tmp_path / "plain.onnx")
    found, plain = (diptych.read(tmp_path / f"{name}.onnx") for name in ("pixels", "plain"))
    (document, arrays), (expected, expected_arrays) = to_document(found), to_document(plain)
    assert document == expected
    assert found.preprocessing == model.preprocessing
    assert arrays.keys() == expected_arrays.keys()
    assert all(np.array_equal(arrays[name], expected_arrays[name]) for name in arrays)
    picture = box.photograph("chelsea")
    assert np.array_equal(diptych.predict(found, [picture]), diptych.predict(model, [picture]))
    formats.write(found, tmp_path / "again.onnx", preprocessing_inside=True)
    formats.write(found, tmp_path / "once more.onnx", preprocessing_inside=True)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "once more.onnx").read_bytes()


def test_without_a_resize_the_size_is_the_models(tmp_path: Path) -> None:
    recipe = Preprocessing((Grey("julia"), Scale(), SpatialOrder("wh")))
    weight = np.random.default_rng(0).standard_normal((3, 1, 2, 2)).astype(np.float32)
    free = written(tmp_path, recipe, Conv(weight))
    assert inputs(free)[0][2] == ["N", "height", "width", 3]
    batch = pictures(5, 9)
    expected = diptych.predict(formats.read(free), recipe.apply_batch(batch))
    np.testing.assert_allclose(session(free).run(None, {"pixels": batch})[0], expected, rtol=1e-5, atol=1e-6)

    dense = Dense(np.random.default_rng(0).standard_normal((2, 45)).astype(np.float32))
    fixed = written(tmp_path, recipe, Flatten(), dense, input_shape=(1, 9, 5))
    assert inputs(fixed)[0][2] == ["N", 5, 9, 3]
    expected = diptych.predict(formats.read(fixed), recipe.apply_batch(batch))
    np.testing.assert_allclose(session(fixed).run(None, {"pixels": batch})[0], expected, rtol=1e-5, atol=1e-5)


# ---- Refusals, and the command ------------------------------------------------------------------------


@LATER
@pytest.mark.parametrize("size", [(15, 15), (10, 10), (20, 15), (15, 20), (11, 13), (40, 3), (5, 5)], ids=str)
def test_the_area_changes_its_rule_with_the_size(size: tuple[int, int], tmp_path: Path) -> None:
    recipe = Preprocessing((Resize(5, 5, "opencv-area"),))
    batch = pictures(*size)
    (found,) = session(written(tmp_path, recipe)).run(None, {"pixels": batch})
    np.testing.assert_array_equal(found, recipe.apply_batch(batch))


@pytest.mark.parametrize(
    ("recipe", "shape", "message"),
    [
        (None, (3, 32, 32), "this one has none.*--preprocessing"),
        (named("julia-grey-224"), (3, 224, 224), "into 1 x 224 x 224, but the model takes 3 x 224 x 224"),
        (named("colour-32"), (3, 224, 224), "into 3 x 32 x 32, but the model takes 3 x 224 x 224"),
        (Preprocessing(()), (1, 8, 8), "into 3 x height x width, but the model takes 1 x 8 x 8"),
        (named("colour-32"), (3072,), "but the model takes 3072"),
    ],
)
def test_a_recipe_that_does_not_fit_the_model_is_refused(
    recipe: Preprocessing | None, shape: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    size = int(np.prod(shape))
    layers = (Flatten(), Dense(np.ones((1, size), np.float32)))
    with pytest.raises(ModelError, match=message):
        written(tmp_path, recipe, *layers, input_shape=shape)
    assert list(tmp_path.iterdir()) == []


def test_only_onnx_files_have_the_recipe_inside(tmp_path: Path) -> None:
    model = architectures.named("small-cnn-32")
    with pytest.raises(UsageError, match="takes no option 'preprocessing_inside'"):
        diptych.convert(model, tmp_path / "m.safetensors", preprocessing_inside=True)
    with pytest.raises(UsageError, match=r"for \.onnx.*in plain Julia"):
        diptych.convert(model, tmp_path / "folder", preprocessing_inside=True)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_such_a_file(tmp_path: Path, diptych_command: Any) -> None:
    done = diptych_command("convert", "scenes", tmp_path / "m.onnx", "--preprocessing-inside")
    assert done.status == 0
    assert [name for name, _, _ in inputs(tmp_path / "m.onnx")] == ["pixels"]
    done = diptych_command("convert", "scenes", tmp_path / "m.onnx")
    assert done.status == 0
    assert [name for name, _, _ in inputs(tmp_path / "m.onnx")] == ["input"]
