"""Models that are no tree: read from PyTorch and ONNX as a `Graph`, and carried to every format that can hold it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor, nn

import diptych
from diptych.errors import ModelError, UnsupportedLayer
from diptych.formats.torch import from_torch
from diptych.model.layers import Activation, Chain, Connection, Conv, Graph, Layer, walk
from diptych.model.model import Model

BATCH = np.random.default_rng(5).standard_normal((2, 3, 16, 24)).astype(np.float32)


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())


class DeepLayerAggregation(nn.Module):
    """Yu et al., 2018: later stages take the outputs of all earlier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 6), conv(6, 6), conv(6, 6)
        self.first, self.second = nn.Conv2d(12, 6, 1), nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(a)
        first = self.first(torch.cat([a, b], 1))
        c = self.c(first)
        return self.second(torch.cat([c, first, b, a], 1))


class FeaturePyramid(nn.Module):
    """Lin et al., 2017: the levels of a backbone, merged from the top down; all of them joined at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.c2, self.c3, self.c4 = conv(3, 4), conv(4, 6, 2), conv(6, 8, 2)
        self.l2, self.l3, self.l4 = nn.Conv2d(4, 5, 1), nn.Conv2d(6, 5, 1), nn.Conv2d(8, 5, 1)
        self.o2, self.o3 = nn.Conv2d(5, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        c2 = self.c2(x)
        c3 = self.c3(c2)
        p4 = self.l4(self.c4(c3))
        p3 = self.l3(c3) + F.interpolate(p4, scale_factor=2, mode="nearest")
        p2 = self.l2(c2) + F.interpolate(p3, scale_factor=2, mode="nearest")
        return torch.cat([F.max_pool2d(self.o2(p2), 2), self.o3(p3)], 1)


class HighResolution(nn.Module):
    """Sun et al., 2019: two resolutions side by side that exchange what they know, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.high, self.low = conv(3, 4), conv(3, 6, 2)
        self.down = nn.ModuleList([conv(4, 6, 2), conv(4, 6, 2)])
        self.up = nn.ModuleList([nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)])
        self.highs = nn.ModuleList([conv(4, 4), conv(4, 4)])

    def forward(self, x: Tensor) -> Tensor:
        high, low = self.high(x), self.low(x)
        for down, up, own in zip(self.down, self.up, self.highs, strict=True):
            raised = F.interpolate(up(low), scale_factor=2, mode="bilinear", align_corners=False)
            high, low = F.relu(own(high) + raised), F.relu(low + down(high))
        return torch.cat([F.avg_pool2d(high, 2), low], 1)


