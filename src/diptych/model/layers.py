"""The layers a model is made of: frozen dataclasses that hold their weights and nothing else.

Axis order is PyTorch's: activations are (N, C, *spatial), kernels (out, in / groups, *kernel) in
cross-correlation orientation. Spatial tuples follow the array's own axes, so (height, width) for images.
Padding is a pair (low, high) for every spatial axis, because Flux's `SamePad` is not symmetric.
A layer knows nothing of engines: each engine holds one function a layer (see `engines/`).

Weights are float32 unless a file held another float type; engines compute in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Pads: TypeAlias = tuple[tuple[int, int], ...]

__all__ = [
    "ACTIVATIONS",
    "LAYERS",
    "Activation",
    "AdaptiveMaxPool",
    "AdaptiveMeanPool",
    "BatchNorm",
    "Bilinear",
    "Chain",
    "Connection",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalMaxPool",
    "GlobalMeanPool",
    "GroupNorm",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "MaxPool",
    "MeanPool",
    "Normalise",
    "Pad",
    "Parallel",
    "PixelShuffle",
    "Reshape",
    "Scale",
    "SkipConnection",
    "Softmax",
    "Upsample",
]


@dataclass(frozen=True, eq=False)
class Layer:
    """The base of every layer. `children` are the layers inside, in the order of their path indices."""

    @property
    def children(self) -> tuple[Layer, ...]:
        """The layers directly inside this one."""
        return ()

    @property
    def arrays(self) -> dict[str, Array]:
        """This layer's own weights by field name, children's excluded, absent ones left out."""
        named = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in named if isinstance(value, np.ndarray)}


# ---- Elementwise functions ----------------------------------------------------------------------------

ACTIVATIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    # name: (formula, default parameters). The names are NNlib's, in ASCII; σ is "sigmoid".
    "identity": ("x", ()),
    "relu": ("max(x, 0)", ()),
    "relu6": ("min(max(x, 0), 6)", ()),
    "leakyrelu": ("x if x > 0 else a x", (0.01,)),
    "trelu": ("x if x > theta else 0", (1.0,)),
    "elu": ("x if x > 0 else a (exp(x) - 1)", (1.0,)),
    "celu": ("x if x > 0 else a (exp(x / a) - 1)", (1.0,)),
    "selu": ("1.0507 (x if x > 0 else 1.6733 (exp(x) - 1))", ()),
    "gelu_tanh": ("x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))", ()),
    "gelu_erf": ("x/2 (1 + erf(x / sqrt 2))", ()),
    "sigmoid": ("1 / (1 + exp(-x))", ()),
    "hardsigmoid": ("clip(slope x + 1/2, 0, 1)", (1 / 6,)),
    "logsigmoid": ("log(sigmoid(x))", ()),
    "tanh": ("tanh(x)", ()),
    "hardtanh": ("clip(x, low, high)", (-1.0, 1.0)),
    "tanhshrink": ("x - tanh(x)", ()),
    "softshrink": ("x - clip(x, -l, l)", (0.5,)),
    "softplus": ("log(1 + exp(x))", ()),
    "softsign": ("x / (1 + |x|)", ()),
    "swish": ("x sigmoid(x)", ()),
    "hardswish": ("x clip((x + 3) / 6, 0, 1)", ()),
    "mish": ("x tanh(softplus(x))", ()),
    "lisht": ("x tanh(x)", ()),
    "logcosh": ("log(cosh(x))", ()),
    "abs": ("|x|", ()),
    "abs2": ("x^2", ()),
    "exp": ("exp(x)", ()),
    "sqrt": ("sqrt(x)", ()),
    "sin": ("sin(x)", ()),
    "clamp": ("clip(x, low, high)", (0.0, 1.0)),
    "affine": ("scale x + shift", (1.0, 0.0)),
}


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """An elementwise function by name, with its parameters: a layer by itself, or the last field of others."""

    name: str = "identity"
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.name!r}; known: {', '.join(ACTIVATIONS)}")
        defaults = ACTIVATIONS[self.name][1]
        given = tuple(float(p) for p in self.parameters) or defaults
        if len(given) != len(defaults):
            raise ValueError(f"{self.name} takes {len(defaults)} parameters, got {len(given)}")
        object.__setattr__(self, "parameters", given)

    def __bool__(self) -> bool:
        """False for the identity, which does nothing."""
        return self.name != "identity"


IDENTITY = Activation()


@dataclass(frozen=True, eq=False)
class Softmax(Layer):
    """exp(x) / sum(exp(x)) along `axis` of (N, C, ...); the logarithm of it where `log`.

    Flux's `softmax` works along Julia's first axis, which is -1 here.
    """

    axis: int = 1
    log: bool = False


@dataclass(frozen=True, eq=False)
class Dropout(Layer):
    """The identity at inference; the probability is kept so that a model can be trained further."""

    probability: float = 0.5


# ---- Weighted layers ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Conv(Layer):
    """Cross-correlation over 1 to 3 spatial axes, then the activation.

    `weight` is (out, in / groups, *kernel); `bias` (out,) or None. Zero padding; for other edges put a
    `Pad` in front. Output size: floor((size + low + high - dilation (kernel - 1) - 1) / stride) + 1.
    """

    weight: Array
    bias: Array | None = None
    stride: tuple[int, ...] = ()
    padding: Pads = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    activation: Activation = IDENTITY

    def __post_init__(self) -> None:
        rank = self.weight.ndim - 2
        object.__setattr__(self, "stride", self.stride or (1,) * rank)
        object.__setattr__(self, "padding", self.padding or ((0, 0),) * rank)
        object.__setattr__(self, "dilation", self.dilation or (1,) * rank)


@dataclass(frozen=True, eq=False)
class ConvTranspose(Layer):
    """The adjoint of `Conv` (PyTorch's ConvTransposeNd), then the activation.

    `weight` is (in, out / groups, *kernel). `padding` crops the full output at (low, high);
    `output_padding` lengthens it at the high end.
    """

    weight: Array
    bias: Array | None = None
    stride: tuple[int, ...] = ()
    padding: Pads = ()
    output_padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    activation: Activation = IDENTITY

    def __post_init__(self) -> None:
        rank = self.weight.ndim - 2
        object.__setattr__(self, "stride", self.stride or (1,) * rank)
        object.__setattr__(self, "padding", self.padding or ((0, 0),) * rank)
        object.__setattr__(self, "output_padding", self.output_padding or (0,) * rank)
        object.__setattr__(self, "dilation", self.dilation or (1,) * rank)


@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """activation(x W^T + b) over the last axis; `weight` is (out, in)."""

    weight: Array
    bias: Array | None = None
    activation: Activation = IDENTITY


@dataclass(frozen=True, eq=False)
class Scale(Layer):
    """activation(x * scale + bias); both are broadcast against the last axes of x."""

    scale: Array
    bias: Array | None = None
    activation: Activation = IDENTITY


@dataclass(frozen=True, eq=False)
class Bilinear(Layer):
    """activation(x W x + b) over the last axis: output k is the sum of weight[k, i, j] x[i] x[j].

    `weight` is (out, in, in), `bias` (out,) or None.
    """

    weight: Array
    bias: Array | None = None
    activation: Activation = IDENTITY


Reduction = Literal["none", "mean", "sum", "max"]


@dataclass(frozen=True, eq=False)
class Embedding(Layer):
    """Rows of `weight`, (entries, features), by their numbers: (N, ...) -> (N, ..., features).

    Numbers count from `first`; those outside are taken as the nearest there is. A `reduction` takes the
    mean, sum or largest value over the last axis of numbers: (N, ..., L) -> (N, ..., features).
    """

    weight: Array
    first: int = 0
    reduction: Reduction = "none"


# ---- Normalisation ------------------------------------------------------------------------------------

NormFormula = Literal["sqrt(var + eps)", "sqrt(var + eps^2)", "std + eps"]


@dataclass(frozen=True, eq=False)
class BatchNorm(Layer):
    """(x - mean) / sqrt(variance + epsilon) * scale + shift a channel (axis 1), in test mode.

    All arrays are (C,). With `mean` and `variance` None the batch's own statistics are used.
    """

    scale: Array | None = None
    shift: Array | None = None
    mean: Array | None = None
    variance: Array | None = None
    epsilon: float = 1e-5
    momentum: float = 0.1
    activation: Activation = IDENTITY


@dataclass(frozen=True, eq=False)
class LayerNorm(Layer):
    """Normalisation over the last `len(shape)` axes, then scale and shift of that shape.

    The divisor differs between Flux versions: <= 0.14 "std + eps", 0.15 to 0.16.10 "sqrt(var + eps^2)",
    PyTorch and Flux >= 0.16.11 "sqrt(var + eps)". The deviation is the uncorrected one.
    """

    shape: tuple[int, ...]
    scale: Array | None = None
    shift: Array | None = None
    epsilon: float = 1e-5
    formula: NormFormula = "sqrt(var + eps)"
    activation: Activation = IDENTITY


@dataclass(frozen=True, eq=False)
class GroupNorm(Layer):
    """Normalisation over groups of channels and all spatial axes of a sample; scale and shift are (C,).

    `mean` and `variance`, (groups,), replace a sample's own where a file tracked them (Flux <= 0.12).
    """

    groups: int
    scale: Array | None = None
    shift: Array | None = None
    mean: Array | None = None
    variance: Array | None = None
    epsilon: float = 1e-5
    activation: Activation = IDENTITY


@dataclass(frozen=True, eq=False)
class InstanceNorm(Layer):
    """Normalisation of each channel of each sample over its spatial axes; all arrays are (C,).

    With `mean` and `variance` (tracked statistics) those are used instead, as in test mode.
    """

    scale: Array | None = None
    shift: Array | None = None
    mean: Array | None = None
    variance: Array | None = None
    epsilon: float = 1e-5
    activation: Activation = IDENTITY


@dataclass(frozen=True, eq=False)
class Normalise(Layer):
    """Normalisation along one axis without weights: mean 0 and deviation 1, by `LayerNorm`'s formulas.

    Flux's `normalise` works along Julia's last axis, which is the batch: axis 0 here.
    """

    axis: int = 0
    epsilon: float = 1e-5
    formula: NormFormula = "sqrt(var + eps)"


# ---- Pooling and shape --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class MaxPool(Layer):
    """The largest value under the window; padding counts as -inf; sizes are floored."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: Pads = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stride", self.stride or self.kernel)
        object.__setattr__(self, "padding", self.padding or ((0, 0),) * len(self.kernel))


