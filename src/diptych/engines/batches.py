"""What every engine does with a batch before it runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.errors import ShapeError, UsageError
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes

__all__ = ["validate_batch"]


def validate_batch(model: Model, batch: Any) -> Array:
    """A batch as engines compute with it.

    Args:
        model: The model that it must fit.
        batch: An array of real numbers, (N, C, *spatial), (N, features) or whatever shape the model takes.

    Returns:
        A C-contiguous float32 array; the same array where it is one already.

    Raises:
        UsageError: It does not hold real numbers.
        ShapeError: It is empty or does not fit the model.
    """
    array = np.asarray(batch)
    if array.dtype.kind not in "biuf":
        raise UsageError(f"a batch is an array of real numbers, got dtype {array.dtype}; convert it first")
    if array.ndim < 2 or array.size == 0:
        raise ShapeError(f"a batch has the shape (N, C, ...) with no empty axis, got {array.shape}")
    layer_shapes(model, array.shape)
    with np.errstate(over="ignore"):  # a float64 beyond float32's range becomes infinite, as in every engine
        return np.ascontiguousarray(array, dtype=np.float32)
