"""8-bit filters in integers and as tables: close to the network by proof, and the same for every tile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diptych.engines import tiled
from diptych.engines.halide import tiled_filter
from diptych.engines.halide.fixed import MOST, planned
from diptych.engines.tiled import Region, prepare
from diptych.engines.tiled.tables import table
from diptych.filters import apply, learn
from diptych.model.layers import Activation, Array, Chain, Conv, Layer, Pad
from diptych.model.model import Model

RANDOM = np.random.default_rng(4)
PICTURE = RANDOM.integers(0, 256, (70, 91, 3), np.uint8)


def model_of(*layers: Layer, channels: int = 3, notes: dict[str, object] | None = None) -> Model:
    return Model(
        Chain(layers), input_shape=(channels, None, None), name="it", trained=True, notes=notes or {}
    )


def conv(
    *shape: int, bias: bool = False, activation: str = "identity", scale: float = 1.0, groups: int = 1
) -> Conv:
    weight = RANDOM.normal(size=shape) * scale / np.sqrt(np.prod(shape[1:]))
    offsets = RANDOM.normal(size=shape[0]).astype(np.float32) / 20 if bias else None
    return Conv(weight.astype(np.float32), offsets, groups=groups, activation=Activation(activation))


def pad(radius: int, mode: str = "replicate") -> Pad:
    return Pad(((radius, radius), (radius, radius)), mode)  # type: ignore[arg-type]


def in_floats(model: Model, picture: Array) -> Array:
    return np.asarray(apply(model, picture, engine="numpy"))


NETWORKS: dict[str, Model] = {
    "edges": model_of(conv(1, 3, 1, 1), pad(1), conv(2, 1, 3, 3, activation="abs"), conv(1, 2, 1, 1)),
    "folded": model_of(
        conv(1, 3, 1, 1), pad(1, "reflect"), conv(2, 1, 3, 3, activation="abs", scale=0.5),
        conv(2, 2, 1, 1, activation="abs"), conv(3, 2, 1, 1, activation="clamp"),
    ),
    "apart": model_of(pad(1, "wrap"), conv(3, 1, 3, 3, groups=3, scale=1.5)),
    "rows and columns": model_of(
        Pad(((2, 2), (1, 1)), "replicate"), conv(3, 1, 5, 1, groups=3), conv(3, 1, 1, 3, groups=3)
    ),
    "large weights": model_of(pad(1), conv(3, 1, 3, 3, groups=3, scale=3.0, activation="clamp")),
    "with offsets": model_of(conv(2, 3, 1, 1, activation="relu"), pad(1, "zero"), conv(3, 2, 3, 3, bias=True)),
    "alone": model_of(conv(3, 3, 1, 1, bias=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_integers_are_within_a_level_of_the_network_wherever_they_are_used(name: str) -> None:
    model = NETWORKS[name]
    plan = planned(prepare(model, 255))
    assert plan is not None
    assert plan.error <= MOST
    given = apply(model, PICTURE, engine="halide").astype(int)
    expected = in_floats(model, PICTURE)
    assert np.abs(given - expected).max() <= 1
    assert np.mean(given != expected) < plan.error + 1e-6


@pytest.mark.parametrize("name", ["folded", "apart", "rows and columns"])
def test_integers_do_not_depend_on_the_tile(name: str) -> None:
    model = NETWORKS[name]
    whole = apply(model, PICTURE, engine="halide")
    for side in (33, 50):
        np.testing.assert_array_equal(apply(model, PICTURE, engine="halide", tile=side), whole)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 33)])
def test_integers_for_pictures_of_any_size(size: tuple[int, int]) -> None:
    picture = RANDOM.integers(0, 256, (*size, 3), np.uint8)
    model = NETWORKS["edges"]
    assert np.abs(apply(model, picture, engine="halide").astype(int) - in_floats(model, picture)).max() <= 1


def test_the_proof_holds_for_the_worst_picture() -> None:
    """Every term of a sum is rounded the same way where all pixels are of one odd level."""
    model = model_of(pad(2), Conv(np.full((1, 1, 5, 5), 0.0391, np.float32)), channels=1)
    plan = planned(prepare(model, 255))
    assert plan is not None
    for level in range(0, 256, 3):
        flat = np.full((5, 40), level, np.uint8)
        exact = 25 * float(np.float32(0.0391)) * level
        assert abs(int(apply(model, flat, engine="halide")[2, 2]) - exact) <= 0.5 + plan.error


@pytest.mark.parametrize(
    "model",
    [
        model_of(conv(64, 3, 1, 1, activation="relu"), conv(3, 64, 1, 1)),
        model_of(conv(3, 3, 1, 1, scale=3000.0), conv(3, 3, 1, 1)),
        model_of(conv(3, 3, 1, 1, activation="tanh")),
        model_of(pad(1), conv(3, 3, 3, 3), pad(1), conv(3, 3, 3, 3, bias=True)),
    ],
    ids=["many channels", "too large", "a curve", "padding inside"],
)
def test_other_networks_stay_in_floats(model: Model) -> None:
    assert planned(prepare(model, 255)) is None


def test_what_is_said_to_be_exact_is_computed_in_integers_only_where_these_are_exact() -> None:
    notes = {"filter": {"verdict": "exact"}}
    sharpen = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32)[None, None]
    whole = model_of(pad(1), Conv(sharpen), channels=1, notes=notes)
    blurred = model_of(pad(1), Conv(np.full((1, 1, 3, 3), 1 / 9, np.float32)), channels=1, notes=notes)
    assert tiled_filter(whole, 255)._stages[0]._fixed is not None
    assert tiled_filter(blurred, 255)._stages[0]._fixed is None
    np.testing.assert_array_equal(
        apply(whole, PICTURE[..., 0], engine="halide"), in_floats(whole, PICTURE[..., 0])
    )


def test_ties_are_rounded_to_even() -> None:
    half = model_of(Conv(np.full((1, 1, 1, 1), 0.5, np.float32)), channels=1)
    picture = np.arange(256, dtype=np.uint8).reshape(4, 64)
    np.testing.assert_array_equal(
        apply(half, picture, engine="halide"), np.rint(picture / 2).astype(np.uint8)
    )


# ---- Tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", ["gamma", "posterise", "invert"])
def test_filters_of_single_levels_are_looked_up(name: str, dtype: type, tmp_path: Path) -> None:
    learned = learn(name, [PICTURE, PICTURE[::-1], PICTURE[:, ::-1]])
    peak = int(np.iinfo(dtype).max)
    picture = RANDOM.integers(0, peak + 1, (40, 50, 3)).astype(dtype)
    found = table(prepare(learned.model, peak))
    assert found is not None
    given = found(picture, (0, 0), (40, 50), Region(3, 5, 30, 50))
    np.testing.assert_array_equal(given, apply(learned, picture, engine="numpy")[3:30, 5:50])
    np.testing.assert_array_equal(apply(learned, picture, engine="numpy"), apply(learned, picture))


def test_a_level_may_become_a_colour() -> None:
    tinted = model_of(conv(3, 1, 1, 1, bias=True), channels=1)
    np.testing.assert_array_equal(apply(tinted, PICTURE[..., 0]), in_floats(tinted, PICTURE[..., 0]))


@pytest.mark.parametrize(
    "model",
    [model_of(conv(3, 3, 1, 1)), model_of(pad(1), conv(3, 1, 3, 3, groups=3))],
    ids=["mixes channels", "sees neighbours"],
)
def test_what_sees_more_than_a_level_is_no_table(model: Model) -> None:
    assert table(prepare(model, 255)) is None


def test_an_engine_that_is_asked_for_is_used() -> None:
    tinted = model_of(conv(3, 1, 1, 1, groups=3))
    assert tiled.compile(tinted, "numpy", peak=255).engine == "numpy"


@pytest.mark.slow
def test_the_median_is_exact_in_integers() -> None:
    learned = learn("median", [PICTURE, PICTURE[::-1], PICTURE[:, ::-1]])
    plan = planned(prepare(learned.model, 255), most=0.0)
    assert plan is not None
    assert plan.error == 0
    np.testing.assert_array_equal(
        apply(learned, PICTURE, engine="halide"), apply(learned, PICTURE, engine="numpy")
    )
