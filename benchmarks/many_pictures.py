"""Claims: `diptych predict MODEL FOLDER --out TABLE` is as fast as a hand-written loop, in bounded memory, and on Ray.

- Speed: 5,000 JPEG photographs of 500 x 375 pixels, as those of ImageNet have on average, against two processes that
  each run Pillow and ONNX Runtime and keep every output in memory. The ratio is of best times, above 1 where Diptych
  is faster. Both include start-up, which for Diptych is that of two new processes.
- Ray: the same job on a Ray cluster of two processors that is started for it, against the same job in two local
  processes, start-up taken off: each side runs on half of the pictures and on all, and the difference counts.
- Memory: 100,000 pictures of 64 x 64 pixels; the largest sum of what all processes of the command hold (Pss, which
  counts a page that two share once), above that of the same command on 10 pictures.

    python benchmarks/many_pictures.py [--pictures 5000] [--size 500 375] [--small 100000] [--rounds 3]
                                       [--only speed|ray|memory]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

import diptych
from diptych.datasets.photographs import photographs

WORKERS = 2


def make_pictures(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Different parts of scikit-image's photographs, as JPEG files."""
    folder.mkdir()
    sources = [Image.fromarray(p).convert("RGB") for p in photographs().values()]
    rng = np.random.default_rng(0)
    for index in range(count):
        source = sources[index % len(sources)]
        wide, high = rng.uniform(0.5, 1, 2)
        across, down = int(wide * source.width), int(high * source.height)
        left, top = rng.integers(0, source.width - across + 1), rng.integers(0, source.height - down + 1)
        part = source.resize(size, Image.Resampling.BILINEAR, (left, top, left + across, top + down))
        part.save(folder / f"{index:06}.jpg", quality=90)


# ---- What somebody would write ----------------------------------------------------------------------------

_session = None


def start(model: str) -> None:
    global _session  # noqa: PLW0603 - of the process
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    _session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def by_hand(paths: list[str]) -> list[np.ndarray]:
    items = []
    for path in paths:
        picture = Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
        items.append(np.asarray(picture, np.float32).transpose(2, 0, 1) / np.float32(255))
    return list(_session.run(None, {_session.get_inputs()[0].name: np.stack(items)})[0])


def hand_written(folder: Path, model: str) -> np.ndarray:
    paths = sorted(str(path) for path in folder.iterdir())
    chunks = [paths[i : i + 64] for i in range(0, len(paths), 64)]
    with ProcessPoolExecutor(WORKERS, initializer=start, initargs=(model,)) as pool:
        return np.concatenate([np.stack(part) for part in pool.map(by_hand, chunks)])


# ---- Measuring --------------------------------------------------------------------------------------------


def job(folder: Path, out: Path, on: str = "local") -> float:
    shutil.rmtree(out, ignore_errors=True)
    begun = time.perf_counter()
    done = diptych.predict("scenes", str(folder), out=out, on=on, workers=WORKERS)
    seconds = time.perf_counter() - begun
    if done.failed or done.rows != len(list(folder.iterdir())):
        raise SystemExit("not all pictures were predicted")
    return seconds


def best(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def speed(place: Path, count: int, rounds: int) -> None:
    folder, out = place / "photographs", place / "table"
    model = str(place / "scenes.onnx")
    diptych.convert("scenes", model)
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(best(lambda: hand_written(folder, model), 1))
        ours.append(job(folder, out))
    column = diptych.predict("scenes", str(folder), out=out).table().column("probability").to_numpy()
    farthest = float(np.abs(hand_written(folder, model).max(axis=1) - column).max())
    print(f"{count:,} photographs: by hand {min(theirs):.1f} s, Diptych {min(ours):.1f} s, "
          f"ratio {min(theirs) / min(ours):.2f}; probabilities differ by at most {farthest:.1e}")  # fmt: skip


def ray(place: Path, rounds: int) -> None:
    folder, half, out = place / "photographs", place / "half", place / "table"
    half.mkdir()
    for path in sorted(folder.iterdir())[::2]:
        (half / path.name).hardlink_to(path)
    times = {}
    for on in ("local", "ray"):
        for name, pictures in (("half", half), ("all", folder)):
            times[on, name] = min(job(pictures, out, on) for _ in range(rounds))
    work = {on: times[on, "all"] - times[on, "half"] for on in ("local", "ray")}
    start_up = {on: 2 * times[on, "half"] - times[on, "all"] for on in ("local", "ray")}
    print(f"Ray: start-up {start_up['ray']:.1f} s (local {start_up['local']:.1f} s); half of the pictures take "
          f"{work['ray']:.1f} s (local {work['local']:.1f} s), ratio {work['local'] / work['ray']:.2f}")  # fmt: skip


def memory(place: Path, count: int) -> None:
    few, many, out = place / "few", place / "many", place / "table"
    make_pictures(few, 10, (64, 64))
    begun = time.perf_counter()
    make_pictures(many, count, (64, 64))
    print(f"{count:,} small pictures made in {time.perf_counter() - begun:.0f} s")
    held = {folder: peak(folder, out) for folder in (few, many)}
    (least, _), (most, seconds) = held[few], held[many]
    print(f"{count:,} pictures of 64 x 64 pixels: {seconds:.0f} s, {count / seconds:,.0f} a second; at most "
          f"{most / 2**20:.0f} MiB in all processes, {(most - least) / 2**20:.0f} MiB above 10 pictures")  # fmt: skip


def peak(folder: Path, out: Path) -> tuple[int, float]:
    """The largest sum of the memory of the command and its processes, in bytes, and the seconds it took."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "diptych", "predict", "scenes", str(folder), "--out", str(out), "--quiet",
               "--workers", str(WORKERS)]  # fmt: skip
    begun, most = time.perf_counter(), 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            most = max(most, held(process.pid))
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"the command ended with {process.returncode}")
    return most, time.perf_counter() - begun


def held(pid: int) -> int:
    """The proportional set size of a process and of those that it started."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        threads = [Path(f"/proc/{pid}/task/{thread.name}/children").read_text().split()
                   for thread in Path(f"/proc/{pid}/task").iterdir()]  # fmt: skip
    except OSError:
        return 0
    own = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    return own + sum(held(int(child)) for child in {*children, *(c for found in threads for c in found)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--small", type=int, default=100_000)
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("speed", "ray", "memory"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if given.only != "memory":
            make_pictures(place / "photographs", given.pictures, tuple(given.size))
        if given.only in (None, "speed"):
            speed(place, given.pictures, given.rounds)
        if given.only in (None, "ray"):
            ray(place, given.rounds)
        if given.only in (None, "memory"):
            memory(place, given.small)


if __name__ == "__main__":
    main()
