"""The models of a server: found, loaded and unloaded while others answer.

A folder holds NAME.SUFFIX, a model of one version, or NAME/VERSION/FILE for a whole number VERSION. What answers is one
mapping that is replaced as a whole, so a request keeps the version that it began with.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from diptych import formats, hub
from diptych.errors import DiptychError, UsageError, reason
from diptych.files import as_text, is_folder
from diptych.loading import load, recipe_of
from diptych.model.model import Model
from diptych.options import ServeOptions
from diptych.serving.answers import Paths, Refusal, retry_after
from diptych.serving.logs import Log
from diptych.serving.naming import name_and_model
from diptych.serving.served import Served

__all__ = ["Repository", "named_sources"]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Source:
    """Where the versions of a model are read from.

    Attributes:
        versions: What `load_model` takes, by version.
        folder: The repository that it was found in; None for a model that was named.
    """

    versions: Mapping[str, str | Path]
    folder: Path | None = None


@dataclass
class _State:
    """How it stands with a version: LOADING, READY or UNAVAILABLE, and why."""

    state: str
    reason: str = ""


@dataclass
class Repository:
    """The models of a server.

    Attributes:
        options: The engine, the recipe and how requests are joined.
        executor: Its threads compute.
        sources: Of models that were named, by name.
        folders: Those that are searched.
        paths: What is cut from messages.
        log: Where it is written what is not served, and what reading a model had to guess.
    """

    options: ServeOptions
    executor: Executor
    sources: dict[str, Source]
    folders: tuple[Path, ...]
    paths: Paths
    log: Log
    _ready: dict[str, dict[str, Served]] = field(default_factory=dict)
    _states: dict[tuple[str, str], _State] = field(default_factory=dict)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    # ---- What answers ---------------------------------------------------------------------------------------

    def find(self, name: str, version: str | None = None) -> Served:
        """The version of a model that is asked for, by default the highest. Raises `Refusal`."""
        versions = self._ready.get(name)
        if versions is None:
            raise self._missing(name)
        if version is None:
            return versions[max(versions, key=int)]
        if version not in versions:
            raise Refusal(
                404, f"the model {name} has no version {version[:40]!r}; ready are {', '.join(versions)}"
            )
        return versions[version]

    def _missing(self, name: str) -> Refusal:
        states = [state for (model, _), state in self._states.items() if model == name]
        if any(state.state == "LOADING" for state in states):
            return Refusal(503, f"the model {name} is being loaded; try again", retry_after(1), "REJECTED")
        if states:
            return Refusal(404, f"the model {name} is not loaded: {states[0].reason}; load it again first")
        known = ", ".join(sorted(self._ready)) or "none"
        return Refusal(404, f"there is no model {name[:80]!r}; ready are: {known}")

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are ready, in their order."""
        return sorted(self._ready.get(name, {}), key=int)

    def all(self) -> list[Served]:
        """Every version of every model that is ready."""
        return [served for name in sorted(self._ready) for _, served in sorted(self._ready[name].items())]

    def index(self) -> list[dict[str, str]]:
        """As the repository extension of Triton lists it: every version that is ready, was, or could be."""
        found = {**self.sources, **self._searched()}
        for name, source in found.items():
            for version in source.versions:
                self._states.setdefault((name, version), _State("UNAVAILABLE", "not loaded"))
        return [
            {"name": name, "version": version, "state": state.state, "reason": state.reason}
            for (name, version), state in sorted(self._states.items())
        ]

    # ---- Loading ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Loads every model. Raises the error of one that was named; one in a folder that cannot be read is logged."""
        for folder in self.folders:
            for left_out in _searched(folder)[1]:
                self.log.write("warning", "model", remark=f"{left_out} in {as_text(folder)} is not served")
        for name, source in {**self.sources, **self._searched()}.items():
            try:
                self._replace(name, self._made(name, source))
            except DiptychError as error:
                if name in self.sources:
                    raise
                self.log.write("warning", "model", model=name, error=f"{name} is not served: {error}")
        if not self._ready:
            self.log.write("warning", "model", remark="no model is served yet: load one when it is there")

    async def load(self, name: str) -> None:
        """Loads a model, or loads it again; until that is done, the versions from before go on answering.

        Raises:
            Refusal: There is no such model.
            DiptychError: It cannot be read or run. What answered before still does.
        """
        source = self.sources.get(name) or self._searched().get(name)
        if source is None:
            raise Refusal(
                404,
                f"there is no model {name[:80]!r} to be loaded; /v2/repository/index lists those there are",
            )
        await self._load(name, source)

    async def unload(self, name: str) -> None:
        """Lets a model answer no further requests; those that it has begun are finished."""
        if name not in self._ready:
            raise self._missing(name)
        async with self._lock(name):
            for version in self._ready.pop(name, {}):
                self._states[name, version] = _State("UNAVAILABLE", "unloaded")

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def _load(self, name: str, source: Source) -> None:
        loop = asyncio.get_running_loop()
        async with self._lock(name):
            self._replace(name, await loop.run_in_executor(None, self._made, name, source))

    def _made(self, name: str, source: Source) -> dict[str, Served]:
        """Every version of a model; either all can be run, or the error of one is raised and nothing has changed."""
        before = self._ready.get(name, {})
        new = [version for version in source.versions if version not in before]
        for version in new:
            self._states[name, version] = _State("LOADING")
        made: dict[str, Served] = {}
        try:
            for version, place in source.versions.items():
                made[version] = self._read(name, version, place, source.folder is None)
        except BaseException as error:
            said = self.paths.hidden(reason(error, 500))
            for each in new:
                why = said if each == version else "another version could not be loaded"
                self._states[name, each] = _State("UNAVAILABLE", why)
            raise
        return made

    def _replace(self, name: str, made: dict[str, Served]) -> None:
        """Lets these versions of a model answer from now on."""
        before = self._ready.get(name, {})
        for version in before.keys() - made.keys():
            self._states[name, version] = _State("UNAVAILABLE", "its file is gone")
        for version, served in made.items():
            self._states[name, version] = _State("READY")
            if version in before:
                served.statistics = before[version].statistics  # counters never go back
            self._tell(served)
        self._ready = {**self._ready, name: made}

    def _tell(self, served: Served) -> None:
        untrained = ("its weights are not trained",) if served.model.trained is False else ()
        for remark in (*served.model.source.warnings, *untrained):
            self.log.write("warning", "model", model=served.name, version=served.version, remark=remark)

    def _read(self, name: str, version: str, place: str | Path, named: bool) -> Served:
        options = self.options
        model: Model = load(place, options.reading if named else None)
        if options.preprocessing is not None and named:
            model = model.with_(preprocessing=recipe_of(options.preprocessing))
        return Served(name, version, model, options, self.executor)

    def _searched(self) -> dict[str, Source]:
        found: dict[str, Source] = {}
        for folder in self.folders:
            for name, source in _searched(folder)[0].items():
                if name in found or name in self.sources:
                    raise UsageError(f"two models are called {name}; rename one of them")
                found[name] = source
        return found


