"""A model as a Julia project: a folder with readable Flux code, the weights, the recipe, and a check.

`write` makes the whole folder. `write_model` makes the part that the engine `flux` runs: the network and
its weights, without recipe, commands or expected activations.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import numpy as np

from diptych.errors import OutputError, UsageError
from diptych.files import is_file, is_folder, npy, replacing_folder, sha256
from diptych.formats.julia_project.expressions import Arrays, chain, string_literal
from diptych.formats.julia_project.recipe import preprocess_text
from diptych.formats.julia_project.templates import template
from diptych.model.entry import sample_shape
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.model.trace import Trace

__all__ = ["FLUX_VERSIONS", "MARK", "example_batch", "files_in", "write", "write_model"]

FLUX_VERSIONS = ("0.12", "0.13", "0.14", "0.15", "0.16")
MARK = "diptych.json"
"""It lists the files of an export, which a later one may replace."""
_KEPT = "Manifest.toml"  # which Julia writes into the folder
_LARGEST_MARK = 2**24  # bytes
_BATCH = 2

_PROJECT = """\
[deps]
FileIO = "5789e2e9-d7fb-5bc7-8068-2c6fae9b9549"
Flux = "587475ba-b771-5e3f-ad9e-33799f191a9c"
ImageIO = "82e4d734-157c-48bb-816b-45c225c6df19"
Printf = "de0858da-6303-5e67-8744-51eddeeeb8d7"

[compat]
FileIO = "1"
Flux = "{flux}"
ImageIO = "0.5, 0.6"
julia = "1.6"
"""

_MODEL = """\
# {title}, as Flux code. Axes are (W, H, C, N); each comment is the layer's path and its name in Diptych.

using Flux

include("arrays.jl")
include("layers.jl")

\"\"\"The network with its weights, in test mode.\"\"\"
function build_model()
    loaded = Dict{{String,Any}}()
    w(name) = get!(() -> read_npy(joinpath(@__DIR__, "weights", string(name, ".npy"))), loaded, name)

    model = {chain}

    Flux.testmode!(model)
    return model
