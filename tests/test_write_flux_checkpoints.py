"""Writing models for Flux 0.12 to 0.16: the documents that Flux itself wrote, and the same numbers from ours."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bson_structure import difference
from diptych import formats, preprocessing
from diptych.engines import numpy as reference
from diptych.errors import FormatError, ModelError, UnsupportedLayer, UsageError
from diptych.formats import bson, jld2
from diptych.formats.bson.wire import parse
from diptych.formats.julia import JuliaStruct, NamedTuple
from diptych.loading import load_model
from diptych.model.layers import (
    Activation,
    BatchNorm,
    Chain,
    Connection,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    GroupNorm,
    Layer,
    LayerNorm,
    Parallel,
    SkipConnection,
    Softmax,
    Upsample,
)
from diptych.model.model import Model
from flux_golden import Case, cases, close
from layer_cases import TABLE, case

VERSIONS = ("0.12", "0.13", "0.14", "0.15", "0.16")
# Their struct is computed once when it is read, so another one is written.
FOLDED = {"weightnorm"}
# `x -> reshape(x, 3, :, size(x, 2))` has two free sizes, which no named function takes; nor does one take the last
# step of a sequence of any length, as `x -> x[:, end, :]` does.
UNWRITTEN = {"0.12.1-captured_closure", "0.16.9-rnn"}

READ = [c for c in cases() if c.refusal is None and str(c) not in UNWRITTEN]
OWN = [c for c in READ if c.version != "0.11.6"]
# Their recurrent layers begin from states of their own, which those of Flux 0.15 and later do not have.
OWN_STATES = [c for c in READ if c.name in ("rnn", "lstm", "gru")]


@pytest.mark.parametrize("golden", OWN, ids=str)
def test_a_golden_file_written_again_is_the_same_document(golden: Case, tmp_path: Path) -> None:
    original = golden.bson.read_bytes()
    formats.write(formats.read(golden.bson), tmp_path / "again.bson", flux_version=golden.version)
    content = (tmp_path / "again.bson").read_bytes()
    assert b"jl_anonymous" not in content
    if b"jl_anonymous" in original or golden.name in FOLDED:
        return
    again = parse(content, "again")
    assert again.pop("diptych_flux_version") == golden.version
    assert difference(parse(original, "original"), again) == ""


@pytest.mark.slow
@pytest.mark.parametrize("golden", OWN, ids=str)
def test_reading_writing_reading_gives_the_same_model(golden: Case, tmp_path: Path) -> None:
    first = formats.read(golden.bson, flux_version=golden.version)
    formats.write(first, tmp_path / "again.bson", flux_version=golden.version)
    again = formats.read(tmp_path / "again.bson", flux_version=golden.version)
    if golden.name == "weightnorm":  # its weights are computed once more, from other parts
        assert all(np.abs(again.weights()[k] - v).max() <= 1e-7 for k, v in first.weights().items())
        return
    assert same(first.layers, again.layers) == ""


@pytest.mark.parametrize("golden", OWN_STATES, ids=str)
@pytest.mark.parametrize("suffix", [".bson", ".jld2"])
def test_a_recurrent_layer_with_a_state_of_its_own(suffix: str, golden: Case, tmp_path: Path) -> None:
    model, path = formats.read(golden.bson), tmp_path / f"again{suffix}"
    with pytest.raises(UnsupportedLayer, match=r"layer 0 \(.*begin from zeros.*--flux-version 0\.14"):
        formats.write(model, path)
    assert not path.exists()
    formats.write(model, path, flux_version="0.14")
    again = formats.read(path) if suffix == ".bson" else formats.read(path, architecture=model)
    assert close(reference.compile(again)(golden.input), golden.output, golden.tolerance)


@pytest.mark.parametrize("golden", [c for c in READ if c not in OWN_STATES], ids=str)
def test_a_golden_file_written_by_default_gives_the_same_numbers(golden: Case, tmp_path: Path) -> None:
    """Read without a word about versions, each time; what the target computes differently is remarked."""
    first = formats.read(golden.bson)
    wanted = reference.compile(first)(golden.input)
    remarks = formats.write(first, tmp_path / "again.bson")
    again = formats.read(tmp_path / "again.bson")
    assert close(reference.compile(again)(golden.input), wanted, 1e-4 if remarks else 1e-6)
    assert again.source.version == "0.16.10"
    assert not any("does not say its version" in warning for warning in again.source.warnings)
    formats.write(first, tmp_path / "again.jld2")
    state = formats.read(tmp_path / "again.jld2", architecture=first)
    exact = golden.name != "weightnorm"  # whose weights are computed once more
    assert close(reference.compile(state)(golden.input), wanted, 0 if exact else 1e-6)
    assert state.source.version == "0.16.10"


def test_a_version_that_is_none_is_damage(tmp_path: Path) -> None:
    formats.write(Model(Chain((Flatten(),))), tmp_path / "m.bson")
    content = (tmp_path / "m.bson").read_bytes()
    assert content.count(b"0.16.10") == 1
    (tmp_path / "m.bson").write_bytes(content.replace(b"0.16.10", b"sixteen"))
    with pytest.raises(FormatError, match="diptych_flux_version is damaged"):
        formats.read(tmp_path / "m.bson")


def test_the_user_has_the_last_word_on_the_version(tmp_path: Path) -> None:
    formats.write(
        Model(Chain((LayerNorm((4,), formula="std + eps"),))), tmp_path / "n.bson", flux_version="0.14"
    )
    assert formats.read(tmp_path / "n.bson").layers.layers[0].formula == "std + eps"
    read = formats.read(tmp_path / "n.bson", flux_version="0.16.9")
    assert read.layers.layers[0].formula == "sqrt(var + eps^2)"


def same(first: Any, second: Any, place: str = "model") -> str:
    """Where two layers differ in any field or bit of a weight; "" where they do not."""
    if type(first) is not type(second):
        return f"{place}: {type(first).__name__} and {type(second).__name__}"
    if isinstance(first, np.ndarray):
        equal = first.dtype == second.dtype and np.array_equal(first, second)
        return "" if equal else f"{place}: other numbers"
    if is_dataclass(first) and not isinstance(first, type):
        parts = [(getattr(first, f.name), getattr(second, f.name), f.name) for f in fields(first)]
    elif isinstance(first, tuple) and len(first) == len(second):
        parts = [(a, b, str(i)) for i, (a, b) in enumerate(zip(first, second, strict=True))]
    else:
        return "" if first == second else f"{place}: {first} and {second}"
    return next(filter(None, (same(a, b, f"{place}.{name}") for a, b, name in parts)), "")


def test_ties_are_written_as_ties(tmp_path: Path) -> None:
    weight = np.ones((3, 3), np.float32)
    chain = Chain((Dense(weight), Dense(weight)))
    formats.write(Model(chain), tmp_path / "tied.bson")
    first, second = bson.load(tmp_path / "tied.bson")["model"].fields[0]
    assert first.fields[0] is second.fields[0]


# ---- Models from elsewhere ----------------------------------------------------------------------------

UPWARDS = {"0.12": 0, "0.13": 1, "0.14": 2, "0.15": 3, "0.16": 4}
# Case -> the versions that cannot express it; each error says why.
NOT_IN = {
    "activation-gelu_erf": VERSIONS[:2],
    "transpose-output-padding": VERSIONS[:2],
    "embedding-mean": VERSIONS[:2],
    "embedding-sum": VERSIONS[:2],
    "embedding-max": VERSIONS[:2],
    "layernorm-std-plus-eps": VERSIONS[3:],
    "normalise": VERSIONS,
    "normalise-rows": VERSIONS,
    "normalise-eps-squared": VERSIONS,
    "adaptive-max-pytorch": VERSIONS,
    "adaptive-max-3d": VERSIONS,
    "pad-wrap": VERSIONS[:2],
    "pad-symmetric": VERSIONS[:2],
    "pad-symmetric-3d": VERSIONS[:2],
    "bilinear-over-the-last-axis": VERSIONS,
    "parallel-subtract": VERSIONS[1:],
    **dict.fromkeys(("rnn-leakyrelu", "rnn-one-step", "lstm-reverse", "lstm-initial-cell"), VERSIONS[3:]),
    **dict.fromkeys(("lstm-one-step", "gru-one-bias", "gru-one-step"), VERSIONS[3:]),
    "gru-reset-before-reverse": VERSIONS[3:],
    **dict.fromkeys(("lstm-of-rows", "gru-of-rows-reset-before"), VERSIONS),
    "gru": VERSIONS,
    "gru-new-bias-alone": VERSIONS,
    "multi-head-attention": VERSIONS[:1],
    "multi-head-attention-no-bias": VERSIONS[:1],
    "graph": VERSIONS[:1],
    "graph-nested": VERSIONS[:1],
    "attention": VERSIONS[:1],
    **dict.fromkeys(("activation-step", "activation-step-parameters", "parallel-where"), VERSIONS),
    "activation-erf": VERSIONS,
    **dict.fromkeys(
        ("lrn", "lrn-even", "lrn-even-as-in-pytorch", "lrn-wider-than-the-channels", "lrn-1d"), VERSIONS
    ),
    **dict.fromkeys(("maxpool-dilated", "maxpool-dilated-symmetric", "maxpool-dilated-1d"), VERSIONS),
    **dict.fromkeys(("reduce-product", "parallel-matmul-broadcast"), VERSIONS),
    **dict.fromkeys(("reduce-logsumexp", "reduce-logsumexp-drops"), VERSIONS),
}


@pytest.mark.parametrize("name", TABLE)
def test_every_layer_comes_back_with_the_same_numbers(name: str, tmp_path: Path) -> None:
    model, batch = case(name)
    wanted = reference.compile(model)(batch)
    for version in VERSIONS:
        path = tmp_path / f"{version}.bson"
        if version in NOT_IN.get(name, ()):
            with pytest.raises(UnsupportedLayer, match=f"Flux {version}"):
                formats.write(model, path, flux_version=version)
            assert not path.exists()
            continue
        formats.write(model, path, flux_version=version)
        result = reference.compile(formats.read(path))(batch)
        assert close(result, wanted, 1e-5), version
        assert b"jl_anonymous" not in path.read_bytes()


def test_the_newest_divisor_of_layer_norm(tmp_path: Path) -> None:
    norm = LayerNorm((4,), epsilon=0.1)
    for version, stored in (("0.16.11", 0.1), ("0.16", 0.1**0.5)):
        formats.write(Model(Chain((norm,))), tmp_path / "n.bson", flux_version=version)
        epsilon = bson.load(tmp_path / "n.bson")["model"].fields[0][0].fields[2]
        assert epsilon == np.float32(stored)


@pytest.mark.parametrize("suffix", [".bson", ".jld2"])
def test_a_divisor_that_a_version_has_not_is_said(suffix: str, tmp_path: Path) -> None:
    def norm(formula: Any) -> LayerNorm:
        return LayerNorm((4,), epsilon=1e-5, formula=formula)

    model = Model(Chain((norm("std + eps"), Chain((norm("sqrt(var + eps^2)"), norm("std + eps"))))))
    path = tmp_path / f"n{suffix}"
    said = {
        version: formats.write(model, path, flux_version=version) for version in ("0.14", "0.16", "0.16.11")
    }
    # What lacks the layers says so last; all else is said of the divisors.
    alone = [text for texts in said.values() for text in texts[1:]]
    assert len(alone) == (3 if suffix == ".jld2" else 0)
    assert all("weights alone" in text for text in alone)
    assert said["0.14"][0].startswith(
        "1.0 (LayerNorm): divided by sqrt(var + eps^2), but by std + eps in Flux 0.14.25"
    )
    assert said["0.16"][0].startswith(
        "0 (LayerNorm), 1.1 (LayerNorm): divided by std + eps, but by sqrt(var + eps^2)"
    )
    assert said["0.16.11"][0].startswith(
        "0 (LayerNorm), 1.1 (LayerNorm): divided by std + eps, but by sqrt(var + eps) in"
    )
    same = Model(Chain((norm("sqrt(var + eps^2)"),)))
    assert formats.write(same, path, flux_version="0.16.11") == tuple(alone[:1])
    large = Model(Chain((LayerNorm((4,), epsilon=0.1, formula="std + eps"),)))
    with pytest.raises(UnsupportedLayer, match=r"differs too much from std \+ eps with the epsilon 0\.1"):
        formats.write(large, path, flux_version="0.16.11")


def test_convert_says_so_too(tmp_path: Path, diptych_command) -> None:
    old = next(c for c in OWN if c.version == "0.12.1" and c.name == "normalise_fn")
    done = diptych_command("convert", old.bson, tmp_path / "new.bson")
    assert "divided by std + eps, but by sqrt(var + eps^2) in Flux 0.16.10" in done.err.replace("\n", " ")
    assert (
        "divided by"
        not in diptych_command("convert", old.bson, tmp_path / "b.bson", "--flux-version", "0.12").err
    )


def test_each_version_has_its_own_fields(tmp_path: Path) -> None:
    w = np.ones((2, 3, 3, 3), np.float32)
    chain = Chain((Conv(w), ConvTranspose(w.transpose(1, 0, 2, 3)[:, :2].copy())))
    counts = {"0.12.1": (6, 6), "0.12": (7, 7), "0.14.16": (7, 7), "0.14.17": (7, 8), "0.16": (7, 8)}
    for version, expected in counts.items():
        layers = written(chain, tmp_path, version).fields[0]
        assert tuple(len(layer.fields) for layer in layers) == expected
        bias = layers[0].fields[2]
        assert bias.type.path == ("Flux", "Zeros") if version.startswith("0.12") else bias is False


def written(layers: Chain, folder: Path, version: str = "0.16", **more: Any) -> JuliaStruct:
    formats.write(Model(layers, **more), folder / "made.bson", flux_version=version)
    made = bson.load(folder / "made.bson")["model"]
    assert isinstance(made, JuliaStruct)
    return made


def test_channels_are_joined_without_an_anonymous_function(tmp_path: Path) -> None:
    conv = Conv(np.ones((2, 2, 1, 1), np.float32))
    made = written(Chain((SkipConnection(conv, Connection("concatenate")),)), tmp_path)
    skip, back = made.fields[0][0].fields[0]
    assert skip.fields[1].type.name == "Parallel"
    assert back.fields[1] == (2, 3, 1, 4)
    three = Chain((Parallel(Connection("concatenate"), (conv, conv, conv)),))
    batch = np.random.default_rng(0).standard_normal((2, 2, 3, 4)).astype(np.float32)
    wanted = reference.compile(Model(three))(batch)
    for version in VERSIONS:  # 0.12 joins two by two
        written(three, tmp_path, version)
        assert close(reference.compile(formats.read(tmp_path / "made.bson"))(batch), wanted, 1e-6)


def test_statistics_of_groups_become_a_batch_norm(tmp_path: Path) -> None:
    norm = GroupNorm(2, None, None, np.float32([1, 2]), np.float32([3, 4]))
    made = written(Chain((norm,)), tmp_path, "0.16", input_shape=(4, 2, 2)).fields[0][0]
    assert made.type.name == "BatchNorm"
    assert made.fields[3].tolist() == [1, 1, 2, 2]
    older = written(Chain((norm,)), tmp_path, "0.12", input_shape=(4, 2, 2)).fields[0][0]
    assert older.type.name == "GroupNorm"


def test_the_channels_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedLayer, match="input_shape"):
        written(Chain((GroupNorm(2),)), tmp_path)


def test_activations_with_parameters_are_callable_structs(tmp_path: Path) -> None:
    dense = Dense(np.ones((2, 2), np.float32), activation=Activation("leakyrelu", (0.2,)))
    function = written(Chain((dense,)), tmp_path).fields[0][0].fields[2]
    assert str(function.type) == "Base.Fix2{NNlib.#leakyrelu, Core.Float32}"
    assert function.fields[1] == np.float32(0.2)


def test_what_upsample_does_in_flux_is_said_of_flux(tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedLayer, match=r"Flux 0.16.10 .* its Upsample aligns the corners.*a Julia project can"
    ):
        written(Chain((Upsample((2, 2), mode="linear"),)), tmp_path)


def test_versions_that_cannot_be_written(tmp_path: Path) -> None:
    for version in ("0.11.6", "1.0", "newest"):
        with pytest.raises(UsageError, match=r"0\.12 to 0\.16"):
            written(Chain((Flatten(),)), tmp_path, version)


# ---- What travels along -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_the_trained_classifier_becomes_a_bson_file(version: str, tmp_path: Path) -> None:
    model = load_model("scenes")
    formats.write(model, tmp_path / "trained_model.bson", flux_version=version)
    first = (tmp_path / "trained_model.bson").read_bytes()
    again = formats.read(tmp_path / "trained_model.bson")
    assert again.classes == model.classes
    assert again.preprocessing == model.preprocessing
    assert again.input_shape == model.input_shape
    assert again.trained is True
    assert again.notes == model.notes
    batch = (
        np.random.default_rng(0).random((2, *(n or 1 for n in model.input_shape or ()))).astype(np.float32)
    )
    assert np.array_equal(reference.compile(again)(batch), reference.compile(model)(batch))
    formats.write(model, tmp_path / "again.bson", flux_version=version)
    assert (tmp_path / "again.bson").read_bytes() == first


def test_what_contradicts_itself_is_not_written(tmp_path: Path) -> None:
    chain = Chain((Dense(np.ones((2, 3), np.float32)),))
    for wrong in (Model(chain, classes=("a",)), Model(chain, input_shape=(4,))):
        for name in ("m.bson", "m.jld2"):
            with pytest.raises(ModelError):
                formats.write(wrong, tmp_path / name)
            assert not (tmp_path / name).exists()


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_float_types_are_kept(dtype: str, tmp_path: Path) -> None:
    weight = np.linspace(-1, 1, 6).reshape(2, 3).astype(dtype)
    kernel = np.linspace(-1, 1, 12).reshape(1, 2, 2, 3).astype(dtype)
    formats.write(Model(Chain((Conv(kernel),))), tmp_path / "c.bson")
    formats.write(Model(Chain((Dense(weight),))), tmp_path / "d.bson")
    for name, array in (("c.bson", kernel), ("d.bson", weight)):
        found = formats.read(tmp_path / name).weights()["0.weight"]
        assert found.dtype == array.dtype.newbyteorder("<")
        assert np.array_equal(found, array)


def test_bson_load_sees_plain_keys(tmp_path: Path) -> None:
    model = Model(
        Chain((Dense(np.ones((2, 3), np.float32)), Softmax())),
        preprocessing.named(next(iter(preprocessing.NAMES))),
        ("cat", "dog"),
    )
    formats.write(model, tmp_path / "m.bson")
    values = bson.load(tmp_path / "m.bson")
    assert values["classes"] == ["cat", "dog"]
    assert list(values) == ["model", "diptych_flux_version", "classes", "diptych_preprocessing"]


# ---- Flux.state ---------------------------------------------------------------------------------------

STATES = [c for c in READ if c.state.exists()]


@pytest.mark.parametrize("golden", STATES, ids=str)
def test_the_state_is_the_one_flux_gives(golden: Case, tmp_path: Path) -> None:
    model = formats.read(golden.bson)
    formats.write(model, tmp_path / "state.jld2", flux_version=golden.version)
    ours, theirs = (jld2.load(p)["model_state"] for p in (tmp_path / "state.jld2", golden.state))
    if golden.name in FOLDED:
        return
    assert differs(ours, theirs) == ""


def differs(ours: Any, theirs: Any, place: str = "") -> str:
    if type(ours) is not type(theirs):
        return f"{place}: {ours!r:.60} for {theirs!r:.60}"
    if isinstance(ours, NamedTuple) and ours.names != theirs.names:
        return f"{place}: {ours.names} for {theirs.names}"
    if isinstance(ours, np.ndarray):
        return "" if np.array_equal(ours, theirs) and ours.dtype == theirs.dtype else f"{place}: numbers"
    if isinstance(ours, (tuple, list)):
        if len(ours) != len(theirs):
            return f"{place}: {len(ours)} for {len(theirs)} values"
        pairs = enumerate(zip(ours, theirs, strict=True))
        return next(filter(None, (differs(a, b, f"{place}[{i}]") for i, (a, b) in pairs)), "")
    return "" if ours == theirs else f"{place}: {ours!r} for {theirs!r}"


def test_a_state_follows_the_version(tmp_path: Path) -> None:
    weight = np.ones((2, 3, 3, 3), np.float32)
    model = Model(Chain((ConvTranspose(weight), BatchNorm(*[np.ones(3, np.float32)] * 4), Softmax(-1))))
    for version, outpad in (("0.13", False), ("0.14.16", False), ("0.14.17", True), ("0.16", True)):
        formats.write(model, tmp_path / "s.jld2", flux_version=version)
        state = jld2.load(tmp_path / "s.jld2")["model_state"].as_dict()["layers"]
        assert ("outpad" in state[0].names) == outpad
        assert state[0].names[0] == "σ"
        assert state[0].as_dict()["bias"] is False
        assert state[2] == ()


def test_a_state_comes_back_by_its_architecture(tmp_path: Path) -> None:
    model = load_model("scenes")
    formats.write(model, tmp_path / "s.jld2")
    again = formats.read(tmp_path / "s.jld2", architecture=model)
    assert same(again.layers, model.layers) == ""
    named = formats.read(tmp_path / "s.jld2", architecture="small-cnn-32")
    assert all(np.array_equal(named.weights()[k], v) for k, v in model.weights().items())


def test_layers_here_are_all_known_to_the_table() -> None:
    from diptych.formats.flux.structs_of_layers import RULES
    from diptych.model.layers import LAYERS

    assert set(RULES) == set(LAYERS.values())
    assert all(issubclass(kind, Layer) for kind in RULES)
