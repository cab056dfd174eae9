"""ONNX graphs that no layers express, as models that ONNX Runtime runs as they are.

Predictions, traces by the names of values, reports and comparisons work; other engines and formats refuse them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.shape_inference
from onnx import TensorProto, helper, numpy_helper

from diptych.errors import FormatError, ModelError, UnsupportedLayer
from diptych.files import replacing
from diptych.formats.onnx import WHOLE_KEY
from diptych.formats.onnx.reading import READ, checked_input, chosen_output
from diptych.formats.onnx.reading_weights import initialisers
from diptych.model.layers import Chain
from diptych.model.layers.whole import WholeGraph
from diptych.model.model import Model, Source
from diptych.model.validity import check_classes
from diptych.preprocessing import Preprocessing

__all__ = ["read_marked", "read_quantised", "read_whole", "traced", "write_whole"]


_LOOPS = ("Loop", "Scan", "SequenceMap")
_RANDOM = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
)
_MOST_VALUES = 2**28  # of one sample's value, as in the engines
_MOST_BYTES = 2**31 - 2**20
_SIZES = (224, 256, 320, 416, 512, 640, 299, 128, 64, 32)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def read_whole(proto: onnx.ModelProto, folder: Path | None, output: str | None, obstacle: str) -> Model:
    """The model of a graph that is run as it is.

    Args:
        proto: The graph; may be untrusted.
        folder: Where its file lies, for weights in other files beside it.
        output: The name of the output to use; needed where there are several.
        obstacle: Why it has no layers.

    Raises:
        UnsupportedLayer: It cannot be run so either, with the obstacle and the reason.
        FormatError: It is damaged.
    """
    checked_input(proto.graph)
    return _whole(
        proto, folder, chosen_output(proto.graph, output), obstacle, tuple(_unread_kinds(proto, obstacle))
    )


def read_quantised(proto: onnx.ModelProto, shape: tuple[int, ...]) -> Model:
    """The model of a graph that computes with 8-bit integers, to be run as it is on samples of a shape.

    Raises:
        UnsupportedLayer: It cannot be run so.
    """
    why = "it computes with 8-bit integers"
    return _whole(proto, None, chosen_output(proto.graph, None), why, (), shape)


def _whole(
    proto: onnx.ModelProto,
    folder: Path | None,
    output: str,
    obstacle: str,
    others: tuple[str, ...],
    shape: tuple[int, ...] | None = None,
) -> Model:
    if len(proto.functions):
        proto = onnx.inliner.inline_local_functions(proto)
    proto = _in_one(proto, folder)
    every = [node.op_type for node in _nodes(proto.graph)]
    for kind in (*_LOOPS, *_RANDOM):
        if kind in every:
            what = "loops" if kind in _LOOPS else "draws random numbers"
            raise _refused(obstacle, f"it {what} ({kind})")
    entry = _entry(proto, obstacle)
    inferred, sizes = _inferred(proto, entry, output, obstacle, shape)
    shapes = dict(_shapes(inferred))
    too_large = next(
        (name for name, (shape, _) in shapes.items() if np.prod(shape, dtype=float) > _MOST_VALUES), None
    )
    if too_large is not None:
        raise _refused(obstacle, f"its value {too_large[:60]!r} would have the shape {shapes[too_large][0]}")
    values = tuple(
        (name, shape[1:]) for name, (shape, kind) in shapes.items()
        if kind == TensorProto.FLOAT and shape[:1] == (1,) and name not in (entry, output)
    )  # fmt: skip
    layer = WholeGraph(
        np.frombuffer(proto.SerializeToString(deterministic=True), np.uint8),
        entry, output, sizes, shapes[output][0][1:], values, len(every), (obstacle, *others),
        _gives_probabilities(proto, output),
    )  # fmt: skip
    remarks = [f"it is run as a whole, by ONNX Runtime alone: {obstacle}"]
    declared = next(i for i in proto.graph.input if i.name == entry).type.tensor_type.shape.dim
    if any(not d.dim_value for d in declared[1:]):
        remarks.append(f"the graph leaves its input's size free, and is used with {sizes}")
    return Model(
        Chain((layer,)), input_shape=sizes, name=proto.graph.name[:80],
        source=Source("ONNX", proto.producer_name[:80], proto.producer_version[:80], tuple(remarks)),
    )  # fmt: skip


def _unread_kinds(proto: onnx.ModelProto, obstacle: str) -> list[str]:
    """A sentence for each further kind of operation that no rule reads, the most frequent first."""
    kinds = Counter(node.op_type for node in _nodes(proto.graph) if node.op_type not in READ)
    return [
        f"nor is there one for {kind} ({'once' if count == 1 else f'{count} times'})"
        for kind, count in kinds.most_common()
        if f"({kind})" not in obstacle
    ]


def _gives_probabilities(proto: onnx.ModelProto, output: str) -> bool:
    """Whether the last operation is a softmax, perhaps rounded to 8 bits afterwards."""
    makers = {name: node for node in proto.graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in ("DequantizeLinear", "QuantizeLinear", "Identity"):
        node = makers.get(node.input[0])
    return node is not None and node.op_type == "Softmax"


def _refused(obstacle: str, why: str) -> UnsupportedLayer:
    return UnsupportedLayer(
        "", "Diptych", f"{obstacle}; nor can it be run as a whole: {why}", what="the graph"
    )


def _nodes(graph: Any) -> Iterator[Any]:
    """Every node of a graph and of the graphs inside its nodes."""
    for each in (graph, *_inner_graphs(graph)):
        yield from each.node


def _inner_graphs(graph: Any) -> Iterator[Any]:
    """The graphs inside the nodes of a graph."""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield inner
                yield from _inner_graphs(inner)


def _in_one(proto: onnx.ModelProto, folder: Path | None) -> onnx.ModelProto:
    """A copy that holds all weights itself, and nothing but the graph."""
    inner = [tensor for graph in _inner_graphs(proto.graph) for tensor in graph.initializer]
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in inner):
        raise FormatError(
            "weights of a graph inside one of its nodes lie in another file; save the model as one file"
        )
    outside = [t.name for t in proto.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    arrays = initialisers(proto.graph, folder) if outside else {}
    if sum(array.nbytes for array in arrays.values()) > _MOST_BYTES:
        raise FormatError("it has more than 2 GiB of weights, and is no chain of layers")
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    del whole.metadata_props[:]  # what is said of the graph is not part of it
    for tensor in whole.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    return whole


def _entry(proto: onnx.ModelProto, obstacle: str) -> str:
    """The name of the only input; raises where it is no batch of float32 numbers."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    (given,) = [each for each in proto.graph.input if each.name not in weights]
    kind = given.type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        raise _refused(obstacle, "its input is not float32")
    if len(kind.shape.dim) < 2 or kind.shape.dim[0].dim_value > 1:
        raise _refused(obstacle, "its input's first axis is not a batch of any size, or of one")
    return str(given.name)


