"""Writing files so that a reader never sees half of one, and nobody else's are lost."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import mmap
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diptych.errors import DiptychError, OutputError, causes, out_of_memory, reason
from diptych.locks import exchange, flush, flush_folder, locked, locked_folder, remove_unlocked, unlock

__all__ = [
    "IN_USE",
    "TEMPORARY",
    "as_text",
    "check_place",
    "check_writable",
    "contents",
    "encoded",
    "escaped",
    "is_file",
    "is_folder",
    "json_text",
    "keep",
    "made_folder",
    "npy",
    "opened",
    "permitted",
    "replacing",
    "replacing_folder",
    "sha256",
    "short_of_memory",
    "sole_writer",
    "sweep",
]

TEMPORARY = ".writing-"
"""How the names of unfinished files and folders begin."""
IN_USE = ".diptych-writing"
"""A file that is in a folder while a verb fills it: the lock, and what is finished so far (`journal`)."""
_SWEEP_EVERY = 1.0  # seconds: a folder of many files is not listed for each of them
_LONGEST_SUFFIX = 40
_WEBP_OUT_OF_MEMORY = tuple(f"encoding error {number}" for number in (1, 2, 8))
_swept: dict[Path, float] = {}


@contextmanager
def replacing(path: str | Path, finishing: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends, and vanishes if it fails.

    The file is on the disk before it is renamed, so that there is always the old content or the new. Temporary files
    that killed processes have left in the folder are removed. A path that another `replacing` gave is written as it
    is.

    Args:
        path: The file to write.
        finishing: Called with the temporary path when it is whole, before the file takes its place.

    Yields:
        The temporary path, with the suffix of `path`, because libraries choose the format by it.

    Raises:
        OutputError: There is no such folder, it cannot be written, or the disk is full.
    """
    target = Path(path)
    if target.name.startswith(TEMPORARY):
        yield target
        return
    temporary, handle = None, None
    try:
        check_place(target)
        sweep(target.parent)
        temporary, handle = _temporary(target)
        yield temporary
        temporary.chmod(permitted(0o666))
        flush(temporary)
        if finishing is not None:
            finishing(temporary)
        if os.name == "nt":  # an open file cannot be renamed there
            unlock(handle)
            handle = None
        os.replace(temporary, target)  # noqa: PTH105 - atomic on every platform
        flush_folder(target.parent)
    except DiptychError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise MemoryError from error
        if not _of_the_disk(error):
            raise
        raise _refused(target, error) from error
    finally:
        if temporary is not None:
            _discard(temporary)
        if handle is not None:
            unlock(handle)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path`, which takes its place when the block ends, and vanishes if it fails.

    On Linux and macOS a folder that is there is exchanged in one step. Elsewhere it is renamed first, so that for a
    moment there is none of this name.

    Args:
        path: The folder to write; those above it are made where they are missing.

    Yields:
        The temporary folder, empty.

    Raises:
        OutputError: It cannot be written, or the disk is full.
    """
    target, place, handle = Path(path), None, None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        place = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=target.parent))
        handle = locked_folder(place)
        yield place
        place.chmod(permitted(0o777))
        for file in place.rglob("*"):
            (flush_folder if file.is_dir() else flush)(file)
        flush_folder(place)
        if target.exists():
            exchange(place, target)
        else:
            os.replace(place, target)  # noqa: PTH105 - atomic on every platform
        flush_folder(target.parent)
    except OSError as error:
        raise _refused(target, error) from error
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
        if handle is not None:
            unlock(handle)


def _temporary(target: Path) -> tuple[Path, int]:
    suffix = target.suffix if len(target.suffix) <= _LONGEST_SUFFIX else ""
    while True:
        path = target.parent / f"{TEMPORARY}{secrets.token_hex(6)}{suffix}"
        handle = locked(path)
        if handle is not None:
            return path, handle


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the next one who writes here removes it


def _of_the_disk(error: BaseException) -> bool:
    """Whether an error tells that a file could not be written; PyTorch's writer has words of its own for it."""
    return any(
        isinstance(each, OSError)
        or any(words in str(each) for words in ("PytorchStreamWriter", "unexpected pos"))
        for each in causes(error)
    )


def _why(error: BaseException) -> str:
    if isinstance(error, ValueError):
        return reason(error)  # a NUL in the name
    for each in causes(error):
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    whole = "not all of it could be written, as on a full disk"
    return whole if isinstance(error, OSError) else f"{whole} ({reason(error)})"


def _refused(path: str | Path, error: Exception) -> OutputError:
    why = _why(error)
    room = "make room, or " if "space" in why or "full" in why else ""
    return OutputError(f"cannot write {path}: {why}; {room}choose another place")


def sweep(folder: str | Path, *, always: bool = False) -> None:
    """Removes what killed processes have left unfinished in a folder; what a living one writes stays.

    Args:
        folder: The folder.
        always: Whether to look again although this process did less than a second ago.
    """
    place, now = Path(os.path.abspath(folder)), time.monotonic()  # noqa: PTH100 - the working folder may change
    if not always and now - _swept.get(place, -_SWEEP_EVERY) < _SWEEP_EVERY:
        return
    _swept[place] = now
    try:
        with os.scandir(place) as entries:
            left = [Path(entry.path) for entry in entries if entry.name.startswith(TEMPORARY)]
    except OSError:
        return  # a folder that may not be listed
    for path in left:
        remove_unlocked(path)


@contextmanager
def sole_writer(folder: str | Path) -> Iterator[int]:
    """Keeps other processes from filling the same folder while the block runs.

    The lock is the file `IN_USE` in the folder, which is removed at the end unless something is written in it. That of
    a killed process holds nobody up.

    Args:
        folder: The folder, which is made where it is missing.

    Yields:
        A descriptor of the file.

    Raises:
        OutputError: Another process, or another thread, is writing to the folder, or it cannot be written.
    """
    path = made_folder(folder) / IN_USE
    try:
        handle = locked(path)
    except OSError as error:
        raise OutputError(
            f"cannot write into {folder}: {error.strerror or error}; choose another place"
        ) from error
    if handle is None:
        raise OutputError(
            f"another command is writing to {folder}; wait until it has finished, or choose another --out"
        )
    try:
        sweep(folder, always=True)
        yield handle
    finally:
        empty = os.fstat(handle).st_size == 0
        if os.name == "nt":  # a file that is open cannot be removed there
            unlock(handle)
        if empty:
            _discard(path)
        if os.name != "nt":
            unlock(handle)


def check_place(path: str | Path) -> None:
    """Raises `OutputError` where the folder that the file `path` belongs in is not there.

    Only what a user names as a folder is made (`made_folder`): a missing one in front of a file's name is
    most often a slip of the pen. Whatever takes long asks before it begins.
    """
    folder = Path(path).parent
    if not is_folder(folder):
        there = os.path.lexists(folder)
        what = f"{folder} is not a folder" if there else f"there is no folder {folder}"
        raise OutputError(f"cannot write {path}: {what}; make it first, or choose another place")


def check_writable(path: str | Path) -> None:
    """Raises `OutputError` where the file `path` cannot be written, by trying: for what takes long to compute.

    An existing file stays as it is.
    """
    check_place(path)
    if is_folder(path):
        raise OutputError(f"cannot write {path}: it is a folder; name a file in it")
    try:
        temporary, handle = _temporary(Path(path))
        try:
            os.write(handle, bytes(4096))
            os.fsync(handle)
            Path(path).stat()
        except FileNotFoundError:
            pass  # nothing is there yet
        finally:
            _discard(temporary)
            unlock(handle)
    except (OSError, ValueError) as error:
        raise _refused(path, error) from error


def is_folder(path: str | Path) -> bool:
    """Whether it is a folder; False, where `Path.is_dir` raises, if nobody may look or the name is too long."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: str | Path) -> bool:
    """Whether it is an ordinary file, likewise: opening it tells the reason."""
    return os.path.isfile(path)  # noqa: PTH113


def opened(path: str | Path) -> io.BufferedReader:
    """Opens an ordinary file to read its bytes.

    Raises:
        OSError: It cannot be opened, or is a pipe or a device, which would be waited for or never end.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    return Path(path).open("rb")


def made_folder(path: str | Path) -> Path:
    """The folder `path` for results, made with those above it where it is missing; raises `OutputError`."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot make the folder {path}: {reason(error)}; choose another place") from error
    return Path(path)


def permitted(mode: int) -> int:
    """The permission bits `mode` without those that the process's umask takes away.

    Temporary files and folders are made for their owner alone (0600, 0700), which would surprise whoever shares
    the results: each gets these bits before it takes its place.
    """
    mask = os.umask(0)  # the only way to read the umask is to set it
    os.umask(mask)
    return mode & ~mask


def keep(inputs: Iterable[str | Path], outputs: Iterable[str | Path]) -> None:
    """Raises `OutputError` where writing `outputs` would replace one of `inputs`."""
    originals = {os.path.realpath(path) for path in inputs}
    for path in outputs:
        if os.path.realpath(path) in originals:
            raise OutputError(
                f"{path} is a file to read, and would be replaced; choose another place to write"
            )


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with opened(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def npy(array: Any) -> bytes:
    """An array as the bytes of a .npy file. (`numpy.save` keeps silent where a disk is full before the last bytes.)"""
    import numpy as np

    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def encoded(image: Any, **options: Any) -> bytes:
    """A Pillow image as the bytes of a file; `options` are those of `save`, which keeps silent likewise.

    Raises:
        MemoryError: There is not enough memory: nothing else makes Pillow fail to write pixels into memory.
    """
    stream = io.BytesIO()
    try:
        image.save(stream, **options)
    except OSError as error:
        raise MemoryError from error
    except ValueError as error:
        if str(error) in _WEBP_OUT_OF_MEMORY:
            raise MemoryError from error
        raise
    return stream.getvalue()


def as_text(name: str | Path) -> str:
    r"""A file's name as text that every file can hold: bytes that are not UTF-8 become \xff."""
    try:
        encoded_name = str(name).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # halves of surrogate pairs, as Windows allows them
        encoded_name = str(name).encode("utf-8", "backslashreplace")
    return encoded_name.decode("utf-8", "backslashreplace")


def escaped(text: str) -> str:
    r"""`text` with every character that could steer a terminal written as an escape such as \x1b.

    Names of models, layers, classes and files come from strangers: a raw ESC sequence can set the title of the
    window, and a bidirectional override can show a name in another order. New lines are kept. Bytes of a name that are
    not UTF-8 are written as in `as_text`.
    """
    return "".join(
        c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in as_text(text)
    )


def json_text(document: Any, indent: int | None = None) -> str:
    """`document` as JSON in which characters stay readable, but for those that could steer a terminal."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    return "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)


_COPIED = 64 * 2**20  # bytes


def contents(path: str | Path) -> bytes | mmap.mmap:
    """The bytes of a file: read up to 64 MiB, mapped beyond, so that a large model is not in memory twice.

    A mapped file must not be shortened while anything read from it is in use: the operating system ends a process
    that reads what is gone (SIGBUS). Replacing the file by another, as every writer of Diptych does, is harmless.

    Args:
        path: A regular file.

    Raises:
        OSError: It cannot be read, or is a pipe or a device.
    """
    with opened(path) as stream:
        if os.fstat(stream.fileno()).st_size <= _COPIED:
            return stream.read()
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


_SPARE = 64 * 2**20  # bytes


def short_of_memory(error: BaseException) -> bool:
    """Whether reading failed because memory ran out: some decoders do not say why, so that 64 MiB are asked for."""
    if out_of_memory(error):
        return True
    try:
        mmap.mmap(-1, _SPARE).close()  # which takes no memory until it is written to
    except (OSError, MemoryError):
        return True
    return False
