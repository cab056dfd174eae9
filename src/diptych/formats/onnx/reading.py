"""Makes a model from an ONNX graph of another program, by way of a `ValueGraph`.

The graph is not run: constants are computed, while of other values only the shape is followed. For sizes that the file
leaves free, usual sizes are tried; they stay free if no layer depends on them.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto

from diptych.errors import FormatError, ModelError, ShapeError, UnsupportedLayer, UsageError
from diptych.formats.attention import with_attention
from diptych.formats.graph import BATCH, Value, ValueGraph, first_or_merged, refusal
from diptych.formats.nesting import nested_steps
from diptych.formats.onnx.reading_nodes import Reading
from diptych.formats.onnx.reading_operations import OPERATIONS
from diptych.formats.onnx.reading_weights import initialisers
from diptych.formats.patterns import as_chain
from diptych.formats.views import View
from diptych.model import layers as L
from diptych.model.document import to_document
from diptych.model.layers import Array, Chain
from diptych.model.model import Model, Source
from diptych.model.validity import check_layers

__all__ = ["READ", "checked_input", "chosen_output", "read_graph"]

READ = frozenset({*OPERATIONS, "Constant", "Shape", "Size"})
"""The operations of which at least some forms are read."""


_SIZES = (224, 32, 64, 96, 128, 256, 299, 28, 16, 512, 60)
_MOST_NODES = 50_000
_LARGEST = 2**20


def read_graph(proto: onnx.ModelProto, folder: Path | None = None, output: str | None = None) -> Model:
    """The model that an ONNX graph computes.

    Args:
        proto: A graph with one input; may be untrusted.
        folder: Where its file lies, for weights in other files beside it.
        output: The name of the output that the model gives; needed where there are several.

    Raises:
        UnsupportedLayer: Names a node that no layer can express.
        FormatError, ModelError: The graph contradicts itself.
    """
    try:
        return _read(proto, folder, output)
    except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError, AssertionError) as error:
        raise FormatError(f"its graph is damaged: {error or type(error).__name__}") from error


class _Given(NamedTuple):
    """What is the same in every reading of a graph: weights, declared input shape, output, and the file's folder."""

    weights: dict[str, Array]
    declared: tuple[int | None, ...]
    output: str
    folder: Path | None


_HALF = "the file computes in half precision, the model in float32, so its numbers are not rounded in between"


def chosen_output(graph: Any, output: str | None) -> str:
    """The name of the output of a graph; raises `UnsupportedLayer` where there are several and none is named."""
    names = [each.name for each in graph.output]
    if output is not None:
        if output not in names:
            raise UsageError(f"the graph has no output {output!r}; its outputs are {', '.join(names)[:200]}")
        return output
    if len(names) != 1:
        listed = ", ".join(names)[:200]
        raise refusal(
            "",
            f"the graph has {len(names)}, a model has one; choose one with --output: {listed}",
            what="the outputs of the graph",
        )
    return str(names[0])


def _read(proto: onnx.ModelProto, folder: Path | None, output: str | None) -> Model:
    if len(proto.functions):
        proto = onnx.inliner.inline_local_functions(proto)
    weights = initialisers(proto.graph, folder)
    given = _Given(weights, _input(proto.graph, weights), chosen_output(proto.graph, output), folder)
    layers, sizes = _with_sizes(proto, given)
    check_layers(layers)
    remarks = (_HALF,) if any(w.dtype == np.float16 for w in weights.values()) else ()
    source = Source("ONNX", proto.producer_name[:80], proto.producer_version[:80], remarks)
    return Model(layers, input_shape=sizes, name=proto.graph.name[:80], source=source)


def _with_sizes(proto: onnx.ModelProto, given: _Given) -> tuple[Chain, tuple[int | None, ...]]:
    """The layers, and the input shape, in which sizes are None if no layer depends on them."""
    declared, weights = given.declared, given.weights
    free = [i for i, n in enumerate(declared[1:]) if n is None]
    if not free:
        sizes = tuple(n for n in declared[1:] if n is not None)
        return _layers(proto, given, sizes), sizes
    problem: ModelError | None = None
    for size in _SIZES:
        sizes = _filled(declared, size, proto, weights)
        try:
            layers = _layers(proto, given, sizes)
        except ShapeError as error:
            problem = problem or error
            continue
        return layers, _freed(proto, given, sizes, layers)
    raise FormatError(f"its input leaves sizes free, and none of the usual sizes fits: {problem}")


