"""ONNX files: a model is written as a graph of standard operations, and read back exactly as it was.

The graph takes batches of any size, and pictures of any size unless a layer needs a fixed one. The model document is
in the metadata entry "diptych"; the weights are the initialisers, under the names that the document uses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper

from diptych.errors import FormatError, ModelError, ShapeError, UnsupportedLayer
from diptych.files import replacing
from diptych.formats.onnx.graph import OnnxGraph, OnnxSite, refer, store
from diptych.formats.onnx.layers import LAYER_RULES, activate, join
from diptych.formats.onnx.preprocessing import put_in_front
from diptych.model.document import from_document, to_document
from diptych.model.entry import sample_shape
from diptych.model.layers import (
    Activated,
    Array,
    Connection,
    Graph,
    Layer,
    Shape,
    child_path,
    fold,
)
from diptych.model.layers.whole import WholeGraph, whole_graph
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes

__all__ = [
    "WHOLE_KEY",
    "parsed_whole",
    "read",
    "read_quantised",
    "read_whole",
    "to_living",
    "to_onnx",
    "to_skeleton",
    "write",
]

Place: TypeAlias = tuple[str, Shape]  # the name and the shape of a value

_KEY = "diptych"
WHOLE_KEY = "diptych.whole"
"""The metadata entry of a file that is run as it is, with the recipe, the classes and what else is known."""
_LARGEST = 2**31 - 2**20  # bytes of weights: the limit of protobuf, less some space for the graph
_AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


# ---- The graph ----------------------------------------------------------------------------------------


def to_onnx(model: Model, every_layer: bool = False) -> onnx.ModelProto:
    """The ONNX graph of a model, with its weights.

    The input is "input", float32 (N, C, H, W) or another shape that the model takes. N is free, and so are the spatial
    axes unless a layer needs a fixed size. If the model does not record its input shape, `sample_shape` derives one.

    Args:
        model: Any model.
        every_layer: Whether the outputs are those of all layers, each named by its path. Otherwise there is one
            output, "output"; the further outputs of a `Graph` that is the last layer are "output/NAME".

    Returns:
        The graph, of operator set 19.

    Raises:
        UnsupportedLayer: No operations of ONNX compute a layer exactly, or the weights exceed 2 GiB.
        ModelError: The input shape is neither recorded nor derivable.
    """
    graph, proto = _finished(model, every_layer, further_outputs=not every_layer)
    _check_size(graph.weights)
    for name, array in graph.weights.items():
        store(proto, name, array)
    return proto


def to_skeleton(model: Model, every_layer: bool = False) -> tuple[bytes, dict[str, Array]]:
    """The ONNX graph of a model without its weights.

    The weights are declared as external data, so that a runtime can be given the arrays: they are not copied, and may
    exceed 2 GiB. Means over many values are taken one axis after the other, which ONNX Runtime adds up more exactly.

    Args:
        model, every_layer: As for `to_onnx`.

    Returns:
        The serialised graph, and the weights by name.

    Raises:
        UnsupportedLayer, ModelError: As for `to_onnx`.
    """
    graph, proto = _finished(model, every_layer, exact_means=True)
    for name, array in graph.weights.items():
        refer(proto, name, array)
    return proto.SerializeToString(deterministic=True), graph.weights


def to_living(model: Model, every_layer: bool = True) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """The graph that a page runs: it begins with the recipe, and gives the output of every layer.

    Args:
        model: A model with a recipe.
        every_layer: False for the last output alone.

    Returns:
        The serialised graph with its weights, and the name and the label of every output, in order of computation.

    Raises:
        UnsupportedLayer, ModelError: As for `to_onnx`, or the recipe does not fit.
    """
    graph, proto = _finished(model, every_layer, pixels_in=True)
    _check_size(graph.weights)
    for name, array in graph.weights.items():
        store(proto, name, array)
    labels = {path: layer.label for path, layer in model.walk()}
    outputs = tuple((output.name, labels.get(output.name, "")) for output in proto.graph.output)
    return bytes(proto.SerializeToString(deterministic=True)), outputs


def _check_size(arrays: dict[str, Array]) -> None:
    size = sum(array.nbytes for array in arrays.values())
    if size > _LARGEST:
        raise UnsupportedLayer(
            "",
            "one ONNX file",
            "its limit is 2 GiB; use .safetensors",
            f"{size / 2**30:.1f} GiB of weights",
        )


def _finished(
    model: Model,
    every_layer: bool,
    pixels_in: bool = False,
    further_outputs: bool = False,
    exact_means: bool = False,
) -> tuple[OnnxGraph, onnx.ModelProto]:
    shape = (1, *sample_shape(model))
    spatial = 3 <= len(shape) <= 5
    graph, shapes = _written(model, shape, every_layer, exact_means)
    others = [(*shape[:2], *(n * factor for n in shape[2:])) for factor in (2, 3)] if spatial else []
    free = spatial and all(_same_graph(model, graph, other, every_layer) for other in others)
    other_shapes = layer_shapes(model, others[0]) if free else shapes
    names = {path: path for path in shapes} if every_layer else {"output": _last(shapes)}
    if further_outputs:
        for name, path in _further_outputs(model).items():
            names[graph.add("Identity", [path], name)] = path
    inputs = [put_in_front(graph, model.preprocessing, shape, free) if pixels_in else _input(shape, free)]
    outputs = [
        _output(name, shapes.get(path, shape), other_shapes.get(path, others[0] if free else shape))
        for name, path in names.items()
    ]
    return graph, graph.model(inputs, outputs)


def _same_graph(model: Model, graph: OnnxGraph, shape: Shape, every_layer: bool) -> bool:
    """Whether an input of another size gives the same graph, which then holds no size as a constant."""
    try:
        other, _ = _written(model, shape, every_layer, graph.exact_means)
    except (ShapeError, UnsupportedLayer):
        return False
    same_constants = graph.constants.keys() == other.constants.keys() and all(
        np.array_equal(value, other.constants[name]) for name, value in graph.constants.items()
    )
    return same_constants and graph.nodes == other.nodes


def _written(
    model: Model, shape: Shape, every_layer: bool, exact_means: bool
) -> tuple[OnnxGraph, dict[str, Shape]]:
    """The graph for an input of `shape`, and the shape of every layer's output."""
    graph, shapes = OnnxGraph(model.layers, exact_means), dict[str, Shape]()

    def leaf(layer: Layer, value: Place, path: str) -> Place:
        name, entry = value
        site = OnnxSite(graph, path, name, entry)
        rule = LAYER_RULES.get(type(layer))
        if rule is None:
            raise UnsupportedLayer(f"{path} ({type(layer).__name__})", "ONNX", "no rule is written for it")
        result = rule(site, layer)
        if isinstance(layer, Activated):
            result = activate(site, layer.activation, result)
        return graph.named(result, path), layer.output_shape(entry)

    def joined(connection: Connection, values: Sequence[Place], path: str) -> Place:
        names, entries = [name for name, _ in values], [entry for _, entry in values]
        result = join(OnnxSite(graph, path, names[0], entries[0]), connection, names)
        return graph.named(result, path), connection.joined_shape(entries)

    def visit(path: str, layer: Layer, value: Place) -> None:
        name, shapes[path] = value
        if every_layer and name != path:
            graph.named(name, path)

    value, _ = fold(model.layers, ("input", shape), leaf, joined, visit)
    if not every_layer:
        graph.named(value, "output", final=True)
    return graph, shapes


