"""The verbs from files to files, where one bad picture does not stop the others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from diptych import formats
from diptych.errors import ImageError, ModelError, OutputError, UsageError
from diptych.files import check_place, keep, made_folder, replacing
from diptych.formats import julia_project
from diptych.images import files, generation
from diptych.images.picture import Picture
from diptych.inference import Recipe, compiled_for, in_order, load_model, recipe_of
from diptych.model.entry import asked_shape
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes
from diptych.predictions import Predictions
from diptych.preprocessing import Preprocessing
from diptych.progress import Progress, silent

__all__ = [
    "Done",
    "convert",
    "generate_files",
    "predict_files",
    "prepared",
    "preprocess_files",
    "write_array",
]


@dataclass(frozen=True)
class Done:
    """What a verb wrote or found; `failures` holds a sentence for every picture that could not be read."""

    document: dict[str, Any] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()
    failures: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    predictions: Predictions | None = None

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        written = {"files": [str(path) for path in self.paths]} if self.paths else {}
        return {**self.document, **written, "failures": list(self.failures), "remarks": list(self.remarks)}


def generate_files(
    prompt: str | None,
    *,
    out: str | Path,
    like: str | Path | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Done:
    """Text to image, into PNG files named generated_image_1.png, ... that carry how they were made.

    With `like` the picture of that file is made again instead. `options` are `generation.paint`'s.
    """
    if (prompt is None) == (like is None):
        raise UsageError("give either a prompt or --like PICTURE")
    if like is not None:
        pictures: Iterable[Picture] = [generation.like(like)]
    else:
        pictures = generation.paint(prompt or "", on_progress=progress, **options)
        _check_free(Path(out), prompt or "", options)
    written, remarks = [], []
    for picture in pictures:
        path = Path(out) / f"{picture.name}.png"
        keep([like] if like is not None else [], [path])
        made_folder(out)
        files.write_png(path, picture.pixels, picture.record)
        written.append(path)
        remarks += remarks_on(picture)
    return Done(paths=tuple(written), remarks=tuple(dict.fromkeys(remarks)))


def preprocess_files(
    images: Iterable[str | Path],
    preprocessing: Recipe,
    *,
    out: str | Path,
    progress: Progress = silent,
) -> Done:
    """Pictures -> NAME.npy, float32 (C, H, W), NAME.png to look at, and recipe.json, in the folder `out`."""
    recipe = recipe_of(preprocessing)
    found, folder = files.find(images), Path(out)
    names = unique([path.stem for path in found])
    keep(found, [folder / f"{name}{suffix}" for name in names for suffix in (".npy", ".png")])
    written, failures, remarks = [], [], []
    made_folder(folder)
    for index, (path, item, error, notes) in enumerate(prepared(found, recipe)):
        progress(index + 1, len(found), "preprocessing")
        if item is None:
            failures.append(str(error))
            continue
        remarks += [f"{path}: {note}" for note in notes]
        written += [folder / f"{names[index]}.npy", folder / f"{names[index]}.png"]
        write_array(written[-2], item)
        files.write_png(written[-1], recipe.display(item))
    with replacing(folder / "recipe.json") as path:
        path.write_text(json.dumps(recipe.to_document(), indent=2) + "\n", "utf-8")
    document = {
        "recipe": recipe.to_document(),
        "pictures": {str(p): n for p, n in zip(found, names, strict=True)},
    }
    return Done(document, (*written, folder / "recipe.json"), tuple(failures), tuple(remarks))


def predict_files(
    model: Model | str | Path,
    images: Iterable[str | Path],
    *,
    preprocessing: Recipe | None = None,
    engine: str = "auto",
    device: str = "auto",
    progress: Progress = silent,
) -> Done:
    """The model's predictions for picture files and folders; raises `ImageError` where none can be read."""
    loaded = load_model(model)
    recipe = recipe_of(preprocessing or loaded)
    compiled = compiled_for(loaded, engine, device)
    found = files.find(images)
    names, outputs, failures, remarks = [], [], [], []
    for index, (path, item, error, notes) in enumerate(prepared(found, recipe)):
        progress(index + 1, len(found), "predicting")
        if item is None:
            failures.append(str(error))
            continue
        names.append(str(path))
        remarks += [f"{path}: {note}" for note in notes]
        outputs.append(compiled(item[np.newaxis]))
    if not outputs:
        raise none_readable(failures)
    predictions = Predictions.of(loaded, np.concatenate(outputs), names)
    return Done(
        predictions.to_document(), failures=tuple(failures), remarks=tuple(remarks), predictions=predictions
    )


