"""What functions of Julia compute as layers: closures that people write, against NumPy on arrays of Julia's shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.formats.julia import JuliaModule, JuliaStruct, JuliaType, NamedTuple, Symbol
from diptych.formats.julia.lowered import interpret
from diptych.formats.julia.lowered_layers import as_connection, as_layers, joined_layers
from diptych.formats.julia.lowering.sizes import BATCH, behind, fresh
from diptych.formats.julia_source.functions_given import function_of
from diptych.model.layers import Activation, AdaptiveMeanPool, Chain, Conv, Dense, Layer, MaxPool, Scale
from test_anonymous_functions import (
    X,
    call,
    closure,
    core,
    described,
    dims,
    expr,
    give,
    ref,
    returned,
    slot,
    ssa,
)

Array = Any
SHAPE = (8, 6, 3, 2)  # of the input, in Julia: W, H, C, N


def given() -> Array:
    return np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)


def mean(x: Array, *axes: int) -> Array:
    return x.mean(axis=axes, keepdims=True)


def pad(x: Array, mode: str) -> Array:
    return np.pad(x, ((1, 1), (1, 1), (0, 0), (0, 0)), mode)  # type: ignore[call-overload]


def flat(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1], order="F")


def where(x: Array) -> Array:
    return np.where(x > 0.3, x**2, 0.1 * x)


def standardised(x: Array) -> Array:
    return (x - mean(x, 0, 1)) / (x.std(axis=(0, 1), keepdims=True) + 1e-5)


# Julia -> the same in NumPy
IDIOMS: dict[str, Callable[[Array], Array]] = {
    "x -> reshape(x, 4*2*18, :)": flat,
    "x -> reshape(x, prod(size(x)[1:3]), :)": flat,
    "x -> reshape(x, prod(size(x)[1:end-1]), size(x, 4))": flat,
    "x -> reshape(x, size(x,1)*size(x,2)*size(x,3), size(x)[end])": flat,
    "x -> begin w, h, c, n = size(x); reshape(x, w*h, c, n) end": lambda x: x.reshape(48, 3, 2, order="F"),
    "x -> reshape(x, (size(x)[1:2]..., 3, :))": lambda x: x,
    "x -> mean(x, dims=(1,2))[1,1,:,:]": lambda x: x.mean(axis=(0, 1)),
    "x -> mean(x, dims=[1,2])": lambda x: mean(x, 0, 1),
    "x -> dropdims(mean(x; dims=(1,2)); dims=(1,2))": lambda x: x.mean(axis=(0, 1)),
    "x -> dropdims(maximum(x; dims=3); dims=3)": lambda x: x.max(axis=2),
    "x -> sum(x, dims=(1,2)) ./ (size(x,1)*size(x,2))": lambda x: mean(x, 0, 1),
    "x -> sum(abs2, x; dims=3)": lambda x: (x**2).sum(axis=2, keepdims=True),
    "x -> minimum(x; dims=1)": lambda x: x.min(axis=0, keepdims=True),
    "x -> prod(x; dims=2)": lambda x: x.prod(axis=1, keepdims=True),
    "x -> std(x; dims=3)": lambda x: x.std(axis=2, ddof=1, keepdims=True),
    "x -> var(x; dims=3, corrected=false)": lambda x: x.var(axis=2, keepdims=True),
    "x -> (x .- mean(x, dims=(1,2))) ./ (std(x, dims=(1,2), corrected=false) .+ 1f-5)": standardised,
    "x -> Flux.normalise(x; dims=(1,2))": standardised,
    "x -> cat(x, x; dims=Val(3))": lambda x: np.concatenate([x, x], 2),
    "x -> vcat(x[1:2,:,:,:], x[4:4,:,:,:])": lambda x: x[[0, 1, 3]],
    "x -> repeat(x, 1, 1, 2, 1)": lambda x: np.concatenate([x, x], 2),
    "x -> Float32.(x)": lambda x: x,
    "x -> NNlib.pad_reflect(x, (1,1,1,1))": lambda x: pad(x, "reflect"),
    "x -> NNlib.pad_symmetric(x, (1,1,1,1))": lambda x: pad(x, "symmetric"),
    "x -> pad_zeros(x, 1; dims=(1,2))": lambda x: pad(x, "constant"),
    "x -> pad_zeros(x, (1,1,0,0))": lambda x: pad(x, "constant"),
    "x -> pad_repeat(x, 1)": lambda x: pad(x, "edge"),
    "x -> permutedims(x, (2,1,3,4))": lambda x: x.transpose(1, 0, 2, 3),
    "x -> permutedims(permutedims(x, (4,1,2,3)), (2,3,4,1))": lambda x: x,
    "x -> x[:, :, 1:2, :]": lambda x: x[:, :, :2],
    "x -> x[2:end, 1:2:end, :, :]": lambda x: x[1:, ::2],
    "x -> x[:, :, end, :]": lambda x: x[:, :, -1],
    "x -> x[1, :, :, :]": lambda x: x[0],
    "x -> x[:, [3,1], :, :]": lambda x: x[:, [2, 0]],
    "x -> selectdim(x, 3, 2)": lambda x: x[:, :, 1],
    "x -> exp.(x) ./ sum(exp.(x); dims=3)": lambda x: np.exp(x) / np.exp(x).sum(axis=2, keepdims=True),
    "x -> x ./ sqrt.(sum(x.^2; dims=3) .+ 1f-6)": lambda x: x / np.sqrt((x**2).sum(2, keepdims=True) + 1e-6),
    "x -> ifelse.(x .> 0.3, x.^2, 0.1f0 .* x)": where,
    "x -> ifelse.(x .<= 0.3, 0.1f0 .* x, x.^2)": where,
    "x -> ifelse.(0.3 .>= x, 1, 0)": lambda x: (x <= 0.3) * 1.0,
    "x -> x .* (x .> 0)": lambda x: np.maximum(x, 0),
    "x -> size(x, 3) == 1 ? cat(x, x, x, dims=3) : x": lambda x: x,
    "x -> ndims(x) == 4 ? relu.(x) : x": lambda x: np.maximum(x, 0),
    "x -> 1 ./ (1 .+ exp.(-x))": lambda x: 1 / (1 + np.exp(-x)),
    "x -> log.(max.(x, 1f-7))": lambda x: np.log(np.maximum(x, 1e-7)),
    "x -> let a = sigmoid.(x); a .* x .+ (1 .- a) end": lambda x: (x - 1) / (1 + np.exp(-x)) + 1,
    "x -> 2 .^ x": lambda x: 2**x,
    "x -> meanpool(x, size(x)[1:2])": lambda x: mean(x, 0, 1),
    "x -> meanpool(x, (size(x, 1), size(x, 2)))": lambda x: mean(x, 0, 1),
    "x -> log1p.(exp.(x)) .+ log2.(1 .+ x.^2)": lambda x: np.log1p(np.exp(x)) + np.log2(1 + x**2),
    "x -> glu(x, 1)": lambda x: x[:4] / (1 + np.exp(-x[4:])),
    "x -> muladd.(2, x, 1)": lambda x: 2 * x + 1,
    "x -> batched_mul(x[:,:,1,:], permutedims(x[:,:,2,:], (2,1,3)))": lambda x: np.einsum(
        "ijn,kjn->ikn", x[:, :, 0], x[:, :, 1]
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", IDIOMS)
@pytest.mark.parametrize("known", [True, False], ids=["size known", "size not known"])
def test_an_idiom(text: str, known: bool) -> None:
    if not known and "glu" in text:
        pytest.skip("half of a size that is not known")
    sizes = (3, 6, 8) if known else (3, fresh(), fresh())
    function = interpret(function_of(text))
    layers = as_layers(function, entry=(BATCH, *sizes), formula=lambda: "std + eps")
    x = given()
    wanted = IDIOMS[text](x.astype(np.float64))
    ours = Chain(layers)(np.ascontiguousarray(x.transpose())).transpose()
    assert ours.shape == wanted.shape
    assert np.allclose(ours, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x -> reshape(x, 3*2*8, :)", "reshapes samples of 144 values to another number: reshape.x, 48"),
        ("x -> mean(x)", "over the batch too"),
        ("x -> mean(x; dims=4)", "over the batch, which mixes samples"),
        ("x -> x[:, :, :, 1:1]", "takes some samples of a batch"),
        ("x -> permutedims(x, (4,1,2,3))", "moves the batch axis"),
        ("x -> cat(x, x; dims=4)", "concatenates batches"),
        ("x -> pad_zeros(x, (1,0,0,1))", "pads the channels or the batch"),
        ("x -> pad_zeros(x, 1)", "pads the channels or the batch"),
        ("x -> softmax(x; dims=4)", "over the batch"),
        ("x -> Flux.dropout(x, 0.5)", "drops values at random"),
        ("x -> x[:, :, 7, :]", "by something that is not known"),
        ("x -> x[:, 1:2]", "another number of indices"),
        ("x -> exp(x)", "needs a dot"),
        ("x -> size(x)", "does not depend on its argument"),
        ("x -> x .+ size(x, 4)", "a size that depends on the input"),
        ("x -> x .^ x", "power that is not one number"),
    ],
)
def test_what_mixes_samples_or_is_not_known_is_refused(text: str, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        as_layers(interpret(function_of(text)), entry=(BATCH, 3, 6, 8))


def test_a_size_that_is_not_known() -> None:
    entry = (BATCH, 3, fresh(), fresh())
    for text, words in (
        ("x -> size(x, 1) == 8 ? x : relu.(x)", "asks for a size of the input that is not known"),
        ("x -> var(x; dims=(1,2))", "depends on the input's size"),
        ("x -> x[1:4, end:-1:1, :, :]", "a range that depends on the input's size"),
    ):
        with pytest.raises(FormatError, match=words):
            as_layers(interpret(function_of(text)), entry=entry)


# ---- Lowered code -------------------------------------------------------------------------------------


def layers_of(*code: Any, entry: Any = (BATCH, 3, 6, 8), **options: Any) -> list[str]:
    return described(as_layers(interpret(closure(*code, **options)), entry=entry))


def field(owner: Any, name: str) -> Any:
    return call("getproperty", owner, core("QuoteNode", Symbol(name)))


@pytest.mark.parametrize("rank_known", [True, False])
def test_sizes_that_are_taken_apart(rank_known: bool) -> None:
    """w, h, c, n = size(x); reshape(x, w*h*c, n)"""
    code = [call("size", X)]
    places = []
    for number in range(1, 5):
        state = [ssa(len(code))] if number > 1 else []
        code += [call("indexed_iterate", ssa(1), number, *state), call("getfield", ssa(len(code) + 1), 1)]
        places.append(ssa(len(code)))
    code += [call("*", *places[:3]), call("reshape", X, ssa(len(code) + 1), places[3]), give(len(code) + 2)]
    entry = (BATCH, 3, fresh(), fresh()) if rank_known else None
    assert layers_of(*code, entry=entry) == ["Flatten"]


def test_a_product_of_many_numbers() -> None:
    code = (call("*", 3, 2, 24), call("reshape", X, ssa(1), ref(":")), give(2))
    assert layers_of(*code) == ["Reshape shape=(144,)"]


@pytest.mark.parametrize("modern", [False, True])
def test_keywords_and_splats_together(modern: bool) -> None:
    """(xs...) -> cat(xs...; dims = 3), of Julia 1.5 and of 1.10."""
    keywords = (*dims(3)[:2], call("tuple", 3), call(ssa(2), ssa(3)))
    sorter = ref("kwcall") if modern else ssa(5)
    code = (
        *keywords, call("kwfunc", ref("cat")), call("tuple", ssa(4), ref("cat")),
        call("_apply_iterate", ref("iterate"), sorter, ssa(6), X), give(7),
    )  # fmt: skip
    connection = as_connection(interpret(closure(*code, splat=True, modern=modern), 3))
    assert (connection.operation, connection.axis) == ("concatenate", -3)


def test_vectors_and_values_as_axes() -> None:
    names = ((Symbol("dims"),), call("apply_type", ref("NamedTuple"), ssa(1)))
    for axes in (call("vect", 1, 2), call("Val", 3)):
        code = (*names, axes, call("tuple", ssa(3)), call(ssa(2), ssa(4)))
        kind = "mean" if axes.fields[1][0].fields[1].name == "vect" else "softmax"
        wanted = ["GlobalMeanPool"] if kind == "mean" else ["Softmax axis=-3"]
        assert layers_of(*code, call("kwcall", ssa(5), ref(kind), X), give(6)) == wanted


def test_what_a_function_captured_of_every_kind() -> None:
    get = call("getfield", slot(1), core("QuoteNode", Symbol("a")))
    scaled = (call("broadcasted", ref("*"), X, ssa(1)), call("materialize", ssa(2)), give(3))
    g = np.asfortranarray(np.arange(3, dtype=np.float32).reshape(1, 1, 3))
    (layer,) = as_layers(interpret(closure(get, *scaled, captured={"a": g})), entry=(BATCH, 3, 6, 8))
    assert isinstance(layer, Scale)
    assert layer.scale.tolist() == [[[0.0]], [[1.0]], [[2.0]]]
    box = JuliaStruct(JuliaType(("Core", "Box")), [np.float32(3)])
    named = NamedTuple(("w",), (np.float32(4),))
    for held, name, wanted in ((box, "contents", "affine 3 0"), (named, "w", "affine 4 0")):
        inner = (get, field(ssa(1), name), call("broadcasted", ref("*"), X, ssa(2)), give(3))
        assert layers_of(*inner, captured={"a": held}) == [wanted]


def test_a_matrix_times_features_is_a_dense_layer() -> None:
    get = [call("getfield", slot(1), core("QuoteNode", Symbol(name))) for name in ("W", "b")]
    code = (*get, call("*", ssa(1), X), call("broadcasted", ref("+"), ssa(3), ssa(2)), give(4))
    weight = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    bias = np.array([1, 2], np.float32)
    (layer,) = as_layers(interpret(closure(*code, captured={"W": weight, "b": bias})), entry=(BATCH, 3))
    assert isinstance(layer, Dense)
    assert np.array_equal(layer.weight, weight)
    assert layer.bias is not None
    assert np.array_equal(layer.bias, bias)


def test_a_convolution_by_its_function() -> None:
    """NNlib turns the kernel of `conv`, as Flux's Conv does, unless it is flipped."""
    get = call("getfield", slot(1), core("QuoteNode", Symbol("w")))
    weight = np.asfortranarray(np.random.default_rng(2).standard_normal((3, 2, 3, 4)).astype(np.float32))
    code = (
        get, (Symbol("pad"), Symbol("stride")), call("apply_type", ref("NamedTuple"), ssa(2)),
        call("tuple", 1, 0), call("tuple", ssa(4), 2), call(ssa(3), ssa(5)),
        call("kwcall", ssa(6), ref("conv"), X, ssa(1)), give(7),
    )  # fmt: skip
    (layer,) = as_layers(interpret(closure(*code, captured={"w": weight})), entry=(BATCH, 3, 6, 8))
    assert isinstance(layer, Conv)
    assert np.array_equal(layer.weight, weight.T[:, :, ::-1, ::-1])
    assert (layer.stride, layer.padding) == ((2, 2), ((0, 0), (1, 1)))


