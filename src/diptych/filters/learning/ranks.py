"""Rank filters: erosion, dilation, their compositions, and the median.

A dilation is the maximum under a footprint: `MaxPool` with stride 1, for a box along rows and then along
columns. An erosion is -max(-x). A disk is a union of boxes with the same centre, and its maximum is the maximum of
theirs. Any other footprint, which the answer to a single pixel shows, is a union of runs along its rows.

The median of nine values takes 19 compare-exchange operations (J. L. Smith, "Implementing median filters in
XC4000E FPGAs", Xcell 23, 1996; A. W. Paeth, "Median finding on a 3 x 3 grid", Graphics Gems, 1990). With
min(a, b) = b - relu(b - a) and max(a, b) = a + relu(b - a), each row of exchanges is a matrix, a ReLU and
another matrix, and matrices that follow each other are multiplied together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

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
MAX_RADIUS = 7  # radii of footprints up to this are tried
MAX_ANY_RADIUS = 5  # of footprints that are found by probing
EXACT = 1e-6
NEGATED = Activation("affine", (-1.0, 0.0))

Box = tuple[int, int]  # radius along rows and columns
Footprint = tuple[Box, ...]


def fit(task: Task) -> Candidate | None:
    """The network of the first rank filter that reproduces the target; None without one."""
    if task.channels[0] != task.channels[1]:
        return None
    # The top left corners with their borders; targets are smaller, to leave out what the cut sides change.
    crops = [(pair.inputs[:, :112, :120], pair.target[:, :84, :92]) for pair in task.held_out[:2]]
    for name, layers in _candidates(task):
        if all(_matches(layers, crop) for crop in crops):
            return Candidate(layers, METHOD, name)
    return None


def _candidates(task: Task) -> Iterator[tuple[str, Chain]]:
    """Every rank filter with the target's radius, or of any radius where that cannot be probed."""
    farthest = task.radius if task.answers else 0
    if farthest == 1 or not task.answers:
        yield "the median of 3 x 3 pixels", median(task.channels[0], task.padding_mode)
    for name, network, radii in _MADE_OF:
        # The farthest pixels hardly ever decide in a composition, so that probing may miss them.
        radii_tried = [-(-farthest // radii)] if task.answers else range(1, 4)
        for radius in (radius for radius in radii_tried if 1 <= radius <= MAX_RADIUS):
            for (shape, footprint), once in product(_footprints(radius).items(), (True, False)):
                if radii == 1 and once != (shape == "box"):
                    continue  # a single stage needs the border only once
                said = f"{name} with a {shape} of {2 * radius + 1} pixels"
                for mode in _modes(task) if radii == 2 and not once else (task.padding_mode,):
                    yield said, network(_Maker(footprint, task.channels[0], mode, once))
    if task.answers and 0 < farthest <= MAX_ANY_RADIUS:
        yield from _of_any_footprint(task, farthest)


def _modes(task: Task) -> list[PadMode]:
    """The likely padding modes of a composition, that of the whole first: between the stages it can be another."""
    modes: list[PadMode] = [task.padding_mode, "replicate", "symmetric"]
    return list(dict.fromkeys(modes))


def _footprints(radius: int) -> dict[str, Footprint]:
    """The usual footprints of a radius, by name, without repetitions."""
    import cv2

    across = np.abs(np.arange(-radius, radius + 1))
    ellipse: Any = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    masks = {
        "disk": across[:, None] ** 2 + across**2 <= radius**2,
        "ellipse": np.asarray(ellipse, bool),
        "diamond": across[:, None] + across <= radius,
    }
    found: dict[str, Footprint] = {"box": ((radius, radius),), "cross": ((radius, 0), (0, radius))}
    for name, mask in masks.items():
        boxes = _boxes(mask)
        if boxes not in found.values():
            found[name] = boxes
    return found


def _boxes(mask: Array) -> Footprint:
    """The boxes whose union is a convex symmetric footprint, bool (2 r + 1, 2 r + 1)."""
    radius = len(mask) // 2
    widths = [int(np.abs(np.flatnonzero(row) - radius).max(initial=-1)) for row in mask[radius:]]
    rows = {width: row for row, width in enumerate(widths) if width >= 0}
    return tuple((row, width) for width, row in rows.items())


def _matches(layers: Chain, crop: tuple[Array, Array]) -> bool:
    inputs, targets = crop
    given = run(layers, inputs)[:, : targets.shape[1], : targets.shape[2]]
    return bool(np.abs(given - targets).max() <= EXACT)


def run(layers: Chain, planes: Array) -> Array:
    """The result of the reference engine for one picture (C, H, W)."""
    from diptych.engines import numpy as reference
    from diptych.model.model import Model

    result: Array = reference.compile(Model(layers, input_shape=(len(planes), None, None)))(planes[None])[0]
    return result


# ---- Morphology ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Maker:
    """Builds the networks for one footprint.

    Attributes:
        footprint: Boxes with the same centre, whose union is the footprint.
        channels: The number of channels, each treated alone.
        padding_mode: How the picture is extended.
        once: Extend the picture once, for all stages together, instead of before each stage.
    """

    footprint: Footprint
    channels: int
    padding_mode: PadMode
    once: bool

    @property
    def radius(self) -> int:
        return max(max(box) for box in self.footprint)

    def stages(self, *kinds: str) -> Chain:
        """Minima and maxima in sequence."""
        made = padded(len(kinds) * self.radius, self.padding_mode) if self.once else []
        for kind in kinds:
            largest = self._largest()
            made += [*largest] if kind == "max" else [NEGATED, *largest, NEGATED]
        return Chain(tuple(made))

    def _largest(self) -> list[Layer]:
        """The maximum under the footprint."""
        if len(self.footprint) == 1:
            return [*([] if self.once else padded(self.radius, self.padding_mode)), *_box(*self.footprint[0])]
        branches = [Chain((*self._with_border(*box), *_box(*box))) for box in self.footprint]
        return [Parallel(Connection("maximum"), tuple(branches))]

    def _with_border(self, rows: int, columns: int) -> list[Layer]:
        """The border that a box of these radii consumes, so that all branches end with the same size."""
        if not self.once:
            return [Pad(((rows, rows), (columns, columns)), self.padding_mode)]
        # Cut off what the wider boxes consume, with a kernel that is 1 in its middle.
        kernel = np.zeros((self.channels, 1, 2 * (self.radius - rows) + 1, 2 * (self.radius - columns) + 1))
        kernel[:, :, self.radius - rows, self.radius - columns] = 1
        return [Conv(kernel.astype(np.float32), groups=self.channels)]


def _box(rows: int, columns: int) -> list[Layer]:
    sizes = [(2 * rows + 1, 1), (1, 2 * columns + 1)]
    return [MaxPool(size, (1, 1)) for size in sizes if size != (1, 1)]


def _minus_result(layers: Chain) -> Chain:
    """x - layers(x)."""
    return Chain((SkipConnection(Chain((*layers.layers, NEGATED)), Connection("add")),))


# name, network, and its radius in radii of the footprint
_MADE_OF: Sequence[tuple[str, Callable[[_Maker], Chain], int]] = (
    ("dilation", lambda of: of.stages("max"), 1),
    ("erosion", lambda of: of.stages("min"), 1),
    ("gradient", lambda of: _difference(of.stages("max"), of.stages("min")), 1),
    ("inner gradient", lambda of: _minus_result(of.stages("min")), 1),
    ("outer gradient", lambda of: _result_minus(of.stages("max")), 1),
    ("opening", lambda of: of.stages("min", "max"), 2),
    ("closing", lambda of: of.stages("max", "min"), 2),
    ("top hat", lambda of: _minus_result(of.stages("min", "max")), 2),
    ("black hat", lambda of: _result_minus(of.stages("max", "min")), 2),
)


def _difference(first: Chain, second: Chain) -> Chain:
    return Chain((Parallel(Connection("subtract"), (first, second)),))


def _result_minus(layers: Chain) -> Chain:
    """layers(x) - x."""
    return Chain((SkipConnection(layers, Connection("subtract")),))


# ---- Any footprint ------------------------------------------------------------------------------------


def _of_any_footprint(task: Task, radius: int) -> Iterator[tuple[str, Chain]]:
    """Dilation and erosion with the footprint that the answer to a single pixel shows."""
    for name, ground, pixel in (("dilation", 0, 255), ("erosion", 255, 0)):
        side = 6 * radius + 1
        picture = np.full((side, side, task.channels[0]), ground, np.uint8)
        picture[side // 2, side // 2] = pixel
        answer = Pair.of(task.target, picture if task.channels[0] == 3 else picture[..., 0]).target
        seen = np.abs(answer[0] - ground / 255) > 0.5
        around = slice(side // 2 - radius, side // 2 + radius + 1)
        mask = seen[around, around][::-1, ::-1]  # the pixels that are seen lie opposite
        if mask.any() and seen.sum() == mask.sum():
            yield f"{name} with a footprint of {mask.sum()} pixels", _by_runs(task, mask, name == "erosion")


def _by_runs(task: Task, mask: Array, smallest: bool) -> Chain:
    """The maximum, or the minimum, under any footprint, bool (2 r + 1, 2 r + 1)."""
    channels, side, branches = task.channels[0], len(mask), []
    for row, seen in enumerate(mask):
        ends = np.flatnonzero(np.diff(np.concatenate([[0], seen.astype(int), [0]])))
        for first, end in ends.reshape(-1, 2):
            length = int(end - first)
            kernel = np.zeros((channels, 1, side, side - length + 1), np.float32)
            kernel[:, :, row, first] = 1  # shifts the picture to where the run begins
            pool = [MaxPool((1, length), (1, 1))] if length > 1 else []
            branches.append(Chain((Conv(kernel, groups=channels), *pool)))
    largest: list[Layer] = (
        [Parallel(Connection("maximum"), tuple(branches))] if len(branches) > 1 else [*branches]
    )
    pad = padded(side // 2, task.padding_mode)
    return Chain((*pad, NEGATED, *largest, NEGATED) if smallest else (*pad, *largest))


# ---- The median of nine -------------------------------------------------------------------------------

# Exchanges (low, high) that move the median of nine values to place 4; those of a row are independent.
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
    """The exact 3 x 3 median of each channel."""
    live = np.eye(9)  # the nine values in terms of the last units
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
    """One row of exchanges as a matrix before its ReLUs, and the nine places in terms of the ReLUs' outputs.

    Each exchange costs a unit for relu(high - low) and one for each of its places that is still read. Values
    are 0..1, so a ReLU passes on places that are not exchanged.

    Args:
        live: The places in terms of the units before, (9, n).
        exchanges: (low, high) places.
        kept: The places that are read later.
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
