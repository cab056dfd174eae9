"""The table of layers and options that every engine, and every format, is tried with.

Sizes are odd and not square, kernels even or asymmetric, N above 1 wherever that can reveal something:
square, symmetric cases let transposed axes and flipped kernels pass unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from diptych.model.layers import (
    ACTIVATIONS,
    GRU,
    LSTM,
    RNN,
    Activation,
    AdaptiveMaxPool,
    AdaptiveMeanPool,
    BatchNorm,
    Bilinear,
    Chain,
    Connection,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Embedding,
    Expand,
    Flatten,
    Gather,
    GlobalMaxPool,
    GlobalMeanPool,
    Graph,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    LocalResponseNorm,
    MaxPool,
    MeanPool,
    MultiHeadAttention,
    Normalise,
    Pad,
    Parallel,
    Permute,
    PixelShuffle,
    PReLU,
    Reduce,
    Reshape,
    RMSNorm,
    Scale,
    SkipConnection,
    Slice,
    Softmax,
    Upsample,
)
from diptych.model.model import Model

Array = np.ndarray[Any, np.dtype[np.float32]]
RELU = Activation("relu")


class Weights:
    """Draws weights one after the other: `w(4, 3)` is normal, `w.positive(4)` lies in 0.5 to 1.5."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def __call__(self, *shape: int) -> Array:
        return (self._random.standard_normal(shape) / 2).astype(np.float32)

    def positive(self, *shape: int) -> Array:
        return (0.5 + self._random.random(shape)).astype(np.float32)


Build = Callable[[Weights], Layer]
Shape = tuple[int, ...]

IMAGE: Shape = (2, 4, 7, 10)
LINE: Shape = (2, 4, 11)
VOLUME: Shape = (2, 2, 5, 6, 4)

CONVOLUTIONS: dict[str, tuple[Build, Shape]] = {
    "conv": (lambda w: Conv(w(5, 4, 3, 3), w(5)), IMAGE),
    "conv-without-bias": (lambda w: Conv(w(5, 4, 3, 3)), IMAGE),
    "conv-1x1": (lambda w: Conv(w(5, 4, 1, 1), w(5)), IMAGE),
    "conv-asymmetric-kernel": (lambda w: Conv(w(5, 4, 2, 5), w(5)), IMAGE),
    "conv-even-kernel-same": (lambda w: Conv(w(5, 4, 4, 2), w(5), padding=((2, 1), (1, 0))), IMAGE),
    "conv-stride-2": (lambda w: Conv(w(5, 4, 3, 3), w(5), stride=(2, 2), padding=((1, 1), (1, 1))), IMAGE),
    "conv-strides-differ": (lambda w: Conv(w(5, 4, 3, 2), w(5), stride=(3, 1)), IMAGE),
    "conv-padding-asymmetric": (lambda w: Conv(w(5, 4, 3, 3), w(5), padding=((0, 2), (3, 1))), IMAGE),
    "conv-dilated": (
        lambda w: Conv(w(5, 4, 3, 2), w(5), dilation=(2, 3), padding=((2, 2), (1, 1)), stride=(1, 2)),
        IMAGE,
    ),
    "conv-groups": (lambda w: Conv(w(6, 2, 3, 2), w(6), groups=2), IMAGE),
    "conv-depthwise": (lambda w: Conv(w(8, 1, 3, 2), w(8), groups=4), IMAGE),
    "conv-relu": (lambda w: Conv(w(5, 4, 3, 3), w(5), activation=RELU), IMAGE),
    "conv-leakyrelu": (
        lambda w: Conv(w(5, 4, 3, 3), w(5), activation=Activation("leakyrelu", (0.2,))),
        IMAGE,
    ),
    "conv-1d": (lambda w: Conv(w(3, 4, 4), w(3), stride=(2,), padding=((2, 1),)), LINE),
    "conv-3d": (
        lambda w: Conv(w(3, 2, 2, 3, 1), w(3), stride=(1, 2, 1), padding=((1, 0), (1, 1), (0, 2))),
        VOLUME,
    ),
    "transpose": (lambda w: ConvTranspose(w(4, 3, 3, 3), w(3)), IMAGE),
    "transpose-without-bias": (lambda w: ConvTranspose(w(4, 3, 2, 3)), IMAGE),
    "transpose-stride-2": (lambda w: ConvTranspose(w(4, 3, 4, 3), w(3), stride=(2, 3)), IMAGE),
    "transpose-padding": (
        lambda w: ConvTranspose(w(4, 3, 4, 4), w(3), stride=(2, 2), padding=((1, 1), (1, 1))),
        IMAGE,
    ),
    "transpose-padding-asymmetric": (
        lambda w: ConvTranspose(w(4, 3, 3, 4), w(3), stride=(2, 1), padding=((2, 0), (1, 2))),
        IMAGE,
    ),
    "transpose-output-padding": (
        lambda w: ConvTranspose(
            w(4, 3, 3, 2), w(3), stride=(2, 3), padding=((1, 1), (0, 0)), output_padding=(1, 2)
        ),
        IMAGE,
    ),
    "transpose-dilated": (
        lambda w: ConvTranspose(w(4, 3, 2, 3), w(3), stride=(2, 1), dilation=(3, 2), activation=RELU),
        IMAGE,
    ),
    "transpose-groups": (lambda w: ConvTranspose(w(4, 3, 3, 2), w(6), groups=2, stride=(2, 2)), IMAGE),
    "transpose-1d": (lambda w: ConvTranspose(w(4, 3, 4), w(3), stride=(2,), padding=((1, 1),)), LINE),
    "transpose-3d": (lambda w: ConvTranspose(w(2, 3, 2, 1, 3), w(3), stride=(2, 1, 1)), VOLUME),
}

