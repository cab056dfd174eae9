"""The learning rate over a training, and the measure by which it ends early."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Cosine", "gain_per_doubling"]


@dataclass(frozen=True)
class Cosine:
    """A linear rise over `warm_up` steps to `peak`, then half a cosine down to `last` times `peak`.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017), without restarts.
    """

    peak: float
    warm_up: int = 0
    last: float = 0.0

    def __call__(self, step: int, steps: int) -> float:
        """The learning rate of `step`, counted from 0, out of `steps`."""
        rise = min(1.0, (step + 1) / (self.warm_up + 1))
        share = min(1.0, max(0.0, (step - self.warm_up) / max(1, steps - self.warm_up)))
        return self.peak * rise * (self.last + (1 - self.last) * (1 + math.cos(math.pi * share)) / 2)


def gain_per_doubling(history: Sequence[tuple[float, float]]) -> float:
    """By how much the score rose over the last doubling of the steps.

    It is the slope of a line through the scores against log2(step), fitted over the second half of the steps.

    Args:
        history: (step, score) in order.

    Returns:
        The slope; infinite where fewer than four points lie in the second half.
    """
    if not history:
        return math.inf
    recent = [(math.log2(step), score) for step, score in history if step >= history[-1][0] / 2]
    if len(recent) < 4:
        return math.inf
    middle = sum(x for x, _ in recent) / len(recent)
    level = sum(y for _, y in recent) / len(recent)
    spread = sum((x - middle) ** 2 for x, _ in recent)
    return sum((x - middle) * (y - level) for x, y in recent) / spread
