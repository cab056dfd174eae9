"""The verbs `predict` and `trace`: running a model on pictures or on a batch, on any engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload
from weakref import WeakKeyDictionary

import numpy as np

from diptych import engines
from diptych.engines import Compiled
from diptych.errors import ModelError, UsageError
from diptych.files import as_text
from diptych.images import files
from diptych.images.arguments import Images, as_batch, is_batch
from diptych.images.picture import Picture
from diptych.loading import ModelLike, Recipe, load, recipe_of
from diptych.model.layers import Array, Chain, Embedding, Layer, Softmax
from diptych.model.model import Model
from diptych.model.trace import Trace
from diptych.outcome import Outcome
from diptych.predictions import Predictions
from diptych.preparing import none_readable, prepared, preprocess, stacked, try_prepared
from diptych.preprocessing import Preprocessing
from diptych.progress import Progress, silent

if TYPE_CHECKING:
    from diptych.batch.results import Job

__all__ = ["CHUNK", "Predicted", "compiled_for", "predict", "predict_files", "trace", "with_softmax"]

CHUNK = 32
"""Pictures in one forward pass: enough to keep two cores busy, and few enough for any memory."""


@overload
def predict(
    model: ModelLike,
    x: Images,
    *,
    preprocessing: Recipe | None = None,
    engine: str = "auto",
    device: str = "auto",
    out: None = None,
) -> Array: ...


@overload
def predict(
    model: ModelLike,
    x: Images,
    *,
    preprocessing: Recipe | None = None,
    engine: str = "auto",
    device: str = "auto",
    out: str | Path,
    on: str = "local",
    columns: Sequence[str] = (),
    embedding: str | None = None,
    top: int = 3,
    shard_size: int = 256,
    workers: int | None = None,
    recursive: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Job: ...


def predict(
    model: ModelLike,
    x: Images,
    *,
    preprocessing: Recipe | None = None,
    engine: str = "auto",
    device: str = "auto",
    out: str | Path | None = None,
    progress: Progress = silent,
    **job: Any,
) -> Array | Job:
    """Runs a model: on a batch or some pictures, or on any number of pictures into a table.

    Args:
        model: A model, its file or its name.
        x: A float array, which is a batch (N, C, H, W) or (N, features) and is used as it is; or pictures,
            as `preprocess` takes them, to which a recipe is applied first. With `out`: picture files, folders,
            patterns such as "photos/**/*.jpg", and tar archives.
        preprocessing: The recipe for pictures; the model's own by default.
        engine: One of `engines.ENGINES`, or "auto" for the fastest that can express every layer.
        device: "auto", "cpu", "cuda" or "mps".
        out: A folder for a table in parts (part-00000.parquet, ...), or a .parquet, .csv or .jsonl file. What an
            interrupted call has finished is not made again.
        progress: Told how many pictures are done, with `out`.
        **job: With `out`: `columns`, further ones of `batch.columns.OPTIONAL`; `embedding`, the path of a layer whose
            output becomes a column; `top`, how many classes the column of that name has; `recursive`, whether folders
            inside folders are searched; and `on`, `shard_size`, `workers` and `overwrite`, see `batch.JobOptions`.

    Returns:
        The output, float32; (N, classes) for a classifier. With `out`, the finished `Job`.

    Raises:
        ShapeError: The input does not fit the model.
        ModelError: A weight or a value of the batch is not finite.
        ImageError: A picture cannot be read; with `out`, none can.
        OutputError: The table cannot be written, or `out` holds something else.
        UsageError: There are no images, or no recipe for them, or no such engine or option.
    """
    loaded = load(model)
    if out is not None:
        return _job(loaded, x, recipe_of(preprocessing or loaded), out, engine, device, progress, job)
    if job:
        raise UsageError(f"{next(iter(job))} is for a table: name it with out=...")
    compiled = compiled_for(loaded, engine, device)
    if is_batch(x) or _are_rows(loaded, x):
        return compiled(_finite(x))
    recipe = recipe_of(preprocessing if preprocessing is not None else loaded)
    items = prepared(x, recipe)
    return np.concatenate(
        [compiled(stacked(chunk)) for chunk in iter(lambda: list(islice(items, CHUNK)), [])]
    )


def _job(
    model: Model,
    x: Images,
    recipe: Preprocessing,
    out: str | Path,
    engine: str,
    device: str,
    progress: Progress,
    given: dict[str, Any],
) -> Job:
    from diptych.batch.jobs import JobOptions, Pictures
    from diptych.batch.tables import predictions_table

    if isinstance(given.get("columns"), str):
        given["columns"] = [name.strip() for name in given["columns"].split(",")]
    if not isinstance(x, str | Path | Iterable | Picture):
        raise UsageError(f"images are paths, arrays or Pictures, not {type(x).__name__}")
    paths = [x] if isinstance(x, str | Path | np.ndarray | Picture) else list(x)
    strange = next((one for one in paths if not isinstance(one, str | Path)), None)
    if strange is not None:
        raise UsageError(
            f"a table is made of picture files: give paths, not {type(strange).__name__}; or leave out=... away"
        )
    of_table = {name: given.pop(name) for name in ("columns", "embedding", "top") if name in given}
    pictures = Pictures(cast("list[str | Path]", paths), recursive=given.pop("recursive", False))
    unknown = next((name for name in given if name not in JobOptions.__dataclass_fields__), None)
    if unknown is not None:
        raise UsageError(f"predict takes no option {unknown!r}; see help(diptych.predict)")
    return predictions_table(
        model, recipe, pictures, out=out, engine=engine, device=device, **of_table,
        options=JobOptions(**given), progress=progress,
    )  # fmt: skip


def trace(
    model: ModelLike,
    x: Images,
    *,
    preprocessing: Recipe | None = None,
    engine: str = "auto",
    device: str = "auto",
) -> Trace:
    """Runs a model and keeps every layer's output.

    Args:
        model: A model, its file or its name.
        x: A float batch, or pictures, as for `predict`.
        preprocessing: The recipe for pictures; the model's own by default.
        engine: As for `predict`.
        device: As for `predict`.

    Returns:
        A mapping of layer paths ("0", "3.1") to float32 arrays (N, ...), in the order of computation.

    Raises:
        DiptychError: As `predict` does.
    """
    loaded = load(model)
    recipe = preprocessing if preprocessing is not None else loaded
    batch = _finite(x) if is_batch(x) or _are_rows(loaded, x) else preprocess(x, recipe)
    return compiled_for(loaded, engine, device).trace(batch)


def _are_rows(model: Model, x: object) -> bool:
    """Whether `x` holds whole numbers, and the model looks up the rows of an embedding first."""
    layer: Layer = model.layers
    while layer.children:
        layer = layer.children[0]
    return isinstance(layer, Embedding) and isinstance(x, np.ndarray) and x.dtype.kind in "iu"


def with_softmax(model: Model) -> Model:
    """The model with a softmax over its outputs.

    Raises:
        UsageError: It gives probabilities already.
    """
    if model.gives_probabilities:
        raise UsageError("the model ends with a softmax already: leave --softmax out")
    names = (*model.layers.names, "softmax") if model.layers.names else ()
    return model.with_(layers=Chain((*model.layers.layers, Softmax()), names))


@dataclass(frozen=True)
class Predicted(Outcome):
    """The outcome of `predict_files`, with the predictions themselves."""

    predictions: Predictions | None = None


def predict_files(
    model: ModelLike,
    images: Iterable[str | Path],
    *,
    preprocessing: Recipe | None = None,
    engine: str = "auto",
    device: str = "auto",
    progress: Progress = silent,
) -> Predicted:
    """Runs a classifier on picture files, where one bad picture does not stop the others.

    Args:
        model: A model, its file or its name.
        images: Picture files and folders.
        preprocessing: The recipe; the model's own by default.
        engine: As for `predict`.
        device: As for `predict`.
        progress: Told after each picture.

    Raises:
        ImageError: None of the pictures can be read.
        UsageError: The model gives features and has no classes.
    """
    loaded = load(model)
    if loaded.gives_features:
        raise UsageError(
            f"{loaded.name or 'the model'} gives features and has no classes: predict writes them to a table with "
            "--out FOLDER --columns output (out=, columns=), and diptych features shows every layer's output"
        )
    recipe = recipe_of(preprocessing or loaded)
    compiled = compiled_for(loaded, engine, device)
    searched = files.search(images)
    found = searched.paths
    names, outputs, failures, remarks = [], [], [], list(searched.remarks)
    for index, (path, item, error, file_remarks) in enumerate(try_prepared(found, recipe)):
        progress(index + 1, len(found), "predicting")
        if item is None:
            failures.append(as_text(str(error)))
            continue
        names.append(as_text(path))
        remarks += [f"{as_text(path)}: {remark}" for remark in file_remarks]
        outputs.append(compiled(item[np.newaxis]))
    if not outputs:
        raise none_readable(failures)
    predictions = Predictions.of(loaded, np.concatenate(outputs), names)
    return Predicted(
        predictions.to_document(), failures=tuple(failures), remarks=tuple(remarks), predictions=predictions
    )


# A model is immutable, so what an engine made of it can be kept for as long as the model lives.
_compiled: WeakKeyDictionary[Model, dict[tuple[str, str], Compiled]] = WeakKeyDictionary()


def compiled_for(model: Model, engine: str = "auto", device: str = "auto") -> Compiled:
    """The model compiled for an engine and device, at most once for each; its weights are checked first.

    Raises:
        ModelError: A weight is not finite.
        UnsupportedLayer: The engine cannot express a layer.
        UsageError: There is no such engine or device.
    """
    ready = _compiled.setdefault(model, {})
    if (engine, device) not in ready:
        model.check()
        # An engine keeps the model that it is given; it must not be the key, which would then live for ever.
        ready[engine, device] = engines.compile(model.with_(), engine, device)
    return ready[engine, device]


def _finite(x: object) -> Array:
    """The batch as float32; raises `ModelError` where a value is NaN or infinite."""
    values = as_batch(x)
    if not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise ModelError(f"the batch holds {bad} NaN or infinite values of {values.size}; clean it first")
    return values
