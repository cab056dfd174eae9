"""Functions that ask for sizes, reshape, permute or index arrays.

Julia's axis d of an array with r axes is our axis r - d, or -d counted from the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diptych.formats.julia.expressions import Call
from diptych.formats.julia.lowering.lowering import Lowering, Rule
from diptych.formats.julia.lowering.sizes import BATCH, Dim, Shape, Size, divided, fresh, product
from diptych.formats.julia.lowering.values import (
    COLON,
    Flow,
    Pending,
    SizeOf,
    SomeSize,
    whole,
    wholes,
)
from diptych.model import layers as L
from diptych.model.layers import Layer

__all__ = ["SHAPES", "axis_of", "flow_of", "only"]


def axis_of(w: Lowering, part: Call, flow: Flow, dim: int) -> int:
    """Our axis for one of Julia's, from the end where the number of axes is not known."""
    if dim < 1 or (flow.rank is not None and dim > flow.rank):
        raise w.refuse(part, f"works along axis {dim}, which the array does not have")
    return -dim if flow.rank is None else flow.rank - dim


def flow_of(w: Lowering, part: Call, item: Any) -> Flow:
    """An argument that must be a value which depends on the input."""
    if not isinstance(item, Flow):
        raise w.refuse(part, f"calls {part.function} in an unknown way")
    return item


def only(w: Lowering, part: Call, keywords: dict[str, Any], *names: str) -> None:
    """Refuses other keywords than these."""
    if not keywords.keys() <= set(names):
        raise w.refuse(part, f"calls {part.function} in an unknown way")


# ---- Sizes --------------------------------------------------------------------------------------------


