"""ONNX reductions, and operations that move, pick, join and pad values, as layers."""

from __future__ import annotations

import math

import numpy as np

from diptych.formats.graph import Lookup, Operation, Value, power_layers
from diptych.formats.onnx.reading_node import Node, Rule, plain
from diptych.formats.views import Tensor
from diptych.formats.windows import padding_layers, unshuffle
from diptych.model import layers as L
from diptych.model.layers import Activation, Array

__all__ = ["SHAPES"]


# ---- Reductions ---------------------------------------------------------------------------------------


def _reduce(kind: str, before: tuple[Operation, ...] = (), after: tuple[Operation, ...] = ()) -> Rule:
    def rule(n: Node) -> Tensor:
        given, keep = n.numbers("axes", 1), n.flag("keepdims", 1)
        if not given and n.flag("noop_with_empty_axes"):
            return n.pointwise(*before, *after)
        if not given:
            n.refuse(f"a {kind} over all axes mixes samples")
        return n.views.apply(n.views.reduce(n.pointwise(*before), kind, given, keep), *after)

    return rule


# ---- Reshapes -----------------------------------------------------------------------------------------


def _flatten(n: Node) -> Tensor:
    axis = n.attributes.get("axis", 1)
    axis = axis % len(n.shape) if axis < 0 else axis
    return n.reshaped((math.prod(n.shape[:axis]), math.prod(n.shape[axis:])))


def _reshape(n: Node) -> Tensor:
    n.attributes.get("consumed_inputs")
    sizes = n.numbers("shape", 1) or []
    if not n.flag("allowzero"):
        sizes = [n.shape[i] if m == 0 and i < len(n.shape) else m for i, m in enumerate(sizes)]
    return n.reshaped(sizes)


def _squeeze(n: Node) -> Tensor:
    axes = n.numbers("axes", 1)
    if axes is None:
        if n.own_batch == 1:
            n.refuse("it removes every axis of length 1, the batch among them; give the axes")
        gone = {i for i, m in enumerate(n.shape) if m == 1}
    else:
        gone = {n.views.axis(n.x, a) for a in axes}
    return n.reshaped(_open_at_the_end(n, [m for i, m in enumerate(n.shape) if i not in gone]))


def _open_at_the_end(n: Node, sizes: list[int]) -> list[int]:
    """The sizes with the last one left open, so that a picture may have any."""
    free = len(sizes) > 2 and sizes[-1] == n.shape[-1] > 1 and sizes[0] == n.shape[0]
    return [*sizes[:-1], -1] if free else sizes


def _unsqueeze(n: Node) -> Tensor:
    axes = n.numbers("axes", 1) or []
    rank = len(n.shape) + len(axes)
    added, rest = {a % rank for a in axes}, iter(n.shape)
    return n.reshaped(_open_at_the_end(n, [1 if i in added else next(rest, 1) for i in range(rank)]))


def _transpose(n: Node) -> Tensor:
    given = n.attributes.get("perm")
    order = tuple(range(len(n.shape)))[::-1] if given is None else tuple(int(a) for a in given)
    return n.views.permute(n.x, order)


# ---- Parts --------------------------------------------------------------------------------------------


