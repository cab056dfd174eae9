"""Causes in the layers: settings that shapes do not show, layers of another kind, missing layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from diptych.comparing.hypotheses import (
    Case,
    Cause,
    Trial,
    both_layers,
    layer_pairs,
    layer_trials,
    lone_layers,
)
from diptych.comparing.runs import Run
from diptych.model.layers import (
    ACTIVATIONS,
    IDENTITY,
    Activated,
    Activation,
    AdaptiveMaxPool,
    AdaptiveMeanPool,
    BatchNorm,
    Chain,
    Conv,
    GlobalMaxPool,
    GlobalMeanPool,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    MaxPool,
    MeanPool,
    Normalise,
    Pad,
    RMSNorm,
    Softmax,
)

__all__ = ["LAYER_CAUSES"]

_POOLS = (MaxPool, MeanPool, GlobalMaxPool, GlobalMeanPool, AdaptiveMaxPool, AdaptiveMeanPool)
_NORMS = (BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Normalise, RMSNorm)


def _setting(*names: str, of: tuple[type[Layer], ...] = (Layer,)) -> Callable[[Case], Iterator[Trial]]:
    """Trials that give the layers of B the values that their partners in A have in these fields."""

    def trials(case: Case) -> Iterator[Trial]:
        changes: dict[str, Layer] = {}
        values: dict[str, None] = {}
        for row, of_a, of_b in layer_pairs(case):
            if type(of_a) is not type(of_b) or not isinstance(of_b, of):
                continue
            other = {n: getattr(of_a, n) for n in names if hasattr(of_a, n)}
            other = {n: value for n, value in other.items() if not _same(value, getattr(of_b, n))}
            if other:
                changes[row.b.path] = replace(of_b, **other)
                for name, value in other.items():
                    own = _written(getattr(of_b, name))
                    values[f"{name.replace('_', ' ')} {_written(value)} instead of {own}"] = None
        yield from layer_trials(case, "b", changes, f"A's {'; '.join([*values][:3])}, in {{layers}}")

    return trials


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return True  # weights are not settings
    if is_dataclass(one) and type(one) is type(other):
        return all(_same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return bool(one == other)


def _written(value: Any) -> str:
    if isinstance(value, Activation):
        return value.label
    if is_dataclass(value):
        return " ".join(str(getattr(value, f.name)) for f in fields(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _activation(case: Case) -> Iterator[Trial]:
    """Another activation, built into a layer or by itself; or one that only one model has."""
    yield from _setting("activation", "name", "parameters")(case)
    yield from _left_out((Activation,), case)


def _leaky_slope(case: Case) -> Iterator[Trial]:
    """The default slopes of frameworks: Flux and PyTorch 0.01, TensorFlow 0.2, Keras 0.3, Darknet 0.1."""
    for slope in (0.01, 0.2, 0.3, 0.1):
        for which in ("b", "a"):
            changes = _with_activation(case.run(which), "leakyrelu", Activation("leakyrelu", (slope,)))
            yield from layer_trials(case, which, changes, f"the slope {slope:g} in {{layers}}")


def _gelu(case: Case) -> Iterator[Trial]:
    for name, other in (("gelu_tanh", "gelu_erf"), ("gelu_erf", "gelu_tanh")):
        changes = _with_activation(case.b, name, Activation(other))
        formula = ACTIVATIONS[other][0]
        yield from layer_trials(case, "b", changes, f"gelu computed as {formula} in {{layers}}")


def _with_activation(run: Run, name: str, new: Activation) -> dict[str, Layer]:
    """The layers of a run with an activation of this name, with `new` in its place."""
    changes: dict[str, Layer] = {}
    for path, layer in run.layers.items():
        own = layer.activation if isinstance(layer, Activated) else layer
        if not isinstance(own, Activation) or own.name != name:
            continue
        if (own.name, own.parameters) != (new.name, new.parameters):
            changes[path] = new if own is layer else replace(layer, activation=new)  # type: ignore[call-arg]
    return changes


def _formula(case: Case) -> Iterator[Trial]:
    for formula in ("sqrt(var + eps)", "sqrt(var + eps^2)", "std + eps"):
        for which in ("b", "a"):
            changes: dict[str, Layer] = {
                path: replace(layer, formula=formula)
                for path, layer in case.run(which).layers.items()
                if isinstance(layer, LayerNorm | Normalise) and layer.formula != formula
            }
            yield from layer_trials(case, which, changes, f"the divisor {formula} in {{layers}}")


def _padded_apart(case: Case) -> Iterator[Trial]:
    """Pads B as A does, where one of them pads in a layer and the other in the convolution."""
    pads_of_a, pads_of_b = _pads(case.a.layers), _pads(case.b.layers)
    changes: dict[str, Layer] = {}
    values: dict[str, None] = {}
    for row, of_a, of_b in layer_pairs(case):
        if not isinstance(of_a, Conv) or not isinstance(of_b, Conv):
            continue
        pads = [case.a.layers[path] for path in pads_of_a[row.a.path]]
        others = {path: case.b.layers[path] for path in pads_of_b[row.b.path]}
        if bool(pads) == bool(others) or _zeros(pads, of_a) == _zeros([*others.values()], of_b):
            continue
        bare = replace(of_b, padding=of_a.padding)
        changes |= dict.fromkeys(others, IDENTITY) | {row.b.path: Chain((*pads, bare)) if pads else bare}
        values[", ".join(layer.label for layer in (*pads, of_a))] = None
    yield from layer_trials(
        case, "b", changes, f"the padding of A's {'; '.join([*values][:3])}, in {{layers}}"
    )


def _pads(layers: Mapping[str, Layer]) -> dict[str, list[str]]:
    """The path of each convolution -> the paths of the Pad layers directly in front of it."""
    found: dict[str, list[str]] = {}
    before: list[str] = []
    for path, layer in layers.items():
        if isinstance(layer, Conv):
            found[path] = before
        if not isinstance(layer, Chain):  # a Chain is listed before the layers in it
            before = [*before, path] if isinstance(layer, Pad) else []
    return found


def _zeros(pads: Sequence[Layer], conv: Conv) -> list[tuple[int, int]] | None:
    """The zeros around a convolution's input, (low, high) for each axis; None where other values are there."""
    total = list(conv.padding)
    for pad in pads:
        if not isinstance(pad, Pad) or pad.mode != "zero" or len(pad.padding) != len(total):
            return None
        total = [(a + c, b + d) for (a, b), (c, d) in zip(total, pad.padding, strict=True)]
    return total


