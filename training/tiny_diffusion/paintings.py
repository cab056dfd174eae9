"""Paints the training pictures into a cache on disk: one uint8 array, a pure function of the seeds."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tiny_diffusion import world

FREE_SEEDS = 1_000_000_000
BLOCK = 200  # paintings a task: what a kill can lose
SHAPE = (world.SIZE, world.SIZE, 3)


class Paintings:
    """The cache: painting i, uint8 (64, 64, 3), is that of seed `first + i`.

    The file grows block by block; its size says how many there are. `free` paintings are of scenes drawn
    without regard to what is held out: for the checkers, never for the generator.
    """

    def __init__(self, path: Path, free: bool = False) -> None:
        self.path, self.free = path, free
        self.first = FREE_SEEDS if free else 0

    def __len__(self) -> int:
        return self.path.stat().st_size // int(np.prod(SHAPE)) if self.path.exists() else 0

    def read(self, count: int | None = None) -> npt.NDArray[np.uint8]:
        """The first `count` paintings (all of them by default) as a read-only memory map."""
        return np.memmap(self.path, np.uint8, "r", shape=(min(len(self), count or len(self)), *SHAPE))

    def grow(self, count: int, workers: int = 1) -> None:
        """Paint until there are `count`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        done = len(self)
        with self.path.open("ab") as file, ProcessPoolExecutor(workers) as pool:
            file.truncate(done * int(np.prod(SHAPE)))  # a painting half written
            tasks = [
                (self.first + start, min(BLOCK, count - start), self.free)
                for start in range(done, count, BLOCK)
            ]
            for block in pool.map(_block, tasks):
                file.write(block.tobytes())
                file.flush()


def _block(task: tuple[int, int, bool]) -> npt.NDArray[np.uint8]:
    start, count, free = task
    return np.stack([world.paint(seed, world.draw(seed, free)) for seed in range(start, start + count)])
