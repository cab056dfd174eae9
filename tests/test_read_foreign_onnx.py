"""ONNX files that Diptych did not write: PyTorch's, made by hand, our own without our document, and hostile ones."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from diptych import formats
from diptych.engines import numpy as reference
from diptych.engines import torch as engine
from diptych.errors import DiptychError, FormatError, UnsupportedLayer, UsageError
from diptych.formats.onnx import to_onnx
from diptych.model.layers import Activation, BatchNorm, Conv, GroupNorm, Layer, Upsample
from diptych.model.model import Model
from distances import apart
from layer_cases import TABLE, case
from torch_zoo import ZOO, network, pictures

pytestmark = pytest.mark.usefixtures("one_thread")


def read(proto: onnx.ModelProto, folder: Path) -> Model:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return formats.read(path)


# ---- Our own graphs, without our document -------------------------------------------------------------


def expressible() -> list[str]:
    names = []
    for name in TABLE:
        with contextlib.suppress(UnsupportedLayer):
            to_onnx(case(name)[0])
            names.append(name)
    return names


@pytest.mark.parametrize("name", expressible())
def test_our_graph_alone_gives_the_same_model(name: str, tmp_path: Path):
    model, batch = case(name)
    back = read(to_onnx(model), tmp_path)
    assert apart(engine.compile(back, "cpu")(batch), engine.compile(model, "cpu")(batch)) <= 1e-5
    names = [type(layer) for _, layer in back.walk()]
    for kind in (BatchNorm, GroupNorm, Upsample):
        if any(type(layer) is kind for _, layer in model.walk()) and "tracked" not in name:
            assert kind in names


# ---- PyTorch's exporter -------------------------------------------------------------------------------


def exported(module: torch.nn.Module, batch: torch.Tensor, opset: int, dynamic: bool) -> onnx.ModelProto:
    """By the exporter that needs no further package."""
    stream = io.BytesIO()
    axes = {"x": {0: "N"}, "y": {0: "N"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (batch,),
            stream,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes=axes,
        )
    return onnx.load_from_string(stream.getvalue())


@pytest.mark.slow
@pytest.mark.parametrize(("opset", "dynamic"), [(11, True), (13, False), (17, True)])
@pytest.mark.parametrize("name", [name for name in ZOO if name != "inception"])
def test_what_pytorch_exports_is_read(name: str, opset: int, dynamic: bool, tmp_path: Path):
    module = network(name)
    # Windows of uneven sizes, as VGG's second picture needs, the exporter refuses.
    for batch in pictures(name)[: 1 if name == "vgg11-bn" else 2]:
        with torch.no_grad():
            expected = module(batch).numpy()
        model = read(exported(module, batch, opset, dynamic), tmp_path)
        assert apart(engine.compile(model, "cpu")(batch.numpy()), expected) <= 2e-5
        assert model.input_shape == batch.shape[1:]
        assert (model.source.format, model.source.framework) == ("ONNX", "pytorch")


class Plain(torch.nn.Module):
    """Functions that the exporter spells out in several operations."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.GroupNorm(2, 6)
        self.layer = torch.nn.LayerNorm((9, 14))
        self.conv = torch.nn.Conv2d(6, 6, 1, padding=2, padding_mode="reflect")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.gelu(self.layer(self.norm(x)))
        x = torch.nn.functional.silu(x) + torch.nn.functional.mish(x)
        return torch.nn.functional.hardswish(self.conv(x).clamp(-1, 1)).mean((2, 3)).softmax(-1)


def test_functions_spelled_out_are_put_together_again(tmp_path: Path):
    module, batch = Plain().eval(), torch.randn(2, 6, 9, 14)
    for opset in (11, 14, 17):
        model = read(exported(module, batch, opset, dynamic=True), tmp_path)
        with torch.no_grad():
            assert apart(engine.compile(model, "cpu")(batch.numpy()), module(batch).numpy()) <= 1e-5
        names = {layer.name for _, layer in model.walk() if isinstance(layer, Activation)}
        assert {"gelu_erf", "swish", "mish", "hardswish"} <= names
        assert any(isinstance(layer, GroupNorm) for _, layer in model.walk())


