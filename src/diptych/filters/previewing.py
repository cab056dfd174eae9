"""Previews of a filter model: input, target, output and amplified error as PNG files, and a page."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UsageError
from diptych.files import replacing, sole_writer
from diptych.filters.evaluating import (
    Compared,
    FilterEvaluation,
    PictureScore,
    decibels,
    evaluate_samples,
    percent,
)
from diptych.filters.learned import Learned, notes_of
from diptych.filters.metrics import to_levels
from diptych.filters.samples import FilterSample, answering, filter_of, gather, target_of
from diptych.filters.verdicts import MEANINGS
from diptych.images import files
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.progress import Progress, silent

__all__ = ["Preview", "preview", "write_page"]

_NOT_FOLDERS = (*files.SUFFIXES, ".html")
_STRONGEST = 256  # an error of one level is then white; smaller errors are invisible in 8 bits
_METHOD_COLUMNS = ("kind of network", "weights", "PSNR", "seconds", "remark")


@dataclass(frozen=True)
class Preview:
    """What was written by `preview`.

    Attributes:
        report: The page.
        paths: The pictures, and the learning curve where there is one.
        evaluation: The scores on the page.
        factors: For each picture by name, the factor by which its error was multiplied.
    """

    report: Path
    paths: tuple[Path, ...]
    evaluation: FilterEvaluation
    factors: Mapping[str, int]

    def to_document(self) -> dict[str, Any]:
        """All fields, as values that JSON can hold."""
        return {
            "report": str(self.report),
            "files": [str(path) for path in self.paths],
            "factors": dict(self.factors),
            "evaluation": self.evaluation.to_document(),
        }

    def text(self) -> str:
        """A few lines for a terminal."""
        shown = ", ".join(f"{name} × {factor}" for name, factor in self.factors.items())
        return f"{self.evaluation.text()}\nerrors shown: {shown}\nreport: {self.report}"


def preview(
    model: Learned | Model | str | Path,
    images: Any = None,
    target: Any = None,
    out: str | Path = "preview",
    *,
    engine: str = "auto",
    progress: Progress = silent,
) -> Preview:
    """Shows what a model makes of pictures, as PNG files and a page.

    For each picture, NAME-input.png, NAME-target.png, NAME-output.png and NAME-error.png are written to `out`, and
    report.html for all. The error is the largest over the channels, times a power of two up to 256, chosen so that
    all but a thousandth of the pixels stay below white.

    Args:
        model: What `learn` returns, a model, or the path of a model file.
        images: See `evaluate`.
        target: See `evaluate`.
        out: The folder to write to.
        engine: The engine that runs the model; "auto" chooses one.
        progress: Called with the pictures done, all pictures, and a picture's name.

    Returns:
        The paths and the scores.

    Raises:
        ModelError: The model is not a filter.
        UsageError: `out` is a file, or see `evaluate`.
        ImageError: A picture cannot be read.
        OutputError: `out` cannot be written.
    """
    if Path(out).suffix.lower() in _NOT_FOLDERS or Path(out).is_file():
        raise UsageError(f"a preview is written to a folder, and {out} is the name of a file; name a folder")
    loaded = filter_of(model)
    resolved = target_of(loaded, target)
    samples = gather(loaded, resolved, images)
    answers = answering(loaded, engine)
    compared = []
    for index, sample in enumerate(samples):
        progress(index, len(samples), sample.name)
        compared.append(Compared(sample.name, *answers(sample.picture), sample.target))
    evaluation = evaluate_samples(
        loaded,
        samples,
        target=resolved.name,
        reference=resolved.reference,
        padding_mode=resolved.edge,
        compared=compared,
    )
    folder, report = Path(out), Path(out) / "report.html"
    stems = _stems([sample.name for sample in samples])
    with sole_writer(folder):
        drawn = [
            _draw(folder, stem, sample, each.given, each.rounded)
            for stem, sample, each in zip(stems, samples, compared, strict=True)
        ]
        curve = _draw_curve(folder / "learning_curve.png", loaded, evaluation)
        _write_report(report, loaded, evaluation, drawn, curve)
    paths = [path for each in drawn for path in each.paths] + ([curve] if curve else [])
    factors = {sample.name: each.factor for sample, each in zip(samples, drawn, strict=True)}
    return Preview(report, tuple(paths), evaluation, factors)


def write_page(
    path: str | Path, model: Learned | Model | str | Path, images: Any = None, target: Any = None
) -> None:
    """Writes the page of a preview alone, which contains all of its pictures.

    Args:
        path: The HTML file.
        model: See `preview`.
        images: See `evaluate`.
        target: See `evaluate`.

    Raises:
        OutputError: `path` cannot be written. Other errors are those of `preview`.
    """
    with replacing(path) as temporary, tempfile.TemporaryDirectory() as folder:
        made = preview(model, images, target, folder)
        temporary.write_bytes(made.report.read_bytes())


# ---- Pictures -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Drawn:
    """The files of one picture (input, target, output, error), and the factor of the error."""

    paths: tuple[Path, Path, Path, Path]
    factor: int


def _stems(names: Sequence[str]) -> list[str]:
    """Different file names, also for pictures of the same name in different folders."""
    stems: list[str] = []
    for name in names:
        plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip(".")[:80] or "picture"
        stem, count = plain, 2
        while stem in stems:
            stem, count = f"{plain}_{count}", count + 1
        stems.append(stem)
    return stems


def _draw(folder: Path, stem: str, sample: FilterSample, values: Array, levels: Array) -> _Drawn:
    from diptych.report.grid import colours

    error = np.abs(values - sample.target)
    error = error.max(axis=2) if error.ndim == 3 else error
    factor = _factor(error)
    shown = colours("magma")[to_levels(np.clip(error * factor, 0, 1))]
    pixels = (sample.picture, to_levels(sample.target), levels, shown)
    kinds = ("input", "target", "output", "error")
    paths = tuple(folder / f"{stem}-{kind}.png" for kind in kinds)
    for path, each in zip(paths, pixels, strict=True):
        files.write_png(path, each)
    return _Drawn((paths[0], paths[1], paths[2], paths[3]), factor)


def _factor(error: Array) -> int:
    """The largest power of two that leaves all but a thousandth of the errors, 0..1, below 1."""
    high = float(np.quantile(error, 0.999))
    if high * _STRONGEST <= 1:
        return _STRONGEST
    return 1 << max(math.floor(-math.log2(high)), 0)


# ---- How it was learned -------------------------------------------------------------------------------


def _curve(model: Model) -> list[tuple[float, float, float]]:
    """The learning curve in a model's notes; points of another form are left out."""
    points = notes_of(model).get("curve")
    if not isinstance(points, Sequence):
        return []
    return [(p[0], p[1], p[2]) for p in points if isinstance(p, Sequence) and _are_numbers(p, 3)]


