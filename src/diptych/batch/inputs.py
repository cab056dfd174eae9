"""The pictures of a job, in a fixed order: from folders, patterns, lists and tar archives, without reading them."""

from __future__ import annotations

import codecs
import glob
import os
import stat
import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from diptych.datasets.folders import natural
from diptych.errors import ImageError, reason
from diptych.files import as_text, is_folder
from diptych.images.files import SUFFIXES, remarks_on_skipped

__all__ = ["Input", "Listing", "as_given", "listed", "names_in"]

_MISSING = -1
_LONGEST_HEADER = 16 * 2**20  # bytes of one header of a tar
_LARGEST_LIST = 2**30  # bytes
_MOST_REMARKS = 5


@dataclass(frozen=True, slots=True)
class Input:
    """A picture that a job will read.

    Attributes:
        name: The path as it was given, or ARCHIVE/MEMBER; it is what the column `file` holds.
        size: Bytes, when the job was planned; -1 where there was no such file.
        modified: When the file was last changed, in nanoseconds since 1970.
        archive: The tar that holds it, as it was given; None for a file of its own.
        offset: Where its bytes begin in the archive.
        inside: The path in the folder or archive that was given; of a file that was named, its own name.
    """

    name: str
    size: int
    modified: int
    archive: str | None = None
    offset: int = 0
    inside: str = ""

    def content(self, folder: str) -> tuple[Path, bytes | None]:
        """The file to read, and its bytes where it is a member of an archive.

        Args:
            folder: What relative paths are relative to.

        Raises:
            ImageError: The archive cannot be read, or is shorter than it was.
        """
        if self.archive is None:
            return Path(folder, self.name), None
        try:
            with Path(folder, self.archive).open("rb") as stream:
                stream.seek(self.offset)
                content = stream.read(self.size)
        except OSError as error:
            raise ImageError(f"cannot read {self.archive}: {reason(error)}; check the archive") from error
        if len(content) < self.size:
            raise ImageError(f"{self.archive} ends inside {self.name}; copy or download it again")
        if not content:
            raise ImageError(f"{self.name} is empty (0 bytes); make the archive again")
        return Path(self.name), content


@dataclass(frozen=True)
class Listing:
    """The pictures that were found, each once, and sentences about what was left out."""

    inputs: tuple[Input, ...]
    remarks: tuple[str, ...] = ()


def listed(given: Iterable[str | Path], names: Iterable[str] = (), *, recursive: bool = False) -> Listing:
    """Lists pictures in a fixed order.

    Args:
        given: Picture files; folders, whose pictures are sorted as people count; tar archives (as WebDataset has
            them), whose pictures stand in the archive's order; patterns of pictures or archives, such as
            "photos/**/*.jpg"; and the folder of Tiny ImageNet, which is searched whole.
        names: Further picture files, as from a list. One that is not there costs its row, not the job.
        recursive: Whether folders inside folders are searched too.

    Returns:
        The pictures, each once.

    Raises:
        ImageError: Something given does not exist, cannot be read, or holds no pictures; or there is nothing at all.
    """
    found: dict[tuple[str, int], Input] = {}
    skipped: list[Path] = []
    remarks: list[str] = []
    repeated = list[Path]()
    places = _Places()
    sources = [_of_argument(as_given(one), recursive, skipped, remarks) for one in given]
    for source in (*sources, (_of_name(name) for name in names)):
        for one in source:
            place = places.of(one.archive if one.archive is not None else one.name)
            if (place, one.offset) in found:
                repeated.append(Path(one.name))
            found.setdefault((place, one.offset), one)
    if not found:
        raise ImageError("no pictures were named; name files, a folder that holds some, or a list of them")
    if repeated:
        shown = ", ".join(as_text(one) for one in repeated[:_MOST_REMARKS])
        rest = ", ..." if len(repeated) > _MOST_REMARKS else ""
        remarks.append(
            f"pictures that were named more than once are taken once: {len(repeated)} ({shown}{rest})"
        )
    return Listing(tuple(found.values()), (*remarks_on_skipped(skipped), *remarks))


