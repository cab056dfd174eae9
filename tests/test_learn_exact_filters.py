"""Filters that a network can do exactly are found, and are exact: borders, extremes and every file format."""

from itertools import product
from typing import Any

import cv2
import numpy as np
import pytest
from scipy import ndimage

from diptych.filters import metrics
from diptych.filters.data import Data
from diptych.filters.learning import (
    curves,
    kernels,
    linear,
    piecewise_linear,
    probing_queries,
    ranks,
    rounded,
)
from diptych.filters.learning.task import Task
from diptych.filters.samples import answering
from diptych.filters.target import Target
from diptych.filters.targets import resolve
from diptych.filters.targets.probing import probe
from diptych.model.model import Model

LUMA = np.array([0.299, 0.587, 0.114])


def pictures(seed: int, channels: int) -> list[Any]:
    """Two pictures with smooth parts, edges and noise; part of one is grey."""
    random = np.random.default_rng(seed)
    shape = (90, 110, 3) if channels == 3 else (90, 110)
    smooth = ndimage.gaussian_filter(random.uniform(-900, 1200, shape), (5, 5, 0)[: len(shape)]) + 20
    noisy = np.clip(smooth, 0, 255) // 40 * 40 + random.integers(0, 12, shape)
    noisy[:40] = np.clip(smooth, 0, 255)[:40]
    if channels == 3:
        noisy[:, 60:] = noisy[:, 60:, :1]
    return [np.clip(picture, 0, 255).astype(np.uint8) for picture in (smooth, noisy)]


def task_of(target: Any, **options: Any) -> Task:
    found = probe(resolve(target)).target
    channels = found.channels[0]
    train, held_out = pictures(1, channels), pictures(2, channels)
    return Task(found, Data(tuple(train), {f"p{i}": p for i, p in enumerate(held_out)}), **options)


def assert_exact(task: Task, layers: Any, engine: str = "onnxruntime") -> None:
    model = Model(layers, input_shape=(task.channels[0], None, None))
    answers = answering(model, engine)
    same = total = 0.0
    for pair in (*task.held_out, *probing_queries.extremes(task.target, 9)):
        expected = pair.target[0] if len(pair.target) == 1 else pair.target.transpose(1, 2, 0)
        found = metrics.levels(answers(pair.picture)[1], expected)
        assert found.largest <= 1
        same, total = same + found.identical * expected.size, total + expected.size
    assert same >= 0.999 * total


def luma_l1(image: Any) -> Any:
    across, down = gradients(image)
    return np.clip(np.abs(across) + np.abs(down), 0, 1)


def gradients(image: Any) -> tuple[Any, Any]:
    levels = image.astype(float) @ LUMA / 255 if image.ndim == 3 else image / 255
    kernel = np.outer([1, 2, 1], [-1, 0, 1]) / 8
    return ndimage.correlate(levels, kernel, mode="nearest"), ndimage.correlate(
        levels, kernel.T, mode="nearest"
    )


def in_levels(image: Any) -> tuple[Any, Any]:
    """What programs compute of a grey picture: Sobel's derivatives as whole numbers."""
    if image.ndim == 3:
        raise ValueError("grey only")
    return cv2.Sobel(image, cv2.CV_16S, 1, 0), cv2.Sobel(image, cv2.CV_16S, 0, 1)


def weighted(image: Any) -> Any:
    """OpenCV's way to draw edges: both absolute derivatives limited to 255, and their mean rounded."""
    across, down = map(cv2.convertScaleAbs, in_levels(image))
    return cv2.addWeighted(across, 0.5, down, 0.5, 0)


def truncated(image: Any) -> Any:
    across, down = in_levels(image)
    return np.clip((np.abs(across) + np.abs(down)) / 8, 0, 255).astype(np.uint8)


