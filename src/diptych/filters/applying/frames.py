"""Pictures with transparency, and files of several pages or frames: filtered one by one, and written together.

Colours are filtered as they are stored, and the transparency is kept as it is. Other pictures are not read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from diptych.errors import ImageError
from diptych.files import encoded, replacing
from diptych.images import files, kinds
from diptych.images.opening import opened, quiet
from diptych.images.rows import PEAKS
from diptych.images.streams.writing import Checked
from diptych.model.layers import Array

__all__ = ["Frame", "Frames", "frames_in", "write"]

_TIFF = (".tif", ".tiff")
_PILLOW = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}
_READ_BY_PILLOW = ("GIF", "WebP", "PNG")
_OPTIONS: dict[str, dict[str, Any]] = {"GIF": {"disposal": 2}, "WEBP": {"lossless": True}, "PNG": {}}


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a file.

    Attributes:
        colour: (H, W) or (H, W, 3), uint8, uint16 or float32 in 0..1.
        alpha: The opacity, (H, W) of the same dtype; None where all is opaque.
        milliseconds: How long it is shown; 0 for a page.
    """

    colour: Array
    alpha: Array | None = None
    milliseconds: int = 0


@dataclass(frozen=True, eq=False)
class Frames:
    """The pictures of a file.

    Attributes:
        count: Their number.
        frames: Reads one after the other.
        loop: How often an animation is shown; 0 for without end.
        icc_profile: The colour profile, which is kept.
        remarks: What reading had to decide.
    """

    count: int
    frames: Iterator[Frame]
    loop: int = 0
    icc_profile: bytes | None = None
    remarks: tuple[str, ...] = ()


def frames_in(path: Path, target: Path) -> Frames | None:
    """The pictures of a file; None where it is a single one without transparency, or the target holds no others.

    Args:
        path: The file to read.
        target: The file to write.

    Raises:
        ImageError: The file cannot be read, or is damaged.
    """
    suffix = target.suffix.lower()
    if suffix not in (*_TIFF, *_PILLOW):
        return None
    with opened(path) as stream:
        head = stream.read(kinds.HEAD)
    kind = kinds.of(head).name
    if kind == "TIFF":
        return _of_tiff(path)
    if kind not in _READ_BY_PILLOW:
        return None
    files.decode(path)  # finds every damage, and says it in one sentence
    try:
        with quiet(), Image.open(path) as image:
            count, clear, mode = getattr(image, "n_frames", 1), image.has_transparency_data, image.mode
            loop, profile = int(image.info.get("loop", 0)), image.info.get("icc_profile")
    except OSError:
        return None
    if (count == 1 and not clear and suffix != ".gif") or mode.startswith("I"):
        return None
    # The bit depth stands in a PNG's first chunk; Pillow gives 8 bits wherever a picture is transparent.
    deep = kind == "PNG" and head[24:25] == b"\x10"
    remarks = ("16 bits a channel were read as 8, because the picture has transparency",) if deep else ()
    return Frames(count, _by_pillow(path, count), loop, profile or None, remarks)


def _by_pillow(path: Path, count: int) -> Iterator[Frame]:
    with quiet(), Image.open(path) as image:
        for number in range(count):
            try:
                image.seek(number)
                whole = ImageOps.exif_transpose(image)
                clear, pixels = whole.has_transparency_data, np.asarray(whole.convert("RGBA"))
                milliseconds = int(image.info.get("duration", 0))
            except (OSError, EOFError, SyntaxError, ValueError) as error:
                raise ImageError(
                    f"frame {number + 1} of {path} is damaged ({error}); download it again"
                ) from error
            colour, alpha = np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3])
            if whole.mode in ("L", "LA", "1"):
                colour = np.ascontiguousarray(colour[..., 0])
            yield Frame(colour, alpha if clear and (alpha < 255).any() else None, milliseconds)


