"""One bit of a picture file is wrong: the file is refused, or read as a strict decoder reads it."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile, ImageFilter

from diptych.errors import ImageError
from diptych.images import files, streams
from little_pictures import png

FLIPS = 80
NOISE = np.random.default_rng(3).integers(0, 256, (41, 53, 3), dtype=np.uint8)
SMOOTH = Image.fromarray(NOISE).filter(ImageFilter.GaussianBlur(2))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def sixteen_bit_png() -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in (NOISE.astype(">u2") * 257))
    return png(53, 41, 16, 2, rows)


def tiff(**options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.asarray(SMOOTH), photometric="rgb", **options)
    return stream.getvalue()


CHECKED = {  # with a checksum over all bytes
    "png": saved(SMOOTH, "PNG"),
    "png grey": saved(SMOOTH.convert("L"), "PNG"),
    "png palette": saved(SMOOTH.quantize(40), "PNG"),
    "png alpha": saved(SMOOTH.convert("RGBA"), "PNG"),
    "png 16": saved(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257), "PNG"),
    "png 16 colour": sixteen_bit_png(),
    "apng": saved(SMOOTH, "PNG", save_all=True, append_images=[SMOOTH.rotate(180)]),
}
UNCHECKED = {
    "jpeg": saved(SMOOTH, "JPEG", quality=90),
    "jpeg progressive": saved(SMOOTH, "JPEG", progressive=True),
    "jpeg grey": saved(SMOOTH.convert("L"), "JPEG"),
    "jpeg full colour": saved(SMOOTH, "JPEG", subsampling=0),
    "webp": saved(SMOOTH, "WEBP", quality=80),
    "webp lossless": saved(SMOOTH, "WEBP", lossless=True),
    "bmp": saved(SMOOTH, "BMP"),
    "gif": saved(SMOOTH.quantize(60), "GIF"),
    "avif": saved(SMOOTH, "AVIF"),
    "jpeg 2000": saved(SMOOTH, "JPEG2000"),
}
TIFFS = {
    "none": tiff(rowsperstrip=8),
    "deflate": tiff(compression="zlib", rowsperstrip=16),
    "deflate tiles": tiff(compression="zlib", predictor=True, tile=(16, 16)),
    "lzw": saved(SMOOTH, "TIFF", compression="tiff_lzw"),
    "packbits": saved(SMOOTH, "TIFF", compression="packbits"),
    "zstd": saved(SMOOTH, "TIFF", compression="zstd"),
    "lzma": saved(SMOOTH, "TIFF", compression="tiff_lzma"),
    "jpeg": saved(SMOOTH, "TIFF", compression="jpeg"),
}


def flipped(content: bytes, first: int = 0, last: int | None = None) -> list[bytes]:
    """The content with one bit wrong, at seeded random places among the bytes first ... last - 1."""
    random = np.random.default_rng(11)
    places = random.integers(8 * first, 8 * (last or len(content)), FLIPS)
    results = []
    for place in places.tolist():
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        results.append(bytes(damaged))
    return results


def read_or_none(path: Path, content: bytes) -> np.ndarray | None:
    path.write_bytes(content)
    try:
        pixels = files.read(path).pixels
    except ImageError:
        return None
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)


def by_pillow(content: bytes) -> np.ndarray | None:
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        return np.asarray(image.convert("RGB"))
    except Exception:
        return None


def by_opencv(content: bytes) -> np.ndarray | None:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if pixels is None else pixels[..., ::-1]


@pytest.mark.parametrize("kind", CHECKED)
def test_a_flipped_bit_of_a_png_is_always_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    assert read_or_none(path, CHECKED[kind]) is not None
    for content in flipped(CHECKED[kind]):
        assert read_or_none(path, content) is None
        with pytest.raises(ImageError):
            streams.open(path)


@pytest.mark.parametrize("kind", UNCHECKED)
def test_a_flipped_bit_is_refused_or_read_as_a_strict_decoder_does(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture"
    assert read_or_none(path, UNCHECKED[kind]) is not None
    reference: Callable[[bytes], np.ndarray | None] = by_opencv if kind.startswith("webp") else by_pillow
    refused = 0
    for content in flipped(UNCHECKED[kind]):
        pixels = read_or_none(path, content)
        refused += pixels is None
        if pixels is not None:
            expected = reference(content)
            assert expected is not None
            assert np.array_equal(pixels, expected)
    assert refused > 0 or kind in ("bmp", "jpeg 2000")


@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive", "jpeg grey"])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_a_jpeg_whose_pixels_end_early_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    content, path = UNCHECKED[kind], tmp_path / "a.jpg"
    place = int(len(content) * share)
    for damaged in (
        content[:place],
        content[:place] + b"\xff\xd9",
        content[:-2],
    ):
        assert read_or_none(path, damaged) is None


@pytest.mark.parametrize("kind", TIFFS)
@pytest.mark.parametrize("by_rows", [False, True])
def test_a_flipped_bit_among_the_pixels_of_a_tiff(tmp_path: Path, kind: str, by_rows: bool) -> None:
    path, content = tmp_path / "a.tif", TIFFS[kind]
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        first, last = page.dataoffsets[0], page.dataoffsets[-1] + page.databytecounts[-1]

    def read(damaged: bytes) -> np.ndarray | None:
        path.write_bytes(damaged)
        try:
            if not by_rows:
                return files.read(path).pixels
            with contextlib.closing(streams.open(path)) as source:
                return source.rows(0, source.height)
        except ImageError:
            return None

    assert np.array_equal(read(content), by_pillow(content))
    for damaged in flipped(content, first, last):
        pixels = read(damaged)
        if kind.startswith("deflate"):  # with a checksum
            assert pixels is None
        elif pixels is not None:
            assert np.array_equal(pixels, by_pillow(damaged))


@pytest.mark.parametrize("kind", [*UNCHECKED, *CHECKED])
def test_a_program_that_lets_pillow_read_truncated_files(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = (UNCHECKED | CHECKED)[kind]
    assert read_or_none(tmp_path / "a", content[: len(content) * 2 // 3]) is None
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_png_without_its_end_is_refused(tmp_path: Path) -> None:
    assert read_or_none(tmp_path / "a.png", CHECKED["png"][:-12]) is None


def test_exif_is_read_after_the_pixels(tmp_path: Path) -> None:
    # Pillow's getexif() loads a PNG, and swallows the error when the pixels are damaged.
    content = bytearray(CHECKED["png"])
    at = content.index(b"IDAT") + 4
    length = struct.unpack(">I", content[at - 8 : at - 4])[0]
    content[at + length // 2] ^= 4
    content[at + length : at + length + 4] = struct.pack(">I", zlib.crc32(content[at - 4 : at + length]))
    assert read_or_none(tmp_path / "a.png", bytes(content)) is None  # by the checksum of the zlib stream
