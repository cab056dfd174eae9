"""The record of a verb that fills a folder, `run.json`: what was asked for, what is finished, and how to do it again.

With it, interrupted work continues, and files of different settings never share a folder. A file counts as finished if
the record names it and its bytes still have the recorded hash. While the verb works, a line for each file is added to
`files.IN_USE`, before the file takes its place: so nothing that is in the folder is made twice, whenever the process
is killed.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from diptych.errors import OutputError, reason
from diptych.files import IN_USE, is_file, is_folder, json_text, replacing, sha256, sole_writer

__all__ = ["NAME", "Journal", "difference", "keeping", "there_already", "versions"]

NAME = "run.json"
_LARGEST = 2**26  # bytes of a record that is read
_SHA256 = re.compile("[0-9a-f]{64}")
_PACKAGES = ("numpy", "pillow", "opencv-python-headless", "onnx", "onnxruntime", "torch", "matplotlib")


def versions() -> dict[str, str]:
    """The versions of packages that results may depend on, read without importing them."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("diptych", *_PACKAGES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def keeping(
    out: str | Path,
    settings: Mapping[str, Any],
    ours: re.Pattern[str],
    *,
    wanted: Collection[str] | None = None,
    overwrite: bool = False,
) -> Iterator[Journal]:
    """The journal of a folder, which this process alone writes to while the block runs.

    Args:
        out: The folder, made where it is missing.
        settings: Everything that decides the results, as a JSON object.
        ours: The file names that the verb may write.
        wanted: Those that it writes this time, if files of other calls with the same settings may be beside them; by
            default the folder belongs to one call.
        overwrite: Whether to delete the files of other settings, and replace files of these names that the record
            does not know. Of the recorded files only those are deleted that match `ours` and have not been changed.

    Yields:
        The journal. It is saved when the block ends, however it does.

    Raises:
        OutputError: Another process is writing to the folder; or it holds files of other settings, or files of these
            names that the record does not know, and `overwrite` is False.
    """
    if os.path.lexists(out) and not is_folder(out):
        raise OutputError(f"cannot make the folder {out}: it is not a folder; choose another --out")
    with sole_writer(out) as lines:
        journal = Journal(Path(out), lines, settings, ours, wanted, overwrite)
        try:
            yield journal
        finally:
            journal.close()