def _further_outputs(model: Model) -> dict[str, str]:
    """ "output/NAME" -> path of the node, for the outputs after the first of a `Graph` that is the last layer."""
    layers = model.layers.layers
    if not layers or not isinstance(layers[-1], Graph):
        return {}
    last, path = layers[-1], str(len(layers) - 1)
    further = [name for name in last.outputs[1:] if name != Graph.INPUT]
    return {f"output/{name}": child_path(path, last.names.index(name)) for name in further}


def _last(shapes: dict[str, Shape]) -> str:
    top = [path for path in shapes if "." not in path]
    return top[-1] if top else ""


def _input(shape: Shape, free: bool) -> Any:
    sizes = _AXES[len(shape) - 2] if free else shape[2:]
    return helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *shape[1:2], *sizes])


def _output(name: str, shape: Shape, larger: Shape) -> Any:
    sizes = [n if n == m else None for n, m in zip(shape[1:], larger[1:], strict=True)]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *sizes])


# ---- Files --------------------------------------------------------------------------------------------


def write(model: Model, path: str | Path, preprocessing_inside: bool = False) -> None:
    """Writes a model as one .onnx file without external data. The same model always gives the same bytes.

    Args:
        model: The model to write.
        path: The file; an existing one is replaced.
        preprocessing_inside: Whether the graph begins with the recipe of the model. Its input is then "pixels", colour
            pictures as uint8 (N, H, W, 3), all of the same size. `read` gives the same model either way.

    Raises:
        UnsupportedLayer: ONNX cannot express a layer, or the weights exceed 2 GiB.
        ModelError: The model contradicts itself, or `preprocessing_inside` is set and it has no recipe that fits.
        OutputError: The file cannot be written.
    """
    if (whole := whole_graph(model.layers)) is not None:
        _write_whole(model, whole, path, preprocessing_inside)
        return
    document, arrays = to_document(model)
    _check_size(arrays)
    _, proto = _finished(model, every_layer=False, pixels_in=preprocessing_inside, further_outputs=True)
    for name, array in arrays.items():  # all of them, also those that the graph uses in another form
        store(proto, name, array)
    entries = {_KEY: json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)}
    if model.classes is not None:
        entries["classes"] = json.dumps(model.classes, ensure_ascii=False)
    helper.set_model_props(proto, entries)
    with replacing(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))


