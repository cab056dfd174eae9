"""The documentation does what it says: every block of the tutorials and how-to pages runs, in a new folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sybil = pytest.importorskip("sybil", reason="the package sybil is not installed")

from sybil import Example  # noqa: E402
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser  # noqa: E402

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*DOCS.glob("tutorials/*.md"), *DOCS.glob("how-to/*.md"), DOCS / "index.md", ROOT / "README.md"]
)


def in_shell(example: Example) -> None:
    """Runs a block of shell commands, which must all succeed, with `diptych` on the path."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-eu", "-c", str(example.parsed)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{example.parsed}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    parsers = [PythonCodeBlockParser(), CodeBlockParser("sh", in_shell)]
    document: Any = sybil.Sybil(parsers).parse(page)
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    told = len(re.findall(r"^```(sh|python)$", page.read_text("utf-8"), re.MULTILINE))
    assert len(examples) == told


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page: Path) -> None:
    opened = re.findall(r"^```+([^\n`]*)$", page.read_text("utf-8"), re.MULTILINE)[::2]
    known = {"sh", "python", "text", "julia", "{toctree}", "{image} images/report-light.png"}
    assert set(opened) <= known


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the package sphinx is not installed")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(DOCS),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "try" / "index.html").is_file()
    assert "diptych.predict" in (tmp_path / "reference" / "python.html").read_text("utf-8")
    missing = [
        (page.name, target)
        for page in tmp_path.rglob("*.html")
        for target in re.findall(r'(?:href|src)="([^"#?:]+)(?:[#?][^"]*)?"', page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert missing == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["feature_extraction", "image_filters", "image_generation_and_inference", "the_flux_side"]
)
def test_a_notebook_runs_and_is_as_its_source(name: str, tmp_path: Path) -> None:
    jupytext = pytest.importorskip("jupytext", reason="the package jupytext is not installed")
    client = pytest.importorskip("nbclient", reason="the package nbclient is not installed")
    notebook = jupytext.read(ROOT / "examples" / "notebooks" / f"{name}.py")
    stored = jupytext.read(ROOT / "examples" / "notebooks" / f"{name}.ipynb")
    assert [cell.source for cell in notebook.cells] == [cell.source for cell in stored.cells]
    client.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell.outputs or "=" in cell.source for cell in stored.cells if cell.cell_type == "code")
