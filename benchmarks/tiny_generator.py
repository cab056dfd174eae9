"""Seconds for a picture by the tiny generator, 8 steps with guidance on two threads, and for the painter beside it.

The goal is one second a picture, import and loading apart; these are printed too, from a fresh interpreter.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import torch

import diptych

GOAL = 1.0
PROMPT = "a red sun on the left over the sea at sunset with a white boat on the right"
TURNS = 9

COLD = f"""
import time; start = time.perf_counter()
import diffusers, transformers, diptych
from diffusers import AutoPipelineForText2Image
imported = time.perf_counter()
diptych.generate({PROMPT!r}, 1, generator="tiny")
print(imported - start, time.perf_counter() - imported)
"""


def main() -> int:
    torch.set_num_threads(2)
    imports, first = map(float, subprocess.check_output([sys.executable, "-c", COLD], text=True).split())
    times: dict[str, list[float]] = {"tiny": [], "scenes": []}
    for turn in range(TURNS):
        for generator, found in times.items():
            began = time.perf_counter()
            diptych.generate(PROMPT, 2, turn, generator=generator, width=256, height=256)
            middle = time.perf_counter()
            diptych.generate(PROMPT, 10, turn, generator=generator, width=256, height=256)
            # Ten pictures less two are eight, without what comes before the first.
            found.append((time.perf_counter() - middle - (middle - began)) / 8)
    tiny, scenes = (statistics.median(found) for found in times.values())
    print(f"tiny {tiny:.3f} s a picture (goal {GOAL:g}), the painter {scenes:.3f} s")
    print(
        f"in a fresh interpreter: {imports:.1f} s of imports, {first:.1f} s to load and draw the first picture"
    )
    return 0 if tiny <= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
