"""Random numbers and curves that are the same to the last bit on every machine.

Painting uses only + - * / and comparisons, which IEEE 754 defines exactly, because `sin`, `exp` and `pow` differ
between C libraries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Floats = npt.NDArray[np.float64]


class RandomStream:
    """A stream of random numbers named by a key, the same on every machine.

    The generator is PCG64, seeded with the SHA-256 of the key. The numbers of a child depend only on its name, not
    on how many its parent has drawn, so that a change to one part of a painting does not change the others.

    Args:
        key: What names the stream, such as a version, a prompt and a seed.
    """

    def __init__(self, *key: str | int) -> None:
        text = "\x1f".join(str(part) for part in key)
        self._digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        self._generator: np.random.Generator | None = None
        self._drawn: list[float] = []

    def child(self, name: str) -> RandomStream:
        """An independent stream for one part of the picture."""
        return RandomStream(self._digest.hex(), name)

    def random(self) -> float:
        """A number in [0, 1)."""
        if not self._drawn:
            if self._generator is None:
                self._generator = np.random.Generator(
                    np.random.PCG64(int.from_bytes(self._digest[:16], "big"))
                )
            self._drawn = self._generator.random(64).tolist()
        return self._drawn.pop()

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.random()

    def integer(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + int(self.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability

    def choice(self, choices: Sequence[T]) -> T:
        """One of the choices, all equally likely."""
        return choices[int(self.random() * len(choices))]


def sine(turns: float) -> float:
    """The sine of an angle in turns, with an error up to 2e-3, by Bhaskara's rational formula."""
    t = turns - int(turns)
    if t < 0:
        t += 1.0
    sign = 1.0
    if t >= 0.5:
        t, sign = t - 0.5, -1.0
    u = t * (0.5 - t)  # 0 .. 1/16
    # Bhaskara I: sin(x) = 16 x (pi - x) / (5 pi^2 - 4 x (pi - x)), with x = 2 pi t
    return sign * 64.0 * u / (5.0 - 16.0 * u)


def cosine(turns: float) -> float:
    """The cosine of an angle in turns."""
    return sine(turns + 0.25)


def sines(turns: Floats) -> Floats:
    """`sine` of an array."""
    t = turns - np.floor(turns)
    low = t < 0.5
    half = np.where(low, t, t - 0.5)
    u = half * (0.5 - half)
    value: Floats = np.where(low, 64.0, -64.0) * u / (5.0 - 16.0 * u)
    return value


def smooth(t: float) -> float:
    """3 t^2 - 2 t^3 with t clipped to 0..1: a smooth step from 0 to 1."""
    t = min(1.0, max(0.0, t))
    return t * t * (3.0 - 2.0 * t)


class Noise:
    """A smooth random function: value noise of several octaves, in [-1, 1]."""

    def __init__(self, rng: RandomStream, octaves: int = 3, roughness: float = 0.5) -> None:
        self._tables = [[rng.uniform(-1.0, 1.0) for _ in range(32)] for _ in range(octaves)]
        self._roughness = roughness

    def __call__(self, x: float) -> float:
        """The value at x."""
        total, weight, reach = 0.0, 1.0, 0.0
        for table in self._tables:
            cell = int(x // 1)
            t = x - cell
            t = t * t * (3.0 - 2.0 * t)
            a, b = table[cell % 32], table[(cell + 1) % 32]
            total += weight * (a + (b - a) * t)
            reach += weight
            weight *= self._roughness
            x = x * 2.0 + 7.3
        return total / reach