def shrunk(image: Any) -> Any:
    """Differences from the neighbours below six levels are noise, and above count less."""
    across = cv2.filter2D(image.astype(np.float32), -1, np.array([[-1.0, 1.0, 0.0]]))
    return np.clip(np.rint(image - (across - np.clip(across, -6, 6))), 0, 255).astype(np.uint8)


TABLE = np.random.default_rng(4).integers(0, 256, 256).astype(np.uint8)

# target, the method that finds it, and the most weights it may take
EXACT = [
    ("identity", linear, 3),
    ("grey", linear, 3),
    ("sepia", linear, 9),
    ("contrast:amount=2", linear, 6),
    ("box", linear, 18),
    ("box:size=15,edge=reflect", linear, 90),
    ("gaussian:sigma=2", linear, 78),
    ("gaussian:sigma=1,edge=zero", linear, 42),
    ("sharpen", linear, 27),
    ("unsharp:sigma=1,amount=2", linear, 84),
    ("emboss", linear, 27),
    ("laplacian", linear, 13),
    ("log", linear, 32),
    ("sobel_x", linear, 10),
    ("sobel_y:ksize=5,edge=wrap", linear, 14),
    ("random:seed=3", linear, 27),
    ("random:size=15", linear, 675),
    (lambda image: np.full_like(image, 77), linear, 6),
    (lambda image: np.zeros(image.shape[:2]), linear, 3),
    ("invert", curves, 12),
    ("gamma", curves, 600),
    ("threshold", curves, 9),
    ("posterise:levels=5", curves, 36),
    ("solarise", curves, 18),
    (lambda image: TABLE[image], curves, 2289),
    (lambda image: np.where(image @ LUMA > 127, np.uint8(255), np.uint8(0)), curves, 9),
    ("sobel_l1", piecewise_linear, 23),
    (luma_l1, piecewise_linear, 23),
    (lambda image: np.abs(gradients(image)[0]), piecewise_linear, 10),
    (lambda image: np.maximum(*map(np.abs, gradients(image))), piecewise_linear, 60),
    (lambda image: image.max(axis=2), piecewise_linear, 9),
    (weighted, piecewise_linear, 43),
    (truncated, piecewise_linear, 21),
    (lambda image: np.clip(np.abs(in_levels(image)[0]), 0, 255).astype(np.uint8), piecewise_linear, 7),
    (lambda image: np.maximum(*map(cv2.convertScaleAbs, in_levels(image))), piecewise_linear, 20),
    (lambda image: cv2.convertScaleAbs(cv2.Laplacian(image, cv2.CV_16S)), piecewise_linear, 3 * 10),
    (shrunk, piecewise_linear, 3 * 33),
    *[
        (f"{name}:size={size},shape={shape}", ranks, 0)
        for name, size, shape in product(("erosion", "dilation"), (3, 5, 7), ("box", "cross"))
    ],
    ("opening", ranks, 0),
    ("closing:size=5,shape=cross", ranks, 60),
    ("gradient:edge=zero", ranks, 0),
    ("top_hat:size=5", ranks, 0),
    ("median", ranks, 3 * 618),
]


@pytest.mark.parametrize(
    ("target", "method", "weights"), EXACT, ids=lambda value: getattr(value, "__name__", str(value))[-40:]
)
def test_an_exact_filter_is_found_within_one_level_everywhere(target: Any, method: Any, weights: int) -> None:
    task = task_of(target)
    candidate = method.fit(task)
    assert candidate is not None
    assert_exact(task, candidate.layers)
    assert Model(candidate.layers).parameters <= weights


@pytest.mark.parametrize("method", [curves, ranks, piecewise_linear])
def test_a_method_that_does_not_apply_says_so(method: Any) -> None:
    assert method.fit(task_of("sobel")) is None


def test_what_neighbours_decide_is_no_curve_and_what_they_do_not_is_no_rank() -> None:
    assert curves.fit(task_of("erosion")) is None
    assert ranks.fit(task_of("gamma")) is None


