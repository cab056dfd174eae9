"""Exported ONNX files: standard, exact, free in batch and, where no layer fixes it, in size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from diptych import engines, formats
from diptych.errors import ModelError, ShapeError, UnsupportedLayer
from diptych.formats.onnx import to_onnx, to_skeleton
from diptych.formats.onnx.activations import ACTIVATION_RULES
from diptych.formats.onnx.layers import LAYER_RULES
from diptych.model import architectures
from diptych.model.layers import (
    ACTIVATIONS,
    LAYERS,
    Activation,
    AdaptiveMeanPool,
    Array,
    BatchNorm,
    Chain,
    Connection,
    Container,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    GlobalMeanPool,
    GroupNorm,
    LayerNorm,
    MaxPool,
    MeanPool,
    Pad,
    PixelShuffle,
    Scale,
    SkipConnection,
    Upsample,
)
from diptych.model.model import Model
from layer_cases import TABLE, Weights, case

PADS = ((1, 1), (1, 1))


def session(graph: Any) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 2  # a warning of the runtime would be seen in the test's output
    options.intra_op_num_threads = 1
    content = graph if isinstance(graph, str) else graph.SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(graph: Any, batch: Array) -> list[Array]:
    outputs: list[Array] = session(graph).run(None, {"input": batch})
    return outputs


def agree(found: Array, expected: Array, relative: float = 1e-5) -> bool:
    """Value by value, infinities and NaN in the same places."""
    if found.shape != expected.shape:
        return False
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1e-6)
    return np.allclose(found, expected, rtol=relative, atol=relative * scale, equal_nan=True)


def axes(value: Any) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("name", TABLE)
def test_every_layer_is_standard_and_exact(name: str, tmp_path: Path) -> None:
    model, batch = case(name)
    formats.write(model, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in proto.graph.node} == {""}
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 19)]
    reference = engines.compile(model, "numpy")
    for x in (batch, batch[:1], np.concatenate([batch, batch[::-1], batch])):
        assert agree(run(str(tmp_path / "m.onnx"), x)[0], reference(x))


@pytest.mark.parametrize("name", [n for n in TABLE if not n.startswith("activation")])
def test_every_layer_can_be_looked_at(name: str) -> None:
    model, batch = case(name)
    expected = engines.compile(model, "numpy").trace(batch)
    proto = to_onnx(model, every_layer=True)
    assert [value.name for value in proto.graph.output] == list(expected)
    if expected:
        onnx.checker.check_model(proto, full_check=True)
        for found, path in zip(run(proto, batch), expected, strict=True):
            assert agree(found, expected[path])


def test_no_layer_and_no_activation_is_forgotten() -> None:
    assert {*LAYER_RULES, Connection} == {kind for kind in LAYERS.values() if not issubclass(kind, Container)}
    assert ACTIVATION_RULES.keys() == ACTIVATIONS.keys()


def free_models() -> dict[str, tuple[Chain, int]]:
    w = Weights(0)
    conv = lambda i, o: Conv(w(o, i, 3, 3), w(o), padding=PADS)  # noqa: E731
    unet = SkipConnection(
        Chain((MaxPool((2, 2)), conv(4, 4), Upsample((2.0, 2.0)))), Connection("concatenate")
    )
    return {
        "filters": (Chain((conv(3, 4), Activation("relu"), conv(4, 3))), 1),
        "norms": (
            Chain((conv(3, 4), BatchNorm(w(4), w(4), w(4), w.positive(4)), GroupNorm(2, w(4), w(4)))),
            1,
        ),
        "u-net": (Chain((conv(3, 4), unet, conv(8, 3))), 2),
        "up and down": (Chain((ConvTranspose(w(3, 4, 2, 2), stride=(2, 2)), PixelShuffle(2))), 1),
        "corners": (Chain((Upsample((2.0, 3.0), mode="linear", align_corners=True),)), 1),
        "edges": (Chain((Pad(PADS, "reflect"), Pad(PADS, "wrap"), Conv(w(2, 3, 5, 5)))), 1),
        "classifier": (Chain((conv(3, 8), GlobalMeanPool(), Flatten(), Dense(w(5, 8)))), 1),
    }


@pytest.mark.parametrize("name", free_models())
@pytest.mark.parametrize("recorded", [(3, 8, 10), (3, None, None)])
def test_a_model_that_fixes_no_size_takes_any(name: str, recorded: tuple[int | None, ...]) -> None:
    layers, multiple = free_models()[name]
    model = Model(layers, input_shape=recorded)
    proto = to_onnx(model)
    onnx.checker.check_model(proto, full_check=True)
    assert axes(proto.graph.input[0]) == ["N", 3, "height", "width"]
    opened = session(proto)
    reference = engines.compile(model, "numpy")
    for height, width in ((8, 10), (9, 7), (16, 6), (5, 31)):
        shape = (2, 3, height * multiple, width * multiple)
        batch = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        assert agree(opened.run(None, {"input": batch})[0], reference(batch))


@pytest.mark.parametrize(
    "layers",
    [
        (Flatten(), Dense(np.ones((2, 240), np.float32))),
        (Dense(np.ones((2, 10), np.float32)),),
        (LayerNorm((8, 10)),),
        (AdaptiveMeanPool((3, 3)),),
        (Upsample((1.5, 1.5)),),
    ],
)
def test_a_layer_that_fixes_the_size_is_written_with_it(layers: tuple[Any, ...]) -> None:
    model = Model(Chain(layers), input_shape=(3, 8, 10))
    assert axes(to_onnx(model).graph.input[0]) == ["N", 3, 8, 10]


def test_the_input_is_found_where_the_model_does_not_record_it() -> None:
    unknown = architectures.named("three-conv-224").with_(input_shape=None, preprocessing=None)
    assert axes(to_onnx(unknown).graph.input[0]) == ["N", 1, 224, 224]
    volume = Model(Chain((MaxPool((2, 2, 2)), Conv(Weights(0)(2, 3, 1, 1, 1)))))
    assert axes(to_onnx(volume).graph.input[0]) == ["N", 3, "depth", "height", "width"]
    dense = Model(Chain((Activation("tanh"), Dense(Weights(0)(2, 7)))))
    assert axes(to_onnx(dense).graph.input[0]) == ["N", 7]
    with pytest.raises(ModelError, match="name it with --shape"):
        to_onnx(Model(Chain((Activation("relu"),))))
    impossible = Chain((Conv(Weights(0)(2, 3, 1, 1)), Flatten(), Dense(Weights(0)(2, 7))))
    with pytest.raises(ModelError, match="no square shape was found that fits: name it with --shape"):
        to_onnx(Model(impossible))


def test_a_file_says_what_others_need(tmp_path: Path) -> None:
    model = architectures.named("small-cnn-32")
    model = model.with_(classes=tuple(f"class {i}" for i in range(len(model.classes or range(10)))))
    formats.write(model, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    assert json.loads({p.key: p.value for p in proto.metadata_props}["classes"]) == list(model.classes or ())
    assert [v.name for v in proto.graph.input] == ["input"]
    assert [v.name for v in proto.graph.output] == ["output"]
    assert {t.name for t in proto.graph.initializer} >= {"0.weight", "0.bias"}
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in proto.graph.initializer)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def huge() -> Model:
    weight = np.broadcast_to(np.float32(0), (2**15, 2**15))  # 4 GiB that take four bytes
    return Model(Chain((Dense(weight),)), input_shape=(2**15,))


def test_more_weights_than_one_file_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedLayer, match=r"4\.0 GiB of weights.*use \.safetensors"):
        to_onnx(huge())
    with pytest.raises(UnsupportedLayer, match=r"2 GiB"):
        formats.write(huge(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    graph, arrays = to_skeleton(huge())
    assert len(graph) < 2000
    assert arrays["0.weight"].nbytes == 2**32


@pytest.mark.parametrize("kind", [MaxPool, MeanPool])
def test_a_pool_may_be_padded_by_its_whole_kernel(kind: type[MaxPool | MeanPool]) -> None:
    layers = Chain((kind((2, 3), stride=(1, 2), padding=((2, 1), (0, 3))),))
    model = Model(layers, input_shape=(2, 5, 6))
    batch = Weights(0)(2, 2, 5, 6)
    expected = engines.compile(model, "numpy")(batch)
    (found,) = run(to_onnx(model), batch)
    assert np.array_equal(np.isinf(found), np.isinf(expected))
    finite = np.isfinite(expected)
    assert agree(found[finite], expected[finite])


def test_windows_of_nothing_but_padding_have_no_mean() -> None:
    pool = Chain((MeanPool((1, 1), padding=((1, 0), (0, 0)), count_padding=False),))
    with pytest.raises(UnsupportedLayer, match=r"layer 0 \(MeanPool\)"):
        to_onnx(Model(pool, input_shape=(1, 4, 4)))


def neighbours() -> list[Any]:
    """Layers that optimisers like to merge with the one before or after."""
    w = Weights(0)
    return [
        MaxPool((2, 2)),
        MaxPool((3, 3), (1, 1), PADS),
        MeanPool((2, 2)),
        MeanPool((3, 3), (1, 1), PADS, count_padding=False),
        MeanPool((3, 3), (1, 1), PADS),
        Conv(w(4, 4, 3, 3), w(4), padding=PADS),
        ConvTranspose(w(4, 4, 3, 3), w(4), padding=PADS),
        BatchNorm(w(4), w(4), w(4), w.positive(4)),
        Scale(w(4, 1, 1), w(4, 1, 1)),
        Pad(PADS),
        Pad(((3, 2), (2, 3))),
        Pad(PADS, "reflect"),
        Upsample((2.0, 2.0)),
        SkipConnection(Conv(w(4, 4, 1, 1), w(4)), Connection("add")),
        *(Activation(name) for name in ("relu", "clamp", "leakyrelu", "hardswish", "gelu_tanh", "swish")),
    ]


@pytest.mark.parametrize("first", range(len(neighbours())))
def test_two_layers_in_a_row_are_not_merged_wrongly(first: int) -> None:
    batch = Weights(1)(2, 4, 9, 10) - 1  # mostly below zero: a padded 0 that should not be there shows
    layers = neighbours()
    for second in layers:
        model = Model(Chain((layers[first], second)), input_shape=(4, 9, 10))
        expected = engines.compile(model, "numpy")(batch)
        assert agree(engines.compile(model, "onnxruntime")(batch), expected)


# ---- The engine that runs the same graph --------------------------------------------------------------


def test_the_engine_takes_any_array_and_any_size_the_model_takes() -> None:
    model = Model(Chain((Pad(PADS, "reflect"), AdaptiveMeanPool((2, 3)))), input_shape=(3, 8, 9))
    ours, reference = engines.compile(model, "onnxruntime"), engines.compile(model, "numpy")
    whole = np.random.default_rng(0).standard_normal((4, 3, 16, 20))
    for batch in (whole, whole[::2, :, ::2], whole[:, :, 1:9, 2:11].astype(np.float32), whole[:1] > 0):
        found = ours(batch)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        assert agree(found, reference(batch.astype(np.float32)))
    with pytest.raises(ShapeError, match="layer 0"):
        ours(np.zeros((1, 3, 4), np.float32))


def test_the_engine_needs_no_recorded_shape() -> None:
    model = Model(Chain((Activation("tanh"), Activation("relu"))))
    compiled = engines.compile(model, "onnxruntime")
    for shape in ((2, 3), (1, 2, 5), (2, 1, 4, 3), (1, 1, 2, 3, 4)):
        batch = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        assert agree(compiled(batch), np.maximum(np.tanh(batch), 0))
        assert list(compiled.trace(batch)) == ["0", "1"]


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_weights_read_from_a_file_run_without_a_copy(suffix: str, tmp_path: Path) -> None:
    w = Weights(0)
    # Lengths that leave the arrays of the file at odd places in memory.
    layers = Chain((Conv(w(5, 3, 3, 3), w(5)), Conv(w(7, 5, 1, 3), w(7)), Flatten(), Dense(w(3, 84), w(3))))
    model = Model(layers, input_shape=(3, 8, 6))
    formats.write(model, tmp_path / f"m{suffix}")
    batch = w(2, 3, 8, 6)
    expected = engines.compile(model, "numpy")(batch)
    compiled = engines.compile(formats.read(tmp_path / f"m{suffix}"), "onnxruntime")
    for _ in range(3):
        assert agree(compiled(batch), expected)


@pytest.mark.parametrize("dtype", ["<f2", "<f8", ">f4"])
def test_other_float_types_run_as_float32(dtype: str, tmp_path: Path) -> None:
    weight = Weights(0)(4, 3, 3, 3).astype(dtype)
    model = Model(
        Chain((Conv(weight, weight[:, 0, 0, 0]), Conv(Weights(1)(2, 4, 1, 1)))), input_shape=(3, 6, 5)
    )
    batch = Weights(2)(2, 3, 6, 5)
    expected = engines.compile(model, "numpy")(batch)
    assert agree(engines.compile(model, "onnxruntime")(batch), expected)
    formats.write(model, tmp_path / "m.onnx")
    assert agree(run(str(tmp_path / "m.onnx"), batch)[0], expected)


@pytest.mark.parametrize("recorded", [(1, 4, 4), None])
def test_auto_falls_through_what_onnx_cannot_say(recorded: tuple[int, ...] | None) -> None:
    pool = MeanPool((1, 1), padding=((1, 0), (0, 0)), count_padding=False)
    model = Model(Chain((Conv(Weights(0)(1, 1, 1, 1)), pool)), input_shape=recorded)
    with pytest.raises(UnsupportedLayer, match="ONNX"):
        engines.compile(model, "onnxruntime")
    assert engines.compile(model, "auto").engine != "onnxruntime"