def _write_whole(model: Model, layer: WholeGraph, path: str | Path, preprocessing_inside: bool) -> None:
    from diptych.formats.onnx.whole import write_whole

    if preprocessing_inside or len(model.layers.layers) > 1:
        raise layer.refused("ONNX with more operations around it")
    write_whole(model, layer, path)


def read(path: str | Path, output: str | None = None) -> Model:
    """Reads an .onnx file, and the weights in other files beside it.

    Args:
        path: The file.
        output: The name of the output that the model gives; needed where a graph of another program has several.

    Returns:
        The model that was written, if the file is from `write`; otherwise a model made from the graph.

    Raises:
        FormatError: The file is damaged.
        UnsupportedLayer: Names a node that no layer can express.
    """
    path = Path(path)
    proto = _parsed(path)
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    if WHOLE_KEY in entries:
        from diptych.formats.onnx.whole import read_marked

        return read_marked(proto, entries[WHOLE_KEY], output)
    if _KEY not in entries:
        return _foreign(path, proto, output)
    try:
        tensors = [tensor for tensor in proto.graph.initializer if "/" not in tensor.name]
        return from_document(json.loads(entries[_KEY]), {t.name: _array(t) for t in tensors})
    except (ModelError, FormatError) as error:
        raise FormatError(f"{path} is damaged or was edited: {error}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} holds a model document that is not JSON: {error}") from error


def read_whole(path: str | Path, output: str | None, obstacle: str) -> Model:
    """Reads a graph that no layers express, as a model that ONNX Runtime runs as it is; see `onnx.whole`.

    Args:
        path: The file.
        output: The name of the output to use; needed where there are several.
        obstacle: Why `read` refuses it.

    Raises:
        FormatError, UnsupportedLayer: It cannot be run either.
    """
    from diptych.formats.onnx import whole

    path = Path(path)
    try:
        return whole.read_whole(_parsed(path), path.parent, output, obstacle)
    except UnsupportedLayer:
        raise
    except (FormatError, ModelError) as error:
        raise FormatError(f"{path} cannot be read as a model: {error}") from error


def parsed_whole(content: bytes, obstacle: str) -> Model:
    """The graph in an .onnx file's content, as a model that ONNX Runtime runs as it is.

    Args:
        content: The bytes of the file.
        obstacle: Why it has no layers.

    Raises:
        UnsupportedLayer: It cannot be run either.
    """
    from diptych.formats.onnx import whole

    return whole.read_whole(onnx.load_from_string(content), None, None, obstacle)


def read_quantised(path: str | Path, shape: Sequence[int]) -> Model:
    """Reads a graph that computes with 8-bit integers, as a model that ONNX Runtime runs as it is.

    Args:
        path: A file of ONNX Runtime's quantiser.
        shape: Of one sample.

    Raises:
        FormatError, UnsupportedLayer: It cannot be run.
    """
    from diptych.formats.onnx import whole

    return whole.read_quantised(_parsed(Path(path)), tuple(shape))


def _foreign(path: Path, proto: onnx.ModelProto, output: str | None) -> Model:
    from diptych.formats.onnx.reading import read_graph  # not needed for writing

    try:
        return read_graph(proto, path.parent, output)
    except UnsupportedLayer:
        raise
    except (FormatError, ModelError) as error:
        raise FormatError(f"{path} cannot be read as a model: {error}") from error


def _parsed(path: Path) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise FormatError(f"{path} is damaged or cut off: it is not an ONNX message") from error
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}") from error
    # The parser returns strings that are not valid UTF-8 as bytes.
    if not all(isinstance(name, str) for name in _names(proto)):
        raise FormatError(f"{path} is damaged: a name in it is not text; copy or export it again")
    return proto


def _names(message: Any) -> Iterator[object]:
    """Every string in a protobuf message and in the messages inside it."""
    for field, value in message.ListFields():
        values = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        if field.type == field.TYPE_STRING:
            yield from values
        elif field.type == field.TYPE_MESSAGE:
            for part in values:
                yield from _names(part)


_DTYPES = {TensorProto.FLOAT16: "<f2", TensorProto.FLOAT: "<f4", TensorProto.DOUBLE: "<f8"}


def _array(tensor: TensorProto) -> Array:
    dtype = _DTYPES.get(tensor.data_type)
    if dtype is None or tensor.data_location == TensorProto.EXTERNAL:
        raise FormatError(f"the array {tensor.name[:60]!r} is not stored as float16, 32 or 64 in the file")
    shape, raw = tuple(tensor.dims), tensor.raw_data
    if any(n < 0 for n in shape) or math.prod(shape) * np.dtype(dtype).itemsize != len(raw):
        raise FormatError(f"the array {tensor.name[:60]!r} of shape {shape[:8]} has {len(raw)} bytes")
    return np.frombuffer(bytearray(raw), dtype).reshape(shape)
