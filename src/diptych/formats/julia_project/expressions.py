"""The Julia expression that builds each layer, and the arrays that it needs, in Flux's orientation.

Flux's own layers stand wherever all versions from 0.12 to 0.16 compute what ours does; the rest are the
functions of `templates/layers.jl`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diptych.axes import flip_kernel, reverse_axes
from diptych.errors import UnsupportedLayer
from diptych.model import layers as L
from diptych.model.layers import ACTIVATIONS, Array, Layer, child_path

__all__ = ["Arrays", "chain", "string_literal"]

INDENT = "    "


class Arrays:
    """The weight files of a project: each array, as NumPy must save it, by name. Shared arrays are saved once."""

    def __init__(self) -> None:
        self.files: dict[str, Array] = {}
        self._names: dict[tuple[int, str], str] = {}

    def put(self, name: str, array: Array, turn: Callable[[Array], Array] | None = None) -> str:
        """The Julia expression for an array, after `turn`; the axes in the file are Julia's, reversed."""
        key = (id(array), turn.__name__ if turn else "")
        if key not in self._names:
            self._names[key] = name
            turned = turn(array) if turn else array
            self.files[name] = np.ascontiguousarray(turned, dtype=np.float32)
        return f'w("{self._names[key]}")'


def chain(layers: L.Chain, arrays: Arrays) -> str:
    """The expression of the whole network: one line for each layer, with its path and label as a comment."""
    return _container("Chain", [], layers, "", arrays, 1)


