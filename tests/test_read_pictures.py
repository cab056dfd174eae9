"""A user reads pictures: every kind of file and every kind of pixel."""

from __future__ import annotations

import struct
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import Image, ImageCms

from diptych.errors import ImageError
from diptych.images import files
from diptych.images.picture import Picture
from little_pictures import ALPHA, COLOUR, GREY, SIXTEEN, png


def read_image(folder: Path, image: Image.Image, name: str, **options: object) -> Picture:
    image.save(folder / name, **options)
    return files.read(folder / name)


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.astype(float) / 255
    share = share[..., None] if colour.ndim == 3 else share
    return np.rint(colour * share + 255 * (1 - share)).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.webp"])
def test_colour_is_exact_where_the_file_is(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name == "a.webp" else {}
    picture = read_image(tmp_path, Image.fromarray(COLOUR), name, **options)
    assert np.array_equal(picture.pixels, COLOUR)
    assert (picture.name, picture.path, picture.remarks) == ("a", str(tmp_path / name), ())
    assert picture.pixels.flags.c_contiguous


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_grey_stays_grey(tmp_path: Path, name: str) -> None:
    assert np.array_equal(read_image(tmp_path, Image.fromarray(GREY), name).pixels, GREY)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff(tmp_path: Path, compression: str) -> None:
    picture = read_image(tmp_path, Image.fromarray(COLOUR), "a.tif", compression=compression)
    assert np.array_equal(picture.pixels, COLOUR)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg(tmp_path: Path, grey: bool, progressive: bool) -> None:
    flat = np.full((16, 24) if grey else (16, 24, 3), 90, np.uint8)
    picture = read_image(tmp_path, Image.fromarray(flat), "a.jpg", progressive=progressive, quality=95)
    assert picture.pixels.shape == flat.shape
    assert np.abs(picture.pixels.astype(int) - 90).max() <= 1


PHOTOGRAPH = skimage.data.astronaut()[100:235, 50:231]


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"comment": b"a comment"}, {"subsampling": 0}], ids=str
)
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("arrow", [False, True])
def test_a_jpeg_has_the_pixels_that_pillow_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], grey: bool, arrow: bool
) -> None:
    image = Image.fromarray(PHOTOGRAPH).convert("L" if grey else "RGB")
    image.save(tmp_path / "a.jpg", quality=90, **options)
    image.save(
        tmp_path / "b.jpg", quality=90, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0", **options
    )  # not plain
    if arrow:
        pytest.importorskip("pyarrow")
    else:
        monkeypatch.delitem(sys.modules, "pyarrow", raising=False)
    for name in ("a.jpg", "b.jpg"):
        expected = np.asarray(Image.open(tmp_path / name))
        plain, remarks = files.decode(tmp_path / name)
        assert np.array_equal(np.asarray(plain), expected)
        assert remarks == ()
        assert np.array_equal(files.read(tmp_path / name).pixels, expected)


def test_the_name_is_ignored_and_the_content_decides(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.gif", format="PNG")
    assert np.array_equal(files.read(tmp_path / "a.gif").pixels, COLOUR)


def test_gif_gives_its_first_frame(tmp_path: Path) -> None:
    first, second = (Image.new("P", (4, 3), value) for value in (1, 2))
    for frame in (first, second):
        frame.putpalette([9, 9, 9, 200, 30, 10, 0, 0, 255])
    picture = read_image(tmp_path, first, "a.gif", save_all=True, append_images=[second])
    assert (picture.pixels == [200, 30, 10]).all()
    assert picture.remarks == ("the first of several frames",)


def test_a_grey_gif_gives_its_first_frame(tmp_path: Path) -> None:
    grey = Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20))
    picture = read_image(tmp_path, grey, "a.gif", save_all=True, append_images=[grey.rotate(90)])
    assert np.array_equal(picture.pixels, np.asarray(grey))
    assert picture.remarks == ("the first of several frames",)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_one_bit(tmp_path: Path, name: str) -> None:
    bits = Image.fromarray(GREY > 127)
    assert np.array_equal(read_image(tmp_path, bits, name).pixels, np.where(GREY > 127, 255, 0))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.gif"])
def test_palette(tmp_path: Path, name: str) -> None:
    image = Image.fromarray((np.arange(35, dtype=np.uint8) % 5).reshape(5, 7), "P")
    image.putpalette(COLOUR.reshape(-1)[:15].tolist())
    picture = read_image(tmp_path, image, name)
    assert np.array_equal(picture.pixels, COLOUR.reshape(-1, 3)[np.asarray(image)])


