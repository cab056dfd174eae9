"""Damaging bytes and trees of values at random, and always the same way for the same seed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Mutator"]

_EDGES = (0, 1, 2, 3, 7, 8, 16, 63, 64, 100, 127, 128, 255, 256, 1000, 4096, 32767, 32768, 65535, 65536)
_INTEGERS = (
    *_EDGES, 2**20, 2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
_TEXTS = ("", "0", "\0", "a\nb", "é" * 300, "x" * 5000, "../../x", "1e999", "NaN", "\x1b[31m", "\U0001f600")
_NUMBERS = (-1, -0.0, 0.5, -7, 10**30, -(2**63), 1e308, 5e-324, math.nan, math.inf, -math.inf)
_LONGEST = 2**20  # bytes of an input


class Mutator:
    """Makes damaged inputs; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def chance(self, share: float) -> bool:
        """True in this share of the calls."""
        return self.random.random() < share

    # ---- Bytes ----------------------------------------------------------------------------------------

    def bytes(self, content: bytes, other: bytes = b"", *, same_length: bool = False) -> bytes:
        """One to eight changes of a content, some with parts of `other`."""
        result = bytearray(content or b"\0")
        steps = (self._flip, self._set, self._number, self._copy_over)
        if not same_length:
            steps = (*steps, *steps, self._cut, self._insert, self._repeat, self._truncate)
        for _ in range(min(1 + int(self.random.expovariate(0.7)), 8)):
            self.random.choice(steps)(result, other or content or b"\0")
            if not result:
                result = bytearray(1)
        return bytes(result[:_LONGEST])

    def _place(self, content: Sequence[Any]) -> int:
        # Headers are at the beginning, and they decide the most.
        end = len(content) if self.chance(0.6) else min(len(content), 128)
        return self.random.randrange(end)

    def _length(self, most: int) -> int:
        return self.random.randint(1, max(1, min(most, self.random.choice((2, 8, 64, 4096)))))

    def _flip(self, content: bytearray, _: bytes) -> None:
        content[self._place(content)] ^= 1 << self.random.randrange(8)

    def _set(self, content: bytearray, _: bytes) -> None:
        content[self._place(content)] = self.random.choice((0, 1, 127, 128, 255, self.random.randrange(256)))

    def _number(self, content: bytearray, _: bytes) -> None:
        width = self.random.choice((1, 2, 4, 8))
        at = min(self._place(content), max(0, len(content) - width))
        order = self.random.choice(("little", "big"))
        if self.chance(0.5):
            value = int.from_bytes(content[at : at + width], order) + self.random.randint(-16, 16)
        else:
            value = self.random.choice(_INTEGERS) * self.random.choice((1, 1, 1, -1))
        part = (value % (1 << 8 * width)).to_bytes(width, order)
        content[at : at + width] = part[: len(content) - at]

    def _copy_over(self, content: bytearray, other: bytes) -> None:
        start = self.random.randrange(len(other))
        at = self._place(content)
        part = other[start : start + self._length(len(content) - at)]
        content[at : at + len(part)] = part[: len(content) - at]

    def _cut(self, content: bytearray, _: bytes) -> None:
        at = self._place(content)
        del content[at : at + self._length(len(content) - at)]

    def _insert(self, content: bytearray, other: bytes) -> None:
        start = self.random.randrange(len(other))
        part = other[start : start + self._length(len(other))]
        at = self._place(content)
        content[at:at] = self.random.randbytes(len(part)) if self.chance(0.3) else part

    def _repeat(self, content: bytearray, _: bytes) -> None:
        at = self._place(content)
        part = content[at : at + self._length(64)]
        content[at:at] = part * self.random.choice((1, 2, 10, 300))

    def _truncate(self, content: bytearray, _: bytes) -> None:
        del content[self._place(content) :]

    # ---- Trees of dicts, lists and values -------------------------------------------------------------

    def tree(self, value: Any, leaf: Callable[[Any], Any] | None = None) -> Any:
        """One to four changes in a tree of dicts and lists; `leaf` changes a leaf of a kind that only it knows."""
        root = [_copied(value)]
        for _ in range(min(1 + int(self.random.expovariate(1.0)), 4)):
            self._change(root, leaf)
        return root[0]

    def _change(self, root: list[Any], leaf: Callable[[Any], Any] | None) -> None:
        places = _places(root)
        container, key = self.random.choice(places)
        choice = self.random.randrange(10)
        if choice < 5:
            container[key] = self._value(container[key], leaf)
        elif choice < 7:
            other, from_key = self.random.choice(places)
            container[key] = _copied(other[from_key])
        elif container is root:
            root[0] = self.random.choice((None, [], {}, 0, "", [root[0]], {"a": root[0]}))
        elif choice == 7:
            del container[key]
        elif isinstance(container, list):
            container.insert(key, _copied(container[key]))
        else:
            container[self.random.choice((*_TEXTS, *container))] = container.pop(key)

    def _value(self, value: Any, leaf: Callable[[Any], Any] | None) -> Any:
        if leaf is not None and self.chance(0.5):
            changed = leaf(value)
            if changed is not value:
                return changed
        if isinstance(value, int | float) and not isinstance(value, bool) and self.chance(0.5):
            try:
                return self.random.choice((value + 1, value - 1, -value, value * 2, float(value), str(value)))
            except OverflowError:
                return 0
        if isinstance(value, str) and value and self.chance(0.5):
            return self.bytes(value.encode("utf-8", "replace")).decode("utf-8", "replace")
        return self.random.choice(
            (
                None,
                True,
                False,
                [],
                {},
                [[]],
                _deep(self.random.choice((70, 300, 3000))),
                _copied([value] * 3),
            )
            + (self.random.choice(_INTEGERS), self.random.choice(_NUMBERS), self.random.choice(_TEXTS)) * 3
        )


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    """Every (container, key) below the root."""
    found, waiting = [], [root]
    while waiting:
        container = waiting.pop()
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in items:
            found.append((container, key))
            if isinstance(value, dict | list) and len(found) < 20_000:
                waiting.append(value)
    return found


def _copied(value: Any) -> Any:
    """A copy of the containers, not of what is in them, and no deeper than 200."""

    def copy(value: Any, depth: int) -> Any:
        if depth > 200:
            return None
        if isinstance(value, dict):
            return {key: copy(one, depth + 1) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [copy(one, depth + 1) for one in value]
        return value

    return copy(value, 0)


def _deep(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value
