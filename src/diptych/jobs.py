"""The verbs from files to files, where one bad picture does not stop the others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import ImageError, UsageError
from diptych.files import replacing
from diptych.images import files, generation
from diptych.images.picture import Picture
from diptych.inference import compiled_for, in_order, load_model, recipe_of
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.predictions import Predictions
from diptych.preprocessing import NAMES, Preprocessing
from diptych.progress import Progress, silent

__all__ = ["Done", "generate_files", "predict_files", "prepared", "preprocess_files", "write_array"]


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
    written, remarks = [], []
    for picture in pictures:
        path = Path(out) / f"{picture.name}.png"
        files.write_png(path, picture.pixels, picture.record)
        written.append(path)
        remarks += remarks_on(picture)
    return Done(paths=tuple(written), remarks=tuple(dict.fromkeys(remarks)))


def preprocess_files(
    images: Iterable[str | Path],
    preprocessing: Preprocessing | Model | str,
    *,
    out: str | Path,
    progress: Progress = silent,
) -> Done:
    """Pictures -> NAME.npy, float32 (C, H, W), NAME.png to look at, and recipe.json, in the folder `out`."""
    recipe = _recipe(preprocessing)
    found, folder = files.find(images), Path(out)
    names = _unique([path.stem for path in found])
    written, failures = [], []
    for index, (_, item, error) in enumerate(prepared(found, recipe)):
        progress(index + 1, len(found), "preprocessing")
        if item is None:
            failures.append(str(error))
            continue
        written += [folder / f"{names[index]}.npy", folder / f"{names[index]}.png"]
        write_array(written[-2], item)
        files.write_png(written[-1], recipe.display(item))
    with replacing(folder / "recipe.json") as path:
        path.write_text(json.dumps(recipe.to_document(), indent=2) + "\n", "utf-8")
    return Done({"recipe": recipe.to_document()}, (*written, folder / "recipe.json"), tuple(failures))


def predict_files(
    model: Model | str | Path,
    images: Iterable[str | Path],
    *,
    preprocessing: Preprocessing | str | None = None,
    engine: str = "auto",
    device: str = "auto",
    progress: Progress = silent,
) -> Done:
    """The model's predictions for picture files and folders; raises `ImageError` where none can be read."""
    loaded = load_model(model)
    recipe = recipe_of(preprocessing or loaded)
    compiled = compiled_for(loaded, engine, device)
    found = files.find(images)
    names, outputs, failures = [], [], []
    for index, (path, item, error) in enumerate(prepared(found, recipe)):
        progress(index + 1, len(found), "predicting")
        if item is None:
            failures.append(str(error))
            continue
        names.append(str(path))
        outputs.append(compiled(item[np.newaxis]))
    if not outputs:
        raise none_readable(failures)
    predictions = Predictions.of(loaded, np.concatenate(outputs), names)
    return Done(predictions.to_document(), failures=tuple(failures), predictions=predictions)


def prepared(
    paths: Iterable[Path], recipe: Preprocessing
) -> Iterator[tuple[Path, Array | None, ImageError | None]]:
    """Each path with its preprocessed array, or with the error that reading it gave."""

    def work(path: Path) -> tuple[Path, Array | None, ImageError | None]:
        try:
            return path, recipe.apply(files.decode(path)), None
        except ImageError as error:
            return path, None, error

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
    said = [f"{picture.name}: {note}" for note in picture.notes]
    if picture.record is not None and picture.record.ignored:
        said.append(f"words not understood and left out: {', '.join(picture.record.ignored)}")
    return said


def _recipe(source: Preprocessing | Model | str) -> Preprocessing:
    """A recipe by its name or object; a name that is a file is a model that carries one."""
    if isinstance(source, str) and source not in NAMES and Path(source).exists():
        return recipe_of(load_model(source))
    return recipe_of(source)


def _unique(names: list[str]) -> list[str]:
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
