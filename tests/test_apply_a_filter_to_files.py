"""Applying a filter from file to file: kinds of files, memory, the choice of an engine, and what is refused."""

import json
import tracemalloc

import numpy as np
import pytest
import tifffile
from PIL import Image

from diptych import filters, formats
from diptych.engines import tiled
from diptych.engines.tiled import running as general
from diptych.errors import DiptychError, ImageError, OutputError, UsageError
from diptych.filters.applying import choosing, tiles
from diptych.images import streams
from diptych.images.streams import writing
from diptych.model import layers as L
from diptych.model.model import Model
from filter_models import blur, luma, network, picture


@pytest.fixture(autouse=True)
def _many_cells(monkeypatch):
    """Small pictures have many cells and strips, as large ones do."""
    monkeypatch.setattr(general.General, "cell", 8)
    monkeypatch.setattr(tiles, "STRIP_BYTES", 1000)


# ---- Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_from_tiff_to_tiff(tmp_path, dtype, channels):
    image = picture(5, 61, 47, channels, dtype)
    colour = {"photometric": "rgb" if channels == 3 else "minisblack"}
    tifffile.imwrite(
        tmp_path / "in.tif", image, tile=(16, 32), compression="zlib", resolution=(300, 300), **colour
    )
    applied = filters.apply(blur(), tmp_path / "in.tif", tmp_path / "out.tif", tile=8, engine="numpy")
    result = tifffile.imread(tmp_path / "out.tif")
    expected = filters.apply(blur(), image, engine="numpy")
    assert result.dtype == dtype
    assert np.array_equal(result, expected)
    assert (applied.path, applied.engine, applied.size) == (str(tmp_path / "out.tif"), "numpy", (61, 47))
    assert applied.streamed
    document = json.loads(json.dumps(applied.to_document()))
    assert document["megapixels_per_second"] == pytest.approx(61 * 47 / 1e6 / applied.seconds)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.pages[0].tile == (16, 32)
        assert file.pages[0].resolution == (300, 300)
    assert np.array_equal(filters.apply(blur(), tmp_path / "in.tif", engine="numpy"), expected)


@pytest.mark.parametrize(("suffix", "off"), [(".png", 0), (".webp", 0), (".bmp", 0), (".jpg", 9)])
def test_other_kinds_of_file(tmp_path, suffix, off):
    image = np.kron(picture(6, 5, 4, 3, np.uint8), np.ones((8, 8, 1), np.uint8))
    options = {"lossless": True} if suffix == ".webp" else {"quality": 95}
    Image.fromarray(image).save(tmp_path / f"in{suffix}", **options)
    given = np.asarray(Image.open(tmp_path / f"in{suffix}"))
    applied = filters.apply(luma(), tmp_path / f"in{suffix}", tmp_path / f"out{suffix}", engine="numpy")
    result = np.asarray(Image.open(tmp_path / f"out{suffix}").convert("L"))
    assert np.abs(result.astype(int) - filters.apply(luma(), given, engine="numpy")).mean() <= off
    assert not applied.streamed


def test_grey_and_colour_find_each_other(tmp_path):
    grey, colour = picture(7, 12, 9, 1, np.uint8), picture(7, 12, 9, 3, np.uint8)
    three = np.repeat(grey[..., None], 3, axis=2)
    smooth = filters.apply(blur(), grey, engine="numpy")
    assert smooth.shape == (12, 9)  # channels apart: grey stays grey
    assert np.array_equal(smooth, filters.apply(blur(), three, engine="numpy")[..., 0])
    assert np.array_equal(filters.apply(luma(), grey, engine="numpy"), grey)
    foreign = blur().with_(notes={"filter": "what somebody else wrote"})
    assert filters.apply(foreign, grey, engine="numpy").shape == (12, 9, 3)
    Image.fromarray(colour).save(tmp_path / "in.png")
    one = blur(channels=1)
    applied = filters.apply(one, tmp_path / "in.png", tmp_path / "out.png", engine="numpy")
    assert applied.remarks == ("colour taken as grey (Rec.601)",)
    as_grey = np.rint(colour @ [0.299, 0.587, 0.114]).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), filters.apply(one, as_grey))
    anything = Model(L.Chain((L.MaxPool((3, 3), (1, 1), ((1, 1), (1, 1))),)))
    assert filters.apply(anything, grey).shape == (12, 9)
    assert filters.apply(anything, colour).shape == (12, 9, 3)


