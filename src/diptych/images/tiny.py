"""Pictures by the tiny diffusion model: 64 x 64 pixels from a folder like any other, enlarged.

How it was trained and what it can draw: docs/tiny-generator.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from diptych.errors import GenerationError, UsageError
from diptych.images.diffusion import Diffusion
from diptych.images.picture import Picture
from diptych.preprocessing.resize import pillow_bicubic
from diptych.progress import Progress

__all__ = ["FOLDER", "Tiny", "unknown"]

FOLDER = Path(__file__).parents[1] / "trained" / "tiny"
"""The model in the box: a folder that diffusers loads."""

_USUAL = {"steps": 8, "guidance": 3.0}
_SIDE = 256
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


class Tiny:
    """The pipeline in `folder` as a source of square pictures: see `diptych.images.source.Source`."""

    name = "tiny"
    options = ("steps", "guidance", "negative_prompt", "device")
    unsafe_options: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._model = Diffusion(str(folder))

    @property
    def version(self) -> str:
        """The versions of the libraries that decide what the picture looks like."""
        return self._model.version

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
        """See `Source.generate`: 256 x 256 pixels unless told otherwise, 8 steps, guidance 3."""
        for option in options:
            if option not in self.options:
                raise UsageError(f"tiny takes no option {option!r}; it takes {', '.join(self.options)}")
        side = width or height or _SIDE
        if (height or side) != side:
            raise UsageError(f"tiny draws squares, not {width} x {height}; ask for one number twice")
        ignored = unknown(prompt, self.folder)
        drawn = self._model.generate(
            prompt,
            count=count,
            seed=seed,
            width=None,
            height=None,
            start=start,
            on_progress=on_progress,
            **{**_USUAL, **options},
        )
        return (self._enlarged(picture, side, ignored) for picture in drawn)

    def _enlarged(self, picture: Picture, side: int, ignored: tuple[str, ...]) -> Picture:
        assert picture.record is not None
        record = replace(picture.record, generator=self.name, width=side, height=side, ignored=ignored)
        return replace(picture, pixels=pillow_bicubic(picture.pixels, side, side), record=record)


def unknown(prompt: str, folder: Path) -> tuple[str, ...]:
    """The prompt's words that are not in the vocabulary of the folder's tokenizer: the model has never met
    them. Raises `GenerationError` when the vocabulary cannot be read.
    """
    path = folder / "tokenizer" / "tokenizer.json"
    try:
        vocabulary = json.loads(path.read_text("utf-8"))["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GenerationError(f"{path} holds no tokenizer's vocabulary; install diptych again") from error
    words = dict.fromkeys(_WORD.findall(prompt.lower()))
    return tuple(
        word for word in words if f"{word}</w>" not in vocabulary or (len(word) == 1 and word != "a")
    )
