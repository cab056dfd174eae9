"""safetensors: the arrays under their paths, and our model document as the metadata entry "diptych".

The layout is https://github.com/huggingface/safetensors#format: 8 bytes of header length, a JSON header,
then the arrays without gaps. Files that came without our entry hold weights but no architecture.
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
from diptych.model.document import from_document, to_document
from diptych.model.layers import Array
from diptych.model.model import Model

__all__ = ["read", "write"]

_KEY = "diptych"
_LONGEST_HEADER = 16 * 2**20
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


def write(model: Model, path: str | Path) -> None:
    """Writes `model`: the same model always gives the same bytes. Raises `ModelError` or `OutputError`."""
    document, arrays = to_document(model)
    metadata = {_KEY: json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)}
    plain = {name: np.asarray(a, a.dtype.newbyteorder("<"), order="C") for name, a in arrays.items()}
    with replacing(path) as temporary:
        safetensors.numpy.save_file(plain, temporary, metadata)


def read(path: str | Path) -> Model:
    """The model that `write` stored. The file is held in memory once, and every array is a view of it.

    Raises `FormatError` where the file is damaged, or is not one of Diptych's.
    """
    path = Path(path)
    header, data = _open(path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or _KEY not in metadata:
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
    """The header, checked by the library, and the bytes after it."""
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


def _view(entry: dict[str, Any], data: Array) -> Array:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise FormatError(f"an array has the type {entry['dtype']}, weights have {', '.join(_DTYPES)}")
    start, stop = entry["data_offsets"]
    return data[start:stop].view(dtype).reshape(entry["shape"])
