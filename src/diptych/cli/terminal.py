"""What the command line shows: results on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from diptych import files
from diptych.files import escaped
from diptych.progress import Progress, silent

if TYPE_CHECKING:
    from diptych.batch.results import Job
    from diptych.errors import WeightsAlone
    from diptych.predictions import Predictions

__all__ = ["Terminal"]

_SECONDS_BETWEEN_LINES = 30.0


class Terminal:
    """The two streams, under the options of every command: `--json` and `--quiet`."""

    _last: Terminal | None = None  # of the command that runs

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._shown: list[str] = []
        Terminal._last = self

    @classmethod
    def show_left(cls, guessed: Sequence[str]) -> None:
        """Prints what reading a model had to guess, unless the command has shown it itself."""
        terminal, cls._last = cls._last, None
        for text in guessed if terminal is not None else ():
            if terminal is not None and not any(text in shown for shown in terminal._shown):
                terminal.remark(text)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Progress on stderr while the block runs: a bar, or a line now and then in a pipe.

        Nothing with `--quiet` or `--json`.
        """
        if self.quiet or self.as_json:
            yield silent
        elif sys.stderr.isatty():
            with _bar() as show:
                yield show
        else:
            yield _Lines()

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

    def job(self, job: Job) -> NoReturn:
        """Shows a table that was written, and ends the command."""
        import typer

        self.remarks(job.remarks, job.failures)
        pictures = "picture" if job.rows == 1 else "pictures"
        failed = f", {job.failed:,} of them could not be used" if job.failed else ""
        self.result(job.to_document(), f"{job.rows:,} {pictures}{failed}: {job.out}")
        raise typer.Exit(0 if not job.failed else 1)

    def failure(self, text: str) -> None:
        """Prints something that went wrong, on stderr, whatever the options are."""
        print(f"diptych: {escaped(text)}", file=sys.stderr)


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("", speed="")
        speed = _Speed()

        def show(done: int, total: int, what: str) -> None:
            text = speed.text(done, total, what)
            bars.update(bar, completed=done, total=total, description=escaped(what), speed=text)

        yield show


class _Lines:
    """Progress where nobody watches: a line on stderr every half a minute."""

    def __init__(self) -> None:
        self._speed, self._next = _Speed(), monotonic() + _SECONDS_BETWEEN_LINES

    def __call__(self, done: int, total: int, what: str) -> None:
        text = self._speed.text(done, total, what)
        if monotonic() < self._next:
            return
        self._next = monotonic() + _SECONDS_BETWEEN_LINES
        print(
            escaped(f"{what}: {done:,} of {total:,}{', ' if text else ''}{text}"), file=sys.stderr, flush=True
        )


class _Speed:
    """How fast the work has gone, counted from the first report about it."""

    def __init__(self) -> None:
        self._what, self._begun, self._first, self._last = "", 0.0, 0, 0

    def text(self, done: int, total: int, what: str) -> str:
        """The rate and the time left, such as "412/s, 3 min 20 s left"; empty where it cannot be told yet."""
        now = monotonic()
        if what != self._what or done < self._last:
            self._what, self._begun, self._first = what, now, done
        self._last = done
        seconds = now - self._begun
        if done <= self._first or seconds < 1:
            return ""
        rate = (done - self._first) / seconds
        shown = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
        return f"{shown}, {_duration((total - done) / rate)} left"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


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
