"""The engine halide: layers against the reference, parts of pictures against the whole, bit for bit."""

from __future__ import annotations

from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych import engines
from diptych.datasets.photographs import photograph
from diptych.engines import tiled
from diptych.engines.halide import Filter, extending
from diptych.engines.tiled import Region
from diptych.errors import ShapeError, UnsupportedLayer
from diptych.filters.learning import kernels, ranks
from diptych.model.layers import (
    ACTIVATIONS,
    Activation,
    Array,
    Chain,
    Connection,
    Conv,
    GlobalMeanPool,
    Layer,
    MaxPool,
    MeanPool,
    Pad,
    Parallel,
    Scale,
    SkipConnection,
)
from diptych.model.model import Model
from distances import RELATIVE, apart
from layer_cases import PARAMETERS, TABLE, case

RELU = Activation("relu")

# What looks at a picture pixel by pixel, or through a window, and does not shrink it by a stride.
LOCAL = {
    *(
        "conv",
        "conv-without-bias",
        "conv-1x1",
        "conv-asymmetric-kernel",
        "conv-even-kernel-same",
        "conv-relu",
    ),
    *("conv-padding-asymmetric", "conv-groups", "conv-depthwise", "conv-leakyrelu", "dropout"),
    *("scale-of-channels", "scale-by-one-number", "batchnorm", "batchnorm-epsilon", "batchnorm-not-affine"),
    *(
        "instancenorm-tracked",
        "pad-zero",
        "pad-reflect",
        "pad-symmetric",
        "pad-replicate",
        "pad-wrap",
        "chain-empty",
        "tied",
    ),
    *("skip-add", "skip-multiply", "skip-subtract", "skip-concatenate", "parallel-add", "parallel-multiply"),
    *("skip-divide", "parallel-minimum"),
    *("parallel-subtract", "parallel-maximum", "parallel-concatenate", "parallel-one-branch", "nested"),
}


# ---- Layers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(LOCAL))
def test_agrees_with_the_reference(name: str) -> None:
    model, batch = case(name)
    output = engines.compile(model, "halide")(batch)
    assert output.dtype == np.float32
    assert output.flags.c_contiguous
    assert apart(output, engines.compile(model, "numpy")(batch)) <= RELATIVE


@pytest.mark.parametrize("name", sorted(n for n in set(TABLE) - LOCAL if not n.startswith("activation")))
def test_what_is_no_filter_is_refused(name: str) -> None:
    model, _ = case(name)
    with pytest.raises(
        UnsupportedLayer, match=r"the engine halide cannot express (the layer|a model for inputs of shape)"
    ):
        engines.compile(model, "halide")


def test_the_refused_layer_is_named() -> None:
    model = Model(Chain((RELU, Chain((GlobalMeanPool(),)))))
    with pytest.raises(UnsupportedLayer, match=r"1\.0 \(GlobalMeanPool\): it depends on the whole picture"):
        engines.compile(model, "halide")


POSITIVE = (Activation("abs"), Activation("affine", (1.0, 0.01)))
BELOW_ONE = (Activation("tanh"), Activation("affine", (0.9, 0.0)))

# What brings any number to where a function is defined and not steep.
INSIDE: dict[str, tuple[Activation, ...]] = {
    **dict.fromkeys(("sqrt", "log", "power"), POSITIVE),
    **dict.fromkeys(("asin", "acos", "atanh", "tan", "sinh", "cosh"), BELOW_ONE),
    "acosh": (Activation("abs"), Activation("affine", (1.0, 1.01))),
}


def test_every_activation_agrees_with_the_reference() -> None:
    """All in one model, a channel each: compiling takes longer than anything else here."""
    each: list[Layer] = [Activation(name) for name in ACTIVATIONS if name not in INSIDE]
    each += [Activation(name, parameters) for name, parameters in PARAMETERS.items() if name not in INSIDE]
    for name, inside in INSIDE.items():
        each.append(Chain((*inside, Activation(name, PARAMETERS.get(name, ())))))
    model = Model(Chain((Parallel(Connection("concatenate"), tuple(each)),)), input_shape=(1, 40, 50))
    batch = np.linspace(-12, 12, 2000, dtype=np.float32).reshape(1, 1, 40, 50)
    output, expected = engines.compile(model, "halide")(batch), engines.compile(model, "numpy")(batch)
    for channel, activation in enumerate(each):
        # exp(12) and log(cosh) apart, every value here is below 200
        assert apart(output[:, channel], expected[:, channel]) <= RELATIVE, activation


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nested", "skip-subtract"])
def test_a_trace_holds_every_layer(name: str) -> None:
    model, batch = case(name)
    trace, expected = (engines.compile(model, engine).trace(batch) for engine in ("halide", "numpy"))
    assert list(trace) == list(expected)
    assert all(apart(trace[path], expected[path]) <= RELATIVE for path in expected)


