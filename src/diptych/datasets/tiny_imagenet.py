"""Tiny ImageNet: 200 classes of 64 x 64 pixels, from its folder, or from the archive as it was downloaded.

The layout of tiny-imagenet-200: `wnids.txt` names the classes, `words.txt` says what they are;
`train/n01443537/images/*.JPEG`, and `val/images/*.JPEG` with `val/val_annotations.txt`. An archive is read
member by member, never unpacked: nothing is written to disk, and one picture is in memory at a time.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diptych.errors import DiptychError, ImageError, UsageError, damage
from diptych.files import is_file, is_folder

__all__ = ["Example", "TinyImageNet", "is_tiny_imagenet"]

Split: TypeAlias = Literal["train", "val"]

_MOST_BYTES = 16 * 2**20  # of one member; the true pictures have about 2 KiB, the lists at most 3 MiB
_MOST_PIXELS = 4096 * 4096
_MOST_UNPACKED = 64 * 2**20  # bytes of a whole tar, or this many times the file's size where that is more:
_MOST_RATIO = 20  # its pictures are JPEG files, which no compression makes smaller
_COMPRESSED: tuple[tuple[bytes, Callable[..., Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
)


@dataclass(frozen=True, eq=False)
class Example:
    """One picture.

    Attributes:
        pixels: uint8 (H, W, 3).
        label: Its class, an index into `TinyImageNet.classes`.
        name: The name of its file.
    """

    pixels: NDArray[np.uint8]
    label: int
    name: str


@dataclass(frozen=True)
class TinyImageNet:
    """The data set in a folder or an archive.

    Attributes:
        path: The folder tiny-imagenet-200, a folder that holds it, or a .zip or .tar archive of it, also compressed by
            gzip, bzip2 or xz.

    Reading raises `ImageError` if nothing is there, the layout is another, or an archive is damaged.
    """

    path: Path

    @property
    def classes(self) -> tuple[str, ...]:
        """The WordNet names of the classes ("n01443537"), in the order of their labels."""
        with _opened(self.path) as files:
            return _classes(files, self.path)

    def examples(self, split: Split = "train", most: int | None = None) -> Iterator[Example]:
        """Reads the pictures of a split, sorted by name or in the order of the archive.

        Args:
            split: "train" or "val".
            most: The most pictures, spread evenly over the split and so over the classes; None for all.

        Yields:
            The pictures; a grey one is given three equal channels.

        Raises:
            UsageError: There is no such split.
            ImageError: A picture is damaged, or has no class.
        """
        if split not in ("train", "val"):
            raise UsageError(f"Tiny ImageNet has the splits train and val, not {str(split)[:40]!r}")
        with _opened(self.path) as files:
            labelled = _labelled(files, split, self.path)
            if most is not None and most < len(labelled):
                labelled = [labelled[index * len(labelled) // most] for index in range(most)]
            for name, label in labelled:
                yield Example(_decoded(files.read(name), f"{self.path}: {name}"), label, Path(name).name)


def is_tiny_imagenet(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a folder in this layout, or an archive, whose layout only reading it tells."""
    place = Path(path)
    if is_folder(place):
        return any(is_file(place / inner / "wnids.txt") for inner in ("", "tiny-imagenet-200"))
    if not is_file(place) or not os.access(place, os.R_OK):
        return False
    with place.open("rb") as stream:
        start = stream.read(512)
    return start[257:262] == b"ustar" or _decompressor(start) is not None or zipfile.is_zipfile(place)


@dataclass(frozen=True)
class _Files:
    """The files of a folder or archive: their names relative to that of wnids.txt, and a function that reads one."""

    names: tuple[str, ...]
    read: Callable[[str], bytes]


@contextmanager
def _opened(path: Path) -> Iterator[_Files]:
    place = Path(path)
    if not place.exists():
        raise ImageError(f"there is no folder or archive {place}; check the name")
    try:
        if place.is_dir():
            yield _in_folder(place)
        elif zipfile.is_zipfile(place):
            with zipfile.ZipFile(place) as archive:
                members: dict[str, Any] = {m.filename: m for m in archive.infolist() if not m.is_dir()}
                yield _in_archive(place, members, archive.open)
        else:
            with _tar(place) as archive_tar:
                members = {m.name: m for m in archive_tar if m.isfile()}
                stream: Any = archive_tar.fileobj
                # tarfile takes the end of the file for that of the archive.
                if stream.tell() <= archive_tar.offset:
                    raise tarfile.ReadError("its end mark is missing")
                yield _in_archive(place, members, archive_tar.extractfile)
    except (DiptychError, MemoryError):
        raise
    except Exception as error:  # damage makes the archives' libraries raise anything
        raise ImageError(
            f"{place} is not a whole Tiny ImageNet archive: it is truncated or damaged ({damage(error)}); "
            "download it again"
        ) from error


