"""A user names a resize, crop, mean and std beside a recipe, and class names in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych import formats
from diptych.datasets import class_names
from diptych.errors import FormatError, ModelError, UsageError
from diptych.loading import recipe_of
from diptych.model import architectures
from diptych.model.layers import Chain, Conv, Dense, Flatten, GlobalMeanPool
from diptych.model.model import Model
from diptych.preprocessing import (
    CentreCrop,
    Colour,
    Grey,
    Normalise,
    Preprocessing,
    Resize,
    Scale,
    SpatialOrder,
    named,
)
from diptych.preprocessing.adjusting import adjusted

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# ---- Resize, crop, mean, std -------------------------------------------------------------------------------


def test_the_usual_recipe_can_be_said_in_full() -> None:
    assert adjusted(None, resize=(256,), crop=(224,), mean=MEAN, std=STD) == Preprocessing(
        (Colour(), Resize(256, 256, fit="cover"), CentreCrop(224, 224), Scale(), Normalise(MEAN, STD))
    )


@pytest.mark.parametrize(
    ("base", "changes", "steps"),
    [
        ("imagenet-224", {}, named("imagenet-224").steps),
        (
            "imagenet-224",
            {"mean": (0.5,), "std": (0.5,)},
            (*named("imagenet-224").steps[:3], Normalise((0.5,), (0.5,))),
        ),
        (
            "julia-colour-32-wh",
            {"mean": (0.5,), "std": (0.25,)},
            (Colour(), Resize(32, 32, "imresize"), Scale(), Normalise((0.5,), (0.25,)), SpatialOrder("wh")),
        ),
        (
            "julia-resize-then-grey-224",
            {"resize": (48, 64)},
            (Resize(48, 64, "imresize"), Grey("julia"), Scale()),
        ),
        (
            "julia-float-grey-224",
            {"resize": (40,), "crop": (32, 30)},
            (Grey("julia"), Scale(), Resize(40, 40, "imresize", "cover", False), CentreCrop(32, 30)),
        ),
        ("grey-224", {"mean": (0.1,)}, (*named("grey-224").steps, Normalise((0.1,), (1.0,)))),
        ("grey-224", {"std": (0.1,)}, (*named("grey-224").steps, Normalise((0.0,), (0.1,)))),
    ],
)
def test_what_is_not_named_is_kept(base: str, changes: dict[str, Any], steps: Any) -> None:
    assert adjusted(named(base), **changes).steps == steps


def test_a_crop_that_the_recipe_has_is_kept_or_replaced() -> None:
    base = adjusted(None, resize=(256,), crop=(224,))
    assert adjusted(base, resize=(240,)).steps == (
        Colour(),
        Resize(240, 240, fit="cover"),
        CentreCrop(224, 224),
        Scale(),
    )
    assert CentreCrop(200, 200) in adjusted(base, crop=(200,)).steps
    assert sum(isinstance(step, CentreCrop) for step in adjusted(base, crop=(200,)).steps) == 1


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A network of 1000 classes that carries no recipe."""
    rng = np.random.default_rng(0)
    layers = (
        Conv(rng.normal(size=(4, 3, 3, 3)).astype(np.float32)),
        GlobalMeanPool(),
        Flatten(),
        Dense(rng.normal(size=(1000, 4)).astype(np.float32)),
    )
    formats.write(Model(Chain(layers), input_shape=(3, 224, 224), name="net"), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_every_command_takes_them(
    network: Path, photographs: Path, tmp_path: Path, diptych_command: Any
) -> None:
    options = ("--resize", "256", "--crop", "224", "--mean", "0.5,0.4,0.3", "--std", "0.2")
    refused = diptych_command("predict", network, photographs / "coffee.png", *options)
    assert "as many means as standard deviations, but got 3 and 1" in refused.err
    options = (*options[:-1], "0.2,0.2,0.2")
    done = diptych_command("preprocess", photographs / "coffee.png", *options, "-o", tmp_path / "inputs")
    assert done.status == 0, done.err
    recipe = recipe_of(tmp_path / "inputs" / "recipe.json")
    expected = adjusted(None, resize=(256,), crop=(224,), mean=(0.5, 0.4, 0.3), std=(0.2,) * 3)
    assert recipe == expected
    shown = diptych_command("predict", network, photographs / "coffee.png", *options, "--json")
    values = list(json.loads(shown.out)["predictions"][0]["scores"].values())
    plain = diptych.predict(network, photographs / "coffee.png", preprocessing=expected)[0]
    np.testing.assert_allclose(values, plain, rtol=1e-4)
    for command in (
        ("convert", network, tmp_path / "with.safetensors"),
        ("features", network, photographs / "coffee.png", "-o", tmp_path / "maps"),
        ("compare", network, network, "--images", photographs),
        (
            "run",
            "--images",
            photographs / "coffee.png",
            "--model",
            network,
            "-o",
            tmp_path / "run",
            "--maps",
            "0",
        ),
    ):
        done = diptych_command(*command, *options)
        assert done.status == 0, (command, done.err)
    assert diptych.read(tmp_path / "with.safetensors").preprocessing == expected
    bettered = diptych_command(
        "convert", tmp_path / "with.safetensors", tmp_path / "b.onnx", "--resize", "240"
    )
    assert bettered.status == 0
    own = diptych.read(tmp_path / "b.onnx").preprocessing
    assert own == adjusted(expected, resize=(240,))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--resize", "a"), "--resize is one number, such as 256, or HEIGHTxWIDTH"),
        (("--resize", "1x2x3"), "--resize is one number"),
        (("--crop", "-5"), "--crop is one number"),
        (("--resize", "0"), "Resize expects height to be a whole number from 1"),
        (("--resize", "99999999999"), "Resize expects height to be a whole number from 1"),
        (("--mean", "a,b"), "--mean is one number or three"),
        (("--mean", "1,2"), "expects mean to be one or three finite numbers"),
        (("--std", "0"), "expects every std to be at least"),
        (("--std", "nan"), "expects std to be one or three finite numbers"),
    ],
)
def test_what_is_no_size_or_number_is_said(
    options: tuple[str, ...], said: str, photographs: Path, tmp_path: Path, diptych_command: Any
) -> None:
    done = diptych_command("preprocess", photographs / "coffee.png", "-o", tmp_path / "x", *options)
    assert done.status in (1, 2)
    assert said in done.err
    assert not (tmp_path / "x").exists()


