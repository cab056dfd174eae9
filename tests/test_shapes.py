"""Shapes are known before anything is computed, and what does not fit is refused by its layer's path."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.errors import DiptychError, ShapeError
from diptych.model.layers import (
    AdaptiveMaxPool,
    BatchNorm,
    Chain,
    Connection,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalMeanPool,
    Graph,
    GroupNorm,
    Layer,
    LayerNorm,
    MaxPool,
    Pad,
    Parallel,
    PixelShuffle,
    Reshape,
    Scale,
    SkipConnection,
    Softmax,
    Upsample,
    pool_windows,
    sample_positions,
)
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes, sizes
from layer_cases import TABLE, case


def w(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


# layer, input shape, what the sentence must say. That real outputs have the promised shapes is shown
# for every layer in test_every_layer_on_every_engine.py.
REFUSED: dict[str, tuple[Layer, tuple[int, ...], str]] = {
    "channels": (Conv(w(2, 3, 3, 3)), (1, 1, 9, 9), r"\(Conv\) takes 3 channels on axis 1, got 1 in"),
    "groups": (Conv(w(2, 3, 3, 3), groups=2), (1, 3, 9, 9), "takes 6 channels"),
    "rank": (Conv(w(2, 3, 3, 3)), (1, 3, 9), r"takes \(N, C, H, W\), got 3 axes"),
    "rank-3d": (Conv(w(2, 3, 3, 3, 3)), (1, 3, 9, 9), r"takes \(N, C, D, H, W\), got 4 axes"),
    "too-small": (Conv(w(2, 3, 3, 5)), (1, 3, 9, 4), r"would give the empty shape \(1, 2, 7, 0\).*larger"),
    "transpose-channels": (ConvTranspose(w(3, 2, 3, 3)), (1, 2, 9, 9), "takes 3 channels"),
    "transpose-cropped-away": (
        ConvTranspose(w(3, 2, 3), padding=((3, 3),)),
        (1, 3, 2),
        "would give the empty shape",
    ),
    "dense": (Dense(w(2, 7)), (1, 8), "takes 7 features on the last axis, got 8"),
    "scale": (Scale(w(7)), (1, 8), r"scales by an array of shape \(7,\)"),
    "scale-rank": (Scale(w(1, 1, 8)), (1, 8), "does not fit"),
    "batchnorm": (BatchNorm(w(3), w(3)), (1, 4, 2, 2), "takes 3 channels"),
    "groupnorm": (GroupNorm(3), (1, 4, 2, 2), "cannot split 4 channels into 3 groups"),
    "layernorm": (LayerNorm((3,)), (1, 4), r"normalises the last axes \(3,\), got"),
    "pool": (MaxPool((3, 3)), (1, 4, 2, 2), "would give the empty shape"),
    "pool-rank": (MaxPool((3, 3)), (1, 4, 9), r"takes \(N, C, H, W\)"),
    "global-pool": (GlobalMeanPool(), (1, 4), r"takes \(N, C, \*spatial\)"),
    "adaptive-pool": (AdaptiveMaxPool((3,), "flux"), (1, 4, 2), r"cannot give \(3,\) windows from \(2,\)"),
    "reshape": (Reshape((3, 3)), (1, 8), r"cannot make \(3, 3\) of 8 values"),
    "reshape-free": (Reshape((3, -1)), (1, 8), r"cannot make \(3, -1\) of 8 values"),
    "reflect": (
        Pad(((2, 3),), "reflect"),
        (1, 1, 3),
        "pads by 3 with mode reflect, which needs a larger input than 3",
    ),
    "wrap": (
        Pad(((2, 4),), "wrap"),
        (1, 1, 3),
        "pads by 4 with mode wrap, which needs a larger input than 3",
    ),
    "upsample-rank": (Upsample((2, 2)), (1, 1, 3), r"takes \(N, C, H, W\)"),
    "upsample-away": (Upsample((0.1,)), (1, 1, 3), "would give the empty shape"),
    "pixelshuffle": (PixelShuffle(2), (1, 6, 3, 3), r"needs a multiple of 2\^2 channels"),
    "softmax-axis": (Softmax(axis=2), (1, 6), r"works along axis 2, which \(1, 6\) does not have"),
    "join-shapes": (SkipConnection(Conv(w(3, 3, 2, 2))), (1, 3, 4, 4), r"\(add\) needs equal shapes, got"),
    "join-rank": (SkipConnection(Flatten()), (1, 3, 4, 4), "joins arrays of different rank"),
    "join-others": (
        SkipConnection(Conv(w(3, 3, 2, 2)), Connection("concatenate")),
        (1, 3, 4, 4),
        "along axis 1 needs equal other axes",
    ),
    "join-axis": (
        SkipConnection(Dropout(), Connection("concatenate", 4)),
        (1, 3, 4, 4),
        "along axis 4, which",
    ),
    "join-axis-negative": (SkipConnection(Dropout(), Connection("concatenate", -5)), (1, 3, 4, 4), "axis -5"),
    "join-nothing": (Parallel(Connection(), ()), (1, 3), "has no branches to join"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_by_its_path(name: str) -> None:
    layer, shape, message = REFUSED[name]
    model = Model(Chain((Dropout(), Chain((layer,)))))
    with pytest.raises(ShapeError, match=message) as caught:
        layer_shapes(model, shape)
    assert "layer 1.0 (" in str(caught.value)


@given(st.sampled_from(list(TABLE)), st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_any_shape_is_taken_or_refused_in_words(name: str, shape: list[int]) -> None:
    model, _ = case(name)
    try:
        shapes = layer_shapes(model, shape)
    except DiptychError:
        return
    assert all(size >= 1 for result in shapes.values() for size in result)


def test_one_layer_alone_has_a_shape_too() -> None:
    assert Conv(w(5, 3, 3, 3), stride=(2, 2)).output_shape((2, 3, 9, 12)) == (2, 5, 4, 5)
    assert Flatten().output_shape((2, 3, 4, 5)) == (2, 60)


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["pytorch", "flux"]))
def test_adaptive_windows_cover_the_axis(size: int, output: int, rule: str) -> None:
    if rule == "flux" and output > size:
        return
    windows = pool_windows(size, output, rule)
    assert len(windows) == output
    assert {i for start, stop in windows for i in range(start, stop)} == set(range(size))
    assert all(0 <= start < stop <= size for start, stop in windows)
    if size % output == 0:
        assert windows == pool_windows(size, output, "pytorch")


@given(st.integers(1, 300), st.integers(1, 300), st.booleans())
def test_sampling_stays_inside_and_is_symmetric(size: int, output: int, corners: bool) -> None:
    positions = sample_positions(size, output, corners)
    assert len(positions) == output
    assert all(0 <= p <= size - 1 for p in positions)
    assert positions == sorted(positions)
    if output > 1 or not corners:
        mirrored = [size - 1 - p for p in reversed(positions)]
        assert all(math.isclose(p, q, abs_tol=1e-9) for p, q in zip(positions, mirrored, strict=True))


@pytest.mark.parametrize(
    ("layers", "held"),
    [
        ((), 48),
        ((Upsample((2, 2)),), 48 + 192),
        ((Upsample((2, 2)), Upsample((2, 2))), 48 + 192 + 768),  # whoever calls keeps the input
        ((Parallel(Connection("add"), (Upsample((2, 2)),) * 3),), 48 + 4 * 192),
        ((SkipConnection(Upsample((1, 1)), Connection("add")),), 3 * 48),
        (
            (
                Graph(
                    (Upsample((4, 4)), Upsample((4, 4)), *[Upsample(size=(4, 4))] * 2, Connection("add")),
                    ("a", "b", "c", "d", "e"),
                    (("input",), ("input",), ("a",), ("b",), ("c", "d")),
                    ("e",),
                ),
            ),
            48 + 2 * 768 + 48,
        ),
        (
            (
                Graph(  # the same, each large value used at once
                    (*[Upsample((4, 4)), Upsample(size=(4, 4))] * 2, Connection("add")),
                    ("a", "c", "b", "d", "e"),
                    (("input",), ("a",), ("input",), ("b",), ("c", "d")),
                    ("e",),
                ),
            ),
            48 + 48 + 768 + 48,
        ),
    ],
)
def test_the_values_that_are_alive_at_once(layers: tuple[Layer, ...], held: int) -> None:
    assert sizes(Model(Chain(layers)), (5, 3, 4, 4)).held == held


def test_sizes_are_kept_for_one_shape_of_each_model() -> None:
    model = Model(Chain((Upsample((2, 2)),)))
    first = sizes(model, (1, 3, 4, 4))
    assert sizes(model, [1, 3, 4, 4]) is first
    assert sizes(model, (1, 3, 5, 4)).shapes == {"0": (1, 3, 10, 8)}
    with pytest.raises(ShapeError, match="layer 0"):
        sizes(Model(Chain((Dense(w(2, 3)),))), (1, 4))
