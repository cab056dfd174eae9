"""Claims: a linear filter is learned in under a second, Sobel's magnitude with 48 weights in at most ten.

python benchmarks/filter_learning.py [--rounds 3]

Each in a fresh process; "first" includes importing what learning needs, "second" does not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

# (target, weights, goal in seconds)
CASES = [
    ("gaussian", None, 1.0),
    ("box", None, 1.0),
    ("sharpen", None, 1.0),
    ("sobel_x", None, 1.0),
    ("sobel", 48, 10.0),
]
CODE = """
import json, sys, time
from diptych import filters
target, weights = json.loads(sys.argv[1])
taken = []
for _ in range(2):
    clock, processor = time.monotonic(), time.process_time()
    report = filters.learn(target, weights=weights).report
    taken += [time.monotonic() - clock, time.process_time() - processor]
print(json.dumps([*taken, report.psnr]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print("seconds of learn(), by the clock and of the processors; medians")
    print(f"{'':16s} {'first':>14s} {'second':>14s}   {'goal':>5s}")
    slow = False
    for target, weights, goal in CASES:
        runs = [_run(target, weights) for _ in range(rounds)]
        first, first_cpu, second, second_cpu, psnr = (
            statistics.median(run[i] for run in runs) for i in range(5)
        )
        slow |= second > goal
        name = target if weights is None else f"{target}, {weights}"
        print(
            f"{name:16s} {first:6.2f} {first_cpu:7.2f} {second:6.2f} {second_cpu:7.2f}   {goal:5.1f}"
            f"   {psnr:.1f} dB"
        )
    return int(slow)


def _run(target: str, weights: int | None) -> list[float]:
    command = [sys.executable, "-c", CODE, json.dumps([target, weights])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    taken: list[float] = json.loads(done.stdout)
    return taken


if __name__ == "__main__":
    sys.exit(main())
