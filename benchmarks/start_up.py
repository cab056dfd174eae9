"""Claim: `diptych --help` takes at most 1.5 times as long as importing typer and rich alone.

python benchmarks/start_up.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

GOAL = 1.5
COMMANDS = {
    "import typer, rich": [sys.executable, "-c", "import typer, rich"],
    "diptych --help": [sys.executable, "-m", "diptych", "--help"],
    "import diptych": [sys.executable, "-c", "import diptych"],
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, command in COMMANDS.items():
            once = seconds(command)
            if number:  # the first round warms the disk's cache
                taken[name].append(once)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    for name, median in medians.items():
        print(f"{name:20s} {1e3 * median:6.0f} ms   (median of {rounds})")
    ratio = medians["diptych --help"] / medians["import typer, rich"]
    print(f"ratio {ratio:.2f}   (goal: at most {GOAL})")
    return int(ratio > GOAL)


if __name__ == "__main__":
    sys.exit(main())
