"""Pictures read and written a few rows at a time: every layout of TIFF, deep PNGs, and damaged files."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from diptych.errors import ImageError, OutputError, UsageError
from diptych.images import files, streams, tiff
from diptych.images.streams import writing

HEIGHT, WIDTH = 45, 37


def pixels(channels=3, dtype=np.uint8, seed=0, height=HEIGHT, width=WIDTH):
    rng = np.random.default_rng(seed)
    shape = (height, width, channels)
    high = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max + 1
    return rng.random(shape).astype(dtype) if high == 1 else rng.integers(0, high, shape).astype(dtype)


def read(path, step=8):
    source = streams.open(path)
    try:
        tops = range(0, source.height, step)
        return source, np.concatenate([source.rows(t, min(t + step, source.height)) for t in tops])
    finally:
        source.close()


def save_tiff(path, array, **options):
    first = {key: options.pop(key) for key in ("bigtiff", "byteorder") if key in options}
    if options.get("planarconfig") == "separate":
        array = array.transpose(2, 0, 1)
    elif array.shape[2] == 1:
        array = array[..., 0]
    options.setdefault("photometric", "rgb" if 3 in array.shape[::2] else "minisblack")
    tifffile.imwrite(path, array, **first, **options)


LAYOUTS = {
    "one strip": {},
    "strips": {"rowsperstrip": 7},
    "tiles": {"tile": (16, 32)},
    "big and other-endian": {"bigtiff": True, "byteorder": ">", "tile": (32, 16)},
    "deflate": {"compression": "zlib", "rowsperstrip": 5},
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float16, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_tiff_streams(tmp_path, layout, dtype, channels):
    array = pixels(channels, dtype)
    save_tiff(tmp_path / "a.tif", array, **LAYOUTS[layout])
    source, result = read(tmp_path / "a.tif")
    assert source.streams
    assert (source.height, source.width, source.channels) == (HEIGHT, WIDTH, channels)
    assert result.dtype == (np.float32 if array.dtype.kind == "f" else dtype)
    assert np.array_equal(result, array.astype(result.dtype))
    assert source.remarks == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_planes_and_differences(tmp_path, dtype):
    array = pixels(3, dtype)
    save_tiff(tmp_path / "planes.tif", array, planarconfig="separate", rowsperstrip=6)
    save_tiff(tmp_path / "tiles.tif", array, compression="zlib", predictor=True, tile=(16, 16), byteorder=">")
    for name in ("planes.tif", "tiles.tif"):
        assert np.array_equal(read(tmp_path / name)[1], array), name


@settings(max_examples=30, deadline=None)
@given(first=st.integers(0, HEIGHT - 1), count=st.integers(1, HEIGHT), again=st.integers(0, HEIGHT - 1))
def test_rows_in_any_order(tmp_path_factory, first, count, again):
    path = tmp_path_factory.mktemp("rows") / "a.tif"
    array = pixels()
    save_tiff(path, array, compression="zlib", rowsperstrip=4)
    source = streams.open(path)
    assert np.array_equal(source.rows(first, min(first + count, HEIGHT)), array[first : first + count])
    assert np.array_equal(source.rows(again, again + 1), array[again : again + 1])
    source.close()


@pytest.mark.parametrize("codec", ["tiff_lzw", "packbits", "tiff_lzma", "zstd", "tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "F"])
def test_codecs_that_libtiff_undoes(tmp_path, codec, mode):
    if codec == "jpeg" and mode in ("I;16", "F"):
        pytest.skip("JPEG has 8 bits")
    array = {"I;16": pixels(1, np.uint16)[..., 0], "F": pixels(1, np.float32)[..., 0]}.get(mode, pixels())
    image = Image.fromarray(array) if mode in ("I;16", "F") else Image.fromarray(array).convert(mode)
    image.save(tmp_path / "a.tif", compression=codec)
    with Image.open(tmp_path / "a.tif") as saved:
        expected = np.asarray(saved).reshape(HEIGHT, WIDTH, -1)
    source, result = read(tmp_path / "a.tif")
    assert source.streams
    assert np.array_equal(result, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_lzw_with_differences_of_colours_and_of_floats(tmp_path, dtype):
    cv2 = pytest.importorskip("cv2")
    array = pixels(3, dtype)
    assert cv2.imwrite(str(tmp_path / "a.tif"), array[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        if file.pages[0].predictor != (3 if dtype == np.float32 else 2):
            pytest.skip("this version of OpenCV writes no differences")
    assert np.array_equal(read(tmp_path / "a.tif")[1], array)


def test_colour_is_subsampled_in_a_jpeg_tiff(tmp_path):
    smooth = np.uint8(np.add.outer(np.arange(48), np.arange(64))[..., None] + [0, 60, 120])
    Image.fromarray(smooth).save(tmp_path / "a.tif", compression="jpeg", quality=95)
    source, result = read(tmp_path / "a.tif")
    assert source.streams
    assert np.abs(result.astype(int) - smooth).max() <= 8


def test_what_beside_the_colours_is_told(tmp_path):
    array, alpha = pixels(), pixels(1, seed=1)
    white = (array.astype(float) * alpha + 255.0 * (255 - alpha)) / 255
    for kind in ("unassalpha", "assocalpha", "unspecified"):
        both = np.concatenate([array // 2, alpha // 2 + 128], axis=2)
        tifffile.imwrite(tmp_path / f"{kind}.tif", both, photometric="rgb", extrasamples=[kind])
    source, result = read(tmp_path / "unassalpha.tif")
    share = (alpha // 2 + 128) / 255
    assert np.abs(result - (array // 2 * share + 255 * (1 - share))).max() <= 0.5
    assert source.remarks == ("transparency over white",)
    result = read(tmp_path / "assocalpha.tif")[1]
    assert np.array_equal(result, array // 2 + (255 - (alpha // 2 + 128)))
    source, result = read(tmp_path / "unspecified.tif")
    assert np.array_equal(result, array // 2)
    assert source.remarks == ("channels beside the colours left out",)
    Image.fromarray(np.concatenate([array, alpha], 2)).save(tmp_path / "a.png")
    assert np.abs(read(tmp_path / "a.png")[1] - white).max() <= 0.5


def test_black_and_white_reversed_several_pictures_and_holes(tmp_path):
    array = pixels(1, np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for _ in range(3):
            file.write(array[..., 0], photometric="miniswhite")
    source, result = read(tmp_path / "a.tif")
    assert np.array_equal(result, 65535 - array)
    assert source.remarks == ("the first of 3 pictures",)
    save_tiff(tmp_path / "b.tif", np.full((32, 32, 1), 7, np.uint8), tile=(16, 16))
    data = bytearray((tmp_path / "b.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        counts = file.pages[0].tags[325]
        data[counts.valueoffset : counts.valueoffset + 2] = b"\0\0"  # the first tile is not stored
    (tmp_path / "b.tif").write_bytes(data)
    result = read(tmp_path / "b.tif")[1][..., 0]
    assert not result[:16, :16].any()
    assert (result[16:] == 7).all()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_tiff_on_its_side_is_turned_upright(tmp_path, orientation):
    save_tiff(tmp_path / "a.tif", pixels(), rowsperstrip=8, extratags=[(274, 3, 1, orientation, True)])
    source, result = read(tmp_path / "a.tif")
    assert np.array_equal(result, files.read(tmp_path / "a.tif").pixels)
    assert source.remarks == (f"turned upright (EXIF orientation {orientation})",)
    assert not source.streams


@pytest.mark.parametrize("mode", ["P", "1", "CMYK", "LAB"])
def test_rarer_tiffs(tmp_path, mode):
    Image.fromarray(pixels()).convert("RGB" if mode == "LAB" else mode).save(tmp_path / "a.tif")
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(
            Image.fromarray(pixels()), ImageCms.createProfile("sRGB"), lab, outputMode="LAB"
        )
        image.save(tmp_path / "a.tif")
    source, result = read(tmp_path / "a.tif")
    assert source.streams == (mode in ("P", "1"))
    expected = files.read(tmp_path / "a.tif").pixels
    assert np.array_equal(result, expected.reshape(HEIGHT, WIDTH, -1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_keeps_them(tmp_path, channels):
    array = pixels(channels, np.uint16)
    if channels == 1:
        Image.fromarray(array[..., 0]).save(tmp_path / "a.png")
    else:  # as the specification has it, since Pillow writes no such file
        colour = {2: 4, 3: 2, 4: 6}[channels]
        lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
        head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, colour, 0, 0, 0)
        parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)))
        data = b"\x89PNG\r\n\x1a\n"
        for kind, body in (*parts, (b"IEND", b"")):
            data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        (tmp_path / "a.png").write_bytes(data)
    result = read(tmp_path / "a.png")[1]
    assert result.dtype == np.uint16
    expected = array
    if channels in (2, 4):
        share = array[..., -1:] / 65535
        expected = array[..., :-1] * share + 65535 * (1 - share)
    if channels != 2:  # OpenCV may spread grey with transparency over three channels
        assert result.shape == expected.shape
    assert np.abs(result[..., :1] - expected[..., :1]).max() <= 0.501


# ---- Writing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_written_is_read_again(tmp_path, dtype, channels, tile, compressed, monkeypatch):
    monkeypatch.setattr(writing, "_STRIP_BYTES", 1000)
    array = pixels(channels, dtype)
    kept = streams.Kept(compressed=compressed, tile=tile, resolution=(300, 150))
    names = ["a.tif"] if dtype == np.float32 else ["a.tif", "a.png"]
    for name in names:
        rows = (array[top : top + 11] for top in range(0, HEIGHT, 11))
        streams.write(tmp_path / name, array.shape, array.dtype, rows, kept)
        with_others = {"a.tif": tifffile.imread, "a.png": lambda path: files.read(path).pixels}[name]
        own = read(tmp_path / name)[1]
        assert np.array_equal(own, array)
        if dtype != np.uint16 or name == "a.tif":
            assert np.array_equal(with_others(tmp_path / name).reshape(array.shape), array)
        with (
            Image.open(tmp_path / name)
            if dtype == np.uint8
            else tifffile.TiffFile(tmp_path / "a.tif") as file
        ):
            if dtype == np.uint8:
                assert file.info["dpi"] == pytest.approx((300, 150), abs=0.1)
            else:
                assert file.pages[0].is_tiled == (tile is not None or compressed)
    assert read(tmp_path / "a.tif")[0].kept.resolution == pytest.approx((300, 150))


def test_a_colour_profile_goes_along(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    array = pixels()
    streams.write(tmp_path / "a.tif", array.shape, array.dtype, [array], streams.Kept(icc_profile=profile))
    assert read(tmp_path / "a.tif")[0].kept.icc_profile == profile


def test_more_than_four_gigabytes_is_a_big_tiff(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_CLASSIC_LIMIT", HEIGHT * WIDTH * 3 - 1)
    array = pixels()
    streams.write(tmp_path / "a.tif", array.shape, array.dtype, [array])
    assert (tmp_path / "a.tif").read_bytes()[2] == 43
    assert np.array_equal(read(tmp_path / "a.tif")[1], array)


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "kind", "said"),
    [
        ("a.gif", (4, 4, 3), np.uint8, UsageError, "ends as none of these"),
        ("a", (4, 4, 3), np.uint8, UsageError, ".tif, .tiff, .png"),
        ("a.png", (4, 4, 3), np.float32, ImageError, "write it as .tif"),
        ("a.jpg", (4, 4, 3), np.uint16, ImageError, "write it as .tif or .png"),
        ("a.webp", (4, 20_000, 3), np.uint8, ImageError, "ends at 16383 a side"),
        ("a.jpeg", (70_000, 4, 3), np.uint8, ImageError, "ends at 65500 a side"),
    ],
)
def test_what_a_kind_of_file_cannot_hold_is_said_before_work_starts(tmp_path, name, shape, dtype, kind, said):
    def never():
        raise AssertionError
        yield

    with pytest.raises(kind, match=said.replace(".", r"\.")):
        streams.write(tmp_path / name, shape, np.dtype(dtype), never())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
def test_rows_that_fail_leave_no_file(tmp_path, name):
    def rows():
        yield pixels()[:20]
        raise ImageError("the rest is gone")

    with pytest.raises(ImageError, match="the rest is gone"):
        streams.write(tmp_path / name, (HEIGHT, WIDTH, 3), np.dtype(np.uint8), rows())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        streams.write(tmp_path / "file" / name, (HEIGHT, WIDTH, 3), np.dtype(np.uint8), [pixels()])


# ---- Damage and mischief ------------------------------------------------------------------------------


def damaged_kinds():
    for name, options in LAYOUTS.items():
        stream = io.BytesIO()
        save_tiff(stream, pixels(), **options)
        yield name, stream.getvalue()
    for codec in ("tiff_lzw", "jpeg", "zstd"):
        stream = io.BytesIO()
        Image.fromarray(pixels()).save(stream, "TIFF", compression=codec)
        yield codec, stream.getvalue()


KINDS = dict(damaged_kinds())


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_tiff_is_said_before_work_starts(tmp_path, kind):
    data = KINDS[kind]
    for share in (0.02, 0.3, 0.9):
        (tmp_path / "a.tif").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ImageError, match="truncated or damaged"):
            streams.open(tmp_path / "a.tif")


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    places=st.lists(st.integers(0, 10**6), min_size=1, max_size=4),
    value=st.integers(0, 255),
)
def test_a_tiff_with_any_bytes_changed_is_read_or_refused(tmp_path_factory, kind, places, value):
    data = bytearray(KINDS[kind])
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        directory = file.pages[0].offset
    for place in places:  # mostly where the tags are, which decide everything
        at = directory + place % 250 if place % 5 else place
        data[max(at % len(data), 4)] = value
    path = tmp_path_factory.mktemp("damage") / "a.tif"
    path.write_bytes(data)
    with contextlib.suppress(ImageError), contextlib.closing(streams.open(path)) as source:
        rows = source.rows(0, min(source.height, 50))
        assert rows.shape[1:] == (source.width, source.channels)


def test_a_small_file_that_claims_a_giant_picture_costs_nothing(tmp_path, monkeypatch):
    save_tiff(tmp_path / "a.tif", pixels(), compression="zlib")
    monkeypatch.setattr(tiff.source, "MOST_BYTES", HEIGHT * WIDTH * 3 - 1)
    with pytest.raises(ImageError, match="compressed in pieces of 4,995 bytes"):
        streams.open(tmp_path / "a.tif")


def test_no_picture_at_all(tmp_path):
    (tmp_path / "a.tif").write_text("this is not a picture")
    with pytest.raises(ImageError, match="plain text"):
        streams.open(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="there is no picture"):
        streams.open(tmp_path / "b.tif")
    with pytest.raises(ImageError, match="is a folder"):
        streams.open(tmp_path)


def test_a_deep_png_that_is_damaged(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(pixels(1, np.uint16)[..., 0]).save(stream, "PNG", pnginfo=PngImagePlugin.PngInfo())
    (tmp_path / "a.png").write_bytes(stream.getvalue()[:1500])
    with pytest.raises(ImageError, match="truncated or damaged"):
        streams.open(tmp_path / "a.png")