class Journal:
    """The journal of a folder; see `keeping`, which makes it."""

    def __init__(
        self,
        out: Path,
        lines: int,
        settings: Mapping[str, Any],
        ours: re.Pattern[str],
        wanted: Collection[str] | None,
        overwrite: bool,
    ) -> None:
        self.out = out
        self.found: list[str] = []
        """The files that were finished already when they were asked for."""
        self._lines = lines
        self._ours = ours
        self._document = self._begin(json.loads(json.dumps(settings)), wanted, overwrite)
        self.save()

    def _begin(
        self, settings: dict[str, Any], wanted: Collection[str] | None, overwrite: bool
    ) -> dict[str, Any]:
        earlier = self._earlier(overwrite)
        same = earlier is not None and earlier["settings"] == settings
        if earlier is not None and not same and not overwrite:
            changed = difference(earlier["settings"], settings)
            raise OutputError(
                f"{self.out} holds a run with other settings ({changed}); choose another --out, or pass "
                "--overwrite to delete that run's files first"
            )
        if not overwrite and (earlier is None or (same and wanted is not None)):
            self._check_strangers(wanted, earlier["files"] if earlier else {})
        if earlier is not None and same:
            return earlier
        if earlier is not None:
            self._delete(earlier["files"])
        self._forget_lines()  # they belong to the other settings
        return _checked({"settings": settings, "versions": versions(), "files": {}}, self._ours)

    def _check_strangers(self, wanted: Collection[str] | None, known: Mapping[str, str]) -> None:
        found = self.out.iterdir() if wanted is None else (self.out / name for name in wanted)
        strangers = sorted(
            path.name
            for path in found
            if self._ours.fullmatch(path.name) and path.name not in known and os.path.lexists(path)
        )
        if strangers:
            raise OutputError(
                f"{self.out} holds {strangers[0]}, which no recorded run wrote; choose another --out, or "
                "pass --overwrite to replace it"
            )

    def _delete(self, files: Mapping[str, str]) -> None:
        for name, digest in files.items():
            path = self.out / name
            try:
                if is_file(path) and sha256(path) == digest:
                    path.unlink()
            except OSError as error:
                raise OutputError(f"cannot delete {path}: {reason(error)}; choose another --out") from error

    def _earlier(self, overwrite: bool) -> dict[str, Any] | None:
        """The record in the folder, with the lines of a killed process; None without one, or to be overwritten."""
        path = self.out / NAME
        try:
            if not is_file(path) and os.path.lexists(path):
                raise ValueError("not an ordinary file")
            with path.open("rb") as stream:
                text = stream.read(_LARGEST + 1)
            document = _checked(json.loads(text) if len(text) <= _LARGEST else None, self._ours)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"cannot read {path}: {reason(error)}; choose another --out") from error
        except (ValueError, RecursionError) as error:
            if overwrite:
                return None
            raise OutputError(
                f"{path} is not the record of a run; choose another --out, or pass --overwrite"
            ) from error
        for line in _read_lines(self._lines):
            self._add(document, line)
        return document

    def _add(self, document: dict[str, Any], line: bytes) -> None:
        try:
            name, digest, source = json.loads(line)
            added = _checked({"settings": {}, "files": {name: digest}, "sources": {name: source}}, self._ours)
        except (ValueError, TypeError, RecursionError):
            return  # the last line of a killed process may be half there
        document["files"].update(added["files"])
        document["sources"].update(added["sources"])

    def make(self, name: str, write: Callable[[Path], object], source: str = "") -> Path:
        """Writes a file, unless it is finished already.

        Args:
            name: The file's name.
            write: Called with the path to write to.
            source: The SHA-256 of what the file is made of, where the settings do not tell.

        Returns:
            The path of the file.

        Raises:
            OutputError: The file cannot be written.
        """
        path = self.out / name
        if self.finished(name, source):
            self.found.append(name)
            return path

        def finishing(temporary: Path) -> None:
            digest = sha256(temporary)
            self._append(name, digest, source)
            self._document["files"][name] = digest
            self._document["sources"][name] = source

        with replacing(path, finishing) as temporary:
            write(temporary)
        return path

    def finished(self, name: str, source: str = "") -> bool:
        """Whether the file `name` was made of `source`, and still has the same bytes."""
        known = self._document["files"].get(name)
        path = self.out / name
        if known is None or self.source(name) != source or not is_file(path):
            return False
        try:
            return bool(sha256(path) == known)
        except OSError:
            return False

    def source(self, name: str) -> str:
        """The SHA-256 of what the file `name` was made of, or "" where that is not recorded."""
        return str(self._document["sources"].get(name, ""))

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Records the seconds that a step takes; of a continued run, the larger number, that of the real work."""
        start = time.perf_counter()
        yield
        seconds = round(time.perf_counter() - start, 3)
        timings = self._document["timings"]
        timings[step] = max(seconds, timings.get(step, 0))

    def record(self, **facts: Any) -> None:
        """Adds facts, which must be JSON-able, to the record."""
        self._document.update(facts)

    @property
    def command(self) -> str:
        """The command line that does this run again, or ""."""
        return str(self._document.get("command") or "")

    @property
    def timings(self) -> dict[str, float]:
        """Step -> seconds."""
        return dict(self._document["timings"])

    @property
    def files(self) -> dict[str, str]:
        """File name -> SHA-256, of every finished file."""
        return dict(self._document["files"])

    def _append(self, name: str, digest: str, source: str) -> None:
        """Writes the line of a file that is about to take its place; raises `OSError`."""
        line = json.dumps([name, digest, source]).encode() + b"\n"
        os.lseek(self._lines, 0, os.SEEK_END)
        while line:
            line = line[os.write(self._lines, line) :]
        os.fsync(self._lines)

    def save(self) -> None:
        """Writes `run.json`, after which no lines are needed; raises `OutputError`."""
        sources = {name: source for name, source in self._document["sources"].items() if source}
        document = {**self._document, "sources": sources}
        if not sources:
            del document["sources"]
        text = json_text(document, indent=2)
        with replacing(self.out / NAME) as path:
            path.write_text(text + "\n", "utf-8", "backslashreplace")
        self._forget_lines()

    def close(self) -> None:
        """Saves for the last time; where that fails, the lines stay, and the error says what they are for."""
        try:
            self.save()
        except OutputError as error:
            if os.fstat(self._lines).st_size == 0:
                raise
            raise OutputError(
                f"{error}, or make room and run the same command again: what is finished is noted in "
                f"{self.out / IN_USE}, and is not made twice"
            ) from error

    def _forget_lines(self) -> None:
        try:
            os.ftruncate(self._lines, 0)
        except OSError as error:
            raise OutputError(
                f"cannot write into {self.out}: {reason(error)}; choose another place"
            ) from error


def there_already(found: int, asked: int) -> tuple[str, ...]:
    """The remark on pictures that an earlier call had finished; none where there were none."""
    if not found:
        return ()
    verb = "was" if found == 1 else "were"
    return (f"{found} of {asked} {'picture' if asked == 1 else 'pictures'} {verb} there already",)


def _checked(document: object, ours: re.Pattern[str]) -> dict[str, Any]:
    """The parts of a record that a run continues from; of the files, those that the verb may have written.

    A record may be hostile: what it names is deleted, and what it says is shown. Raises `ValueError` for any other
    JSON.
    """
    if not isinstance(document, dict) or not isinstance(document.get("settings"), dict):
        raise ValueError("no settings")
    files = _texts(document.get("files"))
    sources = _texts(document.get("sources", {}))
    timings = document.get("timings", {})
    if not isinstance(timings, dict) or not all(_is_text(step) for step in timings):
        raise ValueError("timings")
    if not all(isinstance(one, int | float) and 0 <= one < math.inf for one in timings.values()):
        raise ValueError("timings")
    if not all(_plain(name) and _SHA256.fullmatch(digest) for name, digest in files.items()):
        raise ValueError("files")
    return {
        "status": "running",
        "settings": document["settings"],
        "versions": _texts(document.get("versions", {})),
        "timings": {step: float(seconds) for step, seconds in timings.items()},
        "files": {name: digest for name, digest in files.items() if ours.fullmatch(name)},
        "sources": {name: source for name, source in sources.items() if name in files},
    }


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(_is_text(one) for pair in value.items() for one in pair):
        raise ValueError("not an object of texts")
    return value


def _is_text(value: object) -> bool:
    """Whether it is a string of characters, without halves of surrogate pairs."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _read_lines(handle: int) -> list[bytes]:
    os.lseek(handle, 0, os.SEEK_SET)
    with os.fdopen(os.dup(handle), "rb") as stream:
        return stream.read(_LARGEST).splitlines()


def _plain(name: str) -> bool:
    return Path(name).name == name and name not in ("", ".", "..") and "\0" not in name


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs first between two settings, in words."""
    verbs = [str(_short(one.get("verb", "run"))) for one in (before, now)]
    if verbs[0] != verbs[1]:
        return f"it is of {verbs[0]}, and this is {verbs[1]}"
    for key in now:
        if before.get(key) != now[key]:
            return f"{key} was {_short(before.get(key))} there and is {_short(now[key])} now"
    return "it has more settings"


def _short(value: object) -> str:
    try:
        text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "something else"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 60 else text[:57] + "..."
