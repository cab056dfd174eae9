"""Opening report.html: nothing breaks, nothing leaves the page, and everyone can read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browser import TIMEOUT, chromium
from diptych.report import plots
from diptych.report.content import Figure, ImageResult, LayerFigure, LayerRow, ReportContent, Skipped
from diptych.report.html import write_report

HOSTILE = """<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">" ' {{ 7 * 7 }} 夜"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> ReportContent:
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    picture, seen = folder / "generated_image_1.png", folder / "preprocessed_image_1.png"
    Image.fromarray(rng.integers(0, 256, (90, 160, 3), dtype=np.uint8)).save(picture)
    grey = rng.random((32, 32), dtype=np.float32)
    Image.fromarray((grey * 255).astype(np.uint8)).save(seen)
    views, maps = folder / "input_heatmap.png", folder / "conv_layer_1_feature_maps.png"
    plots.input_heatmap(views, grey)
    activation = np.maximum(rng.normal(size=(16, 30, 30)), 0)
    activation[3] = 0
    plots.feature_maps(maps, activation, "Convolution 1")
    probabilities = (0.9, 0.06, 0.03, 0.01, 0.0, 0.0)
    image = ImageResult(
        name="generated_image_1",
        picture=picture,
        seen=seen,
        predictions=tuple((f"a rather long class name {n}", p) for n, p in enumerate(probabilities)),
        facts=(("Seed", "0"),),
        remarks=("alpha over white",),
        ignored=("wombat",),
        figures=tuple(Figure(views, f"View {n}", f"Heat map number {n} of the input.") for n in (1, 2, 3)),
        layers=(LayerFigure(maps, "0", "Convolution 1 · Conv 3 × 3", (16, 30, 30), 0.0, 3.2, (3,)),),
    )
    return ReportContent(
        title="a serene sunset over a futuristic city",
        is_prompt=True,
        model="three-conv-224",
        trained=False,
        gives_probabilities=True,
        images=(image, replace(image, name="generated_image_2")),
        skipped=(Skipped("broken.png", "broken.png ends early; fetch it again"),),
        facts=(("Images", "2"), ("Engine", "numpy, cpu")),
        recipe=("grey: 0.299 R + 0.587 G + 0.114 B", "resize to 32 x 32", "scale: divide by 255"),
        recipe_name="grey-32",
        layers=tuple(LayerRow(str(n), "Conv", "16 × 30 × 30", 160, 144_000, "3 × 3") for n in range(3)),
        layer_totals=(("Parameters", "480"),),
        command="diptych run 'a serene sunset over a futuristic city' --model " + "three-conv-224" * 12,
        versions=(("Diptych", "0.1.0"),),
        files=(("generated_image_1.png", "0123456789abcdef" * 4),),
        timings=(("Painting", "0.12 s"),),
    )


