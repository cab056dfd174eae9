"""The commands: each parses its options, calls the function of the same name, and shows the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diptych.cli import parameters
from diptych.cli.adjusting import adjustable
from diptych.cli.doctor import doctor
from diptych.cli.examples import EXAMPLES, JOBS, epilog
from diptych.cli.explain import explain as explain_command
from diptych.cli.filter import app as filter_app
from diptych.cli.many import (
    is_table,
    job_options,
    layer_paths,
    many_pictures,
    one_picture,
    only_for_tables,
    separated,
    some,
)
from diptych.cli.models import convert, inspect, list_models, verify
from diptych.cli.parameters import (
    Architecture,
    Columns,
    Count,
    Device,
    Embedding,
    Engine,
    ExplainWith,
    Generator,
    Guidance,
    Height,
    Json,
    Key,
    Listed,
    ManyImages,
    MaxPixels,
    ModelName,
    Negative,
    On,
    OpenPage,
    Output,
    Prompt,
    Quiet,
    Recipe,
    Recursive,
    Report,
    Seed,
    ShardSize,
    Static,
    Steps,
    Strict,
    Table,
    Width,
    Workers,
    WrittenBy,
)
from diptych.cli.serve import serve as serve_command
from diptych.cli.site import site as site_command
from diptych.cli.terminal import Terminal, predictions_text
from diptych.cli.train import train as train_command
from diptych.cli.trying import TryRecipes, only_ranked, show_tried, show_tried_of_both
from diptych.options import GenerationOptions, OnError, ReadOptions, RunOptions, ScaleRule

app = typer.Typer(
    name="diptych",
    help="Make, run, show and check small vision models, with the same numbers in PyTorch and in Flux.",
    epilog=JOBS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(filter_app)

_TWICE = '; twice for A and for B, "" for none.'


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Make, run, show and check small vision models, with the same numbers in PyTorch and in Flux."""
    if version:
        from diptych.examining import version as own_version

        print(own_version())
        raise typer.Exit