def _are_numbers(values: Sequence[Any], count: int) -> bool:
    return len(values) == count and all(isinstance(v, int | float) for v in values)


def _methods(model: Model) -> tuple[tuple[str, ...], ...]:
    notes = notes_of(model)
    methods = notes.get("methods", notes.get("rungs"))  # "rungs" in notes of earlier versions
    rows = []
    for method in methods if isinstance(methods, Sequence) else ():
        if isinstance(method, Mapping) and _are_numbers(
            [method.get(k) for k in ("weights", "psnr", "seconds")], 3
        ):
            figures = (str(method["weights"]), decibels(method["psnr"]), f"{method['seconds']:.2f}")
            rows.append((str(method.get("name", "")), *figures, str(method.get("remark", ""))))
    return tuple(rows)


def _draw_curve(path: Path, model: Model, evaluation: FilterEvaluation) -> Path | None:
    curve = _curve(model)
    if len(curve) < 2:  # a single point is not a curve
        return None
    from diptych.report.curves import learning_curve

    learning_curve(path, curve, evaluation.target or evaluation.model, f"{evaluation.weights} weights")
    return path


# ---- The page -----------------------------------------------------------------------------------------


def _write_report(
    path: Path, model: Model, evaluation: FilterEvaluation, drawn: Sequence[_Drawn], curve: Path | None
) -> None:
    from diptych.report import filtering
    from diptych.report.html import MOST_IMAGES
    from diptych.report.living_filter import living_filter

    shown = [
        filtering.FilterPicture(score.name, *each.paths, each.factor, tuple(_figures(score)))
        for score, each in sorted(zip(evaluation.pictures, drawn, strict=True), key=lambda pair: pair[0].psnr)
    ]
    remarks = [
        "The baselines are fitted to these very pictures. The border, where the model sees beyond the picture, "
        f"is {_border(evaluation)}."
    ]
    stopped = notes_of(model).get("stopped")
    remarks += [f"Learning stopped: {stopped}."] if isinstance(stopped, str) and stopped else []
    live = living_filter(model)
    remarks += [live] if isinstance(live, str) else []
    content = filtering.FilterContent(
        heading=f"{evaluation.target}, imitated" if evaluation.target else evaluation.model,
        verdict=_verdict(evaluation),
        facts=tuple(_facts(model, evaluation)),
        bars=_bars(evaluation, filtering.FilterBar),
        pictures=tuple(shown[:MOST_IMAGES]),
        score_columns=("picture", "PSNR", "SSIM", "largest error", "identical pixels"),
        scores=_score_rows(evaluation),
        method_columns=_METHOD_COLUMNS,
        methods=_methods(model),
        curve=curve,
        remarks=tuple(remarks),
        live=None if isinstance(live, str) else live,
    )
    filtering.write_filter_page(path, content)


