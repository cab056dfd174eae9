"""Initial weights for the layers of a file, drawn as `model.architectures` does."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.errors import FormatError
from diptych.formats.julia import JuliaStruct
from diptych.formats.julia_source.functions import Random
from diptych.model.layers import Array

__all__ = ["draw"]

_MOST = 2**28  # numbers of one model: 1 GB
_DRAWN = (("weight",), ("Wi",), ("Wh",), ("Wh_h̃",))


def draw(value: Any, name: str, seed: int = 0) -> None:
    """Replaces the placeholders inside a layer with arrays: weights from a seeded stream, all others as they are.

    Weights are drawn uniformly from +-sqrt(6 / (fan in + fan out)), as Flux does by default.

    Raises:
        FormatError: There are more numbers than a model may have.
    """
    arrays = _placeholders(value)
    total = sum(np.prod(shape) for shape in {id(a): s for _, _, a, s in arrays}.values())
    if total > _MOST:
        raise FormatError(f"{name}: the model has {int(total)} weights, more than the {_MOST} that are made")
    random = np.random.Generator(np.random.PCG64(seed))
    made: dict[int, Array] = {}
    for struct, index, old, shape in arrays:
        if id(old) not in made:
            drawn = isinstance(old, Random) or (
                struct.names[index : index + 1] in _DRAWN and 0 in old.strides
            )
            made[id(old)] = _glorot(random, shape) if drawn else np.array(old, np.float32, order="F")
        struct.fields[index] = made[id(old)]


def _glorot(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    fans = shape[-2:] if len(shape) > 1 else (1, *shape)
    limit = np.sqrt(6 / (sum(fans) * np.prod(shape[:-2]))) if shape else 1.0
    drawn = random.random(shape[::-1], np.float32)
    drawn -= np.float32(0.5)
    drawn *= np.float32(2 * limit)
    return drawn.transpose()


def _placeholders(value: Any) -> list[tuple[JuliaStruct, int, Any, tuple[int, ...]]]:
    found: list[tuple[JuliaStruct, int, Any, tuple[int, ...]]] = []
    stack, met = [value], {id(value)}
    while stack:
        item = stack.pop()
        parts = (
            item.fields if isinstance(item, JuliaStruct) else item if isinstance(item, (tuple, list)) else ()
        )
        for index, part in enumerate(parts):
            if isinstance(item, JuliaStruct) and isinstance(part, (np.ndarray, Random)):
                found.append((item, index, part, part.shape))
            if isinstance(part, (JuliaStruct, tuple, list)) and id(part) not in met:
                met.add(id(part))
                stack.append(part)
    return found
