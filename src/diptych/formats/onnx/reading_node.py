"""What a rule needs to read one ONNX operation: its inputs, its attributes, and where layers are added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np

from diptych.formats.graph import Operation, Shape, Value, ValueGraph, refusal
from diptych.formats.views import Tensor, View, Views
from diptych.model.layers import Array

__all__ = ["Attributes", "Node", "Rule", "plain"]


class Attributes(Mapping[str, Any]):
    """The attributes of a node, which remembers those that a rule has looked at: no other one may matter."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = dict(given)
        self._seen: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self._seen.add(name)
        return self._given[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute, or `default` where the node does not have it."""
        self._seen.add(name)
        return self._given.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def unseen(self) -> dict[str, Any]:
        """The attributes that no rule has looked at."""
        return {name: value for name, value in self._given.items() if name not in self._seen}


class Node:
    """One operation of a graph.

    Attributes:
        graph, name, opset: Where layers are added, the node's name for messages, and the version of the operator set.
        inputs: Values that depend on the model's input, constants, or None if absent.
        attributes: By name.
        outputs: How many outputs the node has.
        own_batch: The batch size, if the file fixes it; it then also occurs in constants.
        half: Whether the file computes in half precision; its model computes in float32.
        views: The operations on values whose batch axis may lie elsewhere.
    """

    def __init__(
        self,
        graph: ValueGraph,
        name: str,
        opset: int,
        inputs: Sequence[Tensor | Array | None],
        attributes: Attributes,
        outputs: int = 1,
        own_batch: int | None = None,
    ) -> None:
        self.graph, self.name, self.opset, self.inputs = graph, name, opset, inputs
        self.attributes, self.outputs = attributes, outputs
        self.own_batch, self.half = own_batch, False
        self.views = Views(graph, name, own_batch)

    @property
    def x(self) -> Tensor:
        """The first input, which must not be a constant."""
        first = self.inputs[0] if self.inputs else None
        if not isinstance(first, Value | View):
            self.refuse("its first input is a constant")
        return first

    @property
    def value(self) -> Value:
        """The first input, whose batch axis must be the first."""
        first = self.x
        if isinstance(first, View):
            self.refuse("the batch is not the first axis of its input")
        return first

    @property
    def shape(self) -> Shape:
        """The shape of the first input."""
        return self.views.shape(self.x)

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.shape) - 2

    @property
    def tensors(self) -> list[Tensor]:
        """The inputs that depend on the model's input."""
        return [i for i in self.inputs if isinstance(i, Value | View)]

    def axis(self, default: int) -> int:
        """The attribute `axis`, counted from 0."""
        return self.views.counted(self.x, int(self.attributes.get("axis", default)))

    def flag(self, attribute: str, default: int = 0) -> bool:
        """An attribute that is 0 or 1."""
        value = self.attributes.get(attribute, default)
        if value not in (0, 1):
            self.refuse(f"its attribute {attribute} must be 0 or 1, got {value}")
        return bool(value)

    def constant(self, index: int) -> Array | None:
        """An input that must be a constant; None if it is absent."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(value, Value | View):
            self.refuse(f"its input {index} must be a constant, but depends on the picture")
        return value

    def weight(self, index: int) -> Array:
        """A constant input that must be present."""
        array = self.constant(index)
        if array is None:
            self.refuse(f"its input {index} is missing")
        return array

    def operand(self, index: int) -> Tensor | Array:
        """An input of either kind that must be present."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            self.refuse(f"its input {index} is missing")
        return value

    def numbers(self, attribute: str, index: int | None = None) -> list[int] | None:
        """Integers from an input or, in older operator sets, from an attribute."""
        array = None if index is None else self.constant(index)
        values = self.attributes.get(attribute) if array is None else array.reshape(-1).tolist()
        return None if values is None else [int(v) for v in values]

    def refuse(self, reason: str) -> NoReturn:
        """Raises `UnsupportedLayer` with the name of this node."""
        raise refusal(self.name, reason)

    def give(self, *layers: Operation) -> Value:
        """Applies layers to the first input in turn."""
        return self.through(self.value, *layers)

    def through(self, value: Value, *layers: Operation) -> Value:
        """Applies layers to a value in turn."""
        for layer in layers:
            value = self.graph.apply(layer, value, self.name)
        return value

    def pointwise(self, *layers: Operation) -> Tensor:
        """Applies layers that treat every value alone to the first input."""
        return self.views.apply(self.x, *layers)

    def reshaped(self, sizes: Sequence[int]) -> Tensor:
        """The first input reshaped to `sizes`, which include the batch axis."""
        return self.views.reshape(self.x, sizes)


Rule: TypeAlias = Callable[[Node], "Tensor | Array | list[Tensor | Array]"]


def plain(array: Array) -> float:
    """The only number of an array."""
    return float(np.asarray(array).reshape(-1)[0])
