"""Making report.html: what it says, how large it may be, what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.errors import OutputError
from diptych.report import html
from diptych.report.content import ImageResult, ReportContent
from diptych.report.html import LARGEST_BYTES, MOST_IMAGES, render, write_report


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(path)
    return path


def content(picture: Path, count: int = 1, **changes: object) -> ReportContent:
    images = tuple(
        ImageResult(f"image_{n}", picture, picture, (("city", 0.99996), ("sea", 0.00004)))
        for n in range(count)
    )
    made = ReportContent("photos", False, "small", True, True, images)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_probabilities_are_never_rounded_to_certainty(picture: Path) -> None:
    page = render(content(picture))
    assert "&gt; 99.9 %" in page
    assert "&lt; 0.1 %" in page


def test_without_a_softmax_they_are_scores(picture: Path) -> None:
    image = ImageResult("one", picture, picture, (("city", 12.5), ("sea", -3.25), ("field", float("nan"))))
    page = render(content(picture, images=(image,), gives_probabilities=False))
    assert "scores, not probabilities" in page
    assert "−3.25" in page
    assert "%</td>" not in page
    assert 'style="width: 100.00%"' in page


@pytest.mark.parametrize(("trained", "said"), [(False, "Untrained:"), (None, "not recorded"), (True, "")])
def test_untrained_is_said_beside_every_number(picture: Path, trained: bool | None, said: str) -> None:
    page = render(content(picture, count=2, trained=trained))
    labels = re.findall(r'<div class="label">.*?</div>', page, re.DOTALL)
    assert len(labels) == 2
    assert all(said in label for label in labels)
    assert all(("Untrained" in label) == (trained is False) for label in labels)
    assert ("(untrained)" in page) == (trained is False)


def test_the_same_run_gives_the_same_page(picture: Path) -> None:
    assert render(content(picture)) == render(content(picture))


def test_a_small_page_holds_its_pictures_and_no_address(picture: Path) -> None:
    page = render(content(picture))
    addresses = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert len(addresses) > 5
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "http:" not in page
    assert "https:" not in page


def test_many_images_are_listed_by_name(picture: Path) -> None:
    page = render(content(picture, count=MOST_IMAGES + 7))
    assert page.count('class="work"') == MOST_IMAGES
    assert f"image_{MOST_IMAGES + 6}" in page
    assert "7 more images" in page


@pytest.mark.slow
def test_large_pictures_are_made_smaller_until_the_page_fits(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    pictures = []
    for index in range(6):
        path = tmp_path / f"{index}.bmp"
        Image.fromarray(np.roll(noise, index, axis=0)).save(path)
        pictures.append(ImageResult(str(index), path, path))
    page = render(ReportContent("noise", False, "small", True, True, tuple(pictures)))
    assert len(page.encode()) <= LARGEST_BYTES
    assert page.count("<img") == 12


def test_a_page_that_cannot_fit_is_refused(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "LARGEST_BYTES", 1000)
    with pytest.raises(OutputError, match="larger than"):
        render(content(picture))


def test_a_missing_picture_is_named_and_nothing_is_written(picture: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone.png"
    out = tmp_path / "out"
    with pytest.raises(OutputError, match=r"gone\.png"):
        write_report(out / "report.html", content(picture, images=(ImageResult("one", gone, picture),)))
    assert not out.exists()


def test_a_file_that_is_no_picture_is_named(picture: Path) -> None:
    picture.write_bytes(b"not a picture")
    with pytest.raises(OutputError, match=r"picture\.png"):
        render(content(picture))


def test_nothing_to_show_is_still_a_page(picture: Path) -> None:
    page = render(content(picture, images=()))
    assert "</html>" in page
    assert "<img" not in page
