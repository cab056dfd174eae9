"""Two models side by side: nothing planted, nothing found; each known cause planted, and named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diptych
from browser import TIMEOUT, chromium
from diptych.axes import flip_kernel, swap_spatial
from diptych.comparing import diagnosis, sides
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
    Layer,
    MaxPool,
    MeanPool,
    Normalise,
    Pad,
    Parallel,
    SkipConnection,
    Upsample,
)
from diptych.model.model import Model
from diptych.preprocessing import (
    Colour,
    Preprocessing,
    Resize,
    Scale,
)
from diptych.report.comparison import render_comparison, write_comparison
from little_models import (
    RECIPE,
    RELU,
    changed,
    classifier,
    compare,
    everywhere,
    model,
    names,
    numbers,
    pictures,
    seeing,
    weight,
    without,
)

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


# ---- Each cause in the weights and layers, planted ------------------------------------------------------

A = classifier()
HALF = np.float16


def _flatten_order(order: tuple[int, ...]) -> Model:
    columns = weight(A, 6).reshape(8, 4, 5, 7).transpose(0, *(1 + axis for axis in order))
    return changed(A, 6, weight=np.ascontiguousarray(columns.reshape(8, -1)))


def _halves(layer: Any) -> Layer:
    return replace(layer, **{n: v.astype(np.float16).astype(np.float32) for n, v in layer.arrays.items()})


def _shorts(layer: Any) -> Layer:
    """Every weight with the upper 16 of its 32 bits, rounded: what bfloat16 keeps."""
    import torch

    kept = {n: torch.from_numpy(v).bfloat16().float().numpy() for n, v in layer.arrays.items()}
    return replace(layer, **kept)


PLANTED: dict[str, tuple[Model, str, str]] = {
    # what is planted: (the model, the cause to be named, the layer where it shows)
    "every kernel unflipped": (
        everywhere(A, Conv, lambda c: replace(c, weight=flip_kernel(c.weight))), "kernels not flipped", "0"),
    "one kernel unflipped": (changed(A, 1, weight=flip_kernel(weight(A, 1))), "kernels not flipped", "1"),
    "kernels transposed": (
        everywhere(A, Conv, lambda c: replace(c, weight=swap_spatial(c.weight))),
        "spatial axes of kernels swapped", "0"),
    "kernels reshaped from Julia": (
        changed(A, 1, weight=flip_kernel(swap_spatial(weight(A, 1)))),
        "kernels not flipped and their spatial axes swapped", "1"),
    "channels of a kernel": (
        changed(A, 1, weight=np.ascontiguousarray(weight(A, 1).swapaxes(0, 1))),
        "input and output channels of kernels swapped", "1"),
    "flattened as W, H, C": (_flatten_order((2, 1, 0)), "dense weights in another flatten order", "6"),
    "flattened as H, W, C": (_flatten_order((1, 2, 0)), "dense weights in another flatten order", "6"),
    "flattened as C, W, H": (_flatten_order((0, 2, 1)), "dense weights in another flatten order", "6"),
    "dense transposed": (
        changed(A, 7, weight=np.ascontiguousarray(weight(A, 7).T)), "dense weights transposed", "7"),
    "bias lost": (changed(A, 1, bias=None), "bias missing", "1"),
    "bias of zeros": (changed(A, 7, bias=np.zeros(8, np.float32)), "bias missing", "7"),
    "training mode": (changed(A, 2, mean=None, variance=None), "BatchNorm in training mode", "2"),
    "standard deviation": (
        changed(A, 2, variance=np.sqrt(A.layers.layers[2].variance)), "variance taken for standard deviation", "2"),
    "squared variance": (
        changed(A, 2, variance=A.layers.layers[2].variance**2), "variance taken for standard deviation", "2"),
    "scale for shift": (
        changed(A, 2, scale=A.layers.layers[2].shift, shift=A.layers.layers[2].scale), "scale and shift swapped", "2"),
    "epsilon": (changed(A, 2, epsilon=1e-3), "another epsilon in the normalisation", "2"),
    "LayerNorm's formula": (changed(A, 8, formula="std + eps"), "another formula of LayerNorm or normalise", "8"),
    "float16": (everywhere(A, Layer, _halves), "float16 rounding", "0"),
    "bfloat16": (everywhere(A, Layer, _shorts), "bfloat16 rounding", "0"),
    "BatchNorm lost": (without(A, 2), "normalisation missing", "2"),
    "softmax lost": (without(A, 10), "softmax missing", "10"),
    "softmax over the batch": (changed(A, 10, axis=0), "softmax on the wrong axis", "10"),
    "logsoftmax": (changed(A, 10, log=True), "softmax or its logarithm", "10"),
    "activation in the layer lost": (
        changed(A, 0, activation=Activation()), "activation missing or different", "0"),
    "activation layer lost": (without(A, 3), "activation missing or different", "3"),
    "another activation layer": (changed(A, 3, name="softplus"), "activation missing or different", "3"),
    "padding on the other side": (
        changed(A, 0, padding=((0, 2), (2, 0))), "another padding", "0"),
    "statistics lost": (
        changed(A, 2, mean=np.zeros(4, np.float32), variance=np.ones(4, np.float32)),
        "statistics of the normalisation lost", "2"),
    "bias negated": (changed(A, 1, bias=-A.layers.layers[1].bias), "bias negated", "1"),
    "mean for max": (
        A.with_(layers=Chain((*A.layers.layers[:4], MeanPool((2, 2)), *A.layers.layers[5:]))),
        "another pool", "4"),
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_cause_is_named(planted: str) -> None:
    b, cause, where = PLANTED[planted]
    found = compare(A, b)
    assert not found.agrees
    assert names(found) == [cause]
    assert found.explained
    assert found.first_divergence == where
    assert cause in found.diagnosis
    assert "Then every layer agrees." in found.diagnosis


@pytest.mark.parametrize(
    "planted",
    [
        "softmax lost",
        "activation layer lost",
        "bias lost",
        "training mode",
        "epsilon",
        "standard deviation",
        "statistics lost",
    ],
)
def test_the_sides_may_be_exchanged(planted: str) -> None:
    b, cause, _ = PLANTED[planted]
    assert names(compare(b, A)) == [cause]


def _upsampled(**fields: Any) -> Model:
    return model(Conv(numbers(2, 3, 3, 3)), Upsample(scale=(2.0, 2.0), **fields), input_shape=(3, 6, 9))


def _joined(operation: Any) -> Model:
    inner = Conv(numbers(3, 3, 3, 3), padding=((1, 1), (1, 1)))
    return model(SkipConnection(inner, Connection(operation)), RELU, input_shape=(3, 6, 9))


def _padded(mode: Any) -> Model:
    return model(Pad(((1, 1), (1, 1)), mode), Conv(numbers(2, 3, 3, 3)), input_shape=(3, 6, 9))


def _apart(pads: Any = None, mode: Any = "zero") -> Model:
    """Two convolutions: the second pads by itself, or a layer before it does."""
    second = Conv(
        numbers(2, 2, 3, 3), numbers(2), padding=((0, 0),) * 2 if pads else ((1, 1),) * 2, activation=RELU
    )
    first = Conv(numbers(2, 3, 3, 3), activation=RELU)
    return model(*((first, Pad(pads, mode), second) if pads else (first, second)), input_shape=(3, 6, 9))


def _normalised(formula: Any = "sqrt(var + eps)") -> Model:
    return model(Conv(numbers(2, 3, 3, 3)), Normalise(1, 0.1, formula), input_shape=(3, 6, 9))


def _activated(name: str, *parameters: float) -> Model:
    return model(Conv(numbers(2, 3, 3, 3), activation=Activation(name, parameters)), input_shape=(3, 6, 9))


@pytest.mark.parametrize(
    ("a", "b", "cause"),
    [
        (_upsampled(mode="linear"), _upsampled(mode="linear", align_corners=True), "corners aligned"),
        (_upsampled(mode="linear"), _upsampled(mode="nearest"), "another way of enlarging"),
        (_padded("reflect"), _padded("replicate"), "another way of enlarging or of padding"),
        (_apart(((0, 2), (0, 2))), _apart(), "another padding beside a layer that pads"),
        (_apart(), _apart(((0, 2), (0, 2))), "another padding beside a layer that pads"),
        (_apart(((1, 1), (1, 1)), "reflect"), _apart(), "another padding beside a layer that pads"),
        (_apart(), _apart(((1, 1), (1, 1)), "reflect"), "another padding beside a layer that pads"),
        (_normalised(), _normalised("std + eps"), "another formula of LayerNorm or normalise"),
        (_joined("add"), _joined("subtract"), "branches joined differently"),
        (_activated("gelu_tanh"), _activated("gelu_erf"), "gelu by another formula"),
        (_activated("leakyrelu", 0.01), _activated("leakyrelu", 0.2), "another slope of leakyrelu"),
        (
            model(MeanPool((3, 3), (2, 2), ((1, 1), (1, 1))), input_shape=(3, 6, 9)),
            model(MeanPool((3, 3), (2, 2), ((1, 1), (1, 1)), count_padding=False), input_shape=(3, 6, 9)),
            "padding counted in the mean",
        ),
        (
            model(Conv(numbers(2, 3, 2, 2)), input_shape=(3, 6, 9)),
            model(Conv(numbers(2, 3, 2, 2), stride=(2, 1)), input_shape=(3, 6, 9)),
            "another stride or dilation",
        ),
    ],
)
def test_a_planted_setting_is_named(a: Model, b: Model, cause: str) -> None:
    found = compare(a, b)
    assert len(found.causes) == 1
    assert cause in found.diagnosis
    assert found.explained


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


# ---- Several causes -----------------------------------------------------------------------------------


def test_two_causes_in_two_layers_are_both_found() -> None:
    b = changed(
        changed(A, 1, weight=flip_kernel(weight(A, 1))), 6, weight=weight(_flatten_order((2, 1, 0)), 6)
    )
    found = compare(A, b)
    assert names(found) == ["kernels not flipped", "dense weights in another flatten order"]
    assert found.explained
    assert found.first_divergence == "1"


def test_two_causes_in_one_layer_are_both_found() -> None:
    found = compare(A, changed(A, 1, weight=flip_kernel(weight(A, 1)), bias=None))
    assert sorted(names(found)) == ["bias missing", "kernels not flipped"]
    assert found.explained


def test_two_settings_of_one_layer_are_both_found() -> None:
    found = compare(A, changed(A, 0, padding=((0, 2), (2, 0)), activation=RELU))
    assert sorted(names(found)) == ["activation missing or different", "another padding"]
    assert found.explained


def test_what_a_cause_leaves_unexplained_is_said() -> None:
    b = changed(A, 1, weight=flip_kernel(weight(A, 1)))
    found = compare(A, changed(b, 9, weight=weight(A, 9) + numbers(5, 8, seed=7)))
    assert names(found) == ["kernels not flipped"]
    assert not found.explained
    assert "That is not all: A and B then part at layer 9" in found.diagnosis


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


# ---- The command line and the page ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    a = A.with_(preprocessing=Preprocessing((Colour(), Resize(12, 16), Scale())))
    b = changed(a, 1, weight=flip_kernel(weight(a, 1)))
    for name, each in (("a", a), ("b", b)):
        diptych.write(each, folder / f"{name}.safetensors")
    return folder / "a.safetensors", folder / "b.safetensors"


def test_the_command_says_where_and_why(
    files: tuple[Path, Path], diptych_command: Any, photographs: Path
) -> None:
    a, b = files
    agreed = diptych_command("compare", a, a, "--images", photographs)
    assert agreed.status == 0
    assert "agree" in agreed.out
    parted = diptych_command("compare", a, b, "--images", photographs, "--engine-b", "numpy")
    assert parted.status == 1
    assert "Likely cause: kernels not flipped" in parted.out
    marked = [line.split()[1] for line in parted.out.splitlines() if line.startswith("->")]
    assert marked == ["1"]
    assert diptych_command("compare", a, "no-such-model").status == 2
    assert diptych_command("compare", a, b, "--tolerance", "-1").status == 2
    assert diptych_command("compare", a).status == 2


def test_the_command_gives_one_json_document(
    files: tuple[Path, Path], diptych_command: Any, photographs: Path
) -> None:
    outcome = diptych_command("compare", *files, "--images", photographs, "--json")
    assert outcome.status == 1
    assert outcome.err == ""
    document = json.loads(outcome.out)
    assert document["agrees"] is False
    assert document["first_divergence"] == "1"
    assert [cause["name"] for cause in document["causes"]] == ["kernels not flipped"]
    assert len(document["layers"]) == 12


def test_the_command_writes_a_page(
    files: tuple[Path, Path], diptych_command: Any, photographs: Path, tmp_path: Path
) -> None:
    page = tmp_path / "comparison.html"
    outcome = diptych_command("compare", *files, "--images", photographs, "--report", page)
    assert outcome.status == 1
    text = page.read_text("utf-8")
    assert "Kernels not flipped" in text
    assert text.count("data:image/png") == 3  # A, B and their difference
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize(
    "pair",
    [
        (A, A),
        (A, PLANTED["softmax over the batch"][0]),
        (seeing(), model(Conv(numbers(7, 3, 5, 5)), GlobalMeanPool())),
        (model(Dense(numbers(300, 7))), model(Dense(numbers(300, 7, seed=3)))),
    ],
)
def test_a_page_is_made_whatever_the_outcome(pair: tuple[Model, Model]) -> None:
    text = render_comparison(compare(*pair))
    assert text.count("<img") >= 2
    assert "</html>" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_in_silence_and_asks_for_nothing(tmp_path: Path, scheme: str) -> None:
    hostile = A.with_(name="<script>window.hacked = 1</script>")
    path = tmp_path / "comparison.html"
    write_comparison(path, compare(hostile, PLANTED["one kernel unflipped"][0]))
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme)
        context.set_default_timeout(TIMEOUT)
        page = context.new_page()
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri(), wait_until="load")
        sizes = page.evaluate(
            "async () => Promise.all([...document.images].map(async i => { await i.decode(); return i.width; }))"
        )
        assert len(sizes) == 3
        assert all(size > 50 for size in sizes)
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("tr.first").count() == 1
        assert page.locator(".verdict").inner_text().endswith("Kernels not flipped")
        assert said == []
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]


# ---- What a try costs ---------------------------------------------------------------------------------


def test_a_try_runs_only_what_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    whole = sides.compiled_for

    def noted(model: Model, engine: str) -> Any:
        ran.append(len(model.layers.layers))
        return whole(model, engine)

    monkeypatch.setattr(sides, "compiled_for", noted)
    side = sides.Side("a", A, "numpy", given=np.random.default_rng(0).random((2, 3, 12, 16), np.float32))
    side.steps()
    changes: dict[int, dict[str, Any]] = {
        0: {"bias": None},
        2: {"epsilon": 1.0},
        6: {"bias": None},
        10: {"log": True},
    }
    for index, fields in changes.items():
        new = changed(A, index, **fields)
        found = side.with_(model=new).steps()
        assert ran.pop() == len(A.layers.layers) - index
        fresh = sides.Side("a", new, "numpy", given=side.given).steps()
        assert ran.pop() == len(A.layers.layers)
        assert [step.path for step in found] == [step.path for step in fresh]
        assert all(np.array_equal(x.value, y.value) for x, y in zip(found, fresh, strict=True))


def test_small_models_are_tried_on_the_numpy_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    whole = sides.compiled_for

    def noted(model: Model, engine: str) -> Any:
        ran.append(engine)
        return whole(model, engine)

    monkeypatch.setattr(sides, "compiled_for", noted)
    found = diptych.compare(A, PLANTED["one kernel unflipped"][0])
    assert names(found) == ["kernels not flipped"]
    assert found.engine_a == "onnxruntime"
    assert ran[:2] == ["auto", "auto"]
    assert set(ran[2:]) == {"numpy"}


def test_an_engine_that_differs_from_numpy_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sides.compiled_for
    a, b = seeing(), seeing()

    class Wrong:
        def trace(self, batch: Array) -> Any:
            return {path: value + 1 for path, value in whole(b, "numpy").trace(batch).items()}

    monkeypatch.setattr(
        sides, "compiled_for", lambda m, engine: Wrong() if m is b and engine == "auto" else whole(m, "numpy")
    )
    found = diptych.compare(a, b)
    assert not found.agrees


def test_pairs_of_causes_are_tried_for_a_while_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    b = changed(A, 1, weight=flip_kernel(weight(A, 1)), bias=None)
    assert len(compare(A, b).causes) == 2
    monkeypatch.setattr(diagnosis, "SECONDS", -1.0)
    found = compare(A, b)
    assert found.causes == ()
    assert "not all pairs" in found.diagnosis


def test_what_nothing_explains_is_not_tried_for_ever() -> None:
    weight_of_7 = weight(A, 7) + numbers(8, 8, seed=77)
    found = compare(A, changed(A, 7, weight=weight_of_7))
    assert not found.agrees
    assert found.causes == ()
