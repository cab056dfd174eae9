"""`diptych.filters.learn`: what comes back, when it stops, and what it refuses."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter

import diptych
from diptych.errors import UsageError
from diptych.filters import apply, evaluate, learn
from diptych.filters.data import Data
from diptych.filters.learning import linear, methods, relu
from diptych.filters.learning.task import Candidate, Task
from diptych.filters.samples import taught_from
from diptych.filters.targets import resolve
from diptych.filters.targets.probing import probe
from diptych.model.layers import Array, Chain, Conv


def pictures(channels: int = 3, count: int = 3) -> list[Array]:
    random = np.random.default_rng(3)
    shape = (70, 82, 3) if channels == 3 else (70, 82)
    made = []
    for _ in range(count):
        blocks = random.integers(0, 256, shape).astype(float)
        blocks[:48, :48] = blocks[::12, ::12][:4, :4].repeat(12, 0).repeat(12, 1)
        made.append(blocks.astype(np.uint8))
    return made


@pytest.fixture
def only_closed_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "METHODS", methods.CLOSED)


def test_what_is_learned_is_a_model_with_its_report(tmp_path: Path) -> None:
    learned = learn("gaussian:sigma=1", pictures())
    report = learned.report
    assert (report.method, report.weights) == ("linear", learned.model.parameters)
    assert report.stopped.startswith("exact")
    assert report.psnr > 120
    assert report.scores["whole"]["largest"] <= 1
    assert [method.name for method in report.methods] == ["linear"]
    learned.save(tmp_path / "gaussian.safetensors")
    read = diptych.read(tmp_path / "gaussian.safetensors")
    assert read.notes["filter"]["target"] == "gaussian:sigma=1"
    assert read.notes["filter"]["method"] == "linear"
    assert read.input_shape == (3, None, None)
    assert read.preprocessing is not None
    assert read.preprocessing.name == "colour-any"
    json.dumps(report.to_document())


@pytest.mark.slow
def test_a_linear_filter_is_learned_without_loading_what_it_does_not_need() -> None:
    """Importing SciPy's filters takes longer than finding a kernel."""
    code = (
        "import sys; from diptych import filters; filters.learn('gaussian'); filters.learn('sobel_x'); "
        "print({name.partition('.')[0] for name in sys.modules} & {'torch', 'scipy', 'skimage', 'matplotlib'})"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_the_same_arguments_give_the_same_weights() -> None:
    first, second = (learn("random:seed=5", pictures(), seed=4).model.weights() for _ in range(2))
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_a_function_of_the_user_is_learned_by_what_it_does() -> None:
    def threshold(image: Array) -> Array:
        return np.where(image > 99, np.uint8(200), np.uint8(30))

    learned = learn(threshold, pictures())
    assert learned.report.method == "curve"
    assert learned.report.scores["whole"]["identical"] == 1
    assert learned.model.notes["filter"]["per_channel"] is True


@pytest.mark.slow
@pytest.mark.parametrize("maker", ["opencv", "pillow"])
def test_a_function_that_makes_colour_grey_first_is_learned_on_grey(maker: str, tmp_path: Path) -> None:
    """The grey is rounded, which no small network does: so it is made as the function makes it."""

    def edges(image: Array) -> Array:
        if image.ndim == 3 and maker == "opencv":
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        elif image.ndim == 3:
            image = np.asarray(Image.fromarray(image).convert("L"))
        return np.asarray(cv2.convertScaleAbs(cv2.Sobel(image, cv2.CV_16S, 1, 0)))

    learned = learn(edges, pictures())
    assert learned.report.method == "piecewise_linear"
    assert any("makes colour grey first" in remark for remark in learned.report.remarks)
    assert learned.model.input_shape == (1, None, None)
    colours = np.random.default_rng(6).integers(0, 256, (150, 170, 3), np.uint8)  # the makers differ in a few
    np.testing.assert_array_equal(apply(learned, colours), edges(colours))
    assert evaluate(learned, edges, [colours]).whole.identical == 1
    learned.save(tmp_path / "edges.safetensors")
    np.testing.assert_array_equal(apply(tmp_path / "edges.safetensors", colours), edges(colours))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [ImageFilter.SHARPEN, ImageFilter.Kernel((5, 5), [*range(25)], 300)])
def test_a_border_that_is_left_alone_stays_as_it_is(kernel: ImageFilter.Kernel) -> None:
    """Pillow filters no pixel whose window leaves the picture."""

    def filtered(image: Array) -> Array:
        return np.asarray(Image.fromarray(image).filter(kernel))

    learned = learn(filtered, pictures())
    assert learned.report.method == "linear"
    assert learned.report.scores["whole"]["identical"] > 0.999
    picture = np.random.default_rng(2).integers(0, 256, (40, 33, 3), np.uint8)
    for engine in ("numpy", "onnxruntime", "torch", "halide"):
        np.testing.assert_allclose(apply(learned, picture, engine=engine), filtered(picture), atol=1)
    np.testing.assert_array_equal(apply(learned, picture[:2, :1]), picture[:2, :1])


def test_a_filter_that_changes_few_pixels_is_not_said_to_leave_the_border_alone() -> None:
    def spotless(image: Array) -> Array:
        return np.where(image == 0, np.roll(image, 1, 1), image)

    assert probe(resolve(spotless)).target.left_alone == 0


def test_pairs_alone_are_enough_for_a_linear_filter() -> None:
    before = pictures(count=4)
    blurred = [(np.roll(p, 1, 1) / 4 + p / 2 + np.roll(p, -1, 1) / 4) / 255 for p in map(np.float64, before)]
    learned = learn((before, blurred), goal=25)
    assert learned.report.method == "linear"
    inner = learned.report.scores["inner"]
    assert inner["psnr"] > 80


