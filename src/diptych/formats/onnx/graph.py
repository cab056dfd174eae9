"""An ONNX graph in the making: nodes, constants and weights, and a layer's own place in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from diptych.model.layers import Array, Layer, walk

__all__ = ["OPSET", "OnnxGraph", "OnnxSite", "refer", "store"]

# 19 is the first with "wrap" in Pad, and what onnxruntime 1.17 and anything newer runs.
OPSET = 19
_IR_VERSION = 9


class OnnxGraph:
    """Nodes in order of computation. Weights are named as in the model's document, constants with a "/"."""

    def __init__(self, layers: Layer) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.weights: dict[str, Array] = {}
        self._names: dict[int, str] = {}
        for path, layer in walk(layers):
            for field, array in layer.arrays.items():
                self._names.setdefault(id(array), f"{path}.{field}")

    def weight(self, array: Array) -> str:
        """The float32 value of a weight; another float type is stored as it is and cast."""
        name = self._names[id(array)]
        self.weights[name] = array
        if array.dtype == np.float32:
            return name
        cast = f"{name}/float32"
        if not any(cast in node.output for node in self.nodes):
            self.add("Cast", [name], cast, to=TensorProto.FLOAT)
        return cast

    def add(self, operation: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Appends one node of one output."""
        self.nodes.append(helper.make_node(operation, inputs, [output], name=output, **attributes))
        return output

    def named(self, value: str, name: str, final: bool = False) -> str:
        """`value` under another name: renamed where nothing else can know it yet, else copied.

        That is the case for the last node's output if it is a layer's inner value, with a "/" in its name,
        or where the graph is `final`.
        """
        last = self.nodes[-1] if self.nodes else None
        if last is None or last.output[0] != value or not (final or "/" in value):
            return self.add("Identity", [value], name)
        last.output[0] = last.name = name
        return name

    def model(self, inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
        """The finished model with its constants, still without its weights."""
        graph = helper.make_graph(self.nodes, "diptych", inputs, outputs)
        opset = helper.make_opsetid("", OPSET)
        proto = helper.make_model(
            graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="diptych"
        )
        for name, array in self.constants.items():
            store(proto, name, array)
        return proto


def store(proto: onnx.ModelProto, name: str, array: Array) -> None:
    """Puts the numbers of an initialiser into the model itself."""
    plain = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    _declare(proto, name, array).raw_data = plain.tobytes()


def refer(proto: onnx.ModelProto, name: str, array: Array) -> None:
    """Declares an initialiser whose numbers the runtime is handed as an array."""
    tensor = _declare(proto, name, array)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "arrays"), ("offset", "0"), ("length", str(array.nbytes))):
        tensor.external_data.add(key=key, value=value)


def _declare(proto: onnx.ModelProto, name: str, array: Array) -> TensorProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype.newbyteorder("="))
    return proto.graph.initializer.add(name=name, data_type=kind, dims=array.shape)


class OnnxSite:
    """Where one layer is written: its path, the value and shape that reach it."""

    def __init__(self, graph: OnnxGraph, path: str, value: str, shape: tuple[int, ...]) -> None:
        self.graph, self.path, self.input, self.shape = graph, path, value, shape
        self._count = 0

    @property
    def rank(self) -> int:
        """The number of axes that reach the layer."""
        return len(self.shape)

    def node(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """One more node; the name of its value."""
        self._count += 1
        return self.graph.add(operation, inputs, f"{self.path}/{operation}_{self._count}", **attributes)

    def weight(self, array: Array) -> str:
        """The float32 value of one of the layer's weights."""
        return self.graph.weight(array)

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """A constant of this layer."""
        self._count += 1
        name = f"{self.path}/constant_{self._count}"
        self.graph.constants[name] = np.asarray(values, dtype)
        return name

    def ints(self, *values: int) -> str:
        """A constant list of whole numbers, as shapes and axes are given."""
        return self.constant(values, np.int64)

    def floats(self, *values: float) -> str:
        """A constant list of numbers."""
        return self.constant(values)
