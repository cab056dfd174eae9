"""Pictures in files: found, read with limits, written with the record of how they were made.

The kind of a file is decided by its first bytes, never by its name. Whatever a damaged or hostile file does
to the decoder comes out as one `ImageError`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from diptych.datasets.folders import natural
from diptych.errors import ImageError, reason
from diptych.files import encoded, is_folder, replacing
from diptych.images import kinds, metadata, pixels, tiff
from diptych.images.opening import MAX_PIXELS, check_size, opened, quiet
from diptych.images.picture import Picture, Record

__all__ = ["MAX_PIXELS", "SUFFIXES", "decode", "find", "read", "write_png"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")


def read(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture in a PNG, JPEG, WebP, TIFF, BMP or GIF file: upright, 8-bit, sRGB or grey, without alpha.

    Animations give their first frame. `Picture.remarks` says what had to be decided. Safe to call from several
    threads at once. Raises `ImageError` when there is no such picture, when it is damaged, or when its header
    claims more than `max_pixels` (checked before anything is decoded).
    """
    plain, remarks, record = _read(Path(path), max_pixels)
    return Picture(np.asarray(plain), Path(path).stem, remarks, record, str(path))


def decode(
    path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image | NDArray[np.uint8], tuple[str, ...]]:
    """The pixels of `read` as they come, a Pillow image (RGB or L) or an array, and the remarks.

    A recipe takes either; Pillow's own kernels are spared two copies of a large photograph.
    """
    return _read(Path(path), max_pixels)[:2]


_Plain: TypeAlias = Image.Image | NDArray[np.uint8]


def _read(path: Path, max_pixels: int) -> tuple[_Plain, tuple[str, ...], Record | None]:
    with opened(path) as stream:
        head = stream.read(kinds.HEAD)
        kind = kinds.of(head)
        if kind.opener is None:
            raise ImageError(
                f"{path} is not a picture that can be read: it seems to be {kind.name}; {kind.advice}"
            )
        stream.seek(0)
        with quiet():
            return _decode(path, stream, head, kind, max_pixels)


def _decode(
    path: Path, stream: IO[bytes], head: bytes, kind: kinds.FileKind, max_pixels: int
) -> tuple[_Plain, tuple[str, ...], Record | None]:
    assert kind.opener is not None
    try:
        check_size(path, kinds.claimed_size(head), max_pixels)
        try:
            image = kind.opener()(stream)
        except Exception as error:
            if kind.name != "TIFF":
                raise
            return *_by_rows(path, max_pixels, error), None
        with image:
            check_size(path, image.size, max_pixels)
            rawmode = _rawmode(image)
            remarks = ["the first of several frames"] if getattr(image, "is_animated", False) else []
            turned = _upright(image, remarks)
            plain, decided = pixels.to_plain(turned, rawmode)
            record = _record(image.info, remarks) if kind.name == "PNG" else None
    except ImageError:
        raise
    except Image.DecompressionBombError as error:  # Pillow has a limit of its own
        raise ImageError(
            f"{path} is larger than Pillow's own limit ({reason(error)}); make it smaller, "
            "or set PIL.Image.MAX_IMAGE_PIXELS if the file is trusted"
        ) from error
    except pixels.OutOfRange as error:
        raise ImageError(f"{path} is not a picture on a known scale: {error}; rescale it first") from error
    except MemoryError as error:
        raise ImageError(f"{path} needs more memory than there is; make it smaller first") from error
    except Exception as error:  # Pillow's decoders raise anything: SyntaxError, struct.error, KeyError, ...
        raise ImageError(
            f"{path} begins as a {kind.name} picture but is truncated or damaged ({reason(error)}); "
            "copy or download it again"
        ) from error
    return plain, (*remarks, *decided), record


def _by_rows(path: Path, max_pixels: int, refused: Exception) -> tuple[_Plain, tuple[str, ...]]:
    """A TIFF of a kind that Pillow refuses, such as fractions in colour, as what reads TIFFs by rows gives it."""
    source = tiff.opened(path, max_pixels)
    if source is None:
        if "unknown pixel mode" not in str(refused):
            raise refused
        raise ImageError(
            f"{path} is a TIFF picture whose kind of pixels is not read; save it with 8 or 16 bits a channel"
        ) from refused
    try:
        check_size(path, (source.width, source.height), max_pixels)
        rows = source.rows(0, source.height)
        plain, remarks = pixels.of_rows(rows, source.kept.icc_profile)
    finally:
        source.close()
    return plain, (*source.remarks, *remarks)


def _rawmode(image: ImageFile.ImageFile) -> str:
    """How the file stores its pixels, which is known only before they are loaded."""
    args: Any = image.tile[0][3] if image.tile else None
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _upright(image: ImageFile.ImageFile, remarks: list[str]) -> Image.Image:
    try:
        stated = image.getexif().get(0x0112, 1)
    except Exception:  # as many kinds as in decoding; the pixels may still be good
        remarks.append("EXIF data that cannot be read ignored")
        stated = 1
    image.load()
    if stated not in range(2, 9):
        return image
    remarks.append(f"turned upright (EXIF orientation {stated})")
    turned: Image.Image = ImageOps.exif_transpose(image)  # a plain copy of a TIFF, turned on loading
    return turned


def _record(info: dict[str | tuple[int, int], Any], remarks: list[str]) -> Record | None:
    try:
        return metadata.record_in(info)
    except ImageError as error:
        remarks.append(str(error))
        return None


def find(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The picture files that `paths` name, each once, in the order given.

    A folder stands for the files in it (not in folders inside it) that end like a picture and are not
    hidden, sorted as people count: picture2 before picture10. A file is taken whatever it is called: `read`
    looks at its content. Raises `ImageError` for what is missing, and for a folder without pictures.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise ImageError("no pictures were named; name files or a folder that holds some")
    found: dict[Path, Path] = {}
    for path in map(Path, given):
        for file in _inside(path) if is_folder(path) else [path]:
            try:
                file.stat()
            except FileNotFoundError as error:
                raise ImageError(f"there is no picture or folder {file}; check the name") from error
            except (OSError, ValueError) as error:
                raise ImageError(
                    f"cannot read {file} ({reason(error)}); check its name and permissions"
                ) from error
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _inside(folder: Path) -> list[Path]:
    try:
        names = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise ImageError(
            f"the folder {folder} cannot be read ({reason(error)}); check its permissions"
        ) from error
    files = [entry for entry in names if entry.suffix.lower() in SUFFIXES and entry.is_file()]
    if not files:
        raise ImageError(
            f"the folder {folder} holds no pictures ({', '.join(SUFFIXES)}); "
            "folders inside it are not searched: name one that holds some"
        )
    return sorted(files, key=lambda path: natural(path.name))


def write_png(path: str | os.PathLike[str], array: NDArray[np.uint8], record: Record | None = None) -> None:
    """Write uint8 (H, W, 3) or (H, W) as a PNG, with `record` in its text entries; atomic.

    The same pixels and record give the same bytes. Raises `ImageError` for another kind of array and
    `OutputError` where the file cannot be written.
    """
    picture = Picture(np.ascontiguousarray(array), Path(path).stem)
    info = metadata.entries(record) if record is not None else None
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(encoded(Image.fromarray(picture.pixels), format="PNG", pnginfo=info))