# ---- Graphs by hand -----------------------------------------------------------------------------------

W = np.random.default_rng(3).standard_normal((4, 3, 3, 2)).astype(np.float32)


def by_hand(
    nodes: list[Any], weights: dict[str, np.ndarray], shape: tuple[Any, ...] = ("N", 3, 7, 8), opset: int = 17
) -> onnx.ModelProto:
    """A graph from "x" to "y"."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    initialisers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "hand", inputs, outputs, initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(operation: str, *inputs: str, to: str = "y", **attributes: Any) -> Any:
    """A node; the attribute "to" of a Cast is `to_type`."""
    if "to_type" in attributes:
        attributes["to"] = attributes.pop("to_type")
    return helper.make_node(operation, inputs, [to], name=f"n_{to}", **attributes)


def same_as_runtime(proto: onnx.ModelProto, folder: Path, shape: tuple[int, ...] = (2, 3, 7, 8)) -> Model:
    model = read(proto, folder)
    batch = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    assert apart(reference.compile(model, "cpu")(batch), session.run(None, {"x": batch})[0]) <= 1e-5
    return model


INTS = {"axes": np.array([2, 3]), "new": np.array([0, -1]), "pads": np.array([0, 0, 1, 0, 0, 0, 2, 3])}
COLUMN = np.float32([[[0.5]], [[2]], [[-1]]])

BY_HAND: dict[str, tuple[list[Any], dict[str, np.ndarray]]] = {
    "same-upper": ([node("Conv", "x", "w", auto_pad="SAME_UPPER", strides=[2, 2])], {"w": W}),
    "same-lower": ([node("Conv", "x", "w", auto_pad="SAME_LOWER")], {"w": W}),
    "conv-bias-later": (
        [node("Conv", "x", "w", to="c"), node("Add", "c", "b")],
        {"w": W, "b": W[None, :, :1, 0, :1]},
    ),
    "scale": ([node("Mul", "x", "s", to="m"), node("Sub", "s", "m")], {"s": COLUMN[None]}),
    "numbers": (
        [node("Sub", "one", "x", to="a"), node("Div", "a", "two", to="b"), node("Pow", "b", "two")],
        {"one": np.float32(1), "two": np.float32(2)},
    ),
    "gemm": (
        [node("Flatten", "x", to="f"), node("Gemm", "f", "w", "b", alpha=0.5, beta=2.0)],
        {"w": np.linspace(-1, 1, 504, dtype=np.float32).reshape(168, 3), "b": np.float32([1])},
    ),
    "matmul-last-axis": (
        [node("MatMul", "x", "w", to="m"), node("Add", "m", "b")],
        {"w": W.reshape(8, 9), "b": W.reshape(-1)[:9]},
    ),
    "mean-and-squeeze": ([node("ReduceMean", "x", to="m", axes=[2, 3]), node("Squeeze", "m", "axes")], INTS),
    "mean-flat": ([node("ReduceMean", "x", axes=[-1, -2], keepdims=0)], {}),
    "pad-edge": ([node("Pad", "x", "pads", mode="edge")], INTS),
    "squeeze-excite": (
        [
            node("GlobalAveragePool", "x", to="g"),
            node("HardSigmoid", "g", to="h", alpha=0.2, beta=0.4),
            node("Mul", "h", "x"),
        ],
        {},
    ),
    "three-branches": (
        [node("Relu", "x", to="a"), node("Tanh", "x", to="b"), node("Sum", "a", "x", "b")],
        {},
    ),
    "maximum": ([node("Neg", "x", to="a"), node("Max", "a", "x")], {}),
    "limits": (
        [node("Max", "x", "low", to="a"), node("Min", "a", "high")],
        {"low": np.float32(-1), "high": np.float32([0.5])},
    ),
    "resize-default": ([node("Resize", "x", "", "s")], {"s": np.float32([1, 1, 2, 3])}),
    "resize-linear": ([node("Resize", "x", "", "s", mode="linear")], {"s": np.float32([1, 1, 2, 1.5])}),
    "same-pool": ([node("AveragePool", "x", kernel_shape=[3, 2], auto_pad="SAME_UPPER", strides=[1, 2])], {}),
    "instance-norm": (
        [node("InstanceNormalization", "x", "s", "b")],
        {"s": COLUMN.reshape(3), "b": COLUMN.reshape(3)},
    ),
    "layer-norm": ([node("LayerNormalization", "x", "s", axis=-1)], {"s": np.float32(range(8))}),
    "shape-arithmetic": (
        [
            node("Shape", "x", to="shape"),
            node("Gather", "shape", "zero", to="n"),
            node("Unsqueeze", "n", "first", to="n1"),
            node("Constant", to="rest", value_ints=[-1]),
            node("Concat", "n1", "rest", to="new", axis=0),
            node("Reshape", "x", "new"),
        ],
        {"zero": np.array(0), "first": np.array([0])},
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_graphs_by_hand_agree_with_the_runtime(name: str, tmp_path: Path):
    nodes, weights = BY_HAND[name]
    model = same_as_runtime(by_hand(nodes, weights), tmp_path)
    assert len(model.layers.layers) >= 1


# Resize of 7 x 8 by the nearest pixel: a whole factor, none, a half, and sizes of no whole ratio.
COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
FACTORS = {
    "doubled": (2, 2),
    "three-by-four": (3, 4),
    "the-same": (1, 1),
    "one-axis": (1, 2),
    "halved": (1, 0.5),
}
SIZES = {"whole": (14, 24), "up": (9, 11), "down": (5, 3), "up-and-down": (10, 6), "to-one": (1, 1)}
# Those that are a layer of ours: at every size, or at whole factors. Any other may be refused, never wrong.
READ_ALWAYS = {("asymmetric", "floor")}
READ_WHOLE = {
    (where, rounding)
    for where in ("half_pixel", "pytorch_half_pixel")
    for rounding in ("round_prefer_floor", "round_prefer_ceil")
}
WHOLE = {"doubled", "three-by-four", "the-same", "one-axis", "whole"}


@pytest.mark.parametrize("target", [*FACTORS, *SIZES])
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("where", COORDINATES)
def test_nearest_resizing_is_right_or_refused(where: str, rounding: str, target: str, tmp_path: Path):
    weights = {"region": np.float32([0, 0, 0, 0, 1, 1, 1, 1])}
    if target in FACTORS:
        last, weights["s"] = ("s",), np.float32([1, 1, *FACTORS[target]])
    else:
        last, weights["n"] = ("", "n"), np.array([2, 3, *SIZES[target]])
    made = node(
        "Resize",
        "x",
        "region",
        *last,
        coordinate_transformation_mode=where,
        nearest_mode=rounding,
        mode="nearest",
    )
    proto = by_hand([made], weights, (2, 3, 7, 8))
    refused = ""
    try:
        same_as_runtime(proto, tmp_path)
    except UnsupportedLayer as error:
        refused = str(error)
    if (where, rounding) in READ_ALWAYS or ((where, rounding) in READ_WHOLE and target in WHOLE):
        assert not refused
    assert not refused or re.search(rf"n_y \(Resize\): .*{where} coordinates and {rounding}", refused)


def test_sizes_that_no_layer_depends_on_stay_free(tmp_path: Path):
    layers = [node("Conv", "x", "w", to="c"), node("Relu", "c", to="r"), node("GlobalMaxPool", "r")]
    free = by_hand(layers, {"w": W}, ("N", 3, "H", "W"))
    assert same_as_runtime(free, tmp_path).input_shape == (3, None, None)
    nodes = [node("Flatten", "x", to="f"), node("MatMul", "f", "w")]
    fixed = by_hand(nodes, {"w": np.ones((3 * 32 * 32, 2), np.float32)}, ("N", 3, "H", "W"))
    assert read(fixed, tmp_path).input_shape == (3, 32, 32)


def test_shared_weights_stay_shared(tmp_path: Path):
    square = np.ones((3, 3, 1, 1), np.float32)
    proto = by_hand([node("Conv", "x", "w", to="a"), node("Conv", "a", "w")], {"w": square})
    first, second = same_as_runtime(proto, tmp_path).layers.layers
    assert isinstance(first, Conv)
    assert isinstance(second, Conv)
    assert first.weight is second.weight


# ---- What is refused ----------------------------------------------------------------------------------

REFUSED: dict[str, tuple[list[Any], dict[str, np.ndarray], str]] = {
    "operation": (
        [node("NonMaxSuppression", "x")],
        {},
        r"n_y \(NonMaxSuppression\): there is no layer for it",
    ),
    "domain": ([node("Relu", "x", domain="com.microsoft")], {}, "domain 'com.microsoft'"),
    "transpose": ([node("Transpose", "x", perm=[1, 0, 2, 3])], {}, "output: its batch is not the first axis"),
    "sizes": (
        [node("Resize", "x", "", "s", coordinate_transformation_mode="unheard_of")],
        {"s": np.float32([1, 1, 2, 2])},
        "unheard_of",
    ),
    "attribute": (
        [node("Relu", "x", slope=2.0)],
        {},
        r"n_y \(Relu\): no layer has its attribute 'slope' of 2.0",
    ),
    "one-sample-of-two": (
        [node("Add", "x", "two")],
        {"two": np.ones((2, 1, 1, 1), np.float32)},
        "each sample",
    ),
    "squeezed-batch": ([node("Squeeze", "x", "zero")], {"zero": np.array([0])}, "along the batch axis"),
    "half": ([node("Cast", "x", to_type=10)], {}, "half precision"),
    "weights-from-the-picture": ([node("Conv", "x", "x")], {}, "input 1 must be a constant"),
    "batch": ([node("Concat", "x", "x", axis=0)], {}, "along the batch axis"),
    "one-sample": ([node("Reshape", "x", "new")], {"new": np.array([-1])}, "batch is not the first axis"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_layer_expresses_is_refused_by_its_node(name: str, tmp_path: Path):
    nodes, weights, message = REFUSED[name]
    with pytest.raises(UnsupportedLayer, match=message):
        read(by_hand(nodes, weights), tmp_path)


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_second_input_or_output_is_refused(side: str, tmp_path: Path):
    proto = by_hand([node("Relu", "x", to="z"), node("Relu", "z")], {})
    getattr(proto.graph, side).append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    with pytest.raises(UnsupportedLayer) as error:
        read(proto, tmp_path)
    said = f"a Diptych model cannot express the {side}s of the graph: the graph has 2, a model has one"
    said += "; choose one with --output: y, z" if side == "output" else ""
    assert str(error.value) == said


HUGE = np.array([2**40, 2**40])
HOSTILE: dict[str, Callable[[], onnx.ModelProto]] = {
    "missing": lambda: by_hand([node("Relu", "nothing")], {}),
    "no-output": lambda: by_hand([node("Relu", "x", to="z")], {}),
    "huge-constant": lambda: by_hand(
        [node("ConstantOfShape", "n", to="c"), node("Add", "x", "c")], {"n": HUGE}
    ),
    "huge-range": lambda: by_hand(
        [node("Range", "a", "b", "c", to="r"), node("Add", "x", "r")],
        {"a": np.array(0), "b": np.array(2**60), "c": np.array(1)},
    ),
    "doubling": lambda: by_hand(
        [node("Concat", f"c{i}", f"c{i}", to=f"c{i + 1}", axis=0) for i in range(40)]
        + [node("Add", "x", "c40")],
        {"c0": np.ones(9, np.float32)},
    ),
    "outer": lambda: by_hand(
        [node("Add", "a", "b", to="c"), node("Add", "x", "c")],
        {"a": np.ones((30_000, 1), np.float32), "b": np.ones((1, 30_000), np.float32)},
    ),
    "too-many-layers": lambda: by_hand(
        [node("Relu", "x", to="c0")]
        + [node("Relu", f"c{i}", to=f"c{i + 1}") for i in range(21_000)]
        + [node("Relu", "c21000")],
        {},
    ),
    "channels": lambda: by_hand([node("Conv", "x", "w")], {"w": np.ones((4, 5, 3, 3), np.float32)}),
    "zero-stride": lambda: by_hand([node("Conv", "x", "w", strides=[0, 1])], {"w": W}),
    "negative-pads": lambda: by_hand([node("Conv", "x", "w", pads=[-9, 0, 0, 0])], {"w": W}),
    "bad-axes": lambda: by_hand([node("ReduceMean", "x", axes=[9])], {}),
    "zero-axis": lambda: by_hand([node("Relu", "x")], {}, ("N", 3, 2**40, 2)),
    "strings": lambda: by_hand([node("Constant", to="c", value_string="no"), node("Add", "x", "c")], {}),
    "groups": lambda: by_hand([node("Conv", "x", "w", group=0)], {"w": W}),
    "no-attributes": lambda: by_hand([node("DepthToSpace", "x")], {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_graphs_end_in_a_sentence(name: str, tmp_path: Path):
    with pytest.raises((FormatError, UnsupportedLayer)) as caught:
        read(HOSTILE[name](), tmp_path)
    assert "\n" not in str(caught.value)


def elsewhere(**entries: str) -> onnx.ModelProto:
    """A convolution whose weight lies in another file."""
    proto = by_hand([node("Conv", "x", "w")], {"w": W})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return proto


def test_weights_in_a_file_beside_are_read(tmp_path: Path):
    whole = by_hand([node("Conv", "x", "w")], {"w": W})
    (tmp_path / "w.data").write_bytes(bytes(16) + W.tobytes())
    model = read(elsewhere(location="w.data", offset="16", length=str(W.nbytes)), tmp_path)
    (layer,) = model.layers.layers
    assert isinstance(layer, Conv)
    assert np.array_equal(layer.weight, W)
    onnx.save_model(whole, tmp_path / "m.onnx", save_as_external_data=True, location="all", size_threshold=0)
    assert np.array_equal(formats.read(tmp_path / "m.onnx").layers.layers[0].weight, W)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "/etc/passwd"}, "only files beside the .onnx file are read"),
        ({"location": "../w.data"}, "only files beside the .onnx file are read"),
        ({"location": ""}, "only files beside"),
        ({"location": "link"}, "not a file beside the .onnx file"),
        ({"location": "gone"}, "which is not there; copy it"),
        ({"location": "short"}, r"needs 288 bytes, but .*short has 8"),
        ({"location": "w.data", "offset": "1000000000000"}, "needs 288 bytes"),
        ({"location": "w.data", "offset": "-4"}, "needs 288 bytes"),
        ({"location": "w.data", "offset": "four"}, "described wrongly"),
        ({"location": "w.data", "length": "16"}, "needs 288 bytes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_weights_that_lie_nowhere_near_are_refused(entries: dict[str, str], message: str, tmp_path: Path):
    folder = tmp_path / "inside"
    folder.mkdir()
    for place in (tmp_path / "w.data", folder / "w.data"):
        place.write_bytes(W.tobytes())
    (folder / "short").write_bytes(bytes(8))
    (folder / "link").symlink_to(tmp_path / "w.data")
    with pytest.raises(FormatError, match=message):
        read(elsewhere(**entries), folder)


def test_one_of_several_outputs_is_read_by_name(tmp_path: Path):
    proto = by_hand(
        [node("Relu", "x", to="z"), node("Sigmoid", "z"), node("NonMaxSuppression", "x", to="q")], {}
    )
    for name in ("z", "q"):
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    path = tmp_path / "several.onnx"
    path.write_bytes(proto.SerializeToString())
    assert [layer.label for layer in formats.read(path, output="z").layers.layers] == ["relu"]
    assert [layer.label for layer in formats.read(path, output="y").layers.layers] == ["relu", "sigmoid"]
    with pytest.raises(UsageError, match="the graph has no output 'w'; its outputs are y, z, q"):
        formats.read(path, output="w")


def test_a_damaged_file_is_refused_or_read(tmp_path: Path):
    whole = to_onnx(case("classifier")[0]).SerializeToString()
    random = np.random.default_rng(1)
    path = tmp_path / "model.onnx"
    for trial in range(300):
        changed = bytearray(whole)
        for place in random.integers(4, len(whole), 1 + trial % 3):
            changed[place] = random.integers(256)
        path.write_bytes(changed[: random.integers(4, len(whole))] if trial % 4 == 0 else changed)
        with contextlib.suppress(DiptychError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = formats.read(path)
            assert isinstance(model.layers, Layer)
