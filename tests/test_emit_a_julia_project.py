"""The Julia project of a model: what is in the folder, and that its Julia computes what we compute.

The Julia runs in a small interpreter of our own (`julia_interpreter.py`), and in Julia itself where there is one.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diptych
from diptych import engines
from diptych.cli.terminal import predictions_text
from diptych.datasets import photographs as pictures
from diptych.errors import ModelError, OutputError, UsageError
from diptych.formats import julia_project
from diptych.formats.julia_project.recipe import preprocess_text
from diptych.model.layers import Chain, Conv, Dense, Flatten, GlobalMeanPool
from diptych.model.model import Model
from diptych.predicting import predict_files
from diptych.predictions import Predictions
from diptych.preprocessing import KERNELS, NAMES, Preprocessing, named
from diptych.preprocessing.steps import (
    FITS,
    FREE_FITS,
    CentreCrop,
    Colour,
    Grey,
    Light,
    LowPass,
    Normalise,
    Resize,
    Scale,
    SpatialOrder,
    Standardise,
)
from layer_cases import TABLE, case
from real_julia import command, needs_flux, needs_julia

pytest.importorskip(
    "tree_sitter_julia", reason="the Julia grammar is not installed: pip install 'diptych[dev]'"
)

from julia_builtins import defined, program
from julia_interpreter import compile_text, functions_of
from julia_numbers import JuliaError


def export(model: Model, folder: Path, batch: Any = None) -> Path:
    x = julia_project.example_batch(model) if batch is None else batch
    julia_project.write(model, folder, engines.compile(model, "numpy").trace(x))
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier in the box as a project."""
    return export(
        diptych.read(diptych.loading.TRAINED["scenes"]), tmp_path_factory.mktemp("julia") / "scenes"
    )


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---- The network ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_every_layer_computes_what_the_reference_does(name: str, tmp_path: Path) -> None:
    model, batch = case(name)
    folder = export(model, tmp_path / "project", batch)
    julia = program(folder / "arrays.jl", folder / "layers.jl", folder / "model.jl")
    seen: dict[str, Any] = {}
    with np.errstate(all="ignore"):
        julia.get("walk")(seen.__setitem__, julia.get("build_model")(), batch.T)
    assert [*seen, "input"] == [*engines.compile(model, "numpy").trace(batch), "input"]
    for path, y in seen.items():
        expected = np.load(folder / "expected" / f"{path}.npy")
        assert y.T.shape == expected.shape
        assert y.dtype == np.float32
        assert np.abs(y.T - expected).max() <= 1e-5 * max(1, np.abs(expected).max()), path


def test_weights_lie_in_fluxs_orientation(tmp_path: Path) -> None:
    kernel = np.arange(2 * 1 * 2 * 3, dtype=np.float32).reshape(2, 1, 2, 3)
    dense = np.arange(8, dtype=np.float32).reshape(4, 2)
    model = Model(Chain((Conv(kernel), GlobalMeanPool(), Dense(dense[:1, :1].copy()))), input_shape=(1, 5, 5))
    weight = np.load(export(model, tmp_path / "p") / "weights" / "0.weight.npy")
    assert weight.shape == (2, 1, 2, 3)  # (3, 2, 1, 2) in Julia: width, height, in, out
    assert np.array_equal(weight, kernel[:, :, ::-1, ::-1])
    features = (
        export(Model(Chain((Dense(dense),)), input_shape=(2,)), tmp_path / "q") / "weights" / "0.weight.npy"
    )
    assert np.array_equal(np.load(features), dense.T)


def test_shared_arrays_are_stored_once_and_stay_shared(tmp_path: Path) -> None:
    folder = export(case("tied")[0], tmp_path / "p")
    assert sorted(p.name for p in (folder / "weights").iterdir()) == ["0.bias.npy", "0.weight.npy"]
    assert (folder / "model.jl").read_text().count('w("0.weight")') == 3


# ---- The recipe ----------------------------------------------------------------------------------------------

