"""Files that claim too much, are damaged or are no pictures: read, or refused in one sentence."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from diptych.errors import ImageError, damage
from diptych.images import files, streams
from diptych.images.picture import Picture
from little_pictures import ALPHA, COLOUR, GREY, SIXTEEN, png


def jpeg_header(width: int, height: int) -> bytes:
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\0"
    return (
        b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"
    )


def tiff_header(width: int, height: int) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, 4)]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + body + bytes(100)


HUGE = {
    "png": png(400_000, 250_000, 8, 2, b"\0"),
    "bmp": b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 400_000, 250_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "jpeg": jpeg_header(65535, 65535),
    "tiff": tiff_header(400_000, 250_000),
    "gif": b"GIF89a"
    + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
    + b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;",
    "webp": b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\xff\xff" * 2 + bytes(8),
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_header_that_claims_too_much_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    (tmp_path / "huge").write_bytes(HUGE[kind])
    with pytest.raises(ImageError, match=r"claims \d+ x \d+ pixels, more than the limit of 200,000,000"):
        files.read(tmp_path / "huge")


def test_the_limit_can_be_chosen(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    assert files.read(tmp_path / "a.png", max_pixels=35).width == 7
    with pytest.raises(ImageError, match="claims 7 x 5 pixels, more than the limit of 34"):
        files.read(tmp_path / "a.png", max_pixels=34)


@pytest.mark.parametrize("name", [b"diptych", b"workflow"])
def test_a_text_entry_that_inflates_without_end_is_left_out(tmp_path: Path, name: bytes) -> None:
    bomb = name + b"\0\0" + zlib.compress(bytes(20_000_000), 9)
    (tmp_path / "a.png").write_bytes(png(1, 1, 8, 0, b"\0\x07", (b"zTXt", bomb)))
    picture = files.read(tmp_path / "a.png")
    assert picture.pixels.tolist() == [[7]]
    assert picture.remarks == (
        ("the picture's record is damaged: it is too long",) if name == b"diptych" else ()
    )


def test_a_jpeg_of_twelve_bits_is_not_called_damaged(tmp_path: Path) -> None:
    content = bytearray(SAMPLES["jpeg"])
    content[content.index(b"\xff\xc0") + 4] = 12
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(
        ImageError, match="a JPEG picture of more than 8 bits, which is not read; save it as PNG"
    ):
        files.read(tmp_path / "a.jpg")


def _pillow(kind: str, mode: str = "RGB", **options: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(COLOUR).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


NOT_PICTURES = [
    (b"\xff\x0a\xfa\x7f", "a JPEG XL picture; save it as PNG or JPEG first"),
    (b"\0\0\0\x20ftypisom\0\0\2\0", "a video"),
    (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
    (b"<svg width='3'></svg>", "an SVG drawing"),
    (b"<?xml version='1.0'?><note/>", "an XML document"),
    (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page; the download went wrong"),
    (b"<html><svg></svg></html>", "a web page"),
    (b"%PDF-1.7\n", "a PDF document"),
    (b"PK\3\4\x14\0\0\0", "a ZIP archive"),
    (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer; run: git lfs pull"),
    (b'{"error": "not found"}', "JSON text"),
    (b"hello, this is not a picture", "plain text"),
    (b"\x93NUMPY\1\0", "a NumPy array"),
    (b"8BPS\0\1", "a Photoshop file"),
    (b"P6\n2 2\n255\n" + bytes(12), "a netpbm picture"),
    (bytes(128) + b"DICM", "a DICOM file"),
    (b"BM, initials", "plain text"),
    (_pillow("TGA"), "a Targa picture"),
    (_pillow("TGA", "RGB", compression="tga_rle"), "a Targa picture"),
    (_pillow("TGA", "L"), "a Targa picture"),
    (_pillow("TGA", "P"), "a Targa picture"),
    (_pillow("ICO"), "an icon file"),
    (b"\0\0\2\0\1\0" + _pillow("ICO")[6:], "an icon file"),
    (b"icns\0\0\1\0ic07", "an icon file"),
    (_pillow("PCX"), "a PCX picture"),
    (_pillow("SGI"), "an SGI picture"),
    (_pillow("DDS"), "a texture"),
    (b"PF\n3 2\n-1.0\n" + bytes(72), "a netpbm picture"),
    (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n", "a Radiance picture"),
    (b"\x76\x2f\x31\x01\2\0\0\0", "an OpenEXR picture"),
    (b"gimp xcf v011\0", "a GIMP file"),
    (b"SIMPLE  =                    T", "a FITS picture"),
    (b"\xff\xd8\xff\xf7\0", "a JPEG-LS picture"),
    (b"II\xbc\1\x20\0", "a JPEG XR picture"),
    (b"II\x2a\0\x10\0\0\0CR\2\0", "a camera's raw file; develop it"),
    (b"\0\0\0\x18ftypcrx \0\0\0\1", "a camera's raw file"),
    (b"FUJIFILMCCD-RAW 0201", "a camera's raw file"),
    (b"\0\0\0\x20ftypM4A \0\0\0\0", "a sound file"),
    (b"ID3\4\0\0", "a sound file"),
    (b"\0\0\0\x08wide\0\0\x10\0mdat", "a video"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript file"),
    (b"GGUF\3\0\0\0", "a GGUF model"),
    (b"PK\3\4" + bytes(22) + b"\5\0\0\0a.npy", "a NumPy array"),
    (b"PK\3\4" + bytes(22) + b"\5\0\0\0m/data.pkl", "a PyTorch file"),
    (b"PK\3\4" + bytes(22) + b"\5\0\0\0word/document.xml", "a ZIP archive or an office document"),
    (b"\x3c\0\0\0\0\0\0\0" + b'{"w":{}}', "a safetensors file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"BZh91AY&SY", "a bzip2 archive"),
    (bytes(257) + b"ustar\0", "a tar archive"),
    (b"<head><title>404</title>", "a web page"),
    (b"h\0e\0l\0l\0o\0", "of a kind that is not known"),
    (bytes(512), "of a kind that is not known"),
    (b"\x01\x02\x03", "it seems to be of a kind that is not known; it must be a PNG, JPEG"),
]


@pytest.mark.parametrize(("content", "says"), NOT_PICTURES, ids=[says[:24] for _, says in NOT_PICTURES])
def test_what_is_not_a_picture_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(ImageError) as caught:
        files.read(tmp_path / "photo.jpg")
    assert says in str(caught.value)
    assert str(tmp_path / "photo.jpg") in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"extratags": [(50706, 1, 4, (1, 4, 0, 0), True)]}, {"subfiletype": 1, "subifds": 1}],
    ids=["DNG", "others"],
)
def test_the_preview_in_a_raw_file_is_not_taken_for_the_picture(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(COLOUR, photometric="rgb", **options)
        if "subifds" in options:
            writer.write(GREY, photometric="minisblack")
    for read in (files.read, streams.open):
        with pytest.raises(ImageError, match=r"a camera's raw file, of which only a preview .* develop it"):
            read(path)


def test_the_largest_picture_of_a_pyramid_is_read(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(COLOUR, photometric="rgb", subifds=1)
        writer.write(COLOUR[::2, ::2].copy(), photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(files.read(tmp_path / "a.tif").pixels, COLOUR)


def raised(statement: str) -> Exception:
    """What a statement raises."""
    try:
        exec(statement, {"np": np, "struct": struct, "zlib": zlib, "io": io, "Image": Image})
    except Exception as error:
        return error
    raise AssertionError(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "''[3]",
        "[][3]",
        "{}['a']",
        "int(b'x')",
        "int(None)",
        "None // 2",
        "None.size",
        "1 // 0",
        "a, b = [1]",
        "struct.unpack('<I', b'')",
        "struct.unpack_from('<I', b'', 3)",
        "float(np.zeros(3))",
        "bool(np.zeros(3))",
        "np.frombuffer(b'abc', np.uint32)",
        "np.zeros(3).reshape(2, 2)",
        "b'\\xff'.decode()",
        "Image.open(io.BytesIO(b'x'))",
        "assert False",
    ],
)
def test_words_for_programmers_are_not_shown(statement: str) -> None:
    assert damage(raised(statement)) == "its parts do not fit together"


def test_what_a_decoder_says_of_damage_is_shown() -> None:
    assert "incorrect header check" in damage(raised("zlib.decompress(b'abc')"))
    assert damage(OSError("image file is truncated")) == "image file is truncated"
    assert damage(ValueError("it ends before the chunk IEND")) == "it ends before the chunk IEND"
    assert damage("it has 0 x 0 pixels") == "it has 0 x 0 pixels"


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "1", "P", "I;16"])
def test_image_data_beyond_the_pixels_are_told(tmp_path: Path, mode: str, interlaced: bool) -> None:
    depth, kind, channels = {
        "RGB": (8, 2, 3), "RGBA": (8, 6, 4), "L": (8, 0, 1), "1": (1, 0, 1), "P": (4, 3, 1), "I;16": (16, 0, 1)
    }[mode]  # fmt: skip
    width, height, bits = 13, 7, depth * channels
    rows = [(1 + -(-width * bits // 8))] * height
    if interlaced:  # by hand: columns and rows of the seven passes
        passes = [(2, 1), (2, 1), (4, 1), (3, 2), (7, 2), (6, 4), (13, 3)]
        rows = [1 + -(-columns * bits // 8) for columns, count in passes for _ in range(count)]
    palette = [(b"PLTE", bytes(48))] if mode == "P" else []
    for extra, remarks in ((0, 0), (1, 1), (5000, 1)):
        content = bytearray(png(width, height, depth, kind, bytes(sum(rows) + extra), *palette))
        content[28] = interlaced
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        (tmp_path / "a.png").write_bytes(content)
        picture = files.read(tmp_path / "a.png")
        assert picture.pixels.shape[:2] == (height, width)
        told = [one for one in picture.remarks if one.startswith("image data beyond the 13 x 7 pixels")]
        assert len(told) == remarks


def test_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="there is no picture"):
        files.read(tmp_path / "a.png")
    with pytest.raises(ImageError, match="is a folder, not a picture"):
        files.read(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"is empty \(0 bytes\)"):
        files.read(tmp_path / "empty.png")
    with pytest.raises(ImageError, match="cannot be opened"):
        files.read("a\0b.png")
    with pytest.raises(ImageError, match="is not an ordinary file"):
        files.read("/dev/null")
    (tmp_path / "secret.png").write_bytes(b"x")

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(ImageError, match=r"cannot be opened \(Permission denied\)"):
        files.read(tmp_path / "secret.png")


def test_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png")

    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(files.pixels, "to_plain", exhausted)
    with pytest.raises(ImageError, match="needs more memory than there is"):
        files.read(tmp_path / "a.png")


def samples() -> dict[str, bytes]:
    """One small valid file of every format, with the extras that have code of their own."""
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    palette = Image.fromarray(GREY % 3, "P")
    palette.putpalette([1, 2, 3, 4, 5, 6, 7, 8, 9])
    alpha = Image.fromarray(np.dstack([COLOUR, ALPHA]))
    saved: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "png": (alpha, "PNG", {"exif": exif, "icc_profile": profile}),
        "png palette": (palette, "PNG", {"transparency": b"\0\x80\xff"}),
        "png 16": (Image.fromarray(SIXTEEN), "PNG", {"transparency": 77}),
        "jpeg": (Image.fromarray(COLOUR), "JPEG", {"exif": exif, "icc_profile": profile}),
        "jpeg cmyk": (Image.fromarray(COLOUR).convert("CMYK"), "JPEG", {}),
        "webp": (alpha, "WEBP", {"exif": exif}),
        "tiff": (alpha, "TIFF", {"exif": exif}),
        "tiff lzw": (Image.fromarray(COLOUR), "TIFF", {"compression": "tiff_lzw"}),
        "tiff float": (Image.fromarray(GREY / np.float32(255)), "TIFF", {}),
        "bmp": (Image.fromarray(COLOUR), "BMP", {}),
        "gif": (
            palette,
            "GIF",
            {"save_all": True, "append_images": [palette.rotate(180)], "transparency": 1},
        ),
    }
    contents = {}
    for name, (image, kind, options) in saved.items():
        stream = io.BytesIO()
        image.save(stream, format=kind, **options)
        contents[name] = stream.getvalue()
    return contents


SAMPLES = samples()
LIMIT = 1_000_000  # pixels


def read_anything(content: bytes) -> Picture | None:
    """A picture or one `ImageError`; anything else, warnings too, fails the test."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        path = Path(folder) / "a.png"
        path.write_bytes(content)
        try:
            picture = files.read(path, max_pixels=LIMIT)
        except ImageError as error:
            assert "\n" not in str(error)  # noqa: PT017 - one sentence
            picture = None
    assert [str(warning.message) for warning in seen] == []
    return picture


