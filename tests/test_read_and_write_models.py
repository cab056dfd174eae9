"""Models go to files and come back the same: every layer, every record beside the layers, both formats."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from diptych import formats
from diptych.errors import FormatError, ModelError, OutputError, UsageError
from diptych.model import architectures
from diptych.model.document import from_document, to_document
from diptych.model.layers import Activation, Chain, Conv, Dense, Flatten, Scale, SkipConnection, Softmax
from diptych.model.model import Model, Source
from diptych.preprocessing import NAMES, named
from layer_cases import TABLE, Weights, case

# The formats that carry our own document; Flux's have their own tests.
BOTH = [
    suffix
    for f in formats.FORMATS
    if f.can_read and f.can_write and not f.module.startswith("flux.")
    for suffix in f.suffixes
]


def again(model: Model, path: Path) -> Model:
    formats.write(model, path)
    return formats.read(path)


def assert_same(a: Model, b: Model) -> None:
    document, arrays = to_document(a)
    other_document, other_arrays = to_document(b)
    assert json.dumps(document) == json.dumps(other_document)
    assert arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        assert other_arrays[name].dtype == array.dtype.newbyteorder("=")
        assert other_arrays[name].shape == array.shape
        assert np.array_equal(other_arrays[name], array, equal_nan=True)


def small(**changes: Any) -> Model:
    w = Weights(0)
    last = (Flatten(), Dense(w(2, 144), w(2)), Softmax())
    layers = Chain((Conv(w(4, 3, 3, 3), w(4)), Activation("relu"), *last))
    return Model(layers, **({"input_shape": (3, 8, 8)} | changes))


@pytest.mark.parametrize("suffix", BOTH)
@pytest.mark.parametrize("name", TABLE)
def test_every_layer_comes_back_bit_for_bit(name: str, suffix: str, tmp_path: Path) -> None:
    model, _ = case(name)
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    loaded = again(model, first)
    assert_same(model, loaded)
    formats.write(loaded, second)
    assert first.read_bytes() == second.read_bytes()
    assert [p.name for p in sorted(tmp_path.iterdir())] == [first.name, second.name]


@pytest.mark.parametrize("suffix", BOTH)
@pytest.mark.parametrize("recipe", [None, *NAMES])
def test_what_travels_with_the_layers_comes_back(suffix: str, recipe: str | None, tmp_path: Path) -> None:
    model = small(
        name="clouds – ☁",
        classes=("a", "ü, with comma"),
        trained=False,
        preprocessing=recipe and named(recipe),
        source=Source("bson", "Flux", "0.13.4", ("kernels were flipped",), {"epoch": 3, "loss": [0.5, 0.25]}),
        notes={"accuracy": 0.97, "confusion": [[1, 0], [0, 1]], "seed": None},
    )
    loaded = again(model, tmp_path / f"m{suffix}")
    assert (loaded.name, loaded.classes, loaded.trained) == (model.name, model.classes, False)
    assert (loaded.preprocessing, loaded.input_shape) == (model.preprocessing, (3, 8, 8))
    assert (loaded.source, loaded.notes) == (model.source, model.notes)


@pytest.mark.parametrize("suffix", BOTH)
@pytest.mark.parametrize("shape", [None, (3, None, None), (3, 8, 8)])
@pytest.mark.parametrize("trained", [None, True, False])
def test_unknown_sizes_and_training_stay_unknown(
    suffix: str, shape: Any, trained: bool | None, tmp_path: Path
) -> None:
    model = Model(Chain((Conv(Weights(0)(4, 3, 3, 3)),)), input_shape=shape, trained=trained)
    loaded = again(model, tmp_path / f"m{suffix}")
    assert (loaded.input_shape, loaded.trained) == (shape, trained)


@pytest.mark.parametrize("suffix", BOTH)
def test_tied_layers_and_tied_weights_stay_tied(suffix: str, tmp_path: Path) -> None:
    conv = Conv(Weights(0)(3, 3, 1, 1))
    other = Conv(conv.weight, stride=(2, 2))
    relu = Activation("relu")
    block = Chain((conv, relu))
    layers = Chain((block, SkipConnection(relu), other, block, Activation("relu")))
    a, b, c, d, e = again(Model(layers, input_shape=(3, 4, 4)), tmp_path / f"m{suffix}").layers.layers
    assert a is d
    assert b.children[0] is a.children[1]
    assert c is not a.children[0]
    assert c.weight is a.children[0].weight  # type: ignore[attr-defined]
    assert e is not b.children[0]


@pytest.mark.parametrize("suffix", BOTH)
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
def test_each_float_type_is_kept_and_the_byte_order_is_not(suffix: str, dtype: str, tmp_path: Path) -> None:
    weight = np.linspace(-1, 1, 6).reshape(2, 3).astype(dtype)
    model = Model(Chain((Dense(weight),)), input_shape=(3,))
    assert_same(model, again(model, tmp_path / f"m{suffix}"))


@pytest.mark.parametrize("suffix", BOTH)
def test_weights_that_are_views_or_single_numbers(suffix: str, tmp_path: Path) -> None:
    every_other = Weights(0)(4, 6)[::2, ::3].T  # neither C nor Fortran order
    infinite = Activation("clamp", (-np.inf, np.inf))
    layers = Chain((Dense(every_other), Scale(np.array(2.5, np.float32)), infinite))
    model = Model(layers, input_shape=(2,))
    assert_same(model, again(model, tmp_path / f"m{suffix}"))


@pytest.mark.slow
def test_the_shipped_architectures_and_the_size_of_their_files(tmp_path: Path) -> None:
    for name in architectures.NAMES:
        model = architectures.named(name)
        for suffix in BOTH:
            loaded = again(model, tmp_path / f"{name}{suffix}")
            assert_same(model, loaded)
            weights = sum(a.nbytes for a in to_document(model)[1].values())
            assert weights < (tmp_path / f"{name}{suffix}").stat().st_size < weights + 16_000


def test_safetensors_arrays_are_views_of_one_buffer(tmp_path: Path) -> None:
    arrays = again(small(), tmp_path / "m.safetensors").weights().values()
    owners = set()
    for array in arrays:
        while isinstance(array.base, np.ndarray):
            array = array.base
        owners.add(id(array))
    assert len(owners) == 1


def test_whole_numbers_from_numpy_are_written_as_numbers(tmp_path: Path) -> None:
    weight = Weights(0)(2, 1, 3)
    conv = Conv(weight, stride=(np.int64(2),), padding=((np.int32(1), 0),))  # type: ignore[arg-type]
    loaded = again(Model(Chain((conv,)), input_shape=(1, 9)), tmp_path / "m.safetensors")
    assert loaded.layers.layers[0].stride == (2,)  # type: ignore[attr-defined]


def test_extras_that_json_cannot_hold_are_left_out(tmp_path: Path) -> None:
    source = Source(extras={"epoch": 1, "optimiser": np.zeros(3), "loss": float("nan")})
    assert again(small(source=source), tmp_path / "m.onnx").source.extras == {"epoch": 1}


# ---- Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.onnx", None, "there is no file"),
        ("empty.safetensors", b"", "is empty"),
        ("photo.onnx", b"\x89PNG\r\n\x1a\n" + bytes(64), "a picture"),
        ("page.safetensors", b"<!DOCTYPE html><html>", "web page"),
        ("pointer.bson", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        ("array.pt", b"\x93NUMPY" + bytes(80), "a NumPy array"),
        ("noise.onnx", b"\xff" * 100, "damaged or cut off"),
        ("noise", b"\xff" * 100, "not a model file that Diptych can read"),
    ],
)
def test_what_is_no_readable_model_is_refused(
    name: str, content: bytes | None, words: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=words) as caught:
        formats.read(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


CONTENTS = {
    "PyTorch": b"PK\x03\x04" + b"\0" * 26 + b"archive/data.pkl" + bytes(99),
    "BSON (Flux)": b"\x05\0\0\0\0",
    "JLD2 (Flux)": b"HDF5-based Julia Data Format, version 0.1.0" + bytes(500),
}
UNREADABLE = [f for f in formats.FORMATS if not f.can_read]


@pytest.mark.parametrize("unreadable", UNREADABLE, ids=[f.name for f in UNREADABLE])
def test_a_format_that_cannot_be_read_yet_says_so(unreadable: formats.Format, tmp_path: Path) -> None:
    path = tmp_path / f"m{unreadable.suffixes[0]}"
    path.write_bytes(CONTENTS[unreadable.name])
    with pytest.raises(FormatError, match=r"cannot read; save the model as one of \.safetensors"):
        formats.read(path)
    if not unreadable.can_write:
        with pytest.raises(UsageError, match="models are written as"):
            formats.write(small(), path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is a folder"):
        formats.read(tmp_path)


@pytest.mark.parametrize("suffix", [*BOTH, ""])
def test_a_pipe_is_refused_without_waiting_for_it(suffix: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    with pytest.raises(FormatError, match="is a pipe or a device"):
        formats.read(tmp_path / f"pipe{suffix}")


@pytest.mark.parametrize("suffix", [suffix for suffix in BOTH if suffix != ".pth"])
@pytest.mark.parametrize("other", [".bson", ".jld2", ".pt", ".safetensors", ".onnx"])
def test_a_file_under_the_wrong_name_is_told_by_its_content(suffix: str, other: str, tmp_path: Path) -> None:
    formats.write(small(), tmp_path / f"m{suffix}")
    wrong = tmp_path / f"wrong{other}"
    (tmp_path / f"m{suffix}").rename(wrong)
    if suffix == other:
        assert_same(small(), formats.read(wrong))
        return
    with pytest.raises(FormatError, match=f"seems to be .*rename it to wrong{suffix}"):
        formats.read(wrong)
    nameless = wrong.rename(tmp_path / "nameless")
    assert_same(small(), formats.read(nameless))


def test_foreign_safetensors_say_what_is_missing(tmp_path: Path) -> None:
    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "m.safetensors", {"format": "pt"})
    with pytest.raises(FormatError, match=r"holds weights alone, 1 arrays.*--architecture.*w 3"):
        formats.read(tmp_path / "m.safetensors")


@pytest.mark.parametrize("name", ["m.txt", "m", "m.png", ".onnx"])
def test_an_unknown_suffix_names_the_known_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.safetensors, \.onnx"):
        formats.write(small(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_to_write_points_at_the_julia_project() -> None:
    with pytest.raises(
        UsageError, match=r"proj has no suffix.*Julia project, a folder, use diptych\.convert"
    ):
        formats.write(small(), "proj/")


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no option 'colour'"):
        formats.write(small(), tmp_path / "m.onnx", colour="red")


@pytest.mark.parametrize("suffix", BOTH)
def test_a_folder_in_the_way_is_an_output_error(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"m{suffix}").mkdir()
    with pytest.raises(OutputError):
        formats.write(small(), tmp_path / f"m{suffix}")
    assert [p.name for p in tmp_path.iterdir()] == [f"m{suffix}"]


@pytest.mark.parametrize("suffix", BOTH)
@pytest.mark.parametrize("shape", [(3, 8, 8), None])
def test_a_class_list_of_the_wrong_length_is_refused(suffix: str, shape: Any, tmp_path: Path) -> None:
    model = small(classes=("a", "b", "c")).with_(input_shape=shape)
    with pytest.raises(ModelError, match=r"gives 2 outputs but the class list has 3 names"):
        formats.write(model, tmp_path / f"m{suffix}")
    document, arrays = to_document(small(classes=("a", "b")))
    with pytest.raises(ModelError, match=r"gives 2 outputs but the class list has 1 names"):
        from_document(document | {"classes": ["a"]}, arrays)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"notes": {"x": {1, 2}}}, "the notes of the model must be plain JSON"),
        ({"notes": {"x": float("nan")}}, "the notes of the model must be plain JSON"),
        (
            {"layers": Chain((Conv(np.zeros((2, 3, 1, 1), np.int8)),))},
            "layer 0 .Conv.: weights must be float16",
        ),
        ({"layers": Chain((Dense(np.zeros((2, 3), np.float32), np.zeros(3, np.float32)),))}, "'bias'"),
        ({"input_shape": (4, 8, 8)}, "does not take the input shape"),
    ],
)
def test_a_model_that_contradicts_itself_is_not_written(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=words):
        formats.write(small().with_(**changes), tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_layers_nested_too_deep_are_not_written(tmp_path: Path) -> None:
    def nested(depth: int) -> Model:
        layer = Chain((Activation("relu"),))
        for _ in range(depth):
            layer = Chain((layer,))
        return Model(layer, input_shape=(3,))

    assert_same(nested(63), again(nested(63), tmp_path / "m.safetensors"))
    with pytest.raises(ModelError, match="deeper than 64"):
        formats.write(nested(64), tmp_path / "deeper.safetensors")


def test_weights_alone_are_remarked_and_what_refuses_them_speaks_to_both(tmp_path: Path) -> None:
    (remark,) = formats.write(Model(Chain((Dense(np.eye(2, dtype=np.float32)),))), tmp_path / "a.jld2")
    assert "holds weights alone" in remark
    with pytest.raises(FormatError, match=r"--architecture \(in Python architecture= of diptych.read\)"):
        formats.read(tmp_path / "a.jld2")
