"""Applying a filter to pictures of any size: by tiles, at every edge, the same bits in every part."""

from threading import Barrier

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych import filters
from diptych.engines import tiled
from diptych.engines.tiled import preparing
from diptych.engines.tiled import running as general
from diptych.engines.tiled.fitting import Held, fitted
from diptych.errors import ImageError, ModelError
from diptych.filters.applying import tiles
from diptych.images import streams
from diptych.model import layers as L
from diptych.model.layers import Activated, fold
from diptych.model.model import Model
from filter_models import RELU, blur, conv, network, picture

EDGES = ("zero", "reflect", "symmetric", "replicate", "wrap")


@pytest.fixture(autouse=True)
def _many_cells(monkeypatch):
    """Small pictures have many cells and strips, as large ones do."""
    monkeypatch.setattr(general.General, "cell", 8)
    monkeypatch.setattr(tiles, "STRIP_BYTES", 1000)


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


@pytest.mark.parametrize("mode", EDGES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2)])
def test_a_picture_smaller_than_the_kernel_is_extended_as_numpy_extends_it(mode, shape):
    image = picture(1, *shape, 3, np.float32)
    result = filters.apply(blur(mode, size=9), image, engine="numpy", tile=1)
    names = {"zero": "constant", "replicate": "edge"}
    wide = np.pad(image, [(4, 4), (4, 4), (0, 0)], mode=names.get(mode, mode))
    expected = np.lib.stride_tricks.sliding_window_view(wide, (9, 9), (0, 1)).mean(axis=(-1, -2))
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["zero", "reflect", "symmetric", "replicate"])
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
        for ready_one in compiled._sessions:
            assert ready_one.session.get_session_options().intra_op_num_threads == 1


def test_a_function_after_a_convolution_is_computed_with_it():
    weight = np.ones((1, 1, 1, 1), np.float32)
    layers = L.Chain((L.Conv(weight), RELU, L.Activation("abs"), L.Conv(weight, activation=RELU), RELU))
    made = tiled.prepare(Model(layers, input_shape=(1, None, None)), 255).layers.layers
    names = [(type(layer).__name__, getattr(layer, "activation", layer).name) for layer in made]
    assert names == [("Conv", "relu"), ("Activation", "abs"), ("Conv", "relu"), ("Activation", "relu")]
