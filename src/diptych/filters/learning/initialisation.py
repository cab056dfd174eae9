"""Initial weights of shallow networks: the linear maps that a target depends on, and units in them.

A filter such as sqrt(gx^2 + gy^2) has a square that is a quadratic form x'Qx of the window x. Regressing the
squared target on the products of pixels finds Q, and its leading eigenvectors are the maps, scaled so that the
target is about the length of their values. Other even responses, such as |gx| + |gy|, have the same maps to a
good approximation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diptych.filters.learning.shallow import Shallow
from diptych.filters.learning.task import Pair, Task
from diptych.model.layers import Array

__all__ = ["Samples", "in_maps", "maps", "paired", "saturates"]

_MAX_PRODUCTS = 1300  # unknowns of the largest regression, which a 7 x 7 window needs
_TURNS = 16  # rotations of a star within its period
_RIDGE = 1e-9  # relative to the mean diagonal entry


@dataclass(frozen=True, eq=False)
class Samples:
    """Windows with their targets and weights, float64.

    All pictures give equally many windows. The weight of a picture is the inverse variance of its target, so that
    the weighted squared error is the mean of the pictures' relative errors, as a mean of decibels is.

    Attributes:
        windows: (N, C, K).
        targets: At the centres, (N, O).
        shares: The weight of each window, (N, 1).
    """

    windows: Array
    targets: Array
    shares: Array

    @classmethod
    def of(cls, task: Task, radius: int, count: int, *, held_out: bool = False) -> Samples:
        """Random windows of the training or held-out pictures; channels that are alike count as pictures."""
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
    """The channel weights and the linear maps that the target depends on.

    Both are found in turn, each in closed form from the other.

    Args:
        samples: Windows and targets; only the first output is used.
        most: The largest number of maps.

    Returns:
        The weights of the channels, (C,), None for one channel; and the maps, (J, K), the strongest first.
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
    """Rows f for which the squared target is about the sum of (f . window)^2.

    Windows are whitened first: with the covariance V diag(l) V', y = diag(l)^(-1/2) V'x has unit covariance.
    """
    values, axes = np.linalg.eigh(windows.T @ windows / len(windows))
    if values[-1] <= 0 or not squared.any():  # all black, before or after the filter
        return np.zeros((0, windows.shape[1]))
    kept = values > 1e-10 * values[-1]
    whitening = axes[:, kept] / np.sqrt(values[kept])
    white = windows @ whitening
    size = white.shape[1]
    if size * (size + 1) // 2 > _MAX_PRODUCTS:
        # Principal Hessian directions (Li 1992), which are exact for Gaussian windows.
        form = (white * (squared - squared.mean())[:, None]).T @ white / len(white) / 2
    else:
        form = _regressed_form(white, squared)
    strengths, directions = np.linalg.eigh(form)
    order = np.argsort(-np.abs(strengths))[:most]
    order = order[np.abs(strengths[order]) > 1e-2 * np.abs(strengths[order[0]])]
    found: Array = (whitening @ (directions[:, order] * np.sqrt(np.abs(strengths[order])))).T
    return found


def _regressed_form(white: Array, squared: Array) -> Array:
    """The symmetric Q for which y'Qy is closest to the squared target, by ridge regression."""
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
    """The channel weights m for which the squared target is closest to the sum over maps of (m . v)^2.

    v holds the map's value for each channel. The sum is a quadratic form of m, fitted without constraints; m is
    its leading eigenvector.
    """
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
    """A network whose units see the values of the maps `front`.

    The error of a star is periodic in the direction, and pictures have more gradients in some directions than in
    others. So several rotations of it are tried, and the best is kept.

    Args:
        samples: To fit the output weights to.
        mix: The weights of the channels, (C,), or None.
        front: The maps, (J, K).
        units: The number of units.
        kind: "star", or "search" to pick the units one by one.
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
    """The bank, its best output weights, and the weighted error."""
    roots = np.sqrt(samples.shares)
    responses = np.maximum(values @ bank.T, 0)
    output = np.linalg.lstsq(responses * roots, samples.targets * roots, rcond=None)[0]
    return bank, output.T, float(np.mean(samples.shares * (responses @ output - samples.targets) ** 2))


def _star(units: int, size: int, turn: float = 0.0) -> Array:
    """Unit directions at equal angles, (units, size)."""
    if size == 1:
        return np.array([[1.0], [-1.0]])
    angles = turn + 2 * np.pi * np.arange(units) / units
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _searched(values: Array, samples: Samples, units: int, directions: int = 360) -> Array:
    """Unit directions, picked one by one for the response that best explains the remaining residual.

    This is orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad 1993): after each choice all output
    weights are fitted anew.
    """
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
    """A network of pairs of opposite random windows of zero mean.

    With an odd number of units the last one is always active and computes the best linear filter.
    """
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
    """Whether targets lie at 0 or 1 more often than by chance."""
    return bool(np.mean(samples.targets >= 1) > 1e-3) or bool(np.mean(samples.targets <= 0) > 0.02)
