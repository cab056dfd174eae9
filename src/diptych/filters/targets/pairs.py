"""Filters that are known only by pictures before and after them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diptych.datasets import folders
from diptych.errors import ImageError, UsageError
from diptych.files import is_folder
from diptych.filters.planes import coloured
from diptych.filters.target import Target
from diptych.images import files
from diptych.model.layers import Array

__all__ = ["LOSSY", "Pairs", "paired"]

LOSSY = (".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, eq=False)
class Pairs(Target):
    """A filter known by pictures before and after it.

    Called with a whole picture of `before`, it returns the one after. The edge, the radius and whether channels are
    alike are unknown.

    Attributes:
        before: Pictures by name, uint8 (H, W, 3), or (H, W) where all are grey.
        after: The same after the filter; may be float levels.
        whole: The pictures before the filter as they were given, where a single pair was split for learning.
        compressed: The names of pictures whose file after the filter is lossy.
    """

    before: Mapping[str, Array] = field(default_factory=dict)
    after: Mapping[str, Array] = field(default_factory=dict)
    whole: Mapping[str, Array] = field(default_factory=dict)
    compressed: tuple[str, ...] = ()


def paired(before: Any, after: Any) -> Pairs:
    """Makes a filter of pairs of pictures.

    Files are matched by their names without suffix, arrays by their order. A single pair is split into four fifths
    and one fifth along its longer side, so that a part is left for evaluation.

    Args:
        before: A folder, a file, an array, or a list of files or arrays.
        after: The same, after the filter.

    Raises:
        UsageError: A picture has no partner, or one of another size.
        ImageError: A file or array is not a picture.
    """
    first, second = _pictures(before, "before"), _pictures(after, "after")
    matched_by_name = bool(first.paths) and bool(second.paths)
    if len(first.pictures) == len(second.pictures) == 1 or not matched_by_name:
        if len(first.pictures) != len(second.pictures):
            raise UsageError(
                f"there are {len(first.pictures)} pictures before the filter and {len(second.pictures)} after it; "
                "give as many of both"
            )
        second = second.renamed(list(first.pictures))
    _check_partners(first, second)
    firsts, seconds = dict(first.pictures), {name: second.pictures[name] for name in first.pictures}
    firsts, seconds = _alike(firsts), _alike(seconds)
    whole, known = firsts, _answers(firsts, seconds)
    if len(firsts) == 1:
        firsts, seconds = _cut(firsts), _cut(seconds)
        known |= _answers(firsts, seconds)
    channels = tuple(3 if next(iter(side.values())).ndim == 3 else 1 for side in (firsts, seconds))
    return Pairs(
        name=f"{len(first.pictures)} pair{'s' * (len(first.pictures) > 1)} of pictures",
        function=partial(_look_up, known),
        reference="pictures before and after a filter that is known only by them",
        channels=(channels[0], channels[1]),
        rounded=all(picture.dtype == np.uint8 for picture in seconds.values()),
        before=firsts,
        after=seconds,
        whole=whole,
        compressed=tuple(name for name, path in second.paths.items() if path.suffix.lower() in LOSSY),
    )


@dataclass(frozen=True, eq=False)
class _Side:
    pictures: dict[str, Array]
    paths: dict[str, Path]  # empty for arrays

    def renamed(self, names: list[str]) -> _Side:
        new = dict(zip(self.pictures, names, strict=True))
        return _Side(
            {new[name]: picture for name, picture in self.pictures.items()},
            {new[name]: path for name, path in self.paths.items()},
        )


def _pictures(given: Any, which: str) -> _Side:
    if isinstance(given, np.ndarray):
        given = [given] if given.ndim <= 3 else list(given)
    if isinstance(given, str | os.PathLike):
        root = Path(given)
        if not is_folder(root):
            return _read({root.stem: root})
        found = folders.nested(root, files.SUFFIXES)
        return _read(_once((path.relative_to(root).with_suffix("").as_posix(), path) for path in found))
    if not isinstance(given, Sequence) or not given:
        raise UsageError(
            f"the pictures {which} the filter must be a folder, a file, or a list of files or arrays, "
            f"not {type(given).__name__}"
        )
    if all(isinstance(one, str | os.PathLike) for one in given):
        return _read(_once((Path(path).stem, Path(path)) for path in given))
    arrays = {f"picture {index}": _array(one, index, which) for index, one in enumerate(given)}
    return _Side(arrays, {})


def _once(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, path in named:
        if name in found:
            raise UsageError(
                f"{found[name]} and {path} have the same name, so pairs cannot be matched; rename one"
            )
        found[name] = path
    return found


def _read(paths: dict[str, Path]) -> _Side:
    return _Side({name: files.read(path).pixels for name, path in paths.items()}, paths)


def _array(given: Any, index: int, which: str) -> Array:
    shape, dtype = np.shape(given), getattr(given, "dtype", np.dtype(object))
    is_picture = (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) and 0 not in shape
    if is_picture and dtype == np.uint8:
        return np.ascontiguousarray(given)
    if is_picture and dtype.kind == "f" and which == "after" and 0 <= np.min(given) <= np.max(given) <= 1:
        return np.asarray(given, np.float64) * 255
    expected = "uint8" if which == "before" else "uint8, or floats from 0 to 1,"
    raise ImageError(
        f"picture {index} {which} the filter must be {expected} of shape (H, W, 3) or (H, W), "
        f"not {dtype} of shape {shape}"
    )


def _check_partners(first: _Side, second: _Side) -> None:
    alone = [name for name in first.pictures if name not in second.pictures]
    extra = [name for name in second.pictures if name not in first.pictures]
    if alone or extra:
        shown = ", ".join((alone or extra)[:3]) + (", ..." if len(alone or extra) > 3 else "")
        where = "after" if alone else "before"
        raise UsageError(
            f"{len(alone or extra)} of {len(first.pictures if alone else second.pictures)} pictures have no partner "
            f"of the same name {where} the filter: {shown}; give both the same name"
        )
    for name, picture in first.pictures.items():
        one, other = picture.shape[:2], second.pictures[name].shape[:2]
        if one != other:
            raise UsageError(
                f"the pair {name!r} is {one[1]} x {one[0]} pixels before and {other[1]} x {other[0]} after the filter; "
                "make both the same size"
            )


def _cut(one: dict[str, Array]) -> dict[str, Array]:
    ((name, picture),) = one.items()
    axis = 0 if picture.shape[0] >= picture.shape[1] else 1
    if picture.shape[axis] < 5:
        raise UsageError(
            "a single pair of less than 5 pixels is too small to learn from; give larger pictures"
        )
    place = picture.shape[axis] * 4 // 5
    place -= place % 8 if place >= 64 else 0  # on the grid of JPEG's blocks, which is examined later
    parts = np.split(picture, [place], axis=axis)
    return {
        f"{name} ({which})": np.ascontiguousarray(part)
        for which, part in zip(("most", "rest"), parts, strict=True)
    }


def _alike(pictures: dict[str, Array]) -> dict[str, Array]:
    if len({picture.ndim for picture in pictures.values()}) == 1:
        return pictures
    return {name: coloured(picture) for name, picture in pictures.items()}


def _answers(firsts: Mapping[str, Array], seconds: Mapping[str, Array]) -> dict[Any, Array]:
    return {_key(picture): seconds[name] for name, picture in firsts.items()}


def _key(picture: Array) -> tuple[tuple[int, ...], bytes]:
    return picture.shape, hashlib.sha256(picture.tobytes()).digest()


def _look_up(known: Mapping[Any, Array], image: Array) -> Array:
    try:
        return known[_key(image)]
    except KeyError:
        raise UsageError(
            "a filter that is given by pairs can only be applied to the whole pictures of these pairs; "
            "learn it, and apply the model"
        ) from None
