"""The verb `compare`."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from diptych.comparing.alignment import Alignment, Row, align, same_kinds
from diptych.comparing.comparison import Comparison, LayerPair
from diptych.comparing.diagnosis import Search
from diptych.comparing.editing import with_activations_apart
from diptych.comparing.inputs import ComparisonInput, Recipes, compared, runs_of
from diptych.comparing.runs import LayerOutput, Run
from diptych.comparing.wording import agreement, diagnosis
from diptych.errors import UsageError
from diptych.loading import ModelLike
from diptych.model.summary import summarise
from diptych.predicting import compiled_for

__all__ = ["compare"]

_SMALL = 10**8  # multiply-adds for the whole batch

Architecture: TypeAlias = "ModelLike | None"


def compare(
    a: ModelLike,
    b: ModelLike,
    images: ComparisonInput = None,
    *,
    engine_a: str = "auto",
    engine_b: str = "auto",
    architecture: Architecture | tuple[Architecture, Architecture] = None,
    written_by: str | tuple[str | None, str | None] | None = None,
    key: str | tuple[str | None, str | None] | None = None,
    preprocessing: Recipes = None,
    tolerance: float = 1e-4,
) -> Comparison:
    """Compares two models on the same input, layer by layer, and looks for the cause of a difference.

    How layers are paired is described in `comparing.alignment`, how the cause is found in
    `comparing.diagnosis`.

    Args:
        a: A model, its file or its name.
        b: The other one.
        images: Pictures (paths, folders, uint8 arrays, `Picture`s), which each model prepares with its own
            recipe; a float batch (N, C, H, W) for both models; or a pair with a float batch in it, one input
            for each. By default, photographs that come with the package where a recipe is known, else one
            seeded random batch.
        engine_a: The engine A runs on: one of `engines.ENGINES`, or "auto".
        engine_b: The engine B runs on.
        architecture: The architecture to fill if a file holds weights alone; this and the next three are one value
            for both models, or a pair.
        written_by: The version of Flux that wrote a file, if the file does not record it.
        key: Which of several models in a Flux file.
        preprocessing: The recipe, instead of the models' own.
        tolerance: Layers agree where the largest |a - b| is at most this times the layer's largest
            magnitude.

    Returns:
        The comparison: every layer with its difference, where the models differ first, and why.

    Raises:
        UsageError: A model, an engine or a recipe does not exist, or the tolerance is not above 0.
        ShapeError: An input does not fit a model.
        FormatError: A file cannot be read.
    """
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise UsageError(f"the tolerance is a small number above 0, such as 1e-4, got {tolerance}")
    models = compared(a, b, architecture=architecture, written_by=written_by, key=key)
    run_a, run_b, given, remarks = runs_of(*models, images, preprocessing, (engine_a, engine_b))
    if not same_kinds(run_a, run_b):
        run_a, run_b = _apart(run_a), _apart(run_b)
    alignment = align(run_a, run_b, tolerance)
    search = _search(run_a, run_b, alignment, tolerance)
    search.find_causes()
    row = alignment.first_row
    text = agreement(alignment, tolerance) if row is None else diagnosis(run_a, run_b, alignment, search)
    sample = _worst_sample(row or alignment.rows[-1])
    return Comparison(
        name_a=run_a.name,
        name_b=run_b.name,
        engine_a=compiled_for(run_a.model, run_a.engine).engine,
        engine_b=compiled_for(run_b.model, run_b.engine).engine,
        given=given,
        tolerance=tolerance,
        layers=tuple(_pair(row) for row in alignment.rows),
        first_divergence=None if row is None else (row.b if row.lone == "b" else row.a).shown,
        diagnosis=text,
        causes=tuple(search.found),
        explained=bool(search.found) and search.alignment.agrees,
        remarks=remarks,
        parting=alignment.first,
        sample=sample,
        sides=tuple((row.a.value[sample].copy(), row.b.value[sample].copy()) for row in alignment.rows),
        picture=run_a.images[sample] if run_a.images else None,
    )


def _search(a: Run, b: Run, alignment: Alignment, tolerance: float) -> Search:
    """The search, on the numpy engine where a model is small and the user named no engine.

    Other engines take longer to compile a changed model than numpy takes to run a small one.
    """
    quick_a, quick_b = _quick(a), _quick(b)
    if alignment.agrees or (quick_a is a and quick_b is b):
        return Search(a, b, alignment, tolerance)
    found = align(quick_a, quick_b, tolerance)
    # Where the models agree on numpy, the difference comes from the engine.
    return Search(a, b, alignment, tolerance) if found.agrees else Search(quick_a, quick_b, found, tolerance)


def _quick(run: Run) -> Run:
    small = (summarise(run.model, run.batch.shape).multiply_adds or 0) <= _SMALL
    return run.with_(engine="numpy") if run.engine == "auto" and small else run


def _apart(run: Run) -> Run:
    model, origin = with_activations_apart(run.model)
    return run.with_(model=model, origin=origin)


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


def _worst_sample(row: Row) -> int:
    a, b = row.a.value, row.b.value
    if a.shape != b.shape:
        return 0
    apart = np.nan_to_num(np.abs(a - b).reshape(len(a), -1), nan=np.inf)
    return int(apart.max(axis=1).argmax())


def _label(output: LayerOutput) -> str:
    if output.layer is None:
        return "what the model is given"
    return output.layer.label + (f", {output.detail}" if output.detail else "")
