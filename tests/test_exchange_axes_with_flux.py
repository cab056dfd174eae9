"""The three changes of axes between Flux and PyTorch: exact, and each its own inverse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diptych import axes, engines
from diptych.model.layers import Array, Chain, Conv
from diptych.model.model import Model

ARRAYS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=5, max_side=4), elements=st.floats(-9, 9, width=32)
)


@pytest.mark.parametrize("change", [axes.reverse_axes, axes.flip_kernel, axes.swap_spatial])
@given(array=ARRAYS)
def test_each_change_undoes_itself_and_owns_its_memory(
    change: Callable[[Array], Array], array: Array
) -> None:
    once = change(array)
    assert once.flags.c_contiguous
    assert once.dtype == array.dtype
    assert not np.shares_memory(once, array)
    assert np.array_equal(change(once), array)


def test_reversing_all_axes_keeps_julias_bytes_in_place() -> None:
    julia = np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4))  # as Julia stores (2, 3, 4)
    ours = axes.reverse_axes(julia)
    assert ours.shape == (4, 3, 2)
    assert ours.tobytes() == julia.tobytes(order="F")
    assert ours[3, 2, 1] == julia[1, 2, 3]


@pytest.mark.parametrize("shape", [(), (3,)])
def test_scalars_and_vectors_are_their_own_reverse(shape: tuple[int, ...]) -> None:
    array = np.ones(shape, np.float32)
    assert np.array_equal(axes.reverse_axes(array), array)


def test_a_flipped_kernel_turns_correlation_into_convolution() -> None:
    signal, kernel = np.array([1.0, 2.0, 4.0, 8.0], np.float32), np.array([1.0, 10.0, 100.0], np.float32)
    flux_layer = Conv(axes.flip_kernel(kernel.reshape(1, 1, 3)))
    output = engines.compile(Model(Chain((flux_layer,))), "numpy")(signal.reshape(1, 1, 4))
    assert output.ravel().tolist() == np.convolve(signal, kernel, "valid").tolist() == [124.0, 248.0]


def test_flipping_leaves_channels_alone_and_turns_every_spatial_axis() -> None:
    weight = np.arange(2 * 3 * 2 * 5, dtype=np.float32).reshape(2, 3, 2, 5)
    flipped = axes.flip_kernel(weight)
    assert flipped[1, 2, 0, 0] == weight[1, 2, 1, 4]
    assert np.array_equal(axes.flip_kernel(weight[..., 0, 0]), weight[..., 0, 0])  # a Dense weight has none


def test_a_transposed_picture_through_transposed_kernels_gives_the_transposed_map() -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((2, 3, 2, 4)).astype(np.float32)
    x = random.standard_normal((1, 3, 6, 9)).astype(np.float32)
    upright = Conv(weight, stride=(1, 2), padding=((1, 0), (0, 2)))
    sideways = Conv(axes.swap_spatial(weight), stride=(2, 1), padding=((0, 2), (1, 0)))
    expected = engines.compile(Model(Chain((upright,))), "numpy")(x)
    actual = engines.compile(Model(Chain((sideways,))), "numpy")(axes.swap_spatial(x))
    np.testing.assert_allclose(axes.swap_spatial(actual), expected, rtol=1e-6, atol=1e-6)
