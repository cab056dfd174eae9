"""PyTorch files: ours hold the model document beside the tensors; a bare state_dict fills a named architecture.

    {"diptych": the document as JSON, "state": {"0.weight": tensor, ...}}

Files are read with `weights_only=True` alone, so that nothing in one is ever executed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diptych.errors import FormatError, ModelError, UsageError, WeightsAlone
from diptych.files import replacing
from diptych.formats.filling import filled, plain_names
from diptych.formats.torch.loading import load
from diptych.formats.torch.tracing import from_torch
from diptych.model import architectures
from diptych.model.document import from_document, to_document
from diptych.model.layers import Array
from diptych.model.model import Model, Source

__all__ = ["read", "write"]

_KEY = "diptych"
_FLOATS = (torch.float16, torch.float32, torch.float64)


def write(model: Model, path: str | Path) -> None:
    """Writes `model`: the same model always gives the same bytes, and `torch.load` opens them.

    Raises `ModelError` or `OutputError`.
    """
    document, arrays = to_document(model)
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    state = {name: torch.tensor(np.asarray(a, a.dtype.newbyteorder("="))) for name, a in arrays.items()}
    with replacing(path) as temporary, temporary.open("wb") as stream:
        torch.save({_KEY: text, "state": state}, stream)  # to a path, its name would be among the bytes


def read(path: str | Path, architecture: Model | nn.Module | str | None = None) -> Model:
    """The model in a file of ours, or `architecture` with the weights of a state_dict.

    The architecture is a model, a module or a name; a model's weights are filled in order and must have the
    same shapes. Raises `FormatError` where the file is damaged, holds pickled code or other weights, or
    is a state_dict and no architecture is given.
    """
    path = Path(path)
    content = load(path)
    if isinstance(content, dict) and isinstance(content.get(_KEY), str):
        return _own(path, content)
    state = _state(path, content)
    if architecture is None:
        raise WeightsAlone(
            f"{path} holds {len(state)} weights but no architecture: name one with --architecture, or load them "
            "into the module they belong to and use diptych.from_torch",
            [(name, tuple(tensor.shape)) for name, tensor in state.items()],
        )
    if isinstance(architecture, nn.Module):
        return _into_module(path, state, architecture)
    model = architectures.named(architecture) if isinstance(architecture, str) else architecture
    if not isinstance(model, Model):
        raise UsageError(
            f"an architecture is a Model, a torch.nn.Module or a name, got {type(model).__name__}"
        )
    return filled(model, dict(_distinct(path, state)), str(path), _source(), ordered=True)


def _own(path: Path, content: dict[Any, Any]) -> Model:
    state = content.get("state")
    if not isinstance(state, dict) or set(content) != {_KEY, "state"}:
        raise FormatError(f"{path} is damaged or was edited: beside {_KEY!r} it must hold 'state' alone")
    try:
        arrays = {str(name): _array(path, str(name), tensor) for name, tensor in state.items()}
        return from_document(json.loads(content[_KEY]), arrays)
    except (ModelError, FormatError) as error:
        raise FormatError(f"{path} is damaged or was edited: {error}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} holds a model document that is not JSON: {error}") from error


def _array(path: Path, name: str, tensor: Any) -> Array:
    if not isinstance(tensor, Tensor) or tensor.dtype not in (*_FLOATS, torch.bfloat16):
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise FormatError(f"{name[:80]!r} in {path} is not a weight of floating-point numbers but {kind}")
    _check_stored(path, name, tensor)
    own = tensor.detach()
    result: Array = own.to(torch.float32).numpy() if own.dtype == torch.bfloat16 else own.numpy()
    return np.asarray(result, order="C")


def _check_stored(path: Path, name: str, tensor: Tensor) -> None:
    """Refuses a sparse tensor, one without values, and one that repeats the few that it has."""
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise FormatError(
            f"the weight {name[:80]!r} in {path} is not stored in full; save it as a dense tensor"
        )


# ---- Weights without an architecture ------------------------------------------------------------------


def _state(path: Path, content: Any) -> dict[str, Tensor]:
    """The state_dict in a file: all of it, or one of its entries, beside epochs and optimisers."""
    for candidate in (content, *_entries(content)):
        if isinstance(candidate, Mapping) and candidate:
            tensors = {k: v for k, v in candidate.items() if isinstance(k, str) and isinstance(v, Tensor)}
            if len(tensors) == len(candidate):
                return dict(zip(plain_names(list(tensors)), tensors.values(), strict=True))
    raise FormatError(f"{path} holds no state_dict, a mapping of names to tensors; save module.state_dict()")


def _entries(content: Any) -> list[Any]:
    if not isinstance(content, Mapping):
        return []
    likely = ("state_dict", "model_state_dict", "model", "net", "weights", "params")
    return [content[key] for key in likely if key in content]


def _into_module(path: Path, state: dict[str, Tensor], module: nn.Module) -> Model:
    own = copy.deepcopy(module)
    for name, tensor in state.items():
        _check_stored(path, name, tensor)
        if tensor.is_floating_point():
            _array(path, name, tensor)
    try:
        own.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise FormatError(f"{path} does not fit {type(module).__name__}: {' '.join(lines)[:400]}") from error
    return from_torch(own).with_(source=_source())


def _distinct(path: Path, state: dict[str, Tensor]) -> list[tuple[str, Array]]:
    """The weights in order, shared ones once, counters of batches left out."""
    seen: set[tuple[Any, ...]] = set()
    result = []
    for name, tensor in state.items():
        if not tensor.is_floating_point() and name.endswith("num_batches_tracked"):
            continue
        array = _array(path, name, tensor)
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if key not in seen:
            result.append((name, array))
        seen.add(key)
    return result


def _source() -> Source:
    return Source("PyTorch", "torch")
