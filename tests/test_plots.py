"""Plots of feature maps and inputs: what can be read from them, for any array a layer may give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from diptych.errors import OutputError, ShapeError, UsageError
from diptych.model.layers import (
    Activation,
    Chain,
    Connection,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    SkipConnection,
)
from diptych.model.model import Model
from diptych.report import plots
from diptych.report.features import Make, chosen_layers, convolutions, feature_plots
from diptych.report.grid import colours, header, number
from diptych.report.mosaic import arrange, choose_channels, dead_channels, finite_range, fit, tile

RNG = np.random.default_rng(0)
GREY = RNG.random((40, 56), dtype=np.float32)
PICTURE = RNG.integers(0, 256, (80, 112, 3), dtype=np.uint8)

DRAWINGS: dict[str, Callable[[Path], None]] = {
    "feature maps": lambda path: plots.feature_maps(path, MAPS, "Convolution 1"),
    "vector": lambda path: plots.vector(path, MAPS[:, 0, 0], "Dense"),
    "rows": lambda path: plots.activations(path, MAPS[0], "One axis"),
    "volume": lambda path: plots.activations(path, MAPS[None].repeat(2, 0), "Three axes"),
    "heat map": lambda path: plots.input_heatmap(path, GREY),
    "contour": lambda path: plots.input_contour(path, GREY),
    "surface": lambda path: plots.input_surface(path, GREY),
    "four views": lambda path: plots.input_image_visualizations(path, PICTURE, GREY),
    "verification": lambda path: plots.loaded_image_verification(
        path, PICTURE, PICTURE[:, :, 0], ["grey: 0.299 R + 0.587 G + 0.114 B", "a long step " * 9], GREY[None]
    ),
}
MAPS = RNG.normal(size=(6, 12, 17)).astype(np.float32)


def pixels(path: Path) -> Any:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def has_colour(image: Any, colour: tuple[int, int, int]) -> bool:
    return bool((image == np.array(colour)).all(axis=-1).any())


HATCH, MAGENTA = (178, 173, 163), (214, 39, 112)


# ---- Every figure -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_same_array_gives_the_same_bytes_whatever_the_users_settings(name: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    before = dict(matplotlib.rcParams)
    DRAWINGS[name](first)
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "image.cmap": "jet", "savefig.dpi": 20}):
        DRAWINGS[name](second)
    assert first.read_bytes() == second.read_bytes()
    height, width, _ = pixels(first).shape
    assert 700 <= width <= 1300
    assert 300 <= height <= 1700
    with Image.open(first) as picture:
        assert not {"Software", "Creation Time", "date"} & set(picture.info)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["first.png", "second.png"]


@pytest.mark.parametrize("name", ["feature maps", "vector"])
def test_a_place_that_cannot_be_written_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        DRAWINGS[name](tmp_path / "file" / "plot.png")


def drawn_in(folder: Path) -> list[str]:
    """The files of a folder that are pictures with something on them: of more than nine colours."""
    return [
        path.name
        for path in sorted(folder.iterdir())
        if Image.fromarray(pixels(path)).getcolors(maxcolors=9) is None
    ]


def test_titles_may_hold_anything(tmp_path: Path) -> None:
    title = "$x_1$ \\frac{ 夜 <b>&amp; \n\x00" + "very long " * 30
    plots.feature_maps(tmp_path / "a.png", MAPS, title)
    plots.vector(tmp_path / "b.png", MAPS[0, 0], title)
    plots.input_heatmap(tmp_path / "c.png", GREY, title)
    assert drawn_in(tmp_path) == ["a.png", "b.png", "c.png"]


# ---- Feature maps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["shared", "per-map"])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 5, 5),
        (1, 1, 1),
        (3, 4, 90),
        (2, 90, 4),
        (16, 30, 30),
        (100, 1, 1),
        (2, 300, 200),
        (512, 3, 3),
        (5, 1, 700),
    ],
    ids=str,
)
def test_any_number_of_maps_of_any_size_fits(shape: tuple[int, ...], scale: Any, tmp_path: Path) -> None:
    path = tmp_path / "maps.png"
    plots.feature_maps(path, np.random.default_rng(1).normal(size=shape).astype(np.float32), "Layer", scale)
    height, width, _ = pixels(path).shape
    assert 700 <= width <= 1200
    assert 200 <= height <= 4000


@given(count=st.integers(1, 300), height=st.integers(1, 400), width=st.integers(1, 400))
def test_a_grid_has_room_for_every_map_and_no_empty_row(count: int, height: int, width: int) -> None:
    grid = arrange(count, height, width, 1120, 420, 12, 30)
    assert grid.columns * (grid.rows - 1) < count <= grid.columns * grid.rows
    assert grid.width <= 1120
    corners = {grid.corner(index) for index in range(count)}
    assert len(corners) == count
    assert max(top for top, _ in corners) + grid.tile_height <= grid.height


def test_dead_channels_are_hatched_named_and_counted(tmp_path: Path) -> None:
    maps = np.maximum(MAPS, 0)
    alive = tmp_path / "alive.png"
    plots.feature_maps(alive, maps, "Convolution 1")
    assert not has_colour(pixels(alive), HATCH)
    maps[2], maps[5] = 0, 1.5
    assert dead_channels(maps) == (2, 5)
    title, facts = header(maps, "Convolution 1", tuple(range(6)))
    assert title == "Convolution 1 — 2 of 6 flat in this picture"
    assert "flat (hatched): 2, 5" in facts
    dead = tmp_path / "dead.png"
    plots.feature_maps(dead, maps, "Convolution 1")
    assert has_colour(pixels(dead), HATCH)


def test_one_position_is_dead_only_at_zero() -> None:
    assert dead_channels(np.array([0.0, 2.0, -1.0, np.nan]).reshape(4, 1, 1)) == (0,)


def test_broken_maps_are_magenta_and_not_called_dead(tmp_path: Path) -> None:
    maps = MAPS.copy()
    maps[1, 3, 4], maps[4] = np.inf, np.nan
    assert dead_channels(maps) == ()
    assert "NaN or infinite (magenta): 1, 4" in header(maps, "Convolution 1", tuple(range(6)))[1]
    for scale in ("shared", "per-map"):
        path = tmp_path / f"{scale}.png"
        plots.feature_maps(path, maps, "Convolution 1", scale)  # type: ignore[arg-type]
        assert has_colour(pixels(path), MAGENTA)


def test_nothing_finite_at_all_can_be_drawn(tmp_path: Path) -> None:
    broken = np.full((3, 6, 6), np.nan, np.float32)
    plots.feature_maps(tmp_path / "a.png", broken, "Layer", "shared")
    plots.vector(tmp_path / "b.png", broken[0, 0], "Layer")
    plots.activations(tmp_path / "c.png", broken[0], "Layer")
    plots.input_image_visualizations(tmp_path / "d.png", PICTURE, broken[0])
    plots.loaded_image_verification(tmp_path / "e.png", PICTURE, PICTURE, [], broken)
    assert drawn_in(tmp_path) == ["a.png", "b.png", "c.png", "d.png", "e.png"]


def test_a_shared_scale_compares_maps_and_an_own_scale_does_not(tmp_path: Path) -> None:
    maps = np.stack([MAPS[0], MAPS[0] / 4])
    brightest = {}
    for scale in ("shared", "per-map"):
        plots.feature_maps(tmp_path / "maps.png", maps, "Layer", scale)  # type: ignore[arg-type]
        yellow = (pixels(tmp_path / "maps.png") == colours()[255]).all(axis=-1)
        brightest[scale] = np.count_nonzero(yellow[140:])  # below the colour bar
    assert brightest["per-map"] == 2 * brightest["shared"] > 0
    grid = arrange(2, 12, 17, 1120, 420, 12, 30)
    shared = [tile(each, grid, finite_range(maps), colours(), dead=False) for each in maps]
    own = [tile(each, grid, finite_range(each), colours(), dead=False) for each in maps]
    assert not np.array_equal(shared[0], shared[1])
    assert np.array_equal(own[0], own[1])
    # The ends of the colour bar are the ends of the range.
    assert has_colour(own[0], tuple(colours()[0]))
    assert has_colour(own[0], tuple(colours()[255]))


def test_beyond_256_the_strongest_are_shown_and_it_says_so() -> None:
    maps = np.zeros((300, 2, 2), np.float32)
    maps[44:] = np.arange(1, 257)[:, None, None] * np.array([[1, -1], [1, -1]])
    shown = choose_channels(maps)
    assert shown == tuple(range(44, 300))
    assert "the 256 strongest shown" in header(maps, "Layer", shown)[1]
    assert "44 of 300 flat in this picture" in header(maps, "Layer", shown)[0]


SIZES = st.tuples(st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=40)
@given(
    values=arrays(
        np.float32, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.floats(-9, 9, width=32)
    ),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_resizing_keeps_the_mean_and_the_range(values: Any, height: int, width: int) -> None:
    result = fit(values, height, width)
    assert result.shape == (height, width)
    assert np.isclose(result.mean(), values.mean(dtype=np.float64), atol=1e-5)
    assert values.min() - 1e-6 <= result.min()
    assert result.max() <= values.max() + 1e-6


def test_resizing_loses_no_broken_pixel() -> None:
    values = np.ones((50, 50))
    values[31, 7] = np.nan
    for size in (5, 8, 50, 100, 130):
        assert np.isnan(fit(values, size, size)).any()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.125, "−0.125"), (123456.0, "1.23e5"), (1e-9, "1e−9"), (-2.5e-12, "−2.5e−12")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("shape", [(3, 4), (0, 4, 4), (2, 3, 4, 5), ()], ids=str)
def test_what_is_no_stack_of_maps_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"\(C, H, W\)"):
        plots.feature_maps(tmp_path / "maps.png", np.zeros(shape), "Layer 3")
    with pytest.raises(ShapeError, match="1 to 4 axes"):
        plots.activations(tmp_path / "maps.png", np.zeros((1,) * 5), "Layer 3")
    assert list(tmp_path.iterdir()) == []


# ---- The input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [np.zeros((9, 9)), np.ones((1, 1)), GREY[:1], GREY[:, :1]], ids=lambda v: str(v.shape)
)
def test_flat_and_tiny_inputs_can_be_drawn(value: Any, tmp_path: Path) -> None:
    plots.input_image_visualizations(tmp_path / "d.png", PICTURE, value)
    assert drawn_in(tmp_path) == ["d.png"]


@pytest.mark.parametrize("draw", [plots.input_heatmap, plots.input_contour, plots.input_surface])
def test_the_input_is_upright(draw: Any, tmp_path: Path) -> None:
    grey = np.zeros((60, 60), np.float32)
    grey[:30] = 1  # bright above, dark below
    draw(tmp_path / "plot.png", grey)
    image = pixels(tmp_path / "plot.png")[150:, 60:720].astype(int)
    yellow = np.abs(image - np.array([253, 231, 37])).max(axis=-1) < 60
    purple = np.abs(image - np.array([68, 1, 84])).max(axis=-1) < 60
    assert yellow.any()
    assert np.nonzero(yellow)[0].mean() < np.nonzero(purple)[0].mean() - 50


def test_an_input_of_three_channels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"one channel \(H, W\)"):
        plots.input_heatmap(tmp_path / "plot.png", PICTURE)


# ---- The features of a model --------------------------------------------------------------------------


def conv(ins: int, outs: int) -> Conv:
    return Conv(RNG.normal(size=(outs, ins, 3, 3)), padding=((1, 1), (1, 1)), activation=Activation("relu"))


MODEL = Model(
    Chain(
        (
            conv(1, 4),
            SkipConnection(Chain((conv(4, 4), Activation("relu"))), Connection("add")),
            ConvTranspose(RNG.normal(size=(4, 2, 2, 2)), stride=(2, 2)),
            Flatten(),
            Dense(RNG.normal(size=(3, 2 * 16 * 16))),
        )
    )
)
TRACE = {
    "0": RNG.normal(size=(2, 4, 8, 8)),
    "1.0.0": RNG.normal(size=(2, 4, 8, 8)),
    "1.0.1": RNG.normal(size=(2, 4, 8, 8)),
    "1.0": RNG.normal(size=(2, 4, 8, 8)),
    "1": RNG.normal(size=(2, 4, 8, 8)),
    "2": RNG.normal(size=(2, 2, 16, 16)),
    "3": RNG.normal(size=(2, 512)),
    "4": RNG.normal(size=(2, 3)),
}
TRACE["0"][0, 2] = 0


def into(folder: Path) -> Make:
    def make(name: str, write: Callable[[Path], object]) -> Path:
        write(folder / name)
        return folder / name

    return make


def test_every_convolution_has_its_numbered_file(tmp_path: Path) -> None:
    assert convolutions(MODEL) == ["0", "1.0.0", "2"]
    drawn = feature_plots(TRACE, MODEL, into(tmp_path), chosen_layers(MODEL, "conv"))
    names = [f"conv_layer_{n}_feature_maps.png" for n in (1, 2, 3)]
    assert [figure.path.name for figure in drawn] == names
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    assert [figure.layer for figure in drawn] == ["0", "1.0.0", "2"]
    assert [figure.dead for figure in drawn] == [(2,), (), ()]
    assert drawn[0].title.startswith("Convolution 1 · Conv 3")
    assert drawn[2].title.startswith("Convolution 3 · ConvTranspose 2")
    assert drawn[2].shape == (2, 16, 16)
    assert drawn[2].high == TRACE["2"][0].max()


def test_any_layer_can_be_drawn(tmp_path: Path) -> None:
    drawn = feature_plots(TRACE, MODEL, into(tmp_path), chosen_layers(MODEL, "all"))
    assert {figure.layer for figure in drawn} == set(TRACE)
    files = {figure.layer: figure.path for figure in drawn}
    assert files["1.0.1"].name == "layer_1-0-1_feature_maps.png"
    assert files["1.0.0"].name == "conv_layer_2_feature_maps.png"
    assert len(set(files.values())) == len(TRACE)
    assert all(file.is_file() for file in files.values())
    (tmp_path / "one").mkdir()
    chosen = feature_plots(TRACE, MODEL, into(tmp_path / "one"), chosen_layers(MODEL, "4, 1.0"))
    assert [figure.layer for figure in chosen] == ["4", "1.0"]


def test_a_layer_or_scale_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no layer '7\.1'"):
        chosen_layers(MODEL, "0,7.1")
    with pytest.raises(UsageError, match="per-map or shared"):
        feature_plots(TRACE, MODEL, into(tmp_path), ("0",), "log")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
