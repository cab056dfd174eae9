"""Pictures in files: found, read with limits, written with the record of how they were made.

The kind of a file is decided by its first bytes, never by its name. Whatever a damaged or hostile file does
to the decoder becomes one `ImageError`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from diptych.datasets.folders import natural
from diptych.errors import ImageError, damage, reason
from diptych.files import encoded, is_folder, replacing, short_of_memory
from diptych.images import jpeg, kinds, metadata, pixels, png, tiff
from diptych.images.kinds import SUFFIXES
from diptych.images.opening import check_size, most_pixels, opened, quiet
from diptych.images.picture import Picture, Record
from diptych.images.rows import whole_rows

__all__ = [
    "SUFFIXES",
    "Found",
    "decode",
    "find",
    "png_at_full_depth",
    "read",
    "remarks_on_skipped",
    "search",
    "skipped_in",
    "write_png",
]

_Plain: TypeAlias = Image.Image | NDArray[np.uint8]
_JPEG_HEAD = 2**12  # bytes; enough for the header of a picture without EXIF data or a profile
_MOST_NAMED = 5  # skipped files that a remark names


def read(path: str | os.PathLike[str], max_pixels: int | None = None) -> Picture:
    """Reads a PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000 or HEIC file.

    Animations give their first frame. Safe to call from several threads at once.

    Args:
        path: The file. HEIC needs the extra `heif`.
        max_pixels: The most pixels that its header may claim; by default the limit of `pixel_limit`.

    Returns:
        The picture: upright, 8-bit, sRGB or grey, without alpha. Its remarks say what had to be decided.

    Raises:
        ImageError: There is no such picture, it is damaged, or its header claims more pixels than the limit, which
            is checked before anything is decoded.
    """
    loaded = _read(Path(path), max_pixels)
    return Picture(np.asarray(loaded.plain), Path(path).stem, tuple(loaded.remarks), loaded.record, str(path))


def decode(
    path: str | os.PathLike[str], max_pixels: int | None = None, content: bytes | None = None
) -> tuple[_Plain, tuple[str, ...]]:
    """Reads the pixels of a picture as they come, without the copies that an array costs a large photograph.

    Args:
        path: The file.
        max_pixels: As for `read`.
        content: The bytes of the file, where it is a member of an archive; `path` is then its name in messages.

    Returns:
        A Pillow image (RGB or L) or an array, as recipes take them, and the remarks.

    Raises:
        ImageError: As `read` does.
    """
    loaded = _read(path if isinstance(path, Path) else Path(path), max_pixels, content)
    return loaded.plain, tuple(loaded.remarks)


@dataclass
class _Loaded:
    """A decoded picture: as Pillow has it, and then plain."""

    plain: _Plain
    remarks: list[str] = field(default_factory=list)
    record: Record | None = None


def _read(path: Path, max_pixels: int | None, content: bytes | None = None) -> _Loaded:
    limit = most_pixels() if max_pixels is None else max_pixels
    with opened(path) if content is None else io.BytesIO(content) as stream, quiet():
        head = stream.read(kinds.HEAD)
        kind = kinds.of(head)
        if kind.opener is None:
            raise ImageError(
                f"{path} is not a picture that can be read: it seems to be {kind.name}; {kind.advice}"
            )
        stream.seek(0)
        try:
            check_size(path, kinds.claimed_size(head), limit)
            return _readers.get(kind.name, _by_pillow)(path, stream, kind.opener, limit)
        except ImageError:
            raise
        except Image.DecompressionBombError as error:  # Pillow has a limit of its own
            raise ImageError(
                f"{path} is larger than Pillow's own limit ({reason(error)}); make it smaller, "
                "or set PIL.Image.MAX_IMAGE_PIXELS if the file is trusted"
            ) from error
        except pixels.OutOfRange as error:
            raise ImageError(
                f"{path} is not a picture on a known scale: {error}; rescale it first"
            ) from error
        except (
            Exception
        ) as error:  # Pillow's decoders raise anything: SyntaxError, struct.error, KeyError, ...
            if short_of_memory(error):
                raise ImageError(f"{path} needs more memory than there is; make it smaller first") from error
            raise _damaged(path, kind.name, error) from error


_NOT_READ = {
    "-bit layers": "of more than 8 bits",
    "subsampling level": "with an unusual subsampling of colours",
}
"""What libraries say of good JPEG files that they do not read."""


def _damaged(path: Path, kind: str, error: object) -> ImageError:
    rare = next((what for sign, what in _NOT_READ.items() if kind == "JPEG" and sign in str(error)), None)
    if rare is not None:
        return ImageError(f"{path} is a JPEG picture {rare}, which is not read; save it as PNG first")
    return ImageError(
        f"{path} begins as a {kind} picture but is truncated or damaged ({damage(error)}); "
        "copy or download it again"
    )


# ---- One reader for each kind -----------------------------------------------------------------------------


def _by_pillow(path: Path, stream: IO[bytes], opener: kinds.Opener, limit: int) -> _Loaded:
    with opener(stream) as image:
        check_size(path, image.size, limit)
        rawmode = _rawmode(image)
        image.load()
        return _plain(image, rawmode)


def _png(path: Path, stream: IO[bytes], opener: kinds.Opener, limit: int) -> _Loaded:
    head = stream.read(24)
    check_size(path, (int.from_bytes(head[16:20]), int.from_bytes(head[20:24])), limit)
    file = png.parse(head + stream.read())
    with opener(io.BytesIO(file.pixels)) as image:
        check_size(path, image.size, limit)
        rawmode = _rawmode(image)
        image.load()
        if file.icc_profile is not None:
            image.info["icc_profile"] = file.icc_profile
        loaded = _plain(image, rawmode)
    try:
        loaded.record = metadata.record_in(image.info)
    except ImageError as error:
        loaded.remarks.append(str(error))
    if file.has_surplus():
        loaded.remarks.append(
            f"image data beyond the {file.width} x {file.height} pixels of the header left out"
        )
    if metadata.KEY in file.left_out:
        loaded.remarks.append("the picture's record is damaged: it is too long")
    return loaded


def png_at_full_depth(path: Path) -> tuple[NDArray[Any] | None, tuple[str, ...]]:
    """Reads a PNG file with 16 bits a channel, which Pillow would cut to 8 where there is colour.

    Args:
        path: The file.

    Returns:
        The samples as they are stored, uint16 (H, W) or (H, W, 3 or 4) in the order RGB, or None where they are not
        of such a kind; and the remarks of reading it with 8 bits.

    Raises:
        ImageError: As `read` does.
    """
    _, remarks = decode(path)  # finds every damage, and says it in one sentence
    with opened(path) as stream:
        bare = png.parse(stream.read()).bare
    import cv2

    deep: NDArray[Any] | None = cv2.imdecode(np.frombuffer(bare, np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16:
        return None, remarks
    if deep.ndim == 3 and deep.shape[2] >= 3:
        deep = deep[..., [2, 1, 0, *range(3, deep.shape[2])]]
    return deep, remarks


def _jpeg(path: Path, stream: IO[bytes], opener: kinds.Opener, limit: int) -> _Loaded:
    head = stream.read(_JPEG_HEAD)
    if (plain := jpeg.plain_header(head)) is not None:
        width, height, channels = plain
        check_size(path, (width, height), limit)
        data = head + stream.read()
        if jpeg.may_hold(len(data), width, height):
            return _Loaded(jpeg.as_image(data, channels))
    stream.seek(0)
    with opener(stream) as header:
        check_size(path, header.size, limit)
        stream.seek(0)
        data = stream.read()
        if not jpeg.may_hold(len(data), *header.size):
            raise ValueError(f"{len(data):,} bytes cannot hold {header.width} x {header.height} pixels")
        channels = len(header.getbands())
        if channels == 4:
            jpeg.decode(data, channels)  # to find damage; Pillow knows which files hold their inks inverted
            header.load()
            return _plain(header, "")
        image = jpeg.as_image(data, channels)
        image.info = header.info
        return _plain(image, "", orientation=_orientation(header))


def _tiff(path: Path, stream: IO[bytes], opener: kinds.Opener, limit: int) -> _Loaded:
    source = tiff.opened(path, limit, stream)
    if source is None:
        stream.seek(0)
        return _by_pillow(path, stream, opener, limit)
    try:
        plain, remarks = pixels.of_rows(whole_rows(source), source.kept.icc_profile)
    finally:
        source.close()
    return _Loaded(plain, [*source.remarks, *remarks])


_readers = {"PNG": _png, "JPEG": _jpeg, "TIFF": _tiff}


def _rawmode(image: ImageFile.ImageFile) -> str:
    """How the file stores its pixels, which is known only before they are loaded."""
    args: Any = image.tile[0][3] if image.tile else None
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _plain(image: Image.Image, rawmode: str, orientation: int | str | None = "") -> _Loaded:
    """A decoded picture, turned upright and plain."""
    remarks = ["the first of several frames"] if getattr(image, "is_animated", False) else []
    image.load()  # counting the frames of a GIF has left it to be decoded again
    stated = _orientation(image) if isinstance(orientation, str) else orientation
    if stated is None:
        remarks.append("EXIF data that cannot be read ignored")
    elif stated in _TURNS:
        remarks.append(f"turned upright (EXIF orientation {stated})")
        info, image = image.info, image.transpose(_TURNS[stated])
        image.info = info
    plain, decided = pixels.to_plain(image, rawmode)
    return _Loaded(plain, [*remarks, *decided])


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation, 1 where there is none, None where the data cannot be read."""
    try:
        stated = image.getexif().get(0x0112, 1)
    except MemoryError:  # not to be taken for a picture that stands as it is stored
        raise
    except Exception:  # as many kinds as in decoding; the pixels are good
        return None
    return stated if isinstance(stated, int) else 1