def test_a_goal_stops_the_search_early() -> None:
    learned = learn("sobel", pictures(), goal=1)
    assert learned.report.stopped == "the goal of 1.0 dB was met"
    assert [method.name for method in learned.report.methods] == ["linear"]


def test_a_budget_of_time_keeps_the_best_so_far() -> None:
    learned = learn("sobel", pictures(), budget=1e-3)
    assert learned.report.stopped == "the time budget was spent"


def test_no_time_is_spent_after_the_deadline_on_more_pictures_of_a_slow_target(tmp_path: Path) -> None:
    target = resolve("gaussian")
    data = taught_from(target, pictures(count=10))
    ended = time.monotonic() - 1
    assert len(Task(target, data, deadline=ended).training) == 1
    assert len(Task(target, data, deadline=ended, checkpoint=tmp_path / "state").training) == 8
    assert len(Task(target, data).training) == 8


def test_a_linear_filter_is_fitted_well_even_where_the_time_is_up() -> None:
    target = resolve("median:size=7")
    task = Task(target, taught_from(target, pictures(count=4)), deadline=time.monotonic() - 1)
    found = linear.fit(task)
    assert found is not None
    assert found.weights > 3 * 3 + 3  # more than single pixels have


def test_a_rounded_linear_filter_is_kept_as_far_as_it_is_known_where_the_time_is_up() -> None:
    def smoothed(image: Array) -> Array:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), 2.3))

    report = learn(smoothed, pictures(), budget=1e-3).report
    assert report.method == "linear"
    assert report.psnr > 50


@pytest.mark.parametrize("level", [0, 9])
def test_pictures_without_any_detail_teach_nothing(level: int) -> None:
    with pytest.raises(
        UsageError, match="of a single colour, from which nothing can be learned; name pictures with"
    ):
        learn("sobel", [np.full((50, 50), level, np.uint8)] * 3)


@pytest.mark.parametrize("level", [0, 9])
def test_a_shallow_network_is_fitted_to_what_is_black(level: int) -> None:
    target = resolve("sobel")
    before = [np.full((50, 50, 3), level, np.uint8), pictures()[0]]
    task = Task(target, Data((before[0],), {"other": before[1]}), deadline=time.monotonic() + 0.2)
    assert relu.fit(task) is not None


def test_every_method_is_reported_and_the_best_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def constant(level: float) -> Candidate:
        return Candidate(
            Chain((Conv(np.zeros((1, 3, 1, 1), np.float32), np.array([level], np.float32)),)), f"to {level}"
        )

    made: dict[str, Any] = {
        "linear": constant(0.9),
        "curves": constant(0.1),
        "ranks": None,
        "piecewise_linear": constant(0.7),
    }
    monkeypatch.setattr(methods, "METHODS", tuple(made))
    monkeypatch.setattr(methods, "_fit", lambda name: lambda task: made[name])
    seen: list[str] = []
    learned = learn(
        "sobel", pictures(), progress=lambda done, total, what: seen.append(f"{done}/{total} {what}")
    )
    assert [method.name for method in learned.report.methods] == ["to 0.9", "to 0.1", "to 0.7"]
    assert learned.report.method == "to 0.1"
    assert learned.report.stopped == "every method was tried"
    assert seen[0] == "0/4 linear, nothing so far"
    assert seen[-1].startswith("4/4 best so far ")


@pytest.mark.usefixtures("only_closed_forms")
def test_a_budget_of_weights_is_kept() -> None:
    assert learn("gaussian:sigma=2", pictures(), weights=78).report.weights == 78
    few = learn("gaussian:sigma=2", pictures(), weights=30).report
    assert few.weights <= 30
    assert few.psnr < 60


@pytest.mark.usefixtures("only_closed_forms")
def test_too_few_weights_for_anything_are_refused() -> None:
    with pytest.raises(UsageError, match="no network of at most 1 weights"):
        learn("sobel", pictures(), weights=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": 0}, "weights must be a whole number of at least 1, not 0"),
        ({"weights": 2.5}, "weights must be a whole number"),
        ({"weights": True}, "weights must be a whole number"),
        ({"budget": 0}, "budget must be a number of seconds above 0, not 0"),
        ({"budget": float("nan")}, "budget must be a number of seconds"),
        ({"budget": "10"}, "budget must be a number of seconds"),
        ({"goal": -3}, "goal must be a number of dB above 0, not -3"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        learn("gaussian", pictures(), **options)
    assert "\n" not in str(refused.value)


def test_pairs_with_other_pictures_are_refused() -> None:
    with pytest.raises(UsageError, match="pairs bring their own pictures"):
        learn((pictures(), pictures()), pictures())


def test_what_no_local_network_can_do_is_said_before_time_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "_search", lambda *_: pytest.fail("time was spent"))
    for name in ("auto_levels", "equalise", "noise"):
        with pytest.raises(UsageError):
            learn(name, pictures())


def test_random_windows_hold_what_stands_around_their_pixel() -> None:
    from diptych.filters.data import Data
    from diptych.filters.targets import resolve

    task = Task(resolve("box"), Data(tuple(pictures()), {"a": pictures()[0]}))
    windows, expected = task.windows(1, 500)
    assert windows.shape == (500, 3, 3, 3)
    np.testing.assert_allclose(windows.mean(axis=(2, 3)), expected, atol=1e-6)
    again, _ = task.windows(1, 500)
    np.testing.assert_array_equal(windows, again)
    other, _ = task.windows(1, 500, seed=1)
    assert not np.array_equal(windows, other)
    patches, expected = task.patches(60, 9, 4)  # larger than the pictures with their halo: extended
    assert patches.shape == (4, 3, 78, 78)
    assert expected.shape == (4, 3, 60, 60)
