"""A training's whole state in one file, so that one that was killed goes on as if it had not been."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import torch

from diptych.errors import FormatError
from diptych.files import replacing

__all__ = ["fingerprint", "load", "look", "save"]


def fingerprint(facts: Any, *arrays: Any) -> str:
    """A SHA-256 of JSON-able facts and arrays: what must be equal for a state to be gone on from."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def save(path: Path, state: dict[str, Any], identity: str) -> None:
    """Writes the state, all or nothing. Raises `OutputError`."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        torch.save({"identity": identity, **state}, stream)


def load(path: Path, identity: str) -> dict[str, Any] | None:
    """The state, None where there is none yet; raises `FormatError` for one of another training."""
    if not path.exists():
        return None
    state = look(path)
    if state.pop("identity") != identity:
        raise FormatError(
            f"{path} belongs to a training of another filter, size, seed or set of pictures; "
            "delete it or name another"
        )
    return state


def look(path: Path) -> dict[str, Any]:
    """The state with its identity, whatever training it is of; raises `FormatError` for another file."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        return dict(state, identity=state["identity"])
    except (
        OSError,
        RuntimeError,
        EOFError,
        KeyError,
        AttributeError,
        TypeError,
        pickle.UnpicklingError,
    ) as e:
        raise FormatError(
            f"{path} is not the checkpoint of a training, or damaged; delete it or name another"
        ) from e
