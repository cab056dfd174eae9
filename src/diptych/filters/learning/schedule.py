"""The learning rate over a training, and when to end it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Cosine", "gain_per_doubling"]


@dataclass(frozen=True)
class Cosine:
    """A linear rise over `warm_up` steps to `peak`, then half a cosine down to `last` of it at the end."""

    peak: float
    warm_up: int = 0
    last: float = 0.0

    def __call__(self, step: int, steps: int) -> float:
        """The rate of a step, counted from 0, of so many."""
        rise = min(1.0, (step + 1) / (self.warm_up + 1))
        share = min(1.0, max(0.0, (step - self.warm_up) / max(1, steps - self.warm_up)))
        return self.peak * rise * (self.last + (1 - self.last) * (1 + math.cos(math.pi * share)) / 2)


def gain_per_doubling(history: Sequence[tuple[float, float]]) -> float:
    """By how much the score rose with the last doubling of the steps, smoothed; infinite where that is unknown.

    `history`: (step, score), in order. The slope of a straight line through score by log2(step), over the
    second half of the steps; fewer than four points there tell nothing.
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
