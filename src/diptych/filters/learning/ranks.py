"""Filters that choose a level among those around: erosion, dilation, what is made of them, and the median.

A dilation is the largest value under a footprint: `MaxPool` with stride 1, along rows and columns one after
the other for a box; an erosion is -max(-x). A footprint that is no box is a union of boxes around the same
centre, and its maximum that of theirs.

The median of nine values takes 19 exchanges (J. L. Smith, "Implementing median filters in XC4000E FPGAs",
Xcell 23, 1996; A. W. Paeth, "Median finding on a 3 x 3 grid", Graphics Gems, 1990). With
min(a, b) = b - relu(b - a) and max(a, b) = a + relu(b - a), each row of exchanges is a matrix, a ReLU and a
matrix, and neighbouring matrices are multiplied together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from diptych.filters.learning.kernels import padded
from diptych.filters.learning.pairs import Pair
from diptych.filters.learning.task import Candidate, Task
from diptych.model.layers import (
    Activation,
    Array,
    Chain,
    Connection,
    Conv,
    Layer,
    MaxPool,
    Pad,
    PadMode,
    Parallel,
    SkipConnection,
)

__all__ = ["fit"]

METHOD = "rank"
LARGEST = 7  # the radius up to which footprints are tried
EXACT = 1e-6
NEGATED = Activation("affine", (-1.0, 0.0))

Box = tuple[int, int]  # radius along rows and columns
Footprint = tuple[Box, ...]


def fit(task: Task) -> Candidate | None:
    """The network of the first rank filter that gives what is wanted; None where there is none."""
    if task.channels[0] != task.channels[1]:
        return None
    crops = [_crop(pair) for pair in task.held_out[:2]]
    for name, layers in _candidates(task):
        if all(_gives(layers, crop) for crop in crops):
            return Candidate(layers, METHOD, name)
    return None


def _candidates(task: Task) -> Iterator[tuple[str, Chain]]:
    """Every rank filter with the reach that was found, or, where that cannot be asked, with any."""
    farthest = task.radius if task.answers else 0
    if farthest == 1 or not task.answers:
        yield "the median of 3 x 3", median(task.channels[0], task.padding_mode)
    for name, network, radii in _MADE_OF:
        radii_tried = [farthest / radii] if task.answers else range(1, 4)
        for radius in (int(radius) for radius in radii_tried if radius in range(1, LARGEST + 1)):
            for shape, once in product(("box", "cross"), (True, False)):
                if radii == 1 and once != (shape == "box"):
                    continue  # one stage meets the border once anyhow
                footprint = ((radius, radius),) if shape == "box" else ((radius, 0), (0, radius))
                maker = _Maker(footprint, task.channels[0], task.padding_mode, once)
                yield f"{name} by a {shape} of {2 * radius + 1}", network(maker)


def _crop(pair: Pair) -> tuple[Array, Array]:
    """The top left corner of a picture, borders and all, and what is wanted there without the cut's sides."""
    return pair.inputs[:, :112, :120], pair.target[:, :84, :92]


def _gives(layers: Chain, crop: tuple[Array, Array]) -> bool:
    inputs, targets = crop
    given = run(layers, inputs)[:, : targets.shape[1], : targets.shape[2]]
    return bool(np.abs(given - targets).max() <= EXACT)


def run(layers: Chain, planes: Array) -> Array:
    """The reference engine's answer to one picture (C, H, W)."""
    from diptych.engines import numpy as reference
    from diptych.model.model import Model

    result: Array = reference.compile(Model(layers, input_shape=(len(planes), None, None)))(planes[None])[0]
    return result


# ---- Morphology ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Maker:
    """What the networks of one footprint have in common.

    `once`: the picture is extended before the first stage only, by as much as all stages take; otherwise
    before each.
    """

    footprint: Footprint
    channels: int
    padding_mode: PadMode
    once: bool

    @property
    def radius(self) -> int:
        return max(max(box) for box in self.footprint)

    def stages(self, *kinds: str) -> Chain:
        """Minima and maxima, one after the other."""
        made = padded(len(kinds) * self.radius, self.padding_mode) if self.once else []
        for kind in kinds:
            largest = self._largest()
            made += [*largest] if kind == "max" else [NEGATED, *largest, NEGATED]
        return Chain(tuple(made))

    def _largest(self) -> list[Layer]:
        """The maximum under the footprint."""
        if len(self.footprint) == 1:
            return [*([] if self.once else padded(self.radius, self.padding_mode)), *_box(*self.footprint[0])]
        branches = [Chain((*self._fitted(*box), *_box(*box))) for box in self.footprint]
        return [Parallel(Connection("maximum"), tuple(branches))]

    def _fitted(self, rows: int, columns: int) -> list[Layer]:
        """As much border as a box of these radii takes away, so that all branches end with the same size."""
        if not self.once:
            return [Pad(((rows, rows), (columns, columns)), self.padding_mode)]
        # What the wider boxes would take is cut off by a kernel that is 1 in its middle.
        kernel = np.zeros((self.channels, 1, 2 * (self.radius - rows) + 1, 2 * (self.radius - columns) + 1))
        kernel[:, :, self.radius - rows, self.radius - columns] = 1
        return [Conv(kernel.astype(np.float32), groups=self.channels)]


