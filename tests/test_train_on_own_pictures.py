"""A user trains a classifier on pictures in one folder for each class, and takes it to Flux."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.errors import ImageError, OutputError, UsageError
from diptych.images.files import write_png
from diptych.training.pictures import split

torch = pytest.importorskip("torch")

PROMPTS = {"desert": "a desert", "forest": "a forest", "sea": "the sea"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("classes")
    for seed, (name, prompt) in enumerate(PROMPTS.items()):
        (place / name).mkdir()
        for number, pixels in enumerate(diptych.generate(prompt, count=20, seed=seed, width=48, height=48)):
            write_png(place / name / f"{number}.png", pixels)
    return place


def one_of(folder: Path, name: str) -> str:
    return str(sorted((folder / name).iterdir())[0])


def test_a_small_cnn_learns_and_goes_to_flux(folder: Path, tmp_path: Path) -> None:
    done = diptych.train(folder, tmp_path / "mine.safetensors", size=16, epochs=12)
    assert done.classes == tuple(PROMPTS)
    assert done.counts == (39, 9, 12)
    assert done.majority == pytest.approx(1 / 3)
    assert done.accuracy > 0.7
    confusion = np.array(done.confusion)
    assert confusion.sum() == 12
    assert np.trace(confusion) / 12 == done.accuracy
    assert not (tmp_path / "mine.safetensors.training").exists()
    model = diptych.load_model(done.path)
    assert model.trained
    assert model.classes == done.classes
    assert model.notes["accuracy"] == round(done.accuracy, 4)
    assert model.notes["confusion matrix (rows: truth)"] == confusion.tolist()
    diptych.convert(model, tmp_path / "mine.bson")
    names = [one_of(folder, name) for name in PROMPTS]
    there = diptych.predict(tmp_path / "mine.bson", names)
    assert np.abs(there - diptych.predict(model, names)).max() < 1e-5
    assert np.allclose(there.sum(axis=1), 1, atol=1e-5)


def test_a_layer_behind_a_frozen_network(folder: Path, tmp_path: Path) -> None:
    done = diptych.train(folder, tmp_path / "mine.onnx", backbone="scenes")
    assert done.accuracy > 0.9
    model, scenes = diptych.load_model(done.path), diptych.load_model("scenes")
    assert model.preprocessing == scenes.preprocessing
    own, kept = model.weights(), scenes.weights()
    assert np.array_equal(own["0.weight"], kept["0.weight"])
    assert model.notes["training"]["backbone"] == "scenes"


class Interrupted(Exception):
    pass


def interrupting(what: str, after: int) -> Any:
    seen = 0

    def progress(done: int, total: int, text: str) -> None:
        nonlocal seen
        seen += what in text
        if seen > after:
            raise Interrupted

    return progress


@pytest.mark.parametrize(
    ("backbone", "what", "after"),
    [(None, "training", 3), ("scenes", "training", 2), ("scenes", "backbone", 30)],
)
def test_an_interrupted_training_goes_on_to_the_same_file(
    folder: Path, tmp_path: Path, backbone: str | None, what: str, after: int
) -> None:
    options: dict[str, Any] = {"backbone": backbone, "size": 16, "epochs": 6}
    whole = diptych.train(folder, tmp_path / "mine.safetensors", **options)
    (tmp_path / "parts").mkdir()
    path = tmp_path / "parts" / "mine.safetensors"
    with pytest.raises(Interrupted):
        diptych.train(folder, path, **options, progress=interrupting(what, after))
    assert not path.exists()
    with pytest.raises(OutputError, match="other pictures or settings that was interrupted"):
        diptych.train(folder, path, **{**options, "epochs": 7})
    again = diptych.train(folder, path, **options)
    assert again.path.read_bytes() == whole.path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        diptych.train(folder, path, **options)


def test_the_split_follows_the_content_and_shares_nothing() -> None:
    labels = np.repeat(np.arange(3), [5, 30, 8])
    hashes = [f"{index:03}" for index in np.random.default_rng(0).permutation(len(labels))]
    parts = split(labels, hashes, 0)
    every = np.concatenate([parts.learning, parts.choosing, parts.judging])
    assert sorted(every) == list(range(len(labels)))
    for part in (parts.learning, parts.choosing, parts.judging):
        assert set(labels[part]) == {0, 1, 2}
    order = np.random.default_rng(1).permutation(len(labels))
    other = split(labels[order], [hashes[i] for i in order], 0)
    assert {hashes[i] for i in parts.judging} == {hashes[order[i]] for i in other.judging}


def test_what_is_left_out_is_said(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "classes"
    shutil.copytree(folder, place)
    (place / "empty").mkdir()
    shutil.copy(one_of(place, "sea"), place / "sea" / "again.png")
    (place / "forest" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    done = diptych.train(place, tmp_path / "mine.safetensors", backbone="scenes", epochs=4)
    assert any("without pictures were left out: empty" in remark for remark in done.remarks)
    assert any("taken once" in remark for remark in done.remarks)
    assert len(done.failures) == 1
    assert "bad.png" in done.failures[0]
    assert sum(done.counts) == 60


def few(place: Path) -> None:
    for path in sorted((place / "sea").iterdir())[4:]:
        path.unlink()


def one_class(place: Path) -> None:
    shutil.rmtree(place / "sea")
    shutil.rmtree(place / "forest")


def in_two(place: Path) -> None:
    shutil.copy(one_of(place, "sea"), place / "forest" / "x.png")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (few, "the class sea has 4 different pictures; at least 5 are needed"),
        (one_class, "has 1 folder of pictures"),
        (in_two, "are the same picture in two classes"),
        (shutil.rmtree, "is no folder"),
    ],
)
def test_folders_that_cannot_be_learnt_from(folder: Path, tmp_path: Path, change: Any, words: str) -> None:
    place = tmp_path / "classes"
    shutil.copytree(folder, place)
    change(place)
    with pytest.raises(ImageError, match=words):
        diptych.train(place, tmp_path / "mine.safetensors", epochs=1)
    assert not (tmp_path / "mine.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 8}, "size is a whole number from 16 to 1024"),
        ({"epochs": 0}, "epochs is a whole number"),
        ({"preprocessing": "grey-64"}, "takes colour pictures of 64 x 64"),
        ({"backbone": "no-such"}, "no file and no model called"),
    ],
    ids=str,
)
def test_options_that_make_no_sense(
    folder: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        diptych.train(folder, tmp_path / "mine.safetensors", **options)


def test_the_command(diptych_command: Any, folder: Path, tmp_path: Path) -> None:
    done = diptych_command(
        "train", folder, "-o", tmp_path / "mine.safetensors", "--backbone", "scenes", "--epochs", 5
    )
    assert done.status == 0, done.err
    assert "held-out pictures right" in done.out
    assert "rows: the class" in done.out
    done = diptych_command("train", folder, "-o", tmp_path / "mine.safetensors", "--overwrite", "--epochs", 2,
                           "--size", 16, "--json")  # fmt: skip
    assert done.status == 0, done.err
    document = json.loads(done.out)
    assert document["pictures"] == {"learning": 39, "choosing": 9, "judging": 12}
    assert len(document["confusion"]) == 3
