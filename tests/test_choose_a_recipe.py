"""Which recipe is meant: by name with any size, by its file, by a model; and what is said where none is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import diptych
from diptych.errors import UsageError
from diptych.loading import recipe_of
from diptych.model.entry import likely_input
from diptych.model.layers import Activation, BatchNorm, Chain, Conv, Dense, Flatten, Layer, MaxPool, Softmax
from diptych.model.model import Model
from diptych.preprocessing import NAMES, Preprocessing, named
from little_models import numbers

pytestmark = pytest.mark.usefixtures("small_figures")
COLOURS = {1: "grey", 3: "colour"}


def flux_model(channels: int = 1, height: int = 64, width: int = 64) -> Model:
    """As Flux saves it: neither recipe nor input shape."""
    layers = (
        Conv(numbers(2, channels, 3, 3), numbers(2), activation=Activation("relu")),
        MaxPool((2, 2)),
        Flatten(),
        Dense(numbers(3, 2 * ((height - 2) // 2) * ((width - 2) // 2)), numbers(3)),
        Softmax(),
    )
    return Model(Chain(layers))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@given(st.sampled_from(list(NAMES)), st.integers(1, 300), st.integers(1, 300))
def test_every_recipe_may_have_any_size(name: str, height: int, width: int) -> None:
    number = next(part for part in name.split("-") if part.isdigit())
    recipe = named(name.replace(number, f"{height}x{width}"))
    size = (width, height) if name.endswith("-wh") else (height, width)
    assert recipe.size == size
    assert [type(step) for step in recipe.steps] == [type(step) for step in named(name).steps]
    assert named(recipe.name) == recipe
    square = named(name.replace(number, str(height)))
    assert square == named(name.replace(number, f"{height}x{height}"))
    assert square.name == name.replace(number, str(height))


@pytest.mark.parametrize(
    "name", ["grey", "grey-", "grey-0", "grey-064", "grey-64x", "grey-6x4x2", "64", "grey-64-64"]
)
def test_what_is_no_size_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"no recipe is called .*such as grey-64 or colour-48x64"):
        named(name)


@pytest.mark.parametrize("verb", ["preprocess", "predict", "features", "run", "convert", "compare"])
@pytest.mark.parametrize("kind", ["name", "recipe file", "model file"])
def test_each_verb_takes_each_way_to_name_a_recipe(
    verb: str, kind: str, picture: Path, tmp_path: Path, diptych_command
) -> None:
    diptych.write(flux_model(), tmp_path / "flux.bson")
    diptych.write(flux_model().with_(preprocessing=named("grey-64")), tmp_path / "other.safetensors")
    (tmp_path / "recipe.json").write_text(json.dumps(named("grey-64").to_document()))
    ways = {"name": "grey-64", "recipe file": "recipe.json", "model file": "other.safetensors"}
    recipe = ways[kind] if kind == "name" else tmp_path / ways[kind]
    model, out = tmp_path / "flux.bson", tmp_path / "out"
    arguments = {
        "preprocess": [picture, "-o", out],
        "predict": [model, picture],
        "features": [model, picture, "--layers", "0", "-o", out],
        "run": ["--images", picture, "--model", model, "-o", out],
        "convert": [model, tmp_path / "new.safetensors"],
        "compare": [model, model, "--images", picture],
    }[verb]
    assert diptych_command(verb, *arguments, "--preprocessing", recipe, "--quiet").status == 0
    if verb == "convert":
        assert diptych.read(tmp_path / "new.safetensors").preprocessing == named("grey-64")
    if verb == "preprocess":  # what it wrote is a recipe file again
        assert recipe_of(out / "recipe.json") == named("grey-64")


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 64, 64), (3, 48, 48), (1, 21, 21)])
def test_without_a_recipe_the_fitting_name_is_suggested(
    channels: int, height: int, width: int, picture: Path, tmp_path: Path, diptych_command
) -> None:
    diptych.write(flux_model(channels, height, width), tmp_path / "flux.bson")
    model = tmp_path / "flux.bson"
    calls = {
        "predict": [model, picture],
        "features": [model, picture, "-o", tmp_path / "out"],
        "run": ["--images", picture, "--model", model, "-o", tmp_path / "out"],
    }
    colour = COLOURS[channels]
    for verb, arguments in calls.items():
        refused = diptych_command(verb, *arguments)
        assert refused.status == 2
        size = next(n for n in (height, height - 1) if f"{colour}-{n}," in refused.err)
        assert f"takes {channels} x {size} x {size}" in refused.err
    assert not (tmp_path / "out").exists()
    assert diptych.predict(model, picture, preprocessing=f"{colour}-{size}").shape == (1, 3)


@pytest.mark.parametrize(
    ("layers", "shape", "words"),
    [
        (
            (Conv(numbers(2, 3, 3, 3)),),
            (3, None, None),
            "takes 3 x N x N: .*such as colour-N; for a model trained in Julia julia-colour-N-wh",
        ),
        ((Conv(numbers(2, 4, 3, 3)),), (4, None, None), "takes 4 x N x N: .*one of colour-32"),
        ((Dense(numbers(2, 7)),), (7,), "takes 7: .*one of colour-32"),
        ((Flatten(),), None, "recipe: name one with --preprocessing .*one of colour-32"),
        ((BatchNorm(*[numbers(3) ** 2] * 4),), (3, None, None), "such as colour-N"),
    ],
)
def test_what_the_layers_tell_is_said(
    layers: tuple[Layer, ...], shape: tuple[int | None, ...], words: str
) -> None:
    model = Model(Chain(layers))
    assert likely_input(model) == shape
    with pytest.raises(UsageError, match=words):
        recipe_of(model)
    with pytest.raises(
        UsageError, match=r"takes 3 x 48 x 64: .*such as colour-48x64; .*julia-colour-48x64-wh, if"
    ):
        recipe_of(model.with_(input_shape=(3, 48, 64)))


def test_compare_names_the_recipe_that_both_lack(picture: Path) -> None:
    with pytest.raises(UsageError, match=r"carries no preprocessing recipe.* takes 1 x 64 x 64.*grey-64"):
        diptych.compare(flux_model(), flux_model(), picture)
    assert diptych.compare(flux_model(), flux_model(), picture, preprocessing="grey-64").given == "1 picture"


def test_python_takes_them_all(picture: Path, tmp_path: Path) -> None:
    expected = diptych.preprocess(picture, named("grey-64"))
    assert expected.shape == (1, 1, 64, 64)
    (tmp_path / "recipe.json").write_text(json.dumps(named("grey-64").to_document()))
    model = flux_model().with_(preprocessing=named("grey-64"))
    diptych.write(model, tmp_path / "m.bson")
    for way in ("grey-64", tmp_path / "recipe.json", model, tmp_path / "m.bson", str(tmp_path / "m.bson")):
        np.testing.assert_array_equal(diptych.preprocess(picture, way), expected)
    assert isinstance(recipe_of("scenes"), Preprocessing)
    with pytest.raises(UsageError, match="not int"):
        recipe_of(3)
