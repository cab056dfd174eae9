"""What axe finds wrong with a page, by the rules of WCAG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def violations(page: Any) -> list[tuple[str, str]]:
    """The rule and the first element of each violation."""
    axe = pytest.importorskip("axe_playwright_python").__path__[0]
    if not page.evaluate("'axe' in window"):
        page.evaluate(Path(axe, "axe.min.js").read_text("utf-8"))
    found = page.evaluate("axe.run()")
    return [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]]