@dataclass(frozen=True, eq=False)
class MeanPool(Layer):
    """The mean under the window; sizes are floored.

    `count_padding`: padded zeros count in the divisor, as in Flux and PyTorch's default.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: Pads = ()
    count_padding: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "stride", self.stride or self.kernel)
        object.__setattr__(self, "padding", self.padding or ((0, 0),) * len(self.kernel))


@dataclass(frozen=True, eq=False)
class GlobalMaxPool(Layer):
    """The largest value over all spatial axes, which stay with length 1."""


@dataclass(frozen=True, eq=False)
class GlobalMeanPool(Layer):
    """The mean over all spatial axes, which stay with length 1."""


WindowRule = Literal["pytorch", "flux"]


@dataclass(frozen=True, eq=False)
class AdaptiveMaxPool(Layer):
    """The largest value in `output` windows an axis.

    Rule "pytorch": window i is [floor(i n / m), ceil((i + 1) n / m)). Rule "flux": stride n // m and
    kernel n - (m - 1) stride. They agree where m divides n.
    """

    output: tuple[int, ...]
    rule: WindowRule = "pytorch"


@dataclass(frozen=True, eq=False)
class AdaptiveMeanPool(Layer):
    """The mean in `output` windows an axis; the rules are `AdaptiveMaxPool`'s."""

    output: tuple[int, ...]
    rule: WindowRule = "pytorch"


