"""`convert --prune`: dead channels are left out, and the numbers stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.__main__ import main
from diptych.model.layers import (
    Activation,
    BatchNorm,
    Chain,
    Conv,
    Dense,
    Flatten,
    GlobalMeanPool,
    Layer,
    LayerNorm,
    MaxPool,
    MeanPool,
    Pad,
    SkipConnection,
)
from diptych.model.model import Model
from diptych.pruning import pruned
from little_models import RELU, model, numbers

PADDED = ((1, 1), (1, 1))


def _zeroed(array: Any, *channels: int) -> Any:
    array = array.copy()
    array[list(channels)] = 0
    return array


def _conv(out: int, into: int, dead: tuple[int, ...] = (), **more: Any) -> Conv:
    return Conv(_zeroed(numbers(out, into, 3, 3, seed=out), *dead), numbers(out), **more)


def _unused(layer: Any, *channels: int) -> Any:
    weight = layer.weight.copy()
    weight[:, list(channels)] = 0
    return replace(layer, weight=weight)


def _check(given: Model, removed: int, shape: tuple[int, ...] = (3, 9, 8)) -> Model:
    found = pruned(given)
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    for engine in ("numpy", "onnxruntime"):
        before, after = (diptych.predict(m, x, engine=engine) for m in (given, found.model))
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * max(1, float(np.abs(before).max())))
    assert found.removed == removed
    assert (found.model.parameters < given.parameters) == (removed > 0)
    return found.model


NORM = BatchNorm(_zeroed(numbers(6), 2), numbers(6, seed=1), numbers(6, seed=2), 1 + numbers(6, seed=3) ** 2)

CASES: dict[str, tuple[tuple[Layer, ...], int]] = {
    "nothing is dead": ((_conv(6, 3), RELU, _conv(4, 6)), 0),
    "its own weights are zero": ((_conv(6, 3, (1, 4)), RELU, _conv(4, 6)), 2),
    "nothing takes it": ((_conv(6, 3, padding=PADDED), RELU, _unused(_conv(4, 6, padding=PADDED), 0, 5)), 2),
    "the BatchNorm makes it a number": ((_conv(6, 3), NORM, RELU, MaxPool((2, 2)), _conv(4, 6)), 1),
    "a number that zeros are put around stays": (
        (Conv(_zeroed(numbers(6, 3, 3, 3), 1), 1 + numbers(6) ** 2), _conv(4, 6, padding=PADDED)), 0),
    "zero may have zeros around it": (
        (Conv(_zeroed(numbers(6, 3, 3, 3), 1), -1 - numbers(6) ** 2), RELU, _conv(4, 6, padding=PADDED)), 1),
    "a Pad of zeros": (
        (Conv(_zeroed(numbers(6, 3, 3, 3), 1), 1 + numbers(6) ** 2), Pad(PADDED), _conv(4, 6)), 0),
    "a Pad of copies": (
        (Conv(_zeroed(numbers(6, 3, 3, 3), 1), 1 + numbers(6) ** 2), Pad(PADDED, "replicate"), _conv(4, 6)), 1),
    "a mean that counts padding": (
        (Conv(_zeroed(numbers(6, 3, 3, 3), 1), 1 + numbers(6) ** 2), MeanPool((2, 2), padding=PADDED), _conv(4, 6)), 0),
    "flattened": (
        (_conv(6, 3, (1, 4)), Activation("tanh"), Flatten(), Dense(numbers(5, 6 * 7 * 6), None)), 2),
    "pooled and flattened": ((_conv(6, 3, (1,)), GlobalMeanPool(), Flatten(), Dense(numbers(5, 6), numbers(5))), 1),
    "through a depthwise convolution": (
        (_conv(6, 3, (1,), activation=RELU), Conv(numbers(6, 1, 3, 3), numbers(6), groups=6), RELU, _conv(4, 6)), 1),
    "all of them": ((_conv(6, 3, (0, 1, 2, 3, 4, 5)), RELU, _conv(4, 6)), 5),
    "one leaves another dead": (
        (_conv(6, 3), _unused(_conv(4, 6, (2,)), 5), RELU, _unused(_conv(2, 4), 1)), 3),
    "in a branch": ((_conv(3, 3, padding=PADDED), SkipConnection(Chain((
        _conv(6, 3, (1,), padding=PADDED), RELU, _unused(_conv(3, 6, padding=PADDED), 1, 2))))), 2),
    "between branches nothing is touched": (
        (_conv(3, 3, (1,), padding=PADDED), SkipConnection(_conv(3, 3, padding=PADDED)), _conv(2, 3)), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_dead_channels_are_left_out_and_numbers_stay(name: str) -> None:
    layers, removed = CASES[name]
    _check(model(*layers), removed)


def test_features() -> None:
    layers = (
        Dense(_zeroed(numbers(6, 4), 1), numbers(6), RELU),
        BatchNorm(numbers(6), numbers(6), numbers(6), 1 + numbers(6) ** 2),
        _unused(Dense(numbers(3, 6), None), 4),
    )
    _check(model(*layers, input_shape=(4,)), 2, (4,))
    _check(model(*layers), 0, (4,))  # that the BatchNorm is over the features is not known
    mixed = (layers[0], LayerNorm((6,)), layers[2])
    _check(model(*mixed, input_shape=(4,)), 0, (4,))


def test_a_layer_that_stands_twice_stays() -> None:
    twice = _conv(3, 3, (1,), padding=PADDED)
    _check(model(twice, RELU, twice, _conv(2, 3)), 0)


def test_the_command_says_how_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers, removed = CASES["flattened"]
    diptych.write(model(*layers, input_shape=(3, 9, 8)), tmp_path / "a.safetensors")
    with pytest.raises(SystemExit, match="0"):
        main(["convert", str(tmp_path / "a.safetensors"), str(tmp_path / "b.bson"), "--prune"])
    assert f"prune: {removed} dead channels of 1 layer are left out" in capsys.readouterr().err
    assert diptych.read(tmp_path / "b.bson").layers.layers[0].arrays["weight"].shape == (4, 3, 3, 3)
    assert diptych.verify(tmp_path / "b.bson").passed
    done = diptych.convert(tmp_path / "b.bson", tmp_path / "c.onnx", prune=True)
    assert "no channel is dead" in done.remarks[-1]
    assert done.to_document()["pruned"]["channels"] == 0
