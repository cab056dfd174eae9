"""Makes the notebooks beside this file from their sources, and runs them: `python make.py [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
from nbclient import NotebookClient

HERE = Path(__file__).parent
SOURCES = sorted(path for path in HERE.glob("*.py") if path.name != "make.py")


def make(source: Path, folder: Path) -> Path:
    """Runs a notebook in `folder` and writes it there; raises where a cell fails."""
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell.metadata.pop("execution", None)
    path = folder / f"{source.stem}.ipynb"
    jupytext.write(notebook, path)
    return path


if __name__ == "__main__":
    import shutil
    import tempfile

    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for each in SOURCES:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(make(each, Path(folder)), target)
        print(target / f"{each.stem}.ipynb")
