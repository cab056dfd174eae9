"""`diptych filter ...`: learn a filter as a tiny network, evaluate it, look at it, and apply it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from diptych.cli.many import job_options, many_pictures, only_for_tables
from diptych.cli.parameters import (
    Architecture,
    Device,
    FilterEngine,
    Json,
    Key,
    MaxPixels,
    On,
    Quiet,
    Recursive,
    Report,
    ShardSize,
    Workers,
    WrittenBy,
)
from diptych.cli.terminal import Terminal
from diptych.files import is_folder
from diptych.options import ReadOptions

app = typer.Typer(
    name="filter",
    help="Teach a tiny network an image filter, and apply it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ModelFile = Annotated[str, typer.Argument(metavar="MODEL", help="A filter's model file.", show_default=False)]
EvaluationTarget = Annotated[
    str | None,
    typer.Option("--target", help="The filter to compare with; default: the one that the model learned."),
]
Pairs = Annotated[
    tuple[Path, Path] | None,
    typer.Option("--pairs", metavar="BEFORE AFTER", help="Two folders or files: pictures before and after."),
]
Images = Annotated[
    list[Path] | None,
    typer.Option("--images", help="Pictures or folders; repeatable. Default: photographs in the box."),
]


@app.command()
def learn(
    out: Annotated[Path, typer.Option("--out", "-o", help="The model file to write.", show_default=False)],
    target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="A filter by name, or package.module:function."),
    ] = None,
    pairs: Pairs = None,
    images: Annotated[
        str | None, typer.Option(help="A folder to learn from; default: photographs in the box.")
    ] = None,
    weights: Annotated[int | None, typer.Option(help="The most weights the network may have.")] = None,
    budget: Annotated[
        float | None, typer.Option(help="Seconds, after which the best network is kept.")
    ] = None,
    goal: Annotated[float | None, typer.Option(help="The held-out PSNR in dB that is enough.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same network.")] = 0,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="The file that keeps the state of training, to continue from.", show_default=False),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Write the model even where the filter was not learned.")
    ] = False,
    report: Report = None,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a small network that does what a filter does.

    Tells how well it does that, on pictures that it was not learned from: exact, close, approximate or not learned.
    """
    from diptych import formats
    from diptych.files import check_writable
    from diptych.filters.learning import learn as learned_from
    from diptych.filters.learning import together
    from diptych.filters.targets import resolve
    from diptych.filters.verdicts import NOT_LEARNED
    from diptych.images.arguments import remarks_on_folders

    with together():  # the processes of torchrun that are not the first compute gradients and end here
        given = _given(target, pairs)
        formats.written_as(out)  # before time is spent
        for place in filter(None, (out, report, checkpoint)):
            check_writable(place)
        filter_target = resolve(given)
        terminal = Terminal(as_json=as_json, quiet=quiet)
        terminal.remarks(remarks_on_folders([*([images] if images else []), *(pairs or ())], inside=True))
        with terminal.progress() as progress:
            learned = learned_from(filter_target, images, weights, budget, seed, goal=goal, checkpoint=checkpoint,
                                   progress=progress)  # fmt: skip
        found, written = learned.report, keep or learned.report.verdict != NOT_LEARNED
        if written:
            terminal.remarks(_written(learned, out))
        if report is not None:
            from diptych.filters.previewing import write_page
            from diptych.filters.samples import held_out

            write_page(report, learned, held_out(filter_target, images, seed), filter_target)
            terminal.remark(f"report: {report}")
        shown = (
            str(out)
            if written
            else f"not written to {out}, because the filter was not learned (--keep writes it)"
        )
        terminal.result(
            {"model": str(out) if written else None, **found.to_document()}, f"{found.text()}\nmodel: {shown}"
        )
        raise typer.Exit(1 if found.verdict == NOT_LEARNED else 0)


