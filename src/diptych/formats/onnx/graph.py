"""Builds an ONNX graph: `OnnxGraph` collects nodes, constants and weights, `OnnxSite` adds those of one layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from diptych.model.layers import Array, Layer, walk

__all__ = ["OPSET", "OnnxGraph", "OnnxSite", "refer", "store"]

# 19 is the first operator set with the mode "wrap" of Pad; onnxruntime runs it from version 1.17.
OPSET = 19
_IR_VERSION = 9


class OnnxGraph:
    """The nodes of a graph in order of computation, its constants and its weights.

    Weights are named as in the model document; the names of constants contain a "/".

    Args:
        layers: The layers whose weights the graph may use.
        exact_means: Whether means over many values are taken one axis after the other, as ONNX Runtime needs.
    """

    def __init__(self, layers: Layer, exact_means: bool = False) -> None:
        self.exact_means = exact_means
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.weights: dict[str, Array] = {}
        self._names: dict[int, str] = {}
        for path, layer in walk(layers):
            for field, array in layer.arrays.items():
                self._names.setdefault(id(array), f"{path}.{field}")

    def weight(self, array: Array) -> str:
        """The name of a weight's float32 value. A weight of another float type is stored as it is, and cast."""
        name = self._names[id(array)]
        self.weights[name] = array
        if array.dtype == np.float32:
            return name
        cast = f"{name}/float32"
        if not any(cast in node.output for node in self.nodes):
            self.add("Cast", [name], cast, to=TensorProto.FLOAT)
        return cast

    def add(self, operation: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Appends a node with one output, and returns the name of the output."""
        self.nodes.append(helper.make_node(operation, inputs, [output], name=output, **attributes))
        return output

    def named(self, value: str, name: str, final: bool = False) -> str:
        """Gives a value another name.

        The output of the last node is renamed if nothing else can refer to it: it is an inner value of a layer, with a
        "/" in its name, or the graph is complete. Any other value gets an Identity node.

        Args:
            value: Its present name.
            name: Its new name.
            final: Whether the graph is complete.

        Returns:
            `name`.
        """
        last = self.nodes[-1] if self.nodes else None
        if last is None or last.output[0] != value or not (final or "/" in value):
            return self.add("Identity", [value], name)
        last.output[0] = last.name = name
        return name

    def model(self, inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
        """The complete graph with its constants, but without its weights."""
        graph = helper.make_graph(self.nodes, "diptych", inputs, outputs)
        opset = helper.make_opsetid("", OPSET)
        proto = helper.make_model(
            graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="diptych"
        )
        for name, array in self.constants.items():
            store(proto, name, array)
        return proto


def store(proto: onnx.ModelProto, name: str, array: Array) -> None:
    """Adds an initialiser that holds the numbers of `array`."""
    plain = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    _declare(proto, name, array).raw_data = plain.tobytes()


def refer(proto: onnx.ModelProto, name: str, array: Array) -> None:
    """Declares an initialiser whose numbers the runtime is given separately."""
    tensor = _declare(proto, name, array)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "arrays"), ("offset", "0"), ("length", str(array.nbytes))):
        tensor.external_data.add(key=key, value=value)


def _declare(proto: onnx.ModelProto, name: str, array: Array) -> TensorProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype.newbyteorder("="))
    return proto.graph.initializer.add(name=name, data_type=kind, dims=array.shape)


class OnnxSite:
    """Adds the nodes of one layer to a graph.

    Attributes:
        graph: The graph.
        path: Of the layer; the names of its nodes and constants begin with it.
        input: The name of the input value.
        shape: Of the input, with the batch axis.
    """

    def __init__(self, graph: OnnxGraph, path: str, value: str, shape: tuple[int, ...]) -> None:
        self.graph, self.path, self.input, self.shape = graph, path, value, shape
        self._count = 0

    @property
    def rank(self) -> int:
        """The number of axes of the input."""
        return len(self.shape)

    def node(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node, and returns the name of its output."""
        self._count += 1
        return self.graph.add(operation, inputs, f"{self.path}/{operation}_{self._count}", **attributes)

    def weight(self, array: Array) -> str:
        """The name of the float32 value of a weight."""
        return self.graph.weight(array)

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Adds a constant, and returns its name."""
        self._count += 1
        name = f"{self.path}/constant_{self._count}"
        self.graph.constants[name] = np.asarray(values, dtype)
        return name

    def ints(self, *values: int) -> str:
        """Adds an int64 constant (n,), as operations take shapes and axes."""
        return self.constant(values, np.int64)

    def floats(self, *values: float) -> str:
        """Adds a float32 constant (n,)."""
        return self.constant(values)
