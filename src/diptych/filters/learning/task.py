"""What a rung of the ladder is given, and what it gives back.

A rung is a module with `fit(task: Task) -> Candidate | None`; None says that it does not apply.
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
"""dB: 10 log10(12 255^2) = 58.92 is all that unrounded values can reach against a target in whole levels."""


@dataclass(frozen=True, eq=False)
class Task:
    """A filter to be imitated, pictures to learn from, and what may be spent on it.

    `weights`: how many weights the network may have, None for as many as it takes. `goal`: the held-out
    PSNR in dB at which to stop. `deadline`: a `time.monotonic()` after which nothing new is begun, and
    training ends with what it has. `checkpoint`: where training writes its state, to be resumed.
    """

    target: Target
    data: Data
    weights: int | None = None
    goal: float = inf
    deadline: float = inf
    seed: int = 0
    progress: Progress = silent
    checkpoint: Path | None = None

    @property
    def channels(self) -> tuple[int, int]:
        """How many channels go in and come out."""
        return self.target.channels

    @property
    def padding_mode(self) -> PadMode:
        """What lies beyond the border."""
        return self.target.edge

    @property
    def time_left(self) -> float:
        """Seconds until the deadline; infinite without one."""
        return self.deadline - time.monotonic()

    @cached_property
    def training(self) -> tuple[Pair, ...]:
        """The pictures to learn from, each with what the target makes of it.

        Only the first of them, at least one, where a slow target would take more than half of the time left.
        A checkpoint needs them all: it is of one set of pictures.
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
        """Whole pictures that nothing is ever fitted to."""
        return tuple(Pair.of(self.target, picture) for picture in self.data.held_out.values())

    @cached_property
    def answers(self) -> bool:
        """Whether the target can be asked about any picture: pairs of files know only their own."""
        return not isinstance(self.target, Pairs)

    @cached_property
    def radius(self) -> int:
        """How far an output depends on the input, in pixels: what the target says, or what asking finds.

        Only where the target `answers`, as for `dependence`.
        """
        return (
            probing_queries.find_radius(self.target, self.seed)
            if self.target.radius is None
            else self.target.radius
        )

    @cached_property
    def dependence(self) -> Array:
        """bool (C', C): which input channels an output channel depends on."""
        return probing_queries.dependence(self.target, self.seed)

    def allows(self, weights: int) -> bool:
        """Whether a network with so many weights is within what was asked for."""
        return self.weights is None or weights <= self.weights

    def windows(
        self, radius: int, count: int, seed: int = 0, pairs: Sequence[Pair] | None = None
    ) -> tuple[Array, Array]:
        """Random pixels with what surrounds them, the same for the same seeds.

        -> float32 (count, C, 2 radius + 1, 2 radius + 1) and the target's (count, C') at their centres.
        Each picture of `pairs` (the training ones) is drawn in proportion to its pixels.
        """
        patches, targets = self.patches(1, radius, count, seed, pairs)
        return patches, targets[:, :, 0, 0]

    def patches(
        self, size: int, radius: int, count: int, seed: int = 0, pairs: Sequence[Pair] | None = None
    ) -> tuple[Array, Array]:
        """Random squares with the halo of `radius` around them, the same for the same seeds.

        -> float32 (count, C, size + 2 radius, size + 2 radius) and (count, C', size, size). The halo lies
        within the picture where the picture is large enough, and else is extended by the edge mode.
        Pictures smaller than `size` are left out; where there are no others the squares are smaller.
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
    """What a rung found: layers that take 0..1 to 0..1, where from, and how its training went.

    `curve`: (steps, loss, held-out PSNR) where something was trained. `stopped`: why it ended, in words.
    """

    layers: Chain
    method: str
    remark: str = ""
    curve: tuple[tuple[float, float, float], ...] = ()
    stopped: str = ""

    @property
    def weights(self) -> int:
        """How many there are."""
        return sum(array.size for _, layer in walk(self.layers) for array in layer.arrays.values())