@app.command()
def apply(
    model: ModelFile,
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A picture or a folder of them.", show_default=False)
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file or folder to write.", show_default=False)
    ],
    tile: Annotated[
        int | None, typer.Option(help="The side of a tile in pixels; default: strips.", show_default=False)
    ] = None,
    edge: Annotated[
        str | None,
        typer.Option(
            help="Beyond the border: zero, reflect, symmetric, replicate or wrap; default: the filter's own."
        ),
    ] = None,
    table: Annotated[
        bool,
        typer.Option(
            "--table",
            help="Filter any number, resumably, and write a table of the files in parts beside them.",
        ),
    ] = False,
    recursive: Recursive = False,
    on: On = "local",
    workers: Workers = None,
    shard_size: ShardSize = 256,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the table of another job that OUT holds.")
    ] = False,
    engine: FilterEngine = "auto",
    device: Device = "auto",
    architecture: Architecture = None,
    written_by: WrittenBy = None,
    key: Key = None,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Apply a learned filter to pictures of any size.

    The result does not depend on the tiles.
    """
    from diptych.filters.applying import FolderResult, apply_file, apply_folder, apply_many

    terminal = Terminal(as_json=as_json, quiet=quiet)
    options: dict[str, Any] = {"tile": tile, "engine": engine, "device": device, "edge": edge}
    loaded = _loaded(model, ReadOptions(architecture, written_by, key))
    if table:
        with terminal.progress() as progress:
            job = apply_many(
                loaded,
                many_pictures([source], None, recursive),
                target,
                **options,
                options=job_options(on, shard_size, workers, overwrite),
                progress=progress,
            )
        terminal.job(job)
    only_for_tables(
        "--table",
        recursive=recursive,
        workers=workers,
        shard_size=shard_size != 256,
        on=on != "local",
        overwrite=overwrite,
    )
    with terminal.progress() as progress:
        if is_folder(source):
            result = apply_folder(loaded, source, target, **options, progress=progress)
        else:
            result = FolderResult((apply_file(loaded, source, target, **options, progress=progress),))
    terminal.remarks(result.remarks)
    several = len(result.applied) > 1
    for each in result.applied:
        name = f"{Path(each.path).name}: " if several else ""
        terminal.remarks([f"{name}{remark}" for remark in each.remarks])
    terminal.remarks((), result.failures)
    lines = (
        f"{each.path}: {each.size[1]} x {each.size[0]}, {each.seconds:.2f} s with {each.engine}"
        for each in result.applied
    )
    document = {"files": [each.to_document() for each in result.applied], "failures": list(result.failures)}
    document["remarks"] = list(result.remarks)
    terminal.result(document, "\n".join(lines))
    raise typer.Exit(1 if result.failures else 0)


@app.command()
def evaluate(
    model: ModelFile,
    target: EvaluationTarget = None,
    pairs: Pairs = None,
    images: Images = None,
    engine: FilterEngine = "auto",
    architecture: Architecture = None,
    written_by: WrittenBy = None,
    key: Key = None,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure how close a model is to its filter.

    Shows beside it what can be had without learning.
    """
    from diptych.filters.evaluating import evaluate as evaluated
    from diptych.images.arguments import remarks_on_folders

    found = evaluated(
        _loaded(model, ReadOptions(architecture, written_by, key)),
        _judge(target, pairs),
        images,
        engine=engine,
    )
    terminal = Terminal(as_json=as_json, quiet=quiet)
    terminal.remarks((*remarks_on_folders(images), *remarks_on_folders(pairs, inside=True)))
    terminal.result(found.to_document(), found.text())


