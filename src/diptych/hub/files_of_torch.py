"""Files in the cache of torch.hub, which torchvision and timm use for weights that are not on the hub."""

from __future__ import annotations

from pathlib import Path

from torch import hub

from diptych.datasets.downloading import download
from diptych.errors import OutputError
from diptych.files import is_file
from diptych.hub.cache import offline

__all__ = ["torch_file"]


def torch_file(address: str, file: str) -> Path:
    """A file in that cache, downloaded where it is missing.

    Raises:
        OutputError: It is missing and cannot be downloaded whole.
    """
    folder = Path(hub.get_dir()) / "checkpoints"
    if is_file(folder / file):
        return folder / file
    if offline():
        raise OutputError(
            f"{file} is not in {folder}, and HF_HUB_OFFLINE forbids to download it: unset it where there is a "
            "connection, or put the file there"
        )
    try:
        return download(address, folder)
    except OutputError as error:
        raise OutputError(f"{file} is not in the cache, {folder}, and {error}") from error
