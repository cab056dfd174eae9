"""An ONNX graph that no layers express is run as a whole: everything works that does not need layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import diptych
from diptych.errors import FormatError, ShapeError, UnsupportedLayer, UsageError

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
DENSE = RNG.normal(size=(4, 5)).astype(np.float32)


def graph(size: Any = 16, batch: Any = "N", operation: str = "TopK", **changes: Any) -> onnx.ModelProto:
    """A convolution, sorted rows, which no layer computes, and a classifier of five classes."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("TopK", ["relu", "width"], ["sorted", "places"]) if operation == "TopK"
        else helper.make_node(operation, ["relu"], ["sorted"], **changes),
        helper.make_node("GlobalAveragePool", ["sorted"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "d"], ["y"]),
    ]  # fmt: skip
    weights = {"w": WEIGHT, "d": DENSE, "width": np.array([size or 8], np.int64)}
    proto = helper.make_graph(
        nodes, "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(folder: Path, **changes: Any) -> Path:
    path = folder / "graph.onnx"
    onnx.save(graph(**changes), path)
    return path


def expected(path: Path, batch: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    return np.concatenate([session.run(None, {"x": one[np.newaxis]})[0] for one in batch])


@pytest.fixture
def batch() -> np.ndarray:
    return np.random.default_rng(1).random((3, 3, 16, 16), dtype=np.float32)


@pytest.mark.parametrize("first", ["N", 1])
def test_predictions_are_those_of_onnx_runtime(tmp_path: Path, batch: np.ndarray, first: Any) -> None:
    path = saved(tmp_path, batch=first)
    model = diptych.load_model(path)
    assert np.allclose(diptych.predict(model, batch), expected(path, batch), rtol=1e-5)
    assert "run as a whole" in diptych.inspect(model).text()
    assert any("TopK" in warning for warning in model.source.warnings)


def test_a_trace_names_the_values_inside(tmp_path: Path, batch: np.ndarray) -> None:
    trace = diptych.trace(saved(tmp_path), batch)
    assert list(trace) == ["0/conv", "0/relu", "0/sorted", "0/pooled", "0/flat", "0"]
    assert np.array_equal(trace["0/relu"], np.maximum(trace["0/conv"], 0))
    assert np.array_equal(trace["0/sorted"], -np.sort(-trace["0/relu"], axis=3))
    assert np.array_equal(trace.output, diptych.predict(tmp_path / "graph.onnx", batch))


def test_a_free_size_is_chosen_and_said(tmp_path: Path) -> None:
    model = diptych.load_model(saved(tmp_path, size=None))
    assert model.input_shape == (3, 224, 224)
    assert any("leaves its input's size free" in warning for warning in model.source.warnings)
    with pytest.raises(ShapeError, match=r"takes \(3, 224, 224\)"):
        diptych.predict(model, np.zeros((1, 3, 32, 32), np.float32))


def test_every_verb_but_converting(diptych_command: Any, tmp_path: Path) -> None:
    path, photograph = saved(tmp_path), tmp_path / "a.png"
    Image.fromarray(RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(photograph)
    recipe = ("--preprocessing", "colour-16")
    done = diptych_command("predict", path, photograph, *recipe, "--json")
    assert done.status == 0, done.err
    assert len(json.loads(done.out)["predictions"][0]["scores"]) == 5
    done = diptych_command(
        "features", path, photograph, *recipe, "--layers", "0/relu,0/sorted", "-o", tmp_path / "maps"
    )
    assert done.status == 0, done.err
    assert {one.name for one in (tmp_path / "maps").glob("*.png")} == {
        "layer_0-relu_feature_maps.png", "layer_0-sorted_feature_maps.png",
    }  # fmt: skip
    for verb in (
        ("run", "--images", photograph, "--model", path, *recipe, "--maps", "all", "--out", tmp_path / "out"),
        ("compare", path, path, "--images", photograph, *recipe),
        ("inspect", path),
        ("predict", path, photograph, *recipe, "--out", tmp_path / "table"),
        ("predict", path, photograph, *recipe, "--softmax"),
        ("explain", path, photograph, *recipe, "--method", "occlusion", "--out", tmp_path / "explained"),
    ):
        done = diptych_command(*verb)
        assert done.status in (0, 1), done.err
        assert "Traceback" not in done.err
        assert done.status == 0 or verb[0] == "explain", done.err


@pytest.mark.parametrize("target", ["a.bson", "a.jld2", "a.pt", "a.safetensors", "project"])
def test_what_needs_layers_is_refused_with_every_obstacle(tmp_path: Path, target: str) -> None:
    path = saved(tmp_path)
    with pytest.raises(UnsupportedLayer, match=r"no chain of layers: .*TopK"):
        diptych.convert(path, tmp_path / target)
    assert not (tmp_path / target).exists()


@pytest.mark.parametrize("engine", ["numpy", "torch", "openvino"])
def test_other_engines_refuse_it(tmp_path: Path, batch: np.ndarray, engine: str) -> None:
    pytest.importorskip({"numpy": "numpy"}.get(engine, engine))
    with pytest.raises(UnsupportedLayer, match="TopK"):
        diptych.predict(saved(tmp_path), batch, engine=engine)


def test_a_copy_keeps_the_recipe_and_the_classes(tmp_path: Path, batch: np.ndarray) -> None:
    path, copy = saved(tmp_path), tmp_path / "copy.onnx"
    diptych.convert(path, copy, classes=list("abcde"), preprocessing="colour-16")
    model = diptych.load_model(copy)
    assert model.classes == tuple("abcde")
    assert model.preprocessing is not None
    assert np.array_equal(diptych.predict(model, batch), diptych.predict(path, batch))
    with pytest.raises(UnsupportedLayer, match="TopK"):
        diptych.convert(copy, tmp_path / "a.bson")


def test_weights_in_another_file(tmp_path: Path, batch: np.ndarray) -> None:
    path = tmp_path / "apart.onnx"
    onnx.save(graph(), path, save_as_external_data=True, location="weights.bin", size_threshold=64)
    assert np.allclose(diptych.predict(path, batch), expected(path, batch), rtol=1e-5)


def several(proto: onnx.ModelProto) -> onnx.ModelProto:
    proto.graph.output.append(helper.make_tensor_value_info("relu", TensorProto.FLOAT, ["N", 4, 16, 16]))
    return proto


def test_one_of_several_outputs(tmp_path: Path, batch: np.ndarray) -> None:
    path = tmp_path / "graph.onnx"
    onnx.save(several(graph()), path)
    with pytest.raises(UnsupportedLayer, match="choose one with --output: y, relu"):
        diptych.load_model(path)
    assert diptych.predict(diptych.load_model(path, output="y"), batch).shape == (3, 5)
    with pytest.raises(UsageError, match="no output 'z'"):
        diptych.load_model(path, output="z")


def looping() -> onnx.ModelProto:
    proto = graph()
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["v"], ["w"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v", TensorProto.FLOAT, ["N", 5])],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, []),
         helper.make_tensor_value_info("w", TensorProto.FLOAT, ["N", 5])],
    )  # fmt: skip
    proto.graph.initializer.append(numpy_helper.from_array(np.array(2**60, np.int64), "times"))
    proto.graph.node.append(helper.make_node("Loop", ["times", "", "y"], ["z"], body=body))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 5]))
    return proto


