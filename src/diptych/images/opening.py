"""Opening a picture file safely, whichever decoder then reads it."""

from __future__ import annotations

import logging
import os
import stat
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageFile

from diptych.errors import ImageError, TooManyPixels, UsageError, reason

__all__ = ["MAX_PIXELS", "check_size", "most_pixels", "opened", "pixel_limit", "quiet"]

MAX_PIXELS = 200_000_000
"""The default limit of pixels that the header of a picture may claim."""

_limit = MAX_PIXELS

# What these libraries log about a damaged file becomes an ImageError. Without a handler, Python would print it.
for _library in ("PIL", "tifffile"):
    logging.getLogger(_library).addHandler(logging.NullHandler())


def most_pixels() -> int:
    """Returns the limit of pixels in force: `MAX_PIXELS`, or that of `pixel_limit`."""
    return _limit


@contextmanager
def pixel_limit(count: int) -> Iterator[None]:
    """Sets how many pixels a picture may have to be read, for the whole process, as long as the block lasts.

    A picture takes up to 20 bytes of memory for each of its pixels while it is read.

    Args:
        count: The limit, at least 1; 200 million outside of such a block.

    Raises:
        UsageError: `count` is not a whole number of at least 1.
    """
    global _limit  # noqa: PLW0603 - the threads that read pictures share it
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UsageError(f"the limit of pixels must be a whole number of at least 1, not {count!r}")
    before, _limit = _limit, count
    try:
        yield
    finally:
        _limit = before


def opened(path: Path) -> IO[bytes]:
    """Opens a picture file for reading; only an ordinary file, so that it never waits.

    Raises:
        ImageError: The file does not exist, is empty, is not an ordinary file, or cannot be opened.
    """
    # A pipe that nobody writes to would wait without O_NONBLOCK; ordinary files ignore it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        _check_ordinary(path)  # before it is opened: opening a device may do something
        stream = open(path, "rb", opener=lambda name, _: os.open(name, flags))  # noqa: SIM115
    except FileNotFoundError as error:
        raise ImageError(f"there is no picture {path}; check the name and the folder") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"{path} cannot be opened ({reason(error)}); check its permissions") from error
    try:
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return stream
    except OSError:
        pass
    stream.close()
    raise _not_ordinary(path)


def _check_ordinary(path: Path) -> None:
    """Checks that a path is a file with something in it.

    Raises:
        ImageError: It is a folder, a device, a pipe or a socket, or empty.
        OSError: It does not exist or cannot be reached.
        ValueError: The name holds a NUL.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path} is a folder, not a picture; name a file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise _not_ordinary(path)
    if status.st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes); copy or download it again")


def _not_ordinary(path: Path) -> ImageError:
    return ImageError(f"{path} is not an ordinary file; save the picture in a file first")


def check_size(path: Path, size: tuple[int, int] | None, limit: int) -> None:
    """Checks what a header claims before anything is decoded.

    Args:
        path: The file, for the message.
        size: The width and height that the header claims, or None where that is not known yet.
        limit: The most pixels.

    Raises:
        TooManyPixels: The header claims more.
    """
    if size is not None and size[0] * size[1] > limit:
        count = size[0] * size[1]
        raise TooManyPixels(
            f"{path} claims {size[0]} x {size[1]} pixels, more than the limit of {limit:,}; make it smaller, or "
            f"raise the limit if the file is trusted: --max-pixels {count} on the command line, "
            f"`with diptych.pixel_limit({count}):` in Python",
            *size,
            limit,
        )


_quiet_lock = threading.Lock()
_quiet_readers = 0
_quiet_filters = warnings.catch_warnings()
_LIMIT_OF_PILLOW = Image.MAX_IMAGE_PIXELS
_before = ImageFile.LOAD_TRUNCATED_IMAGES, _LIMIT_OF_PILLOW


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the libraries that decode, and makes Pillow strict, as long as a picture is being read.

    Warnings (a corrupt EXIF block, a tag too many) and the lines that libtiff prints to standard error are not for
    the user: what matters becomes an `ImageError`. Pillow's `LOAD_TRUNCATED_IMAGES`, which a program may have set
    for itself, is off, and so is Pillow's default limit of pixels: that of `pixel_limit` is checked first.

    Several threads may read at once: the first reader changes these settings, and the last one restores them.
    `catch_warnings` alone is not safe, because one thread would restore what another silenced.
    """
    global _quiet_readers, _quiet_filters, _before  # noqa: PLW0603 - the count is the point
    with _quiet_lock:
        _quiet_readers += 1
        if _quiet_readers == 1:
            _before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            if Image.MAX_IMAGE_PIXELS == _LIMIT_OF_PILLOW:  # not a limit that the program has set
                Image.MAX_IMAGE_PIXELS = None
            _libtiff.silence()
            if not _WARNINGS_BY_THREAD:
                _quiet_filters = warnings.catch_warnings()
                _quiet_filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\b")
    try:
        if _WARNINGS_BY_THREAD:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"PIL\b")
                yield
        else:
            yield
    finally:
        with _quiet_lock:
            _quiet_readers -= 1
            if _quiet_readers == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = _before
                _libtiff.restore()
                if not _WARNINGS_BY_THREAD:
                    _quiet_filters.__exit__(None, None, None)


_WARNINGS_BY_THREAD = bool(getattr(sys.flags, "context_aware_warnings", False))  # Python 3.14 and later can


class _Libtiff:
    """The error handler of the libtiff that Pillow brings, which prints to standard error."""

    def __init__(self) -> None:
        self._set: Any = None
        self._before: Any = None
        self._known = False

    def silence(self) -> None:
        """Takes the handler away; nothing happens where libtiff cannot be reached, as on Windows."""
        if not self._known:
            self._known = True
            self._set = self._setter()
        if self._set is not None:
            self._before = self._set(None)

    def restore(self) -> None:
        """Puts the handler back."""
        if self._set is not None:
            self._set(self._before)

    @staticmethod
    def _setter() -> Any:
        import ctypes

        from PIL import _imaging

        try:
            function = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        except (OSError, AttributeError, TypeError):
            return None
        function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        return function


_libtiff = _Libtiff()
