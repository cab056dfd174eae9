"""Small ReLU networks, fitted by second-order steps from a start that the data chooses.

Many filters are a function of a few linear maps of the window: a gradient's length of two, an absolute
response of one. `starts` finds the maps. A length is folded (`folding`), which needs no training. Else the
units start in the plane of the maps: as an odd star, directions 2 pi j / k, whose even terms cancel all but
the length, or as those that a greedy search picks. Elsewhere they start as paired windows of zero mean. Then
Levenberg and Marquardt's method moves every weight. Without a budget of weights the units grow until the goal
is met, and what a wide network does not need is taken away again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from diptych.filters.learning.folding import Folded, folded
from diptych.filters.learning.initialisation import Samples, in_maps, maps, paired, saturates
from diptych.filters.learning.pruning import merged, pruned
from diptych.filters.learning.shallow import Shallow, fit_by_levenberg_marquardt
from diptych.filters.learning.task import CEILING, Candidate, Task
from diptych.model.layers import Array

__all__ = ["fit"]

_FOLDS = (0, 2, 3, 4, 5, 6)  # each gains 12 dB, until float32 is the limit
_BANKS = (2, 4, 5, 7, 9, 17)  # units in a plane: each doubling of an odd star gains 12 dB
_PAIRS = (4, 8, 16, 32)
_MANY = 700  # weights: beyond that a second-order step takes longer than what it saves
_FURTHEST = 7  # pixels that a shallow network looks around
_GUESSES = (1, 2)  # pixels looked around where the reach cannot be known
_WIDER = 0.5  # dB that a wider window must gain
_EXACT = 100.0  # dB: nothing is left to gain
_FEW = 8  # steps for the two sides of one map, which starts where it belongs or never gets there
_SECONDS = 20.0  # after which no larger network is begun

_Network = Shallow | Folded
_Initialisation = Callable[[], _Network]


@dataclass(frozen=True, eq=False)
class _Study:
    """A problem at one radius: its samples, and what was found out about them."""

    task: Task
    radius: int
    deadline: float

    @cached_property
    def samples(self) -> Samples:
        return Samples.of(self.task, self.radius, 10_000)

    @cached_property
    def held_out(self) -> Samples:
        return Samples.of(self.task, self.radius, 8_000, held_out=True)

    @cached_property
    def maps(self) -> tuple[Array | None, Array]:
        return maps(self.samples)

    @property
    def copies(self) -> int:
        """How many channels the network is repeated for."""
        return self.task.channels[0] if self.task.target.per_channel else 1

    def psnr(self, network: _Network) -> float:
        error = np.mean((network(self.held_out.windows) - self.held_out.targets) ** 2)
        return float(-10 * np.log10(max(error, 1e-20)))

    def fitted(self, network: Shallow, steps: int = 60) -> Shallow:
        end = min(self.deadline + _SECONDS, self.task.deadline)
        if time.monotonic() > end:
            return network
        few = slice(0, max(3000, 40 * network.weights))
        parts = (self.samples.windows[few], self.samples.targets[few], self.samples.shares[few])
        return fit_by_levenberg_marquardt(network, *parts, steps=steps, floor=1e-11, deadline=end)[0]


@dataclass(frozen=True, eq=False)
class _Found:
    network: _Network
    study: _Study
    psnr: float


def fit(task: Task) -> Candidate | None:
    """The smallest shallow network that meets the goal, or the best within the budget of weights.

    None where the filter looks further than 7 pixels, where it is a curve, or nothing of this kind fits the
    budget.
    """
    colours = task.channels == (3, 3) and not task.target.per_channel
    best: _Found | None = None
    deadline = time.monotonic() + min(task.time_left, _SECONDS)
    # Pairs cannot be asked how far they look: the smallest window that does.
    for radius in (task.radius,) if task.answers else _GUESSES:
        if not (0 if colours else 1) <= radius <= _FURTHEST or time.monotonic() > deadline:
            continue
        found = _best(_Study(task, radius, deadline))
        if found is not None and (best is None or found.psnr > best.psnr + _WIDER):
            best = found
    if best is None:
        return None
    radius, study = best.study.radius, best.study
    wide = isinstance(best.network, Shallow) and best.network.front is None
    if wide and task.weights is None and task.time_left > 0:
        assert isinstance(best.network, Shallow)
        best = _shrunk(best, best.network)
    network = best.network
    chain = network.layers(radius, task.padding_mode, study.copies)
    shape = (
        f"{len(network.bank)} ReLUs" if isinstance(network, Shallow) else f"a length, {network.turns} folds"
    )
    return Candidate(chain, "relu", f"{shape}, {best.psnr:.1f} dB on held-out windows")


def _best(study: _Study) -> _Found | None:
    """The best of all starts; without a budget of weights, a larger network must gain 0.1 dB."""
    task, best = study.task, None
    margin = 0.1 if task.weights is None else 0.0
    goal = min(task.goal, CEILING if task.target.rounded else _EXACT)
    for size, initialise in _initialisations(study):
        if not task.allows(size * study.copies):
            continue
        if best is not None and (best.psnr >= goal or time.monotonic() > study.deadline):
            break
        network = initialise()
        if isinstance(network, Shallow):
            network = study.fitted(network, _FEW if len(network.bank) == 2 else 60)
        found = _Found(network, study, study.psnr(network))
        if best is None or found.psnr > best.psnr + margin:
            best = found
        task.progress(0, 0, f"a network of {network.weights} weights, best so far {best.psnr:.1f} dB")
    return best


def _initialisations(study: _Study) -> Iterator[tuple[int, _Initialisation]]:
    """Networks to begin with, each with its weights: from small to large, or what fills the budget first."""
    task = study.task
    inputs, outputs = (1, 1) if task.target.per_channel else task.channels
    side = (2 * study.radius + 1) ** 2
    mixed = inputs if inputs > 1 and outputs == 1 else 0
    seen = side if mixed or inputs == 1 else inputs * side
    if outputs == 1 and len(study.maps[1]):
        absolute = (mixed + seen + 2 * 2, _bound(_in_maps, study, 2, "star", 1))
        lengths = [
            (mixed + 2 * seen + 4 * turns + 2, _bound(_length, study, turns))
            for turns in _turns(task, mixed + 2 * seen + 2, study.copies)
        ]
        yield from [absolute, *lengths] if task.weights is None else [*lengths, absolute]
        for units in _bank_sizes(task, mixed + 2 * seen, study.copies):
            for kind in ("search",) if units <= 4 else ("star", "search"):
                if units == 4 or kind == "star" or task.weights is not None:
                    yield mixed + 2 * seen + 3 * units, _bound(_in_maps, study, units, kind, 2)
    for units in _PAIRS if task.weights is None else reversed(_PAIRS):
        size = mixed + (seen + 1 + outputs) * units + outputs
        if size <= _MANY:
            for attempt in range(2):
                yield size, _bound(_paired, study, units, attempt)


def _turns(task: Task, before: int, copies: int) -> tuple[int, ...]:
    """How often a plane is folded: as the budget allows."""
    if task.weights is None:
        return _FOLDS
    most = (task.weights // copies - before) // 4
    return (min(most, _FOLDS[-1]),) if most >= 0 else ()


def _bank_sizes(task: Task, before: int, copies: int) -> tuple[int, ...]:
    """How many units a bank has: as the budget allows, an odd number first."""
    if task.weights is None:
        return _BANKS[1:]
    most = min((task.weights // copies - before) // 3, 33)
    odd = most - (most % 2 == 0)
    return tuple(size for size in dict.fromkeys((odd, most, 4)) if 3 <= size <= most)


def _bound(function: Callable[..., _Network], *arguments: object) -> _Initialisation:
    return lambda: function(*arguments)


def _length(study: _Study, turns: int) -> _Network:
    mix, front = study.maps
    if len(front) < 2:
        front = np.concatenate([front, np.zeros_like(front)])
    return folded(study.samples, mix, front, turns, saturates(study.samples))


def _in_maps(study: _Study, units: int, kind: str, planes: int) -> Shallow:
    mix, front = study.maps
    return in_maps(study.samples, mix, front[:planes], units, kind)


def _paired(study: _Study, units: int, attempt: int) -> Shallow:
    mix = study.maps[0] if study.samples.targets.shape[1] == 1 else None
    random = np.random.default_rng([study.task.seed, study.radius, units, attempt])
    return paired(study.samples, mix, units, random)


def _shrunk(found: _Found, network: Shallow) -> _Found:
    """A wide network after pruning: within 0.1 dB of what it was, or still meeting the goal."""
    study, samples = found.study, found.study.samples
    enough = min(found.psnr - 0.1, max(study.task.goal, 0))
    small = pruned(
        merged(network, samples.windows),
        samples.windows,
        samples.targets,
        lambda network: study.psnr(network) >= enough,
        lambda network: study.fitted(network, 15),
    )
    small = study.fitted(small)
    return _Found(small, study, study.psnr(small)) if study.psnr(small) >= enough else found
