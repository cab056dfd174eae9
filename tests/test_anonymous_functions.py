"""Anonymous Julia functions: read from the file's own code, turned into layers, refused by name and line."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from diptych.engines import numpy as numpy_engine
from diptych.errors import FormatError
from diptych.formats import bson
from diptych.formats.julia import JuliaModule, JuliaStruct, JuliaType, Symbol
from diptych.formats.julia.lowered import interpret, is_function
from diptych.formats.julia.lowered_layers import as_connection, as_layers
from diptych.model.layers import Activation, Chain, Connection, Dense, Layer, SkipConnection
from diptych.model.model import Model
from flux_golden import GOLDEN, golden
from julia_values import found
from refusals import value_or_refusal


def functions(name: str) -> dict[str, JuliaStruct]:
    """Every closure and Fix of a golden file by its type's name."""
    closures = [value for value in found(golden(name), JuliaStruct) if is_function(value)]
    return {each.type.name: each for each in closures if each.fields or each.type.definition is not None}


def described(layers: tuple[Layer, ...]) -> list[str]:
    return [description(layer) for layer in layers]


def description(layer: Layer) -> str:
    if isinstance(layer, Activation):
        return " ".join([layer.name, *(f"{p:.6g}" for p in layer.parameters)])
    shown = {key: value for key, value in vars(layer).items() if value}
    return " ".join([type(layer).__name__, *(f"{key}={value}" for key, value in shown.items())])


RESHAPE = "reshape(x, :, size(x, 4))"

# file, the closure's type, where it stands, what it does, elementwise, layers
CASES = [
    ("0.11.6/three_conv", "#10#11", "user_script.jl, line 1", RESHAPE, False, ["Flatten"]),
    ("0.12.1/zoo_anon_only", "#19#20", "/home/me/train.jl, line 49", RESHAPE, False, ["Flatten"]),
    ("0.12.1/act_closure_leaky", "#42#43", "line 1", "leakyrelu(x, 0.2", True, ["leakyrelu 0.2"]),
    ("0.12.1/act_closure_ifelse", "#48#49", "line 1", "ifelse(x > 0, x, 0.1", True, ["leakyrelu 0.1"]),
    ("0.12.1/act_closure_max", "#46#47", "line 1", "max(zero(x), x)", True, ["relu"]),
    ("0.12.1/act_closure_times2", "#44#45", "line 1", "x .* 2", True, ["affine 2 0"]),
    ("0.12.1/captured_closure", "#30#32", "line 1", "leakyrelu(x, 0.2", True, ["leakyrelu 0.2"]),
    ("0.12.1/captured_closure", "#31#33", "line 1", "reshape(x, 3, :, size(x, 2))", False,
     ["Reshape shape=(-1, 3)"]),
    ("0.12.1/composed_fn", "#62#63", "operators.jl", "softmax(2 .* x)", False,
     ["affine 2 0", "Softmax axis=-1"]),
    ("0.12.1/dropdims_mean", "#36#38", "line 1", "relu.(x)", False, ["relu"]),
    ("0.12.1/dropdims_mean", "#37#39", "line 1", "dropdims(mean(x; dims = (1, 2)); dims = (1, 2))", False,
     ["GlobalMeanPool", "Flatten"]),
    ("0.12.1/fn_mean_dims", "#12#13", "line 1", "mean(x; dims = (1, 2))", False, ["GlobalMeanPool"]),
    ("0.12.1/fn_maxpool", "#14#15", "line 1", "maxpool(x, (2, 2))", False,
     ["MaxPool kernel=(2, 2) stride=(2, 2) padding=((0, 0), (0, 0)) dilation=(1, 1)"]),
    ("0.12.1/fn_misc", "#24#27", "line 1", "(tanh.(x)) .+ 1.0", False, ["tanh", "affine 1 1"]),
    ("0.12.1/fn_misc", "#26#29", "line 1", "reshape(x, 2, 3, :)", False, ["Reshape shape=(3, 2)"]),
    ("0.12.1/relu_fn_layers", "#40#41", "line 1", "σ.(x)", False, ["sigmoid"]),
    ("0.12.1/zoo_functions", "#17#18", "/home/me/train.jl, line 48", "(2 * x) + 1", True,
     ["affine 2 1"]),
    ("0.16.9/closure_small", "#28#30", "closure_small.jl, line 1", RESHAPE, False, ["Flatten"]),
    ("0.16.9/closure_small", "#29#31", "line 1", "leakyrelu(x, 0.2", True, ["leakyrelu 0.2"]),
    ("0.16.9/capture_closure", "#32#34", "line 2", "reshape(x, 18, :)", False, ["Reshape shape=(18,)"]),
    ("0.16.9/capture_closure", "#33#35", "line 2", "2 .* x", False, ["affine 2 0"]),
    ("0.16.9/capture_closure", "Fix2", "Fix2", "leakyrelu(x, 0.15", True, ["leakyrelu 0.15"]),
    ("0.16.9/activation_layers", "#64#66", "line 1", "relu.(x)", False, ["relu"]),
    ("0.16.9/activation_layers", "#65#67", "line 1", "softmax(x; dims = 1)", False, ["Softmax axis=-1"]),
    ("0.16.9/activation_layers", "Fix1", "Fix1", "tanh.(x)", False, ["tanh"]),
]  # fmt: skip


