"""Networks with one layer of ReLUs, their Jacobian, and the Levenberg-Marquardt method that fits them.

    y = output relu(bank front (mix window) + offset) + constant

`mix` combines the channels, `front` holds a few linear maps of the window, `bank` the units, and `output` adds
them up. Any of them may be missing, which means the identity. Such networks have tens to hundreds of weights,
for which a hundred second-order steps achieve what Adam does not in a hundred thousand steps. Everything is
computed in float64 with NumPy.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any

import numpy as np

from diptych.model.layers import Activation, Array, Chain, Conv, Layer, Pad, PadMode

__all__ = ["Shallow", "fit_by_levenberg_marquardt"]


@dataclass(frozen=True, eq=False)
class Shallow:
    """The weights of a network. K is (2 r + 1)^2 after a mix, otherwise C (2 r + 1)^2, for windows of radius r.

    Attributes:
        bank: (H, J).
        output: (O, H).
        mix: (C,) or None.
        front: (J, K) or None.
        offset: (H,) or None.
        constant: (O,) or None.
        clamped: Whether the result is limited to 0..1.
    """

    bank: Array
    output: Array
    mix: Array | None = None
    front: Array | None = None
    offset: Array | None = None
    constant: Array | None = None
    clamped: bool = False

    @property
    def weights(self) -> int:
        """The number of weights."""
        return sum(value.size for value in self._arrays().values())

    def _arrays(self) -> dict[str, Array]:
        named = ((f.name, getattr(self, f.name)) for f in fields(self) if f.name != "clamped")
        return {name: value for name, value in named if value is not None}

    def vector(self) -> Array:
        """All weights in one vector."""
        return np.concatenate([value.ravel() for value in self._arrays().values()])

    def with_vector(self, vector: Array) -> Shallow:
        """The network with other weights, in the order of `vector`."""
        taken, changes = 0, dict[str, Any]()
        for name, value in self._arrays().items():
            changes[name] = vector[taken : taken + value.size].reshape(value.shape)
            taken += value.size
        return replace(self, **changes)

    def maps(self, windows: Array) -> Array:
        """The inputs of the units for windows (N, C, K): (N, J)."""
        mixed: Array = windows.reshape(len(windows), -1) if self.mix is None else self.mix @ windows
        result: Array = mixed if self.front is None else mixed @ self.front.T
        return result

    def units(self, windows: Array) -> Array:
        """The outputs of the units after their ReLU, (N, H)."""
        seen = self.maps(windows) @ self.bank.T
        result: Array = np.maximum(seen if self.offset is None else seen + self.offset, 0)
        return result

    def __call__(self, windows: Array) -> Array:
        """The results (N, O) for windows (N, C, K)."""
        result: Array = self.units(windows) @ self.output.T
        if self.constant is not None:
            result = result + self.constant
        return np.clip(result, 0, 1) if self.clamped else result

    def normal_equations(self, windows: Array, targets: Array, shares: Array) -> tuple[Array, Array, float]:
        """The matrices of a Gauss-Newton step for the residual r = network - targets with Jacobian J.

        Args:
            windows: (N, C, K).
            targets: (N, O).
            shares: The weights of the windows, (N, 1).

        Returns:
            J'J, J'r and the mean of r^2, all weighted by `shares`.
        """
        maps, units = self.maps(windows), self.units(windows)
        raw = units @ self.output.T + (0 if self.constant is None else self.constant)
        residual = raw - targets
        free = np.ones_like(raw)
        if self.clamped:  # where the limit acts, no weight has an effect
            residual = np.clip(raw, 0, 1) - targets
            free = ((raw > 0) & (raw < 1)).astype(float)
        size = self.vector().size
        squares, gradient = np.zeros((size, size)), np.zeros(size)
        for o in range(len(self.output)):
            jacobian = self._jacobian(windows, maps, units, o)
            jacobian *= free[:, o : o + 1]
            weighted = jacobian * shares
            squares += weighted.T @ jacobian
            gradient += weighted.T @ residual[:, o]
        return squares, gradient, float(np.mean(shares * residual**2))

    def _jacobian(self, windows: Array, maps: Array, units: Array, o: int) -> Array:
        """The derivatives of output `o` by all weights, (N, weights), in the order of `vector`."""
        slopes = (units > 0) * self.output[o]
        before = windows.reshape(len(windows), -1) if self.mix is None else self.mix @ windows
        back = slopes @ self.bank  # derivative by the maps
        columns: dict[str, Array] = {"bank": (slopes[:, :, None] * maps[:, None, :]).reshape(len(maps), -1)}
        own = np.zeros((len(maps), *self.output.shape))
        own[:, o] = units
        columns["output"] = own.reshape(len(maps), -1)
        if self.front is not None:
            columns["front"] = (back[:, :, None] * before[:, None, :]).reshape(len(maps), -1)
            back = back @ self.front
        if self.mix is not None:
            columns["mix"] = np.einsum("nk,nck->nc", back, windows)
        if self.offset is not None:
            columns["offset"] = slopes
        if self.constant is not None:
            columns["constant"] = np.broadcast_to(np.eye(len(self.output))[o], (len(maps), len(self.output)))
        return np.concatenate([columns[name] for name in self._arrays()], axis=1)

    def layers(self, radius: int, padding_mode: PadMode, copies: int = 1) -> Chain:
        """The network as layers, from 0..1 to 0..1.

        Args:
            radius: The radius r of the windows.
            padding_mode: How the picture is extended.
            copies: The number of channels to which the network is applied alone.
        """
        side = 2 * radius + 1
        layers: list[Layer] = []
        if self.mix is not None:
            layers.append(Conv(_kernel(self.mix[None, :, None, None])))
        layers.append(Pad(((radius, radius),) * 2, padding_mode))
        relu = Activation("relu")
        offset = None if self.offset is None else _kernel(np.tile(self.offset, copies))
        first = self.bank if self.front is None else self.front
        spatial = _grouped(first.reshape(len(first), -1, side, side), copies)
        if self.front is None:
            layers.append(Conv(spatial, offset, groups=copies, activation=relu))
        else:
            layers.append(Conv(spatial, groups=copies))
            layers.append(
                Conv(_grouped(self.bank[:, :, None, None], copies), offset, groups=copies, activation=relu)
            )
        constant = None if self.constant is None else _kernel(np.tile(self.constant, copies))
        layers.append(Conv(_grouped(self.output[:, :, None, None], copies), constant, groups=copies))
        return Chain((*layers, *([Activation("clamp")] if self.clamped else [])))


def _kernel(values: Array) -> Array:
    return np.ascontiguousarray(values, dtype=np.float32)


def _grouped(kernel: Array, copies: int) -> Array:
    return _kernel(np.tile(kernel, (copies, 1, 1, 1)))


def fit_by_levenberg_marquardt(
    network: Shallow,
    windows: Array,
    targets: Array,
    shares: Array,
    *,
    steps: int = 100,
    floor: float = 0.0,
    deadline: float = inf,
) -> tuple[Shallow, float]:
    """Fits all weights by the Levenberg-Marquardt method.

    A step solves (J'J + damping diag(J'J)) move = J'r (Marquardt 1963). Damping falls after a step that lowers the
    error, and otherwise rises until one does. The method ends early at an error below `floor`, where eight
    dampings in a row do not help, or where ten steps gain less than 1 % together.

    Args:
        network: The initial network.
        windows: Float64 (N, C, K).
        targets: (N, O).
        shares: The weights of the windows, (N, 1).
        steps: The largest number of steps.
        floor: A weighted mean squared error that is small enough.
        deadline: A `time.monotonic()` at which to end.

    Returns:
        The fitted network, and its weighted mean squared error.
    """
    damping, history = 1e-3, []
    vector = network.vector()
    squares, gradient, error = network.normal_equations(windows, targets, shares)
    for _ in range(steps):
        if error <= floor or time.monotonic() > deadline:
            break
        better = None
        scale = np.diag(squares) + 1e-12 * np.trace(squares) / len(vector) + 1e-300
        for _ in range(8):
            move = np.linalg.solve(squares + damping * np.diag(scale), gradient)
            trial = network.with_vector(vector - move)
            tried = float(np.mean(shares * (trial(windows) - targets) ** 2))
            if tried < error:
                better = trial
                break
            damping *= 4
        if better is None:
            break
        damping = max(damping / 5, 1e-12)
        network, vector = better, better.vector()
        squares, gradient, error = network.normal_equations(windows, targets, shares)
        history.append(error)
        if len(history) > 10 and history[-1] > 0.99 * history[-11]:
            break
    return network, error
