"""What the command line shows: results on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diptych import files
from diptych.files import escaped
from diptych.progress import Progress, silent

if TYPE_CHECKING:
    from diptych.errors import WeightsAlone
    from diptych.predictions import Predictions

__all__ = ["Terminal"]


class Terminal:
    """The two streams, under the options of every command: `--json` and `--quiet`."""

    _last: Terminal | None = None  # of the command that runs

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._shown: list[str] = []
        Terminal._last = self

    @classmethod
    def show_left(cls, heard: Sequence[str]) -> None:
        """Prints what reading a model had to guess, unless the command has shown it itself."""
        terminal, cls._last = cls._last, None
        for text in heard if terminal is not None else ():
            if terminal is not None and not any(text in shown for shown in terminal._shown):
                terminal.remark(text)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A progress bar on stderr while the block runs; none in a pipe, with `--quiet` or `--json`."""
        if self.quiet or self.as_json or not sys.stderr.isatty():
            yield silent
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        description = TextColumn("{task.description}", markup=False)
        columns = (description, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task("")

            def show(done: int, total: int, what: str) -> None:
                bars.update(bar, completed=done, total=total, description=escaped(what))

            yield show

    def result(self, document: Any, text: str) -> None:
        """Prints the result: a JSON document with `--json`, else text unless `--quiet`."""
        if self.as_json:
            print(json_text(document, indent=2))
        elif not self.quiet:
            print(escaped(text))
            self._shown.append(text)

    def remark(self, text: str) -> None:
        """Prints something to know beside the result, on stderr."""
        if not self.quiet:
            print(escaped(text), file=sys.stderr)
            self._shown.append(text)

    def remarks(self, remarks: Sequence[str], failures: Sequence[str] = ()) -> None:
        """Prints everything to know beside the result: remarks, then what went wrong."""
        for remark in remarks:
            self.remark(remark)
        for failure in failures:
            self.failure(failure)

    def failure(self, text: str) -> None:
        """Prints something that went wrong, on stderr, whatever the options are."""
        print(f"diptych: {escaped(text)}", file=sys.stderr)


def json_text(document: Any, indent: int | None = None) -> str:
    """`document` as JSON that any terminal, and any encoding of standard output, can take.

    Characters stay readable where the output's encoding has them; all others, and those that could steer a
    terminal, are written as the escapes of JSON.
    """
    text = files.json_text(document, indent)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return json.dumps(document, indent=indent)
    return text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns of plain text, for a terminal or a pipe."""
    rows = [[escaped(cell.replace("\n", " ")) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in [head, ["-" * width for width in widths], *rows]]  # fmt: skip
    return "\n".join(lines)


def predictions_text(predictions: Predictions, top: int = 3) -> str:
    """One line for each picture, with the `top` classes and their values."""
    untrained = {"untrained": " (UNTRAINED weights: the values say nothing about the picture)"}
    head = f"model: {predictions.model or 'unnamed'}{untrained.get(predictions.standing, '')}"
    rows = []
    for row in predictions.rows:
        order = sorted(range(len(row.values)), key=lambda i: -row.values[i])[:top]
        rows.append([row.image, *(f"{predictions.classes[i]} {row.values[i]:.4f}" for i in order)])
    shown = min(top, len(predictions.classes))
    columns = ["image", f"best {predictions.kind}", *(f"{i}." for i in range(2, shown + 1))]
    return f"{head}\n{table(columns, rows)}"


def weights_text(weights: WeightsAlone) -> tuple[dict[str, Any], str]:
    """What a file holds that has weights and no model: as a document, and as text."""
    rows = [[name, " x ".join(map(str, sizes))] for name, sizes in weights.arrays]
    lines = ["The file holds weights alone, not a model.", "", table(["array", "sizes"], rows)]
    if weights.layers:
        lines += [
            "",
            f"Layers of these sizes: {weights.layers}",
            "Activations, pools and paddings leave no trace.",
        ]
    lines += ["", "Name the model they belong to: --architecture model.jl, another model file, or a name."]
    document = {
        "weights": [{"name": name, "sizes": list(sizes)} for name, sizes in weights.arrays],
        "layers": weights.layers or None,
    }
    return document, "\n".join(lines)
