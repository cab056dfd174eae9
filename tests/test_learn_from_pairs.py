"""Learning from pictures before and after a filter, which know no other pictures: with noise, and without."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from diptych.datasets.photographs import photograph
from diptych.errors import FormatError, UsageError
from diptych.filters import learn
from diptych.filters.evaluating import Compared, evaluate_samples
from diptych.filters.learning import linear, methods, relu
from diptych.filters.learning.task import Candidate
from diptych.filters.samples import FilterSample
from diptych.filters.targets import pairs
from diptych.model.layers import Array, Chain, Conv
from diptych.model.model import Model


def blurred(picture: Array) -> Array:
    return np.asarray(cv2.GaussianBlur(picture, (7, 7), 0))


def edges(picture: Array) -> Array:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    length = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return np.clip(np.rint(length / 4), 0, 255).astype(np.uint8)


def grey(picture: Array) -> Array:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))


def compressed(picture: Array) -> Array:
    stream = io.BytesIO()
    Image.fromarray(blurred(picture)).save(stream, "JPEG", quality=85)
    return np.array(Image.open(stream))


def pictures(side: int = 160) -> list[Array]:
    return [photograph(name)[40 : 40 + side, 60 : 60 + side] for name in ("chelsea", "coffee", "astronaut")]


@pytest.fixture
def unanswered_queries(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Queries of pairs about other pictures than their own; training is kept short."""
    vain: list[Any] = []
    look_up = pairs._look_up

    def spy(known: Any, image: Array) -> Array:
        if pairs._key(image) not in known:
            vain.append(image.shape)
        return look_up(known, image)

    monkeypatch.setattr(pairs, "_look_up", spy)
    monkeypatch.setattr(relu, "_SECONDS", 0.3)
    return vain


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "least"),
    [(blurred, 58), (edges, 22), (grey, 58), (compressed, 40)],
    ids=lambda v: getattr(v, "__name__", str(v))[-20:],
)
def test_every_method_learns_from_pairs_alone(
    function: Any, least: float, unanswered_queries: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "METHODS", (*methods.CLOSED, "relu"))
    before = pictures()
    report = learn((before, [function(picture) for picture in before])).report
    assert unanswered_queries == []
    assert report.psnr > least
    assert report.psnr > report.scores["baselines"]["best linear"]["psnr"] - 1.5


@pytest.mark.slow
def test_one_small_pair_is_enough(unanswered_queries: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "METHODS", ("linear", "dilated"))
    before = pictures(80)[0]
    report = learn((before, blurred(before)), goal=100, budget=5).report
    assert unanswered_queries == []
    assert report.psnr > 40


@pytest.mark.slow
def test_the_border_of_pairs_is_found_by_what_suits_it() -> None:
    before = pictures()
    learned = learn((before, [blurred(picture) for picture in before]))
    assert learned.model.notes["filter"]["edge"] == "reflect"
    assert learned.report.weights <= 150


def test_noise_does_not_undo_the_taps() -> None:
    random = np.random.default_rng(0)
    before = pictures()
    noisy = [np.clip(blurred(p) + random.normal(0, 6, p.shape), 0, 255).astype(np.uint8) for p in before]
    report = learn((before, noisy), goal=20).report
    assert report.psnr > report.scores["baselines"]["best linear"]["psnr"] - 1


def test_a_network_that_is_worse_than_no_learning_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    black = Candidate(Chain((Conv(np.zeros((1, 3, 1, 1), np.float32)),)), "black")
    monkeypatch.setattr(methods, "METHODS", ("linear",))
    monkeypatch.setattr(methods, "_fit", lambda name: lambda task: black)
    report = learn("grey", pictures()).report
    assert any("on the held-out pictures the" in remark for remark in report.remarks)


def test_pictures_that_a_filter_leaves_as_they_are_do_not_make_a_network_worse() -> None:
    before = [np.full((40, 40, 3), 90, np.uint8), pictures(40)[0]]
    expected = [picture / np.float32(255) for picture in before]
    expected[1] = expected[1] ** 2
    samples = [
        FilterSample(str(index), *both) for index, both in enumerate(zip(before, expected, strict=True))
    ]
    # A third of a level off everywhere, where the picture as it is counts as 150 dB in one of two.
    given = [Compared("", each + np.float32(0.0013), before[0], each) for each in expected]
    scores = evaluate_samples(Model(Chain(()), input_shape=(3, None, None)), samples, compared=given)
    assert scores.baselines["identity"].psnr > scores.whole.psnr
    assert methods._baseline_remarks(scores) == []
    # Neither does what nobody can see: 80 dB are less than what rounding to 8 bits makes.
    same = [FilterSample(str(index), p, p / np.float32(255)) for index, p in enumerate(before)]
    given = [Compared("", s.target + np.float32(1e-4), s.picture, s.target) for s in same]
    assert (
        methods._baseline_remarks(
            evaluate_samples(Model(Chain(()), input_shape=(3, None, None)), same, compared=given)
        )
        == []
    )


def test_a_much_larger_network_must_earn_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def grey_network(level: float, units: int) -> Candidate:
        first = Conv(np.tile(np.full((1, 3, 1, 1), 1 / 3, np.float32), (units, 1, 1, 1)))
        second = Conv(np.full((1, units, 1, 1), level / units, np.float32))
        return Candidate(Chain((first, second)), f"{units} units")

    def kept(level: float) -> str:
        made = {"linear": grey_network(0.9, 1), "relu": grey_network(level, 9)}
        monkeypatch.setattr(methods, "METHODS", tuple(made))
        monkeypatch.setattr(methods, "_fit", lambda name: lambda task: made[name])
        return learn("grey", pictures()).report.method

    assert [kept(0.9001), kept(0.97)] == ["1 units", "9 units"]


def test_a_checkpoint_that_is_none_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "fit", None)
    with pytest.raises(UsageError, match="is a folder; name a file in it"):
        learn("sobel", checkpoint=tmp_path)
    (tmp_path / "notes.txt").write_text("nothing of the kind")
    with pytest.raises(FormatError, match="is not the checkpoint of a training"):
        learn("sobel", checkpoint=tmp_path / "notes.txt")