def _decompressor(start: bytes) -> Callable[..., Any] | None:
    return next((opener for magic, opener in _COMPRESSED if start.startswith(magic)), None)


@contextmanager
def _tar(place: Path) -> Iterator[tarfile.TarFile]:
    with place.open("rb") as stream:
        opener = _decompressor(stream.read(8))
    with (opener or open)(place, "rb") as content:
        bounded: Any = _Bounded(content, place)
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            yield archive


class _Bounded:
    """A tar's bytes, which refuses what only a bomb asks for: one huge header, or a huge unpacked size."""

    def __init__(self, stream: IO[bytes], place: Path) -> None:
        self._stream = stream
        self._most = max(_MOST_UNPACKED, _MOST_RATIO * place.stat().st_size)
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        if size > _MOST_BYTES + 1:
            raise tarfile.ReadError(f"a header in it claims {size:,} bytes")
        return self._stream.read(size)

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if position > self._most:
            raise tarfile.ReadError(f"it unpacks to more than {self._most:,} bytes")
        return self._stream.seek(position, whence)


def _in_folder(place: Path) -> _Files:
    root = place if (place / "wnids.txt").is_file() else place / "tiny-imagenet-200"
    if not (root / "wnids.txt").is_file():
        raise _wrong_layout(place)
    names = [
        Path(folder, name).relative_to(root).as_posix()
        for folder, _, found in os.walk(root)
        for name in found
    ]

    def read(name: str) -> bytes:
        with (root / name).open("rb") as stream:
            return _bounded(stream, name, place)

    return _Files(tuple(sorted(names)), read)


def _in_archive(place: Path, members: Mapping[str, Any], opened: Callable[[Any], IO[bytes] | None]) -> _Files:
    root = next((name[: -len("wnids.txt")] for name in sorted(members, key=len) if _is_list(name)), None)
    if root is None:
        raise _wrong_layout(place)
    # In the order of the archive: to go back in a compressed tar is to decompress it again.
    inside = {name[len(root) :]: member for name, member in members.items() if name.startswith(root)}

    def read(name: str) -> bytes:
        stream = opened(inside[name])
        if stream is None:
            raise ImageError(f"{place}: {name} is not a file; download it again")
        with stream:
            return _bounded(stream, name, place)

    return _Files(tuple(inside), read)


def _is_list(name: str) -> bool:
    return name == "wnids.txt" or name.endswith("/wnids.txt")


def _bounded(stream: IO[bytes], name: str, place: Path) -> bytes:
    content = stream.read(_MOST_BYTES + 1)  # a header may claim any size
    if len(content) > _MOST_BYTES:
        raise ImageError(
            f"{place}: {name} has more than {_MOST_BYTES:,} bytes, and does not belong to Tiny ImageNet"
        )
    return content


def _lines(files: _Files, name: str, place: Path) -> list[str]:
    if name not in files.names:
        raise ImageError(f"{place} has no {name}; is all of Tiny ImageNet there?")
    return [line for line in files.read(name).decode("utf-8", "replace").splitlines() if line.strip()]


def _classes(files: _Files, place: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in _lines(files, "wnids.txt", place))


def _labelled(files: _Files, split: Split, place: Path) -> list[tuple[str, int]]:
    label_of = {name: index for index, name in enumerate(_classes(files, place))}
    pictures = [
        n for n in files.names if n.startswith(f"{split}/") and n.lower().endswith((".jpeg", ".jpg", ".png"))
    ]
    if split == "val":
        lines = (line.split("\t") for line in _lines(files, "val/val_annotations.txt", place))
        stated = {f"val/images/{fields[0]}": fields[1].strip() for fields in lines if len(fields) > 1}
    else:
        stated = {name: name.split("/")[1] for name in pictures}
    for name in pictures:
        if stated.get(name) not in label_of:
            raise ImageError(
                f"{place}: {name} has no class that wnids.txt lists; is all of Tiny ImageNet there?"
            )
    if not pictures:
        raise ImageError(f"{place} has no pictures under {split}/; is all of Tiny ImageNet there?")
    return [(name, label_of[stated[name]]) for name in pictures]


def _decoded(content: bytes, where: str) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ImageError(
                    f"{where} claims {image.width} x {image.height} pixels; Tiny ImageNet has 64 x 64"
                )
            return np.asarray(image.convert("RGB"))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise anything
        raise ImageError(f"{where} is a damaged picture ({damage(error)}); download it again") from error


def _wrong_layout(place: Path) -> ImageError:
    return ImageError(
        f"{place} is not laid out as Tiny ImageNet: there is no wnids.txt in it, nor in tiny-imagenet-200/; "
        "name the folder tiny-imagenet-200, or the archive"
    )
