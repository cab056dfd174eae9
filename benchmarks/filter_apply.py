"""`filters.apply` on arrays of 12 megapixels beside OpenCV's own filters and a copy of the picture, in one process.

All run on two threads, in turns, so that a busy moment of the machine meets each; the ratios are those of the medians.
A first call of each, in which the loop is compiled, is not counted. Exit status 1 where a goal is missed.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

THREADS = 2
os.environ["HL_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(THREADS)

import cv2  # noqa: E402 - the numbers of threads above are read on import
import numpy as np  # noqa: E402

from diptych.filters import apply, learn  # noqa: E402
from diptych.model.layers import Array  # noqa: E402

HEIGHT, WIDTH, TURNS = 3000, 4000, 9
# The least ratio OpenCV / ours, and the most ratio ours / a copy; None where there is no goal.
GOALS: dict[str, tuple[float | None, float | None]] = {
    "sobel": (5.0, 2.0), "gamma": (None, None), "s_curve": (None, None), "sharpen": (None, None), "median": (None, None)
}  # fmt: skip

Filter = Callable[[Array], Array]


def sobel(image: Array) -> Array:
    """What the network imitates, as OpenCV has it for uint8."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    result: Array = cv2.convertScaleAbs(cv2.magnitude(across, down), alpha=0.25 / np.sqrt(2))
    return result


def _curve(values: Array) -> Filter:
    table = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return lambda image: cv2.LUT(image, table)


_LEVELS = np.arange(256.0)
_SHARPEN = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0.0]])
OPENCV: dict[str, Filter] = {
    "sobel": sobel,
    "gamma": _curve(255 * (_LEVELS / 255) ** 0.5),
    "s_curve": _curve(255 / (1 + np.exp(8 * (0.5 - _LEVELS / 255)))),
    "sharpen": lambda image: cv2.filter2D(image, -1, _SHARPEN, borderType=cv2.BORDER_REPLICATE),
    "median": lambda image: cv2.medianBlur(image, 3),
}


def main() -> int:
    cv2.setNumThreads(THREADS)
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (HEIGHT // 50, WIDTH // 50, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    image = np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
    reached = True
    print(f"{WIDTH} x {HEIGHT}, {THREADS} threads, medians of {TURNS} turns")
    print(
        f"{'':10} {'ms':>7} {'least':>7} {'OpenCV':>8} {'copy':>7} {'OpenCV/ours':>12} {'ours/copy':>10} {'apart':>6}"
    )
    for name, goals in GOALS.items():
        learned = learn(name)
        ways: dict[str, Callable[[], object]] = {
            "ours": lambda learned=learned: apply(learned, image),
            "OpenCV": lambda name=name: OPENCV[name](image),
            "copy": image.copy,
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(TURNS + 1):
            for way, run in ways.items():
                start = time.perf_counter()
                run()
                if turn:
                    times[way].append(1000 * (time.perf_counter() - start))
        ours, opencv, copy = (statistics.median(times[way]) for way in ways)
        part = image[:300, :400]
        apart = int(
            np.abs(
                apply(learned, image)[:299, :399].astype(int)
                - apply(learned, part, engine="numpy")[:299, :399]
            ).max()
        )
        print(
            f"{name:10} {ours:7.1f} {min(times['ours']):7.1f} {opencv:8.1f} {copy:7.1f} {opencv / ours:12.2f} "
            f"{ours / copy:10.2f} {apart:6}"
        )
        least, most = goals
        reached &= (
            (least is None or opencv / ours >= least) and (most is None or ours / copy <= most) and apart <= 1
        )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
