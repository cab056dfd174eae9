"""The verbs `predict` and `trace`: running a model on pictures or on a batch, on any engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np

from diptych import engines
from diptych.engines import Compiled
from diptych.errors import ModelError
from diptych.files import as_text
from diptych.images import files
from diptych.images.arguments import Images, as_batch, is_batch
from diptych.loading import ModelLike, Recipe, load, recipe_of
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.model.trace import Trace
from diptych.outcome import Outcome
from diptych.predictions import Predictions
from diptych.preparing import none_readable, prepared, preprocess, stacked, try_prepared
from diptych.progress import Progress, silent

__all__ = ["CHUNK", "Predicted", "compiled_for", "predict", "predict_files", "trace"]

CHUNK = 32
"""Pictures in one forward pass: enough to keep two cores busy, and few enough for any memory."""


def predict(
    model: ModelLike,
    x: Images,
    *,
    preprocessing: Recipe | None = None,
    engine: str = "auto",
    device: str = "auto",
) -> Array:
    """Runs a model.

    Args:
        model: A model, its file or its name.
        x: A float array, which is a batch (N, C, H, W) or (N, features) and is used as it is; or pictures,
            as `preprocess` takes them, to which a recipe is applied first.
        preprocessing: The recipe for pictures; the model's own by default.
        engine: One of `engines.ENGINES`, or "auto" for the fastest that can express every layer.
        device: "auto", "cpu", "cuda" or "mps".

    Returns:
        The output, float32; (N, classes) for a classifier.

    Raises:
        ShapeError: The input does not fit the model.
        ModelError: A weight or a value of the batch is not finite.
        ImageError: A picture cannot be read.
        UsageError: There are no images, or no recipe for them, or no such engine.
    """
    loaded = load(model)
    compiled = compiled_for(loaded, engine, device)
    if is_batch(x):
        return compiled(_finite(x))
    recipe = recipe_of(preprocessing if preprocessing is not None else loaded)
    items = prepared(x, recipe)
    return np.concatenate(
        [compiled(stacked(chunk)) for chunk in iter(lambda: list(islice(items, CHUNK)), [])]
    )


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
    batch = _finite(x) if is_batch(x) else preprocess(x, recipe)
    return compiled_for(loaded, engine, device).trace(batch)


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
    """
    loaded = load(model)
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