@pytest.fixture(scope="module")
def report(content: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "report.html"
    write_report(path, content)
    return path


@dataclass
class Heard:
    """What a page said and asked for while it was open."""

    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened(browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> Iterator[tuple[Any, Heard]]:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    try:
        context.set_default_timeout(TIMEOUT)
        page, heard = context.new_page(), Heard()
        page.on("console", lambda message: heard.messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: heard.messages.append(str(error)))
        page.on(
            "dialog", lambda dialog: (heard.messages.append(f"dialog: {dialog.message}"), dialog.dismiss())
        )
        page.on("request", lambda request: heard.requests.append(request.url))
        page.goto(path.as_uri(), wait_until="load")
        yield page, heard
    finally:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_in_silence_and_every_picture_is_there(browser: Any, report: Path, scheme: str) -> None:
    with opened(browser, report, scheme=scheme) as (page, heard):
        sizes = page.evaluate(
            """async () => Promise.all([...document.images].map(async i => {
                await i.decode(); return [i.naturalWidth, i.naturalHeight, i.complete]; }))"""
        )
        # Two panels, three views and one layer an image.
        assert len(sizes) == 2 * (2 + 3 + 1)
        assert all(width > 1 and height > 1 and complete for width, height, complete in sizes)
        assert heard.messages == []


def test_nothing_leaves_the_page(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, heard):
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        page.wait_for_timeout(200)
        asked = [url for url in heard.requests if not url.startswith("data:")]
        assert asked == [report.as_uri()]
        assert page.evaluate("document.scripts.length") == 0
        policy = page.evaluate("document.querySelector('meta[http-equiv=Content-Security-Policy]').content")
        assert policy.startswith("default-src 'none'; img-src data:;")


@pytest.mark.slow
def test_the_policy_stops_what_should_never_be_there(browser: Any, report: Path, tmp_path: Path) -> None:
    tampered = tmp_path / "tampered.html"
    intruder = '<script>window.hacked = 1</script><img src="http://127.0.0.1:9/x.png" alt="x"></main>'
    tampered.write_text(report.read_text("utf-8").replace("</main>", intruder), "utf-8")
    with opened(browser, tampered) as (page, heard):
        assert page.evaluate("window.hacked") is None
        assert any("Content Security Policy" in message for message in heard.messages)


@pytest.mark.slow
def test_a_keyboard_is_enough(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, _):
        page.keyboard.press("Tab")
        skip = page.evaluate(
            """() => { const a = document.activeElement, r = a.getBoundingClientRect();
                return [a.className, r.top >= 0 && r.bottom <= innerHeight && r.width > 0]; }"""
        )
        assert skip == ["skip", True]
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        summary = page.locator("summary").first
        summary.focus()
        page.keyboard.press("Enter")
        assert page.locator("details").first.evaluate("d => d.open")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid"


@pytest.mark.slow
def test_a_screen_reader_finds_its_way(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, _):
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => +h.tagName[1])")
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        alts = page.evaluate("[...document.images].map(i => i.alt.trim())")
        assert all(len(alt) > 15 for alt in alts)
        assert any("prediction: a rather long class name 0, 90.0 % (untrained)" in alt for alt in alts)
        assert any("1 of them flat in this picture" in alt for alt in alts)
        assert page.evaluate("document.documentElement.lang") == "en"
        landmarks = ["header", "nav[aria-label]", "main", "footer"]
        assert [page.locator(f"body > {each}").count() for each in landmarks] == [1, 1, 1, 1]
        tables = page.evaluate(
            """[...document.querySelectorAll('table')].map(t => !!t.caption?.textContent.trim() &&
                [...t.querySelectorAll('th')].every(h => h.scope) && !!t.querySelector('tbody th'))"""
        )
        assert tables
        assert all(tables)
        targets = page.evaluate(
            "[...document.querySelectorAll('a[href^=\"#\"]')].every(a => document.querySelector(a.hash))"
        )
        assert targets
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_never_scrolls_sideways(browser: Any, report: Path, width: int) -> None:
    with opened(browser, report, width) as (page, _):
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # What is wider scrolls by itself, and can be reached without a mouse.
        unreachable = page.evaluate(
            """[...document.querySelectorAll('main *')].filter(e => e.scrollWidth > e.clientWidth + 1 &&
                getComputedStyle(e).overflowX === 'auto' && e.tabIndex < 0).map(e => e.className)"""
        )
        assert unreachable == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_very_long_words_and_prompts_keep_the_page_in_shape(
    browser: Any, content: ReportContent, tmp_path: Path, width: int
) -> None:
    names = tuple((f"{n}" + "supercalifragilistic" * 15, p) for n, p in content.images[0].predictions)
    long = replace(
        content, title="a sea of clouds and " * 450, images=(replace(content.images[0], predictions=names),)
    )
    write_report(tmp_path / "report.html", long)
    with opened(browser, tmp_path / "report.html", width) as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.querySelector('h1').getBoundingClientRect().height") < 400


CONTRASTS = """() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => { const l = [r, g, b].map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
      return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
  const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
  return [...document.querySelectorAll('body *')]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .map(e => { const a = light(rgb(getComputedStyle(e).color)), b = light(ground(e));
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.trim().slice(0, 40)]; });
}"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_stands_out_from_its_ground(browser: Any, report: Path, scheme: str) -> None:
    with opened(browser, report, scheme=scheme) as (page, _):
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 50
        assert [found for found in contrasts if found[0] < 4.5] == []
        body = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(int(n) for n in body[4:-1].split(",")) < 384) == (scheme == "dark")


@pytest.mark.slow
def test_dark_figures_are_on_dark_paper(browser: Any, report: Path) -> None:
    corner = """async () => { const i = document.querySelector('.plate img'); await i.decode();
        const c = document.createElement('canvas'); c.width = i.naturalWidth; c.height = i.naturalHeight;
        const x = c.getContext('2d'); x.drawImage(i, 0, 0);
        return [...x.getImageData(3, 3, 1, 1).data].slice(0, 3); }"""
    with opened(browser, report, scheme="dark") as (page, _):
        assert max(page.evaluate(corner)) < 60
    with opened(browser, report, scheme="light") as (page, _):
        assert min(page.evaluate(corner)) > 230


@pytest.mark.slow
def test_a_hostile_prompt_is_only_text(browser: Any, content: ReportContent, tmp_path: Path) -> None:
    image = replace(
        content.images[0], name=HOSTILE, ignored=(HOSTILE,), remarks=(HOSTILE,), predictions=((HOSTILE, 0.5),)
    )
    path = tmp_path / "report.html"
    write_report(
        path,
        replace(
            content,
            title=HOSTILE,
            model=HOSTILE,
            command=HOSTILE,
            images=(image,),
            files=((HOSTILE, HOSTILE),),
        ),
    )
    with opened(browser, path) as (page, heard):
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.scripts.length") == 0
        assert page.locator("h1").inner_text() == HOSTILE
        assert page.locator(".command").inner_text() == HOSTILE
        assert heard.messages == []
        assert [url for url in heard.requests if not url.startswith("data:")] == [path.as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
