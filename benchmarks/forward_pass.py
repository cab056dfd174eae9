"""The three-convolution network on 224 x 224: Diptych's `auto` engine against torch eager, in one process.

Both compute the same numbers from the same weights, in turns; the ratio is that of the medians. Diptych computes a
picture on one thread, and several side by side; PyTorch has two threads. The goals are 3 times torch eager at batch 1
and 5 times at batch 32. Prints the cold start too: importing the engine, making the graph and the first answer, in a
fresh interpreter.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from diptych import engines
from diptych.model import architectures
from diptych.model.layers import Array
from diptych.model.model import Model

THREADS = 2
GOALS = {1: (3.0, 60), 32: (5.0, 9)}  # batch: (ratio, turns)

COLD = """
import time; start = time.perf_counter()
import numpy
from diptych.model import architectures
model = architectures.named("three-conv-224")
batch = numpy.zeros((3, 1, 224, 224), numpy.float32)
ready = time.perf_counter()
from diptych import engines
compiled = engines.compile(model)
compiled(batch)
print(f"{1000 * (time.perf_counter() - ready):.0f} {compiled.engine}")
"""


def main() -> int:
    torch.set_num_threads(THREADS)
    model = architectures.named("three-conv-224")
    ours, theirs = engines.compile(model), eager(model)
    reached = True
    for size, (goal, turns) in GOALS.items():
        batch = np.random.default_rng(0).random((size, 1, 224, 224), dtype=np.float32)
        np.testing.assert_allclose(ours(batch), theirs(batch), rtol=1e-4, atol=1e-6)
        fast, slow = medians(lambda: ours(batch), lambda: theirs(batch), turns)  # noqa: B023 - called at once
        reached &= slow / fast >= goal
        print(
            f"batch {size:2}: {ours.engine} {1000 * fast:7.2f} ms, torch eager {1000 * slow:7.2f} ms, "
            f"{slow / fast:.1f} times (goal {goal:g})"
        )
    times = [cold_start() for _ in range(5)]
    print(f"cold start of {times[0][1]}: {statistics.median(t for t, _ in times):.0f} ms")
    return 0 if reached else 1


def eager(model: Model) -> Callable[[Array], Array]:
    """The network as one writes it in PyTorch, with the weights of `model`."""
    nn = torch.nn
    module = nn.Sequential(
        *(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(43264, 128), nn.ReLU(), nn.Linear(128, 10), nn.Softmax(1)),
    ).eval()
    with torch.no_grad():
        for parameter, weight in zip(module.parameters(), model.weights().values(), strict=True):
            parameter.copy_(torch.from_numpy(weight))

    def forward(batch: Array) -> Array:
        with torch.inference_mode():
            result: Array = module(torch.from_numpy(batch)).numpy()
        return result

    return forward


def medians(first: Callable[[], object], second: Callable[[], object], turns: int) -> tuple[float, float]:
    """Seconds a call, the two in turns so that a busy moment of the machine meets both."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + 2):
        for function, measured in zip((first, second), times, strict=True):
            start = time.perf_counter()
            function()
            if turn > 1:
                measured.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def cold_start() -> tuple[float, str]:
    """Milliseconds to the first answer for three pictures, and the engine, in a fresh interpreter."""
    words = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, check=True).stdout
    milliseconds, engine = words.split()
    return float(milliseconds), engine


if __name__ == "__main__":
    sys.exit(main())
