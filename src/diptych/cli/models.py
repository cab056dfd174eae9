"""The commands about models themselves: `list` and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diptych.cli.parameters import Architecture, Engine, Json, Quiet
from diptych.cli.terminal import Terminal, table

__all__ = ["list_models", "verify"]


def list_models(
    pattern: Annotated[
        str | None,
        typer.Argument(help="Which: scenes, 'timm/resnet*', torchvision/.", show_default=False),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the models that can be named, with size and licence.

    Those in the box and in the caches here; with a pattern such as timm/* also what timm and torchvision know.
    """
    from diptych.errors import UsageError
    from diptych.listing import list_models as listed

    terminal = Terminal(as_json=as_json, quiet=quiet)
    found = listed(pattern)
    if not found:
        raise UsageError(
            f"no model is called {pattern!r}; patterns have * and ?, such as 'timm/resnet*', and diptych list shows "
            "what is on this machine"
        )
    rows = [
        [entry.name, entry.where, _size(entry.size), entry.licence or "?", entry.about] for entry in found
    ]
    terminal.result(
        {"models": [entry.to_document() for entry in found]},
        table(["name", "where", "size", "licence", "what it is"], rows),
    )
    if pattern is None:
        terminal.remark("networks of others by name: diptych list timm/ and diptych list torchvision/")


def _size(count: int | None) -> str:
    if count is None:
        return "?"
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


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