end
"""


def write(
    model: Model,
    folder: str | Path,
    trace: Trace,
    flux_version: str | None = None,
    finishing: Callable[[Path], object] | None = None,
) -> None:
    """Writes the project, as a whole or not at all. The same model and trace always give the same bytes.

    Args:
        model: The model.
        folder: The folder, which must be new, empty or an earlier export.
        trace: The output of every layer for `example_batch(model)`, with which `predict.jl --check` compares.
        flux_version: The only version of Flux that the project accepts, one of `FLUX_VERSIONS`; all of them if None.
        finishing: Called with the folder of the whole project before it takes its place, to add to it.

    Raises:
        UnsupportedLayer: If Flux cannot express a layer.
        UsageError: If the version is unknown.
        OutputError: If the folder holds anything else, or cannot be written.
    """
    if flux_version is not None and flux_version not in FLUX_VERSIONS:
        known = ", ".join(FLUX_VERSIONS)
        raise UsageError(f"the Flux versions to write for are {known}, got {str(flux_version)[:40]!r}")
    flux = flux_version or ", ".join(FLUX_VERSIONS)
    preprocess, version = preprocess_text(model.preprocessing), metadata.version("diptych")
    with _appearing(Path(folder)) as place:
        write_model(model, place)
        _text(place / "Project.toml", _PROJECT.format(flux=flux))
        _text(place / "about.jl", _about(model))
        _text(place / "preprocess.jl", preprocess)
        for name in ("predict.jl", "read_image.jl"):
            _text(place / name, template(name))
        words = {"title": _title(model), "what": _what(model), "folder": Path(folder).name}
        words["flux"] = (
            flux_version or f"{FLUX_VERSIONS[0]} to {FLUX_VERSIONS[-1]}, whichever your Julia takes"
        )
        _text(place / "README.md", template("README.md").format(version=version, **words))
        (place / "expected").mkdir()
        for name, array in [("input", trace.input), *trace.items()]:
            (place / "expected" / f"{name}.npy").write_bytes(npy(array))
        if finishing is not None:
            finishing(place)
        files = {name: sha256(place / name) for name in files_in(place)}
        mark = {"diptych": version, "kind": "julia-project", "files": files}
        _text(place / MARK, json.dumps(mark, indent=1) + "\n")


def write_model(model: Model, folder: Path) -> None:
    """Writes model.jl, arrays.jl, layers.jl and weights/ into an existing folder.

    Args:
        model: The model.
        folder: The folder.

    Raises:
        UnsupportedLayer: If Flux cannot express a layer.
    """
    arrays = Arrays()
    text = _MODEL.format(title=_title(model), chain=chain(model.layers, arrays))
    _text(folder / "model.jl", text)
    for name in ("arrays.jl", "layers.jl"):
        _text(folder / name, template(name))
    (folder / "weights").mkdir()
    for name, array in arrays.files.items():
        (folder / "weights" / f"{name}.npy").write_bytes(npy(array))


def example_batch(model: Model, seed: int = 0) -> Array:
    """A batch for the check: random numbers, float32 in 0-1.

    Args:
        model: The model, whose `diptych.model.entry.sample_shape` is the shape of a sample.
        seed: The seed of the random numbers.

    Raises:
        ModelError: If the shape of the model's input is not known.
    """
    shape = (_BATCH, *sample_shape(model))
    return np.random.Generator(np.random.PCG64(seed)).random(shape, np.float32)


# ---- Texts -------------------------------------------------------------------------------------------------


def _about(model: Model) -> str:
    untrained = " (UNTRAINED weights: the values say nothing about the picture)"
    shape = "nothing" if model.input_shape is None else _vector(model.input_shape)
    layers = "".join(
        f"    {string_literal(path)} => {string_literal(layer.label)},\n" for path, layer in model.walk()
    )
    return (
        f"const MODEL_NAME = {string_literal(model.name or 'unnamed')}\n"
        f"const STANDING = {string_literal(untrained if model.trained is False else '')}\n"
        f"const CLASSES = String[{', '.join(map(string_literal, model.classes or ()))}]\n"
        f"const RECIPE = {string_literal('; '.join(_steps(model)))}\n\n"
        f"# One sample as NumPy has it, (C, H, W); `nothing` is a free size.\n"
        f"const INPUT_SHAPE = {shape}\n\n"
        f"# Every layer's path, counted from 0, and its name.\n"
        f"const LAYERS = Dict{{String,String}}(\n{layers})\n"
    )


def _steps(model: Model) -> list[str]:
    return model.preprocessing.describe() if model.preprocessing is not None else []


def _vector(sizes: Sequence[int | None]) -> str:
    values = ", ".join("nothing" if n is None else str(n) for n in sizes)
    return f"Union{{Int,Nothing}}[{values}]"


def _title(model: Model) -> str:
    name = "".join(c if c.isprintable() else " " for c in model.name)
    return name or "The model"


def _what(model: Model) -> str:
    classes = f" with {len(model.classes)} classes" if model.classes else ""
    untrained = "; its weights are initial ones, not trained" if model.trained is False else ""
    return f"A network of {model.parameters} parameters{classes}, as a Julia project{untrained}."


# ---- The folder --------------------------------------------------------------------------------------------


def _text(path: Path, text: str) -> None:
    path.write_text(text, "utf-8", newline="\n")


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder`, which may hold an earlier export as it was written."""
    if os.path.lexists(folder):
        own = _own_files(folder)
        if own:
            shown = f"{own[0]}{f' and {len(own) - 1} more' if len(own) > 1 else ''}"
            raise OutputError(
                f"{folder} is an earlier export, in which {shown} was added or changed since; move that away, or "
                "choose another folder"
            )
    with replacing_folder(folder) as place:
        yield place
        if is_file(folder / _KEPT):
            shutil.copy(folder / _KEPT, place / _KEPT)


def files_in(folder: Path) -> list[str]:
    """The names of all files in a project and the folders inside it, links included."""
    found = (Path(place, name) for place, inside, names in os.walk(folder) for name in (*names, *inside))
    return sorted(
        path.relative_to(folder).as_posix() for path in found if path.is_symlink() or not path.is_dir()
    )


def _own_files(folder: Path) -> list[str]:
    """What somebody added to an earlier export, or changed in it; raises `OutputError` for any other folder."""
    stranger = OutputError(f"{folder} exists and is not an earlier export of Diptych; choose another folder")
    try:
        if not is_folder(folder):
            raise stranger
        if not any(folder.iterdir()):
            return []
        if not is_file(folder / MARK) or (folder / MARK).stat().st_size > _LARGEST_MARK:
            raise stranger
        mark = json.loads((folder / MARK).read_bytes())
        if mark["kind"] != "julia-project":
            raise stranger
        written = {**dict(mark["files"]), MARK: None, _KEPT: None}
        return [
            name for name in files_in(folder) if name not in written or _changed(folder / name, written[name])
        ]
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        RecursionError,
    ):  # or a folder that may not be looked into
        raise stranger from None


def _changed(file: Path, digest: str | None) -> bool:
    return digest is not None and (not is_file(file) or sha256(file) != digest)
