"""Model files by address: downloaded once, and kept under their checksum beside Hugging Face's cache."""

from __future__ import annotations

import os
from pathlib import Path

from diptych.datasets.downloading import download
from diptych.errors import OutputError, UsageError
from diptych.hub.cache import home, offline

__all__ = ["downloaded", "is_address"]


def is_address(name: str) -> bool:
    """Whether it is an address http(s)://..."""
    return name.startswith(("http://", "https://"))


def downloaded(name: str) -> Path:
    """The file of an address that ends in #sha256= and its checksum; nothing is downloaded that is there already.

    Raises:
        UsageError: The address has no checksum, or is not one of a file.
        OutputError: The file cannot be downloaded whole, or is another one than the checksum says.
    """
    address, mark, sum_ = name.partition("#sha256=")
    if not mark:
        raise UsageError(
            f"a model by address needs its checksum: {address[:200]}#sha256= and 64 hexadecimal digits; or download "
            "the file and name it"
        )
    folder = home() / "diptych" / sum_.lower()[:64]
    kept = folder / Path(address.partition("?")[0]).name
    if offline() and not os.path.lexists(kept):
        raise OutputError(
            f"{address[:200]} is not in the cache, and HF_HUB_OFFLINE forbids to download it: unset it, or name a file"
        )
    if len(sum_) != 64 or not all(digit in "0123456789abcdefABCDEF" for digit in sum_):
        raise UsageError(f"a SHA-256 is 64 hexadecimal digits, not {sum_[:100]!r}; copy it again")
    return download(address, folder, sum_)
