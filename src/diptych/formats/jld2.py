"""JLD2 files (Julia's HDF5 dialect) as Julia values, and back.

`load` reads what JLD2 0.4 to 0.6 write, format versions 0.1.1 and 0.2.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.errors import FormatError
from diptych.formats.hdf5 import Hdf5File
from diptych.formats.jld2_reading import values_of

__all__ = ["Version", "load", "version"]

_HEADER = re.compile(
    rb"HDF5-based Julia Data Format, version (\d+\.\d+\.\d+)\0 \(Julia ([^ ]+) (\d+)-bit (LE|BE)\)"
)


@dataclass(frozen=True)
class Version:
    """What the first bytes of a JLD2 file say: the format's version and the Julia that wrote it."""

    format: str
    julia: str


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
    return Version(found[1].decode(), found[2].decode("ascii", "replace"))


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
