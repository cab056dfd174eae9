"""Applying a filter to pictures of any size: by tiles, at every edge, from file to file."""

import json
import tracemalloc
from threading import Barrier

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diptych import filters, formats
from diptych.engines import tiled
from diptych.engines.tiled import preparing
from diptych.engines.tiled import running as general
from diptych.engines.tiled.fitting import Held, fitted
from diptych.errors import DiptychError, ImageError, ModelError, OutputError, UsageError
from diptych.filters.applying import choosing, tiles
from diptych.images import streams
from diptych.images.streams import writing
from diptych.model import layers as L
from diptych.model.layers import Activated, fold
from diptych.model.model import Model

EDGES = ("zero", "reflect", "replicate", "wrap")
RELU = L.Activation("relu")


@pytest.fixture(autouse=True)
def _many_cells(monkeypatch):
    """Small pictures have many cells and strips, as large ones do."""
    monkeypatch.setattr(general.General, "cell", 8)
    monkeypatch.setattr(tiles, "STRIP_BYTES", 1000)


def conv(rng, inputs, outputs, mode, whole_numbers=False):
    """A padded convolution of any kernel, even ones and off-centre ones too."""
    kernel, dilation = rng.integers(1, 5, 2), int(rng.integers(1, 3))
    taken = [int(k - 1) * dilation for k in kernel]
    lows = [int(rng.integers(0, t + 1)) for t in taken]
    pads = tuple((low, t - low) for low, t in zip(lows, taken, strict=True))
    shape = (outputs, inputs, *kernel)
    if whole_numbers:
        weight, bias = rng.integers(-2, 3, shape), None
    else:
        weight, bias = (
            rng.normal(size=shape) / (inputs * kernel.prod()),
            np.float32(rng.normal(size=outputs) / 9),
        )
    own = {"dilation": (dilation, dilation), "activation": RELU}
    if mode == "zero" and rng.random() < 0.3:
        return (L.Conv(np.float32(weight), bias, padding=pads, **own),)
    return L.Pad(pads, mode), L.Conv(np.float32(weight), bias, **own)


def network(seed, mode, whole_numbers=False):
    """Several stages of every kind that a filter may have."""
    rng = np.random.default_rng(seed)
    first = channels = int(rng.choice([1, 3]))
    made = []
    for kind in rng.integers(0, 5, int(rng.integers(1, 4))):
        inside = lambda n: L.Chain(conv(rng, channels, n, mode, whole_numbers))  # noqa: B023, E731
        if kind <= 1:
            made += inside(2).layers
            channels = 2
        elif kind == 2:
            made.append(L.SkipConnection(inside(channels)))
        elif kind == 3:
            made.append(L.Parallel(L.Connection("concatenate"), (inside(1), inside(2))))
            channels = 3
        elif mode != "wrap":
            made.append(L.MaxPool((3, 2), (1, 1), ((1, 1), (0, 1))))
    made += conv(rng, channels, int(rng.choice([1, 3])), mode, whole_numbers)
    return Model(L.Chain(tuple(made)), input_shape=(first, None, None), name=f"network {seed}")


def picture(seed, height, width, channels, dtype):
    rng = np.random.default_rng(seed)
    peak = streams.PEAKS[np.dtype(dtype)]
    shape = (height, width) if channels == 1 else (height, width, channels)
    return rng.random(shape).astype(dtype) if peak is None else rng.integers(0, peak + 1, shape).astype(dtype)


def whole(model, image, scale=1.0):
    """The reference engine's formulas on the whole picture at once; NumPy pads however small it is."""

    def leaf(layer, x, path):
        result = layer.compute(x)
        return layer.activation.compute(result) if isinstance(layer, Activated) else result

    def join(connection, values, path):
        return connection.join(values)

    x = np.atleast_3d(image).astype(np.float64).transpose(2, 0, 1)[None] * scale
    result = fold(model.layers, x, leaf, join)[0].transpose(1, 2, 0)
    return result if result.shape[2] > 1 else result[..., 0]


