"""The reference engine: computes every layer by its formula, in NumPy.

It is simple rather than fast, because the other engines are tested against it. The formulas are those of
`model/layers/`: each computes in float64 and rounds to float32, so that a trace holds exactly the input of the next
layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diptych.engines.batches import validate_batch
from diptych.model.layers import Array, Connection, Layer, fold
from diptych.model.model import Model
from diptych.model.trace import Trace

__all__ = ["DEVICES", "NAME", "NumpyModel", "compile"]

NAME = "numpy"
DEVICES = ("cpu",)


def compile(model: Model, device: str = "auto") -> NumpyModel:  # noqa: A001 - the engines' common verb
    """Prepares a model; the engine runs every layer.

    Args:
        model: Any model.
        device: "cpu" or "auto".
    """
    return NumpyModel(model)


class NumpyModel:
    """A model on the reference engine."""

    engine = NAME
    device = "cpu"

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, batch: Any) -> Array:
        """See `engines.Compiled`."""
        return self._run(validate_batch(self._model, batch)).copy()

    def trace(self, batch: Any) -> Trace:
        """See `engines.Compiled`."""
        outputs: dict[str, Array] = {}

        def record(path: str, layer: Layer, value: Array) -> None:
            outputs[path] = np.array(value, order="C")

        x = validate_batch(self._model, batch, traced=True)
        self._run(x, record)
        return Trace(outputs, x)

    def _run(self, x: Array, record: Callable[[str, Layer, Array], None] | None = None) -> Array:
        with np.errstate(all="ignore"):  # infinities and NaN give no warnings, as in the other engines
            return fold(self._model.layers, x, _leaf, _join, record)


def _leaf(layer: Layer, x: Array, path: str) -> Array:
    return layer(x)


def _join(connection: Connection, values: Sequence[Array], path: str) -> Array:
    return connection.join(values)
