"""A learned Sobel on a 12-megapixel picture: the fused engine against what else there is, in one process.

The 48-weight network (1x1 3 -> 1, 3x3 1 -> 2, 1x1 2 -> 9, ReLU, 1x1 9 -> 1) and the three-convolution network of
the Img2Img project. All run on two threads, in turns, so that a busy moment of the machine meets each; the
ratios are those of the medians. Beside the times stand two floors measured on this machine: a kernel that does
nothing but fused multiply-adds, and a copy of as many bytes as the picture and the result have.

Exit status 1 where a goal of the table GOALS is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

THREADS = 2
os.environ["HL_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(THREADS)

import cv2  # noqa: E402 - the numbers of threads above are read on import
import halide as hl  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from diptych import engines  # noqa: E402
from diptych.engines import tiled  # noqa: E402
from diptych.engines.tiled import Region  # noqa: E402
from diptych.model.layers import Activation, Array, Chain, Conv, Pad  # noqa: E402
from diptych.model.model import Model  # noqa: E402

HEIGHT, WIDTH = 3000, 4000
GOALS = {"torch eager": 10.0, "onnxruntime": 5.0, "openvino, static": 2.0, "OpenCV filter2D chain": 2.0}
IMITATED = "OpenCV Sobel, uint8"
RELU = Activation("relu")

Run = Callable[[], object]


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    options.add_argument("--turns", type=int, default=9)
    options.add_argument("--height", type=int, default=HEIGHT)
    options.add_argument("--width", type=int, default=WIDTH)
    given = options.parse_args()
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(THREADS)
    image = picture(given.height, given.width)
    reached = True
    for model, others in ((star(), {IMITATED: lambda: opencv_sobel(image)}), (img2img(), {})):
        reached &= table(model, image, others, given.turns)
    return 0 if reached else 1


def picture(height: int, width: int) -> Array:
    """Smooth shapes and noise: the times do not depend on what is seen."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 50 + 1, width // 50 + 1, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


# ---- The two networks ----------------------------------------------------------------------------------


def star() -> Model:
    """Sobel's magnitude, its circle replaced by nine directions an equal angle apart."""
    angles = 2 * np.pi * np.arange(9) / 9
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    layers = (
        Pad(((1, 1), (1, 1)), "replicate"),
        Conv(weights([0.299, 0.587, 0.114], 1, 3, 1, 1)),
        Conv(weights([sobel, sobel.T], 2, 1, 3, 3)),
        Conv(weights(directions, 9, 2, 1, 1), activation=RELU),
        Conv(np.full((1, 9, 1, 1), np.pi / 9 / np.sqrt(2), np.float32)),
    )
    return Model(Chain(layers), input_shape=(3, None, None), name="48 weights, star of nine")


def img2img() -> Model:
    """3 -> 1 -> 1 -> 1 channels, 3x3 each, with biases: 48 parameters."""
    random = np.random.default_rng(1)

    def conv(inputs: int, activation: Activation) -> Conv:
        kernel = (random.standard_normal((1, inputs, 3, 3)) / 3).astype(np.float32)
        return Conv(kernel, np.float32([0.05]), activation=activation)

    layers = (Pad(((3, 3), (3, 3)), "replicate"), conv(3, RELU), conv(1, RELU), conv(1, Activation()))
    return Model(Chain(layers), input_shape=(3, None, None), name="48 parameters, 3 -> 1 -> 1 -> 1")


def weights(values: object, *shape: int) -> Array:
    return np.array(values, np.float32).reshape(shape)


# ---- Ways to run them ----------------------------------------------------------------------------------


def table(model: Model, image: Array, others: dict[str, Run], turns: int) -> bool:
    """Prints one network's table; whether it reaches the goals."""
    height, width, _ = image.shape
    pixels = height * width
    start = time.perf_counter()
    fused = tiled.compile(model, "halide", peak=255)
    fused(image[:64, :64], (0, 0), (64, 64), Region(0, 0, 64, 64))
    compiling = time.perf_counter() - start

    def halide() -> Array:
        return fused(image, (0, 0), (height, width), Region(0, 0, height, width))

    batch = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
    ways: dict[str, Run] = {"halide": halide, "torch eager": eager(model, batch)}
    for engine, label in (("onnxruntime", "onnxruntime"), ("openvino", "openvino, static")):
        compiled = engines.compile(model, engine)
        ways[label] = lambda compiled=compiled: compiled(batch)
    ways["OpenCV filter2D chain"] = lambda: filter2d_chain(model, batch)
    ways |= others
    check(model, halide(), batch)
    floors = {
        "only as many FMA": fma_floor(multiplications(model), pixels),
        "only 4 bytes a pixel": copying(pixels),
    }
    times = in_turns(ways | floors, turns)
    print(f"\n{model.name}: {width} x {height}, {THREADS} threads, medians of {turns} turns")
    print(f"compiled in {compiling:.2f} s")
    return shown(times, pixels)


def shown(times: dict[str, list[float]], pixels: int) -> bool:
    ours = statistics.median(times["halide"])
    reached = True
    print(f"{'':24} {'median ms':>10} {'least ms':>9} {'Gpixel/s':>9} {'ratio':>7}  goal")
    for name, measured in times.items():
        median = statistics.median(measured)
        goal = GOALS.get(name, 1.0 if name == IMITATED else None)
        reached &= goal is None or median / ours >= goal
        said = "" if goal is None else f"{goal:g} {'reached' if median / ours >= goal else 'MISSED'}"
        speeds = f"{1000 * median:10.1f} {1000 * min(measured):9.1f} {pixels / median / 1e9:9.3f}"
        print(f"{name:24} {speeds} {median / ours:7.2f}  {said}")
    return reached