def test_a_folder_and_a_model_in_a_file(tmp_path):
    (tmp_path / "in").mkdir()
    for index, name in enumerate(["a.png", "b.tif", "c.gif"]):
        Image.fromarray(picture(index, 10, 12, 1, np.uint8)).save(tmp_path / "in" / name)
    formats.write(blur(), tmp_path / "blur.safetensors")
    done = filters.apply(tmp_path / "blur.safetensors", tmp_path / "in", tmp_path / "out", engine="numpy")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.tif", "c.png"]
    assert [one.path for one in done] == [str(tmp_path / "out" / n) for n in ("a.png", "b.tif", "c.png")]
    inside = filters.apply(blur(), tmp_path / "in" / "c.gif", tmp_path, engine="numpy")
    assert inside.path == str(tmp_path / "c.png")
    with pytest.raises(UsageError, match="name a folder"):
        filters.apply(blur(), tmp_path / "in")
    with pytest.raises(OutputError, match="would be replaced"):
        filters.apply(blur(), tmp_path / "in", tmp_path / "in")
    Image.fromarray(picture(1, 3, 3, 1, np.uint8)).save(tmp_path / "in" / "a.gif")
    with pytest.raises(UsageError, match="would both become"):
        filters.apply(blur(), tmp_path / "in", tmp_path / "out")


def test_files_and_folders_have_functions_of_their_own(tmp_path):
    for name, image in {
        "a.png": picture(1, 10, 12, 3, np.uint8),
        "c.png": picture(2, 8, 9, 1, np.uint8),
    }.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "in" / name)
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:100])
    one = filters.apply_file(blur(), tmp_path / "in" / "a.png", tmp_path / "one.png", engine="numpy")
    assert (one.path, one.size) == (str(tmp_path / "one.png"), (10, 12))
    result = filters.apply_folder(blur(), tmp_path / "in", tmp_path / "out", engine="numpy")
    assert [applied.path for applied in result.applied] == [
        str(tmp_path / "out" / n) for n in ("a.png", "c.png")
    ]
    assert len(result.failures) == 1
    assert "b.png" in result.failures[0]
    failures = ["before"]
    done = filters.apply(blur(), tmp_path / "in", tmp_path / "again", engine="numpy", failures=failures)
    assert [applied.path for applied in done] == [str(tmp_path / "again" / n) for n in ("a.png", "c.png")]
    assert failures == ["before", *result.failures]
    with pytest.raises(UsageError, match="is a folder; apply_folder filters"):
        filters.apply_file(blur(), tmp_path / "in", tmp_path / "out")
    with pytest.raises(UsageError, match="is not a folder; apply_file filters"):
        filters.apply_folder(blur(), tmp_path / "in" / "a.png", tmp_path / "out")


def test_progress_counts_rows(tmp_path):
    told = []
    Image.fromarray(picture(8, 30, 20, 1, np.uint8)).save(tmp_path / "in.png")
    filters.apply(blur(), tmp_path / "in.png", tmp_path / "o.png", tile=8, progress=lambda *a: told.append(a))
    assert told == [(n, 30, "in.png") for n in (0, 8, 16, 24, 30)]


# ---- Memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["replicate", "wrap"])
def test_rows_are_read_once(mode):
    class Counting(streams.Whole):
        def rows(self, top, bottom):
            seen.extend(range(top, bottom))
            return super().rows(top, bottom)

    seen = []
    source = Counting(picture(9, 70, 13, 3, np.uint8))
    ready = tiled.compile(blur(mode, size=5), "numpy", peak=255)
    result = np.concatenate(list(tiles.filtered(ready, source, None, lambda *_: None, "")))
    beyond = [68, 69, 0, 1] if mode == "wrap" else []
    assert sorted(seen) == sorted([*range(70), *beyond])
    assert np.array_equal(result, filters.apply(blur(mode, size=5), source.pixels, engine="numpy"))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(general.General, "cell", 64)
    monkeypatch.setattr(writing, "_STRIP_BYTES", 4000)

    def peak(height, suffix):
        tifffile.imwrite(tmp_path / "in.tif", np.zeros((height, 200, 3), np.uint8), rowsperstrip=10)
        tracemalloc.start()
        try:
            filters.apply(luma(), tmp_path / "in.tif", tmp_path / f"out{suffix}", engine="numpy", tile=64)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(64, ".tif")  # what is imported on the way is no picture
    for suffix in (".tif", ".png"):
        assert peak(8000, suffix) < 1_600_000  # the picture has 4,800,000 bytes, its result 1,600,000


# ---- Choosing an engine -------------------------------------------------------------------------------


