"""TIFF files of every number of bits, layout, compression and byte order give the same pixels in every verb."""

from __future__ import annotations

import contextlib
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from diptych.errors import ImageError
from diptych.images import files, streams
from diptych.preparing import preprocess
from diptych.preprocessing import named
from tiff_files import tiff

HEIGHT, WIDTH = 23, 29
RANDOM = np.random.default_rng(5)


def samples(bits: int, channels: int, kind: str = "u") -> np.ndarray:
    """Random samples that reach both ends of the scale."""
    size = next(size for size in (8, 16, 32, 64) if bits <= size)
    peak = (1 << (bits - (kind == "i"))) - 1
    values = RANDOM.integers(0, peak, (HEIGHT, WIDTH, channels), dtype=np.uint64, endpoint=True)
    values[0, 0], values[-1, -1] = 0, peak
    return values.astype(f"{kind}{size // 8}")


def levels(values: np.ndarray, peak: int) -> np.ndarray:
    """The 8-bit levels: samples of up to 8 bits scaled and rounded, others cut to their highest eight."""
    exact = values.astype(object)
    if peak <= 255:
        return ((exact * 255 + peak // 2) // peak).astype(np.uint8)
    return (exact >> (peak.bit_length() - 8)).astype(np.uint8)


def deep(values: np.ndarray, peak: int) -> np.ndarray:
    """The levels of 16 bits that a filter sees."""
    exact = values.astype(object)
    if peak.bit_length() > 16:
        return (exact >> (peak.bit_length() - 16)).astype(np.uint16)
    return ((exact * 65535 + peak // 2) // peak).astype(np.uint16)


def by_rows(path: Path) -> np.ndarray:
    """The picture as `filter apply` reads it."""
    with contextlib.closing(streams.open(path)) as source:
        return source.rows(0, source.height)


def check(path: Path, content: bytes, values: np.ndarray, peak: int) -> None:
    path.write_bytes(content)
    expected = levels(values, peak)
    read = files.read(path)
    assert np.array_equal(read.pixels, expected if values.shape[2] == 3 else expected[..., 0])
    assert np.array_equal(by_rows(path), expected if peak <= 255 else deep(values, peak))


UNSIGNED = [*range(1, 17), 24, 32, 64]


@pytest.mark.parametrize("bits", UNSIGNED)
@pytest.mark.parametrize(("channels", "planar"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", ["none", "deflate"])
def test_every_depth(
    tmp_path: Path, bits: int, channels: int, planar: bool, order: str, compression: str
) -> None:
    values = samples(bits, channels)
    content = tiff(values, bits, planar=planar, order=order, compression=compression, rows=7)
    check(tmp_path / "a.tif", content, values, (1 << bits) - 1)


@pytest.mark.parametrize("bits", [1, 4, 8, 12, 16])
@pytest.mark.parametrize("compression", ["none", "deflate", "old deflate", "packbits", "lzma"])
@pytest.mark.parametrize("layout", [{}, {"rows": 5}, {"tile": (16, 16)}, {"tile": (16, 32), "reverse": True}])
@pytest.mark.parametrize("big", [False, True])
def test_every_layout(
    tmp_path: Path, bits: int, compression: str, layout: dict[str, object], big: bool
) -> None:
    for (channels, planar), order in itertools.product([(1, False), (3, False), (3, True)], "<>"):
        values = samples(bits, channels)
        content = tiff(values, bits, planar=planar, compression=compression, order=order, big=big, **layout)
        check(tmp_path / "a.tif", content, values, (1 << bits) - 1)


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("compression", ["deflate", "lzma"])
@pytest.mark.parametrize("layout", [{"rows": 5}, {"tile": (16, 16)}])
@pytest.mark.parametrize("order", ["<", ">"])
def test_differences(
    tmp_path: Path, bits: int, compression: str, layout: dict[str, object], order: str
) -> None:
    for channels, planar in [(1, False), (3, False), (3, True)]:
        values = samples(bits, channels)
        content = tiff(
            values, bits, planar=planar, compression=compression, predictor=True, order=order, **layout
        )
        check(tmp_path / "a.tif", content, values, (1 << bits) - 1)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_signed_numbers(tmp_path: Path, bits: int) -> None:
    values = samples(bits, 3, "i")
    (tmp_path / "a.tif").write_bytes(tiff(values, bits))
    peak = (1 << (bits - 1)) - 1
    read = files.read(tmp_path / "a.tif")
    exact = values.astype(object)
    expected = (exact * 255 + peak // 2) // peak if bits == 8 else (exact * 65535 + peak // 2) // peak >> 8
    assert np.array_equal(read.pixels, (exact >> (bits - 9) if bits > 16 else expected).astype(np.uint8))
    assert any(f"0-{peak}" in remark for remark in read.remarks)
    values[3, 4] = -1
    (tmp_path / "b.tif").write_bytes(tiff(values, bits))
    for reader in (files.read, by_rows):
        with pytest.raises(ImageError, match=r"go from -1 to .* none below 0"):
            reader(tmp_path / "b.tif")


@pytest.mark.parametrize(("highest", "dtype"), [(255, np.uint8), (65535, np.uint16)])
@pytest.mark.parametrize("bits", [24, 32, 64])
def test_wide_numbers_on_the_scale_that_they_fill(
    tmp_path: Path, bits: int, highest: int, dtype: type
) -> None:
    values = RANDOM.integers(0, highest, (5, 7, 3), endpoint=True).astype(f"u{8 if bits == 64 else 4}")
    values[0, 0] = highest
    (tmp_path / "a.tif").write_bytes(tiff(values, bits))
    read = files.read(tmp_path / "a.tif")
    assert np.array_equal(read.pixels, values >> (0 if highest == 255 else 8))
    assert f"{bits} bits with values up to {highest}, taken as 0-{highest}" in read.remarks
    assert np.array_equal(by_rows(tmp_path / "a.tif"), values.astype(dtype))


def test_wide_numbers_on_no_known_scale_are_refused_by_their_true_values(tmp_path: Path) -> None:
    values = np.array([[[0], [70_000]]], np.uint32)
    (tmp_path / "a.tif").write_bytes(tiff(values, 32))
    with pytest.raises(ImageError, match=r"32 bits go up to 70000, .* 0-4294967295"):
        files.read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tiff(np.ones((4, 4, 1), np.uint32), 20), "whole numbers of 20 bits"),
        (tiff(np.ones((4, 4, 1), np.float32), 24), "fractions of 24 bits"),
        (tiff(np.ones((4, 4, 1), np.int16), 12), "signed whole numbers of 12 bits"),
        (tiff(np.ones((4, 4, 4), np.float32), 32, photometric=5), "CMYK of 32 bits"),
        (tiff(np.ones((4, 4, 3), np.uint16), 16, photometric=8), "Lab of 16 bits"),
        (tiff(np.ones((4, 4, 1), np.uint8), 8, photometric=32803), "colours are of the kind 32803"),
    ],
)
def test_what_is_not_read_is_refused_by_name(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    for reader in (files.read, by_rows):
        with pytest.raises(ImageError, match="kind of pixels is not read") as caught:
            reader(tmp_path / "a.tif")
        assert said in str(caught.value)
        assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("full", [255, 65535])
def test_palettes(tmp_path: Path, bits: int, full: int) -> None:
    values = samples(bits, 1)
    colours = RANDOM.integers(0, full, (3, 1 << bits), endpoint=True)
    colours[0, 0] = full
    more = ((320, 3, tuple(colours.ravel().tolist())),)
    (tmp_path / "a.tif").write_bytes(tiff(values, bits, photometric=3, more=more))
    expected = (colours // (257 if full == 65535 else 1) if full == 255 else colours >> 8).T[values[..., 0]]
    assert np.array_equal(files.read(tmp_path / "a.tif").pixels, expected)
    assert np.array_equal(by_rows(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("bits", [1, 4, 8, 12, 16, 32])
def test_zero_is_white(tmp_path: Path, bits: int) -> None:
    values = samples(bits, 1)
    peak = (1 << bits) - 1
    (tmp_path / "a.tif").write_bytes(tiff(values, bits, photometric=0))
    inverted = peak - values.astype(object)
    assert np.array_equal(files.read(tmp_path / "a.tif").pixels, levels(inverted, peak)[..., 0])


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("planar", [False, True])
def test_alpha_over_white_at_every_depth(tmp_path: Path, bits: int, planar: bool) -> None:
    values = samples(bits, 4)
    (tmp_path / "a.tif").write_bytes(tiff(values, bits, planar=planar, more=((338, 3, (2,)),)))
    share = values[..., 3:] / ((1 << bits) - 1)
    expected = values[..., :3] / ((1 << bits) - 1) * share + 1 - share
    pixels = files.read(tmp_path / "a.tif").pixels
    assert np.abs(pixels / 255 - expected).max() < (0.51 if bits == 8 else 1.01) / 255
    assert np.abs(by_rows(tmp_path / "a.tif") / (255 if bits == 8 else 65535) - expected).max() < (0.51 / 255)


@pytest.mark.parametrize("photometric", [8, 9])
def test_lab_in_both_kinds(tmp_path: Path, photometric: int) -> None:
    red = np.array([[[136, 80, 67]]], np.uint8)  # L 53.3, a 80, b 67: sRGB red
    stored = red if photometric == 8 else red + np.array([0, 128, 128], np.uint8)
    (tmp_path / "a.tif").write_bytes(tiff(stored, 8, photometric=photometric))
    pixels = files.read(tmp_path / "a.tif").pixels
    assert np.abs(pixels.astype(int) - [250, 3, 11]).max() <= 6


def test_cmyk_of_sixteen_bits_and_in_planes(tmp_path: Path) -> None:
    inks = RANDOM.integers(0, 256, (5, 7, 4)).astype(np.uint8)
    expected = np.asarray(Image.frombytes("CMYK", (7, 5), inks.tobytes()).convert("RGB"))
    for values, bits in ((inks, 8), (inks.astype(np.uint16) * 257, 16)):
        for planar in (False, True):
            (tmp_path / "a.tif").write_bytes(tiff(values, bits, photometric=5, planar=planar))
            assert np.array_equal(files.read(tmp_path / "a.tif").pixels, expected)


def test_the_same_pixels_in_every_verb(tmp_path: Path) -> None:
    values = samples(16, 3)
    tifffile.imwrite(
        tmp_path / "planar.tif", np.moveaxis(values, 2, 0), photometric="rgb", planarconfig="separate"
    )
    tifffile.imwrite(tmp_path / "contiguous.tif", values, photometric="rgb")
    batches = [preprocess(tmp_path / f"{name}.tif", named("colour-32")) for name in ("planar", "contiguous")]
    assert np.array_equal(*batches)
    assert np.array_equal(files.read(tmp_path / "planar.tif").pixels, values >> 8)


@pytest.mark.parametrize("tag", [273, 279])
def test_places_of_pieces_that_are_fractions_are_damage(tmp_path: Path, tag: int) -> None:
    content = bytearray(tiff(samples(8, 1), 8))
    at = content.index(struct.pack("<HHI", tag, 4, 1))
    content[at + 2] = 11  # the type FLOAT
    (tmp_path / "a.tif").write_bytes(content)
    for reader in (files.read, by_rows):
        with pytest.raises(ImageError, match="truncated or damaged"):
            reader(tmp_path / "a.tif")
