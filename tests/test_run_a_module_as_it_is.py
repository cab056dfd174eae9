"""A module that no layers express: one engine runs it, and what needs layers is refused with every obstacle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.errors import ModelError, UnsupportedLayer

torch = pytest.importorskip("torch")
nn = torch.nn


class Sorting(nn.Module):  # type: ignore[misc, name-defined]
    """Values sorted along an axis, and a running sum, which no layer computes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4 * 6, 5)

    def forward(self, x: Any) -> Any:
        values = torch.topk(self.first(x).flatten(2), 6, dim=2).values
        best = values.gather(2, values.argmin(2, keepdim=True))
        return {"logits": self.last((torch.cumsum(values, 2) - best).flatten(1)), "other": values}


class Deciding(nn.Module):  # type: ignore[misc, name-defined]
    def forward(self, x: Any) -> Any:
        kept = torch.topk(x, 2, dim=1).values
        return kept if bool(x.sum() > 1000) else kept * 2


def _pictures(count: int = 3, seed: int = 1) -> Any:
    return torch.randn(count, 3, 9, 8, generator=torch.Generator().manual_seed(seed))


def test_it_predicts_is_traced_and_kept(tmp_path: Path) -> None:
    module, x = Sorting().eval(), _pictures()
    with pytest.raises(UnsupportedLayer):
        diptych.from_torch(module, example=x, output="logits")
    model = diptych.from_torch(module, example=x[:2], output="logits", whole=True)
    expected = module(x)["logits"].detach().numpy()
    np.testing.assert_allclose(diptych.predict(model, x.numpy()), expected, atol=1e-5)
    assert "it is run as a whole, by ONNX Runtime alone" in model.source.warnings[0]
    assert len(diptych.trace(model, x.numpy())) > 3
    diptych.convert(model, tmp_path / "m.onnx")
    np.testing.assert_allclose(
        diptych.predict(diptych.read(tmp_path / "m.onnx"), x.numpy()), expected, atol=1e-5
    )
    assert diptych.compare(model, tmp_path / "m.onnx", x.numpy()).agrees


@pytest.mark.parametrize("target", ["m.bson", "m.pt", "m.safetensors", "project"])
def test_what_needs_layers_names_every_obstacle(tmp_path: Path, target: str) -> None:
    model = diptych.from_torch(Sorting().eval(), example=_pictures(), output="logits", whole=True)
    with pytest.raises(UnsupportedLayer, match=r"\(topk\).*nor is there one for .*nor is there one for "):
        diptych.convert(model, tmp_path / target)
    assert not (tmp_path / target).exists()


def test_code_that_decides_by_its_input_is_no_graph() -> None:
    x = torch.full((1, 3), 1000.0)
    with pytest.raises(ModelError, match="gives other numbers than the module"):
        diptych.from_torch(Deciding().eval(), example=x, whole=True)


def test_a_module_of_layers_is_read_as_layers() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()).eval()
    model = diptych.from_torch(module, example=_pictures(), whole=True)
    assert [layer.label for _, layer in model.walk()] == ["Conv 3x3, 3 -> 2", "relu"]


def test_what_cannot_be_exported_says_both_reasons() -> None:
    class Odd(nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return torch.linalg.svd(x).S

    with pytest.raises(UnsupportedLayer, match="nor can it be run as a whole"):
        diptych.from_torch(Odd().eval(), example=torch.rand(2, 3, 3), whole=True)


CODE = """
import torch
class Net(torch.nn.Module):
    example_input_array = torch.zeros(1, 4)
    def forward(self, x):
        return torch.cumsum(torch.topk(x, 3, dim=1).values, 1)
"""


def test_own_code_by_name_is_run_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_whole_net.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    result = diptych.predict(diptych.load_model("own_whole_net:Net"), x)
    np.testing.assert_allclose(result, np.cumsum(-np.sort(-x, 1)[:, :3], 1), atol=1e-6)