DENSE: dict[str, tuple[Build, Shape]] = {
    "dense": (lambda w: Dense(w(5, 7), w(5)), (3, 7)),
    "dense-without-bias": (lambda w: Dense(w(5, 7)), (3, 7)),
    "dense-tanh": (lambda w: Dense(w(5, 7), w(5), Activation("tanh")), (1, 7)),
    "dense-over-the-last-axis": (lambda w: Dense(w(5, 10), w(5), RELU), IMAGE),
    "bilinear": (lambda w: Bilinear(w(5, 7, 7), w(5), Activation("tanh")), (3, 7)),
    "bilinear-over-the-last-axis": (lambda w: Bilinear(w(3, 10, 10)), IMAGE),
    "embedding": (lambda w: Embedding(w(6, 5), first=-3), (3, 7)),
    "embedding-mean": (lambda w: Embedding(w(6, 5), first=-3, reduction="mean"), (3, 7)),
    "embedding-sum": (lambda w: Embedding(w(6, 5), first=-3, reduction="sum"), (2, 4, 7)),
    "embedding-max": (lambda w: Embedding(w(6, 5), first=-3, reduction="max"), (3, 7)),
    "scale": (lambda w: Scale(w(7), w(7)), (3, 7)),
    "scale-of-channels": (lambda w: Scale(w(4, 1, 1), w(4, 1, 1), RELU), IMAGE),
    "scale-without-bias": (lambda w: Scale(w(7, 10)), IMAGE),
    "scale-by-one-number": (lambda w: Scale(w(1), w(1)), IMAGE),
    "prelu-of-channels": (lambda w: PReLU(w(4, 1, 1)), IMAGE),
    "prelu-of-columns": (lambda w: PReLU(w(10)), IMAGE),
    "prelu-of-features": (lambda w: PReLU(w(7)), (3, 7)),
    "softmax": (lambda w: Softmax(), (3, 7)),
    "softmax-of-channels": (lambda w: Softmax(), IMAGE),
    "softmax-last-axis": (lambda w: Softmax(axis=-1), IMAGE),
    "logsoftmax": (lambda w: Softmax(log=True), (3, 7)),
    "logsoftmax-rows": (lambda w: Softmax(axis=2, log=True), IMAGE),
    "dropout": (lambda w: Dropout(0.3), IMAGE),
}

SEQUENCE: Shape = (3, 6, 5)

