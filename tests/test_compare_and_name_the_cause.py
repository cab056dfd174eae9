"""Each known cause planted in the weights, the layers or their settings of one of two models, and named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from diptych.axes import flip_kernel, swap_spatial
from diptych.model.layers import (
    Activation,
    Chain,
    Connection,
    Conv,
    Layer,
    MeanPool,
    Normalise,
    Pad,
    SkipConnection,
    Upsample,
)
from diptych.model.model import Model
from little_models import (
    RELU,
    changed,
    classifier,
    compare,
    everywhere,
    model,
    names,
    numbers,
    weight,
    without,
)

A = classifier()


def _flatten_order(order: tuple[int, ...]) -> Model:
    columns = weight(A, 6).reshape(8, 4, 5, 7).transpose(0, *(1 + axis for axis in order))
    return changed(A, 6, weight=np.ascontiguousarray(columns.reshape(8, -1)))


def _halves(layer: Any) -> Layer:
    return replace(layer, **{n: v.astype(np.float16).astype(np.float32) for n, v in layer.arrays.items()})


def _shorts(layer: Any) -> Layer:
    """Every weight with the upper 16 of its 32 bits, rounded: what bfloat16 keeps."""
    import torch

    kept = {n: torch.from_numpy(v).bfloat16().float().numpy() for n, v in layer.arrays.items()}
    return replace(layer, **kept)


PLANTED: dict[str, tuple[Model, str, str]] = {
    # what is planted: (the model, the cause to be named, the layer where it shows)
    "every kernel unflipped": (
        everywhere(A, Conv, lambda c: replace(c, weight=flip_kernel(c.weight))), "kernels not flipped", "0"),
    "one kernel unflipped": (changed(A, 1, weight=flip_kernel(weight(A, 1))), "kernels not flipped", "1"),
    "kernels transposed": (
        everywhere(A, Conv, lambda c: replace(c, weight=swap_spatial(c.weight))),
        "spatial axes of kernels swapped", "0"),
    "kernels reshaped from Julia": (
        changed(A, 1, weight=flip_kernel(swap_spatial(weight(A, 1)))),
        "kernels not flipped and their spatial axes swapped", "1"),
    "channels of a kernel": (
        changed(A, 1, weight=np.ascontiguousarray(weight(A, 1).swapaxes(0, 1))),
        "input and output channels of kernels swapped", "1"),
    "flattened as W, H, C": (_flatten_order((2, 1, 0)), "dense weights in another flatten order", "6"),
    "flattened as H, W, C": (_flatten_order((1, 2, 0)), "dense weights in another flatten order", "6"),
    "flattened as C, W, H": (_flatten_order((0, 2, 1)), "dense weights in another flatten order", "6"),
    "dense transposed": (
        changed(A, 7, weight=np.ascontiguousarray(weight(A, 7).T)), "dense weights transposed", "7"),
    "bias lost": (changed(A, 1, bias=None), "bias missing", "1"),
    "bias of zeros": (changed(A, 7, bias=np.zeros(8, np.float32)), "bias missing", "7"),
    "training mode": (changed(A, 2, mean=None, variance=None), "BatchNorm in training mode", "2"),
    "standard deviation": (
        changed(A, 2, variance=np.sqrt(A.layers.layers[2].variance)), "variance taken for standard deviation", "2"),
    "squared variance": (
        changed(A, 2, variance=A.layers.layers[2].variance**2), "variance taken for standard deviation", "2"),
    "scale for shift": (
        changed(A, 2, scale=A.layers.layers[2].shift, shift=A.layers.layers[2].scale), "scale and shift swapped", "2"),
    "epsilon": (changed(A, 2, epsilon=1e-3), "another epsilon in the normalisation", "2"),
    "LayerNorm's formula": (changed(A, 8, formula="std + eps"), "another formula of LayerNorm or normalise", "8"),
    "float16": (everywhere(A, Layer, _halves), "float16 rounding", "0"),
    "bfloat16": (everywhere(A, Layer, _shorts), "bfloat16 rounding", "0"),
    "BatchNorm lost": (without(A, 2), "normalisation missing", "2"),
    "softmax lost": (without(A, 10), "softmax missing", "10"),
    "softmax over the batch": (changed(A, 10, axis=0), "softmax on the wrong axis", "10"),
    "logsoftmax": (changed(A, 10, log=True), "softmax or its logarithm", "10"),
    "activation in the layer lost": (
        changed(A, 0, activation=Activation()), "activation missing or different", "0"),
    "activation layer lost": (without(A, 3), "activation missing or different", "3"),
    "another activation layer": (changed(A, 3, name="softplus"), "activation missing or different", "3"),
    "padding on the other side": (
        changed(A, 0, padding=((0, 2), (2, 0))), "another padding", "0"),
    "statistics lost": (
        changed(A, 2, mean=np.zeros(4, np.float32), variance=np.ones(4, np.float32)),
        "statistics of the normalisation lost", "2"),
    "bias negated": (changed(A, 1, bias=-A.layers.layers[1].bias), "bias negated", "1"),
    "mean for max": (
        A.with_(layers=Chain((*A.layers.layers[:4], MeanPool((2, 2)), *A.layers.layers[5:]))),
        "another pool", "4"),
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_cause_is_named(planted: str) -> None:
    b, cause, where = PLANTED[planted]
    found = compare(A, b)
    assert not found.agrees
    assert names(found) == [cause]
    assert found.explained
    assert found.first_divergence == where
    assert cause in found.diagnosis
    assert "Then every layer agrees." in found.diagnosis


@pytest.mark.parametrize(
    "planted",
    [
        "softmax lost",
        "activation layer lost",
        "bias lost",
        "training mode",
        "epsilon",
        "standard deviation",
        "statistics lost",
    ],
)
def test_the_sides_may_be_exchanged(planted: str) -> None:
    b, cause, _ = PLANTED[planted]
    assert names(compare(b, A)) == [cause]


def _upsampled(**fields: Any) -> Model:
    return model(Conv(numbers(2, 3, 3, 3)), Upsample(scale=(2.0, 2.0), **fields), input_shape=(3, 6, 9))


def _joined(operation: Any) -> Model:
    inner = Conv(numbers(3, 3, 3, 3), padding=((1, 1), (1, 1)))
    return model(SkipConnection(inner, Connection(operation)), RELU, input_shape=(3, 6, 9))


def _padded(mode: Any) -> Model:
    return model(Pad(((1, 1), (1, 1)), mode), Conv(numbers(2, 3, 3, 3)), input_shape=(3, 6, 9))


def _apart(pads: Any = None, mode: Any = "zero") -> Model:
    """Two convolutions: the second pads by itself, or a layer before it does."""
    second = Conv(
        numbers(2, 2, 3, 3), numbers(2), padding=((0, 0),) * 2 if pads else ((1, 1),) * 2, activation=RELU
    )
    first = Conv(numbers(2, 3, 3, 3), activation=RELU)
    return model(*((first, Pad(pads, mode), second) if pads else (first, second)), input_shape=(3, 6, 9))


def _normalised(formula: Any = "sqrt(var + eps)") -> Model:
    return model(Conv(numbers(2, 3, 3, 3)), Normalise(1, 0.1, formula), input_shape=(3, 6, 9))


def _activated(name: str, *parameters: float) -> Model:
    return model(Conv(numbers(2, 3, 3, 3), activation=Activation(name, parameters)), input_shape=(3, 6, 9))


@pytest.mark.parametrize(
    ("a", "b", "cause"),
    [
        (_upsampled(mode="linear"), _upsampled(mode="linear", align_corners=True), "corners aligned"),
        (_upsampled(mode="linear"), _upsampled(mode="nearest"), "another way of enlarging"),
        (_padded("reflect"), _padded("replicate"), "another way of enlarging or of padding"),
        (_apart(((0, 2), (0, 2))), _apart(), "another padding beside a layer that pads"),
        (_apart(), _apart(((0, 2), (0, 2))), "another padding beside a layer that pads"),
        (_apart(((1, 1), (1, 1)), "reflect"), _apart(), "another padding beside a layer that pads"),
        (_apart(), _apart(((1, 1), (1, 1)), "reflect"), "another padding beside a layer that pads"),
        (_normalised(), _normalised("std + eps"), "another formula of LayerNorm or normalise"),
        (_joined("add"), _joined("subtract"), "branches joined differently"),
        (_activated("gelu_tanh"), _activated("gelu_erf"), "gelu by another formula"),
        (_activated("leakyrelu", 0.01), _activated("leakyrelu", 0.2), "another slope of leakyrelu"),
        (
            model(MeanPool((3, 3), (2, 2), ((1, 1), (1, 1))), input_shape=(3, 6, 9)),
            model(MeanPool((3, 3), (2, 2), ((1, 1), (1, 1)), count_padding=False), input_shape=(3, 6, 9)),
            "padding counted in the mean",
        ),
        (
            model(Conv(numbers(2, 3, 2, 2)), input_shape=(3, 6, 9)),
            model(Conv(numbers(2, 3, 2, 2), stride=(2, 1)), input_shape=(3, 6, 9)),
            "another stride or dilation",
        ),
    ],
)
def test_a_planted_setting_is_named(a: Model, b: Model, cause: str) -> None:
    found = compare(a, b)
    assert len(found.causes) == 1
    assert cause in found.diagnosis
    assert found.explained


# ---- Several causes -----------------------------------------------------------------------------------


def test_two_causes_in_two_layers_are_both_found() -> None:
    b = changed(
        changed(A, 1, weight=flip_kernel(weight(A, 1))), 6, weight=weight(_flatten_order((2, 1, 0)), 6)
    )
    found = compare(A, b)
    assert names(found) == ["kernels not flipped", "dense weights in another flatten order"]
    assert found.explained
    assert found.first_divergence == "1"


def test_two_causes_in_one_layer_are_both_found() -> None:
    found = compare(A, changed(A, 1, weight=flip_kernel(weight(A, 1)), bias=None))
    assert sorted(names(found)) == ["bias missing", "kernels not flipped"]
    assert found.explained


def test_two_settings_of_one_layer_are_both_found() -> None:
    found = compare(A, changed(A, 0, padding=((0, 2), (2, 0)), activation=RELU))
    assert sorted(names(found)) == ["activation missing or different", "another padding"]
    assert found.explained


def test_what_a_cause_leaves_unexplained_is_said() -> None:
    b = changed(A, 1, weight=flip_kernel(weight(A, 1)))
    found = compare(A, changed(b, 9, weight=weight(A, 9) + numbers(5, 8, seed=7)))
    assert names(found) == ["kernels not flipped"]
    assert not found.explained
    assert "That is not all: A and B then differ at layer 9" in found.diagnosis
