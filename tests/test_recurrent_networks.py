"""Recurrent networks of PyTorch, ONNX and Flux: the same numbers, every gate and bias in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import diptych
from diptych.errors import FormatError, UnsupportedLayer
from diptych.formats import bson
from diptych.model.layers import GRU, LSTM, RNN, Array, Chain
from diptych.model.model import Model
from distances import apart
from flux_golden import GOLDEN, batch

SEQUENCES = torch.tensor(np.random.default_rng(3).standard_normal((3, 6, 5)), dtype=torch.float32)
KINDS: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Picked(nn.Module):
    """A recurrent module and what code takes of its result."""

    def __init__(self, inner: nn.Module, pick: Callable[[Any], Any]) -> None:
        super().__init__()
        self.inner, self.pick = inner, pick

    def forward(self, x: Tensor) -> Any:
        return self.pick(self.inner(x))


class WithState(Picked):
    """A recurrent module and what code takes of the last outputs of its layers; an LSTM has the cells beside them."""

    def forward(self, x: Tensor) -> Any:
        state = self.inner(x)[1]
        return self.pick(state[0] if isinstance(self.inner, nn.LSTM) else state)


CASES: dict[str, Callable[[type[Any]], nn.Module]] = {
    "outputs": lambda kind: Picked(kind(5, 4, batch_first=True), lambda r: r[0]),
    "last-output": lambda kind: Picked(kind(5, 4, batch_first=True), lambda r: r[0][:, -1]),
    "no-bias": lambda kind: Picked(kind(5, 4, bias=False, batch_first=True), lambda r: r[0]),
    "layers": lambda kind: Picked(kind(5, 4, 3, batch_first=True, dropout=0.5), lambda r: r[0]),
    "both-ways": lambda kind: Picked(kind(5, 4, 2, batch_first=True, bidirectional=True), lambda r: r[0]),
    "last-state": lambda kind: WithState(kind(5, 4, 2, batch_first=True), lambda h: h[-1]),
    "states-of-both-ways": lambda kind: WithState(
        kind(5, 4, 2, batch_first=True, bidirectional=True), lambda h: torch.cat([h[-2], h[-1]], 1)
    ),
    "all-states": lambda kind: WithState(
        kind(5, 4, 2, batch_first=True), lambda h: h.permute(1, 0, 2).flatten(1)
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_modules_of_pytorch_are_read_and_written(kind: str, name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = CASES[name](KINDS[kind]).eval()
    with torch.no_grad():
        expected = module(SEQUENCES).numpy()
    model = diptych.from_torch(module, example=SEQUENCES[:2])
    assert apart(diptych.predict(model, SEQUENCES.numpy(), engine="numpy"), expected) < 1e-5
    for suffix in (".onnx", ".pt", ".safetensors", ".bson"):
        if suffix == ".bson" and kind == "gru" and name != "no-bias":
            with pytest.raises(UnsupportedLayer, match="GRU has one bias"):
                diptych.write(model, tmp_path / "m.bson")
            continue
        diptych.write(model, tmp_path / f"m{suffix}")
        again = diptych.read(tmp_path / f"m{suffix}")
        assert apart(diptych.predict(again, SEQUENCES.numpy()), expected) < 1e-5, suffix


class FromZeros(nn.Module):
    """The states that code makes by hand, with the batch's own size."""

    def __init__(self, learned: bool) -> None:
        super().__init__()
        self.inner = nn.LSTM(5, 4, 2, batch_first=True)
        self.start = nn.Parameter(torch.randn(2, 1, 4)) if learned else None

    def forward(self, x: Tensor) -> Any:
        shape = (2, x.size(0), 4)
        first = torch.zeros(shape) if self.start is None else self.start.expand(shape).contiguous()
        return self.inner(x, (first, torch.zeros(2, x.size(0), 4)))[0]


@pytest.mark.parametrize("learned", [False, True])
def test_initial_states(learned: bool) -> None:
    torch.manual_seed(1)
    module = FromZeros(learned).eval()
    with torch.no_grad():
        expected = module(SEQUENCES).numpy()
    model = diptych.from_torch(module, example=SEQUENCES[:2])
    first = model.layers.layers[0]
    assert isinstance(first, LSTM)
    assert (first.initial is not None) == learned
    assert first.initial_cell is None
    assert apart(diptych.predict(model, SEQUENCES.numpy()), expected) < 1e-5


