"""The command `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diptych.cli.parameters import Device, Engine, Json, MaxPixels, Quiet, Recipe
from diptych.cli.terminal import Terminal

__all__ = ["train"]


def train(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="One folder in it for each class.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model file to write, in any format.")] = Path(
        "mine.safetensors"
    ),
    backbone: Annotated[
        str | None,
        typer.Option(
            help="A classifier, by name or file, that stays as it is: only a layer behind it is trained. "
            "Default: a small CNN of its own."
        ),
    ] = None,
    size: Annotated[
        int, typer.Option(min=16, max=1024, help="Of the small CNN: the side of its input in pixels.")
    ] = 64,
    epochs: Annotated[
        int,
        typer.Option(min=1, help="How often the pictures are gone through, at most (300 steps at least)."),
    ] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the weights and the order.")] = 0,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the file, or an interrupted training of another kind."),
    ] = False,
    preprocessing: Recipe = None,
    engine: Engine = "auto",
    device: Device = "auto",
    max_pixels: MaxPixels = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a classifier for your own pictures.

    A fifth of the pictures is held out, and says how well it does. After an interruption the same command goes on.
    """
    import diptych

    terminal = Terminal(as_json=as_json, quiet=quiet)
    with terminal.progress() as progress:
        done = diptych.train(folder, out, backbone=backbone, size=size, epochs=epochs, seed=seed, overwrite=overwrite,
                             preprocessing=preprocessing, engine=engine, device=device,
                             progress=progress)  # fmt: skip
    terminal.remarks(done.remarks, done.failures)
    terminal.result(done.to_document(), f"{done.text()}\n{done.path}")
    raise typer.Exit(1 if done.failures else 0)
