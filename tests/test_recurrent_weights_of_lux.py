"""Parameters of Lux's recurrent cells fill an architecture, with the numbers that Lux's formulas give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.errors import FormatError
from diptych.formats import jld2
from diptych.formats.julia import NamedTuple

F, H = 4, 3


def _numbers(*shape: int) -> Any:
    return np.asfortranarray(np.random.default_rng([7, *shape]).standard_normal(shape).astype(np.float32))


def _named(**values: Any) -> NamedTuple:
    return NamedTuple(tuple(values), list(values.values()))


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _lstm(x: Any, wi: Any, wh: Any, b: Any) -> Any:
    h, c = np.zeros(H), np.zeros(H)
    for step in x:
        i, f, g, o = np.split(wi @ step + wh @ h + b, 4)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        h = _sigmoid(o) * np.tanh(c)
    return h


def _gru(x: Any, wi: Any, wh: Any, bi: Any, bh: Any) -> Any:
    h = np.zeros(H)
    for step in x:
        (r1, z1, n1), (r2, z2, n2) = np.split(wi @ step + bi, 3), np.split(wh @ h + bh, 3)
        z = _sigmoid(z1 + z2)
        h = (1 - z) * np.tanh(n1 + _sigmoid(r1 + r2) * n2) + z * h
    return h


def _predicted(folder: Path, kind: str, cell: NamedTuple, x: Any) -> Any:
    head = _named(weight=_numbers(2, H), bias=_numbers(2))
    nothing = NamedTuple((), [])
    tree = NamedTuple(("layer_1", "layer_2", "layer_3"), [cell, nothing, head])
    jld2.write(folder / "w.jld2", {"ps": tree, "st": NamedTuple(tree.names, [nothing] * 3)})
    (folder / "m.jl").write_text(
        f"using Lux\nm = Chain(Recurrence({kind}Cell({F} => {H}); return_sequence = true), x -> x[:, end, :], "
        f"Dense({H} => 2))\n"
    )
    model = diptych.load_model(folder / "w.jld2", architecture=folder / "m.jl")
    return diptych.predict(model, x[np.newaxis])[0], lambda h: head[0] @ h + head[1]


def test_an_lstm_of_today_and_of_before(tmp_path: Path) -> None:
    x, wi, wh = _numbers(5, F), _numbers(4 * H, F), _numbers(4 * H, H)
    bi, bh = _numbers(4 * H), _numbers(4 * H, 1)[:, 0] * 0.5
    result, head = _predicted(tmp_path, "LSTM", _named(weight_ih=wi, weight_hh=wh, bias_ih=bi, bias_hh=bh), x)
    np.testing.assert_allclose(result, head(_lstm(x, wi, wh, bi + bh)), atol=1e-5)
    before = _named(weight_i=wi, weight_h=wh, bias=np.asfortranarray(bi[:, np.newaxis]))
    result, head = _predicted(tmp_path, "LSTM", before, x)
    np.testing.assert_allclose(result, head(_lstm(x, wi, wh, bi)), atol=1e-5)


def test_a_gru_of_today_and_of_before(tmp_path: Path) -> None:
    x, wi, wh = _numbers(5, F), _numbers(3 * H, F), _numbers(3 * H, H)
    bi, bh, new = _numbers(3 * H), _numbers(3 * H, 1)[:, 0] * 0.5, _numbers(H)
    result, head = _predicted(tmp_path, "GRU", _named(weight_ih=wi, weight_hh=wh, bias_ih=bi, bias_hh=bh), x)
    np.testing.assert_allclose(result, head(_gru(x, wi, wh, bi, bh)), atol=1e-5)
    before = _named(weight_i=wi, weight_h=wh, bias_i=new, bias_h=bh)
    result, head = _predicted(tmp_path, "GRU", before, x)
    whole = np.concatenate([np.zeros(2 * H), new])
    np.testing.assert_allclose(result, head(_gru(x, wi, wh, whole, bh)), atol=1e-5)


def test_other_sizes_are_refused(tmp_path: Path) -> None:
    cell = _named(weight_ih=_numbers(4 * H, F + 1), weight_hh=_numbers(4 * H, H))
    with pytest.raises(FormatError, match=r"another LSTM of Lux"):
        _predicted(tmp_path, "LSTM", cell, _numbers(5, F))


def test_what_gives_the_last_step_alone_is_said(tmp_path: Path) -> None:
    (tmp_path / "m.jl").write_text(
        f"using Lux\nm = Chain(Recurrence(LSTMCell({F} => {H})), Dense({H} => 2))\n"
    )
    with pytest.raises(FormatError, match="return_sequence = true"):
        diptych.load_model(tmp_path / "m.jl")
