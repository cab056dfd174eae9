"""The arguments and options that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from diptych.engine_names import ENGINES, FILTERS_ONLY
from diptych.options import ExplainMethod

# ---- Options of every command -----------------------------------------------------------------------------

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
OpenPage = Annotated[bool, typer.Option("--open", help="Open the page in the browser at the end.")]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Paint nothing where words of the prompt are not understood: exit status 1."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]

# ---- The model, and how to read its file ----------------------------------------------------------------

MODEL_HELP = "A model file, or a name: scenes, timm/NAME, hf-hub:OWNER/NAME, ... (see list)."
ModelName = Annotated[str, typer.Argument(help=MODEL_HELP, show_default=False)]
Architecture = Annotated[
    str | None,
    typer.Option(
        help="The architecture to fill, if MODEL holds weights alone: a name, a model file or model.jl."
    ),
]
WrittenBy = Annotated[
    str | None,
    typer.Option(
        "--written-by",
        help="The version of Flux that wrote the file, such as 0.13.4, if the file does not say.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(help="Which of several models in a Flux file or Julia source, such as generator."),
]
Function = Annotated[
    list[str] | None,
    typer.Option(
        "--function",
        help="What a function computes whose code is not in the file: '#30#31=flatten'. Can be repeated.",
    ),
]
Output = Annotated[
    str | None, typer.Option("--output", help="Which of several outputs of an ONNX graph, by its name.")
]
Shape = Annotated[
    str | None,
    typer.Option(
        help="The input's shape, of one sample such as 3,224,224 or of a batch; default: the model's own."
    ),
]

# ---- Where it runs --------------------------------------------------------------------------------------


def _one_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}."


Engine = Annotated[
    str, typer.Option(help=_one_of(["auto", *(name for name in ENGINES if name not in FILTERS_ONLY)]))
]
FilterEngine = Annotated[str, typer.Option(help=_one_of(["auto", *ENGINES]))]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]

# ---- Pictures -------------------------------------------------------------------------------------------


def _limited(context: typer.Context, limit: int | None) -> int | None:
    """Sets the limit of pixels until the command ends."""
    if limit is not None and not context.resilient_parsing:
        from diptych.images.opening import pixel_limit

        context.with_resource(pixel_limit(limit))
    return limit


MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        callback=_limited,
        help="The most pixels that a picture may have to be read; default: 200 million.",
        show_default=False,
    ),
]
ExplainWith = Annotated[
    ExplainMethod | None,
    typer.Option(
        "--explain", help="Show what the answer for each picture stands on, as diptych explain does."
    ),
]
Static = Annotated[bool, typer.Option("--static", help="A page that runs nothing.")]
Quantise = Annotated[
    str | None, typer.Option(help="int8: an .onnx file of 8-bit weights and activations; needs --images.")
]
Calibration = Annotated[
    list[Path] | None,
    typer.Option(help="For --quantise and --half: pictures to calibrate and measure with; repeatable."),
]
CLASSES_HELP = (
    "Class names to store: a file (a line each, or JSON), imagenet-1k, cifar-10, cifar-100, or a list."
)
RECIPE_HELP = "A recipe: its name, with any size, such as grey-64; its file; or a model that carries one"
Recipe = Annotated[
    str | None, typer.Option("--preprocessing", help=f"{RECIPE_HELP}; default: the model's own.")
]
Scale = typer.Option(help="One colour scale for each map, or one for a layer.")
Report = Annotated[Path | None, typer.Option(help="Write an HTML page here.", show_default=False)]

# ---- Many pictures --------------------------------------------------------------------------------------

ManyImages = Annotated[
    list[Path] | None,
    typer.Argument(
        help='Picture files or folders; with --out also "patterns" and .tar archives.', show_default=False
    ),
]
Table = Annotated[
    bool,
    typer.Option(
        "--table",
        help="Write a table in parts to --out; a .parquet, .csv or .jsonl file there is a table anyway.",
    ),
]
Listed = Annotated[
    str | None, typer.Option("--list", help="A text file with one picture a line; - for standard input.")
]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Search folders inside folders too.")]
Columns = Annotated[
    str | None,
    typer.Option(
        help="Further columns of the table: top, probabilities, output, input, score, remarks.",
        show_default=False,
    ),
]
Embedding = Annotated[
    str | None,
    typer.Option(
        help="The path of a layer, such as 7: its output becomes the column embedding.", show_default=False
    ),
]
On = Annotated[
    str,
    typer.Option(
        help="local; ray, a cluster started here or named by RAY_ADDRESS; or its address, ray://..."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="How many processes; default: one for each processor.", show_default=False),
]
ShardSize = Annotated[
    int, typer.Option("--shard-size", min=1, help="How many pictures a part of the table has at most.")
]

# ---- Making pictures ------------------------------------------------------------------------------------

Prompt = Annotated[str | None, typer.Argument(help="What to draw, in words.", show_default=False)]
Count = Annotated[int, typer.Option("--count", "-n", help="How many pictures.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same pictures.")]
Generator = Annotated[str, typer.Option(help="scenes, tiny, or a diffusers model by id or folder.")]
Width = Annotated[int | None, typer.Option(help="Pixels; default: the generator's own.", show_default=False)]
Height = Annotated[int | None, typer.Option(help="Pixels; default: the generator's own.", show_default=False)]
Steps = Annotated[int | None, typer.Option(help="Diffusion: denoising steps.", show_default=False)]
Guidance = Annotated[float | None, typer.Option(help="Diffusion: guidance scale.", show_default=False)]
Negative = Annotated[str | None, typer.Option("--negative-prompt", help="Diffusion: what not to draw.")]


def functions_of(given: list[str] | None) -> dict[str, str]:
    """The functions by name from options such as `#30#31=flatten`. Raises `UsageError`."""
    from diptych.errors import UsageError

    pairs = [text.partition("=") for text in given or ()]
    for name, equals, meaning in pairs:
        if not name.strip() or not equals or not meaning.strip():
            raise UsageError(
                f"--function is a name and what it computes, such as '#30#31=flatten', not {name!r}"
            )
    return {name.strip(): meaning.strip() for name, _, meaning in pairs}