# ---- Finding pictures -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """The pictures that files and folders stand for.

    Attributes:
        paths: The picture files, each once.
        skipped: The other files of the folders, hidden ones included.
    """

    paths: tuple[Path, ...]
    skipped: tuple[Path, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """See `remarks_on_skipped`."""
        return remarks_on_skipped(self.skipped)


def remarks_on_skipped(skipped: Iterable[Path]) -> tuple[str, ...]:
    """Returns a sentence that counts and names skipped files; none where there are none but hidden ones."""
    hidden, seen = 0, list[str]()
    for path in skipped:
        if path.name.startswith("."):
            hidden += 1
        else:
            seen.append(path.name)
    if not seen:
        return ()  # what a system keeps in a folder is not the user's
    rest = f" and {len(seen) - _MOST_NAMED} more" if len(seen) > _MOST_NAMED else ""
    files = "1 file was" if len(seen) == 1 else f"{len(seen)} files were"
    beside = f"; hidden files too: {hidden}" if hidden else ""
    return (
        f"{files} skipped, because the name does not end like a picture's: "
        f"{', '.join(seen[:_MOST_NAMED])}{rest}{beside}",
    )


def skipped_in(folder: Path) -> list[Path]:
    """Returns the files of a folder, and of the folders inside it, that do not end like a picture."""
    return [
        Path(place, name)
        for place, _, names in os.walk(folder)
        for name in sorted(names, key=natural)
        if Path(name).suffix.lower() not in SUFFIXES
    ]


def find(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Returns the paths of `search`."""
    return list(search(paths).paths)


