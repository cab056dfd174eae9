"""safetensors files: the arrays by path, and the model document in the metadata entry "diptych".

The layout is that of https://github.com/huggingface/safetensors#format: 8 bytes with the length of the header, the
header in JSON, then the arrays without gaps. A file of another program has no such entry, and so no architecture.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from diptych.errors import FormatError, ModelError
from diptych.files import replacing
from diptych.formats.filling import filled
from diptych.model.document import from_document, to_document
from diptych.model.layers import Array
from diptych.model.model import Model, Source

__all__ = ["read", "write"]

_KEY = "diptych"
_LONGEST_HEADER = 16 * 2**20
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


def write(model: Model, path: str | Path) -> None:
    """Writes a model. The same model always gives the same bytes.

    Raises:
        ModelError: The model contradicts itself.
        OutputError: The file cannot be written.
    """
    document, arrays = to_document(model)
    metadata = {_KEY: json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)}
    plain = {name: np.asarray(a, a.dtype.newbyteorder("<"), order="C") for name, a in arrays.items()}
    with replacing(path) as temporary:
        safetensors.numpy.save_file(plain, temporary, metadata)


def read(path: str | Path, architecture: Model | None = None) -> Model:
    """Reads a file that `write` wrote, or fills an architecture with the weights of another one.

    Args:
        path: The file.
        architecture: What the arrays of a file of another program are the weights of.

    Returns:
        The model. Its arrays are views of the file's content, which is in memory once.

    Raises:
        FormatError: The file is damaged, does not fit the architecture, or has none and none is given.
    """
    path = Path(path)
    header, data = _open(path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or _KEY not in metadata:
        if architecture is not None:
            arrays = {name: _view(entry, data) for name, entry in header.items() if not _counts(entry)}
            return filled(path, arrays, architecture, Source("safetensors"), by_alphabet=True)
        raise FormatError(
            f"{path} holds {len(header)} arrays but no entry {_KEY!r}, so its architecture is unknown: "
            "name it with --architecture"
        )
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
        raise FormatError(f"{path} is damaged or cut off, safetensors says: {error}") from error
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}") from error


def _counts(entry: dict[str, Any]) -> bool:
    """Whether an array holds a whole number, such as the batches that a normalisation has seen."""
    return str(entry["dtype"]).startswith(("I", "U")) and entry["shape"] == []


def _view(entry: dict[str, Any], data: Array) -> Array:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise FormatError(f"an array has the type {entry['dtype']}, weights have {', '.join(_DTYPES)}")
    start, stop = entry["data_offsets"]
    return data[start:stop].view(dtype).reshape(entry["shape"])