RECURRENT: dict[str, tuple[Build, Shape]] = {
    "rnn": (lambda w: RNN(w(4, 5), w(4, 4), w(4)), SEQUENCE),
    "rnn-relu-reverse": (lambda w: RNN(w(4, 5), w(4, 4), reverse=True, function=RELU), SEQUENCE),
    "rnn-leakyrelu": (
        lambda w: RNN(w(4, 5), w(4, 4), w(4), w(4), function=Activation("leakyrelu", (0.2,))),
        SEQUENCE,
    ),
    "rnn-one-step": (lambda w: RNN(w(4, 5), w(4, 4), w(4), w(4)), (3, 5)),
    "lstm": (lambda w: LSTM(w(16, 5), w(16, 4), w(16)), SEQUENCE),
    "lstm-reverse": (
        lambda w: LSTM(w(16, 5), w(16, 4), w(16), w(4), reverse=True, initial_cell=w(4)),
        SEQUENCE,
    ),
    "lstm-initial-cell": (lambda w: LSTM(w(16, 5), w(16, 4), initial_cell=w(4)), SEQUENCE),
    "lstm-one-step": (lambda w: LSTM(w(16, 5), w(16, 4), w(16), w(4), initial_cell=w(4)), (3, 5)),
    "gru": (lambda w: GRU(w(12, 5), w(12, 4), w(12), new_bias=w(4)), SEQUENCE),
    "gru-one-bias": (lambda w: GRU(w(12, 5), w(12, 4), w(12), w(4)), SEQUENCE),
    "gru-new-bias-alone": (lambda w: GRU(w(12, 5), w(12, 4), new_bias=w(4), reverse=True), SEQUENCE),
    "gru-reset-before": (lambda w: GRU(w(12, 5), w(12, 4), w(12), reset="before"), SEQUENCE),
    "gru-reset-before-reverse": (
        lambda w: GRU(w(12, 5), w(12, 4), None, w(4), reverse=True, reset="before"),
        SEQUENCE,
    ),
    "lstm-of-rows": (lambda w: LSTM(w(16, 10), w(16, 4), w(16)), IMAGE),
    "gru-of-rows-reset-before": (lambda w: GRU(w(12, 10), w(12, 4), None, w(4), reset="before"), IMAGE),
    "gru-one-step": (lambda w: GRU(w(12, 5), w(12, 4), w(12), w(4)), (3, 5)),
    "multi-head-attention": (
        lambda w: MultiHeadAttention(w(6, 5), w(6, 5), w(4, 5), w(7, 4), w(6), w(6), w(4), w(7), heads=2),
        SEQUENCE,
    ),
    "multi-head-attention-no-bias": (
        lambda w: MultiHeadAttention(w(6, 5), w(6, 5), w(6, 5), w(5, 6), heads=3),
        SEQUENCE,
    ),
}