@pytest.mark.parametrize(("file", "kind", "where", "text", "elementwise", "wanted"), CASES)
def test_what_golden_functions_do(
    file: str, kind: str, where: str, text: str, elementwise: bool, wanted: list[str]
) -> None:
    function = interpret(functions(f"flux-{file}")[kind])
    assert str(function).startswith(text)
    assert where in function.where
    assert described(as_layers(function, elementwise)) == wanted


# file, closure, Flux's activation before and after
NUMBERS = [
    ("0.12.1/captured_closure", "#31#33", "layer1", "layer2"),
    ("0.12.1/composed_fn", "#62#63", "layer1", "layer2"),
    ("0.12.1/dropdims_mean", "#36#38", "layer1", "layer2"),
    ("0.12.1/dropdims_mean", "#37#39", "layer2", "layer3"),
    ("0.12.1/fn_mean_dims", "#12#13", "layer1", "layer2"),
    ("0.12.1/fn_maxpool", "#14#15", "layer1", "layer2"),
    ("0.12.1/fn_misc", "#24#27", "layer1", "layer2"),
    ("0.12.1/fn_misc", "#26#29", "layer4", "layer5"),
    ("0.12.1/relu_fn_layers", "#40#41", "layer4", "layer5"),
    ("0.16.9/closure_small", "#28#30", "layer2", "layer3"),
    ("0.16.9/capture_closure", "#32#34", "layer2", "layer3"),
    ("0.16.9/capture_closure", "#33#35", "layer4", "layer5"),
    ("0.16.9/activation_layers", "#64#66", "layer1", "layer2"),
    ("0.16.9/activation_layers", "Fix1", "layer3", "layer4"),
]


@pytest.mark.parametrize(("file", "kind", "before", "after"), NUMBERS)
def test_the_layers_give_fluxs_numbers(file: str, kind: str, before: str, after: str) -> None:
    layers = as_layers(interpret(functions(f"flux-{file}")[kind]))
    given = np.ascontiguousarray(np.load(GOLDEN / f"flux-{file}_{before}.npy").transpose())
    wanted = np.load(GOLDEN / f"flux-{file}_{after}.npy").transpose()
    np.testing.assert_allclose(
        numpy_engine.compile(Model(Chain(layers)))(given), wanted, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", ["leaky", "times2", "max", "ifelse"])
def test_an_activation_of_a_dense_layer_gives_fluxs_numbers(name: str) -> None:
    dense = bson.load(GOLDEN / f"flux-0.12.1/act_closure_{name}.bson")["model"]
    weight, bias, function = dense.fields
    layers = (Dense(np.array(weight), np.array(bias)), *as_layers(interpret(function), elementwise=True))
    given, wanted = (
        np.load(GOLDEN / f"flux-0.12.1/act_closure_{name}_{part}.npy").transpose()
        for part in ("input", "output")
    )
    found = numpy_engine.compile(Model(Chain(layers)))(np.ascontiguousarray(given))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "kind"), [("0.12.1/skip_cat", "#18#19"), ("0.12.1/parallel_cat3", "#20#21")]
)
def test_a_connection_of_two_branches(file: str, kind: str) -> None:
    connection = as_connection(interpret(functions(f"flux-{file}")[kind], 2))
    assert (connection.operation, connection.axis) == ("concatenate", -3)


