"""The verb `preprocess`: pictures into the arrays that a model takes, several at a time and in order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np

from diptych.errors import ImageError, ShapeError
from diptych.files import keep, made_folder, replacing
from diptych.images import files
from diptych.images.arguments import Images, each_image, unique_names
from diptych.images.picture import Picture
from diptych.loading import Recipe, recipe_of
from diptych.model.layers import Array
from diptych.outcome import Outcome
from diptych.preprocessing import Preprocessing
from diptych.progress import Progress, silent

__all__ = [
    "Prepared",
    "in_order",
    "none_readable",
    "prepared",
    "preprocess",
    "preprocess_files",
    "stacked",
    "try_prepared",
    "write_array",
]

T = TypeVar("T")
R = TypeVar("R")

Prepared: TypeAlias = tuple[Path, Array | None, ImageError | None, tuple[str, ...]]
"""A path with its array, or the error that reading it raised, and the remarks of reading it."""


def preprocess(images: Images, preprocessing: Recipe, *, workers: int | None = None) -> Array:
    """Prepares pictures for a model.

    Args:
        images: A path, a folder, a uint8 array (H, W, 3) or (H, W), a `Picture`, or several of these.
        preprocessing: A recipe, its name, its file, or a model or model file that carries one.
        workers: How many threads read files; by default one for each core. The result does not depend
            on it.

    Returns:
        The batch, float32 (N, C, H, W).

    Raises:
        ImageError: A picture cannot be read.
        ShapeError: The recipe leaves the pictures at different sizes.
        UsageError: There are no images, or there is no such recipe.
    """
    return stacked(list(prepared(images, recipe_of(preprocessing), workers)))


def preprocess_files(
    images: Iterable[str | Path],
    preprocessing: Recipe,
    *,
    out: str | Path,
    progress: Progress = silent,
) -> Outcome:
    """Prepares picture files for a model, and writes what it will see of them.

    Args:
        images: Picture files and folders.
        preprocessing: A recipe, as `preprocess` takes it.
        out: The folder that gets NAME.npy (float32, (C, H, W)) and NAME.png for each picture, and
            recipe.json.
        progress: Told after each picture.

    Returns:
        The files written; `failures` holds a sentence for each picture that could not be read.

    Raises:
        OutputError: A file cannot be written, or would replace one of the pictures.
    """
    recipe = recipe_of(preprocessing)
    searched, folder = files.search(images), Path(out)
    found = list(searched.paths)
    names = unique_names(path.stem for path in found)
    keep(found, [folder / f"{name}{suffix}" for name in names for suffix in (".npy", ".png")])
    written, failures, remarks = [], [], list(searched.remarks)
    made_folder(folder)
    for index, (path, item, error, file_remarks) in enumerate(try_prepared(found, recipe)):
        progress(index + 1, len(found), "preprocessing")
        if item is None:
            failures.append(str(error))
            continue
        remarks += [f"{path}: {remark}" for remark in file_remarks]
        written += [folder / f"{names[index]}.npy", folder / f"{names[index]}.png"]
        write_array(written[-2], item)
        files.write_png(written[-1], recipe.display(item))
    with replacing(folder / "recipe.json") as path:
        path.write_text(json.dumps(recipe.to_document(), indent=2) + "\n", "utf-8")
    document = {
        "recipe": recipe.to_document(),
        "pictures": {str(p): n for p, n in zip(found, names, strict=True)},
    }
    return Outcome(document, (*written, folder / "recipe.json"), tuple(failures), tuple(remarks))


def prepared(images: Images, recipe: Preprocessing, workers: int | None = None) -> Iterator[Array]:
    """Yields each picture's array (C, H, W), in order; raises `ImageError` at one that cannot be read."""

    def prepare(image: Path | Picture) -> Array:
        return recipe.apply(image.pixels if isinstance(image, Picture) else files.decode(image)[0])

    return in_order(prepare, each_image(images), workers)


def try_prepared(paths: Iterable[Path], recipe: Preprocessing) -> Iterator[Prepared]:
    """Yields each path's array (C, H, W), in order, or the error where a file cannot be read."""

    def prepare(path: Path) -> Prepared:
        try:
            pixels, remarks = files.decode(path)
            return path, recipe.apply(pixels), None, remarks
        except ImageError as error:
            return path, None, error, ()

    return in_order(prepare, iter(paths))


def none_readable(failures: Sequence[str]) -> ImageError:
    """The error to raise where none of the pictures could be read."""
    if len(failures) == 1:
        return ImageError(failures[0])
    return ImageError(f"none of the {len(failures)} pictures could be read; the first: {failures[0]}")


def in_order(work: Callable[[T], R], items: Iterator[T], workers: int | None = None) -> Iterator[R]:
    """`map` by threads, in order, with only a few items in flight, so that a folder never fills the memory.

    Args:
        work: What to do with each item; its exception is raised when its turn comes.
        items: The items, taken from the iterator as they are needed.
        workers: How many threads; by default one for each core.

    Yields:
        The results, in the order of the items.
    """
    count = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(count) as pool:
        waiting = [pool.submit(work, item) for item in islice(items, 2 * count)]
        while waiting:
            done = waiting.pop(0)
            waiting += [pool.submit(work, item) for item in islice(items, 1)]
            yield done.result()


def stacked(items: list[Array]) -> Array:
    """Arrays (C, H, W) as one batch (N, C, H, W); raises `ShapeError` where they differ in shape."""
    shapes = {item.shape for item in items}
    if len(shapes) > 1:
        raise ShapeError(
            f"the recipe gives {len(shapes)} different shapes, {', '.join(map(str, sorted(shapes)[:3]))}, which "
            "cannot be one batch; add a Resize step, or bring all pictures to colour or to grey"
        )
    return np.stack(items)


def write_array(path: Path, array: Array) -> None:
    """Writes a .npy file, whole or not at all; raises `OutputError`."""
    with replacing(path) as temporary:
        np.save(temporary, array, allow_pickle=False)