def _freed(
    proto: onnx.ModelProto, given: _Given, sizes: tuple[int, ...], layers: Chain
) -> tuple[int | None, ...]:
    declared = given.declared
    larger = tuple(n if declared[i + 1] is not None or i == 0 else 2 * n for i, n in enumerate(sizes))
    try:
        other = _layers(proto, given, larger)
    except (ShapeError, UnsupportedLayer):
        return sizes
    if _described(layers) != _described(other):
        raise ModelError(
            "its layers depend on the size of the picture, which the file leaves free; fix the input size "
            "where the model was made"
        )
    return tuple(
        n if n == m and i == 0 else declared[i + 1]
        for i, (n, m) in enumerate(zip(sizes, larger, strict=True))
    )


def _described(layers: Chain) -> tuple[Any, dict[str, tuple[int, ...]]]:
    document, arrays = to_document(Model(layers))
    return document["layers"], {name: array.shape for name, array in arrays.items()}


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


def _layers(proto: onnx.ModelProto, given: _Given, sizes: tuple[int, ...]) -> Chain:
    if len(proto.graph.node) > _MOST_NODES:
        raise FormatError(f"its graph has {len(proto.graph.node)} nodes, more than {_MOST_NODES}")
    return first_or_merged(lambda merging: _once(proto, given, ValueGraph((BATCH, *sizes), merging)))


def _once(proto: onnx.ModelProto, given: _Given, graph: ValueGraph) -> Chain:
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
    reading = Reading(graph, given.weights, opset, given.declared[0], given.folder)
    reading.known[_input_names(proto.graph, given.weights)[0]] = graph.input
    needed = _needed(proto.graph, given.output)
    for node in proto.graph.node:
        if not needed.isdisjoint(node.output):
            reading.node(node)
    output = reading.known.get(given.output)
    if isinstance(output, np.ndarray) and output.shape[:1] == (BATCH,) and output.strides[0] == 0:
        output = graph.apply(L.Constant(np.array(output[0], np.float32)), graph.input, given.output)
    if isinstance(output, View):
        raise refusal("", "its batch is not the first axis", what="the output")
    if not isinstance(output, Value):
        raise FormatError("its output does not depend on its input")
    return with_attention(as_chain(nested_steps(graph, output)), graph.input.shape)


def _needed(graph: Any, output: str) -> set[str]:
    """The names of the values from which an output is computed."""
    needed = {output}
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed |= set(node.input)
    return needed


# ---- Inputs and weights -------------------------------------------------------------------------------


def _input_names(graph: Any, weights: dict[str, Array]) -> list[str]:
    return [i.name for i in graph.input if i.name not in weights]


def checked_input(graph: Any) -> None:
    """Raises `UnsupportedLayer` or `FormatError` where a graph has no single input of floats."""
    _input(graph, {tensor.name for tensor in graph.initializer})


def _input(graph: Any, weights: Collection[str]) -> tuple[int | None, ...]:
    """The declared shape of the only input, with the batch axis; None for a free size."""
    inputs = [i for i in graph.input if i.name not in weights]
    if len(inputs) != 1:
        raise refusal("", f"the graph has {len(inputs)}, a model has one", what="the inputs of the graph")
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
        name = inputs[0].name[:60]
        raise refusal(name, "it does not take floats; a model takes float32 batches", what="the input")
    if not kind.HasField("shape") or not 1 <= len(kind.shape.dim) <= 5:
        raise FormatError("its input must have a shape of 1 to 5 axes, of which the first is the batch")
    sizes = tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim
    )
    if any(n is not None and n > _LARGEST for n in sizes):
        raise FormatError(f"its input has the shape {sizes}")
    return sizes
