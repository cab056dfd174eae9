"""The Julia source in a file: a script, a notebook of Jupyter or Pluto, or the code blocks of a Markdown file."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.errors import FormatError
from diptych.files import opened

__all__ = ["SUFFIXES", "Source", "is_julia_notebook", "source_of"]

SUFFIXES = (".jl", ".ipynb", ".md")
_LARGEST = 32 * 2**20  # bytes of a file: notebooks hold pictures
_LARGEST_CODE = 2 * 2**20  # characters of Julia


@dataclass(frozen=True)
class Source:
    """The source as one text, and where each of its lines is in the file: "12" or "cell 3, line 2"."""

    text: str
    places: tuple[str, ...]
    name: str

    def place(self, row: int) -> str:
        """A line, counted from 0, as messages name it: "model.jl:12"."""
        place = self.places[row] if 0 <= row < len(self.places) else str(row + 1)
        return f"{self.name}:{place}" if place.isdigit() else f"{self.name}, {place}"


_MOST_OPEN_COMMENTS = 100


def source_of(path: Path) -> Source:
    """Reads the Julia source in a file.

    Raises:
        FormatError: The file cannot be read, is not UTF-8, is no notebook, or holds no Julia.
    """
    text = _text(path)
    suffix = path.suffix.lower()
    if suffix == ".ipynb":
        lines = _notebook(text, path)
    elif suffix == ".md":
        lines = _markdown(text)
        if not lines:
            raise FormatError(f"{path} holds no block of Julia: a block begins with a line ```julia")
    else:
        lines = [(line, str(number)) for number, line in enumerate(text.split("\n"), 1)]
    code = "\n".join(line for line, _ in lines)
    if len(code) > _LARGEST_CODE:
        raise FormatError(f"{path} holds {len(code)} characters of Julia, more than {_LARGEST_CODE}")
    if (
        code.count("#=") > code.count("=#") + _MOST_OPEN_COMMENTS
    ):  # the parser would read on from each to the end
        raise FormatError(
            f"{path} holds comments (#=) that do not end (=#); it may have been cut off while copying"
        )
    return Source(code, tuple(place for _, place in lines), str(path))


def _text(path: Path) -> str:
    try:
        with opened(path) as stream:
            data = stream.read(_LARGEST + 1)
    except FileNotFoundError as error:
        raise FormatError(f"there is no file {path}; check the path") from error
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > _LARGEST:
        raise FormatError(f"{path} is larger than {_LARGEST} bytes, too large for Julia source")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not text in UTF-8; Julia source is") from error


def is_julia_notebook(document: Any) -> bool:
    """Whether a notebook has a Julia kernel, or does not say which."""
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if not isinstance(metadata, dict):
        return True
    found = [metadata.get(key) for key in ("kernelspec", "language_info")]
    names = [str(f.get("language", f.get("name", ""))) for f in found if isinstance(f, dict)]
    return not names or any(name.lower().startswith("julia") for name in names)


def _notebook(text: str, path: Path) -> list[tuple[str, str]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not a Jupyter notebook: it is not JSON") from error
    cells = document.get("cells") if isinstance(document, dict) else None
    if cells is None and isinstance(document, dict):  # version 3
        sheets = document.get("worksheets")
        cells = (
            sheets[0].get("cells")
            if isinstance(sheets, list) and sheets and isinstance(sheets[0], dict)
            else None
        )
    if not isinstance(cells, list):
        raise FormatError(f"{path} is not a Jupyter notebook: it has no cells")
    if not is_julia_notebook(document):
        raise FormatError(
            f"{path} is a notebook of another language, where one with a Julia kernel is expected"
        )
    lines = []
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        content = cell.get("source", cell.get("input", ""))
        code = "".join(map(str, content)) if isinstance(content, list) else str(content)
        lines += [(line, f"cell {number}, line {row}") for row, line in enumerate(code.split("\n"), 1)]
    return lines


_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})\s*(.*)$")


def _markdown(text: str) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    fence, julia = "", False
    for number, line in enumerate(text.split("\n"), 1):
        found = _FENCE.match(line)
        if found and not fence:
            fence = found[1]
            language = found[2].strip().lstrip("{.@").lower()
            julia = language.startswith(("julia", "jl", "example", "repl"))
        elif found and found[1].startswith(fence) and not found[2]:
            fence = ""
            lines += [("", str(number))] if julia else []
        elif fence and julia:
            lines.append((re.sub(r"^julia> ", "", line), str(number)))
    return lines