pictures = {
    "seed": st.integers(0, 10**6),
    "mode": st.sampled_from(EDGES),
    "height": st.integers(1, 40),
    "width": st.integers(1, 40),
    "dtype": st.sampled_from([np.uint8, np.uint16, np.float32]),
}


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(tile=st.integers(1, 45), **pictures)
def test_tiles_change_no_bit_and_the_values_are_the_reference_engines(seed, mode, height, width, dtype, tile):
    model = network(seed, mode)
    image = picture(seed, height, width, model.input_shape[0], dtype)
    result = filters.apply(model, image, engine="numpy", tile=10**6)
    assert result.dtype == dtype
    assert np.array_equal(filters.apply(model, image, engine="numpy", tile=tile), result)
    assert np.array_equal(filters.apply(model, image, engine="numpy"), result)
    peak = streams.PEAKS[np.dtype(dtype)]
    if peak is None:
        np.testing.assert_allclose(result, whole(model, image), rtol=0, atol=1e-5)
    else:  # float32 on the way may round a tie, and a 16-bit level, to the other side
        exact = np.clip(whole(model, image, 1 / peak) * peak, 0, peak)
        assert np.abs(result - exact).max() < (0.51 if peak == 255 else 0.6)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    engine=st.sampled_from(["onnxruntime", "torch"]),
    tile=st.integers(1, 25),
    **pictures | {"height": st.integers(1, 20), "width": st.integers(1, 20)},
)
def test_tiles_change_no_bit_on_engines_that_choose_their_own_kernels(
    engine, seed, mode, height, width, dtype, tile
):
    model = network(seed, mode)
    image = picture(seed, height, width, model.input_shape[0], dtype)
    result = filters.apply(model, image, engine=engine, device="cpu", tile=10**6)
    assert np.array_equal(filters.apply(model, image, engine=engine, device="cpu", tile=tile), result)
    reference = filters.apply(model, image, engine="numpy").astype(np.float64)
    assert np.abs(result - reference).max() <= (1e-5 if dtype == np.float32 else 1)


@settings(max_examples=30, deadline=None)
@given(**(pictures | {"dtype": st.sampled_from([np.uint8, np.uint16])}))
def test_whole_numbers_are_exact_in_levels(seed, mode, height, width, dtype):
    model = network(seed, mode, whole_numbers=True)
    image = picture(seed, height, width, model.input_shape[0], np.uint8).astype(dtype)
    exact = whole(model, image)
    if np.abs(exact).max() < 2**24:  # what float32 counts without a gap
        expected = np.clip(exact, 0, streams.PEAKS[np.dtype(dtype)])
        assert np.array_equal(filters.apply(model, image, engine="numpy", tile=7), expected)


@settings(max_examples=40, deadline=None)
@given(**pictures)
def test_any_part_by_itself_is_the_same_part_of_the_whole(seed, mode, height, width, dtype):
    model = network(seed, mode)
    image = np.atleast_3d(picture(seed, height, width, model.input_shape[0], dtype))
    ready = tiled.compile(model, "numpy", peak=streams.PEAKS[image.dtype])
    rng, halo = np.random.default_rng(seed), ready.prepared.halo
    (top, bottom), (left, right) = (np.sort(rng.choice(n + 1, 2, replace=False)) for n in (height, width))
    part, everything = tiled.Region(top, left, bottom, right), tiled.Region(0, 0, height, width)

    def of(region):
        rows = np.arange(region.top - halo.top, region.bottom + halo.bottom)
        columns = np.arange(region.left - halo.left, region.right + halo.right)
        if not ready.prepared.wraps:
            rows, columns = rows[(rows >= 0) & (rows < height)], columns[(columns >= 0) & (columns < width)]
        block = image.take(rows, 0, mode="wrap").take(columns, 1, mode="wrap")
        return ready(block, (rows[0], columns[0]), (height, width), region)

    assert np.array_equal(of(part), of(everything)[top:bottom, left:right])