def _verdict(evaluation: FilterEvaluation) -> str:
    whole, begun = evaluation.whole, f"{evaluation.verdict.capitalize()}: {_weights(evaluation)}"
    if whole.identical == 1:
        return f"{begun}, and every pixel of every picture is identical to the filter's"
    return f"{begun}, {decibels(whole.pooled_psnr)}, {percent(whole.identical)} of pixels identical"


def _weights(evaluation: FilterEvaluation) -> str:
    from diptych.report.html import thousands

    return "1 weight" if evaluation.weights == 1 else f"{thousands(evaluation.weights)} weights"


def _facts(model: Model, evaluation: FilterEvaluation) -> list[tuple[str, str]]:
    seconds = notes_of(model).get("seconds")
    facts = [("Model", evaluation.model)] if evaluation.model != evaluation.target else []
    facts += [("Target", evaluation.target), ("Reference", evaluation.reference)]
    facts += [("Verdict", f"{evaluation.verdict}: {MEANINGS[evaluation.verdict]}")]
    facts += [("Learned in", f"{seconds:.2f} s")] if isinstance(seconds, int | float) else []
    return [(name, value) for name, value in facts if value]


def _bars(evaluation: FilterEvaluation, bar: Any) -> tuple[Any, ...]:
    without = [
        bar(name, score.pooled_psnr, decibels(score.pooled_psnr))
        for name, score in evaluation.baselines.items()
    ]
    psnr = evaluation.whole.pooled_psnr
    return (*without, bar("this model", psnr, decibels(psnr), own=True))


def _figures(score: PictureScore) -> list[tuple[str, str]]:
    return [
        ("PSNR", decibels(score.psnr)),
        ("SSIM", f"{score.ssim:.5f}"),
        ("Largest error", f"{score.largest} of 255"),
        ("Identical pixels", percent(score.identical)),
    ]


def _score_rows(evaluation: FilterEvaluation) -> tuple[tuple[str, ...], ...]:
    rows = [(score.name, *(value for _, value in _figures(score))) for score in evaluation.pictures]
    for name, scores in (("all", evaluation.whole), ("all, without the border", evaluation.inner)):
        if scores is not None:
            score = PictureScore(name, scores.pooled_psnr, scores.ssim, scores.largest, scores.identical)
            rows.append((name, *(value for _, value in _figures(score))))
    return tuple(rows)


def _border(evaluation: FilterEvaluation) -> str:
    top, left, bottom, right = evaluation.border
    if len({top, left, bottom, right}) == 1:
        return "1 pixel wide" if top == 1 else f"{top} pixels wide"
    return f"{top} pixels at the top, {left} at the left, {bottom} at the bottom and {right} at the right"
