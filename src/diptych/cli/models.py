"""The commands about models as files: `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diptych.cli.parameters import Architecture, Engine, Json, Quiet
from diptych.cli.terminal import Terminal

__all__ = ["verify"]


def verify(
    file: Annotated[
        Path, typer.Argument(help="A file or Julia project that convert wrote.", show_default=False)
    ],
    engine: Engine = "auto",
    architecture: Architecture = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check the parity certificate of a converted file or Julia project again.

    Its weights, recipe and numbers must be those that were certified.
    """
    import diptych

    terminal = Terminal(as_json=as_json, quiet=quiet)
    found = diptych.verify(file, engine, architecture)
    terminal.remarks(found.remarks)
    terminal.result(found.to_document(), found.text())
    raise typer.Exit(0 if found.passed else 1)
