"""The command `site`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diptych.cli.parameters import Json, Quiet
from diptych.cli.terminal import Terminal

__all__ = ["site"]


def site(
    folder: Annotated[Path, typer.Argument(help="The folder; it is made where it does not exist.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write Diptych in the browser to FOLDER, as static files that any web server can publish.

    `diptych serve` serves the same files at /.
    """
    from diptych.site import write_site

    terminal = Terminal(as_json=as_json, quiet=quiet)
    with terminal.progress() as progress:
        write_site(folder, progress)
    terminal.result({"site": str(folder)}, f"site: {folder / 'index.html'}")
