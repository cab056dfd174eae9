"""TIFF files of any size, read piece by piece: strips or tiles, classic or BigTIFF.

Layout and tags: TIFF 6.0 (Adobe, 1992), its Technical Note 3 (floating-point predictor), and BigTIFF. Only
tifffile's directory of tags is used. Pieces are decoded here, so that no optional codec is needed: libtiff,
which Pillow brings, undoes LZW, Zstandard and the like when a piece is presented as a small grey picture.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import ImageError, reason
from diptych.images.opening import MAX_PIXELS, check_size
from diptych.images.rows import PEAKS, Array, Kept, StreamSource, Whole, over_white

__all__ = ["opened"]

_NONE, _JPEG = 1, 7
_DEFLATE = (8, 32946)
_BY_LIBTIFF = (5, 32773, 34925, 50000)  # LZW, PackBits, LZMA, Zstandard
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _YCBCR = 0, 1, 2, 6
_PREMULTIPLIED, _ALPHA = 1, 2
MOST_BYTES = 1 << 30  # in one piece, or in one row of pieces: a larger claim is damage or mischief
MOST_TILE = 1024  # pixels a side that are worth imitating

_DTYPES = {"u1": np.uint8, "u2": np.uint16, "f2": np.float32, "f4": np.float32, "f8": np.float32}


class Unstreamable(Exception):
    """A good TIFF of a kind that is not read piece by piece: palettes, odd bit depths, CMYK, old codecs."""


# What the eight EXIF orientations need to stand upright.
_UPRIGHT: dict[int, Any] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}


def opened(path: Path, max_pixels: int = MAX_PIXELS) -> StreamSource | None:
    """A TIFF to be read by rows; None where only Pillow reads its kind.

    Of one that lies on its side, which is read whole, at most `max_pixels` are taken.
    """
    try:
        source = TiffSource(path)
    except Unstreamable:
        return None
    return source if source.orientation not in _UPRIGHT else _turned(source, path, max_pixels)


def _turned(source: TiffSource, path: Path, max_pixels: int) -> Whole:
    """All of a TIFF that lies on its side: its first row may need its last pixels."""
    try:
        check_size(path, (source.width, source.height), max_pixels)
        pixels = _UPRIGHT[source.orientation](source.rows(0, source.height))
    finally:
        source.close()
    remark = f"turned upright (EXIF orientation {source.orientation})"
    return Whole(np.ascontiguousarray(pixels), (*source.remarks, remark), source.kept)


class TiffSource:
    """The first picture of a TIFF file. See `StreamSource`.

    Raises `Unstreamable` for a kind that only Pillow reads, `ImageError` for a truncated or damaged file.
    """

    streams = True

    def __init__(self, path: Path) -> None:
        import tifffile

        self._path = path
        try:
            with _quiet():
                self._tiff = tifffile.TiffFile(path)
        except Exception as error:  # whatever tifffile raises on a damaged header
            raise self._damaged(error) from error
        try:
            with _quiet():
                self._look(self._tiff.pages[0], len(self._tiff.pages))
        except (Unstreamable, ImageError):
            self._tiff.close()
            raise
        except Exception as error:  # a tag that is missing or of the wrong kind
            self._tiff.close()
            raise self._damaged(error) from error

    def _look(self, page: Any, pages: int) -> None:
        self._page, tags = page, page.tags
        self._stored = np.dtype(page.dtype) if page.dtype is not None else np.dtype(object)
        code = f"{self._stored.kind}{self._stored.itemsize}"
        self._samples, planar = int(page.samplesperpixel), int(page.planarconfig) == 2
        colours = {_MIN_IS_WHITE: 1, _MIN_IS_BLACK: 1, _RGB: 3, _YCBCR: 3}.get(int(page.photometric), 0)
        self._compression = int(page.compression)
        known = (_NONE, _JPEG, *_DEFLATE, *_BY_LIBTIFF)
        jpeg = self._compression == _JPEG
        if (
            code not in _DTYPES
            or not colours
            or self._compression not in known
            or self._samples < colours
            or int(page.bitspersample) != 8 * self._stored.itemsize
            or int(page.fillorder) != 1
            or int(page.imagedepth) != 1
            or (int(page.photometric) == _YCBCR) > jpeg
            or (jpeg and (code != "u1" or planar or self._samples != colours))
        ):
            raise Unstreamable
        self.height, self.width, self.channels = int(page.imagelength), int(page.imagewidth), colours
        self.dtype = np.dtype(_DTYPES[code])
        self.orientation = int(tags.valueof(274, default=1))
        self._byte_order = self._tiff.byteorder
        self._planes = self._samples if planar else 1
        self._in_piece = 1 if planar else self._samples
        self._predictor = int(page.predictor)
        self._inverted = int(page.photometric) == _MIN_IS_WHITE
        extra = [int(kind) for kind in page.extrasamples][: self._samples - colours]
        self._alpha = next(
            ((colours + i, k) for i, k in enumerate(extra) if k in (_PREMULTIPLIED, _ALPHA)), None
        )
        self._pieces(page)
        self.remarks = tuple(
            remark
            for remark, holds in (
                (f"the first of {pages} pictures", pages > 1),
                ("transparency over white", self._alpha is not None),
                ("channels beside the colours left out", self._samples > colours + (self._alpha is not None)),
            )
            if holds
        )
        self.kept = Kept(
            icc_profile=bytes(tags.valueof(34675, default=b"")) or None,
            resolution=_resolution(tags),
            compressed=self._compression != _NONE,
            tile=(self._tall, self._wide) if page.is_tiled and self._common_tile() else None,
        )
        self._band, self._decoded = -1, dict[int, Array]()

    def _pieces(self, page: Any) -> None:
        """Where the strips or tiles lie, checked against the size of the file."""
        if page.is_tiled:
            self._tall, self._wide = int(page.tilelength), int(page.tilewidth)
        else:
            self._tall, self._wide = min(int(page.rowsperstrip), self.height), self.width
        self._across, self._down = -(-self.width // self._wide), -(-self.height // self._tall)
        self._offsets, self._counts = list(page.dataoffsets), list(page.databytecounts)
        expected = self._across * self._down * self._planes
        if len(self._offsets) < expected or len(self._counts) < expected:
            raise self._damaged(
                f"{min(len(self._offsets), len(self._counts))} pieces of {expected} are listed"
            )
        end = os.fstat(self._tiff.filehandle.fileno()).st_size
        last = max(offset + count for offset, count in zip(self._offsets, self._counts, strict=False))
        if last > end:
            raise self._damaged(f"it should have at least {last:,} bytes and has {end:,}")
        self._band_bytes = self._tall * self.width * self._samples * self._stored.itemsize
        whole_rows = 1 if self._compression == _NONE else self._tall
        if whole_rows * self._wide * self._across * self._samples * self._stored.itemsize > MOST_BYTES:
            raise ImageError(
                f"{self._path} is compressed in pieces of {self._band_bytes:,} bytes, more than the "
                f"{MOST_BYTES:,} that are read at once; save it uncompressed, or in tiles"
            )
        if self._compression == _NONE:
            for index in range(expected):
                least = self._piece_rows(index) * self._row_bytes
                if 0 < self._counts[index] < least:
                    raise self._damaged(f"piece {index} has {self._counts[index]:,} bytes, not {least:,}")

    @property
    def _row_bytes(self) -> int:
        return self._wide * self._in_piece * self._stored.itemsize

    def _piece_rows(self, index: int) -> int:
        """The rows of a piece: tiles are always whole, the last strip may be shorter."""
        if self._page.is_tiled:
            return self._tall
        return min(self._tall, self.height - index % self._down * self._tall)

    def _common_tile(self) -> bool:
        """Whether the tiles are such as TIFF 6.0 allows and a few of which fit in memory."""
        return all(side % 16 == 0 and side <= MOST_TILE for side in (self._tall, self._wide))

    def rows(self, top: int, bottom: int) -> Array:
        """See `StreamSource`."""
        out = np.empty((bottom - top, self.width, self._samples), self._stored)
        for band in range(top // self._tall, -(-bottom // self._tall)):
            begin = band * self._tall
            first, last = max(top, begin), min(bottom, begin + self._tall)
            for plane in range(self._planes):
                samples = slice(plane, plane + 1) if self._planes > 1 else slice(None)
                for column in range(self._across):
                    index = (plane * self._down + band) * self._across + column
                    left = column * self._wide
                    room = out[first - top : last - top, left : left + self._wide, samples]
                    room[...] = self._piece(band, index, first - begin, last - begin)[:, : room.shape[1]]
        return self._finished(out)

    def _piece(self, band: int, index: int, first: int, last: int) -> Array:
        """Rows first ... last - 1 of a strip or tile, (rows, width, samples)."""
        if self._counts[index] == 0:  # a sparse file leaves out what is 0
            return np.zeros((last - first, self._wide, self._in_piece), self._stored)
        if self._compression == _NONE:
            size = (last - first) * self._row_bytes
            return self._shaped(
                self._read(self._offsets[index] + first * self._row_bytes, size), last - first
            )
        if band != self._band:
            self._band, self._decoded = band, {}
        if index not in self._decoded:
            self._decoded[index] = self._decode(index)
        return self._decoded[index][first:last]

    def _read(self, offset: int, size: int) -> bytes:
        try:
            handle = self._tiff.filehandle
            handle.seek(offset)
            data: bytes = handle.read(size)
        except OSError as error:
            raise self._damaged(error) from error
        if len(data) < size:
            raise self._damaged("it ends too early")
        return data

    def _shaped(self, data: bytes, rows: int) -> Array:
        values = np.frombuffer(
            data, self._stored.newbyteorder(self._byte_order), rows * self._wide * self._in_piece
        )
        return values.reshape(rows, self._wide, self._in_piece)

    def _decode(self, index: int) -> Array:
        data, rows = self._read(self._offsets[index], self._counts[index]), self._piece_rows(index)
        size = rows * self._row_bytes
        try:
            if self._compression == _JPEG:
                return _jpeg(data, self._page, self._wide, rows, self._in_piece)
            if self._compression in _DEFLATE:
                data = zlib.decompressobj().decompress(data, size)
            else:
                data = _by_libtiff(data, self._compression, self._row_bytes, rows)
            if self._predictor == 3:
                return _from_float_differences(data, rows, self._wide, self._in_piece, self._stored)
            values = self._shaped(data, rows)
        except Exception as error:  # zlib.error, whatever Pillow raises, too few bytes
            raise self._damaged(error) from error
        if self._predictor == 2:
            return np.cumsum(values, axis=1, dtype=self._stored)
        return values

    def _finished(self, stored: Array) -> Array:
        """RGB or grey in the dtype that pictures have."""
        colour = stored[..., : self.channels].astype(self.dtype, copy=False)
        if self._inverted:
            colour = ((PEAKS[self.dtype] or 1) - colour).astype(self.dtype)
        if self._alpha is None:
            return np.ascontiguousarray(colour)
        place, kind = self._alpha
        alpha = stored[..., place : place + 1].astype(self.dtype, copy=False)
        return over_white(colour, alpha, kind == _PREMULTIPLIED)

    def close(self) -> None:
        """Lets go of the file."""
        self._tiff.close()

    def _damaged(self, why: object) -> ImageError:
        return ImageError(
            f"{self._path} begins as a TIFF picture but is truncated or damaged ({reason(why)}); "
            "copy or download it again"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """What tifffile logs about a damaged file is said by us, once."""
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _resolution(tags: Any) -> tuple[float, float] | None:
    """Pixels an inch, where both tags are there and say something."""
    unit = {2: 1.0, 3: 2.54}.get(int(tags.valueof(296, default=2)))
    pair = [tags.valueof(code, default=None) for code in (282, 283)]
    if unit is None or not all(isinstance(p, tuple) and len(p) == 2 and p[0] > 0 and p[1] > 0 for p in pair):
        return None
    across, down = (p[0] / p[1] * unit for p in pair)
    return across, down


def _from_float_differences(data: bytes, rows: int, width: int, samples: int, dtype: np.dtype[Any]) -> Array:
    """The floating-point predictor undone: differences of bytes, the most significant bytes first."""
    count, size = width * samples, dtype.itemsize
    differences = np.frombuffer(data, np.uint8, rows * count * size).reshape(rows, -1, samples)
    planes = np.cumsum(differences, axis=1, dtype=np.uint8).reshape(rows, size, count)
    together = np.ascontiguousarray(planes.transpose(0, 2, 1))
    return together.view(dtype.newbyteorder(">")).reshape(rows, width, samples)


# ---- Pieces through Pillow ----------------------------------------------------------------------------


def _by_libtiff(data: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    """The bytes of a piece: libtiff takes it for an 8-bit grey picture as wide as a row has bytes."""
    picture = _as_tiff(data, row_bytes, rows, [(259, 3, compression), (262, 3, _MIN_IS_BLACK)], (8,))
    return np.asarray(_opened(picture)).tobytes()


def _jpeg(data: bytes, page: Any, width: int, rows: int, samples: int) -> Array:
    entries: list[tuple[int, int, Any]] = [(259, 3, _JPEG), (262, 3, int(page.photometric))]
    tables = page.tags.valueof(347, default=None)
    if tables:
        entries.append((347, 7, bytes(tables)))
    if int(page.photometric) == _YCBCR:
        entries.append((530, 3, tuple(page.tags.valueof(530, default=(2, 2)))))
    picture = _opened(_as_tiff(data, width, rows, entries, (8,) * samples))
    return np.asarray(picture).reshape(rows, width, samples)


def _opened(data: bytes) -> Any:
    from PIL.TiffImagePlugin import TiffImageFile

    picture = TiffImageFile(io.BytesIO(data))
    picture.load()
    return picture


def _as_tiff(
    data: bytes, width: int, rows: int, more: list[tuple[int, int, Any]], bits: tuple[int, ...]
) -> bytes:
    """A TIFF file of one strip. Entries are (tag, type, value); types 3 (16 bits), 4 (32 bits), 7 (bytes)."""
    entries: list[tuple[int, int, Any]] = [
        (256, 4, width),
        (257, 4, rows),
        (258, 3, bits),
        (277, 3, len(bits)),
        (278, 4, rows),
    ]
    entries = sorted([*entries, *more, (273, 4, 8), (279, 4, len(data))])
    body = bytearray(data + b"\0" * (len(data) % 2))
    directory = bytearray()
    for tag, kind, value in entries:
        values = value if isinstance(value, tuple) else (value,)
        packed = value if kind == 7 else struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        count = len(packed) if kind == 7 else len(values)
        if len(packed) > 4:
            place = 8 + len(body)
            body += packed + b"\0" * (len(packed) % 2)
            packed = struct.pack("<I", place)
        directory += struct.pack("<HHI", tag, kind, count) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", 8 + len(body))
    return head + bytes(body) + struct.pack("<H", len(entries)) + bytes(directory) + b"\0\0\0\0"