def test_advice_for_a_network_without_a_recipe_names_the_likely_one(network: Path, photographs: Path) -> None:
    with pytest.raises(UsageError, match=r"3 x 224 x 224 and has 1000 classes, .* such as imagenet-224"):
        diptych.predict(network, photographs / "coffee.png")
    with pytest.raises(UsageError, match="such as colour-32"):
        recipe_of(architectures.named("small-cnn-32").with_(preprocessing=None))


def test_scores_are_said_to_be_scores(
    network: Path, photographs: Path, tmp_path: Path, diptych_command: Any
) -> None:
    model = diptych.read(network)
    formats.write(model.with_(classes=class_names.of("imagenet-1k")), network)
    command = ("predict", network, photographs / "coffee.png", "--preprocessing", "imagenet-224")
    shown = diptych_command(*command)
    assert "best score" in shown.out
    assert "scores, not probabilities: --softmax makes probabilities" in shown.err
    shown = diptych_command(*command, "--softmax")
    assert "best probability" in shown.out
    assert "scores" not in shown.err


# ---- Class names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "tabby, tabby cat\n\n# a comment\nowl \n Ärmelkanal\n"),
        ("bom.txt", "\ufefftabby, tabby cat\r\nowl\r\nÄrmelkanal\r\n"),
        ("list.json", json.dumps(["tabby, tabby cat", "owl", "Ärmelkanal"])),
        (
            "keras.json",
            json.dumps({"0": ["n1", "tabby, tabby cat"], "1": ["n2", "owl"], "2": ["n3", "Ärmelkanal"]}),
        ),
        ("numbers.json", json.dumps({"2": "Ärmelkanal", "0": "tabby, tabby cat", "1": "owl"})),
        ("names.json", json.dumps({"owl": 1, "tabby, tabby cat": 0, "Ärmelkanal": 2})),
        ("config.json", json.dumps({"id2label": {"0": "tabby, tabby cat", "1": "owl", "2": "Ärmelkanal"}})),
        ("labels", "tabby, tabby cat\nowl\nÄrmelkanal"),
    ],
)
def test_a_file_of_class_names(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, "utf-8", newline="")
    assert class_names.chosen(str(tmp_path / name)) == ("tabby, tabby cat", "owl", "Ärmelkanal")


def test_names_of_data_sets_are_in_the_box() -> None:
    names = {name: class_names.chosen(name) for name in class_names.NAMES}
    assert {name: len(found) for name, found in names.items()} == {
        "imagenet-1k": 1000,
        "cifar-10": 10,
        "cifar-100": 100,
    }
    assert (names["imagenet-1k"][0], names["imagenet-1k"][285], names["imagenet-1k"][967]) == (
        "tench",
        "Egyptian cat",
        "espresso",
    )
    assert all(len(set(found)) == len(found) for found in names.values())
    assert names["cifar-100"][:2] == ("apple", "aquarium_fish")


def test_class_names_are_stored(network: Path, tmp_path: Path, diptych_command: Any) -> None:
    done = diptych_command("convert", network, tmp_path / "a.onnx", "--classes", "imagenet-1k")
    assert done.status == 0, done.err
    assert diptych.read(tmp_path / "a.onnx").classes == class_names.of("imagenet-1k")
    (tmp_path / "two.txt").write_text("cat\ndog\n")
    done = diptych_command("convert", network, tmp_path / "b.onnx", "--classes", tmp_path / "two.txt")
    assert "the model has 1000 outputs, but 2 class names were given" in done.err
    assert not (tmp_path / "b.onnx").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1, 2]", "is JSON, but not a list of class names"),
        (b'{"a": "b"}', "is JSON, but not a list of class names"),
        (b'{"0": "a", "5": "b"}', "is JSON, but not a list of class names"),
        (b'["a", ', "looks like JSON, but is damaged or cut off"),
        (b"[" * 100_000, "looks like JSON, but is damaged or cut off"),
        (b"\xff\xfe\x00", "is not text in UTF-8"),
        (b"a\0b", "is not a list of class names"),
    ],
)
def test_a_file_that_holds_no_class_names_is_said(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_bytes(content)
    with pytest.raises(FormatError, match=said):
        class_names.chosen(tmp_path / "names.json")


def test_class_names_that_cannot_be_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*gone\.txt with class names"):
        class_names.chosen(str(tmp_path / "gone.txt"))
    with pytest.raises(UsageError, match="'cat' occurs twice"):
        class_names.chosen("cat,dog,cat")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UsageError, match="different and not empty"):
        class_names.chosen(tmp_path / "empty.txt")
    with pytest.raises(ModelError, match="2 class names"):
        diptych.convert("scenes", tmp_path / "x.onnx", classes="a,b")


def test_names_of_an_author_that_occur_twice_get_numbers() -> None:
    assert class_names.different(["crane", "crane", "owl", ""]) == ("crane (0)", "crane (1)", "owl", "(3)")
    model = class_names.named(architectures.named("small-cnn-32"), ["a", "b"])
    assert model.classes is None
    assert "2 class names, but has 10 outputs" in model.source.warnings[-1]
