"""A real headless Chromium for the tests, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_PLACES = (
    "/usr/bin/chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
_ARGUMENTS = (
    "--no-sandbox",  # inside a container there is nothing to build a sandbox with
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
)
TIMEOUT = 30_000  # milliseconds


def find_chromium(own: str = "") -> str:
    """The browser to start: `DIPTYCH_CHROMIUM`, one on the path or in a usual place, `own`; or ""."""
    given = os.environ.get("DIPTYCH_CHROMIUM", "")
    if given:
        return given
    found = [path for name in _NAMES if (path := shutil.which(name))]
    found += [place for place in (*_PLACES, own) if place and Path(place).is_file()]
    return found[0] if found else ""


@contextmanager
def chromium() -> Iterator[Any]:
    """A started browser, closed afterwards; the test is skipped, with the reason, where none can be had.

    A browser named by `DIPTYCH_CHROMIUM` must start: then nothing is skipped.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with playwright.sync_playwright() as started:
        executable = find_chromium(started.chromium.executable_path)
        if not executable:
            pytest.skip("no Chromium found: install Debian's package chromium, or set DIPTYCH_CHROMIUM")
        try:
            browser = started.chromium.launch(executable_path=executable, args=[*_ARGUMENTS], timeout=TIMEOUT)
        except playwright.Error as error:
            if "DIPTYCH_CHROMIUM" in os.environ:
                raise
            first = (str(error).strip().splitlines() or ["no reason given"])[0]
            pytest.skip(f"{executable} does not start: {first}")
        try:
            yield browser
        finally:
            browser.close()
