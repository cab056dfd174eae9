"""Recurrent networks of PyTorch, ONNX and Flux: the same numbers, every gate and bias in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
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


# ---- ONNX ---------------------------------------------------------------------------------------------

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
STEPS, SAMPLES, FEATURES, HIDDEN = 5, 3, 4, 2


def graph(
    kind: str,
    path: Path,
    output: str = "Y",
    bias: bool = True,
    states: str = "",
    lengths: Any = None,
    **given: Any,
) -> Array:
    """Saves a graph of one recurrent operation on (N, time, features), and gives a batch for it.

    Args:
        kind, path, output: The operation, the file, and which of its outputs is that of the graph.
        bias: Whether there are biases.
        states: "same" for first states that are equal for all samples, "different" for others.
        lengths: The number of steps of each sample.
        given: The attributes.
    """
    rng = np.random.default_rng(6)
    ways, rows = (2 if given.get("direction") == "bidirectional" else 1), GATES[kind] * HIDDEN
    arrays: dict[str, Any] = {
        "W": rng.standard_normal((ways, rows, FEATURES)),
        "R": rng.standard_normal((ways, rows, HIDDEN)),
    }
    if bias:
        arrays["B"] = rng.standard_normal((ways, 2 * rows))
    if lengths is not None:
        arrays["lengths"] = np.array(lengths, np.int32)
    if states:
        count = SAMPLES if states == "different" else 1
        for name in ("h", "c")[: 2 if kind == "LSTM" else 1]:
            arrays[name] = np.repeat(rng.standard_normal((ways, count, HIDDEN)), SAMPLES // count, 1)
    inputs = ["X", *(name if name in arrays else "" for name in ("W", "R", "B", "lengths", "h", "c"))]
    while not inputs[-1]:
        inputs.pop()
    outputs = ["Y", "Y_h", "Y_c"][: 3 if kind == "LSTM" else 2]
    nodes = [
        helper.make_node("Transpose", ["x"], ["X"], perm=[1, 0, 2]),
        helper.make_node(kind, inputs, outputs, hidden_size=HIDDEN, **given),
        helper.make_node("Transpose", [output], ["y"], perm=[2, 0, 1, 3] if output == "Y" else [1, 0, 2]),
    ]
    stored = {n: a if a.dtype == np.int32 else a.astype(np.float32) for n, a in arrays.items()}
    made = helper.make_graph(
        nodes,
        "recurrent",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [SAMPLES, STEPS, FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in stored.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return rng.standard_normal((SAMPLES, STEPS, FEATURES)).astype(np.float32)


ONNX: dict[str, dict[str, Any]] = {
    "plain": {},
    "no-bias": {"bias": False},
    "reverse": {"direction": "reverse"},
    "both-ways": {"direction": "bidirectional", "states": "same"},
    "last-of-both-ways": {"direction": "bidirectional", "output": "Y_h"},
    "last": {"output": "Y_h", "states": "same"},
    "all-lengths": {"lengths": [STEPS] * SAMPLES},
}
OF_ONE: dict[str, tuple[str, dict[str, Any]]] = {
    "reset-after": ("GRU", {"linear_before_reset": 1, "states": "same"}),
    "reset-after-both-ways": ("GRU", {"linear_before_reset": 1, "direction": "bidirectional"}),
    "leakyrelu": ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.2]}),
    "affine-and-leakyrelu": (
        "RNN",
        {
            "direction": "bidirectional",
            "activations": ["Affine", "LeakyRelu"],
            "activation_alpha": [0.5, 0.3],
            "activation_beta": [0.2],
        },
    ),
    "tanh-and-elu": (
        "RNN",
        {"direction": "bidirectional", "activations": ["Tanh", "Elu"], "activation_alpha": [0.3]},
    ),
    "usual-activations": ("LSTM", {"activations": ["Sigmoid", "Tanh", "Tanh"]}),
}
ALL_OF_ONNX = {f"{kind}-{name}": (kind, options) for kind in GATES for name, options in ONNX.items()} | OF_ONE


@pytest.mark.parametrize("name", ALL_OF_ONNX)
def test_operations_of_onnx(name: str, tmp_path: Path) -> None:
    kind, options = ALL_OF_ONNX[name]
    x = graph(kind, tmp_path / "m.onnx", **options)
    (expected,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"x": x})
    assert apart(diptych.predict(diptych.read(tmp_path / "m.onnx"), x, engine="numpy"), expected) < 1e-5


@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        ("GRU", {"clip": 0.3}, "clip"),
        ("LSTM", {"input_forget": 1}, "couples its gates"),
        ("LSTM", {"output": "Y_c"}, "output 2 is used"),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}, "activations are Sigmoid, Relu, Tanh"),
        ("RNN", {"activations": ["ScaledTanh"]}, "ScaledTanh"),
        ("RNN", {"lengths": [5, 2, 3]}, "another step for each sample"),
        ("GRU", {"states": "different"}, "another state for each sample"),
    ],
)
def test_what_of_onnx_no_layer_has_is_refused(kind: str, options: Any, why: str, tmp_path: Path) -> None:
    graph(kind, tmp_path / "m.onnx", **options)
    with pytest.raises(UnsupportedLayer, match=why):
        diptych.read(tmp_path / "m.onnx")