def blur(mode="replicate", size=3, channels=3):
    weight = np.full((channels, 1, size, size), 1 / size**2, np.float32)
    pads = ((size // 2, size // 2),) * 2
    layers = L.Chain((L.Pad(pads, mode), L.Conv(weight, groups=channels)))
    notes = {"filter": {"per_channel": True}}
    return Model(layers, input_shape=(channels, None, None), name="blur", notes=notes)


def luma(weights=(0.25, 0.5, 0.25)):
    return Model(
        L.Chain((L.Conv(np.float32(weights).reshape(1, 3, 1, 1)),)), input_shape=(3, None, None), name="luma"
    )


@pytest.mark.parametrize("mode", EDGES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2)])
def test_a_picture_smaller_than_the_kernel_is_extended_as_numpy_extends_it(mode, shape):
    image = picture(1, *shape, 3, np.float32)
    result = filters.apply(blur(mode, size=9), image, engine="numpy", tile=1)
    names = {"zero": "constant", "replicate": "edge"}
    wide = np.pad(image, [(4, 4), (4, 4), (0, 0)], mode=names.get(mode, mode))
    expected = np.lib.stride_tricks.sliding_window_view(wide, (9, 9), (0, 1)).mean(axis=(-1, -2))
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["zero", "reflect", "replicate"])
@pytest.mark.parametrize("pads", [((0, 4), (4, 0)), ((2, 2), (1, 3)), ((4, 0), (0, 4))])
def test_what_is_taken_away_first_may_be_given_back_afterwards(mode, pads):
    weight = np.float32(np.random.default_rng(5).normal(size=(1, 1, 5, 5)) / 9)
    layers = (L.Conv(weight), L.Pad(pads, mode), L.Conv(weight), L.Pad(pads, mode))
    model = Model(L.Chain(layers), input_shape=(1, None, None), name="late")
    image = picture(6, 20, 17, 1, np.float32)
    result = filters.apply(model, image, engine="numpy")
    np.testing.assert_allclose(result, whole(model, image), rtol=0, atol=1e-5)
    ready = tiled.compile(model, "numpy", peak=None)
    halo = ready.prepared.halo
    for top in range(20):
        region = tiled.Region(top, 3, top + 1, 5)
        seen = region.grown(halo).clipped((20, 17))
        block = image[seen.top : seen.bottom, seen.left : seen.right, None]
        part = ready(block, (seen.top, seen.left), (20, 17), region)
        assert np.array_equal(part[..., 0], result[top : top + 1, 3:5])
    with pytest.raises(ImageError, match="late needs pictures of at least 5 x 5 pixels, got 4 x 20"):
        filters.apply(model, image[:20, :4], engine="numpy")


@pytest.mark.parametrize("mode", EDGES)
def test_the_edge_can_be_chosen_anew(mode):
    image = picture(2, 20, 30, 3, np.uint8)
    assert np.array_equal(
        filters.apply(blur("zero"), image, engine="numpy", edge=mode),
        filters.apply(blur(mode), image, engine="numpy"),
    )


def test_the_halo_is_counted_from_the_pixel():
    def halo_of(*layers):
        return tiled.halo(Model(L.Chain(layers)))

    weight = np.ones((1, 1, 2, 5), np.float32)
    assert halo_of(L.Conv(weight, padding=((1, 0), (2, 2)))) == tiled.Halo(1, 2, 0, 2)
    assert halo_of(L.Conv(weight, padding=((0, 2), (4, 4)), dilation=(2, 2))) == tiled.Halo(0, 4, 2, 4)
    skip = L.SkipConnection(L.Conv(weight, padding=((0, 1), (4, 0))))
    assert halo_of(skip, skip) == tiled.Halo(0, 8, 2, 0)
    # The last column but three mirrors the one four to the right of it.
    assert halo_of(L.Pad(((1, 0), (4, 0)), "reflect"), L.Conv(weight)) == tiled.Halo(1, 4, 1, 4)