NORMS: dict[str, tuple[Build, Shape]] = {
    "batchnorm": (lambda w: BatchNorm(w(4), w(4), w(4), w.positive(4)), IMAGE),
    "batchnorm-of-features": (lambda w: BatchNorm(w(7), w(7), w(7), w.positive(7), activation=RELU), (3, 7)),
    "batchnorm-1d": (lambda w: BatchNorm(w(4), w(4), w(4), w.positive(4)), LINE),
    "batchnorm-3d": (lambda w: BatchNorm(w(2), w(2), w(2), w.positive(2)), VOLUME),
    "batchnorm-epsilon": (lambda w: BatchNorm(w(4), w(4), w(4), w.positive(4), epsilon=0.1), IMAGE),
    "batchnorm-not-affine": (lambda w: BatchNorm(None, None, w(4), w.positive(4)), IMAGE),
    "batchnorm-of-the-batch": (lambda w: BatchNorm(w(4), w(4)), IMAGE),
    "batchnorm-of-the-batch-features": (lambda w: BatchNorm(w(7), w(7)), (5, 7)),
    "layernorm": (lambda w: LayerNorm((7, 10), w(7, 10), w(7, 10)), IMAGE),
    "layernorm-eps-squared": (
        lambda w: LayerNorm((10,), w(10), w(10), epsilon=0.1, formula="sqrt(var + eps^2)"),
        IMAGE,
    ),
    "layernorm-std-plus-eps": (
        lambda w: LayerNorm((4, 7, 10), w(4, 7, 10), w(4, 7, 10), epsilon=0.1, formula="std + eps"),
        IMAGE,
    ),
    "layernorm-not-affine": (lambda w: LayerNorm((7,), epsilon=0.1), (3, 7)),
    "layernorm-std-not-affine": (lambda w: LayerNorm((7,), formula="std + eps", activation=RELU), (3, 7)),
    "rmsnorm": (lambda w: RMSNorm((10,), w(10), 0.1), IMAGE),
    "rmsnorm-of-pictures": (lambda w: RMSNorm((4, 7, 10), w(4, 7, 10)), IMAGE),
    "rmsnorm-of-features": (lambda w: RMSNorm((7,), w(7), 0.1), (3, 7)),
    "rmsnorm-not-affine": (lambda w: RMSNorm((7, 10), epsilon=0.1), IMAGE),
    "normalise": (lambda w: Normalise(epsilon=0.1), (5, 7)),
    "normalise-rows": (lambda w: Normalise(2, 0.1, "std + eps"), IMAGE),
    "normalise-eps-squared": (lambda w: Normalise(-1, 0.1, "sqrt(var + eps^2)"), IMAGE),
    "groupnorm": (lambda w: GroupNorm(2, w(4), w(4)), IMAGE),
    "groupnorm-not-affine": (lambda w: GroupNorm(2, epsilon=0.1, activation=RELU), IMAGE),
    "groupnorm-of-features": (lambda w: GroupNorm(2, w(6), w(6)), (3, 6)),
    "groupnorm-1d": (lambda w: GroupNorm(2, w(4), w(4)), LINE),
    "groupnorm-tracked": (lambda w: GroupNorm(2, w(4), w(4), w(2), w.positive(2)), IMAGE),
    "instancenorm": (lambda w: InstanceNorm(w(4), w(4)), IMAGE),
    "instancenorm-not-affine": (lambda w: InstanceNorm(epsilon=0.1), IMAGE),
    "instancenorm-tracked": (lambda w: InstanceNorm(w(4), w(4), w(4), w.positive(4)), IMAGE),
    "lrn": (lambda w: LocalResponseNorm(1, 1, 0.5, 0.75, 2.0), IMAGE),
    "lrn-even": (lambda w: LocalResponseNorm(1, 2, 0.5, 0.6, 1.5), IMAGE),
    "lrn-even-as-in-pytorch": (lambda w: LocalResponseNorm(2, 1, 0.5, 0.75, 1.0), IMAGE),
    "lrn-wider-than-the-channels": (lambda w: LocalResponseNorm(2**30, 9, 2.0**28, 0.75, 2.0), IMAGE),
    "lrn-1d": (lambda w: LocalResponseNorm(2, 2, 0.5), LINE),
    "instancenorm-3d": (lambda w: InstanceNorm(w(2), w(2), activation=RELU), VOLUME),
}

REDUCTIONS: dict[str, tuple[Build, Shape]] = {
    "reduce-mean-of-channels": (lambda w: Reduce("mean", (1,)), IMAGE),
    "reduce-mean-drops": (lambda w: Reduce("mean", (1, 3), keep=False), IMAGE),
    "reduce-mean-of-space": (lambda w: Reduce("mean", (2, 3), keep=False), IMAGE),
    "reduce-sum": (lambda w: Reduce("sum", (2,)), IMAGE),
    "reduce-sum-of-features": (lambda w: Reduce("sum", (1,)), (3, 7)),
    "reduce-max": (lambda w: Reduce("max", (1, 2)), IMAGE),
    "reduce-min": (lambda w: Reduce("min", (3,), keep=False), IMAGE),
    "reduce-product": (lambda w: Reduce("product", (1, 3)), IMAGE),
    "reduce-logsumexp": (lambda w: Reduce("logsumexp", (1,)), IMAGE),
    "reduce-logsumexp-drops": (lambda w: Reduce("logsumexp", (2, 3), keep=False), IMAGE),
}

