"""Pictures in one folder for each class, split into those to learn from, to choose by, and to judge on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diptych.datasets.folders import natural, nested
from diptych.errors import ImageError
from diptych.files import as_text, is_folder, sha256
from diptych.images.files import SUFFIXES

__all__ = ["Folders", "Split", "found", "split"]

LEAST = 5
"""The fewest pictures of a class: one to judge on, one to choose by, and three to learn from."""

_SHARE = 0.2  # of a class's pictures to judge on, and of the others to choose by
_MOST_NAMED = 5


@dataclass(frozen=True)
class Folders:
    """Pictures with their classes.

    Attributes:
        classes: The names of the folders, sorted as people count.
        paths: The pictures, class by class.
        labels: The number of each one's class, int64.
        hashes: The SHA-256 of each one's bytes.
        remarks: Sentences on what was left out.
    """

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    hashes: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def identity(self) -> str:
        """The SHA-256 of all pictures, by class and content, wherever they lie."""
        lines = sorted(
            f"{self.classes[label]}\0{each}" for label, each in zip(self.labels, self.hashes, strict=True)
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Split:
    """Indices of pictures; no picture is in two of them."""

    learning: NDArray[np.int64]
    choosing: NDArray[np.int64]
    judging: NDArray[np.int64]


def found(folder: str | Path) -> Folders:
    """Finds the pictures of every class.

    Pictures with the same bytes are taken once, so that none is learnt from and judged on.

    Args:
        folder: One folder in it for each class, with pictures in it or in folders inside.

    Raises:
        ImageError: There are fewer than two classes, one has too few pictures, or a picture is in two classes.
    """
    place = Path(folder)
    if not is_folder(place):
        raise ImageError(f"{place} is no folder; name one that holds a folder of pictures for each class")
    names = sorted(
        (one.name for one in place.iterdir() if one.is_dir() and not one.name.startswith(".")), key=natural
    )
    seen: dict[str, tuple[Path, int]] = {}
    classes, again, empty = list[str](), list[Path](), list[str]()
    for name in names:
        try:
            files = nested(place / name, SUFFIXES)
        except ImageError:
            empty.append(name)
            continue
        label = len(classes)
        classes.append(as_text(name))
        for path in files:
            digest = sha256(path)
            if digest not in seen:
                seen[digest] = path, label
            elif seen[digest][1] == label:
                again.append(path)
            else:
                raise ImageError(
                    f"{path} and {seen[digest][0]} are the same picture in two classes; delete one of them"
                )
    _check(place, classes, [label for _, label in seen.values()])
    remarks = []
    if empty:
        remarks.append(f"folders without pictures were left out: {_named(empty)}")
    if again:
        remarks.append(
            f"pictures that occur more than once were taken once: {_named([one.name for one in again])}"
        )
    labels = np.array([label for _, label in seen.values()], np.int64)
    return Folders(
        tuple(classes), tuple(path for path, _ in seen.values()), labels, tuple(seen), tuple(remarks)
    )


def _check(place: Path, classes: Sequence[str], labels: Sequence[int]) -> None:
    if len(classes) < 2:
        raise ImageError(
            f"{place} has {len(classes) or 'no'} {'folder' if len(classes) == 1 else 'folders'} of pictures, and a "
            "classifier needs one for each of two classes or more"
        )
    for label, name in enumerate(classes):
        count = sum(each == label for each in labels)
        if count < LEAST:
            raise ImageError(f"the class {name} has {count} different pictures; at least {LEAST} are needed")


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(as_text(name) for name in names[:_MOST_NAMED])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > _MOST_NAMED else shown


def split(labels: NDArray[np.int64], hashes: Sequence[str], seed: int) -> Split:
    """Splits pictures class by class: a fifth to judge on, and a fifth of the others to choose by.

    Which part a picture is in depends on its content and the seed, not on its name.

    Args:
        labels: The class of each picture.
        hashes: The SHA-256 of each one's bytes.
        seed: Of the split.
    """
    parts: tuple[list[int], list[int], list[int]] = [], [], []
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=lambda index: hashes[index])
        order = np.random.default_rng([seed, int(label)]).permutation(len(members))
        judging = max(1, round(_SHARE * len(members)))
        choosing = max(1, round(_SHARE * (len(members) - judging)))
        shuffled = [members[index] for index in order]
        parts[2].extend(shuffled[:judging])
        parts[1].extend(shuffled[judging : judging + choosing])
        parts[0].extend(shuffled[judging + choosing :])
    learning, choosing_, judging_ = (np.array(sorted(part), np.int64) for part in parts)
    return Split(learning, choosing_, judging_)