def _inferred(
    proto: onnx.ModelProto, entry: str, output: str, obstacle: str, wanted: tuple[int, ...] | None
) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """The graph with the shapes of its values for one sample, and the sample's shape."""
    index = [given.name for given in proto.graph.input].index(entry)
    sizes = [d.dim_value or None for d in proto.graph.input[index].type.tensor_type.shape.dim][1:]
    channels = 3 if len(sizes) == 3 and sizes[0] is None else None
    why = "the shape of its output is not known before it runs"
    tried = [
        tuple(n or (channels if i == 0 and channels else size) for i, n in enumerate(sizes))
        for size in _SIZES
    ]
    for shape in [wanted] if wanted is not None else tried:
        trial = onnx.ModelProto()
        trial.CopyFrom(proto)
        trial.graph.input[index].CopyFrom(
            helper.make_tensor_value_info(entry, TensorProto.FLOAT, (1, *shape))
        )
        for declared in trial.graph.output:
            declared.type.tensor_type.ClearField("shape")
        del trial.graph.value_info[:]
        try:
            found = onnx.shape_inference.infer_shapes(
                trial, check_type=True, strict_mode=True, data_prop=True
            )
        except Exception as error:  # the library raises several kinds for a graph that contradicts itself
            why = " ".join(str(error).split())[:120]
            continue
        known = dict(_shapes(found)).get(output)
        if known is None:
            continue
        if known[1] not in _FLOATS:
            raise _refused(obstacle, f"its output {output!r} holds no real numbers")
        if known[0][:1] != (1,):
            raise _refused(obstacle, f"its output {output!r} has the shape {known[0]}, without a batch axis")
        return found, shape
    raise _refused(obstacle, why)