POOLS: dict[str, tuple[Build, Shape]] = {
    "maxpool-dilated": (lambda w: MaxPool((2, 3), (1, 2), ((1, 0), (2, 1)), (3, 2)), IMAGE),
    "maxpool-dilated-symmetric": (lambda w: MaxPool((3, 3), (2, 1), ((1, 1), (1, 1)), (2, 2)), IMAGE),
    "maxpool-dilated-1d": (lambda w: MaxPool((3,), (2,), dilation=(2,)), LINE),
    "maxpool": (lambda w: MaxPool((2, 2)), IMAGE),
    "maxpool-overlapping": (lambda w: MaxPool((3, 2), stride=(2, 1)), IMAGE),
    "maxpool-padding": (lambda w: MaxPool((3, 3), stride=(2, 2), padding=((1, 1), (1, 1))), IMAGE),
    "maxpool-padding-asymmetric": (lambda w: MaxPool((3, 2), padding=((0, 2), (1, 0))), IMAGE),
    "maxpool-1d": (lambda w: MaxPool((3,), stride=(2,), padding=((1, 0),)), LINE),
    "maxpool-3d": (lambda w: MaxPool((2, 3, 1), stride=(1, 2, 1)), VOLUME),
    "meanpool": (lambda w: MeanPool((2, 2)), IMAGE),
    "meanpool-overlapping": (lambda w: MeanPool((3, 2), stride=(2, 1)), IMAGE),
    "meanpool-padding": (lambda w: MeanPool((3, 3), stride=(2, 2), padding=((1, 1), (1, 1))), IMAGE),
    "meanpool-padding-asymmetric": (lambda w: MeanPool((3, 2), padding=((0, 2), (1, 0))), IMAGE),
    "meanpool-padding-not-counted": (
        lambda w: MeanPool((3, 3), stride=(2, 2), padding=((1, 1), (1, 1)), count_padding=False),
        IMAGE,
    ),
    "meanpool-asymmetric-not-counted": (
        lambda w: MeanPool((3, 2), padding=((0, 2), (1, 0)), count_padding=False),
        IMAGE,
    ),
    "meanpool-1d": (lambda w: MeanPool((3,), stride=(2,), padding=((1, 0),)), LINE),
    "meanpool-3d": (lambda w: MeanPool((2, 3, 1), stride=(1, 2, 1)), VOLUME),
    "global-max": (lambda w: GlobalMaxPool(), IMAGE),
    "global-max-1d": (lambda w: GlobalMaxPool(), LINE),
    "global-mean": (lambda w: GlobalMeanPool(), IMAGE),
    "global-mean-3d": (lambda w: GlobalMeanPool(), VOLUME),
    "adaptive-max-divides": (lambda w: AdaptiveMaxPool((1, 5)), IMAGE),
    "adaptive-max-pytorch": (lambda w: AdaptiveMaxPool((3, 4)), IMAGE),
    "adaptive-max-flux": (lambda w: AdaptiveMaxPool((3, 4), rule="flux"), IMAGE),
    "adaptive-max-3d": (lambda w: AdaptiveMaxPool((2, 3, 3)), VOLUME),
    "adaptive-mean-divides": (lambda w: AdaptiveMeanPool((1, 5)), IMAGE),
    "adaptive-mean-pytorch": (lambda w: AdaptiveMeanPool((3, 4)), IMAGE),
    "adaptive-mean-flux": (lambda w: AdaptiveMeanPool((3, 4), rule="flux"), IMAGE),
    "adaptive-mean-larger": (lambda w: AdaptiveMeanPool((9, 12)), IMAGE),
    "adaptive-mean-1d": (lambda w: AdaptiveMeanPool((4,), rule="flux"), LINE),
}

