"""A user names a network that his own Python code builds: `package.module:name`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.errors import FormatError, UsageError

torch = pytest.importorskip("torch")

CODE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

class Sized(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.dense = nn.Linear(2 * 28 * 28, 3)
    def forward(self, x):
        x = self.conv(x)
        n, c, h, w = x.shape
        return self.dense(x.reshape(n, c * h * w))

network = build()
number = 3

def failing():
    raise RuntimeError("no such weights")

def needing(size):
    return build()
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"own_{abs(hash(request.node.name)) % 10**8}"  # modules stay imported
    (tmp_path / name).mkdir()
    (tmp_path / name / "networks.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{name}.networks"


@pytest.mark.parametrize("wanted", ["build", "network"])
def test_a_network_by_its_place_in_the_code(package: str, wanted: str) -> None:
    model = diptych.load_model(f"{package}:{wanted}")
    batch = np.random.default_rng(0).random((2, 3, 12, 12), dtype=np.float32)
    scope: dict[str, Any] = {}
    exec(CODE, scope)
    expected = scope["build"]().eval()(torch.from_numpy(batch)).detach().numpy()
    assert np.abs(diptych.predict(model, batch) - expected).max() < 1e-6


def test_a_network_whose_code_depends_on_sizes(package: str) -> None:
    assert diptych.load_model(f"{package}:Sized").input_shape == (1, 28, 28)


def test_weights_of_a_file_fill_it(package: str, tmp_path: Path) -> None:
    scope: dict[str, Any] = {}
    exec(CODE, scope)
    network = scope["build"]()
    with torch.no_grad():
        network[4].bias += 5
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    model = diptych.load_model(tmp_path / "weights.pth", architecture=f"{package}:build")
    batch = np.random.default_rng(0).random((2, 3, 12, 12), dtype=np.float32)
    expected = network.eval()(torch.from_numpy(batch)).detach().numpy()
    assert np.abs(diptych.predict(model, batch) - expected).max() < 1e-6
    assert model.trained
    torch.save({"other": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(FormatError):
        diptych.load_model(tmp_path / "other.pth", architecture=f"{package}:build")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("missing", "has nothing called missing"),
        ("number", "gives a int, where a torch.nn.Module"),
        ("failing", "fails when it is called without arguments: no such weights"),
        ("needing", "fails when it is called without arguments"),
    ],
)
def test_what_is_no_network(package: str, wanted: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        diptych.load_model(f"{package}:{wanted}")


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="the module no_such_module cannot be imported"):
        diptych.load_model("no_such_module:build")
