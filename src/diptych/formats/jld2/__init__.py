"""JLD2 files (Julia's HDF5 dialect) as Julia values, and back.

`load` reads what JLD2 0.4 to 0.6 write, format versions 0.1.1 and 0.2.0. `write` writes 0.1.1 unless told
otherwise: JLD2 0.4 reads nothing else, and 0.5 and 0.6 read it too.
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

_HEADER = re.compile(
    rb"HDF5-based Julia Data Format, version (\d+\.\d+\.\d+)\0(?: \((.{1,100}?) (\d+)-bit (LE|BE)\)\0)?"
)


@dataclass(frozen=True)
class Version:
    """What the first bytes of a JLD2 file say: the format's version, and who wrote it ("Julia 1.10.4")."""

    format: str
    writer: str


def version(path: str | Path) -> Version:
    """The versions that the header of a JLD2 file names.

    Raises `FormatError` where the file cannot be read or is not JLD2's, saying what it seems to be.
    """
    return _version(Hdf5File(path))


def load(path: str | Path) -> dict[str, Any]:
    """All values of a JLD2 file by name, groups as dicts, the committed types left out.

    Uncompressed arrays are views of the mapped file in Julia's shape; the nouns are those of `julia.py`.
    Nothing is executed. Raises `FormatError` for a file that is damaged, of another kind, or holds what is
    not read here, and `MissingExtra` for Zstandard or LZ4 data without their package.
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
        file.refuse(f"JLD2 format {found[1].decode()}", 0, "versions 0.1 and 0.2 are known")
    return Version(found[1].decode(), (found[2] or b"").decode("ascii", "replace"))


def _stranger(file: Hdf5File, head: bytes) -> str:
    if head.startswith(b"Julia data file (HDF5)"):
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
    """A JLD2 file with `values` under their keys, which `JLD2.load` and `Flux.loadmodel!` understand.

    Values are tuples, `NamedTuple`s, lists, arrays of numbers in Julia's shape, lists of strings, numbers
    (Int64, Float64 and Bool Python's own, others NumPy scalars), strings, `Symbol`s and None, nested at will.
    An array in two places is written once and is one array in Julia. The same values give the same bytes.

    Raises `OutputError` for anything else and where the file cannot be written, `UsageError` for an unknown
    version.
    """
    if version not in FORMATS:
        raise UsageError(f"JLD2 format {version!r} is not known; choose one of {', '.join(FORMATS)}")
    for name in values:
        if not name or "/" in name or "\0" in name or name == "_types":
            raise OutputError(f"a JLD2 file cannot have a value named {name!r}; choose another name")
    data = serialise(values, version)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