def test_auto_takes_the_fastest_once_and_remembers_it(monkeypatch):
    monkeypatch.setattr(choosing, "SMALL", 0)
    monkeypatch.setattr(choosing, "_candidates", lambda _: ("torch", "numpy", "no such engine"))
    timed = []
    monkeypatch.setattr(choosing, "_seconds", lambda one, _: timed.append(one.engine) or len(one.engine) % 5)
    model, image = luma(), streams.Whole(picture(10, 30, 30, 3, np.uint8))
    assert choosing.ready(model, "auto", "auto", 255, None, image).engine == "torch"
    assert choosing.ready(model, "auto", "auto", 255, None, image).engine == "torch"
    assert timed == ["torch", "numpy"]


def test_heavy_networks_are_not_compiled_by_halide_unless_asked():
    def chosen(width):
        weight = np.full((width, width, 3, 3), 0.01, np.float32)
        first, last = (np.ones((b, a, 1, 1), np.float32) for a, b in ((3, width), (width, 3)))
        layers = (L.Pad(((1, 1), (1, 1))), L.Conv(first), L.Conv(weight), L.Conv(last))
        model = Model(L.Chain(layers), input_shape=(3, None, None))
        timed = choosing._candidates(model)
        return tiled.compile(model, peak=255).engine, "halide" in timed, "onnxruntime" in timed

    assert chosen(4) == ("halide", True, True)
    assert chosen(24) == ("onnxruntime", False, True)


def test_engines_are_timed_on_the_picture_itself():
    ready = tiled.compile(blur(), "numpy", peak=255)
    assert 0 < choosing._seconds(ready, streams.Whole(picture(11, 3, 40, 3, np.uint8))) < float("inf")


# ---- What cannot be -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"tile": 0}, UsageError, "of at least 1, got 0"),
        ({"tile": 2.5}, UsageError, "got 2.5"),
        ({"edge": "mirror"}, UsageError, "zero, reflect, symmetric, replicate, wrap"),
        ({"engine": "gpu"}, UsageError, "no engine is called 'gpu'"),
        ({"target": "out.tif"}, UsageError, "an array is filtered into an array"),
        ({"source": np.zeros((4, 4), np.int32)}, ImageError, "got int32"),
        ({"source": np.zeros((4, 4, 2), np.uint8)}, ImageError, "got (4, 4, 2)"),
        ({"source": np.zeros((0, 4), np.uint8)}, ImageError, "at least one pixel"),
        ({"source": 5}, UsageError, "not int"),
        ({"learned": 5}, UsageError, "not int"),
    ],
)
def test_a_call_that_makes_no_sense(options, kind, said):
    given = {"learned": luma(), "source": np.zeros((4, 4), np.uint8), "engine": "numpy"} | options
    with pytest.raises(kind) as error:
        filters.apply(**given)
    assert said in str(error.value)


def test_nothing_is_replaced_or_left_half_written(tmp_path):
    image = picture(12, 60, 40, 3, np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", image, rowsperstrip=4, compression="zlib")
    deep = {"out.jpg": "16 bits a channel", "out.webp": "16 bits", "out.gif": "ends as none of these"}
    for name, said in deep.items():
        with pytest.raises(DiptychError, match=said):
            filters.apply(luma(), tmp_path / "in.tif", tmp_path / name)
    with pytest.raises(OutputError, match="would be replaced"):
        filters.apply(luma(), tmp_path / "in.tif", tmp_path / "in.tif")
    tifffile.imwrite(tmp_path / "floats.tif", np.float32(image / 65535), photometric="rgb")
    with pytest.raises(ImageError, match="fractions"):
        filters.apply(luma(), tmp_path / "floats.tif", tmp_path / "out.png")
    with tifffile.TiffFile(tmp_path / "in.tif") as file:
        place = file.pages[0].dataoffsets[10]
    data = bytearray((tmp_path / "in.tif").read_bytes())
    data[place : place + 40] = b"\xff" * 40
    (tmp_path / "in.tif").write_bytes(data)
    for name in ("out.tif", "out.png"):
        with pytest.raises(ImageError, match="truncated or damaged"):
            filters.apply(luma(), tmp_path / "in.tif", tmp_path / name, engine="numpy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["floats.tif", "in.tif"]


@pytest.mark.parametrize("wrong", [255.0, 2.55, -0.1, np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_in_an_array_are_within_0_to_1(wrong, dtype):
    array = np.full((9, 9), 0.5, dtype)
    array[3, 4] = wrong
    with pytest.raises(ImageError, match="divide by 255"):
        filters.apply(network(1, "zero"), array, engine="numpy")
