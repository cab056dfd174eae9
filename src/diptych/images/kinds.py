"""What a file is, by its first bytes: the kinds that are read, and the common ones that are not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import IO

from PIL import ImageFile

from diptych.errors import ImageError, MissingExtra

__all__ = ["HEAD", "SUFFIXES", "FileKind", "claimed_size", "of"]

HEAD = 512
"""How many bytes of a file are enough to tell its kind."""
SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif"),
    *(".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc", ".jxl"),
)
"""How the names of pictures end. A JPEG XL file is a picture too, and the message for it says what to do."""

Opener = Callable[[IO[bytes]], ImageFile.ImageFile]


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Attributes:
        name: What it is called in messages.
        signature: Matched at the start of the file.
        opener: Reads the header and gives the Pillow image, not decoded yet; None for what is not read. Pillow's class
            is called directly because `Image.open` would warn about size by a global limit that belongs to the
            user's own program.
        advice: What to do with a file that is not read.
    """

    name: str
    signature: re.Pattern[bytes]
    opener: Opener | None = None
    advice: str = ""


def _pillow(plugin: str) -> Opener:
    """What opens one kind of file by Pillow's plugin of that name, which is imported when it is first needed."""

    def opener(stream: IO[bytes]) -> ImageFile.ImageFile:
        module = import_module(f"PIL.{plugin}ImagePlugin")
        image: ImageFile.ImageFile = getattr(module, f"{plugin}ImageFile")(stream)
        return image

    return opener


def _heic(stream: IO[bytes]) -> ImageFile.ImageFile:
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError as error:
        raise ImageError(
            str(MissingExtra("pillow-heif", "heif", f"the HEIC picture {stream.name}"))
        ) from error
    opened: ImageFile.ImageFile = HeifImageFile(stream)
    return opened


def _starts(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL | re.IGNORECASE)


_SAVE_AS = "save it as PNG or JPEG first"
_DOWNLOAD = "the download went wrong: fetch the picture itself"

KINDS: tuple[FileKind, ...] = (
    FileKind("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), _pillow("Png")),
    FileKind("JPEG", re.compile(rb"\xff\xd8\xff"), _pillow("Jpeg")),
    FileKind("WebP", re.compile(rb"RIFF....WEBP", re.DOTALL), _pillow("WebP")),
    FileKind("TIFF", re.compile(rb"II\x2a\x00|MM\x00\x2a|II\x2b\x00|MM\x00\x2b"), _pillow("Tiff")),
    FileKind("GIF", re.compile(rb"GIF8[79]a"), _pillow("Gif")),
    FileKind(
        "BMP", re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", re.DOTALL), _pillow("Bmp")
    ),
    FileKind("AVIF", _starts(rb"....ftyp(avi[fs]|(mif1|msf1|miaf).{4}(....){0,12}?avif)"), _pillow("Avif")),
    FileKind("HEIC", _starts(rb"....ftyp(hei|hev|mif1|msf1)"), _heic),
    FileKind("JPEG 2000", _starts(rb"\0\0\0\x0cjP  \x0d\x0a\x87\x0a|\xff\x4f\xff\x51"), _pillow("Jpeg2K")),
    FileKind(
        "a video", _starts(rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI "), None, "save one frame as PNG first"
    ),
    FileKind("a JPEG XL picture", _starts(rb"\xff\x0a|\0\0\0\x0cJXL "), None, _SAVE_AS),
    FileKind("a Photoshop file", _starts(rb"8BPS"), None, _SAVE_AS),
    FileKind("an OpenEXR picture", _starts(rb"\x76\x2f\x31\x01"), None, _SAVE_AS),
    FileKind("an icon file", _starts(rb"\0\0[\x01\x02]\0"), None, _SAVE_AS),
    FileKind("a netpbm picture", _starts(rb"P[1-7]\s"), None, _SAVE_AS),
    FileKind("a DICOM file", _starts(rb".{128}DICM"), None, _SAVE_AS),
    FileKind("a PDF document", _starts(rb"%PDF-"), None, "save the page as PNG first"),
    FileKind(
        "a ZIP archive or an office document",
        _starts(rb"PK\x03\x04"),
        None,
        "unpack it and name the pictures",
    ),
    FileKind("a gzip archive", _starts(rb"\x1f\x8b"), None, "unpack it first"),
    FileKind("a NumPy array", _starts(rb"\x93NUMPY"), None, _SAVE_AS),
    FileKind("a Git LFS pointer", _starts(rb"version https://git-lfs"), None, "run: git lfs pull"),
    FileKind("a web page", _starts(rb"\s*(<!--.*?-->\s*)?<(!doctype )?html"), None, _DOWNLOAD),
    FileKind("an SVG drawing", _starts(rb"(\xef\xbb\xbf)?\s*<(svg|.*?<svg)"), None, _SAVE_AS),
    FileKind("an XML document", _starts(rb"(\xef\xbb\xbf)?\s*<\?xml"), None, _DOWNLOAD),
    FileKind("JSON text", _starts(rb"\s*[\[{]\s*[\"\]}\[{\d]"), None, _DOWNLOAD),
    FileKind("a program", _starts(rb"\x7fELF|MZ.\0"), None, "name a picture"),
    FileKind("plain text", _starts(rb"[\t\n\r\x20-\x7e]{8,}"), None, "name a picture"),
)
_UNKNOWN = FileKind(
    "of a kind that is not known",
    re.compile(b""),
    None,
    "it must be a PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000 or HEIC file",
)


def of(head: bytes) -> FileKind:
    """Returns the kind of a file.

    Args:
        head: The first `HEAD` bytes of the file, or all of a shorter one.
    """
    return next((kind for kind in KINDS if kind.signature.match(head)), _UNKNOWN)


def claimed_size(head: bytes) -> tuple[int, int] | None:
    """Returns the size that an extended WebP header claims.

    Pillow's WebP reader reserves two whole canvases as soon as it opens a file; the others wait.
    Layout: https://developers.google.com/speed/webp/docs/riff_container#extended_file_format

    Args:
        head: The first `HEAD` bytes of a file.

    Returns:
        Width and height, or None for everything else.
    """
    if head[8:16] != b"WEBPVP8X" or len(head) < 30:
        return None
    return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
