"""Causes in the weights: their orientation, their order, their precision, missing ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations
from math import prod
from typing import Any

import numpy as np

from diptych.axes import flip_kernel, swap_spatial
from diptych.comparing.hypotheses import Case, Cause, Trial, Which, layer_pairs, layer_trials
from diptych.model.layers import (
    Activation,
    Array,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    Normalise,
    RMSNorm,
)

__all__ = ["WEIGHT_CAUSES"]

_BOTH: tuple[Which, Which] = ("b", "a")


def _of_b(change: Callable[[Any], Layer | None], what: str) -> Callable[[Case], Iterator[Trial]]:
    """Trials that apply `change` to every layer of B for which it gives another one."""

    def trials(case: Case) -> Iterator[Trial]:
        yield from layer_trials(case, "b", _changes(case, "b", change), what)

    return trials


def _of_either(change: Callable[[Any], Layer | None], what: str) -> Callable[[Case], Iterator[Trial]]:
    """Trials that apply `change` to B, then to A: it cannot be undone, only applied to the other model too."""

    def trials(case: Case) -> Iterator[Trial]:
        for which in _BOTH:
            yield from layer_trials(case, which, _changes(case, which, change), what)

    return trials


def _changes(case: Case, which: Which, change: Callable[[Any], Layer | None]) -> dict[str, Layer]:
    changed = ((path, change(layer)) for path, layer in case.run(which).layers.items())
    return {path: layer for path, layer in changed if layer is not None}


# ---- Kernels ------------------------------------------------------------------------------------------


def _flipped(layer: Layer) -> Layer | None:
    if isinstance(layer, Conv | ConvTranspose) and prod(layer.weight.shape[2:]) > 1:
        return replace(layer, weight=flip_kernel(layer.weight))
    return None


def _swapped(layer: Layer) -> Layer | None:
    if not isinstance(layer, Conv | ConvTranspose) or layer.weight.ndim != 4:
        return None
    height, width = layer.weight.shape[2:]
    if height * width == 1:
        return None
    weight = swap_spatial(layer.weight)
    if height == width:
        return replace(layer, weight=weight)
    turned = {name: getattr(layer, name)[::-1] for name in ("stride", "padding", "dilation")}
    return replace(layer, weight=weight, **turned)


def _flipped_and_swapped(layer: Layer) -> Layer | None:
    flipped = _flipped(layer)
    return None if flipped is None else _swapped(flipped)


def _channels_exchanged(layer: Layer) -> Layer | None:
    if isinstance(layer, Conv | ConvTranspose) and layer.groups == 1:
        outputs, inputs = layer.weight.shape[:2]
        if outputs == inputs > 1:
            return replace(layer, weight=np.ascontiguousarray(layer.weight.swapaxes(0, 1)))
    return None


def _transposed(layer: Layer) -> Layer | None:
    if isinstance(layer, Dense) and layer.weight.shape[0] == layer.weight.shape[1] > 1:
        return replace(layer, weight=np.ascontiguousarray(layer.weight.T))
    return None


# ---- The order in which a Dense layer counts its inputs -------------------------------------------------


def _flatten_order(case: Case) -> Iterator[Trial]:
    after = _flattened(case)
    orders = {order for dims in after.values() for order in permutations(range(len(dims))) if len(dims) <= 4}
    for order in sorted(orders):
        changes: dict[str, Layer] = {}
        for path, dims in after.items():
            layer = case.b.layers[path]
            if isinstance(layer, Dense) and len(order) == len(dims) and list(order) != sorted(order):
                changes[path] = replace(layer, weight=_reordered(layer.weight, dims, order))
        names = {3: "CHW", 4: "CDHW"}.get(len(order), "CW")
        written = ", ".join(names[axis] for axis in order)
        yield from layer_trials(
            case, "b", changes, f"the inputs of {{layers}} counted in the order {written}"
        )


def _reordered(weight: Array, dims: tuple[int, ...], order: tuple[int, ...]) -> Array:
    """The weight with its columns, which count the inputs in `order`, in the order of the axes."""
    apart = weight.reshape(-1, *(dims[axis] for axis in order))
    back = apart.transpose(0, *(1 + int(axis) for axis in np.argsort(order)))
    return np.ascontiguousarray(back.reshape(len(weight), -1))


def _flattened(case: Case) -> dict[str, tuple[int, ...]]:
    """Every Dense layer of B after a Flatten, with the axes (C, H, W) that were flattened."""
    found: dict[str, tuple[int, ...]] = {}
    before: tuple[int, ...] = case.b.batch.shape[1:]
    pending: tuple[int, ...] = before if len(before) > 1 else ()
    for output in case.b.outputs():
        if isinstance(output.layer, Flatten):
            pending = before
        elif isinstance(output.layer, Dense):
            if len(pending) > 1 and output.layer.weight.shape[1] == prod(pending):
                found[output.path] = pending
            pending = ()
        elif not isinstance(output.layer, Activation | Dropout):
            pending = ()
        before = output.value.shape[1:]
    return found


# ---- What is missing ----------------------------------------------------------------------------------


def _bias_missing(case: Case) -> Iterator[Trial]:
    for name in ("bias", "shift"):
        for which in _BOTH:
            changes = {}
            for row, of_a, of_b in layer_pairs(case):
                mine, other = (of_a, of_b) if which == "a" else (of_b, of_a)
                if type(mine) is type(other) and _has(mine, name) and not _has(other, name):
                    path = row.a.path if which == "a" else row.b.path
                    changes[path] = replace(mine, **{name: None})
            yield from layer_trials(case, which, changes, "the bias of {layers} left out")


def _negated(layer: Layer) -> Layer | None:
    return replace(layer, bias=-layer.bias) if _has(layer, "bias") else None  # type: ignore[call-arg, attr-defined]


def _has(layer: Layer, name: str) -> bool:
    value = getattr(layer, name, None)
    return isinstance(value, np.ndarray) and bool(value.any())


def _statistics_lost(case: Case) -> Iterator[Trial]:
    """Where one layer has the mean 0 and variance 1 of a new one, it gets those of its partner."""
    for which in _BOTH:
        changes: dict[str, Layer] = {}
        for row, of_a, of_b in layer_pairs(case):
            path, mine, other = (row.a.path, of_a, of_b) if which == "a" else (row.b.path, of_b, of_a)
            if _initial(mine) and not _initial(other):
                mean, variance = getattr(other, "mean", None), getattr(other, "variance", None)
                if mean is not None and variance is not None and type(mine) is type(other):
                    changes[path] = replace(mine, mean=mean, variance=variance)  # type: ignore[call-arg]
        what = "the other side's mean and variance, instead of 0 and 1, in {layers}"
        yield from layer_trials(case, which, changes, what)


def _initial(layer: Layer) -> bool:
    mean, variance = getattr(layer, "mean", None), getattr(layer, "variance", None)
    return mean is not None and variance is not None and not mean.any() and bool((variance == 1).all())


def _batch_statistics(layer: Layer) -> Layer | None:
    if isinstance(layer, BatchNorm) and layer.mean is not None:
        return replace(layer, mean=None, variance=None)
    return None


def _tracked(change: Callable[[Array], Array]) -> Callable[[Layer], Layer | None]:
    def changed(layer: Layer) -> Layer | None:
        if isinstance(layer, BatchNorm | InstanceNorm | GroupNorm) and layer.variance is not None:
            return replace(layer, variance=change(np.maximum(layer.variance, 0)))
        return None

    return changed


def _deviation(case: Case) -> Iterator[Trial]:
    for change, what in ((np.square, "squared"), (np.sqrt, "under a square root")):
        yield from _of_b(_tracked(change), f"the variances of {{layers}} {what}")(case)


def _scale_and_shift(layer: Layer) -> Layer | None:
    scale, shift = getattr(layer, "scale", None), getattr(layer, "shift", None)
    if (
        isinstance(layer, BatchNorm | InstanceNorm | GroupNorm | LayerNorm)
        and scale is not None
        and shift is not None
    ):
        return replace(layer, scale=shift, shift=scale)
    return None


def _epsilon(case: Case) -> Iterator[Trial]:
    norms = BatchNorm | GroupNorm | InstanceNorm | LayerNorm | Normalise | RMSNorm
    own = {layer.epsilon for layer in case.a.layers.values() if isinstance(layer, norms)}
    for epsilon in (*sorted(own), 1e-5, 1e-3, 1e-4, 1e-6, 1e-7, 1e-8, 1e-2):
        for which in _BOTH:
            changes: dict[str, Layer] = {
                path: replace(layer, epsilon=epsilon)
                for path, layer in case.run(which).layers.items()
                if isinstance(layer, norms) and layer.epsilon != epsilon
            }
            yield from layer_trials(case, which, changes, f"the epsilon {epsilon:g} in {{layers}}")


# ---- Precision ----------------------------------------------------------------------------------------


def _rounded(to: Callable[[Array], Array]) -> Callable[[Layer], Layer | None]:
    def change(layer: Layer) -> Layer | None:
        new = {name: to(value) for name, value in layer.arrays.items()}
        same = all(np.array_equal(value, layer.arrays[name]) for name, value in new.items())
        return None if same else replace(layer, **new)

    return change


def _float16(value: Array) -> Array:
    with np.errstate(over="ignore"):
        return value.astype(np.float16).astype(np.float32)


def _bfloat16(value: Array) -> Array:
    """Rounded to the 8 bits of mantissa of bfloat16, ties to even."""
    bits = np.ascontiguousarray(value, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32).reshape(value.shape)


WEIGHT_CAUSES: tuple[Cause, ...] = (
    Cause(
        "kernels not flipped",
        "Flux's Conv is a true convolution and PyTorch's a cross-correlation: one side was not turned by 180°",
        _of_b(_flipped, "the kernels of {layers} flipped"),
    ),
    Cause(
        "spatial axes of kernels swapped",
        "Julia's kernels are (W, H, in, out) and PyTorch's (out, in, H, W): height and width were exchanged",
        _of_b(_swapped, "height and width of the kernels of {layers} swapped"),
    ),
    Cause(
        "kernels not flipped and their spatial axes swapped",
        "the kernels were reshaped from Julia's (W, H, in, out) without flipping or reversing their axes",
        _of_b(_flipped_and_swapped, "the kernels of {layers} flipped, and their height and width swapped"),
    ),
    Cause(
        "dense weights in another flatten order",
        "flattening (C, H, W) counts W fastest; other code counts C or H fastest, so that columns are permuted",
        _flatten_order,
    ),
    Cause(
        "dense weights transposed",
        "a Dense weight is (out, in); this one is (in, out), which the shape of a square matrix does not show",
        _of_b(_transposed, "the weights of {layers} transposed"),
    ),
    Cause(
        "input and output channels of kernels swapped",
        "a kernel is (out, in, ...); this one is (in, out, ...), which its shape does not show if both are equal",
        _of_b(_channels_exchanged, "input and output channels of {layers} swapped"),
    ),
    Cause("bias missing", "one side adds a bias that the other does not have", _bias_missing),
    Cause(
        "bias negated",
        "one side subtracts what the other adds",
        _of_b(_negated, "the bias of {layers} negated"),
    ),
    Cause(
        "BatchNorm in training mode",
        "one side normalises with the statistics of the batch, not with those of the training as in test mode",
        _of_either(_batch_statistics, "the statistics of the batch in {layers}"),
    ),
    Cause(
        "statistics of the normalisation lost",
        "one side has the mean 0 and variance 1 of a new layer: the running statistics were not carried over",
        _statistics_lost,
    ),
    Cause(
        "variance taken for standard deviation",
        "one side stored the square root of the variance, or its square, in place of the variance",
        _deviation,
    ),
    Cause(
        "scale and shift swapped",
        "Flux lists a BatchNorm's shift (β) before its scale (γ), PyTorch its weight (γ) before its bias (β)",
        _of_b(_scale_and_shift, "scale and shift of {layers} exchanged"),
    ),
    Cause(
        "another epsilon in the normalisation",
        "frameworks add different constants to the variance before dividing",
        _epsilon,
    ),
    Cause(
        "float16 rounding",
        "one side's weights were stored in half precision (float16), with 11 bits each",
        _of_either(_rounded(_float16), "the weights of {layers} rounded to float16"),
    ),
    Cause(
        "bfloat16 rounding",
        "one side's weights were stored as bfloat16, with 8 bits each",
        _of_either(_rounded(_bfloat16), "the weights of {layers} rounded to bfloat16"),
    ),
)
