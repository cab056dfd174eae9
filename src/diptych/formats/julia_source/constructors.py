"""The layers of Flux and Lux: from the arguments of a constructor to the struct that it makes.

Each struct has the fields that the newest Flux gives it. Weights are placeholders of the right shape, which take
no memory; `weights.py` draws them for the model that is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diptych.formats.flux.functions import function
from diptych.formats.flux.layouts import Version
from diptych.formats.julia import JuliaStruct, JuliaType, NamedTuple, Symbol
from diptych.formats.julia_source.given import (
    IDENTITY,
    Arguments,
    Given,
    Keywords,
    array_of,
    bias_of,
    constant,
    placeholder,
    shown,
    struct_of,
    whole,
    wholes,
)
from diptych.formats.julia_source.values import (
    COLON,
    Built,
    Constructor,
    NotUnderstood,
    Pair,
    Unknown,
    WrittenFunction,
)
from diptych.model.layers import Array

__all__ = ["CONSTRUCTORS", "constructors_of", "placeholder"]


def _spread(value: Any, rank: int) -> tuple[int, ...]:
    numbers = wholes(value)
    spread = numbers * rank if len(numbers) == 1 else numbers
    if len(spread) != rank or any(n < 1 for n in spread):
        raise NotUnderstood(f"{numbers} are not {rank} positive numbers")
    return spread


_SAME_PAD = Symbol("SamePad")


def _pads(
    value: Any, kernel: tuple[int, ...], dilation: tuple[int, ...], transposed: tuple[int, ...] = ()
) -> Any:
    """Two numbers for each axis, W first. `SamePad()` is what Flux computes: the larger half in front."""
    if value is _SAME_PAD:
        strides = transposed or (1,) * len(kernel)
        extents = [(k - s) * d for k, s, d in zip(kernel, strides, dilation, strict=True)]
        if any(e < 0 for e in extents):
            raise NotUnderstood("SamePad() does not fit a stride larger than the kernel")
        return tuple(n for e in extents for n in (e - e // 2, e // 2))
    numbers = wholes(value)
    rank = len(kernel)
    if any(n < 0 for n in numbers):
        raise NotUnderstood("a padding is negative")
    if len(numbers) == 2 * rank:
        return numbers
    spread = numbers * rank if len(numbers) == 1 else numbers
    if len(spread) != rank:
        raise NotUnderstood(f"the padding {numbers} does not fit {rank} axes")
    return tuple(n for each in spread for n in (each, each))


# ---- Convolution ----------------------------------------------------------------------------------------


def _conv(struct: str) -> Callable[[Arguments, Keywords], Built]:
    def build(arguments: Arguments, keywords: Keywords) -> Built:
        given = Given(struct, arguments, keywords)
        first = given.next()
        weight = array_of(first)
        depthwise = struct == "DepthwiseConv"
        if weight is not None and weight.ndim > 1:
            bias_given = (
                given.next(True)
                if not (given.arguments and isinstance(given.arguments[0], JuliaStruct))
                else True
            )
            kernel = weight.shape[:-2]
            groups = whole(given.keyword("groups", default=1))
            outputs = weight.shape[-2] if struct == "ConvTranspose" else weight.shape[-1]
            bias: Any = array_of(bias_given) if bias_given is not True else placeholder(outputs)
            bias = False if bias_given is False else bias
        else:
            kernel = wholes(first)
            inputs, outputs = given.sizes()
            groups = whole(given.keyword("groups", default=inputs if depthwise else 1))
            weight = _kernel(struct, kernel, inputs, outputs, groups)
            bias = bias_of(given, outputs)
        rank = len(kernel)
        if rank not in (1, 2, 3) or any(k < 1 for k in kernel):
            raise NotUnderstood(f"{struct} has a kernel of {rank} axes")
        activation = given.activation()
        stride = _spread(given.keyword("stride", default=1), rank)
        dilation = _spread(given.keyword("dilation", default=1), rank)
        transposed = stride if struct == "ConvTranspose" else ()
        crossing = given.keyword("cross_correlation", default=False)
        pad = _pads(given.keyword("pad", default=0), kernel, dilation, transposed)
        values = {
            "σ": activation,
            "weight": weight,
            "bias": bias,
            "stride": stride,
            "pad": pad,
            "dilation": dilation,
            "groups": groups,
        }
        if struct == "ConvTranspose":
            extra = given.keyword("outpad", default=0)
            values["outpad"] = wholes(extra) * rank if len(wholes(extra)) == 1 else wholes(extra)
        name = "Conv" if depthwise else "CrossCor" if crossing is True and struct == "Conv" else struct
        if name == "CrossCor" and groups != 1:
            raise NotUnderstood("a cross-correlation in groups is not read")
        return given.done(struct_of(name, values, (rank,)))

    return build


def _kernel(struct: str, kernel: tuple[int, ...], inputs: int, outputs: int, groups: int) -> Array:
    if inputs < 1 or outputs < 1 or groups < 1 or inputs % groups or outputs % groups:
        raise NotUnderstood(f"{inputs} => {outputs} channels do not fit {groups} groups")
    if struct == "ConvTranspose":
        return placeholder(*kernel, outputs // groups, inputs)
    return placeholder(*kernel, inputs // groups, outputs)


def _pool(struct: str) -> Callable[[Arguments, Keywords], Built]:
    def build(arguments: Arguments, keywords: Keywords) -> Built:
        given = Given(struct, arguments, keywords)
        kernel = wholes(given.next())
        stride = given.keyword("stride", default=None)
        dilation = _spread(given.keyword("dilation", default=1), len(kernel))
        if dilation != (1,) * len(kernel):
            raise NotUnderstood(f"{struct} with a dilation is not read")
        strides = kernel if stride is None else _spread(stride, len(kernel))
        pad = _pads(given.keyword("pad", default=0), kernel, dilation)
        return given.done(struct_of(struct, {"k": kernel, "pad": pad, "stride": strides}, (len(kernel),)))

    return build


def _adaptive(struct: str) -> Callable[[Arguments, Keywords], Built]:
    def build(arguments: Arguments, keywords: Keywords) -> Built:
        given = Given(struct, arguments, keywords)
        return given.done(struct_of(struct, {"out": wholes(given.next())}))

    return build


def _upsample(arguments: Arguments, keywords: Keywords) -> Built:
    given = Given("Upsample", arguments, keywords)
    mode = Symbol("nearest")
    if given.arguments and isinstance(given.arguments[0], Symbol):
        mode = given.next()
    elif len(given.arguments) == 2 and isinstance(given.arguments[1], Symbol):
        mode = given.arguments.pop()
    scale, size = given.keyword("scale"), given.keyword("size")
    if given.arguments:
        scale = given.next()
    if (scale is None) == (size is None):
        raise NotUnderstood("Upsample takes a scale or a size")
    size = None if size is None else wholes(size)
    scale = tuple(scale) if isinstance(scale, list) else scale
    return given.done(struct_of("Upsample", {"scale": scale, "size": size}, (mode,)))


# ---- Dense layers ---------------------------------------------------------------------------------------


def _dense(arguments: Arguments, keywords: Keywords) -> Built:
    given = Given("Dense", arguments, keywords)
    first: Any = given.arguments[0] if given.arguments else None
    turned = isinstance(first, JuliaStruct) and first.type.name == "Transpose"
    array = array_of(first.fields[0] if turned else first)
    weight: Any = array
    if array is not None:
        given.next()
        if turned:
            first.fields[0], weight = array, first
        value = (
            given.next(True) if given.arguments and not isinstance(given.arguments[0], JuliaStruct) else True
        )
        value = given.keyword("bias", default=value)
        found = array_of(value)
        size = array.shape[1 if turned else 0]
        bias: Any = found if found is not None else placeholder(size) if value is True else False
    else:
        inputs, outputs = given.sizes()
        weight, bias = placeholder(outputs, inputs), bias_of(given, outputs)
    return given.done(struct_of("Dense", {"weight": weight, "bias": bias, "σ": given.activation()}))


def _scale(arguments: Arguments, keywords: Keywords) -> Built:
    given = Given("Scale", arguments, keywords)
    sizes: list[int] = []
    while given.arguments and isinstance(given.arguments[0], (int, tuple)):
        sizes += wholes(given.next())
    bias = given.keyword("bias", "use_bias", default=True)
    values = {"scale": constant(1, *sizes), "bias": placeholder(*sizes) if bias is not False else False}
    return given.done(struct_of("Scale", values | {"σ": given.activation()}))


def _bilinear(arguments: Arguments, keywords: Keywords) -> Built:
    given = Given("Bilinear", arguments, keywords)
    first = given.next()
    if not isinstance(first, Pair):
        first = Pair((whole(first), whole(given.next())), given.next())
    left, right = wholes(first.first) * (2 if len(wholes(first.first)) == 1 else 1)
    outputs = whole(first.second)
    values = {"weight": placeholder(outputs, left, right), "bias": bias_of(given, outputs)}
    return given.done(struct_of("Bilinear", values | {"σ": given.activation()}))


def _embedding(arguments: Arguments, keywords: Keywords) -> Built:
    given = Given("Embedding", arguments, keywords)
    inputs, outputs = given.sizes()
    return given.done(struct_of("Embedding", {"weight": placeholder(outputs, inputs)}))


# ---- Norms ----------------------------------------------------------------------------------------------


def _norm(
    struct: str, momentum: Any, epsilon: Any, affine: bool, tracks: bool
) -> Callable[[Arguments, Keywords], Built]:
    def build(arguments: Arguments, keywords: Keywords) -> Built:
        given = Given(struct, arguments, keywords)
        channels = whole(given.next())
        values: dict[str, Any] = {"chs": channels, "momentum": momentum}
        if struct == "GroupNorm":
            values["G"] = whole(given.next())
        values["λ"] = given.activation()
        values["affine"] = given.keyword("affine", default=affine) is not False
        values["track_stats"] = given.keyword("track_stats", default=tracks) is not False
        values["ϵ"] = given.keyword("ϵ", "eps", "epsilon", default=epsilon)
        values["momentum"] = given.keyword("momentum", default=momentum)
        for name, number in (("β", 0), ("γ", 1)):
            values[name] = constant(number, channels) if values["affine"] else None
        for name, number in (("μ", 0), ("σ²", 1)):
            count = values["G"] if struct == "GroupNorm" else channels
            values[name] = constant(number, count) if values["track_stats"] else None
        return given.done(struct_of(struct, values))

    return build


def _layer_norm(arguments: Arguments, keywords: Keywords) -> Built:
    given = Given("LayerNorm", arguments, keywords)
    sizes: list[int] = []
    while given.arguments and isinstance(given.arguments[0], (int, tuple, list)):
        sizes += wholes(given.next())
    affine = given.keyword("affine", default=True) is not False
    given.keyword("dims")
    epsilon = given.keyword("ϵ", "eps", "epsilon", default=np.float32(1e-5))
    activation = given.activation()
    shift = placeholder(*sizes)
    diagonal: Any = IDENTITY
    if affine:
        diagonal = struct_of("Scale", {"scale": constant(1, *sizes), "bias": shift, "σ": IDENTITY})
    values = {"λ": activation, "diag": diagonal, "ϵ": epsilon, "size": tuple(sizes), "affine": affine}
    return given.done(struct_of("LayerNorm", values))


def _dropout(struct: str) -> Callable[[Arguments, Keywords], Built]:
    def build(arguments: Arguments, keywords: Keywords) -> Built:
        given = Given(struct, arguments, keywords)
        dims = given.keyword("dims", default=None)
        values = {"p": given.next(), "dims": COLON_STRUCT if dims is None or dims is COLON else dims}
        if not isinstance(values["p"], (int, float, np.floating)):
            raise NotUnderstood(f"the probability of {struct} is not a number")
        return given.done(struct_of(struct, values))

    return build


COLON_STRUCT = JuliaStruct(JuliaType(("Base", "Colon")))


# ---- Containers -----------------------------------------------------------------------------------------


def _layers(given: Given) -> Any:
    """The layers as a tuple, a named tuple, or the vector that was given as one."""
    if given.keywords:
        names = {k: v for k, v in given.keywords.items() if k not in ("disable_optimizations",)}
        given.keywords = {}
        if given.arguments and names:
            raise NotUnderstood(f"{given.name} has layers with and without names")
        if names:
            return NamedTuple(tuple(names), [layer_like(v) for v in names.values()])
    items = given.arguments
    given.arguments = []
    if len(items) == 1 and isinstance(items[0], (list, NamedTuple)):
        one = items[0]
        return one if isinstance(one, NamedTuple) else [layer_like(v) for v in one]
    return tuple(layer_like(v) for v in items)


def layer_like(value: Any) -> Any:
    """A layer or function. Raises `NotUnderstood` for any other value."""
    if isinstance(value, Constructor):
        if value.name in ("gpu", "cpu", "f32", "identity"):
            return IDENTITY
        if value.name in ("Float32", "Float64", "Float16"):
            raise NotUnderstood(f"{value.name} stands where a layer is expected")
        raise NotUnderstood(f"{value.name} is a type, where a layer is expected")
    if isinstance(value, JuliaStruct):
        return value
    if isinstance(value, Unknown):
        raise NotUnderstood(f"a layer is not known: {value.why}", value.node)
    raise NotUnderstood(f"{shown(value)} stands where a layer is expected")


def _chain(arguments: Arguments, keywords: Keywords) -> Built:
    given = Given(
        "Chain", arguments, {k: v for k, v in keywords.items() if k != "name" or not isinstance(v, str)}
    )
    given.keywords = {k: v for k, v in keywords.items() if k != "name" or isinstance(v, JuliaStruct)}
    return Built(JuliaType(("Flux", "Chain")), [_layers(given)], ("layers",))


def _parallel(struct: str) -> Callable[[Arguments, Keywords], Built]:
    def build(arguments: Arguments, keywords: Keywords) -> Built:
        given = Given(struct, arguments, {})
        given.keywords = {k: v for k, v in keywords.items() if isinstance(v, JuliaStruct)}
        connection = given.next()
        if not isinstance(connection, JuliaStruct):
            raise NotUnderstood(f"{shown(connection)} does not join the branches of {struct}")
        return struct_of(struct, {"connection": connection, "layers": _layers(given)}, ())

    return build


def _skip(arguments: Arguments, keywords: Keywords) -> Built:
    given = Given("SkipConnection", arguments, keywords)
    given.keyword("name")
    inner = given.next()
    layers = inner if isinstance(inner, JuliaStruct) else None
    if isinstance(inner, (tuple, list)):
        layers = _chain(list(inner), {})
    connection = given.next()
    if layers is None or not isinstance(connection, JuliaStruct):
        raise NotUnderstood("SkipConnection takes a layer and a function that joins")
    return given.done(struct_of("SkipConnection", {"layers": layers, "connection": connection}))


def _maxout(arguments: Arguments, keywords: Keywords) -> Built:
    given = Given("Maxout", arguments, keywords)
    if len(arguments) == 2 and isinstance(arguments[0], WrittenFunction) and isinstance(arguments[1], int):
        make, count = arguments
        if not 1 <= count <= 64 or make.evaluator is None:
            raise NotUnderstood("Maxout is read with 1 to 64 layers")
        given.arguments = [make.evaluator.call(make, [], {}, make.node) for _ in range(count)]
    return struct_of("Maxout", {"layers": _layers(given)})


def _weight_norm(arguments: Arguments, keywords: Keywords) -> Any:
    """`WeightNorm(layer, :weight)` computes what the layer does until it is trained."""
    if len(arguments) != 2 or not isinstance(arguments[0], Built) or arguments[1] != Symbol("weight"):
        raise NotUnderstood("WeightNorm is read around the weight of a layer")
    return arguments[0]


def _embedding_bag(arguments: Arguments, keywords: Keywords) -> Built:
    given = Given("EmbeddingBag", arguments, keywords)
    inputs, outputs = given.sizes()
    values = {"weight": placeholder(outputs, inputs), "reduction": given.next(function("Statistics", "mean"))}
    return given.done(struct_of("EmbeddingBag", values))


def _recurrent(struct: str, gates: int, whole_layer: bool = True) -> Callable[[Arguments, Keywords], Built]:
    def build(arguments: Arguments, keywords: Keywords) -> Built:
        given = Given(struct, arguments, keywords)
        inputs, hidden = given.sizes()
        values = {"σ": given.activation(function("Base", "tanh"))} if struct == "RNN" else {}
        bias = bias_of(given, gates * hidden)
        values |= {"Wi": placeholder(gates * hidden, inputs), "Wh": placeholder(gates * hidden, hidden)}
        values |= {"bias": bias, "b": bias, "Wh_h̃": placeholder(hidden, hidden)}
        parameters = (given.keyword("return_state", default=False),) if whole_layer else ()
        cell = struct_of(f"{struct}Cell", values)
        return given.done(struct_of(struct, {"cell": cell}, parameters) if whole_layer else cell)

    return build


def _recurrence(name: str, lux: bool = False) -> Callable[[Arguments, Keywords], Built]:
    """`Recur(cell)` and `Recurrence(cell)`, which are what RNN, LSTM and GRU make."""

    def build(arguments: Arguments, keywords: Keywords) -> Built:
        given = Given(name, arguments, keywords)
        cell = given.next()
        kind = cell.type.name.removesuffix("Cell") if isinstance(cell, JuliaStruct) else ""
        if f"{kind}Cell" not in _CELLS:
            raise NotUnderstood(f"{name} is read around {', '.join(_CELLS)}, not around {shown(cell)}")
        if lux and given.keyword("return_sequence", default=False) is not True:
            raise NotUnderstood(
                f"{name} of Lux gives the last step alone; it is read with return_sequence = true, and "
                "x -> x[:, end, :] behind it"
            )
        parameters = (given.keyword("return_state", default=False),)
        return given.done(struct_of(kind, {"cell": cell}, parameters))

    return build


_CELLS = ("RNNCell", "LSTMCell", "GRUCell", "GRUv3Cell")


def _attention(arguments: Arguments, keywords: Keywords) -> Built:
    given = Given("MultiHeadAttention", arguments, keywords)
    sizes = given.next()
    entry, inner, outputs = (sizes,) * 3
    if isinstance(sizes, Pair) and isinstance(sizes.second, Pair):
        entry, inner, outputs = sizes.first, sizes.second.first, sizes.second.second
    entries = wholes(entry) if isinstance(entry, tuple) else (whole(entry),) * 3
    qk, v = wholes(inner) if isinstance(inner, tuple) else (whole(inner),) * 2
    biased, rate = given.keyword("bias", default=False), given.keyword("dropout_prob", default=0.0)
    parts = [Pair(n, m) for n, m in zip(entries, (qk, qk, v), strict=True)] + [Pair(v, whole(outputs))]
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    values: dict[str, Any] = {n: _dense([p], {"bias": biased}) for n, p in zip(names, parts, strict=True)}
    values |= {
        "nheads": whole(given.keyword("nheads", default=8)),
        "attn_drop": _dropout("Dropout")([rate], {}),
    }
    return given.done(struct_of("MultiHeadAttention", values))


def _refused(struct: str) -> Callable[[Arguments, Keywords], Built]:
    """A layer that `FluxReader` knows by name and refuses, or reads once it can."""

    def build(arguments: Arguments, keywords: Keywords) -> Built:
        return Built(JuliaType(("Flux", struct)), [], ())

    return build


def _function(*path: str) -> Callable[[Arguments, Keywords], JuliaStruct]:
    return lambda arguments, keywords: function(*path)


def _wrapped(arguments: Arguments, keywords: Keywords) -> Any:
    """Lux's `WrappedFunction(f)`."""
    return layer_like(arguments[-1])