SHAPES: dict[str, tuple[Build, Shape]] = {
    "permute-channels-last": (lambda w: Permute((0, 2, 3, 1)), IMAGE),
    "permute-spatial": (lambda w: Permute((0, 1, 3, 2)), IMAGE),
    "permute-3d": (lambda w: Permute((0, 3, 1, 4, 2)), VOLUME),
    "permute-of-features": (lambda w: Permute((0, 1)), (3, 7)),
    "slice-channels": (lambda w: Slice(1, 1, 3), IMAGE),
    "slice-rows-with-a-step": (lambda w: Slice(2, 1, 7, 3), IMAGE),
    "slice-from-the-end": (lambda w: Slice(3, -4, -1), IMAGE),
    "slice-beyond-the-end": (lambda w: Slice(1, 2, 2**31 - 1), (3, 7)),
    "gather-channels": (lambda w: Gather(np.array([3, 0, 0, 2, 1], np.float32)), IMAGE),
    "gather-columns": (lambda w: Gather(np.arange(9, -1, -1, dtype=np.float32), 3), IMAGE),
    "gather-of-features": (lambda w: Gather(np.array([6, 2], np.float32)), (3, 7)),
    "expand": (lambda w: Expand((4, 7, 3)), (2, 4, 1, 3)),
    "expand-keeps-other-sizes": (lambda w: Expand((1, 5, 1)), (2, 4, 1, 3)),
    "constant": (lambda w: Constant(w(3, 5)), IMAGE),
    "constant-of-features": (lambda w: Constant(w(6)), (3, 7)),
    "pad-constant": (lambda w: Pad(((1, 2), (0, 3)), "constant", -1.5), IMAGE),
    "pad-constant-1d": (lambda w: Pad(((2, 0),), "constant", 3.0), LINE),
    "flatten": (lambda w: Flatten(), IMAGE),
    "flatten-of-features": (lambda w: Flatten(), (3, 7)),
    "reshape": (lambda w: Reshape((10, 28)), IMAGE),
    "reshape-free-axis": (lambda w: Reshape((2, -1, 5)), IMAGE),
    "pad-zero": (lambda w: Pad(((1, 2), (0, 3))), IMAGE),
    "pad-reflect": (lambda w: Pad(((1, 2), (0, 3)), "reflect"), IMAGE),
    "pad-replicate": (lambda w: Pad(((1, 2), (0, 3)), "replicate"), IMAGE),
    "pad-symmetric": (lambda w: Pad(((1, 2), (0, 3)), "symmetric"), IMAGE),
    "pad-symmetric-3d": (lambda w: Pad(((1, 5), (0, 3), (2, 0)), "symmetric"), VOLUME),
    "pad-wrap": (lambda w: Pad(((1, 2), (0, 3)), "wrap"), IMAGE),
    "pad-zero-3d": (lambda w: Pad(((1, 0), (0, 3), (2, 1))), VOLUME),
    "pad-reflect-1d": (lambda w: Pad(((3, 1),), "reflect"), LINE),
    "pad-replicate-3d": (lambda w: Pad(((1, 0), (0, 3), (2, 1)), "replicate"), VOLUME),
    "upsample-nearest": (lambda w: Upsample((2, 3)), IMAGE),
    "upsample-nearest-fraction": (lambda w: Upsample((1.5, 2.0)), IMAGE),
    "upsample-nearest-size": (lambda w: Upsample(size=(12, 13)), IMAGE),
    "upsample-nearest-1d": (lambda w: Upsample((3,)), LINE),
    "upsample-nearest-3d": (lambda w: Upsample((2, 1, 3)), VOLUME),
    "upsample-linear": (lambda w: Upsample((2, 3), mode="linear"), IMAGE),
    "upsample-linear-size": (lambda w: Upsample(size=(12, 13), mode="linear"), IMAGE),
    "upsample-linear-smaller": (lambda w: Upsample(size=(3, 4), mode="linear"), IMAGE),
    "upsample-linear-corners": (lambda w: Upsample((2, 3), mode="linear", align_corners=True), IMAGE),
    "upsample-linear-corners-to-one": (
        lambda w: Upsample(size=(1, 13), mode="linear", align_corners=True),
        IMAGE,
    ),
    "upsample-linear-1d": (lambda w: Upsample((2.5,), mode="linear"), LINE),
    "upsample-linear-3d": (lambda w: Upsample((2, 1, 3), mode="linear", align_corners=True), VOLUME),
    "pixelshuffle": (lambda w: PixelShuffle(2), (2, 8, 3, 5)),
    "pixelshuffle-1d": (lambda w: PixelShuffle(2), LINE),
    "pixelshuffle-3d": (lambda w: PixelShuffle(2), (2, 8, 3, 2, 4)),
}


def _skip(operation: Any, axis: int = 1) -> Build:
    def build(w: Weights) -> Layer:
        inner = Conv(w(4, 4, 3, 3), w(4), padding=((1, 1), (1, 1)), activation=RELU)
        return SkipConnection(inner, Connection(operation, axis))

    return build


def _parallel(operation: Any, axis: int = 1) -> Build:
    def build(w: Weights) -> Layer:
        branches = (Conv(w(4, 4, 1, 1), w(4)), Dropout(), Chain((RELU, Conv(w(4, 4, 1, 1)))))
        return Parallel(Connection(operation, axis), branches)

    return build