def convert(
    source: Model | str | Path,
    target: str | Path,
    *,
    architecture: Model | str | None = None,
    written_by: str | None = None,
    key: str | None = None,
    flux_version: str | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Recipe | None = None,
    preprocessing_inside: bool = False,
    input_shape: Sequence[int] | None = None,
) -> Done:
    """A model from one format into another, told by the suffix of `target`; a folder is a Julia project.

    `source`: a model, its file or its name. `target` is a folder where it has no suffix or ends in a slash.
    `architecture`: what to fill where the file holds weights alone. `written_by`: the Flux that wrote the file,
    where the file does not tell. `key`: which of several models in it. `flux_version`: for which Flux to write
    .bson, .jld2 or a Julia project. `classes`, `preprocessing` and `input_shape` (one sample's, (C, H, W), or with the
    batch axis first) replace those that the model carries.
    `preprocessing_inside`: an .onnx file takes uint8 pixels (N, H, W, 3) and works the recipe out itself.
    Raises `FormatError` for a file that cannot be read, `UnsupportedLayer` for a layer that the target cannot
    express, `ModelError` where `classes` are not as many as the outputs, `OutputError` where writing fails or
    would replace `source`.
    """
    keep([source] if isinstance(source, str | Path) else [], [target])
    is_folder = str(target).endswith(("/", os.sep)) or not Path(target).suffix
    if not is_folder:
        check_place(target)
    loaded = load_model(source, architecture, written_by, key)
    if classes is not None:
        loaded = loaded.with_(classes=_class_names(loaded, classes))
    if preprocessing is not None:
        loaded = loaded.with_(preprocessing=recipe_of(preprocessing))
    if input_shape is not None:
        loaded = loaded.with_(input_shape=asked_shape(loaded, input_shape)[1:])
    loaded.check()
    remarks = loaded.source.warnings
    if is_folder and preprocessing_inside:
        raise UsageError("preprocessing inside is for .onnx; a Julia project has the recipe in plain Julia")
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
    return Done(document, paths=(Path(target),), remarks=remarks)


def _class_names(model: Model, classes: Sequence[str]) -> tuple[str, ...]:
    """Raises `ModelError` where they are not as many as the model's outputs."""
    names = tuple(name.strip() for name in classes)
    if len(set(names)) != len(names) or not all(names):
        raise UsageError("class names are given once each and not empty, separated by commas")
    if model.input_shape is not None and None not in model.input_shape:
        shapes = layer_shapes(model, (1, *(n for n in model.input_shape if n is not None)))
        outputs = prod(list(shapes.values())[-1][1:]) if shapes else 0
        if outputs != len(names):
            raise ModelError(
                f"the model gives {outputs} values, but {len(names)} class names came; give one each"
            )
    return names


Prepared: TypeAlias = tuple[Path, Array | None, ImageError | None, tuple[str, ...]]


def prepared(paths: Iterable[Path], recipe: Preprocessing) -> Iterator[Prepared]:
    """Each path with its preprocessed array, or the error that reading it gave, and the notes of reading."""

    def work(path: Path) -> Prepared:
        try:
            pixels, notes = files.decode(path)
            return path, recipe.apply(pixels), None, notes
        except ImageError as error:
            return path, None, error, ()

    return in_order(work, iter(paths))


def none_readable(failures: Sequence[str]) -> ImageError:
    """What is raised when there is no picture left to work on."""
    if len(failures) == 1:
        return ImageError(failures[0])
    return ImageError(f"none of the {len(failures)} pictures could be read; the first: {failures[0]}")


def write_array(path: Path, array: Array) -> None:
    """A .npy file, there as a whole or not at all."""
    with replacing(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


def remarks_on(picture: Picture) -> list[str]:
    """What the user should know about how a picture came to be: words not understood, choices of reading."""
    said = [f"{picture.name}: {note}" for note in picture.remarks]
    if picture.record is not None and picture.record.ignored:
        said.append(f"words not understood and left out: {', '.join(picture.record.ignored)}")
    return said


def _check_free(out: Path, prompt: str, options: Mapping[str, Any]) -> None:
    """Raises `OutputError` where a picture of another prompt or seed has the name that one would get."""
    asked = (prompt, options.get("seed", 0), options.get("generator", "scenes"))
    for number in range(1, options.get("count", 3) + 1):
        path = out / f"generated_image_{number}.png"
        if not path.exists():
            continue
        try:
            record = files.read(path).record
        except ImageError:
            record = None
        if record is None or (record.prompt, record.seed, record.generator) != asked:
            raise OutputError(
                f"{path} is there already, and another picture; choose another --out, or move it"
            )


def unique(names: list[str]) -> list[str]:
    """Names made different by a number, in order: a, a_2, b."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, count = name, 1
        while candidate in taken:
            count += 1
            candidate = f"{name}_{count}"
        taken.add(candidate)
        result.append(candidate)
    return result
