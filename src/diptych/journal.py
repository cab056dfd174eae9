"""The record of a run in its folder, `run.json`: what was asked for, what is finished, and how to do it again.

With it, an interrupted run continues, and two different runs never share a folder. A file counts as finished if the
journal names it and its bytes still have the recorded hash.
"""

from __future__ import annotations

import json
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from diptych.errors import OutputError
from diptych.files import made_folder, replacing, sha256

__all__ = ["NAME", "Journal", "versions"]

NAME = "run.json"
_SAVE_EVERY = 1.0  # seconds: what a kill loses is made again, and thousands of files do not wait for saving
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


class Journal:
    """The journal of a folder.

    Args:
        out: The folder, made where it is missing.
        settings: Everything that decides the results, as a JSON object.
        ours: The file names that a run writes.
        overwrite: Whether to delete the files of a run with other settings, and replace files of these names
            that no recorded run wrote.

    Raises:
        OutputError: The folder holds a run with other settings, or files of these names that no recorded
            run wrote, and `overwrite` is False.
    """

    def __init__(
        self, out: Path, settings: Mapping[str, Any], ours: re.Pattern[str], *, overwrite: bool = False
    ) -> None:
        self.out = out
        self._ours = ours
        self._saved = 0.0
        self._document = self._begin(json.loads(json.dumps(settings)), overwrite)
        made_folder(out)
        self.save()

    def _begin(self, settings: dict[str, Any], overwrite: bool) -> dict[str, Any]:
        earlier = self._earlier(overwrite)
        if earlier is not None and earlier["settings"] == settings:
            return {**earlier, "status": "running"}
        if earlier is not None and not overwrite:
            changed = _difference(earlier["settings"], settings)
            raise OutputError(
                f"{self.out} holds a run with other settings ({changed}); choose another --out, or pass "
                "--overwrite to delete that run's files first"
            )
        if earlier is None and not overwrite:
            self._check_strangers()
        for name in earlier["files"] if earlier is not None else ():
            (self.out / name).unlink(missing_ok=True)
        return {"status": "running", "settings": settings, "versions": versions(), "timings": {}, "files": {}}

    def _check_strangers(self) -> None:
        found = self.out.iterdir() if self.out.is_dir() else ()
        strangers = sorted(path.name for path in found if self._ours.fullmatch(path.name))
        if strangers:
            raise OutputError(
                f"{self.out} holds {strangers[0]}, which no recorded run wrote; choose another --out, or pass "
                "--overwrite to replace it"
            )

    def _earlier(self, overwrite: bool) -> dict[str, Any] | None:
        path = self.out / NAME
        try:
            document = json.loads(path.read_text("utf-8"))
            names = document["files"]
            if not isinstance(document["settings"], dict) or not all(_plain(name) for name in names):
                raise ValueError
            names.items(), document["timings"].items()
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise OutputError(f"{self.out} is not a folder; choose another --out") from error
        except OSError as error:
            raise OutputError(f"cannot read {path}: {error.strerror}; choose another --out") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if overwrite:
                return None
            raise OutputError(
                f"{path} is not the record of a run; choose another --out, or pass --overwrite"
            ) from error
        return dict(document)

    def make(self, name: str, write: Callable[[Path], object]) -> Path:
        """The path of the file `name`, after `write` has written it unless it is finished already."""
        path = self.out / name
        if not self.finished(name):
            write(path)
            self._document["files"][name] = sha256(path)
            if time.monotonic() - self._saved > _SAVE_EVERY:
                self.save()
        return path

    def finished(self, name: str) -> bool:
        """Whether this run wrote the file `name`, and it still has the same bytes."""
        known = self._document["files"].get(name)
        path = self.out / name
        return known is not None and path.is_file() and sha256(path) == known

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

    def save(self) -> None:
        """Writes `run.json`."""
        with replacing(self.out / NAME) as path:
            path.write_text(json.dumps(self._document, indent=2, ensure_ascii=False) + "\n", "utf-8")
        self._saved = time.monotonic()


def _plain(name: object) -> bool:
    # A record may be hostile: never delete or read a file outside the folder.
    return isinstance(name, str) and Path(name).name == name and name not in ("", ".", "..")


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    for key in now:
        if before.get(key) != now[key]:
            return f"{key} was {_short(before.get(key))} there and is {_short(now[key])} now"
    return "it has more settings"


def _short(value: object) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
