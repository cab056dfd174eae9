"""Reading models that Flux 0.11.6, 0.12.1, 0.13.4 and 0.16.9 wrote: the same numbers, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych import formats
from diptych.engines import numpy as reference
from diptych.engines import torch as torch_engine
from diptych.errors import FormatError, ModelError, UsageError
from diptych.formats import bson, jld2
from diptych.formats.flux.document_writing import state_of
from diptych.formats.julia import JuliaStruct, JuliaType
from diptych.model.layers import Chain, Conv, Dense, Dropout, GlobalMeanPool, LayerNorm, MaxPool
from diptych.model.model import Model
from flux_golden import GOLDEN, REFUSED, Case, cases, close

CASES = cases()
READ = [case for case in CASES if case.refusal is None]
WHOLE = [case for case in CASES if case.jld2.exists()]


def test_the_copied_files_are_there() -> None:
    assert {case.version for case in CASES} == {"0.11.6", "0.12.1", "0.13.4", "0.16.9"}
    assert len(READ) > 200


@pytest.mark.parametrize("case", READ, ids=str)
def test_every_layer_gives_what_flux_gave(case: Case) -> None:
    model = formats.read(case.bson)
    trace = reference.compile(model).trace(case.input)
    for path, wanted in case.layers.items():
        assert close(trace[path], wanted, case.tolerance), f"layer {path}"
    assert close(trace.output, case.output, case.tolerance)


@pytest.mark.parametrize("case", [c for c in READ if c.name != "bf16"][::6], ids=str)
def test_other_engines_agree(case: Case) -> None:
    model = formats.read(case.bson)
    assert close(torch_engine.compile(model, "cpu")(case.input), case.output, 3 * case.tolerance)


@pytest.mark.parametrize("case", [case for case in CASES if case.refusal], ids=str)
def test_what_has_no_layer_is_refused_by_name(case: Case) -> None:
    with pytest.raises(FormatError, match=case.refusal):
        formats.read(case.bson)
    assert set(REFUSED) >= {case.name} or f"{case.name}-{case.version}" in REFUSED


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_whole_models_in_jld2(case: Case) -> None:
    nameless = {"activation_layers", "closure_small", "capture_closure", "compose", "embedding", "rnn"}
    if case.refusal is None and case.name not in nameless:
        model = formats.read(case.jld2)
        assert close(reference.compile(model)(case.input), case.output, case.tolerance)
        return
    # JLD2 keeps an anonymous function's name alone, so that not even Julia can call it.
    with pytest.raises(FormatError, match="no code in the file" if case.name in nameless else case.refusal):
        formats.read(case.jld2)


# ---- Versions -----------------------------------------------------------------------------------------


def golden(version: str, name: str, **options: Any) -> Model:
    return formats.read(GOLDEN / f"flux-{version}" / name, **options)


@pytest.mark.parametrize(
    ("version", "formula"),
    [
        ("0.12.1", "std + eps"),
        ("0.14.25", "std + eps"),
        ("0.15", "sqrt(var + eps^2)"),
        ("0.16.10", "sqrt(var + eps^2)"),
        ("0.16.11", "sqrt(var + eps)"),
    ],
)
def test_layer_norm_follows_the_version_that_is_named(version: str, formula: str) -> None:
    model = golden("0.13.4", "ln_act.bson", flux_version=version)
    norm = model.layers.layers[0]
    assert isinstance(norm, LayerNorm)
    assert norm.formula == formula
    assert not model.source.warnings


def test_a_version_that_is_none() -> None:
    with pytest.raises(UsageError, match=r"0\.14"):
        golden("0.13.4", "ln_act.bson", flux_version="newest")


def test_an_unsure_version_is_said() -> None:
    assert "flux_version" in golden("0.13.4", "ln_act.bson").source.warnings[0]
    assert golden("0.13.4", "conv_groups.bson").source.version == "0.13 or later" or golden(
        "0.13.4", "conv_groups.bson"
    ).source.version.startswith("0.12.6")
    assert golden("0.12.1", "conv_nobias.bson").source.version == "0.12 or later, before 0.12.6"


def test_training_mode_is_said_and_not_followed() -> None:
    model = golden("0.12.1", "bn_trainmode_saved.bson")
    assert any("training mode" in warning for warning in model.source.warnings)
    assert not any("training mode" in w for w in golden("0.12.1", "bn_testmode_saved.bson").source.warnings)


def function(*path: str) -> JuliaStruct:
    return JuliaStruct(JuliaType((*path[:-1], f"#{path[-1]}")))


def struct(name: str, *values: Any, parameters: tuple[Any, ...] = ()) -> JuliaStruct:
    return JuliaStruct(JuliaType(("Flux", name), parameters), list(values))


def saved(folder: Path, *layers: JuliaStruct) -> Path:
    bson.write({"model": struct("Chain", layers)}, folder / "old.bson")
    return folder / "old.bson"


def tracked(array: Any) -> JuliaStruct:
    """What Tracker, up to Flux 0.9, wrapped every weight in."""
    fields = [None, np.asfortranarray(array), np.zeros_like(array)]
    return JuliaStruct(JuliaType(("Tracker", "TrackedArray")), fields)


def test_flux_0_9_with_tracked_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((3, 3, 2, 4), np.float32), rng.standard_normal(4, np.float32)
    dense = rng.standard_normal((2, 4), np.float32)
    path = saved(
        tmp_path,
        struct("Conv", function("NNlib", "relu"), tracked(weight), tracked(bias), (1, 2), (1, 0), (1, 1)),
        struct("MaxPool", (2, 2), (0, 0), (2, 2)),
        struct("Dropout", 0.25, True),
        struct("Dense", tracked(dense), tracked(dense[:, 0].copy()), function("NNlib", "hardσ")),
    )
    conv, pool, dropout, last = formats.read(path).layers.layers
    assert isinstance(conv, Conv)
    assert isinstance(pool, MaxPool)
    assert isinstance(dropout, Dropout)
    assert isinstance(last, Dense)
    # (W, H) tuples turn round, and the true convolution's kernel runs backwards.
    assert conv.stride == (2, 1)
    assert conv.padding == ((0, 0), (1, 1))
    assert np.array_equal(conv.weight, weight[::-1, ::-1].transpose())
    assert dropout.probability == 0.25
    assert np.array_equal(last.weight, dense)
    assert last.activation.parameters == (0.2,)  # the hardσ of those days


def test_weights_that_stayed_on_the_gpu(tmp_path: Path) -> None:
    lost = JuliaStruct(JuliaType(("CuArrays", "CuArray"), (JuliaType(("Core", "Float32")), 2)), [1, 2])
    path = saved(tmp_path, struct("Dense", lost, False, function("Base", "identity")))
    with pytest.raises(FormatError, match=r"layer 0 \(Dense\).*weight.*cpu\(model\)"):
        formats.read(path)


def test_cross_correlation_is_not_flipped() -> None:
    stored = bson.load(GOLDEN / "flux-0.12.1" / "crosscor.bson")["model"].fields[1]
    conv = golden("0.12.1", "crosscor.bson").layers.layers[0]
    assert isinstance(conv, Conv)
    assert np.array_equal(conv.weight, stored.transpose())


def test_what_no_version_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"layer 0 \(Dense\) has 2 fields"):
        formats.read(saved(tmp_path, struct("Dense", 1, 2)))
    with pytest.raises(FormatError, match=r"layer 0 \(Flux\.Warp\) is not known"):
        formats.read(saved(tmp_path, struct("Warp", 1)))
    with pytest.raises(FormatError, match=r"layer 0 \(Dense\) has a int where the array weight"):
        formats.read(saved(tmp_path, struct("Dense", 1, False, function("Base", "identity"))))


# ---- What is beside the model -------------------------------------------------------------------------


def test_checkpoints_tell_what_else_they_hold() -> None:
    model = golden("0.12.1", "cont_dict.bson")
    assert model.classes == ("a", "b", "c")
    assert model.source.extras["epoch"] == 3
    assert model.source.extras["losses"] == [0.5, 0.25, 0.125]
    assert "ADAM" in golden("0.12.1", "cont_opt.bson").source.extras["opt"]
    newest = golden("0.16.9", "ckpt.bson")
    assert newest.classes is None  # two names for three outputs
    assert newest.source.extras["classes"] == ["a", "b"]
    assert "2 classes" in newest.source.warnings[0]
    assert "opt_state" in newest.source.extras


def test_a_model_under_another_name() -> None:
    assert golden("0.12.1", "cont_save_named.bson").layers.layers


def test_a_model_inside_a_dictionary(tmp_path: Path) -> None:
    values = bson.load(GOLDEN / "flux-0.12.1" / "cont_opt.bson")
    for wrapped in (
        {"ckpt": {**values, "epoch": 3}, "x": 1},
        {"all": {"deep": values}},
        {"pair": tuple(values.values())},
    ):
        bson.write(wrapped, tmp_path / "w.bson")
        assert len(formats.read(tmp_path / "w.bson").layers.layers) == 5
    bson.write({"first": values["model"], "second": values["model"]}, tmp_path / "two.bson")
    with pytest.raises(FormatError, match="several models: first, second"):
        formats.read(tmp_path / "two.bson")


def test_a_struct_of_ones_own_is_told_field_by_field() -> None:
    with pytest.raises(FormatError, match=r"MyNet.*Conv.*Dense"):
        golden("0.12.1", "custom_model.bson")


def test_a_file_without_a_model() -> None:
    with pytest.raises(FormatError, match="holds no Flux model, but"):
        golden("0.12.1", "raw_document.bson")


def test_shared_arrays_stay_one() -> None:
    first, second, third = golden("0.12.1", "shared_weight.bson").layers.layers
    assert isinstance(first, Dense)
    assert isinstance(second, Dense)
    assert isinstance(third, Dense)
    assert first.weight is second.weight is third.weight
    assert first.bias is second.bias
    assert third.bias is None


def test_reading_makes_no_copy_of_dense_weights() -> None:
    dense = golden("0.16.9", "dense_only.bson").layers.layers[0]
    assert isinstance(dense, Dense)
    assert not dense.weight.flags.owndata


# ---- Weights alone ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weights_only.bson", "weights_array.bson"])
def test_parameters_fill_an_architecture(name: str) -> None:
    whole = golden("0.12.1", "cont_save_two.bson")
    with pytest.raises(FormatError, match="--architecture"):
        golden("0.12.1", name)
    filled = golden("0.12.1", name, architecture=_emptied(whole))
    assert all(np.array_equal(filled.weights()[k], v) for k, v in whole.weights().items())


def test_arrays_by_name_fill_an_architecture() -> None:
    whole = golden("0.12.1", "img2img48.bson")
    filled = golden("0.12.1", "img2img48_params.jld2", architecture=_emptied(whole))
    assert all(np.array_equal(filled.weights()[k], v) for k, v in whole.weights().items())


@pytest.mark.parametrize("name", ["ckpt_state.bson", "ckpt.jld2"])
def test_a_state_fills_an_architecture(name: str) -> None:
    whole = golden("0.16.9", "ckpt.bson")
    filled = golden("0.16.9", name, architecture=_emptied(whole))
    assert all(np.array_equal(filled.weights()[k], v) for k, v in whole.weights().items())
    assert filled.source.extras["epoch"] == 3


@pytest.mark.parametrize("case", [c for c in READ if c.state.exists()], ids=str)
def test_every_state_fills_its_model(case: Case) -> None:
    whole = formats.read(case.bson)
    filled = formats.read(case.state, architecture=_emptied(whole))
    wanted, found = whole.weights(), filled.weights()
    assert all(np.array_equal(found[name], array) for name, array in wanted.items())


def test_the_state_of_a_weight_norm_fills_the_weights_it_gives(tmp_path: Path) -> None:
    case = next(c for c in READ if c.name == "weightnorm")
    whole = formats.read(case.bson)
    state = state_of(jld2.load(case.jld2)["model"])
    jld2.write(tmp_path / "s.jld2", {"model_state": state})
    filled = formats.read(tmp_path / "s.jld2", architecture=_emptied(whole))
    assert all(np.array_equal(filled.weights()[k], v) for k, v in whole.weights().items())
    assert any("WeightNorm was computed once" in warning for warning in filled.source.warnings)


def test_a_weight_norm_is_written_back(tmp_path: Path) -> None:
    """With the types that real Flux gives it; a version without it has the layers alone."""
    case = next(c for c in READ if c.name == "weightnorm")
    model = formats.read(case.bson)
    formats.write(model, tmp_path / "m.bson")
    own, real = (bson.load(path)["model"].fields[0] for path in (tmp_path / "m.bson", case.bson))
    assert [str(layer.type) for layer in own] == [str(layer.type) for layer in real]
    assert [layer.type.name for layer in own[:3:2]] == ["WeightNorm", "WeightNorm"]
    for ours, theirs in zip(own[:3:2], real[:3:2], strict=True):
        assert np.shape(ours.fields[1]) == np.shape(theirs.fields[1])
        assert str(ours.fields[2:]) == str(theirs.fields[2:])
    formats.write(model, tmp_path / "old.bson", flux_version="0.15")
    for name in ("m", "old"):
        again = formats.read(tmp_path / f"{name}.bson").weights()
        assert all(np.abs(again[k] - v).max() <= 1e-7 for k, v in model.weights().items())


@pytest.mark.parametrize(
    ("suffix", "key"), [(".jld2", "model_state"), (".bson", "state"), (".bson", "model")]
)
def test_a_state_of_layers_without_weights_asks_for_its_architecture(
    suffix: str, key: str, tmp_path: Path
) -> None:
    model = Model(Chain((MaxPool((2, 3)), GlobalMeanPool())))
    formats.write(model, tmp_path / "s.jld2")
    path, values = tmp_path / f"m{suffix}", {key: jld2.load(tmp_path / "s.jld2")["model_state"]}
    if suffix == ".bson":
        bson.write(values, path)
    else:
        jld2.write(path, values)
    with pytest.raises(FormatError, match=rf"a state under {key}\), not a model: .*--architecture"):
        formats.read(path)
    filled = formats.read(path, architecture=model)
    assert [type(layer) for _, layer in filled.walk()] == [MaxPool, GlobalMeanPool]


def test_the_leaf_that_does_not_fit_is_named() -> None:
    other = golden("0.16.9", "ckpt.bson")
    with pytest.raises(FormatError, match=r"layer 0 \(Conv\).*3×3×1×2.*3×3×1×4"):
        golden("0.12.1", "weights_only.bson", architecture=other)
    shorter = other.with_(layers=Chain(other.layers.layers[:1]))
    with pytest.raises(FormatError, match=r"more layers with weights than the architecture.*>>2<<"):
        golden("0.16.9", "ckpt_state.bson", architecture=shorter)


def test_a_list_without_statistics_says_so(tmp_path: Path) -> None:
    whole = golden("0.16.9", "ckpt.bson")
    order = ["0.weight", "0.bias", "1.shift", "1.scale", "3.weight", "3.bias"]
    raw = [np.asfortranarray(whole.weights()[name].transpose()) for name in order[:4]]
    raw += [np.asfortranarray(whole.weights()[name]) for name in order[4:]]
    raw[0] = np.asfortranarray(raw[0][::-1, ::-1])
    bson.write({"weights": raw}, tmp_path / "w.bson")
    filled = formats.read(tmp_path / "w.bson", architecture=_emptied(whole))
    assert all(np.array_equal(filled.weights()[name], whole.weights()[name]) for name in order)
    assert "running statistics" in filled.source.warnings[0]
    bson.write({"weights": np.concatenate([a.reshape(-1, order="F") for a in raw])}, tmp_path / "v.bson")
    flat = formats.read(tmp_path / "v.bson", architecture=_emptied(whole))
    assert all(np.array_equal(flat.weights()[name], whole.weights()[name]) for name in order)


def _emptied(model: Model) -> Model:
    """The same architecture with other weights, ties kept."""
    from diptych.model.document import from_document, to_document

    document, arrays = to_document(model)
    return from_document(
        document, {name: np.full_like(array, 0.5, order="C") for name, array in arrays.items()}
    )


# ---- Hostile files ------------------------------------------------------------------------------------

SMALL = [case for case in READ if case.bson.stat().st_size < 6000]


@given(st.data())
@settings(max_examples=250)
def test_a_damaged_file_gives_a_model_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(data.draw(st.sampled_from(SMALL)).bson.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(4, len(content) - 2))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.bson"
    path.write_bytes(content)
    try:
        model = formats.read(path)
    except (FormatError, ModelError) as error:
        said = str(error)
    else:
        said = f"{path} was read" if isinstance(model, Model) else ""
    assert str(path) in said


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2**40)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(
        [function("NNlib", "relu"), np.zeros((2, 2), np.float32), np.zeros(3), np.zeros((0, 2))]
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.lists(inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
@settings(max_examples=250)
def test_structs_with_foreign_fields_are_refused(data: st.DataObject) -> None:
    from diptych.formats.flux.document import model_of
    from diptych.formats.flux.layouts import LAYOUTS

    name = data.draw(st.sampled_from(sorted(LAYOUTS)))
    names = data.draw(st.sampled_from([names for _, names in LAYOUTS[name]]))
    made = struct(name, *[data.draw(VALUES) for _ in names], parameters=(data.draw(VALUES),))
    said = "made.bson"
    try:
        model_of({"model": struct("Chain", (made,))}, "made.bson", "BSON")
    except FormatError as error:
        said = str(error)
    assert "made.bson" in said


@pytest.mark.parametrize("connection", [3, None, "+", (1, 2)])
@pytest.mark.parametrize("name", ["SkipConnection", "Parallel"])
def test_a_connection_that_is_no_function(name: str, connection: Any) -> None:
    from diptych.formats.flux.document import model_of

    inner = function("Base", "identity")
    fields = {"SkipConnection": (inner, connection), "Parallel": (connection, (inner, inner))}[name]
    with pytest.raises(FormatError, match=r"made\.bson"):
        model_of({"model": struct("Chain", (struct(name, *fields),))}, "made.bson", "BSON")


def test_a_model_that_contains_itself() -> None:
    from diptych.formats.flux.document import model_of

    chain = struct("Chain", [])
    chain.fields[0].append(chain)
    with pytest.raises(FormatError, match="contains itself"):
        model_of({"model": chain}, "made.bson", "BSON")
