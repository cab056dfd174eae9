"""Functions in Julia source: macros, attention's pair, selections and repetitions, cells; with the right numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.errors import FormatError

Array = Any
FIRST = {
    "features": ("Dense(4 => 6)", (2, 4)),
    "steps": ("LSTM(4 => 6)", (2, 5, 4)),
    "pictures": ("Conv((3, 3), 1 => 2)", (2, 1, 8, 7)),
}

# The layer in front, the function, and what it is of that layer's output in our order of axes.
FUNCTIONS: dict[str, tuple[str, str, Any]] = {
    "dots": ("features", "x -> @.(x^2 + 2 * x - relu(-x))", lambda y: y**2 + 2 * y - np.maximum(-y, 0)),
    "dots without brackets": ("features", "x -> @. tanh(x) * 2x", lambda y: np.tanh(y) * 2 * y),
    "dots but for one call": (
        "features",
        "x -> @.(x * $sum(x; dims = 1))",
        lambda y: y * y.sum(1, keepdims=True),
    ),
    "view": ("steps", "x -> @view(x[:, end, :])", lambda y: y[:, -1]),
    "views": ("steps", "x -> @views x[1:2, :, :] .+ x[3:4, :, :]", lambda y: y[..., :2] + y[..., 2:4]),
    "views of an assignment": (
        "steps",
        "function (x)\n  @views z = x[:, 1, :]\n  @. z * z\nend",
        lambda y: y[:, 0] ** 2,
    ),
    "inbounds": ("features", "x -> @inbounds(x[2:3, :])", lambda y: y[:, 1:3]),
    "selectdim": ("steps", "x -> selectdim(x, 2, size(x, 2))", lambda y: y[:, -1]),
    "reverse": ("steps", "x -> reverse(x; dims = 1)", lambda y: y[..., ::-1]),
    "reverse channels": ("pictures", "x -> reverse(x, dims = 3)", lambda y: y[:, ::-1]),
    "repeat": ("pictures", "x -> repeat(x, 1, 1, 2, 1)", lambda y: np.concatenate([y, y], 1)),
    "repeat each pixel": (
        "pictures",
        "x -> repeat(x; inner = (2, 3, 1, 1))",
        lambda y: y.repeat(3, 2).repeat(2, 3),
    ),
    "repeat each channel": ("pictures", "x -> repeat(x; inner = (1, 1, 2, 1))", lambda y: y.repeat(2, 1)),
    "repeat both ways": (
        "pictures",
        "x -> repeat(x; inner = (2, 1, 1, 1), outer = (1, 2, 1, 1))",
        lambda y: np.concatenate([y.repeat(2, 3)] * 2, 2),
    ),
    "mean of the steps": ("steps", "x -> mean(x; dims = 2)[:, 1, :]", lambda y: y.mean(1)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gives_its_numbers(tmp_path: Path, name: str) -> None:
    front, function, expected = FUNCTIONS[name]
    layer, shape = FIRST[front]
    (tmp_path / "m.jl").write_text(f"using Flux\nm = Chain({layer}, {function})\n")
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    trace = diptych.trace(diptych.load_model(tmp_path / "m.jl"), x)
    np.testing.assert_allclose(trace["1"], expected(trace["0"]), rtol=1e-5, atol=1e-6)


PAIRS = {
    "index": "mha = MultiHeadAttention(4, nheads = 2)\nm = Chain(x -> mha(x, x, x)[1], Dense(4 => 3))\n",
    "first": "mha = MultiHeadAttention(4, nheads = 2)\nm = Chain(x -> first(mha(x)), Dense(4 => 3))\n",
    "taken apart": (
        "struct Net; att; out; end\nfunction (n::Net)(x)\n  y, shares = n.att(x, x, x)\n  n.out(y)\nend\n"
        "m = Net(MultiHeadAttention(4, nheads = 2), Dense(4 => 3))\n"
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_first_of_what_an_attention_gives(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.jl").write_text(PAIRS[name])
    labels = [layer.label for _, layer in diptych.load_model(tmp_path / "m.jl").walk()]
    assert labels == ["MultiHeadAttention 4 -> 4, 2 heads, no bias", "Dense 4 -> 3"]


@pytest.mark.parametrize(
    "text",
    ["Flux.Recur(LSTMCell(4, 6))", "Recurrence(LSTMCell(4 => 6))", "Flux.Recur(Flux.LSTMCell(4 => 6))"],
)
def test_a_cell_in_its_loop_is_the_layer(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.jl").write_text(f"m = Chain({text}, Dense(6 => 3))\n")
    labels = [layer.label for _, layer in diptych.load_model(tmp_path / "m.jl").walk()]
    assert labels == ["LSTM 4 -> 6", "Dense 6 -> 3"]


REFUSED = {
    "m = Chain(Dense(2 => 2), x -> @mine(x))": r"m\.jl:1.*the macro @mine is not read",
    "m = Chain(Conv((3, 3), 1 => 2), x -> reverse(x; dims = 1))": r"m\.jl:1 reverses an axis whose size is not known",
    "m = Chain(Dense(2 => 2), x -> reverse(x; dims = 2))": r"m\.jl:1 reverses the batch",
    "m = Chain(BatchNorm(2), x -> selectdim(x, 2, 1))": r"m\.jl:1 selects from an array whose number of axes",
    "a = MultiHeadAttention(4, nheads = 2)\nm = Chain(Dense(4 => 4), x -> a(x, x, x))": r"m\.jl:2 gives several values",
    "a = MultiHeadAttention(4, nheads = 2)\nm = Chain(Dense(4 => 4), x -> a(x, 2x, x)[1])": r"m\.jl:2.*other queries",
    "a = MultiHeadAttention(4, nheads = 2)\nm = Chain(Dense(4 => 4), x -> a(x)[2])": r"m\.jl:2 gives the shares",
    "m = Chain(Flux.Recur(Dense(2 => 2)))": r"m\.jl:1.*Recur is read around RNNCell",
    "m = Chain(LSTMCell(2 => 2), Dense(2 => 2))": r"m\.jl:1.*recurrent cell outside of a recurrent layer",
    "m = Chain(Dense(2 => 2), x -> first(x))": r"m\.jl:1 takes the first number of an array",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_read_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.jl").write_text(text)
    with pytest.raises(FormatError, match=REFUSED[text]):
        diptych.load_model(tmp_path / "m.jl")
