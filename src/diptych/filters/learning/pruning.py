"""Pruning of shallow networks: inactive units go, equal units merge, and the least useful go one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from diptych.filters.learning.shallow import Shallow
from diptych.model.layers import Array

__all__ = ["merged", "pruned", "refitted"]


def merged(network: Shallow, windows: Array, parallel: float = 0.9999) -> Shallow:
    """The network without inactive units, and with units of the same direction merged.

    A unit can be scaled against its output weight, so only the direction of (bank, offset) tells units apart.

    Args:
        network: The network.
        windows: (N, C, K); a unit that is never active on them is removed.
        parallel: The cosine above which directions are the same.
    """
    answers = network.units(windows)
    alive = np.flatnonzero((answers > 0).any(0) & (np.abs(network.output).max(0) > 0))
    offset = np.zeros(len(network.bank)) if network.offset is None else network.offset
    rows = np.c_[network.bank, offset]
    lengths = np.maximum(np.linalg.norm(rows, axis=1), 1e-300)
    kept: list[int] = []
    output = network.output.copy()
    for unit in alive:
        cosines = [float(rows[unit] @ rows[k] / lengths[unit] / lengths[k]) for k in kept]
        if cosines and max(cosines) > parallel:
            twin = kept[int(np.argmax(cosines))]
            output[:, twin] += output[:, unit] * lengths[unit] / lengths[twin]
        else:
            kept.append(int(unit))
    return _only(replace(network, output=output), kept or [0])


def pruned(
    network: Shallow,
    windows: Array,
    targets: Array,
    good_enough: Callable[[Shallow], bool],
    polish: Callable[[Shallow], Shallow],
) -> Shallow:
    """The network after removing the least useful units one at a time.

    Args:
        network: The network.
        windows: (N, C, K), to fit the output weights to.
        targets: (N, O).
        good_enough: Whether a smaller network may be kept.
        polish: Improves a smaller network that is not good enough with new output weights alone.
    """
    while len(network.bank) > 1:
        units = range(len(network.bank))
        smaller_banks = [_only(network, [other for other in units if other != unit]) for unit in units]
        trials = [refitted(smaller, windows, targets) for smaller in smaller_banks]
        errors = [np.mean((trial(windows) - targets) ** 2) for trial in trials]
        smaller = trials[int(np.argmin(errors))]
        if not good_enough(smaller):
            smaller = polish(smaller)
            if not good_enough(smaller):
                break
        network = smaller
    return network


def refitted(network: Shallow, windows: Array, targets: Array) -> Shallow:
    """The same units with the least squares output weights for them."""
    answers = network.units(windows)
    if network.constant is None:
        return replace(network, output=np.linalg.lstsq(answers, targets, rcond=None)[0].T)
    solved = np.linalg.lstsq(np.c_[answers, np.ones(len(answers))], targets, rcond=None)[0]
    return replace(network, output=solved[:-1].T, constant=solved[-1])


def _only(network: Shallow, units: list[int]) -> Shallow:
    offset = None if network.offset is None else network.offset[units]
    return replace(network, bank=network.bank[units], output=network.output[:, units], offset=offset)
