"""What a method is given, and what it returns.

A method is a module with `fit(task: Task) -> Candidate | None`; None means that it does not apply.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diptych.filters.learning import probing_queries
from diptych.filters.learning.pairs import Pair, extended
from diptych.filters.target import Target
from diptych.filters.targets.pairs import Pairs
from diptych.model.layers import Array, Chain, PadMode, walk
from diptych.progress import Progress, silent

if TYPE_CHECKING:
    from diptych.filters.data import Data

__all__ = ["CEILING", "Candidate", "Pair", "Task", "extended"]

CEILING = 58.8
"""dB; the most that unrounded values reach against a target in whole levels.

A rounding error is uniform over one level, so its mean square is 1 / (12 255^2): 58.92 dB.
"""


@dataclass(eq=False)
class Task:
    """A filter to imitate, the pictures to learn from, and the limits on time and weights.

    Attributes:
        target: The filter.
        data: Pictures to train on, and held-out pictures to evaluate on.
        weights: The largest number of weights that the network may have; None for no limit.
        goal: The PSNR in dB on held-out pictures at which to stop, as `verdicts.judged` gives it.
        deadline: A `time.monotonic()` after which nothing new is begun; training ends with what it has.
        end: A `time.monotonic()` by which the evaluation should be done, too.
        seed: From which all random choices are drawn.
        progress: Called with steps done, all steps, and a line of text.
        checkpoint: The file to which training writes its state, and from which it resumes.
    """

    target: Target
    data: Data
    weights: int | None = None
    goal: float = inf
    deadline: float = inf
    end: float = inf
    seed: int = 0
    progress: Progress = silent
    checkpoint: Path | None = None

    @property
    def channels(self) -> tuple[int, int]:
        """The numbers of input and output channels."""
        return self.target.channels

    @property
    def padding_mode(self) -> PadMode:
        """How the filter extends a picture beyond its border."""
        return self.target.edge

    @property
    def time_left(self) -> float:
        """Seconds until the deadline; infinite without one."""
        return self.deadline - time.monotonic()

    def keep_free(self, seconds: float) -> None:
        """Moves the deadline forward where the evaluation takes so many seconds."""
        self.deadline = min(self.deadline, self.end - seconds)

    @cached_property
    def training(self) -> tuple[Pair, ...]:
        """The pictures to train on, each with the filter's result.

        Computing results stops at half of the time left, with at least one pair. With a checkpoint all pairs are
        computed, because its state belongs to one set of pictures.
        """
        enough = inf if self.checkpoint else time.monotonic() + self.time_left / 2
        pairs: list[Pair] = []
        for picture in self.data.train:
            if pairs and time.monotonic() > enough:
                break
            pairs.append(Pair.of(self.target, picture))
        return tuple(pairs)

    @cached_property
    def held_out(self) -> tuple[Pair, ...]:
        """Whole pictures for evaluation, which nothing is fitted to."""
        return tuple(Pair.of(self.target, picture) for picture in self.data.held_out.values())

    @cached_property
    def answers(self) -> bool:
        """Whether the target can be applied to any picture; pairs of files know only their own."""
        return not isinstance(self.target, Pairs)

    @cached_property
    def radius(self) -> int:
        """How far an output pixel depends on the input, in pixels; stated by the target or found by probing.

        Available only where the target `answers`.
        """
        return (
            probing_queries.find_radius(self.target, self.seed)
            if self.target.radius is None
            else self.target.radius
        )

    @cached_property
    def dependence(self) -> Array:
        """Which input channels each output channel depends on, bool (C', C). Only where `answers`."""
        return probing_queries.dependence(self.target, self.seed)

    def allows(self, weights: int) -> bool:
        """Whether a network with so many weights is within the limit."""
        return self.weights is None or weights <= self.weights

    def windows(
        self, radius: int, count: int, seed: int = 0, pairs: Sequence[Pair] | None = None
    ) -> tuple[Array, Array]:
        """Windows around random pixels, the same for the same seeds.

        Args:
            radius: Pixels on each side of the centre.
            count: The number of windows n.
            seed: Combined with the seed of the task.
            pairs: The pairs to draw from, in proportion to their pixels; None for the training pairs.

        Returns:
            Windows, float32 (n, C, 2 radius + 1, 2 radius + 1), and targets at their centres, (n, C').
        """
        patches, targets = self.patches(1, radius, count, seed, pairs)
        return patches, targets[:, :, 0, 0]

    def patches(
        self, size: int, radius: int, count: int, seed: int = 0, pairs: Sequence[Pair] | None = None
    ) -> tuple[Array, Array]:
        """Random squares with a halo of `radius` pixels, the same for the same seeds.

        Halos lie within the picture where it is large enough; otherwise the picture is padded. Pictures smaller
        than `size` are left out; where all are smaller, the squares shrink to the largest possible size.

        Args:
            size: The side of the squares in pixels.
            radius: The width of the halo in pixels.
            count: The number of squares n.
            seed: Combined with the seed of the task.
            pairs: The pairs to draw from, in proportion to their pixels; None for the training pairs.

        Returns:
            Inputs, float32 (n, C, size + 2 radius, size + 2 radius), and targets, (n, C', size, size).
        """
        chosen = list(self.training if pairs is None else pairs)
        large = [pair for pair in chosen if min(pair.size) >= size]
        if not large:
            smallest = max(min(pair.size) for pair in chosen)
            return self.patches(smallest, radius, count, seed, chosen)
        random = np.random.default_rng([self.seed, seed, size, radius])
        shares = np.array([pair.inputs[0].size for pair in large], float)
        counts = random.multinomial(count, shares / shares.sum())
        drawn = [
            _cut(p, size, radius, n, random, self.padding_mode) for p, n in zip(large, counts, strict=True)
        ]
        order = random.permutation(count)
        return (
            np.concatenate([inputs for inputs, _ in drawn])[order],
            np.concatenate([targets for _, targets in drawn])[order],
        )


def _cut(
    pair: Pair, size: int, radius: int, count: int, random: np.random.Generator, padding_mode: PadMode
) -> tuple[Array, Array]:
    """`count` random squares of one picture, with their halo."""
    whole = size + 2 * radius
    inner = all(side >= whole for side in pair.size)
    inputs = pair.inputs if inner else extended(pair.inputs, radius, padding_mode)
    rows, columns = (random.integers(0, side - whole + 1, count) for side in inputs.shape[1:])
    shift = radius if inner else 0
    seen = np.lib.stride_tricks.sliding_window_view(inputs, (whole, whole), (1, 2))
    targets = np.lib.stride_tricks.sliding_window_view(pair.target, (size, size), (1, 2))
    return (
        seen[:, rows, columns].transpose(1, 0, 2, 3),
        targets[:, rows + shift, columns + shift].transpose(1, 0, 2, 3),
    )


@dataclass(frozen=True, eq=False)
class Candidate:
    """The network that a method found.

    Attributes:
        layers: From 0..1 to 0..1.
        method: The name of the method.
        remark: A sentence for the report.
        curve: (steps, loss, held-out PSNR) over the training; empty without training.
        stopped: Why the training ended, in words; empty without training.
    """

    layers: Chain
    method: str
    remark: str = ""
    curve: tuple[tuple[float, float, float], ...] = ()
    stopped: str = ""

    @property
    def weights(self) -> int:
        """The number of weights."""
        return sum(array.size for _, layer in walk(self.layers) for array in layer.arrays.values())
