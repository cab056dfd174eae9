"""How far the numbers of an answer lie from those that are right."""

from __future__ import annotations

import numpy as np

from diptych.model.layers import Array

RELATIVE = 1e-5  # what two engines may lie apart: float32 has 6e-8


def apart(given: Array, expected: Array) -> float:
    """The largest difference, as a part of the largest expected value or of 1; infinite where shapes differ."""
    if given.shape != expected.shape:
        return np.inf
    furthest = np.abs(given.astype(np.float64) - expected).max()
    return float(furthest / max(1.0, np.abs(expected).max()))