@pytest.mark.parametrize("transparency", [2, bytes([255, 128, 0, 7, 255])])
def test_palette_with_transparency(tmp_path: Path, transparency: int | bytes) -> None:
    index = (np.arange(35, dtype=np.uint8) % 5).reshape(5, 7)
    image = Image.fromarray(index, "P")
    image.putpalette(COLOUR.reshape(-1)[:15].tolist())
    picture = read_image(tmp_path, image, "a.png", transparency=transparency)
    steps = np.array([255, 255, 0, 255, 255] if transparency == 2 else list(transparency), np.uint8)
    assert np.array_equal(picture.pixels, over_white(COLOUR.reshape(-1, 3)[index], steps[index]))
    assert picture.remarks == ("transparency over white",)


def test_gif_with_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    picture = read_image(tmp_path, image, "a.gif", transparency=1)
    assert picture.pixels.tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_alpha_over_white(tmp_path: Path, name: str) -> None:
    options = {"lossless": True, "exact": True} if name == "a.webp" else {}
    picture = read_image(tmp_path, Image.fromarray(np.dstack([COLOUR, ALPHA])), name, **options)
    assert np.array_equal(picture.pixels, over_white(COLOUR, ALPHA))
    assert picture.remarks == ("transparency over white",)


def test_grey_with_alpha(tmp_path: Path) -> None:
    picture = read_image(tmp_path, Image.fromarray(np.dstack([GREY, ALPHA]), "LA"), "a.png")
    assert np.array_equal(picture.pixels, over_white(GREY, ALPHA))
    assert picture.remarks == ("transparency over white",)


def test_opaque_alpha_is_dropped_without_a_word(tmp_path: Path) -> None:
    opaque = np.dstack([COLOUR, np.full_like(ALPHA, 255)])
    picture = read_image(tmp_path, Image.fromarray(opaque), "a.png")
    assert np.array_equal(picture.pixels, COLOUR)
    assert picture.remarks == ()
    assert picture.pixels.flags.c_contiguous


def test_premultiplied_alpha(tmp_path: Path) -> None:
    multiplied = (COLOUR * (ALPHA[..., None] / 255)).astype(np.uint8)
    Image.fromarray(np.dstack([multiplied, ALPHA])).save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    separate, associated = (struct.pack("<HHIH", 338, 3, 1, kind) for kind in (2, 1))  # the tag ExtraSamples
    assert content.count(separate) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(separate, associated))
    picture = files.read(tmp_path / "a.tif")
    expected = multiplied.astype(int) + 255 - ALPHA[..., None]
    assert (
        np.abs(picture.pixels - expected).max() <= 1
    )  # Pillow divides by alpha and rounds; we multiply again


def test_a_transparent_colour(tmp_path: Path) -> None:
    colour = COLOUR.copy()
    colour[2, 3] = key = (1, 2, 3)
    picture = read_image(tmp_path, Image.fromarray(colour), "a.png", transparency=key)
    colour[2, 3] = 255
    assert np.array_equal(picture.pixels, colour)
    grey = np.arange(35, dtype=np.uint8).reshape(5, 7)
    picture = read_image(tmp_path, Image.fromarray(grey), "b.png", transparency=9)
    assert np.array_equal(picture.pixels, np.where(grey == 9, 255, grey))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("colour", [False, True])
def test_sixteen_bits_give_their_high_byte(tmp_path: Path, name: str, colour: bool) -> None:
    values = np.random.default_rng(7).integers(0, 65536, (5, 7, 3), dtype=np.uint16) if colour else SIXTEEN
    cv2.imwrite(str(tmp_path / name), values[..., ::-1] if colour else values)
    picture = files.read(tmp_path / name)
    assert np.array_equal(picture.pixels, values >> 8)
    assert picture.remarks == ("16 bits to 8: the high byte",)


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_sixteen_bits_in_either_byte_order(tmp_path: Path, mode: str) -> None:
    data = SIXTEEN.astype("<u2" if mode == "I;16" else ">u2").tobytes()
    picture = read_image(tmp_path, Image.frombytes(mode, (7, 5), data), "a.tif")
    assert np.array_equal(picture.pixels, SIXTEEN >> 8)