@dataclass(frozen=True, eq=False)
class Flatten(Layer):
    """(N, C, H, W) -> (N, C·H·W), the last axis fastest, as in PyTorch and, reversed, in Flux."""


@dataclass(frozen=True, eq=False)
class Reshape(Layer):
    """(N, ...) -> (N, *shape); one entry may be -1. The batch axis always stays."""

    shape: tuple[int, ...]


PadMode = Literal["zero", "reflect", "replicate", "wrap"]
NUMPY_PAD: Mapping[PadMode, Any] = {
    "zero": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "wrap": "wrap",
}
"""What `numpy.pad` calls each."""


@dataclass(frozen=True, eq=False)
class Pad(Layer):
    """Extends the spatial axes by (low, high) each; "reflect" does not repeat the edge pixel.

    With mode "zero" a negative number takes away so many.
    """

    padding: Pads
    mode: PadMode = "zero"


@dataclass(frozen=True, eq=False)
class Upsample(Layer):
    """Enlarges the spatial axes by `scale` (one factor an axis) or to `size`; give exactly one.

    Modes: "nearest" (index floor(i n / m)), "linear" (1 to 3 axes: bilinear for images) with half-pixel
    centres, or with the corners aligned, as Flux's `:bilinear` has them.
    """

    scale: tuple[float, ...] = ()
    size: tuple[int, ...] = ()
    mode: Literal["nearest", "linear"] = "nearest"
    align_corners: bool = False

    def __post_init__(self) -> None:
        if bool(self.scale) == bool(self.size):
            raise ValueError("Upsample takes either scale or size")


