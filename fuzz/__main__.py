"""Fuzzes the readers: `python -m fuzz [--seconds N] [--seed N] [TARGET ...]`.

Each target runs in a process of its own, two at a time. For each it prints how many inputs were read and refused, and
what must not be: an exception that is not a `DiptychError`, a message that is not one line, a warning, more than 5
seconds of the processor's time, 512 MiB more than any good file takes, or a crash. The inputs of faults are kept in
fuzz/found/; the exit status is then 1.

`python -m fuzz --input FILE TARGET` reads one such file again and shows the traceback.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from json import dumps, loads
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fuzz import running
from fuzz.targets import TARGETS


def main() -> int:
    """Runs what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzzes the readers.")
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default"
    )
    parser.add_argument("--seconds", type=float, default=60, help="for each target; 60 by default")
    parser.add_argument("--seed", type=int, help="of the damage; a new one each time by default")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--input", type=Path, help="read this one file with the one target")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    unknown = [name for name in given.targets if name not in TARGETS]
    if unknown or (given.input and len(given.targets) != 1):
        parser.error(f"there is no target {unknown[0]}" if unknown else "--input needs one target")
    names = given.targets or list(TARGETS)
    seed = running.new_seed() if given.seed is None else given.seed
    if given.input:
        return _one(names[0], given.input)
    if given.folder:
        running.limit_memory()
        print(dumps(asdict(running.fuzz(TARGETS[names[0]], given.seconds, seed, given.folder))))
        return 0
    print(f"seed {seed}")
    print(f"{'target':18}{'runs':>8}{'read':>8}{'refused':>9}{'a second':>10}{'faults':>8}", flush=True)
    with ThreadPoolExecutor(given.processes) as pool:
        faults = sum(pool.map(lambda name: _apart(name, given.seconds, seed), names))
    return 1 if faults else 0


def _apart(name: str, seconds: float, seed: int) -> int:
    """Fuzzes a target in a process of its own, prints what came of it, and returns the number of faults."""
    # In memory, where there is such a place: what is written is flushed to the disk, which takes long.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with TemporaryDirectory(dir=memory) as folder:
        options = f"--seconds {seconds} --seed {seed} --in".split()
        command = [sys.executable, "-m", "fuzz", name, *options, folder]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, errors="replace"
        )
        try:
            count: dict[str, Any] = loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            last = Path(folder, f"input{TARGETS[name].suffix}")
            kept = running.keep(TARGETS[name], last.read_bytes()) if last.exists() else "no input"
            print(
                f"{name:18}ended with the status {done.returncode}: {kept}\n{done.stderr[-3000:]}", flush=True
            )
            return 1
    rate = count["runs"] / max(count["seconds"], 1e-9)
    line = (
        f"{name:18}{count['runs']:8}{count['read']:8}{count['refused']:9}{rate:10.0f}{len(count['faults']):8}"
    )
    lines = [line]
    for fault in count["faults"]:
        lines.append(f"  {fault['what']}")
        if fault["path"]:
            lines.append(f"    python -m fuzz --input {fault['path']} {name}")
    print("\n".join(lines), flush=True)
    return len(count["faults"])


def _one(name: str, path: Path) -> int:
    with TemporaryDirectory() as folder, running.limited():
        copy = Path(folder, f"input{TARGETS[name].suffix}")
        copy.write_bytes(path.read_bytes())
        read, said, fault = running.attempt(TARGETS[name], copy)
    print(fault.trace or fault.what if fault else f"{'read' if read else 'refused'}: {said}")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
