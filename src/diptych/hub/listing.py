"""What models there are by name: in the caches of this machine, and known to timm and torchvision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from diptych.extras import imported
from diptych.files import is_file, is_folder
from diptych.hub.cache import home

__all__ = ["Entry", "cached", "known"]


@dataclass(frozen=True)
class Entry:
    """One model that can be named.

    Attributes:
        name: What `diptych.load_model` takes.
        where: "box", "cache", "timm" or "torchvision".
        size: Bytes of its weights; None where that is not known.
        licence: As its author names it; "" where that is not known.
        about: What it is, in a few words.
    """

    name: str
    where: str
    size: int | None = None
    licence: str = ""
    about: str = ""

    def to_document(self) -> dict[str, Any]:
        """The entry as values that JSON can hold."""
        return {
            "name": self.name,
            "where": self.where,
            "bytes": self.size,
            "licence": self.licence or None,
            "about": self.about,
        }


# ---- On this machine -----------------------------------------------------------------------------------


def cached() -> list[Entry]:
    """The repositories with a config.json in Hugging Face's cache, and the addresses that were downloaded."""
    folder = Path(os.environ.get("HF_HUB_CACHE") or home() / "hub").expanduser()
    found = [entry for place in _folders(folder) if (entry := _repository(place)) is not None]
    for place in _folders(home() / "diptych"):
        files = [file for file in sorted(place.iterdir()) if file.suffix not in (".part", ".version")]
        about = f"from an address, sha256 {place.name[:12]}..."
        found += [Entry(str(file), "cache", file.stat().st_size, "", about) for file in files]
    return found


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.iterdir() if is_folder(path))
    except OSError:
        return []


_WEIGHTS = (".safetensors", ".bin", ".pth")


def _repository(place: Path) -> Entry | None:
    """What a folder models--OWNER--NAME holds, if it can be named here."""
    if not place.name.startswith("models--"):
        return None
    name = place.name.removeprefix("models--").replace("--", "/")
    for snapshot in reversed(_folders(place / "snapshots")):
        try:
            files = {path.name: path.stat().st_size for path in snapshot.iterdir() if path.is_file()}
        except OSError:
            continue
        weights = [size for file, size in files.items() if file.endswith(_WEIGHTS)]
        if not weights:
            continue
        if "config.json" in files:
            settings = _settings(snapshot / "config.json")
            if settings is None:
                continue
            own = settings.get("pretrained_cfg", settings)
            licence = settings.get("license") or (own.get("license") if isinstance(own, dict) else "")
            return Entry(
                f"hf-hub:{name}", "cache", max(weights), str(licence or ""), settings["architecture"]
            )
        if name.startswith("timm/"):
            return Entry(name, "cache", max(weights), "", name.partition("/")[2].partition(".")[0])
    return None


def _settings(path: Path) -> dict[str, Any] | None:
    import json

    try:
        with path.open("rb") as stream:
            settings = json.loads(stream.read(2**24))
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(settings, dict) and isinstance(settings.get("architecture"), str)
    return settings if whole else None


# ---- Known by name ---------------------------------------------------------------------------------------


def known(pattern: str) -> list[Entry]:
    """What timm or torchvision know.

    Args:
        pattern: Such as "timm/resnet*", or "torchvision/" for all of it; any other gives nothing.

    Raises:
        MissingExtra: The package that the pattern names is not installed.
    """
    package, slash, rest = pattern.partition("/")
    if not slash or package not in ("timm", "torchvision"):
        return []
    wanted = rest if rest else "*"
    names = _of_timm() if package == "timm" else _of_torchvision()
    return [entry for entry in names if fnmatchcase(entry.name.partition("/")[2], wanted)]


def _of_timm() -> Iterator[Entry]:
    timm = imported("timm")
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name)
        _, height, width = config.input_size
        about = f"{height} x {width}, {config.num_classes or 'no'} classes"
        yield Entry(f"timm/{name}", "timm", None, config.license or "", about)


def _of_torchvision() -> Iterator[Entry]:
    models = imported("torchvision.models")
    kept = Path(imported("torch").hub.get_dir()) / "checkpoints"
    for name in models.list_models():
        for weights in models.get_model_weights(name):
            meta = weights.meta
            size = meta.get("_file_size")
            classes = len(meta.get("categories") or ())
            metrics = [pair for found in (meta.get("_metrics") or {}).values() for pair in found.items()]
            figures = ", ".join(f"{metric} {value}" for metric, value in metrics)
            about = ", ".join(part for part in (f"{classes} classes" if classes else "", figures) if part)
            yield Entry(
                f"torchvision/{name}:{weights.name}",
                "cache" if is_file(kept / Path(weights.url).name) else "torchvision",
                None if size is None else round(size * 2**20),
                str(meta.get("license") or "bsd-3-clause"),
                about,
            )