RECIPES: dict[str, Preprocessing] = {
    **{f"{k}-{h}x{w}": Preprocessing((Resize(h, w, k),)) for k in KERNELS for h, w in ((4, 5), (12, 6))},
    **{f"{k}-float": Preprocessing((Scale(), Resize(4, 6, k, round=False))) for k in KERNELS},
    **{
        f"{k}-{fit}": Preprocessing((Resize(4, 6, k, fit=fit, fill=9),))
        for k in ("imresize", "pillow-bilinear")
        for fit in (*FITS, *FREE_FITS)
    },
    **{f"grey-{w}": Preprocessing((Grey(w), Scale())) for w in ("julia", "pillow", "opencv", "float")},
    "pad-after-scale": Preprocessing((Scale(), Resize(9, 5, "nearest", fit="pad", round=False, fill=77))),
    "centre-crop": Preprocessing((Resize(8, 8, "pillow-bicubic", "cover"), CentreCrop(5, 7), Scale())),
    "centre-padded": Preprocessing((Resize(8, 7, "imresize", "contain"), CentreCrop(9, 6, (7,)), Scale())),
    "centre-after-scale": Preprocessing((Scale(), CentreCrop(20, 4, (9,)))),
    "grey-after-resize": Preprocessing(
        (Resize(5, 6, "imresize"), Grey("julia"), Scale(), SpatialOrder("wh"))
    ),
    "colour": Preprocessing((Colour(), Scale(), Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))),
    "normalise-one": Preprocessing((Grey("pillow"), Scale(), Normalise((0.5,), (0.25,)))),
    "nothing": Preprocessing(()),
}


def picture(grey: bool) -> Any:
    """A piece of a photograph, 11 x 9, neither square nor even."""
    whole = pictures.photograph("coffee")[40:51, 200:209]
    return np.ascontiguousarray(whole[..., 1] if grey else whole)


def with_recipe(recipe: Preprocessing | None) -> Model:
    return Model(Chain((GlobalMeanPool(),)), recipe, input_shape=(3, 4, 5))