def test_a_captured_layer_is_handed_to_the_reader_of_layers() -> None:
    function = interpret(functions("flux-0.12.1/parallel_plus3")["#62#63"])
    handed: list[JuliaStruct] = []

    def layer_of(value: JuliaStruct) -> Layer:
        handed.append(value)
        return Activation("relu")

    assert described(as_layers(function, layer_of=layer_of)) == ["relu"]
    assert handed[0].type.name == "Dense"
    with pytest.raises(FormatError, match="captured value"):
        as_layers(function)


@pytest.mark.parametrize(
    ("file", "kind", "words"),
    [
        ("0.12.1/fn_misc", "#25#28", r"#25 \(user_script.jl, line 1\) moves the batch axis.*permutedims"),
        ("0.12.1/zoo_functions", "#62#63", r"operators.jl, line 875\) calls cos on a whole array"),
        (
            "0.16.9/embedding",
            "#42#43",
            r"#42 \(embedding.jl, line 1\) takes a reduction over other axes.*sum",
        ),
    ],
)
def test_what_no_layer_does_is_refused_by_name_and_line(file: str, kind: str, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        as_layers(interpret(functions(f"flux-{file}")[kind]))


# ---- Code written by hand, as Julia lowers it -----------------------------------------------------------


def core(name: str, *fields: Any) -> JuliaStruct:
    return JuliaStruct(JuliaType(("Core", name)), list(fields))


def ref(name: str) -> JuliaStruct:
    return core("GlobalRef", JuliaModule(("Main",)), Symbol(name))


def slot(number: int) -> JuliaStruct:
    return core("SlotNumber", number)


def ssa(number: int) -> JuliaStruct:
    return core("SSAValue", number)


def expr(head: str, *parts: Any) -> JuliaStruct:
    return core("Expr", Symbol(head), list(parts))


def call(name: Any, *parts: Any) -> JuliaStruct:
    return expr("call", ref(name) if isinstance(name, str) else name, *parts)


X = slot(2)


def closure(
    *code: Any,
    captured: dict[str, Any] | None = None,
    arguments: int = 1,
    splat: bool = False,
    modern: bool = False,
) -> JuliaStruct:
    """A closure as BSON.jl stores it, by Julia 1.5 or, `modern`, 1.10."""
    captured = captured or {}
    info = core("CodeInfo", list(code), None)
    slots = "#self#\0" + "".join(f"{name}\0" for name in "xyzw"[:arguments])
    middle = [] if modern else [None]
    method = core(
        "Method", JuliaModule(("Main",)), Symbol("#1"), Symbol("train.jl"), np.int32(12),
        JuliaType(("Core", "Tuple")), slots, *middle, np.int32(arguments + 1), splat, np.int32(0), info,
    )  # fmt: skip
    names = core("SimpleVector", *(Symbol(name) for name in captured))
    table = [Symbol("#1"), [method], np.int32(2), None]
    definition = core("TypeName", "1.10.4" if modern else "1.5.3", Symbol("#1#2"), names, None, table)
    return JuliaStruct(JuliaType(("#1#2",), (), definition), list(captured.values()))


def layers_of(*code: Any, elementwise: bool = False, **options: Any) -> list[str]:
    return described(as_layers(interpret(closure(*code, **options)), elementwise))


def give(number: int) -> JuliaStruct:
    return expr("return", ssa(number))


def returned(name: str, *parts: Any) -> tuple[Any, ...]:
    return call(name, *parts), give(1)


FUNCTION = {name: JuliaStruct(JuliaType(("NNlib", f"#{name}"))) for name in ("relu", "tanh", "leakyrelu")}


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ((expr("return", X),), []),
        ((core("ReturnNode", X),), []),
        (returned("relu", X), ["relu"]),
        (returned("relu6", X), ["relu6"]),
        (returned("hardσ", X), ["hardsigmoid 0.166667"]),
        (returned("gelu", X), ["gelu_tanh"]),
        (returned("sigmoid_fast", X), ["sigmoid"]),
        (returned("elu", X, np.float32(0.5)), ["elu 0.5"]),
        (returned("clamp", X, 0, 1), ["clamp 0 1"]),
        (returned("-", X), ["affine -1 0"]),
        (returned("-", 3, X), ["affine -1 3"]),
        (returned("-", X, 3), ["affine 1 -3"]),
        (returned("/", X, 4), ["affine 0.25 0"]),
        (returned("max", X, np.float32(0)), ["relu"]),
        (returned("identity", X), []),
        ((call("max", X, 0), call("min", ssa(1), 6), give(2)), ["relu6"]),
        ((call("min", X, 2), call("max", ssa(1), -1), give(2)), ["clamp -inf 2", "clamp -1 inf"]),
        ((call("max", X, -1), call("min", ssa(1), 2), give(2)), ["clamp -1 2"]),
        ((call("*", 0.1, X), call("max", X, ssa(1)), give(2)), ["leakyrelu 0.1"]),
        ((call("sigmoid", X), call("*", X, ssa(1)), give(2)), ["swish"]),
        ((call("tanh", X), call("*", ssa(1), X), give(2)), ["lisht"]),
        (returned("*", X, X), ["abs2"]),
        ((call("apply_type", ref("Val"), 2), call(ssa(1)), call("literal_pow", ref("^"), X, ssa(2)),
          give(3)), ["abs2"]),
        ((call(">", X, 1), expr("gotoifnot", ssa(1), 4), expr("return", X), expr("return", 0)), ["trelu 1"]),
        ((call("<", X, 0), core("GotoIfNot", ssa(1), 4), core("ReturnNode", 0), core("ReturnNode", X)),
         ["relu"]),
        ((call("<", 0, X), expr("gotoifnot", ssa(1), 4), expr("return", X), expr("return", 0)), ["relu"]),
        ((call(">", 2, 1), expr("gotoifnot", ssa(1), 4), expr("return", X), call("cos", X)), []),
        ((call("<", 2, 1), core("GotoIfNot", ssa(1), 4), call("cos", X), core("ReturnNode", X)), []),
        ((core("GotoNode", 3), call("cos", X), expr("return", X)), []),
        ((expr("=", slot(3), call("tanh", X)), core("NewvarNode", slot(4)), expr("return", slot(3))),
         ["tanh"]),
        ((call("|>", X, ref("relu")), give(1)), ["relu"]),
        ((expr("meta", Symbol("inline")), expr("return", call("relu", X))), ["relu"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("modern", [False, True])
def test_functions_of_one_number(code: tuple[Any, ...], wanted: list[str], modern: bool) -> None:
    assert layers_of(*code, elementwise=True, modern=modern) == wanted


def size(axis: Any) -> tuple[Any, ...]:
    return (call("size", X, axis),)


def dims(*axes: int) -> tuple[Any, ...]:
    """The statements 1 to 4 that build (dims = axes,); 4 is the keywords."""
    return ((Symbol("dims"),), call("apply_type", ref("NamedTuple"), ssa(1)), call("tuple", *axes),
            call("tuple", ssa(3)), call(ssa(2), ssa(4)))  # fmt: skip


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        (returned("flatten", X), ["Flatten"]),
        ((call("size", X), call("getindex", ssa(1), 4), call("reshape", X, ref(":"), ssa(2)),
          give(3)), ["Flatten"]),
        ((call("size", X), call("lastindex", ssa(1)), call("getindex", ssa(1), ssa(2)),
          call("reshape", X, ref(":"), ssa(3)), give(4)), ["Flatten"]),
        ((call("ndims", X), call("size", X, ssa(1)), call("reshape", X, ref(":"), ssa(2)),
          give(3)), ["Flatten"]),
        ((*size(4), call("tuple", 4, 4, ref(":"), ssa(1)), call("reshape", X, ssa(2)), give(3)),
         ["Reshape shape=(-1, 4, 4)"]),
        ((*dims(1, 2), call("kwfunc", ref("maximum")), call(ssa(6), ssa(5), ref("maximum"), X),
          give(7)), ["GlobalMaxPool"]),
        ((*dims(1, 2), call("kwcall", ssa(5), ref("mean"), X), core("ReturnNode", ssa(6))),
         ["GlobalMeanPool"]),
        ((*dims(3), call("kwcall", ssa(5), ref("logsoftmax"), X), give(6)),
         ["Softmax axis=-3 log=True"]),
        (((Symbol("dims"),), call("apply_type", ref("NamedTuple"), ssa(1)), call(":", 1, 2),
          call("tuple", ssa(3)), call(ssa(2), ssa(4)),
          call("kwcall", ssa(5), ref("mean"), X), give(6)), ["GlobalMeanPool"]),
        (((Symbol("pad"), Symbol("stride")), call("apply_type", ref("NamedTuple"), ssa(1)),
          call("tuple", 1, 2, 0, 3), call("tuple", ssa(3), 2),
          call(ssa(2), ssa(4)), call("tuple", 3, 2),
          call("kwcall", ssa(5), ref("meanpool"), X, ssa(6)), give(7)),
         ["MeanPool kernel=(2, 3) stride=(2, 2) padding=((0, 3), (1, 2)) count_padding=True"]),
        ((call("tuple", 2, 3), call("upsample_nearest", X, ssa(1)), give(2)),
         ["Upsample scale=(3.0, 2.0) mode=nearest"]),
        (returned("pixel_shuffle", X, 2), ["PixelShuffle factor=2"]),
        ((call("broadcasted", ref("relu"), X), call("broadcasted", ref("*"), 2, ssa(1)),
          call("materialize", ssa(2)), give(3)), ["relu", "affine 2 0"]),
        ((call("broadcast", ref("tanh"), X), give(1)), ["tanh"]),
        ((call("broadcasted", ref(">"), X, 0), call("broadcasted", ref("ifelse"), ssa(1), X, 0),
          call("materialize", ssa(2)), give(3)), ["relu"]),
    ],
)  # fmt: skip
def test_functions_of_a_whole_array(code: tuple[Any, ...], wanted: list[str]) -> None:
    assert layers_of(*code) == wanted


def test_what_a_function_captured() -> None:
    field = call("getfield", slot(1), core("QuoteNode", Symbol("a")))
    code = (field, call("leakyrelu", X, ssa(1)), give(2))
    assert layers_of(*code, captured={"a": np.float32(0.25)}, elementwise=True) == ["leakyrelu 0.25"]
    inner = closure(*returned("tanh", X))
    apply = (field, call(ssa(1), X), give(2))
    assert layers_of(*apply, captured={"a": inner}, elementwise=True) == ["tanh"]
    assert layers_of(*apply, captured={"a": FUNCTION["relu"]}) == ["relu"]


def test_fixed_arguments_and_compositions() -> None:
    fix1 = JuliaStruct(JuliaType(("Base", "Fix1")), [JuliaStruct(JuliaType(("Base", "#*"))), 3])
    fix2 = JuliaStruct(JuliaType(("Base", "Fix2")), [FUNCTION["leakyrelu"], 0.5])
    both = JuliaStruct(JuliaType(("Base", "ComposedFunction")), [fix1, fix2])
    assert described(as_layers(interpret(both), elementwise=True)) == ["leakyrelu 0.5", "affine 3 0"]
    assert described(as_layers(interpret(FUNCTION["tanh"]), elementwise=True)) == ["tanh"]
    assert not is_function(JuliaStruct(JuliaType(("Flux", "Dense")), [1]))


def test_a_residual_inside_a_function_is_a_skip_connection() -> None:
    dotted = (
        call("broadcasted", ref("relu"), X), call("broadcasted", ref("+"), ssa(1), X),
        call("materialize", ssa(2)), give(3),
    )  # fmt: skip
    (layer,) = as_layers(interpret(closure(*dotted)))
    assert isinstance(layer, SkipConnection)
    assert description(layer.inner) == "relu"
    assert layer.connection.operation == "add"


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        (returned("+", X, slot(3)), Connection("add")),
        (returned("-", X, slot(3)), Connection("subtract")),
        (returned("vcat", X, slot(3)), Connection("concatenate", -1)),
        (returned("hcat", X, slot(3)), Connection("concatenate", -2)),
        ((call("broadcasted", ref("*"), X, slot(3)), call("materialize", ssa(1)), give(2)),
         Connection("multiply")),
    ],
)  # fmt: skip
def test_connections(code: tuple[Any, ...], wanted: Connection) -> None:
    found = as_connection(interpret(closure(*code, arguments=2), 2))
    assert (found.operation, found.axis) == (wanted.operation, wanted.axis)


