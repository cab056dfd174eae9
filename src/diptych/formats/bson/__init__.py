"""BSON.jl files: `.bson` as Julia's BSON package writes it, read and written without Julia.

    load(path)            -> the values under the top keys, as `julia.py` names them
    dump(values)          -> the bytes of such a file
    write(values, path)   the same into a file

The bytes are `wire.py`'s, the tagged documents `values.py`'s and `documents.py`'s. Nothing
from a file is ever executed or imported.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych.errors import FormatError
from diptych.files import replacing
from diptych.formats.bson.documents import document_of
from diptych.formats.bson.values import values_of
from diptych.formats.bson.wire import parse, serialise

__all__ = ["dump", "load", "write"]


def load(source: str | Path | bytes) -> dict[str, Any]:
    """The values under the top keys of a BSON.jl file: `BSON.@save "f.bson" model` gives {"model": ...}.

    Arrays are read-only views of the mapped file, in Julia's shape and Fortran order. What the file
    cannot hold (GPU arrays, BigInt) is `Unreadable` in its place. Raises `FormatError` for a file that
    is cut short, damaged, or of another kind, with the byte or the place in the document.
    """
    name = "the document" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else _map(Path(source))
    _check_kind(data, name)
    try:
        return values_of(parse(data, name), name, len(data))
    except RecursionError as error:
        raise FormatError(f"{name} is nested too deeply to be a model; get the file again") from error


def dump(values: Mapping[str, Any]) -> bytes:
    """The bytes of a BSON.jl file with `values` under its top keys: the same values, the same bytes.

    Takes what `load` gives (`julia.py`, and a JuliaStruct whose one field is `bytes` for a primitive type of
    its own). Objects that occur twice are stored once. Raises `FormatError` for a value that such a file
    cannot hold, `OutputError` from 2 GiB on.
    """
    try:
        return serialise(document_of(values))
    except RecursionError as error:
        raise FormatError("the values are nested too deeply for a BSON.jl file; flatten them") from error


def write(values: Mapping[str, Any], path: str | Path) -> None:
    """`dump` into a file, which appears whole or not at all. Raises `OutputError` where it cannot."""
    content = dump(values)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _map(path: Path) -> bytes | mmap.mmap:
    try:
        with path.open("rb") as stream:
            if path.stat().st_size == 0:
                return b""
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}; check the path") from error


# ---- Files of another kind ----------------------------------------------------------------------------

_KINDS: tuple[tuple[int, bytes, str, str], ...] = (
    # offset, signature, what it is, what to do
    (0, b"PK\x03\x04", "a zip archive, such as PyTorch's .pt", "name it .pt and read that"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "name it .jld2 if Julia's JLD2 wrote it"),
    (0, b"HDF5-based Julia Data Format", "a JLD2 file", "name it .jld2"),
    (512, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "name it .jld2 if Julia's JLD2 wrote it"),
    (0, b"\x93NUMPY", "a NumPy array", "give the file that holds the model"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run: git lfs pull"),
    (0, b"\x80\x02", "a Python pickle", "save it in Julia with BSON.@save, or from PyTorch as .safetensors"),
    (0, b"\x80\x03", "a Python pickle", "save it in Julia with BSON.@save, or from PyTorch as .safetensors"),
    (0, b"\x80\x04", "a Python pickle", "save it in Julia with BSON.@save, or from PyTorch as .safetensors"),
    (0, b"\x80\x05", "a Python pickle", "save it in Julia with BSON.@save, or from PyTorch as .safetensors"),
    (0, b"<", "a web page or XML", "download the file itself"),
)


def _check_kind(data: bytes | mmap.mmap, name: str) -> None:
    """Says what a file that is not BSON seems to be; a BSON file starts with its own length."""
    size = len(data)
    if size < 5:
        raise FormatError(f"{name} has {size} bytes, too few for a BSON file; get it again")
    length = int.from_bytes(data[:4], "little", signed=True)
    if length == size and data[size - 1] == 0:
        return
    for offset, signature, what, advice in _KINDS:
        if data[offset : offset + len(signature)] == signature:
            raise FormatError(f"{name} is {what}, not a BSON file that Julia wrote: {advice}")
    head = bytes(data[:64]).lstrip(b"\xef\xbb\xbf \t\r\n")
    if head[:1] in (b"{", b"["):
        raise FormatError(
            f"{name} is JSON text, not a BSON file that Julia wrote: give the file BSON.@save made"
        )
    if data[8:9] == b"{" and 0 < int.from_bytes(data[:8], "little") <= size - 8:
        raise FormatError(
            f"{name} is a safetensors file, not a BSON file that Julia wrote: name it .safetensors"
        )
    if length < 5:
        raise FormatError(f"{name} is not a BSON file: it does not start with its length; check what it is")
    if length > size:
        raise FormatError(f"{name} is cut short: {size} of {length} bytes are there; get it again")
    if _is_dump(data, length):
        raise FormatError(
            f"{name} holds several BSON documents one after the other, as a MongoDB dump does; "
            "give a file that Julia's BSON.jl saved"
        )
    raise FormatError(f"{name} has {size - length} bytes too many after its BSON document; get it again")


def _is_dump(data: bytes | mmap.mmap, length: int) -> bool:
    following = int.from_bytes(data[length : length + 4], "little", signed=True)
    return data[length - 1] == 0 and 5 <= following <= len(data) - length
