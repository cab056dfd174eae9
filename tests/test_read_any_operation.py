"""Operations of other frameworks, one at a time: what is read gives the numbers of ONNX Runtime or PyTorch.

The rule: every attribute of an ONNX operation is honoured or refused, never ignored. It is held over the schemas of
the package onnx, so that an attribute of a later version is tried as soon as the package knows it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import diptych
from diptych import formats
from diptych.engines import numpy as reference
from diptych.errors import DiptychError, ModelError, UnsupportedLayer, UsageError
from diptych.formats.onnx.reading_operations import OPERATIONS
from diptych.formats.torch import from_torch, to_torch
from diptych.model.layers import Graph, walk
from distances import apart

pytestmark = pytest.mark.usefixtures("one_thread")

NEWEST = onnx.defs.onnx_opset_version()
RUNTIME = 25  # the newest operator set that ONNX Runtime is asked for
RANDOM = np.random.default_rng(11)


def f(*shape: int) -> np.ndarray:
    return (RANDOM.standard_normal(shape) / 2).astype(np.float32)


def i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def graph_of(
    operation: str,
    weights: list[np.ndarray | None],
    attributes: dict[str, Any],
    shape: tuple[int, ...] = (2, 4, 6, 8),
    opset: int = 21,
    outputs: int = 1,
    place: int = 0,
) -> onnx.ModelProto:
    """One node; its input number `place` is the model's, the others are constants or absent."""
    names = ["" if w is None else f"w{n}" for n, w in enumerate(weights)]
    names.insert(place, "x")
    results = ["y", *(f"y{n}" for n in range(1, outputs))]
    made = helper.make_node(operation, names, results, name="n", **attributes)
    batch = shape[0] if operation == "Resize" else "N"  # its sizes count the batch
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, *shape[1:]))]
    wanted = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    stored = [numpy_helper.from_array(w, f"w{n}") for n, w in enumerate(weights) if w is not None]
    graph = helper.make_graph([made], "one", given, wanted, stored)
    version = min(10, onnx.IR_VERSION) if opset > 19 else 8
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version)


def read(proto: onnx.ModelProto, folder: Path) -> diptych.Model:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return formats.read(path)


