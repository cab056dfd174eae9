"""Claim: preprocessing a folder of photographs is at least as fast as a hand-written two-process Pillow loop.

Both sides decode the same JPEG files of 1 to 3 megapixels, made from scikit-image's photographs, and end with
the same float32 batch. They take turns; the ratio is of medians, above 1 where Diptych is faster.

    python benchmarks/preprocess_folder.py [--pictures 200] [--rounds 5] [--recipe colour-32]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

import diptych
from diptych.datasets.photographs import photographs
from diptych.images.files import find
from diptych.preprocessing import named

# The hand-written loop, for the recipes whose pixels come from Pillow alone: mode, size, mean and std.
BY_HAND = {"colour-32": ("RGB", 32, 0.0, 1.0), "grey-224-normalised": ("L", 224, 0.5, 0.5)}


def make_photographs(folder: Path, count: int) -> None:
    """Enlarged and slightly different each time, so that every file is a photograph of its own."""
    sources = [Image.fromarray(p).convert("RGB") for p in photographs().values() if p.ndim == 3]
    rng = np.random.default_rng(0)
    for index in range(count):
        source = sources[index % len(sources)]
        scale = (rng.uniform(1e6, 3e6) / (source.width * source.height)) ** 0.5
        size = (round(source.width * scale), round(source.height * scale))
        picture = np.asarray(source.resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
        picture += rng.integers(-8, 9, picture.shape, dtype=np.int16)
        pixels = np.clip(picture, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"photograph{index + 1}.jpg", quality=90)


def by_hand(job: tuple[str, str]) -> np.ndarray:
    path, recipe = job
    mode, side, mean, std = BY_HAND[recipe]
    picture = Image.open(path).convert(mode).resize((side, side), Image.Resampling.BILINEAR)
    values = (np.asarray(picture, dtype=np.float32) / np.float32(255) - np.float32(mean)) / np.float32(std)
    return values[None] if mode == "L" else values.transpose(2, 0, 1)


def hand_written(paths: list[Path], recipe: str) -> np.ndarray:
    with ProcessPoolExecutor(2) as pool:
        return np.stack(list(pool.map(by_hand, [(str(p), recipe) for p in paths], chunksize=8)))


def seconds(work: Callable[[], np.ndarray]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--recipe", choices=list(BY_HAND), default="colour-32")
    options = parser.parse_args()
    recipe = named(options.recipe)
    with tempfile.TemporaryDirectory() as folder:
        make_photographs(Path(folder), options.pictures)
        paths = find(folder)
        same = np.array_equal(
            hand_written(paths, options.recipe), diptych.preprocess(paths, recipe, workers=2)
        )
        ours, theirs = [], []
        for _ in range(options.rounds):
            theirs.append(seconds(lambda: hand_written(paths, options.recipe)))
            ours.append(seconds(lambda: diptych.preprocess(paths, recipe, workers=2)))
    hand, own = statistics.median(theirs), statistics.median(ours)
    print(f"{len(paths)} JPEG files, recipe {recipe.name}, medians of {options.rounds} rounds")
    print(f"hand-written, two processes  {hand:7.2f} s  {1e3 * hand / len(paths):6.1f} ms a picture")
    print(f"diptych                      {own:7.2f} s  {1e3 * own / len(paths):6.1f} ms a picture")
    print(f"ratio {hand / own:.2f}   (above 1: diptych is faster)   same values: {same}")


if __name__ == "__main__":
    main()
