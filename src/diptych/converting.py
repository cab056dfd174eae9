"""The verb `convert`: a model from one format into another, or into a Julia project."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from diptych import formats
from diptych.errors import ModelError, UsageError
from diptych.files import check_place, keep
from diptych.formats import julia_project
from diptych.loading import ModelLike, Recipe, load, recipe_of
from diptych.model.entry import asked_shape
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes
from diptych.options import ReadOptions
from diptych.outcome import Outcome
from diptych.predicting import compiled_for

__all__ = ["convert"]


def convert(
    source: ModelLike,
    target: str | Path,
    *,
    architecture: ModelLike | None = None,
    written_by: str | None = None,
    key: str | None = None,
    functions: Mapping[str, str] | None = None,
    output: str | None = None,
    flux_version: str | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Recipe | None = None,
    preprocessing_inside: bool = False,
    input_shape: Sequence[int] | None = None,
) -> Outcome:
    """Converts a model into the format that the suffix of `target` names, or into a Julia project.

    Args:
        source: A model, its file or its name.
        target: The file to write, or the folder of a Julia project: a path without a suffix, or one that
            ends in a slash.
        architecture: The architecture to fill if the source file holds weights alone.
        written_by: The version of Flux that wrote the source file, if the file does not record it.
        key: Which of several models in the source file.
        functions: What closures compute whose code is not in the source file: {"#30#31": "flatten"}.
        output: Which of several outputs of an ONNX graph, by its name.
        flux_version: The version of Flux to write a .bson or .jld2 file or a Julia project for.
        classes: Class names to store instead of the model's own.
        preprocessing: The recipe to store instead of the model's own.
        preprocessing_inside: Whether an .onnx file takes uint8 pixels (N, H, W, 3) and applies the recipe
            itself.
        input_shape: The shape to store instead of the model's own: one sample's, (C, H, W), or with the
            batch axis first.

    Returns:
        The file or folder written, and remarks about what the target computes differently.

    Raises:
        FormatError: The source file cannot be read.
        UnsupportedLayer: The target cannot express a layer.
        ModelError: There are not as many `classes` as outputs.
        OutputError: The target cannot be written, or would replace the source.
    """
    keep([source] if isinstance(source, str | Path) else [], [target])
    is_folder = str(target).endswith(("/", os.sep)) or not Path(target).suffix
    if not is_folder:
        check_place(target)
    loaded = load(source, ReadOptions(architecture, written_by, key, functions, output))
    if classes is not None:
        loaded = loaded.with_(classes=_class_names(loaded, classes))
    if preprocessing is not None:
        loaded = loaded.with_(preprocessing=recipe_of(preprocessing))
    if input_shape is not None:
        loaded = loaded.with_(input_shape=asked_shape(loaded, input_shape)[1:])
    loaded.check()
    if is_folder and preprocessing_inside:
        raise UsageError(
            "preprocessing inside is only for .onnx files; a Julia project already has the recipe in plain Julia"
        )
    remarks = loaded.source.warnings
    if is_folder:
        batch = julia_project.example_batch(loaded)
        trace = compiled_for(loaded, "numpy").trace(batch)
        julia_project.write(loaded, target, trace, flux_version)
    else:
        options: dict[str, Any] = {} if flux_version is None else {"flux_version": flux_version}
        if preprocessing_inside:
            options["preprocessing_inside"] = True
        remarks += formats.write(loaded, target, **options)
    document = {
        "from": loaded.source.format or loaded.name,
        "to": "Julia project" if is_folder else Path(target).suffix.removeprefix("."),
        "parameters": loaded.parameters,
        "classes": list(loaded.classes or ()),
    }
    return Outcome(document, paths=(Path(target),), remarks=remarks)


def _class_names(model: Model, classes: Sequence[str]) -> tuple[str, ...]:
    """The names, stripped; raises `ModelError` where there are not as many as the model has outputs."""
    names = tuple(name.strip() for name in classes)
    if len(set(names)) != len(names) or not all(names):
        raise UsageError("class names must be different and not empty; separate them by commas")
    if model.input_shape is not None and None not in model.input_shape:
        shapes = layer_shapes(model, (1, *(n for n in model.input_shape if n is not None)))
        outputs = prod(list(shapes.values())[-1][1:]) if shapes else 0
        if outputs != len(names):
            raise ModelError(
                f"the model has {outputs} outputs, but {len(names)} class names were given; give one for each"
            )
    return names
