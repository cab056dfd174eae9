"""The shape of a model's input: recorded, asked for in either form, or assumed from what the layers take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import diptych
from diptych.errors import ShapeError
from diptych.model.layers import Conv, Dense, Flatten, GlobalMeanPool, MaxPool
from little_models import RECIPE, model, numbers, seeing


def _fixed() -> Any:
    return model(Conv(numbers(4, 1, 3, 3)), MaxPool((2, 2)), Flatten(), Dense(numbers(5, 4 * 13 * 13)))


@pytest.mark.parametrize(
    ("made", "asked", "batch"),
    [
        (_fixed(), (1, 28, 28), (1, 1, 28, 28)),
        (_fixed(), (1, 1, 28, 28), (1, 1, 28, 28)),
        (_fixed(), (7, 1, 28, 28), (7, 1, 28, 28)),
        (seeing(), (3, 9, 9), (1, 3, 9, 9)),
        (seeing(), (2, 3, 9, 9), (2, 3, 9, 9)),
        (model(Dense(numbers(5, 7))), (7,), (1, 7)),
        (model(Dense(numbers(5, 7))), (3, 7), (3, 7)),
        (model(Flatten(), Dense(numbers(5, 64))), (1, 8, 8), (1, 1, 8, 8)),
        (model(Flatten(), Dense(numbers(5, 64))), (5, 1, 8, 8), (5, 1, 8, 8)),
        (model(GlobalMeanPool()), (3, 8, 8), (1, 3, 8, 8)),
        (model(GlobalMeanPool()), (2, 3, 8, 8), (2, 3, 8, 8)),
        (model(Flatten(), input_shape=(6,)), (4, 6), (4, 6)),
    ],
)
def test_a_shape_is_one_samples_or_a_batchs(made: Any, asked: Any, batch: Any) -> None:
    found = diptych.inspect(made, asked)
    assert found.input_shape == batch
    assert not found.assumed


@pytest.mark.parametrize("asked", [(3, 28, 28), (1, 3, 28, 28), (28,), (1, 30, 30), (0, 28, 28), ()])
def test_a_shape_that_does_not_fit_is_the_users_not_the_models(asked: Any, tmp_path: Path) -> None:
    for refused in (
        lambda: diptych.inspect(_fixed(), asked),
        lambda: diptych.convert(_fixed(), tmp_path / "a.onnx", input_shape=asked),
    ):
        with pytest.raises(ShapeError) as caught:
            refused()
        assert "records" not in str(caught.value)
    assert not (tmp_path / "a.onnx").exists()


def test_both_commands_take_both_forms(tmp_path: Path, diptych_command: Any) -> None:
    path = tmp_path / "a.pt"
    diptych.write(_fixed(), path)
    for shape in ("1,28,28", "1,1,28,28", "1x28x28"):
        text = diptych_command("inspect", path, "--shape", shape).out
        assert "1 x 4 x 26 x 26" in text
        assert "assumed" not in text
        assert diptych_command("convert", path, tmp_path / "a.onnx", "--shape", shape).status == 0
        assert diptych.read(tmp_path / "a.onnx").input_shape == (1, 28, 28)
    assert diptych_command("inspect", path, "--shape", "1,x").status == 2


def test_inspect_assumes_what_the_layers_take(tmp_path: Path, diptych_command: Any) -> None:
    found = diptych.inspect(_fixed())
    assert found.input_shape == (1, 1, 28, 28)
    assert found.multiply_adds == 26 * 26 * 9 * 4 + 676 * 5
    assert found.to_document()["input_shape_assumed"] is True
    assert "1 x 1 x 28 x 28 (assumed)" in found.text()


def test_inspect_assumes_the_size_of_the_recipe() -> None:
    found = diptych.inspect(seeing().with_(preprocessing=RECIPE))
    assert found.input_shape == (1, 3, 24, 32)
    assert found.assumed


def test_what_is_recorded_is_not_assumed_and_what_is_free_stays_unknown() -> None:
    recorded = diptych.inspect(_fixed().with_(input_shape=(1, 28, 28)))
    assert recorded.input_shape == (1, 1, 28, 28)
    assert not recorded.assumed
    pooled = diptych.inspect(seeing())  # ends in a global pool, and takes any size
    assert pooled.input_shape == (1, 3, 32, 32)
    assert pooled.assumed
    free = diptych.inspect(model(Conv(numbers(4, 1, 3, 3))))
    assert free.input_shape is None
    assert free.multiply_adds is None
    assert "assumed" not in free.text()