def test_a_function_with_several_methods_is_entered_by_its_number_of_arguments() -> None:
    one, two = closure(*returned("relu", X)), closure(*returned("+", X, slot(3)), arguments=2)
    table = one.type.definition.fields[-1][1]
    table.extend(two.type.definition.fields[-1][1])
    assert described(as_layers(interpret(one))) == ["relu"]
    assert as_connection(interpret(one, 2)).operation == "add"
    with pytest.raises(FormatError, match="for this many arguments"):
        interpret(one, 3)


def test_a_connection_of_any_number_of_branches() -> None:
    code = (call("_apply_iterate", ref("iterate"), ref("vcat"), X), give(1))
    assert as_connection(interpret(closure(*code, splat=True), 3)).axis == -1


@pytest.mark.parametrize(
    "order", [returned("-", slot(3), X), returned("*", X, slot(3)), returned("vcat", X, X)]
)
def test_connections_that_are_none(order: tuple[Any, ...]) -> None:
    with pytest.raises(FormatError, match="no Connection"):
        as_connection(interpret(closure(*order, arguments=2), 2))


DOUBLED = (call("+", X, X), *(call("+", ssa(i), ssa(i)) for i in range(1, 60)), give(60))
LOOP = (call("relu", X), expr("gotoifnot", ssa(1), 4), core("GotoNode", 1), expr("return", X))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (returned("run", "rm -rf /"), r"#1 \(train.jl, line 12\) calls run"),
        (returned("eval", X), "calls eval"),
        (LOOP, "contains a loop"),
        ((core("GotoNode", 1),), "contains a loop"),
        ((call("relu", X),), "does not end"),
        ((expr("foreigncall", "system"), expr("return", X)), "uses the statement foreigncall"),
        ((expr("new", X), expr("return", X)), "uses the statement new"),
        ((call(call("relu", X), X), give(1)), "computes itself"),
        ((give(9),), "before it is set"),
        ((call("getfield", X, core("QuoteNode", Symbol("weight"))), give(1)), "field weight"),
        (DOUBLED, "more than 200"),
        ((expr("?"), expr("return", X)), r"statement \?"),
        ((call("_apply_iterate", ref("iterate"), ref("relu"), X), give(1)), "not a tuple"),
    ],
)  # fmt: skip
def test_code_that_is_not_followed(code: tuple[Any, ...], words: str) -> None:
    with pytest.raises(FormatError, match=words):
        interpret(closure(*code))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ((expr("return", 3),), "does not depend"),
        (returned("exp", X), "whole array, which needs a dot"),
        (returned("*", X, X), "no layer does"),
        (returned("reshape", X, ref(":")), "reshapes away the batch"),
        (returned("reshape", X, 4, 2), "fixed batch"),
        (returned("reshape", X, ref(":"), ref(":")), "not one"),
        ((*size(1), call("reshape", X, ssa(1), ref(":")), give(2)), "depends on the input"),
        ((*size(1), call("reshape", X, ref(":"), ssa(1)), give(2)), "fixed batch"),
        ((*dims(3), call("kwcall", ssa(5), ref("mean"), X), give(6)), "other axes than"),
        (returned("maxpool", X, 0), "unknown way"),
        (returned("elu", X, X), "no layer does"),
    ],
)  # fmt: skip
def test_functions_that_no_layer_does(code: tuple[Any, ...], words: str) -> None:
    function = interpret(closure(*code))
    with pytest.raises(FormatError, match=words) as error:
        as_layers(function)
    assert "train.jl, line 12" in str(error.value)


