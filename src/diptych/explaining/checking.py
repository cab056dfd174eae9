"""Whether a map depends on the weights: a model with randomised ones, and how alike two maps are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from diptych.model.layers import Array, Layer
from diptych.model.model import Model

__all__ = ["correlation", "randomised"]


def randomised(model: Model, seed: int) -> Model:
    """The model with every weight matrix and kernel drawn anew, normal with the mean and deviation that it had.

    Args:
        model: The model.
        seed: Of the numbers.
    """
    rng = np.random.default_rng(seed)

    def drawn(layer: Layer) -> Layer:
        changes = {
            name: rng.normal(value.mean(), value.std(), value.shape).astype(value.dtype)
            for name, value in layer.arrays.items()
            if value.ndim > 1 and value.dtype.kind == "f"
        }
        changed: Layer = replace(layer, **changes)
        return changed.with_children([drawn(child) for child in changed.children])

    return model.with_(layers=drawn(model.layers))


def correlation(a: Array, b: Array) -> float:
    """Spearman's rank correlation of two maps, -1 to 1; 0 where one of them is flat."""
    if a.max() == a.min() or b.max() == b.min():
        return 0.0
    return float(np.corrcoef(_ranks(a.ravel()), _ranks(b.ravel()))[0, 1])


def _ranks(values: Array) -> Array:
    """The rank of each value; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Array = (ends - (counts - 1) / 2)[inverse]
    return ranks