def search(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Found:
    """Finds picture files.

    Args:
        paths: Files and folders. A folder stands for the files in it (not in folders inside it) that end like a
            picture and are not hidden, sorted as people count: picture2 before picture10. A file is taken
            whatever it is called: `read` looks at its content.

    Returns:
        The pictures in the order given, each once, and what was skipped in folders.

    Raises:
        ImageError: A path does not exist, or a folder holds no pictures.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise ImageError("no pictures were named; name files or a folder that holds some")
    found: dict[str, Path] = {}
    skipped: list[Path] = []
    for path in map(Path, given):
        if is_folder(path):
            files, others = _inside(path)
            skipped += others
        else:
            files = [path]
            _check_there(path)
        for file in files:  # what is wrong with one inside a folder, reading it tells
            found.setdefault(os.path.realpath(file), file)
    return Found(tuple(found.values()), tuple(skipped))


def _check_there(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError as error:
        raise ImageError(f"there is no picture or folder {path}; check the name") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {path} ({reason(error)}); check its name and permissions") from error


def _inside(folder: Path) -> tuple[list[Path], list[Path]]:
    """The pictures and the other files of a folder."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.is_dir()]
    except OSError as error:
        raise ImageError(
            f"the folder {folder} cannot be read ({reason(error)}); check its permissions"
        ) from error
    entries.sort(key=lambda path: natural(path.name))
    files: list[Path] = []
    others: list[Path] = []
    for entry in entries:
        picture = entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")
        (files if picture else others).append(entry)
    if not files:
        raise ImageError(
            f"the folder {folder} holds no pictures ({', '.join(SUFFIXES)}); "
            "folders inside it are not searched: name one that holds some"
        )
    return files, others


def write_png(path: str | os.PathLike[str], array: NDArray[np.uint8], record: Record | None = None) -> None:
    """Writes a PNG file, whole or not at all. The same pixels and record give the same bytes.

    Args:
        path: The file.
        array: Uint8, (H, W, 3) or (H, W).
        record: How the picture was made, kept in the text entries of the file.

    Raises:
        ImageError: The array is of another kind.
        OutputError: The file cannot be written.
    """
    picture = Picture(np.ascontiguousarray(array), Path(path).stem)
    info = metadata.entries(record) if record is not None else None
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(encoded(Image.fromarray(picture.pixels), format="PNG", pnginfo=info))
