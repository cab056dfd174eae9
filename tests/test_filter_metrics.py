"""How close two pictures are, against scikit-image's own figures."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from diptych.datasets.photographs import photograph
from diptych.errors import ShapeError
from diptych.filters import metrics


def _pair(name, seed=0, spread=0.1):
    picture = photograph(name).astype(np.float32) / 255
    noise = np.random.default_rng(seed).normal(0, spread, picture.shape).astype(np.float32)
    return picture, np.clip(picture + noise, 0, 1)


def _reference(a, b):
    return structural_similarity(
        a.astype(np.float64),
        b.astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        channel_axis=2 if a.ndim == 3 else None,
    )


@pytest.mark.parametrize("name", ["camera", "chelsea", "text"])
@pytest.mark.parametrize("spread", [0.003, 0.1])
def test_psnr_and_ssim_are_those_of_scikit_image(name, spread):
    a, b = _pair(name, spread=spread)
    assert metrics.ssim(a, b) == pytest.approx(_reference(a, b), abs=1e-6)
    expected = peak_signal_noise_ratio(a.astype(np.float64), b.astype(np.float64), data_range=1)
    assert metrics.psnr(a, b) == pytest.approx(expected, abs=1e-9)


@given(height=st.integers(11, 30), width=st.integers(11, 30), seed=st.integers(0, 99), grey=st.booleans())
def test_ssim_is_that_of_scikit_image_at_every_size(height, width, seed, grey):
    shape = (height, width) if grey else (height, width, 3)
    a, b = np.random.default_rng(seed).random((2, *shape), dtype=np.float32)
    assert metrics.ssim(a, b) == pytest.approx(_reference(a, b), abs=1e-6)


@given(height=st.integers(1, 14), width=st.integers(1, 14), seed=st.integers(0, 99))
def test_the_smallest_pictures_have_a_similarity_too(height, width, seed):
    a, b = np.random.default_rng(seed).random((2, height, width))
    assert metrics.ssim(a, a) == pytest.approx(1)
    assert -1 <= metrics.ssim(a, b) < 1


def test_equal_pictures():
    a, _ = _pair("chelsea")
    assert metrics.psnr(a, a) == math.inf
    assert metrics.ssim(a, a) == pytest.approx(1)
    assert metrics.levels(a, a) == (0, 1.0)


def test_levels_are_rounded_half_to_even():
    a = np.array([[0.5, 1.5, 2.5, 300, -4]]) / 255
    assert metrics.to_levels(a).tolist() == [[0, 2, 2, 255, 0]]
    assert metrics.levels(a, np.array([[0, 1, 2, 255, 0]], np.uint8)) == (1, 0.8)


def test_a_colour_pixel_is_identical_where_all_its_channels_are():
    a = np.zeros((2, 2, 3), np.uint8)
    b = a.copy()
    b[0, 0, 1] = 7
    assert metrics.levels(a, b) == (7, 0.75)


@pytest.mark.parametrize("measure", [metrics.psnr, metrics.ssim, metrics.levels])
def test_pictures_of_different_sizes_are_refused(measure):
    with pytest.raises(ShapeError, match=r"of one size, got \(4, 5\) and \(5, 4\)"):
        measure(np.zeros((4, 5)), np.zeros((5, 4)))
