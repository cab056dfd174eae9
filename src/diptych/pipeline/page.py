"""The report of a run: what the run knows, as the report's own records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diptych.journal import Journal, versions
from diptych.model.summary import Row, summarise
from diptych.pipeline.request import Request
from diptych.pipeline.steps import Plots, Seen
from diptych.predictions import Predictions
from diptych.report.content import Facts, Figure, ImageResult, LayerRow, ReportContent, Skipped
from diptych.report.html import write_report
from diptych.report.living import Living, living

__all__ = ["alive", "write"]


def write(
    request: Request,
    journal: Journal,
    seen: list[Seen],
    predictions: Predictions | None,
    plots: Plots,
    explained: Sequence[Figure],
    skipped: list[Skipped],
    live: Living | None,
    path: Path,
) -> None:
    """Writes the report.

    Args:
        request: What was asked for.
        journal: The record of the run.
        seen: The pictures, in order.
        predictions: None where the model is not a classifier.
        plots: The plots of the first picture.
        explained: For each picture what its answer stands on, or empty.
        skipped: The pictures that could not be used.
        live: What makes the page alive, or None.
        path: The HTML file to write.
    """
    recipe, model = request.recipe, request.model
    summary = summarise(model, (1, *seen[0].item.shape))
    write_report(
        path,
        ReportContent(
            title=request.prompt or f"{len(seen)} {'picture' if len(seen) == 1 else 'pictures'}",
            is_prompt=request.prompt is not None,
            model=model.name,
            trained=model.trained,
            gives_probabilities=predictions is not None and predictions.kind == "probability",
            images=tuple(
                _image(one, predictions, index, plots if index == 0 else None, explained[index : index + 1])
                for index, one in enumerate(seen)
            ),
            skipped=tuple(skipped),
            facts=_facts(request, len(seen)),
            recipe=tuple(recipe.describe()),
            recipe_name=recipe.name,
            layers=tuple(_row(row) for row in summary.rows),
            layer_totals=(
                ("Parameters", f"{summary.parameters:,}"),
                ("Multiply-adds", "–" if summary.multiply_adds is None else f"{summary.multiply_adds:,}"),
            ),
            command=journal.command,
            versions=tuple(versions().items()),
            files=tuple(journal.files.items()),
            live=live,
            timings=tuple((step, f"{seconds:.2f} s") for step, seconds in journal.timings.items()),
        ),
    )


def alive(request: Request, predictions: Predictions | None) -> tuple[Living | None, tuple[str, ...]]:
    """What makes the page alive; or None, with a sentence on why it is static where nobody asked for that."""
    if request.options.static:
        return None, ()
    if predictions is None:
        return None, ("the page is static: the model is not a classifier",)
    found = living(request.model, request.recipe, predictions.kind == "probability", predictions.classes)
    return (None, (found,)) if isinstance(found, str) else (found, ())


def _image(
    one: Seen, predictions: Predictions | None, index: int, plots: Plots | None, explained: Sequence[Figure]
) -> ImageResult:
    picture, record = one.picture, one.picture.record
    ranked: tuple[tuple[str, float], ...] = ()
    if predictions is not None:
        values = predictions.rows[index].values
        ranked = tuple(sorted(zip(predictions.classes, values, strict=True), key=lambda pair: -pair[1]))
    facts: list[tuple[str, str]] = [("Size", f"{one.size[0]} × {one.size[1]} pixels")]
    if record is not None:
        facts += [("Seed", f"{record.seed}, picture {record.index + 1}"), ("Generator", record.generator)]
        facts += [
            (name.replace("_", " ").capitalize(), str(value)) for name, value in record.settings.items()
        ]
    return ImageResult(
        name=picture.name,
        picture=one.original,
        seen=one.shown,
        predictions=ranked,
        facts=tuple(facts),
        remarks=picture.remarks,
        ignored=record.ignored if record is not None else (),
        figures=(*explained, *(plots.inputs if plots is not None else ())),
        layers=plots.layers if plots is not None else (),
    )


def _row(row: Row) -> LayerRow:
    """A line of the architecture table."""
    shape = "?" if row.output_shape is None else _by(row.output_shape[1:])
    field = row.receptive_field
    seen = field if isinstance(field, str) else _by(field or ())
    return LayerRow(row.path, row.layer, shape, row.parameters, row.multiply_adds, seen)


def _by(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))


def _facts(request: Request, count: int) -> Facts:
    model = request.model
    facts = [("Pictures", str(count)), ("Model", model.name or "unnamed")]
    if "accuracy" in model.notes:
        accuracy = 100 * float(model.notes["accuracy"])
        facts.append(("Held-out accuracy", f"{accuracy:.2f} % of its own held-out pictures"))
    facts.append(("Recipe", request.recipe.name or f"{len(request.recipe.steps)} steps"))
    if request.images is None:
        generation = request.options.generation
        facts += [("Generator", generation.generator), ("Seed", str(generation.seed))]
    return tuple(facts)
