"""Locks on files that end with the process which holds them, however it ends.

They are advisory (`flock`), and on Windows the sharing rules of open files. A file system that knows no locks, as some
network drives, gives every lock that is asked for.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["exchange", "flush", "flush_folder", "locked", "locked_folder", "remove_unlocked", "unlock"]

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES, errno.EPERM)
_EXCHANGES = {"linux": "renameat2", "darwin": "renameatx_np"}
_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def locked(path: str | Path) -> int | None:
    """Opens a file, which is made where it is missing, and locks it.

    Args:
        path: The file. A symbolic link is not followed.

    Returns:
        The descriptor, for reading and writing; `unlock` ends the lock. None where another descriptor, of this or of
        another process, holds the lock.

    Raises:
        OSError: The file cannot be opened, or is not an ordinary file.
    """
    while True:
        try:
            handle = os.open(path, _FLAGS | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "there is a symbolic link of this name", str(path)) from error
            raise
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EEXIST, "there is something that is not an ordinary file", str(path))
            if not _lock(handle):
                os.close(handle)
                return None
            if _is_at(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its last owner has removed or renamed it meanwhile


def locked_folder(path: str | Path) -> int | None:
    """Opens a folder and locks it; the descriptor, or None where the platform cannot. Raises `OSError`."""
    if os.name == "nt":
        return None
    handle = os.open(path, os.O_RDONLY)
    _lock(handle)
    return handle


def unlock(handle: int) -> None:
    """Ends a lock, and closes the descriptor."""
    os.close(handle)


def remove_unlocked(path: Path) -> bool:
    """Removes a file or a folder of files whose process has ended, and says whether it did.

    What a living process has locked stays. Errors leave it in place too: the next one who looks tries again.
    """
    if os.name == "nt":  # a file that is open cannot be removed there; a folder can
        if path.is_dir():
            return False
        with suppress(OSError):
            _remove(path)
            return True
        return False
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if _lock(handle) and _is_at(handle, path):
                _remove(path)
                return True
        finally:
            os.close(handle)
    return False


def flush(path: str | Path) -> None:
    """Waits until the bytes of the file are on the disk; raises `OSError`."""
    handle = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(folder: str | Path) -> None:
    """Waits until the names in a folder are on the disk, where the platform can; raises `OSError`."""
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno in _NO_FLUSH:  # a folder that may be written and not read
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
    finally:
        os.close(handle)


def exchange(new: Path, old: Path) -> None:
    """Exchanges two folders, in one step where the platform can; raises `OSError`."""
    if not _exchanged(new, old):
        aside = new.with_name(f"{new.name}.old")
        os.replace(old, aside)  # noqa: PTH105 - atomic on every platform
        try:
            os.replace(new, old)  # noqa: PTH105
        except OSError:
            os.replace(aside, old)  # noqa: PTH105
            raise
        os.replace(aside, new)  # noqa: PTH105


def _exchanged(new: Path, old: Path) -> bool:
    """Whether the system has exchanged the two; raises `OSError` where it tried and could not."""
    import ctypes

    paths, swap = (os.fsencode(new), os.fsencode(old)), 2
    here = -2 if sys.platform == "darwin" else -100  # AT_FDCWD
    name = _EXCHANGES.get(sys.platform)
    call = getattr(ctypes.CDLL(None, use_errno=True), name, None) if name else None
    if call is None:
        return False
    done = call(here, paths[0], here, paths[1], swap)
    if done != 0 and ctypes.get_errno() not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(old))
    return bool(done == 0)


def _lock(handle: int) -> bool:
    """Whether the lock was free, and is now held by `handle`."""
    if os.name == "nt":
        import msvcrt

        try:
            os.lseek(handle, 1 << 40, os.SEEK_SET)  # beyond all that is written: others may read the file
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (*_NO_LOCKS, errno.EBADF):
            raise
    return True


def _is_at(handle: int, path: str | Path) -> bool:
    """Whether the file that `handle` has open is still the one called `path`."""
    try:
        return os.path.samestat(os.fstat(handle), Path(path).lstat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        import shutil

        shutil.rmtree(path)
    else:
        path.unlink()
