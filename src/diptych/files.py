"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from diptych.errors import OutputError

__all__ = ["check_place", "keep", "made_folder", "permitted", "replacing", "sha256"]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends, and vanishes if it fails.

    The suffix is kept, because libraries choose the format by it. Raises `OutputError` where there is no such
    folder, it cannot be written, or the disk is full.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        check_place(target)
        handle, name = tempfile.mkstemp(prefix=".writing-", suffix=target.suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(permitted(0o666))
        os.replace(temporary, target)  # noqa: PTH105 - atomic on every platform
    except OSError as error:
        reason = error.strerror or "not all of it could be written, as on a full disk"
        raise OutputError(f"cannot write {target}: {reason}; choose another place") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_place(path: str | Path) -> None:
    """Raises `OutputError` where the folder that the file `path` belongs in is not there.

    Only what a user names as a folder is made (`made_folder`): a missing one in front of a file's name is
    most often a slip of the pen. Whatever takes long asks before it begins.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        what = f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}"
        raise OutputError(f"cannot write {path}: {what}; make it first, or choose another place")


def made_folder(path: str | Path) -> Path:
    """The folder `path` for results, made with those above it where it is missing; raises `OutputError`."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror}; choose another place") from error
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
    originals = {Path(path).resolve() for path in inputs}
    for path in outputs:
        if Path(path).resolve() in originals:
            raise OutputError(
                f"{path} is a file to read, and would be replaced; choose another place to write"
            )


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
