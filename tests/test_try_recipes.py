"""Which recipe a model was trained with, told by a few pictures whose classes are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych.errors import UsageError
from diptych.model.layers import Chain, Dense, Flatten
from diptych.model.model import Model
from diptych.trying import try_recipes

CLASSES = ("left", "right", "top", "bottom")


def classifier() -> Model:
    """Tells which half of 8 x 8 grey values is the brighter one."""
    left, top = np.ones((8, 8), np.float32), np.ones((8, 8), np.float32)
    left[:, 4:] = -1
    top[4:] = -1
    weight = np.stack([half.ravel() for half in (left, -left, top, -top)])
    return Model(Chain((Flatten(), Dense(weight))), classes=CLASSES, input_shape=(1, 8, 8))


PLACES = {"left": np.s_[:, :16], "right": np.s_[:, 16:], "top": np.s_[:16], "bottom": np.s_[16:]}


def folders(folder: Path, bright: tuple[str, ...] = CLASSES) -> Path:
    """A folder for each class, with pictures whose half of another name is bright."""
    for name, half in zip(CLASSES, bright, strict=True):
        (folder / name).mkdir(parents=True)
        for level in (200, 255):
            picture = np.full((32, 32, 3), 20, np.uint8)
            picture[PLACES[half]] = level
            Image.fromarray(picture).save(folder / name / f"{level}.png")
    return folder


TURNED = ("top", "bottom", "left", "right")
INVERTED = ("right", "left", "bottom", "top")


@pytest.mark.parametrize(
    ("bright", "turned", "inverted"),
    [(CLASSES, False, False), (TURNED, True, False), (INVERTED, False, True)],
)
def test_the_recipe_with_the_right_answers_is_first(
    bright: tuple[str, ...], turned: bool, inverted: bool, tmp_path: Path
) -> None:
    tried = try_recipes(classifier(), folders(tmp_path, bright))
    best = [each for each in tried if each.right == 8]
    assert best == tried[: len(best)]
    assert best
    assert all("-wh" in each.name for each in best) == turned
    assert all("inverted" in each.name for each in best) == inverted
    assert tried[-1].right == 0
    assert all(each.recipe.size == (8, 8) and each.recipe.channels == 1 for each in tried)


def test_the_command_ranks_them(tmp_path: Path, diptych_command: Any) -> None:
    diptych.write(classifier(), tmp_path / "m.safetensors")
    pictures = folders(tmp_path / "pictures", TURNED)
    done = diptych_command("predict", tmp_path / "m.safetensors", pictures, "--try-recipes")
    assert done.status == 0
    assert done.out.splitlines()[0].startswith("8 of 8 right, likelihood 1.000: julia-")
    told = json.loads(
        diptych_command("predict", tmp_path / "m.safetensors", pictures, "--try-recipes", "--json").out
    )
    assert told["recipes"][0]["right"] == 8
    assert "-wh" in told["recipes"][0]["name"]


def test_what_is_no_folder_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        try_recipes(classifier(), tmp_path / "none")
    with pytest.raises(UsageError, match="holds no folders of pictures"):
        try_recipes(classifier(), tmp_path)
    folders(tmp_path / "a")
    (tmp_path / "a" / "left").rename(tmp_path / "a" / "sideways")
    with pytest.raises(UsageError, match="name it one of left, right"):
        try_recipes(classifier(), tmp_path / "a")
    (tmp_path / "a" / "sideways").rename(tmp_path / "a" / "7")
    with pytest.raises(UsageError, match="for classifiers"):
        try_recipes(classifier(), tmp_path / "a")


def test_compare_ranks_for_both_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from diptych.__main__ import main

    pictures = folders(tmp_path / "pictures")
    upright = classifier()
    turned = upright.with_(layers=Chain((Flatten(), Dense(_turned(upright)))))
    for name, model in (("a", upright), ("same", upright), ("b", turned)):
        diptych.write(model, tmp_path / f"{name}.safetensors")
    command = ["--images", str(pictures), "--try-recipes"]
    with pytest.raises(SystemExit, match="1"):
        main(["compare", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors"), *command])
    said = capsys.readouterr().out
    assert said.startswith("A:\n  8 of 8 right")
    assert "B:\n  8 of 8 right" in said
    assert "-wh: they expect different inputs" in said
    with pytest.raises(SystemExit, match="0"):
        main(
            [
                "compare",
                str(tmp_path / "a.safetensors"),
                str(tmp_path / "same.safetensors"),
                *command,
                "--json",
            ]
        )
    document = json.loads(capsys.readouterr().out)
    assert document["same"]
    assert document["recipes"]["a"] == document["recipes"]["b"]
    with pytest.raises(SystemExit, match="2"):
        main(["compare", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors"), "--try-recipes"])
    assert "takes one folder" in capsys.readouterr().err


def _turned(model: Model) -> Any:
    """The weights of a model that takes pictures with rows and columns exchanged."""
    weight = model.layers.layers[1].arrays["weight"].reshape(4, 8, 8)
    return np.ascontiguousarray(weight.swapaxes(1, 2).reshape(4, 64))
