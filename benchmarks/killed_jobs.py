"""Claim: a job that is killed at any moment goes on, and nothing is lost, torn, or made twice beyond the part at hand.

A job over pictures is killed again and again (`kill -9`, the whole command or one of its processes, after a random
time), until it has been killed often enough; then it may finish. After every kill each part in the folder is read and
checked, and compared with what it was after the kill before. At the end the table is compared, byte for byte, with that
of a job that nobody has killed.

    python benchmarks/killed_jobs.py [--kills 200] [--on local|ray] [--pictures 2000] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from many_pictures import make_pictures

from diptych.batch.shards import check
from diptych.files import sha256

WORKERS, SHARD = 2, 25


def command(pictures: Path, out: Path, on: str) -> list[str]:
    return [sys.executable, "-m", "diptych", "predict", "scenes", str(pictures), "--out", str(out), "--quiet",
            "--workers", str(WORKERS), "--shard-size", str(SHARD), "--on", on]  # fmt: skip


def run_by(pid: int) -> list[int]:
    """The processes that compute for a command: those that it started, and those that they did."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(maxsplit=2) for line in listing.stdout.splitlines()]
    found, frontier = [], {pid}
    while frontier:
        inner = [
            (int(a), text) for a, b, text in (row for row in rows if len(row) == 3) if int(b) in frontier
        ]
        found += [a for a, text in inner if "batch.worker" in text or "ray::_make" in text]
        frontier = {a for a, _ in inner}
    return found


def state(out: Path, plan: str) -> dict[str, str]:
    """The parts that are finished, with their hashes; stops where one is torn."""
    found = {}
    for path in sorted(out.glob("part-*.parquet")):
        if check(path, plan, int(path.stem[5:])) is None:
            raise SystemExit(f"TORN: {path}")
        found[path.name] = f"{sha256(path)} {path.stat().st_mtime_ns}"
    return found


def plan_of(out: Path) -> str:
    import json

    try:
        return str(json.loads((out / "manifest.json").read_text())["id"])
    except FileNotFoundError:
        return ""


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a command with everything that it started, as the end of a machine would."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--on", choices=("local", "ray"), default="local")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        pictures, whole, out = place / "pictures", place / "whole", place / "out"
        make_pictures(pictures, given.pictures, (400, 300))
        begun = time.perf_counter()
        subprocess.run(command(pictures, whole, "local"), check=True)
        seconds = time.perf_counter() - begun
        kills = commands = workers = again = lost = jobs = 0
        while kills < given.kills:
            jobs += 1
            before: dict[str, str] = {}
            while True:
                commands += 1
                process = subprocess.Popen(command(pictures, out, given.on), start_new_session=True)
                until = time.perf_counter() + chance.uniform(0, seconds + (12 if given.on == "ray" else 0))
                while process.poll() is None and time.perf_counter() < until:
                    time.sleep(0.01)
                if process.poll() is None and kills < given.kills:
                    kills += 1
                    computing = run_by(process.pid)
                    if (
                        computing and chance.random() < 0.4
                    ):  # one of its processes: the command goes on by itself
                        with suppress(ProcessLookupError):  # it has ended meanwhile
                            os.kill(chance.choice(computing), signal.SIGKILL)
                        workers += 1
                    elif chance.random() < 0.5:  # the command alone: its processes must end by themselves
                        process.kill()
                    else:
                        end(process)
                status = process.wait()
                now = state(out, plan_of(out)) if out.exists() else {}
                lost += sum(name not in now for name in before)
                again += sum(name in now and now[name] != before[name] for name in before)
                before = now
                if status == 0:
                    break
                if status > 0:
                    raise SystemExit(f"the command ended with {status}")
            names = sorted(path.name for path in out.iterdir())
            if names != sorted(path.name for path in whole.iterdir()):
                raise SystemExit(f"LEFT OVER: {names}")
            for path in sorted(whole.glob("part-*")):
                if path.read_bytes() != (out / path.name).read_bytes():
                    raise SystemExit(f"DIFFERENT: {path.name}")
            for path in out.iterdir():
                path.unlink()
    print(f"{given.on}: {kills} kills ({workers} of single processes) over {commands} commands and {jobs} jobs of "
          f"{given.pictures:,} pictures: parts lost {lost}, torn 0, made twice {again}; every table equal byte for "
          "byte to that of a job that was not killed")  # fmt: skip


if __name__ == "__main__":
    main()
