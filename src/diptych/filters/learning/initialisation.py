"""Where a shallow network starts: the maps that its target depends on, and units in them.

A filter that answers with a length, such as sqrt(gx^2 + gy^2), has a square that is a quadratic form of the
window. Regressing the squared target on products of pixels finds the form, and its leading eigenvectors are
the maps, scaled so that the target is about the length of what they give. Other even responses, |gx| + |gy|
among them, have the same maps to good approximation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diptych.filters.learning.shallow import Shallow
from diptych.filters.learning.task import Pair, Task
from diptych.model.layers import Array

__all__ = ["Samples", "in_maps", "maps", "paired", "saturates"]

_PRODUCTS = 1300  # unknowns of the largest regression: those of a 7 x 7 window
_TURNS = 16  # of a star, within its period
_RIDGE = 1e-9  # of a whitened regression


@dataclass(frozen=True, eq=False)
class Samples:
    """Windows (N, C, K), what is wanted at their centres (N, O), and how much each counts (N, 1), float64.

    Pictures give equally many, and count by what there is to say about them: a weighted squared error is the
    mean over pictures of a relative one, as a mean of decibels is.
    """

    windows: Array
    targets: Array
    shares: Array

    @classmethod
    def of(cls, task: Task, radius: int, count: int, *, held_out: bool = False) -> Samples:
        """Random windows of the training or held-out pictures; channels treated alike count as pictures."""
        pairs = task.held_out if held_out else task.training
        each = -(-count // len(pairs))
        drawn = [cls._of(task, radius, each, [pair], held_out) for pair in pairs]
        order = np.random.default_rng(task.seed).permutation(sum(len(part.targets) for part in drawn))
        columns = zip(*((part.windows, part.targets, part.shares) for part in drawn), strict=True)
        return cls(*(np.concatenate(column)[order] for column in columns))

    @classmethod
    def _of(cls, task: Task, radius: int, count: int, pairs: list[Pair], held_out: bool) -> Samples:
        windows, targets = task.windows(radius, count, seed=int(held_out), pairs=pairs)
        windows = windows.reshape(count, windows.shape[1], -1).astype(np.float64)
        targets = targets.astype(np.float64)
        if task.target.per_channel:
            targets = targets.reshape(-1, 1)
            windows = windows.reshape(len(targets), 1, -1)
        share = 1 / max(float(targets.var()), 1e-4)
        return cls(windows, targets, np.full((len(targets), 1), share))


def maps(samples: Samples, most: int = 2) -> tuple[Array | None, Array]:
    """The channel mix (C,), None for one channel, and up to `most` maps (J, K), the strongest first.

    The mix and the form are found in turn, each in closed form from the other.
    """
    squared = samples.targets[:, 0] ** 2
    channels = samples.windows.shape[1]
    mix = np.full(channels, 1 / channels)
    found = _form(mix @ samples.windows, squared, most)
    if channels == 1:
        return None, found
    for _ in range(3 if len(found) else 0):
        mix = _mix(samples.windows, found, squared)
        found = _form(mix @ samples.windows, squared, most)
    return mix, found


def _form(windows: Array, squared: Array, most: int) -> Array:
    """Rows f with squared ~ sum of (f window)^2."""
    values, axes = np.linalg.eigh(windows.T @ windows / len(windows))
    if values[-1] <= 0 or not squared.any():  # black all over, before or after
        return np.zeros((0, windows.shape[1]))
    kept = values > 1e-10 * values[-1]
    whitening = axes[:, kept] / np.sqrt(values[kept])
    white = windows @ whitening
    size = white.shape[1]
    if size * (size + 1) // 2 > _PRODUCTS:
        # Principal Hessian directions (Li 1992), exact for Gaussian windows.
        form = (white * (squared - squared.mean())[:, None]).T @ white / len(white) / 2
    else:
        form = _regressed_form(white, squared)
    strengths, directions = np.linalg.eigh(form)
    order = np.argsort(-np.abs(strengths))[:most]
    order = order[np.abs(strengths[order]) > 1e-2 * np.abs(strengths[order[0]])]
    found: Array = (whitening @ (directions[:, order] * np.sqrt(np.abs(strengths[order])))).T
    return found


def _regressed_form(white: Array, squared: Array) -> Array:
    rows, columns = np.triu_indices(white.shape[1])
    few = slice(0, max(2000, 5 * len(rows) // 2))
    products = white[few, rows] * white[few, columns]
    normal = products.T @ products
    normal[np.diag_indices_from(normal)] += _RIDGE * np.trace(normal) / len(normal)
    solved = np.linalg.solve(normal, products.T @ squared[few])
    form = np.zeros((white.shape[1],) * 2)
    form[rows, columns] = solved / 2
    return form + form.T


def _mix(windows: Array, found: Array, squared: Array) -> Array:
    """The mix m (C,) for which `squared` is best the sum over maps of (m . the map's value by channel)^2."""
    values = windows @ found.T  # (N, C, J)
    rows, columns = np.triu_indices(windows.shape[1])
    products = (values[:, rows] * values[:, columns]).sum(2)
    solved = np.linalg.lstsq(products, squared, rcond=None)[0]
    form = np.zeros((windows.shape[1],) * 2)
    form[rows, columns] = solved / 2
    directions = np.linalg.eigh(form + form.T)[1]
    best = directions[:, -1] * np.sign(directions[:, -1].sum() or 1)
    result: Array = best / max(np.abs(best.sum()), 0.1)
    return result


def in_maps(samples: Samples, mix: Array | None, front: Array, units: int, kind: str) -> Shallow:
    """A network whose `units` see `front`'s maps: a "star", or those a "search" picks one by one.

    A star errs with the direction, periodically, and pictures have more edges along some than along others:
    it is turned to where it errs least.
    """
    clamped = saturates(samples)
    values = Shallow(np.zeros((1, len(front))), np.ones((1, 1)), mix, front).maps(samples.windows)
    if kind == "search":
        banks = [_searched(values, samples, units)]
    else:
        turns = [0.0] if len(front) == 1 else np.linspace(0, 2 * np.pi / units, _TURNS, endpoint=False)
        banks = [_star(units, len(front), turn) for turn in turns]
    found = [_summed(bank, values, samples) for bank in banks]
    bank, output, _ = min(found, key=lambda one: one[2])
    return Shallow(bank, output, mix, front, clamped=clamped)


def _summed(bank: Array, values: Array, samples: Samples) -> tuple[Array, Array, float]:
    """The bank, the best output weights for it, and the weighted error."""
    roots = np.sqrt(samples.shares)
    responses = np.maximum(values @ bank.T, 0)
    output = np.linalg.lstsq(responses * roots, samples.targets * roots, rcond=None)[0]
    return bank, output.T, float(np.mean(samples.shares * (responses @ output - samples.targets) ** 2))


def _star(units: int, size: int, turn: float = 0.0) -> Array:
    if size == 1:
        return np.array([[1.0], [-1.0]])
    angles = turn + 2 * np.pi * np.arange(units) / units
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _searched(values: Array, samples: Samples, units: int, directions: int = 360) -> Array:
    """Unit directions, each the one whose response best explains what those before it leave."""
    atoms = _star(directions, values.shape[1])
    few = slice(0, 3000)
    roots = np.sqrt(samples.shares[few])
    responses = np.maximum(values[few] @ atoms.T, 0) * roots
    targets = samples.targets[few, 0] * roots[:, 0]
    lengths = np.linalg.norm(responses, axis=0) + 1e-12
    chosen: list[int] = []
    left = targets
    for _ in range(min(units, len(atoms))):
        chosen.append(int(np.argmax(np.abs(left @ responses) / lengths)))
        solved = np.linalg.lstsq(responses[:, chosen], targets, rcond=None)[0]
        left = targets - responses[:, chosen] @ solved
    return atoms[chosen]


def paired(samples: Samples, mix: Array | None, units: int, random: np.random.Generator) -> Shallow:
    """Pairs of opposite random windows of zero mean, and one unit that is always on: the best linear filter."""
    seen = samples.windows.reshape(len(samples.windows), -1) if mix is None else mix @ samples.windows
    half = random.normal(size=(units // 2, seen.shape[1]))
    half -= half.mean(1, keepdims=True)
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    bank, offset = np.concatenate([half, -half]), np.zeros(2 * len(half))
    if len(bank) < units:
        linear = np.linalg.lstsq(np.c_[seen, np.ones(len(seen))], samples.targets, rcond=None)[0].mean(1)
        bank = np.concatenate([bank, linear[None, :-1]])
        offset = np.append(offset, 1 + np.abs(linear[:-1]).sum())
    responses = np.c_[np.maximum(seen @ bank.T + offset, 0), np.ones(len(seen))]
    solved = np.linalg.lstsq(responses, samples.targets, rcond=None)[0]
    return Shallow(bank, solved[:-1].T, mix, None, offset, solved[-1], clamped=saturates(samples))


def saturates(samples: Samples) -> bool:
    """Whether what is wanted is held at 0 or 1 in more places than chance would have it."""
    return bool(np.mean(samples.targets >= 1) > 1e-3) or bool(np.mean(samples.targets <= 0) > 0.02)
