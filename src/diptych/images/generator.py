"""The interface that every way of making pictures from a prompt has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from diptych.images.picture import Picture
from diptych.progress import Progress

__all__ = ["Generator"]


class Generator(Protocol):
    """One way of making pictures; `diptych.images.generation.GENERATORS` lists them all."""

    @property
    def name(self) -> str:
        """What `generator=` calls it."""

    @property
    def version(self) -> str:
        """What its pictures depend on: its own version, its weights, the libraries that compute them."""

    @property
    def options(self) -> tuple[str, ...]:
        """The settings it takes by name, and finds again in the records that it writes."""

    @property
    def unsafe_options(self) -> tuple[str, ...]:
        """Those of its options that a record must not choose, because anyone may have written it."""

    def generate(
        self,
        prompt: str,
        *,
        count: int,
        seed: int,
        width: int | None,
        height: int | None,
        start: int = 0,
        on_progress: Progress | None = None,
        **options: Any,
    ) -> Iterator[Picture]:
        """Makes the pictures number `start` to `start + count - 1` of a prompt and a seed.

        A picture depends on its number, not on how many are asked for.

        Args:
            prompt: What to draw, in words.
            count: How many pictures.
            seed: 0 to 2**63 - 1.
            width: Pixels, or None for what suits the generator.
            height: As `width`.
            start: How many pictures to leave out at the beginning.
            on_progress: Told after each picture, or each denoising step.
            **options: The generator's own settings.

        Yields:
            The pictures, each with its record.

        Raises:
            UsageError: It does not take an option; at once, not when the first picture is asked for.
            GenerationError: It cannot run here.
        """
        ...
