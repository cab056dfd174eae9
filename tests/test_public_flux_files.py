"""What files in public repositories had that golden files have not: each kind with its right value."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych.__main__ import main
from diptych.errors import FormatError, WeightsAlone
from diptych.formats import bson
from diptych.formats.flux.sizes import layers_of_sizes
from diptych.formats.jld2.structs import _fill
from diptych.formats.julia import JuliaDict, JuliaStruct, JuliaType, NamedTuple

DATA = Path(__file__).parent / "data" / "flux"


def test_a_closure_of_julia_1_1() -> None:
    """Its names are in the `CodeInfo`, and where later Julia has a string is an empty vector."""
    model = diptych.read(DATA / "closure_julia_1_1.bson")
    assert [layer.label for _, layer in model.walk()] == ["Dense 4 -> 3, relu", "softmax, axis -1"]
    y = diptych.predict(model, np.ones((1, 4), np.float32), engine="numpy")
    np.testing.assert_allclose(y, [[0.11887385, 0.76225233, 0.11887385]], rtol=1e-6)


def test_jld2_before_0_4() -> None:
    torch = pytest.importorskip("torch")
    architecture = diptych.from_torch(torch.nn.Sequential(torch.nn.Linear(3, 2)).eval())
    model = diptych.load_model(DATA / "old_header.jld2", architecture=architecture)
    assert model.layers.layers[0].arrays["weight"].shape == (2, 3)


def _pair(second: JuliaType, *fields: object, names: tuple[str, ...] = ()) -> JuliaStruct:
    return JuliaStruct(JuliaType(("Core", "Pair"), (JuliaType(("Core", "Any")), second)), list(fields), names)


def test_pairs_whose_second_value_takes_no_bytes() -> None:
    """The `IdSet` of `Flux.params` is a dictionary of `Pair{Any, Nothing}`, of which JLD2 stores the first value."""
    key, box = np.ones(2), JuliaDict(JuliaType(("Base", "IdDict")))
    nothing, flatten = JuliaType(("Core", "Nothing")), JuliaType(("Flux", "#flatten"))

    def fail(reason: str) -> None:
        raise AssertionError(reason)

    made = _fill(box, [_pair(nothing, key, names=("first",)), _pair(flatten, "f", names=("first",))], fail)  # type: ignore[arg-type]
    assert made.stored_keys[0] is key
    assert made.stored_values[0] is None
    assert made.stored_values[1].type is flatten


STRANGERS = {
    "old.jld": (
        b"Julia data file (HDF5), version 0.1.3\0 (Julia 1.0.3 64-bit LE)\0\0",
        "JLD.jl: load it in Julia",
    ),
    "pointer.bson": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_strangers_have_their_right_name(name: str, tmp_path: Path) -> None:
    head, message = STRANGERS[name]
    (tmp_path / name).write_bytes(head + b"\0" * 600 if name.endswith("jld") else head)
    with pytest.raises(FormatError, match=message):
        diptych.read(tmp_path / name)


def test_torchscript_is_named_wherever_its_parts_are(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name, size in (
            ("data/0", 10_000),
            ("data.pkl", 10),
            ("code/__torch__.py", 10),
            ("constants.pkl", 10),
        ):
            archive.writestr(f"script/{name}", b"x" * size)
    with pytest.raises(FormatError, match=r"is a TorchScript archive: load it with torch.jit.load"):
        diptych.read(tmp_path / "script.pt")


# ---- Which of several ------------------------------------------------------------------------------------


def _dense(inputs: int, outputs: int) -> JuliaStruct:
    random = np.random.default_rng(inputs)
    identity = JuliaStruct(JuliaType(("Base", "#identity")))
    arrays = [random.standard_normal(shape).astype(np.float32) for shape in ((outputs, inputs), (outputs,))]
    return JuliaStruct(JuliaType(("Flux", "Dense"), (JuliaType(("Core", "Any")),)), [*arrays, identity])


def _chain(*layers: JuliaStruct) -> JuliaStruct:
    return JuliaStruct(JuliaType(("Flux", "Chain"), (JuliaType(("Core", "Any")),)), [tuple(layers)])


def _named(**values: object) -> NamedTuple:
    return NamedTuple(tuple(values), tuple(values.values()))


def _state() -> NamedTuple:
    layers = [_dense(4, 3), _dense(3, 2)]
    return _named(layers=tuple(_named(weight=d.fields[0], bias=d.fields[1], σ=()) for d in layers))


def _file(folder: Path, **values: object) -> Path:
    bson.write(dict(values), folder / "several.bson")
    return folder / "several.bson"


def _architecture(folder: Path) -> Path:
    (folder / "model.jl").write_text("m = Chain(Dense(4 => 3, tanh), Dense(3 => 2))\n")
    return folder / "model.jl"


def test_a_model_beside_another_is_said(tmp_path: Path) -> None:
    path = _file(tmp_path, best_model=_chain(_dense(4, 3)), model=_chain(_dense(4, 9)))
    model = diptych.read(path)
    assert [layer.label for _, layer in model.walk()] == ["Dense 4 -> 9"]
    assert (
        "the model was read from model; the file also holds best_model: --key chooses"
        in model.source.warnings
    )
    assert [layer.label for _, layer in diptych.load_model(path, key="best_model").walk()] == ["Dense 4 -> 3"]


def test_a_decoder_beside_an_encoder_of_the_authors_own_is_said(tmp_path: Path) -> None:
    encoder = JuliaStruct(JuliaType(("Main", "Encoder")), [_dense(4, 2)])
    model = diptych.read(_file(tmp_path, decoder=_chain(_dense(2, 4)), encoder=encoder))
    assert "read from decoder; the file also holds encoder" in model.source.warnings[0]


def test_the_weights_that_fit_are_taken_and_said(tmp_path: Path) -> None:
    arrays = [array for d in (_dense(4, 3), _dense(3, 2)) for array in d.fields[:2]]
    path = _file(tmp_path, accuracies=[np.ones(3, np.float32)] * 2, ws=arrays)
    model = diptych.load_model(path, architecture=_architecture(tmp_path))
    np.testing.assert_array_equal(model.weights()["0.weight"], arrays[0])
    assert (
        "the weights are a list of 4 arrays under ws; the file also holds accuracies"
        in model.source.warnings[0]
    )


def test_two_weights_that_fit_are_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, encoder=_state(), decoder=_state())
    architecture = _architecture(tmp_path)
    with pytest.raises(FormatError, match="several weights that fit the architecture: encoder, decoder"):
        diptych.load_model(path, architecture=architecture)
    with pytest.raises(
        FormatError, match=r"under encoder and a state under decoder.*--key \(encoder, decoder\)"
    ):
        diptych.read(path)
    assert diptych.load_model(path, architecture=architecture, key="decoder").parameters == 23


def test_weights_in_a_dictionary_are_found(tmp_path: Path) -> None:
    path = _file(tmp_path, checkpoint={"model_state": _state(), "epoch": 3})
    architecture = _architecture(tmp_path)
    with pytest.raises(FormatError, match=r"a state under checkpoint\.model_state"):
        diptych.read(path)
    for key in (None, "checkpoint.model_state"):
        assert diptych.load_model(path, architecture=architecture, key=key).parameters == 23


@pytest.mark.parametrize(
    "values",
    [
        {"scaling": _named(mean=np.ones(3, np.float32), std=np.ones(3, np.float32))},
        {"results": [np.ones((10, 6), np.float32)]},
        {"X": np.ones((10, 6), np.float32)},
    ],
)
def test_data_are_not_called_weights(values: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"holds no Flux model, but (scaling|results|X)"):
        diptych.read(_file(tmp_path, **values))


def test_a_key_that_is_printed_below_a_key_works(tmp_path: Path) -> None:
    path = _file(tmp_path, net=_chain(_chain(_dense(4, 3)), _dense(3, 2)))
    with pytest.raises(FormatError, match=r"net\.layers\.1, net\.layers\.2"):
        diptych.load_model(path, key="net.layers")
    assert diptych.load_model(path, key="net.layers.2").parameters == 8


def test_parameters_and_states_of_lux_fill_source(tmp_path: Path) -> None:
    random = np.random.default_rng(1)

    def draw(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    conv = _named(weight=np.asfortranarray(draw(3, 3, 1, 2)), bias=draw(2))
    norm, dense = _named(scale=draw(2), bias=draw(2)), _named(weight=draw(3, 8), bias=draw(3, 1))
    statistics = _named(running_mean=draw(2), running_var=np.abs(draw(2)), training=True)
    ps = _named(layer_1=conv, layer_2=norm, layer_3=_named(), layer_4=dense)
    st = _named(layer_1=_named(), layer_2=statistics, layer_3=_named(), layer_4=_named())
    (tmp_path / "lux.jl").write_text(
        "using Lux\nmodel = Chain(Conv((3, 3), 1 => 2), BatchNorm(2), FlattenLayer(), Dense(8 => 3))\n"
    )
    model = diptych.load_model(_file(tmp_path, ps=ps, st=st), architecture=tmp_path / "lux.jl")
    weights = model.weights()
    np.testing.assert_array_equal(weights["0.weight"], conv[0].transpose()[..., ::-1, ::-1])
    np.testing.assert_array_equal(weights["1.scale"], norm[0])
    np.testing.assert_array_equal(weights["1.shift"], norm[1])
    np.testing.assert_array_equal(weights["1.mean"], statistics[0])
    np.testing.assert_array_equal(weights["3.bias"], dense[1][:, 0])
    with pytest.raises(FormatError, match=r"the parameters of Lux under ps.*ps\.layer_1\.weight 3×3×1×2"):
        diptych.read(_file(tmp_path, ps=ps, st=st))


# ---- What every command says ----------------------------------------------------------------------------


def test_every_command_says_once_what_was_guessed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    layers = "Conv((3, 3), 3 => 4), GlobalMeanPool(), Flux.flatten, LayerNorm(4)"
    (tmp_path / "model.jl").write_text(f"m = Chain({layers})\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    model, picture = str(tmp_path / "model.jl"), str(tmp_path / "a.png")
    commands = [
        ["inspect", model],
        ["convert", model, str(tmp_path / "out.safetensors")],
        ["predict", model, picture, "--preprocessing", "colour-8"],
        ["features", model, picture, "--out", str(tmp_path / "f"), "--preprocessing", "colour-8"],
        ["compare", model, model],
    ]
    for command in commands:
        with pytest.raises(SystemExit):
            main(command)
        printed = "".join(capfd.readouterr())
        assert printed.count("is assumed to divide") == 1, command
        assert "--written-by" in printed
    with pytest.raises(SystemExit):
        main([*commands[2], "--written-by", "0.16.9"])
    assert "is assumed to divide" not in "".join(capfd.readouterr())


def test_batch_norm_is_counted_in_one_way(tmp_path: Path) -> None:
    layers = "Conv((3, 3), 3 => 16), BatchNorm(16), GlobalMeanPool(), Flux.flatten"
    (tmp_path / "model.jl").write_text(f"m = Chain({layers})\n")
    summary = diptych.inspect(tmp_path / "model.jl")
    row = summary.rows[1]
    assert (row.parameters, row.statistics) == (32, 32)
    assert "32 + 32" in summary.text()
    assert "# 32 parameters, plus 32" in summary.flux
    assert (summary.parameters, summary.statistics) == (480, 32)
    assert summary.to_document()["layers"][1]["statistics"] == 32
    assert diptych.load_model(tmp_path / "model.jl").parameters == 480
    assert summary.multiply_adds is not None  # a global pool: the first usual size is assumed


def test_inspect_lists_the_weights_of_a_file_without_a_model(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arrays = [array for d in (_dense(4, 3), _dense(3, 2)) for array in d.fields[:2]]
    path = str(_file(tmp_path, weights=arrays))
    for options in ([], ["--json"]):
        with pytest.raises(SystemExit) as done:
            main(["inspect", path, *options])
        assert done.value.code in (0, None)
        printed = capfd.readouterr().out
        assert "Chain(Dense(4 => 3), Dense(3 => 2))" in printed
        if options:
            listed = json.loads(printed)["weights"]
            assert listed[0] == {"name": "1", "sizes": [3, 4]}
        else:
            assert re.search(r"1 +3 x 4\n2 +3\n3 +2 x 3\n4 +2\n", printed)
    with pytest.raises(WeightsAlone) as refusal:
        diptych.read(path)
    assert refusal.value.arrays == (("1", (3, 4)), ("2", (3,)), ("3", (2, 3)), ("4", (2,)))


@pytest.mark.parametrize(
    ("sizes", "layers"),
    [
        ([(3, 3, 1, 8), (8,), (8,), (8,), (8,), (8,), (10, 288), (10,)],
         "Chain(Conv((3, 3), 1 => 8), BatchNorm(8), Dense(288 => 10))"),
        ([(5, 4)], "Chain(Dense(4 => 5; bias = false))"),
        ([(7,), (3, 4)], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_the_layers_that_sizes_tell_of(sizes: list[tuple[int, ...]], layers: str) -> None:
    assert layers_of_sizes([("", size) for size in sizes]) == layers