@app.command()
def preview(
    model: ModelFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for pictures and report.html.")] = Path(
        "preview"
    ),
    target: EvaluationTarget = None,
    pairs: Pairs = None,
    images: Images = None,
    engine: FilterEngine = "auto",
    architecture: Architecture = None,
    written_by: WrittenBy = None,
    key: Key = None,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a model does to pictures, on a page.

    Writes input, target, output and amplified error as PNG files, and a page of them with the numbers.
    """
    from diptych.filters.previewing import preview as previewed
    from diptych.images.arguments import remarks_on_folders

    terminal = Terminal(as_json=as_json, quiet=quiet)
    terminal.remarks((*remarks_on_folders(images), *remarks_on_folders(pairs, inside=True)))
    with terminal.progress() as progress:
        made = previewed(_loaded(model, ReadOptions(architecture, written_by, key)), images, _judge(target, pairs), out,
                         engine=engine, progress=progress)  # fmt: skip
    terminal.result(made.to_document(), made.text())


@app.command("list")
def list_(as_json: Json = False, quiet: Quiet = False) -> None:
    """List every filter that has a name, by how well and how fast it is learned.

    Shows its parameters, and the library it is taken from.
    """
    from diptych.filters.targets import FILTERS
    from diptych.filters.targets.figures import figures, grouped
    from diptych.filters.verdicts import MEANINGS

    filters = [
        {
            "name": name,
            "summary": named.summary,
            "parameters": {key: _range(rule) for key, rule in named.parameters.items()},
            "channels": list(named.channels),
            "edge": None if plain.radius == 0 else plain.edge,
            "reference": plain.reference,
            "verdict": known.get("verdict"),
            "seconds": known.get("seconds"),
        }
        for name, named in FILTERS.items()
        for plain, known in [(named.target(name, {}), figures().get(name, {}))]
    ]
    entries = {each["name"]: _entry(each) for each in filters}
    groups = [
        "\n".join([f"# {head}", *(entries[name] for name in names)]) for head, names in grouped(FILTERS)
    ]
    bounds = "\n".join(f"{word}: {meaning}" for word, meaning in MEANINGS.items())
    terminal = Terminal(as_json=as_json, quiet=quiet)
    terminal.result(
        {"verdicts": dict(MEANINGS), "filters": filters}, "\n\n".join([*groups, f"# Verdicts\n{bounds}"])
    )


def _range(rule: Any) -> dict[str, Any]:
    values = {"choices": list(rule.choices)} if rule.choices else {"least": rule.least, "most": rule.most}
    return {"default": rule.default, **values}


def _entry(described: Mapping[str, Any]) -> str:
    parameters = ", ".join(
        f"{name}={rule['default']} ({' or '.join(map(str, rule['choices']))})"
        if "choices" in rule
        else f"{name}={rule['default']} ({rule['least']:g} to {rule['most']:.10g})"
        for name, rule in described["parameters"].items()
    )
    lines = [f"{described['name']}: {described['summary']}", *([f"    {parameters}"] if parameters else [])]
    lines += [f"    edge={described['edge']}"] if described["edge"] else []
    return "\n".join([*lines, f"    {described['reference']}"])


def _written(learned: Any, out: Path) -> tuple[str, ...]:
    """Writes the model, and gives remarks; to the folder for temporary files where its own place takes it no more."""
    import tempfile

    from diptych import formats
    from diptych.errors import OutputError

    try:
        return formats.write(learned.model, out)
    except OutputError as error:
        spare = Path(tempfile.mkdtemp(prefix="diptych-"))
        try:
            formats.write(learned.model, spare / out.name)
        except OutputError:
            spare.rmdir()
            raise OutputError(
                f"{error}; nothing is kept but a --checkpoint, from which the same command goes on"
            ) from error
        raise OutputError(
            f"{error}; what was learned is kept in {spare / out.name}: copy it from there"
        ) from error


def _given(target: str | None, pairs: tuple[Path, Path] | None) -> Any:
    """The target or the pairs; raises `UsageError` if neither or both are given."""
    from diptych.errors import UsageError

    if (target is None) == (pairs is None):
        raise UsageError(
            "name one filter: by name (`diptych filter list`), as package.module:function, or by "
            "--pairs BEFORE AFTER"
        )
    return pairs if target is None else target


def _judge(target: str | None, pairs: tuple[Path, Path] | None) -> Any:
    return None if target is None and pairs is None else _given(target, pairs)


def _loaded(model: str, reading: ReadOptions) -> Any:
    """Loads the model; raises `UsageError` if the name of a filter is given instead of a file."""
    from diptych.errors import UsageError
    from diptych.filters.targets import NAMES
    from diptych.loading import load

    name = model.partition(":")[0]
    if name in NAMES and not os.path.lexists(model):
        raise UsageError(
            f"{model!r} is a filter's name, not a model file; learn it first: "
            f"diptych filter learn {model} -o {name}.safetensors"
        )
    return load(model, reading)