def _slice(n: Node) -> Tensor:
    starts, ends = n.numbers("starts", 1) or [], n.numbers("ends", 2) or []
    axes = n.numbers("axes", 3) or list(range(len(starts)))
    steps = n.numbers("", 4) or [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        n.refuse("its starts, ends, axes and steps are not of the same number")
    value: Tensor = n.x
    for begin, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        value = _part(n, value, n.views.counted(value, axis), begin, end, step)
    return value


def _part(n: Node, value: Tensor, axis: int, begin: int, end: int, step: int) -> Tensor:
    size = n.views.shape(value)[axis]
    if step > 0:
        return n.views.slice(value, axis, max(begin, -size), max(end, -size), step)
    if -size <= end < begin < 0:  # counted from the end, so the size does not matter
        last = n.views.slice(value, axis, end + 1, begin + 1 or 2**31 - 1, 1)
        return n.views.gather(last, axis, np.arange(begin - end - 1, -1, step))
    start, stop, step = slice(begin, end, step).indices(size)
    places = np.arange(size)[start : None if stop < 0 else stop : step]
    return n.views.gather(value, axis, places)


def _split(n: Node) -> list[Tensor | Array]:
    axis = n.views.axis(n.x, n.attributes.get("axis", 0))
    size, given, count = n.shape[axis], n.numbers("split", 1), n.attributes.get("num_outputs")
    if given is None:
        each = -(-size // int(count or n.outputs))
        given = [min(each, size - i * each) for i in range(n.outputs)]
    if sum(given) != size or len(given) != n.outputs or min(given) < 1:
        n.refuse(f"its parts {given} do not fit an axis of length {size}")
    ends = np.cumsum(given).tolist()
    return [n.views.slice(n.x, axis, end - part, end) for part, end in zip(given, ends, strict=True)]


def _gather(n: Node) -> Tensor:
    table = n.inputs[0]
    if isinstance(table, np.ndarray):
        rows = n.inputs[1]
        if n.attributes.get("axis", 0) != 0 or table.ndim != 2 or not isinstance(rows, Value):
            n.refuse("a layer can only look up the rows of a table")
        shape = None if rows.shape is None else (*rows.shape, table.shape[1])
        return n.graph.apply(Lookup(table), rows, n.name, shape)
    return n.views.gather(n.x, n.axis(0), n.weight(1))


def _concat(n: Node) -> Tensor:
    like = n.tensors[0]
    axis = n.views.counted(like, int(n.attributes.get("axis", 1)))
    return n.views.concatenate([n.operand(i) for i in range(len(n.inputs))], axis)


def _expand(n: Node) -> Tensor:
    sizes = n.weight(1).reshape(-1).astype(int).tolist()
    if len(sizes) < len(n.shape):
        sizes = [1] * (len(n.shape) - len(sizes)) + sizes
    return n.views.expand(n.x, [-1 if m == 1 else m for m in sizes])


_MOST_COPIES = 1024


def _tile(n: Node) -> Tensor:
    repeats = n.weight(1).reshape(-1).astype(int).tolist()
    value = n.x
    for axis, count in enumerate(repeats):
        if not 1 <= count <= _MOST_COPIES:
            n.refuse(f"it repeats an axis {count:,} times; layers repeat it 1 to {_MOST_COPIES:,} times")
        if count != 1:
            value = n.views.concatenate([value] * count, n.views.axis(value, axis))
    return value


# ---- Padding ------------------------------------------------------------------------------------------

_MODES: dict[str, L.PadMode] = {
    "constant": "constant",
    "reflect": "reflect",
    "edge": "replicate",
    "wrap": "wrap",
}


def _pad(n: Node) -> Value:
    given = n.numbers("pads", 1)
    pads, axes = n.numbers("paddings") or [] if given is None else given, n.numbers("", 3)
    rank = len(n.shape)
    axes = list(range(rank)) if axes is None else [a % rank for a in axes]
    low = dict(zip(axes, pads[: len(axes)], strict=False))
    high = dict(zip(axes, pads[len(axes) :], strict=False))
    pairs = tuple((low.get(i, 0), high.get(i, 0)) for i in range(rank))
    fill, kind = n.constant(2), n.attributes.get("mode", "constant")
    number = n.attributes.get("value", 0.0)
    number = float(number if fill is None else plain(fill))
    if any(pairs[0]):
        n.refuse("no layer pads the batch")
    mode = _MODES.get(kind)
    if mode is None:
        n.refuse(f"no layer pads in the mode {kind!r}")
    if mode == "constant" and number == 0:
        mode = "zero"
    number = number if mode == "constant" else 0.0
    crops = [
        L.Slice(i, max(0, -a), n.shape[i] - max(0, -b)) for i, (a, b) in enumerate(pairs) if min(a, b) < 0
    ]
    pairs = tuple((max(a, 0), max(b, 0)) for a, b in pairs)
    return n.give(*crops, *padding_layers(pairs, mode, number, n.shape[1]))


# ---- Between channels and space -----------------------------------------------------------------------


def _shuffled(block: int, channels: int) -> list[Operation]:
    """`PixelShuffle` of pictures whose channels are in the order DCR: the factors before the channels."""
    inner = channels // block**2
    order = np.arange(channels).reshape(block * block, inner).T.reshape(-1)
    layers: list[Operation] = [L.PixelShuffle(block)]
    if inner > 1:
        layers.insert(0, L.Gather(order.astype(np.float32)))
    return layers


def _depth_to_space(n: Node) -> Value:
    block, mode = int(n.attributes["blocksize"]), n.attributes.get("mode", "DCR")
    if mode == "CRD":
        return n.give(L.PixelShuffle(block))
    if n.shape[1] % block**2:
        n.refuse(f"its blocksize {block} does not divide {n.shape[1]} channels")
    return n.give(*_shuffled(block, n.shape[1]))


def _space_to_depth(n: Node) -> Value:
    block, channels = int(n.attributes["blocksize"]), n.shape[1]
    order = np.arange(channels * block**2).reshape(channels, block * block).T.reshape(-1)
    if n.attributes.get("mode", "DCR") != "DCR":
        order = np.sort(order)
    layers: list[Operation] = [unshuffle(block, channels)]
    if not np.array_equal(order, np.arange(len(order))):
        layers.append(L.Gather(order.astype(np.float32)))
    return n.give(*layers)


# ---- Along one axis -----------------------------------------------------------------------------------


def _cumulative_sum(n: Node) -> Tensor:
    """The product with a triangle of ones."""
    axis = n.views.axis(n.x, int(plain(n.weight(1))))
    triangle: Array = np.triu(np.ones((n.shape[axis],) * 2, np.float32), int(n.flag("exclusive")))
    if n.flag("reverse"):
        triangle = triangle.T
    rank = len(n.shape)
    swap = list(range(rank))
    swap[axis], swap[-1] = swap[-1], swap[axis]
    moved = n.views.matmul(n.views.permute(n.x, swap), triangle)
    return n.views.permute(moved, swap)


_SQUARE, _LOG = Activation("abs2"), Activation("log")

SHAPES: dict[str, Rule] = {
    "ReduceMean": _reduce("mean"),
    "ReduceMax": _reduce("max"),
    "ReduceMin": _reduce("min"),
    "ReduceSum": _reduce("sum"),
    "ReduceProd": _reduce("product"),
    "ReduceL1": _reduce("sum", (Activation("abs"),)),
    "ReduceL2": _reduce("sum", (_SQUARE,), tuple(power_layers(0.5))),
    "ReduceLogSum": _reduce("sum", (), (_LOG,)),
    "ReduceLogSumExp": _reduce("logsumexp"),
    "ReduceSumSquare": _reduce("sum", (_SQUARE,)),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Concat": _concat,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "CumSum": _cumulative_sum,
}