@app.command()
@adjustable
def run(
    prompt: Prompt = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for everything.")] = Path("out"),
    images: Annotated[
        list[Path] | None, typer.Option(help="Existing pictures or folders; repeatable.")
    ] = None,
    model: Annotated[str, typer.Option(help=parameters.MODEL_HELP)] = str(RunOptions.model),
    architecture: Architecture = None,
    written_by: WrittenBy = None,
    key: Key = None,
    preprocessing: Recipe = None,
    count: Count = GenerationOptions.count,
    seed: Seed = GenerationOptions.seed,
    generator: Generator = GenerationOptions.generator,
    width: Width = None,
    height: Height = None,
    steps: Steps = None,
    guidance: Guidance = None,
    negative_prompt: Negative = None,
    maps: Annotated[
        str, typer.Option(help="Which layers to draw: conv, all, or paths such as 0,3.")
    ] = RunOptions.maps,
    scale: Annotated[ScaleRule, parameters.Scale] = RunOptions.scale,
    on_error: Annotated[
        OnError, typer.Option(help="An unreadable picture: report it, or put a test pattern in its place.")
    ] = RunOptions.on_error,
    explain: ExplainWith = None,
    static: Static = False,
    strict: Strict = False,
    open_page: OpenPage = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the other run that --out holds.")
    ] = False,
    engine: Engine = "auto",
    device: Device = "auto",
    max_pixels: MaxPixels = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go all the way from a prompt or pictures to a page about them.

    The page shows what the model sees of them, its predictions, and its feature maps.
    """
    from diptych import pipeline

    terminal = Terminal(as_json=as_json, quiet=quiet)
    if strict and prompt is not None:
        _check_prompt(prompt, generator)
    with terminal.progress() as progress:
        result = pipeline.run(
            prompt,
            images=images,
            out=out,
            model=model,
            architecture=architecture,
            written_by=written_by,
            key=key,
            preprocessing=preprocessing,
            count=count,
            seed=seed,
            generator=generator,
            width=width,
            height=height,
            maps=maps,
            scale=scale,
            on_error=on_error,
            explain=explain,
            static=static,
            overwrite=overwrite,
            engine=engine,
            device=device,
            progress=progress,
            **_given(steps=steps, guidance=guidance, negative_prompt=negative_prompt),
        )
    terminal.remarks(result.remarks, result.failures)
    shown = predictions_text(result.predictions) if result.predictions else "the model is not a classifier"
    terminal.result(result.to_document(), f"{shown}\nreport: {result.report}")
    if open_page:
        typer.launch(result.report.resolve().as_uri())
    raise typer.Exit(0 if result.ok else 1)


@app.command()
def generate(
    prompt: Prompt = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the pictures.")] = Path("images"),
    count: Count = 1,
    seed: Seed = GenerationOptions.seed,
    generator: Generator = GenerationOptions.generator,
    width: Width = None,
    height: Height = None,
    steps: Steps = None,
    guidance: Guidance = None,
    negative_prompt: Negative = None,
    strict: Strict = False,
    like: Annotated[Path | None, typer.Option(help="Make this picture again, from the record in it.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the other pictures that --out holds.")
    ] = False,
    device: Device = "auto",
    max_pixels: MaxPixels = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make pictures from text.

    They are PNG files that record their prompt, seed, generator and version.
    """
    from diptych.images.generation import generate_files

    chosen_device = None if device == "auto" else device
    settings = _given(steps=steps, guidance=guidance, negative_prompt=negative_prompt, device=chosen_device)
    terminal = Terminal(as_json=as_json, quiet=quiet)
    if strict:
        _check_prompt(prompt, generator, like)
    with terminal.progress() as progress:
        made = generate_files(
            prompt,
            GenerationOptions(count, seed, generator, width, height, settings),
            out=out,
            like=like,
            overwrite=overwrite,
            progress=progress,
        )
    terminal.remarks(made.remarks)
    terminal.result(made.to_document(), "\n".join(map(str, made.paths)))