def test_a_function_that_calls_itself_ends() -> None:
    field = call("getfield", slot(1), core("QuoteNode", Symbol("a")))
    function = closure(field, call(ssa(1), X), give(2), captured={"a": None})
    function.fields[0] = function
    with pytest.raises(FormatError, match="more than 8 deep"):
        interpret(function)


@pytest.mark.parametrize("fields", [[], [18]])
def test_a_file_that_stores_only_a_closures_name(fields: list[Any]) -> None:
    value = JuliaStruct(JuliaType(("#28#30",)), fields)
    assert is_function(value)
    with pytest.raises(FormatError, match=r"#28#30 has no code in the file.*only its name"):
        interpret(value)


def test_a_closure_without_code_is_said_to_have_none() -> None:
    bare = closure(expr("return", X))
    bare.type.definition.fields[-1] = None
    with pytest.raises(FormatError, match="has no code"):
        interpret(bare)
    packed = closure(expr("return", X))
    packed.type.definition.fields[-1][1][0].fields[-1].fields[0] = np.zeros(9, np.uint8)
    with pytest.raises(FormatError, match="compressed"):
        interpret(packed)


def followed(function: JuliaStruct, elementwise: bool) -> tuple[Layer, ...]:
    return as_layers(interpret(function), elementwise)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_damaged_code_is_read_or_refused(seed: int) -> None:
    random_ = random.Random(seed)
    ends: set[str] = set()
    files = [
        f"flux-{file}"
        for file in ("0.12.1/dropdims_mean", "0.12.1/act_closure_ifelse", "0.16.9/closure_small")
    ]
    odd = [
        None,
        0,
        1,
        2,
        -1,
        "x",
        X,
        ssa(1),
        Symbol("dims"),
        ref("relu"),
        call("relu", X),
        [],
        (),
        np.float32(1),
    ]
    for _ in range(60):
        for function in functions(random_.choice(files)).values():
            code = function.type.definition.fields[-1][1][0].fields[-1].fields[0]
            place = random_.choice(code)
            while isinstance(place, JuliaStruct) and place.fields and random_.random() < 0.8:
                holder = place.fields[1] if place.type.name == "Expr" else place.fields
                index = random_.randrange(len(holder))
                if random_.random() < 0.5 or not isinstance(holder[index], JuliaStruct):
                    holder[index] = random_.choice(odd)
                    break
                place = holder[index]
            layers = value_or_refusal(followed, function, random_.random() < 0.5)
            ends.add("refused" if isinstance(layers, FormatError) else "read")
            assert isinstance(layers, FormatError) or all(isinstance(layer, Layer) for layer in layers)
    assert ends == {"read", "refused"}