def string_literal(text: str) -> str:
    r"""A Julia string literal: backslash, quote and dollar escaped, unprintable characters as \U."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _container(name: str, first: Sequence[str], layer: Layer, path: str, arrays: Arrays, depth: int) -> str:
    lines = [f"{name}("]
    lines += [f"{INDENT * (depth + 1)}{argument}," for argument in first]
    for index, child in enumerate(layer.children):
        inside = child_path(path, index)
        comment = f"  # {inside}: {child.label}"
        text = _expression(child, inside, arrays, depth + 1)
        if isinstance(layer, L.Graph):
            taken = ", ".join(map(string_literal, layer.inputs[index]))
            text = f"({string_literal(layer.names[index])}, [{taken}], {text})"
        if "\n" in text:
            lines += [f"{INDENT * (depth + 1)}#{comment[3:]}", f"{INDENT * (depth + 1)}{text},"]
        else:
            lines.append(f"{INDENT * (depth + 1)}{text},{comment}")
    return "\n".join([*lines, f"{INDENT * depth})"])


def _expression(layer: Layer, path: str, arrays: Arrays, depth: int) -> str:
    if isinstance(layer, L.Chain):
        return _container("Chain", [], layer, path, arrays, depth)
    if isinstance(layer, L.Parallel):
        if len(layer.branches) == 1:  # Flux 0.12 would take it for the tuple of branches
            inner = _expression(layer.branches[0], f"{path}.0", arrays, depth)
            return f"Parallel({_connection(layer.connection)}, ({inner},))"
        return _container("Parallel", [_connection(layer.connection)], layer, path, arrays, depth)
    if isinstance(layer, L.SkipConnection):
        inner = _expression(layer.inner, f"{path}.0", arrays, depth + 1)
        step = f"\n{INDENT * (depth + 1)}"
        joined = f"{step}{inner},{step}{_connection(layer.connection)},\n{INDENT * depth}"
        return f"SkipConnection({joined})"
    if isinstance(layer, L.Graph):
        return _container("graph", [string_literal(layer.outputs[0])], layer, path, arrays, depth)
    if type(layer) not in _EXPRESSIONS:
        raise UnsupportedLayer(
            f"{path} ({type(layer).__name__})", "a Julia project", "there is no Julia code for it"
        )
    return _EXPRESSIONS[type(layer)](layer, JuliaSite(path, arrays))


class JuliaSite:
    """The place of a layer, after whose path the files of its arrays are named."""

    def __init__(self, path: str, arrays: Arrays) -> None:
        self.path = path
        self._arrays = arrays

    def array(self, name: str, array: Array, turn: Callable[[Array], Array] | None = None) -> str:
        """The Julia expression for one array of this layer."""
        return self._arrays.put(f"{self.path}.{name}", array, turn)

    def keywords(self, layer: Layer, *names: str) -> list[str]:
        """The arguments `name = w("...")` for those arrays that the layer has, with their axes reversed."""
        return [f"{name} = {self.array(name, layer.arrays[name])}" for name in names if name in layer.arrays]


# ---- Elementwise functions -------------------------------------------------------------------------------

# The Julia function of each activation, and whether it takes parameters. NNlib's function is used if all versions of
# NNlib agree on it.
_FUNCTIONS: dict[str, tuple[str, bool]] = {
    "identity": ("identity", False),
    "relu": ("relu", False),
    "relu6": ("relu_to_six", False),
    "leakyrelu": ("leakyrelu", True),
    "trelu": ("trelu", True),
    "elu": ("elu", True),
    "celu": ("celu", True),
    "selu": ("selu", False),
    "gelu_tanh": ("gelu_by_tanh", False),
    "gelu_erf": ("gelu_by_erf", False),
    "quickgelu": ("gelu_by_sigmoid", False),
    "sigmoid": ("sigmoid", False),
    "hardsigmoid": ("hard_sigmoid", True),
    "logsigmoid": ("logsigmoid", False),
    "tanh": ("tanh", False),
    "hardtanh": ("between", True),
    "tanhshrink": ("x_minus_tanh", False),
    "softshrink": ("shrunk", True),
    "softplus": ("softplus", False),
    "softsign": ("softsign", False),
    "swish": ("swish", False),
    "hardswish": ("hard_swish", False),
    "mish": ("mish", False),
    "lisht": ("x_times_tanh", False),
    "logcosh": ("log_of_cosh", False),
    "abs": ("abs", False),
    "abs2": ("abs2", False),
    "exp": ("exp", False),
    "sqrt": ("square_root", False),
    "sin": ("sin", False),
    "cos": ("cos", False),
    "tan": ("tan", False),
    "asin": ("arc_sine", False),
    "acos": ("arc_cosine", False),
    "atan": ("atan", False),
    "sinh": ("sinh", False),
    "cosh": ("cosh", False),
    "asinh": ("asinh", False),
    "acosh": ("area_cosine", False),
    "atanh": ("area_tangent", False),
    "log": ("logarithm", False),
    "erf": ("error_of", False),
    "floor": ("floor", False),
    "ceil": ("ceil", False),
    "round": ("round", False),
    "trunc": ("trunc", False),
    "sign": ("sign", False),
    "step": ("step_above", True),
    "power": ("power", True),
    "clamp": ("between", True),
    "affine": ("line", True),
}
_NNLIB_DEFAULTS = ("leakyrelu", "trelu", "elu", "celu")  # their default parameters in NNlib are ours


def _function(activation: L.Activation) -> str:
    """The Julia function of an activation, which takes one number."""
    name, takes = _FUNCTIONS[activation.name]
    same = activation.parameters == ACTIVATIONS[activation.name][1]
    if not takes or (same and activation.name in _NNLIB_DEFAULTS):
        return name
    return f"x -> {name}(x, {', '.join(map(_number, activation.parameters))})"


def _activation(layer: L.Activation, site: JuliaSite) -> str:
    return f"elementwise({_function(layer)})"


def _softmax(layer: L.Softmax, site: JuliaSite) -> str:
    name = "logsoftmax" if layer.log else "softmax"
    if layer.axis == -1:
        return name
    return f"x -> {name}(x; dims = {_dimension(layer.axis)})"


def _number(value: float) -> str:
    """A Float32 literal: 0.2f0, 1.0f-5."""
    mantissa, _, exponent = str(np.float32(value)).partition("e")
    return f"{mantissa}f{int(exponent or 0)}"


def _dimension(axis: int) -> str:
    """The dimension in Julia of one of our axes, as an expression that holds for any rank of `x`."""
    if axis < 0:
        return str(-axis)
    return "ndims(x)" if axis == 0 else f"ndims(x) - {axis}"


def _call(name: str, arguments: Sequence[str], keywords: Sequence[str] = ()) -> str:
    positional = ", ".join(a for a in arguments if a)
    return f"{name}({positional}; {', '.join(keywords)})" if keywords else f"{name}({positional})"


def _last(layer: Any) -> list[str]:
    """The activation as the last argument, or no argument if there is none."""
    return [_function(layer.activation)] if layer.activation else []


# ---- Weighted layers ---------------------------------------------------------------------------------------


def _sizes(sizes: Sequence[Any]) -> str:
    """A tuple in Julia's order of axes."""
    values = [str(n) for n in reversed(sizes)]
    return f"({', '.join(values)}{',' if len(values) == 1 else ''})"


