"""`diptych convert` and `diptych.convert`: from any format that is read into any that is written."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych.errors import FormatError, ModelError, OutputError, UnsupportedLayer, UsageError
from diptych.formats import FORMATS
from diptych.model.layers import (
    Activation,
    BatchNorm,
    Chain,
    Connection,
    Conv,
    Dense,
    Flatten,
    SkipConnection,
)
from diptych.model.model import Model
from diptych.preprocessing import named

pytestmark = pytest.mark.usefixtures("small_figures")
SUFFIXES = [f.suffixes[0] for f in FORMATS if f.can_read and f.can_write]
BATCH = np.random.default_rng(3).random((2, 3, 9, 8), np.float32)


def little_model() -> Model:
    """Asymmetric on purpose: kernel, padding and picture differ between the axes."""
    random = np.random.default_rng(1)

    def w(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    layers = (
        Conv(w(4, 3, 2, 3), w(4), (2, 1), ((1, 0), (1, 1)), activation=Activation("relu")),
        BatchNorm(w(4), w(4), w(4), random.random(4).astype(np.float32) + 0.5),
        SkipConnection(Conv(w(4, 4, 1, 1)), Connection("add")),
        Flatten(),
        Dense(w(3, 4 * 5 * 8), w(3)),
    )
    return Model(
        Chain(layers), named("colour-32"), ("red", "green", "blue"), (3, 9, 8), trained=True, name="little"
    )


def needed(suffix: str) -> Model | None:
    """What must be given beside the file: a .jld2 holds `Flux.state`, so weights alone."""
    return little_model() if suffix == ".jld2" else None


def options(architecture: Model | None) -> dict[str, Model]:
    return {} if architecture is None else {"architecture": architecture}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The little model in each format."""
    folder = tmp_path_factory.mktemp("models")
    for suffix in SUFFIXES:
        diptych.convert(little_model(), folder / f"little{suffix}")
    return {suffix: folder / f"little{suffix}" for suffix in SUFFIXES}


@pytest.mark.parametrize(("first", "second"), list(permutations(SUFFIXES, 2)))
def test_every_format_becomes_every_other(
    files: dict[str, Path], tmp_path: Path, first: str, second: str
) -> None:
    done = diptych.convert(files[first], tmp_path / f"out{second}", architecture=needed(first))
    assert done.paths == (tmp_path / f"out{second}",)
    expected = diptych.predict(little_model(), BATCH, engine="numpy")
    converted = diptych.read(tmp_path / f"out{second}", **options(needed(second)))
    assert np.abs(diptych.predict(converted, BATCH, engine="numpy") - expected).max() < 1e-5
    assert converted.classes == ("red", "green", "blue")
    assert converted.preprocessing == named("colour-32")


@pytest.mark.slow
def test_the_classifier_in_the_box_becomes_a_flux_file_that_the_main_job_runs_from(
    tmp_path: Path, diptych_command
) -> None:
    done = diptych_command("convert", "scenes", tmp_path / "trained_model.bson", "--json")
    assert done.status == 0
    document = json.loads(done.out)
    assert (document["to"], document["files"]) == ("bson", [str(tmp_path / "trained_model.bson")])
    ran = diptych_command(
        "run", "an island with palms", "-n", "1", "--model", tmp_path / "trained_model.bson",
        "--out", tmp_path / "out", "--width", "64", "--height", "64", "--maps", "0", "--quiet",
    )  # fmt: skip
    assert ran.status == 0
    picture = next(p for p in (tmp_path / "out").rglob("generated_image_1.png"))
    again = diptych.predict(tmp_path / "trained_model.bson", picture)
    assert np.abs(again - diptych.predict("scenes", picture)).max() < 1e-5


