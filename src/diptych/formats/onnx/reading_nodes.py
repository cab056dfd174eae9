"""One reading of an ONNX graph: every node in turn becomes a constant or a value of a `ValueGraph`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from diptych.errors import FormatError
from diptych.formats.graph import Value, ValueGraph, refusal
from diptych.formats.onnx.reading_constants import Folder
from diptych.formats.onnx.reading_node import Attributes, Node
from diptych.formats.onnx.reading_operations import OPERATIONS
from diptych.formats.onnx.reading_weights import as_array
from diptych.formats.views import Tensor, View
from diptych.model.layers import Array

__all__ = ["Reading"]

_MOST_AT_START = 2**28  # values of constants that a file describes without holding them: 1 GiB of float32

# Operations on whole numbers that give what they give for the same numbers as floats.
_ON_WHOLE_NUMBERS = {
    *(
        "Cast",
        "CastLike",
        "Gather",
        "Add",
        "Sub",
        "Mul",
        "Max",
        "Min",
        "Clip",
        "Abs",
        "Neg",
        "Sign",
        "Identity",
    ),
    *(
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Slice",
        "Split",
        "Concat",
        "Expand",
        "Tile",
    ),
    *("ReduceMax", "ReduceMin", "ReduceSum", "DequantizeLinear"),
}


class _Unread(NamedTuple):
    """An output that is not read, such as the indices of a pool."""

    name: str
    number: int


class Reading:
    """The values and constants of a graph by name.

    Args:
        graph: Where layers are added.
        weights: The constants that the file holds.
        opset: The version of the operator set.
        batch: The batch size, if the file fixes it.
        folder: Where the file lies, for constants in other files.
    """

    def __init__(
        self, graph: ValueGraph, weights: dict[str, Array], opset: int, batch: int | None, folder: Path | None
    ) -> None:
        self.graph, self.opset, self.batch, self.folder = graph, opset, batch, folder
        self.known: dict[str, Tensor | Array | _Unread] = dict(weights)
        self.constants = Folder(_MOST_AT_START + 4 * sum(w.size for w in weights.values()))
        self._half = any(w.dtype == np.float16 for w in weights.values())
        self._whole: dict[int, Tensor] = {}

    def node(self, node: Any) -> None:
        """Reads one node; all that it takes must be known."""
        name = _named(node)
        if node.domain not in ("", "ai.onnx"):
            raise refusal(name, f"it is of the domain {node.domain[:40]!r}, not a standard operation")
        inputs: list[Any] = [self._input(i, name) if i else None for i in node.input]
        attributes = Attributes({a.name: _attribute(a, self.folder) for a in node.attribute})
        results: list[Any]
        if any(isinstance(i, Value | View) for i in inputs):
            results = self._values(node, name, inputs, attributes)
        elif node.op_type == "Constant":
            results = [_constant(attributes, name)]
        else:
            folded = self.constants.fold(node.op_type, inputs, attributes, len(node.output))
            if folded is None:
                raise refusal(name, f"no constants are computed by {node.op_type[:40]}")
            results = folded
        self._check_attributes(node, name, attributes)
        for number, output in enumerate(node.output):
            if output:
                self.known[output] = results[number] if number < len(results) else _Unread(name, number)

    def _input(self, wanted: str, name: str) -> Tensor | Array:
        if wanted not in self.known:
            raise FormatError(
                f"the node {name} takes {wanted[:80]!r}, which is not the output of an earlier node"
            )
        found = self.known[wanted]
        if isinstance(found, _Unread):
            raise refusal(found.name, f"its output {found.number} is used, which no layer gives")
        return found

    def _values(self, node: Any, name: str, inputs: list[Any], attributes: Attributes) -> list[Any]:
        if node.op_type in ("Shape", "Size"):
            return [_shape(node.op_type, inputs[0], attributes)]
        rule = OPERATIONS.get(node.op_type)
        if rule is None:
            raise refusal(name, "there is no layer for it")
        _check_signature(node, name, self.opset)
        whole = [i for i in inputs if id(i) in self._whole]
        if whole and node.op_type not in _ON_WHOLE_NUMBERS:
            raise refusal(name, "no layer computes this with whole numbers")
        own = Node(self.graph, name, self.opset, inputs, attributes, len(node.output), self.batch)
        own.half = self._half
        result = rule(own)
        results = result if isinstance(result, list) else [result]
        looked_up = node.op_type == "Gather" and isinstance(inputs[0], np.ndarray)
        becomes = bool(whole) and not looked_up and node.op_type != "DequantizeLinear"
        if node.op_type in ("Cast", "QuantizeLinear"):
            becomes = node.op_type != "Cast" or own.attributes.get("to") in (6, 7)
        if becomes:
            self._whole |= {id(value): value for value in results if not isinstance(value, np.ndarray)}
        return results

    def _check_attributes(self, node: Any, name: str, attributes: Attributes) -> None:
        """Every attribute must have been looked at, or be what it is by default."""
        unseen = attributes.unseen()
        if not unseen:
            return
        schema = _schema(node.op_type, self.opset)
        for attribute, value in unseen.items():
            known = None if schema is None else schema.attributes.get(attribute)
            usual = None if known is None else _attribute(known.default_value, None)
            if usual is None or usual != value:
                raise refusal(name, f"no layer has its attribute {attribute[:40]!r} of {str(value)[:40]}")


def _named(node: Any) -> str:
    if not node.output:
        return str(node.op_type[:40])
    return f"{(node.name or node.output[0])[:80]} ({node.op_type[:40]})"


def _schema(operation: str, opset: int) -> Any:
    try:
        return onnx.defs.get_schema(operation, max(1, min(opset, onnx.defs.onnx_opset_version())), "")
    except onnx.defs.SchemaError:
        return None  # a later operation in a file that claims to be older


def _check_signature(node: Any, name: str, opset: int) -> None:
    """Checks the inputs that an operation must have and the types of its attributes, as the standard has them."""
    schema = _schema(node.op_type, opset)
    if schema is None:
        return
    given = sum(map(bool, node.input[: schema.min_input]))
    if given < schema.min_input:
        raise FormatError(f"the node {name} has {given} of the {schema.min_input} inputs that it needs")
    for attribute in node.attribute:
        known = schema.attributes.get(attribute.name)
        if known is not None and attribute.type != known.type.value:
            raise FormatError(
                f"the attribute {attribute.name[:40]!r} of the node {name} must be of the type {known.type.name}"
            )


def _shape(operation: str, value: Tensor, attributes: Attributes) -> Array:
    shape = value.shape or ()
    if operation == "Size":
        return np.array(math.prod(shape), np.int64)
    return np.array(shape[attributes.get("start", 0) : attributes.get("end", len(shape))], np.int64)


def _constant(attributes: Attributes, name: str) -> Array:
    for key in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if key in attributes:
            value = attributes[key]
            kind = np.float32 if "float" in key else np.int64
            return value if isinstance(value, np.ndarray) else np.asarray(value, kind)
    raise refusal(name, "it does not hold numbers")


def _attribute(attribute: Any, folder: Path | None) -> Any:
    kinds = onnx.AttributeProto
    if attribute.type == kinds.TENSOR:
        return as_array(attribute.t, folder)
    if attribute.type == kinds.STRING:
        return attribute.s.decode("utf-8", "replace")
    simple = {kinds.FLOAT: "f", kinds.INT: "i", kinds.FLOATS: "floats", kinds.INTS: "ints"}
    if attribute.type == kinds.STRINGS:
        return [text.decode("utf-8", "replace") for text in attribute.strings]
    field = simple.get(attribute.type)
    if field is None:
        return None
    value = getattr(attribute, field)
    return value if field in ("f", "i") else list(value)
