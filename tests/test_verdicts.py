"""The verdict on a learned filter, the pictures that decide it, and what is said of filters that cannot be learned."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

from diptych.errors import UsageError
from diptych.filters import learn
from diptych.filters.held_out import HELD_OUT, held_out_picture
from diptych.filters.learning import methods
from diptych.filters.targets.figures import figures, grouped
from diptych.filters.verdicts import MEANINGS, VERDICTS, judged, verdict
from diptych.model.layers import Array

FILTERS = """
import numpy as np

def red_eye(image):
    red = (image[..., 0] > 150) & (image[..., 1] < 80) & (image[..., 2] < 80)
    changed = np.where(red[..., None] & (np.arange(3) == 0), image[..., 1:].mean(axis=2, keepdims=True), image)
    return changed.astype(np.uint8)

def sepia(image):
    matrix = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
    return np.clip(image @ matrix.T, 0, 255).astype(np.uint8)
"""


@pytest.fixture
def own_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with `FILTERS`, in the current folder."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(FILTERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(methods, "METHODS", ("linear", "curves"))
    return name


# ---- The pictures -------------------------------------------------------------------------------------


def test_the_held_out_pictures_show_every_hue_and_two_are_grey() -> None:
    assert len(HELD_OUT) >= 12
    pictures = {name: held_out_picture(name) for name in HELD_OUT}
    assert [name for name, picture in pictures.items() if picture.ndim == 2] == ["camera", "page"]
    hues = np.zeros(12, int)
    for picture in pictures.values():
        if picture.ndim == 3:
            hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
            vivid = (hsv[..., 1] > 100) & (hsv[..., 2] > 100)
            hues += np.bincount(hsv[vivid, 0] // 15, minlength=12)[:12]
    assert hues.min() > 2000


def test_the_photographs_in_the_box_are_small_and_their_licences_are_told() -> None:
    folder = Path(methods.__file__).parent.parent / "pictures"
    licences = (folder / "README.md").read_text("utf-8")
    photographs = list(folder.glob("*.png"))
    assert all(path.name in licences for path in photographs)
    assert sum(path.stat().st_size for path in photographs) < 1_000_000


# ---- The word -----------------------------------------------------------------------------------------


@dataclass
class Figures:
    pooled_psnr: float = 60.0
    worst_psnr: float = 55.0
    largest: int = 2
    identical: float = 0.5
    near: float = 1.0


@pytest.mark.parametrize(
    ("found", "best", "expected"),
    [
        (Figures(largest=1, identical=0.9991), 70.0, "exact"),
        (Figures(largest=1, identical=0.9989), 70.0, "close"),
        (Figures(worst_psnr=101.0), 58.0, "close"),
        (Figures(worst_psnr=101.0, largest=1), 58.0, "exact"),
        (Figures(worst_psnr=44.9), 58.0, "approximate"),
        (Figures(near=0.998), 58.0, "approximate"),
        (Figures(near=0.998), 59.5, "not learned"),
        (Figures(pooled_psnr=19.0, worst_psnr=15.0), 10.0, "not learned"),
        (Figures(pooled_psnr=21.0, worst_psnr=15.0), 10.0, "approximate"),
    ],
)
def test_the_bounds_of_the_verdicts(found: Figures, best: float, expected: str) -> None:
    assert verdict(found, {"constant": 10.0, "best linear": best}) == expected
    assert expected in MEANINGS


def test_what_is_known_not_to_be_exact_is_close_at_most() -> None:
    assert verdict(Figures(largest=0, identical=1.0), {}, exact=False) == "close"


def test_one_bad_picture_decides_although_all_others_are_perfect() -> None:
    assert judged(60.0, 58.0) == 60.0
    assert judged(60.0, 30.0) == 33.0


def test_the_identity_does_not_meet_the_goal_for_a_filter_of_few_colours(
    own_filters: str, diptych_command, tmp_path: Path
) -> None:
    """It scores 150 dB on grey pictures, and so 90 dB in the mean of the six that were held out once."""
    out = tmp_path / "red.safetensors"
    command = ["filter", "learn", f"{own_filters}:red_eye", "-o", out]
    done = diptych_command(*command, "--json")
    assert done.status == 1
    found = json.loads(done.out)
    assert found["verdict"] == "not learned"
    assert found["model"] is None
    assert found["psnr"] < 40
    assert not out.exists()
    kept = diptych_command(*command, "--keep")
    assert kept.status == 1
    assert "red_eye: not learned, by " in kept.out
    assert out.exists()


def test_the_same_word_is_in_report_document_and_evaluation(
    own_filters: str, diptych_command, tmp_path: Path
) -> None:
    out, page, target = tmp_path / "sepia.safetensors", tmp_path / "page.html", f"{own_filters}:sepia"
    done = diptych_command("filter", "learn", target, "-o", out, "--report", page)
    assert done.status == 0, done.err
    assert f"{target}: exact, by 12 weights" in done.out
    assert "Exact: 12 weights" in page.read_text("utf-8")
    refused = diptych_command("filter", "evaluate", out)
    assert refused.status == 2
    advice = refused.err.strip().rpartition("say so if you trust it: ")[2]
    found = diptych_command("filter", "evaluate", out, *advice.split(), "--json")
    assert json.loads(found.out)["verdict"] == "exact"


def test_a_linear_filter_of_noisy_pairs_is_learned() -> None:
    random = np.random.default_rng(0)
    before = [held_out_picture(name)[:120, :120] for name in ("china", "flower", "hopper")]
    after = [
        np.clip(ndimage.gaussian_filter(p.astype(float), (1, 1, 0)) + random.normal(0, 6, p.shape), 0, 255)
        for p in before
    ]
    report = learn((before, [a.astype(np.uint8) for a in after]), goal=20).report
    assert report.method == "linear"
    assert report.verdict == "approximate"


def test_the_list_groups_filters_by_verdict_and_time(diptych_command) -> None:
    shown = diptych_command("filter", "list").out
    document = json.loads(diptych_command("filter", "list", "--json").out)
    verdicts = {each["name"]: each["verdict"] for each in document["filters"]}
    assert verdicts["invert"] == "exact"
    assert verdicts["equalise"] == "refused"
    heads = [line[2:] for line in shown.splitlines() if line.startswith("# ")]
    assert heads[0] == "Exact, learned within 10 seconds"
    assert heads[-1] == "Verdicts"
    assert all(word in document["verdicts"] for word in VERDICTS)
    assert sorted(name for _, names in grouped(verdicts) for name in names) == sorted(verdicts)
    assert set(figures()) <= set(verdicts)


# ---- Refusals -----------------------------------------------------------------------------------------


def _grey(image: Array) -> Array:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).astype(float)


def _laplacian_scaled_by_its_extremes(image: Array) -> Array:
    edges = ndimage.gaussian_laplace(_grey(image), 2)
    return np.asarray((edges - edges.min()) / (edges.max() - edges.min()))


def _scaled_by_percentiles(image: Array) -> Array:
    low, high = np.percentile(image, (2, 98))
    return np.clip((image - low) / (high - low), 0, 1)


def _scaled_by_its_maximum(image: Array) -> Array:
    return np.asarray(image / image.max())


def _standardised(image: Array) -> Array:
    return np.clip((image - image.mean()) / image.std() / 6 + 0.5, 0, 1)


@pytest.mark.parametrize(
    "function",
    [_laplacian_scaled_by_its_extremes, _scaled_by_percentiles, _scaled_by_its_maximum, _standardised],
)
def test_what_is_scaled_by_values_of_the_whole_picture_is_told_so(function) -> None:
    """A flat picture makes most of them divide by zero, and nobody sees that picture."""
    with pytest.raises(UsageError, match="rescales its result by values of the whole picture") as refused:
        learn(function)
    assert "NaN" not in str(refused.value)


def test_a_picture_that_nobody_sees_is_described() -> None:
    def flat(image: Array) -> Array:
        return np.full(image.shape, np.nan) if (image == image[0, 0]).all() else image / 255.0

    with pytest.raises(UsageError, match=r"on a picture of a single colour, .* NaN"):
        learn(flat)


def test_advice_for_a_random_filter_does_not_lead_to_another_refusal() -> None:
    def grain(image: Array) -> Array:
        return np.clip(image + np.random.default_rng().normal(0, 8, image.shape), 0, 255).astype(np.uint8)

    with pytest.raises(UsageError, match="is random") as refused:
        learn(grain)
    assert "fix its seed" not in str(refused.value)


# ---- Budgets ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clahe", "median:size=5"])
def test_seconds_asked_are_seconds_taken(name: str) -> None:
    learn("identity")  # what is imported once is no part of it
    began = time.monotonic()
    learn(name, budget=4)
    assert time.monotonic() - began < 1.1 * 4 + 1


def _delayed(image: Array) -> Array:
    time.sleep(2e-6 * image.shape[0] * image.shape[1])
    return np.asarray(cv2.medianBlur(image, 5))


def test_a_slow_filter_with_a_short_budget_is_refused_with_a_budget_that_works() -> None:
    with pytest.raises(
        UsageError, match=r"takes \d\.\d s for a megapixel, .*; allow at least \d+ s"
    ) as refused:
        learn(_delayed, budget=0.5)
    assert 4 <= int(str(refused.value).rsplit(maxsplit=2)[1]) <= 30


@pytest.mark.slow
def test_a_slow_filter_is_judged_on_the_middles_of_the_pictures() -> None:
    began = time.monotonic()
    report = learn(_delayed, budget=8).report
    assert time.monotonic() - began < 1.1 * 8 + 1
    assert any("is judged on the middle" in remark for remark in report.remarks)
