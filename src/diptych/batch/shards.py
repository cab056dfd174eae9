"""A part of a job: a pure function of the plan and the part's number, whoever computes it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from diptych import engines
from diptych.batch.columns import Columns
from diptych.batch.inputs import Input
from diptych.errors import DiptychError, ImageError, ModelError, UnsupportedLayer
from diptych.extras import imported
from diptych.files import as_text, replacing
from diptych.formats import safetensors
from diptych.images import files
from diptych.images.opening import pixel_limit
from diptych.model.layers import Array

__all__ = ["Made", "Task", "Worker", "check", "part_name"]

_KEY = "diptych"

Told = Callable[[int], object]
"""Called with how many pictures of the part are done."""


@dataclass(frozen=True)
class Task:
    """All that a process needs to compute parts; it is what travels, and the pictures' paths.

    Attributes:
        id: Of the plan.
        model: The model with its recipe, as the bytes of a .safetensors file.
        engine: The engine, never "auto".
        device: The device.
        columns: The columns, in order.
        classes: The names of the classes; None for a model that is not a classifier.
        probable: Whether the outputs are probabilities.
        top: How many classes the column `top` has.
        embedding: The path of a layer, or None.
        folder: Where the parts go, absolute.
        started_in: What relative paths are relative to.
        max_pixels: The most pixels of a picture.
    """

    id: str
    model: bytes
    engine: str
    device: str
    columns: tuple[str, ...]
    classes: tuple[str, ...] | None
    probable: bool
    top: int
    embedding: str | None
    folder: str
    started_in: str
    max_pixels: int


@dataclass(frozen=True)
class Made:
    """A part that is on the disk."""

    number: int
    rows: int
    failed: int
    failures: tuple[str, ...]


_MOST_FAILURES = 20  # sentences of a part that are told at once; the others are in its column


def part_name(number: int) -> str:
    """The file name of a part."""
    return f"part-{number:05}.parquet"


class Worker:
    """Computes parts, one picture after the other, with the model made ready once."""

    def __init__(self, task: Task) -> None:
        self._task = task
        with TemporaryDirectory() as place:
            path = Path(place, "model.safetensors")
            path.write_bytes(task.model)
            self._model = safetensors.read(path)
        self._compiled = engines.compile(self._model, task.engine, task.device)

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
        task = self._task
        columns = Columns(task.columns, task.classes, probable=task.probable, top=task.top)
        failures: list[str] = []
        with pixel_limit(task.max_pixels):
            for index, one in enumerate(inputs):
                try:
                    if index in fatal:
                        raise ImageError(
                            f"reading {one.name} has ended the process, as for want of memory; it was left out"
                        )
                    self._add(columns, one)
                except UnsupportedLayer:
                    raise
                except DiptychError as error:
                    whole = str(Path(task.started_in, one.name))  # the same words on every machine
                    failures.append(as_text(str(error).replace(whole, one.name)))
                    columns.failed(as_text(one.name), failures[-1])
                told(index + 1)
        write(Path(task.folder, part_name(number)), columns.table(), task.id, number)
        return Made(number, len(columns), len(failures), tuple(failures[:_MOST_FAILURES]))

    def _add(self, columns: Columns, one: Input) -> None:
        recipe, task = self._model.preprocessing, self._task
        if recipe is None:
            raise ModelError("the model carries no recipe")
        try:
            path, content = one.content(task.started_in)
            pixels, remarks = files.decode(path, content=content)
            item = recipe.apply(pixels)
            tensors = self._tensors(item)
        except MemoryError as error:
            raise ImageError(f"{one.name} needs more memory than there is; make it smaller first") from error
        bad = next((name for name, value in tensors.items() if not np.isfinite(value).all()), None)
        if bad is not None:
            raise ModelError(f"the {bad} of {one.name} holds NaN or infinite values: a layer overflows")
        columns.add(as_text(one.name), tensors, remarks)

    def _tensors(self, item: Array) -> dict[str, Array]:
        task, tensors = self._task, dict[str, Array]()
        if task.embedding is not None:
            trace = self._compiled.trace(item[np.newaxis])
            tensors["output"], tensors["embedding"] = trace.output[0], trace[task.embedding][0]
        else:
            tensors["output"] = self._compiled(item[np.newaxis])[0]
        if "input" in task.columns:
            tensors["input"] = item
        return tensors


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
        said = {"plan": plan, "part": number, "sha256": hashlib.sha256(stream.getbuffer()).hexdigest()}
        writer.add_key_value_metadata({_KEY: json.dumps(said, sort_keys=True)})
    with replacing(path) as temporary:
        temporary.write_bytes(stream.getbuffer())


def check(path: Path, plan: str, number: int) -> tuple[int, int] | None:
    """Whether a file is this part of this plan, as it was written.

    Returns:
        How many rows it has, and how many of them hold an error; None where it is damaged, was altered, or is
        something else.
    """
    parquet: Any = imported("pyarrow.parquet")
    pa: Any = imported("pyarrow")
    try:
        content = path.read_bytes()
        data = memoryview(content)[: -8 - int.from_bytes(content[-8:-4], "little")]  # all before the footer
        file = parquet.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
        said = json.loads((file.metadata.metadata or {}).get(_KEY.encode(), b"null"))
        if said != {"plan": plan, "part": number, "sha256": hashlib.sha256(data).hexdigest()}:
            return None
        errors = file.read(["error"]).column("error")
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return None
    return len(errors), len(errors) - errors.null_count
