"""Jobs: a model on any number of pictures, in parts that are finished one by one and never made twice."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from diptych import engines
from diptych.batch import columns as cols
from diptych.batch import results
from diptych.batch.inputs import Listing, listed
from diptych.batch.local import made_locally
from diptych.batch.plan import MANIFEST, Plan, changes, difference_of, read_manifest, write_manifest
from diptych.batch.results import Job
from diptych.batch.shards import Made, Task, check, part_name
from diptych.engines import Compiled
from diptych.errors import ImageError, OutputError, UsageError, reason
from diptych.extras import imported
from diptych.files import as_text, check_writable, is_folder, made_folder, sha256, sole_writer
from diptych.formats import safetensors
from diptych.images import files
from diptych.images.opening import most_pixels
from diptych.journal import versions
from diptych.model.model import Model
from diptych.preprocessing import Preprocessing
from diptych.progress import Progress, silent

__all__ = ["JobOptions", "predict_many"]

_PART = re.compile(r"part-\d{5,}\.parquet")
_PROBED = 32  # pictures that are tried until one can be read
_MOST_FAILURES = 20  # that are told; the others are in the table
_PARTS = ".parts"


@dataclass(frozen=True)
class JobOptions:
    """What a user may choose about a job.

    Attributes:
        on: "local" for processes on this machine, "ray" for a Ray cluster that is started here or that RAY_ADDRESS
            names, or a cluster's address such as "ray://head:10001".
        columns: Further columns, of `columns.OPTIONAL`.
        embedding: The path of a layer whose output becomes the column `embedding`.
        top: How many classes the column `top` has.
        shard_size: How many pictures a part has.
        workers: How many processes; one for each processor by default.
        recursive: Whether folders inside folders are searched.
        overwrite: Whether to begin again where the folder holds another job.
    """

    on: str = "local"
    columns: Sequence[str] = ()
    embedding: str | None = None
    top: int = 3
    shard_size: int = 256
    workers: int | None = None
    recursive: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("top", "shard_size", "workers"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.on not in ("local", "ray") and not self.on.startswith("ray://") and ":" not in self.on:
            raise UsageError(
                f"a job runs on local, on ray, or on a cluster's address such as ray://host:10001, not {self.on!r}"
            )


def predict_many(
    model: Model,
    images: Iterable[str | Path],
    recipe: Preprocessing,
    *,
    out: str | Path,
    names: Sequence[str] = (),
    given: Sequence[str] | None = None,
    engine: str = "auto",
    device: str = "auto",
    options: JobOptions | None = None,
    progress: Progress = silent,
) -> Job:
    """Runs a model on pictures and writes a table, in parts that an interrupted call has not to make again.

    Args:
        model: The model.
        images: Picture files, folders, patterns and tar archives; see `inputs.listed`.
        recipe: The recipe for the pictures.
        out: A folder for part-00000.parquet, ... and manifest.json; or a file that ends with .parquet, .csv or .jsonl,
            which is made from such parts.
        names: Further pictures, from a list.
        given: How the pictures were named, if `images` and `names` do not say it.
        engine: As for `predict`.
        device: As for `predict`.
        options: The others.
        progress: Told how many pictures are done.

    Returns:
        The finished job.

    Raises:
        ImageError: There are no pictures, or none of them can be read.
        OutputError: The folder holds another job or something else, is being written to, or cannot be written.
        ShapeError: A picture does not fit the model.
    """
    chosen = options or JobOptions()
    imported("pyarrow")
    target = _Target.of(Path(out))
    images = [images] if isinstance(images, str | Path) else [str(one) for one in images]
    listing = listed(images, names, recursive=chosen.recursive)
    whole = model.with_(preprocessing=recipe)
    probe = _Probe.of(whole, listing, engine, device, chosen)
    content = _bytes_of(whole)
    settings = {
        "verb": "predict",
        "diptych": versions().get("diptych"),
        "images": list(given) if given is not None else list(map(str, images)),
        "model": {"name": model.name, "sha256": results.sha256_of(content)},
        "recipe": recipe.to_document(),
        "engine": probe.engine,
        "device": probe.device,
        "columns": list(probe.columns),
        "embedding": chosen.embedding,
        "top": chosen.top,
        "max_pixels": most_pixels(),
    }
    plan = Plan(settings, listing.inputs, chosen.shard_size)
    with _kept(target, plan, listing, chosen.overwrite) as folder:
        task = Task(
            id=folder.plan.id,
            model=content,
            engine=probe.engine,
            device=probe.device,
            columns=probe.columns,
            classes=probe.classes,
            probable=model.gives_probabilities,
            top=chosen.top,
            embedding=chosen.embedding,
            folder=str(folder.place.resolve()),
            started_in=os.getcwd(),  # noqa: PTH109
            max_pixels=most_pixels(),
        )
        return folder.finished(task, chosen, progress, (*probe.remarks, *listing.remarks))


# ---- Before: what the model makes of a picture -----------------------------------------------------------


@dataclass(frozen=True)
class _Probe:
    """What the first picture that can be read has told."""

    engine: str
    device: str
    columns: tuple[str, ...]
    classes: tuple[str, ...] | None
    remarks: tuple[str, ...]

    @staticmethod
    def of(model: Model, listing: Listing, engine: str, device: str, chosen: JobOptions) -> _Probe:
        compiled = engines.compile(model, engine, device)
        model.check()
        shape, first = _output_shape(model, compiled, listing, chosen.embedding)
        if shape is None:
            raise first
        classifies = cols.classifies(shape, model.classes)
        columns = cols.chosen(
            chosen.columns,
            classifies=classifies,
            probable=model.gives_probabilities,
            embedding=chosen.embedding is not None,
        )
        classes = None
        if classifies:
            classes = model.classes or tuple(f"class {i}" for i in range(max(shape)))
        remarks = []
        if classifies and not model.gives_probabilities:
            remarks.append(
                "the model gives scores, not probabilities: they are in the column score, and probability is empty; "
                "--softmax makes probabilities of them"
            )
        if model.trained is False:
            remarks.append("UNTRAINED weights: the predictions say nothing about the pictures")
        return _Probe(compiled.engine, compiled.device, columns, classes, tuple(remarks))


def _output_shape(
    model: Model, compiled: Compiled, listing: Listing, embedding: str | None
) -> tuple[tuple[int, ...] | None, ImageError]:
    """The shape of an output of one sample; None and the first error where no picture can be read."""
    first: ImageError | None = None
    recipe = model.preprocessing
    assert recipe is not None
    for one in islice(listing.inputs, _PROBED):
        try:
            path, content = one.content("")
            pixels, _ = files.decode(path, content=content)
        except ImageError as error:
            first = first or error
            continue
        item = recipe.apply(pixels)[np.newaxis]
        if embedding is not None:
            trace = compiled.trace(item)
            if embedding not in trace:
                raise UsageError(
                    f"there is no layer {as_text(embedding)!r}; the layers are {', '.join(trace)}"
                )
        return compiled(item).shape[1:], ImageError()
    return None, first or ImageError("there are no pictures")


def _bytes_of(model: Model) -> bytes:
    with TemporaryDirectory() as place:
        path = Path(place, "model.safetensors")
        safetensors.write(model, path)
        return path.read_bytes()


# ---- Where the parts go ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Target:
    """The folder of the parts, and the file that is made from them, if one is asked for."""

    folder: Path
    file: Path | None = None

    @staticmethod
    def of(out: Path) -> _Target:
        if out.suffix.lower() not in results.WRITERS:
            if os.path.lexists(out) and not is_folder(out):
                raise OutputError(
                    f"{out} is a file that is no folder for parts; name a folder, or a file that ends with "
                    f"{', '.join(results.WRITERS)}"
                )
            return _Target(out)
        if is_folder(out):
            return _Target(out)
        check_writable(out)
        return _Target(out.with_name(out.name + _PARTS), out)


@contextmanager
def _kept(target: _Target, plan: Plan, listing: Listing, overwrite: bool) -> Iterator[_Folder]:
    """The folder of a job, which this process alone writes to while the block runs."""
    made_folder(target.folder)
    with sole_writer(target.folder):
        yield _Folder.of(target, plan, listing, overwrite)


@dataclass
class _Folder:
    """A job's folder: the plan that it holds, and which of its parts are finished."""

    place: Path
    file: Path | None
    plan: Plan
    facts: dict[str, Any]
    remarks: list[str]
    rows: dict[int, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, target: _Target, plan: Plan, listing: Listing, overwrite: bool) -> _Folder:
        place = target.folder
        try:
            earlier = read_manifest(place)
        except OutputError:
            if not overwrite:
                raise
            earlier = None
        parts = sorted(name for name in os.listdir(place) if _PART.fullmatch(name))  # noqa: PTH208
        if overwrite and earlier is not None and difference_of(earlier[0], plan) is None:
            overwrite = earlier[0].inputs != plan.inputs
        if earlier is None or overwrite:
            if not overwrite:
                _check_strangers(target, parts)
            for name in parts:
                _delete(place / name)
            folder = cls(place, target.file, plan, {"status": "running", "versions": versions()}, [])
            write_manifest(place, plan, folder.facts)
            return folder
        before, facts = earlier
        changed = difference_of(before, plan)
        if changed is not None:
            raise OutputError(
                f"{place} holds a job with other settings ({changed}); choose another --out, or pass --overwrite to "
                "delete it first"
            )
        known = facts.get("versions") if isinstance(facts.get("versions"), dict) else {}
        folder = cls(place, target.file, before, facts, changes(before.inputs, plan.inputs, known or {}))
        folder._find(parts)
        return folder

    def _find(self, parts: Sequence[str]) -> None:
        """Finds the parts that are finished; raises `OutputError` where one was altered, or does not belong here."""
        for name in parts:
            number = int(name[5:-8])
            rows = check(self.place / name, self.plan.id, number)
            if rows is None or part_name(number) != name:
                raise OutputError(
                    f"{self.place / name} is not as this job wrote it: it was altered or damaged, or is another's; "
                    "delete it, or move it away, and the same command makes it again"
                )
            self.rows[number] = rows

    def finished(self, task: Task, chosen: JobOptions, progress: Progress, remarks: Sequence[str]) -> Job:
        """Makes the parts that are missing, and what comes after them."""
        plan, failures = self.plan, list[str]()
        there = sum(rows for rows, _ in self.rows.values())
        if self._file_is_whole():
            there, left = len(plan.inputs), []
        else:
            left = [
                (number, plan.of_shard(number)) for number in range(plan.shards) if number not in self.rows
            ]
        said = [*self.remarks, *remarks]
        if there:
            said.append(f"{there:,} of {len(plan.inputs):,} pictures were finished already")
        if left:
            self._make(task, left, chosen, progress, failures)
        if not self._file_is_whole():
            self._conclude()
        failed = sum(part["failed"] for part in self.facts["parts"])
        more = failed - len(failures)
        if failed == len(plan.inputs):
            raise ImageError(
                f"none of the {failed:,} pictures could be used; the first: {failures[0]}"
                if failures
                else f"none of the {failed:,} pictures could be used; the column error of {self._result()} says why"
            )
        if more:
            failures.append(
                f"{more:,} {'more ' if failures else ''}pictures could not be used; see the column error"
            )
        return Job(
            out=self._result(),
            folder=self.place,
            rows=len(plan.inputs),
            failed=failed,
            settings=plan.settings,
            remarks=tuple(said),
            failures=tuple(failures),
        )

    def _result(self) -> Path:
        return self.file or self.place

    def _make(
        self,
        task: Task,
        left: list[tuple[int, Any]],
        chosen: JobOptions,
        progress: Progress,
        failures: list[str],
    ) -> None:
        total, done = len(self.plan.inputs), {number: rows for number, (rows, _) in self.rows.items()}
        progress(sum(done.values()), total, "predicting")

        def told(number: int, count: int) -> None:
            done[number] = count
            progress(sum(list(done.values())), total, "predicting")

        for made in _maker(chosen)(task, left, chosen.workers, told):
            self.rows[made.number] = made.rows, made.failed
            told(made.number, made.rows)
            failures += made.failures[: _MOST_FAILURES - len(failures)]

    def _file_is_whole(self) -> bool:
        """Whether the file was made already; raises `OutputError` where it was altered since."""
        known = self.facts.get("file")
        if self.file is None or self.facts.get("status") != "done" or not os.path.lexists(self.file):
            return False
        if known == sha256(self.file):
            return True
        raise OutputError(
            f"{self.file} is not as this job wrote it; choose another --out, or delete {self.place} and {self.file} "
            "to have it made again"
        )

    def _conclude(self) -> None:
        names = [part_name(number) for number in range(self.plan.shards)]
        self.facts["parts"] = [
            {"name": name, "rows": rows, "failed": failed, "sha256": sha256(self.place / name)}
            for name, (rows, failed) in zip(names, (self.rows[n] for n in range(len(names))), strict=True)
        ]
        if self.file is not None:
            results.assemble([self.place / name for name in names], self.file)
            self.facts["file"] = sha256(self.file)
        self.facts["status"] = "done"
        write_manifest(self.place, self.plan, self.facts)
        if self.file is not None:
            for name in names:
                _delete(self.place / name)


def _maker(chosen: JobOptions) -> Callable[..., Iterator[Made]]:
    if chosen.on == "local":
        return made_locally
    from diptych.batch.cluster import made_on

    return made_on(chosen.on)


def _check_strangers(target: _Target, parts: Sequence[str]) -> None:
    if parts:
        raise OutputError(
            f"{target.folder} holds {parts[0]} and no {MANIFEST}, so it is not known which job wrote it; choose "
            "another --out, or pass --overwrite to replace it"
        )
    if target.file is not None and os.path.lexists(target.file):
        raise OutputError(
            f"{target.file} exists already; choose another --out, or pass --overwrite to replace it"
        )


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot delete {path}: {reason(error)}; choose another --out") from error
