"""What an `images` argument may be, and the same pictures whichever way they were given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diptych.errors import ImageError, ShapeError, UsageError
from diptych.images import files
from diptych.images.picture import Picture

__all__ = [
    "ImageLike",
    "Images",
    "as_batch",
    "as_picture",
    "each_image",
    "is_batch",
    "remarks_on_folders",
    "unique_names",
]

ImageLike: TypeAlias = "str | Path | Picture | NDArray[Any]"
"""One image: a path, a uint8 array (H, W, 3) or (H, W), or a `Picture`."""
Images: TypeAlias = "ImageLike | Iterable[ImageLike]"
"""One image, a folder of them, or several of these."""


def as_picture(image: ImageLike, name: str = "image") -> Picture:
    """Reads one image, or wraps it, as a `Picture`.

    Args:
        image: A path, a uint8 array (H, W, 3) or (H, W), or a `Picture`, which is returned unchanged.
        name: The name that an array gets.

    Raises:
        ImageError: The file cannot be read, or the array is not such an array.
        UsageError: `image` is something else.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, str | Path):
        return files.read(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise ImageError(
                f"a picture in memory must be uint8, not {image.dtype}; a float batch that is already "
                "preprocessed goes to predict or trace, as (N, C, H, W)"
            )
        return Picture(image, name)
    raise UsageError(f"an image is a path, an array or a Picture, not {type(image).__name__}")


def each_image(images: Images) -> Iterator[Path | Picture]:
    """Yields every image of an `images` argument, in order, without reading any file.

    A folder stands for the picture files in it. An array becomes a `Picture` named "image", or "image_1",
    "image_2", ... by its place where several images are given.

    Raises:
        ImageError: A path does not exist, a folder holds no pictures, or an array is not a picture.
        UsageError: `images` is of another type, or empty.
    """
    if isinstance(images, str | Path):
        yield from files.find([images])
        return
    if isinstance(images, Picture) or (isinstance(images, np.ndarray) and images.ndim < 4):
        yield as_picture(images)
        return
    if not isinstance(images, Iterable):
        raise UsageError(f"images are paths, arrays or Pictures, not {type(images).__name__}")
    number = 0
    for number, image in enumerate(images, 1):
        if isinstance(image, str | Path):
            yield from files.find([image])
        else:
            yield as_picture(image, f"image_{number}")
    if number == 0:
        raise UsageError("there are no images; give paths, folders or arrays")


def remarks_on_folders(images: object, inside: bool = False) -> tuple[str, ...]:
    """Says which files of folders are skipped.

    Args:
        images: An `images` argument; what is not a folder is passed over.
        inside: Whether the folders inside a folder are searched too.

    Returns:
        At most one sentence, which counts the files and names the first of them.
    """
    paths = [images] if isinstance(images, str | Path) else images if isinstance(images, list | tuple) else []
    folders = [Path(path) for path in paths if isinstance(path, str | Path) and Path(path).is_dir()]
    if inside:
        return files.remarks_on_skipped(path for folder in folders for path in files.skipped_in(folder))
    return files.search(folders).remarks if folders else ()


def is_batch(images: object) -> bool:
    """Whether `images` is a float array: a batch that is already preprocessed."""
    return isinstance(images, np.ndarray) and images.dtype.kind == "f"


def as_batch(images: object) -> NDArray[Any]:
    """The float array `images` as contiguous float32, (N, C, H, W) or (N, features).

    Raises:
        ShapeError: It has no axis, or is empty; a model says which number of axes it takes.
    """
    batch = np.asarray(images, dtype=np.float32, order="C")
    if batch.ndim < 1 or batch.size == 0:
        raise ShapeError(f"a batch is (N, C, H, W) or (N, features) and not empty, got shape {batch.shape}")
    return batch


def unique_names(names: Iterable[str]) -> list[str]:
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
