"""The pictures that a filter is learned from, and others that are held out for evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from diptych.datasets import folders, photographs
from diptych.errors import ImageError, UsageError
from diptych.files import is_file, is_folder
from diptych.filters.held_out import HELD_OUT, held_out_picture
from diptych.filters.planes import coloured
from diptych.images import files
from diptych.model.layers import Array
from diptych.preprocessing.grey import grey_pillow
from diptych.progress import Progress, silent

__all__ = ["HELD_OUT", "Data", "gather"]

SHARE_HELD_OUT = 0.2
_SYNTHETIC, _SIDE = 8, 256
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_MOST_EXAMPLES = 2000  # of Tiny ImageNet; 8 million pixels, as many as the photographs have


class Data:
    """Pictures to train on and pictures to evaluate on; no picture is in both.

    Pictures are uint8, (H, W, 3), or (H, W) for one channel. Synthetic pictures come after photographs.

    Args:
        train: The pictures to train on, or a function that returns them, called when they are first needed. Closed
            forms need none.
        held_out: The pictures to evaluate on, by name.
    """

    def __init__(
        self, train: tuple[Array, ...] | Callable[[], tuple[Array, ...]], held_out: Mapping[str, Array]
    ) -> None:
        self._train, self.held_out = train, held_out

    @cached_property
    def train(self) -> tuple[Array, ...]:
        """The pictures to train on."""
        return self._train() if callable(self._train) else self._train


def gather(images: Any = None, *, channels: int, seed: int = 0, progress: Progress = silent) -> Data:
    """Gathers the pictures for learning a filter.

    Of given pictures a fifth, at least one, is held out, drawn by `seed`; of two pictures the smaller one.

    Args:
        images: None for the photographs that come with scikit-image and synthetic pictures, while `HELD_OUT` are
            held out. Otherwise a folder with all its subfolders, a file, an iterable of paths or uint8 arrays, or a
            mapping from names to arrays; or Tiny ImageNet as a folder, an archive or an address, of which 2000
            training pictures are taken.
        channels: 1 or 3 input channels, to which all pictures are converted.
        seed: A whole number of at least 0.
        progress: Told about downloads.

    Raises:
        UsageError: There are fewer than two pictures.
        ImageError: A picture cannot be read.
        OutputError: A download fails.
    """
    if images is None:
        return _bundled(channels, seed)
    pictures = [(name, with_channels(picture, channels)) for name, picture in _given(images, progress)]
    if len(pictures) < 2:
        raise UsageError(
            f"learning needs at least two pictures, of which one is held out for evaluation, got {len(pictures)}; "
            "name more"
        )
    order = np.random.default_rng(seed).permutation(len(pictures))
    if len(pictures) == 2:  # the smaller one is enough for evaluation
        order = np.argsort([picture.size for _, picture in pictures], kind="stable")
    apart = set(order[: max(1, round(SHARE_HELD_OUT * len(pictures)))].tolist())
    train = tuple(picture for index, (_, picture) in enumerate(pictures) if index not in apart)
    return Data(train, _by_name([pictures[index] for index in sorted(apart)]))


def _bundled(channels: int, seed: int) -> Data:
    held_out = {name: with_channels(held_out_picture(name), channels) for name in HELD_OUT}

    def train() -> tuple[Array, ...]:
        from diptych.datasets import synthetic

        pictures = [photographs.photograph(name) for name in photographs.NAMES if name not in HELD_OUT]
        pictures += synthetic.synthetic(_SYNTHETIC, _SIDE, seed)
        return tuple(with_channels(picture, channels) for picture in pictures)

    return Data(train, held_out)


def with_channels(picture: Array, channels: int) -> Array:
    """A picture with 3 channels or 1: grey repeated, or colour as luma rounded to whole levels."""
    return coloured(picture) if channels == 3 else grey_pillow(picture)


def _given(images: Any, progress: Progress) -> list[tuple[str, Array]]:
    from diptych.datasets.downloading import local
    from diptych.datasets.tiny_imagenet import TinyImageNet, is_tiny_imagenet

    if isinstance(images, str | os.PathLike):
        images = local(images, progress)
        if is_tiny_imagenet(images):
            examples = TinyImageNet(images).examples("train", _MOST_EXAMPLES)
            return [(example.name, example.pixels) for example in examples]
        if is_file(images) and images.name.lower().endswith(_ARCHIVES):
            raise ImageError(
                f"{images} cannot be opened as an archive: it is truncated, or of another kind than its suffix says; "
                "download it again"
            )
        paths = folders.nested(images, files.SUFFIXES) if is_folder(images) else files.find(images)
        return [(path.stem, files.read(path).pixels) for path in paths]
    if isinstance(images, Mapping):
        return [(str(name), _checked(picture, str(name))) for name, picture in images.items()]
    if isinstance(images, np.ndarray) and (images.ndim == 2 or images.shape[2:] == (3,)):
        images = [images]  # a single picture, not a sequence of its rows
    if not isinstance(images, Iterable):
        raise UsageError(f"pictures must be a folder, paths or arrays, not {type(images).__name__}")
    return [_one(index, image) for index, image in enumerate(images)]


def _one(index: int, image: Any) -> tuple[str, Array]:
    if isinstance(image, str | os.PathLike):
        picture = files.read(image)
        return picture.name, picture.pixels
    return f"picture {index}", _checked(image, f"picture {index}")


def _checked(image: Any, name: str) -> Array:
    shape, dtype = np.shape(image), getattr(image, "dtype", None)
    if dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) or 0 in shape:
        raise ImageError(f"{name} must be uint8 of shape (H, W, 3) or (H, W), not {dtype} of shape {shape}")
    return np.asarray(image)


def _by_name(pictures: list[tuple[str, Array]]) -> dict[str, Array]:
    named: dict[str, Array] = {}
    for name, picture in pictures:
        count = 2
        unique = name
        while unique in named:
            unique, count = f"{name} ({count})", count + 1
        named[unique] = picture
    return named
