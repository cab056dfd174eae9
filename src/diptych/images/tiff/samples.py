"""The samples of a TIFF file, of any number of bits, and the levels that they stand for.

Layout: TIFF 6.0 (Adobe, 1992). Samples of a whole number of bytes follow the byte order of the file; others are packed
from the highest bit down, and each row begins at a byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.images.pixels import OutOfRange
from diptych.images.rows import Array

__all__ = ["Samples"]

_FORMATS = {1: "u", 2: "i", 3: "f", 4: "u"}  # the tag SampleFormat; 4 is "undefined"
_NAMES = {"u": "whole numbers", "i": "signed whole numbers", "f": "fractions"}
_BLOCK = 1 << 24  # bits unpacked at a time


@dataclass(frozen=True)
class Samples:
    """How samples are stored.

    Attributes:
        bits: Bits a sample: 1 to 16, 24, 32 or 64.
        kind: "u" for unsigned, "i" for signed whole numbers, "f" for fractions.
    """

    bits: int
    kind: str

    @classmethod
    def of(cls, bits: tuple[int, ...], formats: tuple[int, ...]) -> Samples:
        """Returns what the tags BitsPerSample and SampleFormat say.

        Raises:
            OutOfRange: Such samples are not read; the message names them.
        """
        if len(set(bits)) > 1:
            raise OutOfRange(f"its channels have different numbers of bits, {', '.join(map(str, bits))}")
        kind = _FORMATS.get(formats[0]) if len(set(formats)) == 1 else None
        if kind is None:
            named = {5: "complex whole numbers", 6: "complex numbers"}.get(
                formats[0], "of an unknown or mixed kind"
            )
            raise OutOfRange(f"its samples are {named}")
        known = {"u": (*range(1, 17), 24, 32, 64), "i": (8, 16, 24, 32, 64), "f": (16, 32, 64)}[kind]
        if bits[0] not in known:
            raise OutOfRange(f"its samples are {_NAMES[kind]} of {bits[0]} bits")
        return cls(bits[0], kind)

    @property
    def stored(self) -> np.dtype[Any]:
        """The dtype that holds a sample as it is in the file."""
        size = next(size for size in (8, 16, 32, 64) if self.bits <= size)
        return np.dtype(f"{self.kind}{size // 8}")

    @property
    def levels(self) -> np.dtype[Any]:
        """The dtype of the levels: uint8, uint16, or float32 for fractions."""
        if self.kind == "f":
            return np.dtype(np.float32)
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16)

    @property
    def on_unknown_scale(self) -> bool:
        """Whether all samples must be seen to tell what stands for white."""
        return self.kind != "f" and self.bits > 16

    @property
    def remark(self) -> str | None:
        """What is said about the scale, if it is not that of the levels."""
        if self.on_unknown_scale:
            return None
        if self.kind == "i":
            return f"signed {self.bits} bits taken as 0-{self._peak}"
        if self.bits in (9, 10, 11, 12, 13, 14, 15):
            return f"{self.bits} bits taken as 0-{self._peak}"
        return None

    @property
    def _peak(self) -> int:
        return int((1 << (self.bits - (self.kind == "i"))) - 1)

    def row_bytes(self, count: int) -> int:
        """Returns the bytes of a row of `count` samples."""
        return (count * self.bits + 7) // 8

    def unpacked(self, data: bytes, rows: int, count: int, byte_order: str) -> Array:
        """Reads rows of samples.

        Args:
            data: At least `rows` rows.
            rows: How many.
            count: Samples in a row.
            byte_order: "<" or ">".

        Returns:
            The samples as they are stored, (rows, count), in native byte order.

        Raises:
            ValueError: There are too few bytes.
        """
        if self.bits in (8, 16, 32, 64):
            stored = np.dtype(f"{byte_order}{self.kind}{self.bits // 8}")
            values = np.frombuffer(data, stored, rows * count)
            return values.reshape(rows, count).astype(self.stored, copy=False)
        size = self.row_bytes(count)
        packed = np.frombuffer(data, np.uint8, rows * size).reshape(rows, size)
        if self.bits == 24:
            return self._three_bytes(packed.reshape(rows, count, 3), byte_order)
        values = np.empty((rows, count), self.stored)
        step = max(1, _BLOCK // max(1, 8 * size))
        for top in range(0, rows, step):
            values[top : top + step] = self._from_bits(packed[top : top + step], count)
        return values

    def _three_bytes(self, triples: Array, byte_order: str) -> Array:
        # The sign is in the highest byte, so the number is read into the upper bytes and shifted down.
        wide = np.zeros((*triples.shape[:2], 4), np.uint8)
        wide[..., 1:] = triples if byte_order == "<" else triples[..., ::-1]
        return (wide.view(f"<{self.kind}4")[..., 0] >> 8).astype(self.stored)

    def _from_bits(self, packed: Array, count: int) -> Array:
        bits = np.unpackbits(packed, axis=1, count=count * self.bits).reshape(-1, self.bits)
        room = 8 * self.stored.itemsize
        padded = np.zeros((len(bits), room), np.uint8)
        padded[:, room - self.bits :] = bits
        values = np.packbits(padded, axis=1).view(f">u{self.stored.itemsize}")
        return values.reshape(len(packed), count).astype(self.stored)

    def to_levels(self, values: Array) -> Array:
        """Scales samples to levels: what stands for white becomes 255 or 65535. Fractions stay as they are.

        Args:
            values: Samples of a kind that is not `on_unknown_scale`.

        Raises:
            OutOfRange: A signed sample is negative.
        """
        if self.kind == "f":
            return values.astype(np.float32, copy=False)
        if self.kind == "i" and values.size and int(values.min()) < 0:
            raise OutOfRange(
                f"its values go from {values.min()} to {values.max()}, and a picture has none below 0"
            )
        top = 255 if self.levels == np.uint8 else 65535
        if self._peak == top:
            return values.astype(self.levels, copy=False)
        # Scaling a level before the division needs up to 31 bits.
        scaled = (values.astype(np.uint32) * np.uint32(top) + np.uint32(self._peak // 2)) // np.uint32(
            self._peak
        )
        return scaled.astype(self.levels)

    def to_filled_levels(self, values: Array) -> tuple[Array, str]:
        """Scales samples of more than 16 bits on the scale that they fill.

        That is 0-255, 0-65535, or, where the highest value is at least half of the largest that the bits can hold,
        the whole range, of which the highest 16 bits are taken.

        Args:
            values: All samples of the colours of a picture.

        Returns:
            The levels, uint8 or uint16, and a remark.

        Raises:
            OutOfRange: A value is negative, or the values fill none of these scales.
        """
        lowest, highest = int(values.min()), int(values.max())
        if lowest < 0:
            raise OutOfRange(f"its values go from {lowest} to {highest}, and a picture has none below 0")
        if highest <= 255:
            return values.astype(np.uint8), f"{self.bits} bits with values up to {highest}, taken as 0-255"
        if highest <= 65535:
            return values.astype(np.uint16), f"{self.bits} bits with values up to {highest}, taken as 0-65535"
        if highest <= self._peak // 2:
            raise OutOfRange(
                f"its values of {self.bits} bits go up to {highest}, and only the scales 0-255, 0-65535 and "
                f"0-{self._peak} (filled to at least a half) are known"
            )
        used = self._peak.bit_length()
        return (values >> (used - 16)).astype(np.uint16), f"{self.bits} bits taken as 0-{self._peak}"
