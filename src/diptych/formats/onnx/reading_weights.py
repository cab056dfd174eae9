"""The arrays of an ONNX file, those in other files beside it included."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from diptych.errors import FormatError, reason
from diptych.model.layers import Array

__all__ = ["as_array", "initialisers"]


def initialisers(graph: Any, folder: Path | None) -> dict[str, Array]:
    """The weights of a graph by name.

    Args:
        graph: The graph.
        folder: Where the file lies, for weights in other files; None if there are none to look for.

    Raises:
        FormatError: An array is damaged, or its file is not there or lies elsewhere.
    """
    if graph.sparse_initializer:
        raise FormatError("it holds sparse weights, which Diptych does not read")
    return {tensor.name: as_array(tensor, folder) for tensor in graph.initializer}


def as_array(tensor: TensorProto, folder: Path | None = None) -> Array:
    """The array of one tensor; raises as `initialisers` does."""
    name = tensor.name[:60]
    if any(n < 0 for n in tensor.dims) or len(tensor.dims) > 8 or tensor.HasField("segment"):
        raise FormatError(f"the array {name!r} has the shape {tuple(tensor.dims)[:8]}")
    if tensor.data_location == TensorProto.EXTERNAL:
        return _plain(_external(tensor, name, folder), name)
    try:
        array: Array = numpy_helper.to_array(tensor)
    except Exception as error:  # a damaged tensor can make the library raise anything
        raise FormatError(f"the array {name!r} of shape {tuple(tensor.dims)} is damaged") from error
    return _plain(array, name)


def _plain(array: Array, name: str) -> Array:
    if array.dtype.kind not in "biuf":
        array = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    if array.dtype.kind not in "biuf":
        raise FormatError(f"the array {name!r} holds {array.dtype}, not plain numbers")
    return array


def _external(tensor: TensorProto, name: str, folder: Path | None) -> Array:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = PurePosixPath(entries.get("location", ""))
    if folder is None:
        raise FormatError(
            f"the weight {name!r} is in another file; save the model as one file, with onnx.save_model"
        )
    if not location.parts or location.is_absolute() or ".." in location.parts:
        raise FormatError(
            f"the weight {name!r} is said to lie in {str(location)[:80]!r}; only files beside the .onnx file are read"
        )
    path = folder / location
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve())
        if not inside or not path.is_file():
            raise FormatError(
                f"the weight {name!r} lies in {path}, which is not a file beside the .onnx file; copy it there"
            )
        size = path.stat().st_size
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).newbyteorder("<")
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or -1)
        expected = math.prod(tensor.dims) * dtype.itemsize
        if length < 0:
            length = expected
        if length != expected or offset < 0 or offset + length > size:
            raise FormatError(
                f"the weight {name!r} needs {expected:,} bytes, but {path} has {size:,} and "
                f"{max(length, 0):,} from byte {offset:,} are meant; copy it again"
            )
        flat = np.fromfile(path, dtype, math.prod(tensor.dims), offset=offset)
    except FileNotFoundError as error:
        raise FormatError(
            f"its weights lie in {path}, which is not there; copy it to beside the .onnx file"
        ) from error
    except OSError as error:
        raise FormatError(f"cannot read {path}, where its weights lie: {reason(error)}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(f"the weight {name!r} in {path} is described wrongly: {error}") from error
    return flat.reshape(tuple(tensor.dims))
