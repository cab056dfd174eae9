"""The verb `convert`: a model from one format into another, or into a Julia project."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from diptych import compacting, formats
from diptych.certifying import FILE as CERTIFICATE
from diptych.certifying import KEY, MOST_MEMORY, certificate_of, project_certificate
from diptych.datasets import class_names
from diptych.errors import ModelError, OutputError, UsageError, WeightsAlone
from diptych.files import check_place, keep
from diptych.formats import julia_project
from diptych.loading import ModelLike, Recipe, load, recipe_of
from diptych.model.entry import asked_shape
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes
from diptych.options import ReadOptions
from diptych.outcome import Outcome
from diptych.predicting import compiled_for
from diptych.pruning import pruned

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
    classes: str | Path | Sequence[str] | None = None,
    preprocessing: Recipe | None = None,
    preprocessing_inside: bool = False,
    input_shape: Sequence[int] | None = None,
    certificate: bool = True,
    half: bool = False,
    quantise: str | None = None,
    images: str | Path | Sequence[str | Path] | None = None,
    prune: bool = False,
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
        classes: Class names to store instead of the model's own: a list, a file, names separated by commas, or a
            name such as "imagenet-1k", see `datasets.class_names.chosen`.
        preprocessing: The recipe to store instead of the model's own.
        preprocessing_inside: Whether an .onnx file takes uint8 pixels (N, H, W, 3) and applies the recipe
            itself.
        input_shape: The shape to store instead of the model's own: one sample's, (C, H, W), or with the
            batch axis first.
        certificate: Whether a parity certificate is stored: what was written is read and run again, and its layers
            compared with the source's. `verify` checks it.
        half: Whether to store the weights as float16; the model still computes in float32.
        quantise: "int8" to write an .onnx file of 8-bit weights and activations, which ONNX Runtime runs.
        prune: Whether channels that change nothing are left out first, see `pruning`.
        images: Pictures or folders to find the ranges of `quantise` with, and to measure what either costs.

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
    without = pruned(loaded) if prune else None
    if without is not None:
        loaded = without.model
        remarks += (without.text(),)
    loaded, measured = _made_smaller(loaded, target, half, quantise, images)
    written: dict[str, Any] = {}
    if is_folder:
        written = _write_project(loaded, target, flux_version, certificate)
    else:
        options: dict[str, Any] = {} if flux_version is None else {"flux_version": flux_version}
        if preprocessing_inside:
            options["preprocessing_inside"] = True
        notes = {
            key: value for key, value in loaded.notes.items() if key != KEY
        }  # the source's was about the source
        loaded = loaded.with_(notes=notes)
        size = sum(array.nbytes for array in loaded.weights().values())
        if certificate and size > MOST_MEMORY:
            remarks += (
                f"no certificate was stored, because reading {size / 2**30:.1f} GiB of weights again would take as "
                "much memory once more",
            )
        elif certificate:
            written = _tried(loaded, Path(target), options)
            loaded = loaded.with_(notes={**notes, KEY: written})
        remarks += formats.write(loaded, target, **options)
    remarks += _about(written) if measured is None else (measured.text(),)
    document = {
        "from": loaded.source.format or loaded.name,
        "to": "Julia project" if is_folder else Path(target).suffix.removeprefix("."),
        "parameters": loaded.parameters,
        "classes": list(loaded.classes or ()),
        "certificate": _short(written),
    }
    if without is not None:
        document["pruned"] = without.to_document()
    if measured is not None:
        document["compact"] = {**measured.to_document(), "bytes": _bytes(Path(target))}
    return Outcome(document, paths=(Path(target),), remarks=remarks)


def _made_smaller(
    model: Model,
    target: str | Path,
    half: bool,
    quantise: str | None,
    images: str | Path | Sequence[str | Path] | None,
) -> tuple[Model, compacting.Measured | None]:
    """The model as it is to be written, and what that costs; None where nothing was asked for."""
    if quantise is not None and quantise != "int8":
        raise UsageError(f"quantise is int8, not {quantise!r}")
    if half and quantise is not None:
        raise UsageError("half and quantise are two ways to make a model smaller; choose one")
    if not half and quantise is None:
        if images is not None:
            raise UsageError("images are for half and quantise; leave them out, or choose one of these")
        return model, None
    if quantise is not None and Path(target).suffix.lower() != ".onnx":
        raise UsageError(
            f"8-bit models are written as .onnx, which ONNX Runtime runs; {target} is another format"
        )
    inputs = compacting.prepared(model, images)
    if half:
        small = compacting.halved(model)
        found = compacting.measured(model, small, "half", inputs)
    else:
        if inputs is None:
            raise UsageError(
                "quantise needs pictures to find its ranges with: name some with --images (images=...)"
            )
        calibrating, others = compacting.split(inputs)
        small = compacting.quantised(model, calibrating)
        found = compacting.measured(model, small, "int8", others)
    return small.with_(notes={**model.notes, compacting.KEY: found.to_document()}), found


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)


def _tried(model: Model, target: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The certificate for a file, of one that is written elsewhere and read again."""
    with TemporaryDirectory(prefix="diptych-", ignore_cleanup_errors=True) as folder:
        trial = Path(folder) / f"trial{target.suffix}"
        try:
            formats.write(model, trial, **options)
        except OutputError as error:
            raise OutputError(
                f"the copy for the certificate cannot be written ({error}): name another place in TMPDIR, or use "
                "--no-certificate (certificate=False)"
            ) from error
        inside = options.get("preprocessing_inside", False)
        graph = trial if formats.written_as(target).module == "onnx" and not inside else None
        try:
            written = formats.read(trial)
        except WeightsAlone:
            written = formats.read(trial, architecture=model)
        return certificate_of(model, written, formats.written_as(target).name, graph)


