"""JLD2 files, Julia's dialect of HDF5, read and written without Julia.

`load` reads the files of JLD2 0.1 to 0.6, which have the format versions 0.1.1 and 0.2.0. `write` writes 0.1.1 by
default, which all of these read; JLD2 0.4 cannot read 0.2.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.errors import FormatError, OutputError, UsageError
from diptych.files import replacing
from diptych.formats.hdf5 import Hdf5File
from diptych.formats.jld2.reading import values_of
from diptych.formats.jld2.writing import serialise

__all__ = ["FORMATS", "Version", "load", "version", "write"]

FORMATS = ("0.1.1", "0.2.0")

# JLD2 before 0.4 calls itself a "Julia data file (HDF5), version 0.2.0", and JLD.jl, another format, one of 0.1.
_HEADER = re.compile(
    rb"(?:HDF5-based Julia Data Format|Julia data file \(HDF5\)(?=, version 0\.2)), version (\d+\.\d+\.\d+)\0"
    rb"(?: \((.{1,100}?) (\d+)-bit (LE|BE)\)\0)?"
)


@dataclass(frozen=True)
class Version:
    """What the header of a JLD2 file says.

    Attributes:
        format: The version of the format, such as "0.1.1".
        writer: What wrote the file, such as "Julia 1.10.4"; "" if the header does not say.
    """

    format: str
    writer: str


def version(path: str | Path) -> Version:
    """Reads the header of a JLD2 file.

    Args:
        path: The file.

    Raises:
        FormatError: If the file cannot be read or is not a JLD2 file, saying what it seems to be.
    """
    return _version(Hdf5File(path))


def load(path: str | Path) -> dict[str, Any]:
    """Reads a JLD2 file. Nothing in it is executed.

    Args:
        path: The file.

    Returns:
        The values by name, as `diptych.formats.julia` represents them; groups are dicts, and the group of committed
        types is left out. Uncompressed arrays are views of the mapped file, of Julia's shape.

    Raises:
        FormatError: If the file is damaged, of another kind, or holds something that is not read here.
        MissingExtra: If the package that decompresses Zstandard or LZ4 data is not installed.
    """
    file = Hdf5File(path)
    _version(file)
    return values_of(file)


def _version(file: Hdf5File) -> Version:
    head = bytes(file.data[: file.start])
    found = _HEADER.match(head[-512:] if len(head) >= 512 else head)
    if found is None:
        raise FormatError(f"{file.path} is {_stranger(file, head)}")
    if found[4] == b"BE":
        file.refuse("big-endian values", 0, "save the model on a little-endian machine")
    if not found[1].startswith(b"0."):
        file.refuse(f"JLD2 format {found[1].decode()}", 0, "give a file of the format 0.1 or 0.2")
    return Version(found[1].decode(), (found[2] or b"").decode("ascii", "replace"))


def _stranger(file: Hdf5File, head: bytes) -> str:
    if head.startswith(b"Julia data file (HDF5)"):  # version 0.1
        return "a file of the old package JLD.jl, not JLD2; load it in Julia with JLD and save it with JLD2"
    if head.startswith(b"MATLAB"):
        return "a MATLAB file, not JLD2; give a model that Flux wrote"
    start = bytes(file.data[: 1 << 20])
    if b"keras_version" in start or b"layer_names" in start:
        return "a Keras model in plain HDF5, not JLD2; export it to ONNX and give the .onnx file"
    return (
        "plain HDF5, as h5py and HDF5.jl write it, not JLD2; save the model with JLD2 (jldsave) or give ONNX"
    )


def write(path: str | Path, values: Mapping[str, Any], version: str = "0.1.1") -> None:
    """Writes a JLD2 file that `JLD2.load` and `Flux.loadmodel!` understand.

    The same values always give the same bytes. An array that occurs twice is written once and is one array in Julia.

    Args:
        path: The file.
        values: The values by name: tuples, `NamedTuple`s, lists, arrays of numbers of Julia's shape, lists of strings,
            numbers, strings, `Symbol`s and None, nested in any way. int, float and bool become Int64, Float64 and
            Bool; NumPy scalars keep their type.
        version: The version of the format, "0.1.1" or "0.2.0".

    Raises:
        OutputError: If a value is of another kind, or the file cannot be written.
        UsageError: If the version is unknown.
    """
    if version not in FORMATS:
        raise UsageError(f"JLD2 format {version!r} cannot be written; choose one of {', '.join(FORMATS)}")
    for name in values:
        if not name or "/" in name or "\0" in name or name == "_types":
            raise OutputError(f"a JLD2 file cannot have a value named {name!r}; choose another name")
    data = serialise(values, version)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