class _Places:
    """Where files really are; each folder is looked up once."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def of(self, name: str) -> str:
        folder, base = os.path.split(name)
        if base in ("", ".", "..") or os.path.islink(name):  # noqa: PTH114
            return os.path.realpath(name)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], base)  # noqa: PTH118


def as_given(path: str | Path) -> str:
    """A path as it is noted: "photographs/" is "photographs", on the command line and in Python."""
    return str(Path(path))


def names_in(path: str | Path) -> list[str]:
    """Reads a list of picture files, one a line; empty lines are passed over.

    Args:
        path: A text file in UTF-8, or "-" for standard input.

    Raises:
        ImageError: It cannot be read, or names no pictures.
    """
    where = "standard input" if str(path) == "-" else str(path)
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(_LARGEST_LIST)
        else:
            with Path(path).open("rb") as stream:
                content = stream.read(_LARGEST_LIST)
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read the list {where}: {reason(error)}; check its name") from error
    if b"\0" in content:
        raise ImageError(f"the list {where} is not a text with one path a line; name a text file")
    content = content.removeprefix(codecs.BOM_UTF8)  # some editors of Windows begin a text with it
    lines = [os.fsdecode(line) for line in content.splitlines() if line.strip()]
    if not lines:
        raise ImageError(f"the list {where} names no pictures; write one path a line")
    return lines


def _of_argument(given: str, recursive: bool, skipped: list[Path], remarks: list[str]) -> Iterable[Input]:
    if is_folder(given):
        from diptych.datasets.tiny_imagenet import is_tiny_imagenet  # not needed where parts are made

        return _in_folder(given, recursive or is_tiny_imagenet(given), skipped)
    if os.path.lexists(given):
        return _in_tar(given, remarks) if _is_tar(given) else [_of_name(given)]
    if glob.has_magic(given):
        return _matching(given, remarks)
    raise ImageError(f"there is no picture or folder {given}; check the name")


def _of_name(name: str) -> Input:
    try:
        status = os.stat(name)  # noqa: PTH116 - one call for each of many
    except (OSError, ValueError):
        return Input(name, _MISSING, 0, inside=os.path.basename(name))  # noqa: PTH119 - reading it tells the reason
    return Input(name, status.st_size, status.st_mtime_ns, inside=os.path.basename(name))  # noqa: PTH119


def _matching(pattern: str, remarks: list[str]) -> Iterator[Input]:
    names = sorted(glob.iglob(pattern, recursive=True), key=natural)  # noqa: PTH207
    taken = [name for name in names if (_is_picture(name) or _is_tar(name)) and not is_folder(name)]
    if not taken:
        raise ImageError(f"no picture and no tar archive matches {pattern}; check the pattern")
    if len(taken) < len(names):
        remarks.append(f"what matches {pattern} and does not end like a picture was skipped: "
                       f"{len(names) - len(taken)}")  # fmt: skip
    for name in taken:
        yield from _in_tar(name, remarks) if _is_tar(name) else [_of_name(name)]


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 - Path takes ten times as long


def _in_folder(folder: str, recursive: bool, skipped: list[Path]) -> list[Input]:
    found: list[Input] = []
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        within = "" if place == folder else os.path.join(os.path.relpath(place, folder), "")  # noqa: PTH118
        inner = []
        try:
            with os.scandir(place) as scanned:
                entries = sorted(scanned, key=lambda entry: natural(entry.name))
        except OSError as error:
            raise ImageError(
                f"the folder {place} cannot be read ({reason(error)}); check its permissions"
            ) from error
        for entry in entries:
            if _leads_to_folder(entry, follow=not recursive):
                if recursive and not entry.name.startswith("."):
                    inner.append(entry.path)
            elif _is_picture(entry.name) and not entry.name.startswith("."):
                found.append(_of_entry(entry, within + entry.name))
            else:
                skipped.append(Path(entry.path))
        waiting += reversed(inner)
    if not found:
        inside = "nor do the folders inside it" if recursive else (
            "folders inside it are searched with --recursive (recursive=True)"
        )  # fmt: skip
        raise ImageError(f"the folder {folder} holds no pictures ({', '.join(SUFFIXES)}); {inside}")
    return found


def _leads_to_folder(entry: os.DirEntry[str], *, follow: bool) -> bool:
    try:
        return entry.is_dir(follow_symlinks=follow)
    except OSError:  # a link to itself
        return False


def _of_entry(entry: os.DirEntry[str], inside: str) -> Input:
    try:
        status = entry.stat()
    except OSError:  # a link to nowhere; reading it tells the reason
        return Input(entry.path, _MISSING, 0, inside=inside)
    return Input(entry.path, status.st_size, status.st_mtime_ns, inside=inside)


# ---- Tar archives -----------------------------------------------------------------------------------------


def _is_tar(path: str) -> bool:
    """Whether it is a tar; one that is compressed too, to be refused by its name."""
    if os.path.splitext(path)[1].lower() in (".tar", ".tgz", ".tbz", ".txz"):  # noqa: PTH122
        return True
    return path.lower().endswith((".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"))


class _Headers:
    """The bytes of a tar from which only headers are read, so that none fills the memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.tell, self.seek = stream.tell, stream.seek

    def read(self, size: int) -> bytes:
        if size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header in it claims {size:,} bytes")
        return self._stream.read(size)


def _in_tar(path: str, remarks: list[str]) -> list[Input]:
    found, others = list[Input](), dict[str, int]()
    try:
        with Path(path).open("rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{path} is not an ordinary file; save the archive in a file first")
            headers: Any = _Headers(stream)
            with tarfile.open(fileobj=headers, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined] # it would keep them all
                    if member.isdir():
                        continue
                    if member.issparse() or member.offset_data + member.size > status.st_size:
                        raise tarfile.ReadError(f"it ends inside {member.name}")
                    if member.isfile() and _is_picture(member.name):
                        name = f"{path}/{member.name}"
                        found.append(
                            Input(
                                name, member.size, status.st_mtime_ns, path, member.offset_data, member.name
                            )
                        )
                    else:
                        kind = os.path.splitext(member.name)[1] or "no suffix"  # noqa: PTH122
                        others[kind] = others.get(kind, 0) + 1
                stream.seek(archive.offset)  # a header that is damaged ends the loop as the end mark does
                if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("its end mark is missing")
    except (tarfile.TarError, ValueError, UnicodeError, IndexError, EOFError) as error:
        compressed = "decompress it first, so that members can be read at their places"
        advice = compressed if not path.lower().endswith(".tar") else "copy or download it again"
        raise ImageError(f"{path} is not a whole tar archive ({reason(error)}); {advice}") from error
    except OSError as error:
        raise ImageError(f"cannot read {path}: {reason(error)}; check its name and permissions") from error
    if not found:
        raise ImageError(f"the archive {path} holds no pictures ({', '.join(SUFFIXES)})")
    if others:
        kinds = sorted(others, key=lambda kind: -others[kind])[:_MOST_REMARKS]
        count = sum(others.values())
        remarks.append(
            as_text(f"members of {path} that are no pictures were skipped: {count} ({', '.join(kinds)})")
        )
    return found