class DenseUNet(nn.Module):
    """Zhou et al., UNet++, 2018: nested decoders with dense skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.x00, self.x10, self.x20 = conv(3, 4), conv(4, 6), conv(6, 8)
        self.x01, self.x11, self.x02 = conv(10, 4), conv(14, 6), conv(14, 4)

    def forward(self, x: Tensor) -> Tensor:
        x00 = self.x00(x)
        x10 = self.x10(F.max_pool2d(x00, 2))
        x20 = self.x20(F.max_pool2d(x10, 2))
        x01 = self.x01(torch.cat([x00, F.interpolate(x10, scale_factor=2)], 1))
        x11 = self.x11(torch.cat([x10, F.interpolate(x20, scale_factor=2)], 1))
        return self.x02(torch.cat([x00, x01, F.interpolate(x11, scale_factor=2)], 1))


class InnerSwish(nn.Module):
    """A swish by hand in front of two branches that are entangled: still one activation."""

    def forward(self, x: Tensor) -> Tensor:
        a = x * torch.sigmoid(x)
        b = torch.tanh(a)
        return torch.sin(a) * b + torch.sigmoid(b)


NETWORKS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (DeepLayerAggregation, FeaturePyramid, HighResolution, DenseUNet, InnerSwish)
}


def network(name: str) -> nn.Module:
    torch.manual_seed(3)
    made = NETWORKS[name]()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return made.eval()


def truth(module: nn.Module) -> Any:
    with torch.no_grad():
        return module(torch.tensor(BATCH)).numpy()


def graphs(model: Model) -> list[Graph]:
    return [layer for _, layer in model.walk() if isinstance(layer, Graph)]


@pytest.mark.parametrize("engine", ["numpy", "torch", "onnxruntime", "openvino"])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_no_tree_is_read_from_pytorch(name: str, engine: str) -> None:
    module = network(name)
    model = from_torch(module, example=BATCH)
    (graph,) = graphs(model)
    assert not any(isinstance(layer, Graph) for _, layer in walk(graph))
    np.testing.assert_allclose(diptych.predict(model, BATCH, engine=engine), truth(module), atol=2e-5)
    trace = diptych.trace(model, BATCH, engine=engine)
    assert list(trace) == list(diptych.trace(model, BATCH, engine="numpy"))


def test_a_group_of_operations_is_still_one_layer_inside_a_graph() -> None:
    model = from_torch(network("InnerSwish"), example=BATCH)
    names = [layer.name for _, layer in model.walk() if isinstance(layer, Activation)]
    assert sorted(names) == ["sigmoid", "sin", "swish", "tanh"]


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".pt"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_goes_through_files(name: str, suffix: str, tmp_path: Path) -> None:
    model = from_torch(network(name), example=BATCH)
    diptych.write(model, tmp_path / f"m{suffix}")
    back = diptych.read(tmp_path / f"m{suffix}")
    assert [type(layer) for _, layer in back.walk()] == [type(layer) for _, layer in model.walk()]
    assert diptych.compare(model, back, BATCH).agrees


@pytest.mark.parametrize("name", NETWORKS)
def test_an_onnx_file_of_pytorchs_own_is_read(name: str, tmp_path: Path) -> None:
    module = network(name)
    model = from_torch(module, example=BATCH)
    diptych.write(model, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    del proto.metadata_props[:]  # what remains is a graph like anybody's
    onnx.save(proto, tmp_path / "foreign.onnx")
    foreign = diptych.read(tmp_path / "foreign.onnx")
    assert len(graphs(foreign)) == 1
    np.testing.assert_allclose(diptych.predict(foreign, BATCH), truth(module), atol=2e-5)


def test_flux_files_hold_a_graph_since_0_13(tmp_path: Path) -> None:
    module = network("FeaturePyramid")
    model = from_torch(module, example=BATCH)
    for version in ("0.13", "0.14", "0.16"):
        diptych.convert(model, tmp_path / f"{version}.bson", flux_version=version)
        again = diptych.read(tmp_path / f"{version}.bson")
        assert len(graphs(again)) == 1
        np.testing.assert_allclose(diptych.predict(again, BATCH), truth(module), atol=2e-5)
    diptych.convert(model, tmp_path / "m.jld2")
    filled = diptych.load_model(tmp_path / "m.jld2", architecture=model)
    np.testing.assert_allclose(diptych.predict(filled, BATCH), truth(module), atol=2e-5)
    with pytest.raises(UnsupportedLayer, match=r"\(Graph\).*write for 0.13.*Julia project"):
        diptych.write(model, tmp_path / "old.bson", flux_version="0.12")


def test_inspect_shows_every_node_with_its_shape_and_receptive_field() -> None:
    summary = diptych.inspect(from_torch(network("FeaturePyramid"), example=BATCH), (3, 16, 24))
    rows = {row.path: row for row in summary.rows}
    (graph,) = [row for row in summary.rows if row.layer.startswith("Graph of")]
    assert graph.output_shape == (1, 10, 8, 12)
    joins = [row.layer for row in rows.values() if row.layer.startswith(("add", "concatenate"))]
    assert joins == ["add of 3.1, 3.2", "concatenate of 3.4, 3.5"]
    assert all(row.output_shape and row.receptive_field for row in rows.values())
    assert summary.multiply_adds == sum(row.multiply_adds for row in rows.values() if row.multiply_adds)


@pytest.mark.parametrize("example", [BATCH, None], ids=["with-example", "without"])
@pytest.mark.parametrize("change", ["module", "function", "method", "argument"])
def test_what_is_overwritten_in_place_is_seen_overwritten(change: str, example: Any) -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            a = self.conv(x)
            if change == "module":
                b = self.relu(a)
            elif change == "function":
                b = torch.relu_(a)
            else:
                b = a.relu_() if change == "method" else F.relu(a, True)
            return b * 2 + torch.tanh(a)

    torch.manual_seed(0)
    module = Overwriting().eval()
    np.testing.assert_allclose(
        diptych.predict(from_torch(module, example=example), BATCH), truth(module), atol=1e-5
    )


# ---- Any graph ------------------------------------------------------------------------------------------


def random_network(choices: list[tuple[int, int, int]]) -> onnx.ModelProto:
    """Nodes of one, two or three inputs, each any earlier value; what nobody takes is added up at the end."""
    nodes, values, used = [], ["x"], set()
    for number, (kind, first, second) in enumerate(choices):
        a, b = values[first % len(values)], values[second % len(values)]
        operation = ("Tanh", "Sin", "Sigmoid", "Relu", "Add", "Mul", "Sub", "Max")[kind]
        inputs = [a] if kind < 4 else [a, b]
        nodes.append(helper.make_node(operation, inputs, [f"v{number}"], name=f"n{number}"))
        used |= set(inputs)
        values.append(f"v{number}")
    loose = [value for value in values if value not in used]
    if len(loose) == 1:
        nodes.append(helper.make_node("Identity", loose, ["y"], name="out"))
    else:
        nodes.append(helper.make_node("Concat", loose, ["y"], name="out", axis=1))
    shape = ["N", 2, 3, 4]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "any", [entry], [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=14)
)
def test_any_graph_of_elementwise_operations_is_read_with_the_right_numbers(
    tmp_path_factory: pytest.TempPathFactory, choices: list[tuple[int, int, int]]
) -> None:
    import onnxruntime

    proto = random_network(choices)
    path = tmp_path_factory.mktemp("any") / "any.onnx"
    onnx.save(proto, path)
    x = np.random.default_rng(len(choices)).standard_normal((2, 2, 3, 4)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    model = diptych.read(path)
    np.testing.assert_allclose(diptych.predict(model, x, engine="numpy"), expected, atol=1e-4, rtol=1e-4)


# ---- What a graph must be -------------------------------------------------------------------------------


def small(**changes: Any) -> Graph:
    relu: tuple[Layer, ...] = (Activation("relu"), Connection("add"))
    fields: dict[str, Any] = {
        "layers": relu,
        "names": ("a", "b"),
        "inputs": (("input",), ("a", "input")),
        "outputs": ("b",),
    }
    return Graph(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("a",)}, "2 layers, 1 names and 2 lists"),
        ({"names": ("a", "a")}, "each once.*'a'"),
        ({"names": ("input", "b")}, "'input' is there"),
        ({"inputs": (("b",), ("a", "input"))}, "node 'a' takes 'b', which no earlier node gives"),
        ({"inputs": (("input", "input"), ("a",))}, "node 'a', a Activation, takes one value, not 2"),
        ({"inputs": ((), ("a",))}, "takes one value, not 0"),
        ({"outputs": ()}, "one or more names"),
        ({"outputs": ("c",)}, "'c' is the name of no node"),
    ],
)
def test_a_graph_that_contradicts_itself_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        diptych.write(Model(Chain((small(**changes),))), tmp_path / "m.safetensors")


def test_a_graph_with_several_outputs_gives_the_first_and_any_other_when_asked() -> None:
    graph = small(outputs=("b", "a"))
    x = BATCH[:1]
    assert np.array_equal(graph(x), np.maximum(x, 0) + x)
    assert np.array_equal(graph.with_output("a")(x), np.maximum(x, 0))
    assert graph.label == "Graph of 2, outputs b, a"
    with pytest.raises(ModelError, match="has no output 'c'; its outputs are b, a"):
        graph.with_output("c")


def test_an_onnx_file_gives_every_output_of_a_graph_that_comes_last(tmp_path: Path) -> None:
    import onnxruntime

    graph = small(outputs=("b", "a"))
    model = Model(Chain((Activation("tanh"), graph)), input_shape=(3, 16, 24))
    diptych.write(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["output", "output/a"]
    trace = diptych.trace(model, BATCH, engine="numpy")
    for result, path in zip(session.run(None, {"input": BATCH}), ("1.1", "1.0"), strict=True):
        np.testing.assert_allclose(result, trace[path], atol=1e-6)
    for engine in ("torch", "onnxruntime", "openvino"):
        np.testing.assert_allclose(diptych.predict(model, BATCH, engine=engine), trace["1"], atol=1e-6)
        assert list(diptych.trace(model, BATCH, engine=engine)) == list(trace)
    assert diptych.read(tmp_path / "m.onnx").layers.layers[1].outputs == ("b", "a")


def test_weights_that_two_nodes_share_are_counted_and_stored_once(tmp_path: Path) -> None:
    tied = Conv(np.ones((3, 3, 1, 1), np.float32))
    graph = Graph((tied, tied, Connection("add")), ("a", "b", "c"), (("input",), ("a",), ("a", "b")), ("c",))
    model = Model(Chain((graph,)), input_shape=(3, 4, 4))
    assert model.parameters == 9
    diptych.write(model, tmp_path / "m.safetensors")
    back = diptych.read(tmp_path / "m.safetensors")
    assert back.parameters == 9
    assert np.array_equal(diptych.predict(back, BATCH), diptych.predict(model, BATCH))