def _write_project(
    model: Model, target: str | Path, flux_version: str | None, certificate: bool
) -> dict[str, Any]:
    batch = julia_project.example_batch(model)
    trace = compiled_for(model, "numpy").trace(batch)
    found: dict[str, Any] = {}

    def certify(folder: Path) -> None:
        found.update(project_certificate(model, folder, len(batch)))
        (folder / CERTIFICATE).write_text(json.dumps(found, indent=1) + "\n", "utf-8", newline="\n")

    julia_project.write(model, target, trace, flux_version, finishing=certify if certificate else None)
    return found


def _about(certificate: dict[str, Any]) -> tuple[str, ...]:
    """What to know about a certificate that does not say that the numbers are the same."""
    if not certificate:
        return ()
    if certificate["left_out"]:
        return (
            f"the certificate has no layers, because {certificate['left_out']}; it has the weights' hash",
        )
    largest = certificate["largest_difference"]
    if largest is not None and largest <= certificate["tolerance"]:
        return ()
    figure = "without bounds" if largest is None else f"{largest:.2g} of a layer's largest value"
    return (f"what was written gives other numbers than the source: the largest difference is {figure}",)


def _short(certificate: dict[str, Any]) -> dict[str, Any] | None:
    if not certificate:
        return None
    return {
        "layers": len(certificate["layers"]),
        "largest_difference": certificate["largest_difference"],
        "seal": certificate["seal"],
    }


def _class_names(model: Model, classes: str | Path | Sequence[str]) -> tuple[str, ...]:
    """The names; raises `ModelError` where there are not as many as the model has outputs."""
    names = class_names.chosen(classes)
    if model.input_shape is not None and None not in model.input_shape:
        shapes = layer_shapes(model, (1, *(n for n in model.input_shape if n is not None)))
        outputs = prod(list(shapes.values())[-1][1:]) if shapes else 0
        if outputs != len(names):
            raise ModelError(
                f"the model has {outputs} outputs, but {len(names)} class names were given; give one for each"
            )
    return names
