"""The small interface that every way of making pictures from a prompt has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from diptych.images.picture import Picture
from diptych.progress import Progress

__all__ = ["Source"]


class Source(Protocol):
    """One way of making pictures; `diptych.images.generation.SOURCES` lists them all.

    `name` is what `generator=` calls it, `version` what its pictures depend on, `options` the settings that
    it takes by name (and finds again in the records that it writes), `unsafe_options` those of them that a
    record, which anyone may have written, must not choose.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def version(self) -> str: ...  # noqa: D102

    @property
    def options(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def unsafe_options(self) -> tuple[str, ...]: ...  # noqa: D102

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
        """The pictures number `start` to `start + count - 1` of this prompt and seed, each with its record.

        A picture depends on its number, not on how many are asked for. Raises `UsageError` at once for an
        option that it does not take, `GenerationError` where it cannot work here.
        """
        ...