class TestOptions:
    def test_classes_and_recipe_replace_those_of_the_model(self, tmp_path: Path, diptych_command) -> None:
        target = tmp_path / "named.safetensors"
        source = tmp_path / "little.safetensors"
        diptych.write(little_model(), source)
        done = diptych_command(
            "convert", source, target, "--classes", "a, b,c", "--preprocessing", "imagenet-224"
        )
        assert done.status == 0
        assert diptych.read(target).classes == ("a", "b", "c")
        assert diptych.read(target).preprocessing == named("imagenet-224")

    def test_as_many_classes_as_outputs_are_needed(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="gives 3 values, but 2 class names came"):
            diptych.convert(little_model(), tmp_path / "x.onnx", classes=["a", "b"])
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("classes", [["a", "a", "b"], ["a", "", "b"]])
    def test_class_names_differ_and_are_not_empty(self, tmp_path: Path, classes: list[str]) -> None:
        with pytest.raises(UsageError, match="once each and not empty"):
            diptych.convert(little_model(), tmp_path / "x.onnx", classes=classes)

    def test_a_flux_version_is_for_flux_alone(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="takes no option 'flux_version'"):
            diptych.convert(little_model(), tmp_path / "x.safetensors", flux_version="0.16")

    def test_an_architecture_is_for_files_of_weights(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="the source is a model already"):
            diptych.convert(little_model(), tmp_path / "x.onnx", architecture="small-cnn-32")


class TestRefusals:
    def test_an_unknown_suffix_names_the_known_ones(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"'\.h5'; models are written as .*\.onnx"):
            diptych.convert(little_model(), tmp_path / "model.h5")

    def test_a_file_that_is_not_there(self, tmp_path: Path, diptych_command) -> None:
        done = diptych_command("convert", tmp_path / "none.bson", tmp_path / "x.onnx")
        assert (done.status, done.out) == (1, "")
        assert "there is no file" in done.err
        with pytest.raises(FormatError):
            diptych.convert(tmp_path / "none.bson", tmp_path / "x.onnx")

    def test_weights_that_are_not_finite(self, tmp_path: Path) -> None:
        broken = Model(Chain((Dense(np.full((2, 2), np.nan, np.float32)),)))
        with pytest.raises(ModelError, match="NaN or infinite"):
            diptych.convert(broken, tmp_path / "x.safetensors")

    def test_a_folder_that_is_not_ours_stays_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("ten years of work")
        with pytest.raises(OutputError, match="not an earlier export of Diptych"):
            diptych.convert(little_model(), tmp_path / "mine")
        assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]

    def test_a_failing_export_leaves_nothing(self, tmp_path: Path) -> None:
        strange = Model(Chain((Conv(np.ones((1, 1, 1, 1, 1, 1), np.float32)),)), input_shape=(1, 2, 2, 2, 2))
        with pytest.raises(UnsupportedLayer):
            diptych.convert(strange, tmp_path / "project")
        assert list(tmp_path.iterdir()) == []


def test_a_model_is_never_written_over_its_own_file(tmp_path, diptych_command):
    path = tmp_path / "model.bson"
    diptych.convert("scenes", path)
    before = path.read_bytes()
    done = diptych_command("convert", path, path)
    assert done.status == 1
    assert "would be replaced" in done.err
    assert path.read_bytes() == before


def test_a_shape_that_the_file_does_not_record_can_be_given(tmp_path, diptych_command):
    model = diptych.inference.load_model("small-cnn-32").with_(input_shape=None, preprocessing=None)
    diptych.write(model, tmp_path / "m.safetensors")
    given = diptych_command("convert", tmp_path / "m.safetensors", tmp_path / "m.pt", "--shape", "3,32,32")
    assert given.status == 0
    assert diptych.read(tmp_path / "m.pt").input_shape == (3, 32, 32)
    wrong = diptych_command("convert", tmp_path / "m.safetensors", tmp_path / "x.onnx", "--shape", "1,32,32")
    assert wrong.status == 1
    assert not (tmp_path / "x.onnx").exists()
