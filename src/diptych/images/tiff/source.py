"""TIFF files of any size, read piece by piece: strips or tiles, classic or BigTIFF.

Layout and tags: TIFF 6.0 (Adobe, 1992), its Technical Note 3 (floating-point predictor), and BigTIFF. Only
tifffile's directory of tags is used; the pieces are decoded here, so that no optional codec is needed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from diptych.errors import ImageError, damage
from diptych.files import short_of_memory
from diptych.images.kinds import DEVELOP
from diptych.images.opening import check_size, quiet
from diptych.images.opening import opened as opened_file
from diptych.images.pixels import OutOfRange, to_plain
from diptych.images.rows import PEAKS, Array, Kept, StreamSource, Whole, over_white, whole_rows
from diptych.images.tiff import codecs
from diptych.images.tiff.samples import Samples

__all__ = ["MOST_BYTES", "MOST_TILE", "TiffSource", "opened"]

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB, _ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
_COLOURS = {
    _MIN_IS_WHITE: 1,
    _MIN_IS_BLACK: 1,
    _RGB: 3,
    _PALETTE: 1,
    _CMYK: 4,
    _YCBCR: 3,
    _LAB: 3,
    _ICC_LAB: 3,
}
_SUBFILE_TYPE, _SUB_DIRECTORIES, _DNG_VERSION = 254, 330, 50706
_BY_PILLOW = (2, 3, 4, 6, 32771, 32809, 50001)
"""Compressions of 8 bits or fewer that Pillow reads: fax, old JPEG, Thunderscan, WebP."""
_PREMULTIPLIED, _ALPHA = 1, 2
MOST_BYTES = 1 << 30
"""In one piece, or in one row of pieces: a larger claim is damage or mischief."""
MAX_SPARSE = 200_000_000
"""Pixels that a sparse file may leave out, which are read as 0."""
MOST_TILE = 1024
"""Pixels a side of a tile that is worth imitating."""

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


class _ForPillow(Exception):
    """A good TIFF of a kind that Pillow reads: fax, old JPEG, subsampled YCbCr."""


def opened(path: Path, limit: int, stream: IO[bytes] | None = None) -> StreamSource | None:
    """Opens a TIFF file to be read by rows.

    Args:
        path: The file.
        limit: The most pixels of a picture that is read whole: with a stream, any; without one, a picture that
            lies on its side, CMYK, Lab, or whole numbers of more than 16 bits, whose scale only all of them tell.
        stream: The file, if it is open already; it stays open.

    Returns:
        The first picture of the file, or None where only Pillow reads its kind.

    Raises:
        ImageError: The file is truncated or damaged, or of a kind that is not read.
    """
    try:
        source = TiffSource(path, limit, stream)
    except _ForPillow:
        return None
    if source.orientation not in _UPRIGHT and not source.needs_all:
        return source
    try:
        return _whole(source)
    finally:
        source.close()


def _whole(source: TiffSource) -> Whole:
    """All of a picture whose first row may need its last pixels."""
    remarks, kept = list(source.remarks), source.kept
    if source.needs_all:
        pixels, decided = source.all_levels()
        remarks += decided
    else:
        pixels = whole_rows(source)
    if source.orientation in _UPRIGHT:
        pixels = _UPRIGHT[source.orientation](pixels)
        remarks.append(f"turned upright (EXIF orientation {source.orientation})")
    if source.to_srgb:
        kept = Kept(None, kept.resolution, kept.compressed, kept.tile)
    return Whole(np.ascontiguousarray(pixels), tuple(remarks), kept)


class TiffSource:
    """The first picture of a TIFF file. See `StreamSource`.

    Attributes:
        orientation: The tag Orientation, 1 to 8.
        needs_all: Whether `rows` cannot be used, but only `all_levels`.
        to_srgb: Whether `all_levels` converts CMYK or Lab to sRGB.
    """

    streams = True

    def __init__(self, path: Path, limit: int, stream: IO[bytes] | None = None) -> None:
        """Opens the file and checks its directory.

        Args:
            path: The file, for messages, and to be opened where there is no stream.
            limit: The most pixels, as for `opened`.
            stream: The open file, which stays open.

        Raises:
            ImageError: The file is truncated or damaged, or of a kind that is not read.
        """
        import tifffile

        self._path = path
        self._own = opened_file(path) if stream is None else None
        file = self._own or stream
        assert file is not None
        self._stream = file
        try:
            self._stream.seek(0)
            self._tiff = tifffile.TiffFile(self._stream, name=path.name)
            self._look(self._tiff.pages[0], len(self._tiff.pages), limit)
        except OutOfRange as error:
            self.close()
            raise self._refused(error) from error
        except (_ForPillow, ImageError):
            self.close()
            raise
        except Exception as error:  # whatever tifffile raises on a damaged directory; a tag of the wrong kind
            self.close()
            if short_of_memory(error):
                raise MemoryError from error
            raise self._damaged(error) from error

    def _look(self, page: Any, pages: int, limit: int) -> None:
        self._page, tags = page, page.tags
        self._check_developed(tags)
        self._photometric, self._compression = int(page.photometric), int(page.compression)
        if self._compression in _BY_PILLOW:
            raise _ForPillow
        self._samples_per_pixel = int(page.samplesperpixel)
        bits = _all_of(tags.valueof(258, default=1))
        self._samples = Samples.of(bits, _all_of(tags.valueof(339, default=1)))
        planar = int(page.planarconfig) == 2 and self._samples_per_pixel > 1
        self._check_kind(planar)
        colours = _COLOURS[self._photometric]
        self.height, self.width = int(page.imagelength), int(page.imagewidth)
        if self.height < 1 or self.width < 1:
            raise self._damaged(f"it has {self.width} x {self.height} pixels")
        self.channels, self.dtype = colours, self._samples.levels
        self._palette = self._colour_map(tags) if self._photometric == _PALETTE else None
        if self._palette is not None:
            self.channels, self.dtype = 3, np.dtype(np.uint8)
        self.orientation = int(tags.valueof(274, default=1))
        self._byte_order = self._tiff.byteorder
        self._planes = self._samples_per_pixel if planar else 1
        self._in_piece = 1 if planar else self._samples_per_pixel
        # As libtiff does: other compressions have no predictor, whatever the tag says.
        self._predictor = int(page.predictor) if self._compression in codecs.WITH_PREDICTOR else 1
        self._reversed = int(page.fillorder) == 2
        self._colours = colours
        self.to_srgb = self._photometric in (_CMYK, _LAB, _ICC_LAB)
        self.needs_all = self.to_srgb or self._samples.on_unknown_scale
        if self._own is None or self.needs_all or self.orientation in _UPRIGHT:
            check_size(self._path, (self.width, self.height), limit)
        extra = [int(kind) for kind in page.extrasamples][: self._samples_per_pixel - colours]
        self._alpha = next(
            ((colours + i, k) for i, k in enumerate(extra) if k in (_PREMULTIPLIED, _ALPHA)), None
        )
        self._pieces(page)
        self.remarks = tuple(
            remark
            for remark, holds in (
                (f"the first of {pages} pictures", pages > 1),
                (self._samples.remark, self._samples.remark and self._palette is None),
                ("transparency over white", self._alpha is not None),
                (
                    "channels beside the colours left out",
                    self._samples_per_pixel > colours + (self._alpha is not None),
                ),
            )
            if holds and remark
        )
        self.kept = Kept(
            icc_profile=bytes(tags.valueof(34675, default=b"")) or None,
            resolution=_resolution(tags),
            compressed=self._compression != codecs.NONE,
            tile=(self._tall, self._wide) if page.is_tiled and self._common_tile() else None,
        )
        self._band, self._decoded = -1, dict[int, Array]()

    def _check_kind(self, planar: bool) -> None:
        """Refuses by name what is not read, and leaves to Pillow what only Pillow reads."""
        samples, photometric, jpeg = self._samples, self._photometric, self._compression == codecs.JPEG
        predictor = int(self._page.predictor) if self._compression in codecs.WITH_PREDICTOR else 1
        if self._compression not in codecs.RATIOS:
            raise OutOfRange(f"its compression is of the kind {self._compression}")
        if photometric not in _COLOURS:
            raise OutOfRange(f"its colours are of the kind {photometric}")
        if int(self._page.imagedepth) != 1:
            raise OutOfRange("it is a volume")
        if photometric == _YCBCR and not jpeg:
            if samples != Samples(8, "u"):
                raise OutOfRange(f"its samples are YCbCr of {samples.bits} bits")
            raise _ForPillow
        if photometric == _YCBCR and self._samples_per_pixel != 3:
            raise OutOfRange(f"it has {self._samples_per_pixel} channels of YCbCr")
        if self._samples_per_pixel < _COLOURS[photometric]:
            raise self._damaged(f"it has {self._samples_per_pixel} channels of {_COLOURS[photometric]}")
        if jpeg and photometric == _CMYK and not planar:
            raise _ForPillow
        if jpeg and (samples != Samples(8, "u") or planar or self._samples_per_pixel not in (1, 3)):
            raise OutOfRange(
                f"it is compressed as JPEG with {self._samples_per_pixel} channels of {samples.bits} bits"
            )
        eight, sixteen, signed = Samples(8, "u"), Samples(16, "u"), Samples(8, "i")
        readable = {
            _PALETTE: ("indices of a palette", [Samples(bits, "u") for bits in range(1, 9)]),
            _CMYK: ("CMYK", [eight, sixteen]),
            _LAB: ("Lab", [eight, signed]),
            _ICC_LAB: ("Lab", [eight]),
        }
        name, kinds = readable.get(photometric, ("", [samples]))
        if samples not in kinds:
            raise OutOfRange(f"its samples are {name} of {samples.bits} bits")
        if photometric == _CMYK and int(self._page.tags.valueof(332, default=1)) != 1:
            raise OutOfRange("its inks are not CMYK")
        if predictor not in (1, 2, 3) or (predictor == 3 and samples.kind != "f"):
            raise OutOfRange(f"its predictor is of the kind {predictor}")
        if predictor == 2 and samples.bits not in (8, 16, 32, 64):
            raise OutOfRange(f"its predictor is for samples of {samples.bits} bits")

    def _colour_map(self, tags: Any) -> Array:
        """The colours of a palette, uint8 (colours, 3)."""
        stored = np.asarray(tags.valueof(320, default=()), np.uint16)
        if stored.size != 3 << self._samples.bits:
            raise self._damaged(f"its palette has {stored.size} numbers, not {3 << self._samples.bits}")
        levels = stored >> 8 if stored.max() > 255 else stored  # some programs write 8 bits
        return np.ascontiguousarray(levels.reshape(3, -1).T, np.uint8)

    def _pieces(self, page: Any) -> None:
        """Where the strips or tiles lie, checked against the size of the file."""
        if page.is_tiled:
            self._tall, self._wide = int(page.tilelength), int(page.tilewidth)
        else:
            self._tall, self._wide = min(int(page.rowsperstrip), self.height), self.width
        self._across, self._down = -(-self.width // self._wide), -(-self.height // self._tall)
        expected = self._across * self._down * self._planes
        self._offsets, self._counts = page.dataoffsets, page.databytecounts
        if len(self._offsets) < expected or len(self._counts) < expected:
            raise self._damaged(
                f"{min(len(self._offsets), len(self._counts))} pieces of {expected} are listed"
            )
        if not all(isinstance(n, int) and n >= 0 for n in (*self._offsets, *self._counts)):
            raise self._damaged("the places of its pieces are not whole numbers")
        end = self._stream.seek(0, os.SEEK_END)
        last = max(
            (offset + count for offset, count in zip(self._offsets, self._counts, strict=False) if count),
            default=0,
        )
        if last > end:
            raise self._damaged(f"it should have at least {last:,} bytes and has {end:,}")
        self._check_pieces(expected)

    def _check_pieces(self, expected: int) -> None:
        """Checks that the pieces are not larger than memory, nor than their bytes can hold."""
        band_bytes = self._tall * self._row_bytes * self._across
        at_once = self._row_bytes * self._across if self._compression == codecs.NONE else band_bytes
        if at_once * self._planes > MOST_BYTES:
            raise ImageError(
                f"{self._path} is compressed in pieces of {band_bytes:,} bytes, more than the "
                f"{MOST_BYTES:,} that are read at once; save it uncompressed, or in tiles"
            )
        ratio, covered = codecs.RATIOS[self._compression], 0
        for index in range(expected):
            count, needed = self._counts[index], self._piece_rows(index) * self._row_bytes
            if not count:
                continue  # a sparse file leaves out what is 0
            if count * ratio + 1024 * (ratio > 1) < needed:
                raise self._damaged(f"piece {index} has {count:,} bytes, not {-(-needed // ratio):,}")
            covered += self._piece_rows(index) * self._wide
        left_out = self._across * self._wide * self.height * self._planes - covered
        if left_out > MAX_SPARSE:
            raise ImageError(
                f"{self._path} claims {self.width} x {self.height} pixels and holds none for most of them, more than "
                f"the {MAX_SPARSE:,} that may be left out; save it with all of its pixels"
            )

    @property
    def _row_bytes(self) -> int:
        return self._samples.row_bytes(self._wide * self._in_piece)

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
        return self._finished(self._levels(self._stored(top, bottom)))

    def all_levels(self) -> tuple[Array, list[str]]:
        """Reads a picture that `needs_all`.

        Returns:
            Its levels, (height, width, channels), and what had to be decided.

        Raises:
            ImageError: The file is damaged, or the values are on no known scale.
        """
        stored = self._stored(0, self.height)
        if not self.to_srgb:
            try:
                levels, remark = self._samples.to_filled_levels(stored[..., : self._used])
            except OutOfRange as error:
                raise self._refused(error) from error
            self.dtype = levels.dtype
            return self._finished(levels), [remark]
        remarks = []
        if stored.dtype == np.uint16:
            stored, remarks = (stored >> 8).astype(np.uint8), ["16 bits to 8: the high byte"]
        colour = np.ascontiguousarray(stored[..., : self._colours]).view(np.uint8)
        if self._photometric == _ICC_LAB:
            colour = colour ^ np.array([0, 128, 128], np.uint8)  # Pillow takes a and b as signed
        image = Image.frombytes(
            "CMYK" if self._photometric == _CMYK else "LAB", (self.width, self.height), colour.tobytes()
        )
        if self.kept.icc_profile:
            image.info["icc_profile"] = self.kept.icc_profile
        plain, decided = to_plain(image, "")
        levels = np.asarray(plain)
        self.dtype, self.channels = levels.dtype, 3
        if self._alpha is not None:
            place, kind = self._alpha
            levels = over_white(levels, stored[..., place : place + 1].view(np.uint8), kind == _PREMULTIPLIED)
        return levels, [*remarks, *decided]

    @property
    def _used(self) -> int:
        """The channels up to the alpha, or else the colours."""
        return self._colours if self._alpha is None else self._alpha[0] + 1

    def _stored(self, top: int, bottom: int) -> Array:
        """Rows as they are stored, (rows, width, samples)."""
        out = np.empty((bottom - top, self.width, self._samples_per_pixel), self._samples.stored)
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
        return out

    def _piece(self, band: int, index: int, first: int, last: int) -> Array:
        """Rows first ... last - 1 of a strip or tile, (rows, width, samples)."""
        if self._counts[index] == 0:  # a sparse file leaves out what is 0
            return np.zeros((last - first, self._wide, self._in_piece), self._samples.stored)
        if self._compression == codecs.NONE:
            data = self._read(
                self._offsets[index] + first * self._row_bytes, (last - first) * self._row_bytes
            )
            return self._shaped(data, last - first)
        if band != self._band:
            self._band, self._decoded = band, {}
        if index not in self._decoded:
            self._decoded[index] = self._decode(index)
        return self._decoded[index][first:last]

    def _read(self, offset: int, size: int) -> bytes:
        try:
            self._stream.seek(offset)
            data = self._stream.read(size)
        except (OSError, ValueError, OverflowError) as error:
            raise self._damaged(error) from error
        if len(data) < size:
            raise self._damaged("it ends too early")
        return data.translate(codecs.BIT_ORDER) if self._reversed else data

    def _shaped(self, data: bytes, rows: int) -> Array:
        values = self._samples.unpacked(data, rows, self._wide * self._in_piece, self._byte_order)
        return values.reshape(rows, self._wide, self._in_piece)

    def _decode(self, index: int) -> Array:
        data, rows = self._read(self._offsets[index], self._counts[index]), self._piece_rows(index)
        try:
            with quiet():
                if self._compression == codecs.JPEG:
                    return self._from_jpeg(data, rows)
                data = codecs.inflated(data, self._compression, self._row_bytes, rows)
                if self._predictor == 3:
                    return _from_float_differences(
                        data, rows, self._wide, self._in_piece, self._samples.stored
                    )
                values = self._shaped(data, rows)
        except Exception as error:  # zlib.error, lzma.LZMAError, whatever Pillow raises, too few bytes
            if short_of_memory(error):
                raise MemoryError from error
            raise self._damaged(error) from error
        if self._predictor == 2:  # differences of the bits, whatever they stand for
            whole = values.view(f"u{values.dtype.itemsize}")
            return np.cumsum(whole, axis=1, dtype=whole.dtype).view(values.dtype)
        return values

    def _from_jpeg(self, data: bytes, rows: int) -> Array:
        tables = bytes(self._page.tags.valueof(347, default=b""))
        pixels = codecs.jpeg_piece(data, tables, self._samples_per_pixel, self._photometric == _YCBCR)
        if pixels.shape[0] < rows or pixels.shape[1] < self._wide:
            raise ValueError(f"a piece has {pixels.shape[1]} x {pixels.shape[0]} pixels")
        return pixels[:rows, : self._wide]

    def _levels(self, stored: Array) -> Array:
        """Samples as levels, up to the alpha."""
        used = stored[..., : self._used]
        if self._palette is None:
            try:
                return self._samples.to_levels(used)
            except OutOfRange as error:
                raise self._refused(error) from error
        colour = self._palette[used[..., 0]]
        if self._alpha is None:
            return colour
        return np.concatenate([colour, self._samples.to_levels(used[..., -1:])], axis=2)

    def _finished(self, levels: Array) -> Array:
        """Levels as RGB or grey over white."""
        colour = levels[..., : self.channels]
        if self._photometric == _MIN_IS_WHITE:
            colour = ((PEAKS[self.dtype] or 1) - colour).astype(self.dtype)
        if self._alpha is None:
            return np.ascontiguousarray(colour)
        return over_white(colour, levels[..., -1:], self._alpha[1] == _PREMULTIPLIED)

    def close(self) -> None:
        """Lets go of the file."""
        if self._own is not None:
            self._own.close()

    def _check_developed(self, tags: Any) -> None:
        """Refuses a camera's raw file, of which the first picture is a small preview."""
        reduced = int(tags.valueof(_SUBFILE_TYPE, default=0)) & 1
        if _DNG_VERSION in tags or (reduced and _SUB_DIRECTORIES in tags):
            raise ImageError(
                f"{self._path} is a camera's raw file, of which only a preview could be read; {DEVELOP}"
            )

    def _damaged(self, why: object) -> ImageError:
        return ImageError(
            f"{self._path} begins as a TIFF picture but is truncated or damaged ({damage(why)}); "
            "copy or download it again"
        )

    def _refused(self, why: OutOfRange) -> ImageError:
        return ImageError(
            f"{self._path} is a TIFF picture whose kind of pixels is not read: {why}; "
            "save it with 8 or 16 bits a channel"
        )


def _all_of(value: Any) -> tuple[int, ...]:
    """The values of a tag that has one for each sample, or one for all."""
    return tuple(int(one) for one in value) if isinstance(value, tuple | list) else (int(value),)


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