def _tied(w: Weights) -> Layer:
    """One layer at two places, and one array in two layers."""
    conv = Conv(w(4, 4, 3, 3), w(4), padding=((1, 1), (1, 1)))
    return Chain((conv, RELU, conv, Conv(conv.weight)))


def _nested(w: Weights) -> Layer:
    inner = Chain((Conv(w(4, 4, 1, 1), w(4)), SkipConnection(Chain((RELU,))), Chain(())))
    return Chain((Parallel(Connection("concatenate"), (inner, MaxPool((3, 3), (1, 1), ((1, 1), (1, 1))))),))


def _graph(w: Weights) -> Graph:
    """Two branches that meet twice, at different places, which is no tree; one layer stands at two nodes."""
    tied = Conv(w(4, 4, 3, 3), w(4), padding=((1, 1), (1, 1)), activation=RELU)
    return Graph(
        layers=(
            Conv(w(4, 4, 1, 1), w(4)),
            tied,
            Connection("add"),
            Connection("concatenate"),
            tied,
            MaxPool((3, 3), (1, 1), ((1, 1), (1, 1))),
            Connection("subtract"),
            Connection("maximum"),
        ),
        names=("a", "b", "a+b", "all", "c", "pooled", "d", "last"),
        inputs=(
            ("input",),
            ("a",),
            ("a", "b"),
            ("b", "a+b", "input"),
            ("a+b",),
            ("all",),
            ("c", "a"),
            ("d", "b", "input"),
        ),
        outputs=("last",),
    )


def _classifier(w: Weights) -> Layer:
    return Chain(
        (
            Conv(w(3, 4, 2, 3), w(3), activation=RELU),
            BatchNorm(w(3), w(3), w(3), w.positive(3)),
            MaxPool((2, 2)),
            Flatten(),
            Dense(w(6, 36), w(6), Activation("sigmoid")),
            Dropout(),
            Dense(w(3, 6), w(3)),
            Softmax(),
        )
    )


def _attention(w: Weights) -> Graph:
    """Two heads over a sequence with a class token, as in a vision transformer."""
    heads = Reshape((-1, 2, 3))
    return Graph(
        layers=(
            Constant(w(1, 6)),
            Connection("concatenate"),
            Dense(w(18, 6), w(18)),
            Chain((Slice(2, 0, 6), heads, Permute((0, 2, 1, 3)))),
            Chain((Slice(2, 6, 12), heads, Permute((0, 2, 3, 1)))),
            Chain((Slice(2, 12, 18), heads, Permute((0, 2, 1, 3)))),
            Connection("matmul"),
            Softmax(axis=-1),
            Connection("matmul"),
            Chain((Permute((0, 2, 1, 3)), Reshape((-1, 6)))),
        ),
        names=("token", "tokens", "qkv", "q", "k", "v", "scores", "shares", "mixed", "out"),
        inputs=(
            ("input",),
            ("token", "input"),
            ("tokens",),
            ("qkv",),
            ("qkv",),
            ("qkv",),
            ("q", "k"),
            ("scores",),
            ("shares", "v"),
            ("mixed",),
        ),
        outputs=("out",),
    )


