"""Small ReLU networks, initialised from the data and fitted by second-order steps.

Many filters are a function of a few linear maps of the window: a gradient's magnitude of two, an absolute
response of one. `initialisation` finds the maps. A magnitude becomes rotations and absolute values
(`folding`), which need no training. Otherwise the units start in the plane of the maps: as a star of k
directions 2 pi j / k with an odd k, for which all harmonics of the error below the order 2 k cancel, or as
directions that a greedy search picks. Where there are no such maps, units start as pairs of
opposite windows of zero mean.

All weights are then fitted by the Levenberg-Marquardt method. Without a limit on weights, the number of units
grows until the goal is met, and units that a wide network does not need are pruned.
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

_ROTATIONS = (0, 2, 3, 4, 5, 6)  # rotations; each one gains 12 dB until float32 is the limit
_BANKS = (2, 4, 5, 7, 9, 17)  # units in a plane; each doubling of an odd star gains 12 dB
_PAIRS = (4, 8, 16, 32)
_MAX_WEIGHTS = 700  # with more weights second-order steps take too long
_MAX_RADIUS = 7  # pixels
_UNKNOWN_RADII = (1, 2)  # pixels; tried where the radius cannot be probed
_WINDOW_GAIN = 0.5  # dB; what a larger window must gain
_NO_GAIN = 100.0  # dB; nothing is left to gain
_FEW_STEPS = 8  # steps for one map with two units, which is right from the start or never
_SECONDS = 20.0  # after which no larger network is begun

_Network = Shallow | Folded
_Initialisation = Callable[[], _Network]


@dataclass(frozen=True, eq=False)
class _Fitting:
    """A task with windows of one radius: its samples and their linear maps."""

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
        """The number of channels for which the network is repeated."""
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
class _Result:
    network: _Network
    fitting: _Fitting
    psnr: float


def fit(task: Task) -> Candidate | None:
    """The smallest shallow network that meets the goal, or the best one within the limit on weights.

    None for filters of single pixels or with a radius of more than 7 pixels, and where nothing fits the limit.
    """
    colours = task.channels == (3, 3) and not task.target.per_channel
    best: _Result | None = None
    deadline = time.monotonic() + min(task.time_left, _SECONDS)
    # The radius of pairs is unknown: take the smallest window that is good enough.
    for radius in (task.radius,) if task.answers else _UNKNOWN_RADII:
        if not (0 if colours else 1) <= radius <= _MAX_RADIUS or time.monotonic() > deadline:
            continue
        found = _best(_Fitting(task, radius, deadline))
        if found is not None and (best is None or found.psnr > best.psnr + _WINDOW_GAIN):
            best = found
    if best is None:
        return None
    radius, fitting = best.fitting.radius, best.fitting
    wide = isinstance(best.network, Shallow) and best.network.front is None
    if wide and task.weights is None and task.time_left > 0:
        assert isinstance(best.network, Shallow)
        best = _shrunk(best, best.network)
    network = best.network
    chain = network.layers(radius, task.padding_mode, fitting.copies)
    shape = (
        f"{len(network.bank)} ReLUs"
        if isinstance(network, Shallow)
        else f"a magnitude by {network.rotations} rotations"
    )
    return Candidate(chain, "relu", f"{shape}, {best.psnr:.1f} dB on held-out windows")


def _best(fitting: _Fitting) -> _Result | None:
    """The best network over all initialisations; without a limit, a larger one must gain 0.1 dB."""
    task, best = fitting.task, None
    margin = 0.1 if task.weights is None else 0.0
    goal = min(task.goal, CEILING if task.target.rounded else _NO_GAIN)
    for size, initialise in _initialisations(fitting):
        if not task.allows(size * fitting.copies):
            continue
        if best is not None and (best.psnr >= goal or time.monotonic() > fitting.deadline):
            break
        network = initialise()
        if isinstance(network, Shallow):
            network = fitting.fitted(network, _FEW_STEPS if len(network.bank) == 2 else 60)
        found = _Result(network, fitting, fitting.psnr(network))
        if best is None or found.psnr > best.psnr + margin:
            best = found
        task.progress(0, 0, f"a network of {network.weights} weights, best so far {best.psnr:.1f} dB")
    return best


def _initialisations(fitting: _Fitting) -> Iterator[tuple[int, _Initialisation]]:
    """The initial networks, each with its number of weights.

    They come in ascending size, or, with a limit on weights, with those first that make the most of it.
    """
    task = fitting.task
    inputs, outputs = (1, 1) if task.target.per_channel else task.channels
    side = (2 * fitting.radius + 1) ** 2
    mixed = inputs if inputs > 1 and outputs == 1 else 0
    seen = side if mixed or inputs == 1 else inputs * side
    if outputs == 1 and len(fitting.maps[1]):
        absolute = (mixed + seen + 2 * 2, _lazily(_in_maps, fitting, 2, "star", 1))
        lengths = [
            (mixed + 2 * seen + 4 * rotations + 2, _lazily(_length, fitting, rotations))
            for rotations in _rotation_counts(task, mixed + 2 * seen + 2, fitting.copies)
        ]
        yield from [absolute, *lengths] if task.weights is None else [*lengths, absolute]
        for units in _bank_sizes(task, mixed + 2 * seen, fitting.copies):
            for kind in ("search",) if units <= 4 else ("star", "search"):
                if units == 4 or kind == "star" or task.weights is not None:
                    yield mixed + 2 * seen + 3 * units, _lazily(_in_maps, fitting, units, kind, 2)
    for units in _PAIRS if task.weights is None else reversed(_PAIRS):
        size = mixed + (seen + 1 + outputs) * units + outputs
        if size <= _MAX_WEIGHTS:
            for attempt in range(2):
                yield size, _lazily(_paired, fitting, units, attempt)


def _rotation_counts(task: Task, before: int, copies: int) -> tuple[int, ...]:
    """The numbers of rotations to try, within the limit on weights."""
    if task.weights is None:
        return _ROTATIONS
    most = (task.weights // copies - before) // 4
    return (min(most, _ROTATIONS[-1]),) if most >= 0 else ()


def _bank_sizes(task: Task, before: int, copies: int) -> tuple[int, ...]:
    """The numbers of units to try, within the limit on weights; an odd number first."""
    if task.weights is None:
        return _BANKS[1:]
    most = min((task.weights // copies - before) // 3, 33)
    odd = most - (most % 2 == 0)
    return tuple(size for size in dict.fromkeys((odd, most, 4)) if 3 <= size <= most)


def _lazily(function: Callable[..., _Network], *arguments: object) -> _Initialisation:
    return lambda: function(*arguments)


def _length(fitting: _Fitting, rotations: int) -> _Network:
    mix, front = fitting.maps
    if len(front) < 2:
        front = np.concatenate([front, np.zeros_like(front)])
    return folded(fitting.samples, mix, front, rotations, saturates(fitting.samples))


def _in_maps(fitting: _Fitting, units: int, kind: str, planes: int) -> Shallow:
    mix, front = fitting.maps
    return in_maps(fitting.samples, mix, front[:planes], units, kind)


def _paired(fitting: _Fitting, units: int, attempt: int) -> Shallow:
    mix = fitting.maps[0] if fitting.samples.targets.shape[1] == 1 else None
    random = np.random.default_rng([fitting.task.seed, fitting.radius, units, attempt])
    return paired(fitting.samples, mix, units, random)


def _shrunk(found: _Result, network: Shallow) -> _Result:
    """A wide network after pruning, at most 0.1 dB worse or still meeting the goal."""
    fitting, samples = found.fitting, found.fitting.samples
    enough = min(found.psnr - 0.1, max(fitting.task.goal, 0))
    small = pruned(
        merged(network, samples.windows),
        samples.windows,
        samples.targets,
        lambda network: fitting.psnr(network) >= enough,
        lambda network: fitting.fitted(network, 15),
    )
    small = fitting.fitted(small)
    return _Result(small, fitting, fitting.psnr(small)) if fitting.psnr(small) >= enough else found
