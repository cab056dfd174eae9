"""Each verb as a command: what it prints, what it leaves, and that results and remarks never mix."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych.images import files

pytestmark = pytest.mark.usefixtures("small_figures")
VERBS = ["run", "generate", "preprocess", "predict", "features", "convert", "inspect"]


@pytest.fixture(scope="module")
def sea(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sea")
    diptych.generate("a boat on the sea at noon", count=2, width=128, height=96, out=folder)
    return folder


def test_generate_writes_pictures_that_can_be_made_again(tmp_path, diptych_command):
    done = diptych_command("generate", "a red sun over the sea", "-n", 2, "--seed", 7, "-o", tmp_path)
    assert done.status == 0
    paths = [Path(line) for line in done.out.splitlines()]
    assert [path.name for path in paths] == ["generated_image_1.png", "generated_image_2.png"]
    again = diptych_command("generate", "--like", paths[1], "-o", tmp_path / "again", "--json")
    assert again.status == 0
    made = json.loads(again.out)["files"]
    np.testing.assert_array_equal(files.read(made[0]).pixels, files.read(paths[1]).pixels)


def test_preprocess_writes_the_array_the_picture_and_the_recipe(sea, tmp_path, diptych_command):
    done = diptych_command("preprocess", sea, "--preprocessing", "grey-224", "-o", tmp_path / "in", "--json")
    assert done.status == 0
    document = json.loads(done.out)
    assert len(document["files"]) == 5
    array = np.load(tmp_path / "in" / "generated_image_1.npy")
    expected = diptych.preprocess(sea / "generated_image_1.png", "grey-224")[0]
    np.testing.assert_array_equal(array, expected)
    stored = json.loads((tmp_path / "in" / "recipe.json").read_text())
    assert diptych.Preprocessing.from_document(stored) == diptych.preprocessing.named("grey-224")


def test_pictures_of_one_name_do_not_overwrite_each_other(tmp_path, diptych_command):
    for folder, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (40, 40), colour).save(tmp_path / folder / "x.png")
    done = diptych_command("preprocess", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out")
    assert done.status == 0
    red, blue = np.load(tmp_path / "out" / "x.npy"), np.load(tmp_path / "out" / "x_2.npy")
    assert red[0].mean() == 1
    assert blue[2].mean() == 1


def test_predict_names_the_best_classes(sea, diptych_command):
    document = json.loads(diptych_command("predict", "scenes", sea, "--json").out)
    assert document["weights"] == "trained"
    text = diptych_command("predict", "scenes", sea, "--top", 2).out
    for row in document["predictions"]:
        assert f"{row['label']} {row['probability']:.4f}" in text
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_an_untrained_model_is_called_so_wherever_it_speaks(sea, diptych_command):
    assert "UNTRAINED" in diptych_command("predict", "two-conv-224", sea).out
    assert json.loads(diptych_command("predict", "two-conv-224", sea, "--json").out)["weights"] == "untrained"
    assert "untrained" in diptych_command("inspect", "two-conv-224").out


def test_predictions_do_not_depend_on_the_engine(sea, diptych_command):
    answers = [
        json.loads(diptych_command("predict", "scenes", sea, "--engine", engine, "--json").out)
        for engine in ("numpy", "torch", "onnxruntime")
    ]
    values = np.array([[list(r["probabilities"].values()) for r in a["predictions"]] for a in answers])
    np.testing.assert_allclose(values[1:], np.broadcast_to(values[0], values[1:].shape), atol=1e-5)


def test_features_draws_the_layers_asked_for(sea, tmp_path, diptych_command):
    picture = sea / "generated_image_1.png"
    every = diptych_command("features", "scenes", picture, "-o", tmp_path / "all")
    assert every.status == 0
    model = diptych.read(diptych.loading.TRAINED["scenes"])
    assert len(every.out.splitlines()) == len(model.layers.layers)
    assert (tmp_path / "all" / "conv_layer_2_feature_maps.png").exists()
    some = diptych_command(
        "features", "scenes", picture, "--layers", "0,7", "-o", tmp_path / "some", "--json"
    )
    names = [Path(file).name for file in json.loads(some.out)["files"]]
    assert names == ["conv_layer_1_feature_maps.png", "layer_7_feature_maps.png"]


def test_inspect_shows_the_table_and_the_recipe(diptych_command):
    text = diptych_command("inspect", "three-conv-224").out
    for words in ("Conv 3x3, 1 -> 16, relu", "5,562,506", "222 x 222", "Preprocessing:"):
        assert words in text
    document = json.loads(diptych_command("inspect", "three-conv-224", "--json").out)
    assert document["parameters"] == 5_562_506
    assert document["layers"][0]["output_shape"] == [1, 16, 222, 222]


@pytest.mark.slow
def test_quiet_prints_nothing_and_json_prints_one_document(sea, tmp_path, diptych_command):
    picture = sea / "generated_image_1.png"
    calls = {
        "generate": ["a sea of blorp", "-o", tmp_path / "g"],
        "preprocess": [picture, "-o", tmp_path / "p"],
        "predict": ["scenes", picture],
        "features": ["scenes", picture, "--layers", "0", "-o", tmp_path / "f"],
        "convert": ["scenes", tmp_path / "scenes.onnx"],
        "inspect": ["scenes"],
        "run": ["the sea", "-n", 1, "--width", 64, "--height", 64, "-o", tmp_path / "r"],
    }
    assert sorted(calls) == sorted(VERBS)
    for verb, arguments in calls.items():
        quiet = diptych_command(verb, *arguments, "--quiet")
        assert (quiet.status, quiet.out, quiet.err) == (0, "", ""), verb
        document = diptych_command(verb, *arguments, "--json")
        assert isinstance(json.loads(document.out), dict)


@pytest.mark.parametrize("verb", [*VERBS, "compare", "serve"])
def test_help_names_every_option_in_the_documentation(verb, diptych_command):
    shown = diptych_command(verb, "--help")
    assert shown.status == 0
    page = (Path(__file__).parent.parent / "docs" / "command-line.md").read_text()
    section = page.split(f"\n## diptych {verb}\n")[1].split("\n## ")[0]
    options = {
        word.strip(",")
        for line in shown.out.splitlines()
        for word in line.split()[:2]
        if word.startswith("--")
    }
    missing = {option for option in options if option not in section}
    assert not missing


def test_the_version_is_printed(diptych_command):
    assert diptych_command("--version").out.split()[0] == diptych.__version__


@pytest.mark.slow
def test_in_a_pipe_there_is_no_progress_and_on_a_terminal_there_is(tmp_path):
    command = [
        sys.executable,
        "-m",
        "diptych",
        "run",
        "the sea",
        "-n",
        "1",
        "--width",
        "64",
        "--height",
        "64",
        "-o",
    ]
    piped = subprocess.Popen(
        [*command, str(tmp_path / "a")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    ours, theirs = pty.openpty()
    shown = subprocess.Popen(
        [*command, str(tmp_path / "b")],
        stderr=theirs,
        stdout=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux says so when the other end has gone
            break
        if not part:
            break
        seen += part
    out, _ = shown.communicate(timeout=60)
    os.close(ours)
    assert shown.returncode == 0
    assert b"\x1b[" in seen
    assert b"feature maps" in seen
    assert b"\x1b[" not in out
    out_of_pipe, said = piped.communicate()
    assert piped.returncode == 0
    assert said == ""
    assert "report.html" in out_of_pipe
