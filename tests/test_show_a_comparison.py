"""A comparison as a user sees it: the command's words, its JSON document, and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from accessibility import violations
from browser import TIMEOUT, chromium
from diptych.axes import flip_kernel
from diptych.model.layers import Conv, Dense, GlobalMeanPool
from diptych.model.model import Model
from diptych.preprocessing import Colour, Preprocessing, Resize, Scale
from diptych.report.comparison import render_comparison, write_comparison
from diptych.report.grid import colours
from little_models import changed, classifier, compare, model, numbers, seeing, weight

A = classifier()
UNFLIPPED = changed(A, 1, weight=flip_kernel(weight(A, 1)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    a = A.with_(preprocessing=Preprocessing((Colour(), Resize(12, 16), Scale())))
    b = changed(a, 1, weight=flip_kernel(weight(a, 1)))
    for name, each in (("a", a), ("b", b)):
        diptych.write(each, folder / f"{name}.safetensors")
    return folder / "a.safetensors", folder / "b.safetensors"


def test_the_command_says_where_and_why(
    files: tuple[Path, Path], diptych_command: Any, photographs: Path
) -> None:
    a, b = files
    agreed = diptych_command("compare", a, a, "--images", photographs)
    assert agreed.status == 0
    assert "agree" in agreed.out
    parted = diptych_command("compare", a, b, "--images", photographs, "--engine-b", "numpy")
    assert parted.status == 1
    assert "Likely cause: kernels not flipped" in parted.out
    marked = [line.split()[1] for line in parted.out.splitlines() if line.startswith("->")]
    assert marked == ["1"]
    assert diptych_command("compare", a, "no-such-model").status == 2
    assert diptych_command("compare", a, b, "--tolerance", "-1").status == 2
    assert diptych_command("compare", a).status == 2


def test_the_command_gives_one_json_document(
    files: tuple[Path, Path], diptych_command: Any, photographs: Path
) -> None:
    outcome = diptych_command("compare", *files, "--images", photographs, "--json")
    assert outcome.status == 1
    assert outcome.err == ""
    document = json.loads(outcome.out)
    assert document["agrees"] is False
    assert document["first_divergence"] == "1"
    assert [cause["name"] for cause in document["causes"]] == ["kernels not flipped"]
    assert len(document["layers"]) == 12


def test_the_command_writes_a_page(
    files: tuple[Path, Path], diptych_command: Any, photographs: Path, tmp_path: Path
) -> None:
    page = tmp_path / "comparison.html"
    outcome = diptych_command("compare", *files, "--images", photographs, "--report", page)
    assert outcome.status == 1
    text = page.read_text("utf-8")
    assert "Kernels not flipped" in text
    assert text.count("data:image/png") == 3  # A, B and their difference
    assert text.count("data:image/webp") == 1  # the picture
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize(
    "pair",
    [
        (A, A),
        (A, changed(A, 10, axis=0)),
        (seeing(), model(Conv(numbers(7, 3, 5, 5)), GlobalMeanPool())),
        (model(Dense(numbers(300, 7))), model(Dense(numbers(300, 7, seed=3)))),
    ],
)
def test_a_page_is_made_whatever_the_outcome(pair: tuple[Model, Model]) -> None:
    text = render_comparison(compare(*pair))
    assert text.count("<img") >= 2
    assert "</html>" in text


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_in_silence_and_asks_for_nothing(tmp_path: Path, scheme: str) -> None:
    hostile = A.with_(name="<script>window.hacked = 1</script>")
    path = tmp_path / "comparison.html"
    write_comparison(path, compare(hostile, UNFLIPPED))
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme)
        context.set_default_timeout(TIMEOUT)
        page = context.new_page()
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri(), wait_until="load")
        sizes = page.evaluate(
            "async () => Promise.all([...document.images].map(async i => { await i.decode(); return i.width; }))"
        )
        assert len(sizes) == 3
        assert all(size > 50 for size in sizes)
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("tr.first").count() == 1
        assert page.locator(".verdict").inner_text().endswith("Kernels not flipped")
        assert said == []
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]


# ---- The slider -------------------------------------------------------------------------------------------

DRAWN = """(id) => {
    const canvas = document.getElementById(id);
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return { size: [canvas.height, canvas.width], rgba: Array.from(data) };
}"""


def coloured(values: np.ndarray, low: float, high: float, name: str = "viridis") -> np.ndarray:
    return colours(name)[np.rint((values - low) / (high - low) * 255).astype(np.uint8)]


def test_any_layer_and_channel_of_both_is_shown_with_a_line_between(tmp_path: Path) -> None:
    found = compare(A, UNFLIPPED)
    write_comparison(tmp_path / "page.html", found)
    with chromium() as browser:
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri(), timeout=TIMEOUT)
        page.wait_for_selector("#slider-section:not([hidden])", timeout=TIMEOUT)
        assert violations(page) == []
        assert page.input_value("#slider-layer") == "2" == str(found.parting)
        for row in (2, 3):
            page.select_option("#slider-layer", str(row))
            page.locator("#slider-channel").fill("1")
            a, b = (side[1] for side in found.sides[row])
            low, high = min(a.min(), b.min()), max(a.max(), b.max())
            for side, values in (("a", a), ("b", b)):
                drawn = page.evaluate(DRAWN, f"slider-{side}")
                assert drawn["size"] == list(values.shape)
                pixels = np.array(drawn["rgba"], int).reshape(*values.shape, 4)[..., :3]
                assert np.abs(pixels - coloured(values, low, high)).max() <= 4  # one place in the table
        page.locator("#slider-split").focus()
        before = page.evaluate("getComputedStyle(document.getElementById('slider-a')).clipPath")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("getComputedStyle(document.getElementById('slider-a')).clipPath") != before
        page.select_option("#slider-view", "apart")
        drawn = np.array(page.evaluate(DRAWN, "slider-a")["rgba"], int).reshape(*a.shape, 4)[..., :3]
        assert np.abs(drawn - coloured(np.abs(a - b), 0, np.abs(a - b).max(), "magma")).max() <= 8
        assert [
            text for text in said if "willReadFrequently" not in text
        ] == []  # of this test's own readings


def test_layers_of_other_shapes_values_and_long_rows_are_shown(tmp_path: Path) -> None:
    pair = (
        model(Dense(numbers(3000, 7)), Dense(numbers(4, 3000))),
        model(Dense(numbers(900, 7)), Dense(numbers(5, 900))),
    )
    for number, each in enumerate([pair, (seeing(), model(Conv(numbers(7, 3, 5, 5)), GlobalMeanPool()))]):
        write_comparison(tmp_path / f"{number}.html", compare(*each))
    with chromium() as browser:
        for number, sizes in enumerate([("A 1 × 429, B 1 × 300",), ()]):
            page = browser.new_page()
            said: list[str] = []
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.goto((tmp_path / f"{number}.html").as_uri(), timeout=TIMEOUT)
            page.wait_for_selector("#slider-section:not([hidden])", timeout=TIMEOUT)
            for row in range(page.locator("#slider-layer option").count()):
                page.select_option("#slider-layer", str(row))
                words = page.inner_text("#slider-said")
                assert "undefined" not in words
                assert "NaN" not in words
            for size in sizes:
                page.select_option("#slider-layer", "1")
                assert size in page.inner_text("#slider-said")
            assert said == []
