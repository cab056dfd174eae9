"""BSON.jl files: `.bson` as Julia's BSON package writes it, read and written without Julia.

    load(path)            -> the values under the top keys
    dump(values)          -> the bytes of a file with these values
    write(values, path)      writes these bytes to a file

Values are represented as in `diptych.formats.julia`. `wire.py` converts between bytes and documents, `values.py` and
`documents.py` between documents and values. Nothing from a file is ever executed or imported.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych.errors import FormatError
from diptych.files import contents, replacing
from diptych.formats.bson.documents import document_of
from diptych.formats.bson.values import values_of
from diptych.formats.bson.wire import parse, serialise

__all__ = ["dump", "load", "write"]


def load(source: str | Path | bytes) -> dict[str, Any]:
    """Reads a BSON.jl file.

    Args:
        source: A file, or its bytes.

    Returns:
        The values under the top keys: a file of `BSON.@save "f.bson" model` gives {"model": ...}. Arrays are
        read-only views of the mapped file, of Julia's shape and in Fortran order. A value that the file does not
        really hold (a GPU array, a BigInt) is an `Unreadable`.

    Raises:
        FormatError: If the file is truncated, damaged or of another kind, with the byte or the place in the document.
    """
    name = "the document" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else _contents(Path(source))
    _check_kind(data, name)
    try:
        return values_of(parse(data, name), name, len(data))
    except RecursionError as error:
        raise FormatError(f"{name} is nested too deeply to be a model; get the file again") from error


def dump(values: Mapping[str, Any]) -> bytes:
    """The bytes of a BSON.jl file. The same values always give the same bytes.

    Args:
        values: The values by top key, as `load` gives them. A value of an unknown primitive type is a `JuliaStruct`
            whose only field is `bytes`. An object that occurs twice is stored once.

    Raises:
        FormatError: If a BSON.jl file cannot hold a value.
        OutputError: If the file would have 2 GiB or more.
    """
    try:
        return serialise(document_of(values))
    except RecursionError as error:
        raise FormatError("the values are nested too deeply for a BSON.jl file; flatten them") from error


def write(values: Mapping[str, Any], path: str | Path) -> None:
    """Writes the bytes of `dump` to a file, as a whole or not at all.

    Args:
        values: The values by top key.
        path: The file.

    Raises:
        FormatError: If a BSON.jl file cannot hold a value.
        OutputError: If the file cannot be written, or would have 2 GiB or more.
    """
    content = dump(values)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _contents(path: Path) -> bytes | mmap.mmap:
    try:
        return contents(path)
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}; check the path") from error


# ---- Files of another kind ----------------------------------------------------------------------------

_KINDS: tuple[tuple[int, bytes, str, str], ...] = (
    # offset and signature, then what such a file is, and advice
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
    """Raises `FormatError`, saying what the file seems to be, unless it starts with its own length as BSON does."""
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
        raise FormatError(
            f"{name} is not a BSON file: it does not start with its length; check what kind of file it is"
        )
    if length > size:
        raise FormatError(f"{name} is cut short: it has {size} of {length} bytes; get it again")
    if _is_dump(data, length):
        raise FormatError(
            f"{name} holds several BSON documents one after the other, as a MongoDB dump does; "
            "give a file that Julia's BSON.jl saved"
        )
    raise FormatError(f"{name} has {size - length} bytes too many after its BSON document; get it again")


def _is_dump(data: bytes | mmap.mmap, length: int) -> bool:
    following = int.from_bytes(data[length : length + 4], "little", signed=True)
    return data[length - 1] == 0 and 5 <= following <= len(data) - length
