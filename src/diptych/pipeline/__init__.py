"""The verb `run`: a prompt or pictures -> inputs -> predictions -> feature maps -> one report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from diptych import display
from diptych.files import as_text
from diptych.images.arguments import Images, remarks_on_folders
from diptych.images.generation import remarks_on
from diptych.journal import Journal, keeping, there_already
from diptych.loading import ModelLike, Recipe
from diptych.options import ExplainMethod, GenerationOptions, OnError, ReadOptions, RunOptions, ScaleRule
from diptych.pipeline import page, steps
from diptych.pipeline.request import NAMES, Request, command_line, keep_originals, request_of
from diptych.predictions import Predictions
from diptych.progress import Progress, silent
from diptych.report.content import Skipped

__all__ = ["RunResult", "run"]


@dataclass(frozen=True)
class RunResult:
    """What a run left in its folder.

    Attributes:
        out: The folder.
        images: The pictures in it, in order.
        predictions: None where the model is not a classifier.
        files: File name -> SHA-256, of everything that the run wrote.
        failures: One sentence for each picture that could not be read.
        remarks: Sentences to show beside the result.
        timings: Seconds for each step.
    """

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

    def _repr_html_(self) -> str:
        shown = self.predictions._repr_html_() if self.predictions is not None else ""
        lines = [*self.failures, *self.remarks, f"report: {self.report}"]
        return shown + "".join(map(display.paragraph, lines))

    def to_document(self) -> dict[str, Any]:
        """The result as a JSON object."""
        return {
            "out": as_text(self.out),
            "report": as_text(self.report),
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
    model: ModelLike = RunOptions.model,
    architecture: ModelLike | None = None,
    written_by: str | None = None,
    key: str | None = None,
    preprocessing: Recipe | None = None,
    count: int = GenerationOptions.count,
    seed: int = GenerationOptions.seed,
    generator: str = GenerationOptions.generator,
    width: int | None = None,
    height: int | None = None,
    maps: str = RunOptions.maps,
    scale: ScaleRule = RunOptions.scale,
    on_error: OnError = RunOptions.on_error,
    explain: ExplainMethod | None = RunOptions.explain,
    static: bool = RunOptions.static,
    overwrite: bool = False,
    engine: str = RunOptions.engine,
    device: str = RunOptions.device,
    progress: Progress = silent,
    **options: Any,
) -> RunResult:
    """Takes a prompt, or existing pictures, all the way to a page about them.

    A run that was interrupted continues where it stopped when it is called again with the same arguments.

    Args:
        prompt: What to draw. With `images` too, they stand for pictures of this prompt.
        images: Existing pictures: paths, folders, uint8 arrays (H, W, 3) or (H, W), or `Picture`s.
        out: The folder for everything, made where it is missing.
        model: A model, its file or its name.
        architecture: The architecture to fill if the model's file holds weights alone.
        written_by: The version of Flux that wrote the file, if the file does not record it.
        key: Which of several models in the file.
        preprocessing: The recipe; the model's own by default.
        count: How many pictures to make, 1 to 1000.
        seed: The same seed gives the same pictures, 0 to 2**63 - 1.
        generator: "scenes", "tiny", or a diffusers model by id or folder.
        width: Pixels, 16 to 8192; by default what suits the generator.
        height: As `width`.
        maps: The layers to draw: "conv", "all", or paths such as "0,3.1".
        scale: "per-map" for one colour scale for each feature map, "shared" for one for each layer.
        on_error: What becomes of a picture that cannot be read: "report" makes it a sentence in
            `failures`; "test-pattern" also puts a marked test pattern in its place.
        explain: "grad-cam", "occlusion" or "smooth-gradients", to draw what the answer for each picture stands on; see
            `diptych.explain`.
        static: Whether the page runs nothing. Otherwise the model runs in it, if it is a classifier that a browser can
            run: on pictures that are dropped there, with every layer's maps.
        overwrite: Whether to delete the other run that `out` holds.
        engine: One of `engines.ENGINES`, or "auto".
        device: "auto", "cpu", "cuda" or "mps".
        progress: Told after each part of a step.
        **options: The generator's own, such as steps, guidance and negative_prompt.

    Raises:
        OutputError: `out` holds another run, or pictures to read that the run would replace; or another process is
            writing to it.
        ImageError: None of the pictures can be read.
        DiptychError: Whatever the model, the recipe and the generator raise, before anything is written.
    """
    run_options = RunOptions(
        generation=GenerationOptions(count, seed, generator, width, height, options),
        model=model,
        reading=ReadOptions(architecture, written_by, key),
        preprocessing=preprocessing,
        maps=maps,
        scale=scale,
        on_error=on_error,
        explain=explain,
        static=static,
        engine=engine,
        device=device,
    )
    request = request_of(prompt, images, run_options)
    keep_originals(request, Path(out))
    with keeping(out, request.settings(), NAMES, overwrite=overwrite) as journal:
        journal.record(command=command_line(prompt, images, out, run_options))
        return _run(request, journal, progress, remarks_on_folders(images))


def _run(request: Request, journal: Journal, progress: Progress, skipped_files: tuple[str, ...]) -> RunResult:
    skipped: list[Skipped] = []
    with journal.timed("images"):
        seen = steps.see(request, journal, skipped, progress)
    with journal.timed("predict"):
        batch = steps.batch_of(seen)
        predictions = steps.predict(request, journal, batch, [s.picture.name for s in seen], progress)
    with journal.timed("plots"):
        plots = steps.plot(request, journal, batch, seen[0], progress)
        explained, doubts = steps.explain_all(request, journal, seen, progress)
    live, why = page.alive(request, predictions)
    with journal.timed("report"):
        write = partial(page.write, request, journal, seen, predictions, plots, explained, skipped, live)
        journal.make("report.html", write)
    there = [one for one in seen if one.original.name in journal.found]
    remarks = dict.fromkeys(
        (*why, *doubts, *skipped_files, *(remark for one in seen for remark in remarks_on(one.picture)))
    )
    failures = tuple(one.reason for one in skipped)
    journal.record(status="done", failures=failures, remarks=list(remarks))
    return RunResult(
        journal.out,
        tuple(s.original for s in seen),
        predictions,
        journal.files,
        failures,
        (*there_already(len(there), len(seen)), *remarks),
        journal.timings,
    )