def _pads(padding: L.Pads, paired: bool = False) -> str:
    """The padding of each axis in Julia's order: (low, high), or one number for each axis if both are equal.

    `paired` keeps (low, high): ConvTranspose before Flux 0.14.17 misreads one number for each axis.
    """
    if not paired and all(low == high for low, high in padding):
        return _sizes([low for low, _ in padding])
    return _sizes([edge for pads in padding for edge in reversed(pads)])


def _window(layer: Any, padding: L.Pads | None = None, paired: bool = False) -> list[str]:
    pads = layer.padding if padding is None else padding
    words = []
    if set(layer.stride) != {1}:
        words.append(f"stride = {_sizes(layer.stride)}")
    if any(map(any, pads)):
        words.append(f"pad = {_pads(pads, paired)}")
    if set(layer.dilation) != {1}:
        words.append(f"dilation = {_sizes(layer.dilation)}")
    if layer.groups != 1:
        words.append(f"groups = {layer.groups}")
    return words


def _bias(layer: Any, site: JuliaSite) -> str:
    return "false" if layer.bias is None else site.array("bias", layer.bias)


def _conv(layer: L.Conv, site: JuliaSite) -> str:
    _check_rank(layer.weight.ndim - 2, site, layer)
    weight = site.array("weight", layer.weight, flip_kernel)
    return _call("Conv", [weight, _bias(layer, site), *_last(layer)], _window(layer))


def _conv_transpose(layer: L.ConvTranspose, site: JuliaSite) -> str:
    _check_rank(layer.weight.ndim - 2, site, layer)
    weight = site.array("weight", layer.weight, flip_kernel)
    # Output padding crops less at the far end; beyond the last tap of the kernel the output is zero.
    edges = list(zip(layer.padding, layer.output_padding, strict=True))
    padding = tuple((low, max(high - extra, 0)) for (low, high), extra in edges)
    beyond = tuple(max(extra - high, 0) for (_, high), extra in edges)
    words = _window(layer, padding, paired=True)
    if not any(beyond):
        return _call("ConvTranspose", [weight, _bias(layer, site), *_last(layer)], words)
    bias = "nothing" if layer.bias is None else site.array("bias", layer.bias)
    inner = _call("ConvTranspose", [weight, "false"], words)
    return _call("lengthened", [inner, _sizes(beyond), bias, *_last(layer)])


def _check_rank(rank: int, site: JuliaSite, layer: Layer) -> None:
    if rank > 3:
        where = f"{site.path} ({type(layer).__name__})"
        raise UnsupportedLayer(
            where, "a Julia project", f"Flux supports 1 to 3 spatial axes, and this layer has {rank}"
        )


def _dense(layer: L.Dense, site: JuliaSite) -> str:
    weight = site.array("weight", layer.weight, reverse_axes)
    return _call("Dense", [weight, _bias(layer, site), *_last(layer)])


def _bilinear(layer: L.Bilinear, site: JuliaSite) -> str:
    weight = site.array("weight", layer.weight, reverse_axes)
    bias = "nothing" if layer.bias is None else site.array("bias", layer.bias)
    return _call("bilinear", [weight, bias, *_last(layer)])


def _embedding(layer: L.Embedding, site: JuliaSite) -> str:
    weight = site.array("weight", layer.weight)
    return _call("embedding", [weight, str(layer.first), f'"{layer.reduction}"'])


def _scale(layer: L.Scale, site: JuliaSite) -> str:
    bias = "nothing" if layer.bias is None else site.array("bias", layer.bias)
    return _call("scaling", [site.array("scale", layer.scale), bias, *_last(layer)])


# ---- Normalisation -----------------------------------------------------------------------------------------


def _epsilon(value: float) -> str:
    return f"epsilon = {value!r}"


def _batch_norm(layer: L.BatchNorm, site: JuliaSite) -> str:
    if layer.mean is None or layer.variance is None:
        words = [*site.keywords(layer, "scale", "shift"), _epsilon(layer.epsilon)]
        return _call("batch_norm_of_the_batch", _last(layer), words)
    words = [*site.keywords(layer, "scale", "shift", "mean", "variance"), _epsilon(layer.epsilon)]
    return _call("batch_norm", _last(layer), words)


