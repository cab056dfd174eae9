"""Operations on values, and on views of values whose batch axis is not the first.

Layers keep the batch first. Code in other frameworks moves it (`permute(2, 0, 3, 1, 4)` of queries, keys and values) or
merges it with others (windows of a picture). A `View` is a value together with how its axes are seen; operations are
applied to the value beneath, and a view whose batch is first again is the value itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from diptych.errors import ModelError
from diptych.formats.graph import (
    BATCH,
    Operation,
    Shape,
    Value,
    ValueGraph,
    refusal,
    reshape_layers,
    resolved_sizes,
    shown,
    with_constant,
)
from diptych.formats.windows import padding_layers
from diptych.model import layers as L
from diptych.model.layers import Array

__all__ = ["END", "FAR", "RELATIONS", "Tensor", "View", "Views"]

# How a step above 0 of a - b gives each relation: whether the two are swapped, the result is negated, and the size of
# the difference counts alone.
RELATIONS: dict[str, tuple[bool, bool, bool]] = {
    "greater": (False, False, False),
    "less": (True, False, False),
    "at least": (True, True, False),
    "at most": (False, True, False),
    "different": (False, False, True),
    "equal": (False, True, True),
}
FAR = 1e30  # as far as a softmax can tell, infinite; weights are finite
END = 2**31 - 1  # as the end of a `Slice`: the end of an axis of any size


@dataclass(frozen=True, eq=False)
class View:
    """A value seen with its axes in another order.

    Attributes:
        value: Of the shape (N, ...), or (N, merged, ...) where a second axis is merged with the batch.
        at: Where the batch axis is seen.
        merged: Whether it is seen merged with the second axis of the value.
        outer: Whether the merged axis is the outer one of the two, so that neighbours are other samples.
    """

    value: Value
    at: int
    merged: bool = False
    outer: bool = False

    @property
    def place(self) -> tuple[int, bool, bool]:
        """Where the batch is seen, apart from the value."""
        return self.at, self.merged, self.outer

    @property
    def shape(self) -> Shape:
        """As it is seen, with a multiple of `BATCH` at `at`."""
        own = self.value.shape
        assert own is not None
        rest = own[2:] if self.merged else own[1:]
        count = own[0] * (own[1] if self.merged else 1)
        return (*rest[: self.at], count, *rest[self.at :])

    def own(self, axis: int) -> int:
        """The axis of the value that is seen as `axis`, which is not the batch."""
        return axis + self.merged + (1 if axis < self.at else 0)


Tensor: TypeAlias = Value | View


class Views:
    """The operations that a view allows, for values too. Axes are those that are seen, from 0 or from the end.

    Args:
        graph: Where layers are added.
        name: Of the node, for messages.
        own_batch: The batch size for which the graph was recorded, which then occurs in its sizes.
    """

    def __init__(self, graph: ValueGraph, name: str, own_batch: int | None = None) -> None:
        self.graph, self.name, self.own_batch = graph, name, own_batch

    def rank(self, x: Tensor) -> int:
        """The number of axes."""
        return len(self.shape(x))

    def shape(self, x: Tensor) -> Shape:
        """The shape; raises `ModelError` where it is not known."""
        if x.shape is None:
            raise ModelError(
                f"{self.name} depends on the size of its input, which is not known: give from_torch an example=batch"
            )
        return x.shape

    def axis(self, x: Tensor, axis: int) -> int:
        """The axis counted from 0, which must not be the batch."""
        found = self.counted(x, axis)
        if found == _seen(x).at:
            raise refusal(self.name, "it works along the batch axis, which would mix samples")
        return found

    def counted(self, x: Tensor, axis: int) -> int:
        """The axis counted from 0."""
        rank = self.rank(x)
        if not -rank <= axis < rank:
            raise refusal(
                self.name, f"it works along axis {axis}, which {shown(self.shape(x))} does not have"
            )
        return axis % rank

    def apply(self, x: Tensor, *layers: Operation) -> Tensor:
        """Layers that treat every value alone."""
        view = _seen(x)
        return self._again(view, self._through(view.value, layers))

    def permute(self, x: Tensor, order: Sequence[int]) -> Tensor:
        """Axis i of the result is axis `order[i]`."""
        if x.shape is None and list(order[:1]) == [0] and isinstance(x, Value):
            return self._through(x, [L.Permute(tuple(order))])
        view, rank = _seen(x), self.rank(x)
        places = [self.counted(x, axis) for axis in order]
        if sorted(places) != list(range(rank)):
            raise refusal(self.name, f"the order {tuple(order)} does not fit {shown(self.shape(x))}")
        own = (*range(1 + view.merged), *(view.own(axis) for axis in places if axis != view.at))
        value = view.value if own == tuple(range(len(own))) else self._through(view.value, [L.Permute(own)])
        return _simplest(View(value, places.index(view.at), view.merged, view.outer))

    def reshape(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """The same values in another shape, of which one size may be -1."""
        seen, sizes = self.shape(x), self._batched(x, sizes)
        target = resolved_sizes(seen, sizes, self.name)
        if isinstance(x, Value) and target[:1] == (BATCH,):
            return self._reshaped(x, sizes)
        view = _seen(x)
        value = view.value
        if view.merged:  # the merged axis goes back to behind those that are seen before the batch
            value = self._moved(value, 1, 1 + view.at)
        own = self.shape(value)
        before = math.prod(own[1 : 1 + view.at + view.outer])
        at = next((i for i, n in enumerate(target) if n % BATCH == 0), 0)
        left, merged = math.prod(target[:at]), target[at] // BATCH if target else 0
        outer = merged > 1 and before == left * merged
        if not target or not (outer or before == left):
            raise refusal(self.name, f"a reshape of {shown(seen)} to {shown(target)} takes the batch apart")
        split = (merged,) if merged > 1 else ()
        sizes = (BATCH, *target[:at], *split, *target[at + 1 :])
        value = self._reshaped(value, sizes)
        if merged > 1:
            value = self._moved(value, 1 + at, 1)
        return _simplest(View(value, at, merged > 1, outer))

    def _reshaped(self, x: Value, sizes: Sequence[int]) -> Value:
        while isinstance(x.made_by, L.Reshape | L.Flatten):  # of several reshapes the last one decides
            x = x.inputs[0]
        return self._through(x, reshape_layers(self.shape(x), sizes, self.name))

    def _batched(self, x: Tensor, sizes: Sequence[int]) -> Sequence[int]:
        """`sizes` with the placeholder of the batch in place of the batch size that the graph was recorded for."""
        seen = self.shape(x)
        if self.own_batch is None or any(n % BATCH == 0 for n in sizes if n > 0):
            return sizes
        given, total = math.prod(n for n in sizes if n != -1), math.prod(seen)
        if -1 not in sizes and given * BATCH != total * self.own_batch:
            return sizes
        view = _seen(x)
        before = math.prod(seen[: view.at]) * (self.shape(view.value)[1] if view.outer else 1)
        for place, n in enumerate(sizes):
            if n == -1:
                return sizes
            left, more = math.prod(sizes[:place]), n // self.own_batch
            if before in (left, left * more) and n % self.own_batch == 0:
                return [*sizes[:place], n // self.own_batch * BATCH, *sizes[place + 1 :]]
        return sizes

    def slice(self, x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
        """The values start, start + step, ... before `stop`, as Python counts them; the step is 1 or more."""
        size = self.shape(x)[self.counted(x, axis)]
        if len(range(size)[start:stop:step]) == size:
            return x
        axis = self.axis(x, axis)
        view = _seen(x)
        own = L.Slice(view.own(axis), start, END if stop >= size else stop, step)
        return self._again(view, self._through(view.value, [own]))

    def select(self, x: Tensor, axis: int, index: int) -> Tensor:
        """The values at one place along an axis, which goes away."""
        axis = self.axis(x, axis)
        shape = self.shape(x)
        index %= max(shape[axis], 1)
        return self.drop(self.slice(x, axis, index, index + 1), axis)

    def drop(self, x: Tensor, axis: int) -> Tensor:
        """Without an axis of length 1."""
        shape = self.shape(x)
        return self.reshape(x, (*shape[:axis], *shape[axis + 1 :]))

    def gather(self, x: Tensor, axis: int, indices: Array) -> Tensor:
        """The values at `indices`, of any number of axes, along an axis."""
        axis = self.axis(x, axis)
        shape = self.shape(x)
        places = indices.astype(np.int64) % shape[axis]
        if indices.ndim == 0:
            return self.select(x, axis, int(places))
        view, flat = _seen(x), places.reshape(-1)
        steps = np.diff(flat)
        if len(flat) and (len(flat) == 1 or (steps[0] > 0 and (steps == steps[0]).all())):
            step = int(steps[0]) if len(steps) else 1
            result = self.slice(x, axis, int(flat[0]), int(flat[-1]) + 1, step)
        else:
            layer = L.Gather(flat.astype(np.float32), view.own(axis))
            result = self._again(view, self._through(view.value, [layer]))
        if places.ndim == 1:
            return result
        return self.reshape(result, (*shape[:axis], *places.shape, *shape[axis + 1 :]))

    def reduce(self, x: Tensor, kind: Any, axes: Sequence[int], keep: bool) -> Tensor:
        """One value in place of all along some axes."""
        view = _seen(x)
        places = sorted({axis % 4 if x.shape is None else self.counted(x, axis) for axis in axes})
        if not isinstance(x, Value) and view.at in places:
            raise refusal(self.name, f"a {kind} over the batch axis mixes samples")
        own = tuple(sorted(axis if isinstance(x, Value) else view.own(axis) for axis in places))
        layer = L.Reduce(kind, own, keep)
        value = self._through(view.value, [layer])
        at = view.at if keep else view.at - sum(axis < view.at for axis in places)
        return _simplest(View(value, at, view.merged, view.outer)) if isinstance(x, View) else value

    def expand(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """Axes of length 1 repeated; -1 leaves a size as it is."""
        seen = self.shape(x)
        if len(sizes) > len(seen):
            raise refusal(
                self.name, f"it adds an axis in front of the batch: {shown(seen)} to {len(sizes)} axes"
            )
        view = _seen(x)
        sizes = [-1 if i == view.at and m == self.own_batch else m for i, m in enumerate(sizes)]
        target = [n if m == -1 else int(m) for n, m in zip(seen, sizes, strict=True)]
        if any(m not in (n, 1) and n != 1 for n, m in zip(seen, target, strict=True)):
            raise refusal(self.name, f"it cannot repeat {shown(seen)} to {shown(target)}")
        rest = [max(n, m) for i, (n, m) in enumerate(zip(seen, target, strict=True)) if i != view.at]
        own = self.shape(view.value)
        shape = (own[1], *rest) if view.merged else tuple(rest)
        if shape == own[1:]:
            return x
        return self._again(view, self._through(view.value, [L.Expand(tuple(shape))]))

    def pad(self, x: Tensor, pairs: Sequence[tuple[int, int]], mode: L.PadMode, number: float) -> Tensor:
        """Padding by (low, high) of each axis that is seen."""
        view = _seen(x)
        own = [(0, 0)] * self.rank(view.value)
        for axis, pair in enumerate(pairs):
            if any(pair):
                own[view.own(self.axis(x, axis))] = pair
        channels = self.shape(view.value)[1]
        return self._again(
            view, self._through(view.value, padding_layers(tuple(own), mode, number, channels))
        )

    def softmax(self, x: Tensor, axis: int, log: bool) -> Tensor:
        """A softmax along one axis."""
        if isinstance(x, Value):
            return self._through(x, [L.Softmax(axis, log)])
        return self._again(x, self._through(x.value, [L.Softmax(x.own(self.axis(x, axis)), log)]))

    def last(self, x: Tensor, count: int, *layers: Operation) -> Tensor:
        """Layers that work along the last `count` axes."""
        view = _seen(x)
        if x.shape is not None and view.at >= self.rank(x) - count:
            raise refusal(self.name, "it works along the batch axis, which would mix samples")
        return self._again(view, self._through(view.value, layers))

    def by_channel(self, x: View, layer: Operation) -> Tensor:
        """A layer that computes each channel, or each group of channels, of windows that are merged with the batch.

        The windows become further channels, each with a copy of the weights.
        """
        own = self.shape(x.value)
        count = own[1]
        if isinstance(layer, L.BatchNorm) and layer.tracked and len(x.shape) == 2 and x.at == 0:
            return self._again(x, self._through(x.value, [_as_scale(layer)]))
        wider = _for_windows(layer, count)
        if x.place != (0, True, False) or wider is None or len(own) < 4:
            raise refusal(self.name, "the batch is not the first axis of its input")
        value = self._through(x.value, [L.Reshape((count * own[2], *own[3:])), wider])
        behind = self.shape(value)
        value = self._through(value, [L.Reshape((count, behind[1] // count, *behind[2:]))])
        return self._again(x, value)

    def concatenate(self, parts: Sequence[Tensor | Array], axis: int) -> Tensor:
        """Values and constants joined along an axis."""
        first = next(part for part in parts if not isinstance(part, np.ndarray))
        axis = self.axis(first, axis) if first.shape is not None else axis
        view = _seen(first)
        values = [
            self._aligned(part, first, False) if isinstance(part, np.ndarray) else part for part in parts
        ]
        beneath = self._beneath(values, view)
        own = axis if isinstance(first, Value) else view.own(axis)
        return self._again(view, self.graph.join("concatenate", beneath, self.name, own))

    def combine(self, operation: str, a: Tensor | Array, b: Tensor | Array) -> Tensor:
        """Two operands joined elementwise; one of them may be a constant."""
        if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
            flipped = isinstance(a, np.ndarray)
            constant, x = (a, b) if isinstance(a, np.ndarray) else (b, a)
            assert isinstance(constant, np.ndarray)
            assert not isinstance(x, np.ndarray)
            if operation in ("add", "subtract", "maximum", "minimum"):
                constant = _bounded(constant)
            return self._with_constant(operation, constant, x, flipped)
        if operation == "power":
            raise refusal(self.name, "no layer raises one value to the power of another")
        a, b = self._same_rank(a, b)
        view = _seen(a)
        return self._again(view, self.graph.join(operation, self._beneath([a, b], view), self.name))

    def choose(self, condition: Tensor | Array, first: Tensor | Array, second: Tensor | Array) -> Tensor:
        """`first` where the condition is not 0, elsewhere `second`; at least one of the three is no constant."""
        given = (condition, first, second)
        like = next(each for each in given if not isinstance(each, np.ndarray))
        ranks = [each.ndim if isinstance(each, np.ndarray) else self.rank(each) for each in given]
        if max(ranks) > self.rank(like):
            raise refusal(self.name, "it chooses from values of more axes than its condition")
        parts = [self._as_value(each, like) if isinstance(each, np.ndarray) else each for each in given]
        for each in parts:
            self._same_rank(like, each)
        view = _seen(like)
        return self._again(view, self.graph.join("where", self._beneath(parts, view), self.name))

    def _as_value(self, constant: Array, like: Tensor) -> Tensor:
        constant = _bounded(constant)
        if self.rank(like) > 1:
            return self._aligned(constant, like, True)
        number = float(constant.reshape(())) if constant.size == 1 else None
        if number is None:
            raise refusal(self.name, "it chooses from a constant with a number for each sample")
        return self.apply(like, L.Activation("clamp", (number, number)))  # there is no layer of an axis less

    def compare(self, relation: str, a: Tensor | Array, b: Tensor | Array) -> Tensor:
        """1 where a relation of `RELATIONS` holds between two operands, elsewhere 0."""
        swapped, negated, apart = RELATIONS[relation]
        difference = self.combine("subtract", *((b, a) if swapped else (a, b)))
        layers = [L.Activation("abs")] if apart else []
        layers.append(L.Activation("step"))
        return self.apply(difference, *layers, *([L.Activation("affine", (-1.0, 1.0))] if negated else []))

    def matmul(self, a: Tensor | Array, b: Tensor | Array) -> Tensor:
        """The product of the matrices in the last two axes; one operand may be a constant."""
        if isinstance(b, np.ndarray):
            assert not isinstance(a, np.ndarray)
            return self._times_matrix(a, b)
        if isinstance(a, np.ndarray):
            if a.ndim == 2 or math.prod(a.shape[:-2]) == 1:
                swapped = self._transposed(b)
                return self._transposed(self._times_matrix(swapped, a.reshape(a.shape[-2:]).T))
            return self._join_matrices([self._aligned(a, b, True), b], b)
        return self._join_matrices([a, b], a)

    def _join_matrices(self, values: Sequence[Tensor], like: Tensor) -> Tensor:
        ranks = {self.rank(value) for value in values}
        view = _seen(like)
        if len(ranks) != 1 or view.at >= ranks.pop() - 2:
            shapes = " and ".join(shown(self.shape(value)) for value in values)
            raise refusal(self.name, f"a product of {shapes} mixes samples or has no layer")
        return self._again(view, self.graph.join("matmul", self._beneath(values, view), self.name))

    def _times_matrix(self, x: Tensor, matrix: Array) -> Tensor:
        if matrix.ndim == 1:
            result = self.last(x, 1, L.Dense(np.ascontiguousarray(matrix.reshape(1, -1))))
            return self.drop(result, self.rank(result) - 1)
        if matrix.ndim > 2 and math.prod(matrix.shape[:-2]) > 1:
            return self._join_matrices([x, self._aligned(matrix, x, True)], x)
        return self.last(x, 1, L.Dense(np.ascontiguousarray(matrix.reshape(matrix.shape[-2:]).T)))

    def _transposed(self, x: Tensor) -> Tensor:
        rank = self.rank(x)
        return self.permute(x, (*range(rank - 2), rank - 1, rank - 2))

    def _with_constant(self, operation: str, constant: Array, x: Tensor, flipped: bool) -> Tensor:
        view = _seen(x)
        if x.shape is not None and constant.size > 1:
            constant = self._own_axes(constant, x)
        layers = with_constant(operation, constant, flipped, view.value.shape)
        if layers is not None:
            return self._again(view, self._through(view.value, layers))
        if operation == "power":
            raise refusal(self.name, "no layer raises to a power that is not one number")
        array = constant.reshape((1,) * (self.rank(view.value) - 1 - constant.ndim) + constant.shape)
        other = self.graph.apply(L.Constant(array), view.value, self.name)
        pair = [other, view.value] if flipped else [view.value, other]
        return self._again(view, self.graph.join(operation, pair, self.name))

    def _own_axes(self, constant: Array, x: Tensor) -> Array:
        """A constant that meets the last axes of `x`, as it meets those of the value beneath without its batch."""
        view, rank = _seen(x), self.rank(x)
        if constant.ndim > rank:
            raise refusal(
                self.name, f"a constant of {constant.ndim} axes makes an array of {rank} axes one of more"
            )
        full = constant[(np.newaxis,) * (rank - constant.ndim)]
        first = full[(slice(None),) * view.at + (slice(0, 1),)]
        same = full.strides[view.at] == 0 and full.shape[view.at] == self.shape(x)[view.at]
        if full.shape[view.at] in (self.own_batch, self.shape(x)[view.at]):  # of the batch that was recorded
            same = bool(np.array_equal(full, np.broadcast_to(first, full.shape)))
        if same:  # one for every sample
            full = first
        if full.shape[view.at] != 1:
            raise refusal(
                self.name,
                f"a constant of the shape {shown(constant.shape)} has a number for each sample of one batch; "
                "export the model with another batch size, or without that constant",
            )
        without = np.squeeze(full, view.at)
        return without.reshape((1, *without.shape)) if view.merged else without

    def _aligned(self, constant: Array, like: Tensor, broadcasts: bool) -> Value:
        """A constant as a value that can be joined with `like`."""
        view = _seen(like)
        array = self._own_axes(constant, like)
        array = array.reshape((1,) * (self.rank(view.value) - 1 - array.ndim) + array.shape)
        if view.merged and not broadcasts:
            array = np.broadcast_to(array, (self.shape(view.value)[1], *array.shape[1:]))
        return self.graph.apply(L.Constant(np.ascontiguousarray(array)), view.value, self.name)

    def _same_rank(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        if a.shape is None or b.shape is None or len(a.shape) == len(b.shape):
            return a, b
        shapes = f"{shown(a.shape)} and {shown(b.shape)}"
        raise refusal(self.name, f"it joins {shapes}, whose axes of the batch do not meet")

    def _beneath(self, values: Sequence[Tensor], view: View) -> list[Value]:
        for value in values:
            other = _seen(value)
            constant = isinstance(value, Value) and isinstance(value.made_by, L.Constant)
            if other.place != view.place and not constant:
                raise refusal(self.name, "it joins values whose batches lie along different axes")
        return [_seen(value).value for value in values]

    def _moved(self, value: Value, axis: int, to: int) -> Value:
        if axis == to:
            return value
        order = list(range(len(self.shape(value))))
        order.insert(to, order.pop(axis))
        return self._through(value, [L.Permute(tuple(order))])

    def _again(self, view: View, value: Value) -> Tensor:
        return _simplest(View(value, *view.place))

    def _through(self, value: Value, layers: Sequence[Operation]) -> Value:
        for layer in layers:
            value = self.graph.apply(layer, value, self.name)
        return value


_MOST_REPEATED = 2**22  # numbers in weights that are repeated for every window


def _as_scale(norm: L.BatchNorm) -> L.Scale:
    """A normalisation with stored statistics of the features on the last axis."""
    assert norm.mean is not None
    assert norm.variance is not None
    factor = 1 / np.sqrt(norm.variance.astype(np.float64) + norm.epsilon)
    if norm.scale is not None:
        factor = factor * norm.scale
    shift = -norm.mean * factor + (0 if norm.shift is None else norm.shift)
    return L.Scale(factor.astype(np.float32), shift.astype(np.float32), norm.activation)


def _for_windows(layer: Operation, count: int) -> Operation | None:
    """The layer for `count` times as many channels; None if there is none, or its weights would be too many."""
    if isinstance(layer, L.MaxPool | L.MeanPool | L.Pad | L.GlobalMeanPool | L.GlobalMaxPool | L.Upsample):
        return layer
    if not isinstance(layer, L.Conv | L.BatchNorm):
        return None
    arrays: dict[str, Any] = {
        name: np.tile(array, (count, *[1] * (array.ndim - 1))) for name, array in layer.arrays.items()
    }
    if sum(array.size for array in arrays.values()) > _MOST_REPEATED:
        return None
    if isinstance(layer, L.Conv):
        return replace(layer, **arrays, groups=layer.groups * count)
    return replace(layer, **arrays)


def _bounded(constant: Array) -> Array:
    """A constant with `FAR` for infinity, as in masks of attention."""
    infinite = np.isinf(constant)
    return (
        np.where(infinite, np.copysign(FAR, constant), constant).astype(constant.dtype)
        if infinite.any()
        else constant
    )


def _seen(x: Tensor) -> View:
    return x if isinstance(x, View) else View(x, 0)


def _simplest(view: View) -> Tensor:
    return view.value if view.at == 0 and not view.merged else view