def _softmax_axis(case: Case) -> Iterator[Trial]:
    for axis in (1, -1, 0, 2):
        changes: dict[str, Layer] = {
            path: replace(layer, axis=axis)
            for path, layer in case.b.layers.items()
            if isinstance(layer, Softmax) and layer.axis != axis
        }
        yield from layer_trials(case, "b", changes, f"the softmax along axis {axis} in {{layers}}")


def _other_kind(kinds: tuple[type[Layer], ...], case: Case) -> Iterator[Trial]:
    """The layer of A in place of that of B, where they are of different kinds and have no weights."""
    both = both_layers(case, case.row)
    if both is None:
        return
    of_a, of_b = both
    plain = not (of_a.arrays or of_b.arrays or of_a.children or of_b.children)
    if plain and type(of_a) is not type(of_b) and isinstance(of_a, kinds):
        what = f"A's {of_a.label} instead of {of_b.label} in {{layers}}"
        yield from layer_trials(case, "b", {case.row.b.path: of_a}, what)


def _left_out(kinds: tuple[type[Layer], ...], case: Case) -> Iterator[Trial]:
    """Trials that leave out the layers of these kinds that only one model has."""
    found = [(which, path, layer) for which, path, layer in lone_layers(case) if isinstance(layer, kinds)]
    for which in ("a", "b"):
        changes: dict[str, Layer] = {path: IDENTITY for side, path, _ in found if side == which}
        names = ", ".join(dict.fromkeys(layer.label for side, _, layer in found if side == which))
        yield from layer_trials(
            case, which, changes, f"{names} left out of {{layers}}, which the other side lacks"
        )


LAYER_CAUSES: tuple[Cause, ...] = (
    Cause(
        "softmax missing",
        "one side ends with a softmax and gives probabilities, the other gives scores",
        partial(_left_out, (Softmax,)),
    ),
    Cause(
        "softmax on the wrong axis",
        "a softmax belongs on the axis of the classes, which is 1 of (N, classes) and Julia's first",
        _softmax_axis,
    ),
    Cause("softmax or its logarithm", "one side takes the logarithm", _setting("log", of=(Softmax,))),
    Cause("another slope of leakyrelu", "the default slope is not the same in all frameworks", _leaky_slope),
    Cause(
        "gelu by another formula", "gelu is computed with erf, or approximated with tanh as Flux does", _gelu
    ),
    Cause("activation missing or different", "the layers apply different functions", _activation),
    Cause(
        "another formula of LayerNorm or normalise",
        "Flux up to 0.14 divides by std + eps, up to 0.16.10 by sqrt(var + eps^2), PyTorch by sqrt(var + eps)",
        _formula,
    ),
    Cause(
        "another padding",
        "the same total padding may be split differently, like the odd pixel of Flux's SamePad",
        _setting("padding", "output_padding"),
    ),
    Cause(
        "another padding beside a layer that pads",
        "one side pads in a layer, the other in the convolution: at other borders, or with other values",
        _padded_apart,
    ),
    Cause("another stride or dilation", "the windows move by other steps", _setting("stride", "dilation")),
    Cause(
        "padding counted in the mean or not",
        "MeanPool divides by the size of the window, or only by its pixels inside the picture",
        _setting("count_padding"),
    ),
    Cause(
        "another pool",
        "one side takes the largest value, the other the mean",
        partial(_other_kind, _POOLS),
    ),
    Cause("another pool size", "the windows have other sizes", _setting("kernel", "output", "rule")),
    Cause(
        "corners aligned or not when enlarging",
        "Flux's :bilinear aligns the corners, PyTorch's default reads at half-pixel centres",
        _setting("align_corners"),
    ),
    Cause(
        "another way of enlarging or of padding",
        "nearest and linear, or zeros and copies of the edge, give different values",
        _setting("mode"),
    ),
    Cause(
        "branches joined differently",
        "one side adds, the other multiplies, subtracts or concatenates",
        _setting("connection"),
    ),
    Cause(
        "another setting", "a setting of the layer differs", _setting("groups", "epsilon", "shape", "axis")
    ),
    Cause(
        "normalisation missing",
        "one side normalises where the other does not",
        partial(_left_out, _NORMS),
    ),
    Cause("pool missing", "one side pools where the other does not", partial(_left_out, _POOLS)),
    Cause("another kind of layer", "the layers do different things", partial(_other_kind, (Layer,))),
    Cause("layer missing", "one side has a layer that the other lacks", partial(_left_out, (Layer,))),
)