def _size(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    flow = flow_of(w, part, arguments[0])
    if len(arguments) == 1:
        return flow.shape[::-1] if flow.shape is not None else _Sizes(flow)
    dim = arguments[1] if isinstance(arguments[1], _Rank) else whole(arguments[1])
    return _size_at(w, part, flow, dim)


def _size_at(w: Lowering, part: Call, flow: Flow, dim: Any) -> Any:
    if isinstance(dim, _Rank):
        return BATCH
    if dim is None or dim < 1:
        raise w.refuse(part, "reads a size in an unknown way")
    if flow.shape is None:
        return SizeOf(dim)
    return flow.shape[len(flow.shape) - dim] if dim <= len(flow.shape) else 1


class _Sizes(Pending):
    """`size(x)` of an array whose number of axes is not known."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow


class _Rank(Pending):
    """`ndims(x)` of such an array: the number of the batch axis."""


def _rank(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    flow = flow_of(w, part, arguments[0])
    return _Rank() if flow.rank is None else flow.rank


def _length(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    flow = flow_of(w, part, arguments[0])
    return product(flow.shape) if flow.shape is not None else fresh()


def _last_index(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    if isinstance(arguments[0], _Sizes):
        return _Last()
    if len(arguments) != 2:
        raise w.refuse(part, "takes the end of an array as one long vector")
    flow, dim = flow_of(w, part, arguments[0]), whole(arguments[1])
    return _LastAlong(flow, dim) if flow.shape is None else _size_at(w, part, flow, dim)


class _Last(Pending):
    """`end` of `x[end]`."""


class _LastAlong(Pending):
    """`end` along one dimension of an array whose sizes are not known."""

    def __init__(self, flow: Flow, dim: int | None) -> None:
        self.flow, self.dim = flow, dim


# ---- Shapes -------------------------------------------------------------------------------------------


def _reshape(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    flow, sizes = flow_of(w, part, arguments[0]), tuple(arguments[1:])
    if len(sizes) == 1 and isinstance(sizes[0], tuple):
        sizes = sizes[0]
    if keywords or len(sizes) < 2:
        raise w.refuse(part, "reshapes away the batch")
    return reshaped(w, part, flow, sizes)


def reshaped(w: Lowering, part: Any, flow: Flow, sizes: Sequence[Any]) -> Flow:
    """A reshape to sizes in Julia's order, of which one may be `:`; the batch must stay the last axis."""
    batch, own = sizes[-1], tuple(reversed(sizes[:-1]))
    colons = sum(size == COLON for size in sizes)
    if colons > 1 or any((n := whole(size)) is not None and n < 1 for size in sizes):
        raise w.refuse(part, "reshapes to a shape that is not one")
    if any(whole(s) is None and s != COLON and not isinstance(s, Dim | SizeOf | SomeSize) for s in sizes):
        raise w.refuse(part, _UNKNOWN_SHAPE)
    total = product(flow.shape[1:]) if flow.shape is not None else None
    if not _is_batch(flow, batch, own, total):
        fixed = all(whole(size) is not None for size in own)
        why = f"reshapes samples of {total} values to another number" if fixed else _UNKNOWN_SHAPE
        raise w.refuse(part, "reshapes to a fixed batch" if batch != COLON else why)
    resolved = _resolved(own, total)
    if flow.shape is not None and resolved == flow.shape[1:]:
        return flow
    entries = [whole(size) or -1 for size in (resolved if resolved is not None else own)]
    if entries.count(-1) > 1:
        return _with_axes_of_one(w, part, flow, resolved)
    layer = L.Flatten() if len(own) == 1 and whole(own[0]) is None else L.Reshape(tuple(entries))
    shape = (BATCH, *resolved) if resolved is not None else None
    shape = shape or (BATCH, *(size if isinstance(size, int) else fresh() for size in map(_as_size, own)))
    return w.apply(part, flow, layer, shape=shape)


_UNKNOWN_SHAPE = "reshapes to a shape that depends on the input's size"


def _as_size(size: Any) -> Any:
    return whole(size) or size


def _is_batch(flow: Flow, batch: Any, own: Sequence[Any], total: Size | None) -> bool:
    """Whether the last size is that of the batch: of an array of unknown rank, any axis from the second on."""
    if batch == BATCH or (isinstance(batch, SizeOf) and batch.axis >= 2):
        return True
    if batch != COLON:
        return False
    if all(whole(size) is not None for size in own):
        return not isinstance(total, int) or product([whole(size) or 1 for size in own]) == total
    return total is not None and all(isinstance(s, int | Dim) for s in own) and product(own) == total


def _resolved(own: Sequence[Any], total: Size | None) -> Shape | None:
    """The sizes with that of `:` computed; None if a size is not known even as a product."""
    if total is None or any(isinstance(size, SizeOf | SomeSize) for size in own):
        return None
    sizes = [whole(size) or size for size in own if size != COLON]
    left = divided(total, product(sizes))
    if COLON in own and left is None:
        return None
    return tuple((left if left is not None else 1) if size == COLON else whole(size) or size for size in own)


def _with_axes_of_one(w: Lowering, part: Any, flow: Flow, sizes: Shape | None) -> Flow:
    """A reshape that only takes away axes of length 1, of whatever size the others are."""
    if flow.shape is not None and sizes is not None:
        dropped = _dropped(flow.shape[1:], sizes)
        if dropped is not None:
            return _without(w, part, flow, [axis + 1 for axis in dropped])
    raise w.refuse(part, _UNKNOWN_SHAPE)


def _dropped(before: Shape, after: Shape) -> list[int] | None:
    """The axes of length 1 without which `before` is `after`."""
    found, at = [], 0
    for axis, size in enumerate(before):
        if at < len(after) and after[at] == size:
            at += 1
        elif size == 1:
            found.append(axis)
        else:
            return None
    return found if at == len(after) else None


def _without(w: Lowering, part: Any, flow: Flow, axes: Sequence[int]) -> Flow:
    """The value without axes of length 1."""
    if not axes:
        return flow
    shape = flow.shape
    assert shape is not None
    kept = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    unknown = [size for size in kept[1:] if not isinstance(size, int)]
    if len(kept) == 2:
        return w.apply(part, flow, L.Flatten(), shape=kept)
    if len(unknown) <= 1 and len(kept) > 1:
        sizes = tuple(size if isinstance(size, int) else -1 for size in kept[1:])
        return w.apply(part, flow, L.Reshape(sizes), shape=kept)
    return w.apply(part, flow, L.Reduce("sum", tuple(sorted(axes)), keep=False), shape=kept)


def _flatten(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    if len(arguments) != 1 or keywords:
        raise w.refuse(part, "calls flatten with more than an array")
    return w.apply(part, flow_of(w, part, arguments[0]), L.Flatten())


def _drop_dims(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    flow, dims = flow_of(w, part, arguments[0]), wholes(keywords.get("dims"))
    if not dims or keywords.keys() != {"dims"}:
        raise w.refuse(part, "drops axes that are not known")
    if flow.shape is None:
        # After a mean or a maximum over the spatial axes, the channels are left.
        if dims != tuple(range(1, len(dims) + 1)) or len(dims) < 2:
            raise w.refuse(part, "drops axes of an array whose number of axes is not known")
        return w.apply(part, flow, L.Flatten(), shape=(BATCH, fresh()))
    axes = [axis_of(w, part, flow, dim) for dim in dims]
    if 0 in axes:
        raise w.refuse(part, "drops the batch axis")
    if any(isinstance(n := flow.shape[axis], int) and n != 1 for axis in axes):
        raise w.refuse(part, "drops axes that are longer than 1")
    ones = tuple(1 if axis in axes else size for axis, size in enumerate(flow.shape))
    return _without(w, part, Flow(flow.value, ones, flow.order), axes)


def _permute(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    flow = flow_of(w, part, arguments[0])
    dims = wholes(arguments[1]) if len(arguments) == 2 else (2, 1) if len(arguments) == 1 else None
    if dims is None or sorted(dims) != list(range(1, len(dims) + 1)) or flow.rank not in (None, len(dims)):
        raise w.refuse(part, "permutes axes in an unknown order")
    return permuted(flow, dims)


def permuted(flow: Flow, dims: Sequence[int]) -> Flow:
    """Julia's `permutedims(x, dims)`."""
    count = len(dims)
    order = tuple(count - dims[count - 1 - axis] for axis in range(count))
    inner = flow.order or tuple(range(count))
    shape = flow.shape or (BATCH, *(fresh() for _ in range(count - 1)))
    return Flow(flow.value, tuple(shape[axis] for axis in order), tuple(inner[axis] for axis in order))


def _unsqueeze(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    flow, dim = flow_of(w, part, arguments[0]), whole(keywords.get("dims", (*arguments, None)[1]))
    if flow.shape is None or dim is None or not 1 <= dim <= len(flow.shape):
        raise w.refuse(part, "adds an axis in an unknown place")
    sizes = list(reversed(flow.shape))
    return reshaped(w, part, flow, (*sizes[: dim - 1], 1, *sizes[dim - 1 :]))


def _repeat(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """Every axis as often as is said, one copy behind the other."""
    flow, *counts = arguments
    if "inner" in keywords:
        flow = _stretched(w, part, flow_of(w, part, flow), wholes(keywords.pop("inner")))
        if not keywords and not counts:
            return flow
    given = wholes(keywords["outer"] if "outer" in keywords else tuple(counts))
    flow = flow_of(w, part, flow)
    if not given or keywords.keys() - {"outer"} or any(not 1 <= n <= _MOST_COPIES for n in given):
        raise w.refuse(part, "repeats a value in an unknown way")
    if flow.rank is not None and len(given) >= flow.rank and any(n != 1 for n in given[flow.rank - 1 :]):
        raise w.refuse(part, "repeats the batch")
    for dim, count in enumerate(given, 1):
        if count > 1:
            flow = w.join(part, "concatenate", [flow] * count, -dim)
    return flow


_MOST_COPIES = 64


def _stretched(w: Lowering, part: Call, flow: Flow, counts: tuple[int, ...] | None) -> Flow:
    """`repeat(x; inner)`: every value of an axis as often as is said, one behind the other."""
    if not counts or any(not 1 <= n <= _MOST_COPIES for n in counts):
        raise w.refuse(part, "repeats a value in an unknown way")
    rank = flow.rank or len(counts)
    counts = (*counts, *[1] * (rank - len(counts)))
    if len(counts) > rank or counts[-1] != 1:
        raise w.refuse(part, "repeats the batch")
    spatial = counts[: rank - 2]
    if any(n > 1 for n in spatial):
        flow = w.apply(
            part, flow, L.Upsample(scale=tuple(float(n) for n in reversed(spatial)), mode="nearest")
        )
    each = counts[rank - 2] if rank > 1 else 1
    if each == 1:
        return flow
    size = flow.shape[1] if flow.shape is not None else None
    if not isinstance(size, int):
        raise w.refuse(part, "repeats every channel, whose number is not known")
    layer = L.Gather(np.arange(size, dtype=np.float32).repeat(each), 1)
    assert flow.shape is not None
    return w.apply(part, flow, layer, shape=(flow.shape[0], size * each, *flow.shape[2:]))


def _reversed(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    only(w, part, keywords, "dims")
    flow, dims = flow_of(w, part, arguments[0]), wholes(keywords.get("dims"))
    if dims is None or len(arguments) != 1:
        raise w.refuse(part, "reverses the batch too, which mixes samples")
    for dim in dims:
        axis = axis_of(w, part, flow, dim)
        size = flow.shape[axis] if flow.shape is not None else None
        if axis == 0:
            raise w.refuse(part, "reverses the batch, which mixes samples")
        if not isinstance(size, int):
            raise w.refuse(part, "reverses an axis whose size is not known: the layers read do not tell it")
        flow = w.apply(part, flow, L.Gather(np.arange(size, dtype=np.float32)[::-1], axis), shape=flow.shape)
    return flow


def _end_of(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """`first` and `last` of several values."""
    if len(arguments) == 1 and isinstance(arguments[0], tuple) and arguments[0]:
        return arguments[0][0 if part.function == "first" else -1]
    raise w.refuse(part, f"takes the {part.function} number of an array, where a layer gives a batch")


def _batched_transpose(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    return permuted(flow_of(w, part, arguments[0]), (2, 1, 3))


# ---- Indexing -----------------------------------------------------------------------------------------


def _index(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    owner, *indices = arguments
    if isinstance(owner, _Sizes) and len(indices) == 1:
        return _size_from(w, part, owner, indices[0])
    if isinstance(owner, tuple) and len(indices) == 1:
        place = whole(indices[0])
        if place is not None and 1 <= place <= len(owner):
            return owner[place - 1]
        places = wholes(indices[0])
        if places is not None and all(1 <= p <= len(owner) for p in places):
            return tuple(owner[p - 1] for p in places)
    flow = flow_of(w, part, owner)
    if flow.rank not in (None, len(indices)) or len(indices) < 2:
        raise w.refuse(part, "indexes an array with another number of indices than it has axes")
    return _indexed(w, part, flow, indices)


def _size_from(w: Lowering, part: Call, sizes: _Sizes, index: Any) -> Any:
    if isinstance(index, _Last):
        return BATCH
    if isinstance(index, tuple):
        return tuple(_size_at(w, part, sizes.flow, whole(each)) for each in index)
    return _size_at(w, part, sizes.flow, whole(index))


def _indexed(w: Lowering, part: Call, flow: Flow, indices: Sequence[Any]) -> Flow:
    count = len(indices)
    shape = flow.shape or (BATCH, *(fresh() for _ in range(count - 1)))
    flow = Flow(flow.value, shape, flow.order, flow.summed)
    dropped: list[int] = []
    for axis, index in enumerate(reversed(indices)):
        size = shape[axis]
        if isinstance(index, _LastAlong) and index.flow.value == flow.value and index.dim == count - axis:
            index = size
        if index == COLON or index == _whole_range(size):
            continue
        if axis == 0:
            raise w.refuse(part, "takes some samples of a batch")
        flow = _taken(w, part, flow, axis, index)
        if whole(index) is not None or index == size:
            dropped.append(axis)
    return _without(w, part, flow, dropped)


def _whole_range(size: Size) -> Any:
    return tuple(range(1, size + 1)) if isinstance(size, int) else Span(1, 1, size)


def _taken(w: Lowering, part: Call, flow: Flow, axis: int, index: Any) -> Flow:
    """The values at one place, at a range, or at a vector of places along an axis."""
    assert flow.shape is not None
    size = flow.shape[axis]
    if isinstance(index, Span):
        return _span(w, part, flow, axis, index)
    places = wholes(-1 if index == size and isinstance(size, Dim) else index)
    last = places == (-1,)
    if not places or not (
        last or (all(p >= 1 for p in places) and (not isinstance(size, int) or max(places) <= size))
    ):
        raise w.refuse(part, "indexes an array by something that is not known")
    if size == 1 and places == (1,):
        return flow
    shape = (*flow.shape[:axis], len(places), *flow.shape[axis + 1 :])
    steps = set(np.diff(places).tolist()) or {1}
    if last:
        layer: Layer = L.Slice(axis, -1, _TO_THE_END, 1)
    elif len(steps) == 1 and min(steps) > 0:
        layer = L.Slice(axis, places[0] - 1, places[-1], steps.pop())
    else:
        layer = L.Gather(np.array(places, np.float32) - 1, axis)
    return w.apply(part, flow, layer, shape=shape)


_TO_THE_END = 2**31 - 1


class Span(Pending):
    """The range `start:step:stop` where the size `stop` is not known."""

    def __init__(self, start: int, step: int, stop: Dim) -> None:
        self.start, self.step, self.stop = start, step, stop

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Span) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


def _range(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    start, step, stop = (arguments[0], 1, arguments[1]) if len(arguments) == 2 else arguments
    first, by = whole(start), whole(step)
    if first is None or by is None or not isinstance(stop, Dim) or first < 1 or by < 1:
        raise w.refuse(part, "uses a range that depends on the input's size")
    return Span(first, by, stop)


def _span(w: Lowering, part: Call, flow: Flow, axis: int, span: Span) -> Flow:
    assert flow.shape is not None
    if span.stop != flow.shape[axis]:
        raise w.refuse(part, "indexes an array by something that is not known")
    shape = (*flow.shape[:axis], fresh(), *flow.shape[axis + 1 :])
    return w.apply(part, flow, L.Slice(axis, span.start - 1, _TO_THE_END, span.step), shape=shape)


def _select(w: Lowering, part: Call, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    flow, dim, index = arguments if len(arguments) == 3 else (None, None, None)
    place = whole(dim)
    if isinstance(flow, Flow) and place is not None and flow.rank is None:
        raise w.refuse(
            part, "selects from an array whose number of axes is not known, as x[:, end, :] would tell it"
        )
    if not isinstance(flow, Flow) or place is None or flow.rank is None or not 1 <= place <= flow.rank:
        raise w.refuse(part, f"calls {part.function} in an unknown way")
    return _indexed(w, part, flow, [index if d == place else COLON for d in range(1, flow.rank + 1)])


SHAPES: dict[str, Rule] = {
    "size": _size, "ndims": _rank, "length": _length, "lastindex": _last_index,
    "reshape": _reshape, "flatten": _flatten, "dropdims": _drop_dims, "permutedims": _permute,
    "PermutedDimsArray": _permute, "transpose": _permute, "adjoint": _permute,
    "batched_transpose": _batched_transpose, "batched_adjoint": _batched_transpose,
    "unsqueeze": _unsqueeze, "repeat": _repeat, "reverse": _reversed, "first": _end_of, "last": _end_of,
    "getindex": _index, "view": _index, "selectdim": _select, ":": _range,
}  # fmt: skip
