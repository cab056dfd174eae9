"""safetensors files: the arrays by path, and the model document in the metadata entry "diptych".

The layout is that of https://github.com/huggingface/safetensors#format: 8 bytes with the length of the header, the
header in JSON, then the arrays without gaps. A file of another program has no such entry, and so no architecture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from diptych.errors import FormatError, ModelError, WeightsAlone
from diptych.files import replacing
from diptych.formats.filling import filled, listed
from diptych.model.document import from_document, to_document
from diptych.model.layers import Array
from diptych.model.model import Model, Source

__all__ = ["digest", "read", "write"]

_KEY = "diptych"
_LONGEST_HEADER = 16 * 2**20
_COUNTER = "num_batches_tracked"  # of PyTorch's BatchNorm, no weight
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


def write(model: Model, path: str | Path) -> None:
    """Writes a model. The same model always gives the same bytes.

    Raises:
        ModelError: The model contradicts itself.
        OutputError: The file cannot be written.
    """
    pieces = _of_model(model)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.writelines(pieces)


def digest(model: Model) -> str:
    """The SHA-256 of the file that `write` would write.

    Raises:
        ModelError: The model contradicts itself.
    """
    sha256 = hashlib.sha256()
    for piece in _of_model(model):
        sha256.update(piece)
    return sha256.hexdigest()


def _of_model(model: Model) -> Iterator[bytes | memoryview]:
    document, arrays = to_document(model)
    metadata = {_KEY: json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)}
    plain = {name: np.asarray(a, a.dtype.newbyteorder("<"), order="C") for name, a in arrays.items()}
    return _pieces(plain, metadata)


def _pieces(arrays: dict[str, Array], metadata: dict[str, str]) -> Iterator[bytes | memoryview]:
    """The bytes of a file as the safetensors library makes them, which leaves a file of its own where it is killed.

    It puts the widest types first, so that each array is aligned, and fills up the header with spaces.
    """
    names = {np.dtype(np.uint8): "U8", **{np.dtype(dtype): name for name, dtype in _DTYPES.items()}}
    ordered = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in ordered:
        array, start, end = arrays[name], end, end + arrays[name].nbytes
        header[name] = {"dtype": names[array.dtype], "shape": array.shape, "data_offsets": (start, end)}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in ordered:
        yield arrays[name].reshape(-1).view(np.uint8).data


def read(path: str | Path, architecture: Model | None = None) -> Model:
    """Reads a file that `write` wrote, or fills an architecture with the weights of another program's file.

    Args:
        path: The file.
        architecture: The model to fill if the file holds weights alone, with the names of PyTorch.

    Returns:
        The model. Its arrays are views of the file's content, which is in memory once.

    Raises:
        FormatError: The file is damaged, or holds weights alone that no architecture was given for, or that do not
            fit it.
    """
    path = Path(path)
    header, data = _open(path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or _KEY not in metadata:
        try:
            given = {n: _view(entry, data) for n, entry in header.items() if not n.endswith(_COUNTER)}
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error
        if architecture is None:
            raise WeightsAlone(
                f"{path} holds weights alone, {len(given)} arrays: name the model they belong to with --architecture "
                f"(in Python architecture= of diptych.read); their sizes: {listed(given)}",
                [(name, array.shape) for name, array in given.items()],
            )
        return filled(architecture, given, str(path), Source("safetensors"))
    try:
        arrays = {name: _view(entry, data) for name, entry in header.items()}
        return from_document(json.loads(metadata[_KEY]), arrays)
    except (ModelError, FormatError) as error:
        raise FormatError(f"{path} is damaged or was edited: {error}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} holds a model document that is not JSON: {error}") from error


def _open(path: Path) -> tuple[dict[str, Any], Array]:
    """The header, validated by the safetensors library, and the bytes after it."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > _LONGEST_HEADER:
                raise FormatError(f"{path} says its header is {length} bytes long; it is damaged")
            with safetensors.safe_open(path, framework="numpy"):  # validates every name, offset and size
                header = json.loads(stream.read(length))
            return header, np.fromfile(stream, np.uint8)
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise FormatError(
            f"{path} is damaged or cut off: its header is not whole; copy or download it again"
        ) from error
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}") from error


def _view(entry: dict[str, Any], data: Array) -> Array:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise FormatError(f"an array has the type {entry['dtype']}, weights have {', '.join(_DTYPES)}")
    start, stop = entry["data_offsets"]
    return data[start:stop].view(dtype).reshape(entry["shape"])
