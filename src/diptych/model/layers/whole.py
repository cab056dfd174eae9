"""A graph that no layers express, run as it is by the one engine that can."""

from __future__ import annotations

from dataclasses import dataclass

from diptych.errors import ShapeError, UnsupportedLayer
from diptych.model.layers.base import Array, Layer, Shape
from diptych.model.layers.receptive import Field

__all__ = ["WholeGraph", "whole_graph"]

_MOST_NAMED = 12


@dataclass(frozen=True, eq=False)
class WholeGraph(Layer):
    """An ONNX graph with its weights, which is not taken apart into layers.

    Attributes:
        content: The serialised graph, uint8. Its input is float32 with the batch as its first axis.
        entry: The name of its input.
        result: The name of the output that is used.
        entry_shape: Of one sample, without the batch axis.
        result_shape: Of one sample's output.
        values: The names and shapes (of one sample) of the values that a trace can give, in order of computation.
        operations: How many operations it has.
        obstacles: Why there are no layers: a sentence for each kind of obstacle.
        probable: Whether its last operation is a softmax.
    """

    content: Array
    entry: str
    result: str
    entry_shape: tuple[int, ...]
    result_shape: tuple[int, ...]
    values: tuple[tuple[str, tuple[int, ...]], ...]
    operations: int
    obstacles: tuple[str, ...]
    probable: bool = False

    @property
    def arrays(self) -> dict[str, Array]:
        """None: the weights are inside the graph."""
        return {}

    def check(self) -> None:
        """See `Layer.check`; nothing can contradict itself here."""

    def describe(self) -> list[str]:
        """See `Layer.describe`."""
        return [f"ONNX graph of {self.operations} operations, run as a whole"]

    def output_shape(self, shape: Shape) -> Shape:
        """See `Layer.output_shape`."""
        if tuple(shape[1:]) != self.entry_shape:
            raise ShapeError(f"takes {self.entry_shape} for a sample, as a graph that is run as a whole")
        return (shape[0], *self.result_shape)

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        """See `Layer.receptive_field`."""
        return field.whole()

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        """See `Layer.multiply_adds`; those inside the graph are not counted."""
        return 0

    def compute(self, x: Array) -> Array:
        """See `Layer.compute`.

        Raises:
            UnsupportedLayer: Always: there is no formula.
        """
        raise self.refused("the engine numpy")

    def refused(self, where: str) -> UnsupportedLayer:
        """The error of an engine or a format that needs layers."""
        shown = "; ".join(self.obstacles[:_MOST_NAMED])
        more = len(self.obstacles) - _MOST_NAMED
        rest = f"; and {more} more kinds" if more > 0 else ""
        return UnsupportedLayer("", where, f"it is no chain of layers: {shown}{rest}", what="this ONNX graph")


def whole_graph(layers: Layer) -> WholeGraph | None:
    """The graph with which the layers of a model begin, if it is run as a whole."""
    first = layers.children[0] if layers.children else None
    return first if isinstance(first, WholeGraph) else None
