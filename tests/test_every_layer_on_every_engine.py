"""Every layer on every engine: agreement with the reference, or an `UnsupportedLayer` listed here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from diptych import engines
from diptych.engines.torch import available_devices
from diptych.errors import ShapeError, UnsupportedLayer, UsageError
from diptych.model.layers import (
    ACTIVATIONS,
    LAYERS,
    Activation,
    Array,
    BatchNorm,
    Chain,
    Connection,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    GroupNorm,
    InstanceNorm,
    Layer,
    MaxPool,
    MeanPool,
    Pad,
    Parallel,
    SkipConnection,
    walk,
)
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes
from distances import RELATIVE, apart
from layer_cases import TABLE, case
from real_julia import needs_flux

# What an engine is known not to express: (engine, case). A case that starts to work must leave this table.
UNSUPPORTED: set[tuple[str, str]] = set()


def assert_close(actual: Array, expected: Array, what: str = "output") -> None:
    assert actual.dtype == np.float32
    assert actual.flags.c_contiguous
    assert apart(actual, expected) <= RELATIVE, what


def model_of(*layers: Layer) -> Model:
    return Model(Chain(layers))


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ---- Every engine against the reference ----------------------------------------------------------------


# Every engine on the CPU, and PyTorch on the GPUs of this machine.
# (halide and openvino, which are tuned for filters, have tests of their own.)
TARGETS: list[Any] = [(engine, "cpu") for engine in ("onnxruntime", "torch", "numpy")]
TARGETS += [pytest.param("flux", "cpu", marks=needs_flux)]
TARGETS += [("torch", device) for device in available_devices() if device != "cpu"]


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize(("engine", "device"), TARGETS)
def test_agrees_with_the_reference(engine: str, device: str, name: str) -> None:
    model, batch = case(name)
    if (engine, name) in UNSUPPORTED:
        with pytest.raises(UnsupportedLayer):
            engines.compile(model, engine, device)
        return
    expected = engines.compile(model, "numpy").trace(batch)
    compiled = engines.compile(model, engine, device)
    trace = compiled.trace(batch)
    assert list(trace) == list(expected) == list(layer_shapes(model, batch.shape))
    for path in expected:
        assert_close(trace[path], expected[path], f"layer {path}")
    assert_close(compiled(batch), expected.output)
    assert np.array_equal(trace.input, batch)
    assert (compiled.engine, compiled.device) == (engine, device)


def test_the_table_has_every_layer_and_every_activation() -> None:
    layers = [layer for name in TABLE for _, layer in case(name)[0].walk()]
    assert {type(layer).__name__ for layer in layers} == set(LAYERS)
    assert {layer.name for layer in layers if isinstance(layer, Activation)} == set(ACTIVATIONS)


def test_the_table_of_the_unsupported_names_real_cases() -> None:
    assert {name for _, name in UNSUPPORTED} <= set(TABLE)
    assert {engine for engine, _ in UNSUPPORTED} <= set(engines.ENGINES) - {"numpy"}


# ---- The reference against PyTorch's own modules --------------------------------------------------------
# Not through our engine: what each of these says is what PyTorch's documentation promises.

Torch = Callable[[Any, torch.Tensor], torch.Tensor]


def t(array: Array | None) -> torch.Tensor | None:
    return None if array is None else torch.tensor(array)


def _module(made: nn.Module, x: torch.Tensor, **state: Array | None) -> torch.Tensor:
    made.load_state_dict({k: torch.tensor(v) for k, v in state.items() if v is not None}, strict=False)
    return made.eval()(x)


def _conv(layer: Conv, x: torch.Tensor) -> torch.Tensor:
    rank = layer.weight.ndim - 2
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    pads = nn.ConstantPad3d if rank == 3 else (nn.ConstantPad1d, nn.ConstantPad2d)[rank - 1]
    x = pads([p for axis in layer.padding[::-1] for p in axis], 0.0)(x)
    out, per_group, *kernel = layer.weight.shape
    made = kind(
        per_group * layer.groups,
        out,
        kernel,
        layer.stride,
        0,
        layer.dilation,
        layer.groups,
        bias=layer.bias is not None,
    )
    return _module(made, x, weight=layer.weight, bias=layer.bias)


def _transpose(layer: ConvTranspose, x: torch.Tensor) -> torch.Tensor:
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[layer.weight.ndim - 3]
    inputs, per_group, *kernel = layer.weight.shape
    low = [pads[0] for pads in layer.padding]
    made = kind(
        inputs,
        per_group * layer.groups,
        kernel,
        layer.stride,
        low,
        layer.output_padding,
        groups=layer.groups,
        bias=layer.bias is not None,
        dilation=layer.dilation,
    )
    return _module(made, x, weight=layer.weight, bias=layer.bias)


def _batch_norm(layer: BatchNorm, x: torch.Tensor) -> torch.Tensor:
    made = nn.BatchNorm2d(x.shape[1], layer.epsilon, affine=layer.scale is not None)
    state = {"weight": layer.scale, "bias": layer.shift}
    return _module(made, x, **state, running_mean=layer.mean, running_var=layer.variance)


def _in_training(layer: BatchNorm, x: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(x, None, None, t(layer.scale), t(layer.shift), training=True)


def _max_pool(layer: MaxPool, x: torch.Tensor) -> torch.Tensor:
    padding = [pads[0] for pads in layer.padding]
    return (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(padding) - 1](
        x, layer.kernel, layer.stride, padding
    )


def _mean_pool(layer: MeanPool, x: torch.Tensor) -> torch.Tensor:
    padding = [pads[0] for pads in layer.padding]
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(padding) - 1]
    return pool(x, layer.kernel, layer.stride, padding, count_include_pad=layer.count_padding)


def _pad(mode: str) -> Torch:
    return lambda layer, x: F.pad(x, [p for axis in layer.padding[::-1] for p in axis], mode)


def _interpolate(mode: str, corners: bool | None = None) -> Torch:
    def call(layer: Any, x: torch.Tensor) -> torch.Tensor:
        size = (
            [int(n * s) for n, s in zip(x.shape[2:], layer.scale, strict=True)] if layer.scale else layer.size
        )
        return F.interpolate(x, list(size), mode=mode, align_corners=corners)

    return call


BY_PYTORCH: dict[str, Torch] = {
    **{name: _conv for name in TABLE if name.startswith("conv") and "relu" not in name},
    **{
        name: _transpose
        for name in TABLE
        if name.startswith("transpose") and "asymmetric" not in name and "dilated" not in name
    },
    "dense": lambda layer, x: F.linear(x, t(layer.weight), t(layer.bias)),
    "softmax": lambda layer, x: nn.Softmax(1)(x),
    "softmax-last-axis": lambda layer, x: nn.Softmax(-1)(x),
    "logsoftmax": lambda layer, x: nn.LogSoftmax(1)(x),
    "batchnorm": _batch_norm,
    "batchnorm-epsilon": _batch_norm,
    "batchnorm-not-affine": _batch_norm,
    "batchnorm-of-the-batch": _in_training,
    "layernorm": lambda layer, x: F.layer_norm(x, layer.shape, t(layer.scale), t(layer.shift)),
    "groupnorm": lambda layer, x: F.group_norm(x, 2, t(layer.scale), t(layer.shift)),
    "instancenorm": lambda layer, x: F.instance_norm(x, weight=t(layer.scale), bias=t(layer.shift)),
    "instancenorm-tracked": lambda layer, x: F.instance_norm(
        x, t(layer.mean), t(layer.variance), t(layer.scale), t(layer.shift), use_input_stats=False
    ),
    "maxpool": _max_pool,
    "maxpool-overlapping": _max_pool,
    "maxpool-padding": _max_pool,
    "maxpool-3d": _max_pool,
    "meanpool": _mean_pool,
    "meanpool-padding": _mean_pool,
    "meanpool-padding-not-counted": _mean_pool,
    "meanpool-3d": _mean_pool,
    "global-max": lambda layer, x: nn.AdaptiveMaxPool2d(1)(x),
    "global-mean": lambda layer, x: nn.AdaptiveAvgPool2d(1)(x),
    "adaptive-max-pytorch": lambda layer, x: nn.AdaptiveMaxPool2d(layer.output)(x),
    "adaptive-max-3d": lambda layer, x: nn.AdaptiveMaxPool3d(layer.output)(x),
    "adaptive-mean-pytorch": lambda layer, x: nn.AdaptiveAvgPool2d(layer.output)(x),
    "adaptive-mean-larger": lambda layer, x: nn.AdaptiveAvgPool2d(layer.output)(x),
    "flatten": lambda layer, x: nn.Flatten()(x),
    "pad-zero": _pad("constant"),
    "pad-reflect": _pad("reflect"),
    "pad-replicate": _pad("replicate"),
    "pad-wrap": _pad("circular"),
    "upsample-nearest": _interpolate("nearest"),
    "upsample-nearest-size": _interpolate("nearest"),
    "upsample-linear": _interpolate("bilinear", False),
    "upsample-linear-size": _interpolate("bilinear", False),
    "upsample-linear-smaller": _interpolate("bilinear", False),
    "upsample-linear-corners": _interpolate("bilinear", True),
    "upsample-linear-1d": _interpolate("linear", False),
    "upsample-linear-3d": _interpolate("trilinear", True),
    "pixelshuffle": lambda layer, x: nn.PixelShuffle(2)(x),
    "activation-relu": lambda layer, x: nn.ReLU()(x),
    "activation-relu6": lambda layer, x: nn.ReLU6()(x),
    "activation-leakyrelu-parameters": lambda layer, x: nn.LeakyReLU(0.3)(x),
    "activation-trelu": lambda layer, x: nn.Threshold(1.0, 0.0)(x),
    "activation-elu-parameters": lambda layer, x: nn.ELU(0.5)(x),
    "activation-celu-parameters": lambda layer, x: nn.CELU(2.0)(x),
    "activation-selu": lambda layer, x: nn.SELU()(x),
    "activation-gelu_tanh": lambda layer, x: nn.GELU("tanh")(x),
    "activation-gelu_erf": lambda layer, x: nn.GELU()(x),
    "activation-sigmoid": lambda layer, x: nn.Sigmoid()(x),
    "activation-hardsigmoid": lambda layer, x: nn.Hardsigmoid()(x),
    "activation-logsigmoid": lambda layer, x: nn.LogSigmoid()(x),
    "activation-tanh": lambda layer, x: nn.Tanh()(x),
    "activation-hardtanh-parameters": lambda layer, x: nn.Hardtanh(-0.5, 2.0)(x),
    "activation-tanhshrink": lambda layer, x: nn.Tanhshrink()(x),
    "activation-softshrink-parameters": lambda layer, x: nn.Softshrink(0.25)(x),
    "activation-softplus": lambda layer, x: nn.Softplus()(x),
    "activation-softsign": lambda layer, x: nn.Softsign()(x),
    "activation-swish": lambda layer, x: nn.SiLU()(x),
    "activation-hardswish": lambda layer, x: nn.Hardswish()(x),
    "activation-mish": lambda layer, x: nn.Mish()(x),
    "activation-logcosh": lambda layer, x: torch.log(torch.cosh(x)),
}


@pytest.mark.parametrize("name", BY_PYTORCH)
def test_the_reference_agrees_with_pytorch_itself(name: str) -> None:
    model, batch = case(name)
    with torch.no_grad():
        expected = BY_PYTORCH[name](model.layers.layers[0], torch.tensor(batch)).numpy()
    assert_close(engines.compile(model, "numpy")(batch), expected)


# ---- The reference against numbers worked out by hand ---------------------------------------------------


def test_flux_formulas_of_layernorm_differ_as_documented() -> None:
    x = np.array([[1.0, 3.0]], np.float32)  # mean 2, deviation 1
    eps = LAYERS["LayerNorm"]
    outputs = {
        formula: engines.compile(model_of(eps((2,), epsilon=0.5, formula=formula)), "numpy")(x)[0, 1]
        for formula in ("sqrt(var + eps)", "sqrt(var + eps^2)", "std + eps")
    }
    assert outputs == pytest.approx(
        {"sqrt(var + eps)": 1.5**-0.5, "sqrt(var + eps^2)": 1.25**-0.5, "std + eps": 1 / 1.5}, rel=1e-6
    )


def test_tracked_group_statistics_belong_to_groups_not_channels() -> None:
    x = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    layer = GroupNorm(
        2, mean=np.array([1.0, 3.0], np.float32), variance=np.array([1.0, 4.0], np.float32), epsilon=0.0
    )
    for engine in ("numpy", "torch"):
        assert engines.compile(model_of(layer), engine)(x).tolist() == [[0.0, 1.0, 0.0, 0.5]]


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_the_inner_output_comes_first_and_branches_fold_from_the_left(engine: str) -> None:
    x = np.array([[1.0, 2.0]], np.float32)
    triple, ten = Activation("affine", (3.0, 0.0)), Activation("affine", (0.0, 10.0))

    def output(layer: Layer) -> list[float]:
        return engines.compile(model_of(layer), engine)(x).ravel().tolist()

    assert output(SkipConnection(triple, Connection("subtract"))) == [2.0, 4.0]
    assert output(SkipConnection(triple, Connection("concatenate"))) == [3.0, 6.0, 1.0, 2.0]
    assert output(Parallel(Connection("subtract"), (ten, triple, ten))) == [-3.0, -6.0]


def test_flux_windows_of_an_adaptive_pool() -> None:
    x = np.arange(7, dtype=np.float32).reshape(1, 1, 7)
    pool = LAYERS["AdaptiveMeanPool"]
    for engine in ("numpy", "torch"):
        flux = engines.compile(model_of(pool((3,), rule="flux")), engine)(x)
        pytorch = engines.compile(model_of(pool((3,))), engine)(x)
        assert flux.ravel().tolist() == [1.0, 3.0, 5.0]  # stride 2, kernel 3
        assert pytorch.ravel().tolist() == [1.0, 3.0, 5.0]
        flux5 = engines.compile(model_of(pool((5,), rule="flux")), engine)(x)
        pytorch5 = engines.compile(model_of(pool((5,))), engine)(x)
        assert flux5.ravel().tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]  # stride 1, kernel 3
        assert pytorch5.ravel().tolist() == [0.5, 1.5, 3.0, 4.5, 5.5]


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_a_window_of_padding_alone(engine: str) -> None:
    x = np.array([[[-1.0, -2.0]]], np.float32)
    pads = ((3, 0),)
    assert engines.compile(model_of(MaxPool((2,), (1,), pads)), engine)(x).ravel().tolist() == [
        -np.inf,
        -np.inf,
        -1.0,
        -1.0,
    ]
    mean = engines.compile(model_of(MeanPool((2,), (1,), pads, count_padding=False)), engine)(x)
    assert mean.ravel().tolist() == [0.0, 0.0, -1.0, -1.5]


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize(
    "layer", [BatchNorm(), GroupNorm(2), InstanceNorm()], ids=lambda layer: type(layer).__name__
)
def test_statistics_of_a_single_value_give_zero(engine: str, layer: Layer) -> None:
    x = np.array([[3.0, 5.0]], np.float32)
    assert engines.compile(model_of(layer), engine)(x).tolist() == [[0.0, 0.0]]


def test_linear_upsampling_stays_exact_for_large_pictures() -> None:
    x = np.arange(1000, dtype=np.float32).reshape(1, 1, 1, 1000) % 7
    model = model_of(LAYERS["Upsample"](size=(2, 1777), mode="linear"))
    assert_close(engines.compile(model, "torch", "cpu")(x), engines.compile(model, "numpy")(x))


# ---- Large values ---------------------------------------------------------------------------------------

GROWING = {"exp", "abs2", "sinh", "cosh", "power"}
# Functions of an interval: beyond it they give what is not a number.
WITHIN = {"asin", "acos", "atanh", "acosh", "log"}


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_activation_warns_or_overflows_for_large_values(engine: str, name: str) -> None:
    x = np.array([[-3e38, -1e20, -1000.0, -90.0, 0.0, 90.0, 1000.0, 1e20, 3e38]], np.float32)
    x = np.abs(x) if name == "sqrt" else x
    if name == "gelu_erf" and engine == "torch":
        # PyTorch's AVX-512 kernel computes x (1 + erf(x / sqrt 2)) before it halves: from half of float32's
        # largest value on it gives infinity, whoever calls it.
        x /= 2
    y = engines.compile(model_of(Activation(name)), engine)(x)
    assert not np.isnan(y).any() or name in WITHIN
    assert name in GROWING | WITHIN or np.isfinite(y).all()


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_infinite_and_missing_values_pass_without_a_warning(engine: str) -> None:
    x = np.array([[np.nan, np.inf, -np.inf, 1.0]], np.float32)
    y = engines.compile(model_of(Activation("tanh"), Dense(np.eye(4, dtype=np.float32))), engine)(x)
    assert np.isnan(y).all()


# ---- What an engine takes and gives ----------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["numpy", "torch"])
class TestBatches:
    model = model_of(Dropout(), Flatten())

    @pytest.mark.parametrize(
        "layers",
        [(), (Chain(()),), (Chain((Dropout(), Flatten())),)],
        ids=["no-layer", "no-layer-inside", "nested"],
    )
    def test_output_and_trace_are_the_callers_own(self, engine: str, layers: tuple[Layer, ...]) -> None:
        batch = numbers(2, 3, 4, 5)
        compiled = engines.compile(model_of(*layers), engine)
        output, trace = compiled(batch), compiled.trace(batch)
        arrays = [output, *trace.values()]
        for index, array in enumerate(arrays):
            assert array.flags.writeable
            assert not np.shares_memory(array, batch)
            assert not any(np.shares_memory(array, other) for other in arrays[:index])

    @pytest.mark.parametrize(
        "change",
        [
            lambda x: x.astype(np.float64),
            lambda x: x.astype(np.float16).astype(">f4"),
            np.asfortranarray,
            lambda x: x[::-1, ..., ::-1],
            lambda x: (x * 10).astype(np.int64),
            lambda x: x > 0,
        ],
        ids=["float64", "big-endian", "fortran", "negative-strides", "integer", "bool"],
    )
    def test_any_real_array_will_do(self, engine: str, change: Callable[[Array], Array]) -> None:
        given = change(numbers(2, 3, 4, 5))
        output = engines.compile(self.model, engine)(given)
        assert output.dtype == np.float32
        assert np.array_equal(output, given.reshape(2, -1).astype(np.float32))

    def test_read_only_batches_and_weights_will_do(self, engine: str) -> None:
        weight, batch = numbers(5, 7), numbers(2, 7)
        weight.flags.writeable = batch.flags.writeable = False
        assert engines.compile(model_of(Dense(weight)), engine)(batch).shape == (2, 5)

    def test_weights_of_another_precision_will_do(self, engine: str) -> None:
        weight, batch = numbers(5, 7), numbers(2, 7)
        expected = engines.compile(model_of(Dense(weight)), "numpy")(batch)
        double = engines.compile(model_of(Dense(weight.astype(np.float64))), engine)(batch)
        fortran = engines.compile(model_of(Dense(np.asfortranarray(weight))), engine)(batch)
        assert_close(double, expected)
        assert_close(fortran, expected)

    @pytest.mark.parametrize("bad", [np.array([["a", "b"]]), np.array([[1j]]), np.array([[None]])], ids=str)
    def test_what_is_not_a_number_is_refused(self, engine: str, bad: Array) -> None:
        with pytest.raises(UsageError, match="real numbers"):
            engines.compile(self.model, engine)(bad)

    @pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (3,), ()], ids=str)
    def test_an_empty_batch_is_refused(self, engine: str, shape: tuple[int, ...]) -> None:
        with pytest.raises(ShapeError, match="no empty axis"):
            engines.compile(self.model, engine)(np.zeros(shape, np.float32))

    def test_a_wrong_number_of_channels_is_refused_by_the_layer(self, engine: str) -> None:
        model = model_of(Dropout(), Conv(numbers(2, 3, 3, 3)))
        with pytest.raises(ShapeError, match=r"layer 1 \(Conv\) takes 3 channels on axis 1, got 1"):
            engines.compile(model, engine)(numbers(1, 1, 9, 9))

    def test_the_same_batch_gives_the_same_bits(self, engine: str) -> None:
        model, batch = case("classifier")
        compiled = engines.compile(model, engine)
        assert np.array_equal(compiled(batch), compiled(batch))


@pytest.mark.parametrize(
    "layer",
    [Conv(numbers(1, 1, 1, 1, 1, 1)), MaxPool((1, 1, 1, 1)), Pad(((0, 1),) * 4)],
    ids=lambda layer: type(layer).__name__,
)
def test_four_spatial_axes_are_for_the_reference_alone(layer: Layer) -> None:
    assert engines.compile(model_of(layer), "numpy")(numbers(1, 1, 2, 2, 2, 2)).ndim == 6
    with pytest.raises(UnsupportedLayer, match="1 to 3 spatial axes"):
        engines.compile(model_of(layer), "torch")


# ---- Engines and devices ----------------------------------------------------------------------------------


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no engine is called 'jax'; the engines are auto, onnxruntime"):
        engines.compile(model_of(Dropout()), "jax")


@pytest.mark.parametrize(("engine", "device"), [("numpy", "cuda"), ("torch", "tpu")])
def test_a_device_the_engine_does_not_know_is_refused(engine: str, device: str) -> None:
    with pytest.raises(UsageError, match=f"the engine {engine} does not run on '{device}'"):
        engines.compile(model_of(Dropout()), engine, device)


def test_a_device_that_is_not_there_is_refused_with_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"PyTorch finds no 'cuda' on this machine, only .*cpu"):
        engines.compile(model_of(Dropout()), "torch", "cuda")


def test_a_gpu_is_what_auto_takes_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert engines.compile(model_of(Dropout()), "torch").device == "cuda"
    assert engines.compile(model_of(Dropout()), device="cuda").engine == "torch"


def test_full_precision_on_cuda_is_undone_afterwards() -> None:
    from diptych.engines.torch import _full_precision

    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.deterministic, cudnn.benchmark)
    with _full_precision("cuda"):
        assert (matmul.fp32_precision, cudnn.conv.fp32_precision) == ("ieee", "ieee")
        assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
    assert (matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.deterministic, cudnn.benchmark) == before


# ---- Random configurations -------------------------------------------------------------------------------


@st.composite
def windowed_models(draw: st.DrawFn) -> tuple[Model, tuple[int, ...]]:
    """A convolution, its transpose or a pool over 1 to 3 axes, and an input that it can take."""
    rank = draw(st.integers(1, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    kernel, stride, dilation = each(1, 4), each(1, 3), each(1, 2)
    padding = tuple(zip(each(0, 3), each(0, 3), strict=True))
    groups, inner, outer = (draw(st.integers(1, 3)) for _ in range(3))
    seed = draw(st.integers(0, 99))
    kind = draw(st.sampled_from(["conv", "transpose", "max", "mean", "mean-inside"]))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sizes = tuple(draw(st.integers(r, r + 5)) for r in reach)
    channels = groups * inner
    layer: Layer
    if kind == "conv":
        weight, bias = numbers(groups * outer, inner, *kernel, seed=seed), numbers(groups * outer)
        layer = Conv(weight, bias, stride, padding, dilation, groups)
    elif kind == "transpose":
        weight = numbers(channels, outer, *kernel, seed=seed)
        cropped = tuple((draw(st.integers(0, r // 2)), draw(st.integers(0, (r - 1) // 2))) for r in reach)
        extra = tuple(draw(st.integers(0, s - 1)) for s in stride)
        layer = ConvTranspose(weight, None, stride, cropped, extra, dilation, groups)
    elif kind == "max":
        layer = MaxPool(kernel, stride, padding)
    else:
        layer = MeanPool(kernel, stride, padding, count_padding=kind == "mean")
    return model_of(layer), (draw(st.integers(1, 3)), channels, *sizes)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(windowed_models())
def test_random_windows_agree_and_have_the_promised_shape(drawn: tuple[Model, tuple[int, ...]]) -> None:
    model, shape = drawn
    batch = numbers(*shape, seed=1)
    expected = engines.compile(model, "numpy")(batch)
    actual = engines.compile(model, "torch", "cpu")(batch)
    assert expected.shape == layer_shapes(model, shape)["0"]
    both_empty = np.isneginf(actual) & np.isneginf(expected)  # max pools that saw only padding
    assert_close(np.where(both_empty, 0, actual), np.where(both_empty, 0, expected))


def test_containers_are_walked_with_the_paths_of_the_model() -> None:
    model, batch = case("nested")
    trace = engines.compile(model, "numpy").trace(batch)
    assert set(trace) == {path for path, _ in walk(model.layers)}
    order = list(trace)
    for path, layer in model.walk():
        if isinstance(layer, Chain | SkipConnection | Parallel):
            assert all(
                order.index(inner) < order.index(path) for inner in order if inner.startswith(f"{path}.")
            )


def test_auto_goes_on_to_the_next_engine_when_the_first_batch_shows_that_one_cannot() -> None:
    """ONNX has no mean over the values inside of windows that lie in padding alone."""
    layer = case("meanpool-padding-not-counted")[0].layers.layers[0]
    layer = replace(layer, kernel=(2, 2), stride=(1, 1), padding=((2, 2), (0, 0)))
    model = Model(Chain((layer,)))
    compiled = engines.compile(model, "auto")
    x = numbers(2, 3, 5, 6)
    expected = engines.compile(model, "numpy")
    assert_close(compiled(x), expected(x))
    assert compiled.engine == "torch"
    assert list(compiled.trace(x)) == ["0"]
