"""Assignments to a part of a tensor, `x[:, 1:] = y`: the parts around it, joined with the new one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from diptych.formats.graph import Value
from diptych.formats.torch.tensor_calls import TensorSite
from diptych.formats.views import Tensor, View
from diptych.model.layers import Array

__all__ = ["assigned"]


def assigned(s: TensorSite, x: Any, index: Any, value: Any) -> Any:
    """What `x` is after `x[index] = value`.

    Args:
        s: The place in the graph.
        x, value: Values or constants.
        index: As in PyTorch: slices with the step 1, numbers, an ellipsis, or a mask of the shape of `x`.

    Raises:
        UnsupportedLayer: The index is of another kind, or picks samples of the batch.
    """
    constant = isinstance(x, torch.Tensor) and not isinstance(value, Value | View)
    if constant and not any(
        isinstance(each, Value | View) for each in (index if isinstance(index, tuple) else [index])
    ):
        made = x.clone()
        made[index] = torch.as_tensor(value, dtype=made.dtype)
        return made
    if isinstance(index, Value | View) or (isinstance(index, torch.Tensor) and index.dtype == torch.bool):
        return s.choose(s.operand(index), s.operand(value), s.operand(x))
    target = s.operand(x)
    shape = target.shape if isinstance(target, np.ndarray) else s.shape(target)
    bounds = _bounds(s, index, shape)
    region = [stop - start for start, stop, _ in bounds]
    given = _fitted(s, s.operand(value), region, [axis for axis, (_, _, gone) in enumerate(bounds) if gone])
    changed = [
        (axis, start, stop)
        for axis, (start, stop, _) in enumerate(bounds)
        if (start, stop) != (0, shape[axis])
    ]
    return _put(s, target, changed, given)


def _bounds(s: TensorSite, index: Any, shape: Sequence[int]) -> list[tuple[int, int, bool]]:
    """For every axis the first place, the one behind the last, and whether the index drops the axis."""
    places = list(index) if isinstance(index, tuple) else [index]
    if any(place is Ellipsis for place in places):
        at = next(i for i, place in enumerate(places) if place is Ellipsis)
        places[at : at + 1] = [slice(None)] * (len(shape) - len(places) + 1)
    places += [slice(None)] * (len(shape) - len(places))
    found: list[tuple[int, int, bool]] = []
    for place, size in zip(places, shape, strict=False):
        if isinstance(place, slice) and place.step in (None, 1):
            start, stop, _ = place.indices(size)
            found.append((start, max(stop, start), False))
        elif isinstance(place, int) and -size <= place < size:
            found.append((place % size, place % size + 1, True))
        else:
            s.refuse(f"no layer changes the part {str(place)[:40]}")
    if len(found) != len(shape) or len(places) != len(shape):
        s.refuse("no layer changes a part of more axes than there are")
    return found


def _fitted(s: TensorSite, value: Tensor | Array, region: Sequence[int], dropped: Sequence[int]) -> Any:
    """The new part with all axes and their sizes."""
    own = list(value.shape if isinstance(value, np.ndarray) else s.shape(value))
    kept = len(region) - len(dropped)
    if len(own) > kept:
        s.refuse("the new part has more axes than the old one")
    sizes = [1] * (kept - len(own)) + own
    for axis in dropped:
        sizes.insert(axis, 1)
    if isinstance(value, np.ndarray):
        return np.broadcast_to(value.reshape(sizes), tuple(region))
    return s.expand(s.reshape(value, sizes) if sizes != own else value, region)


def _put(s: TensorSite, x: Any, bounds: Sequence[tuple[int, int, int]], value: Any) -> Any:
    if not bounds:
        return value
    (axis, start, stop), *rest = bounds
    size = (x.shape if isinstance(x, np.ndarray) else s.shape(x))[axis]
    new = _put(s, _cut(s, x, axis, start, stop), rest, value) if stop > start else None
    around = [(0, start), (stop, size)]
    before, behind = (_cut(s, x, axis, a, b) if b > a else None for a, b in around)
    parts = [part for part in (before, new, behind) if part is not None]
    return parts[0] if len(parts) == 1 else s.concatenate(parts, axis)


def _cut(s: TensorSite, x: Any, axis: int, start: int, stop: int) -> Any:
    if isinstance(x, np.ndarray):
        return x[(slice(None),) * axis + (slice(start, stop),)]
    return s.slice(x, axis, start, stop)