CONTAINERS: dict[str, tuple[Build, Shape]] = {
    "attention": (_attention, (2, 5, 6)),
    "pad-behind-a-permute": (lambda w: Chain((Permute((0, 3, 1, 2)), Pad(((0, 1), (2, 0))))), IMAGE),
    "skip-divide": (
        lambda w: SkipConnection(
            Chain((Activation("abs"), Activation("affine", (1.0, 0.5)))), Connection("divide")
        ),
        IMAGE,
    ),
    "parallel-where": (
        lambda w: Parallel(
            Connection("where"), (Activation("step"), Conv(w(4, 4, 1, 1)), Constant(w(4, 1, 1)))
        ),
        IMAGE,
    ),
    "parallel-minimum": (_parallel("minimum"), IMAGE),
    "parallel-matmul": (
        lambda w: Parallel(Connection("matmul"), (RELU, Chain((Permute((0, 1, 3, 2)), Scale(w(4, 1, 1)))))),
        IMAGE,
    ),
    "parallel-matmul-broadcast": (
        lambda w: Parallel(Connection("matmul"), (RELU, Constant(w(1, 10, 3)))),
        IMAGE,
    ),
    "chain-empty": (lambda w: Chain(()), IMAGE),
    "chain-named": (lambda w: Chain((RELU, Flatten()), ("activation", "flat")), IMAGE),
    "skip-add": (_skip("add"), IMAGE),
    "skip-multiply": (_skip("multiply"), IMAGE),
    "skip-subtract": (_skip("subtract"), IMAGE),
    "skip-concatenate": (_skip("concatenate"), IMAGE),
    "skip-concatenate-rows": (_skip("concatenate", 2), IMAGE),
    "skip-concatenate-last": (_skip("concatenate", -1), IMAGE),
    "skip-broadcast": (lambda w: SkipConnection(GlobalMeanPool(), Connection("multiply")), IMAGE),
    "parallel-add": (_parallel("add"), IMAGE),
    "parallel-multiply": (_parallel("multiply"), IMAGE),
    "parallel-subtract": (_parallel("subtract"), IMAGE),
    "parallel-maximum": (_parallel("maximum"), IMAGE),
    "parallel-concatenate": (_parallel("concatenate"), IMAGE),
    "parallel-concatenate-flattened": (
        lambda w: Parallel(Connection("concatenate"), (Flatten(), Chain((GlobalMeanPool(), Flatten())))),
        IMAGE,
    ),
    "parallel-one-branch": (lambda w: Parallel(Connection("add"), (RELU,)), IMAGE),
    "tied": (_tied, IMAGE),
    "nested": (_nested, IMAGE),
    "classifier": (_classifier, IMAGE),
    "graph": (_graph, IMAGE),
    "graph-nested": (lambda w: Chain((_graph(w), Chain((RELU, Flatten())))), IMAGE),
}

# Other parameters than the default ones.
PARAMETERS = {
    "leakyrelu": (0.3,),
    "trelu": (0.25,),
    "elu": (0.5,),
    "celu": (2.0,),
    "hardsigmoid": (0.2,),
    "hardtanh": (-0.5, 2.0),
    "softshrink": (0.25,),
    "clamp": (-0.75, 0.5),
    "affine": (-2.0, 0.5),
    "power": (-1.5,),
    "step": (0.25,),
}

# Where a function is defined.
DOMAINS: dict[str, Callable[[Any], Any]] = {
    "sqrt": np.abs,
    "log": lambda x: np.abs(x) + 0.01,
    "power-parameters": lambda x: np.abs(x) + 0.01,
    "asin": np.tanh,
    "acos": np.tanh,
    "atanh": lambda x: np.tanh(x) * 0.9,
    "acosh": lambda x: np.abs(x) + 1.01,
    "tan": np.tanh,
}


def _activations() -> dict[str, tuple[Build, Shape]]:
    def build(name: str, parameters: tuple[float, ...] = ()) -> Build:
        return lambda w: Activation(name, parameters)

    table = {f"activation-{name}": (build(name), IMAGE) for name in ACTIVATIONS}
    others = {f"activation-{name}-parameters": (build(name, p), IMAGE) for name, p in PARAMETERS.items()}
    return table | others


TABLE: dict[str, tuple[Build, Shape]] = (
    _activations() | CONVOLUTIONS | DENSE | RECURRENT | NORMS | POOLS | SHAPES | REDUCTIONS | CONTAINERS
)


def case(name: str) -> tuple[Model, Array]:
    """The model and the batch of one case: the same numbers every time."""
    build, shape = TABLE[name]
    seed = list(TABLE).index(name)
    layer = build(Weights(seed))
    layers = layer if isinstance(layer, Chain) else Chain((layer,))
    batch = np.random.default_rng(10_000 + seed).standard_normal(shape) * 2
    batch = DOMAINS.get(name.removeprefix("activation-"), lambda x: x)(batch)
    return Model(layers, input_shape=shape[1:], name=name), batch.astype(np.float32)


def cases() -> Iterator[tuple[str, Model, Array]]:
    """Every case: (name, model, batch)."""
    for name in TABLE:
        yield name, *case(name)