@dataclass(frozen=True, eq=False)
class PixelShuffle(Layer):
    """(N, C r^k, *spatial) -> (N, C, *spatial r), PyTorch's channel order, over k spatial axes."""

    factor: int


# ---- Containers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Connection:
    """How a container joins its branches: elementwise, or "concatenate" along `axis`."""

    OPERATIONS: ClassVar[tuple[str, ...]] = ("add", "multiply", "subtract", "maximum", "concatenate")

    operation: Literal["add", "multiply", "subtract", "maximum", "concatenate"] = "add"
    axis: int = 1


@dataclass(frozen=True, eq=False)
class Chain(Layer):
    """One layer after another. `names`, where given, label them; paths are always indices."""

    layers: tuple[Layer, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def children(self) -> tuple[Layer, ...]:
        """The layers in order."""
        return self.layers


@dataclass(frozen=True, eq=False)
class SkipConnection(Layer):
    """connection(inner(x), x), in this order, which matters for "concatenate" and "subtract"."""

    inner: Layer
    connection: Connection = Connection()

    @property
    def children(self) -> tuple[Layer, ...]:
        """The one inner layer."""
        return (self.inner,)


@dataclass(frozen=True, eq=False)
class Parallel(Layer):
    """connection(branch(x) for every branch): all branches see the same input."""

    connection: Connection
    branches: tuple[Layer, ...]

    @property
    def children(self) -> tuple[Layer, ...]:
        """The branches in order."""
        return self.branches


# Whatever a file may name: nothing outside this table is ever built from one.
LAYERS: dict[str, type[Layer]] = {
    layer.__name__: layer
    for layer in (
        Activation,
        Softmax,
        Dropout,
        Conv,
        ConvTranspose,
        Dense,
        Bilinear,
        Embedding,
        Scale,
        BatchNorm,
        LayerNorm,
        GroupNorm,
        InstanceNorm,
        Normalise,
        MaxPool,
        MeanPool,
        GlobalMaxPool,
        GlobalMeanPool,
        AdaptiveMaxPool,
        AdaptiveMeanPool,
        Flatten,
        Reshape,
        Pad,
        Upsample,
        PixelShuffle,
        Chain,
        SkipConnection,
        Parallel,
    )
}


def child_path(path: str, index: int) -> str:
    """The path of a child: ("", 3) -> "3", ("3", 1) -> "3.1"."""
    return f"{path}.{index}" if path else str(index)


def walk(layer: Layer, path: str = "") -> Iterator[tuple[str, Layer]]:
    """Every layer inside `layer` with its path ("0", "3.1"), each before its own children."""
    for index, child in enumerate(layer.children):
        inner = child_path(path, index)
        yield inner, child
        yield from walk(child, inner)
