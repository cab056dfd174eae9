"""Pictures by the tiny diffusion model in the box: 64 x 64 pixels, enlarged.

docs/tiny-generator.md describes how it was trained and what it can draw.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from diptych import files
from diptych.errors import GenerationError, UsageError
from diptych.images.diffusion import Diffusion
from diptych.images.picture import Picture
from diptych.preprocessing.resize import pillow_bicubic
from diptych.progress import Progress

__all__ = ["FOLDER", "Tiny", "unknown"]

FOLDER = Path(__file__).parents[1] / "trained" / "tiny"
"""The folder of the model, which diffusers can load."""

_USUAL = {"steps": 8, "guidance": 3.0}
_SIDE = 256
_MOST = 38  # tokens that it reads, without start and end: `tokens.LENGTH` in its training
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_PART = re.compile(_WORD.pattern + "|,")


class Tiny:
    """The pipeline in `folder` as a generator of square pictures; see `Generator`."""

    name = "tiny"
    options = ("steps", "guidance", "negative_prompt", "device")
    unsafe_options: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._model = Diffusion(str(folder))

    @property
    def version(self) -> str:
        """The fingerprint of the weights, and the versions of the libraries that decide what a picture looks like."""
        try:
            weights = files.sha256(self.folder / "unet" / "diffusion_pytorch_model.safetensors")
        except OSError as error:
            raise GenerationError(f"{self.folder} holds no weights; install diptych again") from error
        return f"weights {weights[:12]}, {self._model.version}"

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
        """See `Generator.generate`; by default 256 x 256 pixels, 8 steps, guidance 3."""
        for option in options:
            if option not in self.options:
                raise UsageError(f"tiny takes no option {option!r}; it takes {', '.join(self.options)}")
        side = width or height or _SIDE
        if (height or side) != side:
            raise UsageError(f"tiny draws squares, not {width} x {height}; give the same width and height")
        given = {name: value for name, value in options.items() if value is not None}
        said, ignored = self._understood(prompt)
        if isinstance(given.get("negative_prompt"), str):
            given["negative_prompt"], more = self._understood(given["negative_prompt"])
            ignored = tuple(dict.fromkeys(ignored + more))
        drawn = self._model.generate(
            said,
            count=count,
            seed=seed,
            width=None,
            height=None,
            start=start,
            on_progress=on_progress,
            **{**_USUAL, **given},
        )
        changed = {"prompt": prompt, "generator": self.name, "version": self.version, "ignored": ignored}
        return (_enlarged(picture, side, changed) for picture in drawn)

    def _understood(self, prompt: str) -> tuple[str, tuple[str, ...]]:
        """The part of the prompt that the model reads, and the words left out.

        Words that it was not trained on are left out, because they would be split into letters and displace
        others, and so are words beyond the tokens that it reads.
        """
        strange = unknown(prompt, self.folder)
        parts = [part for part in _PART.findall(prompt.lower()) if part not in strange]
        beyond = [part for part in parts[_MOST:] if _WORD.fullmatch(part)]
        return " ".join(parts[:_MOST]).replace(" ,", ","), tuple(dict.fromkeys((*strange, *beyond)))


def _enlarged(picture: Picture, side: int, changed: dict[str, Any]) -> Picture:
    assert picture.record is not None
    record = replace(picture.record, width=side, height=side, **changed)
    return replace(picture, pixels=pillow_bicubic(picture.pixels, side, side), record=record)


def unknown(prompt: str, folder: Path) -> tuple[str, ...]:
    """The words of the prompt that are not in the vocabulary of the tokenizer in `folder`.

    Raises:
        GenerationError: The vocabulary cannot be read.
    """
    path = folder / "tokenizer" / "tokenizer.json"
    try:
        vocabulary = json.loads(path.read_text("utf-8"))["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GenerationError(
            f"{path} does not hold the vocabulary of a tokenizer; install diptych again"
        ) from error
    words = dict.fromkeys(_WORD.findall(prompt.lower()))
    return tuple(
        word for word in words if f"{word}</w>" not in vocabulary or (len(word) == 1 and word != "a")
    )
