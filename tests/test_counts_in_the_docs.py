"""The counts that the docs state are those that the script measured and kept."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def _script() -> Any:
    spec = importlib.util.spec_from_file_location("golden_files", ROOT / "benchmarks" / "golden_files.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_counts_of_old_checkpoints() -> None:
    script = _script()
    counts = json.loads((ROOT / "benchmarks" / "golden_files.json").read_text())
    assert counts["all"]["WRONG"] == 0
    assert sum(counts["all"][each] for each in ("read", "refused")) == counts["all"]["files"]
    stated = " ".join((ROOT / "docs" / "benchmarks.md").read_text("utf-8").split())
    for sentence in script.sentences(counts):
        assert sentence in stated
    exchange = (ROOT / "docs" / "exchange.md").read_text("utf-8").splitlines()
    for row in script.table(counts):
        assert row in exchange
