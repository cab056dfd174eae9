"""The command `doctor`."""

from __future__ import annotations

from diptych.cli.parameters import Json
from diptych.cli.terminal import Terminal

__all__ = ["doctor"]


def doctor(as_json: Json = False) -> None:
    """Say what is installed here: packages, engines, devices, Julia, caches; and how to install what is missing."""
    from diptych.examining import examine

    found = examine()
    Terminal(as_json=as_json, quiet=False).result(found.to_document(), found.text())