def huge() -> onnx.ModelProto:
    proto = graph()
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 4, 2**15, 2**15], np.int64), "huge"))
    proto.graph.node.insert(3, helper.make_node("Expand", ["pooled_first", "huge"], ["expanded"]))
    proto.graph.node.insert(3, helper.make_node("GlobalMaxPool", ["sorted"], ["pooled_first"]))
    proto.graph.node[5].input[0] = "expanded"
    return proto


def without_batch() -> onnx.ModelProto:
    proto = graph()
    proto.graph.node.append(helper.make_node("ReduceSum", ["y"], ["z"], keepdims=0))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, []))
    return proto


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: graph(batch=4), "not a batch of any size"),
        (looping, "it loops \\(Loop\\)"),
        (huge, "would have the shape"),
        (without_batch, "without a batch axis"),
        (lambda: graph(operation="NoSuchOperation"), "nor can it be run as a whole"),
    ],
    ids=["batch of four", "loop", "huge", "no batch", "unknown"],
)
def test_what_cannot_be_run_either(tmp_path: Path, made: Any, words: str) -> None:
    onnx.save(made(), tmp_path / "graph.onnx")
    with pytest.raises(UnsupportedLayer, match=words):
        diptych.load_model(tmp_path / "graph.onnx")


def with_last(*nodes: Any, **weights: np.ndarray) -> onnx.ModelProto:
    """The graph with more operations behind it, from "y" to "z"."""
    proto = graph()
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend([numpy_helper.from_array(array, name) for name, array in weights.items()])
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 5]))
    return proto


