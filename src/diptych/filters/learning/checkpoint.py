"""The whole state of a training in one file, so that a training that was killed can resume."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from diptych.errors import FormatError
from diptych.files import replacing
from diptych.formats.torch import loading as torch_files

__all__ = ["damaged", "fingerprint", "load", "look", "save"]


def fingerprint(facts: Any, *arrays: Any) -> str:
    """A SHA-256 over JSON-able facts and arrays; a state is resumed only by a training with the same one."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def save(path: Path, state: dict[str, Any], identity: str) -> None:
    """Writes the state to a temporary file and renames it. Raises `OutputError`."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        torch.save({"identity": identity, **state}, stream)


def load(path: Path, identity: str) -> dict[str, Any] | None:
    """The state, or None where the file does not exist. Raises `FormatError` for another training's state."""
    if not path.exists():
        return None
    state = look(path)
    if state.pop("identity") != identity:
        raise FormatError(
            f"{path} belongs to a training of another filter, size, seed or set of pictures; "
            "delete it or name another file"
        )
    return state


def look(path: Path) -> dict[str, Any]:
    """The state of any training, its identity included. Raises `FormatError` for any other file."""
    try:
        state = torch_files.load(path)
    except FormatError as error:
        raise damaged(path) from error
    if not isinstance(state, dict) or not isinstance(state.get("identity"), str):
        raise damaged(path)
    return state


def damaged(path: Path) -> FormatError:
    """The error for a file that is not a checkpoint, or whose parts do not fit together."""
    return FormatError(
        f"{path} is not the checkpoint of a training, or it is damaged; delete it or name another file"
    )
