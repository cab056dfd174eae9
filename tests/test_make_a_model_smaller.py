"""A user makes a model smaller: half precision in every format, 8-bit integers for ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import diptych
from diptych.errors import ModelError, UnsupportedLayer, UsageError
from diptych.images.files import write_png
from diptych.model.layers import Chain, Dense, Flatten, GlobalMeanPool, Softmax
from diptych.model.model import Model


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index, prompt in enumerate(("a city", "mountains", "the sea", "a desert", "a forest", "a temple")):
        for number, pixels in enumerate(diptych.generate(prompt, count=3, seed=index)):
            write_png(folder / f"{index}-{number}.png", pixels)
    return folder


@pytest.mark.parametrize("suffix", ["safetensors", "onnx", "bson", "pt"])
def test_half_is_half_the_size_and_says_what_it_costs(tmp_path: Path, pictures: Path, suffix: str) -> None:
    whole, half = tmp_path / f"whole.{suffix}", tmp_path / f"half.{suffix}"
    diptych.convert("scenes", whole, certificate=False)
    done = diptych.convert("scenes", half, half=True, images=pictures)
    assert half.stat().st_size < 0.53 * whole.stat().st_size
    compact = done.to_document()["compact"]
    assert compact["pictures"] == 18
    assert compact["same_class"] == 1
    assert 0 < compact["largest_difference"] < 2e-3
    read = diptych.load_model(half)
    assert {str(array.dtype) for array in read.weights().values()} == {"float16"}
    assert read.notes["compact"]["kind"] == "half"
    batch = np.random.default_rng(0).random((4, 3, 32, 32), dtype=np.float32)
    assert np.abs(diptych.predict(read, batch) - diptych.predict("scenes", batch)).max() < 2e-3


def test_half_of_weights_that_it_cannot_hold() -> None:
    model = Model(Chain((Dense(np.array([[1e6]], np.float32)),)), input_shape=(1,))
    with pytest.raises(ModelError, match=r"weight 0\.weight reaches 1e\+06, and float16 ends at 65504"):
        diptych.convert(model, "never.onnx", half=True)


def test_int8_keeps_the_classes(tmp_path: Path, pictures: Path) -> None:
    path = tmp_path / "int8.onnx"
    done = diptych.convert("scenes", path, quantise="int8", images=pictures)
    compact = done.to_document()["compact"]
    assert compact["pictures"] == 9  # the other half has found the ranges
    assert compact["same_class"] > 0.85
    assert path.stat().st_size < 0.35 * 627_870
    assert "of the time" in done.remarks[-1]
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    weights = {str(onnx.numpy_helper.to_array(w).dtype) for w in onnx.load(path).graph.initializer}
    assert "int8" in weights
    model = diptych.load_model(path)
    assert model.classes == diptych.load_model("scenes").classes
    assert model.preprocessing is not None
    names = [str(one) for one in sorted(pictures.iterdir())]
    expected = diptych.predict("scenes", names)
    assert (diptych.predict(path, names).argmax(1) == expected.argmax(1)).mean() > 0.85
    with pytest.raises(UnsupportedLayer, match="it computes with 8-bit integers"):
        diptych.convert(path, tmp_path / "a.bson")
    assert not (tmp_path / "a.bson").exists()


def test_int8_of_a_network_for_any_size(tmp_path: Path, pictures: Path) -> None:
    model = diptych.load_model("scenes")
    layers = model.layers.layers
    free = Chain(
        (*layers[:-4], GlobalMeanPool(), Flatten(), Dense(np.eye(10, 64, dtype=np.float32)), Softmax())
    )
    path = tmp_path / "int8.onnx"
    diptych.convert(model.with_(layers=free, input_shape=None), path, quantise="int8", images=pictures)
    read = diptych.load_model(path)
    assert read.input_shape == (3, 32, 32)
    assert read.gives_probabilities
    names = [str(one) for one in sorted(pictures.iterdir())[:4]]
    assert np.allclose(diptych.predict(path, names).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("a.onnx", {"quantise": "int4"}, "quantise is int8"),
        ("a.onnx", {"quantise": "int8"}, "needs pictures"),
        ("a.bson", {"quantise": "int8"}, "8-bit models are written as .onnx"),
        ("a.onnx", {"quantise": "int8", "half": True}, "choose one"),
        ("a.onnx", {"images": "."}, "images are for half and quantise"),
    ],
    ids=str,
)
def test_what_makes_no_sense(tmp_path: Path, target: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        diptych.convert("scenes", tmp_path / target, **options)
    assert not list(tmp_path.iterdir())


def test_the_command(diptych_command: Any, tmp_path: Path, pictures: Path) -> None:
    done = diptych_command(
        "convert", "scenes", tmp_path / "a.onnx", "--quantise", "int8", "--images", pictures, "--json"
    )
    assert done.status == 0, done.err
    assert json.loads(done.out)["compact"]["bytes"] == (tmp_path / "a.onnx").stat().st_size
    done = diptych_command("convert", "scenes", tmp_path / "b.safetensors", "--half")
    assert done.status == 0, done.err
    assert "measured on made-up inputs" in done.err