MIXING = {
    "softmax over the batch": lambda: with_last(helper.make_node("Softmax", ["y"], ["z"], axis=0)),
    "minus the mean of the batch": lambda: with_last(
        helper.make_node("ReduceMean", ["y"], ["m"], axes=[0]), helper.make_node("Sub", ["y", "m"], ["z"])
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXING)
def test_a_graph_that_mixes_samples_is_refused(tmp_path: Path, batch: np.ndarray, name: str) -> None:
    onnx.save(MIXING[name](), tmp_path / "graph.onnx")
    with pytest.raises(UnsupportedLayer, match="mixes the samples of a batch"):
        diptych.predict(tmp_path / "graph.onnx", batch)


def test_a_graph_that_answers_by_chance_is_refused(tmp_path: Path, batch: np.ndarray) -> None:
    made = with_last(
        helper.make_node("Dropout", ["y", "half", "yes"], ["z"]),
        half=np.array(0.5, np.float32),
        yes=np.array(True),
    )
    onnx.save(made, tmp_path / "graph.onnx")
    with pytest.raises(UnsupportedLayer, match="another answer each time"):
        diptych.predict(tmp_path / "graph.onnx", batch)


def test_probabilities_are_called_so(tmp_path: Path) -> None:
    onnx.save(with_last(helper.make_node("Softmax", ["y"], ["z"])), tmp_path / "graph.onnx")
    assert diptych.load_model(tmp_path / "graph.onnx").gives_probabilities
    assert not diptych.load_model(saved(tmp_path)).gives_probabilities


def test_a_copy_whose_weights_were_changed_does_not_verify(tmp_path: Path) -> None:
    path = tmp_path / "copy.onnx"
    diptych.convert(saved(tmp_path), path)
    assert diptych.verify(path).passed
    proto = onnx.load(path)
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "d")
    weight.CopyFrom(numpy_helper.from_array(-DENSE, "d"))
    onnx.save(proto, path)
    assert not diptych.verify(path).passed


def test_an_explanation_says_that_it_was_not_checked(tmp_path: Path) -> None:
    path = saved(tmp_path)
    found = diptych.explain(path, RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8), method="occlusion",
                            preprocessing="colour-16")  # fmt: skip
    assert found.randomised is None
    assert any("was not checked" in remark for remark in found.remarks)


def test_layers_that_depend_on_a_free_size_are_not_fixed_in_silence(tmp_path: Path) -> None:
    proto = graph(size=None, operation="Identity")
    proto.graph.node[2].CopyFrom(helper.make_node("CumSum", ["relu", "axis"], ["sorted"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(3, np.int64), "axis"))
    onnx.save(proto, tmp_path / "graph.onnx")
    with pytest.raises(FormatError, match="depend on the size of the picture"):
        diptych.load_model(tmp_path / "graph.onnx")


def test_a_damaged_note_of_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "copy.onnx"
    diptych.convert(saved(tmp_path), path, certificate=False)
    proto = onnx.load(path)
    for text in ("", "[]", '{"output": 1}', '{"output": "y", "obstacles": [], "classes": 3}'):
        helper.set_model_props(proto, {"diptych.whole": text})
        onnx.save(proto, path)
        with pytest.raises(FormatError, match=r"diptych\.whole is damaged"):
            diptych.load_model(path)