NO_FILTERS = {
    "layer 1 (Flatten) changes the shape": (L.Flatten(), L.Dense(np.ones((2, 3), np.float32))),
    "layer 1 (GlobalMeanPool) depends on the whole": (L.GlobalMeanPool(),),
    "layer 1 (InstanceNorm) normalises by": (L.InstanceNorm(),),
    "layer 1 (BatchNorm) normalises by": (L.BatchNorm(),),
    "layer 1 (Upsample) changes": (L.Upsample((2.0, 2.0)),),
    "layer 1 (MaxPool) has a stride": (L.MaxPool((2, 2)),),
    "layer 1 (Conv) has a stride": (L.Conv(np.ones((1, 3, 2, 2), np.float32), stride=(2, 2)),),
    "layer 1 (MeanPool) averages over fewer": (
        L.MeanPool((3, 3), (1, 1), ((1, 1), (1, 1)), count_padding=False),
    ),
    "layer 1.0 (Dense) mixes": (L.SkipConnection(L.Dense(np.ones((3, 3), np.float32))),),
    "-2 rows and -2 columns": (L.Conv(np.ones((1, 3, 3, 3), np.float32)),),
    "takes 4 channels, got 3": (L.Conv(np.ones((1, 4, 1, 1), np.float32)),),
    "gives 2 channels": (L.Conv(np.ones((2, 3, 1, 1), np.float32)),),
    "joins pictures of different sizes": (L.SkipConnection(L.MaxPool((3, 3), (1, 1))),),
    "each pixel of a picture of a fixed size": (L.Scale(np.ones((3, 5, 5), np.float32)),),
    "wraps round": (L.Pad(((1, 1), (1, 1)), "wrap"), L.Pad(((1, 1), (1, 1))), L.MaxPool((5, 5), (1, 1))),
}


@pytest.mark.parametrize(("said", "layers"), NO_FILTERS.items(), ids=NO_FILTERS)
def test_what_is_not_a_filter_is_said_by_its_layer(said, layers):
    model = Model(L.Chain((L.Activation("relu"), *layers)), input_shape=(3, None, None), name="net")
    with pytest.raises(ModelError) as error:
        filters.apply(model, np.zeros((5, 5, 3), np.uint8), engine="numpy")
    assert said in str(error.value)
    assert str(error.value).startswith("net")


def test_fractions_in_a_file_are_taken_on_the_scale_they_fill(tmp_path):
    pad, mean = L.Pad(((1, 1), (1, 1)), "zero"), np.full((1, 1, 3, 3), 1 / 9, np.float32)
    model = Model(
        L.Chain((pad, L.Conv(mean, np.ones(1, np.float32)))), input_shape=(1, None, None), name="box"
    )
    image = picture(3, 150, 20, 1, np.float32)
    tifffile.imwrite(tmp_path / "ones.tif", image)
    tifffile.imwrite(tmp_path / "levels.tif", 255 * image)
    ones = filters.apply(model, tmp_path / "ones.tif", tmp_path / "a.tif")
    levels = filters.apply(model, tmp_path / "levels.tif", tmp_path / "b.tif")
    assert ones.remarks == ()
    assert "taken as 0-255" in levels.remarks[0]
    expected = 255 * filters.apply(model, image)
    for filtered in (
        255 * tifffile.imread(tmp_path / "a.tif"),
        tifffile.imread(tmp_path / "b.tif"),
        filters.apply(model, tmp_path / "levels.tif"),
    ):
        np.testing.assert_allclose(filtered, expected, rtol=1e-5)


