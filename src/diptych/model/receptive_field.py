"""The receptive field of every layer: the size of the input region that one output value depends on.

The computation is in `layers/receptive.py`.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from diptych.model.layers import Axis, Chain, Field, Layer, Shape, follow_fields

__all__ = ["GLOBAL", "ReceptiveField", "receptive_fields"]

GLOBAL: Literal["global"] = "global"
ReceptiveField: TypeAlias = tuple[int, ...] | Literal["global"] | None


def receptive_fields(
    layers: Chain, rank: int | None, entry: Shape | None = None
) -> dict[str, ReceptiveField]:
    """The receptive field of every layer.

    Args:
        layers: The layers of a model.
        rank: The number of spatial axes of the input, 0 for features, None if unknown.
        entry: The shape of the input; needed only for adaptive pools and upsampling.

    Returns:
        Layer path -> (height, width) in input pixels, "global" for the whole input, None if unknown.
    """
    if rank is None:
        return {}
    found: dict[str, ReceptiveField] = {}

    def record(path: str, layer: Layer, field: Field | None) -> None:
        if field is None:
            found[path] = None
        else:
            found[path] = GLOBAL if field.everything else tuple(axis(1) for axis in field.axes)

    follow_fields(layers, Field((Axis(),) * rank, spatial=rank > 0), entry, record)
    return found