def test_the_time_may_come_first_inside_of_a_network() -> None:
    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.GRU(5, 4, bidirectional=True)

        def forward(self, x: Tensor) -> Any:
            return self.inner(x.permute(1, 0, 2))[0].permute(1, 0, 2)

    module = TimeFirst().eval()
    model = diptych.from_torch(module, example=SEQUENCES)
    with torch.no_grad():
        assert apart(diptych.predict(model, SEQUENCES.numpy()), module(SEQUENCES).numpy()) < 1e-5


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("module", "why"),
    [
        (nn.LSTM(5, 4, batch_first=True, proj_size=2), "projects its output"),
        (nn.LSTM(5, 4), "batch_first=False"),
        (Picked(nn.LSTM(5, 4, batch_first=True), lambda r: r[1][1][-1]), "last cell state"),
    ],
)
def test_what_no_layer_gives_is_refused_by_name(module: nn.Module, why: str) -> None:
    with pytest.raises(UnsupportedLayer, match=why):
        diptych.from_torch(module, example=SEQUENCES, output=None if isinstance(module, Picked) else 0)


# ---- Flux ---------------------------------------------------------------------------------------------


def flux(version: str, name: str) -> tuple[Array, Array]:
    folder = GOLDEN / f"flux-{version}"
    return batch(np.load(folder / f"{name}_input.npy")), batch(np.load(folder / f"{name}_output.npy"))


@pytest.mark.parametrize("suffix", [".bson", ".jld2"])
def test_every_layer_of_flux_0_16_on_a_sequence(suffix: str) -> None:
    """RNN, LSTM, GRU and GRUv3, then a closure that takes the last step, whose code is not in the `.jld2`."""
    given, expected = flux("0.16.9", "rnn")
    options: Any = {} if suffix == ".bson" else {"functions": {"#52#53": "x -> x[:, end, :]"}}
    model = diptych.read(GOLDEN / "flux-0.16.9" / f"rnn{suffix}", **options)
    rnn, lstm, gru, third = model.layers.layers[:4]
    assert isinstance(rnn, RNN)
    assert isinstance(lstm, LSTM)
    assert isinstance(gru, GRU)
    assert isinstance(third, GRU)
    assert (gru.reset, third.reset) == ("after", "before")
    trace = diptych.trace(model, given, engine="numpy")
    for number in range(1, 5):
        wanted = batch(np.load(GOLDEN / "flux-0.16.9" / f"rnn_layer{number}.npy"))
        assert apart(trace[str(number - 1)], wanted) < 1e-5, number
    assert apart(trace.output, expected) < 1e-5


def test_a_sequence_for_flux_0_14_has_its_batch_in_the_middle(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    layer = LSTM(*(rng.standard_normal(shape).astype(np.float32) for shape in ((16, 5), (16, 4), (16,))))
    model = Model(Chain((layer,)), input_shape=(6, 5))
    diptych.write(model, tmp_path / "m.bson", flux_version="0.14")
    again = diptych.read(tmp_path / "m.bson")
    expected = layer(SEQUENCES.numpy())
    assert apart(diptych.predict(again, SEQUENCES.numpy()), expected) < 1e-6
    (made,) = bson.load(tmp_path / "m.bson")["model"].fields[0]
    before, recur, behind = made.fields[0]
    assert recur.type.name == "Recur"
    assert before.fields[1] == behind.fields[1] == (1, 3, 2)


def test_the_state_that_a_sequence_left_behind_is_said_and_not_used(tmp_path: Path) -> None:
    values = bson.load(GOLDEN / "flux-0.13.4" / "rnn.bson")
    recur = values["model"].fields[0][0]
    recur.fields[1] = np.asfortranarray(np.ones((4, 2), np.float32))
    bson.write(values, tmp_path / "left.bson")
    model = diptych.read(tmp_path / "left.bson")
    assert any("Flux.reset!" in warning for warning in model.source.warnings)
    given, expected = flux("0.13.4", "rnn")
    assert apart(diptych.predict(model, given), expected) < 1e-5


def test_an_unknown_cell_is_refused_by_name(tmp_path: Path) -> None:
    values = bson.load(GOLDEN / "flux-0.13.4" / "rnn.bson")
    recur = values["model"].fields[0][0]
    recur.fields[0].type = type(recur.type)(("Main", "MyCell"), recur.fields[0].type.parameters)
    bson.write(values, tmp_path / "own.bson")
    with pytest.raises(FormatError, match=r"layer 0 \(Recur\) is a recurrent layer of the cell MyCell"):
        diptych.read(tmp_path / "own.bson")