def test_sixteen_bits_where_zero_is_white(tmp_path: Path) -> None:
    image = Image.frombytes("I;16", (7, 5), SIXTEEN.astype("<u2").tobytes())
    picture = read_image(tmp_path, image, "a.tif", tiffinfo={262: 0})
    assert np.array_equal(picture.pixels, (65535 - SIXTEEN) >> 8)


def test_sixteen_bits_with_a_transparent_value(tmp_path: Path) -> None:
    rows = b"\0" + struct.pack(">3H", 0, 0x1234, 65535)
    (tmp_path / "a.png").write_bytes(png(3, 1, 16, 0, rows, (b"tRNS", struct.pack(">H", 0x1234))))
    picture = files.read(tmp_path / "a.png")
    assert picture.pixels.tolist() == [[0, 255, 255]]
    assert "transparency over white" in picture.remarks
    rows = b"\0" + struct.pack(">3H", 0x1234, 0, 0)
    (tmp_path / "b.png").write_bytes(png(1, 1, 16, 2, rows, (b"tRNS", struct.pack(">3H", 0x1234, 0, 0))))
    picture = files.read(tmp_path / "b.png")
    assert picture.pixels.tolist() == [[[0x12, 0, 0]]]
    assert "the transparent colour of a 16-bit picture not applied" in picture.remarks


def test_thirty_two_bits_are_taken_on_the_scale_they_fill(tmp_path: Path) -> None:
    wide = read_image(tmp_path, Image.fromarray(np.array([[0, 256, 65535]], np.int32)), "wide.tif")
    assert wide.pixels.tolist() == [[0, 1, 255]]
    assert wide.remarks == (
        "32 bits with values up to 65535, taken as 0-65535",
        "16 bits to 8: the high byte",
    )
    narrow = read_image(tmp_path, Image.fromarray(np.array([[0, 7, 255]], np.int32)), "narrow.tif")
    assert narrow.pixels.tolist() == [[0, 7, 255]]
    assert narrow.remarks == ("32 bits with values up to 255, taken as 0-255",)
    with pytest.raises(ImageError, match="from -5 to 70000"):
        read_image(tmp_path, Image.fromarray(np.array([[-5, 70000]], np.int32)), "wild.tif")


def test_fractions_are_taken_on_the_scale_they_fill(tmp_path: Path) -> None:
    inside = read_image(tmp_path, Image.fromarray(np.array([[0, 0.25, 0.5, 1]], np.float32)), "a.tif")
    assert inside.pixels.tolist() == [[0, 64, 128, 255]]
    assert inside.remarks == ("fractions from 0-1 to 0-255",)
    levels = read_image(tmp_path, Image.fromarray(np.array([[0, 100.4, 255]], np.float32)), "b.tif")
    assert levels.pixels.tolist() == [[0, 100, 255]]
    assert levels.remarks == ("fractions from 0 to 255, taken as 0-255",)
    over = np.array([[-0.05, 1.05, np.nan, np.inf]], np.float32)
    clipped = read_image(tmp_path, Image.fromarray(over), "c.tif")
    assert clipped.pixels.tolist() == [[0, 255, 0, 0]]
    assert clipped.remarks[1:] == (
        "2 values that are not numbers shown as black",
        "values from -0.05 to 1.05 clipped to 0-1",
    )
    for low, high in ((-1, 1), (0, 3), (0, 1000)):
        with pytest.raises(ImageError, match="known scale"):
            read_image(tmp_path, Image.fromarray(np.array([[low, high]], np.float32)), "d.tif")


@pytest.mark.parametrize("name", ["a.tif", "a.jpg"])
def test_cmyk(tmp_path: Path, name: str) -> None:
    # The JPEG is stored inverted, as Adobe does: read as it stands it would come out as the complement.
    picture = read_image(tmp_path, Image.new("CMYK", (16, 16), (0, 255, 255, 0)), name)
    assert np.abs(picture.pixels.astype(int) - [255, 0, 0]).max() <= 2
    assert picture.remarks == ("CMYK to RGB without a colour profile",)


def test_lab(tmp_path: Path) -> None:
    red = Image.new("LAB", (2, 2), (136, 208, 195))  # L 53.3, a 80, b 67: sRGB red
    picture = read_image(tmp_path, red, "a.tif")
    assert np.abs(picture.pixels.astype(int) - [250, 3, 11]).max() <= 6
    assert picture.remarks == ("LAB to RGB",)