def test_the_median_network_sorts_every_pattern_of_zeros_and_ones() -> None:
    layers = ranks.median(1, "replicate")
    assert Model(layers).parameters == 618
    assert sum(int((array != 0).sum()) for array in Model(layers).weights().values()) == 127
    values = np.array(list(product([0, 1], repeat=9)), np.float32)
    expected = np.median(values, axis=1)
    for conv in layers.layers[1:]:
        values = values @ conv.weight.reshape(len(conv.weight), -1).T  # type: ignore[attr-defined]
        values = np.maximum(values, 0) if conv.activation else values  # type: ignore[attr-defined]
    np.testing.assert_array_equal(values[:, 0], expected)


def test_ties_between_levels_are_exact_where_a_luma_is_filtered() -> None:
    """Half levels are frequent there, and rounding them the other way would change one pixel in ten."""
    task = task_of("laplacian")
    layers = linear.fit(task).layers  # type: ignore[union-attr]
    answers = answering(Model(layers, input_shape=(3, None, None)), "numpy")
    ties = 0
    for pair in task.held_out:
        expected = 255 * pair.target[0]
        ties += int((expected % 1 == 0.5).sum())
        np.testing.assert_array_equal(answers(pair.picture)[1], np.clip(np.rint(expected), 0, 255))
    assert ties > 1000


@pytest.mark.parametrize("divisor", [96, 1000, 4000, 32000, 24000])
def test_dividing_whole_numbers_keeps_half_levels(divisor: int) -> None:
    halves = np.arange(256, dtype=np.float32) + np.float32(0.5)
    values = halves * np.float32(divisor)
    for step in kernels.clipped(divisor)[1:]:
        values = values * np.float32(step.parameters[0])
    np.testing.assert_array_equal(values, halves)


KERNEL = np.random.default_rng(8).uniform(-0.4, 1, (3, 3)) / 3


def in_opencv(image: Any) -> Any:
    if image.ndim == 3:
        raise ValueError("grey only")
    return cv2.filter2D(image, -1, KERNEL)


@pytest.mark.parametrize(
    ("function", "certain"),
    [
        (lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), True),  # fractions of 2^15, halves up
        (lambda image: image[..., :1] // 3, True),  # never rounded up
        (in_opencv, False),
    ],
    ids=["grey", "third", "filter2D"],
)
def test_rounded_answers_give_the_taps(function: Any, certain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounded, "SIDE", 1024 if certain else 512)
    task = task_of(function)
    assert task.target.rounded
    candidate = linear.fit(task)
    assert candidate is not None
    answers = answering(Model(candidate.layers, input_shape=(task.channels[0], None, None)), "numpy")
    for pair in task.held_out:
        found = metrics.levels(answers(pair.picture)[1], pair.target[0])
        assert found.identical >= (1 if certain else 0.999)


def test_a_curve_within_a_budget_of_weights_is_coarser() -> None:
    full = curves.fit(task_of("gamma"))
    small = curves.fit(task_of("gamma", weights=120))
    assert full is not None
    assert small is not None
    assert Model(small.layers).parameters <= 120 < Model(full.layers).parameters


def test_a_filter_of_grey_pictures() -> None:
    def blurred(image: Any) -> Any:
        if image.ndim == 3:
            raise ValueError("grey only")
        return ndimage.gaussian_filter(image.astype(float), 1.2, mode="nearest") / 255

    task = task_of(blurred)
    assert task.channels == (1, 1)
    candidate = linear.fit(task)
    assert candidate is not None
    assert_exact(task, candidate.layers)


def test_the_radius_and_the_channels_are_found_by_probing() -> None:
    def swapped(image: Any) -> Any:
        return ndimage.uniform_filter(image, (1, 7, 0))[..., ::-1]

    target = Target("swapped", swapped, "", (3, 3))
    assert probing_queries.find_radius(target) == 3
    np.testing.assert_array_equal(probing_queries.dependence(target), np.eye(3)[::-1])