def _reshape(arguments: Arguments, keywords: Keywords) -> JuliaStruct:
    """Lux's `ReshapeLayer(dims)`, which keeps the batch."""
    sizes = wholes(arguments[0])
    kind = JuliaType(("Base", "Fix2"))
    return JuliaStruct(kind, [function("Base", "reshape"), (*sizes, COLON_STRUCT)], ("f", "x"))


def _same_pad(arguments: Arguments, keywords: Keywords) -> Any:
    return _SAME_PAD


def _table(**builders: Callable[[Arguments, Keywords], Any]) -> dict[str, Constructor]:
    return {name: Constructor(name, build) for name, build in builders.items()}


# fmt: off
_REFUSED = (
    "Bidirectional", "StatefulRecurrentCell",
)
# fmt: on
CONSTRUCTORS: dict[str, Constructor] = _table(
    Chain=_chain,
    Conv=_conv("Conv"),
    ConvTranspose=_conv("ConvTranspose"),
    CrossCor=_conv("CrossCor"),
    DepthwiseConv=_conv("DepthwiseConv"),
    Dense=_dense,
    Scale=_scale,
    Diagonal=_scale,
    Bilinear=_bilinear,
    Embedding=_embedding,
    BatchNorm=_norm("BatchNorm", np.float32(0.1), np.float32(1e-5), True, True),
    InstanceNorm=_norm("InstanceNorm", np.float32(0.1), np.float32(1e-5), False, False),
    GroupNorm=_norm("GroupNorm", np.float32(0.1), np.float32(1e-5), True, False),
    LayerNorm=_layer_norm,
    Dropout=_dropout("Dropout"),
    AlphaDropout=_dropout("AlphaDropout"),
    MaxPool=_pool("MaxPool"),
    MeanPool=_pool("MeanPool"),
    AdaptiveMaxPool=_adaptive("AdaptiveMaxPool"),
    AdaptiveMeanPool=_adaptive("AdaptiveMeanPool"),
    GlobalMaxPool=lambda arguments, keywords: struct_of("GlobalMaxPool", {}),
    GlobalMeanPool=lambda arguments, keywords: struct_of("GlobalMeanPool", {}),
    Upsample=_upsample,
    PixelShuffle=lambda arguments, keywords: struct_of("PixelShuffle", {"r": whole(arguments[0])}),
    SkipConnection=_skip,
    Parallel=_parallel("Parallel"),
    PairwiseFusion=_parallel("PairwiseFusion"),
    Maxout=_maxout,
    SamePad=_same_pad,
    WeightNorm=_weight_norm,
    EmbeddingBag=_embedding_bag,
    RNN=_recurrent("RNN", 1),
    LSTM=_recurrent("LSTM", 4),
    GRU=_recurrent("GRU", 3),
    GRUv3=_recurrent("GRUv3", 3),
    RNNCell=_recurrent("RNN", 1, whole_layer=False),
    LSTMCell=_recurrent("LSTM", 4, whole_layer=False),
    GRUCell=_recurrent("GRU", 3, whole_layer=False),
    GRUv3Cell=_recurrent("GRUv3", 3, whole_layer=False),
    Recur=_recurrence("Recur"),
    Recurrence=_recurrence("Recurrence"),
    MultiHeadAttention=_attention,
    **{name: _refused(name) for name in _REFUSED},
    Zeros=lambda arguments, keywords: JuliaStruct(JuliaType(("Flux", "Zeros"))),
    FlattenLayer=_function("Flux", "flatten"),
    NoOpLayer=_function("Base", "identity"),
    WrappedFunction=_wrapped,
    ReshapeLayer=_reshape,
)


def constructors_of(version: Version | None, lux: bool) -> dict[str, Constructor]:
    """The layers as a version of Flux, or Lux, makes them. Before 0.12, InstanceNorm and GroupNorm kept statistics."""
    if lux:
        return CONSTRUCTORS | _table(
            Upsample=_upsample_of_lux, Recurrence=_recurrence("Recurrence", lux=True)
        )
    if version is None or version >= (0, 12):
        return CONSTRUCTORS
    old = (np.float32(0.1), np.float32(1e-5), True, True)
    return CONSTRUCTORS | _table(InstanceNorm=_norm("InstanceNorm", *old), GroupNorm=_norm("GroupNorm", *old))


def _upsample_of_lux(arguments: Arguments, keywords: Keywords) -> Built:
    """Lux's Upsample, which does not align corners unless it is told to; Flux's always does."""
    aligned = keywords.get("align_corners", False)
    made = _upsample(arguments, {k: v for k, v in keywords.items() if k != "align_corners"})
    if made.type.parameters != (Symbol("nearest"),) and aligned is not True:
        raise NotUnderstood("Upsample of Lux is read with align_corners = true, or as :nearest")
    return made