def _layer_norm(layer: L.LayerNorm, site: JuliaSite) -> str:
    words = [*site.keywords(layer, "scale", "shift"), _epsilon(layer.epsilon), f'formula = "{layer.formula}"']
    return _call("layer_norm", [str(len(layer.shape)), *_last(layer)], words)


def _rms_norm(layer: L.RMSNorm, site: JuliaSite) -> str:
    return _call(
        "rms_norm", [str(len(layer.shape))], [*site.keywords(layer, "scale"), _epsilon(layer.epsilon)]
    )


def _channel_norm(layer: L.GroupNorm | L.InstanceNorm, site: JuliaSite) -> str:
    tracked = ("mean", "variance") if layer.mean is not None and layer.variance is not None else ()
    groups = layer.groups if isinstance(layer, L.GroupNorm) else 0
    words = [*site.keywords(layer, "scale", "shift", *tracked), _epsilon(layer.epsilon)]
    return _call("group_norm", [str(groups), *_last(layer)], words)


def _normalise(layer: L.Normalise, site: JuliaSite) -> str:
    axis = _dimension(layer.axis)
    return f'x -> standardised(x, ({axis},), {layer.epsilon!r}, "{layer.formula}")'


# ---- Pools and shape ---------------------------------------------------------------------------------------


def _pool(layer: L.MaxPool | L.MeanPool, site: JuliaSite) -> str:
    _check_rank(len(layer.kernel), site, layer)
    words = [f"stride = {_sizes(layer.stride)}"] if layer.stride != layer.kernel else []
    padded = any(map(any, layer.padding))
    if padded:
        words.append(f"pad = {_pads(layer.padding)}")
    pool = _call(type(layer).__name__, [_sizes(layer.kernel)], words)
    if isinstance(layer, L.MaxPool) and layer.dilated:
        pads = _sizes([f"({low}, {high})" for low, high in layer.padding])
        return f"dilated_max_pool({_sizes(layer.kernel)}, {_sizes(layer.stride)}, {pads}, {_sizes(layer.dilation)})"
    inside = isinstance(layer, L.MeanPool) and padded and not layer.count_padding
    return f"mean_pool_inside({pool})" if inside else pool


def _adaptive_pool(layer: L.AdaptiveMaxPool | L.AdaptiveMeanPool, site: JuliaSite) -> str:
    _check_rank(len(layer.output), site, layer)
    if layer.rule == "flux":
        return f"{type(layer).__name__}({_sizes(layer.output)})"
    kind = "max" if isinstance(layer, L.AdaptiveMaxPool) else "mean"
    return f'adaptive_pool({_sizes(layer.output)}, "{kind}")'


def _reshape(layer: L.Reshape, site: JuliaSite) -> str:
    sizes = ", ".join(":" if n == -1 else str(n) for n in reversed(layer.shape))
    return f"x -> reshape(x, {sizes + ', ' if sizes else ''}size(x, ndims(x)))"


def _pad(layer: L.Pad, site: JuliaSite) -> str:
    pads = _sizes([f"({low}, {high})" for low, high in layer.padding])
    if layer.mode == "constant":
        return f'extended({pads}, "zero", {_number(layer.value)})'
    return f'extended({pads}, "{layer.mode}")'


def _upsample(layer: L.Upsample, site: JuliaSite) -> str:
    whole = bool(layer.scale) and all(float(s).is_integer() for s in layer.scale)
    if layer.mode == "nearest" and whole:
        return f"Upsample(:nearest; scale = {_sizes([int(s) for s in layer.scale])})"
    mode = "nearest" if layer.mode == "nearest" else ("corners" if layer.align_corners else "linear")
    given = f"target = {_sizes(layer.size)}" if layer.size else f"scale = {_sizes(layer.scale)}"
    return f'upsampling("{mode}"; {given})'


# ---- Picking, reordering, reducing --------------------------------------------------------------------------


def _permute(layer: L.Permute, site: JuliaSite) -> str:
    count = len(layer.order)
    order = [count - layer.order[count - 1 - d] for d in range(count)]
    return f"x -> permutedims(x, ({', '.join(map(str, order))}))"


def _reduce(layer: L.Reduce, site: JuliaSite) -> str:
    axes = f"({', '.join(map(str, layer.axes))},)"
    return f'reduced("{layer.kind}", {axes}, {str(layer.keep).lower()})'


def _local_response_norm(layer: L.LocalResponseNorm, site: JuliaSite) -> str:
    numbers = ", ".join(map(_number, (layer.alpha, layer.beta, layer.bias)))
    return f"local_response_norm({layer.before}, {layer.after}, {numbers})"