def _box(rows: int, columns: int) -> list[Layer]:
    sizes = [(2 * rows + 1, 1), (1, 2 * columns + 1)]
    return [MaxPool(size, (1, 1)) for size in sizes if size != (1, 1)]


def _without(layers: Chain) -> Chain:
    """x minus what the layers make of it."""
    return Chain((SkipConnection(Chain((*layers.layers, NEGATED)), Connection("add")),))


# name, the network, and its reach in radii of the footprint
_MADE_OF: Sequence[tuple[str, Callable[[_Maker], Chain], int]] = (
    ("dilation", lambda of: of.stages("max"), 1),
    ("erosion", lambda of: of.stages("min"), 1),
    ("gradient", lambda of: _difference(of.stages("max"), of.stages("min")), 1),
    ("inner gradient", lambda of: _without(of.stages("min")), 1),
    ("outer gradient", lambda of: _beyond(of.stages("max")), 1),
    ("opening", lambda of: of.stages("min", "max"), 2),
    ("closing", lambda of: of.stages("max", "min"), 2),
    ("top hat", lambda of: _without(of.stages("min", "max")), 2),
    ("black hat", lambda of: _beyond(of.stages("max", "min")), 2),
)


def _difference(first: Chain, second: Chain) -> Chain:
    return Chain((Parallel(Connection("subtract"), (first, second)),))


def _beyond(layers: Chain) -> Chain:
    """What the layers make of x, minus x."""
    return Chain((SkipConnection(layers, Connection("subtract")),))


# ---- The median of nine -------------------------------------------------------------------------------

# Exchanges (low, high) that leave the median of nine values in place 4, those of a row independent.
EXCHANGES: tuple[tuple[tuple[int, int], ...], ...] = (
    ((1, 2), (4, 5), (7, 8)),
    ((0, 1), (3, 4), (6, 7)),
    ((1, 2), (4, 5), (7, 8), (0, 3)),
    ((5, 8), (4, 7), (3, 6)),
    ((1, 4), (2, 5)),
    ((4, 7),),
    ((4, 2),),
    ((6, 4),),
    ((4, 2),),
)


def median(channels: int, padding_mode: PadMode) -> Chain:
    """The exact median of 3 x 3, of every channel by itself."""
    live = np.eye(9)  # the nine values, from what the last ReLUs gave
    kernels: list[Array] = []
    for row, exchanges in enumerate(EXCHANGES):
        matrix, live = _exchanged(live, exchanges, _needed_after(row))
        kernels.append(matrix)
    kernels.append(live[4:5])
    layers: list[Layer] = padded(1, padding_mode)
    for number, matrix in enumerate(kernels):
        shape = (len(matrix), 1, 3, 3) if number == 0 else (*matrix.shape, 1, 1)
        weight = np.tile(matrix.reshape(shape), (channels, 1, 1, 1)).astype(np.float32)
        last = number == len(kernels) - 1
        layers.append(Conv(weight, groups=channels, activation=Activation() if last else Activation("relu")))
    return Chain(tuple(layers))


def _needed_after(row: int) -> list[int]:
    """The places that a later exchange, or the result, still reads."""
    places = {4}
    for exchanges in reversed(EXCHANGES[row + 1 :]):
        places |= {place for pair in exchanges if places & set(pair) for place in pair}
    return sorted(places)


def _exchanged(live: Array, exchanges: Sequence[tuple[int, int]], kept: list[int]) -> tuple[Array, Array]:
    """One row of exchanges: the matrix before its ReLUs, and the nine places in terms of them.

    `live` (9, n): the places in terms of the units before. Values are 0..1, so that a ReLU carries those
    that wait. Each exchange costs a unit for relu(high - low) and one for each place that is not carried.
    """
    units: list[Array] = []
    after: dict[int, dict[int, float]] = {}

    def unit(row: Array) -> int:
        units.append(row)
        return len(units) - 1

    touched = {place for pair in exchanges for place in pair}
    for place in (place for place in kept if place not in touched):
        after[place] = {unit(live[place]): 1.0}
    for low, high in exchanges:
        difference = unit(live[high] - live[low])
        if high in kept:
            after[high] = {unit(live[low]): 1.0, difference: 1.0}
        if low in kept:
            after[low] = {unit(live[high]): 1.0, difference: -1.0}
    places = np.zeros((9, len(units)))
    for place, parts in after.items():
        places[place, list(parts)] = list(parts.values())
    return np.array(units), places
