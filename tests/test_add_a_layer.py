"""Adding a layer is one class: what it forgets to define is refused at once, what no backend lowers by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych import engines, formats
from diptych.engines.tiled import prepare
from diptych.errors import DiptychError, ModelError, ShapeError, UnsupportedLayer
from diptych.formats.onnx import to_onnx
from diptych.model.layers import LAYERS, Array, Chain, Conv, Field, Layer, Shape
from diptych.model.model import Model
from diptych.model.summary import summarise
from diptych.model.validity import check_layers

METHODS = ("check", "compute", "describe", "multiply_adds", "output_shape", "receptive_field")


@dataclass(frozen=True, eq=False)
class ChannelShuffle(Layer):
    """(N, C, *spatial) with the channels of `groups` groups interleaved (Zhang et al., ShuffleNet, 2018)."""

    groups: int

    def check(self) -> None:
        if self.groups < 1:
            raise ModelError(f"field 'groups' must be 1 or more, got {self.groups}")

    def describe(self) -> list[str]:
        return [f"ChannelShuffle {self.groups} groups"]

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 2 or shape[1] % self.groups:
            raise ShapeError(f"cannot split {shape} into {self.groups} groups")
        return shape

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0

    def compute(self, x: Array) -> Array:
        split = x.reshape(len(x), self.groups, -1, *x.shape[2:])
        return split.swapaxes(1, 2).reshape(x.shape)


def model_of(*layers: Layer) -> Model:
    return Model(Chain(layers), input_shape=(4, 5, 6), name="shuffled")


CONV = Conv(np.ones((6, 4, 3, 3), np.float32))
MODEL = model_of(CONV, Chain((ChannelShuffle(3),)))


@pytest.mark.parametrize("forgotten", METHODS)
def test_what_a_layer_forgets_to_define_is_an_error_at_once(forgotten: str) -> None:
    """No rule has a default that could silently be wrong."""
    incomplete = type(
        "Incomplete", (Layer,), {name: getattr(ChannelShuffle, name) for name in METHODS if name != forgotten}
    )
    with pytest.raises(TypeError, match=f"abstract method '?{forgotten}"):
        incomplete()


def test_no_layer_of_ours_is_abstract_or_inherits_a_rule_from_the_base() -> None:
    for kind in LAYERS.values():
        assert not kind.__abstractmethods__, kind
        assert all(getattr(kind, name) is not getattr(Layer, name) for name in METHODS), kind


def test_one_class_is_enough_for_the_reference_engine_the_table_and_the_checks() -> None:
    x = np.arange(2 * 4 * 5 * 6, dtype=np.float32).reshape(2, 4, 5, 6)
    trace = diptych.trace(MODEL, x, engine="numpy")
    assert np.array_equal(trace["1.0"], trace["0"][:, [0, 2, 4, 1, 3, 5]])
    row = summarise(MODEL).rows[-1]
    assert (row.path, row.layer) == ("1.0", "ChannelShuffle 3 groups")
    assert (row.output_shape, row.multiply_adds, row.receptive_field) == ((1, 6, 3, 4), 0, (3, 3))
    with pytest.raises(
        ModelError, match=r"layer 0 \(ChannelShuffle\): field 'groups' must be 1 or more, got 0"
    ):
        check_layers(Chain((ChannelShuffle(0),)))
    with pytest.raises(
        ShapeError, match=r"layer 0 \(ChannelShuffle\) cannot split \(1, 4, 5, 6\) into 3 groups"
    ):
        diptych.inspect(model_of(ChannelShuffle(3)))


def written(name: str) -> Callable[[Path], object]:
    return lambda folder: formats.write(MODEL, folder / name)


# Everything that lowers layers, and how its refusal names the layer.
LOWERINGS: dict[str, tuple[Callable[[Path], object], type[DiptychError]]] = {
    "torch": (lambda folder: engines.compile(MODEL, "torch"), UnsupportedLayer),
    "onnxruntime": (lambda folder: engines.compile(MODEL, "onnxruntime"), UnsupportedLayer),
    "halide": (lambda folder: engines.compile(MODEL, "halide"), UnsupportedLayer),
    "to_torch": (lambda folder: diptych.to_torch(MODEL), UnsupportedLayer),
    "to_onnx": (lambda folder: to_onnx(MODEL), UnsupportedLayer),
    "tiled": (lambda folder: prepare(model_of(ChannelShuffle(2)), None), ModelError),
    "bson": (written("m.bson"), UnsupportedLayer),
    "jld2": (written("m.jld2"), UnsupportedLayer),
    "julia project": (lambda folder: diptych.convert(MODEL, folder / "project"), UnsupportedLayer),
    "safetensors": (written("m.safetensors"), ModelError),
}


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_every_backend_refuses_by_name_what_it_has_no_rule_for(lowering: str, tmp_path: Path) -> None:
    lower, kind = LOWERINGS[lowering]
    with pytest.raises(kind, match="ChannelShuffle") as caught:
        lower(tmp_path)
    assert "0" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
