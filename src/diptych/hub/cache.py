"""Where Hugging Face keeps what was downloaded, and whether it may be added to."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["home", "offline"]


def home() -> Path:
    """The folder of Hugging Face's cache: HF_HOME, or XDG_CACHE_HOME/huggingface, or ~/.cache/huggingface."""
    given = os.environ.get("HF_HOME")
    if given:
        return Path(given).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "huggingface"


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
