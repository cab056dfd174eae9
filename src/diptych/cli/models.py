"""The commands about models themselves: `convert`, `inspect`, `list` and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diptych.cli.adjusting import adjustable
from diptych.cli.parameters import (
    CLASSES_HELP,
    MODEL_HELP,
    Architecture,
    Calibration,
    Engine,
    Function,
    Json,
    Key,
    ModelName,
    Output,
    Quantise,
    Quiet,
    Recipe,
    Shape,
    WrittenBy,
    functions_of,
)
from diptych.cli.terminal import Terminal, table, weights_text
from diptych.options import ReadOptions

__all__ = ["convert", "inspect", "list_models", "verify"]


@adjustable
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help=MODEL_HELP, show_default=False)],
    target: Annotated[
        str,
        typer.Argument(metavar="OUT", help="A model file; a folder is a Julia project.", show_default=False),
    ],
    architecture: Annotated[
        str | None,
        typer.Option(
            help="The architecture to fill, if IN holds weights alone: a name, a model file or model.jl."
        ),
    ] = None,
    written_by: WrittenBy = None,
    key: Key = None,
    function: Function = None,
    output: Output = None,
    flux_version: Annotated[
        str | None, typer.Option("--flux-version", help="The version of Flux to write for: 0.12 to 0.16.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help=CLASSES_HELP)] = None,
    shape: Shape = None,
    preprocessing: Recipe = None,
    preprocessing_inside: Annotated[
        bool, typer.Option("--preprocessing-inside", help="Write an .onnx file that takes uint8 pixels.")
    ] = False,
    no_certificate: Annotated[
        bool,
        typer.Option("--no-certificate", help="Do not store how far the numbers are from IN's (verify)."),
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Store the weights as float16.")] = False,
    quantise: Quantise = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Leave out channels that change nothing; the numbers stay.")
    ] = False,
    images: Calibration = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Convert a model to another format, or to a Julia project.

    The project runs by itself.
    """
    import diptych

    terminal = Terminal(as_json=as_json, quiet=quiet)
    done = diptych.convert(source, target, architecture=architecture, written_by=written_by, key=key,
                           functions=functions_of(function), output=output,
                           flux_version=flux_version,
                           classes=classes, preprocessing=preprocessing, certificate=not no_certificate,
                           half=half, quantise=quantise, images=images, prune=prune,
                           preprocessing_inside=preprocessing_inside, input_shape=_shape(shape))  # fmt: skip
    terminal.remarks(done.remarks)
    terminal.result(done.to_document(), "\n".join(map(str, done.paths)))


def inspect(
    model: ModelName,
    shape: Shape = None,
    architecture: Architecture = None,
    written_by: WrittenBy = None,
    key: Key = None,
    function: Function = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Describe a model: layers, shapes, parameters, origin.

    Also multiply-adds, receptive fields, its recipe and its classes.
    """
    import diptych
    from diptych.errors import WeightsAlone
    from diptych.loading import load

    try:
        loaded = load(model, ReadOptions(architecture, written_by, key, functions_of(function), output))
    except WeightsAlone as weights:
        Terminal(as_json=as_json, quiet=quiet).result(*weights_text(weights))
        return
    summary = diptych.inspect(loaded, _shape(shape))
    Terminal(as_json=as_json, quiet=quiet).result(summary.to_document(), summary.text().rstrip())


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
    run: Annotated[
        bool, typer.Option("--run", help="Run the code of a Julia project, one of your own, in Julia.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check the parity certificate of a converted file or Julia project again.

    Its weights, recipe and numbers must be those that were certified.
    """
    import diptych

    terminal = Terminal(as_json=as_json, quiet=quiet)
    found = diptych.verify(file, engine, architecture, run)
    terminal.remarks(found.remarks)
    terminal.result(found.to_document(), found.text())
    raise typer.Exit(0 if found.passed else 1)


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    from diptych.errors import UsageError

    try:
        return tuple(int(size) for size in text.replace("x", ",").split(","))
    except ValueError as error:
        raise UsageError(f"--shape is whole numbers such as 3,224,224, got {text!r}") from error
