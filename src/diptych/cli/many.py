"""What the commands for many pictures make of their options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.errors import UsageError

if TYPE_CHECKING:
    from diptych.batch.jobs import JobOptions, Pictures

__all__ = [
    "is_table",
    "job_options",
    "layer_paths",
    "many_pictures",
    "one_picture",
    "only_for_tables",
    "separated",
    "some",
]


def is_table(out: Path, table: bool) -> bool:
    """Whether the results are to be a table: by its suffix, or because `--table` was given."""
    from diptych.batch.results import WRITERS

    return table or out.suffix.lower() in WRITERS


def many_pictures(images: Sequence[Path] | None, listed: str | None, recursive: bool) -> Pictures:
    """The pictures of a job; raises `ImageError` where the list cannot be read."""
    from diptych.batch.inputs import names_in
    from diptych.batch.jobs import Pictures

    return Pictures(
        images or [] if listed else some(images), names_in(listed) if listed else [], recursive, listed
    )


def some(images: Sequence[Path] | None) -> Sequence[Path]:
    """The pictures that were named; raises `UsageError` where there are none."""
    if not images:
        raise UsageError("no images were given; name picture files, or a folder that holds some")
    return images


def job_options(on: str, shard_size: int, workers: int | None, overwrite: bool) -> JobOptions:
    """How a job runs; raises `UsageError` where it cannot run so."""
    from diptych.batch.jobs import JobOptions

    return JobOptions(on, shard_size, workers, overwrite)


def one_picture(images: Sequence[Path] | None) -> Path:
    """The only picture; raises `UsageError` for none or several."""
    if images is None or len(images) != 1:
        came = "none" if not images else str(len(images))
        raise UsageError(f"the plots are of one picture, and {came} came; --table takes any number")
    return images[0]


def layer_paths(layers: str) -> list[str]:
    """The layers of a table; raises `UsageError` where they are not named."""
    if layers in ("all", "conv"):
        raise UsageError("a table has a column for each layer: name them with --layers, such as --layers 5,7")
    return separated(layers)


def separated(text: str | None) -> list[str]:
    """The names in a text, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()] if text else []


def only_for_tables(option: str, **given: object) -> None:
    """Raises `UsageError` for an option that only a table has, which `option` asks for."""
    for name, value in given.items():
        if value:
            raise UsageError(f"--{name.replace('_', '-')} is for a table: ask for one with {option}")
