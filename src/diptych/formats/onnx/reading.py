"""Makes a model from an ONNX graph of another program, by way of a `ValueGraph`.

The graph is not run: constants are computed, while of other values only the shape is followed. For sizes that the file
leaves free, usual sizes are tried; they stay free if no layer depends on them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from diptych.errors import FormatError, ModelError, ShapeError, UnsupportedLayer
from diptych.formats.graph import BATCH, Value, ValueGraph, first_or_merged, refusal
from diptych.formats.nesting import nested_steps
from diptych.formats.onnx.reading_constants import Folder
from diptych.formats.onnx.reading_operations import OPERATIONS, Node
from diptych.formats.patterns import as_chain
from diptych.model.document import to_document
from diptych.model.layers import Array, Chain
from diptych.model.model import Model, Source
from diptych.model.validity import check_layers

__all__ = ["read_graph"]

_SIZES = (224, 32, 64, 96, 128, 256, 299, 28, 16, 512, 60)
_MOST_NODES = 50_000
_LARGEST = 2**20


def read_graph(proto: onnx.ModelProto) -> Model:
    """The model that an ONNX graph computes.

    Args:
        proto: A graph with one input and one output; may be untrusted.

    Raises:
        UnsupportedLayer: Names a node that no layer can express.
        FormatError, ModelError: The graph contradicts itself.
    """
    try:
        return _read(proto)
    except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError, AssertionError) as error:
        raise FormatError(f"its graph is damaged: {error or type(error).__name__}") from error


def _read(proto: onnx.ModelProto) -> Model:
    weights = _initialisers(proto.graph)
    declared = _input(proto.graph, weights)
    layers, sizes = _with_sizes(proto, weights, declared)
    check_layers(layers)
    source = Source("ONNX", proto.producer_name[:80], proto.producer_version[:80])
    return Model(layers, input_shape=sizes, name=proto.graph.name[:80], source=source)


def _with_sizes(
    proto: onnx.ModelProto, weights: dict[str, Array], declared: tuple[int | None, ...]
) -> tuple[Chain, tuple[int | None, ...]]:
    """The layers, and the input shape, in which sizes are None if no layer depends on them."""
    free = [i for i, n in enumerate(declared[1:]) if n is None]
    if not free:
        sizes = tuple(n for n in declared[1:] if n is not None)
        return _layers(proto, weights, declared, sizes), sizes
    problem: ModelError | None = None
    for size in _SIZES:
        sizes = _filled(declared, size, proto, weights)
        try:
            layers = _layers(proto, weights, declared, sizes)
        except ShapeError as error:
            problem = problem or error
            continue
        return layers, _freed(proto, weights, declared, sizes, layers)
    raise FormatError(f"its input leaves sizes free, and none of the usual sizes fits: {problem}")


def _freed(
    proto: onnx.ModelProto,
    weights: dict[str, Array],
    declared: tuple[int | None, ...],
    sizes: tuple[int, ...],
    layers: Chain,
) -> tuple[int | None, ...]:
    larger = tuple(n if declared[i + 1] is not None or i == 0 else 2 * n for i, n in enumerate(sizes))
    try:
        other = _layers(proto, weights, declared, larger)
    except (ShapeError, UnsupportedLayer):
        return sizes
    if to_document(Model(layers))[0]["layers"] != to_document(Model(other))[0]["layers"]:
        raise ModelError(
            "its layers depend on the size of the picture, which the file leaves free; fix the input size "
            "where the model was made"
        )
    return tuple(
        n if n == m and i == 0 else declared[i + 1]
        for i, (n, m) in enumerate(zip(sizes, larger, strict=True))
    )


def _filled(
    declared: tuple[int | None, ...], size: int, proto: onnx.ModelProto, weights: dict[str, Array]
) -> tuple[int, ...]:
    channels = declared[1]
    if channels is None:
        first = next(
            (n for n in proto.graph.node if n.op_type in ("Conv", "Gemm") and n.input[1] in weights), None
        )
        shape = weights[first.input[1]].shape if first is not None else (3, 3)
        groups = next((int(a.i) for a in first.attribute if a.name == "group"), 1) if first is not None else 1
        channels = shape[1] * groups
    return (channels, *(size if n is None else n for n in declared[2:]))


# ---- One reading --------------------------------------------------------------------------------------


def _layers(
    proto: onnx.ModelProto,
    weights: dict[str, Array],
    declared: tuple[int | None, ...],
    sizes: tuple[int, ...],
) -> Chain:
    if len(proto.graph.node) > _MOST_NODES:
        raise FormatError(f"its graph has {len(proto.graph.node)} nodes, more than {_MOST_NODES}")
    if len(proto.graph.output) != 1:
        count = len(proto.graph.output)
        raise refusal("", f"the graph has {count}, a model has one", what="the outputs of the graph")
    return first_or_merged(
        lambda merging: _once(proto, weights, declared[0], ValueGraph((BATCH, *sizes), merging))
    )


def _once(proto: onnx.ModelProto, weights: dict[str, Array], batch: int | None, graph: ValueGraph) -> Chain:
    known: dict[str, Value | Array] = dict(weights)
    known[_input_names(proto.graph, weights)[0]] = graph.input
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
    folder = Folder(10_000_000 + 4 * sum(w.size for w in weights.values()))
    for node in proto.graph.node:
        _node(node, graph, known, opset, folder, batch)
    output = known.get(proto.graph.output[0].name)
    if not isinstance(output, Value):
        raise FormatError("its output does not depend on its input")
    return as_chain(nested_steps(graph, output))


def _node(
    node: Any, graph: ValueGraph, known: dict[str, Any], opset: int, folder: Folder, batch: int | None
) -> None:
    name = f"{(node.name or node.output[0])[:80]} ({node.op_type[:40]})" if node.output else node.op_type[:40]
    if node.domain not in ("", "ai.onnx"):
        raise refusal(name, f"it is of the domain {node.domain[:40]!r}, not a standard operation")
    missing = next((i for i in node.input if i and i not in known), None)
    if missing is not None:
        raise FormatError(
            f"the node {name} takes {missing[:80]!r}, which is not the output of an earlier node"
        )
    inputs = [known[i] if i else None for i in node.input]
    attributes = {a.name: _attribute(a) for a in node.attribute}
    if node.op_type == "Constant":
        result: Any = _constant(attributes, name)
    elif node.op_type in ("Shape", "Size") and isinstance(inputs[0], Value):
        result = _shape(node.op_type, inputs[0], attributes)
    elif not any(isinstance(i, Value) for i in inputs):
        result = folder.fold(node.op_type, inputs, attributes)
    else:
        rule = OPERATIONS.get(node.op_type)
        if rule is not None:
            _check_signature(node, name, opset)
        own = Node(graph, name, opset, inputs, attributes)
        own.own_batch = batch
        result = None if rule is None else rule(own)
    if result is None:
        raise refusal(name, "there is no layer for it")
    known[node.output[0]] = result


def _check_signature(node: Any, name: str, opset: int) -> None:
    """Checks the inputs that an operation must have and the types of its attributes, as the standard has them."""
    try:
        schema = onnx.defs.get_schema(node.op_type, max(1, min(opset, onnx.defs.onnx_opset_version())), "")
    except onnx.defs.SchemaError:
        return  # a later operation in a file that claims to be older
    given = sum(map(bool, node.input[: schema.min_input]))
    if given < schema.min_input:
        raise FormatError(f"the node {name} has {given} of the {schema.min_input} inputs that it needs")
    for attribute in node.attribute:
        known = schema.attributes.get(attribute.name)
        if known is not None and attribute.type != known.type.value:
            raise FormatError(
                f"the attribute {attribute.name[:40]!r} of the node {name} must be of the type {known.type.name}"
            )


def _shape(operation: str, value: Value, attributes: dict[str, Any]) -> Array:
    shape = value.shape or ()
    if operation == "Size":
        return np.array(math.prod(shape), np.int64)
    return np.array(shape[attributes.get("start", 0) : attributes.get("end", len(shape))], np.int64)


def _constant(attributes: dict[str, Any], name: str) -> Array:
    for key in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if key in attributes:
            value = attributes[key]
            kind = np.float32 if "float" in key else np.int64
            return value if isinstance(value, np.ndarray) else np.asarray(value, kind)
    raise refusal(name, "it does not hold numbers")


def _attribute(attribute: Any) -> Any:
    kinds = onnx.AttributeProto
    if attribute.type == kinds.TENSOR:
        return _array(attribute.t)
    if attribute.type == kinds.STRING:
        return attribute.s.decode("utf-8", "replace")
    simple = {kinds.FLOAT: "f", kinds.INT: "i", kinds.FLOATS: "floats", kinds.INTS: "ints"}
    field = simple.get(attribute.type)
    if field is None:
        return None
    value = getattr(attribute, field)
    return value if field in ("f", "i") else list(value)


# ---- Inputs and weights -------------------------------------------------------------------------------


def _initialisers(graph: Any) -> dict[str, Array]:
    if graph.sparse_initializer:
        raise FormatError("it holds sparse weights, which Diptych does not read")
    return {tensor.name: _array(tensor) for tensor in graph.initializer}


def _array(tensor: TensorProto) -> Array:
    name = tensor.name[:60]
    if tensor.data_location == TensorProto.EXTERNAL:
        raise FormatError(
            f"the weight {name!r} is in another file; save the model as one file, with onnx.save_model"
        )
    if any(n < 0 for n in tensor.dims) or len(tensor.dims) > 8 or tensor.HasField("segment"):
        raise FormatError(f"the array {name!r} has the shape {tuple(tensor.dims)[:8]}")
    try:
        array: Array = numpy_helper.to_array(tensor)
    except Exception as error:  # a damaged tensor can make the library raise anything
        raise FormatError(f"the array {name!r} of shape {tuple(tensor.dims)} is damaged") from error
    if array.dtype.kind not in "biuf":
        array = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    if array.dtype.kind not in "biuf":
        raise FormatError(f"the array {name!r} holds {array.dtype}, not plain numbers")
    return array


def _input_names(graph: Any, weights: dict[str, Array]) -> list[str]:
    return [i.name for i in graph.input if i.name not in weights]


def _input(graph: Any, weights: dict[str, Array]) -> tuple[int | None, ...]:
    """The declared shape of the only input, with the batch axis; None for a free size."""
    inputs = [i for i in graph.input if i.name not in weights]
    if len(inputs) != 1:
        raise refusal("", f"the graph has {len(inputs)}, a model has one", what="the inputs of the graph")
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
        name = inputs[0].name[:60]
        raise refusal(name, "it does not take floats; a model takes float32 batches", what="the input")
    if not kind.HasField("shape") or not 2 <= len(kind.shape.dim) <= 5:
        raise FormatError("its input must have a shape of 2 to 5 axes, of which the first is the batch")
    sizes = tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim
    )
    if any(n is not None and n > _LARGEST for n in sizes):
        raise FormatError(f"its input has the shape {sizes}")
    return sizes
