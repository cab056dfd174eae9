"""Jobs: work on any number of pictures, in parts that are finished one by one and never made twice."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diptych.batch import results
from diptych.batch.inputs import Listing, as_given, listed
from diptych.batch.local import made_locally
from diptych.batch.plan import MANIFEST, Plan, changes, difference_of, read_manifest, write_manifest
from diptych.batch.results import Job
from diptych.batch.shards import Made, Task, check, part_name
from diptych.errors import ImageError, OutputError, UsageError, reason
from diptych.extras import imported
from diptych.files import check_writable, is_folder, made_folder, sha256, sole_writer, sweep
from diptych.images.opening import most_pixels
from diptych.journal import versions
from diptych.progress import Progress

__all__ = ["Begun", "JobOptions", "Pictures", "begin"]

_PART = re.compile(r"part-\d{5,}\.parquet")
_MOST_FAILURES = 20  # that are told; the others are in the table
_PARTS = ".parts"
_OTHER_TABLES = (
    ".arrow",
    ".db",
    ".feather",
    ".h5",
    ".hdf5",
    ".json",
    ".npy",
    ".npz",
    ".tsv",
    ".txt",
    ".xls",
    ".xlsx",
)


@dataclass(frozen=True)
class JobOptions:
    """How a job runs; none of it changes a row.

    Attributes:
        on: "local" for processes on this machine, "ray" for a Ray cluster that is started here or that RAY_ADDRESS
            names, or a cluster's address such as "ray://head:10001".
        shard_size: How many pictures a part has at most.
        workers: How many processes; one for each processor by default.
        overwrite: Whether to begin again where the folder holds another job.
    """

    on: str = "local"
    shard_size: int = 256
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("shard_size", "workers"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")
        if not isinstance(self.on, str) or (self.on not in ("local", "ray") and ":" not in self.on):
            raise UsageError(
                f"a job runs on local, on ray, or on a cluster's address such as ray://host:10001, not {self.on!r}"
            )


@dataclass(frozen=True)
class Pictures:
    """Which pictures a job takes; see `inputs.listed`.

    Attributes:
        given: Picture files, folders, patterns such as "photos/**/*.jpg", and tar archives.
        names: Further picture files, from a list.
        recursive: Whether folders inside folders are searched.
        list_file: Where `names` come from, if they were read from a file.
    """

    given: Sequence[str | Path]
    names: Sequence[str] = ()
    recursive: bool = False
    list_file: str | None = None

    def described(self) -> list[str]:
        """How they were asked for, which a later call must repeat to go on."""
        listing = [f"list {self.list_file or 'of names'}"] if self.names else []
        return [*map(as_given, self.given), *listing, *(["recursive"] if self.recursive else [])]


@dataclass(frozen=True)
class Begun:
    """A job whose pictures are known, and whose results have a place."""

    pictures: Pictures
    listing: Listing
    options: JobOptions
    target: _Target
    progress: Progress
    what: str

    def finish(
        self,
        settings: Mapping[str, Any],
        task: Callable[..., Task],
        remarks: Iterable[str] = (),
        unchanged: Callable[[Any], bool] | None = None,
    ) -> Job:
        """Makes the parts that are missing, and what comes after them.

        Args:
            settings: All that decides the rows, beside the pictures and the version of Diptych, as a JSON object.
            task: Called with the fields of `shards.Task`.
            remarks: Sentences to show beside the result.
            unchanged: Whether what belongs to a finished part, whose table it is called with, is still there.

        Raises:
            OutputError: The folder holds another job, is being written to, or cannot be written.
            ImageError: None of the pictures could be used.
        """
        decides = {
            "diptych": versions().get("diptych"),
            "images": self.pictures.described(),
            **settings,
            "max_pixels": most_pixels(),
        }
        plan = Plan(decides, self.listing.inputs, self.options.shard_size)
        with _kept(self.target, plan, self.options.overwrite, unchanged) as folder:
            whole = task(
                id=folder.plan.id,
                folder=str(folder.place.resolve()),
                started_in=os.getcwd(),  # noqa: PTH109
                max_pixels=most_pixels(),
            )
            return folder.finished(whole, self, [*remarks, *self.listing.remarks])


def begin(
    pictures: Pictures,
    out: str | Path,
    options: JobOptions | None,
    progress: Progress,
    what: str,
) -> Begun:
    """Lists the pictures of a job, and checks the place for its results.

    Args:
        pictures: Which pictures.
        out: A folder, or a .parquet, .csv or .jsonl file.
        options: How it runs.
        progress: Told how many pictures are done.
        what: The name of the work, for `progress`.

    Raises:
        ImageError: There are no pictures.
        MissingExtra: pyarrow is not installed.
        OutputError: There is no such place, or it cannot be written.
    """
    imported("pyarrow")
    target = _Target.of(Path(out))
    given = [pictures.given] if isinstance(pictures.given, str | Path) else pictures.given
    listing = listed(given, pictures.names, recursive=pictures.recursive)
    return Begun(pictures, listing, options or JobOptions(), target, progress, what)


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
            if out.suffix.lower() in _OTHER_TABLES and not is_folder(out):
                raise UsageError(
                    f"{out} ends like a table of a kind that is not written; name a folder, or a file that ends with "
                    f"{', '.join(results.WRITERS)}"
                )
            return _Target(out)
        if is_folder(out):
            return _Target(out)
        check_writable(out)
        return _Target(out.with_name(out.name + _PARTS), out)


@contextmanager
def _kept(
    target: _Target, plan: Plan, overwrite: bool, unchanged: Callable[[Any], bool] | None
) -> Iterator[_Folder]:
    """The folder of a job, which this process alone writes to while the block runs."""
    made_folder(target.folder)
    with sole_writer(target.folder):
        yield _Folder.of(target, plan, overwrite, unchanged)


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
    def of(
        cls, target: _Target, plan: Plan, overwrite: bool, unchanged: Callable[[Any], bool] | None
    ) -> _Folder:
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
        folder._find(parts, unchanged)
        return folder

    def _find(self, parts: Sequence[str], unchanged: Callable[[Any], bool] | None) -> None:
        """Finds the parts that are finished; raises `OutputError` where one was altered, or does not belong here."""
        for name in parts:
            number = int(name[5:-8])
            rows = check(self.place / name, self.plan.id, number)
            if rows is None or part_name(number) != name:
                raise OutputError(
                    f"{self.place / name} is not as this job wrote it: it was altered or damaged, or is another's; "
                    "delete it, or move it away, and the same command makes it again"
                )
            if unchanged is None or unchanged(results.read(self.place / name)):
                self.rows[number] = rows

    def finished(self, task: Task, begun: Begun, remarks: Sequence[str]) -> Job:
        """Makes the parts that are missing, and the file of them."""
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
            self._make(task, left, begun, failures)
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
            pictures = "picture" if more == 1 else "pictures"
            failures.append(
                f"{more:,} {'more ' if failures else ''}{pictures} could not be used; see the column error"
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

    def _make(self, task: Task, left: list[tuple[int, Any]], begun: Begun, failures: list[str]) -> None:
        total, done = len(self.plan.inputs), {number: rows for number, (rows, _) in self.rows.items()}

        def told(number: int, count: int) -> None:
            done[number] = count
            begun.progress(sum(list(done.values())), total, begun.what)

        begun.progress(sum(done.values()), total, begun.what)
        try:
            for made in _maker(begun.options)(task, left, begun.options.workers, told):
                self.rows[made.number] = made.rows, made.failed
                told(made.number, made.rows)
                failures += made.failures[: _MOST_FAILURES - len(failures)]
        finally:
            sweep(self.place, always=True)  # what a process was writing when it was ended

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
