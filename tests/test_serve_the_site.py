"""`diptych serve` has the page in the browser, which asks it for what needs Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import diptych
from browser import TIMEOUT, chromium
from diptych.datasets.photographs import photograph
from little_models import classifier
from little_server import serving


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "coffee.png"
    Image.fromarray(photograph("coffee")).save(path)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def opened(browser: Any, server: Any, view: str) -> tuple[Any, list[str]]:
    page = browser.new_page()
    bad: list[str] = []
    page.on("console", lambda message: bad.append(message.text))
    page.on("pageerror", lambda error: bad.append(str(error)))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((server.address, "blob:")) else bad.append(asked.url),
    )
    page.goto(f"{server.address}/#{view}", timeout=TIMEOUT)
    page.wait_for_selector(f'#view-{view}[aria-busy="false"]', timeout=2 * TIMEOUT)
    return page, bad


def test_models_of_the_server_and_files_that_need_python(browser: Any, picture: Path, tmp_path: Path) -> None:
    model = classifier().with_(name="little")
    diptych.write(model, tmp_path / "little.pt")
    with serving("scenes", "--allow-uploads") as server:
        page, bad = opened(browser, server, "run")
        page.set_input_files("#run-picture-file", str(picture))
        page.select_option("#run-model", "server:scenes")
        expected = diptych.predict("scenes", picture)[0]
        row = f"#run-bars tr:first-child td:has-text('{100 * expected.max():.1f} %')"
        page.wait_for_selector(row, timeout=TIMEOUT)
        page.wait_for_selector('#view-run[aria-busy="false"]', timeout=TIMEOUT)
        page.close()
        assert bad == []
        page, bad = opened(browser, server, "open")
        page.set_input_files("#open-file", str(tmp_path / "little.pt"))
        page.wait_for_selector("#open-said:has-text('little.pt,')", timeout=2 * TIMEOUT)
        assert "pt, converted by the server" in page.inner_text("#open-facts")
        (tmp_path / "bad.pt").write_bytes(b"no model")
        page.set_input_files("#open-file", str(tmp_path / "bad.pt"))
        page.wait_for_selector("#open-said.bad", timeout=TIMEOUT)
        assert "does not hold PyTorch" in page.inner_text("#open-said")
        assert [text for text in bad if "status of 4" not in text] == []  # what Chromium says of a refusal
        page.close()


def test_without_leave_to_upload_the_page_says_what_to_do(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"no model")
    with serving("scenes") as server:
        page, bad = opened(browser, server, "open")
        page.set_input_files("#open-file", str(tmp_path / "a.pt"))
        page.wait_for_selector("#open-said.bad", timeout=TIMEOUT)
        assert "diptych convert a.pt model.onnx" in page.inner_text("#open-said")
        assert bad == []
        page.close()