def test_functions_of_modules() -> None:
    assert layers_of(field(ref("NNlib"), "relu"), call(ssa(1), X), give(2)) == ["relu"]
    held = core("QuoteNode", JuliaModule(("NNlib",)))
    assert layers_of(field(held, "relu"), call(ssa(1), X), give(2)) == ["relu"]


def test_a_layer_that_is_made_inside() -> None:
    code = (call("tuple", 2, 2), call("MaxPool", ssa(1)), call(ssa(2), X), give(3))
    (layer,) = as_layers(interpret(closure(*code)))
    assert isinstance(layer, MaxPool)
    assert layer.kernel == (2, 2)
    code = (call("tuple", 1, 2), call("AdaptiveMeanPool", ssa(1)), call(ssa(2), X), give(3))
    (pool,) = as_layers(interpret(closure(*code)))
    assert isinstance(pool, AdaptiveMeanPool)
    assert pool.output == (2, 1)
    with pytest.raises(FormatError, match="calls Conv"):
        interpret(closure(call("Conv", 1), call(ssa(1), X), give(2)))


def test_a_choice_by_the_size_of_the_input() -> None:
    code = (
        call("size", X, 3), call("==", ssa(1), 1), core("GotoIfNot", ssa(2), 5),
        core("ReturnNode", X), call("relu", X), core("ReturnNode", ssa(5)),
    )  # fmt: skip
    assert layers_of(*code, modern=True) == ["relu"]
    assert layers_of(*code, modern=True, entry=(BATCH, 1, 6, 8)) == []
    with pytest.raises(FormatError, match="asks for a size of the input that is not known"):
        layers_of(*code, modern=True, entry=None)


