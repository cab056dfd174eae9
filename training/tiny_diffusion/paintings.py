"""Paints the training pictures into a cache on disk: one uint8 array, a pure function of the seeds.

    python -m tiny_diffusion.paintings FOLDER --count 40000      # from training/; goes on where it was killed
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tiny_diffusion import world

BLOCK = 200  # paintings a task: what a kill can lose
SHAPE = (world.SIZE, world.SIZE, 3)


class Paintings:
    """The cache: `paintings[i]` is the uint8 (64, 64, 3) painting with seed `first + i`.

    The file grows block by block; its size says how many there are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return self.path.stat().st_size // int(np.prod(SHAPE)) if self.path.exists() else 0

    def read(self, count: int | None = None) -> npt.NDArray[np.uint8]:
        """The first `count` paintings (all of them by default) as a read-only memory map."""
        return np.memmap(self.path, np.uint8, "r", shape=(min(len(self), count or len(self)), *SHAPE))

    def grow(self, count: int, first: int = 0, workers: int = 1) -> None:
        """Paint until there are `count`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        done = len(self)
        with open(self.path, "ab") as file, ProcessPoolExecutor(workers) as pool:
            file.truncate(done * int(np.prod(SHAPE)))  # a painting half written
            starts = range(first + done, first + count, BLOCK)
            for block in pool.map(_block, [(start, min(BLOCK, first + count - start)) for start in starts]):
                file.write(block.tobytes())
                file.flush()


def _block(task: tuple[int, int]) -> npt.NDArray[np.uint8]:
    start, count = task
    return np.stack([world.paint(seed, world.draw(seed)) for seed in range(start, start + count)])


def main() -> None:
    """Paints what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=40_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    Paintings(options.folder / "paintings.u8").grow(options.count, 0, options.workers)


if __name__ == "__main__":
    main()
