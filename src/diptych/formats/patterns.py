"""Turns the steps of a graph into layers, and several steps into one layer where they are its parts.

The rules in `_RULES` are applied, innermost branches first, until none matches. An operation that is then still not a
layer is an error that names its node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

import numpy as np

from diptych.formats.elementwise import named_function
from diptych.formats.graph import (
    Join,
    Lookup,
    Piece,
    Shape,
    Shift,
    Step,
    Tangle,
    refusal,
)
from diptych.model import layers as L
from diptych.model.layers import (
    Activation,
    AdaptiveMaxPool,
    AdaptiveMeanPool,
    BatchNorm,
    Bilinear,
    Chain,
    Connection,
    Conv,
    ConvTranspose,
    Dense,
    Embedding,
    Flatten,
    Gather,
    GlobalMaxPool,
    GlobalMeanPool,
    Graph,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    MaxPool,
    Normalise,
    Pad,
    Parallel,
    Permute,
    PixelShuffle,
    Reduce,
    Reshape,
    RMSNorm,
    Scale,
    SkipConnection,
    Slice,
    Upsample,
    pool_windows,
)

__all__ = ["as_chain"]

Found: TypeAlias = tuple[int, list[Step]] | None  # the number of steps to replace, and their replacement
Rule: TypeAlias = Callable[[list[Step]], Found]


def as_chain(steps: list[Step]) -> Chain:
    """The layers that compute `steps`.

    Raises:
        UnsupportedLayer: Names the first node that no layer can express.
    """
    return Chain(tuple(_layer(step) for step in _finished(_simplified(steps))))


def _simplified(steps: list[Step]) -> list[Step]:
    for step in steps:
        step.branches = [_simplified(branch) for branch in step.branches]
    found = True
    while found:
        found = False
        at = 0
        while at < len(steps):
            for rule in _RULES:
                result = rule(steps[at : at + _WIDEST])
                if result is not None:
                    count, instead = result
                    steps = [*steps[:at], *instead, *steps[at + count :]]
                    found = True
                    break
            else:
                at += 1
    return steps


def _one(layer: Layer, steps: Sequence[Step]) -> list[Step]:
    """A single step in place of several."""
    return [Step(layer, steps[0].name, steps[0].before, steps[-1].after)]


# ---- Elementwise --------------------------------------------------------------------------------------

_WIDEST = 12  # the number of steps that a rule is given


def _nothing(steps: list[Step]) -> Found:
    first = steps[0]
    layer = first.layer
    idle = isinstance(layer, Activation) and (
        not layer or (layer.name == "affine" and layer.parameters == (1, 0))
    )
    reshaped = isinstance(layer, Reshape | L.Expand) and first.before is not None
    if isinstance(layer, Permute) and layer.order == tuple(range(len(layer.order))):
        return 1, []
    return (1, []) if idle or (reshaped and first.before == first.after) else None


def _permuted_twice(steps: list[Step]) -> Found:
    if len(steps) < 2 or not isinstance(steps[0].layer, Permute) or not isinstance(steps[1].layer, Permute):
        return None
    first, second = steps[0].layer.order, steps[1].layer.order
    return 2, _one(Permute(tuple(first[axis] for axis in second)), steps[:2])


def _affine(steps: list[Step]) -> Found:
    if len(steps) < 2:
        return None
    first, second = steps[0].layer, steps[1].layer
    if not all(isinstance(s, Activation) and s.name == "affine" for s in (first, second)):
        return None
    (a, b), (c, d) = cast(Activation, first).parameters, cast(Activation, second).parameters
    return 2, _one(Activation("affine", (a * c, b * c + d)), steps[:2])


def _composite(steps: list[Step]) -> Found:
    for count in range(len(steps), 0, -1):
        name = named_function(steps[:count])
        if name is not None:
            return count, _one(name, steps[:count])
    return None


# ---- Weights that belong to the preceding layer -------------------------------------------------------


def _column(array: Any, shape: Shape | None) -> Any:
    """(C, 1, 1) -> (C,) if the array has one number for each channel of `shape`, otherwise None."""
    if shape is None or len(shape) < 2 or array.ndim != len(shape) - 1 or array.size != array.shape[0]:
        return None
    return array.reshape(-1) if array.shape[0] == shape[1] else None


def _bias(steps: list[Step]) -> Found:
    if len(steps) < 2 or not isinstance(steps[1].layer, Shift):
        return None
    layer, bias = steps[0].layer, steps[1].layer.bias
    if getattr(layer, "activation", None):
        return None
    fits = isinstance(layer, Dense | Bilinear) and bias.shape == layer.weight.shape[:1]
    if isinstance(layer, Dense | Bilinear) and layer.bias is None and fits:
        return 2, _one(replace(layer, bias=bias), steps[:2])
    column = _column(bias, steps[1].after)
    if isinstance(layer, Conv | ConvTranspose) and layer.bias is None and column is not None:
        return 2, _one(replace(layer, bias=column), steps[:2])
    if isinstance(layer, Scale) and layer.bias is None:
        return 2, _one(replace(layer, bias=bias), steps[:2])
    return None


def _norm_weights(steps: list[Step]) -> Found:
    """A normalisation followed by its scale and shift as separate operations."""
    layer = steps[0].layer
    if len(steps) < 2 or not isinstance(layer, BatchNorm | InstanceNorm | GroupNorm | LayerNorm):
        return None
    following = steps[1].layer
    if layer.scale is not None or layer.shift is not None or layer.activation:
        return None
    scale = following.scale if isinstance(following, Scale) else None
    shift = following.bias if isinstance(following, Scale | Shift) else None
    if scale is None and shift is None:
        return None
    if isinstance(layer, LayerNorm):
        fit = all(a is None or a.shape == layer.shape for a in (scale, shift))
        return (2, _one(replace(layer, scale=scale, shift=shift), steps[:2])) if fit else None
    columns = [None if a is None else _column(a, steps[0].after) for a in (scale, shift)]
    if (scale is None) != (columns[0] is None) or (shift is None) != (columns[1] is None):
        return None
    return 2, _one(replace(layer, scale=columns[0], shift=columns[1]), steps[:2])


def _bilinear(steps: list[Step]) -> Found:
    """All products of two values of the last axis, then a dense layer over them."""
    first, shape = steps[0], steps[0].before
    if len(steps) < 3 or shape is None or not isinstance(steps[2].layer, Dense):
        return None
    if not isinstance(first.layer, Join) or first.layer.operation != "multiply" or len(first.branches) != 2:
        return None
    n, weight = shape[-1], steps[2].layer.weight
    sides = [b[0].after if len(b) == 1 and isinstance(b[0].layer, Reshape) else None for b in first.branches]
    if sides != [(*shape, 1), (*shape[:-1], 1, n)] or steps[1].after != (*shape[:-1], n * n):
        return None
    square = weight.reshape(len(weight), n, n)
    return 3, _one(Bilinear(square, steps[2].layer.bias), steps[:3])


def _embedding(steps: list[Step]) -> Found:
    """Indices rounded, made to count from 0, clamped to the table and looked up; then perhaps a reduction."""
    if not _is(steps[0], "round"):
        return None
    rest, first = list(steps[1:6]), 0
    if rest and _is(rest[0], "affine"):
        scale, shift = cast(Activation, rest.pop(0).layer).parameters
        first = round(-shift) if scale == 1 else 0
    if len(rest) > 2 and _is(rest[1], "trunc"):  # of what is whole already
        del rest[1]
    if len(rest) < 2 or not _is(rest[0], "clamp") or not isinstance(rest[1].layer, Lookup):
        return None
    weight = rest[1].layer.weight
    if cast(Activation, rest[0].layer).parameters != (0, len(weight) - 1):
        return None
    used = steps[: steps.index(rest[1]) + 1]
    after = rest[2].layer if len(rest) > 2 else None
    if isinstance(after, Reduce) and not after.keep and after.axes == (len(used[-1].after or ()) - 2,):
        used = steps[: len(used) + 1]
        return len(used), _one(Embedding(weight, first, cast(Any, after.kind)), used)
    return len(used), _one(Embedding(weight, first), used)


def _softmax(steps: list[Step]) -> Found:
    """exp(x) divided by its sum along one axis."""
    for count in (2, 1):
        if (
            len(steps) < count
            or not isinstance(join := steps[count - 1].layer, Join)
            or join.operation != "divide"
        ):
            continue
        branches = steps[count - 1].branches
        if count == 1:  # each branch takes the exponential itself
            if len(branches) != 2 or not all(branch and _is(branch[0], "exp") for branch in branches):
                continue
            branches = [branch[1:] for branch in branches]
        elif not _is(steps[0], "exp"):
            continue
        if len(branches) != 2 or branches[0] or len(branches[1]) != 1:
            continue
        total = branches[1][0].layer
        if isinstance(total, Reduce) and total.kind == "sum" and total.keep and len(total.axes) == 1:
            return count, _one(L.Softmax(total.axes[0]), steps[:count])
    return None


# ---- Normalisations -----------------------------------------------------------------------------------


def _is_mean(step: Step) -> bool:
    return isinstance(step.layer, Reduce) and step.layer.kind == "mean" and step.layer.keep


def _is(step: Step, name: str) -> bool:
    return isinstance(step.layer, Activation) and step.layer.name == name


def _standardised(steps: list[Step]) -> Found:
    """x - mean(x), then divided by sqrt(mean(x^2) + epsilon) or sqrt(mean(x^2)) + epsilon."""
    if len(steps) < 2 or [getattr(s.layer, "operation", "") for s in steps[:2]] != ["subtract", "divide"]:
        return None
    means, spread = steps[0].branches, steps[1].branches
    if len(means) != 2 or len(spread) != 2 or means[0] or spread[0] or len(means[1]) != 1:
        return None
    inner = spread[1]
    if len(inner) != 4 or not (_is_mean(means[1][0]) and _is(inner[0], "abs2") and _is_mean(inner[1])):
        return None
    axes = cast(Reduce, means[1][0].layer).axes
    if cast(Reduce, inner[1].layer).axes != axes or steps[0].before is None:
        return None
    for affine, root, outside in ((inner[2], inner[3], False), (inner[3], inner[2], True)):
        if _is(affine, "affine") and _is(root, "sqrt"):
            scale, epsilon = cast(Activation, affine.layer).parameters
            layer = _norm(steps[0].before, axes, epsilon, outside)
            return (2, _one(layer, steps[:2])) if scale == 1 and layer is not None else None
    return None


def _by_root_of_squares(steps: list[Step]) -> Found:
    """x / sqrt(mean(x^2) + epsilon), or times that to the power of -1/2, and the scale behind it."""
    operation = getattr(steps[0].layer, "operation", "")
    if operation not in ("divide", "multiply") or steps[0].before is None:
        return None
    branches, shape = list(steps[0].branches), steps[0].before
    if operation == "multiply" and len(branches) == 2 and not branches[1]:
        branches.reverse()
    if len(branches) != 2 or branches[0] or len(branches[1]) != 4:
        return None
    squares, mean, affine, root = branches[1]
    pooled = isinstance(mean.layer, GlobalMeanPool) and len(shape) > 2
    axes = tuple(range(2, len(shape))) if pooled else getattr(mean.layer, "axes", ())
    inverse = _is(root, "power") and cast(Activation, root.layer).parameters == (-0.5,)
    rooted = _is(root, "sqrt") if operation == "divide" else inverse
    if not (_is(squares, "abs2") and (pooled or _is_mean(mean)) and _is(affine, "affine") and rooted):
        return None
    factor, epsilon = cast(Activation, affine.layer).parameters
    if factor != 1 or epsilon < 0 or not axes or tuple(axes) != tuple(range(axes[0], len(shape))):
        return None
    own, scale = shape[axes[0] :], None
    after = steps[1].layer if len(steps) > 1 else None
    if isinstance(after, Scale) and after.bias is None and not after.activation and after.scale.shape == own:
        scale = after.scale
    used = 1 if scale is None else 2
    return used, _one(RMSNorm(own, scale, epsilon), steps[:used])


def _norm(shape: Shape, axes: tuple[int, ...], epsilon: float, outside: bool) -> Layer | None:
    rank = len(shape)
    axes = tuple(sorted(axes))
    if not outside and rank > 2 and axes == tuple(range(2, rank)):
        return InstanceNorm(epsilon=epsilon)
    if not outside and axes == (0, *range(2, rank)):
        return BatchNorm(epsilon=epsilon)
    if len(axes) == 1 and rank > 2:  # LayerNorm would fix the size
        return Normalise(axes[0], epsilon, "std + eps" if outside else "sqrt(var + eps)")
    if axes and axes[0] > 0 and axes == tuple(range(axes[0], rank)):
        formula: Any = "std + eps" if outside else "sqrt(var + eps)"
        return LayerNorm(shape[axes[0] :], epsilon=epsilon, formula=formula)
    return None


def _group_norm(steps: list[Step]) -> Found:
    """A reshape of groups to channels, an instance normalisation, and a reshape back."""
    if len(steps) < 3 or steps[0].before is None or steps[0].before != steps[2].after:
        return None
    first, norm, last = (s.layer for s in steps[:3])
    if not (isinstance(first, Reshape) and isinstance(last, Reshape | Flatten)):
        return None
    if not isinstance(norm, InstanceNorm) or norm.arrays or norm.activation:
        return None
    groups = first.shape[0]
    if groups < 1 or steps[0].before[1] % groups or len(first.shape) < 2:
        return None
    return 3, _one(GroupNorm(groups, epsilon=norm.epsilon), steps[:3])


# ---- Pools and shape ----------------------------------------------------------------------------------


def _filled_pool(steps: list[Step]) -> Found:
    if len(steps) < 2 or not isinstance(steps[0].layer, Pad) or not isinstance(steps[1].layer, MaxPool):
        return None
    fill, pool = steps[0].layer, steps[1].layer
    if (fill.mode, fill.value) != ("constant", -math.inf) or any(map(any, pool.padding)):
        return None
    return 2, _one(replace(pool, padding=fill.padding), steps[:2])


def _adaptive_pool(steps: list[Step]) -> Found:
    """For each spatial axis in turn: every window sliced, reduced, and the results concatenated."""
    shape = steps[0].before
    if shape is None or len(shape) < 3 or len(steps) < len(shape) - 2:
        return None
    used = steps[: len(shape) - 2]
    if not any(isinstance(step.layer, Join) for step in used):
        return None
    for kind, layer in (("mean", AdaptiveMeanPool), ("max", AdaptiveMaxPool)):
        windows = [_windows(step, axis, kind) for axis, step in enumerate(used, 2)]
        for rule in ("pytorch", "flux"):
            if all(w and w == pool_windows(n, len(w), rule) for w, n in zip(windows, shape[2:], strict=True)):
                counts = tuple(len(w) for w in windows if w)
                return len(used), _one(layer(counts, cast(Any, rule)), used)
    return None


def _windows(step: Step, axis: int, kind: str) -> list[tuple[int, int]] | None:
    whole = step.layer
    if isinstance(whole, Reduce) and (whole.kind, whole.axes, whole.keep) == (kind, (axis,), True):
        return None if step.before is None else [(0, step.before[axis])]
    if not isinstance(step.layer, Join) or (step.layer.operation, step.layer.axis) != ("concatenate", axis):
        return None
    windows = []
    for branch in step.branches:
        if len(branch) != 2 or not isinstance(cut := branch[0].layer, Slice) or cut.axis != axis:
            return None
        if not isinstance(pool := branch[1].layer, Reduce) or (pool.kind, pool.axes) != (kind, (axis,)):
            return None
        windows.append((cut.start, cut.stop))
    return windows


def _gathered(steps: list[Step]) -> Found:
    """Nearest-neighbour upsampling, written as indexing along each spatial axis."""
    shape = steps[0].before
    if shape is None or len(shape) < 3 or not isinstance(steps[0].layer, Gather):
        return None
    sizes, used = list(shape[2:]), 0
    for step in steps:
        layer = step.layer
        if not isinstance(layer, Gather) or layer.axis < 2:
            break
        n, m = shape[layer.axis], len(layer.indices)
        if m == n:
            break
        if used >= len(sizes) or not np.array_equal(layer.indices, np.arange(m) * n // m):
            break
        sizes[layer.axis - 2] = m
        used += 1
    return (used, _one(Upsample(size=tuple(sizes)), steps[:used])) if used else None


def _pixel_shuffle(steps: list[Step]) -> Found:
    """The channels split by a reshape, each factor moved behind its axis, and a reshape that merges them."""
    if len(steps) < 3 or not isinstance(steps[1].layer, Permute):
        return None
    before, split, after = steps[0].before, steps[0].after, steps[2].after
    if before is None or split is None or after is None or len(split) != 2 * len(before) - 2:
        return None
    k = len(before) - 2
    order = (0, 1, *(axis for i in range(k) for axis in (2 + k + i, 2 + i)))
    factor = split[2] if k else 0
    whole = (before[0], split[1], *(n * factor for n in before[2:]))
    if steps[1].layer.order != order or split[2 : 2 + k] != (factor,) * k or after != whole:
        return None
    return 3, _one(PixelShuffle(factor), steps[:3])


_RULES: tuple[Rule, ...] = (
    _nothing,
    _permuted_twice,
    _affine,
    _composite,
    _softmax,
    _bilinear,
    _embedding,
    _bias,
    _norm_weights,
    _standardised,
    _by_root_of_squares,
    _group_norm,
    _filled_pool,
    _adaptive_pool,
    _gathered,
    _pixel_shuffle,
)


# ---- Layers -------------------------------------------------------------------------------------------


def _finished(steps: list[Step]) -> list[Step]:
    """Replaces the pieces that are layers by themselves."""
    result: list[Step] = []
    for step in steps:
        step.branches = [_finished(branch) for branch in step.branches]
        if isinstance(step.layer, Shift):
            step.layer = Scale(np.ones(1, np.float32), step.layer.bias)
        if isinstance(step.layer, Reduce):
            result += _global_pool(step, step.layer)
        else:
            result.append(step)
    return result


def _global_pool(step: Step, layer: Reduce) -> list[Step]:
    if 0 in layer.axes:
        raise refusal(step.name, f"a {layer.kind} over the batch axis mixes samples")
    rank = 4 if step.before is None else len(step.before)
    if rank < 3 or layer.axes != tuple(range(2, rank)) or layer.kind not in ("mean", "max"):
        return [step]
    pool = GlobalMeanPool() if layer.kind == "mean" else GlobalMaxPool()
    flat = [] if layer.keep else [Step(Flatten(), step.name, None, step.after)]
    return [Step(pool, step.name, step.before, None), *flat]


_NO_LAYER = {
    "Lookup": "an Embedding only looks up numbers that are rounded and clamped to its table",
}


def _layer(step: Step) -> Layer:
    layer = step.layer
    if isinstance(layer, Piece):
        raise refusal(step.name, _NO_LAYER[type(layer).__name__])
    if isinstance(layer, Layer):
        return layer
    if isinstance(layer, Tangle):
        return _graph(step, layer)
    connection = _connection(layer)
    empty = [not branch for branch in step.branches]
    symmetric = layer.operation in ("add", "multiply", "maximum", "minimum")
    if len(empty) == 2 and (empty[1] or (empty[0] and symmetric)):
        return SkipConnection(_branch(step.branches[0 if empty[1] else 1]), connection)
    return Parallel(connection, tuple(map(_branch, step.branches)))


def _connection(join: Join) -> Connection:
    return Connection(cast(Any, join.operation), join.axis)


def _graph(step: Step, tangle: Tangle) -> Graph:
    """A graph with a node for every join and every sequence of steps.

    A sequence that the rules reduced to nothing becomes another name for its input.
    """
    nodes: list[tuple[Layer, str, tuple[str, ...]]] = []
    called = {Graph.INPUT: Graph.INPUT}
    for name, inputs, join, steps in zip(
        tangle.names, tangle.inputs, tangle.joins, step.branches, strict=True
    ):
        values = tuple(called[each] for each in inputs)
        if join is not None:
            joined = f"{name} ({join.operation})" if steps else name
            nodes.append((_connection(join), joined, values))
            values = (joined,)
        if steps:
            nodes.append((_branch(steps), name, values))
            values = (name,)
        (called[name],) = values
    layers, names, inputs_of = zip(*nodes, strict=True)
    return Graph(layers, names, inputs_of, (called[tangle.names[-1]],))


def _branch(steps: list[Step]) -> Layer:
    layers = [_layer(step) for step in steps]
    if not layers:
        return Activation()
    return layers[0] if len(layers) == 1 else Chain(tuple(layers))