# ---- Joins --------------------------------------------------------------------------------------------


def test_branches_joined_by_more_than_a_connection() -> None:
    """(a, b) -> relu.(a .+ b)"""
    code = (
        call("broadcasted", ref("+"), X, slot(3)), call("broadcasted", ref("relu"), ssa(1)),
        call("materialize", ssa(2)), give(3),
    )  # fmt: skip
    function = interpret(closure(*code, arguments=2), 2)
    branches: list[Layer] = [Activation("tanh"), Activation()]
    layers = Chain(joined_layers(function, branches))
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    assert np.allclose(layers(x), np.maximum(np.tanh(x) + x, 0), atol=1e-6)


def test_three_branches_that_are_added() -> None:
    code = (
        call("broadcasted", ref("+"), X, slot(3)), call("broadcasted", ref("+"), ssa(1), slot(4)),
        call("materialize", ssa(2)), give(3),
    )  # fmt: skip
    connection = as_connection(interpret(closure(*code, arguments=3), 3))
    assert connection.operation == "add"


def test_branches_that_do_not_stand_alone() -> None:
    """(a, b) -> a .* sigmoid.(b) .+ b"""
    code = (
        call("broadcasted", ref("sigmoid"), slot(3)), call("broadcasted", ref("*"), X, ssa(1)),
        call("broadcasted", ref("+"), ssa(2), slot(3)), call("materialize", ssa(3)), give(4),
    )  # fmt: skip
    function = interpret(closure(*code, arguments=2), 2)
    dense = Dense(np.eye(4, dtype=np.float32)[::-1].copy())
    layers = Chain(joined_layers(function, [dense, Activation("exp")]))
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    b = np.exp(x.astype(np.float64))
    assert np.allclose(layers(x), x[:, ::-1] / (1 + np.exp(-b)) + b, rtol=1e-6)


# ---- Shapes -------------------------------------------------------------------------------------------


def test_shapes_are_followed_as_far_as_they_are_known() -> None:
    conv = Conv(np.ones((4, 3, 3, 3), np.float32))
    h, w = fresh(), fresh()
    shape = behind(conv, (BATCH, 3, h, w))
    assert shape is not None
    assert shape[:2] == (BATCH, 4)
    assert not {h, w} & set(shape)
    assert behind(conv, (BATCH, 3, 6, 8)) == (BATCH, 4, 4, 6)
    assert behind(MaxPool((2, 2)), (BATCH, 3, h, 8))[3:] == (4,)  # type: ignore[index]
    assert behind(Activation("relu"), (BATCH, 3, h, w)) == (BATCH, 3, h, w)
    assert len(behind(conv, None) or ()) == 4


def test_an_unknown_function_is_refused_by_name() -> None:
    with pytest.raises(FormatError, match="calls eigen"):
        interpret(closure(*returned("eigen", X)))
    assert expr("return", X) is not None
