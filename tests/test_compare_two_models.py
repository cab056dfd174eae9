"""Two models side by side: nothing planted and nothing found, layers that do not stand side by side, and inputs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diptych
from diptych.axes import flip_kernel
from diptych.comparing import diagnosis, runs
from diptych.comparing.alignment import measure
from diptych.comparing.diagnosis import CAUSES
from diptych.errors import ShapeError, UsageError
from diptych.model.layers import (
    Activation,
    Array,
    BatchNorm,
    Chain,
    Connection,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalMeanPool,
    MaxPool,
    Parallel,
)
from diptych.model.model import Model
from little_models import (
    RECIPE,
    RELU,
    changed,
    classifier,
    compare,
    model,
    names,
    numbers,
    pictures,
    seeing,
    weight,
)

A = classifier()
UNFLIPPED = changed(A, 1, weight=flip_kernel(weight(A, 1)))

# ---- Nothing planted ----------------------------------------------------------------------------------


def test_a_model_agrees_with_itself() -> None:
    found = compare(classifier(), classifier())
    assert found.agrees
    assert found.first_divergence is None
    assert found.causes == ()
    assert "agree" in found.diagnosis
    assert all(pair.agrees and pair.largest_absolute == 0 for pair in found.layers)
    assert [pair.path_a for pair in found.layers] == ["input", *map(str, range(11))]


def test_a_model_agrees_with_itself_on_another_engine() -> None:
    found = diptych.compare(classifier(), classifier(), engine_a="numpy", engine_b="onnxruntime")
    assert found.agrees
    assert (found.engine_a, found.engine_b) == ("numpy", "onnxruntime")
    assert 0 < max(pair.largest_absolute for pair in found.layers) < 1e-4


def test_the_tolerance_decides() -> None:
    other = changed(classifier(), 9, bias=numbers(5) + np.float32(3e-4))
    assert not compare(classifier(), other, tolerance=1e-6).agrees
    assert compare(classifier(), other, tolerance=1e-2).agrees
    with pytest.raises(UsageError, match="tolerance"):
        compare(classifier(), other, tolerance=0.0)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1e-3, 1e-2, 0.1, 1.0]),
    index=st.sampled_from([0, 1]),
)
def test_no_cause_is_claimed_for_noise(seed: int, size: float, index: int) -> None:
    a = model(
        Conv(numbers(4, 3, 3, 3), numbers(4), activation=RELU),
        Conv(numbers(4, 4, 3, 3)),
        input_shape=(3, 9, 11),
    )
    noise = np.random.default_rng(seed).normal(size=weight(a, index).shape).astype(np.float32)
    found = compare(a, changed(a, index, weight=weight(a, index) + np.float32(size) * noise))
    assert not found.agrees
    assert found.first_divergence == str(index)
    assert found.causes == ()
    assert "No known cause" in found.diagnosis
    assert f"{index}.weight" in found.diagnosis


# ---- Layers that do not stand side by side --------------------------------------------------------------


def test_an_activation_built_in_pairs_with_one_apart() -> None:
    a = model(Conv(numbers(4, 3, 3, 3), activation=RELU), MaxPool((2, 2)), Dropout(), input_shape=(3, 9, 12))
    b = model(Conv(numbers(4, 3, 3, 3)), RELU, MaxPool((2, 2)), input_shape=(3, 9, 12))
    found = compare(a, b)
    assert found.agrees
    assert ("0", "1") in [(pair.path_a, pair.path_b) for pair in found.layers if pair.layer_a == "relu"]
    assert [pair.path_b for pair in found.layers if pair.layer_a.startswith("MaxPool")] == ["2"]


def _norm() -> BatchNorm:
    return BatchNorm(1 + numbers(4) ** 2, numbers(4), numbers(4, seed=2), 0.3 + numbers(4, seed=3) ** 2)


def _folded(norm: BatchNorm, conv: Conv) -> Conv:
    assert norm.scale is not None
    assert norm.shift is not None
    assert norm.mean is not None
    assert norm.variance is not None
    gain = norm.scale / np.sqrt(norm.variance + np.float32(norm.epsilon))
    bias = norm.shift - norm.mean * gain
    return replace(conv, weight=conv.weight * gain[:, None, None, None], bias=bias, activation=RELU)


def test_a_batch_norm_folded_into_the_weights_agrees() -> None:
    conv = Conv(numbers(4, 3, 3, 3))
    a = model(conv, _norm(), RELU, MaxPool((2, 2)), input_shape=(3, 9, 12))
    b = model(_folded(_norm(), conv), MaxPool((2, 2)), input_shape=(3, 9, 12))
    assert compare(a, b).agrees
    assert compare(b, a).agrees


def test_a_folded_batch_norm_with_another_epsilon_is_named() -> None:
    conv = Conv(numbers(4, 3, 3, 3))
    a = model(conv, _norm(), RELU, MaxPool((2, 2)), input_shape=(3, 9, 12))
    b = model(_folded(replace(_norm(), epsilon=1e-3), conv), MaxPool((2, 2)), input_shape=(3, 9, 12))
    found = compare(a, b)
    assert names(found) == ["another epsilon in the normalisation"]
    assert found.explained


def test_layers_inside_containers_are_compared_too() -> None:
    def nested(kernel: Array) -> Model:
        branches = (
            Chain((Conv(numbers(2, 3, 3, 3), padding=((1, 1), (1, 1))), RELU)),
            Conv(kernel, padding=((1, 1), (1, 1))),
        )
        return model(
            Chain((Parallel(Connection("concatenate"), branches), RELU)),
            GlobalMeanPool(),
            input_shape=(3, 7, 9),
        )

    found = compare(nested(numbers(2, 3, 3, 3, seed=5)), nested(flip_kernel(numbers(2, 3, 3, 3, seed=5))))
    assert found.first_divergence == "0.0.1"
    assert names(found) == ["kernels not flipped"]
    assert found.explained


# ---- The default input, and what is refused -------------------------------------------------------------


def test_without_pictures_a_random_batch_that_fits_both_is_taken() -> None:
    found = compare(seeing(), seeing())
    assert "2 x 3 x 29 x 37" in found.given  # not square, where the model allows it
    flat = model(Dense(numbers(3, 7)))
    assert "2 x 7" in compare(flat, flat).given
    with pytest.raises(ShapeError, match="no input shape"):
        compare(seeing(3), seeing(1))


def test_models_with_recipes_are_compared_on_photographs() -> None:
    found = diptych.compare("small-cnn-32", "small-cnn-32")
    assert found.agrees
    assert found.given == "3 photographs in the box"


def test_pictures_need_a_recipe() -> None:
    with pytest.raises(UsageError, match="no preprocessing recipe"):
        compare(seeing(), seeing(), pictures())
    found = compare(seeing().with_(preprocessing=RECIPE), seeing(), pictures())
    assert found.agrees
    assert any("the other's is used" in remark for remark in found.remarks)


def test_models_that_share_nothing_are_told_apart_without_a_cause() -> None:
    b = model(Conv(numbers(7, 3, 5, 5)), GlobalMeanPool(), Flatten(), Dense(numbers(4, 7)))
    found = compare(seeing(), b)
    assert not found.agrees
    assert found.causes == ()
    assert found.text()
    json.dumps(found.to_document(), allow_nan=False)


def test_every_cause_has_its_own_name_and_a_reason() -> None:
    assert len({cause.name for cause in CAUSES}) == len(CAUSES)
    assert all(cause.reason and not cause.reason.endswith(".") for cause in CAUSES)


@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20),
    factor=st.floats(0.125, 8, width=32),
)
def test_measures(values: list[float], factor: float) -> None:
    a = np.array([values], np.float32)
    same = measure(a, a.reshape(1, -1, 1))
    assert (same.absolute, same.relative) == (0, 0)
    scaled = measure(a, a * np.float32(factor))
    assert scaled == measure(a * np.float32(factor), a)
    assert 0 <= scaled.relative <= 2
    assert measure(a, np.full_like(a, np.nan)).relative == np.inf
    assert measure(a, np.zeros((1, len(values) + 1), np.float32)).relative == np.inf


# ---- What a trial costs ---------------------------------------------------------------------------------


def test_a_trial_runs_only_what_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    whole = runs.compiled_for

    def noted(model: Model, engine: str) -> Any:
        ran.append(len(model.layers.layers))
        return whole(model, engine)

    monkeypatch.setattr(runs, "compiled_for", noted)
    run = runs.Run("a", A, "numpy", given_batch=np.random.default_rng(0).random((2, 3, 12, 16), np.float32))
    run.outputs()
    changes: dict[int, dict[str, Any]] = {
        0: {"bias": None},
        2: {"epsilon": 1.0},
        6: {"bias": None},
        10: {"log": True},
    }
    for index, fields in changes.items():
        new = changed(A, index, **fields)
        found = run.with_(model=new).outputs()
        assert ran.pop() == len(A.layers.layers) - index
        fresh = runs.Run("a", new, "numpy", given_batch=run.given_batch).outputs()
        assert ran.pop() == len(A.layers.layers)
        assert [output.path for output in found] == [output.path for output in fresh]
        assert all(np.array_equal(x.value, y.value) for x, y in zip(found, fresh, strict=True))


def test_small_models_are_tried_on_the_numpy_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    whole = runs.compiled_for

    def noted(model: Model, engine: str) -> Any:
        ran.append(engine)
        return whole(model, engine)

    monkeypatch.setattr(runs, "compiled_for", noted)
    found = diptych.compare(A, UNFLIPPED)
    assert names(found) == ["kernels not flipped"]
    assert found.engine_a == "onnxruntime"
    assert ran[:2] == ["auto", "auto"]
    assert set(ran[2:]) == {"numpy"}


def test_an_engine_that_differs_from_numpy_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = runs.compiled_for
    a, b = seeing(), seeing()

    class Wrong:
        def trace(self, batch: Array) -> Any:
            return {path: value + 1 for path, value in whole(b, "numpy").trace(batch).items()}

    monkeypatch.setattr(
        runs, "compiled_for", lambda m, engine: Wrong() if m is b and engine == "auto" else whole(m, "numpy")
    )
    found = diptych.compare(a, b)
    assert not found.agrees


def test_pairs_of_causes_are_tried_for_a_while_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    b = changed(A, 1, weight=flip_kernel(weight(A, 1)), bias=None)
    assert len(compare(A, b).causes) == 2
    monkeypatch.setattr(diagnosis, "TIME_LIMIT", -1.0)
    found = compare(A, b)
    assert found.causes == ()
    assert "not all pairs" in found.diagnosis


def test_what_nothing_explains_is_not_tried_for_ever() -> None:
    weight_of_7 = weight(A, 7) + numbers(8, 8, seed=77)
    found = compare(A, changed(A, 7, weight=weight_of_7))
    assert not found.agrees
    assert found.causes == ()


def test_small_outputs_of_a_sigmoid_agree_on_two_engines() -> None:
    """ONNX Runtime's sigmoid is right to 6e-8, which is much of an output of 1e-5."""
    weight = np.array([[0.3, -0.2], [0.1, 0.4], [-0.5, 0.2]], np.float32)
    layers = Chain((Dense(weight, np.full(3, -11, np.float32), Activation("sigmoid")),))
    x = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
    same = diptych.compare(Model(layers), Model(layers), x, engine_a="numpy", engine_b="onnxruntime")
    assert same.agrees
    other = Model(Chain((Dense(weight, np.full(3, -10.9, np.float32), Activation("sigmoid")),)))
    assert not diptych.compare(Model(layers), other, x).agrees