def test_a_batch_that_is_no_picture_is_refused() -> None:
    compiled = engines.compile(Model(Chain((RELU,))), "halide")
    with pytest.raises(ShapeError, match=r"takes batches \(N, C, H, W\), got the shape \(2, 3\)"):
        compiled(np.ones((2, 3), np.float32))


def test_read_only_pixels_are_taken() -> None:
    batch = np.full((1, 1, 3, 2), -1, np.float32)
    batch.flags.writeable = False
    assert not engines.compile(Model(Chain((RELU,))), "halide")(batch).any()


# ---- Parts of pictures ---------------------------------------------------------------------------------


def w(*shape: int) -> Array:
    random = np.random.default_rng(list(shape))
    return (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def pad(pixels: int, mode: Any) -> Pad:
    return Pad(((pixels, pixels), (pixels, pixels)), mode)


def star(mode: Any) -> Chain:
    """The shape of network that a learned Sobel has."""
    grey, slopes = Conv(w(1, 3, 1, 1)), Conv(w(2, 1, 3, 3))
    return Chain(
        (grey, pad(1, mode), slopes, Conv(w(9, 2, 1, 1), activation=RELU), Conv(np.abs(w(1, 9, 1, 1))))
    )


def residual(mode: Any) -> Chain:
    """Padding inside, of a value that is not the picture, beside the picture itself."""
    first, second = Conv(w(4, 3, 3, 3), w(4) / 9, activation=RELU), Conv(w(3, 4, 3, 2), w(3) / 9)
    inside = Chain((pad(1, mode), first, Pad(((2, 0), (0, 1)), mode), second))
    return Chain((SkipConnection(inside, Connection("add")), Activation("clamp")))


def wide(mode: Any) -> Chain:
    """More weights than are written out, so that they become a loop; dilated."""
    return Chain(
        (
            pad(5, mode),
            Conv(w(10, 3, 3, 3), w(10) / 9, activation=Activation("leakyrelu", (0.2,))),
            Conv(w(10, 10, 3, 3), w(10) / 9, dilation=(4, 4), activation=RELU),
            Conv(w(3, 10, 1, 1), w(3) / 9, activation=Activation("sigmoid")),
        )
    )


def grouped(mode: Any) -> Chain:
    largest = Chain((pad(1, mode), MaxPool((3, 3), (1, 1))))
    mean = Chain((Pad(((2, 2), (1, 1)), mode), MeanPool((5, 3), (1, 1))))
    own = Chain((pad(2, mode), Conv(w(3, 1, 5, 5), groups=3), Scale(w(3, 1, 1), w(3, 1, 1))))
    return Chain((Parallel(Connection("maximum"), (largest, mean, own)),))


def deep(mode: Any) -> Chain:
    """Padded before each layer: computed in pieces, the last of them larger than a tile."""
    layers = [
        layer
        for d in (1, 3)
        for layer in (pad(d, mode), Conv(w(8, 3 if d == 1 else 8, 3, 3), dilation=(d, d), activation=RELU))
    ]
    return Chain((*layers, Conv(w(3, 8, 1, 1))))


FILTERS = {"deep": deep, "star": star, "residual": residual, "wide": wide, "grouped": grouped}
KINDS = [
    ("star", "replicate", 255),
    ("star", "zero", None),
    ("residual", "reflect", 255),
    ("residual", "wrap", None),
    ("wide", "reflect", None),
    ("wide", "replicate", 65535),
    ("grouped", "zero", 255),
    ("deep", "reflect", 255),
]
DTYPES: dict[int | None, Any] = {255: np.uint8, 65535: np.uint16, None: np.float32}


@cache
def ready(name: str, mode: str, peak: int | None) -> Filter:
    made = tiled.compile(Model(FILTERS[name](mode), input_shape=(3, None, None)), "halide", peak=peak)
    assert isinstance(made, Filter)
    return made


def picture(height: int, width: int, peak: int | None) -> Array:
    random = np.random.default_rng([height, width])
    if peak is None:
        return random.random((height, width, 3), np.float32)
    return random.integers(0, peak + 1, (height, width, 3)).astype(DTYPES[peak])


def of(image: Array, filtered: Any, region: Region) -> Array:
    """The region, from no more of the picture than it needs."""
    size = image.shape[:2]
    needed = region.grown(filtered.prepared.halo)
    if not filtered.prepared.wraps:
        needed = needed.clipped(size)
    rows, columns = np.arange(needed.top, needed.bottom), np.arange(needed.left, needed.right)
    block = image[rows[:, None] % size[0], columns % size[1]]
    result: Array = filtered(block, (needed.top, needed.left), size, region)
    return result


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode", "peak"), KINDS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_part_is_the_same_bits_as_in_the_whole(name: str, mode: str, peak: int | None, data: Any) -> None:
    filtered = ready(name, mode, peak)
    height, width = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    image = picture(height, width, peak)
    with mock.patch.object(extending, "COPIED", 0):  # as in a large picture
        whole = of(image, filtered, Region(0, 0, height, width))
    part = of(image, filtered, Region(top, left, bottom, right))
    assert whole.shape == (height, width, whole.shape[2])
    assert whole.dtype == image.dtype
    assert of(image, filtered, Region(0, 0, height, width)).tobytes() == whole.tobytes()
    assert part.tobytes() == whole[top:bottom, left:right].tobytes()


@pytest.mark.parametrize(("name", "mode", "peak"), KINDS)
def test_levels_are_those_of_the_reference(name: str, mode: str, peak: int | None) -> None:
    """The same but where a value lies between two levels as closely as float32 can tell."""
    filtered = ready(name, mode, peak)
    model = Model(FILTERS[name](mode), input_shape=(3, None, None))
    reference = tiled.compile(model, "numpy", peak=peak)
    differing, total = 0, 0
    for size in ((120, 90), (2, 3), (1, 1), (5, 64)):
        image = picture(*size, peak)
        region = Region(0, 0, *size)
        actual, expected = (of(image, f, region).astype(np.float64) for f in (filtered, reference))
        if peak is None:
            assert np.abs(actual - expected).max() < 1e-5
        else:
            assert np.abs(actual - expected).max() <= 1
            differing, total = differing + np.count_nonzero(actual != expected), total + actual.size
    assert differing <= total * (0.0005 if peak == 255 else 0.05)


def test_equal_neighbourhoods_give_equal_pixels() -> None:
    """However far into the picture, and however far into a vector: the filter has one way to add."""
    tile = picture(16, 17, None)
    filtered = ready("wide", "wrap", None)
    image = np.tile(tile, (6, 11, 1))
    whole = of(image, filtered, Region(0, 0, *image.shape[:2]))
    assert whole.tobytes() == np.tile(whole[:16, :17], (6, 11, 1)).tobytes()


def test_far_down_a_picture_of_gigabytes() -> None:
    """Rows counted from the top would not fit in 32 bits of bytes: 3 bytes a pixel, 2,000,000 x 4000 pixels."""
    filtered = ready("residual", "reflect", 255)
    rows, size = picture(60, 4000, 255), (2_000_040, 4000)
    actual = filtered(rows[20:], (2_000_000, 0), size, Region(2_000_010, 7, size[0], 3990))
    expected = filtered(rows, (0, 0), (60, 4000), Region(30, 7, 60, 3990))
    assert actual.tobytes() == expected.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_sees_a_value_that_is_not_finite_is_nan(value: float) -> None:
    """As the reference has it for NaN, and the same for each part of the picture."""
    filtered = ready("star", "zero", None)
    image, holes = picture(50, 70, None), picture(50, 70, None)
    holes[[0, 20, 21, 49], [69, 30, 30, 0], [0, 1, 2, 2]] = value
    whole, actual = (of(i, filtered, Region(0, 0, 50, 70)) for i in (image, holes))
    seen = np.zeros((50, 70, 1), bool)
    seen[:2, 68:], seen[19:23, 29:32], seen[48:, :2] = True, True, True
    assert np.array_equal(np.isnan(actual), seen)
    assert actual[~seen].tobytes() == whole[~seen].tobytes()
    part = of(holes, filtered, Region(10, 31, 50, 70))
    assert part.tobytes() == np.ascontiguousarray(actual[10:, 31:]).tobytes()
    reference = tiled.compile(Model(star("zero"), input_shape=(3, None, None)), "numpy", peak=None)
    holes[np.isinf(holes)] = np.nan
    assert np.array_equal(np.isnan(of(holes, reference, Region(0, 0, 50, 70))), seen)


# ---- Exact filters -------------------------------------------------------------------------------------


def sobel_l1() -> Chain:
    """|gx| + |gy| of the luma, in thousandths of a level, an eighth of it."""
    sobel = np.float32([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    luma, slopes = Conv(np.float32([299, 587, 114]).reshape(1, 3, 1, 1)), np.stack([sobel, sobel.T])[:, None]
    total = Conv(np.ones((1, 2, 1, 1), np.float32))
    return Chain((pad(1, "replicate"), luma, Conv(slopes), Activation("abs"), total, *kernels.clipped(8000)))


def linear(kernel: Any) -> Chain:
    taps = np.einsum("oc,yx->ocyx", np.eye(3), np.array(kernel, np.float64))
    return kernels.layers(taps, np.zeros(3), "replicate")


def divided(*divisors: int) -> Chain:
    """Multiples of 1/2, a sum of three channels in each of the three: every second one lies between levels."""
    sums = [Conv(np.float32([1, 3, n // 2 - 3]).reshape(1, 3, 1, 1)) for n in divisors]
    branches = [Chain((one, *kernels.clipped(n))) for one, n in zip(sums, divisors, strict=True)]
    return Chain((Parallel(Connection("concatenate"), tuple(branches)),))


def curve(table: Any) -> Chain:
    """A table of 256 levels on a grey picture, as a sum of steps."""
    steps = np.flatnonzero(np.diff(table))
    inside = Conv(np.ones((len(steps), 1, 1, 1), np.float32), -(steps / 255).astype(np.float32))
    heights = np.diff(table)[steps].astype(np.float32).reshape(1, -1, 1, 1)
    return Chain((inside, Activation("clamp", (0.0, 1 / 255)), Conv(heights)))


THREE_BY_FOUR = np.pad(np.ones((3, 4)) / 12, ((1, 1), (0, 1)))
EXACT: dict[str, Any] = {
    "sobel_l1": sobel_l1,
    "box": lambda: linear(np.ones((3, 3)) / 9),
    "3 x 4": lambda: linear(THREE_BY_FOUR),
    "sharpen": lambda: linear([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
    "divided": lambda: divided(12, 20, 36),
    "divided by more": lambda: divided(100, 1000, 4000),
    "threshold": lambda: curve(255 * (np.arange(256) > 127)),
    "posterise": lambda: curve(np.rint(np.arange(256) // 4 * 255 / 63)),
    "median": lambda: ranks.median(1, "replicate"),
    "erosion": lambda: Chain((pad(1, "replicate"), ranks.NEGATED, MaxPool((3, 3), (1, 1)), ranks.NEGATED)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(EXACT))
def test_what_is_exact_is_so_here_too(name: str) -> None:
    """To the last level, values between two levels included; grey photographs have the most of them."""
    channels = 1 if name in ("threshold", "posterise", "median") else 3
    model = Model(EXACT[name](), input_shape=(channels, None, None))
    filtered, reference = (tiled.compile(model, engine, peak=255) for engine in ("halide", "numpy"))
    grey, colour = np.repeat(photograph("camera")[..., None], 3, axis=2), photograph("chelsea")
    for image in (grey[..., :channels], colour[..., :channels]):
        region = Region(0, 0, *image.shape[:2])
        actual, expected = of(image, filtered, region), of(image, reference, region)
        assert actual.tobytes() == expected.tobytes()