@pytest.mark.slow
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_is_ours_to_a_millionth(name: str, grey: bool, tmp_path: Path) -> None:
    folder = export(with_recipe(RECIPES[name]), tmp_path / "p")
    result = program(folder / "preprocess.jl").get("preprocess")(picture(grey))
    expected = RECIPES[name].apply(picture(grey))
    assert result.dtype == np.float32
    assert result.T.shape == expected.shape
    assert np.abs(result.T - expected).max() <= 1e-6 * max(1, np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_by_name_becomes_julia(name: str, tmp_path: Path) -> None:
    folder = export(with_recipe(named(name)), tmp_path / "p")
    assert (folder / "preprocess.jl").read_text() == preprocess_text(named(name))
    assert callable(program(folder / "preprocess.jl").get("preprocess"))
    # The same steps to a smaller picture, for the interpreter's sake.
    steps = named(name).steps
    small = Preprocessing(
        tuple(replace(step, height=6, width=5) if isinstance(step, Resize) else step for step in steps)
    )
    result = defined(preprocess_text(small)).get("preprocess")(picture(False)).T
    expected = small.apply(picture(False))
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() <= 1e-6 * max(1, np.abs(expected).max())


@given(st.tuples(*[st.integers(4, 9)] * 4), st.sampled_from(["linear", "area", "cubic"]), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_opencvs_kernels_at_every_size(sizes: tuple[int, ...], kernel: str, seed: int) -> None:
    h, w, height, width = sizes
    pixels = np.random.default_rng(seed).integers(0, 256, (h, w), np.uint8)
    for whole in (True, False):
        recipe = Preprocessing((Resize(height, width, f"opencv-{kernel}", round=whole),))
        ours = defined(preprocess_text(recipe)).get("preprocess")(pixels).T
        expected = recipe.apply(pixels)
        if kernel in ("cubic", "area") and whole:  # a sum that lies at a half may be rounded to either side
            assert np.abs(ours - expected).max() <= 1
            assert (ours != expected).mean() < 0.1
        else:
            assert np.abs(ours - expected).max() <= (0 if whole else 255e-6)


LEVELS = {
    "standardised": (Scale(), Standardise(1e-3, True)),
    "low-pass": (LowPass(8, 12), Resize(8, 12, "imresize", round=False), Scale()),
    "low-pass, in grey": (Grey("float"), LowPass(8, 12), Resize(8, 12, "imresize", round=False), Scale()),
    "in linear light": (
        Light("linear"),
        Resize(8, 12, "pillow-bilinear", round=False),
        Light("srgb"),
        Scale(),
    ),
    "light behind a scale": (Scale(), Light("linear"), Light("srgb")),
}


@pytest.mark.parametrize("name", LEVELS)
def test_steps_that_change_levels(name: str) -> None:
    recipe = Preprocessing(LEVELS[name])
    result = defined(preprocess_text(recipe)).get("preprocess")(picture(False)).T
    np.testing.assert_allclose(result, recipe.apply(picture(False)), rtol=1e-5, atol=5e-6)


def test_without_a_recipe_pictures_are_refused(tmp_path: Path) -> None:
    folder = export(with_recipe(None), tmp_path / "p")
    with pytest.raises(JuliaError, match="carries no recipe"):
        program(folder / "preprocess.jl").get("preprocess")(picture(False))


# ---- Arrays --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2", "|u1", "<i8", "|b1"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4), (5,)], ids=str)
def test_numpys_files_are_read_with_the_axes_reversed(
    dtype: str, order: Any, shape: tuple[int, ...], tmp_path: Path, scenes: Path
) -> None:
    array = (np.random.default_rng(0).random(shape) * 9).astype(dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(program(scenes / "arrays.jl").get("read_npy")(str(tmp_path / "a.npy")), array.T)


def test_what_julia_writes_numpy_reads(tmp_path: Path, scenes: Path) -> None:
    array = np.random.default_rng(0).random((5, 4, 3, 2), np.float32)
    program(scenes / "arrays.jl").get("write_npy")(str(tmp_path / "a.npy"), array)
    assert np.array_equal(np.load(tmp_path / "a.npy"), array.T)
    assert ((tmp_path / "a.npy").read_bytes().index(b"\n") + 1) % 64 == 0


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"PK\x03\x04 not an array at all", "is no .npy file"),
        (None, "there is no file"),
        ("cut", "is cut off"),
        (np.ones(3, ">f4"), "no plain little-endian numbers"),
        (np.ones(3, "<c8"), "no plain little-endian numbers"),
    ],
    ids=["another-kind", "missing", "cut", "big-endian", "complex"],
)
def test_a_bad_array_is_refused_in_words(bad: Any, said: str, tmp_path: Path, scenes: Path) -> None:
    path = tmp_path / "a.npy"
    if isinstance(bad, bytes):
        path.write_bytes(bad)
    elif bad is not None:
        np.save(path, np.ones(3, np.float32) if isinstance(bad, str) else bad)
        path.write_bytes(path.read_bytes()[: -4 if isinstance(bad, str) else None])
    with pytest.raises(JuliaError, match=said):
        program(scenes / "arrays.jl").get("read_npy")(str(path))


# ---- The table ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["probability", "score", "two-classes", "ties"])
def test_the_table_is_that_of_diptych_predict(kind: str, tmp_path: Path) -> None:
    values = np.random.default_rng(5).random((3, 2 if kind == "two-classes" else 5), np.float32)
    outputs = values / values.sum(1, keepdims=True) if kind == "probability" else values - np.float32(0.5)
    outputs = np.round(outputs) if kind == "ties" else outputs
    classes = tuple(f"class of number {i}" for i in range(outputs.shape[1]))
    model = with_recipe(None).with_(name="little", classes=classes, trained=None if kind == "ties" else False)
    folder = export(model, tmp_path / "p")
    julia = program(folder / "about.jl")
    functions_of((folder / "predict.jl").read_text())(julia)
    names = ["a.png", "pictures/longer name.png", "b.png"]
    text = julia.get("predictions_text")(np.asfortranarray(outputs.T), names)
    assert text == predictions_text(Predictions.of(model, outputs, names))