# ---- Recurrent layers and attention -------------------------------------------------------------------------


def _recurrent(layer: L.RNN | L.LSTM | L.GRU, site: JuliaSite) -> str:
    weights = site.array("recurrent", layer.recurrent, reverse_axes)
    states = [_state("initial", layer.initial, layer.hidden, site)]
    if isinstance(layer, L.RNN):
        step = _call("plain_step", [weights, _function(layer.function)])
    elif isinstance(layer, L.LSTM):
        step = _call("lstm_step", [weights])
        states.append(_state("initial_cell", layer.initial_cell, layer.hidden, site))
    else:
        new = "0.0f0" if layer.new_bias is None else site.array("new_bias", layer.new_bias)
        step = _call("gru_step", [weights, new, str(layer.reset == "before").lower()])
    projection = _call("Dense", [site.array("weight", layer.weight, reverse_axes), _bias(layer, site)])
    words = ["backwards = true"] if layer.reverse else []
    return _call("recurrent", [step, projection, f"[{', '.join(states)}]"], words)


def _state(name: str, array: Array | None, hidden: int, site: JuliaSite) -> str:
    return f"zeros(Float32, {hidden})" if array is None else site.array(name, array)


def _attention(layer: L.MultiHeadAttention, site: JuliaSite) -> str:
    parts = []
    for name in ("query", "key", "value", "out"):
        bias = getattr(layer, f"{name}_bias")
        weight = site.array(name, getattr(layer, name), reverse_axes)
        parts.append(_call("Dense", [weight, "false" if bias is None else site.array(f"{name}_bias", bias)]))
    return _call("self_attention", [*parts, str(layer.heads)])


_JOINS = {"maximum": "largest", "minimum": "smallest", "matmul": "matrix_products", "where": "chosen"}


def _connection(connection: L.Connection) -> str:
    if connection.operation != "concatenate":
        return _JOINS.get(connection.operation, connection.operation)
    if connection.axis < 0:
        return f"(branches...) -> cat(branches...; dims = {-connection.axis})"
    return f"concatenate({connection.axis})"


_EXPRESSIONS: dict[type[Layer], Callable[[Any, JuliaSite], str]] = {
    L.Connection: lambda layer, site: _connection(layer),
    L.Activation: _activation,
    L.Softmax: _softmax,
    L.Dropout: lambda layer, site: f"Dropout({layer.probability!r})",
    L.Conv: _conv,
    L.ConvTranspose: _conv_transpose,
    L.Dense: _dense,
    L.Bilinear: _bilinear,
    L.Embedding: _embedding,
    L.Scale: _scale,
    L.BatchNorm: _batch_norm,
    L.LayerNorm: _layer_norm,
    L.RMSNorm: _rms_norm,
    L.GroupNorm: _channel_norm,
    L.InstanceNorm: _channel_norm,
    L.Normalise: _normalise,
    L.MaxPool: _pool,
    L.MeanPool: _pool,
    L.GlobalMaxPool: lambda layer, site: "GlobalMaxPool()",
    L.GlobalMeanPool: lambda layer, site: "GlobalMeanPool()",
    L.AdaptiveMaxPool: _adaptive_pool,
    L.AdaptiveMeanPool: _adaptive_pool,
    L.Flatten: lambda layer, site: "Flux.flatten",
    L.Reshape: _reshape,
    L.Pad: _pad,
    L.Upsample: _upsample,
    L.PixelShuffle: lambda layer, site: f"PixelShuffle({layer.factor})",
    L.Permute: _permute,
    L.Slice: lambda layer, site: f"sliced({layer.axis}, {layer.start}, {layer.stop}, {layer.step})",
    L.Gather: lambda layer, site: f"gathered({site.array('indices', layer.indices)}, {layer.axis})",
    L.Expand: lambda layer, site: f"expanded({_sizes(layer.shape)})",
    L.Constant: lambda layer, site: f"constant({site.array('value', layer.value)})",
    L.Reduce: _reduce,
    L.PReLU: lambda layer, site: f"parametric_relu({site.array('slope', layer.slope)})",
    L.RNN: _recurrent,
    L.LSTM: _recurrent,
    L.GRU: _recurrent,
    L.MultiHeadAttention: _attention,
    L.LocalResponseNorm: _local_response_norm,
}
