"""Weights of PyTorch's recurrent layers and attention fill an architecture of any origin, with PyTorch's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.errors import FormatError, ModelError, UsageError

torch = pytest.importorskip("torch")
nn = torch.nn

FEATURES, HIDDEN, STEPS = 8, 6, 5


class Sequence(nn.Module):  # type: ignore[misc, name-defined]
    """A recurrent module and a head on its last output."""

    def __init__(self, kind: str = "LSTM", **options: Any) -> None:
        super().__init__()
        hidden = HIDDEN if "hidden" not in options else options.pop("hidden")
        self.rnn = getattr(nn, kind)(FEATURES, hidden, batch_first=True, **options)
        self.head = nn.Linear(hidden * (1 + self.rnn.bidirectional), 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[0][:, -1])


class Attending(nn.Module):  # type: ignore[misc, name-defined]
    """`nn.MultiheadAttention` in a residual branch."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(FEATURES)
        self.att = nn.MultiheadAttention(FEATURES, 2, batch_first=True, bias=bias)
        self.head = nn.Linear(FEATURES, 3)

    def forward(self, x: Any) -> Any:
        y = self.norm(x)
        return self.head((x + self.att(y, y, y)[0]).mean(1))


class Written(nn.Module):  # type: ignore[misc, name-defined]
    """Attention of linear layers, one for queries, keys and values or one each, in any order and under any names."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        for name in names:
            setattr(
                self, name, nn.Linear(FEATURES, FEATURES * (3 if len(names) == 2 and name == names[0] else 1))
            )
        self.roles = (
            sorted(names[:3], key=lambda n: "qkv".index(n.strip("to_")[0])) if len(names) == 4 else []
        )
        self.names = names

    def forward(self, x: Any) -> Any:
        if self.roles:
            parts = [getattr(self, name)(x) for name in self.roles]
        else:
            parts = list(getattr(self, self.names[0])(x).chunk(3, -1))
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return getattr(self, self.names[-1])(mixed)


def _saved(folder: Path, module: Any, suffix: str) -> Path:
    from safetensors.torch import save_file

    path = folder / f"weights{suffix}"
    state = {f"model.{name}": value for name, value in module.state_dict().items()}
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    return path


def _filled(folder: Path, make: Any, suffix: str, form: str) -> None:
    """Fills an architecture with the weights of another module, and compares with that one."""
    torch.manual_seed(1)
    trained, x = make().eval(), torch.randn(2, STEPS, FEATURES)
    weights = _saved(folder, trained, suffix)
    architecture: Any = diptych.from_torch(make().eval(), example=x)
    if form:
        diptych.convert(architecture, folder / f"architecture{form}")
        architecture = folder / f"architecture{form}"
    model = diptych.load_model(weights, architecture=architecture)
    expected = trained(x).detach().numpy()
    np.testing.assert_allclose(diptych.predict(model, x.numpy()), expected, atol=1e-6)


MODULES = {
    "two LSTMs": lambda: Sequence(num_layers=2),
    "equal LSTMs": lambda: Sequence(num_layers=3, hidden=FEATURES),
    "both ways": lambda: Sequence(num_layers=2, bidirectional=True),
    "RNN": lambda: Sequence("RNN", nonlinearity="relu"),
    "GRU without biases": lambda: Sequence("GRU", bias=False),
    "attention": Attending,
    "attention without biases": lambda: Attending(bias=False),
    "timm": lambda: Written(("qkv", "proj")),
    "Hugging Face": lambda: Written(("k_proj", "v_proj", "q_proj", "out_proj")),
    "names that tell nothing": lambda: Written(("q1", "k1", "v1", "r1")),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", [n for n in MODULES if n != "names that tell nothing"])
def test_weights_fill_a_model(tmp_path: Path, name: str, suffix: str) -> None:
    _filled(tmp_path, MODULES[name], suffix, "")


def test_what_names_do_not_tell_the_order_does(tmp_path: Path) -> None:
    _filled(tmp_path, MODULES["names that tell nothing"], ".pth", "")


@pytest.mark.parametrize("name", ["two LSTMs", "both ways", "attention", "timm"])
def test_weights_fill_a_file_of_flux(tmp_path: Path, name: str) -> None:
    _filled(tmp_path, MODULES[name], ".pth", ".bson")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_fill_a_gru_whose_new_gate_has_a_bias_inside(tmp_path: Path, suffix: str) -> None:
    _filled(tmp_path, lambda: Sequence("GRU"), suffix, ".safetensors")


@pytest.mark.parametrize(("kind", "layers"), [("LSTM", 2), ("GRU", 1), ("RNN", 1)])
def test_weights_fill_julia_source(tmp_path: Path, kind: str, layers: int) -> None:
    torch.manual_seed(2)
    module = Sequence(kind, num_layers=layers).eval()
    sizes = [f"{kind}({a} => {HIDDEN})" for a in (FEATURES, HIDDEN)[:layers]]
    (tmp_path / "model.jl").write_text(
        f"m = Chain({', '.join(sizes)}, x -> x[:, end, :], Dense({HIDDEN} => 3))\n"
    )
    model = diptych.load_model(_saved(tmp_path, module, ".pth"), architecture=tmp_path / "model.jl")
    x = torch.randn(2, STEPS, FEATURES)
    np.testing.assert_allclose(diptych.predict(model, x.numpy()), module(x).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_a_gru_that_resets_elsewhere_is_no_place_for_pytorchs(tmp_path: Path, bias: bool) -> None:
    weights = _saved(tmp_path, Sequence("GRU", bias=bias), ".pth")
    (tmp_path / "model.jl").write_text(
        f"m = Chain(GRUv3({FEATURES} => {HIDDEN}), x -> x[:, end, :], Dense({HIDDEN} => 3))\n"
    )
    with pytest.raises(FormatError, match="GRU of Flux is the former, GRUv3 the latter"):
        diptych.load_model(weights, architecture=tmp_path / "model.jl")


def test_sizes_that_differ_are_shown(tmp_path: Path) -> None:
    weights = _saved(tmp_path, Sequence(num_layers=2), ".pth")
    other = diptych.from_torch(Sequence().eval(), example=torch.zeros(1, STEPS, FEATURES))
    with pytest.raises(FormatError, match=r">>24×6 and 24×6 and 24<<"):
        diptych.load_model(weights, architecture=other)


def test_a_module_is_no_architecture_by_itself(tmp_path: Path) -> None:
    module: Any = Sequence()
    with pytest.raises(UsageError, match="from_torch"):
        diptych.load_model(_saved(tmp_path, module, ".pth"), architecture=module)


CODE = """
from torch import nn, zeros
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 3)
    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])
class Known(Net):
    example_input_array = zeros(1, 5, 8)
"""


def test_own_code_says_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_sequences.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(3)
    module = Sequence().eval()
    weights = tmp_path / "w.pth"
    torch.save(module.state_dict(), weights)
    with pytest.raises(ModelError, match="attribute example_input_array"):
        diptych.load_model(weights, architecture="own_sequences:Net")
    model = diptych.load_model(weights, architecture="own_sequences:Known")
    x = torch.randn(2, STEPS, FEATURES)
    np.testing.assert_allclose(diptych.predict(model, x.numpy()), module(x).detach().numpy(), atol=1e-6)
