"""The whole way, one step a line: a prompt or pictures -> inputs -> predictions -> feature maps -> one report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from diptych.images.arguments import Images
from diptych.images.generation import remarks_on
from diptych.journal import Journal
from diptych.loading import Recipe, load_model
from diptych.model.model import Model
from diptych.pipeline import page, steps
from diptych.pipeline.request import NAMES, OnError, Request, command_line, keep_originals, request_of
from diptych.predictions import Predictions
from diptych.progress import Progress, silent
from diptych.report.content import Skipped

__all__ = ["RunResult", "run"]


@dataclass(frozen=True)
class RunResult:
    """What a run left in its folder. `failures` holds a sentence for every picture that could not be read."""

    out: Path
    images: tuple[Path, ...]
    predictions: Predictions | None
    files: Mapping[str, str]
    failures: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)

    @property
    def report(self) -> Path:
        """The page that shows all of it."""
        return self.out / "report.html"

    @property
    def ok(self) -> bool:
        """Whether every picture could be used."""
        return not self.failures

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "out": str(self.out),
            "report": str(self.report),
            **(self.predictions.to_document() if self.predictions else {"predictions": None}),
            "files": dict(self.files),
            "failures": list(self.failures),
            "remarks": list(self.remarks),
            "timings": dict(self.timings),
        }


def run(
    prompt: str | None = None,
    *,
    images: Images | None = None,
    out: str | Path = "out",
    model: Model | str | Path = "scenes",
    architecture: str | Path | None = None,
    written_by: str | None = None,
    key: str | None = None,
    preprocessing: Recipe | None = None,
    count: int = 3,
    seed: int = 0,
    generator: str = "scenes",
    width: int | None = None,
    height: int | None = None,
    maps: str = "conv",
    scale: Literal["shared", "per-map"] = "per-map",
    on_error: OnError = "report",
    overwrite: bool = False,
    engine: str = "auto",
    device: str = "auto",
    progress: Progress = silent,
    **options: Any,
) -> RunResult:
    """Takes a prompt, or existing `images`, all the way to `out/report.html`.

    Pictures are made by `generator` from `prompt` (`count`, `seed`, `width`, `height`, its own `options`),
    or read from `images`; with both, the images stand for pictures of that prompt. `model` is a file, a name
    or a `Model` (`architecture`: what to fill where the file holds weights alone; `written_by`: which Flux
    wrote it, where the file does not tell; `key`: which of several models in it); its own recipe is used
    unless `preprocessing` names another. `maps` are the layers to draw: "conv", "all" or paths such as
    "0,3.1". A picture that cannot be read becomes a sentence in `failures`, and with
    `on_error="test-pattern"` a marked test pattern takes its place.

    A run that was interrupted continues where it stopped when it is called again with the same arguments.
    Raises `OutputError` where `out` holds another run (unless `overwrite`), `ImageError` where no picture
    can be read, and whatever the model, the recipe and the generator raise, before anything is written.
    """
    making = {
        "count": count,
        "seed": seed,
        "generator": generator,
        "width": width,
        "height": height,
        **options,
    }
    loaded = load_model(model, architecture, written_by, key)
    request = request_of(prompt, images, loaded, preprocessing, making, maps, scale, on_error, engine, device)
    keep_originals(request, Path(out))
    journal = Journal(Path(out), request.settings(), NAMES, overwrite=overwrite)
    how = {
        "architecture": architecture,
        "written_by": written_by,
        "key": key,
        "maps": maps,
        "scale": scale,
        "on_error": on_error,
        "engine": engine,
        "device": device,
    }
    journal.note(command=command_line(prompt, images, out, model, preprocessing, making, how))
    try:
        return _run(request, journal, progress)
    finally:
        journal.save()  # an interruption too leaves a record of what is finished


def _run(request: Request, journal: Journal, progress: Progress) -> RunResult:
    skipped: list[Skipped] = []
    with journal.timed("images"):
        seen = steps.see(request, journal, skipped, progress)
    with journal.timed("predict"):
        batch = steps.batch_of(seen)
        predictions = steps.predict(request, journal, batch, [s.picture.name for s in seen], progress)
    with journal.timed("plots"):
        plots = steps.plot(request, journal, batch, seen[0], progress)
    with journal.timed("report"):
        journal.make("report.html", partial(page.write, request, journal, seen, predictions, plots, skipped))
    remarks = dict.fromkeys(remark for one in seen for remark in remarks_on(one.picture))
    failures = tuple(one.reason for one in skipped)
    journal.note(status="done", failures=failures, remarks=list(remarks))
    return RunResult(
        journal.out,
        tuple(s.original for s in seen),
        predictions,
        journal.files,
        failures,
        tuple(remarks),
        journal.timings,
    )
