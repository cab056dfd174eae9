"""The peak memory of filtering a large TIFF into another: 10,000 x 10,000 RGB, or a gigapixel.

The picture is written strip by strip into a temporary folder, filtered there by the command's own function in a
fresh process, and deleted. The peak is that of the process: Python, the libraries and the engine included. Exit
status 1 where it is above 250 MB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

LIMIT = 250.0  # MB of 1e6 bytes
ROWS = 256

RUN = """
import resource, sys
import numpy as np
from diptych.filters import apply_file
from diptych.model.layers import Activation, Chain, Conv, Pad
from diptych.model.model import Model
angles = 2 * np.pi * np.arange(9) / 9
sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
model = Model(Chain((
    Pad(((1, 1), (1, 1)), "replicate"),
    Conv(np.float32([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)),
    Conv(np.float32([sobel, sobel.T]).reshape(2, 1, 3, 3)),
    Conv(np.float32(np.stack([np.cos(angles), np.sin(angles)], 1)).reshape(9, 2, 1, 1), activation=Activation("relu")),
    Conv(np.full((1, 9, 1, 1), np.pi / 9 / np.sqrt(2), np.float32)),
)), input_shape=(3, None, None))
apply_file(model, sys.argv[1], sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
"""


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    options.add_argument("--side", type=int, default=10_000, help="pixels a side")
    options.add_argument("--gigapixel", action="store_true", help="32,000 x 32,000: 3 GB read, 1 GB written")
    given = options.parse_args()
    side = 32_000 if given.gigapixel else given.side
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.tif"), Path(folder, "out.tif")
        tifffile.imwrite(
            source, strips(side), shape=(side, side, 3), dtype=np.uint8, photometric="rgb", rowsperstrip=ROWS,
            bigtiff=side > 30_000,
        )  # fmt: skip
        start = time.perf_counter()
        command = [sys.executable, "-c", RUN, str(source), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, peak = time.perf_counter() - start, float(done.stdout)
        with tifffile.TiffFile(target) as written:
            assert written.pages[0].shape == (side, side), written.pages[0].shape
    print(f"{side} x {side} RGB TIFF to TIFF: peak {peak:.0f} MB (goal {LIMIT:.0f}), {seconds:.1f} s")
    return 0 if peak <= LIMIT else 1


def strips(side: int) -> Iterator[NDArray[np.uint8]]:
    """The picture, `ROWS` rows at a time: ramps with noise on them."""
    noise = np.random.default_rng(0).integers(0, 32, (ROWS, side, 3), np.uint8)
    ramp = np.linspace(0, 223, side).astype(np.uint8)[:, None]
    for top in range(0, side, ROWS):
        strip = noise + ramp + np.uint8(top // ROWS % 2)
        yield strip[: min(ROWS, side - top)]


if __name__ == "__main__":
    sys.exit(main())
