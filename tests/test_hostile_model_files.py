"""Damaged and hostile model files: each ends in one sentence or in a model, never in anything else."""

from __future__ import annotations

import copy
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych import formats
from diptych.errors import DiptychError, FormatError, ModelError
from diptych.model.document import from_document, to_document
from diptych.model.layers import (
    Activation,
    BatchNorm,
    Chain,
    Connection,
    Conv,
    Dense,
    Flatten,
    Layer,
    LayerNorm,
    MaxPool,
    Parallel,
    SkipConnection,
    Softmax,
)
from diptych.model.model import Model
from diptych.preprocessing import NAMES, named
from layer_cases import TABLE, Weights, case
from refusals import Refusal, value_or_refusal

BOTH = (".safetensors", ".onnx")


def sample() -> Model:
    w = Weights(0)
    block = Chain((Conv(w(4, 4, 3, 3), w(4), padding=((1, 1), (1, 1))), BatchNorm(w(4), w(4))))
    layers = (
        Conv(w(4, 3, 3, 3), w(4), activation=Activation("leakyrelu", (0.2,))),
        SkipConnection(block, Connection("add")),
        Parallel(Connection("concatenate"), (block, MaxPool((3, 3), (1, 1), ((1, 1), (1, 1))))),
        Flatten(),
        LayerNorm((288,), epsilon=1e-5),
        Dense(w(2, 288), w(2)),
        Softmax(),
    )
    recipe = named(next(iter(NAMES)))
    return Model(Chain(layers), recipe, ("a", "b"), (3, 8, 8), True, "sample", notes={"accuracy": 1.0})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("written")
    for suffix in BOTH:
        formats.write(sample(), folder / f"m{suffix}")
    return {suffix: (folder / f"m{suffix}").read_bytes() for suffix in BOTH}


def outcome(path: Path, content: bytes) -> Model | Refusal:
    """What reading gives: a model or a refusal of one line; anything else fails the test."""
    path.write_bytes(content)
    end: Model | Refusal = value_or_refusal(formats.read, path)
    assert isinstance(end, Model) or len(str(end)) < 600
    return end


# ---- Bytes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", BOTH)
def test_a_file_cut_off_anywhere_is_refused(suffix: str, files: dict[str, bytes], tmp_path: Path) -> None:
    whole = files[suffix]
    assert isinstance(outcome(tmp_path / f"m{suffix}", whole), Model)
    for length in range(0, len(whole), 64):
        assert isinstance(outcome(tmp_path / f"m{suffix}", whole[:length]), FormatError), length