@pytest.mark.parametrize(("value", "said"), [(np.nan, "not numbers"), (9000, "only 0-1 and 0-255")])
def test_fractions_on_no_scale_are_refused(value, said, tmp_path):
    image = picture(3, 150, 20, 1, np.float32)
    image[140, 3] = value
    tifffile.imwrite(tmp_path / "in.tif", image)
    model = Model(L.Chain((L.Activation("relu"),)), name="relu")
    with pytest.raises(ImageError, match=said):
        filters.apply(model, tmp_path / "in.tif", tmp_path / "out.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_statistics_in_the_file_are_folded_and_functions_without_levels_take_fractions():
    values = np.float32([0.2, 0.4, 0.6])
    norm = L.BatchNorm(values + 1, values, values / 2, values + 0.5, activation=L.Activation("sigmoid"))
    model = Model(L.Chain((norm, L.Dropout())), input_shape=(3, None, None))
    image = picture(3, 20, 11, 3, np.uint8)
    exact = 255 / (
        1 + np.exp(-((image / 255 - values / 2) / np.sqrt(values + 0.50001) * (values + 1) + values))
    )
    assert np.abs(filters.apply(model, image, engine="numpy") - exact).max() < 0.501
    assert tiled.prepare(model, 255).divisor == 255


def test_every_function_that_computes_in_levels_gives_what_it_gives_in_fractions():
    image = picture(4, 16, 16, 1, np.uint8)
    for name in ("relu", "relu6", "leakyrelu", "abs", "clamp", "hardtanh", "trelu", "softshrink", "affine"):
        parameters = {"clamp": (0.2, 0.7), "hardtanh": (0.1, 0.5), "trelu": (0.3,), "affine": (0.5, 0.25)}
        activation = L.Activation(name, parameters.get(name, ()))
        shift = L.Conv(np.float32([[[[1.5]]]]), np.float32([-0.4]), activation=activation)
        model = Model(L.Chain((shift,)), input_shape=(1, None, None))
        assert tiled.prepare(model, 255).divisor == 1, name
        fractions = filters.apply(model, np.float32(image / 255), engine="numpy")
        levels = filters.apply(model, image, engine="numpy")
        assert np.abs(levels - np.clip(fractions * 255, 0, 255)).max() < 0.501, name


# ---- Cells --------------------------------------------------------------------------------------------


def distant():
    """Padded before each stage, joined with what was before it: what a heavy operator's network does."""
    rng = np.random.default_rng(0)
    far = L.SkipConnection(L.Chain(conv(rng, 3, 2, "reflect")), L.Connection("concatenate"))
    return Model(L.Chain((far, *conv(rng, 5, 3, "reflect"))), input_shape=(3, None, None), name="distant")


@pytest.mark.parametrize("side", ["top", "left", "bottom", "right", None])
def test_a_part_is_padded_only_where_it_ends_at_the_border(side):
    prepared = tiled.prepare(distant(), 255)
    part = {
        "top": tiled.Region(0, 50, 20, 60),
        "left": tiled.Region(50, 0, 60, 20),
        "bottom": tiled.Region(80, 50, 100, 60),
        "right": tiled.Region(50, 80, 60, 100),
        None: tiled.Region(50, 50, 60, 60),
    }[side]
    held = Held.of(part.grown(prepared.halo).clipped((100, 100)), (100, 100))
    layers, result = fitted(prepared.layers, held, wraps=False)
    pads = [layer for layer in preparing.leaves(layers) if isinstance(layer, L.Pad)]
    ends = {"top": (0, 0), "bottom": (0, 1), "left": (1, 0), "right": (1, 1)}
    padded = {name for name, (axis, end) in ends.items() if any(pad.padding[axis][end] > 0 for pad in pads)}
    assert padded == ({side} if side else set())
    assert any(n < 0 for pad in pads for pair in pad.padding for n in pair)  # what joins the others is cut
    assert result.region.common(part) == part


def test_cells_of_onnxruntime_are_computed_side_by_side_each_on_one_thread(monkeypatch):
    monkeypatch.setattr(general, "processors", lambda: 2)
    ready = tiled.compile(distant(), "onnxruntime", peak=255)
    meeting = Barrier(2, timeout=30)
    cell = ready._cell
    monkeypatch.setattr(ready, "_cell", lambda *given: (meeting.wait(), cell(*given))[1])
    image = picture(13, 16, 8, 3, np.uint8)
    result = ready(image, (0, 0), (16, 8), tiled.Region(0, 0, 16, 8))
    assert np.abs(result.astype(int) - filters.apply(distant(), image, engine="numpy")).max() <= 1
    for compiled in ready._compiled.values():
        for _, session, _ in compiled._sessions:
            assert session.get_session_options().intra_op_num_threads == 1


def test_a_function_after_a_convolution_is_computed_with_it():
    weight = np.ones((1, 1, 1, 1), np.float32)
    layers = L.Chain((L.Conv(weight), RELU, L.Activation("abs"), L.Conv(weight, activation=RELU), RELU))
    made = tiled.prepare(Model(layers, input_shape=(1, None, None)), 255).layers.layers
    names = [(type(layer).__name__, getattr(layer, "activation", layer).name) for layer in made]
    assert names == [("Conv", "relu"), ("Activation", "abs"), ("Conv", "relu"), ("Activation", "relu")]


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
        ({"edge": "mirror"}, UsageError, "zero, reflect, replicate, wrap"),
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