def _shapes(proto: onnx.ModelProto) -> Iterator[tuple[str, tuple[tuple[int, ...], int]]]:
    """The shape and the kind of every value whose sizes are all known, in order of computation."""
    told = {value.name: value.type.tensor_type for value in (*proto.graph.value_info, *proto.graph.output)}
    for name in (name for node in proto.graph.node for name in node.output):
        kind = told.get(name)
        if kind is not None and kind.HasField("shape") and all(d.dim_value > 0 for d in kind.shape.dim):
            yield name, (tuple(d.dim_value for d in kind.shape.dim), kind.elem_type)


# ---- Files ----------------------------------------------------------------------------------------------


def write_whole(model: Model, layer: WholeGraph, path: str | Path) -> None:
    """Writes the graph as it is, with the recipe, the classes and what else is known in its metadata.

    Raises:
        OutputError: The file cannot be written.
    """
    proto = onnx.ModelProto()
    proto.ParseFromString(layer.content.tobytes())
    facts = {
        "name": model.name,
        "classes": None if model.classes is None else list(model.classes),
        "preprocessing": None if model.preprocessing is None else model.preprocessing.to_document(),
        "trained": model.trained,
        "output": layer.result,
        "obstacles": list(layer.obstacles),
        "notes": dict(model.notes),
        "shape": list(layer.entry_shape),
    }
    helper.set_model_props(proto, {WHOLE_KEY: json.dumps(facts, ensure_ascii=False, sort_keys=True)})
    with replacing(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))


def read_marked(proto: onnx.ModelProto, text: str, output: str | None) -> Model:
    """The model of a file that `write_whole` has written.

    Args:
        proto: The graph.
        text: The content of its metadata entry `WHOLE_KEY`.
        output: As for `read_whole`.

    Raises:
        FormatError: The file is damaged.
        UnsupportedLayer: As for `read_whole`.
    """
    try:
        facts = json.loads(text)
        obstacle, *others = map(str, facts["obstacles"])
        checked_input(proto.graph)
        chosen, shape = chosen_output(proto.graph, output or facts["output"]), facts.get("shape")
        sizes = None if shape is None else tuple(int(n) for n in shape)
        model = _whole(proto, None, chosen, obstacle, tuple(others), sizes)
        recipe, classes, trained = facts.get("preprocessing"), facts.get("classes"), facts.get("trained")
        told = model.with_(
            name=str(facts.get("name") or "")[:80],
            classes=None if classes is None else tuple(classes),
            preprocessing=None if recipe is None else Preprocessing.from_document(recipe),
            trained=trained if isinstance(trained, bool) else None,
            notes=dict(facts.get("notes") or {}),
        )
        check_classes(told)
    except UnsupportedLayer:
        raise
    except (ModelError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(
            f"its metadata entry {WHOLE_KEY} is damaged: {error}; convert the model again"
        ) from error
    return told


def traced(layer: WholeGraph) -> bytes:
    """The serialised graph with all of `values` as outputs, before the one that is used."""
    proto = onnx.ModelProto()
    proto.ParseFromString(layer.content.tobytes())
    del proto.graph.output[:]
    for name in (*(name for name, _ in layer.values), layer.result):
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return bytes(proto.SerializeToString())
