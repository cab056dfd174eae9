"""Each known cause planted in recurrent layers and attention, and named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.model.layers import GRU, LSTM, Chain, Dense, Flatten, Layer, MultiHeadAttention, Slice
from diptych.model.model import Model
from little_models import changed, names, numbers

STEPS = numbers(3, 6, 5) * 3


def _recurrent(layer: Layer) -> Model:
    head = (Slice(1, -1, 2**31 - 1), Flatten(), Dense(numbers(3, 4), numbers(3)))
    return Model(Chain((layer, *head)), input_shape=(6, 5))


LSTMS = _recurrent(LSTM(numbers(16, 5) * 2, numbers(16, 4) * 2, numbers(16)))
GRUS = _recurrent(GRU(numbers(12, 5) * 2, numbers(12, 4) * 2, numbers(12), new_bias=numbers(4)))
PLAIN = _recurrent(GRU(numbers(12, 5) * 2, numbers(12, 4) * 2, numbers(12)))


def _attending(**fields: Any) -> Model:
    weights = {name: numbers(6, 6, seed=i) * 3 for i, name in enumerate(("query", "key", "value", "out"))}
    biases = {f"{name}_bias": numbers(6, seed=i + 9) for i, name in enumerate(weights)}
    layer = MultiHeadAttention(**{**weights, **biases, "heads": 3, **fields})
    return Model(Chain((layer, Dense(numbers(2, 6), numbers(2)))), input_shape=(6, 6))


ATTENDING = _attending()
PICTURES = numbers(3, 6, 6) * 2


def _gates(original: Model, order: tuple[int, ...]) -> Model:
    layer = original.layers.layers[0]
    arrays = {
        name: np.concatenate([np.split(getattr(layer, name), len(order))[i] for i in order])
        for name in ("weight", "recurrent", "bias")
    }
    return changed(original, 0, **arrays)


def _negated(original: Model) -> Model:
    layer: Any = original.layers.layers[0]
    signs = np.repeat(np.float32([1, -1, 1]), 4)
    return changed(
        original, 0, weight=layer.weight * signs[:, None], recurrent=layer.recurrent * signs[:, None],
        bias=layer.bias * signs,
    )  # fmt: skip


def _attention(**made: Any) -> Model:
    layer = ATTENDING.layers.layers[0]
    return changed(ATTENDING, 0, **{name: of(layer) for name, of in made.items()})


FASTEST = np.arange(6).reshape(3, 2).T.reshape(-1)

PLANTED: dict[str, tuple[Model, Model, str]] = {
    "ONNX's gates": (LSTMS, _gates(LSTMS, (0, 3, 1, 2)), "gates in another order"),
    "TensorFlow's gates": (LSTMS, _gates(LSTMS, (0, 2, 1, 3)), "gates in another order"),
    "gates of a GRU": (GRUS, _gates(GRUS, (1, 0, 2)), "gates in another order"),
    "update inverted": (GRUS, _negated(GRUS), "update gate inverted"),
    "reset before": (PLAIN, changed(PLAIN, 0, reset="before"), "reset before or after the product"),
    "time": (LSTMS, changed(LSTMS, 0, reverse=True), "time reversed in a layer"),
    "recurrent weights": (
        LSTMS,
        changed(LSTMS, 0, recurrent=np.concatenate([b.T for b in np.split(numbers(16, 4) * 2, 4)])),
        "recurrent weights transposed",
    ),
    "queries for keys": (
        ATTENDING,
        _attention(query=lambda a: a.value, value=lambda a: a.query, query_bias=lambda a: a.value_bias,
                   value_bias=lambda a: a.query_bias),
        "queries, keys and values exchanged",
    ),
    "head fastest": (
        ATTENDING,
        _attention(**{n: lambda a, n=n: getattr(a, n)[FASTEST] for n in
                      ("query", "key", "value", "query_bias", "key_bias", "value_bias")},
                   out=lambda a: a.out[:, FASTEST]),
        "heads split or joined differently",
    ),
    "heads swapped": (
        ATTENDING,
        _attention(out=lambda a: np.concatenate([a.out[:, 2:4], a.out[:, :2], a.out[:, 4:]], 1)),
        "heads split or joined differently",
    ),
    "number of heads": (ATTENDING, changed(ATTENDING, 0, heads=2), "heads split or joined differently"),
    "scores not scaled": (
        ATTENDING,
        _attention(**{n: lambda a, n=n: getattr(a, n) / np.float32(2**0.5) for n in ("query", "query_bias")}),
        "scores of the attention scaled differently",
    ),
    "attention transposed": (
        ATTENDING,
        _attention(**{n: lambda a, n=n: getattr(a, n).T for n in ("query", "key", "value", "out")}),
        "attention weights transposed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_cause_is_named(what: str) -> None:
    a, b, cause = PLANTED[what]
    given = PICTURES if a is ATTENDING else STEPS
    report = diptych.compare(a, b, given)
    assert not report.agrees
    assert names(report) == [cause], report.diagnosis
    assert report.causes[0].after <= 1e-5


def test_sequences_that_run_backwards_are_named() -> None:
    report = diptych.compare(LSTMS, LSTMS, (STEPS, np.ascontiguousarray(STEPS[:, ::-1])))
    assert names(report) == ["time reversed in the input"]


def test_equal_models_have_no_cause() -> None:
    again = changed(LSTMS, 0, weight=LSTMS.layers.layers[0].arrays["weight"].copy())
    assert diptych.compare(LSTMS, again, STEPS).agrees
    assert replace(LSTMS) is not LSTMS
