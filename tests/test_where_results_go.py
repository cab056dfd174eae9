"""A folder that a user names for results is made; a folder missing in front of a file's name is a slip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import diptych
from diptych.errors import OutputError
from diptych.files import replacing
from little_models import seeing

pytestmark = pytest.mark.usefixtures("small_figures")


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    diptych.write(seeing(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_no_command_makes_a_folder_in_front_of_a_file(
    model_file: Path, diptych_command: Any, photographs: Path, tmp_path: Path
) -> None:
    gone = tmp_path / "gone" / "x"
    picture = next(path for path in photographs.iterdir() if path.suffix == ".png")
    for words in (
        ("convert", model_file, gone / "x.bson"),
        ("convert", model_file, gone / "x.onnx"),
        ("compare", model_file, model_file, "--report", gone / "x.html"),
        ("filter", "learn", "invert", "-o", gone / "x.safetensors"),
        ("filter", "learn", "invert", "-o", tmp_path / "x.safetensors", "--report", gone / "x.html"),
        ("filter", "learn", "invert", "-o", tmp_path / "x.safetensors", "--checkpoint", gone / "x.pt"),
        ("filter", "apply", model_file, picture, gone / "x.png"),
    ):
        refused = diptych_command(*words)
        assert refused.status == 1, words
        assert f"there is no folder {gone}" in refused.err
        assert "Traceback" not in refused.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt"]


def test_folders_for_results_are_made(model_file: Path, diptych_command: Any, tmp_path: Path) -> None:
    new = tmp_path / "new"
    assert diptych_command("generate", "an island", "-o", new / "a" / "images").status == 0
    picture = new / "a" / "images" / "generated_image_1.png"
    assert diptych_command("preprocess", picture, "-o", new / "b" / "inputs").status == 0
    features = ("features", model_file, picture, "--preprocessing", "colour-32", "-o", new / "c" / "maps")
    assert diptych_command(*features).status == 0
    assert diptych_command("run", "--images", picture, "-o", new / "d" / "run", "--maps", "0").status == 0
    assert diptych_command("convert", "scenes", f"{new / 'e' / 'julia'}/").status == 0
    filtered = ("filter", "apply", model_file, picture.parent, new / "f" / "filtered")
    assert "no folder" not in diptych_command(*filtered).err
    assert {path.name for path in new.iterdir()} >= set("abcde")


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path, diptych_command: Any) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is not a folder"), replacing(tmp_path / "file" / "x.txt"):
        pass
    refused = diptych_command("generate", "an island", "-o", tmp_path / "file")
    assert refused.status == 1
    assert "cannot make the folder" in refused.err
    assert (tmp_path / "file").read_text() == "mine"
