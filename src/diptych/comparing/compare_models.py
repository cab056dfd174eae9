"""The verb `compare`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeAlias

from diptych.comparing.alignment import Evaluation, Row, evaluate, same_kinds
from diptych.comparing.comparison import Comparison, LayerPair
from diptych.comparing.diagnosis import Search
from diptych.comparing.editing import with_activations_apart
from diptych.comparing.inputs import Given, Recipes, compared, sides_of
from diptych.comparing.runs import Side, Step
from diptych.comparing.wording import agreement, diagnosis
from diptych.errors import UsageError
from diptych.model.labels import label
from diptych.model.model import Model
from diptych.model.summary import summarise
from diptych.predicting import compiled_for

__all__ = ["compare"]

_SMALL = 10**8  # multiply-adds of the whole batch

Architecture: TypeAlias = "Model | str | Path | None"


def compare(
    a: Model | str | Path,
    b: Model | str | Path,
    images: Given = None,
    *,
    engine_a: str = "auto",
    engine_b: str = "auto",
    architecture: Architecture | tuple[Architecture, Architecture] = None,
    written_by: str | tuple[str | None, str | None] | None = None,
    key: str | tuple[str | None, str | None] | None = None,
    preprocessing: Recipes = None,
    tolerance: float = 1e-4,
) -> Comparison:
    """Both models on the same input, layer by layer: where they part, and the likely cause.

    `a` and `b`: a Model, a file or a name. `images`: a float batch (N, C, H, W), which both are given;
    pictures (paths, folders, arrays, `Picture`s), which each model prepares with its own recipe, or with
    `preprocessing`, one for both or a pair; a pair with a float batch in it, one input for each. Without
    any, photographs that come with the package where a recipe is known, else one seeded random batch.

    `architecture`, `written_by` and `key` are `load_model`'s, for the file that takes them; a pair is A's and B's.
    Layers agree where the largest |a - b| is at most `tolerance` times the layer's largest magnitude.
    Layers are paired as `comparing.alignment` says, the cause is found as `comparing.diagnosis` says: by
    trying. Raises `UsageError` for what does not exist, `ShapeError` where an input does not fit a model.
    """
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise UsageError(f"the tolerance is a small number above 0, such as 1e-4, got {tolerance}")
    models = compared(a, b, architecture=architecture, written_by=written_by, key=key)
    side_a, side_b, given, remarks = sides_of(*models, images, preprocessing, (engine_a, engine_b))
    if not same_kinds(side_a, side_b):
        side_a, side_b = _apart(side_a), _apart(side_b)
    evaluation = evaluate(side_a, side_b, tolerance)
    search = _search(side_a, side_b, evaluation, tolerance)
    search.run()
    row = evaluation.parting
    text = agreement(evaluation, tolerance) if row is None else diagnosis(side_a, side_b, evaluation, search)
    shown = row or evaluation.rows[-1]
    return Comparison(
        name_a=side_a.name,
        name_b=side_b.name,
        engine_a=compiled_for(side_a.model, side_a.engine).engine,
        engine_b=compiled_for(side_b.model, side_b.engine).engine,
        given=given,
        tolerance=tolerance,
        layers=tuple(_pair(row) for row in evaluation.rows),
        first_divergence=None if row is None else (row.b if row.lone == "b" else row.a).shown,
        diagnosis=text,
        causes=tuple(search.found),
        explained=bool(search.found) and search.evaluation.agrees,
        remarks=remarks,
        parting=evaluation.first,
        sides=(shown.a.value, shown.b.value),
    )


def _search(a: Side, b: Side, evaluation: Evaluation, tolerance: float) -> Search:
    """The search, on the numpy engine where a model is small and the user named no engine.

    It takes other engines longer to make a changed model ready than it takes numpy to run a small one.
    """
    quick_a, quick_b = _quick(a), _quick(b)
    if evaluation.agrees or (quick_a is a and quick_b is b):
        return Search(a, b, evaluation, tolerance)
    found = evaluate(quick_a, quick_b, tolerance)
    # Where numpy makes no difference, the engine does.
    return Search(a, b, evaluation, tolerance) if found.agrees else Search(quick_a, quick_b, found, tolerance)


def _quick(side: Side) -> Side:
    small = (summarise(side.model, side.batch.shape).multiply_adds or 0) <= _SMALL
    return side.with_(engine="numpy") if side.engine == "auto" and small else side


def _apart(side: Side) -> Side:
    model, origin = with_activations_apart(side.model)
    return side.with_(model=model, origin=origin)


def _pair(row: Row) -> LayerPair:
    has_a, has_b = row.lone != "b", row.lone != "a"
    return LayerPair(
        path_a=row.a.shown if has_a else None,
        path_b=row.b.shown if has_b else None,
        layer_a=_label(row.a) if has_a else "",
        layer_b=_label(row.b) if has_b else "",
        shape_a=row.a.value.shape,
        shape_b=row.b.value.shape,
        largest_absolute=row.difference.absolute,
        largest_relative=row.difference.relative,
        cosine=row.difference.cosine,
        agrees=row.agrees,
    )


def _label(step: Step) -> str:
    if step.layer is None:
        return "what the model is given"
    return label(step.layer) + (f", {step.note}" if step.note else "")
