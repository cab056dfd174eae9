"""The verb `preprocess`: pictures into the arrays that a model takes, several at a time and in order."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np

from diptych.errors import ImageError, OutputError, ShapeError
from diptych.files import as_text, keep, npy, replacing, sha256
from diptych.images import files
from diptych.images.arguments import Images, each_image, unique_names
from diptych.images.picture import Picture
from diptych.journal import Journal, keeping, there_already, versions
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

_RECIPE = "recipe.json"
_SUFFIXES = (".npy", ".png")
_NAMES = re.compile(r"recipe\.json|.+\.(npy|png)", re.DOTALL)

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
    overwrite: bool = False,
    progress: Progress = silent,
) -> Outcome:
    """Prepares picture files for a model, and writes what it will see of them.

    What an earlier, interrupted call has finished is not made again. Calls with the same recipe may fill one folder.

    Args:
        images: Picture files and folders.
        preprocessing: A recipe, as `preprocess` takes it.
        out: The folder that gets NAME.npy (float32, (C, H, W)) and NAME.png for each picture, and
            recipe.json and the record run.json. Bytes of a name that are not UTF-8 are written as \\xff.
        overwrite: Whether to delete what the folder holds of another recipe, and replace what it holds of other
            pictures of the same names.
        progress: Told after each picture.

    Returns:
        The files; `failures` holds a sentence for each picture that could not be read, `remarks` tells how many were
        there already.

    Raises:
        OutputError: A file cannot be written, or would replace one of the pictures; the folder holds files of another
            recipe or other pictures, and `overwrite` is False; or another process is writing to it.
    """
    recipe = recipe_of(preprocessing)
    searched, folder = files.search(images), Path(out)
    found = list(searched.paths)
    names = unique_names(_file_name(path.stem) for path in found)
    wanted = [f"{name}{suffix}" for name in names for suffix in (".npy", ".png")]
    keep(found, [folder / name for name in wanted])
    settings = {"verb": "preprocess", "diptych": versions().get("diptych"), "recipe": recipe.to_document()}
    with keeping(folder, settings, _NAMES, wanted=[*wanted, _RECIPE], overwrite=overwrite) as journal:
        sources = [_sha256(path) for path in found]
        if not overwrite:
            _check_sources(journal, found, names, sources)
        done = _prepare_files(found, names, sources, recipe, journal, progress)
        journal.make(_RECIPE, partial(_write_recipe, recipe=recipe))
        journal.record(status="done")
    document = {
        "recipe": recipe.to_document(),
        "pictures": {as_text(p): n for p, n in zip(found, names, strict=True)},
    }
    remarks = (*searched.remarks, *done.remarks)
    return replace(done, document=document, paths=(*done.paths, folder / _RECIPE), remarks=remarks)


def _prepare_files(
    found: list[Path],
    names: list[str],
    sources: list[str],
    recipe: Preprocessing,
    journal: Journal,
    progress: Progress,
) -> Outcome:
    """Writes the two files of each picture, unless they are finished."""
    each = list(zip(found, names, sources, strict=True))
    left = [one for one in each if not all(journal.finished(f"{one[1]}{s}", one[2]) for s in _SUFFIXES)]
    failures: list[str] = []
    remarks = list(there_already(len(each) - len(left), len(each)))
    for done, ((path, name, source), (_, item, error, said)) in enumerate(
        zip(left, try_prepared((path for path, _, _ in left), recipe), strict=True), len(each) - len(left) + 1
    ):
        progress(done, len(each), "preprocessing")
        if item is None:
            failures.append(as_text(str(error)))
            continue
        remarks += [f"{as_text(path)}: {remark}" for remark in said]
        journal.make(f"{name}.npy", partial(write_array, array=item), source)
        journal.make(f"{name}.png", partial(files.write_png, array=recipe.display(item)), source)
    written = [journal.out / f"{name}{suffix}" for name in names for suffix in _SUFFIXES]
    return Outcome(
        paths=tuple(path for path in written if path.name in journal.files),
        failures=tuple(failures),
        remarks=tuple(remarks),
    )


def _file_name(stem: str) -> str:
    """The stem as a name that is text, also where file names have an encoding with fewer characters."""
    encoding = sys.getfilesystemencoding()
    return as_text(stem).encode(encoding, "backslashreplace").decode(encoding)


def _sha256(path: Path) -> str:
    try:
        return sha256(path)
    except OSError:
        return ""  # reading it will raise the reason


def _check_sources(journal: Journal, found: list[Path], names: list[str], sources: list[str]) -> None:
    """Raises `OutputError` where the folder holds files of another picture of the same name."""
    for path, name, source in zip(found, names, sources, strict=True):
        for file in (f"{name}{suffix}" for suffix in _SUFFIXES):
            if file in journal.files and journal.source(file) != source:
                raise OutputError(
                    f"{journal.out} holds {file} of another picture than {as_text(path)} is now; choose another "
                    "--out, or pass --overwrite to replace it"
                )


def _write_recipe(path: Path, recipe: Preprocessing) -> None:
    path.write_text(json.dumps(recipe.to_document(), indent=2) + "\n", "utf-8")


def prepared(images: Images, recipe: Preprocessing, workers: int | None = None) -> Iterator[Array]:
    """Prepares pictures for a model, one after the other.

    Args:
        images: As for `preprocess`.
        recipe: The recipe.
        workers: As for `preprocess`.

    Yields:
        Each picture's array, float32 (C, H, W), in order.

    Raises:
        ImageError: A picture cannot be read.
    """

    def prepare(image: Path | Picture) -> Array:
        return recipe.apply(image.pixels if isinstance(image, Picture) else files.decode(image)[0])

    return in_order(prepare, each_image(images), workers)


def try_prepared(paths: Iterable[Path], recipe: Preprocessing) -> Iterator[Prepared]:
    """Prepares picture files for a model, where one that cannot be read does not stop the others.

    Args:
        paths: The files.
        recipe: The recipe.

    Yields:
        For each file, in order: its array, float32 (C, H, W), or the error, and remarks.
    """

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
    """Makes one batch of the arrays.

    Args:
        items: Arrays (C, H, W).

    Returns:
        The batch (N, C, H, W).

    Raises:
        ShapeError: They differ in shape.
    """
    shapes = {item.shape for item in items}
    if len(shapes) > 1:
        raise ShapeError(
            f"the recipe gives {len(shapes)} different shapes, {', '.join(map(str, sorted(shapes)[:3]))}, which "
            "cannot be one batch; add a Resize step, or bring all pictures to colour or to grey"
        )
    return np.stack(items)


def write_array(path: Path, array: Array) -> None:
    """Writes a .npy file, whole or not at all.

    Args:
        path: The file.
        array: Of any shape; its dtype must not be object.

    Raises:
        OutputError: It cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(npy(array))
