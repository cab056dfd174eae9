"""Networks of torchvision and timm: how fast they are read, and how fast `auto` runs them against torch eager.

    python benchmarks/foreign_speed.py            # in the environment of benchmarks/foreign_networks.py

- Reading: seconds for `from_torch` of ResNet-50, and the most memory above what was there before, as a multiple of its
  weights; in a process of its own, after the same for ResNet-18, so that libraries are loaded.
- Running: both sides compute the same batches from the same weights, in turns, on equal threads; the ratio is that of
  the medians. The goals are 1.2 times torch eager for ResNet-18, and 2 times for MobileNetV2 and EfficientNet-lite0.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch

import diptych
from diptych import engines

THREADS = 2
GOALS = {"torchvision resnet18": 1.2, "torchvision mobilenet_v2": 2.0, "timm efficientnet_lite0": 2.0}
TURNS = {1: 40, 16: 7}

READING = """
import resource, time, torch, torchvision, diptych
example = torch.rand(1, 3, 224, 224)
diptych.from_torch(torchvision.models.resnet18().eval(), example)
module = torchvision.models.resnet50().eval()
weights = sum(p.numel() * 4 for p in module.parameters())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
begun = time.perf_counter()
diptych.from_torch(module, example)
seconds = time.perf_counter() - begun
held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
print(f"from_torch of ResNet-50: {seconds:.1f} s (goal 3), {held / weights:.1f} times its weights in memory (goal 2.5)")
"""


def network(name: str) -> Any:
    package, _, wanted = name.partition(" ")
    torch.manual_seed(0)
    if package == "timm":
        import timm

        return timm.create_model(wanted).eval()
    import torchvision

    return getattr(torchvision.models, wanted)().eval()


def main() -> int:
    subprocess.run([sys.executable, "-c", READING], check=True)
    torch.set_num_threads(THREADS)
    reached = True
    for name, goal in GOALS.items():
        module = network(name)
        model = diptych.from_torch(module, torch.rand(1, 3, 224, 224))
        compiled = engines.compile(model)
        for size, turns in TURNS.items():
            batch = np.random.default_rng(0).random((size, 3, 224, 224), dtype=np.float32)
            tensor = torch.from_numpy(batch)
            times: tuple[list[float], list[float]] = ([], [])
            with torch.inference_mode():
                expected = module(tensor).numpy()
                farthest = np.abs(compiled(batch) - expected).max() / np.abs(expected).max()
                for _ in range(turns):
                    for which, run in enumerate((lambda: compiled(batch), lambda: module(tensor))):  # noqa: B023
                        begun = time.perf_counter()
                        run()
                        times[which].append(time.perf_counter() - begun)
            ours, theirs = map(statistics.median, times)
            reached &= theirs / ours >= goal
            print(f"{name}, batch {size:2}: {compiled.engine} {1000 * ours:7.1f} ms, torch eager "
                  f"{1000 * theirs:7.1f} ms, {theirs / ours:.2f} times (goal {goal:g}); outputs differ by "
                  f"{farthest:.0e} of the largest", flush=True)  # fmt: skip
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
