"""What a file is, by its first bytes: the kinds that are read, and the common ones that are not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import IO

from PIL import ImageFile

from diptych.errors import ImageError, MissingExtra

__all__ = ["DEVELOP", "HEAD", "SUFFIXES", "FileKind", "claimed_size", "of"]

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
        signature: A regular expression, matched at the start of the file; a dot is any byte.
        opener: Reads the header and gives the Pillow image, not decoded yet; None for what is not read. Pillow's class
            is called directly because `Image.open` would warn about size by a global limit that belongs to the
            user's own program.
        advice: What to do with a file that is not read.
    """

    name: str
    signature: bytes
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


_SAVE_AS = "save it as PNG or JPEG first"
DEVELOP = "develop it, and save it as PNG or TIFF first"
"""What to do with a camera's raw file."""
_DOWNLOAD = "the download went wrong: fetch the picture itself"
_UNPACK = "unpack it and name the pictures"
_NAME = "name a picture"


def _others(advice: str, signatures: dict[str, bytes]) -> tuple[FileKind, ...]:
    """Kinds that are not read, by name."""
    return tuple(FileKind(name, signature, None, advice) for name, signature in signatures.items())


KINDS: tuple[FileKind, ...] = (
    FileKind("a camera's raw file", rb"II\x2a\x00.{4}CR\x02|....ftypcrx", None, DEVELOP),
    FileKind("a camera's raw file", rb"FUJIFILMCCD-RAW|IIU\x00|IIR[OS]\x08|FOVb", None, DEVELOP),
    FileKind("a JPEG-LS picture", rb"\xff\xd8\xff\xf7", None, _SAVE_AS),
    FileKind("PNG", rb"\x89PNG\r\n\x1a\n", _pillow("Png")),
    FileKind("JPEG", rb"\xff\xd8\xff", _pillow("Jpeg")),
    FileKind("WebP", rb"RIFF....WEBP", _pillow("WebP")),
    FileKind("TIFF", rb"II\x2a\x00|MM\x00\x2a|II\x2b\x00|MM\x00\x2b", _pillow("Tiff")),
    FileKind("GIF", rb"GIF8[79]a", _pillow("Gif")),
    FileKind("BMP", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", _pillow("Bmp")),
    FileKind("AVIF", rb"....ftyp(avi[fs]|(mif1|msf1|miaf).{4}(....){0,12}?avif)", _pillow("Avif")),
    FileKind("HEIC", rb"....ftyp(hei|hev|mif1|msf1)", _heic),
    FileKind("JPEG 2000", rb"\x00\x00\x00\x0cjP  \x0d\x0a\x87\x0a|\xff\x4f\xff\x51", _pillow("Jpeg2K")),
    *_others(
        _NAME,
        {
            "a sound file": rb"....ftypM4|RIFF....WAVE|ID3[\x02-\x04]|OggS\x00|fLaC",
            "a program": rb"\x7fELF|MZ.\x00|[\xce\xcf]\xfa\xed\xfe|\xca\xfe\xba\xbe",
            "a PyTorch file": rb"PK\x03\x04.{26}[^\x00]{1,200}/(data\.pkl|version|byteorder|\.format_version)",
            "a safetensors file": rb".{4}\x00{4}\{\"",
            "a GGUF model": rb"GGUF",
            "an HDF5 file": rb"\x89HDF\r\n",
            "a Python pickle": rb"\x80[\x02-\x05]",
            "a MATLAB file": rb"MATLAB 5",
            "an SQLite database": rb"SQLite format",
            "a Parquet table": rb"PAR1",
        },
    ),
    FileKind(
        "a video",
        rb"....(ftyp|moov|mdat|wide)|\x1aE\xdf\xa3|RIFF....AVI |\x00\x00\x01[\xb3\xba]|FLV\x01",
        None,
        "save one frame as PNG first",
    ),
    *_others(
        _SAVE_AS,
        {
            "a JPEG XL picture": rb"\xff\x0a|\x00\x00\x00\x0cJXL ",
            "a JPEG XR picture": rb"II\xbc",
            "a Photoshop file": rb"8BPS",
            "a GIMP file": rb"gimp xcf",
            "an OpenEXR picture": rb"\x76\x2f\x31\x01",
            "a Radiance picture": rb"#\?(RADIANCE|RGBE)",
            # An icon file has at least one icon; a Targa picture with a type like its number has no palette.
            "an icon file": rb"\x00\x00[\x01\x02]\x00(?!\x00\x00)..|icns|RIFF....ACON",
            "a Targa picture": rb".(\x00[\x02\x03\n\x0b]\x00{5}|\x01[\x01\t].{4}[\x0f\x10\x18\x20])"
            rb".{4}(?!\x00\x00)..(?!\x00\x00)..[\x08\x0f\x10\x18\x20]",
            "a PCX picture": rb"\n[\x00\x02-\x05][\x00\x01][\x01\x02\x04\x08]",
            "a netpbm picture": rb"P[1-7F]\s",
            "a texture": rb"DDS |\xabKTX ",
            "a QOI picture": rb"qoif",
            "a FLIF picture": rb"FLIF",
            "a BPG picture": rb"BPG\xfb",
            "an SGI picture": rb"\x01\xda[\x00\x01][\x01\x02]",
            "a Sun raster picture": rb"\x59\xa6\x6a\x95",
            "an X bitmap": rb"#define \w+_width|/\* XPM \*/",
            "a Windows metafile": rb"\xd7\xcd\xc6\x9a|\x01\x00\x00\x00.{36} EMF",
            "a FITS picture": rb"SIMPLE  =",
            "a DICOM file": rb".{128}DICM",
            "a NIfTI volume": rb"\x5c\x01\x00\x00.{340}n[+i]1",
            "a NumPy array": rb"\x93NUMPY|PK\x03\x04.{26}[^\x00]{1,200}\.npy",
            "an SVG drawing": rb"(?i:(\xef\xbb\xbf)?\s*<(svg|(?!(!doctype )?html).*?<svg))",
        },
    ),
    *_others(
        "save the page as PNG first",
        {
            "a PDF document": rb"%PDF-",
            "a PostScript file": rb"%!PS|\xc5\xd0\xd3\xc6",
            "a DjVu document": rb"AT&TFORM",
        },
    ),
    *_others(
        _UNPACK,
        {
            "a ZIP archive or an office document": rb"PK\x03\x04",
            "a gzip archive": rb"\x1f\x8b",
            "an xz archive": rb"\xfd7zXZ",
            "a bzip2 archive": rb"BZh[1-9]",
            "a Zstandard archive": rb"\x28\xb5\x2f\xfd",
            "a 7-Zip archive": rb"7z\xbc\xaf",
            "a RAR archive": rb"Rar!",
            "a tar archive": rb".{257}ustar",
        },
    ),
    FileKind("a Git LFS pointer", rb"version https://git-lfs", None, "run: git lfs pull"),
    *_others(
        _DOWNLOAD,
        {
            "a web page": rb"(?i:(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype )?(html|head|body|title))",
            "an XML document": rb"(\xef\xbb\xbf)?\s*<\?xml",
            "JSON text": rb"\s*[\[{]\s*[\"\]}\[{\d]",
        },
    ),
    FileKind("plain text", rb"[\t\n\r\x20-\x7e]{8,}|\xef\xbb\xbf|\xff\xfe|\xfe\xff", None, _NAME),
)
_UNKNOWN = FileKind(
    "of a kind that is not known",
    b"",
    None,
    "it must be a PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000 or HEIC file",
)


def of(head: bytes) -> FileKind:
    """Returns the kind of a file.

    Args:
        head: The first `HEAD` bytes of the file, or all of a shorter one.
    """
    return next((kind for kind in KINDS if re.match(kind.signature, head, re.DOTALL)), _UNKNOWN)


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
