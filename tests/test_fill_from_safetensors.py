"""safetensors files of other programs: weights alone, which fill an architecture."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych.__main__ import main
from diptych.errors import FormatError

torch = pytest.importorskip("torch")
nn = torch.nn


class Net(nn.Module):  # type: ignore[misc, name-defined]
    """A module whose names do not sort in the order of its layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(144, 3)
        nn.init.uniform_(self.norm.running_mean)
        nn.init.uniform_(self.norm.bias)

    def forward(self, x: object) -> object:
        return self.head(torch.flatten(torch.relu(self.norm(self.stem(x))), 1))


SOURCE = "m = Chain(Conv((3, 3), 1 => 4), BatchNorm(4, relu), Flux.flatten, Dense(144 => 3))\n"


def _saved(folder: Path, module: nn.Module) -> Path:
    from safetensors.torch import save_file

    save_file(module.state_dict(), folder / "w.safetensors")
    return folder / "w.safetensors"


def _source(folder: Path, text: str = SOURCE) -> Path:
    (folder / "model.jl").write_text(text)
    return folder / "model.jl"


def test_a_file_of_pytorch_fills_source(tmp_path: Path) -> None:
    module = Net().eval()
    model = diptych.load_model(_saved(tmp_path, module), architecture=_source(tmp_path))
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8), np.float32)
    np.testing.assert_allclose(diptych.predict(model, x), module(torch.tensor(x)).detach().numpy(), atol=1e-5)
    assert model.trained is None


def test_numbers_in_names_are_ordered_as_numbers(tmp_path: Path) -> None:
    torch.manual_seed(1)
    stack = nn.Sequential(*(nn.Linear(3, 3) for _ in range(12)))
    module = nn.Sequential(OrderedDict(stack=stack)).eval()
    layers = ", ".join(["Dense(3 => 3)"] * 12)
    model = diptych.load_model(
        _saved(tmp_path, module), architecture=_source(tmp_path, f"m = Chain({layers})\n")
    )
    x = np.ones((1, 3), np.float32)
    np.testing.assert_allclose(diptych.predict(model, x), module(torch.tensor(x)).detach().numpy(), atol=1e-6)
    assert "in the order of their names" in model.source.warnings[0]


def test_what_does_not_fit_is_shown_on_both_sides(tmp_path: Path) -> None:
    path = _saved(tmp_path, Net())
    with pytest.raises(FormatError, match=r"holds weights alone, 8 arrays.*stem\.weight 4×1×3×3"):
        diptych.read(path)
    other = _source(tmp_path, SOURCE.replace("144 => 3", "144 => 5"))
    with pytest.raises(FormatError, match=r"in the file.*>>.*in the architecture.*5×144"):
        diptych.load_model(path, architecture=other)


def test_a_file_of_ours_is_read_as_before(tmp_path: Path) -> None:
    diptych.write(diptych.read(_source(tmp_path)), tmp_path / "ours.safetensors")
    assert diptych.load_model(tmp_path / "ours.safetensors", architecture=_source(tmp_path)).parameters == 483


def test_inspect_lists_a_state_dict(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save(Net().state_dict(), tmp_path / "w.pth")
    for path in (tmp_path / "w.pth", _saved(tmp_path, Net())):
        with pytest.raises(SystemExit) as done:
            main(["inspect", str(path), "--json"])
        assert done.value.code in (0, None)
        listed = json.loads(capfd.readouterr().out)["weights"]
        assert {"name": "stem.weight", "sizes": [4, 1, 3, 3]} in listed
