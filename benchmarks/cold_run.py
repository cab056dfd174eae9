"""Claim: a cold `diptych run` of three pictures, from prompt to report, takes at most 8 s and 1 GB.

    python benchmarks/cold_run.py [--rounds 5]

Each round is a new process and a new folder. `import matplotlib` alone is timed in the same rounds, as the
floor below which no run with plots can go.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

PROMPT = "a serene sunset over a futuristic city"
MOST_SECONDS, MOST_BYTES = 8.0, 1_000_000_000


def measured(command: list[str]) -> tuple[float, int]:
    """Seconds, and the peak resident size in bytes where the platform tells."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    if not hasattr(os, "wait4"):
        process.wait()
        return time.perf_counter() - start, 0
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with status {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, usage.ru_maxrss * unit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    runs, floors = [], []
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            run = measured([sys.executable, "-m", "diptych", "run", PROMPT, "--out", folder + "/out"])
        floor = measured([sys.executable, "-c", "import matplotlib.figure, numpy, PIL.Image"])[0]
        if number:  # the first round warms the disk's cache and matplotlib's list of fonts
            runs.append(run)
            floors.append(floor)
    seconds, floor = statistics.median(s for s, _ in runs), statistics.median(floors)
    most = max(size for _, size in runs)
    print(f"diptych run, three pictures   {seconds:5.2f} s   peak {most / 1e6:.0f} MB   (median of {rounds})")
    print(f"import matplotlib, numpy, PIL {floor:5.2f} s   ratio {seconds / floor:.1f}")
    print(f"goal: at most {MOST_SECONDS:.0f} s and {MOST_BYTES / 1e6:.0f} MB on two quiet cores")
    return int(seconds > MOST_SECONDS or most > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
