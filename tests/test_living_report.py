"""The page of a run is alive: in a real browser it gives what Python gives, and sends nothing anywhere."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import diptych
from accessibility import violations
from browser import TIMEOUT, chromium
from diptych.model.layers import Chain, Conv, Dense, Flatten, GlobalMeanPool, MaxPool, Softmax
from diptych.model.model import Model
from diptych.preprocessing import NAMES, Preprocessing, named
from diptych.preprocessing.steps import CentreCrop, Colour, Grey, Normalise, Resize, Scale
from diptych.report.living import Living, living

DRAWN = """async (given) => {
    const bytes = Uint8Array.from(atob(given), (sign) => sign.charCodeAt(0));
    const found = await diptych.trace(new Blob([bytes], {type: "image/png"}));
    return Object.fromEntries(Object.entries(found).map(([name, value]) => [name, Array.from(value.data)]));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    return diptych.run("a lighthouse by the sea", count=3, out=out).report


def opened(browser: Any, report: Path, **options: Any) -> tuple[Any, list[str], list[str]]:
    page = browser.new_page(**options)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri(), timeout=TIMEOUT)
    page.evaluate("diptych.ready()")
    return (
        page,
        said,
        [url for url in asked if url != report.as_uri() and not url.startswith(("data:", "blob:"))],
    )


def png(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("size", [(40, 30, 3), (301, 207, 3), (900, 1200, 3), (33, 33)], ids=str)
def test_every_layer_is_as_in_python(browser: Any, report: Path, size: tuple[int, ...]) -> None:
    page, said, asked = opened(browser, report)
    pixels, model = noise(*size), diptych.load_model("scenes")
    found = page.evaluate(DRAWN, png(pixels))
    expected = diptych.trace(model, model.preprocessing.apply(pixels)[np.newaxis])
    assert list(found) == list(expected)
    for path, values in expected.items():
        assert np.abs(np.array(found[path]).reshape(values.shape) - values).max() < 4e-6 * max(
            1, np.abs(values).max()
        )
    assert np.abs(np.array(found["9"]) - expected.output.ravel()).max() < 1e-6
    assert (said, asked) == ([], [])
    page.close()


# ---- Every recipe --------------------------------------------------------------------------------------

TIMM = (Resize(40, 40, "pillow-bicubic", fit="cover"), CentreCrop(32, 32), Colour(), Scale(),
        Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))  # fmt: skip
RECIPES = {
    **{name: named(name) for name in NAMES},
    "lanczos": Preprocessing((Colour(), Resize(24, 30, "pillow-lanczos"), Scale())),
    "nearest": Preprocessing((Grey("pillow"), Resize(24, 30, "nearest"), Scale())),
    "opencv-area": Preprocessing((Colour(), Resize(24, 30, "opencv-area"), Scale())),
    "opencv-cubic": Preprocessing((Grey("opencv"), Resize(24, 30, "opencv-cubic"), Scale())),
    "timm": Preprocessing(TIMM),
}


def little(recipe: Preprocessing) -> Model:
    rng = np.random.default_rng(0)
    channels = recipe.channels or 3
    conv = Conv(rng.normal(size=(4, channels, 3, 3)).astype(np.float32), padding=((1, 1), (1, 1)))
    dense = Dense(rng.normal(size=(5, 4)).astype(np.float32))
    height, width = recipe.size or (None, None)
    layers = Chain((conv, MaxPool((2, 2)), GlobalMeanPool(), Flatten(), dense, Softmax()))
    return Model(layers, recipe, tuple("abcde"), (channels, height, width), True, "little")


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_is_applied_as_in_python(browser: Any, tmp_path: Path, name: str) -> None:
    recipe = RECIPES[name]
    model = little(recipe)
    Image.fromarray(noise(64, 48, 3)).save(tmp_path / "a.png")
    made = diptych.run(
        images=tmp_path / "a.png", model=model, preprocessing=recipe, out=tmp_path / "out", maps="0"
    )
    assert not any("static" in remark for remark in made.remarks), made.remarks
    page, said, asked = opened(browser, made.report)
    for size in ((64, 48, 3), (130, 97, 3)):
        pixels = noise(*size)
        found = page.evaluate(DRAWN, png(pixels))
        expected = diptych.trace(model, recipe.apply(pixels)[np.newaxis])
        first = expected["0"]
        assert np.abs(np.array(found["0"]).reshape(first.shape) - first).max() < 2e-5 * np.abs(first).max()
        assert np.abs(np.array(found["5"]) - expected.output.ravel()).max() < 1e-6
    assert (said, asked) == ([], [])
    page.close()


# ---- What a visitor does ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_a_picture_is_chosen_and_looked_into(browser: Any, report: Path, scheme: str, width: int) -> None:
    page, said, asked = opened(browser, report, color_scheme=scheme, viewport={"width": width, "height": 900})
    picture = report.with_name("generated_image_1.png")
    page.set_input_files("#live-file", str(picture))
    page.wait_for_selector("#live-result:not([hidden])", timeout=TIMEOUT)
    expected = diptych.predict("scenes", picture)[0]
    classes = diptych.load_model("scenes").classes
    assert classes is not None
    rows = page.locator("#live-bars tr")
    assert rows.count() == 5
    assert rows.first.inner_text().split()[0] == classes[expected.argmax()]
    assert f"{100 * expected.max():.1f} %" in rows.first.inner_text()
    page.select_option("#live-layer", "4")
    assert "Layer 4, channel 0 of 64 (from 0): 8 × 8" in page.inner_text("#live-map-said")
    page.locator("#live-channel").fill("63")
    assert "channel 63 of 64" in page.inner_text("#live-map-said")
    page.select_option("#live-layer", "9")
    assert "channel 0 of 1 (from 0): 1 × 10" in page.inner_text("#live-map-said")
    page.click("#live-parts")
    page.wait_for_selector("#live-counting:not([hidden])", timeout=4 * TIMEOUT)
    assert f"covering this part lowers {classes[expected.argmax()]}" in page.inner_text("#live-parts-said")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page) == []
    assert (said, asked) == ([], [])
    page.close()


