"""Reading and writing model files.

Each format has a module with the same two functions, `read(path) -> Model` and `write(model, path)`, and an entry in
`FORMATS`. The first entry whose signature fits a file reads it.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diptych.errors import FormatError, ModelError, UnsupportedLayer, UsageError
from diptych.extras import imported
from diptych.files import is_file, is_folder, short_of_memory
from diptych.model import architectures
from diptych.model.layers.whole import WholeGraph
from diptych.model.model import Model

__all__ = ["FORMATS", "Format", "read", "read_whole", "write"]

_HEAD = 4096


@dataclass(frozen=True)
class Format:
    """One kind of model file.

    Attributes:
        name: As messages name it.
        suffixes: Lower case, with the dot; the first is the usual one.
        signature: Called with the first 4096 bytes and the size of a file; says whether it is of this format.
        can_read, can_write: Whether `module` has `read` and `write`.
        module: Below `diptych.formats`.
        options: Options that `write` takes besides the model and the path.
        reading: Options that `read` takes besides the path.
        by_name: Whether the suffix alone tells the format, because any text may be of it.
    """

    name: str
    suffixes: tuple[str, ...]
    signature: Callable[[bytes, int], bool]
    can_read: bool
    can_write: bool
    module: str = ""
    options: tuple[str, ...] = ()
    reading: tuple[str, ...] = ()
    by_name: bool = False


def _is_safetensors(head: bytes, size: int) -> bool:
    return 2 <= int.from_bytes(head[:8], "little") <= size - 8 and head[8:9] == b"{"


def _is_onnx(head: bytes, size: int) -> bool:
    # A protobuf message whose field 1 (ir_version) is a small number, followed by another field of ModelProto.
    return head[:1] == b"\x08" and head[1:2] <= b"\x20" and head[2:3] in (b"\x12", b"\x1a", b":", b"B", b"r")


def _is_torch(head: bytes, size: int) -> bool:
    return (head[:2] == b"PK" and b"/data.pkl" in head[:256]) or head.startswith(_BEFORE_1_6)


# The number that PyTorch before version 1.6 wrote first, as a pickle.
_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def _is_bson(head: bytes, size: int) -> bool:
    # A BSON document begins with its length in bytes and the type of its first element.
    return int.from_bytes(head[:4], "little") == size and head[4:5] <= b"\x13"


def _is_jld2(head: bytes, size: int) -> bool:
    return head.startswith((b"HDF5-based Julia Data Format", b"Julia data file (HDF5), version 0.2"))


def _is_text(head: bytes, size: int) -> bool:
    # A character of several bytes may be cut off at the end.
    strange = any(head.startswith(beginnings) for _, beginnings in _STRANGERS[:-1])
    return b"\0" not in head and not strange and len(head.decode("utf-8", "ignore").encode()) > len(head) - 4


_FLUX_READING = ("architecture", "flux_version", "key", "functions")

FORMATS = (
    Format(
        "safetensors", (".safetensors",), _is_safetensors, True, True, "safetensors", (), ("architecture",)
    ),
    Format("ONNX", (".onnx",), _is_onnx, True, True, "onnx", ("preprocessing_inside",), ("output",)),
    Format("PyTorch", (".pt", ".pth"), _is_torch, True, True, "torch", (), ("architecture",)),
    Format(
        "BSON (Flux)", (".bson",), _is_bson, True, True, "flux.bson_files", ("flux_version",), _FLUX_READING
    ),
    Format(
        "JLD2 (Flux)", (".jld2",), _is_jld2, True, True, "flux.jld2_files", ("flux_version",), _FLUX_READING
    ),
    Format(
        "Julia source",
        (".jl", ".ipynb", ".md"),
        _is_text,
        True,
        False,
        "julia_source",
        reading=("flux_version", "key"),
        by_name=True,
    ),
)

# Files often given by mistake, recognised only to name them in the error message.
_STRANGERS: tuple[tuple[str, tuple[bytes, ...]], ...] = (
    ("a picture", (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")),
    ("a Git LFS pointer, not the file itself: fetch it with git lfs pull", (b"version https://git-lfs",)),
    ("a web page, perhaps from a failed download", (b"<!DOCTYPE", b"<!doctype", b"<html", b"<HTML")),
    (
        "a file of the old package JLD.jl: load it in Julia with JLD and save it with JLD2",
        (b"Julia data file (HDF5)",),
    ),
    ("an HDF5 file", (b"\x89HDF\r\n",)),
    ("a NumPy array", (b"\x93NUMPY",)),
    ("a zip archive", (b"PK\x03\x04",)),
    ("a gzip archive", (b"\x1f\x8b",)),
    ("a Python pickle", (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")),
    ("JSON", (b"{", b"[")),
)


def read(path: str | Path, **options: Any) -> Model:
    """Reads the model in a file. The content decides the format; a known suffix must agree with it.

    Args:
        path: A file of one of `FORMATS`.
        **options: Options of the format:
            `architecture` (PyTorch, safetensors, Flux): a Model, the path of a model file or of Julia source, or the
            name of an architecture. It takes the weights of a file that holds only weights.
            `flux_version` (Flux, Julia source): such as "0.13.4", for a file that does not record it.
            `key` (Flux, Julia source): such as "generator", to choose one of several models in a file.
            `functions` (Flux): such as {"#30#31": "flatten"}, what closures compute whose code is not in the file.
            `output` (ONNX): the name of the output that the model gives, where a graph has several.

    Returns:
        The model.

    Raises:
        FormatError: The file does not exist, is empty or damaged, holds another format than its suffix says, or a
            format that Diptych cannot read.
        UsageError: The format does not take an option.
        MemoryError: There is not enough memory.
    """
    path = Path(path)
    head, size = _head(path)
    if head.startswith(b"PK") and (program := _program_in(path)):
        raise FormatError(f"{path} is {program}")
    named = _by_suffix(path)
    found = next((f for f in FORMATS if (not f.by_name or f is named) and f.signature(head, size)), None)
    if named is not None and found is not named:
        seems = _seems(found, head, path)
        advice = f"; rename it to {path.stem}{found.suffixes[0]}" if found is not None else ""
        raise FormatError(
            f"{path} does not hold {named.name}, although its name says so: it seems to be {seems}{advice}"
        )
    if found is None:
        raise FormatError(
            f"{path} is not a model file that Diptych can read: it seems to be {_seems(found, head, path)}"
        )
    if not found.can_read:
        raise FormatError(
            f"{path} is a {found.name} file, which this version of Diptych cannot read; "
            f"save the model as one of {_names('can_read')}"
        )
    _check_options("reading", found.name, options, found.reading)
    given = options.get("architecture")
    if not isinstance(given, str | Path):
        return _read(path, found, options)
    return _filled(path, found, options, given)


def _filled(path: Path, found: Format, options: dict[str, Any], given: str | Path) -> Model:
    """The model in a file, with an architecture that is given as a file or a name.

    Of several models in Julia source, the one that the weights fit is taken.
    """
    version = options.get("flux_version")
    try:
        return _read(path, found, options | {"architecture": _architecture(given, version)})
    except FormatError as error:
        keys = getattr(error, "keys", None)
        if keys is None:
            raise
        several = error
    fitting: list[tuple[str, Model]] = []
    for key in keys:
        with suppress(FormatError, ModelError):
            architecture = _architecture(given, version, key)
            fitting.append((key, _read(path, found, options | {"architecture": architecture})))
    if len(fitting) != 1:
        what = "none of them fits" if not fitting else f"{', '.join(key for key, _ in fitting)} fit"
        text = str(several).split("; name the one")[0]
        raise FormatError(
            f"{text}; {what} the weights in {path}: name one with --architecture '{given}::{keys[0]}'"
        ) from several
    key, model = fitting[0]
    warnings = (f"the architecture is {key} of {given}, the only one there that fits", *model.source.warnings)
    return model.with_(source=replace(model.source, warnings=warnings))


def _read(path: Path, found: Format, options: dict[str, Any]) -> Model:
    try:
        model: Model = _module(found).read(path, **options)
    except FormatError as error:
        if short_of_memory(error):
            raise MemoryError from error
        raise
    return model


def _architecture(name: str | Path, flux_version: str | None, key: str | None = None) -> Model:
    """Reads the model file `name`, or makes the architecture of that name if it has no suffix.

    Of Julia source, "model.jl::generator" is the model of that key.
    """
    if is_source(name):
        file, _, chosen = str(name).partition("::")
        return read(file, flux_version=flux_version, key=key or chosen or None)
    if not Path(name).suffix:
        return architectures.named(str(name))
    named = _by_suffix(Path(name))
    takes = flux_version is not None and named is not None and "flux_version" in named.reading
    return read(name, flux_version=flux_version) if takes else read(name)


def is_source(name: str | Path) -> bool:
    """Whether a path names Julia source, or one model in it, as "model.jl::generator" does."""
    return any(
        Path(str(name).partition("::")[0]).suffix.lower() in f.suffixes
        for f in FORMATS
        if f.module == "julia_source"
    )


def write(model: Model, path: str | Path, **options: Any) -> tuple[str, ...]:
    """Writes a model in the format given by the suffix of `path`.

    Args:
        model: The model to write.
        path: The file to write; an existing file is replaced.
        **options: Options of the format:
            `preprocessing_inside` (ONNX): also write the recipe as operations of the graph.
            `flux_version` (Flux): the version of Flux to write for, such as "0.13.4".

    Returns:
        Remarks about what the target computes slightly differently, such as the LayerNorm of another Flux version.

    Raises:
        UsageError: The suffix or an option is unknown.
        UnsupportedLayer: The format cannot express the model.
        OutputError: The file cannot be written.
    """
    path = Path(path)
    target = written_as(path)
    _check_options("writing", target.name, options, target.options)
    for layer in model.layers.layers:
        if isinstance(layer, WholeGraph) and target.module != "onnx":
            raise layer.refused(target.name)
    return tuple(_module(target).write(model, path, **options) or ())


def read_whole(path: str | Path, output: str | None, obstacle: UnsupportedLayer) -> Model:
    """Reads a file that `read` has refused, as a model that one engine runs without taking it apart into layers.

    Args:
        path: The file.
        output: Which of several outputs of an ONNX graph, by its name.
        obstacle: Why `read` has refused it.

    Raises:
        UnsupportedLayer: The obstacle, where its format cannot be run so; or why the graph cannot.
        FormatError: The file is damaged.
    """
    found = _by_suffix(Path(path))
    if found is None or found.module != "onnx":
        raise obstacle
    model: Model = _module(found).read_whole(path, output, str(obstacle))
    return model


def written_as(path: str | Path) -> Format:
    """The format in which `write` writes to `path`.

    Raises:
        UsageError: The suffix is not that of a format that can be written.
    """
    path = Path(path)
    target = _by_suffix(path)
    if target is None or not target.can_write:
        what = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        folder = "" if path.suffix else "; for a Julia project, a folder, use diptych.convert"
        raise UsageError(
            f"{path.name or path} has {what}; models are written as {_names('can_write')}{folder}"
        )
    return target


def _check_options(verb: str, name: str, given: dict[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(given.keys() - set(known))
    if unknown:
        others = f"; it takes {', '.join(known)}" if known else ""
        raise UsageError(f"{verb} {name} takes no option {unknown[0]!r}{others}")


def _module(target: Format) -> Any:
    return imported(f"diptych.formats.{target.module}")


def _by_suffix(path: Path) -> Format | None:
    return next((f for f in FORMATS if path.suffix.lower() in f.suffixes), None)


def _names(ability: str) -> str:
    return ", ".join(suffix for f in FORMATS if getattr(f, ability) for suffix in f.suffixes)


def _head(path: Path) -> tuple[bytes, int]:
    if is_folder(path):
        raise FormatError(f"{path} is a folder, not a model file; name the file inside it")
    if os.path.exists(path) and not is_file(path):  # noqa: PTH110 - opening a pipe would block
        raise FormatError(
            f"{path} is a pipe or a device, not a file; save what comes from it as a file first"
        )
    try:
        with path.open("rb") as stream:
            head, size = stream.read(_HEAD), path.stat().st_size
    except FileNotFoundError as error:
        raise FormatError(f"there is no file {path}; check the path") from error
    except (OSError, ValueError) as error:
        raise FormatError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not head:
        raise FormatError(f"{path} is empty; it may have been cut off while copying")
    return head, size


def _zipped(path: Path) -> set[str] | None:
    """The names in a zip archive without their first folder; None for one that is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.partition("/")[2] for name in archive.namelist()}
    except Exception:  # zipfile raises EOFError, struct.error, RuntimeError and others for damage
        return None


def _program_in(path: Path) -> str:
    """What a zip archive is that holds a program of PyTorch, and what to do; empty for any other."""
    names = _zipped(path) or set()
    if "constants.pkl" in names:
        return "a TorchScript archive: load it with torch.jit.load and save its state_dict()"
    if names & {"archive_format", "serialized_exported_program.json"}:
        return "a program of torch.export: give diptych.from_torch what torch.export.load returns, with an example"
    return ""


def _seems(found: Format | None, head: bytes, path: Path) -> str:
    if found is not None:
        return found.name
    if head.startswith(b"PK"):
        return "a zip archive" if _zipped(path) is not None else "a zip archive, damaged or cut off"
    for name, beginnings in _STRANGERS:
        if head.startswith(beginnings):
            return name
    return "damaged or cut off, or of an unknown kind"