@app.command()
@adjustable
def preprocess(
    images: ManyImages = None,
    preprocessing: Annotated[str, typer.Option(help=f"{parameters.RECIPE_HELP}.")] = "colour-32",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder for .npy and .png files, or for a table.")
    ] = Path("inputs"),
    table: Table = False,
    listed: Listed = None,
    recursive: Recursive = False,
    on: On = "local",
    workers: Workers = None,
    shard_size: ShardSize = 256,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete what --out holds of another recipe or other pictures.")
    ] = False,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn pictures into the arrays that a model takes.

    Writes NAME.npy and NAME.png for each picture, and the recipe as recipe.json; or a table of all.
    """
    from diptych.loading import recipe_of
    from diptych.preparing import preprocess_files

    terminal = Terminal(as_json=as_json, quiet=quiet)
    if not is_table(out, table):
        only_for_tables(
            "--table",
            list=listed,
            recursive=recursive,
            workers=workers,
            shard_size=shard_size != 256,
            on=on != "local",
        )
        with terminal.progress() as progress:
            done = preprocess_files(
                some(images), preprocessing, out=out, overwrite=overwrite, progress=progress
            )
        terminal.remarks(done.remarks, done.failures)
        terminal.result(done.to_document(), "\n".join(map(str, done.paths)))
        raise typer.Exit(0 if not done.failures else 1)
    from diptych.batch.tables import preprocessed_table

    with terminal.progress() as progress:
        job = preprocessed_table(
            recipe_of(preprocessing),
            many_pictures(images, listed, recursive),
            out=out,
            options=job_options(on, shard_size, workers, overwrite),
            progress=progress,
        )
    terminal.job(job)


@app.command()
@adjustable
def predict(
    model: ModelName,
    images: ManyImages = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write a table: a folder of Parquet files, or a .parquet, .csv or .jsonl file.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to show for each picture.")] = 3,
    softmax: Annotated[
        bool, typer.Option("--softmax", help="Make probabilities of the scores that the model gives.")
    ] = False,
    try_recipes: TryRecipes = False,
    columns: Columns = None,
    embedding: Embedding = None,
    listed: Listed = None,
    recursive: Recursive = False,
    on: On = "local",
    workers: Workers = None,
    shard_size: ShardSize = 256,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the other job that --out holds.")
    ] = False,
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
    """Show what a model predicts for pictures, one line each; with --out, write a table of any number of them.

    A table is written in parts. After an interruption the same command goes on, and makes no part again.
    """
    from diptych.loading import load, recipe_of
    from diptych.predicting import predict_files, with_softmax

    terminal = Terminal(as_json=as_json, quiet=quiet)
    loaded = load(model, ReadOptions(architecture, written_by, key, output=output))
    loaded = with_softmax(loaded) if softmax else loaded
    if try_recipes:
        only_ranked(out=out, preprocessing=preprocessing)
        show_tried(terminal, loaded, images, engine, device)
    if out is None:
        only_for_tables("--out", columns=columns, embedding=embedding, list=listed, recursive=recursive,
                        workers=workers, shard_size=shard_size != 256, on=on != "local",
                        overwrite=overwrite)  # fmt: skip
        with terminal.progress() as progress:
            done = predict_files(
                loaded,
                some(images),
                preprocessing=preprocessing,
                engine=engine,
                device=device,
                progress=progress,
            )
        terminal.remarks(done.remarks, done.failures)
        terminal.result(
            done.to_document(), predictions_text(done.predictions, top) if done.predictions else ""
        )
        if done.predictions and done.predictions.kind == "score" and loaded.classes:
            terminal.remark("these are scores, not probabilities: --softmax makes probabilities of them")
        raise typer.Exit(0 if not done.failures else 1)
    from diptych.batch.tables import predictions_table

    with terminal.progress() as progress:
        job = predictions_table(
            loaded,
            recipe_of(preprocessing or loaded),
            many_pictures(images, listed, recursive),
            out=out,
            engine=engine,
            device=device,
            columns=separated(columns),
            embedding=embedding,
            top=top,
            options=job_options(on, shard_size, workers, overwrite),
            progress=progress,
        )
    terminal.job(job)


@app.command()
@adjustable
def features(
    model: ModelName,
    images: ManyImages = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder for the plots, or for a table.")
    ] = Path("maps"),
    layers: Annotated[
        str, typer.Option(help="conv, all, or layer paths such as 0,3.1; a table has a column for each path.")
    ] = "all",
    scale: Annotated[ScaleRule, parameters.Scale] = "per-map",
    table: Table = False,
    listed: Listed = None,
    recursive: Recursive = False,
    on: On = "local",
    workers: Workers = None,
    shard_size: ShardSize = 256,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the other table that --out holds.")
    ] = False,
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
    """Plot the output of every layer for a picture, or write those of some layers for many as a table."""
    import diptych
    from diptych.loading import load, recipe_of

    terminal = Terminal(as_json=as_json, quiet=quiet)
    loaded = load(model, ReadOptions(architecture, written_by, key, output=output))
    if is_table(out, table):
        from diptych.batch.tables import features_table

        with terminal.progress() as progress:
            job = features_table(
                loaded,
                recipe_of(preprocessing or loaded),
                many_pictures(images, listed, recursive),
                layer_paths(layers),
                out=out,
                engine=engine,
                device=device,
                options=job_options(on, shard_size, workers, overwrite),
                progress=progress,
            )
        terminal.job(job)
    only_for_tables("--table", list=listed, recursive=recursive, workers=workers,
                    shard_size=shard_size != 256, on=on != "local",
                    overwrite=overwrite)  # fmt: skip
    with terminal.progress() as progress:
        paths = diptych.features(
            loaded,
            one_picture(images),
            out=out,
            layers=layers,
            scale=scale,
            engine=engine,
            device=device,
            preprocessing=preprocessing,
            progress=progress,
        )
    terminal.result({"files": [str(path) for path in paths]}, "\n".join(map(str, paths)))


@app.command()
@adjustable
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=parameters.MODEL_HELP, show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="The other one.", show_default=False)],
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Pictures or folders; repeatable. Default: photographs in the box."),
    ] = None,
    engine_a: Annotated[str, typer.Option("--engine-a", help="The engine A runs on.")] = "auto",
    engine_b: Annotated[str, typer.Option("--engine-b", help="The engine B runs on.")] = "auto",
    architecture: Annotated[
        list[str] | None,
        typer.Option(
            help=f"The architecture to fill, if a file holds weights alone: a name or a model file{_TWICE}"
        ),
    ] = None,
    written_by: Annotated[
        list[str] | None,
        typer.Option(
            "--written-by", help=f"The version of Flux that wrote a file, if the file does not say{_TWICE}"
        ),
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(help=f"Which of several models in a Flux file{_TWICE}")
    ] = None,
    preprocessing: Recipe = None,
    tolerance: Annotated[
        float, typer.Option(help="The largest difference that counts as equal, of a layer's largest value.")
    ] = 1e-4,
    try_recipes: TryRecipes = False,
    report: Report = None,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find where two models differ on the same input, and why.

    They are compared layer by layer; the likely cause is found by trying.
    """
    import diptych
    from diptych.files import check_place

    terminal = Terminal(as_json=as_json, quiet=quiet)
    if try_recipes:
        from diptych.loading import load

        only_ranked(preprocessing=preprocessing, report=report)
        given = [_each("architecture", architecture), _each("written-by", written_by), _each("key", key)]
        own = [[v if isinstance(v, str | None) else v[i] for v in given] for i in (0, 1)]
        options = [ReadOptions(architecture, written, named) for architecture, written, named in own]
        show_tried_of_both(terminal, (load(a, options[0]), load(b, options[1])), images, (engine_a, engine_b))
    if report is not None:
        check_place(report)
    found = diptych.compare(a, b, images, engine_a=engine_a, engine_b=engine_b,
                            architecture=_each("architecture", architecture),
                            written_by=_each("written-by", written_by), key=_each("key", key),
                            preprocessing=preprocessing, tolerance=tolerance)  # fmt: skip
    terminal.remarks(found.remarks)
    if report is not None:
        from diptych.report.comparison import write_comparison

        write_comparison(report, found)
        terminal.remark(f"report: {report}")
    terminal.result(found.to_document(), found.text())
    raise typer.Exit(0 if found.agrees else 1)