def _of_tiff(path: Path) -> Frames | None:
    """The pages that hold pictures of one of the dtypes that filters take, straight alpha included."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            pages = [page for page in file.pages if _is_plain(page)]
            if len(pages) != len(file.pages) or not pages:
                return None
            if len(pages) == 1 and not _extra(pages[0]):
                return None
            profile = pages[0].iccprofile
    except (OSError, ValueError, tifffile.TiffFileError):
        return None
    return Frames(len(pages), _by_tifffile(path), 0, profile)


def _is_plain(page: Any) -> bool:
    """Whether a page is an upright picture, grey or RGB, of a known dtype and at most one channel of straight alpha."""
    upright = page.tags.get("Orientation") is None or page.tags["Orientation"].value == 1
    grey, colour = page.photometric.name == "MINISBLACK", page.photometric.name == "RGB"
    own = 1 if grey else 3
    shaped = page.ndim == 2 or (page.ndim == 3 and page.axes.endswith("S"))
    alpha = [int(extra) for extra in page.extrasamples] in ([], [2])
    known = np.dtype(page.dtype) in PEAKS and page.bitspersample in (8, 16, 32)
    return bool(
        (grey or colour)
        and upright
        and shaped
        and alpha
        and known
        and page.samplesperpixel == own + len(page.extrasamples)
    )


def _extra(page: Any) -> bool:
    return bool(page.extrasamples)


def _by_tifffile(path: Path) -> Iterator[Frame]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        for number, page in enumerate(file.pages, 1):
            try:
                pixels = np.asarray(page.asarray())
            except Exception as error:  # decoders raise anything
                raise ImageError(
                    f"page {number} of {path} is damaged ({error}); download it again"
                ) from error
            native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
            if not _extra(page):
                yield Frame(native)
                continue
            colour = native[..., :-1]
            yield Frame(
                np.ascontiguousarray(colour[..., 0] if colour.shape[2] == 1 else colour), native[..., -1]
            )


def write(target: Path, found: Frames) -> tuple[str, ...]:
    """Writes pictures into one file, whole or not at all.

    Args:
        target: The file.
        found: The pictures; they are read and written one after the other in TIFF files, otherwise held together.

    Returns:
        Remarks.

    Raises:
        ImageError: A picture cannot be read, or the file cannot hold it.
        OutputError: The file cannot be written.
    """
    if target.suffix.lower() in _TIFF:
        with replacing(target) as temporary:
            _write_tiff(temporary, found)
        return ()
    kind, images, times = _PILLOW[target.suffix.lower()], [], []
    for frame in found.frames:
        if frame.colour.dtype != np.uint8:
            raise ImageError(
                f"{target} holds 8 bits a channel; write pictures of {frame.colour.dtype} as .tif"
            )
        images.append(_image(frame))
        times.append(frame.milliseconds)
    options: dict[str, Any] = dict(_OPTIONS[kind])
    if found.icc_profile and kind != "GIF":
        options["icc_profile"] = found.icc_profile
    if len(images) > 1:
        options |= {"save_all": True, "append_images": images[1:], "loop": found.loop, "duration": times}
    with replacing(target) as temporary:
        temporary.write_bytes(encoded(images[0], format=kind, **options))
    return ("reduced to 256 colours, as GIF holds no more",) if kind == "GIF" else ()


def _image(frame: Frame) -> Image.Image:
    if frame.alpha is None:
        return Image.fromarray(frame.colour)
    return Image.fromarray(np.dstack([frame.colour, frame.alpha]))


def _write_tiff(path: Path, found: Frames) -> None:
    import tifffile

    with Checked(FileIO(path, "w+")) as stream, tifffile.TiffWriter(stream) as file:
        for frame in found.frames:
            pixels = frame.colour if frame.alpha is None else np.dstack([frame.colour, frame.alpha])
            file.write(
                pixels,
                photometric="rgb" if frame.colour.ndim == 3 else "minisblack",
                extrasamples=None if frame.alpha is None else ["unassalpha"],
                planarconfig="contig" if pixels.ndim == 3 else None,
                compression="zlib",
                metadata=None,
                software="Diptych",
                iccprofile=found.icc_profile,
                contiguous=False,
            )