# ---- The folder ----------------------------------------------------------------------------------------------


def test_the_folder_holds_what_its_files_speak_of(scenes: Path) -> None:
    for file in scenes.glob("*.jl"):
        text = file.read_text()
        assert_is_julia(text)
        for name in re.findall(r'(?:include\(|__DIR__, )"([^"]+)"', text):
            assert (scenes / name).exists(), name
        for name in re.findall(r' w\("([^"]+)"\)', text):
            assert (scenes / "weights" / f"{name}.npy").is_file()
    page = (scenes / "README.md").read_text()
    assert "fetches Flux 0.12 to 0.16, whichever your Julia takes" in page
    for name in re.findall(r"`(\w+(?:\.jl|/))`", page):
        assert (scenes / name).exists(), name
    model = diptych.read(diptych.loading.TRAINED["scenes"])
    expected = {p.stem for p in (scenes / "expected").iterdir()}
    assert expected == {"input", *(path for path, _ in model.walk())}
    about = program(scenes / "about.jl")
    assert about.get("CLASSES") == list(model.classes)
    assert about.get("LAYERS")["9"] == "softmax"


def assert_is_julia(text: str) -> None:
    from julia_interpreter import _PARSER

    assert not _PARSER.parse(text.encode()).root_node.has_error


def test_the_grammar_finds_a_missing_end() -> None:
    with pytest.raises(JuliaError, match="no Julia"):
        compile_text("function f(x)\n    if x > 1\n        x\n    end\n")


def test_names_cannot_break_out_of_their_strings(tmp_path: Path) -> None:
    hostile = 'a" ; run(`rm x`) # $(exit()) \\'
    model = case("classifier")[0].with_(name=f"{hostile}\nexit()", classes=(hostile, "b\n\t", "σ"))
    folder = export(model, tmp_path / "p")
    for name in ("about.jl", "model.jl"):
        assert_is_julia((folder / name).read_text())
    text = (folder / "about.jl").read_text()
    assert r'String["a\" ; run(`rm x`) # \$(exit()) \\", "b\U0000000a\U00000009", "σ"]' in text
    assert (folder / "model.jl").read_text().splitlines()[1] == ""


def test_the_same_model_gives_the_same_bytes_and_replaces_an_earlier_export(
    scenes: Path, tmp_path: Path
) -> None:
    export(case("classifier")[0], tmp_path / "scenes")
    again = export(diptych.read(diptych.loading.TRAINED["scenes"]), tmp_path / "scenes")
    assert content(again) == content(scenes)
    assert [p.name for p in tmp_path.iterdir()] == ["scenes"]


def test_a_file_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("mine")
    with pytest.raises(OutputError, match="not an earlier export"):
        export(case("classifier")[0], tmp_path / "p")
    assert (tmp_path / "p").read_text() == "mine"


def test_a_flux_version_binds_the_project(tmp_path: Path) -> None:
    model, batch = case("classifier")
    trace = engines.compile(model, "numpy").trace(batch)
    julia_project.write(model, tmp_path / "p", trace, "0.14")
    assert 'Flux = "0.14"' in (tmp_path / "p" / "Project.toml").read_text()
    with pytest.raises(UsageError, match=r"0\.12, .*, got '0\.9'"):
        julia_project.write(model, tmp_path / "q", trace, "0.9")


class TestTheInputOfTheCheck:
    def test_free_sizes_come_from_the_recipe(self) -> None:
        model = Model(Chain((GlobalMeanPool(),)), named("colour-32"), input_shape=(3, None, None))
        assert julia_project.example_batch(model).shape == (2, 3, 32, 32)

    def test_an_unknown_shape_is_tried_out(self) -> None:
        layers = (
            Conv(np.ones((4, 1, 1, 1), np.float32)),
            Flatten(),
            Dense(np.ones((2, 4 * 7 * 10), np.float32)),
        )
        model = Model(Chain(layers))
        with pytest.raises(ModelError, match="no square shape was found that fits: name it with --shape"):
            julia_project.example_batch(model)
        convolution = Model(Chain((Conv(np.ones((1, 4, 3, 3), np.float32)),)))
        assert julia_project.example_batch(convolution).shape == (2, 4, 32, 32)

    def test_it_is_the_same_each_time(self) -> None:
        model = case("classifier")[0]
        assert np.array_equal(julia_project.example_batch(model), julia_project.example_batch(model))