EDITS = st.lists(
    st.tuples(
        st.integers(0, 3000),
        st.sampled_from(["change", "insert", "delete"]),
        st.binary(min_size=1, max_size=9),
        st.integers(1, 64),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", BOTH)
@settings(max_examples=150)
@given(edits=EDITS)
def test_changed_bytes_give_a_sentence_or_a_model(
    suffix: str,
    edits: list[tuple[int, str, bytes, int]],
    files: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    content = bytearray(files[suffix])
    for place, kind, new, count in edits:
        place %= len(content)
        if kind == "change":
            content[place] = new[0]
        elif kind == "insert":
            content[place:place] = new
        else:
            del content[place : place + count]
    end = outcome(tmp_path_factory.getbasetemp() / f"mutant{suffix}", bytes(content))
    assert isinstance(end, Refusal) or all(isinstance(layer, Layer) for _, layer in end.walk())


def safetensors_of(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    "content",
    [
        safetensors_of(b"{}", length=2**63),
        safetensors_of(b"{}", length=2**40),
        safetensors_of(b"{}", bytes(100), length=50),
        safetensors_of(b"{" * 2000, bytes(8)),
        safetensors_of(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        safetensors_of(b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}', bytes(4)),
        safetensors_of(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', bytes(4)),
        safetensors_of(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', bytes(8)),
        safetensors_of(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}', bytes(8)),
        safetensors_of(b'{"a":{"dtype":"X99","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        safetensors_of(b'{"__metadata__":{"diptych":7}}'),
        safetensors_of(b'{"__metadata__":{"diptych":"{"}}'),
        safetensors_of(b'{"__metadata__":{"diptych":"[]"}}'),
        safetensors_of(json.dumps({"__metadata__": {"diptych": "[" * 100_000}}).encode()),
        safetensors_of(json.dumps({"__metadata__": {"diptych": "9" * 10_000}}).encode()),
        safetensors_of(json.dumps({"__metadata__": {"diptych": '{"version": 1e999}'}}).encode()),
    ],
)
def test_lying_headers_are_refused(content: bytes, tmp_path: Path) -> None:
    assert isinstance(outcome(tmp_path / "m.safetensors", content), FormatError)


def test_a_header_longer_than_any_document_is_not_parsed(tmp_path: Path) -> None:
    refused = outcome(tmp_path / "m.safetensors", safetensors_of(b"{}" + b" " * 2**24))
    assert "says its header is 16777218 bytes long" in str(refused)


def lie(change: Callable[[Any], None], content: bytes) -> bytes:
    proto = onnx.load_from_string(content)
    change(next(t for t in proto.graph.initializer if t.name == "0.weight"))
    return proto.SerializeToString()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.dims.append(2**40),
        lambda t: t.dims.append(0),
        lambda t: t.dims.insert(0, -1),
        lambda t: t.ClearField("dims"),
        lambda t: t.ClearField("raw_data"),
        lambda t: setattr(t, "data_type", 1000),
        lambda t: setattr(t, "data_type", onnx.TensorProto.INT8),
        lambda t: setattr(t, "data_type", onnx.TensorProto.STRING),
        lambda t: setattr(t, "data_location", onnx.TensorProto.EXTERNAL),
        lambda t: setattr(t, "name", "elsewhere"),
    ],
)
def test_lying_tensors_are_refused(
    change: Callable[[Any], None], files: dict[str, bytes], tmp_path: Path
) -> None:
    refused = outcome(tmp_path / "m.onnx", lie(change, files[".onnx"]))
    assert isinstance(refused, FormatError)
    assert "the array '0.weight'" in str(refused)


def test_a_foreign_onnx_file_that_takes_no_batch_says_so(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(n, 1, []) for n in "xy"]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    proto = onnx.helper.make_model(graph, producer_name="pytorch")
    result = outcome(tmp_path / "m.onnx", proto.SerializeToString())
    assert isinstance(result, FormatError)
    assert "m.onnx cannot be read as a model: its input must have a shape of 1 to 5 axes" in str(result)


def test_lies_about_size_cost_no_memory(tmp_path: Path, files: dict[str, bytes]) -> None:
    hostile = {
        "a.safetensors": safetensors_of(b"{}", length=2**40),
        "b.safetensors": safetensors_of(b'{"a":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4]}}'),
        "c.onnx": lie(lambda t: t.dims.append(2**40), files[".onnx"]),
    }
    for name, content in hostile.items():
        (tmp_path / name).write_bytes(content)
        tracemalloc.start()
        with pytest.raises(FormatError):
            formats.read(tmp_path / name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * len(content) + 2**20


# ---- Documents ----------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any], dict[str, Any]], object]


def layer(index: int, **fields: Any) -> Change:
    return lambda document, arrays: document["layers"]["layers"][index].update(fields)


def top(**fields: Any) -> Change:
    return lambda document, arrays: document.update(fields)


def array(name: str, value: Any) -> Change:
    return lambda document, arrays: arrays.update({name: value})


WRONG: dict[str, tuple[Change, str]] = {
    "a text for a list": (
        layer(0, stride="x"),
        "layer 0 (Conv): field 'stride' must be a list of whole numbers, got 'x'",
    ),
    "too few strides": (
        layer(0, stride=[2]),
        "layer 0 (Conv): field 'stride' must be 2 whole numbers of 1 or more, got (2,)",
    ),
    "a stride of nothing": (layer(0, stride=[0, 1]), "field 'stride' must be 2 whole numbers"),
    "a huge stride": (layer(0, stride=[2**40, 1]), "must be a whole number up to 2147483647"),
    "half a stride": (layer(0, stride=[1.5, 1]), "field 'stride' must be a whole number"),
    "true for a number": (layer(0, stride=[True, 1]), "field 'stride' must be a whole number"),
    "a huge list": (layer(0, stride=[1] * 10_000), "holds 10000 whole numbers, more than the 64 allowed"),
    "padding of one": (layer(0, padding=[[1], [1]]), "field 'padding' must hold 2 whole numbers at a time"),
    "negative padding": (layer(0, padding=[[-1, 0], [0, 0]]), "field 'padding' must be 2 pairs"),
    "no groups": (layer(0, groups=0), "field 'groups' must be 1 or more, got 0"),
    "groups that do not divide": (layer(0, groups=3), "3 groups do not divide 4 output channels"),
    "an unknown activation": (
        layer(0, activation={"name": "rm -rf", "parameters": []}),
        "unknown activation 'rm -rf'",
    ),
    "a parameter too many": (
        layer(0, activation={"name": "relu", "parameters": [1.0]}),
        "relu takes 0 parameters",
    ),
    "no activation": (layer(0, activation=None), "field 'activation' must be an object"),
    "an unknown layer": (layer(0, layer="os.system"), "layer 0 is of the kind 'os.system'"),
    "a list for a layer's name": (layer(0, layer=["Conv"]), "layer 0 is of the kind a list of 1"),
    "an unknown field": (layer(0, colour="red"), "layer 0 (Conv) has the unknown field 'colour'"),
    "no weight": (
        lambda d, a: d["layers"]["layers"][0].pop("weight"),
        "layer 0 (Conv) has no field 'weight'",
    ),
    "null for a weight": (layer(0, weight=None), "layer 0 (Conv): field 'weight' must be an object"),
    "numbers for a weight": (layer(0, weight=[[1.0]]), "layer 0 (Conv): field 'weight' must be an object"),
    "an array that is not there": (layer(0, weight={"array": "9.weight"}), "names the array '9.weight'"),
    "an array too many": (
        array("spare", np.zeros(1, np.float32)),
        "1 arrays belong to no layer, such as 'spare'",
    ),
    "a weight of whole numbers": (
        array("0.weight", np.zeros((4, 3, 3, 3), np.int8)),
        "layer 0 (Conv): weights must be float16, float32 or float64, got int8",
    ),
    "a weight of two axes": (
        array("0.weight", np.zeros((4, 3), np.float32)),
        "layer 0 (Conv): field 'weight' must have 3 to 5 axes, got the shape (4, 3)",
    ),
    "an empty weight": (array("0.weight", np.zeros((4, 0, 3, 3), np.float32)), "field 'weight' is empty"),
    "a bias of another length": (
        array("0.bias", np.zeros(5, np.float32)),
        "layer 0 (Conv): field 'bias' must have the shape (4,), got (5,)",
    ),
    "NaN for epsilon": (layer(4, epsilon=float("nan")), "field 'epsilon' must be a finite number, got nan"),
    "infinity for epsilon": (
        layer(4, epsilon="inf"),
        "'epsilon' must be a number of 0 or more, got inf",
    ),
    "a text for epsilon": (layer(4, epsilon="1e-5"), "field 'epsilon' must be a finite number, got '1e-5'"),
    "an unknown formula": (layer(4, formula="magic"), "layer 4 (LayerNorm): field 'formula' must be one of"),
    "a shape of nothing": (layer(4, shape=[]), "field 'shape' must be 1 to 8 whole numbers"),
    "a wrong connection": (
        layer(1, connection={"operation": "modulo", "axis": 1}),
        "field 'operation' must be one of 'add'",
    ),
    "no branches": (layer(2, branches=[]), "layer 2 (Parallel): it must have at least one branch"),
    "the same as nothing": (layer(2, branches=[{"same": "7"}]), "says it is the same as '7'"),
    "the same as itself": (layer(2, branches=[{"same": "2"}]), "says it is the same as '2'"),
    "the same and more": (layer(2, branches=[{"same": "0", "x": 1}]), "says it is the same as '0'"),
    "no layers": (lambda d, a: d.pop("layers"), "the model document has no field 'layers'"),
    "a leaf outermost": (top(layers={"layer": "Flatten"}), "the outermost layer must be a Chain"),
    "a list for the layers": (top(layers=[]), "the outermost layer must be an object"),
    "an unknown key": (top(code="import os"), "the model document has the unknown field 'code'"),
    "no version": (lambda d, a: d.pop("version"), "must state its version"),
    "a version to come": (top(version=99), "the model document has version 99"),
    "a text for the version": (top(version="1"), "must state its version, got '1'"),
    "a class too many": (top(classes=["a", "b", "c"]), "gives 2 outputs but the class list has 3 names"),
    "classes of numbers": (top(classes=[1, 2]), "the field 'classes' must be a string, got 1"),
    "an input of nothing": (top(input_shape=[]), "does not take the input shape () that it records"),
    "an input of another shape": (top(input_shape=[4, 8, 8]), "does not take the input shape (4, 8, 8)"),
    "a text for trained": (top(trained="yes"), "the field 'trained' must be true or false, got 'yes'"),
    "a list for the notes": (top(notes=[]), "the field 'notes' must be an object"),
    "a wrong source": (top(source={"url": "x"}), "the field 'source' has the unknown field 'url'"),
    "a wrong recipe": (top(preprocessing={"steps": [{"step": "exec"}]}), ""),
    "names for other layers": (
        lambda d, a: d["layers"].update(names=["one"]),
        "1 names were given for 7 layers",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_document_that_is_wrong_in_one_place_is_refused(name: str) -> None:
    change, words = WRONG[name]
    document, arrays = to_document(sample())
    from_document(document, arrays)
    change(document, arrays)
    with pytest.raises(ModelError) as caught:
        from_document(document, arrays)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def chain(*layers: Any) -> dict[str, Any]:
    return {"version": 1, "layers": {"layer": "Chain", "layers": list(layers)}}


def test_layers_nested_without_end_are_refused() -> None:
    layer: dict[str, Any] = {"layer": "Flatten"}
    for _ in range(500):
        layer = {"layer": "Chain", "layers": [layer]}
    with pytest.raises(ModelError, match="deeper than 64"):
        from_document(chain(layer), {})


def test_layers_that_double_without_end_are_refused() -> None:
    layers: list[Any] = [{"layer": "Chain", "layers": [{"layer": "Flatten"}]}]
    for index in range(60):
        again = {"same": str(index)}
        layers.append({"layer": "Chain", "layers": [again, again]})
    with pytest.raises(ModelError, match="more than 100000 layers"):
        from_document(chain(*layers), {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("inf"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(p for key, inner in steps for p in places(inner, (*way, key)))]


@pytest.mark.slow
@settings(max_examples=400)
@given(data=st.data())
def test_any_value_anywhere_gives_a_sentence_or_a_model(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([n for n in TABLE if not n.startswith("activation")] + ["sample"]))
    document, arrays = to_document(sample() if name == "sample" else case(name)[0])
    document = copy.deepcopy(document)
    *way, last = data.draw(st.sampled_from(places(document)[1:]))
    target: Any = document
    for step in way:
        target = target[step]
    target[last] = data.draw(JSON)
    sentence = ""
    try:
        to_document(from_document(document, arrays))
    except ModelError as error:
        sentence = str(error)
    assert "\n" not in sentence


# ---- Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", BOTH)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_numbers_are_read_and_named(suffix: str, bad: float, tmp_path: Path) -> None:
    model = sample()
    model.weights()["5.bias"][1] = bad
    formats.write(model, tmp_path / f"m{suffix}")
    loaded = formats.read(tmp_path / f"m{suffix}")
    assert np.array_equal(loaded.weights()["5.bias"], model.weights()["5.bias"], equal_nan=True)
    with pytest.raises(DiptychError, match=r"5\.bias of sample holds 1 NaN or infinite"):
        loaded.check()
