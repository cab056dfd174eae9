"""Tables of many pictures: what a model predicts for them, what its layers give, or what a recipe makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diptych import engines
from diptych.batch import columns as cols
from diptych.batch.inputs import Listing
from diptych.batch.jobs import Begun, JobOptions, Pictures, begin
from diptych.batch.results import Job
from diptych.batch.rows import LAYER, TableTask
from diptych.engines import Compiled
from diptych.errors import ImageError, UsageError
from diptych.files import as_text
from diptych.formats import safetensors
from diptych.images import files
from diptych.model.layers import Array, Chain
from diptych.model.model import Model
from diptych.predictions import classifies
from diptych.preprocessing import Preprocessing
from diptych.progress import Progress, silent

__all__ = ["features_table", "predictions_table", "preprocessed_table"]


def predictions_table(
    model: Model,
    recipe: Preprocessing,
    pictures: Pictures,
    *,
    out: str | Path,
    engine: str = "auto",
    device: str = "auto",
    columns: Sequence[str] = (),
    embedding: str | None = None,
    top: int = 3,
    options: JobOptions | None = None,
    progress: Progress = silent,
) -> Job:
    """Writes what a model predicts for pictures.

    Args:
        model: The model.
        recipe: The recipe for the pictures.
        pictures: Which pictures.
        out: A folder for part-00000.parquet, ... and manifest.json; or a file that ends with .parquet, .csv or .jsonl,
            which is made from such parts.
        engine: As for `predict`.
        device: As for `predict`.
        columns: Further columns, of `columns.OPTIONAL`.
        embedding: The path of a layer whose output becomes the column `embedding`.
        top: How many classes the column `top` has.
        options: How the job runs.
        progress: Told how many pictures are done.

    Returns:
        The finished job.

    Raises:
        ImageError: There are no pictures, or none of them can be read.
        OutputError: The folder holds another job or something else, is being written to, or cannot be written.
        ShapeError: A picture does not fit the model.
        UsageError: There is no such column or layer, or it is none of this model.
    """
    begun = begin(pictures, out, options, progress, "predicting")
    compiled = engines.compile(model, engine, device)
    model.check()
    outputs = _first_outputs(compiled, recipe, begun.listing, [] if embedding is None else [embedding])
    shape = outputs["output"].shape
    classifier = classifies(shape, model)
    probable = model.gives_probabilities
    names = cols.chosen(columns, classifier=classifier, probable=probable, embedding=embedding)
    classes = (model.classes or tuple(f"class {i}" for i in range(max(shape)))) if classifier else None
    remarks = []
    if classifier and not probable:
        remarks.append(
            "the model gives scores, not probabilities: they are in the column score, and probability is empty; "
            "--softmax makes probabilities of them"
        )
    if model.trained is False:
        remarks.append("UNTRAINED weights: the predictions say nothing about the pictures")
    sources = {"output": "output", **({"embedding": f"{LAYER}{embedding}"} if embedding is not None else {})}
    if "input" in names:
        sources["input"] = "input"
    settings = {"columns": list(names), "embedding": embedding, "top": top, "probable": probable,
                "classes": None if classes is None else list(classes)}  # fmt: skip
    return _table(begun, "predict", model, recipe, compiled, sources, settings, remarks)


def features_table(
    model: Model,
    recipe: Preprocessing,
    pictures: Pictures,
    layers: Sequence[str],
    *,
    out: str | Path,
    engine: str = "auto",
    device: str = "auto",
    options: JobOptions | None = None,
    progress: Progress = silent,
) -> Job:
    """Writes what layers of a model give for pictures: a column of values, and one of shapes, for each.

    Args:
        model: As for `predictions_table`.
        recipe: As for `predictions_table`.
        pictures: As for `predictions_table`.
        layers: Their paths, such as "3.1"; each is the name of its column.
        out: As for `predictions_table`.
        engine: As for `predict`.
        device: As for `predict`.
        options: As for `predictions_table`.
        progress: As for `predictions_table`.

    Raises:
        DiptychError: As `predictions_table` does.
    """
    begun = begin(pictures, out, options, progress, "features")
    compiled = engines.compile(model, engine, device)
    model.check()
    _first_outputs(compiled, recipe, begun.listing, layers)
    sources = {path: f"{LAYER}{path}" for path in layers}
    return _table(
        begun, "features", model, recipe, compiled, sources, {"columns": ["file", *layers, "error"]}
    )


def preprocessed_table(
    recipe: Preprocessing,
    pictures: Pictures,
    *,
    out: str | Path,
    options: JobOptions | None = None,
    progress: Progress = silent,
) -> Job:
    """Writes what a recipe makes of pictures: the columns `input` and `input_shape`.

    Args:
        recipe: The recipe.
        pictures: As for `predictions_table`.
        out: As for `predictions_table`.
        options: As for `predictions_table`.
        progress: As for `predictions_table`.

    Raises:
        DiptychError: As `predictions_table` does.
    """
    begun = begin(pictures, out, options, progress, "preprocessing")
    nothing = Model(Chain(()))
    compiled = engines.compile(nothing, "numpy")
    settings = {"columns": ["file", "input", "error"]}
    return _table(begun, "preprocess", nothing, recipe, compiled, {"input": "input"}, settings)


def _table(
    begun: Begun,
    verb: str,
    model: Model,
    recipe: Preprocessing,
    compiled: Compiled,
    sources: Mapping[str, str],
    settings: Mapping[str, Any],
    remarks: Iterable[str] = (),
) -> Job:
    whole = model.with_(preprocessing=recipe)
    decides = {
        "verb": verb,
        "model": {"name": model.name, "sha256": safetensors.digest(whole)},
        "recipe": recipe.to_document(),
        "engine": compiled.engine,
        "device": compiled.device,
        **settings,
    }
    classes = settings.get("classes")
    task = partial(
        TableTask,
        model=whole,
        compiled=engines.travelling(compiled),
        engine=compiled.engine,
        device=compiled.device,
        columns=tuple(settings["columns"]),
        sources=tuple(sources.items()),
        classes=None if classes is None else tuple(classes),
        probable=settings.get("probable", False),
        top=settings.get("top", 0),
    )
    return begun.finish(decides, task, remarks)


def _first_outputs(
    compiled: Compiled, recipe: Preprocessing, listing: Listing, layers: Sequence[str]
) -> dict[str, Array]:
    """The output for the first picture that can be read, and those of layers, of one sample.

    What is wrong with all pictures, as a recipe that does not fit the model, is found here; and an engine that
    learns only from a picture that it cannot express a layer gives way to another.
    """
    first: ImageError | None = None
    for one in listing.inputs:
        try:
            path, content = one.content("")
            pixels, _ = files.decode(path, content=content)
        except ImageError as error:
            first = first or error
            continue
        item = recipe.apply(pixels)[np.newaxis]
        if not layers:
            return {"output": compiled(item)[0]}
        trace = compiled.trace(item)
        missing = next((path for path in layers if path not in trace), None)
        if missing is not None:
            raise UsageError(f"there is no layer {as_text(missing)!r}; the layers are {', '.join(trace)}")
        return {"output": compiled(item)[0], **{path: trace[path][0] for path in layers}}
    assert first is not None
    if len(listing.inputs) == 1:
        raise first
    raise ImageError(f"none of the {len(listing.inputs):,} pictures could be used; the first: {first}")
