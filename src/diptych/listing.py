"""The verb `list`: the models that can be named."""

from __future__ import annotations

from fnmatch import fnmatchcase

from diptych.hub import listing
from diptych.hub.listing import Entry
from diptych.loading import TRAINED
from diptych.model import architectures

__all__ = ["Entry", "list_models"]


def list_models(pattern: str | None = None) -> tuple[Entry, ...]:
    """The models that can be named, those in the box first, then those in the caches of this machine.

    Args:
        pattern: Which ones, with * and ? as in a shell. One that begins with "timm/" or "torchvision/" also gives what
            these packages know; "timm/" alone means all of it.

    Raises:
        MissingExtra: The package that the pattern names is not installed.
    """
    box = [
        Entry(name, "box", path.stat().st_size, "MIT", "a trained classifier of ten landscape subjects")
        for name, path in TRAINED.items()
    ]
    box += [
        Entry(name, "box", None, "MIT", f"untrained: {text}") for name, text in architectures.NAMES.items()
    ]
    here = [*box, *listing.cached()]
    if not pattern:
        return tuple(here)
    wanted = f"{pattern}*" if pattern.endswith("/") else pattern
    found = [entry for entry in here if fnmatchcase(entry.name, wanted)]
    own = {entry.name for entry in found}
    return (*found, *(entry for entry in listing.known(pattern) if entry.name not in own))