def is_refused_or_plain(picture: Picture | None) -> bool:
    """What every other step may rely on: uint8, grey or three colours, at least one pixel and few enough."""
    if picture is None:
        return True
    pixels = picture.pixels
    grey_or_colour = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    return pixels.dtype == np.uint8 and grey_or_colour and 0 < pixels.size <= 3 * LIMIT


@given(st.binary(max_size=200), st.sampled_from(["", *SAMPLES]))
@settings(max_examples=150, deadline=None)
def test_any_bytes(content: bytes, start: str) -> None:
    assert is_refused_or_plain(read_anything(SAMPLES.get(start, b"")[:12] + content))


@given(st.sampled_from(list(SAMPLES)), st.data())
@settings(max_examples=300, deadline=None)
def test_a_picture_with_bytes_changed_or_cut_off(name: str, data: st.DataObject) -> None:
    content = bytearray(SAMPLES[name])
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        content[place] = value
    if data.draw(st.booleans()):
        del content[data.draw(places) :]
    assert is_refused_or_plain(read_anything(bytes(content)))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_truncated_picture_says_so(name: str) -> None:
    assert read_anything(SAMPLES[name]) is not None
    for kept in (30, len(SAMPLES[name]) // 3):
        assert read_anything(SAMPLES[name][:kept]) is None