def test_ycbcr(tmp_path: Path) -> None:
    picture = read_image(tmp_path, Image.new("RGB", (8, 8), (200, 30, 60)).convert("YCbCr"), "a.tif")
    assert np.abs(picture.pixels.astype(int) - [200, 30, 60]).max() <= 2


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "b.tif"])
def test_exif_orientation(tmp_path: Path, orientation: int, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"a.webp": {"lossless": True}, "b.tif": {"compression": "tiff_lzw"}}.get(name, {})
    picture = read_image(tmp_path, Image.fromarray(COLOUR), name, exif=exif, **options)
    assert np.array_equal(picture.pixels, UPRIGHT[orientation](COLOUR))
    expected = () if orientation == 1 else (f"turned upright (EXIF orientation {orientation})",)
    assert picture.remarks == expected


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_orientation_of_a_jpeg(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    big = np.kron(COLOUR, np.ones((16, 16, 1), np.uint8))
    picture = read_image(tmp_path, Image.fromarray(big), "a.jpg", exif=exif, quality=100, subsampling=0)
    assert np.abs(picture.pixels.astype(int) - UPRIGHT[orientation](big)).max() <= 8


def test_a_colour_profile_is_converted_to_srgb() -> None:
    path = Path(skimage.__file__).parent / "data" / "rocket.jpg"  # in Adobe RGB (1998)
    with Image.open(path) as image:
        encoded = np.asarray(image).astype(float)
    # Adobe RGB (1998) to XYZ to sRGB: the matrices of both standards, white D65.
    to_xyz = [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]
    to_srgb = [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
    linear = (encoded / 255) ** (563 / 256) @ np.array(to_xyz).T @ np.array(to_srgb).T
    inside = ((linear > 0.005) & (linear < 1)).all(axis=2)
    expected = 255 * (1.055 * np.clip(linear, 0.0031308, 1) ** (1 / 2.4) - 0.055)
    picture = files.read(path)
    assert inside.mean() > 0.5
    assert np.abs(picture.pixels[inside] - expected[inside]).max() <= 3
    assert picture.remarks == ("colour profile 'Adobe RGB (1998)' to sRGB",)


def test_an_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = read_image(tmp_path, Image.fromarray(COLOUR), "a.png", icc_profile=profile)
    assert np.array_equal(picture.pixels, COLOUR)
    assert picture.remarks == ()


def test_a_damaged_profile_is_said_and_passed_over(tmp_path: Path) -> None:
    picture = read_image(tmp_path, Image.fromarray(COLOUR), "a.png", icc_profile=b"no profile at all")
    assert np.array_equal(picture.pixels, COLOUR)
    assert picture.remarks == ("a colour profile that does not fit not applied",)


def test_corrupt_exif_is_no_reason_to_refuse_a_picture(tmp_path: Path) -> None:
    # A directory that promises 200 entries and holds none: Pillow warns about such.
    broken = b"Exif\0\0II*\0\x08\0\0\0\xc8\0"
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "a.jpg", exif=broken)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with Image.open(tmp_path / "a.jpg") as image:
            image.getexif()
    assert seen, "the file no longer makes Pillow warn: this test tests nothing"
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(files.read, [tmp_path / "a.jpg"] * 40))
    assert {picture.pixels.shape for picture in pictures} == {(8, 8, 3)}
    assert warnings.filters == before


@pytest.mark.parametrize("stored", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("full", [1, 255])
def test_fractions_in_colour_which_pillow_refuses(tmp_path: Path, stored: type, full: int) -> None:
    tifffile.imwrite(tmp_path / "a.tif", (COLOUR / (255 / full)).astype(stored), photometric="rgb")
    read = files.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(read.pixels, COLOUR)
    assert any("fractions from" in remark for remark in read.remarks)


@pytest.mark.parametrize("pixels", [COLOUR, GREY])
def test_a_big_endian_bigtiff(tmp_path: Path, pixels: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, bigtiff=True, byteorder=">")
    np.testing.assert_array_equal(files.read(tmp_path / "a.tif").pixels, pixels)


def test_a_tiff_of_other_numbers_is_not_called_damaged(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(np.complex64), photometric="minisblack")
    with pytest.raises(
        ImageError, match="not read: its samples are complex numbers; save it with 8 or 16 bits"
    ):
        files.read(tmp_path / "a.tif")


def test_the_limit_holds_for_a_tiff_that_pillow_refuses(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.float32(COLOUR / 255), photometric="rgb")
    with pytest.raises(ImageError, match="more than the limit of 10"):
        files.read(tmp_path / "a.tif", max_pixels=10)
