"""The page of a filter is alive: in a real browser it gives what `apply` gives, and sends nothing anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from accessibility import violations
from browser import TIMEOUT, chromium
from diptych import filters
from diptych.model.layers import AdaptiveMeanPool, Chain, Upsample
from diptych.model.model import Model
from diptych.preprocessing import Grey, Preprocessing, Scale
from diptych.report.living_filter import living_filter
from filter_models import blur, luma, network, picture

APPLIED = """async () => {
    const { width, height, channels, data } = await diptych.apply(document.getElementById("live-file").files[0]);
    return { size: [height, width, channels], data: Array.from(data) };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def opened(browser: Any, model: Model, folder: Path, **options: Any) -> tuple[Any, list[str]]:
    shown = picture(1, 40, 50, 3, np.uint8)
    like = filters.apply(model, shown, engine="numpy")
    target = (lambda pixels: pixels) if like.ndim == 3 else (lambda pixels: pixels[..., 0])
    made = filters.preview(model, [shown], target, folder, engine="numpy")
    page = browser.new_page(**options)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    page.goto(Path(made.report).as_uri(), timeout=TIMEOUT)
    page.evaluate("diptych.ready()")
    return page, said


MODELS = {
    "blur": blur(),
    "blur that wraps": blur("wrap", 3),
    "grey": luma().with_(preprocessing=None),
    "grey as OpenCV rounds it": blur(channels=1).with_(
        preprocessing=Preprocessing((Grey("opencv"), Scale()))
    ),
    **{f"network {seed}": network(seed, mode) for seed, mode in enumerate(("zero", "reflect"))},
}


@pytest.mark.parametrize("name", MODELS)
def test_it_gives_what_apply_gives(browser: Any, tmp_path: Path, name: str) -> None:
    model = MODELS[name]
    page, said = opened(browser, model, tmp_path / "page")
    for number, (height, width) in enumerate([(31, 47), (1500, 700)]):  # the second takes several strips
        pixels = picture(number, height, width, 3, np.uint8)
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        page.set_input_files("#live-file", str(path))
        found = page.evaluate(APPLIED)
        expected = filters.apply(model, pixels, engine="numpy")
        values = np.array(found["data"], np.uint8).reshape(found["size"])
        values = values[..., 0] if expected.ndim == 2 else values
        apart = np.abs(values.astype(int) - expected)
        assert apart.max() <= 1, np.argwhere(apart > 1)[:3]
        assert (apart > 0).mean() < 1e-3  # half a level, which is rounded either way
    assert said == []
    page.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_a_picture_is_filtered_and_judged(browser: Any, tmp_path: Path, scheme: str, width: int) -> None:
    page, said = opened(
        browser, blur(), tmp_path / "p", color_scheme=scheme, viewport={"width": width, "height": 900}
    )
    pixels = picture(3, 300, 500, 3, np.uint8)
    wanted = filters.apply(blur(), pixels)
    wanted[0, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "in.png")
    Image.fromarray(wanted).save(tmp_path / "wanted.png")
    Image.fromarray(wanted[1:]).save(tmp_path / "smaller.png")
    page.set_input_files("#live-file", str(tmp_path / "in.png"))
    page.wait_for_selector("#live-result:not([hidden])", timeout=TIMEOUT)
    assert page.inner_text("#live-said").startswith("500 × 300 pixels in ")
    page.set_input_files("#live-target", str(tmp_path / "wanted.png"))
    page.wait_for_selector("#live-judged:has-text('Beside wanted.png')", timeout=TIMEOUT)
    words = page.inner_text("#live-judged")
    assert "largest error 1 of 255 levels, 99.99 % of pixels identical" in words
    page.set_input_files("#live-target", str(tmp_path / "smaller.png"))
    page.wait_for_selector("#live-judged.bad", timeout=TIMEOUT)
    assert "500 × 299 pixels, and the picture 500 × 300" in page.inner_text("#live-judged")
    assert violations(page) == []
    page.select_option("#live-size", "actual")
    assert page.evaluate("document.getElementById('live-after').getBoundingClientRect().width") == 500
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with page.expect_download(timeout=TIMEOUT) as download:
        page.click("#live-save")
    saved = np.asarray(Image.open(download.value.path()).convert("RGB"))
    assert np.abs(saved.astype(int) - wanted).max() <= 1
    (tmp_path / "bad.png").write_bytes(b"no picture")
    page.set_input_files("#live-file", str(tmp_path / "bad.png"))
    page.wait_for_selector("text=This is not a picture", timeout=TIMEOUT)
    assert said == []
    page.close()


def test_what_is_no_filter_of_local_layers_has_a_static_page_that_says_why() -> None:
    model = Model(
        Chain((AdaptiveMeanPool((4, 4)), Upsample((2, 2)))), input_shape=(3, None, None), name="pool"
    )
    assert "static, because" in str(living_filter(model))