# ---- Julia itself --------------------------------------------------------------------------------------------


def julia(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command(), *map(str, arguments)], capture_output=True, text=True, timeout=900, check=False
    )


@needs_julia
@pytest.mark.parametrize("name", RECIPES)
def test_julia_itself_computes_the_recipe(name: str, tmp_path: Path) -> None:
    folder = export(with_recipe(RECIPES[name]), tmp_path / "p")
    np.save(tmp_path / "picture.npy", picture(False).T)  # read with the axes reversed, so (H, W, 3)
    script = (
        f'include("{folder}/arrays.jl"); include("{folder}/preprocess.jl"); '
        f'write_npy("{tmp_path}/result.npy", preprocess(read_npy("{tmp_path}/picture.npy")))'
    )
    done = julia("-e", script)
    assert done.returncode == 0, done.stderr
    expected = RECIPES[name].apply(picture(False))
    result = np.load(tmp_path / "result.npy")
    assert np.abs(result - expected).max() <= 1e-6 * max(1, np.abs(expected).max())


@needs_flux
def test_flux_itself_passes_the_check_and_prints_our_table(scenes: Path, tmp_path: Path) -> None:
    assert julia(scenes / "predict.jl", "--check").returncode == 0
    batch = julia_project.example_batch(diptych.read(diptych.loading.TRAINED["scenes"]))
    np.save(tmp_path / "batch.npy", batch)
    done = julia(scenes / "predict.jl", "--input", tmp_path / "batch.npy", "--output", tmp_path / "y.npy")
    assert done.returncode == 0, done.stderr
    assert np.abs(np.load(tmp_path / "y.npy") - diptych.predict("scenes", batch)).max() < 1e-5
    spoiled = export(diptych.read(diptych.loading.TRAINED["scenes"]), tmp_path / "spoiled")
    weight = np.load(spoiled / "weights" / "2.weight.npy")
    np.save(spoiled / "weights" / "2.weight.npy", weight[:, :, ::-1])
    failed = julia(spoiled / "predict.jl", "--check")
    assert failed.returncode == 1
    assert "the first is layer 2" in failed.stdout


@needs_flux
def test_flux_itself_prints_the_table_of_pictures(scenes: Path, photographs: Path) -> None:
    done = julia(scenes / "predict.jl", photographs / "coffee.png")
    if "needs FileIO and ImageIO" in done.stderr:
        pytest.skip("this Julia has no FileIO and ImageIO")
    predictions = predict_files("scenes", [photographs / "coffee.png"]).predictions
    assert predictions is not None
    assert done.stdout.rstrip() == predictions_text(predictions)


@pytest.mark.parametrize("change", ["added", "edited", "deeper"])
def test_what_somebody_did_in_an_earlier_export_is_kept(tmp_path, change):
    folder = tmp_path / "project"
    diptych.convert("scenes", folder)
    (folder / "Manifest.toml").write_text("of Julia")
    diptych.convert("scenes", folder)  # as it was written
    assert (folder / "Manifest.toml").read_text() == "of Julia"
    mine = {"added": "mine.jl", "edited": "predict.jl", "deeper": "weights/mine.txt"}[change]
    (folder / mine).write_text("mine")
    with pytest.raises(OutputError, match=f"in which {mine} was added or changed since"):
        diptych.convert("scenes", folder)
    assert (folder / mine).read_text() == "mine"


def test_a_folder_with_a_file_of_that_name_is_not_replaced(tmp_path):
    for text in ("{}", "", '{"kind": "julia-project"}', "[" * 10**5):
        (tmp_path / "diptych.json").write_text(text)
        with pytest.raises(OutputError, match="not an earlier export"):
            diptych.convert("scenes", tmp_path)