def by_runtime(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray | None:
    """What ONNX Runtime gives; None where it does not take the graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(["y"], {"x": x})[0]
    except Exception:
        return None


def batch(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def difference(model: diptych.Model, x: np.ndarray, expected: np.ndarray) -> float:
    result = reference.compile(model)(x)
    if result.shape != expected.shape:
        return math.inf
    undefined = np.isnan(expected)
    if not np.array_equal(undefined, np.isnan(result)):
        return math.inf
    return apart(np.where(undefined, 0, result), np.where(undefined, 0, expected))


# ---- Every attribute of every operation ---------------------------------------------------------------

CHANNELS = [f(4), f(4)]
# A node of each operation: its constants, the attributes that it needs, and the shape of its input.
SAMPLES: dict[str, tuple[list[np.ndarray | None], dict[str, Any], tuple[int, ...]]] = {
    "Conv": ([f(6, 4, 3, 2), f(6)], {}, (2, 4, 6, 8)),
    "ConvTranspose": ([f(4, 6, 3, 2), f(6)], {}, (2, 4, 6, 8)),
    "MaxPool": ([], {"kernel_shape": [3, 2]}, (2, 4, 6, 8)),
    "AveragePool": ([], {"kernel_shape": [3, 2]}, (2, 4, 6, 8)),
    "LpPool": ([], {"kernel_shape": [3, 2]}, (2, 4, 6, 8)),
    "Gemm": ([f(5, 7), f(7)], {}, (2, 5)),
    "MatMul": ([f(8, 3)], {}, (2, 4, 6, 8)),
    **{
        name: ([f(4, 1, 1)], {}, (2, 4, 6, 8))
        for name in ("Add", "Sub", "Mul", "Div", "Sum", "Mean", "Max", "Min")
    },
    "Pow": ([np.float32([3])], {}, (2, 4, 6, 8)),
    "PRelu": ([f(4, 1, 1)], {}, (2, 4, 6, 8)),
    "CastLike": ([f(1)], {}, (2, 4, 6, 8)),
    "Cast": ([], {"to": 1}, (2, 4, 6, 8)),
    "BatchNormalization": ([*CHANNELS, f(4), np.abs(f(4)) + 0.5], {}, (2, 4, 6, 8)),
    "InstanceNormalization": (CHANNELS, {}, (2, 4, 6, 8)),
    "LayerNormalization": ([f(8), f(8)], {}, (2, 4, 6, 8)),
    "RMSNormalization": ([f(8)], {}, (2, 4, 6, 8)),
    "GroupNormalization": ([f(4), f(4)], {"num_groups": 2}, (2, 4, 6, 8)),
    "LRN": ([], {"size": 3}, (2, 4, 6, 8)),
    **{name: ([], {"axes": [2]}, (2, 4, 6, 8)) for name in OPERATIONS if name.startswith("Reduce")},
    "Reshape": ([i(0, 2, -1)], {}, (2, 4, 6, 8)),
    "Squeeze": ([i(1)], {}, (2, 1, 6, 8)),
    "Unsqueeze": ([i(1)], {}, (2, 4, 6)),
    "Slice": ([i(1), i(3), i(1)], {}, (2, 4, 6, 8)),
    "Split": ([], {"axis": 1}, (2, 4, 6, 8)),
    "Gather": ([i(2, 0)], {"axis": 1}, (2, 4, 6, 8)),
    "Concat": ([], {"axis": 1}, (2, 4, 6, 8)),
    "Expand": ([i(1, 4, 6, 8)], {}, (2, 4, 1, 8)),
    "Tile": ([i(1, 2, 1, 3)], {}, (2, 4, 6, 8)),
    "Pad": ([i(0, 0, 1, 2, 0, 0, 0, 1)], {}, (2, 4, 6, 8)),
    "DepthToSpace": ([], {"blocksize": 2}, (2, 8, 3, 5)),
    "SpaceToDepth": ([], {"blocksize": 2}, (2, 4, 6, 8)),
    "CumSum": ([i(2).reshape(())], {}, (2, 4, 6, 8)),
    "Resize": ([None, None, i(2, 4, 9, 12)], {}, (2, 4, 6, 8)),
    "QuantizeLinear": ([np.float32(0.05), np.int8(3)], {}, (2, 4, 6, 8)),
    "DequantizeLinear": ([np.float32(0.05)], {}, (2, 4, 6, 8)),
    "Upsample": ([np.float32([1, 1, 2, 3])], {}, (2, 4, 6, 8)),
    "MeanVarianceNormalization": ([], {"axes": [2, 3]}, (2, 4, 6, 8)),
}
WORDS: dict[str, tuple[str, ...]] = {
    "auto_pad": ("SAME_UPPER", "SAME_LOWER", "VALID"),
    "mode": (
        *("linear", "cubic", "nearest", "constant", "reflect", "edge", "wrap", "CRD", "DCR", "bilinear"),
        "unknown",
    ),
    "approximate": ("tanh", "none"),
    "coordinate_transformation_mode": (
        *("half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"),
        *("tf_crop_and_resize", "tf_half_pixel_for_nn"),
    ),
    "nearest_mode": ("round_prefer_ceil", "floor", "ceil"),
    "keep_aspect_ratio_policy": ("not_larger", "not_smaller"),
    "round_mode": ("down",),
}
LISTS = (
    [1],
    [2],
    [1, 1],
    [2, 1],
    [2, 3],
    [0, 1, 1, 2],
    [1, 1, 2, 3],
    [1, 3],
    [0, 2, 1, 3],
    [0, 3, 1, 2],
    [2, 2],
)
# What may have any value without another result: the indices of a pool, the precision of sums, training.
HARMLESS = {"storage_order", "stash_type", "momentum", "saturate", "round_mode", "seed", "consumed_inputs"}


def candidates(attribute: Any) -> list[Any]:
    kind = attribute.type.name
    if kind == "INT":
        return [0, 1, 2, -1, -2, 6, 10]
    if kind == "FLOAT":
        return [0.3, 1.5, 2.0, -0.5]
    if kind == "STRING":
        return list(WORDS.get(attribute.name, ("another",)))
    if kind == "INTS":
        return [list(values) for values in LISTS]
    if kind == "FLOATS":
        return [[1.0, 1.0, 2.0, 3.0], [1.0, 1.0, 0.5, 1.5]]
    return []


def schemas() -> Iterator[Any]:
    """Every version of every operation that is read, from operator set 7, the oldest that ONNX Runtime takes."""
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.name in OPERATIONS and not schema.deprecated:
            yield schema


CASES = [
    (schema.name, schema.since_version, attribute)
    for schema in sorted(schemas(), key=lambda s: (s.name, s.since_version))
    for attribute in sorted(schema.attributes)
]


@pytest.mark.parametrize(
    ("operation", "version", "attribute"), CASES, ids=[f"{o}-{v}-{a}" for o, v, a in CASES]
)
def test_every_attribute_is_honoured_or_refused(
    operation: str, version: int, attribute: str, tmp_path: Path
) -> None:
    schema = onnx.defs.get_schema(operation, version, "")
    weights, needed, shape = SAMPLES.get(operation, ([], {}, (2, 4, 6, 8)))
    most = schema.max_input - 1
    outputs = 2 if operation == "Split" else 1
    for value in candidates(schema.attributes[attribute]):
        attributes = {k: v for k, v in needed.items() if k in schema.attributes} | {attribute: value}
        proto = graph_of(operation, weights[:most], attributes, shape, version, outputs)
        try:
            model = read(proto, tmp_path)
        except DiptychError:
            continue
        x = batch(shape)
        expected = by_runtime(proto, x) if version >= 7 else None
        if expected is None:  # not a valid node, or of an operator set that no runtime takes any more
            continue
        try:
            gap = difference(model, x, expected)
        except DiptychError:
            continue
        assert gap <= 2e-5, (attributes, [layer.label for _, layer in walk(model.layers)])


def test_an_attribute_that_no_rule_knows_is_refused(tmp_path: Path) -> None:
    for operation, (weights, needed, shape) in SAMPLES.items():
        versions = [s.since_version for s in schemas() if s.name == operation]
        proto = graph_of(operation, weights, needed, shape, max(versions), 2 if operation == "Split" else 1)
        proto.graph.node[0].attribute.append(helper.make_attribute("brand_new", 3))
        with pytest.raises(DiptychError) as caught:
            read(proto, tmp_path)
        assert "brand_new" in str(caught.value), operation


def test_broadcasting_of_the_first_operator_sets(tmp_path: Path) -> None:
    weight = f(4)
    for operation, expected in (("Add", np.add), ("Mul", np.multiply)):
        proto = graph_of(operation, [weight], {"broadcast": 1, "axis": 1}, opset=6)
        x = batch((2, 4, 6, 8))
        assert difference(read(proto, tmp_path), x, expected(x, weight.reshape(4, 1, 1))) <= 1e-6


# ---- Many uses of ONNX operations ----------------------------------------------------------------------

IMAGE = (2, 4, 6, 8)
NODES: dict[str, tuple[str, list[np.ndarray | None], dict[str, Any], tuple[int, ...]]] = {
    "maxpool-ceil": (
        "MaxPool",
        [],
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        (2, 4, 6, 7),
    ),
    "maxpool-ceil-pads": (
        "MaxPool",
        [],
        {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        (2, 4, 6, 9),
    ),
    "maxpool-ceil-last-window-outside": (
        "MaxPool",
        [],
        {"kernel_shape": [1, 2], "strides": [3, 3], "ceil_mode": 1},
        (2, 4, 6, 9),
    ),
    "maxpool-dilated": (
        "MaxPool",
        [],
        {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [1, 2, 0, 1], "strides": [1, 2]},
        IMAGE,
    ),
    "mean-ceil": (
        "AveragePool",
        [],
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        (2, 4, 6, 7),
    ),
    "mean-ceil-counted": (
        "AveragePool",
        [],
        {
            "kernel_shape": [3, 3],
            "strides": [2, 2],
            "pads": [1, 1, 1, 1],
            "ceil_mode": 1,
            "count_include_pad": 1,
        },
        (2, 4, 6, 8),
    ),
    "mean-ceil-not-counted": (
        "AveragePool",
        [],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 0], "ceil_mode": 1},
        (2, 4, 6, 8),
    ),
    "mean-dilated": ("AveragePool", [], {"kernel_shape": [2, 2], "dilations": [2, 3]}, IMAGE),
    "global-lp": ("GlobalLpPool", [], {"p": 3}, IMAGE),
    "transposed-to-a-shape": (
        "ConvTranspose",
        [f(4, 3, 3, 3)],
        {"strides": [2, 2], "output_shape": [12, 15]},
        IMAGE,
    ),
    "transposed-same": (
        "ConvTranspose",
        [f(4, 3, 3, 3)],
        {"strides": [2, 3], "auto_pad": "SAME_LOWER"},
        IMAGE,
    ),
    "add-larger-constant": ("Add", [f(4, 6, 8)], {}, (2, 4, 1, 1)),
    "divide-a-constant": ("Div", [f(4, 1, 1)], {}, IMAGE),
    "max-of-an-array": ("Max", [f(4, 1, 1)], {}, IMAGE),
    "min-of-numbers": ("Min", [np.float32([0.3])], {}, IMAGE),
    "power-minus-one": ("Pow", [np.float32([-1])], {}, IMAGE),
    "matmul-of-a-batch-of-matrices": ("MatMul", [f(4, 8, 3)], {}, IMAGE),
    "matmul-vector": ("MatMul", [f(8)], {}, IMAGE),
    "prelu-columns": ("PRelu", [f(8)], {}, IMAGE),
    "prelu-one": ("PRelu", [f(1)], {}, IMAGE),
    "softmax-rows": ("Softmax", [], {"axis": 2}, IMAGE),
    "reduce-keeps-nothing": ("ReduceSum", [i(1, 3)], {"keepdims": 0}, IMAGE),
    "reduce-l2": ("ReduceL2", [i(-1)], {}, IMAGE),
    "reduce-log-sum-exp": ("ReduceLogSumExp", [i(1)], {}, IMAGE),
    "reduce-nothing": ("ReduceSum", [], {"noop_with_empty_axes": 1}, IMAGE),
    "squeeze-all-of-more": ("Squeeze", [], {}, (2, 4, 1, 8)),
    "slice-with-steps": ("Slice", [i(1, 7), i(6, -9), i(2, 3), i(2, -3)], {}, IMAGE),
    "slice-from-the-end": ("Slice", [i(-3), i(2**40), i(-1)], {}, IMAGE),
    "gather-scalar": ("Gather", [i(2).reshape(())], {"axis": 1}, IMAGE),
    "gather-table": ("Gather", [i(0, 3, 1, 1).reshape(2, 2)], {"axis": 2}, IMAGE),
    "gather-from-the-end": ("Gather", [i(-1, -3)], {"axis": 3}, IMAGE),
    "expand": ("Expand", [i(1, 1, 6, 5)], {}, (2, 4, 6, 1)),
    "tile": ("Tile", [i(1, 3, 1, 2)], {}, IMAGE),
    "pad-channels": ("Pad", [i(0, 1, 0, 0, 0, 2, 1, 0), np.float32(1.5)], {}, IMAGE),
    "pad-reflect-channels": ("Pad", [i(0, 1, 2, 0, 0, 2, 1, 0)], {"mode": "reflect"}, IMAGE),
    "pad-features": ("Pad", [i(0, 1, 0, 2), np.float32(-2)], {}, (2, 7)),
    "pad-crops": ("Pad", [i(0, 0, -1, 1, 0, 0, 0, -2)], {}, IMAGE),
    "depth-to-space-dcr": ("DepthToSpace", [], {"blocksize": 2}, (2, 12, 3, 5)),
    "space-to-depth": ("SpaceToDepth", [], {"blocksize": 2}, IMAGE),
    "cumulative-reversed": ("CumSum", [i(3).reshape(())], {"reverse": 1, "exclusive": 1}, IMAGE),
    "resize-cubic": ("Resize", [None, None, i(2, 4, 9, 5)], {"mode": "cubic"}, IMAGE),
    "resize-cubic-a": (
        "Resize",
        [None, np.float32([1, 1, 1.5, 2])],
        {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
        IMAGE,
    ),
    "resize-antialiased": ("Resize", [None, None, i(2, 4, 3, 5)], {"mode": "linear", "antialias": 1}, IMAGE),
    "resize-antialiased-cubic": (
        "Resize",
        [None, None, i(2, 4, 3, 5)],
        {"mode": "cubic", "antialias": 1},
        IMAGE,
    ),
    "resize-by-fractions": ("Resize", [None, np.float32([1, 1, 0.6, 1.3])], {"mode": "linear"}, IMAGE),
    "resize-asymmetric-linear": (
        "Resize",
        [None, None, i(2, 4, 9, 12)],
        {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
        IMAGE,
    ),
    "resize-crop": (
        "Resize",
        [np.float32([0, 0, 0.2, -0.1, 1, 1, 0.8, 1.2]), None, i(2, 4, 5, 9)],
        {
            "mode": "linear",
            "coordinate_transformation_mode": "tf_crop_and_resize",
            "extrapolation_value": 2.5,
        },
        IMAGE,
    ),
    "lrn-even": ("LRN", [], {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 2.0}, IMAGE),
    "selu": ("Selu", [], {"alpha": 1.2, "gamma": 0.7}, IMAGE),
    "layer-norm-of-two-axes": ("LayerNormalization", [f(6, 8), f(6, 8)], {"axis": 2}, IMAGE),
    "normalised-by-l1": ("LpNormalization", [], {"axis": 1, "p": 1}, IMAGE),
}


@pytest.mark.parametrize("name", NODES)
def test_an_operation_gives_the_numbers_of_onnx_runtime(name: str, tmp_path: Path) -> None:
    operation, weights, attributes, shape = NODES[name]
    opset = 18 if operation == "GroupNormalization" else 19
    proto = graph_of(operation, weights, attributes, shape, opset)
    x = batch(shape)
    if operation == "Pow":
        x = np.abs(x) + 0.1
    expected = by_runtime(proto, x)
    assert expected is not None
    model = read(proto, tmp_path)
    assert difference(model, x, expected.astype(np.float32)) <= 2e-5
    one = reference.compile(model)(x[:1])
    assert one.shape == (1, *expected.shape[1:])


def test_a_constant_that_repeats_for_every_sample(tmp_path: Path) -> None:
    """A class token, folded by the exporter for the batch that it was given."""
    token = f(1, 1, 8)
    node = helper.make_node("Concat", ["token", "x"], ["y"], axis=1)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 6, 8))
    wanted = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    x = batch((3, 6, 8))
    for constant, known in ((np.repeat(token, 2, 0), True), (f(2, 1, 8), False)):
        graph = helper.make_graph(
            [node], "g", [given], [wanted], [numpy_helper.from_array(constant, "token")]
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        if known:
            expected = np.concatenate([np.repeat(token, 3, 0), x], 1)
            assert difference(read(proto, tmp_path), x, expected) == 0
        else:
            with pytest.raises(UnsupportedLayer, match="number for each sample"):
                read(proto, tmp_path)


def test_whole_numbers(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.INT64),
        helper.make_node("Mul", ["a", "two"], ["b"]),
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["b", "two"], ["z"]),
    ]
    wanted = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "yz"]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 4))
    graph = helper.make_graph(nodes, "g", [given], wanted, [numpy_helper.from_array(i(2), "two")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    x = batch((3, 4)) * 3
    assert np.array_equal(diptych.predict(formats.read(path, output="y"), x), np.trunc(x) * 2)
    with pytest.raises(UnsupportedLayer, match="no layer computes this with whole numbers"):
        formats.read(path, output="z")


def test_a_quantised_network(tmp_path: Path) -> None:
    """A convolution between roundings to 8 bits, as ONNX Runtime's quantiser writes it."""
    weight = np.random.default_rng(0).integers(-127, 128, (5, 4, 3, 3)).astype(np.int8)
    constants = {
        "s": np.float32(0.031),
        "z": np.uint8(121),
        "ws": (np.abs(f(5)) / 60 + 0.001).astype(np.float32),
        "wz": np.zeros(5, np.int8),
        "w": weight,
        "t": np.float32(0.047),
        "u": np.uint8(90),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["k"], axis=0),
        helper.make_node("Conv", ["d", "k"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "t", "u"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "t", "u"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 4, 6, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = batch(IMAGE)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    expected = session.run(None, {"x": x})[0]
    model = read(proto, tmp_path)
    assert np.unique(expected).size > 20
    for engine in ("numpy", "torch", "onnxruntime"):
        steps = np.abs(diptych.predict(model, x, engine=engine) - expected) / 0.047
        assert steps.max() <= 1.001  # where a sum lies between two roundings
        assert (steps > 0.5).mean() <= 0.002


def test_a_split_and_the_joins_of_its_parts(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1),
        helper.make_node("Div", ["a", "b"], ["c"]),
        helper.make_node("Min", ["c", "a", "b"], ["d"]),
        helper.make_node("Transpose", ["b"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["d", "t"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "split",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 4, 6, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(i(2, 2), "sizes")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = batch(IMAGE)
    expected = by_runtime(proto, x)
    assert expected is not None
    assert difference(read(proto, tmp_path), x, expected) <= 1e-5


# ---- PyTorch ---------------------------------------------------------------------------------------------


class Code(nn.Module):
    """A module whose forward is the function it is given."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function
        self.token = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x: torch.Tensor) -> object:
        return self.function(x)


def _attention(x: torch.Tensor) -> torch.Tensor:
    """Queries, keys and values of two heads, as timm writes them: the batch axis moves."""
    n, length, width = x.shape
    qkv = torch.cat([x, x + 1, x * 2], -1).reshape(n, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    mixed = ((q * 0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
    return mixed.transpose(1, 2).reshape(n, length, width)


def _windows(x: torch.Tensor) -> torch.Tensor:
    """Windows of a picture, merged with the batch, each with a softmax of its own, and put back."""
    n, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).view(n, h // 3, 3, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 6, c)
    x = (x @ x.transpose(1, 2)).softmax(-1) @ x
    x = x.view(n, h // 3, w // 2, 3, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
    return x.permute(0, 3, 1, 2)


def _convolved_windows(x: torch.Tensor) -> torch.Tensor:
    """A convolution and a pool of the windows of a picture, which are merged with the batch."""
    n, c, h, w = x.shape
    x = x.view(n, c, 2, 3, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 3, 4)
    weight = torch.arange(4 * 2 * 3 * 3).view(4, 2, 3, 3).sin()
    x = F.max_pool2d(F.conv2d(x, weight, torch.arange(4.0), padding=1, groups=2), (1, 2))
    return x.view(n, 2, 2, c, 3, 2).permute(0, 3, 1, 4, 2, 5).reshape(n, c, h, w // 2)


FUNCTIONS: dict[str, tuple[Callable[..., object], tuple[int, ...]]] = {
    "chunk": (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), (2, 4, 6, 8)),
    "split": (lambda x: torch.cat([p * k for k, p in enumerate(torch.split(x, 3, dim=3))], 3), (2, 4, 6, 8)),
    "slices": (lambda x: x[:, 1:3, ..., ::2] + x[:, :2, :, -4:], (2, 4, 6, 8)),
    "indices": (lambda x: x[:, torch.tensor([3, 0, 0])], (2, 4, 6, 8)),
    "select": (lambda x: x[:, 0] + x[:, -1, :, None].sum(2), (2, 4, 6, 8)),
    "permute": (lambda x: x.permute(0, 2, 3, 1).contiguous().flatten(1), (2, 4, 6, 8)),
    "channel-shuffle": (lambda x: F.channel_shuffle(x, 2), (2, 4, 6, 8)),
    "shuffle-by-hand": (
        lambda x: x.view(len(x), 2, 2, 6, 8).transpose(1, 2).contiguous().view(len(x), 4, 6, 8),
        (2, 4, 6, 8),
    ),
    "pixel-unshuffle": (lambda x: F.pixel_unshuffle(x, 2), (2, 4, 6, 8)),
    "masked": (
        lambda x: x.masked_fill(torch.arange(8) > 5, -math.inf).softmax(-1).addcmul(x, x.cos(), value=0.5),
        (2, 4, 6, 8),
    ),
    "einsum-of-two": (lambda x: torch.einsum("bchw,bcvw->bhvc", x, x + 1), (2, 4, 6, 8)),
    "einsum-of-a-constant": (
        lambda x: torch.einsum("bchw,hkw->bchk", x, torch.arange(6.0 * 5 * 8).view(6, 5, 8).sin()),
        (2, 4, 6, 8),
    ),
    "einsum-of-a-matrix": (lambda x: torch.einsum("bchw,cd->bdhw", x, torch.eye(4) + 1), (2, 4, 6, 8)),
    "nothing-in-front": (lambda x: torch.cat([x[:, :0], x[:, 0:] * 2], 1), (2, 4, 6, 8)),
    "a-list": (lambda x: x[:, [2, 0, 3]] + x[:, torch.tensor([[1], [2], [3]])].sum(2), (2, 4, 6, 8)),
    "windows-along-an-axis": (lambda x: x.unfold(2, 3, 2).unfold(3, 4, 4), (2, 4, 6, 8)),
    "columns": (lambda x: F.unfold(x, (3, 2), padding=1, stride=2, dilation=(1, 2)), (2, 4, 6, 8)),
    "roll": (lambda x: torch.roll(x, (-2, 3), (2, 3)), (2, 4, 6, 8)),
    "flip": (lambda x: x.flip(1, 3), (2, 4, 6, 8)),
    "expand-as": (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid().expand_as(x), (2, 4, 6, 8)),
    "repeat": (lambda x: x.repeat(1, 2, 1, 3), (2, 4, 6, 8)),
    "stack": (lambda x: torch.stack([x, 2 * x], 1).sum(2), (2, 4, 6, 8)),
    "divide": (lambda x: x / (1 + torch.exp(x.abs())), (2, 4, 6, 8)),
    "minimum": (lambda x: torch.minimum(x, 1 - x).pow(3), (2, 4, 6, 8)),
    "one-over": (lambda x: 2 / (x.square() + 0.5) - 1, (2, 4, 6, 8)),
    "reductions": (lambda x: x.sum(1) - x.amax(1) + x.amin(1) * x.prod(1), (2, 4, 6, 8)),
    "logsumexp": (lambda x: x.logsumexp((1, 2)), (2, 4, 6, 8)),
    "max-of-an-axis": (lambda x: x.max(dim=1, keepdim=True)[0] + x.min(2, keepdim=True).values, (2, 4, 6, 8)),
    "variance": (
        lambda x: x.var(1, keepdim=True) + x.std((2, 3), unbiased=False, keepdim=True),
        (2, 4, 6, 8),
    ),
    "norm": (lambda x: x.norm(dim=1) + torch.linalg.vector_norm(x, ord=1, dim=1), (2, 4, 6, 8)),
    "normalize": (lambda x: F.normalize(x, dim=1), (2, 4, 6, 8)),
    "rms-norm": (lambda x: F.rms_norm(x, (8,), torch.arange(8.0), 1e-4), (2, 4, 6, 8)),
    "cumsum": (lambda x: x.cumsum(2), (2, 4, 6, 8)),
    "lrn": (lambda x: F.local_response_norm(x, 4, 0.5, 0.75, 2.0), (2, 4, 6, 8)),
    "prelu": (lambda x: F.prelu(x, torch.tensor([0.1, 0.2, -0.3, 2.0])), (2, 4, 6, 8)),
    "ceil-mode": (lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), (2, 4, 6, 7)),
    "ceil-mode-padded": (lambda x: F.max_pool2d(x, 3, 3, 1, ceil_mode=True), (2, 4, 6, 8)),
    "ceil-mode-mean": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), (2, 4, 6, 8)),
    "dilated-pool": (lambda x: F.max_pool2d(x, 2, 1, 0, (2, 3)), (2, 4, 6, 8)),
    "divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), (2, 4, 6, 8)),
    "pad-with-a-number": (lambda x: F.pad(x, (1, 0, 2, 1), value=-1.5), (2, 4, 6, 8)),
    "pad-channels": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)), (2, 4, 6, 8)),
    "crop": (lambda x: F.pad(x, (-1, 2, 0, -3)), (2, 4, 6, 8)),
    "bicubic": (lambda x: F.interpolate(x, size=(9, 5), mode="bicubic"), (2, 4, 6, 8)),
    "bicubic-corners": (
        lambda x: F.interpolate(x, scale_factor=1.5, mode="bicubic", align_corners=True),
        (2, 4, 6, 8),
    ),
    "antialiased": (
        lambda x: F.interpolate(x, size=(3, 5), mode="bilinear", antialias=True),
        (2, 4, 6, 8),
    ),
    "nearest-exact": (lambda x: F.interpolate(x, size=(9, 5), mode="nearest-exact"), (2, 4, 6, 8)),
    "matmul": (lambda x: x @ x.transpose(2, 3) @ torch.ones(6, 2), (2, 4, 6, 8)),
    "matrix-first": (lambda x: torch.arange(12.0).view(2, 6) @ x, (2, 4, 6, 8)),
    "softmax-rows": (lambda x: x.softmax(2) + x.log_softmax(-1), (2, 4, 6, 8)),
    "sdpa": (lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1), (2, 4, 6, 8)),
    "sdpa-mask": (
        lambda x: F.scaled_dot_product_attention(x, x, x, torch.ones(6, 6).tril().bool()),
        (2, 4, 6, 8),
    ),
    "attention": (_attention, (2, 6, 8)),
    "windows": (_windows, (2, 4, 6, 8)),
    "convolutions-of-windows": (_convolved_windows, (2, 4, 6, 8)),
    "functions": (lambda x: x.cos() + x.floor() * x.sign() - torch.erf(x) + x.abs().log1p(), (2, 4, 6, 8)),
    "rsqrt": (lambda x: torch.rsqrt(x * x + 1) * x.atan(), (2, 4, 6, 8)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gives_the_numbers_of_pytorch(name: str) -> None:
    function, shape = FUNCTIONS[name]
    x = torch.tensor(batch(shape))
    model = from_torch(Code(function), example=x)
    expected = function(x)
    assert isinstance(expected, torch.Tensor)
    assert difference(model, x.numpy(), expected.numpy()) <= 2e-5
    one = reference.compile(model)(x[:1].numpy())
    assert one.shape == (1, *expected.shape[1:])
    assert apart(one, expected[:1].numpy()) <= 2e-5
    again = from_torch(to_torch(model), example=x)
    assert difference(again, x.numpy(), expected.numpy()) <= 2e-5


def test_a_class_token_and_positions(tmp_path: Path) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.places = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 7, 8))
            self.heads = nn.MultiheadAttention(8, 2, batch_first=True)
            self.norm = nn.LayerNorm(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
            y = self.norm(x)
            return (x + self.heads(y, y, y, need_weights=False)[0])[:, 0]

    module, x = Tokens().eval(), torch.randn(3, 6, 8)
    model = from_torch(module, example=x[:1])
    with torch.no_grad():
        expected = module(x).numpy()
    assert difference(model, x.numpy(), expected) <= 1e-5
    for name in ("m.onnx", "m.safetensors", "m.pt"):
        formats.write(model, tmp_path / name)
        assert apart(diptych.predict(formats.read(tmp_path / name), x.numpy()), expected) <= 1e-5
    path = tmp_path / "exported.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for axes in ({"x": {0: "N"}}, None):
            torch.onnx.export(module, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes)
            read_again = formats.read(path)
            assert difference(read_again, x.numpy(), expected) <= 1e-5
            assert difference(read_again, x[:1].numpy(), expected[:1]) <= 1e-5


def test_one_of_several_outputs() -> None:
    both = Code(lambda x: {"a": x.relu(), "b": (x.sigmoid(), x * 2)})
    x = torch.randn(2, 4, 6, 8)
    assert difference(from_torch(both, x, output="a"), x.numpy(), x.relu().numpy()) == 0
    with pytest.raises(UnsupportedLayer, match=r"returns 2 values, .* choose one with output= of 'a', 'b'"):
        from_torch(both, x)
    pair = Code(lambda x: (x.relu(), x.sigmoid()))
    assert difference(from_torch(pair, x, output=1), x.numpy(), x.sigmoid().numpy()) <= 1e-6
    with pytest.raises(UnsupportedLayer, match="choose one with output= of 0, 1"):
        from_torch(pair, x, output=2)


def test_wrapped_exported_and_scripted_modules() -> None:
    module = nn.Sequential(nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)).eval()
    x = torch.randn(2, 4, 6, 8)
    with torch.no_grad():
        expected = module(x).numpy()
    assert difference(from_torch(nn.DataParallel(module), x), x.numpy(), expected) <= 1e-6
    program = torch.export.export(module, (x,))
    for given in (program, program.module()):
        model = from_torch(given, x)
        assert difference(model, x.numpy(), expected) <= 1e-6
        assert reference.compile(model)(x[:1].numpy()).shape == (1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(module)
    with pytest.raises(UsageError, match="not TorchScript"):
        from_torch(scripted, x)


def test_parts_of_a_model_stay_free_of_sizes() -> None:
    """ECA's attention and a channel shuffle, at another size than that of the example."""

    def function(x: torch.Tensor) -> torch.Tensor:
        y = x * x.mean((2, 3), keepdim=True).sigmoid().expand_as(x)
        return F.max_pool2d(torch.cat(y.chunk(2, 1)[::-1], 1), 3, 2, ceil_mode=True)

    model = from_torch(Code(function), example=torch.randn(2, 4, 6, 8))
    x = torch.randn(1, 4, 9, 11)
    assert difference(model, x.numpy(), function(x).numpy()) <= 1e-6


def test_what_mixes_samples_is_refused_by_name() -> None:
    for function, message in (
        (lambda x: x - x.mean(0, keepdim=True), "mean over the batch axis"),
        (lambda x: x.flip(0), "batch axis"),
        (lambda x: x.softmax(0), "batch axis"),
        (lambda x: x.reshape(4, -1, 6, 8), "takes the batch apart"),
    ):
        with pytest.raises(ModelError, match=message):
            from_torch(Code(function), example=torch.randn(2, 4, 6, 8))


def test_matrix_products_are_counted() -> None:
    model = from_torch(Code(lambda x: x @ (x + 1).transpose(1, 2)), example=torch.randn(2, 6, 8))
    (layer,) = model.layers.layers
    assert not isinstance(layer, Graph)
    assert layer.multiply_adds((1, 6, 8), (1, 6, 6)) == 6 * 6 * 8