def in_turns(ways: dict[str, Run], turns: int) -> dict[str, list[float]]:
    """Seconds a call, one call of each way after the other."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def eager(model: Model, batch: Array) -> Run:
    """The network as one writes it in PyTorch."""
    nn = torch.nn
    made: list[torch.nn.Module] = []
    for layer in model.layers.layers:
        if isinstance(layer, Pad):
            made.append(nn.ReplicationPad2d(layer.padding[0][0]))
            continue
        assert isinstance(layer, Conv)
        outputs, inputs, *kernel = layer.weight.shape
        conv = nn.Conv2d(inputs, outputs, tuple(kernel), bias=layer.bias is not None)
        conv.weight.data = torch.from_numpy(layer.weight)
        if conv.bias is not None and layer.bias is not None:
            conv.bias.data = torch.from_numpy(layer.bias)
        made += [conv, nn.ReLU()] if layer.activation else [conv]
    module = nn.Sequential(*made).eval()

    def forward() -> object:
        with torch.inference_mode():
            return module(torch.from_numpy(batch))

    return forward


def filter2d_chain(model: Model, batch: Array) -> list[Array]:
    """The same network by OpenCV's own functions, in float32: a filter2D for each kernel, then sums."""
    planes = list(batch[0])
    for layer in model.layers.layers:
        if not isinstance(layer, Conv):
            continue  # filter2D replicates the border itself
        planes = [filtered(planes, kernels, layer.bias, o) for o, kernels in enumerate(layer.weight)]
        if layer.activation:
            planes = [cv2.max(plane, 0.0) for plane in planes]
    return planes


def filtered(planes: list[Array], kernels: Array, bias: Array | None, output: int) -> Array:
    total: Array | None = None
    for plane, kernel in zip(planes, kernels, strict=True):
        if kernel.size == 1:
            weight = float(kernel[0, 0])
            term = cv2.multiply(plane, weight) if total is None else cv2.scaleAdd(plane, weight, total)
            total = term
            continue
        one = cv2.filter2D(plane, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE)
        total = one if total is None else cv2.add(total, one)
    assert total is not None
    return total if bias is None else cv2.add(total, float(bias[output]))


def opencv_sobel(image: Array) -> Array:
    """What the network imitates, as OpenCV has it for uint8."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    result: Array = cv2.convertScaleAbs(cv2.magnitude(across, down), alpha=0.25 / np.sqrt(2))
    return result


def check(model: Model, result: Array, batch: Array) -> None:
    """All ways compute the same network, away from the border."""
    with_torch = eager(model, batch)()
    assert isinstance(with_torch, torch.Tensor)
    chain = filter2d_chain(model, batch)[0]
    for name, values in (("torch", with_torch.numpy()[0, 0]), ("filter2D", chain)):
        levels = np.clip(np.rint(255 * values), 0, 255)[8:-8, 8:-8]
        apart = np.abs(levels - result[8:-8, 8:-8, 0])
        assert apart.max() <= 1, f"{name} computes another network: {apart.max()} levels apart"


# ---- Floors --------------------------------------------------------------------------------------------


def multiplications(model: Model) -> int:
    """Weights other than 0: each is one multiply-add a pixel."""
    return sum(np.count_nonzero(layer.weight) for layer in model.layers.layers if isinstance(layer, Conv))


def fma_floor(count: int, pixels: int) -> Run:
    """`count` float32 multiply-adds a pixel in registers, 10 independent chains of vectors, on all threads."""
    lanes, chains, steps = hl.get_host_target().natural_vector_size(hl.Float(32)), 10, 2000
    lane, chain, job = hl.Var("lane"), hl.Var("chain"), hl.Var("job")
    factor = hl.Param(hl.Float(32), "factor", 0.999)
    run = hl.RDom([(0, steps)])
    sums, result = hl.Func("sums"), hl.Func("result")
    sums[lane, chain, job] = hl.cast(hl.Float(32), lane + chain + job)
    repeated = 0 * hl.cast(hl.Float(32), run.x)  # simplified away: it only says that the sum is a loop
    sums[lane, chain, job] = sums[lane, chain, job] * factor + hl.f32(1.0) + repeated
    result[lane, chain, job] = sums[lane, chain, job]
    result.bound(lane, 0, lanes).bound(chain, 0, chains).vectorize(lane).unroll(chain).parallel(job)
    sums.compute_at(result, job).vectorize(lane).unroll(chain)
    sums.update().reorder(lane, chain, run.x).vectorize(lane).unroll(chain)
    jobs = max(THREADS, round(count * pixels / (lanes * chains * steps)))
    made = result.compile_to_callable(list(hl.Pipeline(result).infer_arguments()))
    buffer = np.empty((jobs, chains, lanes), np.float32)
    return lambda: made(0.999, hl.Buffer(buffer))


def copying(pixels: int) -> Run:
    """A copy of 2 bytes a pixel, read and written: as many bytes as 3 read and 1 written."""
    source, target = np.ones((2, pixels), np.uint8), np.ones((2, pixels), np.uint8)
    x, y, inputs, copy = hl.Var("x"), hl.Var("y"), hl.ImageParam(hl.UInt(8), 2), hl.Func("copy")
    copy[x, y] = inputs[x, y]
    copy.vectorize(x, 32).parallel(y)
    made = copy.compile_to_callable(list(hl.Pipeline(copy).infer_arguments()))
    return lambda: made(hl.Buffer(source), hl.Buffer(target))


if __name__ == "__main__":
    sys.exit(main())