def _check_prompt(prompt: str | None, generator: str, like: Path | None = None) -> None:
    from diptych.images.generation import check_prompt, prompt_of

    asked = prompt if like is None else prompt_of(like)
    if asked is not None:
        check_prompt(asked, generator)


def _given(**options: object) -> dict[str, object]:
    """The options that the user set; the others are left to the generator."""
    return {name: value for name, value in options.items() if value is not None}


def _each(option: str, values: list[str] | None) -> str | tuple[str | None, str | None] | None:
    """The value of an option that is given once for both models, or twice, for A and for B."""
    from diptych.errors import UsageError

    if not values:
        return None
    if len(values) > 2:
        raise UsageError(f"--{option} is given once, or twice for A and for B, not {len(values)} times")
    return values[0] if len(values) == 1 else (values[0] or None, values[1] or None)


app.command("explain")(adjustable(explain_command))
app.command("train")(train_command)
app.command("serve")(adjustable(serve_command))
app.command("site")(site_command)
app.command()(convert)
app.command()(verify)
app.command()(inspect)
app.command("list")(list_models)
app.command()(doctor)

for _prefix, _app in (("", app), ("filter ", filter_app)):
    for _command in _app.registered_commands:
        _name = _prefix + str(_command.name or getattr(_command.callback, "__name__", ""))
        if _name in EXAMPLES:
            _command.epilog = epilog(_name)
