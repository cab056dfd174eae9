"""A part of a job: a pure function of the plan and the part's number, whoever computes it."""

from __future__ import annotations

import errno
import hashlib
import io
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from diptych.batch.inputs import Input
from diptych.errors import DiptychError, ImageError, OutputError, UnsupportedLayer
from diptych.extras import imported
from diptych.files import as_text, is_file, replacing
from diptych.images.opening import pixel_limit, quiet

__all__ = ["Made", "Rows", "Task", "Worker", "check", "part_name"]

_KEY = "diptych"
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC)
_NO_DIGEST = "0" * 64  # where the SHA-256 will stand
_MOST_FAILURES = 20  # sentences of a part that are told at once; the others are in its column

Told = Callable[[int], object]
"""Called with how many pictures of the part are done."""


class Rows(Protocol):
    """The rows of one part, as they are computed."""

    def add(self, one: Input) -> None:
        """Computes the row of a picture; raises `DiptychError` where it cannot be used."""

    def failed(self, file: str, error: str) -> None:
        """Adds the row of a picture that could not be used."""

    def table(self) -> Any:
        """The rows as a `pyarrow.Table` with a column `error`, whose schema does not depend on them."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """All that a process needs to compute parts; it is what travels, with the pictures' paths.

    Attributes:
        id: Of the plan.
        folder: Where the parts go, absolute.
        started_in: What relative paths are relative to.
        max_pixels: The most pixels of a picture.
    """

    id: str
    folder: str
    started_in: str
    max_pixels: int

    def ready(self) -> Callable[[], Rows]:
        """Makes the model ready, once for each process; returns what makes the rows of a part."""
        raise NotImplementedError


@dataclass(frozen=True)
class Made:
    """A part that is on the disk."""

    number: int
    rows: int
    failed: int
    failures: tuple[str, ...]


def part_name(number: int) -> str:
    """The file name of a part."""
    return f"part-{number:05}.parquet"


class Worker:
    """Computes parts, one picture after the other."""

    def __init__(self, task: Task) -> None:
        self._task, self._rows = task, task.ready()

    def make(
        self,
        number: int,
        inputs: Sequence[Input],
        told: Told = lambda done: None,
        fatal: Collection[int] = (),
    ) -> Made:
        """Computes a part and writes it.

        Args:
            number: Its number.
            inputs: Its pictures.
            told: Called after each picture.
            fatal: Indices of pictures that have ended a process; they are not read again.

        Raises:
            OutputError: It cannot be written.
            UnsupportedLayer: The engine cannot express a layer.
        """
        task, rows, failures = self._task, self._rows(), list[str]()
        with pixel_limit(task.max_pixels), quiet():
            for index, one in enumerate(inputs):
                try:
                    if index in fatal:
                        raise ImageError(
                            f"reading {one.name} has ended the process, as for want of memory; it was left out"
                        )
                    _add(rows, one)
                except (OutputError, UnsupportedLayer):
                    raise
                except DiptychError as error:
                    if _of_this_machine(error):
                        raise OutputError(
                            f"{part_name(number)} cannot be made: {error}; what is finished is kept, and the same "
                            "command goes on"
                        ) from error
                    whole = str(Path(task.started_in, one.name))  # the same words on every machine
                    failures.append(as_text(str(error).replace(whole, one.name)))
                    rows.failed(as_text(one.name), failures[-1])
                told(index + 1)
        write(Path(task.folder, part_name(number)), rows.table(), task.id, number)
        return Made(number, len(inputs), len(failures), tuple(failures[:_MOST_FAILURES]))


def _of_this_machine(error: BaseException | None) -> bool:
    """Whether a picture could not be read for want of something that may be there the next time."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _PASSING:
            return True
        error = error.__cause__
    return False


def _add(rows: Rows, one: Input) -> None:
    try:
        rows.add(one)
    except MemoryError as error:
        raise ImageError(f"{one.name} needs more memory than there is; make it smaller first") from error


# ---- The file of a part -----------------------------------------------------------------------------------


def write(path: Path, table: Any, plan: str, number: int) -> None:
    """Writes a part as Parquet, with what `check` needs in its footer. The same table gives the same bytes.

    Raises:
        OutputError: It cannot be written.
    """
    parquet: Any = imported("pyarrow.parquet")
    stream = io.BytesIO()
    with parquet.ParquetWriter(
        stream, table.schema, compression="zstd", version="2.6", write_page_checksum=True
    ) as writer:
        writer.write_table(table)
        said = {"plan": plan, "part": number, "sha256": _NO_DIGEST}
        writer.add_key_value_metadata({_KEY: json.dumps(said, sort_keys=True)})
    content = stream.getvalue()
    digest = hashlib.sha256(content).hexdigest()  # of the whole file, in which it then takes its place
    with replacing(path) as temporary:
        temporary.write_bytes(content.replace(_NO_DIGEST.encode(), digest.encode()))


def check(path: Path, plan: str, number: int) -> tuple[int, int] | None:
    """Whether a file is this part of this plan, as it was written.

    Returns:
        How many rows it has, and how many of them hold an error; None where it is damaged, was altered, or is
        something else.
    """
    parquet: Any = imported("pyarrow.parquet")
    pa: Any = imported("pyarrow")
    if not is_file(path):  # a pipe would wait for ever
        return None
    try:
        content = path.read_bytes()
        file = parquet.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
        said = json.loads((file.metadata.metadata or {}).get(_KEY.encode(), b"null"))
        if len(said["sha256"]) != len(_NO_DIGEST):
            return None
        bare = content.replace(said["sha256"].encode(), _NO_DIGEST.encode())
        if said != {"plan": plan, "part": number, "sha256": hashlib.sha256(bare).hexdigest()}:
            return None
        errors = file.read(["error"]).column("error")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
        return None
    return len(errors), len(errors) - errors.null_count
