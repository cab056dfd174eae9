"""Least squares with a constant, and how certain the solution is."""

from __future__ import annotations

import numpy as np

from diptych.model.layers import Array

__all__ = ["CLIPPED", "least_squares"]

CLIPPED = 1e-6  # in 0..1; closer to 0 or 1 than this, a value may have been clipped


def least_squares(x: Array, t: Array) -> tuple[Array, float, float]:
    """Solves min |x w + b - t|^2 for w and b.

    Columns and targets are centred, which removes b from the normal equations. One step of iterative refinement
    recovers the digits that the normal equations lose.

    Args:
        x: Float64 (n, K).
        t: Float64 (n,).

    Returns:
        w (K,), b, and the largest standard error of a w: sqrt(s^2 max diag((x'x)^-1)), where s^2 is the residual
        variance with n - K degrees of freedom.
    """
    middle, level = x.mean(axis=0), float(t.mean())
    x, t = x - middle, t - level
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += 1e-12 * max(float(np.trace(gram)) / len(gram), 1e-9)
    inverse = np.linalg.pinv(gram, hermitian=True) if len(gram) < 100 else np.linalg.inv(gram)
    w = inverse @ (x.T @ t)
    w += inverse @ (x.T @ (t - x @ w))  # iterative refinement
    left = t - x @ w
    variance = float(left @ left) / (len(x) - x.shape[1])
    error = float(np.sqrt(variance * max(np.diag(inverse).max(), 0)))
    return w, level - float(middle @ w), error
