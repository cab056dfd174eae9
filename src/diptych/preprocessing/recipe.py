"""The recipe: an ordered, immutable list of steps, checked as a whole when it is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.preprocessing.steps import Step

__all__ = ["Preprocessing"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Preprocessing:
    """The way from a picture to a model's input. Two recipes are equal when their steps are."""

    steps: tuple[Step, ...]
    name: str = field(default="", compare=False)

    def apply(self, image: Array) -> NDArray[np.float32]:
        """uint8 (H, W, 3) or (H, W) -> float32 (C, H, W), C-contiguous."""
        raise NotImplementedError

    def apply_batch(self, images: Iterable[Array]) -> NDArray[np.float32]:
        """Pictures -> float32 (N, C, H, W)."""
        raise NotImplementedError

    def display(self, item: Array) -> NDArray[np.uint8]:
        """One item of a batch, float32 (C, H, W), as a picture: uint8 (H, W, 3) or (H, W)."""
        raise NotImplementedError

    @property
    def channels(self) -> int | None:
        """1 or 3, or None where the picture decides."""
        return None

    @property
    def size(self) -> tuple[int, int] | None:
        """The (height, width) of the result, or None where the picture decides."""
        return None

    def describe(self) -> list[str]:
        """One line a step."""
        return []

    def to_document(self) -> dict[str, Any]:
        """JSON-able."""
        return {}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Preprocessing:
        """The recipe of a document."""
        raise NotImplementedError
