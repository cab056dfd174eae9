"""Apply a filter to any number of picture files, in parts that an interrupted call has not to make again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diptych.batch.inputs import Input
from diptych.batch.jobs import JobOptions, Pictures, begin
from diptych.batch.results import WRITERS, Job
from diptych.batch.shards import Task
from diptych.engines import tiled
from diptych.errors import DiptychError, ImageError, OutputError, UsageError
from diptych.extras import imported
from diptych.files import as_text, keep, made_folder, sha256
from diptych.filters.applying.apply import FilterModel, Work, output_name
from diptych.formats import safetensors
from diptych.model.model import Model
from diptych.progress import Progress, silent

__all__ = ["apply_many"]


def apply_many(
    learned: FilterModel,
    pictures: Pictures,
    target: str | Path,
    *,
    tile: int | None = None,
    engine: str = "auto",
    device: str = "auto",
    edge: str | None = None,
    options: JobOptions | None = None,
    progress: Progress = silent,
) -> Job:
    """Filters picture files into files of the same names in a folder, and writes a table of them beside these.

    Args:
        learned: What `learn` returns, a model, or the path of a model file.
        pictures: Which pictures; those of a folder inside a given folder go to a folder of that name.
        target: The folder.
        tile: See `apply`.
        engine: See `apply`; with "auto" the first that can express the filter takes all pictures.
        device: See `apply`.
        edge: See `apply`.
        options: How the job runs.
        progress: Told how many pictures are done.

    Returns:
        The finished job; its columns are file, output, sha256 (of the output) and error.

    Raises:
        ImageError: There are no pictures, or none of them can be filtered.
        OutputError: The folder holds another job, is being written to, cannot be written, or a source would be
            replaced.
        UsageError: An argument is out of range, or two pictures would be written to one file.
    """
    folder = Path(target)
    if folder.suffix.lower() in WRITERS:
        raise UsageError(f"filtered pictures go into a folder, and {folder} ends like a table; name a folder")
    model = Work.of(learned, tile, engine, device, edge, silent).model
    engine = _engine(model, engine, device)
    begun = begin(pictures, folder, options, progress, "filtering")
    archived = next((one for one in begun.listing.inputs if one.archive is not None), None)
    if archived is not None:
        raise UsageError(f"a filter reads pictures from files, not from {archived.archive}; unpack it first")
    places = [folder / _output(one) for one in begun.listing.inputs]
    twice = next((place for place, count in Counter(places).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"two pictures would both become {twice}; rename one, or name fewer")
    keep([one.name for one in begun.listing.inputs], places)
    settings = {"verb": "filter apply", "model": {"sha256": safetensors.digest(model)}, "tile": tile,
                "engine": engine, "device": device, "edge": edge}  # fmt: skip
    task = partial(FilterTask, model=model, tile=tile, engine=engine, device=device, edge=edge)
    return begun.finish(settings, task, unchanged=partial(_unchanged, folder))


def _engine(model: Model, engine: str, device: str) -> str:
    """The engine of all pictures: engines may differ in the last bit, and "auto" would choose for each picture."""
    if engine != "auto" or device not in ("auto", "cpu"):
        return engine
    for name in tiled.automatic(model):
        try:
            return tiled.compile(model, name, "auto", peak=255).engine
        except (DiptychError, ImportError):
            continue
    return "numpy"


def _output(one: Input) -> str:
    """The path of the filtered picture in the folder."""
    inside = Path(one.inside)
    return str(inside.with_name(output_name(inside)))


def _unchanged(folder: Path, table: Any) -> bool:
    """Whether the filtered pictures of a part are still what was written."""
    rows = table.select(["output", "sha256"]).to_pylist()
    try:
        return all(row["output"] is None or sha256(folder / row["output"]) == row["sha256"] for row in rows)
    except OSError:
        return False


@dataclass(frozen=True, kw_only=True)
class FilterTask(Task):
    """What a process needs to filter pictures: the arguments of `apply`."""

    model: Model
    tile: int | None
    engine: str
    device: str
    edge: str | None

    def ready(self) -> Callable[[], _Rows]:
        """See `batch.shards.Task`."""
        work = Work.of(self.model, self.tile, self.engine, self.device, self.edge, silent)
        return partial(_Rows, self, work)


class _Rows:
    """The rows of a part; see `batch.shards.Rows`."""

    def __init__(self, task: FilterTask, work: Work) -> None:
        self._task, self._work = task, work
        self._rows: list[dict[str, str]] = []

    def add(self, one: Input) -> None:
        """See `batch.shards.Rows`."""
        output = _output(one)
        place = Path(self._task.folder, output)
        try:
            self._work.file(Path(self._task.started_in, one.name), made_folder(place.parent) / place.name)
        except OutputError as error:
            if place.is_dir():  # this one cannot be written, while the others can
                raise ImageError(str(error)) from error
            raise
        self._rows.append({"file": as_text(one.name), "output": as_text(output), "sha256": sha256(place)})

    def failed(self, file: str, error: str) -> None:
        """See `batch.shards.Rows`."""
        self._rows.append({"file": file, "error": error})

    def table(self) -> Any:
        """See `batch.shards.Rows`."""
        pa: Any = imported("pyarrow")
        schema = pa.schema([(name, pa.string()) for name in ("file", "output", "sha256", "error")])
        return pa.Table.from_pylist(self._rows, schema=schema)
