"""Opening a picture file safely, whichever decoder then reads it."""

from __future__ import annotations

import stat
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from diptych.errors import ImageError, reason

__all__ = ["MAX_PIXELS", "check_size", "opened", "quiet"]

MAX_PIXELS = 200_000_000


def opened(path: Path) -> IO[bytes]:
    """The file, open for reading. Raises `ImageError` where it is none, empty or not to be had."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{path} is a folder, not a picture; name a file inside it")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path} is not an ordinary file; save the picture in a file first")
        if status.st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes); copy or download it again")
        return path.open("rb")
    except FileNotFoundError as error:
        raise ImageError(f"there is no picture {path}; check the name and the folder") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"{path} cannot be opened ({reason(error)}); check its permissions") from error


def check_size(path: Path, size: tuple[int, int] | None, max_pixels: int) -> None:
    """Raises `ImageError` where a header claims more than `max_pixels`; `size` is (width, height)."""
    if size is not None and size[0] * size[1] > max_pixels:
        raise ImageError(
            f"{path} claims {size[0]} x {size[1]} pixels, more than the limit of {max_pixels:,}; "
            "make it smaller, or raise max_pixels if the file is trusted"
        )


_quiet_lock = threading.Lock()
_quiet_readers = 0
_quiet_filters = warnings.catch_warnings()


@contextmanager
def quiet() -> Iterator[None]:
    """Pillow's warnings (a corrupt EXIF block, a tag too many) are not the reader's business.

    `catch_warnings` alone is not safe in threads: one thread restores what another silenced. So the first
    reader in silences, and the last one out restores.
    """
    global _quiet_readers, _quiet_filters  # noqa: PLW0603 - the count is the point
    if getattr(sys.flags, "context_aware_warnings", False):  # Python 3.14 and later can do it per thread
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\b")
            yield
        return
    with _quiet_lock:
        _quiet_readers += 1
        if _quiet_readers == 1:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\b")
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_readers -= 1
            if _quiet_readers == 0:
                _quiet_filters.__exit__(None, None, None)