def test_a_later_picture_wins(browser: Any, report: Path, tmp_path: Path) -> None:
    page, said, _ = opened(browser, report)
    Image.fromarray(noise(3000, 4000, 3)).save(tmp_path / "large.png")
    small = report.with_name("generated_image_1.png")
    page.set_input_files("#live-file", str(tmp_path / "large.png"))
    page.set_input_files("#live-file", str(small))
    page.wait_for_selector("#live-result:not([hidden])", timeout=TIMEOUT)
    page.wait_for_timeout(2500)  # the large one would have been shown by then
    assert "4000 × 3000" not in page.inner_text("#live-said")
    page.click("#live-parts")
    page.set_input_files("#live-file", str(report.with_name("generated_image_2.png")))
    page.wait_for_selector("#live-counting", state="hidden", timeout=TIMEOUT)
    page.wait_for_selector("#live-parts:enabled", timeout=4 * TIMEOUT)
    page.wait_for_timeout(1000)
    assert page.locator("#live-counting").is_hidden()
    assert "lowers" not in page.inner_text("#live-said")
    assert said == []
    page.close()


def test_what_is_no_picture_is_said(browser: Any, report: Path, tmp_path: Path) -> None:
    page, said, _ = opened(browser, report)
    (tmp_path / "a.png").write_bytes(b"no picture")
    page.set_input_files("#live-file", str(tmp_path / "a.png"))
    page.wait_for_selector("#live-said.bad", timeout=TIMEOUT)
    assert page.inner_text("#live-said") == "This is not a picture that the browser can read."
    page.set_input_files("#live-file", str(report.with_name("generated_image_2.png")))
    page.wait_for_selector("#live-said:not(.bad)", timeout=TIMEOUT)
    page.click("#live-camera")
    page.wait_for_selector("#live-said.bad", timeout=TIMEOUT)
    assert "no camera" in page.inner_text("#live-said")
    assert said == []
    page.close()


def test_the_page_of_the_classifier_in_the_box_has_6_mb_at_most(report: Path) -> None:
    assert report.stat().st_size <= 6_000_000


def test_a_static_page_runs_nothing(diptych_command: Any, tmp_path: Path) -> None:
    done = diptych_command("run", "the sea", "-n", 1, "--static", "--out", tmp_path / "out")
    assert done.status == 0, done.err
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "runs no script" in page


def test_a_model_that_no_page_can_hold_gives_a_static_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    large = Dense(rng.normal(size=(1000, 3 * 32 * 32)).astype(np.float32))
    model = Model(Chain((Flatten(), large, Softmax())), named("colour-32"), None, (3, 32, 32), True, "large")
    found = living(model, named("colour-32"), True, ("a",))
    assert isinstance(found, str)
    assert "the page is static: the model takes 11 MB, and a page holds one of up to 8 MB" in found
    filtering = Model(Chain((Conv(np.ones((1, 3, 3, 3), np.float32)),)), named("colour-32"), name="filter")
    made = diptych.run("the sea", count=1, model=filtering, out=tmp_path / "out")
    assert "the page is static: the model is not a classifier" in made.remarks
    assert isinstance(living(diptych.load_model("scenes"), named("colour-32"), True, ("a",)), Living)


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


@pytest.mark.parametrize("gamma", [100_000, 45_455])
def test_the_gamma_of_a_png_is_left_out_as_in_python(browser: Any, report: Path, gamma: int) -> None:
    page, said, _ = opened(browser, report)
    pixels = noise(60, 40, 3)
    whole = base64.b64decode(png(pixels))
    primaries = b"".join(
        n.to_bytes(4, "big") for n in (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    )
    changed = whole[:33] + chunk(b"gAMA", gamma.to_bytes(4, "big")) + chunk(b"cHRM", primaries) + whole[33:]
    model = diptych.load_model("scenes")
    found = page.evaluate(DRAWN, base64.b64encode(changed).decode())["9"]
    assert (
        np.abs(
            np.array(found) - diptych.predict(model, model.preprocessing.apply(pixels)[np.newaxis])[0]
        ).max()
        < 1e-6
    )
    assert said == []
    page.close()


def test_a_picture_that_no_canvas_takes_is_refused(browser: Any, report: Path, tmp_path: Path) -> None:
    page, said, _ = opened(browser, report)
    Image.new("RGB", (40_000, 2)).save(tmp_path / "long.png")
    page.set_input_files("#live-file", str(tmp_path / "long.png"))
    page.wait_for_selector(
        "#live-said.bad:has-text('40000 × 2 pixels, and a page draws up to 32,767')", timeout=TIMEOUT
    )
    assert said == []
    page.close()
