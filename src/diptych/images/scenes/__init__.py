"""Paints landscapes in the style of flat illustrations from prompts, at any size, with NumPy and Pillow only.

paint(prompt)       -> Picture      the picture; the same (prompt, seed, index) gives the same one on every machine
understand(prompt)  -> Scene        what the prompt asks for; .ignored holds the words that were not understood
sample(seed, size)  -> Sample       a random scene with its caption, class and attributes
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diptych.errors import UsageError
from diptych.images.picture import Picture, Record
from diptych.images.scenes.painter import complete, render
from diptych.images.scenes.rng import RandomStream
from diptych.images.scenes.sampling import Sample, sample
from diptych.images.scenes.understanding import Scene, Thing, normalise, understand
from diptych.images.scenes.vocabulary import CLASSES, VOCABULARY
from diptych.progress import Progress

__all__ = [
    "CLASSES",
    "LARGEST",
    "SMALLEST",
    "SOURCE",
    "VERSION",
    "VOCABULARY",
    "Sample",
    "Scene",
    "Scenes",
    "Thing",
    "paint",
    "sample",
    "understand",
]

VERSION = "1"
"""Changes whenever the same prompt would give other pixels."""

SMALLEST, LARGEST = 16, 8192


def paint(prompt: str, seed: int = 0, index: int = 0, width: int = 512, height: int = 512) -> Picture:
    """Paints a picture from a prompt.

    Args:
        prompt: Any text. Words that are not understood are in `ignored` of the record.
        seed: Of the random choices.
        index: The number of the picture, for several pictures of one prompt and seed.
        width, height: In pixels, 16 to 8192.

    Returns:
        The picture with its record. The same arguments give the same picture on every machine.

    Raises:
        UsageError: A size is out of range.
    """
    for name, side in (("width", width), ("height", height)):
        if isinstance(side, bool) or not isinstance(side, int) or not SMALLEST <= side <= LARGEST:
            raise UsageError(
                f"{name} must be a whole number from {SMALLEST} to {LARGEST} pixels, not {str(side)[:20]}"
            )
    rng = RandomStream(VERSION, normalise(prompt), seed, index)
    asked = understand(prompt)
    pixels = render(complete(asked, rng), rng, width, height)
    record = Record(prompt, seed, index, "scenes", VERSION, width, height, {}, asked.ignored)
    return Picture(pixels, f"generated_image_{index + 1}", record=record)


class Scenes:
    """The painter as a `diptych.images.generator.Generator`."""

    name = "scenes"
    version = VERSION
    options: tuple[str, ...] = ()
    unsafe_options: tuple[str, ...] = ()

    def generate(
        self,
        prompt: str,
        *,
        count: int,
        seed: int,
        width: int | None = None,
        height: int | None = None,
        start: int = 0,
        on_progress: Progress | None = None,
        **options: Any,
    ) -> Iterator[Picture]:
        """Paints pictures of one prompt.

        Args:
            prompt: Any text.
            count: The number of pictures.
            seed: Of the random choices.
            width, height: In pixels, 16 to 8192; 512 by default.
            start: The index of the first picture.
            on_progress: Called after each picture with the number done, `count` and the name of the picture.
            **options: There are none.

        Returns:
            An iterator that paints the pictures `start` to `start + count - 1`.

        Raises:
            UsageError: An option is given, or, from the iterator, a size is out of range.
        """
        if options:
            raise UsageError(f"the generator 'scenes' takes no option {min(options)!r}; leave it out")
        return self._painted(
            prompt, range(start, start + count), seed, width or 512, height or 512, on_progress
        )

    def _painted(
        self, prompt: str, indices: range, seed: int, width: int, height: int, on_progress: Progress | None
    ) -> Iterator[Picture]:
        for done, index in enumerate(indices, 1):
            picture = paint(prompt, seed, index, width, height)
            if on_progress is not None:
                on_progress(done, len(indices), picture.name)
            yield picture


SOURCE = Scenes()
