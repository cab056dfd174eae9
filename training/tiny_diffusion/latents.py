"""Paintings as the denoiser learns from them: latents and the tokens of captions, cached beside the paintings."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import CLIPTokenizer

from diptych.images.scenes.rng import RandomStream
from tiny_diffusion import autoencoder, tokens, training, world
from tiny_diffusion.paintings import Paintings

CAPTIONS = 4  # a painting
SHAPE = (autoencoder.LATENTS, world.SIZE // autoencoder.SHRINK, world.SIZE // autoencoder.SHRINK)
BLOCK = 500
_VISIBLE = 24  # of 255


@dataclass(frozen=True)
class Lessons:
    """Latents float16 (N, 8, 16, 16) of spread one, tokens uint16 (N, captions, length), and where objects are,
    uint8 (N, 16, 16) of 0 and 1; all on disk.
    """

    latents: npt.NDArray[np.float16]
    tokens: npt.NDArray[np.uint16]
    objects: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.latents)


def read(folder: Path, count: int | None = None) -> Lessons:
    """What has been prepared so far, or its first `count`."""
    whole = min(
        _rows(folder / "latents.f16", SHAPE, 2),
        _rows(folder / "tokens.u16", _TOKENS, 2),
        _rows(folder / "objects.u8", SHAPE[1:], 1),
    )
    rows = min(whole, count or whole)
    return Lessons(
        np.memmap(folder / "latents.f16", np.float16, "r", shape=(rows, *SHAPE)),
        np.memmap(folder / "tokens.u16", np.uint16, "r", shape=(rows, *_TOKENS)),
        np.memmap(folder / "objects.u8", np.uint8, "r", shape=(rows, *SHAPE[1:])),
    )


_TOKENS = (CAPTIONS, tokens.LENGTH)


def _rows(path: Path, shape: tuple[int, ...], size: int) -> int:
    return path.stat().st_size // (size * int(np.prod(shape))) if path.exists() else 0


def encode(network: torch.nn.Module, paintings: Paintings, path: Path, count: int, device: str) -> None:
    """Write latents of the paintings from where the file ends up to `count`."""
    done = _rows(path, SHAPE, 2)
    pictures = paintings.read(count)
    scale = float(network.config.scaling_factor)  # type: ignore[union-attr, arg-type]
    with path.open("ab") as file, torch.no_grad():
        file.truncate(done * 2 * int(np.prod(SHAPE)))
        for first in range(done, len(pictures), 64):
            x = training.pixels(np.array(pictures[first : first + 64]), device)
            latents = network.encode(x).latent_dist.mode() * scale  # type: ignore[operator]
            file.write(latents.cpu().contiguous().to(torch.float16).numpy().tobytes())


def tokenise(tokenizer: CLIPTokenizer, path: Path, count: int, workers: int) -> None:
    """Write the tokens of every scene's captions from where the file ends up to `count`."""
    done = _rows(path, _TOKENS, 2)
    starts = range(done, count, BLOCK)
    with path.open("ab") as file, ProcessPoolExecutor(workers) as pool:
        file.truncate(done * 2 * int(np.prod(_TOKENS)))
        for captions in pool.map(_captions, [(start, min(BLOCK, count - start)) for start in starts]):
            file.write(ids(tokenizer, captions).astype(np.uint16).tobytes())


def find_objects(paintings: Paintings, path: Path, count: int, workers: int) -> None:
    """Write where each painting has objects, from where the file ends up to `count`: wherever it changes when
    it is painted without them.
    """
    done = _rows(path, SHAPE[1:], 1)
    pictures = paintings.read(count)
    starts = range(done, count, BLOCK)
    with path.open("ab") as file, ProcessPoolExecutor(workers) as pool:
        file.truncate(done * int(np.prod(SHAPE[1:])))
        for start, bare in zip(
            starts, pool.map(_without_objects, [(i, min(BLOCK, count - i)) for i in starts]), strict=True
        ):
            changed = np.abs(pictures[start : start + len(bare)].astype(np.int16) - bare).max(-1) > _VISIBLE
            cells = changed.reshape(-1, SHAPE[1], autoencoder.SHRINK, SHAPE[2], autoencoder.SHRINK).any(
                (2, 4)
            )
            file.write(cells.astype(np.uint8).tobytes())


def _without_objects(task: tuple[int, int]) -> npt.NDArray[np.int16]:
    start, count = task
    scenes = [world.draw(seed) for seed in range(start, start + count)]
    return np.stack(
        [
            world.paint(seed, replace(scene, objects=())).astype(np.int16)
            for seed, scene in enumerate(scenes, start)
        ]
    )


def ids(tokenizer: CLIPTokenizer, captions: list[str]) -> npt.NDArray[np.int64]:
    """Tokens (N, length), filled up with padding."""
    read = tokenizer(captions, padding="max_length", truncation=True, max_length=tokens.LENGTH)
    return np.array(read.input_ids)


def _captions(task: tuple[int, int]) -> list[str]:
    start, count = task
    scenes = {seed: world.draw(seed) for seed in range(start, start + count)}
    return [
        world.caption(scene, RandomStream("caption", seed, number))
        for seed, scene in scenes.items()
        for number in range(CAPTIONS)
    ]
