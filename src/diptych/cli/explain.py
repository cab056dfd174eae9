"""The command `explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diptych.cli.parameters import (
    Architecture,
    Device,
    Engine,
    Json,
    Key,
    MaxPixels,
    ModelName,
    Output,
    Quiet,
    Recipe,
    WrittenBy,
)
from diptych.cli.terminal import Terminal
from diptych.options import ExplainMethod, ReadOptions

__all__ = ["explain"]


def explain(
    model: ModelName,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The picture.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the pictures.")] = Path(
        "explained"
    ),
    method: Annotated[
        ExplainMethod,
        typer.Option(
            help="grad-cam: the maps of a layer, weighted (PyTorch). occlusion: how much the answer falls where a "
            "patch is covered. smooth-gradients: how much each pixel matters (PyTorch)."
        ),
    ] = "grad-cam",
    target: Annotated[
        str | None,
        typer.Option("--class", help="The class to explain, by name or number. Default: the predicted one."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="For grad-cam: the layer. Default: the last with maps.")
    ] = None,
    patch: Annotated[
        int | None,
        typer.Option(min=1, help="For occlusion: the side of the patch. Default: an eighth of the input's."),
    ] = None,
    engine: Engine = "auto",
    device: Device = "auto",
    architecture: Architecture = None,
    written_by: WrittenBy = None,
    key: Key = None,
    output: Output = None,
    preprocessing: Recipe = None,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show which parts of a picture a classifier's answer stands on.

    The map is made again with randomised weights: one that stays alike says nothing, and that is said.
    """
    import diptych
    from diptych.loading import load
    from diptych.report.explanation import write_explanation

    terminal = Terminal(as_json=as_json, quiet=quiet)
    loaded = load(model, ReadOptions(architecture, written_by, key, output=output))
    with terminal.progress() as progress:
        found = diptych.explain(loaded, image, method=method, target=target, layer=layer, patch=patch,
                                preprocessing=preprocessing, engine=engine, device=device,
                                progress=progress)  # fmt: skip
    files = write_explanation(out, found, [image])
    terminal.remarks(found.remarks)
    shown = "\n".join([f"{found.label}, {found.kind} {found.value:.4f}", *map(str, files)])
    terminal.result({**found.to_document(), "files": [str(path) for path in files]}, shown)
    raise typer.Exit(0 if found.says_something else 1)