def named_sources(models: Sequence[str]) -> tuple[dict[str, Source], tuple[Path, ...]]:
    """The models and the folders that a command line names.

    Args:
        models: Each a model's name or file, NAME=MODEL, or a folder of models.

    Returns:
        The models by the name that they get in addresses, and the folders.

    Raises:
        UsageError: Two models have one name.
    """
    sources: dict[str, Source] = {}
    folders: list[Path] = []
    for text in models:
        given, model = name_and_model(text)
        if not given and is_folder(model) and not hub.is_name(model):
            folders.append(Path(model))
            continue
        name = given or _NOT_IN_NAMES.sub("-", Path(model.partition("#")[0]).name)
        if not given and Path(name).suffix.lower() in _suffixes(source=True):
            name = Path(name).stem
        if not name.strip(".-") or _NOT_IN_NAMES.search(name):
            raise UsageError(
                f"a model's name has letters, digits, '_', '-' and '.', not {name!r}; write NAME=FILE"
            )
        if name in sources:
            raise UsageError(f"two models are called {name}; give one another name: NAME=FILE")
        sources[name] = Source({"1": model})
    return sources, tuple(folders)


def _suffixes(*, source: bool = False) -> frozenset[str]:
    """Those of model files; a folder of models may have source code and texts beside them."""
    return frozenset(
        suffix for known in formats.FORMATS if source or not known.by_name for suffix in known.suffixes
    )


def _searched(folder: Path) -> tuple[dict[str, Source], list[str]]:
    """The models in a folder, by name, and what else is in it, with the reason why it is no model."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"the folder of models {as_text(folder)} cannot be read: {reason(error)}") from error
    found: dict[str, Source] = {}
    left_out = []
    for entry in entries:
        shown = as_text(entry.name)
        versions: dict[str, Path] = {}
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            versions, name = _versions(entry), entry.name
        elif entry.suffix.lower() in _suffixes():
            versions, name = {"1": entry}, entry.stem
        if not versions:
            left_out.append(
                f"{shown}, which is neither a model file nor a folder of versions such as {shown}/1/FILE,"
            )
        elif _NOT_IN_NAMES.search(name):
            left_out.append(
                f"{shown}, whose name has other characters than letters, digits, '_', '-' and '.',"
            )
        elif name in found:
            raise UsageError(
                f"two models in {as_text(folder)} are called {name}; rename or remove one of them"
            )
        else:
            found[name] = Source(versions, folder)
    return found, left_out


def _versions(folder: Path) -> dict[str, Path]:
    """The model file of each version of a model."""
    found: dict[str, Path] = {}
    for place in sorted(folder.iterdir()):
        if not place.is_dir() or not _VERSION.fullmatch(place.name):
            continue
        files = [file for file in sorted(place.iterdir()) if file.suffix.lower() in _suffixes()]
        if len(files) > 1:
            raise UsageError(
                f"the version {place.name} of {folder.name} has {len(files)} model files; leave one in its folder"
            )
        if files:
            found[place.name] = files[0]
    return found
